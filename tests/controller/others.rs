//! Others at work on a node, each of whom is waited for; and Machines, which know their nodes.

use anyhow::{Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use ringfence::api::FenceAgentsRemediation;
use serde_json::{Value, json};

use crate::stage::{Cluster, NAMESPACE, Remediation, SOON, Stage, message, phase_of, play, with_kind};

/// The node is excluded, leased, and at another remediator's, one after the other: each is waited for and named, nothing is
/// sent, and it goes on by itself.
#[test]
fn others_are_waited_for_and_named() {
    play(async {
        let stage = Cluster::shared().await?.stage("others").await?;
        let node = stage.victim().name();
        let nodes: Api<Node> = Api::all(stage.client.clone());
        let label = |value: Value| Patch::Merge(json!({"metadata": {"labels": {EXCLUDE: value}}}));
        nodes.patch(node, &PatchParams::default(), &label(json!("true"))).await?;
        let leases = lease(&stage, "node-maintenance").await?;
        let snr = |name: &str| {
            let annotations = json!({"remediation.medik8s.io/node-name": node});
            foreign(
                &stage,
                SNR,
                "v1alpha1",
                "SelfNodeRemediation",
                json!({"metadata": {"name": name, "annotations": annotations}}),
            )
        };
        let (remediations, first, _) = snr("others-a").await?;
        let (_, second, _) = snr("others-b").await?;
        stage.victim().hang();
        let far = stage.remediate(json!({"timeout": "10s"})).await?;
        waits(&far, "Excluded", EXCLUDE).await?;
        nodes.patch(node, &PatchParams::default(), &label(Value::Null)).await?;
        waits(&far, "NodeLeased", "node-maintenance").await?;
        leases.delete(&format!("node-{node}"), &DeleteParams::default()).await?;
        waits(&far, "ForeignRemediation", &format!("SelfNodeRemediation {NAMESPACE}/{first}")).await?;
        let over = Patch::Merge(json!({"status": {"conditions": [{"type": "Succeeded", "status": "False"}]}}));
        remediations.patch(&first, &PatchParams::default(), &over).await?;
        waits(&far, "ForeignRemediation", &format!("SelfNodeRemediation {NAMESPACE}/{second}")).await?;
        ensure!(stage.face.commands(stage.victim()).is_empty() && stage.victim().state().on, "it was sent an off");
        remediations.delete(&second, &DeleteParams::default()).await?;
        far.phase("Done", SOON).await?;
        stage.replacement(SOON).await?;
        stage.judged().await
    });
}

/// MachineHealthCheck names a remediation after the Machine that owns it: the node is the Machine's.
#[test]
fn a_machine_knows_its_node() {
    play(async {
        let stage = Cluster::shared().await?.stage("machine").await?;
        let machine = |name: &str, status: Value| json!({"metadata": {"name": name}, "status": status});
        let node_ref = json!({"nodeRef": {"name": stage.victim().name()}});
        let (_, name, uid) = foreign(&stage, CAPI, "v1beta1", "Machine", machine("m-good", node_ref)).await?;
        let (_, nodeless, nodeless_uid) =
            foreign(&stage, CAPI, "v1beta1", "Machine", machine("m-new", json!({}))).await?;
        let owned = |name: &str, uid: &str| {
            let owner = json!({"apiVersion": format!("{CAPI}/v1beta1"), "kind": "Machine", "name": name, "uid": uid});
            json!({"metadata": {"name": name, "ownerReferences": [owner]}, "spec": stage.spec(json!({"timeout": "10s"}))})
        };
        let without = Remediation::create(&stage.client, owned(&nodeless, &nodeless_uid)).await?;
        let halted = without.halted_for("RemediationFinishedNodeNotFound", "NodeNotFound", SOON).await?;
        ensure!(message(&halted).contains("m-new") && message(&halted).contains("nodeRef"), "{}", message(&halted));
        without.delete().await?;
        without.gone(SOON).await?;

        stage.victim().hang();
        let far = Remediation::create(&stage.client, owned(&name, &uid)).await?;
        let done = far.phase("Done", SOON).await?;
        let pinned = done.status.and_then(|status| status.node).map(|node| node.name);
        ensure!(pinned.as_deref() == Some(stage.victim().name()), "{pinned:?}");
        stage.replacement(SOON).await?;
        far.delete().await?;
        far.gone(SOON).await?;
        stage.node_is_clean(stage.victim(), SOON).await?;
        stage.judged().await
    });
}

const EXCLUDE: &str = "remediation.medik8s.io/exclude-from-remediation";
const SNR: &str = "self-node-remediation.medik8s.io";
const CAPI: &str = "cluster.x-k8s.io";

/// It waits, says for what, and is not failed for NHC.
async fn waits(far: &Remediation, reason: &str, whom: &str) -> Result<()> {
    far.halted("Unknown", reason, SOON).await?;
    let says = |far: &FenceAgentsRemediation| message(far).starts_with("waiting: ") && message(far).contains(whom);
    far.until(&format!("waiting for {whom}"), SOON, |far| phase_of(far) == "Halted" && says(far)).await?;
    Ok(())
}

/// Leases the victim for an hour.
async fn lease(stage: &Stage, holder: &str) -> Result<Api<Lease>> {
    let api: Api<Lease> = Api::namespaced(stage.client.clone(), "medik8s-leases");
    let renewed = format!("{:.6}", jiff::Timestamp::now());
    let spec = json!({"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 3600});
    let lease = json!({"metadata": {"name": format!("node-{}", stage.victim().name())}, "spec": spec});
    api.create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
    Ok(api)
}

/// Creates an object of a kind that is not ours; returns its name and UID.
async fn foreign(
    stage: &Stage,
    group: &str,
    version: &str,
    kind: &str,
    object: Value,
) -> Result<(Api<DynamicObject>, String, String)> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = Api::namespaced_with(stage.client.clone(), NAMESPACE, &resource);
    let object = serde_json::from_value(with_kind(&resource.api_version, kind, object))?;
    let made = api.create(&PostParams::default(), &object).await?;
    Ok((api.clone(), made.name_any(), made.uid().unwrap_or_default()))
}

//! The happy path and its variations: fenced, proven off, released and back.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::bmc::redfish::Fault;
use testbed::rack::Layout;

use crate::stage::{Cluster, SOON, Stage, condition, phase_of, play, taint_keys};

/// R1 to R4, S1, S3, L5: the whole cycle, with either strategy; an administrator's taints survive; what FAR's users read is
/// there.
#[test]
fn a_hung_node_is_fenced_released_and_back() {
    play(async {
        let cluster = Cluster::shared().await?;
        for strategy in ["OutOfServiceTaint", "ResourceDeletion"] {
            let stage = cluster.stage(&format!("cycle-{}", strategy.to_lowercase())).await?;
            let admin = json!({"key": "example.com/admin", "value": "mine", "effect": "PreferNoSchedule"});
            let nodes: Api<Node> = Api::all(stage.client.clone());
            let patch = Patch::Merge(json!({"spec": {"taints": [admin]}}));
            nodes.patch(stage.victim().name(), &PatchParams::default(), &patch).await?;

            stage.victim().hang();
            let far = stage.remediate(json!({"remediationStrategy": strategy})).await?;
            stage.replacement(SOON).await?;
            let done = far.phase("Done", SOON).await?;
            ensure!(condition(&done, "Succeeded").0 == "True", "{done:?}");
            ensure!(condition(&done, "FenceAgentActionSucceeded").0 == "True");
            let proof = done.status.and_then(|status| status.proof).context("no proof in status")?;
            ensure!(proof.kind == "PowerOff" && proof.binding.as_deref() == Some("Identity"), "{proof:?}");
            stage.rack.ready().await.context("the node is back")?;
            for event in ["RemediationStarted", "FenceAgentExecuted", "FenceAgentSucceeded", "RemediationFinished"] {
                far.event(event).await?;
            }
            far.delete().await?;
            far.gone(SOON).await?;
            stage.node_is_clean(stage.victim(), SOON).await?;
            let node = stage.node(stage.victim()).await?;
            ensure!(taint_keys(&node) == ["example.com/admin"], "S4: {:?}", taint_keys(&node));
            stage.judged().await?;
            ensure!(stage.victim().history().iter().map(|change| change.on).collect::<Vec<_>>() == [false, true]);
        }
        Ok(())
    });
}

/// S1: after `action: off` the machine stays off, and no NoExecute taint of ours is left.
#[test]
fn off_stays_off_without_a_barrier() {
    play(async {
        let stage = Cluster::shared().await?.stage("cycle-off").await?;
        stage.victim().hang();
        let changes = json!({"sharedparameters": {"--action": "off"}, "remediationStrategy": "OutOfServiceTaint"});
        let far = stage.remediate(changes).await?;
        stage.replacement(SOON).await?;
        let done = far.phase("Done", SOON).await?;
        ensure!(condition(&done, "Succeeded").0 == "True");
        let node = stage.node(stage.victim()).await?;
        let executes = node.spec.unwrap_or_default().taints.unwrap_or_default();
        ensure!(
            executes.iter().all(|taint| taint.key.starts_with("node.kubernetes.io/un") || taint.effect != "NoExecute"),
            "{executes:?}"
        );
        ensure!(!stage.victim().state().on, "action: off means off");
        far.delete().await?;
        far.gone(SOON).await?;
        ensure!(!stage.victim().state().on, "and nobody switches it on afterwards");
        stage.judged().await
    });
}

/// A hung BMC delays nobody else's fencing.
#[test]
fn a_hung_bmc_delays_nobody_else() {
    play(async {
        let cluster = Cluster::shared().await?;
        let (stuck, well) = tokio::try_join!(cluster.stage("slow-stuck"), cluster.stage("slow-well"))?;
        stuck.face.set_fault(stuck.victim(), Some(Fault::Hang));
        stuck.victim().hang();
        let hangs = stuck.remediate(json!({"timeout": "20s"})).await?;
        hangs.phase("Accepted", SOON).await?;
        well.victim().hang();
        let far = well.remediate(json!({})).await?;
        well.replacement(Duration::from_secs(20)).await?;
        far.phase("Done", SOON).await?;
        let waiting = hangs.get().await?;
        ensure!(!["Done", "Releasing", "Restoring"].contains(&phase_of(&waiting)), "{:?}", waiting.status);
        stuck.kept().await?;
        well.judged().await
    });
}

/// A1, L6: a second remediation of one node waits, and takes over when the first can no longer do anything.
#[test]
fn a_second_remediation_waits_and_takes_over() {
    play(async {
        let stage = Cluster::shared().await?.stage("second").await?;
        stage.face.set_fault(stage.victim(), Some(Fault::LieOff));
        stage.victim().hang();
        let first = stage.remediate(json!({"retrycount": 1})).await?;
        first.phase("Proving", SOON).await?;
        let second = stage.remediate(json!({})).await?;
        second.halted("Unknown", "Busy", SOON).await?;
        first.halted("False", "NotProven", SOON).await?;
        stage.face.set_fault(stage.victim(), None);
        second.phase("Done", SOON).await?;
        stage.replacement(SOON).await?;
        let halted = first.get().await?;
        ensure!(phase_of(&halted) == "Halted", "it gave the node away: {:?}", halted.status);
        for far in [&second, &first] {
            far.delete().await?;
            far.gone(SOON).await?;
        }
        stage.node_is_clean(stage.victim(), SOON).await?;
        stage.judged().await
    });
}

/// Several at once, one of them with a BMC that never answers: each goes its own way.
#[test]
fn several_nodes_are_fenced_at_once() {
    play(async {
        let cluster = Cluster::shared().await?;
        let stage = Stage::new(&cluster.plane, Layout::workers("several", 8)).await?;
        let victims = &stage.rack.machines()[..6];
        stage.face.set_fault(&victims[5], Some(Fault::Hang));
        let mut all = vec![];
        for victim in victims {
            victim.hang();
            all.push(stage.remediate_node(victim.name(), json!({"timeout": "10s"})).await?);
        }
        stage.replacement(SOON).await?;
        for far in &all[..5] {
            far.phase("Done", SOON).await?;
        }
        ensure!(phase_of(&all[5].get().await?) != "Done");
        for victim in &victims[..5] {
            let power: Vec<_> = victim.history().iter().map(|change| change.on).collect();
            ensure!(power == [false, true], "{}: {power:?}", victim.name());
        }
        stage.judged().await
    });
}

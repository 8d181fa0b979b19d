//! `deploy/confirmation.yaml` on a real API server: who may give a person's word, that it stays as it was given, and that
//! the operator notices when nobody vouches for it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use ringfence::api::{RemediationConfirmation, Verdict};
use ringfence::{clock, confirm};
use serde_json::{Value, json};
use testbed::controlplane::{ControlPlane, Timings};
use testbed::wait;

use crate::stage::{Cluster, NAMESPACE, SOON, merge, play, with_kind};

const PERSON: &str = "alice";

/// Whoever RBAC lets through, and is no person, is refused by the policy: each under its own name, and under a person's.
#[test]
fn nobody_but_a_person_confirms_and_only_in_their_own_name() {
    play(async {
        let plane = &Cluster::shared().await?.plane;
        plane.apply_yaml(APPROVERS).await?;
        let alice = plane.client_as(PERSON, &[]).await?;
        allowed(&alice, PERSON).await?;

        for (name, groups) in [
            ("system:node:worker-1", &["system:nodes"][..]),
            ("worker-1", &["system:nodes"]), // a kubelet whose certificate says no more than its host's name
            ("system:serviceaccount:ringfence-system:confirmer", &["system:serviceaccounts"]),
            ("confirmer", &["system:serviceaccounts"]),
            ("system:kube-controller-manager", &[]),
            ("system:anonymous", &["system:unauthenticated"]),
            ("system:administrator", &[]),
        ] {
            let client = plane.client_as(name, groups).await?;
            refused(confirm(&client, name, json!({})).await, "only a person may confirm").context(name)?;
            refused(confirm(&client, PERSON, json!({})).await, "your own user name").context(name)?;
        }
        let installer = plane.client_as("system:admin", &["system:masters"]).await?;
        confirm(&installer, "system:admin", json!({})).await.context("who installed the cluster")?;

        for by in ["bob", "", "Alice", "alice "] {
            let answer = confirm(&alice, by, json!({})).await;
            refused(answer, if by.is_empty() { "spec.by" } else { "your own user name" }).context(by)?;
        }
        let bob = plane.client_as("bob", &[]).await?;
        refused(confirm(&bob, "bob", json!({})).await, "forbidden: User \"bob\" cannot create")?;
        let operator = plane.client_as_service_account(NAMESPACE, "ringfence").await?;
        let name = format!("system:serviceaccount:{NAMESPACE}:ringfence");
        refused(confirm(&operator, &name, json!({})).await, "cannot create resource")
    });
}

/// No edit, whoever does it; a verdict is the operator's, is given once, and only to what was read.
#[test]
fn a_word_and_its_verdict_stay_as_they_are() {
    play(async {
        let plane = &Cluster::shared().await?.plane;
        plane.apply_yaml(APPROVERS).await?;
        let alice = plane.client_as(PERSON, &[]).await?;
        allowed(&alice, PERSON).await?;
        let forged = json!({"status": {"verdict": "Accepted", "reason": "Accepted"}});
        let given = confirm(&alice, PERSON, forged).await?;
        ensure!(given.status.is_none(), "a verdict of one's own: {:?}", given.status);
        let name = given.metadata.name.clone().context("a name")?;

        let admin: Api<RemediationConfirmation> = Api::namespaced(plane.client(), NAMESPACE);
        for (field, value) in [
            ("nodeName", json!("worker-2")),
            ("decision", json!("Deny")),
            ("by", json!("bob")),
            ("comment", json!("later")),
            ("bootID", Value::Null),
        ] {
            let patch = Patch::Merge(json!({"spec": {field: value}}));
            let edited = admin.patch(&name, &PatchParams::default(), &patch).await;
            refused(edited, "a confirmation is never changed").context(field)?;
        }
        let own: Api<RemediationConfirmation> = Api::namespaced(alice.clone(), NAMESPACE);
        refused(own.delete(&name, &DeleteParams::default()).await, "cannot delete")?;

        let writer = plane.client_as("status-writer", &[]).await?;
        let theirs: Api<RemediationConfirmation> = Api::namespaced(writer, NAMESPACE);
        let patch = Patch::Merge(json!({"status": {"verdict": "Accepted"}}));
        until_refused("the operator's alone", || async {
            theirs.patch_status(&name, &PatchParams::default(), &patch).await.map(drop)
        })
        .await?;

        let operator = plane.client_as_service_account(NAMESPACE, "ringfence").await?;
        let read = confirm::read(&operator, Some(NAMESPACE)).await?;
        let word = read.iter().find(|c| c.metadata.uid == given.metadata.uid).context("it is listed")?;
        let judgement = confirm::unasked(word);
        let now = clock::millis(Timestamp::now());
        confirm::write_verdict(&operator, word, &judgement, now).await?;
        let again =
            confirm::write_verdict(&operator, word, &judgement, now + 1).await.err().context("written twice")?;
        ensure!(again.is_conflict(), "{}", again.story());
        let judged = admin.get(&name).await?;
        let status = judged.status.clone().context("a status")?;
        ensure!(
            status.verdict == Some(Verdict::Refused) && status.reason.as_deref() == Some("NoRequest"),
            "{status:?}"
        );
        ensure!(status.at.as_ref().map(|at| clock::millis(at.0)) == Some(now), "{status:?}");
        let other = confirm::write_verdict(&operator, &judged, &confirm::Judgement::Accepted, now).await;
        let other = other.err().context("another verdict")?;
        ensure!(other.is_refused() && other.story().contains("a verdict is never changed"), "{}", other.story());
        Ok(())
    });
}

/// What the definition refuses whoever asks.
#[test]
fn a_confirmation_is_whole_and_bounded() {
    play(async {
        let admin = Cluster::shared().await?.plane.client();
        for (changes, words) in [
            (json!({"spec": {"request": "0123"}}), "spec.request"),
            (json!({"spec": {"request": "0123456789ABCDEF"}}), "spec.request"),
            (json!({"spec": {"request": null}}), "spec.request"),
            (json!({"spec": {"nodeName": ""}}), "spec.nodeName"),
            (json!({"spec": {"nodeName": "n".repeat(254)}}), "spec.nodeName"),
            (json!({"spec": {"nodeUID": null}}), "spec.nodeUID"),
            (json!({"spec": {"bootID": "b".repeat(129)}}), "spec.bootID"),
            (json!({"spec": {"comment": "c".repeat(1025)}}), "spec.comment"),
            (json!({"spec": {"by": "b".repeat(513)}}), "spec.by"),
            (json!({"spec": {"by": null}}), "spec.by"),
            (json!({"spec": {"decision": null}}), "spec.decision"),
            (json!({"spec": {"decision": "Perhaps"}}), "spec.decision"),
            (json!({"spec": {"statement": "Hope"}}), "spec.statement"),
            (json!({"spec": {"statement": null}}), "say why the node can't write"),
        ] {
            refused(confirm(&admin, "admin", changes.clone()).await, words).with_context(|| changes.to_string())?;
        }
        confirm(&admin, "admin", json!({"spec": {"statement": null, "decision": "Deny", "bootID": null}})).await?;
        Ok(())
    });
}

/// Weakened, replaced or removed, it vouches for nobody; put back, it vouches for what comes after. With it, nobody forges
/// a name; without it, anybody does.
#[test]
fn the_operator_notices_when_nobody_vouches() {
    play(async {
        let cluster = Cluster::own(Timings::Default).await?;
        let plane = &cluster.plane;
        let operator = plane.client_as_service_account(NAMESPACE, "ringfence").await?;
        let since = || async { confirm::policy_since(&operator).await.map_err(|error| anyhow::anyhow!(error.story())) };
        let installed = since().await?.context("it is in place")?;
        ensure!(installed <= clock::millis(Timestamp::now()), "{installed} is yet to come");

        let policies: Api<ValidatingAdmissionPolicy> = Api::all(plane.client());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(plane.client());
        let of_policy = [
            json!({"failurePolicy": "Ignore"}),
            json!({"validations": [{"expression": "true"}]}),
            json!({"matchConditions": [{"name": "never", "expression": "false"}]}),
            json!({"matchConstraints": {"objectSelector": {"matchLabels": {"a": "b"}}}}),
        ];
        let of_binding = [
            json!({"validationActions": ["Audit"]}),
            json!({"matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}),
        ];
        for spec in of_policy {
            let patch = Patch::Merge(json!({ "spec": spec }));
            policies.patch(confirm::POLICY, &PatchParams::default(), &patch).await?;
            ensure!(since().await?.is_none(), "weakened: {spec}");
            policies.delete(confirm::POLICY, &DeleteParams::default()).await?;
            ensure!(since().await?.is_none(), "without the policy");
            plane.apply_yaml(SHIPPED).await?;
            ensure!(since().await? >= Some(installed), "put back after {spec}");
        }
        for spec in of_binding {
            let patch = Patch::Merge(json!({ "spec": spec }));
            bindings.patch(confirm::POLICY, &PatchParams::default(), &patch).await?;
            ensure!(since().await?.is_none(), "weakened: {spec}");
            bindings.delete(confirm::POLICY, &DeleteParams::default()).await?;
            ensure!(since().await?.is_none(), "without the binding");
            let alice = plane.client_as("mallory", &["system:masters"]).await?;
            until_forged(&alice).await?;
            plane.apply_yaml(SHIPPED).await?;
            until_refused("your own user name", || async { confirm(&alice, PERSON, json!({})).await.map(drop) })
                .await?;
        }
        // A change that was taken back leaves a trace: what was created meanwhile is not vouched for.
        let before = since().await?.context("it is in place")?;
        let later = wait::until("a touch to be seen", SOON, || async {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"at": Timestamp::now().to_string()}}}));
            bindings.patch(confirm::POLICY, &PatchParams::default(), &patch).await?;
            Ok(since().await?.filter(|after| *after > before))
        });
        later.await?;
        renewals_are_told_by_the_api_server(plane).await
    });
}

/// A node's clock may be wrong by hours; the API server's tells when it was heard.
async fn renewals_are_told_by_the_api_server(plane: &ControlPlane) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(plane.client(), "kube-node-lease");
    let spec = |ahead: i64| json!({"holderIdentity": "n", "renewTime": (Timestamp::now() + SignedDuration::from_hours(ahead)).to_string()});
    let lease = json!({"metadata": {"name": "renewals"}, "spec": spec(10)});
    leases
        .create(&PostParams::default(), &serde_json::from_value(with_kind("coordination.k8s.io/v1", "Lease", lease))?)
        .await?;
    let created = confirm::last_renewal(&leases.get("renewals").await?).context("a time")?;
    ensure!(created.abs_diff(clock::millis(Timestamp::now())) < 10_000, "{created}");
    let renewed = wait::until("a renewal to be told", SOON, || async {
        let patch = Patch::Merge(json!({ "spec": spec(-10) }));
        let lease = leases.patch("renewals", &PatchParams::default(), &patch).await?;
        Ok(confirm::last_renewal(&lease).filter(|at| *at > created))
    });
    renewed.await.map(drop)
}

/// Creates a confirmation by this name: right, but for the changes.
async fn confirm(client: &Client, by: &str, changes: Value) -> kube::Result<RemediationConfirmation> {
    let mut object = json!({
        "metadata": {"generateName": "confirmation-"},
        "spec": {
            "request": "0123456789abcdef", "nodeName": "worker-1", "nodeUID": "6b8a2f0e-9e4c-4a53-8f7e-0d7c1f1f7a01",
            "bootID": "0f1c7c1e-41a4-4f6b-9d2b-0a3a5b1c2d3e", "statement": "PoweredOff", "decision": "Approve", "by": by,
        },
    });
    merge(&mut object, changes);
    let object = with_kind("ringfence.dev/v1alpha1", "RemediationConfirmation", object);
    let resource = kube::api::ApiResource::erase::<RemediationConfirmation>(&());
    let api: Api<kube::api::DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    let stored = api.create(&PostParams::default(), &object).await?;
    stored.try_parse().map_err(|error| kube::Error::Service(error.to_string().into()))
}

/// Waits until RBAC has heard of who may confirm, and the policy is obeyed.
async fn allowed(client: &Client, by: &str) -> Result<()> {
    wait::until("the role to be bound", SOON, || async { Ok(Some(confirm(client, by, json!({})).await?)) }).await?;
    until_refused("your own user name", || async { confirm(client, "bob", json!({})).await.map(drop) }).await
}

fn refused<T: std::fmt::Debug>(answer: kube::Result<T>, words: &str) -> Result<()> {
    let error = answer.err().context("it was let through")?.to_string();
    ensure!(error.contains(words), "{error}");
    Ok(())
}

/// Policies and permissions reach the API server a moment after they are written.
async fn until_refused<F: Future<Output = kube::Result<()>>>(words: &str, what: impl Fn() -> F) -> Result<()> {
    wait::until_every(Duration::from_millis(200), "it to be refused", SOON, || async {
        refused(what().await, words).map(Some)
    })
    .await
}

async fn until_forged(client: &Client) -> Result<()> {
    wait::until_every(Duration::from_millis(200), "a forged name to be let through", SOON, || async {
        confirm(client, PERSON, json!({})).await.map(drop).map(Some).map_err(Into::into)
    })
    .await
}

const SHIPPED: &str = include_str!("../../deploy/confirmation.yaml");

/// Who is let through by RBAC in these tests.
const APPROVERS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: approvers, namespace: ringfence-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ringfence-approver}
subjects:
- {kind: User, apiGroup: rbac.authorization.k8s.io, name: alice}
- {kind: User, apiGroup: rbac.authorization.k8s.io, name: worker-1}
- {kind: User, apiGroup: rbac.authorization.k8s.io, name: confirmer}
- {kind: User, apiGroup: rbac.authorization.k8s.io, name: 'system:node:worker-1'}
- {kind: User, apiGroup: rbac.authorization.k8s.io, name: 'system:kube-controller-manager'}
- {kind: User, apiGroup: rbac.authorization.k8s.io, name: 'system:administrator'}
- {kind: User, apiGroup: rbac.authorization.k8s.io, name: 'system:anonymous'}
- {kind: ServiceAccount, name: confirmer, namespace: ringfence-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: status-writer, namespace: ringfence-system}
rules:
- apiGroups: [ringfence.dev]
  resources: [remediationconfirmations, remediationconfirmations/status]
  verbs: [get, patch, update]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: status-writer, namespace: ringfence-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: status-writer}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: status-writer}]
";

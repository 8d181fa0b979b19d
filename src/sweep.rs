//! Marks that outlived their remediation: somebody took its finalizer off by hand, a backup of the API server was restored,
//! or an older FAR left them behind. A barrier that nobody owns evicts whatever comes back on that node, for ever.
//!
//! Safe without a proof: nothing is released, only what is nobody's is taken off, by a write that is conditional on the Node
//! as it was read *before* the remediations were: a claim made meanwhile makes it fail. A taint that may be an
//! administrator's is reported, and left.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::Value;

use crate::api::{FenceAgentsRemediation, Guarded, NODE_NAME_ANNOTATION};
use crate::cluster::{self, call};
use crate::events::{Events, Kind};
use crate::marks;

/// Pause between two sweeps: this happens to nobody in a hurry, and each lists all nodes.
const EVERY: Duration = Duration::from_secs(30);

/// Sweeps for ever.
pub async fn run(client: &Client, events: &Events) {
    let mut sweep = Sweep { client, events, told: BTreeSet::new() };
    loop {
        if let Err(error) = sweep.once().await {
            tracing::warn!(error = error.story(), "looking for marks without a remediation");
        }
        tokio::time::sleep(EVERY).await;
    }
}

struct Sweep<'a> {
    client: &'a Client,
    events: &'a Events,
    /// What was reported, and still is so: by node and reason.
    told: BTreeSet<(String, &'static str)>,
}

impl Sweep<'_> {
    async fn once(&mut self) -> Result<(), cluster::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let nodes = call("listing the nodes", nodes.list(&ListParams::default())).await?.items;
        let marked = |node: &&Node| {
            let strange = marks::has_old_taint(node) || marks::out_of_service_though_ready(node);
            strange || marks::claimed_by(node).is_some()
        };
        let marked: Vec<_> = nodes.iter().filter(marked).collect();
        self.told.retain(|(name, _)| marked.iter().any(|node| node.name_any() == *name));
        if marked.is_empty() {
            return Ok(());
        }
        let all: Api<Guarded> = Api::all(self.client.clone());
        let all = call("listing the remediations", all.list(&ListParams::default())).await?.items;
        let alive: BTreeSet<_> = all.iter().filter_map(ResourceExt::uid).collect();
        let remediated: BTreeSet<_> = all.iter().flat_map(nodes_of).collect();
        // One node that may not be written keeps nobody else's marks on.
        let mut first = Ok(());
        for node in marked {
            if marks::claimed_by(node).is_some_and(|holder| !alive.contains(holder)) {
                let note = "taints of a remediation that no longer exists were taken off";
                first = first.and(self.take_off(node, marks::abandon(node), "AbandonedMarksRemoved", note).await);
            } else if marks::has_old_taint(node) && !remediated.contains(&node.name_any()) {
                let note = "the NoExecute taint medik8s.io/fence-agents-remediation, which FAR up to 0.6 left behind, was \
                    taken off: no remediation of this node exists";
                first = first.and(self.take_off(node, marks::without_old_taint(node), "OldTaintRemoved", note).await);
            } else if marks::has_old_taint(node) {
                let note = "the node carries the NoExecute taint medik8s.io/fence-agents-remediation of FAR up to 0.6; it is \
                    taken off when no remediation of this node exists any more";
                self.tell(node, "OldTaintFound", note);
            } else if marks::out_of_service_though_ready(node) {
                let note = "the node is Ready and carries the out-of-service taint, which is not Ringfence's: Kubernetes takes \
                    its volumes away while it runs; if nobody wants that, FAR left it: take it off";
                self.tell(node, "OutOfServiceThoughReady", note);
            }
        }
        first
    }

    async fn take_off(&mut self, node: &Node, patch: Value, reason: &str, note: &str) -> Result<(), cluster::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let (name, patch) = (node.name_any(), Patch::Merge(patch));
        match call("taking abandoned marks off", nodes.patch(&name, &PatchParams::default(), &patch)).await {
            Ok(_) => {
                self.publish(node, reason, note);
                Ok(())
            }
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn tell(&mut self, node: &Node, reason: &'static str, note: &str) {
        if self.told.insert((node.name_any(), reason)) {
            self.publish(node, reason, note);
        }
    }

    fn publish(&self, node: &Node, reason: &str, note: &str) {
        let name = node.name_any();
        tracing::warn!(node = name, reason, "{note}");
        let about = ObjectReference { uid: Some(name), ..node.object_ref(&()) };
        self.events.publish(&about, Kind::Warning, reason, note);
    }
}

/// The nodes that a remediation is about, also of one that can't be read: as spec and status have it.
fn nodes_of(far: &Guarded) -> Vec<String> {
    let pinned = |far: &FenceAgentsRemediation| far.status.as_ref()?.node.as_ref().map(|node| node.name.clone());
    match &far.0 {
        Ok(far) => [Some(far.node_name().to_owned()), pinned(far)].into_iter().flatten().collect(),
        Err(invalid) => {
            let annotations = invalid.metadata.annotations.as_ref();
            let annotated = annotations.and_then(|all| all.get(NODE_NAME_ANNOTATION).cloned());
            annotated.or(invalid.metadata.name.clone()).into_iter().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An old taint stays while anything is left that may be about its node, whoever it was written by.
    #[test]
    fn a_remediation_names_its_nodes_though_it_can_not_be_read() {
        let of = |value| nodes_of(&serde_json::from_value::<Guarded>(value).unwrap());
        let annotated = json!({"name": "w-x7", "annotations": {NODE_NAME_ANNOTATION: "w"}});
        let kind = ("fence-agents-remediation.medik8s.io/v1alpha1", "FenceAgentsRemediation");
        let far = |metadata: &Value, spec: Value, status: Value| json!({"apiVersion": kind.0, "kind": kind.1, "metadata": metadata, "spec": spec, "status": status});
        let spec = json!({"agent": "fence_redfish"});
        assert_eq!(of(far(&annotated, spec.clone(), json!({}))), ["w"]);
        assert_eq!(of(far(&annotated, spec, json!({"node": {"name": "v"}}))), ["w", "v"]);
        assert_eq!(of(far(&annotated, json!({}), json!({}))), ["w"], "without an agent it can't be read");
        assert_eq!(of(far(&json!({"name": "w"}), json!({}), json!({}))), ["w"]);
    }
}

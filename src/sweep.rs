//! Marks that outlived their remediation: somebody took its finalizer off by hand, or a backup of the API server was
//! restored. A barrier that nobody owns evicts whatever comes back on that node, for ever.
//!
//! Safe without a proof: nothing is released, only what is ours is taken off, by a write that is conditional on the Node as
//! it was read *before* the remediations were: a claim made meanwhile makes it fail.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};

use crate::api::Guarded;
use crate::cluster::{self, call};
use crate::events::{Events, Kind};
use crate::marks;

/// Pause between two sweeps: this happens to nobody in a hurry, and each lists all nodes.
const EVERY: Duration = Duration::from_secs(30);

/// Sweeps for ever.
pub async fn run(client: &Client, events: &Events) {
    loop {
        if let Err(error) = sweep(client, events).await {
            tracing::warn!(error = error.story(), "looking for marks without a remediation");
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn sweep(client: &Client, events: &Events) -> Result<(), cluster::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let marked = call("listing the nodes", nodes.list(&ListParams::default())).await?.items;
    let marked: Vec<_> = marked.into_iter().filter(|node| marks::claimed_by(node).is_some()).collect();
    if marked.is_empty() {
        return Ok(());
    }
    let all: Api<Guarded> = Api::all(client.clone());
    let alive = call("listing the remediations", all.list(&ListParams::default())).await?.items;
    let alive: BTreeSet<_> = alive.into_iter().filter_map(|far| far.uid()).collect();
    for node in marked.iter().filter(|node| marks::claimed_by(node).is_some_and(|holder| !alive.contains(holder))) {
        let (name, patch) = (node.name_any(), Patch::Merge(marks::abandon(node)));
        match call("taking abandoned marks off", nodes.patch(&name, &PatchParams::default(), &patch)).await {
            Ok(_) => {
                let note = "taints of a remediation that no longer exists were taken off";
                tracing::warn!(node = name, "{note}");
                let about = ObjectReference { uid: Some(name), ..node.object_ref(&()) };
                events.publish(&about, Kind::Warning, "AbandonedMarksRemoved", note);
            }
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

//! The external attacher of a CSI driver: answers the VolumeAttachments of one rack's nodes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use futures::StreamExt;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, Error, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::kubelet::RETRY;

/// As external-attacher names its finalizer, after the driver.
const FINALIZER: &str = "external-attacher/testbed";

/// Whose answers are withheld.
#[derive(Clone, Debug, Default)]
struct Held {
    all: bool,
    nodes: BTreeSet<String>,
}

impl Held {
    fn holds(&self, va: &VolumeAttachment) -> bool {
        self.all || self.nodes.contains(&va.spec.node_name)
    }
}

/// Attaches and detaches at once, unless held. Ends when dropped.
#[derive(Debug)]
pub struct Attacher {
    held: watch::Sender<Held>,
    _task: JoinSet<()>,
}

impl Attacher {
    /// Starts the attacher of `driver` for these nodes.
    pub fn start(client: Client, driver: &str, nodes: BTreeSet<String>) -> Self {
        let held = watch::Sender::<Held>::default();
        let mut task = JoinSet::new();
        task.spawn(run(client, driver.to_owned(), nodes, held.subscribe()));
        Self { held, _task: task }
    }

    /// Withholds every answer from now on: volumes stay as they are.
    pub fn hold(&self) {
        self.held.send_modify(|held| held.all = true);
    }

    /// Withholds the answers that concern one node.
    pub fn hold_node(&self, node: &str) {
        self.held.send_modify(|held| held.nodes.extend([node.to_owned()]));
    }

    /// Answers again for one node, also what came meanwhile.
    pub fn release_node(&self, node: &str) {
        self.held.send_modify(|held| held.nodes.retain(|held| held != node));
    }

    /// Answers again, also what came meanwhile.
    pub fn release(&self) {
        self.held.send_replace(Held::default());
    }
}

async fn run(client: Client, driver: String, nodes: BTreeSet<String>, mut held: watch::Receiver<Held>) {
    let api: Api<VolumeAttachment> = Api::all(client);
    let mut events = watcher(api.clone(), Config::default()).boxed();
    let mut open = BTreeMap::new();
    let ours = |va: &VolumeAttachment| va.spec.attacher == driver && nodes.contains(&va.spec.node_name);
    loop {
        tokio::select! {
            Some(event) = events.next() => match event {
                Ok(Event::Apply(va) | Event::InitApply(va)) if ours(&va) => drop(open.insert(va.name_any(), va)),
                Ok(Event::Delete(va)) => drop(open.remove(&va.name_any())),
                Ok(Event::Apply(_) | Event::InitApply(_) | Event::InitDone) => {}
                Ok(Event::Init) => open.clear(),
                Err(error) => {
                    tracing::debug!(%error, "the watch of VolumeAttachments broke");
                    sleep(RETRY).await;
                }
            },
            changed = held.changed() => if changed.is_err() { return },
            () = sleep(RETRY), if next(&open, &held).is_some() => {}
        }
        while let Some(name) = next(&open, &held) {
            let Some(va) = open.remove(&name) else { break };
            if let Err(error) = answer(&api, &va).await {
                tracing::debug!(name, error = format!("{error:#}"), "will answer again");
                open.insert(name, va);
                break;
            }
        }
    }
}

fn next(open: &BTreeMap<String, VolumeAttachment>, held: &watch::Receiver<Held>) -> Option<String> {
    let held = held.borrow();
    open.iter().find(|(_, va)| !held.holds(va)).map(|(name, _)| name.clone())
}

async fn answer(api: &Api<VolumeAttachment>, va: &VolumeAttachment) -> Result<()> {
    let name = va.name_any();
    let deleting = va.metadata.deletion_timestamp.is_some();
    let attached = va.status.as_ref().is_some_and(|status| status.attached);
    let mut finalizers = va.finalizers().to_vec();
    let ours = finalizers.iter().any(|finalizer| finalizer == FINALIZER);
    if deleting {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    } else if !ours {
        finalizers.push(FINALIZER.to_owned());
    }
    if ours == deleting {
        // The UID: an attachment's name is a hash of volume and node, and comes again.
        let patch = Patch::Merge(json!({"metadata": {"uid": va.uid(), "finalizers": finalizers}}));
        gone_is_fine(api.patch(&name, &PatchParams::default(), &patch).await)?;
    }
    if !deleting && !attached {
        let patch = Patch::Merge(json!({"metadata": {"uid": va.uid()}, "status": {"attached": true}}));
        gone_is_fine(api.patch_status(&name, &PatchParams::default(), &patch).await)?;
    }
    Ok(())
}

fn gone_is_fine<T>(answer: kube::Result<T>) -> Result<()> {
    match answer {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

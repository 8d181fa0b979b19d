//! One connection of a kubelet to the API server: watches its pods and its Node, and keeps a worker for each pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::watcher::{Config, Event, Result as Watched, watcher};
use kube::{Api, ResourceExt};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::{Booted, RETRY, pod};
use crate::journal::Ending;

/// What is being done for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// It is started, and runs.
    Serve,
    /// It is stopped and, if it is to go, deleted.
    End,
}

/// Serves the API server until dropped; the containers outlive it.
pub(super) async fn run(booted: Arc<Booted>) {
    let node = loop {
        match booted.reporter.register().await {
            Ok(node) => break node,
            Err(error) => tracing::debug!(node = booted.kubelet.machine.name(), %error, "could not register"),
        }
        sleep(RETRY).await;
    };
    booted.node.send_replace(Some(node));
    tokio::select! {
        () = booted.reporter.run() => {}
        () = Session::new(booted.clone()).run() => {}
    }
}

struct Session {
    booted: Arc<Booted>,
    /// Dropping it aborts them all.
    workers: JoinSet<()>,
    tasks: BTreeMap<String, (Task, AbortHandle)>,
    /// The pods of the listing that is under way.
    listed: BTreeSet<String>,
}

impl Session {
    fn new(booted: Arc<Booted>) -> Self {
        Self { booted, workers: JoinSet::new(), tasks: BTreeMap::new(), listed: BTreeSet::new() }
    }

    async fn run(mut self) {
        let client = &self.booted.kubelet.client;
        let name = self.booted.kubelet.machine.name();
        let mut pods: BoxStream<'_, Watched<Event<Pod>>> =
            watcher(Api::all(client.clone()), Config::default().fields(&format!("spec.nodeName={name}"))).boxed();
        let mut nodes: BoxStream<'_, Watched<Event<Node>>> =
            watcher(Api::all(client.clone()), Config::default().fields(&format!("metadata.name={name}"))).boxed();
        loop {
            tokio::select! {
                Some(event) = pods.next() => match event {
                    Ok(event) => self.pod(event).await,
                    Err(error) => self.pause(&error).await,
                },
                Some(event) = nodes.next() => match event {
                    Ok(Event::Apply(node) | Event::InitApply(node)) => drop(self.booted.node.send_replace(Some(node))),
                    Ok(Event::Init | Event::InitDone | Event::Delete(_)) => {}
                    Err(error) => self.pause(&error).await,
                },
                Some(_) = self.workers.join_next() => {}
                else => return,
            }
        }
    }

    async fn pod(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(pod) => {
                self.listed.extend(pod.uid());
                self.sync(pod);
            }
            Event::InitDone => {
                // What was force-deleted while this kubelet could not see it.
                let mut known = self.booted.running();
                known.extend(self.tasks.keys().cloned());
                for uid in &known - &self.listed {
                    self.vanished(uid);
                }
                if let Err(error) = self.booted.reporter.pods_are_known().await {
                    tracing::debug!(%error, "volumes in use could not be reported");
                }
            }
            Event::Apply(pod) => self.sync(pod),
            Event::Delete(pod) => {
                if let Some(uid) = pod.uid() {
                    self.vanished(uid);
                }
            }
        }
    }

    fn sync(&mut self, pod: Pod) {
        let Some(uid) = pod.uid() else { return };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
        let over = matches!(phase, "Failed" | "Succeeded");
        let wanted = if over || pod.metadata.deletion_timestamp.is_some() { Task::End } else { Task::Serve };
        let deleting = pod.metadata.deletion_timestamp.is_some();
        match self.tasks.get(&uid) {
            Some((Task::Serve, _)) if wanted == Task::Serve => return,
            // A pod that is over is ended again when it is deleted too.
            Some((Task::End, worker)) if !(deleting && over && worker.is_finished()) => return,
            Some((Task::Serve | Task::End, worker)) => worker.abort(),
            None => {}
        }
        let booted = self.booted.clone();
        let worker = match wanted {
            Task::Serve => self.workers.spawn(async move { pod::serve(&booted, &pod).await }),
            Task::End => self.workers.spawn(async move { pod::end(&booted, &pod).await }),
        };
        self.tasks.insert(uid, (wanted, worker));
    }

    /// A pod whose object is gone: a kubelet kills what it still runs of it. Not so a static pod: its mirror in the API
    /// is not its licence.
    fn vanished(&mut self, uid: String) {
        if self.booted.is_static(&uid) {
            return;
        }
        if let Some((_, worker)) = self.tasks.remove(&uid) {
            worker.abort();
        }
        let booted = self.booted.clone();
        booted.stop(&uid, Ending::Orphaned);
        self.workers.spawn(async move { pod::unmount(&booted, &uid).await });
    }

    async fn pause(&self, error: &kube::runtime::watcher::Error) {
        tracing::debug!(node = self.booted.kubelet.machine.name(), %error, "a watch broke");
        sleep(RETRY).await;
    }
}

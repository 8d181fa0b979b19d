//! One round: a fresh rack, all its remediations at once, the verdict, and nothing left of it.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Error, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::matrix::Matrix;
use super::plan::Schedule;
use super::subject::Subject;
use super::world::World;
use crate::kubelet::RACK_LABEL;
use crate::oracle::{Excuse, Oracle};
use crate::rack::{Layout, Rack};
use crate::wait;
use crate::workloads::{Site, Workload};

/// Machines that nobody touches, where the others' workloads go.
const CALM: usize = 3;
/// For what takes seconds on an idle machine.
const SOON: Duration = Duration::from_secs(90);
/// The workloads of all machines.
pub(super) const APP: &str = "db";

/// What a round came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) remediations: usize,
    /// How each ended, by phase and reason.
    pub(super) ends: Vec<String>,
    /// Each names its machine.
    pub(super) violations: Vec<String>,
    pub(super) excused: Vec<String>,
    /// What happened, in order.
    pub(super) story: Vec<(Timestamp, String)>,
}

/// What a round's remediations share.
pub(super) struct Scene<'a> {
    pub(super) world: &'a World,
    pub(super) rack: Rack,
    pub(super) began: Instant,
    pub(super) matrix: &'a Mutex<Matrix>,
    pub(super) outcome: Mutex<Outcome>,
    pub(super) excuses: Mutex<Vec<Excuse>>,
    /// One for each blow.
    pub(super) gates: Vec<Gate>,
}

/// Where remediations wait for a blow.
#[derive(Debug, Default)]
pub(super) struct Gate {
    waiting: watch::Sender<usize>,
    struck: watch::Sender<bool>,
}

impl Gate {
    /// Waits for the blow. It comes even if others that are to wait for it never do.
    pub(super) async fn pass(&self) {
        self.waiting.send_modify(|waiting| *waiting += 1);
        // An error would mean that the sender is gone; it is `self`'s.
        let _ = self.struck.subscribe().wait_for(|struck| *struck).await;
    }

    /// Waits until so many wait, but not for ever: what holds them does not hold for longer.
    pub(super) async fn fill(&self, count: usize, within: Duration) {
        let mut waiting = self.waiting.subscribe();
        let _ = tokio::time::timeout(within, waiting.wait_for(|waiting| *waiting >= count)).await;
    }

    /// Lets all pass.
    pub(super) fn open(&self) {
        self.struck.send_replace(true);
    }
}

impl Scene<'_> {
    /// Notes what happens.
    pub(super) fn tell(&self, what: String) {
        tracing::info!("{what}");
        self.lock().story.push((Timestamp::now(), what));
    }

    /// Notes what must not be.
    pub(super) fn violated(&self, what: String) {
        self.tell(format!("VIOLATION: {what}"));
        self.lock().violations.push(what);
    }

    pub(super) fn excuse(&self, excuse: Excuse) {
        self.excuses.lock().expect("no panic while held").push(excuse);
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Outcome> {
        self.outcome.lock().expect("no panic while held")
    }
}

/// Plays a round.
///
/// # Errors
/// When the scene can't be set or cleared: then nothing is said of the remediator.
pub(super) async fn play(world: &World, schedule: &Schedule, matrix: &Mutex<Matrix>) -> Result<Outcome> {
    let name = format!("t{}", schedule.seed);
    let machines = schedule.plans.len();
    let rack = Rack::start(world.client.clone(), &Layout::workers(&name, machines + CALM)).await?;
    let oracle = Oracle::new(&rack).await?;
    let site = Site::new(&rack, &name, rack.machines()[0].name()).await?;
    let scene = Scene {
        world,
        rack,
        began: Instant::now(),
        matrix,
        outcome: Mutex::default(),
        excuses: Mutex::default(),
        gates: schedule.blows.iter().map(|_| Gate::default()).collect(),
    };
    let subjects = set(&scene, schedule, &site).await?;
    let scene = Scene { began: Instant::now(), ..scene };
    let all = join_all(subjects.iter().map(|subject| subject.play(&scene)));
    let ((), blows) = tokio::join!(async { drop(all.await) }, scene.strike(schedule));
    blows.context("hitting the cluster")?;
    workloads(&scene, &site).await;
    for machine in &scene.rack.machines()[machines..] {
        if !machine.history().is_empty() {
            scene.violated(format!("{} was nobody's target, and was switched", machine.name()));
        }
    }
    let excuses = std::mem::take(&mut *scene.excuses.lock().expect("no panic while held"));
    let verdict = oracle.verdict_excusing(excuses).await?;
    for violation in verdict.violations {
        scene.violated(violation);
    }
    for violation in world.remediator.lock().await.ended() {
        scene.violated(violation);
    }
    let Scene { rack, outcome, .. } = scene;
    drop(subjects);
    drop(oracle);
    drop(rack);
    clear(world, &name).await.with_context(|| format!("clearing {name}"))?;
    let mut outcome = outcome.into_inner().expect("no panic while held");
    outcome.excused = verdict.excused;
    outcome.remediations = machines;
    Ok(outcome)
}

/// A BMC and a database for each machine.
async fn set(scene: &Scene<'_>, schedule: &Schedule, site: &Site) -> Result<Vec<Subject>> {
    let subjects = schedule.plans.iter().zip(scene.rack.machines());
    let subjects = subjects.enumerate().map(|(number, (plan, machine))| async move {
        let app = format!("{APP}{number}");
        site.at(machine.name()).run(Workload::StatefulSet { replicas: 1 }, &app).await?;
        Subject::new(scene.world, machine, plan.clone()).await
    });
    let subjects = futures::future::try_join_all(subjects).await?;
    running(scene, site, schedule.plans.len(), SOON).await?;
    Ok(subjects)
}

/// In the end every workload runs, somewhere.
async fn workloads(scene: &Scene<'_>, site: &Site) {
    if let Err(error) = running(scene, site, scene.rack.machines().len() - CALM, SOON).await {
        scene.violated(format!("in the end not every workload ran: {error:#}"));
    }
}

async fn running(scene: &Scene<'_>, site: &Site, count: usize, within: Duration) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(scene.world.client.clone(), site.namespace());
    let missing = || async {
        let all = pods.list(&ListParams::default()).await?.items;
        Ok((all.iter().filter(|pod| crate::workloads::is_running(pod)).count() == count).then_some(()))
    };
    wait::until(&format!("{count} pods of {} to run", site.namespace()), within, missing).await
}

/// Takes a round's objects away, and waits for the last of them.
async fn clear(world: &World, name: &str) -> Result<()> {
    let client = &world.client;
    let pods: Api<Pod> = Api::namespaced(client.clone(), name);
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let attachments: Api<VolumeAttachment> = Api::all(client.clone());
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let at_once = DeleteParams::default().grace_period(0);
    let of_the_rack = ListParams::default().labels(&format!("{RACK_LABEL}={name}"));
    world.namespaces().delete(name, &DeleteParams::default()).await?;
    wait::until(&format!("namespace {name} to be gone"), SOON, || async {
        pods.delete_collection(&at_once, &ListParams::default()).await?;
        nodes.delete_collection(&at_once, &of_the_rack).await?;
        // Its attacher is gone: nobody else takes the finalizer off.
        for attachment in attachments.list(&ListParams::default()).await?.items {
            let (own, attachment) = (attachment.spec.node_name.starts_with(&format!("{name}-")), attachment.name_any());
            if own {
                let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                gone_is_fine(attachments.patch(&attachment, &PatchParams::default(), &bare).await)?;
                gone_is_fine(attachments.delete(&attachment, &at_once).await)?;
            }
        }
        Ok(world.namespaces().get_opt(name).await?.is_none().then_some(()))
    })
    .await?;
    for volume in volumes.list(&ListParams::default()).await?.items {
        if volume.name_any().starts_with(&format!("{name}-")) {
            gone_is_fine(volumes.delete(&volume.name_any(), &at_once).await)?;
        }
    }
    for lease in leases.list(&ListParams::default()).await?.items {
        if lease.name_any().starts_with(&format!("{name}-")) {
            gone_is_fine(leases.delete(&lease.name_any(), &at_once).await)?;
        }
    }
    Ok(())
}

fn gone_is_fine<T>(answer: kube::Result<T>) -> Result<()> {
    match answer {
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        answer => Ok(answer.map(drop)?),
    }
}

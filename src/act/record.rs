//! What is recorded when a phase is entered: the orders that are pinned, why a level was given up, what a person is asked,
//! and what a node was proven off by.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time as MetaTime};

use crate::api::{
    BegunLevel, ConfirmationRequest, Driver, FenceAgentsRemediation, FenceAgentsRemediationStatus as Status, Operation,
    Order, ProofRecord,
};
use crate::clock::timestamp;
use crate::confirm;
use crate::decide::{FIRST, Identity, Level, Now, Phase, Time, Why, Word};
use crate::observe::{BY_HAND, OFF, Scene};
use crate::resolve::{self, Action, Resolved};
use crate::story;

/// How many things at risk are named in a request.
const RISKS: usize = 20;

/// Records what `phase` pins, and ends.
pub(super) fn record(far: &mut FenceAgentsRemediation, scene: &Scene, phase: Phase, answer: Option<&str>, now: Now) {
    let uid = far.metadata.uid.clone().unwrap_or_default();
    let namespace = far.metadata.namespace.clone().unwrap_or_default();
    let several = !far.spec.levels.is_empty();
    let status = far.status.get_or_insert_default();
    let Some(op) = status.operation.as_mut() else { return };
    if let Ok(resolved) = &scene.resolved {
        op.inputs = Some(resolved.inputs.clone());
        op.action = match resolved.action {
            Action::Off => Some(OFF.to_owned()),
            Action::Reboot => None,
        };
        if let Phase::Isolating { level, .. } = phase {
            if scene.case.phase == Phase::Accepted {
                op.shared_uuid = scene.shared;
            }
            begin(op, scene, resolved, level, answer, now);
        }
    }
    // A device is tried again after a person's word: what it switches off is ours to switch on.
    if let Phase::Isolating { level, .. } = phase
        && !asks_a_person(op, level)
    {
        status.proof = status.proof.take().filter(|proof| proof.kind != BY_HAND);
    }
    if let Some(level) = phase.level().filter(|_| several) {
        status.level = i32::try_from(level).ok();
    }
    match phase {
        Phase::Releasing { .. } => {
            op.set = Some(scene.set.clone());
            status.proof = Some(proof(scene, now));
        }
        // The off that a person is asked to see to.
        Phase::Proving { off, .. } if asks_a_person(op, off.level) => {
            op.pulse = Some(scene.pulse.clone());
            status.request = Some(request(scene, &namespace, &uid, off.at, status));
        }
        Phase::Proving { .. } | Phase::Halted { why: Why::Unconfirmed, .. } => {}
        Phase::Accepted => (status.request, status.level) = (None, None),
        // Deleted with a person's word given: whoever gave it may have the hands in that machine.
        Phase::Restoring { .. } if scene.case.word == Word::Given => {
            (status.request, status.proof) = (None, Some(proof(scene, now)));
        }
        // Nobody is asked any more, or not yet.
        Phase::Isolating { .. } | Phase::Restoring { .. } | Phase::Done { .. } | Phase::Halted { .. } => {
            status.request = None;
        }
    }
}

/// Pins the orders of a level that is begun, and notes why the one before it was given up.
fn begin(op: &mut Operation, scene: &Scene, resolved: &Resolved, level: Level, answer: Option<&str>, now: Now) {
    let last = scene.case.levels.now;
    if level == FIRST && op.levels.is_empty() {
        // Once: another attempt has nothing to pin, and its Secret may be missing by now (A2).
        op.order = op.order.take().or_else(|| orders(resolved, FIRST).into_iter().next());
        return;
    }
    if let (true, Some(order)) = (op.levels.is_empty(), op.order.clone()) {
        op.levels.push(BegunLevel { orders: vec![order], ..BegunLevel::default() });
    }
    let index = |level: Level| usize::try_from(level - FIRST).unwrap_or(usize::MAX);
    for next in (FIRST..=level).skip(op.levels.len()) {
        let found = resolved.level(next).and_then(|found| found.as_ref().err());
        let failed = found.map(|error| error.label().to_owned());
        op.levels.push(BegunLevel { orders: vec![], failed, said: found.map(resolve::Error::story) });
    }
    if last != level
        && let Some(before) = op.levels.get_mut(index(last))
    {
        let (code, said) = story::given_up(scene, answer, now);
        (before.failed, before.said) = (Some(code.to_owned()), Some(said));
    }
    if let Some(begun) = op.levels.get_mut(index(level)) {
        (begun.failed, begun.said) = (None, None);
        if begun.orders.is_empty() {
            begun.orders = orders(resolved, level);
        }
    }
    op.order = op.levels.iter().flat_map(|level| &level.orders).next().cloned();
}

fn orders(resolved: &Resolved, level: Level) -> Vec<Order> {
    let devices = resolved.level(level).and_then(|found| found.as_ref().ok());
    devices.into_iter().flatten().map(|device| device.order.clone()).collect()
}

fn asks_a_person(op: &Operation, level: Level) -> bool {
    op.orders(level).iter().any(|order| order.driver == Driver::Person)
}

fn request(scene: &Scene, namespace: &str, uid: &str, off_at: Time, status: &Status) -> ConfirmationRequest {
    let identity = status.node.clone().unwrap_or_default();
    let node = scene.node.as_ref().and_then(|node| node.status.as_ref());
    let ready = node.and_then(|node| node.conditions.iter().flatten().find(|condition| condition.type_ == "Ready"));
    let volumes = scene.set.volume_attachments.iter().map(|volume| format!("volumeattachment/{volume}"));
    let pods = scene.set.pods.iter().map(|pod| format!("pod/{}/{}", pod.namespace, pod.name));
    let mut request = ConfirmationRequest {
        id: confirm::request_id(uid, off_at),
        node_name: identity.name,
        node_uid: identity.uid.unwrap_or_default(),
        boot_id: node.and_then(|node| node.node_info.as_ref()).map(|info| info.boot_id.clone()),
        last_heartbeat: ready.and_then(|ready| ready.last_heartbeat_time.clone()),
        opened_at: Some(MicroTime(timestamp(off_at))),
        at_risk: volumes.chain(pods).take(RISKS).collect(),
        instructions: None,
    };
    request.instructions = Some(confirm::instructions(namespace, &request));
    request
}

fn proof(scene: &Scene, now: Now) -> ProofRecord {
    let wall = |mono| Some(MicroTime(timestamp(now.wall.saturating_sub(now.mono.saturating_sub(mono)))));
    let order = scene.devices.first().map(|device| &device.order);
    let word = scene.said.counts.as_ref().filter(|_| scene.case.identity == Identity::Attested);
    let sights = || scene.devices.iter().filter_map(|device| device.sight.as_ref());
    let sources: Vec<_> = sights().filter_map(|sight| sight.source.as_deref()).collect();
    ProofRecord {
        kind: story::proof(scene).to_owned(),
        binding: Some(story::binding(scene).to_owned()),
        agent: order.map(|order| order.agent.clone()),
        driver: order.map(|order| order.driver),
        source: match word {
            Some((_, word)) => word.metadata.name.as_ref().map(|name| format!("RemediationConfirmation {name}")),
            None => Some(sources.join(", ")).filter(|sources| !sources.is_empty()),
        },
        system_uuid: sights().find_map(|sight| sight.system_uuid.as_ref()).map(ToString::to_string),
        first_seen_off: scene.series.and_then(|series| wall(series.first)),
        last_seen_off: scene.series.and_then(|series| wall(series.last)),
        by: word.map(|(_, word)| word.spec.by.clone()),
        statement: word.and_then(|(_, word)| word.spec.statement),
        confirmed_at: word.and_then(|(_, word)| word.metadata.creation_timestamp.as_ref()).map(|at| MetaTime(at.0)),
    }
}

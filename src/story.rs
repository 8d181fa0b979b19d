//! What people are told: for each phase that is entered one sentence, one stable code where it halts, and the events under
//! FAR's names. No secret can get in here: everything said comes from `status`, from Kubernetes objects or from an
//! isolator's sight.

use crate::api::{BegunLevel, Driver, EXCLUDE, Order, RemediationStrategy, Verdict};
use crate::decide::{self, Doubt, Effect, FIRST, Hold, Identity, Level, Now, Phase, Reading, Rest, Then, Why, Word};
use crate::events::Kind;
use crate::isolate::{Sight, State};
use crate::marks;
use crate::observe::{BY_HAND, Device, Scene};
use crate::status::why_name;

/// What is said of a phase that is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Stable code, where it halts: the same in condition, event and runbook.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
}

/// Which object an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The remediation.
    Remediation,
    /// Its Node.
    Node,
}

/// An event to publish.
pub type Saying = (About, Kind, &'static str, String);

/// Says what entering `phase` means. `answer`: how the last command was answered, if not with success.
pub fn tell(scene: &Scene, phase: Phase, answer: Option<&str>, now: Now) -> Told {
    let node = name(scene);
    let attempts = scene.case.policy.attempts;
    let said = |message: String| Told { code: "", message };
    match phase {
        Phase::Accepted => said(format!("accepted; about to look at {node}")),
        Phase::Isolating { level, attempt, .. } => {
            let through = through(scene, level);
            match orders(scene, level).iter().any(|order| order.driver == Driver::Person) {
                true => said(format!("asking a person to see that {node} is off{}", so_far(scene, level, answer, now))),
                false if level == FIRST => {
                    said(format!("switching {node} off through {through} (attempt {attempt} of {attempts})"))
                }
                false => said(format!(
                    "level {level}: switching {node} off through {through} (attempt {attempt}){}",
                    so_far(scene, level, answer, now)
                )),
            }
        }
        Phase::Proving { off, .. } if off.answered => {
            said(format!("the off for {node} was accepted; reading the power state back"))
        }
        Phase::Proving { .. } => {
            let why = answer.unwrap_or("it was not sent, or its answer was lost");
            said(format!("the off for {node} was not accepted ({why}); reading the power state all the same"))
        }
        Phase::Releasing { .. } if scene.case.identity == Identity::Attested => said(format!(
            "{}; {node} has been silent since; releasing {} and {}",
            word(scene),
            count(scene.set.pods.len(), "pod"),
            count(scene.set.volume_attachments.len(), "volume"),
        )),
        Phase::Releasing { .. } => said(format!(
            "{node} is proven off ({}read twice, bound by {}); releasing {} and {}",
            sources(scene),
            binding(scene),
            count(scene.set.pods.len(), "pod"),
            count(scene.set.volume_attachments.len(), "volume"),
        )),
        Phase::Restoring { then: Then::Again, attempt: 1, on: None, .. } => said(format!(
            "spec or Secret now name another device: switching the pinned one{} on again first",
            at(scene)
        )),
        Phase::Restoring { on: Some(_), .. } => said(format!("the on for {node} was sent; waiting until it reads On")),
        Phase::Restoring { attempt: 2.., .. } => said(format!(
            "{node} did not come on; switching it on again (attempt {} of {attempts})",
            restore_attempt(phase)
        )),
        Phase::Restoring { .. } => said(format!("{}; {}", released(scene), what_follows(scene))),
        Phase::Done { .. } if scene.case.phase == Phase::Accepted => {
            said(format!("deleted before anything was sent to {node}"))
        }
        Phase::Done { .. } if scene.case.policy.restore => said(format!("{node} is on again; the remediation is done")),
        Phase::Done { .. } => said(format!("{node} stays off, as action: off wants; the remediation is done")),
        Phase::Halted { why, .. } => {
            halted(scene, why, answer, now, &format!("; the workloads of {node} stay where they are"))
        }
    }
}

/// Says why a level is given up: a stable code, and a sentence.
pub fn given_up(scene: &Scene, answer: Option<&str>, now: Now) -> (&'static str, String) {
    let why = scene.case.failure();
    // What is told by the device itself would hide whether it was heard at all: that is what decides what follows.
    (why_name(why), halted(scene, why, answer, now, "").message)
}

/// Lists the events of entering a phase.
pub fn events(scene: &Scene, phase: Phase, told: &Told) -> Vec<Saying> {
    let from = scene.case.phase;
    let normal = |about, reason, text: &str| (about, Kind::Normal, reason, text.to_owned());
    let remediation = About::Remediation;
    match phase {
        Phase::Proving { .. } => vec![normal(remediation, "FenceAgentExecuted", &told.message)],
        Phase::Releasing { .. } => vec![normal(remediation, "FenceAgentSucceeded", &told.message)],
        Phase::Restoring { then: Then::Again, .. } if scene.case.order == decide::Order::Changed => {
            vec![(remediation, Kind::Warning, "OrderChanged", told.message.clone())]
        }
        Phase::Restoring { .. } if is_release(scene, phase) => vec![
            normal(remediation, "RemediationFinished", &told.message),
            normal(About::Node, "NodeRemediationCompleted", "Unhealthy node remediation was completed"),
        ],
        Phase::Halted { rest: Rest { quiet: Some(1..), .. }, .. } => vec![], // was said when it halted
        Phase::Halted { why: Why::TimedOut, .. } => vec![normal(remediation, "RemediationStopped", &told.message)],
        Phase::Halted { why: Why::NodeGone, .. } => {
            vec![(remediation, Kind::Warning, "NodeNotFound", told.message.clone())]
        }
        Phase::Halted { .. } if matches!(from, Phase::Halted { .. }) && !is_news(from, phase) => vec![],
        Phase::Halted { why: Why::Unconfirmed, .. } => vec![
            (remediation, Kind::Warning, told.code, told.message.clone()),
            (About::Node, Kind::Warning, told.code, told.message.clone()),
        ],
        Phase::Halted { .. } => vec![(remediation, Kind::Warning, told.code, told.message.clone())],
        Phase::Accepted | Phase::Isolating { .. } | Phase::Restoring { .. } | Phase::Done { .. } => vec![],
    }
}

/// Says what an effect that was carried out means, where FAR has an event for it.
pub fn effect(scene: &Scene, effect: &Effect) -> Option<Saying> {
    let about_node = |reason, text: &str| Some((About::Node, Kind::Normal, reason, text.to_owned()));
    match effect {
        Effect::Claim => about_node("AddRemediationTaint", "Remediation taint was added"),
        Effect::Bar(_) | Effect::Retract if !out_of_service(scene) => None,
        Effect::Bar(_) => about_node("AddOutOfServiceTaint", "The out-of-service taint was added"),
        Effect::Delete(_) => about_node("DeleteResources", "Manually delete pods from the unhealthy node"),
        Effect::Retract => about_node("RemoveOutOfServiceTaint", "The out-of-service taint was removed"),
        Effect::Unclaim => about_node("RemoveRemediationTaint", "Remediation taint was removed"),
        Effect::Admit | Effect::Judge | Effect::Detach(_) | Effect::Seal | Effect::HandOver => None,
    }
}

/// Tells whether entering `phase` completes a release: the set is gone, or its time is up with the node proven off.
pub fn is_release(scene: &Scene, phase: Phase) -> bool {
    matches!((scene.case.phase, phase), (Phase::Releasing { .. }, Phase::Restoring { then: Then::Leave, .. }))
        && !scene.case.leave.deleted()
}

/// Says what a release still waits for.
pub fn releasing(scene: &Scene) -> String {
    let (pods, volumes) = scene.blocking.iter().partition::<Vec<_>, _>(|what| what.starts_with("pod/"));
    let node = name(scene);
    format!("{node} is proven off; waiting for {} and {}", count(pods.len(), "pod"), count(volumes.len(), "volume"))
}

/// Says whether the barrier is Kubernetes' own out-of-service taint, which the strategy may want.
pub fn out_of_service(scene: &Scene) -> bool {
    let wanted = match scene.far.spec.remediation_strategy {
        RemediationStrategy::OutOfServiceTaint => true,
        RemediationStrategy::ResourceDeletion => false,
    };
    scene.node.as_ref().is_some_and(|node| marks::bars_with_out_of_service(node, wanted))
}

/// Returns the kind of the proof.
pub fn proof(scene: &Scene) -> &'static str {
    match scene.case.identity {
        Identity::Attested => BY_HAND,
        Identity::Same | Identity::Unsaid | Identity::Other => "PowerOff",
    }
}

/// Returns why the right machine is meant, in a word (P2).
pub fn binding(scene: &Scene) -> &'static str {
    match scene.case.identity {
        Identity::Same => "Identity",
        Identity::Unsaid | Identity::Other => "Witness",
        Identity::Attested => "Person",
    }
}

fn is_news(from: Phase, to: Phase) -> bool {
    match (from, to) {
        (Phase::Halted { why: before, .. }, Phase::Halted { why: after, .. }) => before != after,
        _ => true,
    }
}

fn halted(scene: &Scene, why: Why, answer: Option<&str>, now: Now, kept: &str) -> Told {
    let node = name(scene);
    let heard = heard(scene);
    let label = decisive(scene).and_then(|sight| sight.label);
    let kept = format!("{kept}{}", earlier(scene));
    let (code, message) = match why {
        Why::Busy => {
            let holder = scene.holder.as_ref().map_or_else(String::new, |h| format!(" {}/{}", h.namespace, h.name));
            ("Busy", format!("waiting: another remediation{holder} holds {node}"))
        }
        Why::Held(Hold::Excluded) => (
            why_name(why),
            format!(
                "waiting: {node} has the label {EXCLUDE}, which excludes it from remediation; take it off to go on"
            ),
        ),
        Why::Held(Hold::Foreign) => (why_name(why), format!("waiting: {} is at work on {node}", holds(scene))),
        Why::Held(Hold::Leased) => (why_name(why), format!("waiting: {} holds the lease of {node}", holds(scene))),
        Why::Held(Hold::Budget) => (why_name(why), format!("waiting: {}", holds(scene))),
        Why::Held(Hold::Quorum) => (
            "QuorumWouldBeLost",
            format!(
                "waiting: without {node} the control plane would lose its majority; bring other control-plane nodes back, or set allowControlPlaneQuorumLoss"
            ),
        ),
        Why::Unresolved => match &scene.resolved {
            Err(error) => (error.label(), error.story()),
            Ok(_) => (why_name(why), "spec and Secrets gave no order".to_owned()),
        },
        Why::Refused => (label.unwrap_or("Refused"), format!("{heard}{kept}")),
        Why::WrongMachine => ("WrongMachine", format!("{}{kept}", other_machine(scene))),
        Why::Unheard => {
            (label.unwrap_or("Unheard"), format!("{node} could not be proven off: {heard}{kept}; looking goes on"))
        }
        Why::Unconfirmed => (
            why_name(why),
            match scene.case.word {
                Word::Void => format!(
                    "{node} shows life again, so nobody is asked whether it is off; asked anew when it falls silent"
                ),
                Word::Given => {
                    format!("{}; waiting until {node} has been silent for a renewal of its Lease", word(scene))
                }
                Word::NotAsked | Word::Awaited | Word::Unjudged | Word::Denied => {
                    format!("waiting for a person to see that {node} is off, and to say so: see status.request{kept}")
                }
            },
        ),
        Why::Denied => (why_name(why), format!("{}{kept}", word(scene))),
        Why::NotProven => not_proven(scene, &heard, answer, &kept, now),
        Why::NotRestored => {
            ("NotRestored", format!("{node} was released, but could not be switched on again: {heard}"))
        }
        Why::NewOrder if scene.case.reading != Reading::Running => (
            "PinnedDeviceNotRestored",
            format!(
                "the pinned device{} could not be switched on again ({heard}): see to that machine; starting anew with the order that spec and Secret now name",
                at(scene)
            ),
        ),
        Why::NewOrder => ("OrderChanged", "starting anew with the order that spec and Secret now name".to_owned()),
        Why::TimedOut => {
            let power = match scene.case.reading {
                Reading::Running => "the machine was last read On",
                Reading::Isolated { .. } => "the machine was last read Off",
                Reading::Unknown | Reading::Refused => "the machine's power is not known",
            };
            ("TimedOut", format!("NHC added the timed-out annotation, remediation is stopped; {power}"))
        }
        Why::NodeGone => {
            ("NodeNotFound", format!("there is no node {node} any more, or another stands under its name"))
        }
    };
    Told { code, message }
}

fn not_proven(scene: &Scene, heard: &str, answer: Option<&str>, kept: &str, now: Now) -> (&'static str, String) {
    let node = name(scene);
    let refused = answer.unwrap_or("no answer");
    let off = scene.case.phase.off();
    let answered = off.is_some_and(|off| off.answered);
    match off.and_then(|off| scene.case.doubt(off, now)) {
        Some(Doubt::Uncommanded) if !answered => (
            "OffNotAccepted",
            format!("{heard}, but it never accepted our off ({refused}), so that Off proves nothing of {node}{kept}"),
        ),
        Some(Doubt::Unbound) => (
            "NoWitness",
            format!("{heard}, but nothing binds it to {node}: no system UUID, and it was never read On before{kept}"),
        ),
        Some(Doubt::Contradicted) => match &scene.says_on {
            Some(device) => ("Contradicted", format!("{heard}, but {device} says On: is this its machine?{kept}")),
            None => ("Contradicted", format!("{heard}, but {node} has shown life since: is this its machine?{kept}")),
        },
        Some(Doubt::Uncommanded | Doubt::Unsettled | Doubt::Stale) => {
            ("OffNotSettled", format!("{heard}, but not for long enough to be believed of {node}{kept}"))
        }
        Some(Doubt::Running | Doubt::Unknown | Doubt::Refused | Doubt::WrongMachine) | None => {
            let tries = count(usize::try_from(scene.case.policy.attempts).unwrap_or(usize::MAX), "attempt");
            let off = if answered { "was accepted".to_owned() } else { format!("was refused ({refused})") };
            ("NotProven", format!("{node} could not be proven off in {tries}: the off {off}, but {heard}{kept}"))
        }
    }
}

fn holds(scene: &Scene) -> &str {
    scene.held_by.as_deref().unwrap_or("somebody else")
}

fn other_machine(scene: &Scene) -> String {
    let expected = order(scene).and_then(|order| order.system_uuid.as_deref()).unwrap_or("none");
    let found = decisive(scene).and_then(|sight| sight.system_uuid.as_ref());
    let found = found.map_or_else(|| "another".to_owned(), ToString::to_string);
    format!(
        "the device{} is that of another machine: expected system UUID {expected}, found {found}; correct its address, or set proof.identity: Ignore",
        at(scene)
    )
}

fn released(scene: &Scene) -> String {
    let node = name(scene);
    match scene.case.phase {
        Phase::Releasing { .. } if scene.case.leave.deleted() => {
            format!("the remediation is being deleted while {node} is released")
        }
        Phase::Releasing { .. } if scene.blocking.is_empty() => format!("all workloads of {node} are released"),
        Phase::Releasing { .. } => {
            format!("the release of {node} took too long, still held: {}", some(&scene.blocking))
        }
        Phase::Accepted | Phase::Isolating { .. } | Phase::Proving { .. } | Phase::Restoring { .. } => {
            format!("the remediation of {node} is being deleted")
        }
        Phase::Done { .. } | Phase::Halted { .. } => format!("the remediation of {node} is being deleted"),
    }
}

fn what_follows(scene: &Scene) -> &'static str {
    if scene.case.policy.restore { "switching it on again" } else { "it stays off" }
}

fn restore_attempt(phase: Phase) -> u32 {
    match phase {
        Phase::Restoring { attempt, .. } => attempt,
        Phase::Accepted | Phase::Isolating { .. } | Phase::Proving { .. } | Phase::Releasing { .. } => 1,
        Phase::Done { .. } | Phase::Halted { .. } => 1,
    }
}

fn name(scene: &Scene) -> &str {
    let pinned = scene.far.status.as_ref().and_then(|status| status.node.as_ref()).map(|node| node.name.as_str());
    pinned.unwrap_or_else(|| scene.far.node_name())
}

/// The device whose word decides: of several, one that does not say Off.
fn decisive(scene: &Scene) -> Option<&Sight> {
    let sights = || scene.devices.iter().filter_map(|device| device.sight.as_ref());
    sights().find(|sight| !matches!(sight.state, State::Isolated | State::Off)).or_else(|| sights().next())
}

fn heard(scene: &Scene) -> String {
    match scene.devices.as_slice() {
        [several, others @ ..] if !others.is_empty() => {
            let said = |device: &Device| {
                let said = device.sight.as_ref().map_or("not asked", |sight| sight.said.as_str());
                format!("{}: {said}", place(&device.order))
            };
            std::iter::once(several).chain(others).map(said).collect::<Vec<_>>().join("; ")
        }
        _ => decisive(scene).map_or("nothing was asked", |sight| sight.said.as_str()).to_owned(),
    }
}

fn sources(scene: &Scene) -> String {
    let sources = scene.devices.iter().filter_map(|device| device.sight.as_ref()?.source.as_deref());
    sources.map(|source| format!("{source}, ")).collect()
}

/// What a person has said that counts.
fn word(scene: &Scene) -> String {
    let node = name(scene);
    match &scene.said.counts {
        Some((Verdict::Accepted, word)) => match word.spec.statement {
            Some(statement) => format!("{} confirms that {node} is off ({statement:?})", word.spec.by),
            None => format!("{} confirms that {node} is off", word.spec.by),
        },
        Some((Verdict::Denied | Verdict::Refused, word)) => {
            format!("{} says that {node} is not to be taken for isolated", word.spec.by)
        }
        None => format!("a person says that {node} is not to be taken for isolated"),
    }
}

/// Why this level comes now.
fn so_far(scene: &Scene, level: Level, answer: Option<&str>, now: Now) -> String {
    match level == scene.case.levels.now {
        true => earlier(scene),
        false => format!("; {}", given_up(scene, answer, now).1),
    }
}

/// Why the levels before were given up.
fn earlier(scene: &Scene) -> String {
    let op = scene.far.status.as_ref().and_then(|status| status.operation.as_ref());
    let levels = op.map(|op| op.levels.as_slice()).unwrap_or_default();
    let said = |(level, begun): (u32, &BegunLevel)| Some(format!("; level {level}: {}", begun.said.as_deref()?));
    (FIRST..).zip(levels).filter_map(said).collect()
}

/// The orders of a level: pinned, or as they will be.
fn orders(scene: &Scene, level: Level) -> Vec<&Order> {
    let pinned = scene.far.status.as_ref().and_then(|status| status.operation.as_ref()).map(|op| op.orders(level));
    match pinned {
        Some(pinned) if !pinned.is_empty() && scene.case.phase != Phase::Accepted => pinned.iter().collect(),
        Some(_) | None => {
            let found = scene.resolved.as_ref().ok().and_then(|now| now.level(level)?.as_ref().ok());
            found.into_iter().flatten().map(|device| &device.order).collect()
        }
    }
}

fn through(scene: &Scene, level: Level) -> String {
    let all: Vec<_> = orders(scene, level).iter().map(|order| format!("{}{}", order.agent, place_of(order))).collect();
    all.join(" and ")
}

fn order(scene: &Scene) -> Option<&Order> {
    scene.devices.first().map(|device| &device.order)
}

fn at(scene: &Scene) -> String {
    order(scene).map(place_of).unwrap_or_default()
}

fn place_of(order: &Order) -> String {
    let driver = match order.driver {
        Driver::Native => "native",
        Driver::Script => "script",
        Driver::Person => return String::new(),
    };
    format!(" ({driver}) at {}", place(order))
}

fn place(order: &Order) -> String {
    let plug = order.plug.as_ref().map(|plug| format!(" ({plug})")).unwrap_or_default();
    format!("{}{plug}", order.address)
}

/// The first few, and how many more: a condition's message is at most 32 KiB, and nobody reads that much.
fn some(all: &[String]) -> String {
    let shown = all.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
    if all.len() > 5 { format!("{shown}; and {} more", all.len() - 5) } else { shown }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

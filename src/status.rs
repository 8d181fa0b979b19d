//! Phase ⇄ `status`: how a remediation's standing is persisted, and what people and NHC read of it. One table; no I/O.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time as MetaTime};

use crate::api::{FenceAgentsRemediationStatus as Status, Operation, TimelineEntry};
use crate::clock::{millis, timestamp};
use crate::decide::{FIRST, Hold, Level, Off, Phase, Rest, Then, Time, Why};

/// A status that nobody of us wrote.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("status.{field} is {found:?}, which Ringfence never writes: put it right, or delete the remediation")]
pub struct Malformed {
    field: &'static str,
    found: String,
}

/// Reads where a remediation stands; `None` before it was accepted.
///
/// # Errors
/// [`Malformed`], for a status that was edited by hand.
pub fn phase(status: Option<&Status>) -> Result<Option<Phase>, Malformed> {
    let Some((status, name)) = status.and_then(|s| s.phase.as_deref().map(|name| (s, name))) else {
        return Ok(None);
    };
    let missing = |field| Malformed { field, found: String::new() };
    let op = status.operation.as_ref().ok_or(missing("operation"))?;
    let time = |at: &Option<MicroTime>| at.as_ref().map(|at| millis(at.0));
    let attempt = u32::try_from(op.attempt).unwrap_or(1);
    let level = op.level.and_then(|level| u32::try_from(level).ok()).unwrap_or(FIRST);
    let seen_on = op.witnessed_on_at.is_some();
    let off = time(&op.sent_off_at).map(|at| Off { at, answered: op.answered, seen_on, level });
    let sent = || off.ok_or(missing("operation.sentOffAt"));
    let rest = Rest { quiet: time(&op.quiet_at), yielded: op.yielded };
    Ok(Some(match name {
        "Accepted" => Phase::Accepted,
        "Isolating" => Phase::Isolating { level, attempt, seen_on },
        "Proving" => Phase::Proving { attempt, off: sent()? },
        "Releasing" => {
            let since = time(&op.phase_since).ok_or(missing("operation.phaseSince"))?;
            Phase::Releasing { attempt, off: sent()?, since }
        }
        "Restoring" => Phase::Restoring {
            level,
            attempt: u32::try_from(op.restore_attempt).unwrap_or(1),
            off: sent()?.at,
            on: time(&op.sent_on_at),
            then: if op.then.as_deref() == Some(AGAIN) { Then::Again } else { Then::Leave },
        },
        "Done" => Phase::Done { rest },
        "Halted" => {
            let found = op.why.as_deref().unwrap_or_default();
            let why = WHYS.iter().find(|why| why_name(**why) == found).copied();
            let why = why.ok_or(Malformed { field: "operation.why", found: found.to_owned() })?;
            Phase::Halted { why, off, rest }
        }
        other => return Err(Malformed { field: "phase", found: other.to_owned() }),
    }))
}

/// Writes a phase that is entered now: its own fields, and none that an earlier phase left.
pub fn enter(status: &mut Status, phase: Phase, now: Timestamp) {
    let old = status.operation.take().unwrap_or_default();
    let op = status.operation.insert(Operation {
        entry: old.entry + 1,
        phase_since: Some(MicroTime(now)),
        // What the phase itself doesn't say.
        order: old.order,
        shared_uuid: old.shared_uuid,
        inputs: old.inputs,
        action: old.action,
        set: old.set,
        attempt: old.attempt,
        levels: old.levels,
        pulse: old.pulse,
        ..Operation::default()
    });
    let witnessed = old.witnessed_on_at.or(Some(MicroTime(now)));
    let attempt_of = |attempt| i32::try_from(attempt).unwrap_or(i32::MAX);
    let sent = |op: &mut Operation, off: Off| {
        op.sent_off_at = micro(off.at);
        op.answered = off.answered;
        op.level = level_of(off.level);
        op.witnessed_on_at = witnessed.clone().filter(|_| off.seen_on);
    };
    match phase {
        Phase::Accepted => {
            (op.set, op.order, op.shared_uuid, op.attempt) = (None, None, false, 0);
            op.levels.clear();
        }
        Phase::Isolating { level, attempt, seen_on } => {
            op.level = level_of(level);
            op.attempt = attempt_of(attempt);
            op.witnessed_on_at = witnessed.clone().filter(|_| seen_on);
        }
        Phase::Proving { attempt, off } => {
            op.attempt = attempt_of(attempt);
            sent(op, off);
        }
        Phase::Releasing { attempt, off, since } => {
            op.attempt = attempt_of(attempt);
            op.phase_since = micro(since);
            sent(op, off);
        }
        Phase::Restoring { level, attempt, off, on, then } => {
            op.level = level_of(level);
            op.restore_attempt = attempt_of(attempt);
            op.sent_off_at = micro(off);
            op.sent_on_at = on.and_then(micro);
            op.then = match then {
                Then::Leave => None,
                Then::Again => Some(AGAIN.to_owned()),
            };
        }
        Phase::Done { rest } => rested(op, rest),
        Phase::Halted { why, off, rest } => {
            op.why = Some(why_name(why).to_owned());
            if let Some(off) = off {
                sent(op, off);
            }
            rested(op, rest);
        }
    }
    status.attempt = (op.attempt > 0).then_some(op.attempt);
    status.phase = Some(name(phase).to_owned());
    status.last_update_time = Some(MetaTime(now));
}

/// Says what is going on, for people: the message, and an entry of the timeline if it is news.
pub fn tell(status: &mut Status, message: &str, blocking: Vec<String>, now: Timestamp) {
    if status.message.as_deref() != Some(message) {
        let phase = status.phase.clone().unwrap_or_default();
        status.record(TimelineEntry { at: MicroTime(now), phase, message: message.to_owned() });
        status.message = Some(message.to_owned());
    }
    status.blocking = blocking;
    status.last_update_time = Some(MetaTime(now));
}

/// What a phase means for NHC and for people, beside the phase itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing<'a> {
    /// The phase that is entered.
    pub phase: Phase,
    /// The set was released just now: Releasing was left in good order.
    pub released: bool,
    /// The machine was switched on again.
    pub restored: bool,
    /// Stable code of why it halted.
    pub code: &'a str,
    /// The same in a sentence.
    pub message: &'a str,
    /// The kind of proof, where there is one.
    pub proof: &'a str,
    /// A person is asked just now, and the node is silent.
    pub asked: bool,
    /// `metadata.generation` of what was acted on.
    pub generation: Option<i64>,
}

/// Brings the conditions up to date. `Succeeded` that was True stays True: a power-on that fails afterwards does not take
/// a release back.
pub fn conditions(conditions: &mut Vec<Condition>, standing: Standing<'_>, now: Timestamp) {
    let Standing { phase, released, restored, code, message, proof, asked, generation } = standing;
    conditions.retain(|condition| condition.type_ != LEADING); // whoever writes this leads
    let was_asked = conditions.iter().any(|condition| condition.type_ == AWAITING);
    let mut set = |type_: &str, status: &str, reason: &str, message: &str| {
        put(
            conditions,
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message: message.to_owned(),
                observed_generation: generation,
                last_transition_time: MetaTime(now),
            },
        );
    };
    if was_asked {
        set(
            AWAITING,
            "False",
            if matches!(phase, Phase::Releasing { .. }) { "Confirmed" } else { "NotAsked" },
            message,
        );
    }
    match phase {
        Phase::Accepted => {
            set(PROCESSING, "True", "RemediationStarted", STARTED);
            set(ACTION, "Unknown", "RemediationStarted", STARTED);
            set(SUCCEEDED, "Unknown", "RemediationStarted", STARTED);
        }
        Phase::Isolating { .. } | Phase::Proving { .. } => set(PROCESSING, "True", "RemediationStarted", STARTED),
        Phase::Releasing { .. } => {
            set(PROCESSING, "True", "RemediationStarted", STARTED);
            set(ACTION, "True", "FenceAgentSucceeded", message);
            set(ISOLATED, "True", proof, message);
        }
        Phase::Restoring { .. } if released => {
            set(RELEASED, "True", "RemediationFinishedSuccessfully", message);
            set(SUCCEEDED, "True", "RemediationFinishedSuccessfully", message);
        }
        Phase::Restoring { .. } => {}
        Phase::Done { .. } => {
            set(PROCESSING, "False", "RemediationFinished", message);
            if restored {
                set(RESTORED, "True", "PowerOn", message);
            }
        }
        Phase::Halted { why, .. } => match why {
            // It goes on by itself: not a failure that NHC should escalate from.
            Why::Unconfirmed => {
                set(PROCESSING, "True", code, message);
                set(SUCCEEDED, "Unknown", code, message);
                let (status, reason) = if asked { ("True", code) } else { ("False", "NodeAlive") };
                set(AWAITING, status, reason, message);
            }
            Why::Busy | Why::Held(_) | Why::NewOrder => {
                set(PROCESSING, "True", code, message);
                set(SUCCEEDED, "Unknown", code, message);
            }
            Why::NotRestored => {
                set(PROCESSING, "False", code, message);
                set(RESTORED, "False", code, message);
            }
            Why::Unresolved | Why::Refused | Why::WrongMachine | Why::Unheard | Why::NotProven | Why::Denied => {
                set(PROCESSING, "False", code, message);
                set(ACTION, "False", "FenceAgentFailed", message);
                set(ISOLATED, "False", code, message);
                set(SUCCEEDED, "False", code, message);
            }
            Why::TimedOut => {
                set(PROCESSING, "False", "RemediationInterruptedByNHC", message);
                set(ACTION, "False", "RemediationInterruptedByNHC", message);
                set(SUCCEEDED, "False", "RemediationInterruptedByNHC", message);
            }
            Why::NodeGone => {
                set(PROCESSING, "False", "RemediationFinishedNodeNotFound", message);
                set(ACTION, "False", "RemediationFinishedNodeNotFound", message);
                set(SUCCEEDED, "False", "RemediationFinishedNodeNotFound", message);
            }
        },
    }
}

/// Tells whether FAR, which writes no phase, has finished with this remediation, one way or the other.
pub fn is_over(status: &Status) -> bool {
    status.phase.is_none() && status.conditions.iter().any(|c| c.type_ == PROCESSING && c.status == "False")
}

/// Tells whether FAR, which writes no phase, has begun to release this remediation's workloads.
pub fn is_released_by_far(status: &Status) -> bool {
    status.phase.is_none() && status.conditions.iter().any(|c| c.type_ == ACTION && c.status == "True")
}

/// Returns the phase's name, as `status.phase` has it.
pub fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Accepted => "Accepted",
        Phase::Isolating { .. } => "Isolating",
        Phase::Proving { .. } => "Proving",
        Phase::Releasing { .. } => "Releasing",
        Phase::Restoring { .. } => "Restoring",
        Phase::Done { .. } => "Done",
        Phase::Halted { .. } => "Halted",
    }
}

/// Returns the stable code of a halt that has none of its own from the device or the spec.
pub fn why_name(why: Why) -> &'static str {
    match why {
        Why::Busy => "Busy",
        Why::Held(Hold::Excluded) => "Excluded",
        Why::Held(Hold::Foreign) => "ForeignRemediation",
        Why::Held(Hold::Leased) => "NodeLeased",
        Why::Held(Hold::Budget) => "Budget",
        Why::Held(Hold::Quorum) => "Quorum",
        Why::Unresolved => "Unresolved",
        Why::Refused => "Refused",
        Why::WrongMachine => "WrongMachine",
        Why::Unheard => "Unheard",
        Why::NotProven => "NotProven",
        Why::Unconfirmed => "AwaitingConfirmation",
        Why::Denied => "Denied",
        Why::NotRestored => "NotRestored",
        Why::NewOrder => "NewOrder",
        Why::TimedOut => "TimedOut",
        Why::NodeGone => "NodeGone",
    }
}

const WHYS: [Why; 17] = [
    Why::Busy,
    Why::Held(Hold::Excluded),
    Why::Held(Hold::Foreign),
    Why::Held(Hold::Leased),
    Why::Held(Hold::Budget),
    Why::Held(Hold::Quorum),
    Why::Unresolved,
    Why::Refused,
    Why::WrongMachine,
    Why::Unheard,
    Why::NotProven,
    Why::Unconfirmed,
    Why::Denied,
    Why::NotRestored,
    Why::NewOrder,
    Why::TimedOut,
    Why::NodeGone,
];
/// False on what this operator leaves alone, because another one leads.
pub const LEADING: &str = "Leading";
const AGAIN: &str = "Again";
const PROCESSING: &str = "Processing";
const ACTION: &str = "FenceAgentActionSucceeded";
const SUCCEEDED: &str = "Succeeded";
const AWAITING: &str = "AwaitingConfirmation";
const ISOLATED: &str = "Isolated";
const RELEASED: &str = "Released";
const RESTORED: &str = "Restored";
const STARTED: &str = "The remediation was accepted, and its node exists";

fn micro(at: Time) -> Option<MicroTime> {
    Some(MicroTime(timestamp(at)))
}

/// Absent for the first, as in what older releases wrote.
fn level_of(level: Level) -> Option<i32> {
    i32::try_from(level).ok().filter(|_| level > FIRST)
}

fn rested(op: &mut Operation, rest: Rest) {
    op.quiet_at = rest.quiet.and_then(micro);
    op.yielded = rest.yielded;
}

fn put(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|old| old.type_ == new.type_) {
        Some(old) if old.type_ == SUCCEEDED && old.status == "True" => {}
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::BegunLevel;

    /// Whatever is entered is read back as it was: what a resumed leader decides on is what was decided (write-ahead).
    #[test]
    fn every_phase_survives_the_round_trip() {
        let off = |answered, seen_on| Off { at: 1_700_000_000_123, answered, seen_on, level: 1 };
        let mut phases = vec![Phase::Accepted];
        for (answered, seen_on, level) in [(false, false, 1), (false, true, 2), (true, false, 3), (true, true, 1)] {
            let off = Off { level, ..off(answered, seen_on) };
            phases.push(Phase::Isolating { level, attempt: 3, seen_on });
            phases.push(Phase::Proving { attempt: 2, off });
            phases.push(Phase::Releasing { attempt: 2, off, since: 1_700_000_000_456 });
        }
        for then in [Then::Leave, Then::Again] {
            for on in [None, Some(1_700_000_000_789)] {
                phases.push(Phase::Restoring { level: 2, attempt: 2, off: 1_700_000_000_000, on, then });
            }
        }
        for quiet in [None, Some(0), Some(1_700_000_000_001)] {
            for yielded in [false, true] {
                let rest = Rest { quiet, yielded };
                phases.push(Phase::Done { rest });
                for why in WHYS {
                    phases.push(Phase::Halted { why, off: None, rest });
                    phases.push(Phase::Halted { why, off: Some(off(true, true)), rest });
                }
            }
        }
        let mut status = Status::default();
        for (entries, expected) in phases.iter().enumerate() {
            enter(&mut status, *expected, timestamp(1_700_000_009_999));
            let json = serde_json::to_string(&status).expect("plain data");
            let read: Status = serde_json::from_str(&json).expect("what was written");
            assert_eq!(phase(Some(&read)), Ok(Some(*expected)), "{json}");
            assert_eq!(read.operation.expect("written").entry, entries as i64 + 1, "S2: each entry is counted");
        }
    }

    /// What a later phase is judged by is still there: without the node's signs of life, an old word would count for a node that
    /// has lived since.
    #[test]
    fn what_was_pinned_survives_the_phases() {
        let begun = BegunLevel { failed: Some("Unheard".into()), ..BegunLevel::default() };
        let operation = Operation {
            pulse: Some("7 now boot".into()),
            levels: vec![begun],
            shared_uuid: true,
            action: Some("off".into()),
            ..Operation::default()
        };
        let mut status = Status { operation: Some(operation.clone()), ..Status::default() };
        let off = Off { at: 1, answered: true, seen_on: false, level: 2 };
        let proving = Phase::Proving { attempt: 1, off };
        let halted = Phase::Halted { why: Why::Unconfirmed, off: Some(off), rest: Rest::NEW };
        for phase in [proving, halted, Phase::Releasing { attempt: 1, off, since: 2 }] {
            enter(&mut status, phase, timestamp(3));
            let kept = status.operation.as_ref().expect("written");
            assert_eq!((&kept.pulse, &kept.levels), (&operation.pulse, &operation.levels), "{phase:?}");
            assert_eq!((kept.shared_uuid, &kept.action), (true, &operation.action), "{phase:?}");
        }
    }

    #[test]
    fn a_status_of_somebody_else_is_refused() {
        assert_eq!(phase(None), Ok(None));
        assert_eq!(phase(Some(&Status::default())), Ok(None));
        let foreign =
            Status { phase: Some("Fenced".into()), operation: Some(Operation::default()), ..Status::default() };
        assert!(phase(Some(&foreign)).is_err());
        let without =
            Status { phase: Some("Proving".into()), operation: Some(Operation::default()), ..Status::default() };
        assert!(phase(Some(&without)).is_err(), "Proving without its off is no phase of ours");
    }

    /// NHC reads `Succeeded` alone: True once released, False once halted, and never back from True.
    #[test]
    fn succeeded_says_what_nhc_reads() {
        let stand = |phase, released| Standing {
            phase,
            released,
            restored: false,
            code: "NotProven",
            message: "m",
            proof: "",
            asked: false,
            generation: Some(1),
        };
        let halted = |why| Phase::Halted { why, off: None, rest: Rest::NEW };
        let restoring = Phase::Restoring { level: 1, attempt: 1, off: 1, on: None, then: Then::Leave };
        let mut all = vec![];
        let succeeded = |all: &Vec<Condition>| all.iter().find(|c| c.type_ == SUCCEEDED).map(|c| c.status.clone());
        for (phase, released, expected) in [
            (Phase::Accepted, false, "Unknown"),
            (halted(Why::Busy), false, "Unknown"),
            (halted(Why::NotProven), false, "False"),
            (restoring, false, "False"),
            (restoring, true, "True"),
            (halted(Why::NotRestored), false, "True"),
            (halted(Why::TimedOut), false, "True"),
        ] {
            conditions(&mut all, stand(phase, released), Timestamp::UNIX_EPOCH);
            assert_eq!(succeeded(&all).as_deref(), Some(expected), "{phase:?}");
        }
    }
}

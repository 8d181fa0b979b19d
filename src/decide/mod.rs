//! What to do next, and nothing else: no clock, no network, no randomness, no environment.
//!
//! Knows the rules (DESIGN.md section 1; their ids stand beside the lines that keep them) and the types that they speak
//! of. Must not know Kubernetes, BMCs or how anything is carried out. `tests/model.rs` explores every interleaving of a
//! world with it.

#![deny(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod case;
mod phase;
mod proof;
mod quorum;

use std::time::Duration;

pub use case::{Case, Claim, Levels, Order, Pods, Policy, Revived, Volumes, Word};
pub use phase::{FIRST, Hold, Leave, Level, Off, Phase, Rest, Then, Why};
pub use proof::{Binding, Doubt, Identity, Proof, Reading};
pub use quorum::{Held, Member, majority};
use serde::{Deserialize, Serialize};

/// Wall time: milliseconds since the Unix epoch. What is persisted and compared across restarts and replicas.
pub type Time = u64;
/// Monotonic time of this process: milliseconds since some start. What readings and proofs are aged by.
pub type Mono = u64;
/// A length of time in milliseconds.
pub type Millis = u64;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall time.
    pub wall: Time,
    /// Monotonic time.
    pub mono: Mono,
}

/// First look after a command; the pause then doubles with the time waited.
const LOOK_SOON: Millis = 250;
/// A BMC answers in some 30 to 300 ms and has few sessions: more often than this is no use to anybody.
const LOOK_LATE: Millis = 2_000;
/// Halted goes on looking, for a BMC that comes back; rarely, since nobody waits for it.
const LOOK_HALTED: Millis = 30_000;
/// What only the API server has to be asked for (another's claim, the quorum, a Secret that was missing).
const ASK_AGAIN: Millis = 2_000;
/// The same of a remediation that waits because there are so many.
const ASK_AGAIN_MANY: Millis = 10_000;

/// The same of one that waits for a person.
const ASK_PERSON: Millis = 5_000;

/// One change of the cluster. Each can be repeated.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// NoSchedule taint and claim, in one Node write.
    Claim,
    /// The remediation is counted, where somebody limits how many there may be.
    Admit,
    /// What people have said is judged, and the verdicts written where they said it.
    Judge,
    /// NoExecute taint.
    Bar(Proof),
    /// The set's pods: status Failed, then DELETE by UID and resourceVersion.
    Delete(Proof),
    /// `volumesInUse` is emptied.
    Detach(Proof),
    /// NoExecute taint off.
    Retract,
    /// A real write to each pod left of the set, then to the Node, so that every write decided before fails.
    Seal,
    /// The claim goes to the node's next remediation, in one Node write.
    HandOver,
    /// NoSchedule taint and claim off; seals as well.
    Unclaim,
}

/// A power command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Power {
    /// I1: never reboot, never cycle.
    Off,
    /// Only while restoring.
    On,
}

/// One decision: one write or one effect, never both, so that a crash between any two is just a pause.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Write this phase to status, by compare-and-swap.
    Enter(Phase),
    /// Change the cluster.
    Do(Effect),
    /// Send it; then enter `answered` or `silent`, whichever it was.
    Send {
        /// What to send.
        power: Power,
        /// After an answer of success.
        answered: Phase,
        /// After anything else.
        silent: Phase,
    },
    /// Look again after this time, or when something changes.
    Wait(Duration),
    /// Take the finalizer off.
    Finished,
}

/// Decides the next step of one remediation: the whole policy.
pub fn decide(c: &Case, now: Now) -> Step {
    use {Phase::*, Step::*};
    let Policy { attempts, patience, gap, release_timeout, restore, .. } = c.policy;
    let wall = now.wall;
    let deleted = c.leave.deleted();
    let changed = c.order == Order::Changed;
    let refused = c.reading == Reading::Refused;
    let landed = |sent: Time| wall >= sent.saturating_add(patience);
    let halt = |why, off| Enter(Halted { why, off, rest: Rest::NEW });
    // Nothing can have been sent, so there is nothing to wait for either.
    let decline = |why| Enter(Halted { why, off: None, rest: Rest::UNTOUCHED });
    let level = c.levels.now;
    let isolate = |attempt, seen_on: bool| Enter(Isolating { level, attempt, seen_on: seen_on || c.was_on() });
    let begin = |level| Enter(Isolating { level, attempt: 1, seen_on: false });
    // This level has failed: another way, if there is one. An off of it that lands late does what the next is to do.
    let fail = |why, off: Off| c.levels.next.map_or(halt(why, Some(off)), begin);
    let again = |attempt, off: Off| match attempt < attempts {
        true => isolate(attempt + 1, off.seen_on),
        false => fail(c.unproven(), off),
    };
    // `off`: none was decided later.
    let undo = |off| {
        let then = if changed && !deleted { Then::Again } else { Then::Leave };
        Enter(Restoring { level: c.levels.top.unwrap_or(level), attempt: 1, off, on: None, then })
    };

    // A clock was set back, or the last leader's was ahead: nothing waits for a time that may never come.
    if let Some(phase) = c.phase.not_after(wall) {
        return Enter(phase);
    }
    // S1: in any phase, a node that lives loses our NoExecute taint first; and so does a node that is not ours (L3).
    let off_at = match c.phase {
        Proving { off, .. } | Releasing { off, .. } | Halted { off: Some(off), .. } => off.at,
        Restoring { off, .. } => off,
        Done { rest } | Halted { off: None, rest, .. } => rest.quiet.unwrap_or(wall),
        Accepted | Isolating { .. } => wall,
    };
    let lives = c.reading == Reading::Running || c.contradicted(off_at, wall);
    if c.barrier && (lives || matches!(c.leave, Leave::NodeGone { .. })) {
        return Do(Effect::Retract);
    }
    // L2, L3: `off` says whether an on may have been sent since (L6).
    if let Some(why) = c.leave.stops() {
        match c.phase {
            Accepted => return decline(why),
            Isolating { level, seen_on, .. } => {
                return halt(why, Some(Off { at: wall, answered: false, seen_on, level }));
            }
            Proving { off, .. } | Releasing { off, .. } => return halt(why, Some(off)),
            Restoring { .. } => return halt(why, None),
            Done { .. } | Halted { why: Why::TimedOut | Why::NodeGone, .. } => {}
            Halted { why: Why::Busy | Why::Held(_) | Why::Unresolved | Why::Refused, off, .. }
            | Halted { why: Why::WrongMachine | Why::Unheard | Why::NotProven, off, .. }
            | Halted { why: Why::Unconfirmed | Why::Denied, off, .. }
            | Halted { why: Why::NotRestored | Why::NewOrder, off, .. } => return halt(why, off),
        }
    }
    match c.phase {
        Accepted if deleted => Enter(Done { rest: Rest::UNTOUCHED }), // L1
        Accepted if c.order == Order::Unresolved => decline(Why::Unresolved),
        Accepted if let Some(hold) = c.hold.filter(|hold| hold.before_claim()) => decline(Why::Held(hold)),
        Accepted => match c.claim {
            Claim::Others => decline(Why::Busy),
            // Before anything is written on the node: who waits for others to be through leaves no taint.
            Claim::Free | Claim::Ours if !c.admitted => Do(Effect::Admit),
            // A1: before anybody looks, so that nothing new is scheduled there, and before the quorum is counted (A3).
            Claim::Free => Do(Effect::Claim),
            Claim::Ours if let (Some(why), None) = (c.hopeless(), c.levels.next) => decline(why),
            Claim::Ours if let Some(hold) = c.hold => decline(Why::Held(hold)), // A3
            Claim::Ours if let (Some(_), Some(next)) = (c.hopeless(), c.levels.next) => begin(next),
            Claim::Ours => isolate(1, false),
        },

        // Written ahead of its off, so one may be on its way. Left only for Proving: what is decided there is decided
        // after the last off was.
        Isolating { level, attempt, seen_on } if deleted || changed || c.hold.is_some() => {
            Enter(Proving { attempt, off: Off { at: wall, answered: false, seen_on, level } })
        }
        // What was looked at for the first time: a witness is noted ahead of the off (P2), and who refuses is sent none.
        Isolating { level: 2.., attempt: 1, seen_on: false } if c.was_on() => isolate(1, true),
        Isolating { level: 2.., attempt: 1, seen_on } if let Some(why) = c.hopeless() => {
            fail(why, Off { at: wall, answered: false, seen_on, level })
        }
        Isolating { level, attempt, seen_on } => {
            let sent = |answered| Proving { attempt, off: Off { at: wall, answered, seen_on, level } };
            Send { power: Power::Off, answered: sent(true), silent: sent(false) } // I1 to I3
        }

        Proving { .. } if deleted || changed => undo(wall), // L1, A2
        // A person has all the time in the world; but nobody was asked yet if the question was held up.
        Proving { off, .. } if c.word != Word::NotAsked => match c.hold {
            Some(hold) if !off.answered => halt(Why::Held(hold), Some(off)),
            Some(_) | None if !off.answered => again(0, off),
            Some(_) | None => halt(Why::Unconfirmed, Some(off)),
        },
        Proving { attempt, off } => match c.proof(off, now) {
            Ok(_) => Enter(Releasing { attempt, off, since: wall }),
            Err(Doubt::WrongMachine) => fail(Why::WrongMachine, off),
            Err(Doubt::Refused) => fail(Why::Refused, off),
            Err(Doubt::Unsettled) => Wait(Duration::from_millis(c.policy.settle)),
            // Off, and the node's next renewals are awaited: another off would only begin that anew.
            Err(Doubt::Uncommanded | Doubt::Contradicted) if off.answered && !landed(off.at + 2 * c.policy.renewal) => {
                look(off.at, wall)
            }
            Err(Doubt::Running | Doubt::Unknown | Doubt::Stale)
            | Err(Doubt::Uncommanded | Doubt::Unbound)
            | Err(Doubt::Contradicted) => match (off.answered, attempt < attempts) {
                // Nothing to wait for: nobody is there, or all was tried.
                (false, more)
                    if c.hold.is_none()
                        && (c.nobody || !more)
                        && let Some(next) = c.levels.next =>
                {
                    begin(next)
                }
                // An off is idempotent: one that nobody answered is soon sent again.
                (false, true) if c.hold.is_none() && wall >= off.at.saturating_add(gap) => again(attempt, off),
                (true | false, true | false) if !landed(off.at) => look(off.at, wall),
                (true | false, true | false) if let Some(hold) = c.hold => halt(Why::Held(hold), Some(off)), // A3
                (true | false, true | false) => again(attempt, off),
            },
        },

        Releasing { since, .. } if deleted || changed || c.released() => undo(since),
        Releasing { .. } if c.word == Word::Unjudged => Do(Effect::Judge), // it may be a denial
        Releasing { attempt, off, since } => match c.proof(off, now) {
            Ok(_) if wall >= since.saturating_add(release_timeout) => undo(since), // R5
            Ok(proof) if !c.barrier => Do(Effect::Bar(proof)),                     // R1
            Ok(proof) if c.pods == Pods::Untouched => Do(Effect::Delete(proof)),   // R3
            Ok(proof) if c.volumes == Volumes::InUse => Do(Effect::Detach(proof)), // R4
            Ok(_) => look(since, wall),
            Err(Doubt::Running) => again(attempt, off), // R6
            Err(Doubt::WrongMachine) => fail(Why::WrongMachine, off),
            Err(Doubt::Refused) => fail(Why::Refused, off),
            Err(Doubt::Unsettled) => Wait(Duration::from_millis(c.policy.settle)),
            Err(Doubt::Unknown | Doubt::Stale | Doubt::Uncommanded) | Err(Doubt::Unbound | Doubt::Contradicted) => {
                match landed(since) {
                    true => fail(c.unproven(), off), // R6
                    false => look(since, wall),
                }
            }
        },

        // Seal first: the barrier keeps the pods down for as long as a deletion of them may be in flight.
        Restoring { .. } if !c.sealed => Do(Effect::Seal),    // S2
        Restoring { .. } if c.barrier => Do(Effect::Retract), // S1
        Restoring { then: Then::Leave, .. } if !restore || c.levels.top.is_none() => Enter(Done { rest: Rest::NEW }),
        Restoring { then: Then::Again, .. } if c.levels.top.is_none() => halt(Why::NewOrder, None),
        Restoring { level, attempt, off, on, then } => match c.runs(off, on) {
            true if !landed(off) => look(off, wall), // L1: an off may still land
            // In reverse. That it runs is settled by the last one; sockets that are on say nothing of it.
            true if let Some(below) = c.levels.below => {
                Enter(Restoring { level: below, attempt: 1, off, on: None, then })
            }
            true => match then {
                Then::Leave => Enter(Done { rest: Rest::NEW }),
                Then::Again => halt(Why::NewOrder, None),
            },
            false => match (on, then) {
                (None, Then::Leave | Then::Again) => {
                    let sent = Restoring { level, attempt, off, on: Some(wall), then };
                    Send { power: Power::On, answered: sent, silent: sent } // S3
                }
                (Some(on), Then::Leave | Then::Again) if !refused && !landed(on) => look(on, wall),
                (Some(_), Then::Leave | Then::Again) if !refused && attempt < attempts => {
                    Enter(Restoring { level, attempt: attempt + 1, off, on: None, then })
                }
                (Some(_), Then::Leave) => halt(Why::NotRestored, None),
                (Some(_), Then::Again) => halt(Why::NewOrder, None),
            },
        },

        Done { rest: Rest { quiet: None, .. } } => Enter(Done { rest: Rest { quiet: Some(wall), yielded: false } }),
        Done { rest: Rest { quiet: Some(quiet), .. } } if deleted => c.clean(quiet, wall),
        Done { rest: Rest { yielded: true, .. } } => c.hand_over(),
        Done { rest } if c.awaited() && rest.quiet.is_some_and(landed) => {
            Enter(Done { rest: Rest { yielded: true, ..rest } }) // L6
        }
        Done { .. } => c.rest(LOOK_HALTED),

        Halted { why, off, rest: Rest { quiet: None, .. } } => {
            Enter(Halted { why, off, rest: Rest { quiet: Some(wall), yielded: false } })
        }
        Halted { why, off, rest: rest @ Rest { quiet: Some(quiet), yielded } } => match (why, off) {
            (Why::TimedOut | Why::NodeGone, Some(_) | None) if deleted => c.clean(quiet, wall), // L2, L3
            (_, None) if deleted => c.clean(quiet, wall),
            // Promised is promised: the hand-over may be in flight (L6).
            (_, Some(_)) if deleted && yielded => c.clean(quiet, wall),
            (_, Some(_)) if deleted => undo(wall), // our off may have worked: finish the cycle (L1)
            (_, Some(_) | None) if yielded => c.hand_over(),
            (Why::TimedOut | Why::NodeGone, Some(_) | None) => c.offer(why, off, rest, wall),
            (_, Some(_)) if changed => undo(wall), // A2: start anew with the right order
            // A device that comes back is better than another that does not, and than a person.
            (Why::Unheard | Why::NotProven | Why::Unconfirmed | Why::Refused | Why::WrongMachine, Some(_))
                if let Some(device) = c.levels.revived =>
            {
                Enter(Isolating { level: device.level, attempt: 1, seen_on: device.on })
            }
            (Why::Unconfirmed, Some(off)) => c.confirm(off, rest, now),
            (Why::Unheard | Why::NotProven | Why::Held(_), Some(off)) if let Some(why) = c.hopeless() => fail(why, off),
            (Why::NotProven | Why::Unheard, Some(off)) if c.proof(off, now).is_ok() => {
                Enter(Releasing { attempt: attempts, off, since: wall })
            }
            // Another way was added meanwhile.
            (Why::NotProven | Why::Unheard, Some(_)) if let Some(next) = c.levels.next => begin(next),
            (Why::Unheard, Some(off)) if matches!(c.reading, Reading::Running | Reading::Isolated { .. }) => {
                isolate(attempts, off.seen_on)
            }
            // Again, since only the next edit counts from here on.
            (Why::Refused | Why::WrongMachine | Why::Denied, Some(off))
                if c.edited
                    && let Some(why) = c.hopeless() =>
            {
                fail(why, off)
            }
            (Why::Refused | Why::WrongMachine | Why::Denied, Some(off)) if c.edited => isolate(attempts, off.seen_on),
            (Why::Refused | Why::WrongMachine | Why::Denied, None) if c.edited => Enter(Accepted),
            (Why::Unresolved, None) if c.order != Order::Unresolved => Enter(Accepted),
            (Why::Held(_), Some(off)) if c.hold.is_none() => isolate(attempts, off.seen_on),
            (Why::Held(_), None) if c.hold.is_none() => Enter(Accepted),
            // It waits for something else now.
            (Why::Held(was), Some(off)) if let Some(hold) = c.hold.filter(|hold| *hold != was) => {
                halt(Why::Held(hold), Some(off))
            }
            (Why::Held(was), None) if let Some(hold) = c.hold.filter(|hold| *hold != was) => decline(Why::Held(hold)),
            (Why::Busy, None) if c.claim != Claim::Others => Enter(Accepted),
            (Why::NewOrder, None) if landed(quiet) => Enter(Accepted),
            // Sockets that are on say nothing of what is below them.
            (Why::NotRestored, None)
                if landed(quiet)
                    && c.runs(quiet, Some(quiet))
                    && (c.levels.below.is_none() || c.reading != Reading::Running) =>
            {
                Enter(Done { rest: Rest::NEW })
            }
            (Why::NotRestored, None) if c.edited => {
                let level = c.levels.top.unwrap_or(level);
                Enter(Restoring { level, attempt: attempts, off: quiet, on: None, then: Then::Leave })
            }
            (Why::Busy | Why::Held(_) | Why::Unresolved | Why::Refused | Why::WrongMachine, Some(_) | None)
            | (Why::Unheard | Why::NotProven | Why::NotRestored | Why::NewOrder, Some(_) | None)
            | (Why::Unconfirmed | Why::Denied, Some(_) | None) => c.offer(why, off, rest, wall),
        },
    }
}

/// A pause that grows with the time waited so far.
fn look(since: Time, now: Time) -> Step {
    Step::Wait(Duration::from_millis(now.saturating_sub(since).clamp(LOOK_SOON, LOOK_LATE)))
}

impl Case {
    /// Waits for a person's word.
    fn confirm(&self, off: Off, rest: Rest, now: Now) -> Step {
        let (attempt, level, why) = (self.policy.attempts, off.level, Why::Unconfirmed);
        match self.word {
            Word::Unjudged => Step::Do(Effect::Judge),
            Word::Denied => Step::Enter(Phase::Halted { why: Why::Denied, off: Some(off), rest: Rest::NEW }),
            // It is silent again: that is another question.
            Word::Void if now.wall >= self.life.saturating_add(self.policy.renewal) => {
                Step::Enter(Phase::Isolating { level, attempt, seen_on: false })
            }
            Word::Given if self.proof(off, now).is_ok() => {
                Step::Enter(Phase::Releasing { attempt, off, since: now.wall })
            }
            Word::NotAsked | Word::Awaited | Word::Given | Word::Void => self.offer(why, Some(off), rest, now.wall),
        }
    }

    /// L6: a halted remediation promises the node to the next one once nothing of its own can arrive: late offs are
    /// covered by L1, a late on is not.
    fn offer(&self, why: Why, off: Option<Off>, rest: Rest, now: Time) -> Step {
        let settled = rest.quiet.is_some_and(|quiet| now >= quiet.saturating_add(self.policy.patience));
        if self.awaited() && (off.is_some() || settled) {
            return Step::Enter(Phase::Halted { why, off, rest: Rest { yielded: true, ..rest } });
        }
        self.rest(match why {
            Why::Held(Hold::Budget) => ASK_AGAIN_MANY,
            Why::Busy | Why::Held(_) | Why::Unresolved | Why::NewOrder => ASK_AGAIN,
            // The device is left alone; but Secrets are not watched.
            Why::Refused | Why::WrongMachine | Why::Denied => ASK_AGAIN,
            Why::Unconfirmed => ASK_PERSON,
            Why::Unheard | Why::NotProven | Why::NotRestored => LOOK_HALTED,
            Why::TimedOut | Why::NodeGone => LOOK_HALTED,
        })
    }

    /// With our barrier up, a node that comes back must be seen soon (S1).
    fn rest(&self, pause: Millis) -> Step {
        Step::Wait(Duration::from_millis(if self.barrier { LOOK_LATE } else { pause }))
    }

    /// Sealed first: the heir's own seal does not reach the pods of our set (S2).
    fn hand_over(&self) -> Step {
        match self.awaited() {
            true if !self.sealed => Step::Do(Effect::Seal),
            true => Step::Do(Effect::HandOver),
            false => self.rest(LOOK_HALTED),
        }
    }

    /// Leaves nothing on the node, and nothing in flight for the next remediation to meet (L5).
    fn clean(&self, quiet: Time, now: Time) -> Step {
        use Step::*;
        let landed = quiet.saturating_add(self.policy.patience);
        match self.claim {
            // The node is another remediation's, and so is its barrier.
            Claim::Others if !self.sealed => Do(Effect::Seal),
            Claim::Others if now < landed => Wait(Duration::from_millis(landed - now)),
            Claim::Others => Finished,
            Claim::Ours | Claim::Free if self.barrier && self.sealed => Do(Effect::Retract),
            Claim::Ours | Claim::Free if self.barrier => Do(Effect::Seal),
            Claim::Free if !self.sealed => Do(Effect::Seal), // a claim of ours in flight fails, too
            Claim::Ours | Claim::Free if now < landed => Wait(Duration::from_millis(landed - now)),
            Claim::Ours => Do(Effect::Unclaim),
            Claim::Free => Finished,
        }
    }
}

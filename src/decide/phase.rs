//! Where a remediation stands, and how it is left.

use serde::{Deserialize, Serialize};

use super::{Claim, Time};

/// Which of the ways to cut a node off, in the order in which they are tried; the first is 1.
pub type Level = u32;

/// The spec's own agent.
pub const FIRST: Level = 1;

fn first() -> Level {
    FIRST
}

/// Where a remediation stands. Written to `status` *before* anything it permits is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Taken on; nothing has been sent yet.
    Accepted,
    /// An off may be sent, or may have been.
    Isolating {
        /// The level that is sent to.
        #[serde(default = "first")]
        level: Level,
        /// Of this level, counted from 1.
        attempt: u32,
        /// The same switch was read ON since the node booted, before any off of ours (P2, Witness).
        seen_on: bool,
    },
    /// An off was sent; no proof yet.
    Proving {
        /// The attempt that this off belongs to.
        attempt: u32,
        /// That off.
        off: Off,
    },
    /// Proven off at least once; the set of pods and volumes is being released, each effect with its own proof.
    Releasing {
        /// As in `Proving`.
        attempt: u32,
        /// The off that was proven.
        off: Off,
        /// When the phase was entered.
        since: Time,
    },
    /// What is ours comes off the node, and the machine is switched on again.
    Restoring {
        /// The level that is switched on: those that were sent an off are, in reverse.
        #[serde(default = "first")]
        level: Level,
        /// Of switching it on, counted from 1.
        attempt: u32,
        /// No off of ours was decided later.
        off: Time,
        /// When this attempt's on was sent.
        on: Option<Time>,
        /// What follows.
        then: Then,
    },
    /// Nothing more to do but to leave, once the remediation is deleted.
    Done {
        /// How it rests.
        rest: Rest,
    },
    /// Not done, and why.
    Halted {
        /// In one word; `status` says it in a sentence.
        why: Why,
        /// The latest off, if one may have been sent and no on since.
        off: Option<Off>,
        /// How it rests.
        rest: Rest,
    },
}

impl Phase {
    /// Tells whether a decision in this phase depends on the isolator's reading: where it does not, nobody looks (the
    /// reading is `Unknown` then), no session of the BMC is taken, and no account is locked.
    ///
    /// `claim`: who holds the node; it is claimed before anybody looks.
    /// `barrier`: our NoExecute taint is on the node; whoever has it up must see a node that lives (S1).
    /// `edited`: spec or Secrets have changed since it halted.
    pub fn looks(self, claim: Claim, barrier: bool, edited: bool) -> bool {
        match self {
            Phase::Accepted => claim == Claim::Ours,
            Phase::Proving { .. } | Phase::Releasing { .. } | Phase::Restoring { .. } => true,
            // The first level was looked at in Accepted. Others are before their first off (P2).
            Phase::Isolating { level, attempt, seen_on } => barrier || (level > FIRST && attempt == 1 && !seen_on),
            Phase::Done { .. } => barrier,
            Phase::Halted { rest: Rest { yielded: true, .. }, .. } => barrier,
            Phase::Halted { why, off, rest: Rest { yielded: false, .. } } => match why {
                Why::Unheard | Why::NotProven | Why::Unconfirmed => true,
                Why::Held(_) => barrier || off.is_some(), // else Accepted looks
                Why::Refused | Why::WrongMachine | Why::Denied => edited,
                Why::NotRestored => barrier || edited, // the node's own life tells
                Why::TimedOut | Why::NodeGone | Why::NewOrder => barrier,
                Why::Busy | Why::Unresolved => barrier,
            },
        }
    }
}

impl Phase {
    /// Returns the off that is to be proven, if there is one.
    pub fn off(self) -> Option<Off> {
        match self {
            Phase::Proving { off, .. } | Phase::Releasing { off, .. } => Some(off),
            Phase::Halted { off, .. } => off,
            Phase::Accepted | Phase::Isolating { .. } | Phase::Restoring { .. } | Phase::Done { .. } => None,
        }
    }

    /// Tells whether evidence is weighed in this phase: whether what other devices say matters, and what people do.
    pub fn is_judged(self) -> bool {
        match self {
            Phase::Proving { .. } | Phase::Releasing { .. } => true,
            Phase::Halted { why, off, .. } => match why {
                Why::Unheard | Why::NotProven | Why::Unconfirmed => off.is_some(),
                // A device of another level may come back.
                Why::Refused | Why::WrongMachine => off.is_some(),
                Why::Busy | Why::Held(_) | Why::Unresolved | Why::Denied => false,
                Why::NotRestored | Why::NewOrder | Why::TimedOut | Why::NodeGone => false,
            },
            Phase::Accepted | Phase::Isolating { .. } | Phase::Restoring { .. } | Phase::Done { .. } => false,
        }
    }

    /// Returns the level that is acted on, where the phase has one.
    pub fn level(self) -> Option<Level> {
        match self {
            Phase::Isolating { level, .. } | Phase::Restoring { level, .. } => Some(level),
            Phase::Proving { .. } | Phase::Releasing { .. } | Phase::Halted { .. } => self.off().map(|off| off.level),
            Phase::Accepted | Phase::Done { .. } => None,
        }
    }

    /// Returns the phase with no time later than `now`, if it has any.
    pub(super) fn not_after(self, now: Time) -> Option<Self> {
        let off = |off: Off| Off { at: off.at.min(now), ..off };
        let rest = |rest: Rest| Rest { quiet: rest.quiet.map(|quiet| quiet.min(now)), ..rest };
        let phase = match self {
            Phase::Accepted | Phase::Isolating { .. } => self,
            Phase::Proving { attempt, off: sent } => Phase::Proving { attempt, off: off(sent) },
            Phase::Releasing { attempt, off: sent, since } => {
                Phase::Releasing { attempt, off: off(sent), since: since.min(now) }
            }
            Phase::Restoring { level, attempt, off, on, then } => {
                Phase::Restoring { level, attempt, off: off.min(now), on: on.map(|on| on.min(now)), then }
            }
            Phase::Done { rest: quiet } => Phase::Done { rest: rest(quiet) },
            Phase::Halted { why, off: sent, rest: quiet } => {
                Phase::Halted { why, off: sent.map(off), rest: rest(quiet) }
            }
        };
        (phase != self).then_some(phase)
    }
}

/// Our latest off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Off {
    /// When it was decided.
    pub at: Time,
    /// It was answered with success; until then an Off is hearsay (I2).
    pub answered: bool,
    /// The same switch was read ON before it (P2, Witness); of several, each.
    pub seen_on: bool,
    /// Which devices were sent it.
    #[serde(default = "first")]
    pub level: Level,
}

/// How Done and Halted rest until the remediation is deleted (L5, L6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rest {
    /// No power command of ours was decided later. Stamped by a second write, once the phase is written: before that,
    /// another replica may still be deciding in the phase before. `Some(0)`: there never was one.
    pub quiet: Option<Time>,
    /// The node was promised to its next remediation: nothing continues here. Written ahead of giving the claim away.
    pub yielded: bool,
}

impl Rest {
    /// Just come to rest: not stamped yet.
    pub const NEW: Self = Self { quiet: None, yielded: false };
    /// At rest before any power command was possible.
    pub const UNTOUCHED: Self = Self { quiet: Some(0), yielded: false };
}

/// What follows once the machine is on again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Then {
    /// The remediation is over.
    Leave,
    /// Start again: this was the wrong order (A2).
    Again,
}

/// Why a remediation halted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Why {
    /// Another remediation holds the node (A1).
    Busy,
    /// No off for now; goes on by itself when nothing holds it any more.
    Held(Hold),
    /// Spec and Secrets give no order: unknown agent, missing Secret, bad template.
    Unresolved,
    /// The isolator refuses in a way that looking again can't mend: credentials, certificate, ambiguous system.
    Refused,
    /// The isolator speaks for another machine.
    WrongMachine,
    /// The isolator said nothing at all; goes on when it speaks again.
    Unheard,
    /// The machine could not be proven off; goes on when it can.
    NotProven,
    /// A person is asked to make sure, and has not said so yet; goes on when somebody has.
    Unconfirmed,
    /// A person said that the node is not to be taken for isolated.
    Denied,
    /// The machine could not be switched on again.
    NotRestored,
    /// The wrong machine is on again; starts anew when nothing of ours is in flight any more (A2).
    NewOrder,
    /// NHC has gone on to the next remediator (L2).
    TimedOut,
    /// There is no such Node any more (L3).
    NodeGone,
}

/// What stands against an off for now, and ends without us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Hold {
    /// An administrator has excluded the node from remediation.
    Excluded,
    /// Another remediator is at work on the node.
    Foreign,
    /// Somebody else holds the node's lease.
    Leased,
    /// Too many machines are being cut off, or were lately.
    Budget,
    /// The control plane would lose its majority (A3).
    Quorum,
}

impl Hold {
    /// Tells whether it can be known before the node is claimed. (A quorum is counted with the claim in place: A3.)
    pub(super) fn before_claim(self) -> bool {
        match self {
            Hold::Excluded | Hold::Foreign | Hold::Leased | Hold::Budget => true,
            Hold::Quorum => false,
        }
    }
}

/// How, if at all, the remediation is being left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Leave {
    /// It is not.
    No,
    /// The remediation has a deletionTimestamp (L1).
    Deleted,
    /// NHC's time is up (L2).
    TimedOut {
        /// And it has a deletionTimestamp, too.
        deleted: bool,
    },
    /// The Node is gone, or another UID stands under its name (L3).
    NodeGone {
        /// And it has a deletionTimestamp, too.
        deleted: bool,
    },
}

impl Leave {
    /// Tells whether the remediation is being deleted.
    pub fn deleted(self) -> bool {
        match self {
            Leave::No => false,
            Leave::Deleted => true,
            Leave::TimedOut { deleted } | Leave::NodeGone { deleted } => deleted,
        }
    }

    /// Why there is to be no power command from here on, if so.
    pub(super) fn stops(self) -> Option<Why> {
        match self {
            Leave::No | Leave::Deleted => None,
            Leave::TimedOut { .. } => Some(Why::TimedOut),
            Leave::NodeGone { .. } => Some(Why::NodeGone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: Off = Off { at: 7, answered: true, seen_on: true, level: FIRST };

    fn halted(why: Why, off: Option<Off>, yielded: bool) -> Phase {
        Phase::Halted { why, off, rest: Rest { quiet: Some(9), yielded } }
    }

    /// A BMC is asked where the answer may change something, and left alone elsewhere.
    #[test]
    fn a_halted_remediation_looks_where_it_matters() {
        let looks = |phase: Phase, barrier, edited| phase.looks(Claim::Ours, barrier, edited);
        for (why, off, alone, barred, edited) in [
            (Why::NotProven, Some(OFF), true, true, true),
            (Why::Held(Hold::Quorum), Some(OFF), true, true, true),
            (Why::Held(Hold::Quorum), None, false, true, false),
            (Why::Refused, Some(OFF), false, false, true),
            (Why::NotRestored, None, false, true, true),
            (Why::TimedOut, Some(OFF), false, true, false),
            (Why::Busy, None, false, true, false),
        ] {
            let phase = halted(why, off, false);
            let told = [looks(phase, false, false), looks(phase, true, false), looks(phase, false, true)];
            assert_eq!(told, [alone, barred, edited], "{why:?} {off:?}");
            let yielded = halted(why, off, true);
            assert_eq!([looks(yielded, false, true), looks(yielded, true, false)], [false, true], "promised, {why:?}");
        }
    }

    #[test]
    fn an_off_is_to_be_proven_until_it_is_undone() {
        let since = 8;
        for (phase, off) in [
            (Phase::Accepted, None),
            (Phase::Isolating { level: FIRST, attempt: 1, seen_on: true }, None),
            (Phase::Proving { attempt: 1, off: OFF }, Some(OFF)),
            (Phase::Releasing { attempt: 1, off: OFF, since }, Some(OFF)),
            (Phase::Restoring { level: FIRST, attempt: 1, off: since, on: None, then: Then::Leave }, None),
            (Phase::Done { rest: Rest::NEW }, None),
            (halted(Why::NotProven, Some(OFF), false), Some(OFF)),
        ] {
            assert_eq!(phase.off(), off, "{phase:?}");
        }
    }
}

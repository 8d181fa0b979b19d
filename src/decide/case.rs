//! What a decision is made on: data, and what can be said of it at a glance.

use serde::{Deserialize, Serialize};

use super::{Hold, Identity, Leave, Level, Millis, Phase, Reading, Time, Why};

/// Our NoSchedule taint and annotation, which also claim the node for one remediation (A1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Claim {
    /// No remediation holds the node, or one that no longer exists.
    Free,
    /// This one holds it.
    Ours,
    /// Another one does.
    Others,
}

/// What spec and Secrets resolve to now, against the order pinned in `status` (A2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Order {
    /// The pinned one; before one is pinned: any.
    Same,
    /// Another device.
    Changed,
    /// None at all.
    Unresolved,
}

/// What remains of the set's pods (R2, R3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Pods {
    /// At least one was not deleted yet.
    Untouched,
    /// All were deleted by us; someone's finalizer holds some.
    Terminating,
    /// None.
    Gone,
}

/// What remains of the set's volumes (R4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Volumes {
    /// Attached, and the Node says that they are in use.
    InUse,
    /// Attached, and free to be detached.
    Attached,
    /// None.
    Gone,
}

/// The levels of a remediation, as seen from the one that is acted on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Levels {
    /// The one that reading, identity and policy are of.
    pub now: Level,
    /// The next one that has an order, if there is one.
    pub next: Option<Level>,
    /// The one before, of those that were sent an off, or may have been.
    pub below: Option<Level>,
    /// The last of those that were sent an off, or may have been.
    pub top: Option<Level>,
    /// One that never answered before it was given up, and answers now.
    pub revived: Option<Revived>,
}

/// A level whose devices never answered, and now do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Revived {
    /// Which.
    pub level: Level,
    /// They say On, each.
    pub on: bool,
}

/// What stands where a person's word is the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Word {
    /// This level is a device's, no person's.
    NotAsked,
    /// Nobody has said anything that counts.
    Awaited,
    /// Somebody has said something that was not judged yet.
    Unjudged,
    /// A person makes sure that the node is isolated.
    Given,
    /// A person says that it is not to be taken for isolated.
    Denied,
    /// The node has shown life since it was asked for: the question was another.
    Void,
}

/// Constants of one remediation, each from its spec or from the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `retrycount`: offs in all.
    pub attempts: u32,
    /// `timeout`: a power command lands within this time of its decision, or never; of all levels the longest.
    pub patience: Millis,
    /// `retryinterval`: pause after an off that nobody answered.
    pub gap: Millis,
    /// `releaseTimeout` (R5).
    pub release_timeout: Millis,
    /// Off is read again after this time (P1); the driver's.
    pub settle: Millis,
    /// A proof expires this long after its last Off (P4).
    pub max_age: Millis,
    /// One missed Lease renewal (P3).
    pub renewal: Millis,
    /// `action: reboot`: the machine is switched on again.
    pub restore: bool,
}

/// Everything a decision may depend on: remediation, Node, isolator, and the remediation again, all read live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Constants.
    pub policy: Policy,
    /// As persisted.
    pub phase: Phase,
    /// How, if at all, the remediation is being left.
    pub leave: Leave,
    /// What spec and Secrets say now.
    pub order: Order,
    /// Spec or Secrets have changed since it halted.
    pub edited: bool,
    /// What the isolator says of the pinned device; `Unknown` also when nobody looked.
    pub reading: Reading,
    /// Some of several devices say Off, and not all do: the machine may run.
    pub partly: bool,
    /// Nobody listens at the device's address: another try won't mend that soon.
    pub nobody: bool,
    /// Whose machine that is.
    pub identity: Identity,
    /// A person's word, where that is asked for.
    pub word: Word,
    /// Which level this is, and what others there are.
    pub levels: Levels,
    /// This very order was read ON since the node's current boot, by a preflight that has been answered ever since (P2).
    pub witnessed: bool,
    /// Another device of this node says On, and not of an outlet.
    pub other_on: bool,
    /// When the node itself last showed life, as seen from here: Lease, Ready heartbeat, bootID. 0: never.
    pub life: Time,
    /// What stands against an off for now, if anything does.
    pub hold: Option<Hold>,
    /// It is counted among those that were let through, or nobody counts.
    pub admitted: bool,
    /// Who holds the node.
    pub claim: Claim,
    /// Another remediation of this node waits for it (L6).
    pub heir: bool,
    /// Our NoExecute taint is on the node (R1).
    pub barrier: bool,
    /// The Node's seal names this very entry of the phase (S2), or there is no such Node any more.
    pub sealed: bool,
    /// What remains of the set's pods.
    pub pods: Pods,
    /// What remains of the set's volumes.
    pub volumes: Volumes,
}

impl Case {
    /// Tells whether the machine was on since its node booted. Preflight's word for it counts only together with an answer
    /// of now: a BMC that is silent may be restarting, and say Off falsely when it is back (P2).
    pub(super) fn was_on(&self) -> bool {
        match self.reading {
            Reading::Running => !self.partly,
            Reading::Isolated { .. } => self.witnessed,
            Reading::Unknown | Reading::Refused => false,
        }
    }

    /// Tells whether nothing remains of the set.
    pub(super) fn released(&self) -> bool {
        self.pods == Pods::Gone && self.volumes == Volumes::Gone
    }

    /// Tells whether the machine runs: its isolator says so, or is silent although it was told to switch the machine
    /// on, and the node itself has shown life after every off of ours must have landed (and its last renewal before that
    /// been seen). (Told: with no binding by identity, what we switched off may be another machine than the node.) Settles
    /// a restoration, never a release.
    pub(super) fn runs(&self, off: Time, on: Option<Time>) -> bool {
        match self.reading {
            Reading::Running => !self.partly,
            Reading::Isolated { .. } => false,
            Reading::Unknown | Reading::Refused => {
                let landed = off.saturating_add(self.policy.patience).saturating_add(self.policy.renewal);
                on.is_some() && self.life > landed
            }
        }
    }

    /// What keeps this order from ever proving anything, if something does: looking again can't mend it.
    pub(super) fn hopeless(&self) -> Option<Why> {
        match (self.identity, self.reading) {
            (Identity::Other, Reading::Running | Reading::Isolated { .. } | Reading::Unknown | Reading::Refused) => {
                Some(Why::WrongMachine)
            }
            (Identity::Same | Identity::Unsaid | Identity::Attested, Reading::Refused) => Some(Why::Refused),
            (Identity::Same | Identity::Unsaid | Identity::Attested, Reading::Running | Reading::Unknown)
            | (Identity::Same | Identity::Unsaid | Identity::Attested, Reading::Isolated { .. }) => None,
        }
    }

    /// Why this level does not prove anything.
    pub fn failure(&self) -> Why {
        self.hopeless().unwrap_or(self.unproven())
    }

    pub(super) fn unproven(&self) -> Why {
        match (self.word, self.reading) {
            (Word::Denied, _) => Why::Denied,
            (Word::Awaited | Word::Unjudged | Word::Given | Word::Void, _) => Why::Unconfirmed,
            (Word::NotAsked, Reading::Unknown | Reading::Refused) => Why::Unheard,
            (Word::NotAsked, Reading::Running | Reading::Isolated { .. }) => Why::NotProven,
        }
    }

    /// We hold the node, and another remediation of it waits.
    pub(super) fn awaited(&self) -> bool {
        self.heir && self.claim == Claim::Ours
    }
}

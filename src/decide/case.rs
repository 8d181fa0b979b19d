//! What a decision is made on: data, and what can be said of it at a glance.

use serde::{Deserialize, Serialize};

use super::{Hold, Identity, Leave, Millis, Phase, Reading, Time, Why};

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

/// Constants of one remediation, each from its spec or from the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `retrycount`: offs in all.
    pub attempts: u32,
    /// `timeout`: a power command lands within this time of its decision, or never.
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
    /// Whose machine that is.
    pub identity: Identity,
    /// This very order was read ON since the node's current boot, by a preflight that has been answered ever since (P2).
    pub witnessed: bool,
    /// Another device of this node says On.
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
            Reading::Running => true,
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
            Reading::Running => true,
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
            (Identity::Same | Identity::Unsaid, Reading::Refused) => Some(Why::Refused),
            (Identity::Same | Identity::Unsaid, Reading::Running | Reading::Isolated { .. } | Reading::Unknown) => None,
        }
    }

    pub(super) fn unproven(&self) -> Why {
        match self.reading {
            Reading::Unknown | Reading::Refused => Why::Unheard,
            Reading::Running | Reading::Isolated { .. } => Why::NotProven,
        }
    }

    /// We hold the node, and another remediation of it waits.
    pub(super) fn awaited(&self) -> bool {
        self.heir && self.claim == Claim::Ours
    }
}

//! Whether the control plane keeps its majority without one of its nodes (A3).
//!
//! Each remediation claims its node first and counts then, so that of two at once at least one sees the other.

use super::{Phase, Time, Why};

/// Another control-plane node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Kubernetes calls it Ready.
    pub ready: bool,
    /// The remediation that holds it: our taint is on it.
    pub held: Option<Held>,
}

/// A remediation that holds a control-plane node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// When it claimed the node; and its UID, which decides between two of one second.
    pub since: (Time, String),
    /// Where it stands, if that can be told.
    pub phase: Option<Phase>,
}

/// Tells whether the others make a majority without the node that `ours` holds: at least ⌊n/2⌋ + 1 of all n.
///
/// A node that another remediation holds does not count, unless that one waits, has sent nothing, and must let ours go
/// first: because ours has begun, or because ours is the older claim. (One that was sent an off before may be off,
/// whatever its Node still says.)
pub fn majority(ours: Option<&Held>, others: &[Member]) -> bool {
    let goes_first = |theirs: &Held| ours.is_some_and(|ours| ours.has_begun() || ours.since < theirs.since);
    let stands = |member: &&Member| match &member.held {
        None => member.ready,
        Some(theirs) => member.ready && theirs.waits() && goes_first(theirs),
    };
    others.iter().filter(stands).count() > others.len().div_ceil(2)
}

impl Held {
    fn waits(&self) -> bool {
        matches!(self.phase, Some(Phase::Halted { why: Why::Held(_), off: None, .. }))
    }

    /// Whoever waits can't have counted this one: it goes on only when this one is over.
    fn has_begun(&self) -> bool {
        match self.phase {
            Some(Phase::Isolating { .. } | Phase::Proving { .. } | Phase::Releasing { .. }) => true,
            Some(Phase::Halted { off, .. }) => off.is_some(),
            Some(Phase::Accepted | Phase::Restoring { .. } | Phase::Done { .. }) | None => false,
        }
    }
}

//! What counts as evidence: the only place where a [`Proof`] is made.

use serde::{Deserialize, Serialize};

use super::{Case, Millis, Mono, Now, Off, Time};

/// What an isolator saw. `Unknown` is a reading, not an error that someone may swallow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reading {
    /// It can't write: no power (later isolators: gone, or silent for longer than an armed watchdog).
    Isolated {
        /// The first reading of an unbroken series in this process, with no command in between.
        first: Mono,
        /// The latest one.
        last: Mono,
    },
    /// It runs, or can't be excluded to run by an answer that was given ("PoweringOff", "Paused").
    Running,
    /// No answer that means anything, and it may come: time-out, 5xx, dropped connection.
    Unknown,
    /// No answer, and looking again can't mend it: credentials, certificate, ambiguous system.
    Refused,
}

impl Reading {
    /// What the devices of a level come to, of which each must be off: whether the machine may run, and whether only some
    /// of them say so. Two feeds of one machine, of which one is on, are a machine that runs.
    pub fn of_all(all: &[Self]) -> (Self, bool) {
        let any = |wanted: fn(&Self) -> bool| all.iter().any(wanted);
        let off = any(|reading| matches!(reading, Reading::Isolated { .. }));
        if any(|reading| *reading == Reading::Running) {
            return (Reading::Running, all.iter().any(|reading| *reading != Reading::Running));
        }
        if any(|reading| *reading == Reading::Refused) {
            return (Reading::Refused, false);
        }
        if !off || any(|reading| *reading == Reading::Unknown) {
            return (Reading::Unknown, false);
        }
        // From when the last of them was off, and as old as the oldest.
        let spans = all.iter().filter_map(|reading| match reading {
            Reading::Isolated { first, last } => Some((*first, *last)),
            Reading::Running | Reading::Unknown | Reading::Refused => None,
        });
        let (first, last) = spans.fold((0, Mono::MAX), |(first, last), span| (first.max(span.0), last.min(span.1)));
        (Reading::Isolated { first, last }, false)
    }
}

impl Identity {
    /// Whose machine several devices speak of: each must say the same, and one that says another's spoils all.
    pub fn of_all(all: &[Self]) -> Self {
        let any = |wanted: Self| all.contains(&wanted);
        match () {
            () if any(Identity::Other) => Identity::Other,
            () if all.is_empty() || any(Identity::Unsaid) => Identity::Unsaid,
            () if any(Identity::Attested) => Identity::Attested,
            () => Identity::Same,
        }
    }
}

/// Whose machine the isolator says it is: its system UUID against the Node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Identity {
    /// This Node's.
    Same,
    /// Another's.
    Other,
    /// It says none, or none that means anything, or was told not to be asked. (Of several devices: one of them.)
    Unsaid,
    /// No device, but a person says that it is this Node's, of this boot, and answers this very question.
    Attested,
}

/// Why the right machine is meant (P2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// The BMC's system UUID is this Node's.
    Identity,
    /// The same switch was read ON before our off, and OFF after it.
    Witness,
    /// A person has made sure. Ranks below what was read from a device.
    Person,
}

/// Why a reading is no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// It says On.
    Running,
    /// It says nothing.
    Unknown,
    /// It refuses to say, and will go on refusing.
    Refused,
    /// The last Off is too old (P4).
    Stale,
    /// Off was not yet read again after the settle time (P1).
    Unsettled,
    /// Off, but not by this remediation's command, as far as it knows (I2).
    Uncommanded,
    /// Nothing says that this is the right machine (P2).
    Unbound,
    /// Something says that it is another (P2).
    WrongMachine,
    /// Something else says that the machine lives (P3).
    Contradicted,
}

/// Licence to release workloads.
///
/// # Guarantees
/// Made only in this module, from a fresh reading of the right machine with nothing against it. It is spent by value,
/// is neither `Clone` nor `Deserialize`, and is never stored:
/// ```compile_fail
/// let forged = ringfence::decide::Proof { expires: u64::MAX, binding: ringfence::decide::Binding::Identity };
/// ```
/// ```compile_fail
/// fn twice(proof: ringfence::decide::Proof) -> [ringfence::decide::Proof; 2] { [proof.clone(), proof] }
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct Proof {
    expires: Mono,
    binding: Binding,
}

impl Proof {
    /// Tells whether it may still be used: ask right before each write that it permits.
    pub fn holds(&self, now: Mono) -> bool {
        now <= self.expires
    }

    /// Why the right machine is meant.
    pub fn binding(&self) -> Binding {
        self.binding
    }
}

impl Case {
    /// The only mint of a `Proof`: positive evidence, from the right machine, nothing against it.
    pub(super) fn proof(&self, off: Off, now: Now) -> Result<Proof, Doubt> {
        let policy = &self.policy;
        if self.identity == Identity::Other {
            return Err(Doubt::WrongMachine); // whatever it reads
        }
        let (first, last) = match self.reading {
            Reading::Isolated { first, last } => (first, last),
            Reading::Running => return Err(Doubt::Running),
            Reading::Unknown => return Err(Doubt::Unknown),
            Reading::Refused => return Err(Doubt::Refused),
        };
        // `wait`: since our off. `watch`: in one unbroken series, whose beginning is what a sign of life is told by.
        let (binding, wait, watch): (_, Millis, Millis) = match self.identity {
            // Never seen on: the Off may be older than our off, and an accepted off may take its time (I2).
            Identity::Same if !off.seen_on => (Binding::Identity, policy.patience, policy.renewal),
            Identity::Same => (Binding::Identity, 0, 0),
            // A mis-wired outlet shows only by the node's next renewal (P3).
            Identity::Unsaid if off.seen_on => (Binding::Witness, policy.renewal, policy.renewal),
            Identity::Unsaid => return Err(Doubt::Unbound),
            // Whoever pulled the wrong plug learns it by the node's next renewal, like a mis-wired outlet. And since it was
            // asked: what was seen of an earlier question is no beginning for this one.
            Identity::Attested => (Binding::Person, policy.renewal, policy.renewal),
            Identity::Other => return Err(Doubt::WrongMachine),
        };
        if !off.answered || now.wall < off.at.saturating_add(wait) {
            return Err(Doubt::Uncommanded); // I2
        }
        if self.contradicted(off.at, now.wall) {
            return Err(Doubt::Contradicted); // P3
        }
        if last.saturating_sub(first) < watch {
            return Err(Doubt::Uncommanded); // P3: a process that has just come has seen no renewal missed
        }
        let expires = last.saturating_add(policy.max_age);
        match now.mono <= expires {
            true if last.saturating_sub(first) < policy.settle => Err(Doubt::Unsettled), // P1
            true => Ok(Proof { expires, binding }),
            false => Err(Doubt::Stale), // P4
        }
    }

    /// Tells people why there is no proof after this off, if there is none.
    pub fn doubt(&self, off: Off, now: Now) -> Option<Doubt> {
        self.proof(off, now).err()
    }

    /// P3: something else than the isolator says that the machine lives.
    pub(super) fn contradicted(&self, off: Time, now: Time) -> bool {
        self.other_on || (self.life > off && now < self.life.saturating_add(self.policy.renewal))
    }
}

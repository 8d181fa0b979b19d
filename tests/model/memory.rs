//! What one replica remembers of a remediation between two looks, as `src/observe/memory.rs` does: only what it has seen
//! itself, and nothing after a restart. What the world knows better, no replica may use.

use ringfence::decide::{Claim, Phase, Reading, Time};

use crate::clock::{NOW, RENEWAL};
use crate::levels::Kind;
use crate::state::{Act, State, View};
use crate::world::{Flaw, World};

/// The node's last sign of life, as far as a replica knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pulse {
    /// Never felt.
    Unknown,
    /// Felt, and the same since.
    Felt,
    /// The node has renewed its Lease since.
    Moved,
}

/// What one replica remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Memory {
    /// The first reading of an unbroken series of Offs.
    pub first: Option<Time>,
    pub pulse: Pulse,
    /// When it saw the node's pulse move; 0: never, or longer ago than anybody asks.
    pub life: Time,
}

/// Of a replica that has just been started.
pub const BLANK: Memory = Memory { first: None, pulse: Pulse::Unknown, life: 0 };

impl State {
    /// A replica has looked: adds the reading, and the pulse that was felt after it.
    pub fn remember(&mut self, r: usize, view: &View, world: &World) {
        if !world.remembers() {
            return;
        }
        let listens = world.speaks() && self.phase != Phase::Accepted && view.claim != Claim::Others;
        let memory = &mut self.memories[r];
        let before = memory.first;
        memory.first = match view.reading {
            Reading::Isolated { .. } => Some(before.unwrap_or(NOW)),
            Reading::Unknown if world.flawed(Flaw::SeriesUnbroken) => before,
            Reading::Running | Reading::Unknown | Reading::Refused => None,
        };
        if listens {
            // P3: the pulse at the first Off is the baseline; what came before it proves nothing against it.
            let first_off = before.is_none() && memory.first.is_some();
            if memory.pulse == Pulse::Moved && !first_off {
                memory.life = NOW;
            }
            memory.pulse = Pulse::Felt;
        }
    }

    /// The node renews its Lease.
    pub fn beat(&mut self, world: &World) {
        if world.levels.contains(&Kind::Person) {
            self.ladder.void = true;
            self.hands.iter_mut().filter(|hand| hand.act != Act::Idle).for_each(|hand| hand.beat = true);
        }
        for memory in &mut self.memories {
            match memory.pulse {
                Pulse::Felt | Pulse::Moved => memory.pulse = Pulse::Moved,
                Pulse::Unknown => {}
            }
        }
    }

    /// All that a replica remembers gets a tick older.
    pub fn fade(&mut self) {
        for memory in &mut self.memories {
            memory.life = 0; // a renewal ago; `decide` asks for no older ones
            memory.first = memory.first.map(|first| (first - 1).max(NOW - RENEWAL));
        }
    }
}

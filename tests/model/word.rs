//! The person who is asked, and what becomes of what he says.

use ringfence::decide::{Phase, Word};

use crate::levels::Kind;
use crate::state::State;
use crate::world::{Flaw, World};

/// What was said to the request that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Said {
    /// Nothing.
    Nothing,
    /// That the node is off; not judged yet.
    Off,
    /// That it is not to be taken for off; not judged yet.
    Not,
    /// The first, and it counts.
    Accepted,
    /// The second.
    Denied,
}

impl State {
    /// Whether there is a request that somebody may answer.
    pub fn asks(&self, world: &World) -> bool {
        self.kind(world) == Kind::Person && self.phase.off().is_some()
    }

    /// What `observe` would tell of a person's word.
    pub fn word(&self, world: &World) -> Word {
        match self.ladder.said {
            _ if self.kind(world) != Kind::Person => Word::NotAsked,
            _ if !self.phase.is_judged() => Word::Awaited,
            Said::Off | Said::Not => Word::Unjudged,
            Said::Nothing | Said::Accepted | Said::Denied if self.ladder.void => Word::Void,
            Said::Nothing => Word::Awaited,
            Said::Accepted => Word::Given,
            Said::Denied => Word::Denied,
        }
    }

    /// Whether a word would be believed: neither the node nor its BMC says otherwise.
    pub fn believed(&self, world: &World) -> bool {
        !self.ladder.void && !self.elsewhere(world).0
    }

    /// A verdict is written, for once and for all. Whoever was refused may speak again.
    pub fn verdict(&mut self, believed: bool) {
        self.ladder.said = match (self.ladder.said, believed) {
            (Said::Off, true) => Said::Accepted,
            (Said::Off, false) => Said::Nothing,
            (Said::Not, _) => Said::Denied,
            (said @ (Said::Nothing | Said::Accepted | Said::Denied), _) => said,
        };
    }

    /// A phase is written that opens a request: what was said to another one is not said to this one. `beat`: the node has
    /// shown life since this was decided.
    pub fn ask_anew(&mut self, phase: Phase, beat: bool, world: &World) {
        let Phase::Proving { off, .. } = phase else { return };
        if crate::levels::kind(off.level, world) == Kind::Person {
            if !world.flawed(Flaw::OldWord) {
                self.ladder.said = Said::Nothing;
            }
            self.ladder.void = beat;
            self.hands.iter_mut().for_each(|hand| hand.word_ok = false);
        }
    }
}

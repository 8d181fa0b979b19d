//! The passing of time. It is relative: it is always `NOW`, a tick makes every stored time one older, and `CAP` is as
//! old as it gets. So a world that stays the same is the same state.

use ringfence::decide::{Off, Phase, Power, Rest, Time, Why};

use crate::state::{Act, IDLE, State};
use crate::world::{Flaw, World};

/// What the clock says.
pub const NOW: Time = 100;
/// The sum of two lags: a power command leaves a hand, and an accepted one lands, within `LATE` ticks each.
pub const PATIENCE: Time = 2;
/// Ticks.
pub const LATE: u8 = 1;
/// One missed renewal of the Lease: a node that talks does so in every tick.
pub const RENEWAL: Time = 1;
/// Few things distinguish times older than `PATIENCE`.
pub const CAP: Time = PATIENCE;
/// Proving awaits two renewals after that, and a restoration's sign of life comes after one (and one tick).
const LONG: Time = PATIENCE + 2 * RENEWAL;

impl State {
    /// One tick passes.
    pub fn tick(&mut self, world: &World) {
        self.phase = aged(self.phase, 1);
        self.fade();
        if self.fading {
            self.cut();
        }
        for power in [Power::Off, Power::On] {
            let pending = match power {
                Power::Off => &mut self.pend_off,
                Power::On => &mut self.pend_on,
            };
            if *pending > 0 {
                *pending -= 1;
                if *pending == 0 {
                    self.command(power, false, world);
                }
            }
        }
        if self.ladder.late > 0 {
            self.late_socket(world);
        }
        if self.on && self.talks {
            self.beat(world);
        }
        for hand in &mut self.hands {
            match hand.act {
                Act::Looked(_) if world.flawed(Flaw::OldReading) => {}
                Act::Looked(_) => *hand = IDLE, // a reading that old is no reading
                Act::Send(..) if hand.age == LATE && !world.flawed(Flaw::LatePowerForEver) => *hand = IDLE,
                Act::Send(power, answered, silent) => {
                    hand.act = Act::Send(power, aged(answered, 1), aged(silent, 1));
                    hand.age = (hand.age + 1).min(LATE);
                }
                Act::Enter(phase) => hand.act = Act::Enter(aged(phase, 1)),
                Act::Idle | Act::Do(_) | Act::Finish => {}
            }
        }
    }
}

/// The same phase, with no time older than is told apart in it.
pub fn settled(phase: Phase) -> Phase {
    aged(phase, 0)
}

fn aged(phase: Phase, by: Time) -> Phase {
    use Phase::*;
    let old = |time: Time, cap| if time == 0 { 0 } else { (time - by).max(NOW - cap) };
    let off_of = |off: Off, cap| Off { at: old(off.at, cap), ..off };
    let rest_of = |rest: Rest, cap| Rest { quiet: rest.quiet.map(|t| old(t, cap)), ..rest };
    match phase {
        Accepted | Isolating { .. } => phase,
        Proving { attempt, off } => Proving { attempt, off: off_of(off, if off.answered { LONG } else { CAP }) },
        Releasing { attempt, off, since } => Releasing { attempt, off: off_of(off, CAP), since: old(since, CAP) },
        Restoring { level, attempt, off, on, then } => {
            Restoring { level, attempt, off: old(off, LONG), on: on.map(|t| old(t, CAP)), then }
        }
        Done { rest } => Done { rest: rest_of(rest, CAP) },
        Halted { why: why @ Why::NotRestored, off, rest } => {
            Halted { why, off: off.map(|off| off_of(off, CAP)), rest: rest_of(rest, LONG) }
        }
        Halted { why, off, rest } => Halted { why, off: off.map(|off| off_of(off, CAP)), rest: rest_of(rest, CAP) },
    }
}

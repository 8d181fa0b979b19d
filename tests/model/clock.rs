//! The passing of time. It is relative: it is always `NOW`, a tick makes every stored time one older, and `CAP` is as
//! old as it gets. So a world that stays the same is the same state.

use ringfence::decide::{Off, Phase, Power, Rest, Time, Why};

use crate::state::{Act, IDLE, State};
use crate::world::{Flaw, World};

/// What the clock says.
pub const NOW: Time = 1000;
/// The sum of two lags: a power command leaves a hand, and an accepted one lands, within `LATE` ticks each.
pub const PATIENCE: Time = 2;
/// Ticks.
pub const LATE: u8 = 1;
/// Nothing distinguishes times older than `PATIENCE`.
pub const CAP: Time = PATIENCE;

impl State {
    /// One tick passes.
    pub fn tick(&mut self, world: &World) {
        self.phase = older_phase(self.phase);
        self.life = older(self.life, CAP);
        if world.settle && !self.on || self.fading {
            self.off_since = older(self.off_since, 1);
        }
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
        if self.on && self.talks {
            self.life = NOW;
        }
        for hand in &mut self.hands {
            match hand.act {
                Act::Looked(_) if world.flawed(Flaw::OldReading) => {}
                Act::Looked(_) => *hand = IDLE, // a reading that old is no reading
                Act::Send(..) if hand.age == LATE && !world.flawed(Flaw::LatePowerForEver) => *hand = IDLE,
                Act::Send(power, answered, silent) => {
                    hand.act = Act::Send(power, older_phase(answered), older_phase(silent));
                    hand.age = (hand.age + 1).min(LATE);
                }
                Act::Enter(phase) => hand.act = Act::Enter(older_phase(phase)),
                Act::Idle | Act::Do(_) | Act::Finish => {}
            }
        }
    }
}

fn older(time: Time, cap: Time) -> Time {
    if time == 0 { 0 } else { (time - 1).max(NOW - cap) }
}

fn older_off(off: Off) -> Off {
    Off { at: older(off.at, CAP), ..off }
}

fn older_rest(rest: Rest, cap: Time) -> Rest {
    Rest { quiet: rest.quiet.map(|t| older(t, cap)), ..rest }
}

fn older_phase(phase: Phase) -> Phase {
    use Phase::*;
    match phase {
        Accepted | Isolating { .. } => phase,
        Proving { attempt, off } => Proving { attempt, off: older_off(off) },
        Releasing { attempt, off, since } => Releasing { attempt, off: older_off(off), since: older(since, CAP) },
        // `life` is compared with this time plus PATIENCE.
        Restoring { attempt, off, on, then } => {
            Restoring { attempt, off: older(off, CAP + 1), on: on.map(|t| older(t, CAP)), then }
        }
        Done { rest } => Done { rest: older_rest(rest, CAP) },
        Halted { why: why @ Why::NotRestored, off, rest } => {
            Halted { why, off: off.map(older_off), rest: older_rest(rest, CAP + 1) }
        }
        Halted { why, off, rest } => Halted { why, off: off.map(older_off), rest: older_rest(rest, CAP) },
    }
}

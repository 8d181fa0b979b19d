//! What happens at the sockets, and what people do by hand and say.

use ringfence::decide::{Phase, Power};

use super::Events;
use crate::state::IDLE;
use crate::word::Said;

impl Events<'_> {
    pub(super) fn send_sockets(&mut self, r: usize, power: Power, answered: Phase, silent: Phase) {
        let world = self.world;
        self.may("both sockets told", |x| {
            let yes = x.tell_sockets(power, &world);
            x.sent(r, if yes { answered } else { silent }, &world)
        });
        self.may("one socket told, then crash", |x| {
            x.tell_socket(0, power, &world);
            x.off_sent |= power == Power::Off && x.hands[r].cr == x.cr;
            x.hands[r] = IDLE;
        });
        if world.lost {
            self.may("one socket told, not heard of", |x| {
                x.tell_socket(1, power, &world);
                x.sent(r, silent, &world)
            });
            self.may("both sockets told, answer lost", |x| {
                x.tell_sockets(power, &world);
                x.sent(r, silent, &world)
            });
        }
    }

    /// The person who is asked, and whoever switches sockets.
    pub(super) fn hands(&mut self) {
        let (now, world) = (self.now, self.world);
        if now.ladder.late > 0 {
            self.may("a socket is off late", |x| x.late_socket(&world));
        }
        if world.fewer && !now.gone && !now.ladder.fewer {
            // In the spec: the remediation's resourceVersion moves.
            self.may("the sockets are taken out of the spec", |x| {
                (x.ladder.fewer, x.edited) = (true, true);
                x.cr_write();
            });
        }
        if world.hands && now.on && now.asks(&world) {
            self.may("a person switches it off", |x| {
                x.gave_up = true; // and switches it on again
                x.cut()
            });
        }
        if world.returns && !now.on && now.asks(&world) {
            self.may("someone switches it on, and the node talks", |x| {
                x.pressed(&world);
                x.talks = x.on;
                x.beat(&world)
            });
        }
        if world.returns && now.on && now.talks {
            self.may("the node falls silent, and runs", |x| x.talks = false);
        }
        if now.asks(&world) && now.ladder.said == Said::Nothing {
            if world.hasty || !now.on {
                self.may("a person says: off", |x| x.ladder.said = Said::Off);
            }
            if world.denies {
                self.may("a person says: not off", |x| x.ladder.said = Said::Not);
            }
        }
    }
}

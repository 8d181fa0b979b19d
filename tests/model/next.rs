//! Everything that can happen next.

#[path = "hands.rs"]
mod hands;

use ringfence::decide::{Leave, Phase, Power, Reading};

use crate::clock::LATE;
use crate::levels::{Kind, kind};
use crate::memory::BLANK;
use crate::state::{Act, Bmc, Deed, FRESH, Hand, IDLE, Pod, State, View, Volume, name};
use crate::world::{Flaw, World};

/// What each event is called, and the state that it leads to.
pub type Next = Vec<(&'static str, State)>;

/// Lists every event that may happen in this state.
pub fn next(state: &State, world: &World, out: &mut Next) {
    out.clear();
    let mut events = Events { now: *state, world: *world, out };
    events.may("time passes", |x| x.tick(world));
    events.bmc();
    events.people();
    events.hands();
    events.cluster();
    for r in 0..world.replicas {
        events.replica(r);
    }
}

struct Events<'a> {
    now: State,
    world: World,
    out: &'a mut Next,
}

impl Events<'_> {
    fn may(&mut self, label: &'static str, change: impl FnOnce(&mut State)) {
        let mut x = self.now;
        change(&mut x);
        if x != self.now {
            self.out.push((label, x));
        }
    }

    /// The machine and its BMC.
    fn bmc(&mut self) {
        let (now, world) = (self.now, self.world);
        if world.down {
            self.may("BMC falls silent", |x| (x.bmc, x.witnessed) = (Bmc::Down, false));
            if now.bmc == Bmc::Down {
                self.may("BMC is back", |x| x.bmc = Bmc::Up);
            }
        }
        if world.locked {
            self.may("BMC refuses our credentials", |x| (x.bmc, x.witnessed) = (Bmc::Locked, false));
            if now.bmc == Bmc::Locked {
                self.may("Secret corrected", |x| (x.bmc, x.edited) = (Bmc::Up, true));
                self.may("Secret edited, still wrong", |x| x.edited = true);
            }
        }
        if world.hearsay_any && now.on {
            self.may("BMC restarts, says Off", |x| (x.bmc, x.witnessed) = (Bmc::Hearsay, false));
        }
        if now.pend_off > 0 {
            self.may("off lands late", |x| {
                x.pend_off = 0;
                x.cut()
            });
        }
        if now.pend_on > 0 {
            self.may("on lands late", |x| {
                x.pend_on = 0;
                x.boot(&world)
            });
        }
        if world.wakes && now.on && !now.talks {
            self.may("kubelet is up", |x| {
                x.talks = true;
                x.beat(&world)
            });
        }
        if world.owner && !now.on {
            self.may("someone switches it on", |x| x.pressed(&world));
        }
    }

    /// Users, NHC, and other remediations.
    fn people(&mut self) {
        let (now, world) = (self.now, self.world);
        if !now.gone {
            self.leave();
            if world.orders && now.spec_wrong {
                // In a Secret: the remediation's resourceVersion does not move.
                self.may("order corrected", |x| (x.spec_wrong, x.edited) = (false, true));
            }
            if world.unresolved {
                self.may("Secret deleted, or back", |x| (x.unresolved, x.edited) = (!x.unresolved, true));
            }
            if world.quorum {
                self.may("quorum changes", |x| x.quorum = !x.quorum);
            }
            if world.escalates && now.cr == 1 {
                self.may("the next remediation waits, or not", |x| x.heir = !x.heir);
            }
        }
        if world.other {
            if !now.cordoned {
                self.may("another remediation takes the node", |x| {
                    x.other = true;
                    x.node_write()
                });
            }
            self.may("another remediation leaves", |x| {
                (x.other, x.barrier) = (false, x.barrier && !x.other);
                x.node_write()
            });
        }
        if now.gone && now.cr < world.crs {
            self.may("NEW CR", |x| {
                x.next_remediation(&world);
                (x.old, x.new, x.proc, x.excused) = (Pod::Bound, false, x.on, false);
                if world.volumes {
                    x.volume = Volume::InUse;
                }
                x.hands.iter_mut().for_each(|h| h.pod_ok = false);
            });
        }
    }

    fn leave(&mut self) {
        let (now, world) = (self.now, self.world);
        let leave = |x: &mut State, leave| {
            if x.leave != leave {
                x.leave = leave;
                x.cr_write();
            }
        };
        let deleted = now.leave.deleted();
        if world.deleted || (world.timed_out && now.leave != Leave::No) {
            self.may("CR deleted", |x| {
                leave(
                    x,
                    match x.leave {
                        Leave::No | Leave::Deleted => Leave::Deleted,
                        Leave::TimedOut { .. } => Leave::TimedOut { deleted: true },
                        Leave::NodeGone { .. } => Leave::NodeGone { deleted: true },
                    },
                )
            });
        }
        if world.timed_out && matches!(now.leave, Leave::No | Leave::Deleted) {
            self.may("NHC times out", |x| leave(x, Leave::TimedOut { deleted }));
        }
        if world.node_gone && !matches!(now.leave, Leave::NodeGone { .. }) {
            self.may("Node replaced", |x| {
                x.leave = Leave::NodeGone { deleted };
                // The barrier goes with the Node, and pod GC now deletes its pods whatever the machine does.
                x.excused = true;
                (x.cordoned, x.barrier, x.sealed) = (false, false, false);
                x.node_write();
            });
            if world.backup && now.cordoned {
                self.may("Node restored from a backup, with our marks", |x| {
                    (x.leave, x.excused, x.barrier, x.sealed) = (Leave::NodeGone { deleted }, true, true, false);
                    x.node_write();
                });
            }
        }
    }

    /// Kubernetes' own controllers.
    fn cluster(&mut self) {
        let (now, world) = (self.now, self.world);
        let replace = |x: &mut State| (x.old, x.new) = (Pod::Gone, true);
        if world.gc && now.barrier {
            if now.old != Pod::Terminating {
                self.may("pod GC", replace);
            }
            if now.old != Pod::Bound {
                self.may("out-of-service detach", |x| x.volume = Volume::Detached);
            }
        }
        if now.old == Pod::Failed {
            self.may("Failed pod replaced", replace);
        }
        if now.old == Pod::Terminating {
            self.may("foreign finalizer off", replace);
        }
        if now.volume == Volume::Free {
            self.may("volume detached", |x| x.volume = Volume::Detached);
        }
        if world.flawed(Flaw::SetNotFixed) && matches!(now.phase, Phase::Releasing { .. }) {
            self.may("stray pod bound", |x| x.stray = true);
        }
    }

    /// One replica of the controller.
    fn replica(&mut self, r: usize) {
        let (now, world) = (self.now, self.world);
        if now.hands[r].act == Act::Idle {
            self.may("restart", |x| x.memories[r] = BLANK);
        }
        match now.hands[r].act {
            Act::Idle if now.gone => {}
            Act::Idle if world.split => self.may("look", |x| {
                let mut view = x.view(&world);
                x.remember(r, &view, &world);
                if world.flawed(Flaw::CrReadFirst) {
                    view = View { cr: Some((x.phase, x.leave)), ..view };
                }
                x.hands[r] = Hand { act: Act::Looked(view), ..FRESH };
            }),
            Act::Idle => {
                let (mut seen, view) = (now, now.view(&world));
                seen.remember(r, &view, &world);
                let (act, case) = seen.ask(r, view, &world);
                if act == Act::Idle && seen.judge(act, &case, view, &world).is_none() {
                    self.may("look", |x| *x = seen);
                } else {
                    self.may("decide", |x| {
                        *x = seen;
                        x.hands[r] = FRESH;
                        x.decided(r, act, &case, view, &world);
                    });
                }
            }
            Act::Looked(_) if now.gone => self.may("crash", |x| x.hands[r] = IDLE),
            Act::Looked(_)
                if !now.hands[r].cr_ok && !world.flawed(Flaw::CrReadFirst) && !world.flawed(Flaw::CrReadLast) =>
            {
                self.may("changed meanwhile, look again", |x| x.hands[r] = IDLE)
            }
            Act::Looked(view) => self.decide(r, view),
            Act::Send(power, answered, silent) => self.send(r, power, answered, silent),
            act @ (Act::Enter(_) | Act::Do(_) | Act::Finish) => {
                self.may("crash", |x| x.hands[r] = IDLE);
                if act == Act::Do(Deed::Delete) && now.old == Pod::Bound && now.hands[r].pod_ok {
                    let half = |x: &mut State, pod| {
                        (x.hands[r], x.old) = (IDLE, pod);
                        x.hands[1 - r].pod_ok = false;
                    };
                    self.may("pod marked Failed, then crash", |x| half(x, Pod::Failed));
                    self.may("delete: finalizer holds it", |x| half(x, Pod::Terminating));
                }
                self.may(label(act), |x| x.fire(r, &world));
            }
        }
    }

    fn decide(&mut self, r: usize, mut view: View) {
        let (now, world) = (self.now, self.world);
        let hand = now.hands[r];
        let (mut node_ok, mut cr_ok) = (hand.node_ok, true);
        view.sealed &= hand.cr_ok || matches!(now.leave, Leave::NodeGone { .. });
        if world.flawed(Flaw::CrReadFirst) {
            view = View { cr: view.cr, ..now.view(&world) };
            (node_ok, cr_ok) = (true, hand.cr_ok);
        }
        let (act, case) = now.ask(r, view, &world);
        self.may("decide", |x| {
            x.hands[r] = Hand { node_ok, cr_ok, pod_ok: hand.pod_ok, word_ok: hand.word_ok, beat: hand.beat, ..IDLE };
            x.decided(r, act, &case, view, &world);
            if act == Act::Idle {
                x.hands[r] = IDLE;
            }
        });
    }

    fn send(&mut self, r: usize, power: Power, answered: Phase, silent: Phase) {
        let (now, world) = (self.now, self.world);
        let wrong = now.hands[r].wrong;
        self.may("crash", |x| x.hands[r] = IDLE);
        match kind(now.hands[r].level, &world) {
            Kind::Bmc => {}
            Kind::Sockets => return self.send_sockets(r, power, answered, silent),
            Kind::Person => return self.may("asked", |x| x.sent(r, answered, &world)),
        }
        if !now.obeys(wrong, &world) {
            return self.may("refused", |x| x.sent(r, silent, &world));
        }
        if world.lost || now.bmc == Bmc::Down {
            self.may("sent, not heard of", |x| x.sent(r, silent, &world));
            self.may("sent, done, answer lost", |x| {
                x.command(power, wrong, &world);
                x.sent(r, silent, &world)
            });
        }
        if now.bmc == Bmc::Down {
            return;
        }
        self.may("sent, done", |x| {
            x.command(power, wrong, &world);
            x.sent(r, answered, &world)
        });
        if world.lies && (world.deaf || now.bmc != Bmc::Hearsay) {
            self.may("sent, 2xx and nothing", |x| x.sent(r, answered, &world));
        }
        if world.flawed(Flaw::RefusalCounts) && now.bmc == Bmc::Hearsay && power == Power::Off {
            self.may("sent, refused: already off", |x| x.sent(r, answered, &world));
        }
        if world.late && !wrong {
            self.may("sent, 2xx, lands later", |x| {
                x.accept(power);
                x.sent(r, answered, &world)
            });
        }
    }
}

impl State {
    /// Someone else presses the power button.
    fn pressed(&mut self, world: &World) {
        let releasing = |h: &Hand| match (h.act, self.phase) {
            (Act::Do(Deed::Bar), _) => true,
            (Act::Looked(view), Phase::Releasing { .. }) => view.reading != Reading::Running,
            (_, _) => false,
        };
        // The window that nothing closes: after our look, before our barrier.
        self.excused |= !self.barrier && self.hands.iter().any(releasing);
        self.boot(world);
    }

    /// Whether a command is carried out at all: the driver has credentials, and does not command a machine whose UUID
    /// is another's.
    pub fn obeys(&self, wrong: bool, world: &World) -> bool {
        let known_wrong = wrong && !world.alias && world.uuid && !world.flawed(Flaw::WrongMachineSent);
        self.bmc != Bmc::Locked && !self.unresolved && !known_wrong && self.mains(world)
    }

    /// The BMC accepts a command, and will carry it out.
    pub fn accept(&mut self, power: Power) {
        match power {
            Power::Off => self.pend_off = LATE,
            Power::On => self.pend_on = LATE,
        }
    }

    /// Carries out everything but a power command.
    pub fn fire(&mut self, r: usize, world: &World) {
        let hand = self.hands[r];
        let cr_ok = (hand.cr_ok || world.flawed(Flaw::NoCas)) && hand.cr == self.cr && !self.gone;
        self.hands[r] = IDLE;
        match hand.act {
            Act::Idle | Act::Looked(_) | Act::Send(..) => unreachable!("not something to carry out"),
            Act::Enter(phase) if cr_ok => self.status_write(phase, hand, world),
            Act::Finish if cr_ok => {
                (self.gone, self.memories) = (true, [BLANK; 2]);
                self.cr_write()
            }
            Act::Enter(_) | Act::Finish => {}
            Act::Do(Deed::Admit) => self.admitted |= hand.cr == self.cr,
            Act::Do(Deed::Judge(believed)) if hand.word_ok => self.verdict(believed),
            Act::Do(Deed::Judge(_)) => {}
            Act::Do(Deed::Delete) => self.delete(r, hand, world),
            Act::Do(deed) => {
                let unguarded = world.flawed(Flaw::BarUnguarded) && deed == Deed::Bar || world.flawed(Flaw::NoGuard);
                if hand.node_ok || unguarded {
                    self.write_node(r, deed, hand, world);
                }
            }
        }
    }

    fn write_node(&mut self, r: usize, deed: Deed, hand: Hand, world: &World) {
        match deed {
            Deed::Claim => {
                self.cordoned = true;
                self.barrier |= world.flawed(Flaw::NoExecuteFirst);
            }
            Deed::Bar => self.barrier = true,
            Deed::Detach => {
                if self.volume == Volume::InUse {
                    self.volume = Volume::Free;
                }
            }
            Deed::Retract => self.barrier = false,
            Deed::Seal => {
                self.sealed = hand.cr_ok && hand.cr == self.cr;
                // Each pod left of the set; none if no set was fixed yet.
                if self.set && !world.flawed(Flaw::SealNodeOnly) {
                    self.hands[1 - r].pod_ok = false;
                }
            }
            Deed::HandOver if world.successor => {
                let off_sent = self.off_sent && world.inherits;
                self.next_remediation(world);
                self.off_sent = off_sent;
            }
            Deed::HandOver => (self.cordoned, self.other, self.heir) = (false, true, false),
            Deed::Unclaim => {
                self.cordoned = false;
                self.sealed = hand.cr_ok && hand.cr == self.cr;
            }
            Deed::Admit | Deed::Judge(_) | Deed::Delete => unreachable!("no write of the Node"),
        }
        self.node_write();
    }

    fn delete(&mut self, r: usize, hand: Hand, world: &World) {
        if world.flawed(Flaw::SetNotFixed) && self.stray {
            self.bad = Some("a pod that is not of the set was deleted");
        }
        if world.flawed(Flaw::DeleteByName) {
            if hand.cr != self.cr || self.old == Pod::Gone && self.new {
                self.bad = Some("a pod that is not of the set was deleted");
            }
        } else if !hand.pod_ok && (!world.flawed(Flaw::DeleteByUidOnly) || hand.cr != self.cr) {
            return;
        }
        if let Pod::Bound | Pod::Failed = self.old {
            (self.old, self.new) = (Pod::Gone, true);
        }
        self.hands[1 - r].pod_ok = false;
    }
}

fn label(act: Act) -> &'static str {
    match act {
        Act::Idle => "idle",
        Act::Looked(_) => "decide",
        Act::Enter(phase) => name(phase),
        Act::Do(Deed::Claim) => "claim",
        Act::Do(Deed::Admit) => "admit",
        Act::Do(Deed::Judge(_)) => "judge",
        Act::Do(Deed::Bar) => "barrier",
        Act::Do(Deed::Delete) => "delete",
        Act::Do(Deed::Detach) => "detach",
        Act::Do(Deed::Retract) => "retract",
        Act::Do(Deed::Seal) => "seal",
        Act::Do(Deed::HandOver) => "hand over",
        Act::Do(Deed::Unclaim) => "unclaim",
        Act::Send(..) => "send",
        Act::Finish => "finalizer off",
    }
}

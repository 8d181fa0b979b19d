//! One node's world at one moment: the machine, its BMC, the API objects, and what each replica of the controller is
//! about to do.

use ringfence::decide::{
    Claim, FIRST, Identity, Leave, Level, Phase, Pods, Power, Reading, Rest, Revived, Then, Volumes, Why, Word,
};

use crate::clock::settled;
use crate::levels::{Kind, Ladder, Socket};
use crate::memory::{BLANK, Memory};
use crate::world::{Flaw, World};

/// How the BMC behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bmc {
    /// It answers, and what it reads is so.
    Up,
    /// No answer.
    Down,
    /// It says Off of a machine that is on, until it carries out a command (openbmc#2224).
    Hearsay,
    /// 401 to everything.
    Locked,
}

/// The API object of the one pod that the set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pod {
    /// Bound to the node; its kubelet starts it when it boots.
    Bound,
    /// A terminal status was written: no kubelet starts it again.
    Failed,
    /// Deleted, held by a foreign finalizer.
    Terminating,
    /// No such object.
    Gone,
}

/// The volume of that pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Volume {
    /// Attached, and `volumesInUse` names it.
    InUse,
    /// Attached; the attach-detach controller may detach it at any time.
    Free,
    /// Another node may attach it, and write.
    Detached,
}

/// One change of the cluster, as it lies in a replica's hand. As `Effect`, without the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    Claim,
    Admit,
    /// Whether what was said is believed.
    Judge(bool),
    Bar,
    Delete,
    Detach,
    Retract,
    Seal,
    HandOver,
    Unclaim,
}

/// What one replica is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    Idle,
    /// To decide, from what it has seen.
    Looked(View),
    Enter(Phase),
    Do(Deed),
    /// The command, then the phase to enter after an answer, and after none.
    Send(Power, Phase, Phase),
    /// To take the finalizer off.
    Finish,
}

/// The part of a case that was read before the remediation was (or, in a mutant, the remediation itself).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    pub reading: Reading,
    pub identity: Identity,
    pub claim: Claim,
    pub barrier: bool,
    pub sealed: bool,
    pub pods: Pods,
    pub volumes: Volumes,
    pub partly: bool,
    pub nobody: bool,
    pub word: Word,
    pub other_on: bool,
    pub revived: Option<Revived>,
    pub cr: Option<(Phase, Leave)>,
}

/// One replica of the controller, between two of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hand {
    pub act: Act,
    pub age: u8,
    /// The Node's resourceVersion is still the one it saw.
    pub node_ok: bool,
    /// The remediation's is.
    pub cr_ok: bool,
    /// The pod's is.
    pub pod_ok: bool,
    /// The request is.
    pub word_ok: bool,
    /// The node has shown life since it looked.
    pub beat: bool,
    /// Which device its command goes to.
    pub wrong: bool,
    /// Which level.
    pub level: Level,
    /// The level that it gives up, and why.
    pub gives_up: Option<(Level, Why)>,
    /// Which remediation it works for.
    pub cr: u8,
}

/// A replica that does nothing.
pub const IDLE: Hand = Hand {
    act: Act::Idle,
    age: 0,
    node_ok: false,
    cr_ok: false,
    pod_ok: false,
    word_ok: false,
    beat: false,
    wrong: false,
    level: FIRST,
    gives_up: None,
    cr: 0,
};
/// A replica that has just read everything.
pub const FRESH: Hand = Hand { node_ok: true, cr_ok: true, pod_ok: true, word_ok: true, ..IDLE };

/// The whole world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The machine has power.
    pub on: bool,
    /// It loses power within a tick, and its BMC says Off already.
    pub fading: bool,
    /// The old pod's processes run, and write.
    pub proc: bool,
    /// The kubelet renews the Lease.
    pub talks: bool,
    /// The machine behind the wrong order is on.
    pub neighbour: bool,
    pub bmc: Bmc,
    /// An accepted off that has not landed yet: ticks left.
    pub pend_off: u8,
    pub pend_on: u8,
    pub phase: Phase,
    pub leave: Leave,
    /// The order in the spec is for the wrong device.
    pub spec_wrong: bool,
    /// The pinned one is; `None`: nothing is pinned.
    pub pinned_wrong: Option<bool>,
    /// Spec and Secrets give no order.
    pub unresolved: bool,
    /// They have changed since it halted.
    pub edited: bool,
    pub quorum: bool,
    /// Preflight has read the machine ON, and has been answered ever since.
    pub witnessed: bool,
    /// It is counted among those that were let through.
    pub admitted: bool,
    pub cordoned: bool,
    pub barrier: bool,
    pub sealed: bool,
    /// This remediation has fixed its set of pods.
    pub set: bool,
    pub old: Pod,
    pub volume: Volume,
    /// Another remediation of this node holds it.
    pub other: bool,
    /// Another one waits for it.
    pub heir: bool,
    /// A pod that came after the set was fixed.
    pub stray: bool,
    /// The replacement of the same name runs elsewhere.
    pub new: bool,
    /// The finalizer is off.
    pub gone: bool,
    /// Which remediation it is, counted from 1.
    pub cr: u8,
    pub hands: [Hand; 2],
    pub memories: [Memory; 2],
    pub ladder: Ladder,
    // Ghosts: known to the properties only.
    pub sends: u8,
    /// This remediation has sent an off.
    pub off_sent: bool,
    /// The machine of the wrong order could not be switched on again.
    pub gave_up: bool,
    /// Someone else switched the machine on between our look and our write.
    pub excused: bool,
    pub bad: Option<&'static str>,
}

impl State {
    /// The worlds that a remediation may find.
    pub fn starts(world: &World) -> Vec<State> {
        let start = State {
            on: true,
            fading: false,
            proc: true,
            talks: !world.hung,
            neighbour: !world.no_plug,
            bmc: world.bmc,
            pend_off: 0,
            pend_on: 0,
            phase: Phase::Accepted,
            leave: Leave::No,
            spec_wrong: world.wrong_from_start,
            pinned_wrong: None,
            unresolved: false,
            edited: false,
            quorum: true,
            witnessed: world.preflight,
            admitted: !world.breaker,
            cordoned: false,
            barrier: false,
            sealed: false,
            set: false,
            old: Pod::Bound,
            volume: if world.volumes { Volume::InUse } else { Volume::Detached },
            other: false,
            heir: false,
            stray: false,
            new: false,
            gone: false,
            cr: 1,
            hands: [IDLE; 2],
            memories: [BLANK; 2],
            ladder: Ladder::new(world.sockets[0]),
            sends: 0,
            off_sent: false,
            gave_up: false,
            excused: false,
            bad: None,
        };
        let hearsay = State { bmc: Bmc::Hearsay, witnessed: false, ..start };
        let both = if world.hearsay_first || world.hearsay_any { vec![start, hearsay] } else { vec![start] };
        let with = |sockets: &[Socket; 2]| both.iter().map(|x| State { ladder: Ladder::new(*sockets), ..*x }).collect();
        world.sockets.iter().flat_map(|sockets| -> Vec<State> { with(sockets) }).collect()
    }

    /// Which device the next look or command goes to.
    pub fn device_wrong(&self) -> bool {
        self.pinned_wrong.unwrap_or(self.spec_wrong)
    }

    /// Whether that device stands for another machine than this node's.
    pub fn astray(&self, world: &World) -> bool {
        self.device_wrong() && !world.alias
    }

    /// Whether the machine behind the device has power.
    pub fn power(&self, wrong: bool, world: &World) -> bool {
        if wrong && !world.alias { self.neighbour } else { self.on }
    }

    /// Power comes back.
    pub fn boot(&mut self, world: &World) {
        self.fading = false;
        if self.on || !self.mains(world) {
            return;
        }
        self.on = true;
        // With the NoExecute taint in place the kubelet rejects the pod instead of starting it (R1).
        match self.old {
            Pod::Bound if self.barrier => self.old = Pod::Failed,
            Pod::Bound => {
                self.proc = true;
                if self.volume == Volume::Free {
                    self.volume = Volume::InUse; // the kubelet reports it again (R4)
                }
            }
            Pod::Failed | Pod::Terminating | Pod::Gone => {}
        }
    }

    /// Power is gone.
    pub fn cut(&mut self) {
        (self.on, self.fading, self.proc, self.talks) = (false, false, false, false);
        if self.bmc == Bmc::Hearsay {
            self.bmc = Bmc::Up;
        }
    }

    /// A power command takes effect.
    pub fn command(&mut self, power: Power, wrong: bool, world: &World) {
        match (power, wrong && !world.alias) {
            (Power::Off, true) => self.neighbour = false,
            (Power::On, true) => self.neighbour = !world.no_plug,
            (Power::Off, false) if world.settle && self.on => self.fading = true,
            (Power::Off, false) => {
                self.cut();
                if world.flawed(Flaw::OffIsReboot) {
                    self.boot(world)
                }
            }
            (Power::On, false) => self.boot(world),
        }
    }

    /// The Node has another resourceVersion.
    pub fn node_write(&mut self) {
        self.hands.iter_mut().for_each(|h| h.node_ok = false);
    }

    /// The remediation has.
    pub fn cr_write(&mut self) {
        self.hands.iter_mut().for_each(|h| h.cr_ok = false);
    }

    /// Status is written.
    pub fn status_write(&mut self, phase: Phase, hand: Hand, world: &World) {
        let level = self.level(world);
        self.ask_anew(phase, hand.beat, world);
        match phase {
            Phase::Accepted => {
                self.pinned_wrong = None;
                self.ladder.forget()
            }
            Phase::Isolating { level, attempt, .. } => {
                self.begin(level, hand.gives_up, world);
                if attempt == 1 {
                    let accepted = matches!(self.phase, Phase::Accepted);
                    self.pinned_wrong = Some(if accepted { hand.wrong } else { self.spec_wrong });
                }
                self.sends = (self.sends + 1).min(world.attempts + 1);
            }
            Phase::Releasing { .. } => (self.set, self.ladder.by_hand) = (true, self.kind(world) == Kind::Person),
            Phase::Halted { why: Why::NewOrder, .. } if matches!(self.phase, Phase::Restoring { .. }) => {
                self.gave_up |= !self.power(self.device_wrong(), world);
            }
            // Settled by the node's own life, and the switch was told: status says so.
            Phase::Done { .. } => {
                self.gave_up |= match self.phase {
                    Phase::Restoring { on: Some(_), .. } | Phase::Halted { why: Why::NotRestored, .. } => {
                        self.unrestored(level, world)
                    }
                    Phase::Accepted | Phase::Isolating { .. } | Phase::Proving { .. } | Phase::Releasing { .. } => {
                        false
                    }
                    Phase::Restoring { on: None, .. } | Phase::Done { .. } | Phase::Halted { .. } => false,
                }
            }
            Phase::Restoring { level: to, .. } if to < level => self.gave_up |= self.unrestored(level, world),
            Phase::Proving { .. } | Phase::Restoring { .. } | Phase::Halted { .. } => {}
        }
        // Halting records what spec and Secrets say; the second write that stamps it does not.
        match (self.phase, phase) {
            (Phase::Halted { why, .. }, Phase::Halted { why: next, rest: Rest { quiet: Some(_), .. }, .. })
                if why == next => {}
            (_, Phase::Halted { .. }) => self.edited = false,
            (_, _) => {}
        }
        self.phase = settled(phase);
        self.sealed = false;
        self.cr_write();
    }

    /// Another remediation of this node takes over, or comes later.
    pub fn next_remediation(&mut self, world: &World) {
        self.cr += 1;
        (self.phase, self.leave, self.gone) = (Phase::Accepted, Leave::No, false);
        (self.pinned_wrong, self.edited, self.heir, self.sealed, self.set) = (None, false, false, false, false);
        (self.sends, self.off_sent, self.gave_up) = (0, false, false);
        self.admitted = !world.breaker;
        self.witnessed = world.preflight && self.bmc == Bmc::Up && self.on;
        self.memories = [BLANK; 2];
        self.ladder.forget();
    }
}

/// The name of a phase, for traces.
pub fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Accepted => "enter Accepted",
        Phase::Isolating { .. } => "enter Isolating",
        Phase::Proving { .. } => "enter Proving",
        Phase::Releasing { .. } => "enter Releasing",
        Phase::Restoring { then: Then::Leave | Then::Again, .. } => "enter Restoring",
        Phase::Done { .. } => "enter Done",
        Phase::Halted { .. } => "enter Halted",
    }
}

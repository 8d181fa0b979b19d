//! What a replica sees, and what it decides from that: the real `decide`, or one bent by a mutant.

use ringfence::decide::{
    Case, Claim, Effect, Hold, Identity, Leave, Levels, Now, Order, Phase, Pods, Policy, Power, Reading, Step, Volumes,
    Word, decide,
};

use crate::clock::{NOW, PATIENCE, RENEWAL};
use crate::levels::{Kind, kind};
use crate::state::{Act, Bmc, Deed, Pod, State, View, Volume};
use crate::world::{Flaw, Slip, World};

impl State {
    /// Off; the series that it belongs to is for the replica to know.
    pub const OFF: Reading = Reading::Isolated { first: NOW, last: NOW };

    /// What the level that is acted on would say now.
    pub fn reading(&self, world: &World) -> Reading {
        match self.kind(world) {
            Kind::Bmc => self.bmc_says(world),
            Kind::Sockets => self.sockets(world).0,
            Kind::Person if self.word(world) == Word::Given => Self::OFF,
            Kind::Person => Reading::Unknown,
        }
    }

    /// What the BMC would.
    pub fn bmc_says(&self, world: &World) -> Reading {
        let off = Self::OFF;
        let on = self.power(self.device_wrong(), world) && (self.astray(world) || !self.fading);
        match self.bmc {
            Bmc::Locked => Reading::Refused,
            Bmc::Down => Reading::Unknown,
            Bmc::Up | Bmc::Hearsay if !self.mains(world) => Reading::Unknown,
            Bmc::Up | Bmc::Hearsay if self.unresolved => Reading::Unknown, // no credentials to ask with
            Bmc::Hearsay if !self.astray(world) => off,
            Bmc::Up | Bmc::Hearsay if on => Reading::Running,
            Bmc::Up | Bmc::Hearsay => off,
        }
    }

    /// Our barrier; that of another remediation is its own affair.
    fn our_barrier(&self) -> bool {
        self.barrier && (self.cordoned || !self.other)
    }

    /// Whether anybody looks in this phase.
    pub fn looks(&self, world: &World) -> bool {
        self.phase.looks(self.claim(), self.our_barrier(), self.edited) || world.flawed(Flaw::LooksAgain)
    }

    fn claim(&self) -> Claim {
        match (self.cordoned, self.other) {
            (true, _) => Claim::Ours,
            (false, true) => Claim::Others,
            (false, false) => Claim::Free,
        }
    }

    /// What `observe` would see now.
    pub fn view(&self, world: &World) -> View {
        let barrier = self.our_barrier();
        let (looks, kind) = (self.looks(world), self.kind(world));
        let reading = if looks { self.reading(world) } else { Reading::Unknown };
        let (_, partly, nobody) = match (looks, kind) {
            (true, Kind::Sockets) => self.sockets(world),
            (_, _) => (reading, false, false),
        };
        let (other_on, revived) = self.elsewhere(world);
        View {
            reading,
            identity: match reading {
                Reading::Unknown | Reading::Refused => Identity::Unsaid,
                Reading::Running | Reading::Isolated { .. } if kind == Kind::Person => Identity::Attested,
                Reading::Running | Reading::Isolated { .. } if kind == Kind::Sockets => Identity::Unsaid,
                Reading::Running | Reading::Isolated { .. } if !world.uuid => Identity::Unsaid,
                Reading::Running | Reading::Isolated { .. } if self.astray(world) => Identity::Other,
                Reading::Running | Reading::Isolated { .. } => Identity::Same,
            },
            claim: self.claim(),
            barrier,
            sealed: self.sealed || matches!(self.leave, Leave::NodeGone { .. }),
            pods: match self.old {
                Pod::Bound | Pod::Failed => Pods::Untouched,
                Pod::Terminating | Pod::Gone if world.flawed(Flaw::SetNotFixed) && self.stray => Pods::Untouched,
                Pod::Terminating => Pods::Terminating,
                Pod::Gone => Pods::Gone,
            },
            volumes: match self.volume {
                Volume::InUse => Volumes::InUse,
                Volume::Free => Volumes::Attached,
                Volume::Detached => Volumes::Gone,
            },
            partly,
            nobody,
            word: self.word(world),
            other_on,
            revived,
            cr: None,
        }
    }

    fn case(&self, r: usize, view: View, world: &World) -> Case {
        let memory = self.memories[r];
        let (phase, leave) = view.cr.unwrap_or((self.phase, self.leave));
        Case {
            policy: Policy {
                attempts: world.attempts.into(),
                patience: PATIENCE,
                gap: 1,
                release_timeout: 2,
                settle: world.settle.into(),
                max_age: 0,
                renewal: RENEWAL,
                restore: world.restore && !self.ladder.by_hand,
            },
            phase,
            leave,
            order: match self.pinned_wrong {
                Some(_) | None if self.unresolved => Order::Unresolved,
                Some(pinned) if pinned != self.spec_wrong => Order::Changed,
                Some(_) if self.level_removed(world) => Order::Changed,
                Some(_) | None => Order::Same,
            },
            edited: self.edited,
            reading: match (view.reading, memory.first) {
                (Reading::Isolated { last, .. }, Some(first)) => Reading::Isolated { first, last },
                (Reading::Isolated { last, .. }, None) => Reading::Isolated { first: NOW - RENEWAL, last },
                (Reading::Running | Reading::Unknown | Reading::Refused, _) => view.reading,
            },
            partly: view.partly,
            nobody: view.nobody,
            identity: view.identity,
            word: view.word,
            levels: Levels { revived: view.revived, ..self.levels(world) },
            other_on: view.other_on,
            life: memory.life,
            hold: (!self.quorum).then_some(if world.escalates { Hold::Foreign } else { Hold::Quorum }),
            admitted: self.admitted,
            witnessed: self.witnessed && self.kind(world) == Kind::Bmc && !(self.device_wrong() && world.no_plug),
            claim: view.claim,
            heir: self.heir,
            barrier: view.barrier,
            sealed: view.sealed,
            pods: view.pods,
            volumes: view.volumes,
        }
    }

    /// Decides, once the view is remembered.
    pub fn ask(&self, r: usize, view: View, world: &World) -> (Act, Case) {
        let mut case = self.case(r, view, world);
        if let Slip::Case(bend) = world.slip {
            bend(&mut case);
        }
        let act = match decide(&case, Now { wall: NOW, mono: NOW }) {
            Step::Enter(phase) => Act::Enter(phase),
            Step::Do(effect) => Act::Do(match effect {
                Effect::Claim => Deed::Claim,
                Effect::Admit => Deed::Admit,
                Effect::Judge => Deed::Judge(self.believed(world)),
                Effect::Bar(_) => Deed::Bar,
                Effect::Delete(_) => Deed::Delete,
                Effect::Detach(_) => Deed::Detach,
                Effect::Retract => Deed::Retract,
                Effect::Seal => Deed::Seal,
                Effect::HandOver => Deed::HandOver,
                Effect::Unclaim => Deed::Unclaim,
            }),
            Step::Send { power, answered, silent } => Act::Send(power, answered, silent),
            Step::Wait(_) => Act::Idle,
            Step::Finished => Act::Finish,
        };
        match world.slip {
            Slip::Act(twist) => (twist(&case, act), case),
            Slip::None | Slip::Case(_) | Slip::World(_) => (act, case),
        }
    }

    /// A replica has decided.
    pub fn decided(&mut self, r: usize, act: Act, case: &Case, view: View, world: &World) {
        if self.bad.is_none() {
            self.bad = self.judge(act, case, view, world);
        }
        let (cr, wrong, level) = (self.cr, self.device_wrong(), case.levels.now);
        if let Act::Send(..) = act
            && !world.flawed(Flaw::SeriesUnbroken)
        {
            self.memories[r].first = None;
        }
        let hand = &mut self.hands[r];
        (hand.act, hand.age, hand.cr, hand.wrong, hand.level) = (act, 0, cr, wrong, level);
        if let Act::Enter(Phase::Isolating { level: to, .. }) = act
            && to != level
        {
            hand.gives_up = Some((level, case.failure()));
        }
    }

    /// The command is out; what is left is to write down how it went.
    pub fn sent(&mut self, r: usize, phase: Phase, world: &World) {
        if let Act::Send(Power::Off, ..) = self.hands[r].act
            && kind(self.hands[r].level, world) != Kind::Person
        {
            self.off_sent |= self.hands[r].cr == self.cr;
        }
        self.hands[r].act = Act::Enter(phase);
        self.hands[r].age = 0;
    }
}

//! The ways to cut the node off: its BMC, the two sockets that feed it, a person; and what `observe` makes of those of them
//! that are not acted on.

use ringfence::decide::{FIRST, Level, Levels, Phase, Power, Reading, Revived, Why};

use crate::clock::LATE;
use crate::state::{Bmc, State};
use crate::word::Said;
use crate::world::{Flaw, World};

/// What a level's devices are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The BMC.
    Bmc,
    /// Two sockets of power distribution units. The machine has power while one of them gives it.
    Sockets,
    /// A person is asked.
    Person,
}

/// How a socket behaves, for all time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Socket {
    /// It does what it is told.
    Works,
    /// It switches off a tick after it has said so.
    Late,
    /// Its relay sticks: 2xx, and on.
    Stuck,
    /// 401 to everything.
    Refuses,
    /// No answer.
    Silent,
}

/// The levels of one remediation, and what they are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ladder {
    pub sockets: [Socket; 2],
    /// Which of them are on.
    pub feeds: [bool; 2],
    /// An off that a socket has accepted: ticks left.
    pub late: u8,
    /// Which levels have pinned orders.
    pub begun: [bool; 3],
    /// Why they were given up.
    pub failed: [Option<Why>; 3],
    /// The sockets were taken out of the spec.
    pub fewer: bool,
    /// What a person has said to the request that is open.
    pub said: Said,
    /// The node has shown life since the request was opened.
    pub void: bool,
    /// Released by a person's word.
    pub by_hand: bool,
}

impl Ladder {
    pub fn new(sockets: [Socket; 2]) -> Self {
        Self {
            sockets,
            feeds: [true; 2],
            late: 0,
            begun: [false; 3],
            failed: [None; 3],
            fewer: false,
            said: Said::Nothing,
            void: false,
            by_hand: false,
        }
    }

    /// Nothing is pinned any more.
    pub fn forget(&mut self) {
        (self.begun, self.failed, self.said, self.void) = ([false; 3], [None; 3], Said::Nothing, false);
    }
}

fn index(level: Level) -> usize {
    (level - FIRST) as usize
}

/// What is at a level.
pub fn kind(level: Level, world: &World) -> Kind {
    world.levels[index(level)]
}

impl State {
    /// Whether the spec has this level.
    fn has(&self, level: Level, world: &World) -> bool {
        world.levels.get(index(level)).is_some_and(|kind| !(self.ladder.fewer && *kind == Kind::Sockets))
    }

    /// The levels of devices that were begun. Nothing is sent to a device that speaks for another machine.
    fn tops(&self, world: &World) -> impl Iterator<Item = Level> {
        let (ladder, levels) = (self.ladder, world.levels);
        (FIRST..).take(levels.len()).filter(move |level| {
            let i = index(*level);
            ladder.begun[i] && levels[i] != Kind::Person && ladder.failed[i] != Some(Why::WrongMachine)
        })
    }

    /// The level that is acted on.
    pub fn level(&self, world: &World) -> Level {
        let named = || if self.phase == Phase::Accepted { None } else { self.tops(world).last() };
        self.phase.level().or_else(named).unwrap_or(FIRST)
    }

    /// What is at it.
    pub fn kind(&self, world: &World) -> Kind {
        kind(self.level(world), world)
    }

    /// What other levels there are; but for what was revived.
    pub fn levels(&self, world: &World) -> Levels {
        let now = self.level(world);
        if world.levels.len() == 1 {
            return Levels { now, top: (kind(now, world) != Kind::Person).then_some(now), ..Levels::default() };
        }
        let next = (now + 1..).take(world.levels.len()).find(|level| self.has(*level, world));
        let below = self.tops(world).filter(|level| *level < now).last();
        Levels { now, next, below, top: self.tops(world).last(), revived: None }
    }

    /// A level that was begun is no longer in the spec.
    pub fn level_removed(&self, world: &World) -> bool {
        (FIRST..).zip(world.levels).any(|(level, _)| self.ladder.begun[index(level)] && !self.has(level, world))
    }

    /// A level is begun, and the one before it is given up.
    pub fn begin(&mut self, level: Level, given_up: Option<(Level, Why)>, world: &World) {
        if world.levels.len() == 1 {
            return;
        }
        if let Some((before, why)) = given_up {
            self.ladder.failed[index(before)] = Some(why);
        }
        (self.ladder.begun[index(level)], self.ladder.failed[index(level)]) = (true, None);
    }

    /// Whether the machine has mains. Where one socket feeds another machine, nobody switches the feed that it should be.
    pub fn mains(&self, world: &World) -> bool {
        world.miswired || self.ladder.feeds.contains(&true)
    }

    /// What the sockets come to, whether only some are on, and whether nobody listens at one.
    pub fn sockets(&self, world: &World) -> (Reading, bool, bool) {
        if self.ladder.fewer {
            return (Reading::Unknown, false, false); // nothing says how to reach them
        }
        let read = |i: usize| match (self.ladder.sockets[i], self.ladder.feeds[i]) {
            (Socket::Refuses, _) => Reading::Refused,
            (Socket::Silent, _) => Reading::Unknown,
            (Socket::Works | Socket::Late | Socket::Stuck, true) => Reading::Running,
            (Socket::Works | Socket::Late | Socket::Stuck, false) => State::OFF,
        };
        let all = [read(0), read(1)];
        let (reading, partly) = match (world.flawed(Flaw::OneFeed), all.contains(&State::OFF)) {
            (true, true) => (State::OFF, false),
            (_, _) => Reading::of_all(&all),
        };
        (reading, partly, self.ladder.sockets.contains(&Socket::Silent))
    }

    /// What the BMC says, where another level is acted on: that it is on, of this machine; and whether it is back.
    pub fn elsewhere(&self, world: &World) -> (bool, Option<Revived>) {
        let now = self.level(world);
        let Some(level) = (FIRST..).zip(world.levels).find(|(_, kind)| **kind == Kind::Bmc).map(|(level, _)| level)
        else {
            return (false, None);
        };
        if level == now || !self.phase.is_judged() || (self.astray(world) && world.uuid) {
            return (false, None);
        }
        let reading = self.bmc_says(world);
        let silent = self.ladder.begun[index(level)] && self.ladder.failed[index(level)] == Some(Why::Unheard);
        let on = reading == Reading::Running;
        let speaks = on || matches!(reading, Reading::Isolated { .. });
        (on, (silent && speaks).then_some(Revived { level, on }))
    }

    /// Switches a socket.
    pub fn plug(&mut self, i: usize, on: bool, world: &World) {
        let had = self.mains(world);
        self.ladder.feeds[i] = on;
        if world.miswired && i == 1 {
            self.neighbour = on;
        }
        match (had, self.mains(world)) {
            (true, false) => self.cut(),
            (false, true) if !world.stays_off => self.boot(world),
            (true | false, true | false) => {}
        }
    }

    /// Tells both sockets; whether both have said yes.
    pub fn tell_sockets(&mut self, power: Power, world: &World) -> bool {
        let mut yes = !self.ladder.fewer;
        for i in [0, 1] {
            yes &= self.tell_socket(i, power, world);
        }
        yes
    }

    /// Tells one socket.
    pub fn tell_socket(&mut self, i: usize, power: Power, world: &World) -> bool {
        match (self.ladder.sockets[i], power) {
            _ if self.ladder.fewer => return false,
            (Socket::Works, Power::Off) => self.plug(i, false, world),
            (Socket::Works | Socket::Late, Power::On) => self.plug(i, true, world),
            (Socket::Late, Power::Off) => self.ladder.late = LATE,
            (Socket::Stuck, _) => {}
            (Socket::Refuses | Socket::Silent, _) => return false,
        }
        true
    }

    /// An off lands that a socket has accepted before.
    pub fn late_socket(&mut self, world: &World) {
        self.ladder.late = 0;
        for i in [0, 1] {
            if self.ladder.sockets[i] == Socket::Late {
                self.plug(i, false, world);
            }
        }
    }

    /// Whether a level's devices are off, and can't be asked: its restoration is settled by the node's life, if at all.
    pub fn unrestored(&self, level: Level, world: &World) -> bool {
        match kind(level, world) {
            Kind::Bmc if world.levels.len() == 1 => !self.power(self.device_wrong(), world),
            Kind::Bmc => !self.power(self.device_wrong(), world) && self.bmc != Bmc::Up,
            Kind::Sockets => {
                self.ladder.feeds.contains(&false)
                    && matches!(self.sockets(world).0, Reading::Unknown | Reading::Refused)
            }
            Kind::Person => false,
        }
    }
}

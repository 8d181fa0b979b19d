//! What goes wrong in one seed: drawn once, at its beginning.

use super::aim::Aim;
use super::broken::Broken;
use super::chance::Chance;

/// How a BMC treats what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It does as it is told, and says so.
    Honest,
    /// The same, in seconds.
    Slow,
    /// 2xx to a command, and nothing.
    Lie,
    /// A command is lost, and the connection with it.
    Drop,
    /// A command is carried out, and its answer lost.
    Mute,
    /// It reads well, and refuses every command.
    Refuse,
    /// It answers nothing; a command may have been carried out.
    Hang,
    /// Accepted now, carried out later.
    Late,
    /// 503.
    Busy,
    /// Power fades: "PoweringOff" for seconds, and the machine runs meanwhile.
    Fading,
    /// 401 until the Secret is edited.
    Locked,
    /// It says Off for a moment as soon as an off is accepted, and then the truth; power goes later.
    Blink,
    /// It fails in the way of that number.
    Broken(usize),
}

/// Which machine a BMC says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Itself,
    Nothing,
    Another,
}

/// Something that happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The BMC of a machine behaves otherwise from now on.
    Bmc(usize, Manner),
    /// The BMC of the target restarts, and says Off from then on, until it carries a command out.
    Hearsay,
    /// Someone switches the target on.
    Button,
    /// From now on, someone switches the target on again whenever it is off, after this time.
    Owner(u64),
    /// The hung kubelet is back.
    Wake,
    /// The target's kubelet hangs.
    Hang,
    /// The oldest remediation is deleted.
    Delete,
    /// NHC gives the oldest one up.
    TimeOut,
    /// The target's Node is replaced by one of the same name.
    Replace,
    /// The spec names the BMC of the next machine, or the right one.
    Address(usize),
    /// The spec has a parameter that there is none of, or no longer.
    Nonsense(bool),
    /// The Secret is deleted, or back.
    Secret(bool),
    /// The Secret is edited: its BMC lets us in again.
    Edit,
    /// The node is excluded, or no longer.
    Exclude(bool),
    /// Somebody else leases the node, or no longer.
    Lease(bool),
    /// A remediation of another kind begins, or ends.
    Foreign(bool),
    /// The other control-plane nodes are not Ready, or are.
    Quorum(bool),
    /// Another remediation of the same node is created.
    Another,
    /// A replica is killed, so many polls later.
    Crash(usize, u64),
    /// A replica stands still, so many polls later, for so long.
    Pause(usize, u64, u64),
    /// A replica can't reach the API server for so long.
    CutOff(usize, u64),
    /// The API server that a replica speaks to stands still for so long; half of the calls go to the other one.
    Stand(usize, u64),
    /// What a replica watches stands still for so long, and as it was so long ago.
    Behind(usize, u64, u64),
}

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    At(u64),
    /// So long after a remediation first enters the phase.
    Phase(&'static str, u64),
}

/// The whole plan of a seed.
pub struct Mix {
    pub replicas: usize,
    /// Every replica takes itself for the leader.
    pub all_lead: bool,
    pub hung: bool,
    pub powered: bool,
    pub says: Says,
    pub dies_with_node: bool,
    pub control_plane: bool,
    pub out_of_service: bool,
    pub restore: bool,
    pub attempts: u64,
    /// Seconds.
    pub patience: u64,
    pub gap: u64,
    pub release_timeout: u64,
    /// A foreign finalizer holds the pod until all faults end.
    pub finalizer: bool,
    /// One node at a time, and one within 20 s.
    pub limited: bool,
    /// Of a thousand calls of the API server.
    pub errors: u64,
    pub lost: u64,
    pub slow: u64,
    /// Writes that arrive long after their sender gave them up.
    pub late: u64,
    /// How far the API server's reads lag behind, at most, in milliseconds.
    pub lag: u64,
    /// How far a replica's wall clock may be off, in milliseconds.
    pub skew: u64,
    /// How often kubelets renew their Leases, in milliseconds.
    pub beat: u64,
    /// The StatefulSet's pod goes back to its node, if it can.
    pub home: bool,
    /// A pod that tolerates everything has its volume on the target.
    pub tolerant: bool,
    pub aims: Vec<Aim>,
    /// What the product is protected by, and here is not.
    pub broken: Option<Broken>,
    pub deeds: Vec<(When, Deed)>,
    /// When all this ends.
    pub calm: u64,
}

const PHASES: [&str; 7] = ["Accepted", "Isolating", "Proving", "Releasing", "Restoring", "Done", "Halted"];
/// What `machine::broken` knows.
pub const BREAKAGES: usize = 25;

impl Mix {
    /// A hung node, a BMC that does as it is told, and nothing else in the way.
    pub fn calm_but(replicas: usize, deeds: Vec<(When, Deed)>) -> Self {
        Mix {
            replicas,
            all_lead: replicas > 1,
            hung: true,
            powered: true,
            says: Says::Itself,
            dies_with_node: false,
            control_plane: false,
            out_of_service: false,
            restore: true,
            attempts: 2,
            patience: 10,
            gap: 1,
            release_timeout: 60,
            finalizer: false,
            limited: false,
            errors: 0,
            lost: 0,
            slow: 0,
            late: 0,
            lag: 0,
            skew: 0,
            beat: 10_000,
            home: false,
            tolerant: false,
            aims: vec![],
            broken: None,
            deeds,
            calm: 60_000,
        }
    }

    pub fn draw(chance: &mut Chance) -> Self {
        let replicas = if chance.percent(50) { 2 } else { 1 };
        let rough = chance.percent(60);
        let mut rate = |low: u64, high: u64| if rough && chance.percent(60) { chance.within(low, high) } else { 0 };
        let (errors, lost, slow, late) = (rate(1, 60), rate(1, 40), rate(1, 60), rate(1, 20));
        let lag = if rough && chance.percent(40) { chance.within(50, 1_000) } else { 0 };
        let says = match chance.within(0, 99) {
            0..80 => Says::Itself,
            80..96 => Says::Nothing,
            _ => Says::Another,
        };
        let patience = chance.of(&[10, 10, 20, 30]);
        let mut mix = Mix {
            replicas,
            all_lead: replicas > 1 && chance.percent(40),
            hung: chance.percent(65),
            powered: chance.percent(90),
            says,
            dies_with_node: chance.percent(4),
            control_plane: chance.percent(8),
            out_of_service: chance.percent(50),
            restore: chance.percent(85),
            attempts: chance.within(1, 3),
            patience,
            gap: chance.within(1, 5),
            release_timeout: chance.of(&[5, 15, 60]),
            finalizer: chance.percent(8),
            limited: chance.percent(8),
            errors,
            lost,
            slow,
            late,
            lag,
            // Twice this, between two replicas, is a third of what is the device's of `timeout` (Known limits 5, 11).
            skew: if chance.percent(40) { chance.within(100, patience * 80) } else { 0 },
            beat: if chance.percent(30) { chance.within(10_000, 14_000) } else { 10_000 },
            home: chance.percent(40),
            tolerant: chance.percent(50),
            aims: vec![],
            broken: None,
            deeds: vec![],
            calm: chance.within(20_000, 70_000),
        };
        if chance.percent(70) {
            for _ in 0..chance.within(1, 3) {
                mix.aims.push(Aim::draw(chance));
            }
            if chance.percent(40) {
                (mix.replicas, mix.all_lead) = (2, true);
            }
        }
        mix.lie_in_wait(chance);
        if mix.control_plane && chance.percent(50) {
            mix.deeds.push((When::At(0), Deed::Quorum(false)));
        }
        if mix.limited {
            mix.deeds.push((When::At(chance.within(0, 10_000)), Deed::Another));
        }
        if chance.percent(55) {
            mix.deeds.push((When::At(0), Deed::Bmc(0, manner(chance))));
        }
        for _ in 0..chance.within(0, 6) {
            let when = match chance.percent(60) {
                true => When::Phase(chance.of(&PHASES), chance.within(0, 1) * chance.within(0, 3_000)),
                false => When::At(chance.within(0, mix.calm)),
            };
            mix.push(when, chance);
        }
        mix
    }

    /// What takes two or three rare things at once is set up as a whole, now and then.
    fn lie_in_wait(&mut self, chance: &mut Chance) {
        match chance.within(0, 39) {
            // Off is hearsay, the off does nothing, and the node lives, at a slow beat.
            0 => {
                self.deeds.extend([(When::At(0), Deed::Hearsay), (When::At(0), Deed::Bmc(0, Manner::Lie))]);
                (self.hung, self.powered, self.says, self.patience, self.beat) =
                    (false, true, Says::Itself, 10, 14_000);
                self.skew = self.skew.min(800);
            }
            // What one of the protections is for.
            1..7 => {
                let mix = chance.of(&Broken::ALL).tempting(chance.within(0, 1 << 40));
                (self.all_lead, self.tolerant, self.powered, self.restore) = (true, true, true, true);
                (self.aims, self.hung, self.says) = (mix.aims, mix.hung, mix.says);
                self.deeds.extend(mix.deeds);
            }
            // Each way to fail, as it is met first.
            7..15 => {
                let kind = usize::try_from(chance.within(0, BREAKAGES as u64 - 1)).unwrap_or(0);
                self.deeds.push((When::At(0), Deed::Bmc(0, Manner::Broken(kind))));
            }
            _ => {}
        }
    }

    /// Adds one deed, and mostly its undoing.
    fn push(&mut self, when: When, chance: &mut Chance) {
        let replica = usize::try_from(chance.within(0, self.replicas as u64 - 1)).unwrap_or(0);
        let back = When::At(chance.within(0, self.calm));
        // What holds a remediation up is to be there before it begins, sometimes.
        let early = if chance.percent(50) { When::At(0) } else { when };
        let mut both = |when: When, one: Deed, other: Deed| {
            self.deeds.push((when, one));
            self.deeds.push((back, other));
        };
        match chance.within(0, 105) {
            0..16 => self.deeds.push((when, Deed::Bmc(0, manner(chance)))),
            16..20 => self.deeds.push((when, Deed::Hearsay)),
            20..24 => self.deeds.push((when, Deed::Button)),
            24..26 => self.deeds.push((when, Deed::Owner(chance.within(0, 6_000)))),
            26..31 => self.deeds.push((when, Deed::Wake)),
            31..33 => self.deeds.push((when, Deed::Hang)),
            33..40 => self.deeds.push((when, Deed::Delete)),
            40..43 => self.deeds.push((when, Deed::TimeOut)),
            43..46 => self.deeds.push((when, Deed::Replace)),
            46..51 => both(when, Deed::Address(1), Deed::Address(0)),
            51..55 => both(when, Deed::Nonsense(true), Deed::Nonsense(false)),
            55..59 => both(when, Deed::Secret(false), Deed::Secret(true)),
            59..62 => self.deeds.push((when, Deed::Edit)),
            62..65 => both(early, Deed::Exclude(true), Deed::Exclude(false)),
            65..68 => both(early, Deed::Lease(true), Deed::Lease(false)),
            68..71 => both(early, Deed::Foreign(true), Deed::Foreign(false)),
            71..74 => both(when, Deed::Quorum(false), Deed::Quorum(true)),
            74..79 => self.deeds.push((when, Deed::Another)),
            79..89 => self.deeds.push((when, Deed::Crash(replica, chance.within(0, 60)))),
            89..96 => {
                let pause = Deed::Pause(replica, chance.within(0, 60), chance.within(500, 45_000));
                self.deeds.push((when, pause));
            }
            96..99 => self.deeds.push((when, Deed::CutOff(replica, chance.within(1_000, 30_000)))),
            99..102 => self.deeds.push((when, Deed::Stand(replica, chance.within(3_000, 60_000)))),
            _ => {
                let behind = Deed::Behind(replica, chance.within(1_000, 60_000), chance.within(0, 30_000));
                self.deeds.push((when, behind));
            }
        }
    }
}

fn manner(chance: &mut Chance) -> Manner {
    match chance.within(0, 14) {
        0 | 1 => Manner::Honest,
        2 => Manner::Slow,
        3 => Manner::Lie,
        4 => Manner::Drop,
        5 => Manner::Mute,
        6 => Manner::Refuse,
        7 => Manner::Hang,
        8 | 9 => Manner::Late,
        10 => Manner::Busy,
        11 => Manner::Fading,
        12 => Manner::Locked,
        13 => Manner::Blink,
        _ => Manner::Broken(usize::try_from(chance.within(0, BREAKAGES as u64 - 1)).unwrap_or(0)),
    }
}

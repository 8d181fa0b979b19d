//! A machine: power, boot, kubelet, the processes that write to volumes, and its BMC's state.

use std::collections::BTreeMap;

use agents::{Command, PowerState};

use super::faults::{Manner, Says};
use super::tally::note;

/// A process of a pod, which writes to the pod's volume as long as it lives.
#[derive(Clone, Debug)]
pub struct Process {
    /// The StatefulSet's ordinal, or whatever else names its place.
    pub place: String,
    pub volume: Option<String>,
}

pub struct Machine {
    pub name: String,
    pub uuid: String,
    pub power: bool,
    /// Counts boots; names the boot ID.
    pub boots: u64,
    /// When the kubelet of this boot is up.
    pub up_at: u64,
    /// It writes, and its kubelet is silent.
    pub hung: bool,
    /// By UID of the pod.
    pub processes: BTreeMap<String, Process>,
    /// When the kubelet speaks next.
    pub beats_at: u64,
    /// Why what happens to this machine is not held against anybody, until it is off again: `docs/safety.md`, Known limits.
    pub excused: Option<&'static str>,
    /// When somebody switched it on at an awkward moment.
    pub pressed: Option<u64>,
    /// Somebody switched it on, so that whatever off of ours there was is undone.
    pub undone: bool,
    pub bmc: Bmc,
}

pub struct Bmc {
    pub manner: Manner,
    pub says: Says,
    pub dies_with_node: bool,
    /// It says Off whatever is, until it carries out a command.
    pub hearsay: bool,
    /// It was read On in this boot of the machine, before that.
    pub was_on: bool,
    /// A command was accepted, and nothing done.
    pub lied: bool,
    /// Accepted, and carried out at that time.
    pub pending: Vec<(u64, Command)>,
    /// "PoweringOff" until then.
    pub fades_until: u64,
    /// It says Off until then.
    pub blinks_until: u64,
    /// Someone switches it on again, so long after it went off.
    pub owner: Option<u64>,
}

impl Machine {
    pub fn new(index: usize, says: Says) -> Self {
        Self {
            name: format!("n{index}"),
            uuid: format!("{index:08}-0000-4000-8000-00000000abcd"),
            power: true,
            boots: 1,
            up_at: 0,
            hung: false,
            processes: BTreeMap::new(),
            beats_at: 0,
            excused: None,
            pressed: None,
            undone: false,
            bmc: Bmc {
                manner: Manner::Honest,
                says,
                dies_with_node: false,
                hearsay: false,
                was_on: false,
                lied: false,
                pending: vec![],
                fades_until: 0,
                blinks_until: 0,
                owner: None,
            },
        }
    }

    /// Tells whether its kubelet speaks to the API server.
    pub fn talks(&self, now: u64) -> bool {
        self.power && !self.hung && now >= self.up_at
    }

    pub fn boot_id(&self) -> String {
        format!("{}-boot-{}", self.name, self.boots)
    }

    pub fn cut(&mut self) {
        if self.power {
            note(|| format!("{} is off; {} processes die", self.name, self.processes.len()));
        }
        self.power = false;
        self.processes.clear();
        (self.excused, self.pressed, self.undone) = (None, None, false);
        self.bmc.lied = false;
    }

    /// Switches it on; the kubelet comes up `after` that.
    pub fn start(&mut self, now: u64, after: u64) {
        if self.power {
            return;
        }
        note(|| format!("{} is on; its kubelet will be up in {after} ms", self.name));
        (self.power, self.hung) = (true, false);
        self.boots += 1;
        self.up_at = now + after;
        self.beats_at = self.up_at;
        self.bmc.was_on = false;
    }

    /// Carries a command out.
    pub fn obey(&mut self, command: Command, now: u64, boot: u64) {
        self.bmc.hearsay = false;
        match command {
            Command::Off => self.cut(),
            Command::On => self.start(now, boot),
        }
    }

    /// What the BMC says of the power.
    pub fn says(&mut self, now: u64) -> PowerState {
        match self.power && !self.bmc.hearsay {
            true if now < self.bmc.blinks_until => PowerState::Off,
            true if now < self.bmc.fades_until => PowerState::Other("PoweringOff".to_owned()),
            true => {
                self.bmc.was_on = true;
                PowerState::On
            }
            false => PowerState::Off,
        }
    }

    /// Why a release of this machine's workloads would be nobody's fault although it runs (Known limits 1 to 3).
    pub fn excuse(&self) -> Option<&'static str> {
        let off_to_come = self.bmc.lied || self.bmc.pending.iter().any(|(_, command)| *command == Command::Off);
        let hidden = off_to_come && (self.bmc.was_on || self.hung);
        match self.bmc.hearsay && (hidden || self.undone) {
            true => Some("says Off falsely, and our off is late, did nothing or was undone"),
            false => self.excused,
        }
    }
}

/// A script that has been taken away shows when it is looked for.
pub const AGENT_MISSING: usize = 20;

/// A failure of a BMC, or of the script that speaks to it, by number.
pub fn broken(kind: usize) -> agents::Error {
    use agents::Error::*;
    let (doing, address, reason) = ("talking to it", "bmc:443".to_owned(), "broken".to_owned());
    let uuid = |text: &str| agents::SystemUuid::parse(text).expect("a UUID");
    match kind {
        0 => Unreachable { address, reason },
        1 => NoAnswer { doing, reason },
        2 => Deadline { doing },
        3 => Auth { doing, status: 403 },
        4 => WrongPassword,
        5 => UnknownUser,
        6 => WrongKg,
        7 => PrivilegeTooLow { doing, privilege: "User" },
        8 => NoCipherSuite { tried: vec![3, 17] },
        9 => Certificate { address, reason },
        10 => OldTls { address, reason },
        11 => Ambiguous { found: vec!["/1".to_owned(), "/2".to_owned()] },
        12 => NoSystem { at: address },
        13 => WrongMachine {
            expected: uuid("00000000-0000-4000-8000-00000000abcd"),
            found: uuid("00000001-0000-4000-8000-00000000abcd"),
        },
        14 => NotOffered { want: "ForceOff", offered: vec![] },
        15 => Refused { doing, status: 409, code: String::new(), message: "is off".to_owned() },
        16 => Busy { doing, retry_after: None },
        17 => Server { doing, status: 500 },
        18 => Protocol { doing, reason },
        19 => ForeignLink { doing, link: "https://elsewhere".to_owned() },
        AGENT_MISSING => AgentMissing { agent: "fence_gone".to_owned(), at: "/usr/sbin".to_owned() },
        21 => agents::Error::agent_unfit("fence_odd", "it has no metadata"),
        22 => agents::Error::agent("fence_odd", doing, "exit code 1", "Unable to connect/login to fencing device"),
        23 => AgentKilled { agent: "fence_slow".to_owned(), doing },
        _ => Config("no such thing".to_owned()),
    }
}

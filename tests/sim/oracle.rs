//! What must never be, seen from outside: by power, processes and what is written, never by what the operator thinks.

use std::collections::{BTreeMap, BTreeSet};

use agents::Command;
use serde_json::Value;

use super::store::Key;
use super::tally::{count, note};
use super::world::{FARS, World, taints, text};

/// Nothing is sent on what was read longer ago than this: a reading and the call that it takes, and half of the longest
/// deadline of a command.
const STALE: u64 = 11_000;

/// A look takes no longer than 5 s, and a proof is used up to 2 s after it.
const MOMENT: u64 = 7_200;

/// What is judged by.
#[derive(Default)]
pub struct Oracle {
    /// The first thing that went wrong.
    pub wrong: Option<String>,
    /// Machines that a spec has named.
    pub named: BTreeSet<usize>,
    pub created: u64,
    /// NHC gave one up, or the Node was replaced.
    pub given_up: bool,
    /// NHC gave all up, or the Node was replaced, since when nobody began anew.
    stopped: Option<u64>,
    /// The last remediation alive was deleted.
    deleted: Option<u64>,
    /// All of them were Done, and nobody has begun anew.
    done: Option<u64>,
    /// There is none since then.
    pub none: Option<u64>,
    /// A remediation has said that it could not switch its machine on again.
    not_restored: bool,
}

impl Oracle {
    pub fn begun(&mut self, _: u64) {
        (self.stopped, self.deleted, self.done, self.none) = (None, None, None, None);
        self.named.insert(0);
    }

    pub fn stopped(&mut self, now: u64) {
        self.stopped.get_or_insert(now);
    }

    pub fn deleted(&mut self, now: u64) {
        self.deleted.get_or_insert(now);
    }

    fn violated(&mut self, what: String) {
        if self.wrong.is_none() {
            note(|| format!("VIOLATION: {what}"));
            self.wrong = Some(what);
        }
    }
}

impl World {
    fn blame(&mut self, machine: usize, what: impl FnOnce() -> String) {
        match self.machines[machine].excuse() {
            Some(excuse) => {
                // What follows from it, too, until the machine is off.
                if self.machines[machine].excused.replace(excuse).is_none() {
                    note(|| format!("excused: {excuse}"));
                    count("excused", excuse);
                }
            }
            None => self.oracle.violated(what()),
        }
    }

    /// Known limits 8 is bounded: what was read before the button was pressed is soon too old for any write.
    fn age_excuse(&mut self, index: usize) {
        let (asked, machine) = (self.asked, &mut self.machines[index]);
        if let Some(pressed) = machine.pressed.take()
            && asked > pressed + MOMENT
        {
            machine.excused = None;
        }
    }

    /// Two writers on one volume, or two of one ordinal.
    pub fn judge_writers(&mut self) {
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut twins = None;
        for (index, machine) in self.machines.iter().enumerate() {
            for process in machine.processes.values() {
                if let Some(other) = places.insert(&process.place, index) {
                    twins = Some((process.place.clone(), other, index));
                }
            }
        }
        if let Some((place, one, other)) = twins {
            let guilty = if self.machines[one].excuse().is_some() { one } else { other };
            self.blame(guilty, || format!("{place} runs on n{one} and on n{other}"));
        }
    }

    /// The attach-detach controller takes a volume away.
    pub fn judge_detach(&mut self, index: usize, volume: &str) {
        let machine = &self.machines[index];
        if machine.processes.values().any(|process| process.volume.as_deref() == Some(volume)) {
            let name = machine.name.clone();
            self.blame(index, || format!("{volume} was detached from {name}, which writes to it"));
        }
    }

    /// P4: whatever releases was sent soon after a look. (If its replica looked again since, that is younger.)
    pub fn judge_release(&mut self, replica: usize, call: super::aim::Call) {
        if let Some(looked) = self.replicas[replica].looked
            && self.asked > looked + MOMENT
        {
            let age = self.asked - looked;
            self.oracle.violated(format!("{call:?} was sent {age} ms after the last look was answered"));
        }
    }

    /// A write of the operator, about to be carried out.
    pub fn judge_write(&mut self, key: &Key, before: &Value, after: Option<&Value>) {
        match key.0.as_str() {
            "nodes" => self.judge_node(key, before, after.unwrap_or(&Value::Null)),
            "pods" => {
                let ends = after.is_none_or(|after| after["status"]["phase"] == "Failed");
                let uid = text(&before["metadata"]["uid"]).to_owned();
                let runs = self.machines.iter().position(|machine| machine.processes.contains_key(&uid));
                if let (true, Some(machine)) = (ends, runs) {
                    self.age_excuse(machine);
                    self.blame(machine, || format!("pod {} was taken from n{machine}, where it runs", key.2));
                }
            }
            FARS => {
                let (phase, why) = (&before["status"]["phase"], &before["status"]["operation"]["why"]);
                if let Some(after) = after
                    && (after["status"]["phase"] != *phase || after["status"]["operation"]["why"] != *why)
                {
                    let (phase, why) = (text(&after["status"]["phase"]), text(&after["status"]["operation"]["why"]));
                    note(|| format!("{}: {phase} {why}: {}", key.2, text(&after["status"]["message"])));
                    count("phase", phase);
                    if !why.is_empty() {
                        count("why", why);
                        // The same, of a machine that the spec no longer names (A2).
                        self.oracle.not_restored |=
                            text(&after["status"]["message"]).contains("not be switched on again");
                    }
                    self.entered(phase);
                    if self.store.all(FARS).iter().all(|far| far["status"]["phase"] == "Done") {
                        self.oracle.done.get_or_insert(self.now);
                    }
                }
            }
            _ => {}
        }
    }

    fn judge_node(&mut self, key: &Key, before: &Value, after: &Value) {
        let Some(index) = self.machines.iter().position(|machine| machine.name == key.2) else { return };
        let bars = |node: &Value| taints(node).iter().filter(|taint| taint["effect"] == "NoExecute").count();
        let power = self.machines[index].power;
        if index != 0 && before["spec"] != after["spec"] {
            self.oracle.violated(format!("{} is no target, and its Node was written", key.2));
        }
        if bars(after) > bars(before) && power {
            self.age_excuse(index);
            self.blame(index, || format!("NoExecute on n{index}, which has power"));
        }
        let in_use = |node: &Value| node["status"]["volumesInUse"].as_array().is_some_and(|all| !all.is_empty());
        if in_use(before) && !in_use(after) && !self.machines[index].processes.is_empty() {
            self.age_excuse(index);
            self.blame(index, || format!("the volumes of n{index} were freed, and it writes"));
        }
        for mark in ["ringfence.dev/claim", "ringfence.dev/barrier", "ringfence.dev/seal"] {
            let (old, new) = (&before["metadata"]["annotations"][mark], &after["metadata"]["annotations"][mark]);
            if old != new {
                note(|| format!("n{index}: {mark} = {new}"));
            }
        }
        if before["spec"]["taints"] != after["spec"]["taints"] {
            note(|| format!("n{index}: taints = {}", after["spec"]["taints"]));
        }
    }

    /// A command has reached a BMC.
    pub fn judge_command(&mut self, machine: usize, command: Command) {
        count("command", if command == Command::Off { "off" } else { "on" });
        let now = self.now;
        let stale = |since: Option<u64>| since.is_some_and(|since| now > since + STALE);
        let oracle = &self.oracle;
        let wrong = match command {
            _ if !oracle.named.contains(&machine) => "a machine that nobody named",
            _ if stale(oracle.none) => "after the last remediation was gone",
            _ if stale(oracle.stopped) => "after NHC gave up, or the Node was gone",
            Command::Off if stale(oracle.done) => "after the remediation was Done",
            Command::Off if stale(oracle.deleted) => "after the deletion",
            Command::Off | Command::On => return,
        };
        self.oracle.violated(format!("n{machine} was told {command:?} {wrong}"));
    }

    /// What is wrong with how things stand when no remediation is left.
    pub fn judge_end(&mut self) {
        let node = self.store.now(&self.node(0));
        let marks = node.map(|node| {
            let ours = taints(&node).iter().filter(|taint| {
                let key = text(&taint["key"]);
                key.contains("fence-agents") || key.contains("ringfence") || key.contains("out-of-service")
            });
            ours.count() + usize::from(!node["metadata"]["annotations"]["ringfence.dev/claim"].is_null())
        });
        if marks.is_some_and(|marks| marks > 0) {
            self.oracle.violated("marks of ours were left on the Node".to_owned());
        }
        let given_up = self.oracle.given_up || self.oracle.not_restored;
        let excused = given_up || self.oracle.created > 1 || !self.mix.restore || !self.mix.powered;
        for index in 0..self.machines.len() {
            let witness = self.machines[index].bmc.says == super::faults::Says::Nothing;
            if !self.machines[index].power && !excused && !witness {
                self.oracle.violated(format!("n{index} was left off"));
            }
        }
    }
}

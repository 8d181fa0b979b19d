//! The world of one seed: objects, machines, and what is still to happen, as far as virtual time has come.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use agents::Command;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::chance::Chance;
use super::faults::{Deed, Manner, Mix, Says, When};
use super::machine::Machine;
use super::oracle::Oracle;
use super::store::{Key, Store, key};
use super::tally::{count, note, set_now};

/// Where the operator and its remediations are.
pub const NAMESPACE: &str = "ns";
/// Where medik8s' operators lease nodes.
pub const NODE_LEASES: &str = "medik8s-leases";
pub const FARS: &str = "fenceagentsremediations";
/// 2026-01-01, in milliseconds: any time will do.
const EPOCH: i64 = 1_767_225_600_000;

pub struct World {
    /// Milliseconds since the seed's beginning.
    pub now: u64,
    pub store: Store,
    pub machines: Vec<Machine>,
    pub chance: Chance,
    pub mix: Mix,
    pub oracle: Oracle,
    /// Nothing goes wrong any more.
    pub calm: bool,
    pub replicas: Vec<Governor>,
    /// Tells that a remediation has changed.
    pub changed: watch::Sender<u64>,
    /// What others than we will do to a machine's power.
    pub presses: Vec<(u64, usize)>,
    /// The spec that remediations have now.
    pub address: usize,
    pub nonsense: bool,
    /// The cluster has a remediator of another kind.
    pub foreign: bool,
    /// Something of a machine has changed that its objects do not show.
    pub moved: bool,
    /// When the call that is being carried out was made.
    pub asked: u64,
    step_at: u64,
    stepped: u64,
}

/// What is done to a replica's process from outside.
#[derive(Clone, Debug, Default)]
pub struct Governor {
    /// Killed after so many polls.
    pub crash: Option<u64>,
    /// Stopped after so many polls, for so long.
    pub pause: Option<(u64, u64)>,
    pub cut_off_until: u64,
    /// Calls of its API server that come before arrive then.
    pub stands_until: u64,
    /// Until when it sees the remediations as they were at what time.
    pub view: Option<(u64, u64)>,
    /// When the last look at a machine was answered, whenever that was heard.
    pub looked: Option<u64>,
    /// It has just felt the node's pulse: the remediation that it asks for next, it asks for again.
    pub felt: bool,
    /// The remediation as it was told last.
    pub told: Option<Value>,
}

/// The world, for all who share it.
#[derive(Clone)]
pub struct Shared {
    world: Arc<Mutex<World>>,
    start: Instant,
}

/// Returns the wall time.
pub fn wall(at: u64) -> Timestamp {
    Timestamp::from_millisecond(EPOCH + i64::try_from(at).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Returns the wall time of a clock that is `off` by so many milliseconds.
pub fn wall_off(at: u64, off: i64) -> Timestamp {
    let ahead = wall(at.saturating_add(u64::try_from(off).unwrap_or(0)));
    Timestamp::from_millisecond(ahead.as_millisecond().saturating_add(off.min(0))).unwrap_or(ahead)
}

/// The same as the API server writes it.
pub fn stamp(at: u64) -> String {
    format!("{:.6}", wall(at))
}

impl Shared {
    pub fn new(seed: u64, change: impl FnOnce(&mut Mix)) -> Self {
        let mut chance = Chance::new(seed);
        let mut mix = Mix::draw(&mut chance);
        change(&mut mix);
        Self { world: Arc::new(Mutex::new(World::new(chance, mix))), start: Instant::now() }
    }

    /// Lets the world come as far as the clock has, and gives it out.
    pub fn enter(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().expect("no panic while held");
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        world.advance(now);
        world
    }

    /// Lets it go on while nobody looks, until dropped.
    pub async fn run(&self) {
        loop {
            let pause = self.enter().chance.within(40, 120);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
}

impl World {
    fn new(chance: Chance, mix: Mix) -> Self {
        let mut machines: Vec<_> = (0..3).map(|index| Machine::new(index, Says::Itself)).collect();
        machines[0].bmc.says = mix.says;
        machines[0].bmc.dies_with_node = mix.dies_with_node;
        // A place whose BMC says no identity is a whole rack of them.
        if mix.says == Says::Nothing {
            machines[1].bmc.says = Says::Nothing;
        }
        let foreign = mix.deeds.iter().any(|(_, deed)| *deed == Deed::Foreign(true));
        let replicas = vec![Governor::default(); mix.replicas];
        let mut world = World {
            now: 0,
            store: Store::default(),
            machines,
            chance,
            mix,
            oracle: Oracle::default(),
            calm: false,
            replicas,
            changed: watch::Sender::new(0),
            presses: vec![],
            address: 0,
            nonsense: false,
            foreign,
            moved: true,
            asked: 0,
            step_at: 0,
            stepped: u64::MAX,
        };
        world.furnish();
        world
    }

    fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        set_now(self.now);
        let now = self.now;
        let due = |when: &When| matches!(when, When::At(at) if *at <= now);
        if !self.calm && self.now >= self.mix.calm {
            self.calm_down();
        }
        for governor in &mut self.replicas {
            if governor.view.take_if(|(until, _)| *until <= now).is_some() {
                self.changed.send_modify(|count| *count += 1);
            }
        }
        let (ripe, rest) = std::mem::take(&mut self.mix.deeds).into_iter().partition(|(when, _)| due(when));
        self.mix.deeds = rest;
        Vec::into_iter(ripe).for_each(|(_, deed)| self.happen(deed));
        self.power();
        if self.now >= self.step_at {
            self.step_at = self.now + self.chance.within(20, 250);
            let beats = self.machines.iter().any(|machine| machine.talks(self.now) && self.now >= machine.beats_at);
            if self.moved || beats || self.stepped != self.store.version() {
                self.moved = false;
                self.stepped = self.store.version();
                self.step();
            }
        }
        self.judge_writers();
    }

    /// What was to happen to machines' power by now.
    fn power(&mut self) {
        let now = self.now;
        for index in 0..self.machines.len() {
            let boot = self.chance_of_boot(index);
            let machine = &mut self.machines[index];
            let mut due: Vec<_> = machine.bmc.pending.iter().copied().filter(|(at, _)| *at <= now).collect();
            machine.bmc.pending.retain(|(at, _)| *at > now);
            due.sort_by_key(|(at, _)| *at);
            for (_, command) in due {
                self.moved = true;
                machine.obey(command, now, boot);
                if command == Command::Off
                    && let Some(after) = machine.bmc.owner
                {
                    self.presses.push((now + after, index));
                }
            }
        }
        let (due, rest) = std::mem::take(&mut self.presses).into_iter().partition(|(at, _)| *at <= now);
        self.presses = rest;
        for (_, index) in Vec::into_iter(due) {
            self.press(index);
        }
    }

    fn chance_of_boot(&mut self, index: usize) -> u64 {
        if self.machines[index].bmc.pending.is_empty() { 0 } else { self.chance.within(2_000, 12_000) }
    }

    /// Somebody switches a machine on.
    pub fn press(&mut self, index: usize) {
        if self.machines[index].power {
            return;
        }
        note(|| format!("someone switches n{index} on"));
        let boot = self.chance.within(2_000, 12_000);
        self.machines[index].start(self.now, boot);
        self.moved = true;
        self.machines[index].undone = true;
        // Between our look and the barrier (Known limits 8).
        if !self.barred(index) && self.is_releasing() {
            self.machines[index].pressed = Some(self.now);
            self.machines[index].excused = Some("switched on between our look and the barrier");
            count("excused", "switched on between our look and the barrier");
        }
    }

    /// Something is being released, or a write of that may still be on its way: that is over with the seal (S2).
    fn is_releasing(&self) -> bool {
        let node = self.store.now(&self.node(0));
        let seal = node.map(|node| node["metadata"]["annotations"]["ringfence.dev/seal"].clone()).unwrap_or_default();
        self.store.all(FARS).iter().any(|far| {
            let sealed = format!("{}/{}", text(&far["metadata"]["uid"]), far["status"]["operation"]["entry"]);
            match text(&far["status"]["phase"]) {
                "Proving" | "Releasing" => true,
                "Restoring" | "Halted" => seal != sealed.as_str(),
                _ => false,
            }
        })
    }

    /// Tells whether the node has a NoExecute taint.
    pub fn barred(&self, index: usize) -> bool {
        self.store.now(&self.node(index)).is_some_and(|node| taints(&node).iter().any(|t| t["effect"] == "NoExecute"))
    }

    pub fn node(&self, index: usize) -> Key {
        key("nodes", "", &format!("n{index}"))
    }

    /// All faults end.
    fn calm_down(&mut self) {
        note(|| "all faults end".to_owned());
        self.calm = true;
        for deed in [
            Deed::Address(0),
            Deed::Nonsense(false),
            Deed::Secret(true),
            Deed::Edit,
            Deed::Exclude(false),
            Deed::Lease(false),
            Deed::Foreign(false),
            Deed::Quorum(true),
        ] {
            self.happen(deed);
        }
        self.mix.deeds.clear();
        self.mix.aims.clear();
        self.presses.clear();
        let Mix { errors, lost, slow, late, lag, .. } = &mut self.mix;
        (*errors, *lost, *slow, *late, *lag) = (0, 0, 0, 0, 0);
        for machine in &mut self.machines {
            (machine.bmc.manner, machine.bmc.owner, machine.bmc.dies_with_node) = (Manner::Honest, None, false);
            machine.bmc.hearsay = false;
        }
        for pod in self.store.all("pods") {
            let pod = key("pods", text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
            self.store.change(&pod, self.now, |pod| pod["metadata"]["finalizers"] = json!([]));
        }
        for governor in &mut self.replicas {
            *governor = Governor::default();
        }
        self.remediations_changed();
    }
}

/// A field's text; empty if it is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub fn taints(node: &Value) -> &[Value] {
    node["spec"]["taints"].as_array().map(Vec::as_slice).unwrap_or_default()
}

//! Constructed histories of one machine that hangs, "m1", and one that takes over, "m2". Times in seconds.

use uuid::Uuid;

use super::*;
use crate::journal::{End, Process};

#[test]
fn an_orderly_fencing_is_clean() {
    let mut world = World::new();
    let old = world.writer("m1", "old", 0, 10);
    world.off("m1", 10);
    world.barred("m1", 11).gone("old", 12).detached("m1", 13);
    world.writer("m2", "new", 14, 20);
    world.on("m1", 21);
    let verdict = world.judge();
    assert_eq!(verdict.violations, Vec::<String>::new());
    assert_eq!((verdict.released, verdict.processes), (1, 2));
    assert_eq!(verdict.volumes["pv"].writers[0], world.lives[old]);
    assert!(verdict.to_string().starts_with("2 processes, 1 volume, 1 pod released: clean."), "{verdict}");
}

#[test]
fn a_healthy_move_is_clean() {
    let mut world = World::new();
    let old = world.writer("m1", "old", 0, 10);
    world.lives[old].ended = Some(End { at: at(10), how: Ending::Stopped });
    world.gone("old", 11).detached("m1", 12);
    world.writer("m2", "new", 13, 20);
    let verdict = world.judge();
    assert_eq!((verdict.violations, verdict.released), (vec![], 0));
}

#[test]
fn two_machines_on_one_volume() {
    let mut world = World::new();
    world.writer("m1", "old", 0, 10);
    world.writer("m2", "new", 8, 20);
    world.only("volume pv had two writers");
}

#[test]
fn two_pods_of_one_machine_may_share_a_volume() {
    let mut world = World::new();
    world.writer("m1", "a", 0, 10);
    world.writer("m1", "b", 5, 20);
    assert!(world.judge().is_clean());
}

#[test]
fn two_of_one_ordinal() {
    let mut world = World::new();
    for (machine, uid, first, last) in [("m1", "old", 0, 10), ("m2", "new", 9, 20)] {
        let life = world.writer(machine, uid, first, last);
        world.lives[life].volumes.clear();
        world.lives[life].process.ordinal = Some("ns/db-0".into());
    }
    world.only("one StatefulSet ordinal ran twice");
}

#[test]
fn a_pod_deleted_from_under_a_running_process() {
    let mut world = World::new();
    world.writer("m1", "old", 0, 12);
    world.gone("old", 10);
    world.expect(&["still wrote or answered 2.00 s after", "was deleted while it ran"]);
}

#[test]
fn a_kubelet_that_kills_what_was_force_deleted_is_no_excuse() {
    let mut world = World::new();
    let old = world.writer("m1", "old", 0, 10);
    world.lives[old].ended = Some(End { at: at(10), how: Ending::Orphaned });
    world.gone("old", 11);
    world.only("was deleted while it ran");
}

#[test]
fn an_off_that_lands_after_the_release() {
    let mut world = World::new();
    world.writer("m1", "old", 0, 12);
    world.barred("m1", 9).gone("old", 10).detached("m1", 11);
    world.off("m1", 12);
    world.expect(&["got the taint", "was deleted while it ran", "was detached while", "still wrote"]);
}

#[test]
fn a_volume_detached_from_under_a_writer() {
    let mut world = World::new();
    world.writer("m1", "old", 0, 12);
    world.detached("m1", 10);
    world.only("volume pv was detached while");
}

#[test]
fn a_node_barred_or_deleted_with_power() {
    let mut world = World::new();
    world.barred("m1", 10);
    world.release(What::NodeGone { node: "m1".into() }, 11);
    world.expect(&["got the taint", "the Node m1 was deleted"]);
}

#[test]
fn a_release_seen_late_is_not_held_against_a_machine_that_is_back() {
    let mut world = World::new();
    world.writer("m1", "old", 0, 5);
    world.off("m1", 5).on("m1", 10);
    world.barred("m1", 10).gone("old", 10).detached("m1", 10);
    assert_eq!(world.judge().violations, Vec::<String>::new());
}

#[test]
fn a_volume_may_come_back_to_the_boot_that_it_was_detached_from() {
    let mut world = World::new();
    let old = world.writer("m1", "old", 0, 5);
    world.lives[old].ended = Some(End { at: at(5), how: Ending::Stopped });
    world.gone("old", 6).detached("m1", 6);
    world.writer("m1", "new", 8, 12);
    assert_eq!(world.judge().violations, Vec::<String>::new());
    world.detached("m1", 10);
    world.only("was detached while");
}

#[test]
fn a_process_that_comes_back_with_its_machine_after_the_release() {
    let mut world = World::new();
    world.writer("m1", "old", 0, 5);
    world.off("m1", 5).gone("old", 6).on("m1", 10);
    world.writer("m1", "old", 11, 15);
    world.expect(&["still wrote"]);
}

#[test]
fn a_static_pods_mirror_is_not_its_licence() {
    let mut world = World::new();
    let life = world.writer("m1", "old", 0, 20);
    world.lives[life].process.static_pod = true;
    world.lives[life].volumes.clear();
    world.gone("old", 10);
    let verdict = world.judge();
    assert_eq!((verdict.violations, verdict.released), (vec![], 0));
}

#[test]
fn what_somebody_else_did_is_excused_with_what_follows_but_nothing_else() {
    let mut world = World::new();
    world.writer("m1", "old", 0, 12);
    world.barred("m1", 5).gone("old", 10);
    let excuse = |machine: &str, from, until| Excuse {
        machine: machine.into(),
        from: at(from),
        until: Some(at(until)),
        reason: "the power button",
    };
    world.excuses = vec![excuse("m1", 3, 4), excuse("m2", 0, 20), excuse("m1", 6, 7)];
    assert_eq!(world.judge().violations.len(), 3, "too early, another machine, too late: {}", world.judge());
    world.excuses = vec![excuse("m1", 4, 6)];
    let verdict = world.judge();
    assert_eq!((verdict.violations, verdict.excused.len()), (vec![], 3));
    // Its next boot is another matter.
    world.off("m1", 13).on("m1", 14);
    world.writer("m1", "new", 15, 20);
    world.gone("new", 18);
    world.expect(&["was deleted while it ran"]);
}

struct World {
    lives: Vec<Life>,
    boots: BTreeMap<String, Vec<Boot>>,
    releases: Vec<Release>,
    excuses: Vec<Excuse>,
}

impl World {
    fn new() -> Self {
        let boot = || vec![Boot { id: Uuid::new_v4(), since: at(0), until: None }];
        let boots = ["m1", "m2"].map(|name| (name.to_owned(), boot())).into();
        Self { lives: Vec::new(), boots, releases: Vec::new(), excuses: Vec::new() }
    }

    fn writer(&mut self, machine: &str, uid: &str, first: i64, last: i64) -> usize {
        let boot = self.boots[machine].last().expect("a first boot").id;
        self.lives.push(Life {
            process: Process {
                machine: machine.into(),
                boot,
                namespace: "ns".into(),
                pod: "db-0".into(),
                uid: uid.into(),
                ordinal: None,
                static_pod: false,
            },
            volumes: vec!["pv".into()],
            first: at(first),
            last: at(last),
            beats: 2,
            ended: None,
        });
        self.lives.len() - 1
    }

    fn off(&mut self, machine: &str, time: i64) -> &mut Self {
        self.boot_of(machine).last_mut().expect("a first boot").until = Some(at(time));
        self
    }

    fn on(&mut self, machine: &str, time: i64) -> &mut Self {
        self.boot_of(machine).push(Boot { id: Uuid::new_v4(), since: at(time), until: None });
        self
    }

    fn boot_of(&mut self, machine: &str) -> &mut Vec<Boot> {
        self.boots.get_mut(machine).expect("m1 or m2")
    }

    fn barred(&mut self, node: &str, time: i64) -> &mut Self {
        self.release(What::Barred { node: node.into(), taint: "node.kubernetes.io/out-of-service".into() }, time)
    }

    fn gone(&mut self, uid: &str, time: i64) -> &mut Self {
        self.release(What::PodGone { node: "m1".into(), name: "ns/db-0".into(), uid: uid.into() }, time)
    }

    fn detached(&mut self, node: &str, time: i64) -> &mut Self {
        self.release(What::Detached { node: node.into(), volume: "pv".into() }, time)
    }

    fn release(&mut self, what: What, time: i64) -> &mut Self {
        self.releases.push(Release { at: at(time), what });
        self
    }

    fn judge(&self) -> Verdict {
        judge(&Evidence {
            lives: self.lives.clone(),
            boots: self.boots.clone(),
            releases: self.releases.clone(),
            excuses: self.excuses.clone(),
        })
    }

    fn only(&self, violation: &str) {
        self.expect(&[violation]);
        assert_eq!(self.judge().violations.len(), 1, "{}", self.judge());
    }

    fn expect(&self, violations: &[&str]) {
        let verdict = self.judge();
        assert!(!verdict.is_clean());
        for violation in violations {
            assert!(verdict.violations.iter().any(|found| found.contains(violation)), "no {violation:?} in: {verdict}");
        }
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

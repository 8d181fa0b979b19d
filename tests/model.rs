//! Every interleaving of one node's world with the controller that `decide` drives.
//!
//! The real `decide` runs against a machine, a BMC, an API server and people that do whatever their world permits:
//! crashes between any two steps, lost and late commands, lies, deletions, two replicas that both believe to lead. Each
//! world is explored to its end. `docs/safety.md` says what this covers, and what it does not.

#[path = "model/clock.rs"]
mod clock;
#[path = "model/explore.rs"]
mod explore;
#[path = "model/frozen.rs"]
mod frozen;
#[path = "model/levels.rs"]
mod levels;
#[path = "model/memory.rs"]
mod memory;
#[path = "model/mind.rs"]
mod mind;
#[path = "model/mutants.rs"]
mod mutants;
#[path = "model/next.rs"]
mod next;
#[path = "model/properties.rs"]
mod properties;
#[path = "model/quorum.rs"]
mod quorum;
#[path = "model/state.rs"]
mod state;
#[path = "model/word.rs"]
mod word;
#[path = "model/world.rs"]
mod world;
#[path = "model/worlds.rs"]
mod worlds;

use std::collections::BTreeSet;

use explore::{Found, explore, explore_all};
use mutants::SURVIVORS;
use world::{LARGE, LIMITS, WORLDS, World};
use worlds::LEVELS;

#[test]
fn every_world_holds() {
    all_hold(&[WORLDS, LEVELS].concat());
}

#[test]
#[ignore = "minutes, and gigabytes"]
fn every_large_world_holds() {
    all_hold(LARGE);
}

#[test]
fn limits_are_known() {
    for (name, world) in LIMITS.iter().chain(worlds::LIMITS) {
        let found = explore(world);
        let (wrong, trace) = found.wrong.as_ref().expect(name);
        println!("{name:70} {wrong}, {} steps", trace.len());
        show(&found);
    }
}

#[test]
fn every_mutant_is_caught() {
    let world = |name| WORLDS.iter().chain(LEVELS).chain(LARGE).find(|w| w.0 == name).map(|w| w.1).expect(name);
    let found = explore_all(mutants::all().map(|m| World { slip: m.slip, ..world(m.world) }).collect());
    let mut ok = true;
    for (m, f) in mutants::all().zip(found) {
        let (wrong, steps) = f.wrong.as_ref().map_or(("SURVIVES", 0), |(wrong, trace)| (*wrong, trace.len()));
        println!("{:5} {:64} {:32} {wrong}, {steps} steps", m.rule, m.breaks, m.world);
        if std::env::var_os("TRACES").is_some() || wrong != m.property {
            show(&f);
        }
        ok &= wrong == m.property;
    }
    assert!(ok);
}

#[test]
#[ignore = "minutes: every world, once per survivor"]
fn survivors_survive() {
    for m in SURVIVORS {
        let found = explore_all(WORLDS.iter().map(|(_, world)| World { slip: m.slip, ..*world }).collect());
        let caught: Vec<_> = found.iter().filter_map(|f| f.wrong.as_ref().map(|w| w.0)).collect();
        assert!(caught.is_empty(), "no survivor: {} {}: {caught:?}", m.rule, m.breaks);
    }
}

fn all_hold(worlds: &[(&str, World)]) {
    let only = std::env::var("WORLD").ok();
    let worlds: Vec<_> = worlds.iter().filter(|w| only.as_ref().is_none_or(|o| o == w.0)).collect();
    let (mut ok, mut phases) = (true, BTreeSet::new());
    let found = explore_all(worlds.iter().map(|w| w.1).collect());
    for ((name, _), f) in worlds.iter().zip(found) {
        let wrong = f.wrong.as_ref().map_or("holds", |w| w.0);
        println!("{name:36} {:>9} states {:6.2} s  {wrong}  halted: {:?}", f.states, f.seconds, f.halted);
        show(&f);
        ok &= f.wrong.is_none();
        phases.extend(f.phases);
    }
    assert!(ok);
    assert!(only.is_some() || phases.len() == 7, "a phase that no world reaches is not checked: {phases:?}");
}

fn show(found: &Found) {
    for line in found.wrong.iter().flat_map(|w| &w.1) {
        let short = [(" { ", "{"), (" }", "}"), ("attempt: ", ""), ("answered: ", ""), ("seen_on: ", "")];
        println!("      {}", short.iter().fold(line.clone(), |l, (a, b)| l.replace(a, b)));
    }
}

//! The operator under virtual time: the real observe, decide, act and election, against an API server in memory and
//! simulated machines. A seed draws its own mix of faults, and replays exactly.
//!
//! `make sim`, `SEEDS=1000 make sim`, and `SEED=7 make sim` for one with its trace.

#[path = "sim/aim.rs"]
mod aim;
#[path = "sim/api.rs"]
mod api;
#[path = "sim/bmc.rs"]
mod bmc;
#[path = "sim/broken.rs"]
mod broken;
#[path = "sim/chance.rs"]
mod chance;
#[path = "sim/cluster.rs"]
mod cluster;
#[path = "sim/faults.rs"]
mod faults;
#[path = "sim/machine.rs"]
mod machine;
#[path = "sim/oracle.rs"]
mod oracle;
#[path = "sim/people.rs"]
mod people;
#[path = "sim/replica.rs"]
mod replica;
#[path = "sim/report.rs"]
mod report;
#[path = "sim/run.rs"]
mod run;
#[path = "sim/store.rs"]
mod store;
#[path = "sim/tally.rs"]
mod tally;
#[path = "sim/world.rs"]
mod world;

use std::time::{Duration, Instant};

use aim::{Aim, Blow, Call};
use broken::Broken;
use faults::{Deed, Mix, When};

/// More polls than a remediation takes with nothing in its way.
const POLLS: u64 = 1_200;
/// Where so many seeds are run, everything that there is to be reached is reached so often.
const MANY: u64 = 100_000;
const REACHED: u64 = 100;
/// By then, each broken protection has been found, with faults aimed at it.
const BROKEN_SEEDS: u64 = 100;
/// Seeds of every run: some ten seconds.
const SEEDS: u64 = 100;

#[test]
fn no_seed_breaks_a_promise() {
    if let Some(seed) = number("SEED") {
        let run = run::run(seed, true);
        println!("{}", run.trace.join("\n"));
        assert_eq!(run.wrong, None, "seed {seed}");
        return;
    }
    let (first, seeds) = (number("FIRST").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS));
    let start = Instant::now();
    let report = report::of(first..first + seeds);
    println!("{report}");
    println!("{:.0} seeds a minute", seeds as f64 * 60.0 / start.elapsed().max(Duration::from_millis(1)).as_secs_f64());
    assert!(report.wrong.is_empty(), "{} seeds of {seeds} broke a promise", report.wrong.len());
    let scarce = report.scarce(REACHED);
    assert!(seeds < MANY || scarce.is_empty(), "reached less than {REACHED} times: {}", scarce.join(", "));
}

/// Without this, a seed that was found could not be looked at.
#[test]
fn a_seed_replays_exactly() {
    for seed in 0..8 {
        let (one, other) = (run::run(seed, true), run::run(seed, true));
        assert!(one.trace.len() > 50, "seed {seed} did next to nothing");
        let parts = one.trace.iter().zip(&other.trace).find(|(one, other)| one != other);
        assert_eq!(parts, None, "seed {seed} goes another way");
        assert_eq!(one.trace.len(), other.trace.len(), "seed {seed}");
    }
}

/// Each protection, taken away from outside, is missed: the simulation is able to find what it is for. With it, the same faults
/// do no harm.
#[test]
fn what_protects_is_missed_when_it_is_gone() {
    for broken in Broken::ALL {
        let run = |seed: u64, broken_is: Option<Broken>| {
            let tempted = |mix: &mut Mix| {
                *mix = broken.tempting(seed);
                mix.broken = broken_is;
            };
            run::run_with(seed, false, tempted).wrong
        };
        let found = (0..BROKEN_SEEDS).find_map(|seed| Some((seed, run(seed, Some(broken))?)));
        println!("without {broken:?}: {found:?}");
        let Some((seed, _)) = found else { panic!("without {broken:?}, {BROKEN_SEEDS} seeds broke no promise") };
        assert_eq!(run(seed, None), None, "with {broken:?}, seed {seed}");
    }
}

/// A kill between any two polls is only a pause.
#[test]
fn a_kill_at_any_point_is_only_a_pause() {
    for polls in (0..POLLS).step_by(step()) {
        let kill = vec![(When::At(0), Deed::Crash(0, polls))];
        let run = run::run_with(polls, false, |mix| *mix = Mix::calm_but(1, kill));
        assert_eq!(run.wrong, None, "killed after {polls} polls");
        assert!(run.counts.of("phase", "Done") > 0, "killed after {polls} polls, and never Done");
    }
}

/// Another replica has gone on meanwhile, and the machine runs again: no command of the one that stood still may reach it.
#[test]
fn whoever_stood_still_commands_nothing() {
    for polls in 0..40 {
        let pause = (When::Phase("Isolating", 0), Deed::Pause(1, polls, 50_000));
        let deeds = vec![pause, (When::At(35_000), Deed::Delete)];
        let run = run::run_with(polls, false, |mix| *mix = Mix::calm_but(2, deeds));
        assert_eq!(run.wrong, None, "stopped after {polls} polls");
    }
}

/// A reading that was heard long after it was made releases nothing. (The lease would end first, here: safety does not rest
/// on it.)
#[test]
fn whoever_stood_still_releases_nothing() {
    for call in [Call::Look, Call::ReadPulse, Call::ReadNode, Call::ReadRemediation] {
        for skip in 0..4 {
            let aim = Aim { call, phase: Some("Releasing"), skip, blow: Blow::Stop(12_000), then: None };
            let run = run::run_with(skip, false, |mix| {
                *mix = Mix::calm_but(1, vec![]);
                mix.all_lead = true;
                mix.aims = vec![aim];
            });
            assert_eq!(run.wrong, None, "stopped at {call:?} {skip}");
        }
    }
}

/// Every point with `make sim`, some of them else.
fn step() -> usize {
    if number("SEEDS").is_some() { 1 } else { 41 }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

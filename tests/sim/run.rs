//! One seed, from its first fault to the last remediation's end.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::faults::{Mix, Says};
use super::tally::{self, Counts};
use super::world::{FARS, Shared, World, text};
use super::{replica, tally::note};

/// Longer than any remediation takes with nothing in its way: three offs and three ons of 30 s each, and a release of 60 s,
/// twice.
const LONG: u64 = 500_000;
/// A halted remediation looks every 30 s.
const LOOKS: u64 = 35_000;

pub struct Run {
    pub wrong: Option<String>,
    pub trace: Vec<String>,
    pub counts: Counts,
    /// Virtual milliseconds.
    pub lasted: u64,
}

/// Runs a seed with the faults that it draws.
pub fn run(seed: u64, traced: bool) -> Run {
    run_with(seed, traced, |_| {})
}

/// Runs a seed with other faults than it draws.
pub fn run_with(seed: u64, traced: bool, change: impl FnOnce(&mut Mix)) -> Run {
    tally::listen();
    tally::take_counts();
    tally::begin_trace(traced);
    tally::set_now(0);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    let (wrong, lasted) = runtime.block_on(async {
        let shared = Shared::new(seed, change);
        let (replicas, plan) = {
            let world = shared.enter();
            (world.mix.replicas, format!("seed {seed}: {}", world.announce()))
        };
        note(|| plan);
        let local = futures::future::join_all((0..replicas).map(|index| replica::run(shared.clone(), index)));
        tokio::select! {
            biased;
            _ = local => unreachable!("replicas run for ever"),
            () = shared.run() => unreachable!("so does the world"),
            () = play(&shared) => {}
        }
        let world = shared.enter();
        (world.oracle.wrong.clone(), world.now)
    });
    Run { wrong, trace: tally::take_trace(), counts: tally::take_counts(), lasted }
}

async fn play(shared: &Shared) {
    wait(shared, "the faults to end", |world| world.calm).await;
    let calm = shared.enter().now;
    // Those that were deleted go, the others come to rest, and rest for good.
    let at_rest = |world: &World| {
        world.now > calm + LOOKS && world.remediations().iter().all(|far| is_at_rest(far) && !world.waits_in_vain(far))
    };
    wait(shared, "every remediation to be Done or Halted, or gone", at_rest).await;
    {
        let mut world = shared.enter();
        for far in world.remediations() {
            if far["metadata"]["deletionTimestamp"].is_null() {
                world.delete(text(&far["metadata"]["name"]));
            }
        }
    }
    wait(shared, "every deleted remediation to be gone", |world| world.remediations().is_empty()).await;
    {
        let mut world = shared.enter();
        world.oracle.none = Some(world.now);
    }
    sleep(Duration::from_secs(12)).await;
    shared.enter().judge_end();
}

/// Waits, unless something has gone wrong.
async fn wait(shared: &Shared, what: &str, is: impl Fn(&World) -> bool) {
    let start = shared.enter().now;
    loop {
        {
            let mut world = shared.enter();
            if is(&world) || world.oracle.wrong.is_some() {
                return;
            }
            if world.now > start + LONG {
                let stuck: Vec<_> = world.remediations().iter().map(|far| standing(far)).collect();
                world.oracle.wrong = Some(format!("waited in vain for {what}: {}", stuck.join("; ")));
                return;
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}

fn standing(far: &Value) -> String {
    let status = &far["status"];
    format!("{} in {} {}", far["metadata"]["name"], status["phase"], status["operation"]["why"])
}

fn is_at_rest(far: &Value) -> bool {
    let rests = matches!(far["status"]["phase"].as_str(), Some("Done" | "Halted"));
    rests && !far["status"]["operation"]["quietAt"].is_null() && far["metadata"]["deletionTimestamp"].is_null()
}

impl World {
    fn remediations(&self) -> Vec<std::sync::Arc<Value>> {
        self.store.all(FARS)
    }

    /// Nothing is in its way any more: what it waits for is so.
    fn waits_in_vain(&self, far: &Value) -> bool {
        // One that has promised the node to another goes on with nothing (L6).
        let yielded = far["status"]["operation"]["yielded"] == true;
        let alone = self.remediations().len() == 1 && !yielded;
        match text(&far["status"]["operation"]["why"]) {
            "Busy" | "Unheard" | "Excluded" | "ForeignRemediation" | "NodeLeased" | "Budget" | "Unresolved"
            | "NewOrder" => alone,
            // A wrong address may have cost the majority for good.
            "Quorum" => alone && self.machines.iter().skip(1).all(|machine| machine.power),
            "WrongMachine" | "Refused" => alone && self.machines[0].bmc.says == Says::Itself,
            _ => false,
        }
    }

    fn announce(&self) -> String {
        let mix = &self.mix;
        format!(
            "{} replicas{}, {}{}, BMC says {:?}, attempts {}, timeout {} s, {}{}; errors {}, lost {}, slow {}, late {} \u{2030}, lag {} ms; {:?}; calm at {}",
            mix.replicas,
            if mix.all_lead { ", all lead" } else { "" },
            if mix.hung { "hung" } else { "alive" },
            if mix.powered { "" } else { ", off" },
            mix.says,
            mix.attempts,
            mix.patience,
            if mix.restore { "reboot" } else { "off" },
            if mix.out_of_service { ", out of service" } else { "" },
            mix.errors,
            mix.lost,
            mix.slow,
            mix.late,
            mix.lag,
            mix.deeds,
            mix.calm
        )
    }
}

//! The speed figures: from a remediation's creation to the replacement Running, default Kubernetes timings, a BMC that
//! obeys at once, one RWO volume. Those of the fence agents are in [`agents`].

pub mod agents;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;

use crate::stage::{Cluster, Fenced, Hung, Kind, Stage, Strategy, Until};

/// The target for the median.
const TARGET: Duration = Duration::from_secs(3);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The operator's binary.
    pub operator: PathBuf,
    /// Runs of each case.
    pub runs: usize,
}

/// When the remediation comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// At the instant of the hang.
    AtOnce,
    /// Once Kubernetes says that the node is NotReady.
    NotReady,
}

impl When {
    fn name(self) -> &'static str {
        match self {
            Self::AtOnce => "at the hang",
            Self::NotReady => "when NotReady",
        }
    }
}

const CASES: [(Strategy, When); 4] = [
    (Strategy::ResourceDeletion, When::AtOnce),
    (Strategy::OutOfServiceTaint, When::AtOnce),
    (Strategy::ResourceDeletion, When::NotReady),
    (Strategy::OutOfServiceTaint, When::NotReady),
];

/// Measures, and prints a table on standard output.
///
/// Each run has a rack of its own; the runs come one after the other.
///
/// # Errors
/// When a run fails, an oracle's verdict is not clean, or a median misses the target of 3 s.
pub async fn run(options: &Options) -> Result<()> {
    println!("From a remediation's creation to the replacement Running (target: p50 of at most {TARGET:?}).");
    let cluster = Cluster::start(&options.operator, None).await?;
    println!(
        "{:<18} {:<14} {:>4} {:>8} {:>8} {:>8} {:>12}",
        "strategy", "the CR comes", "runs", "min", "p50", "max", "off, p50"
    );
    let mut slow = Vec::new();
    for (number, (strategy, when)) in CASES.into_iter().enumerate() {
        let [mut recovered, mut off] =
            measure(&cluster, &format!("bench{number}"), strategy, when, options.runs).await?;
        recovered.sort();
        off.sort();
        let median = recovered[recovered.len() / 2];
        println!(
            "{:<18} {:<14} {:>4} {:>8} {:>8} {:>8} {:>12}",
            strategy.name(),
            when.name(),
            recovered.len(),
            seconds(recovered[0]),
            seconds(median),
            seconds(recovered[recovered.len() - 1]),
            seconds(off[off.len() / 2]),
        );
        if median > TARGET {
            slow.push(format!("{}, {}: {}", strategy.name(), when.name(), seconds(median)));
        }
    }
    ensure!(slow.is_empty(), "medians above the target: {}", slow.join("; "));
    Ok(())
}

/// The times to the replacement, and to the loss of power.
async fn measure(
    cluster: &Cluster,
    name: &str,
    strategy: Strategy,
    when: When,
    runs: usize,
) -> Result<[Vec<Duration>; 2]> {
    ensure!(runs > 0, "no runs, no figures");
    let mut stages = Vec::new();
    for run in 0..runs {
        let name = format!("{name}-{run}");
        stages.push(Stage::set(cluster, &name, &name, Kind::Face).await?);
    }
    let hung: Vec<Option<Hung>> = match when {
        When::AtOnce => stages.iter().map(|_| None).collect(),
        When::NotReady => {
            let hung = try_join_all(stages.iter().map(Stage::hang_unseen)).await?;
            try_join_all(stages.iter().map(Stage::not_ready)).await?;
            hung.into_iter().map(Some).collect()
        }
    };
    let mut times = [Vec::new(), Vec::new()];
    for (stage, hung) in stages.iter().zip(hung) {
        let hung = match hung {
            Some(hung) => hung,
            None => stage.hang_unseen().await?,
        };
        let fenced = stage.fence(strategy, hung, Until::Recovered).await?;
        times[0].push(since(&fenced, fenced.running));
        times[1].extend(stage.victim().history().iter().find(|change| !change.on).map(|off| since(&fenced, off.at)));
    }
    for stage in &stages {
        let verdict = stage.oracle().verdict().await?;
        ensure!(verdict.is_clean(), "{verdict}");
    }
    Ok(times)
}

fn since(fenced: &Fenced, at: Timestamp) -> Duration {
    at.duration_since(fenced.created).unsigned_abs()
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

//! The torture rig: seeded rounds of remediations on a real control plane, a fault in each phase of each, and an oracle
//! that judges every round from outside.
//!
//! Knows FAR's contract and, of Ringfence, what its status says; whoever obeys the contract can be judged.

mod blow;
mod bmc;
mod chance;
mod deed;
mod fault;
mod matrix;
mod phase;
mod plan;
mod remediations;
mod remediator;
mod report;
mod round;
mod subject;
mod world;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;

use self::fault::Cell;
use self::matrix::Matrix;
use self::plan::Schedule;
pub use self::report::Report;
use self::report::told;
use self::world::World;

/// Who is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Judged {
    /// Ringfence, in two replicas.
    #[default]
    Ringfence,
    /// The real fence-agents-remediation, as [`upstream`](crate::upstream) installs it.
    Far,
    /// A command for `sh` that obeys FAR's contract, with `KUBECONFIG` and `NAMESPACE` in its environment.
    Command(String),
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `ringfence` binary.
    pub operator: PathBuf,
    /// The first seed.
    pub seed: u64,
    /// No round begins later than this.
    pub time: Duration,
    /// How many rounds at most.
    pub seeds: u64,
    /// How many machines are remediated in a round.
    pub machines: usize,
    /// What the first round owes others, as a failure says it: faults, phases and strategies.
    pub owed: Vec<String>,
    /// Who is judged.
    pub judged: Judged,
    /// Where state and logs are to be, and to stay; without, a temporary directory.
    pub keep: Option<PathBuf>,
    /// Nothing goes wrong but the nodes.
    pub no_faults: bool,
    /// Where the report goes, as Markdown, anew after each round: a run that is broken off has one too.
    pub report: Option<PathBuf>,
}

/// Runs rounds until the time is over, and prints how it goes on standard output.
///
/// # Errors
/// When a round could not be played: then nothing is said of the remediator in it. When the report can't be written.
pub async fn run(options: &Options) -> Result<Report> {
    ensure!(options.machines > 0 && options.seeds > 0, "no machines, no remediations");
    let mut owed = options.owed.iter().map(|cell| cell.parse()).collect::<Result<Vec<Cell>>>()?;
    let began = Instant::now();
    let world = World::start(&options.operator, &options.judged, options.keep.clone()).await?;
    let matrix = Mutex::new(Matrix::default());
    let mut report = Report::new(options.seed, world.contract);
    for seed in options.seed..options.seed.saturating_add(options.seeds) {
        if began.elapsed() >= options.time && seed > options.seed {
            break;
        }
        let round = Instant::now();
        let schedule = Schedule::draw(seed, options.machines, !options.no_faults, world.contract, &owed);
        let before = counted(&matrix);
        let outcome = round::play(&world, &schedule, &matrix).await.with_context(|| format!("playing seed {seed}"))?;
        let after = counted(&matrix);
        println!(
            "seed {seed}: {} remediations, {} faults, {} violations, {} excused; {:.0?}",
            outcome.remediations,
            after.total() - before.total(),
            outcome.violations.len(),
            outcome.excused.len(),
            round.elapsed()
        );
        for violation in &outcome.violations {
            println!("  VIOLATION: {violation}");
        }
        if !outcome.violations.is_empty() {
            println!("{}", told(&schedule, &owed, &outcome));
        }
        // What was to be met and was not, because a remediation took another way, comes again.
        let missed = |cell: &Cell| after.of(*cell) == before.of(*cell);
        owed = schedule.plans.iter().flat_map(plan::Plan::cells).filter(missed).collect();
        report.add(seed, outcome, &after);
        if let Some(path) = &options.report {
            std::fs::write(path, report.markdown()).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(report)
}

fn counted(matrix: &Mutex<Matrix>) -> Matrix {
    matrix.lock().expect("no panic while held").clone()
}

//! `testbed`: the demo and the speed figures, and what they need from outside.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use testbed::setup::{self, What};
use testbed::stage::Strategy;
use testbed::torture::Judged;
use testbed::{bench, demo, torture};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(about = "A rack and a cluster on one machine, and an oracle that judges from outside")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Hangs a node, fences it, and tells what happened; exit 0 only if it was safe.
    Demo {
        /// The operator's binary; as a rule beside this program.
        #[arg(long)]
        operator: Option<PathBuf>,
        /// How workloads leave the fenced node.
        #[arg(long, value_enum, default_value = "OutOfServiceTaint")]
        strategy: Strategy,
        /// Where state and logs are to be, and to stay.
        #[arg(long)]
        keep: Option<PathBuf>,
    },
    /// Measures how long it takes from a remediation to the replacement; exit 0 only if the medians meet the target.
    #[command(args_conflicts_with_subcommands = true)]
    Bench {
        #[command(subcommand)]
        of: Option<BenchOf>,
        /// The operator's binary; as a rule beside this program.
        #[arg(long)]
        operator: Option<PathBuf>,
        /// Runs of each case.
        #[arg(long, default_value = "5")]
        runs: usize,
    },
    /// Remediations under all faults, seed after seed, judged by the oracle; exit 0 only if nothing was violated.
    Torture {
        /// The first seed.
        #[arg(long, default_value = "1")]
        seed: u64,
        /// No round begins later than that many minutes after the start.
        #[arg(long, default_value = "15")]
        minutes: u64,
        /// So many rounds at most.
        #[arg(long, default_value = "1000000")]
        seeds: u64,
        /// Machines that are remediated in a round.
        #[arg(long, default_value = "24")]
        machines: usize,
        /// What the first round owes others, as a failure prints it.
        #[arg(long, value_delimiter = ',')]
        owed: Vec<String>,
        /// Judge this command (for sh, with KUBECONFIG and NAMESPACE set) in place of Ringfence; "far" is the real
        /// fence-agents-remediation.
        #[arg(long)]
        remediator: Option<String>,
        /// The operator's binary; as a rule beside this program.
        #[arg(long)]
        operator: Option<PathBuf>,
        /// Where state and logs are to be, and to stay.
        #[arg(long)]
        keep: Option<PathBuf>,
        /// The file that gets the report, as Markdown; as a rule it goes to standard output.
        #[arg(long)]
        report: Option<PathBuf>,
        /// Let nothing go wrong but the nodes.
        #[arg(long)]
        no_faults: bool,
    },
    /// Installs what is missing.
    Setup {
        /// For what.
        what: Purpose,
    },
}

#[derive(Subcommand)]
enum BenchOf {
    /// Our fence agents beside Debian's scripts, instead; exit 0 only if the ratios meet their targets.
    Agents {
        /// The operator's binary, as it is released.
        #[arg(long, default_value = "target/release/ringfence")]
        operator: PathBuf,
        /// Where the scripts are.
        #[arg(long, default_value = "/usr/sbin")]
        scripts: PathBuf,
        /// Runs of each case.
        #[arg(long, default_value = "11")]
        runs: usize,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Purpose {
    Demo,
    Test,
}

#[tokio::main]
async fn main() -> Result<()> {
    // kube reports each refusal while the API server starts as an error of its own.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,kube_client=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    tokio::select! {
        // Whatever runs is dropped, and so ends all that it started.
        interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for Ctrl-C"),
        done = run(Cli::parse().command) => done,
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo { operator, strategy, keep } => {
            demo::run(demo::Options { operator: operator_binary(operator)?, strategy, keep }).await
        }
        Command::Bench { of: Some(BenchOf::Agents { operator, scripts, runs }), .. } => {
            bench::agents::run(&bench::agents::Options { ringfence: operator, scripts, runs }).await
        }
        Command::Bench { of: None, operator, runs } => {
            bench::run(&bench::Options { operator: operator_binary(operator)?, runs }).await
        }
        Command::Torture { seed, minutes, seeds, machines, owed, remediator, operator, keep, report, no_faults } => {
            let operator = operator_binary(operator)?;
            let time = Duration::from_secs(minutes * 60);
            let judged = match remediator.as_deref() {
                None => Judged::Ringfence,
                Some("far") => Judged::Far,
                Some(command) => Judged::Command(command.to_owned()),
            };
            let options =
                torture::Options { operator, seed, time, seeds, machines, owed, judged, keep, no_faults, report };
            let found = torture::run(&options).await?;
            if options.report.is_none() {
                println!("{}", found.markdown());
            }
            println!("{}", found.verdict());
            ensure!(found.violations.is_empty(), "the remediator is not safe");
            Ok(())
        }
        Command::Setup { what: Purpose::Demo } => setup::run(What::Demo).await,
        Command::Setup { what: Purpose::Test } => setup::run(What::Test).await,
    }
}

fn operator_binary(given: Option<PathBuf>) -> Result<PathBuf> {
    match given {
        Some(path) => Ok(path),
        None => Ok(std::env::current_exe().context("where am I?")?.with_file_name("ringfence")),
    }
}

//! `testbed`: the demo and the speed figures, and what they need from outside.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use testbed::setup::{self, What};
use testbed::stage::Strategy;
use testbed::{bench, demo};
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

//! The demo: a node dies, and is fenced, proven off, released and back. Told as a story, with the oracle's verdict.

mod stage;
mod story;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use tokio::time::Instant;

pub use self::stage::{Fenced, Stage, Strategy};
use self::story::tell;

/// What the demo is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The operator's binary.
    pub operator: PathBuf,
    /// How workloads are released.
    pub strategy: Strategy,
    /// Where state and logs are to be, and to stay; without, a temporary directory.
    pub keep: Option<PathBuf>,
}

/// Runs the demo and prints it on standard output.
///
/// # Errors
/// When something of the story did not happen, or the oracle's verdict is not clean.
pub async fn run(options: Options) -> Result<()> {
    let began = Instant::now();
    println!("A node dies. Setting the scene:");
    let stage = Stage::set(&options.operator, options.keep, &mut |what| {
        println!("  {:>5.1} s  {what}", began.elapsed().as_secs_f64());
    })
    .await?;
    println!();
    let hung = stage.hang().await?;
    let fenced = stage.fence(options.strategy, hung).await?;
    let verdict = stage.verdict().await?;
    print!("{}", tell(&stage, &fenced));
    println!("\nThe oracle, which saw only the journals, the power and the API: {verdict}");
    println!("All of it took {:.0} s.", began.elapsed().as_secs_f64());
    ensure!(verdict.is_clean(), "the oracle's verdict is not clean");
    let writers = verdict.volumes.values().map(|volume| volume.writers.len()).max();
    ensure!(writers == Some(2), "the volume should have had two writers, one after the other; it had {writers:?}");
    Ok(())
}

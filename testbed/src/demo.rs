//! The demo: a node dies, and is fenced, proven off, released and back. Told as a story, with the oracle's verdict.

mod story;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use tokio::time::Instant;

use self::story::tell;
use crate::stage::{Cluster, Kind, Stage, Strategy, Until};

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
    let progress = |what: &str| println!("  {:>5.1} s  {what}", began.elapsed().as_secs_f64());
    println!("A node dies. Setting the scene:");
    let cluster = Cluster::start(&options.operator, options.keep).await?;
    progress(
        "a Kubernetes control plane (etcd, API server, controllers, scheduler), the operator under its own rights",
    );
    let stage = Stage::set(&cluster, "node", "shop", Kind::Sushy).await?;
    progress("a rack, node-1 to node-3; its BMC is the real sushy-emulator, Redfish over TLS");
    println!("           shop/db-0, of a StatefulSet with a ReadWriteOnce volume, runs on node-2 and writes to it");
    println!("           an oracle watches from outside");

    let hung = stage.hang().await?;
    let fenced = stage.fence(options.strategy, hung, Until::Done).await?;
    let verdict = stage.oracle().verdict().await?;
    println!("\n{}", tell(&stage, &fenced));
    println!("The oracle, which saw only the journals, the power and the API: {verdict}");
    println!("All of it took {:.0} s.", began.elapsed().as_secs_f64());
    ensure!(verdict.is_clean(), "the oracle's verdict is not clean");
    let writers = verdict.volumes.values().map(|volume| volume.writers.len()).max();
    ensure!(writers == Some(2), "the volume should have had two writers, one after the other; it had {writers:?}");
    Ok(())
}

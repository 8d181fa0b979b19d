//! What the testbed takes from outside: the control plane's binary, a Python environment, Debian packages.
//!
//! The work is done by shell scripts, which also run before anything is compiled; this module runs them. Each prints
//! on standard output only where its result is. Their progress, and what is missing with the one command that
//! provides it, goes to standard error.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

/// What to set up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The control plane and sushy-emulator.
    Demo,
    /// These and the Debian packages of the tests: fence-agents, ipmitool, openipmi.
    Test,
}

/// Installs and builds what is missing; quick when nothing is.
pub async fn run(what: What) -> anyhow::Result<()> {
    let argument = match what {
        What::Demo => "demo",
        What::Test => "test",
    };
    output("setup.sh", &[argument]).await.map(drop)
}

/// The binary that holds the control plane; built from source the first time.
pub async fn control_plane() -> anyhow::Result<PathBuf> {
    output("controlplane/build.sh", &[]).await
}

/// kubectl, of the control plane's version; built from source the first time.
pub async fn kubectl() -> anyhow::Result<PathBuf> {
    output("program.sh", &["kubectl"]).await
}

/// The manager of medik8s fence-agents-remediation, its manifests beside it in `config/`; built from source the first time.
pub async fn upstream() -> anyhow::Result<PathBuf> {
    output("program.sh", &["upstream"]).await
}

/// The Python environment with the packages that `requirements` pins, a path relative to `testbed/`; made the first
/// time.
pub async fn python(requirements: &str) -> anyhow::Result<PathBuf> {
    output("venv.sh", &[requirements]).await
}

async fn output(script: &str, arguments: &[&str]) -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // No deadline: a first build takes minutes, says so on standard error, and may be interrupted.
    let output = Command::new(root.join(script))
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("running testbed/{script}"))?;
    ensure!(output.status.success(), "testbed/{script} failed ({}); the reason is above", output.status);
    let stdout = String::from_utf8(output.stdout).context("a path that is not UTF-8")?;
    match stdout.trim_end().lines().last() {
        Some(path) => Ok(path.into()),
        None => bail!("testbed/{script} did not say where its result is"),
    }
}

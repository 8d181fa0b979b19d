//! Agents as processes, ours and upstream's.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use secrecy::ExposeSecret as _;
use testbed::bmc::redfish::{Certificate, Face, Fault};
use testbed::machine::Machine;
use testbed::scratch::Scratch;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

/// The longest run of an agent here; Python alone takes a second on a loaded machine.
pub const RUN: Duration = Duration::from_secs(120);
/// For what is to happen at once.
pub const SOON: Duration = Duration::from_secs(20);

/// Whose agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Ours,
    Theirs,
}

pub const BOTH: [Whose; 2] = [Whose::Ours, Whose::Theirs];

/// What came of a run.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

/// Our agents under upstream's names.
pub struct Agents {
    dir: Scratch,
}

impl Agents {
    pub fn new() -> Result<Self> {
        let dir = Scratch::new("agent-cli")?;
        for agent in agents::cli::Agent::all() {
            symlink(env!("CARGO_BIN_EXE_ringfence"), dir.path().join(agent.name()))?;
        }
        Ok(Self { dir })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Prepares an agent, with nothing of our environment but what it needs to run.
    pub fn command(&self, whose: Whose, agent: &str) -> Result<Command> {
        let program = match whose {
            Whose::Ours => self.dir.path().join(agent),
            Whose::Theirs => PathBuf::from("/usr/sbin").join(agent),
        };
        ensure!(program.exists(), "{} is missing: `make test` installs fence-agents", program.display());
        let mut command = Command::new(program);
        // upstream's `pipes` is deprecated, and says so.
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("PYTHONWARNINGS", "ignore");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Ok(command)
    }

    /// Runs an agent with these arguments, its standard input empty.
    pub async fn argv(&self, whose: Whose, agent: &str, args: &[&str], ca: Option<&Path>) -> Result<Ran> {
        let mut command = self.command(whose, agent)?;
        command.args(args).envs(ca.map(|ca| ("REQUESTS_CA_BUNDLE", ca)));
        finish(command, "").await
    }

    /// Runs an agent with these lines on its standard input.
    pub async fn stdin(&self, whose: Whose, agent: &str, lines: &str, ca: Option<&Path>) -> Result<Ran> {
        let mut command = self.command(whose, agent)?;
        command.envs(ca.map(|ca| ("REQUESTS_CA_BUNDLE", ca)));
        finish(command, lines).await
    }
}

/// Runs a prepared agent to its end.
pub async fn finish(mut command: Command, lines: &str) -> Result<Ran> {
    let began = Instant::now();
    let mut child = command.spawn().context("starting an agent")?;
    let mut stdin = child.stdin.take().context("its standard input")?;
    // An agent that was given arguments may have ended before it could be told anything.
    let _ = stdin.write_all(lines.as_bytes()).await;
    drop(stdin);
    let output = timeout(RUN, child.wait_with_output()).await.context("an agent did not end")??;
    Ok(Ran {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: began.elapsed(),
    })
}

/// One machine with a Redfish BMC, for one agent.
pub struct Bmc {
    pub machine: Arc<Machine>,
    pub face: Face,
    scratch: Scratch,
}

impl Bmc {
    pub async fn new(on: bool, faults: &[Fault]) -> Result<Self> {
        Self::with(Certificate::Good, on, faults).await
    }

    pub async fn with(certificate: Certificate, on: bool, faults: &[Fault]) -> Result<Self> {
        let machine = Machine::new("node-1");
        if !on {
            machine.set_power(false, "test");
        }
        let face = Face::start_with(std::slice::from_ref(&machine), certificate).await?;
        face.set_faults(&machine, faults.iter().cloned());
        let scratch = Scratch::new("agent-cli-ca")?;
        std::fs::write(scratch.path().join("ca.pem"), face.ca_pem())?;
        Ok(Self { machine, face, scratch })
    }

    /// The authority to believe, in a file.
    pub fn ca(&self) -> PathBuf {
        self.scratch.path().join("ca.pem")
    }

    pub fn password(&self) -> &str {
        self.face.password().expose_secret()
    }

    /// Address and account, as lines.
    pub fn lines(&self) -> String {
        let (user, password) = (self.face.username(), self.password());
        format!("ip=127.0.0.1\nipport={}\nusername={user}\npassword={password}\n", self.face.port())
    }

    pub fn is_on(&self) -> bool {
        self.machine.state().on
    }
}

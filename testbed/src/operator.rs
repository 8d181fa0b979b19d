//! The operator under test, as a child process under a kubeconfig of the test's choice: to be killed, paused, restarted,
//! and read.
//!
//! Knows the operator's command line and its files in `crds/` and `deploy/`; nothing of its insides.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::controlplane::ControlPlane;
use crate::process::{Process, signal};

/// From SIGKILL to the end of a process; instantly, unless the machine is starved.
const KILL: Duration = Duration::from_secs(10);

/// The API server holds the first creations of a new kind back for 2 s, for the sake of its peers (apiextensions-apiserver,
/// customresource_handler.go, "justCreated"), which counts from a time in whole seconds. It would spoil speed figures.
const SETTLED: Duration = Duration::from_secs(2);

/// How to start the operator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `ringfence` binary.
    pub binary: PathBuf,
    /// Under which identity it talks to which cluster.
    pub kubeconfig: PathBuf,
    /// Its own namespace.
    pub namespace: String,
    /// Further flags of `ringfence controller`.
    pub flags: Vec<String>,
    /// The file that gets its output, appended.
    pub log: PathBuf,
}

impl Settings {
    /// Settings with a lease that a successor takes over in 3 s instead of 15 (DESIGN.md, "Lead"), and any free port
    /// for its health.
    pub fn new(binary: &Path, installed: &Installed, log: &Path) -> Self {
        let flags = [
            "--lease-duration=3s",
            "--lease-renew-deadline=2s",
            "--lease-retry-period=500ms",
            "--health-addr=127.0.0.1:0",
        ];
        Self {
            binary: binary.to_owned(),
            kubeconfig: installed.kubeconfig.clone(),
            namespace: installed.namespace.clone(),
            flags: flags.map(str::to_owned).to_vec(),
            log: log.to_owned(),
        }
    }
}

/// An operator; killed when dropped, and when this process dies in whatever way.
pub struct Operator {
    settings: Settings,
    running: Option<Running>,
    lines: Arc<Lines>,
}

struct Running {
    // Ends before the child is reaped, so that it never kills another process of the same number.
    _guard: Process,
    child: Child,
    readers: JoinSet<()>,
}

/// A line of the operator's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was read.
    pub at: Timestamp,
    /// What it says.
    pub text: String,
}

#[derive(Default)]
struct Lines {
    all: Mutex<Vec<Line>>,
    count: watch::Sender<usize>,
}

impl Operator {
    /// Starts it; it need not be ready, nor leading, when this returns.
    ///
    /// # Errors
    /// When the binary can't be started or the log not be written.
    pub fn start(settings: Settings) -> Result<Self> {
        let mut operator = Self { settings, running: None, lines: Arc::default() };
        operator.spawn()?;
        Ok(operator)
    }

    /// Kills it as a crash would (SIGKILL); a no-op if it does not run.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn kill(&mut self) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        drop(running._guard);
        tokio::time::timeout(KILL, running.child.kill()).await.context("the operator outlives SIGKILL")??;
        while running.readers.join_next().await.is_some() {}
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and waits for that.
    ///
    /// # Errors
    /// When it does not run, or runs on after `within`; then it is killed.
    pub async fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal("TERM").await?;
        let mut running = self.running.take().context("the operator does not run")?;
        let ended = tokio::time::timeout(within, running.child.wait()).await;
        self.running = Some(running);
        self.kill().await?;
        Ok(ended.with_context(|| format!("the operator did not stop within {within:?}"))??)
    }

    /// Kills it if it runs, and starts it again.
    ///
    /// # Errors
    /// As [`kill`](Self::kill) and [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.spawn()
    }

    /// Freezes it (SIGSTOP): a replica that is deposed without knowing.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn pause(&self) -> Result<()> {
        self.signal("STOP").await
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub async fn resume(&self) -> Result<()> {
        self.signal("CONT").await
    }

    /// Says whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(|running| matches!(running.child.try_wait(), Ok(None)))
    }

    /// All it has said so far, over restarts.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.all.lock().expect("no panic while held").clone()
    }

    /// Waits for a line that holds `text`, also one that it said before.
    ///
    /// # Errors
    /// When none comes within `within`; the last lines are in the message.
    pub async fn says(&self, text: &str, within: Duration) -> Result<Line> {
        self.says_after(0, text, within).await
    }

    /// The same, without its first so many lines.
    ///
    /// # Errors
    /// As [`says`](Self::says).
    pub async fn says_after(&self, lines: usize, text: &str, within: Duration) -> Result<Line> {
        let mut count = self.lines.count.subscribe();
        let found = tokio::time::timeout(within, async {
            loop {
                count.borrow_and_update();
                if let Some(line) = self.lines().into_iter().skip(lines).find(|line| line.text.contains(text)) {
                    return line;
                }
                if count.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        });
        match found.await {
            Ok(line) => Ok(line),
            Err(_) => bail!("the operator did not say {text:?} within {within:?}; its last lines:\n{}", self.tail()),
        }
    }

    /// The end of its log, for an error message.
    pub fn tail(&self) -> String {
        let lines = self.lines();
        let last = lines.iter().skip(lines.len().saturating_sub(30));
        last.map(|line| format!("  {}\n", line.text)).collect()
    }

    /// Its resident memory, in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid()?);
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS in kB")?;
        Ok(kib * 1024)
    }

    /// The number of its process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        self.running.as_ref().and_then(|running| running.child.id()).context("the operator does not run")
    }

    async fn signal(&self, name: &str) -> Result<()> {
        signal(self.pid()?, name).await
    }

    fn spawn(&mut self) -> Result<()> {
        let Settings { binary, kubeconfig, namespace, flags, log } = &self.settings;
        let mut command = Command::new(binary);
        command
            .arg("controller")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--namespace", namespace])
            .args(flags)
            // It is followed by what it logs, whatever this process is to log.
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("starting the operator {}", binary.display()))?;
        let pid = child.id().context("the operator ended at once")?;
        // Should this process be killed, the guard's standard input ends, and it takes the operator along.
        let mut guard = std::process::Command::new("sh");
        guard.args(["-c", r#"cat >/dev/null; kill -s KILL "$0""#, &pid.to_string()]);
        let guard = Process::spawn("the operator's guard", &mut guard, log)?;

        let file = File::options().create(true).append(true).open(log);
        let file = Arc::new(file.with_context(|| format!("opening {}", log.display()))?);
        let mut readers = JoinSet::new();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        readers.spawn(read(stdout.context("no pipe")?, file.clone(), self.lines.clone()));
        readers.spawn(read(stderr.context("no pipe")?, file, self.lines.clone()));
        self.running = Some(Running { _guard: guard, child, readers });
        Ok(())
    }
}

async fn read(output: impl AsyncRead + Unpin, file: Arc<File>, lines: Arc<Lines>) {
    let mut output = BufReader::new(output).lines();
    while let Ok(Some(text)) = output.next_line().await {
        // A full disk must not stop the operator by a full pipe.
        let _ = writeln!(&*file, "{text}");
        lines.all.lock().expect("no panic while held").push(Line { at: Timestamp::now(), text });
        lines.count.send_modify(|count| *count += 1);
    }
}

/// The operator's objects in a cluster.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The operator's namespace: remediations and their Secrets go here too.
    pub namespace: String,
    /// A kubeconfig of its ServiceAccount: it has the rights of `deploy/`, and no others.
    pub kubeconfig: PathBuf,
}

/// Applies the repository's `crds/` and `deploy/`, all but the Deployment itself; remediations may be created at once
/// when this returns, some 2 s later.
///
/// # Errors
/// When the API server refuses a document, or there is no ServiceAccount among them.
pub async fn install(control_plane: &ControlPlane) -> Result<Installed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("testbed/ has no parent")?;
    for definition in documents(&root.join("crds"))? {
        control_plane.apply_yaml(&serde_yaml_ng::to_string(&definition)?).await?;
    }
    let settled = Instant::now() + SETTLED;
    let mut documents = documents(&root.join("deploy"))?;
    // A namespace comes before what is in it.
    documents.sort_by_key(|document| document["kind"] != "Namespace");
    documents.retain(|document| !matches!(document["kind"].as_str(), None | Some("Deployment" | "Kustomization")));
    let account = documents.iter().find(|document| document["kind"] == "ServiceAccount");
    let account = account.context("deploy/ has no ServiceAccount")?["metadata"].clone();
    let field = |name: &str| account[name].as_str().map(str::to_owned);
    let name = field("name").context("a ServiceAccount without a name")?;
    let namespace = field("namespace").context("deploy/'s ServiceAccount names no namespace")?;
    for document in &documents {
        control_plane.apply_yaml(&serde_yaml_ng::to_string(document)?).await?;
    }
    let kubeconfig = control_plane.service_account_kubeconfig(&namespace, &name).await?;
    tokio::time::sleep_until(settled).await;
    Ok(Installed { namespace, kubeconfig })
}

fn documents(dir: &Path) -> Result<Vec<Value>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    let mut documents = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml")) {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            documents.push(Value::deserialize(document).with_context(|| format!("parsing {}", path.display()))?);
        }
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::scratch::Scratch;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn it_is_read_killed_stopped_and_started_again() -> Result<()> {
        let scratch = Scratch::new("operator")?;
        let binary = scratch.path().join("stand-in");
        fs::write(&binary, "#!/bin/sh\ntrap 'echo bye; exit 7' TERM\necho \"$*\"\nwhile :; do sleep 0.05; done\n")?;
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o700))?;
        let settings = Settings {
            binary,
            kubeconfig: "admin.kubeconfig".into(),
            namespace: "ns".into(),
            flags: vec!["--flag".into()],
            log: scratch.path().join("log"),
        };
        let mut operator = Operator::start(settings)?;
        let line = operator.says("controller", SOON).await?;
        assert_eq!(line.text, "controller --kubeconfig admin.kubeconfig --namespace ns --flag");
        assert!(operator.resident_bytes()? > 0);
        operator.kill().await?;
        assert!(!operator.is_running());

        operator.restart().await?;
        operator.says("bye", Duration::from_millis(1)).await.expect_err("it was killed, not stopped");
        crate::wait::until("its second line", SOON, || async { Ok((operator.lines().len() == 2).then_some(())) })
            .await?;
        assert_eq!(operator.stop(SOON).await?.code(), Some(7));
        operator.says("bye", SOON).await?;
        assert_eq!(fs::read_to_string(scratch.path().join("log"))?.lines().count(), 3);
        Ok(())
    }
}

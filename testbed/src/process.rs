//! Child processes that end with whoever started them, and whose logs are at hand when they fail.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use tokio::time::{Instant, sleep, timeout};

/// How often a process is asked whether it is ready: unnoticeable beside the seconds that a start takes.
const POLL: Duration = Duration::from_millis(50);
/// One answer to that question, from a process on this machine that may be starved by its neighbours.
const ANSWER: Duration = Duration::from_secs(5);
/// Lines of the log that an error carries.
const TAIL: usize = 20;

/// A running child process, killed when dropped.
///
/// # Assumptions
///
/// The program ends by itself at the end of its standard input, a pipe that nothing is ever written to. The kernel
/// closes it when this process dies, however it dies, so that a killed test leaves nothing running.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command` with both its outputs appended to the file `log`.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let open = || -> std::io::Result<(File, File)> {
            let output = File::options().create(true).append(true).open(log)?;
            Ok((output.try_clone()?, output))
        };
        let (stdout, stderr) = open().with_context(|| format!("opening {}", log.display()))?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("starting {name} ({})", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child })
    }

    /// Waits until `ready` says yes.
    ///
    /// # Errors
    ///
    /// The process ended, or `within` has passed; the end of its log is in the message.
    pub async fn until_ready<F: Future<Output = bool>>(
        &mut self,
        within: Duration,
        mut ready: impl FnMut() -> F,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().context("looking at a child process")? {
                return Err(self.failure(&format!("ended: {status}")));
            }
            if timeout(ANSWER, ready()).await.unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.failure(&format!("was not ready within {within:?}")));
            }
            sleep(POLL).await;
        }
    }

    /// Freezes it (SIGSTOP): it keeps its connections, and answers nothing.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn pause(&self) -> anyhow::Result<()> {
        signal(self.child.id(), "STOP").await
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it has ended.
    pub async fn resume(&self) -> anyhow::Result<()> {
        signal(self.child.id(), "CONT").await
    }

    fn failure(&self, what: &str) -> anyhow::Error {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        anyhow!("{} {what}; the end of {}:\n{tail}", self.name, self.log.display())
    }
}

/// Sends a signal, named without SIG, to a child of this process.
///
/// # Errors
/// When it has ended.
pub async fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    // The shell's own kill: there is no safe call for it in std, and not every image has the program.
    let mut kill = tokio::process::Command::new("sh");
    kill.args(["-c", r#"kill -s "$0" "$1""#, name]).arg(pid.to_string());
    let status = kill.status().await.context("running sh")?;
    ensure!(status.success(), "SIG{name} could not be sent to process {pid}");
    Ok(())
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[tokio::test]
    async fn a_failed_start_shows_the_log() {
        let scratch = Scratch::new("process").unwrap();
        let log = scratch.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such disk >&2; exit 3"]);
        let mut process = Process::spawn("sh", &mut command, &log).unwrap();
        let error = process.until_ready(Duration::from_secs(10), || async { false }).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such disk"), "{error}");
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone() {
        let scratch = Scratch::new("process").unwrap();
        let process = Process::spawn("cat", &mut Command::new("cat"), &scratch.path().join("log")).unwrap();
        let proc = PathBuf::from(format!("/proc/{}", process.child.id()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists());
    }
}

//! One run of an agent's script: its process group, its pipes, its end.
//!
//! Knows processes. Must not know what they are for.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::task::Poll;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

/// Where agents look for the programs that they call; nothing else of our environment is theirs.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// The most that one run may write to either output. A status is 11 bytes, metadata are up to 11 KB.
pub(super) const MAX_OUTPUT: usize = 64 * 1024;
/// The most that a run is given: less than a pipe holds (64 KiB), so that a script that reads nothing keeps nobody waiting.
pub(super) const MAX_INPUT: usize = 32 * 1024;
/// How long the pipes may stay open after the script's end: somebody who left its group holds them.
const GRACE: Duration = Duration::from_millis(200);

/// How a run ended.
pub(super) struct Ended {
    /// Its exit code; none if a signal killed it.
    pub(super) code: Option<i32>,
    /// What it wrote.
    pub(super) stdout: String,
    /// What it wrote there.
    pub(super) stderr: String,
    /// When the first of its output came: what it says is about no later moment. The end of the run if there is none.
    pub(super) spoke_at: Instant,
}

/// Why there is no such end.
#[derive(Debug)]
pub(super) enum Failure {
    /// It could not be started.
    NotStarted(io::Error),
    /// It wrote more than [`MAX_OUTPUT`] and was killed.
    Flood,
    /// It ran at the deadline and was killed.
    Deadline,
    /// The operating system does not let us follow it; it was killed.
    Lost(io::Error),
}

/// Runs a program with `input` on its standard input, in a process group of its own and with none of our environment.
///
/// Whatever the end (its own, the deadline, a drop of this future), the whole group is killed: what the program started
/// and left behind does not go on. Nothing is started at or after the deadline.
pub(super) async fn run(program: &Path, args: &[&str], input: &SecretString, by: Instant) -> Result<Ended, Failure> {
    if Instant::now() >= by {
        return Err(Failure::Deadline);
    }
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", PATH).env("LANG", "C").current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(Failure::NotStarted)?;
    // Dropped before the child: while it is not reaped, its number is nobody else's.
    let group = Group::of(&child).map_err(Failure::Lost)?;
    match in_time(by, follow(&mut child, &group, input)).await {
        Some(ended) => ended,
        None => Err(Failure::Deadline),
    }
}

async fn follow(child: &mut Child, group: &Group, input: &SecretString) -> Result<Ended, Failure> {
    let no_pipe = || Failure::Lost(io::Error::other("no pipe"));
    let mut stdin = child.stdin.take().ok_or_else(no_pipe)?;
    let (stdout, stderr) = (child.stdout.take().ok_or_else(no_pipe)?, child.stderr.take().ok_or_else(no_pipe)?);
    let (mut out, mut err) = (Heard::default(), Heard::default());
    let (over, is_over) = oneshot::channel::<()>();

    let write = async move {
        // A script that does not read its parameters answers for that itself.
        let _ = stdin.write_all(input.expose_secret().as_bytes()).await;
        Ok(())
    };
    let speak = async { tokio::try_join!(write, out.read(stdout), err.read(stderr)).map(drop) };
    let end = async {
        group.ended().await.map_err(Failure::Lost)?;
        group.kill();
        // Nobody listens any more if both pipes were closed before.
        let _ = over.send(());
        Ok(())
    };
    let speak = async {
        let grace = async {
            let _ = is_over.await;
            sleep(GRACE).await;
        };
        tokio::select! {
            biased;
            spoken = speak => spoken,
            () = grace => Ok(()),
        }
    };
    tokio::try_join!(end, speak)?;
    let status = child.wait().await.map_err(Failure::Lost)?;
    Ok(Ended {
        code: status.code(),
        spoke_at: out.at.unwrap_or_else(Instant::now),
        stdout: out.text(),
        stderr: err.text(),
    })
}

/// What came through one pipe.
#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    at: Option<Instant>,
}

impl Heard {
    async fn read(&mut self, mut pipe: impl AsyncRead + Unpin) -> Result<(), Failure> {
        let mut chunk = vec![0; 4096];
        loop {
            match pipe.read(&mut chunk).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(n) if self.bytes.len() + n > MAX_OUTPUT => return Err(Failure::Flood),
                Ok(n) => {
                    self.at.get_or_insert_with(Instant::now);
                    self.bytes.extend_from_slice(&chunk[..n]);
                }
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// The process group that a child leads. Killed when dropped.
struct Group {
    leader: Pid,
    end: AsyncFd<std::os::fd::OwnedFd>,
}

impl Group {
    fn of(child: &Child) -> io::Result<Self> {
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let leader = id.ok_or_else(|| io::Error::other("the process has no number"))?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe, for the sake of descriptors that are not owned; this one is"
        )]
        let end = pidfd_open(leader, PidfdFlags::NONBLOCK).map_err(io::Error::from).and_then(AsyncFd::new);
        end.map(|end| Self { leader, end }).inspect_err(|_| kill(leader))
    }

    /// Waits for the leader's end, and does not reap it: until then its number stays that of the group.
    async fn ended(&self) -> io::Result<()> {
        self.end.readable().await.map(drop)
    }

    fn kill(&self) {
        kill(self.leader);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

fn kill(group: Pid) {
    // An error means that nobody is left.
    let _ = kill_process_group(group, Signal::KILL);
}

/// Runs a call until the deadline, and not one step further (tokio's own time-out polls the call before it looks at the
/// clock).
pub(super) async fn in_time<T>(by: Instant, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let checked = std::future::poll_fn(|cx| match Instant::now() >= by {
        true => Poll::Ready(None),
        false => call.as_mut().poll(cx).map(Some),
    });
    timeout_at(by, checked).await.ok().flatten()
}

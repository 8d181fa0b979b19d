//! `password_script`: a shell command that prints the password.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::SecretString;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;

/// The longest password that is read, in bytes.
const MAX_PASSWORD: u64 = 4096;

/// A shell and all that it started; killed when dropped.
struct Group {
    child: Child,
    leader: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        // A leader that was waited for has a number that may be another's by now; but then its group was emptied, too.
        if let Some(leader) = self.leader.take() {
            // It fails only if they have all ended.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Runs the command with `/bin/sh`, and returns what it printed, without white space at the end.
///
/// Its standard error is nobody's: the command knows the password. One that fails is an error: an account is locked by
/// empty passwords as well.
pub(super) async fn password(script: &str, by: Instant) -> Result<SecretString, Failure> {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.process_group(0).kill_on_drop(true).spawn();
    let child = child.map_err(|error| Failure::Script(format!("can't be run: {error}")))?;
    let leader = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let mut group = Group { child, leader };
    let mut printed = Vec::new();
    let read = async {
        if let Some(output) = group.child.stdout.take() {
            output.take(MAX_PASSWORD + 1).read_to_end(&mut printed).await?;
        }
        group.child.wait().await
    };
    let ended = timeout_at(by, read).await;
    let status = ended
        .map_err(|_| Failure::Script("timed out".into()))?
        .map_err(|error| Failure::Script(format!("can't be read: {error}")))?;
    if printed.len() as u64 > MAX_PASSWORD {
        return Err(Failure::Script(format!("printed more than {MAX_PASSWORD} bytes")));
    }
    if !status.success() {
        return Err(Failure::Script(format!("failed ({status})")));
    }
    match String::from_utf8(printed) {
        Ok(printed) => Ok(printed.trim_end().into()),
        Err(_) => Err(Failure::Script("printed something that is not UTF-8".into())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::ExposeSecret as _;

    use super::*;

    async fn run(script: &str, within: Duration) -> Result<String, String> {
        match password(script, Instant::now() + within).await {
            Ok(password) => Ok(password.expose_secret().to_owned()),
            Err(failure) => Err(failure.to_string()),
        }
    }

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_is_printed_is_the_password() {
        assert_eq!(run("printf ' a b \\n\\n'", SOON).await, Ok(" a b".into()));
        assert_eq!(run("exit 3", SOON).await, Err("the password script failed (exit status: 3)".into()));
        assert!(run("head -c 5000 /dev/zero | tr '\\0' x", SOON).await.expect_err("too long").contains("4096"));
    }

    #[tokio::test]
    async fn a_script_that_hangs_is_killed_with_all_it_started() {
        let (mut out, path) =
            (String::new(), std::env::temp_dir().join(format!("ringfence-script-{}", std::process::id())));
        let script = format!("sleep 600 & echo $! >{}; wait", path.display());
        assert_eq!(run(&script, Duration::from_secs(2)).await, Err("the password script timed out".into()));
        std::io::Read::read_to_string(&mut std::fs::File::open(&path).expect("it began"), &mut out).expect("readable");
        std::fs::remove_file(&path).expect("ours");
        let stat = format!("/proc/{}/stat", out.trim());
        // Killed at once; who reaps it (some init) is not ours to wait for.
        let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        let until = Instant::now() + SOON;
        while !gone() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(gone());
    }
}

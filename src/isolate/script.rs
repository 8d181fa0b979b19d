//! Isolation by the scripts of ClusterLabs' fence-agents (`fence_*`), as Pacemaker runs them: parameters on standard
//! input, one action, an exit code and a line of text.
//!
//! Knows the Fence Agent API. What a script says is bound to no machine: many say "Status: OFF" of a plug that does not
//! exist. So a reading here never names a machine, and counts only with a witness (P2).
//!
//! Guarantees:
//! - `off`, `on` and `status` are the only actions; never `reboot`, never `cycle`.
//! - Off is exit code 2 *and* "Status: OFF", On is exit code 0 *and* "Status: ON"; anything else is no reading.
//! - Parameters go over standard input only: argv and the environment hold nothing of a remediation.
//! - The script's whole process group is killed at its end, at the deadline, and on drop. (A process that leaves its
//!   group, as a daemon does, is beyond that.)

mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use agents::metadata::{Catalogue, Metadata};
use agents::{Command, Error, Parameters, PowerState, PowerSwitch, Status, SystemUuid, Target};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use self::process::{Ended, Failure, MAX_INPUT, MAX_OUTPUT, in_time, run};

/// Where Debian and Fedora install fence agents.
pub const AGENT_DIR: &str = "/usr/sbin";

/// The longest name of an agent; upstream's longest has 21 letters.
const MAX_NAME: usize = 64;
/// A secret shorter than this is not looked for in what a script wrote: a flag's "1" is everywhere.
const MIN_SECRET: usize = 2;
/// What is shown in the place of a secret.
const HIDDEN: &str = "[hidden]";

/// The fence agents of one directory, and what they say of themselves: asked once, and then remembered. One that is broken
/// disturbs no other, and is asked again.
#[derive(Debug)]
pub struct Scripts {
    dir: PathBuf,
    allow_unsafe: bool,
    known: Mutex<BTreeMap<String, Arc<OnceCell<Arc<Metadata>>>>>,
}

impl Scripts {
    /// Looks for agents in `dir`; `allow_unsafe` lets parameters through that make an agent run commands or use files.
    pub fn new(dir: &Path, allow_unsafe: bool) -> Self {
        Self { dir: dir.to_owned(), allow_unsafe, known: Mutex::default() }
    }

    /// Returns the isolator that runs an agent for one machine.
    ///
    /// # Errors
    /// [`Error::AgentMissing`] for a name that is none of an agent, [`Error::Config`] if the agent has no parameter for
    /// what the order says, or a value can't be given to it.
    pub(super) fn script(
        &self,
        agent: &str,
        address: &str,
        plug: Option<&str>,
        parameters: Parameters,
    ) -> Result<Script, Error> {
        let program = self.program(agent)?;
        let input = input(agent, &Target::read(address, plug), &parameters)?;
        let source = [agent, address].into_iter().chain(plug).collect::<Vec<_>>().join(" ");
        let secrets = parameters.values.into_values().filter(|value| value.expose_secret().len() >= MIN_SECRET);
        Ok(Script { agent: agent.to_owned(), program, input, secrets: secrets.collect(), source })
    }

    /// No path, and nothing but a name: `../fence_x` is not an agent of this directory.
    fn program(&self, agent: &str) -> Result<PathBuf, Error> {
        let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
        match agent.strip_prefix("fence_") {
            Some(rest) if !rest.is_empty() && agent.len() <= MAX_NAME && rest.bytes().all(fits) => {
                Ok(self.dir.join(agent))
            }
            Some(_) | None => Err(self.missing(agent)),
        }
    }

    fn missing(&self, agent: &str) -> Error {
        Error::AgentMissing { agent: agent.to_owned(), at: self.dir.display().to_string() }
    }

    async fn ask(&self, agent: &str, program: &Path, by: Instant) -> Result<Arc<Metadata>, Error> {
        let doing = "printing its metadata";
        let ended = match run(program, &["-o", "metadata"], &SecretString::default(), by).await {
            Ok(ended) => ended,
            Err(failure) => return Err(failure.of(agent, doing)),
        };
        match ended.code {
            Some(0) => Metadata::parse(agent, &ended.stdout).map(Arc::new),
            _ => Err(Error::agent_unfit(agent, &format!("it prints no metadata ({}): {}", ended.how(), ended.last()))),
        }
    }
}

impl Catalogue for Scripts {
    async fn metadata(&self, agent: &str, by: Instant) -> Result<Arc<Metadata>, Error> {
        let program = self.program(agent)?;
        let is_there = in_time(by, tokio::fs::metadata(&program)).await;
        match is_there.ok_or(Error::Deadline { doing: "looking for the agent" })? {
            Ok(file) if file.is_file() => {}
            Ok(_) | Err(_) => return Err(self.missing(agent)),
        }
        let cell = self.known.lock().expect("no panic while held").entry(agent.to_owned()).or_default().clone();
        let asked = in_time(by, cell.get_or_try_init(|| self.ask(agent, &program, by))).await;
        // Somebody else is asking, and has more time.
        let asked = asked.ok_or_else(|| Failure::Deadline.of(agent, "printing its metadata"));
        asked?.cloned()
    }

    fn allows_unsafe(&self) -> bool {
        self.allow_unsafe
    }
}

/// An agent's script, for one machine.
pub(super) struct Script {
    agent: String,
    program: PathBuf,
    /// All but the action.
    input: SecretString,
    secrets: Vec<SecretString>,
    source: String,
}

impl Script {
    async fn run(&self, action: &str, doing: &'static str, by: Instant) -> Result<Ended, Error> {
        let input = format!("action={action}\n{}", self.input.expose_secret()).into();
        run(&self.program, &[], &input, by).await.map_err(|failure| failure.of(&self.agent, doing))
    }

    fn failed(&self, doing: &'static str, ended: &Ended) -> Error {
        Error::agent(&self.agent, doing, &ended.how(), &masked(ended.last(), &self.secrets))
    }
}

/// Nothing of its parameters is shown.
impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("source", &self.source).finish_non_exhaustive()
    }
}

impl PowerSwitch for Script {
    async fn status(&self, by: Instant) -> Result<Status, Error> {
        let doing = "reading the power state";
        let ended = self.run("status", doing, by).await?;
        let power = power(ended.code, &ended.stdout).ok_or_else(|| self.failed(doing, &ended))?;
        // A script prints as soon as it has read; how long it took to say so it does not tell.
        Ok(Status { power, system_uuid: None, read_at: ended.spoke_at, source: self.source.clone() })
    }

    async fn command(&self, command: Command, _: Option<&SystemUuid>, by: Instant) -> Result<(), Error> {
        let (action, doing) = match command {
            Command::Off => ("off", "switching off"),
            Command::On => ("on", "switching on"),
        };
        let ended = self.run(action, doing, by).await?;
        match ended.code {
            Some(0) => Ok(()),
            Some(_) | None => Err(self.failed(doing, &ended)),
        }
    }
}

impl Ended {
    fn how(&self) -> String {
        self.code.map_or_else(|| "killed by a signal".to_owned(), |code| format!("exit code {code}"))
    }

    /// Its last words: of its errors, else of its output.
    fn last(&self) -> &str {
        let last = |text| str::lines(text).map(str::trim).rfind(|line| !line.is_empty());
        last(&self.stderr).or_else(|| last(&self.stdout)).unwrap_or_default()
    }
}

impl Failure {
    fn of(self, agent: &str, doing: &'static str) -> Error {
        match self {
            Self::Deadline => Error::AgentKilled { agent: agent.to_owned(), doing },
            Self::Flood => Error::agent(agent, doing, &format!("it wrote more than {MAX_OUTPUT} bytes"), ""),
            Self::NotStarted(error) => Error::agent(agent, doing, "it could not be started", &error.to_string()),
            Self::Lost(error) => Error::agent(agent, doing, "it could not be followed", &error.to_string()),
        }
    }
}

/// What a `status` said. Exit code and text must agree, and the text must say one thing only.
fn power(code: Option<i32>, stdout: &str) -> Option<PowerState> {
    let mut said = stdout.lines().map(str::trim).filter_map(|line| line.strip_prefix("Status:")).map(str::trim);
    match (code, said.next(), said.next()) {
        (Some(2), Some("OFF"), None) => Some(PowerState::Off),
        (Some(0), Some("ON"), None) => Some(PowerState::On),
        _ => None,
    }
}

/// The lines that a script reads, but for the action.
fn input(agent: &str, target: &Target, parameters: &Parameters) -> Result<SecretString, Error> {
    let nameless = |what: &str| Error::Config(format!("{agent} has no parameter for {what}"));
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Scripts take a line's blanks off at its end, and one pair of quotes off a value.
        let quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
        if value.contains(char::is_control) || value.trim_end() != value || quoted {
            let why = "it must be one line, without blanks at its end and not in quotes";
            return Err(Error::Config(format!("the value of parameter {name} can't be given to {agent}: {why}")));
        }
        text.push_str(name);
        text.push('=');
        text.push_str(value);
        text.push('\n');
        Ok(())
    };
    let port = target.ipport.map(|port| port.to_string());
    for (what, name, value) in [
        ("an address", &parameters.ip, &target.ip),
        ("a port", &parameters.ipport, &port),
        ("a plug", &parameters.plug, &target.plug),
    ] {
        match (name, value) {
            (_, None) => {}
            (Some(name), Some(value)) => line(name, value)?,
            (None, Some(_)) => return Err(nameless(what)),
        }
    }
    for (name, value) in &target.others {
        line(name, value)?;
    }
    for (name, value) in &parameters.values {
        line(name, value.expose_secret())?;
    }
    match text.len() {
        0..=MAX_INPUT => Ok(text.into()),
        _ => Err(Error::Config(format!("the parameters of {agent} are longer than {MAX_INPUT} bytes"))),
    }
}

/// Takes secrets out, as they are and as languages write them in quotes: every byte of each of them, also where one runs
/// into another.
fn masked(text: &str, secrets: &[SecretString]) -> String {
    let mut hidden = vec![false; text.len()];
    for secret in secrets.iter().map(ExposeSecret::expose_secret) {
        for form in forms(secret).iter().filter(|form| !form.is_empty()) {
            let starts = (0..text.len()).filter(|at| text.as_bytes()[*at..].starts_with(form.as_bytes()));
            starts.for_each(|at| hidden[at..at + form.len()].fill(true));
        }
    }
    let mut shown = String::new();
    for (at, letter) in text.char_indices() {
        if !hidden[at] {
            shown.push(letter);
        } else if at == 0 || !hidden[at - 1] {
            shown.push_str(HIDDEN);
        }
    }
    shown
}

/// How a secret may be written.
fn forms(secret: &str) -> [String; 3] {
    [secret.to_owned(), secret.escape_debug().to_string(), secret.replace('\'', "\\'")]
}

#[cfg(test)]
mod tests;

//! A power strip whose outlets are machines, with a protocol of its own that only `testbed/agents/fence_stub` speaks: what a
//! PDU is to the real fence agents. It also tells the script how to misbehave.
//!
//! One connection is one line, `username TAB password TAB verb TAB plug`, and one word back. A plug is a machine's name.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agents::Command;
use anyhow::{Context, Result};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::machine::Machine;
use crate::scratch::Scratch;

const USERNAME: &str = "operator";
/// Longer than any line of the script's.
const MAX_LINE: u64 = 4096;

/// How the script misbehaves, or the outlets do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// The script takes this long before it does anything.
    Slow(Duration),
    /// Off is acknowledged and does nothing.
    Ignores,
    /// Off and on are refused.
    Refuses,
    /// The script never ends.
    Hangs,
    /// The script leaves a child behind that lives on, with the script's pipes.
    Forks,
    /// The script writes "Status: OFF" without end.
    Floods,
    /// The script says something like "Status: OFF", in bytes that are no text, and exits with 2.
    Garbage,
    /// The script says both ON and OFF, and exits with 2.
    SaysBoth,
    /// The script says "Status: OFF" and exits with this code.
    Exits(u8),
    /// The script says nothing, and exits with 2.
    SaysNothing,
    /// The script tells all of its parameters and fails.
    Tells,
    /// The outlets say "off" of every plug, as some PDUs do of one that they do not have.
    AnyPlugIsOff,
}

/// What the script reads as its instruction.
impl fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow(time) => write!(f, "slow {}", time.as_secs_f64()),
            Self::Hangs => f.write_str("hang"),
            Self::Forks => f.write_str("fork"),
            Self::Floods => f.write_str("flood"),
            Self::Garbage => f.write_str("garbage"),
            Self::SaysBoth => f.write_str("both"),
            Self::Exits(code) => write!(f, "exit {code}"),
            Self::SaysNothing => f.write_str("silent"),
            Self::Tells => f.write_str("tells"),
            Self::Ignores | Self::Refuses | Self::AnyPlugIsOff => f.write_str("well"),
        }
    }
}

/// A power strip, with an agent directory of its own. Dropping it ends it.
pub struct Outlets {
    agents: Scratch,
    address: SocketAddr,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

struct Shared {
    machines: BTreeMap<String, Arc<Machine>>,
    password: SecretString,
    misbehaviour: watch::Sender<Option<Misbehaviour>>,
    asked: watch::Sender<Vec<String>>,
}

impl Outlets {
    /// Serves these machines, each by its name as plug, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is no port, or no directory for the script.
    pub async fn start(machines: &[Arc<Machine>]) -> Result<Self> {
        let agents = Scratch::new("agents")?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/agents/fence_stub");
        std::os::unix::fs::symlink(script, agents.path().join("fence_stub")).context("linking fence_stub")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("binding the outlets")?;
        let address = listener.local_addr().context("reading the port of the outlets")?;
        let shared = Arc::new(Shared {
            machines: machines.iter().map(|machine| (machine.name().to_owned(), machine.clone())).collect(),
            password: Uuid::new_v4().to_string().into(),
            misbehaviour: watch::Sender::default(),
            asked: watch::Sender::default(),
        });
        let mut server = JoinSet::new();
        server.spawn(serve(listener, shared.clone()));
        Ok(Self { agents, address, shared, _server: server })
    }

    /// Where `fence_stub` is, for the operator's `--agent-dir`.
    pub fn agent_dir(&self) -> &Path {
        self.agents.path()
    }

    /// The numbers of the processes that run the script of this very strip, their children included.
    pub fn processes(&self) -> Vec<u32> {
        let script = self.agents.path().join("fence_stub");
        let script = script.as_os_str().as_encoded_bytes();
        let runs = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == script)
        };
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(runs).collect()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The account's name.
    pub fn username(&self) -> &str {
        USERNAME
    }

    /// The account's password, new for each strip.
    pub fn password(&self) -> &SecretString {
        &self.shared.password
    }

    /// Lets script and outlets misbehave, or behave.
    pub fn set_misbehaviour(&self, misbehaviour: Option<Misbehaviour>) {
        self.shared.misbehaviour.send_replace(misbehaviour);
    }

    /// All verbs so far, in the order in which they arrived: "how" first for each run of the script.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.borrow().clone()
    }

    /// The commands so far, obeyed or not.
    pub fn commands(&self) -> Vec<Command> {
        let of = |verb: &String| match verb.as_str() {
            "off" => Some(Command::Off),
            "on" => Some(Command::On),
            _ => None,
        };
        self.shared.asked.borrow().iter().filter_map(of).collect()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut clients = JoinSet::new();
    loop {
        // An error is of one connection that was gone again.
        if let Ok((stream, _)) = listener.accept().await {
            while clients.try_join_next().is_some() {}
            let shared = shared.clone();
            // A client that hangs up is none of our business.
            clients.spawn(async move { drop(shared.answer(stream).await) });
        }
    }
}

impl Shared {
    async fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut line = String::new();
        BufReader::new((&mut stream).take(MAX_LINE)).read_line(&mut line).await?;
        let fields: Vec<_> = line.trim_end_matches('\n').split('\t').collect();
        let answer = match fields.as_slice() {
            [username, password, verb, plug] => {
                self.asked.send_modify(|asked| asked.push((*verb).to_owned()));
                match *username == USERNAME && *password == self.password.expose_secret() {
                    true => self.carry_out(verb, plug),
                    false if *verb == "how" => "well".to_owned(),
                    false => "login failed".to_owned(),
                }
            }
            _ => "what".to_owned(),
        };
        stream.write_all(format!("{answer}\n").as_bytes()).await
    }

    fn carry_out(&self, verb: &str, plug: &str) -> String {
        let misbehaviour = *self.misbehaviour.borrow();
        let machine = self.machines.get(plug);
        match (verb, machine) {
            ("how", _) => misbehaviour.map_or_else(|| "well".to_owned(), |how| how.to_string()),
            ("status", None) if misbehaviour == Some(Misbehaviour::AnyPlugIsOff) => "off".to_owned(),
            ("on" | "off", None) if misbehaviour == Some(Misbehaviour::AnyPlugIsOff) => "done".to_owned(),
            (_, None) => "no such plug".to_owned(),
            ("status", Some(machine)) => if machine.state().on { "on" } else { "off" }.to_owned(),
            ("on" | "off", Some(_)) if misbehaviour == Some(Misbehaviour::Refuses) => "refused".to_owned(),
            ("off", Some(_)) if misbehaviour == Some(Misbehaviour::Ignores) => "done".to_owned(),
            ("on" | "off", Some(machine)) => {
                machine.set_power(verb == "on", "outlets");
                "done".to_owned()
            }
            ("hangs" | "forked", Some(_)) => "noted".to_owned(),
            (_, Some(_)) => "unrecognised action".to_owned(),
        }
    }
}

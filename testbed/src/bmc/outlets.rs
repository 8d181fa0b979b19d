//! A power strip with a protocol of its own that only `testbed/agents/fence_stub` speaks: what a PDU is to the real fence
//! agents. It also tells the script how to misbehave.
//!
//! One connection is one line, `username TAB password TAB verb TAB plug`, and one word back. On an outlet hangs a machine's
//! own switch, and its plug is the machine's name; or, of a PDU, a machine's power feed.

mod socket;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use agents::Command;
use anyhow::{Context, Result};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use self::socket::Socket;
pub use self::socket::{Load, OutletFault};
use crate::machine::Machine;
use crate::scratch::Scratch;

/// The names under which the script is in the agent directory: its own, and one that upstream has for a PDU.
const AGENTS: [&str; 2] = ["fence_stub", PDU_AGENT];
/// An agent of upstream's that takes the same parameters, and whose outlets are sockets of a PDU.
pub const PDU_AGENT: &str = "fence_apc";
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
    sockets: Mutex<BTreeMap<String, Socket>>,
    password: SecretString,
    misbehaviour: watch::Sender<Option<Misbehaviour>>,
    asked: watch::Sender<Vec<Asked>>,
}

/// One line that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// When.
    pub at: Timestamp,
    /// "how" first for each run of the script, then its action.
    pub verb: String,
    /// Which outlet.
    pub plug: String,
}

impl Asked {
    /// The command it is, if it is one.
    pub fn command(&self) -> Option<Command> {
        match self.verb.as_str() {
            "off" => Some(Command::Off),
            "on" => Some(Command::On),
            _ => None,
        }
    }
}

impl Outlets {
    /// Serves the switches of these machines, each by its name as plug, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is no port, or no directory for the script.
    pub async fn start(machines: &[Arc<Machine>]) -> Result<Self> {
        let switch = |machine: &Arc<Machine>| (machine.name().to_owned(), Load::Switch(machine.clone()));
        Self::serving(machines.iter().map(switch)).await
    }

    /// Is a PDU with these outlets, on a free port of 127.0.0.1: the plug of each, and the feed that hangs on it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn pdu(outlets: &[(&str, &Arc<Machine>, usize)]) -> Result<Self> {
        let feed = |(plug, machine, feed): &(&str, &Arc<Machine>, usize)| {
            ((*plug).to_owned(), Load::Feed(Arc::clone(machine), *feed))
        };
        Self::serving(outlets.iter().map(feed)).await
    }

    async fn serving(loads: impl Iterator<Item = (String, Load)>) -> Result<Self> {
        let agents = Scratch::new("agents")?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/agents/fence_stub");
        for agent in AGENTS {
            std::os::unix::fs::symlink(script, agents.path().join(agent)).context("linking fence_stub")?;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("binding the outlets")?;
        let address = listener.local_addr().context("reading the port of the outlets")?;
        let shared = Arc::new(Shared {
            sockets: Mutex::new(loads.map(|(plug, load)| (plug, Socket::new(load))).collect()),
            password: Uuid::new_v4().to_string().into(),
            misbehaviour: watch::Sender::default(),
            asked: watch::Sender::default(),
        });
        let mut server = JoinSet::new();
        server.spawn(serve(listener, shared.clone()));
        Ok(Self { agents, address, shared, _server: server })
    }

    /// Where `fence_stub` is, for the operator's `--agent-dir`; also under the name [`PDU_AGENT`]. Any strip's will do for
    /// all of them.
    pub fn agent_dir(&self) -> &Path {
        self.agents.path()
    }

    /// The numbers of the processes that run the script of this very strip, their children included.
    pub fn processes(&self) -> Vec<u32> {
        let scripts = AGENTS.map(|agent| self.agents.path().join(agent));
        let runs = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let is_ours = |word| scripts.iter().any(|script| script.as_os_str().as_encoded_bytes() == word);
            line.split(|byte| *byte == 0).any(is_ours)
        };
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(runs).collect()
    }

    /// The plugs of all outlets, in order.
    pub fn plugs(&self) -> Vec<String> {
        self.shared.sockets().keys().cloned().collect()
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

    /// Gives an outlet this fault, or none.
    ///
    /// Panics if there is no such outlet.
    pub fn set_outlet_fault(&self, plug: &str, fault: Option<OutletFault>) {
        self.shared.sockets().get_mut(plug).expect("the strip has this outlet").fault = fault;
    }

    /// Plugs something else into an outlet, as whoever mixes two cables up; what hung on it keeps the power that it has.
    ///
    /// Panics if there is no such outlet.
    pub fn plug_in(&self, plug: &str, load: Load) {
        self.shared.sockets().get_mut(plug).expect("the strip has this outlet").load = load;
    }

    /// All that was asked so far, in the order in which it arrived.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.borrow().clone()
    }

    /// The commands so far, obeyed or not.
    pub fn commands(&self) -> Vec<Command> {
        self.shared.asked.borrow().iter().filter_map(Asked::command).collect()
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
                let asked = Asked { at: Timestamp::now(), verb: (*verb).to_owned(), plug: (*plug).to_owned() };
                self.asked.send_modify(|all| all.push(asked));
                match *username == USERNAME && *password == self.password.expose_secret() {
                    true => self.carry_out(verb, plug),
                    false if *verb == "how" => "well".to_owned(),
                    false => "login failed".to_owned(),
                }
            }
            _ => "what".to_owned(),
        };
        if answer.is_empty() {
            // Until the script has had enough, or the strip ends.
            return tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop);
        }
        stream.write_all(format!("{answer}\n").as_bytes()).await
    }

    /// The answer; an empty one is never given.
    fn carry_out(&self, verb: &str, plug: &str) -> String {
        let misbehaviour = *self.misbehaviour.borrow();
        if verb == "how" {
            return misbehaviour.map_or_else(|| "well".to_owned(), |how| how.to_string());
        }
        let sockets = self.sockets();
        let answer = match (verb, sockets.get(plug)) {
            ("status", None) if misbehaviour == Some(Misbehaviour::AnyPlugIsOff) => "off",
            ("on" | "off", None) if misbehaviour == Some(Misbehaviour::AnyPlugIsOff) => "done",
            (_, None) => "no such plug",
            ("hangs" | "forked", Some(_)) => "noted",
            (_, Some(socket)) if socket.fault == Some(OutletFault::Hangs) => "",
            ("status", Some(socket)) => socket.says(),
            ("on" | "off", Some(_)) if misbehaviour == Some(Misbehaviour::Refuses) => "refused",
            ("off", Some(_)) if misbehaviour == Some(Misbehaviour::Ignores) => "done",
            ("on" | "off", Some(socket)) => socket.switch(verb == "on"),
            (_, Some(_)) => "unrecognised action",
        };
        answer.to_owned()
    }

    fn sockets(&self) -> MutexGuard<'_, BTreeMap<String, Socket>> {
        self.sockets.lock().expect("no panic while held")
    }
}

//! The testbed's own Redfish face: one TLS server for any number of machines, with every fault a BMC has been seen to
//! have, settable at any time, and a log of what was asked.
//!
//! A BMC has no life of its own: without mains it answers nothing.
//!
//! It is a server we own, not a mock of our client: any Redfish client can talk to it. What it does to a machine it does
//! through [`Machine::set_power`], so the oracle sees it; what it *says* is another matter.

mod door;
mod fault;
mod request;
mod server;
mod tree;
mod unit;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agents::{Command, Credentials, Tls};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use url::Url;
use uuid::Uuid;

use self::unit::Unit;
use crate::machine::Machine;
use crate::pki::{Authority, Identity};

pub use door::Door;
pub use fault::Fault;
pub use request::{Request, What};
pub use server::OldTls;

const USERNAME: &str = "operator";
/// A port is opened and closed in milliseconds; this is for a loaded machine.
const TURN: Duration = Duration::from_secs(10);

/// Whose certificate the face shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Certificate {
    /// One for 127.0.0.1, issued by the authority that [`Face::ca_pem`] returns.
    #[default]
    Good,
    /// One issued by another authority than [`Face::ca_pem`] returns.
    ForeignAuthority,
    /// One for another address.
    WrongName,
}

/// The BMCs of some machines, behind one port. Dropping it ends them, with all that they still had to do.
pub struct Face {
    address: SocketAddr,
    ca_pem: String,
    spki_sha256: [u8; 32],
    shared: Arc<Shared>,
    _server: JoinSet<Result<()>>,
}

/// What the face's connections share.
struct Shared {
    units: BTreeMap<String, Arc<Unit>>,
    password: SecretString,
    /// What the port is to do, and what it does.
    wanted: watch::Sender<Door>,
    door: watch::Sender<Door>,
    log: watch::Sender<Vec<Request>>,
    connections: watch::Sender<usize>,
    accepted: AtomicUsize,
    /// Requests being answered now, and the most there ever were.
    answering: AtomicUsize,
    most: AtomicUsize,
    /// What goes on without a connection: a command that was received is carried out, whether its sender waits or not.
    work: Mutex<JoinSet<()>>,
}

impl Face {
    /// Serves these machines, each a system of its own, on a free port of 127.0.0.1.
    pub async fn start(machines: &[Arc<Machine>]) -> Result<Self> {
        Self::start_with(machines, Certificate::Good).await
    }

    /// Serves these machines with a certificate that is not to be trusted, perhaps.
    pub async fn start_with(machines: &[Arc<Machine>], certificate: Certificate) -> Result<Self> {
        let authority = Authority::new("Redfish face")?;
        let (shown, identity) = match certificate {
            Certificate::Good => (authority.pem().to_owned(), authority.issue(&["127.0.0.1"])?),
            Certificate::ForeignAuthority => {
                (Authority::new("another")?.pem().to_owned(), authority.issue(&["127.0.0.1"])?)
            }
            Certificate::WrongName => (authority.pem().to_owned(), authority.issue(&["bmc.invalid"])?),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("binding the Redfish face")?;
        let address = listener.local_addr().context("reading the port of the Redfish face")?;
        let units = machines.iter().map(|machine| (machine.name().to_owned(), Arc::new(Unit::new(machine.clone()))));
        let shared = Arc::new(Shared {
            units: units.collect(),
            password: Uuid::new_v4().to_string().into(),
            wanted: watch::Sender::default(),
            door: watch::Sender::default(),
            log: watch::Sender::default(),
            connections: watch::Sender::default(),
            accepted: AtomicUsize::new(0),
            answering: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            work: Mutex::default(),
        });
        let mut server = JoinSet::new();
        server.spawn(server::run(listener, identity.acceptor()?, shared.clone()));
        Ok(Self { address, ca_pem: shown, spki_sha256: spki_sha256(&identity)?, shared, _server: server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The service root.
    pub fn base(&self) -> Url {
        Url::parse(&format!("https://{}/redfish/v1", self.address)).expect("an address makes a URL")
    }

    /// The URI of a machine's system.
    pub fn systems_uri(&self, machine: &Machine) -> String {
        tree::system_uri(machine.name())
    }

    /// The authority that clients are to trust, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The pin of the server's key: SHA-256 of its SubjectPublicKeyInfo.
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.spki_sha256
    }

    /// The account's name.
    pub fn username(&self) -> &str {
        USERNAME
    }

    /// The account's password, new for each face.
    pub fn password(&self) -> &SecretString {
        &self.shared.password
    }

    /// What a native client of one machine is made from.
    pub fn client_config(&self, machine: &Machine) -> agents::redfish::Config {
        agents::redfish::Config {
            base: self.base(),
            systems_uri: Some(self.systems_uri(machine)),
            credentials: Credentials { username: USERNAME.to_owned(), password: self.shared.password.clone() },
            tls: Tls::Ca(self.ca_pem.clone().into_bytes()),
        }
    }

    /// Gives a machine's BMC this fault, or none; what it had before is gone.
    ///
    /// Panics if the face does not serve the machine, as all methods that take one.
    pub fn set_fault(&self, machine: &Machine, fault: Option<Fault>) {
        self.set_faults(machine, fault);
    }

    /// Gives a machine's BMC several faults at once; what it had before is gone.
    pub fn set_faults(&self, machine: &Machine, faults: impl IntoIterator<Item = Fault>) {
        self.unit(machine).set_faults(faults.into_iter().collect());
    }

    /// Opens or closes the port of all its machines; connections are cut.
    ///
    /// # Errors
    /// When the port is lost.
    pub async fn set_door(&self, door: Door) -> Result<()> {
        let mut now = self.shared.door.subscribe();
        self.shared.wanted.send_replace(door);
        match timeout_at(Instant::now() + TURN, now.wait_for(|now| *now == door)).await {
            Ok(_) => Ok(()),
            Err(_) => bail!("the port of the Redfish face is not {door:?}: it is lost"),
        }
    }

    /// Withholds the answers to a machine's requests of this kind, until [`release`](Self::release).
    ///
    /// A reading is taken when it is released; a command is carried out at once, only its answer is withheld.
    pub fn hold(&self, machine: &Machine, what: What) {
        self.unit(machine).hold(what);
    }

    /// Gives all withheld answers of a machine, and withholds no more.
    pub fn release(&self, machine: &Machine) {
        self.unit(machine).release();
    }

    /// All requests so far, in the order in which they arrived.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.log.borrow().clone()
    }

    /// How many requests of this kind arrived for a machine.
    pub fn count(&self, machine: &Machine, what: What) -> usize {
        count(&self.shared.log.borrow(), machine.name(), what)
    }

    /// The commands that arrived for a machine, carried out or not.
    pub fn commands(&self, machine: &Machine) -> Vec<(Timestamp, Command)> {
        let log = self.shared.log.borrow();
        let own = log.iter().filter(|request| request.machine.as_deref() == Some(machine.name()));
        own.filter_map(|request| request.what.command().map(|command| (request.at, command))).collect()
    }

    /// Waits until `times` requests of this kind have arrived for a machine, ever.
    ///
    /// # Errors
    /// When that takes longer than `within`.
    pub async fn wait_for(&self, machine: &Machine, what: What, times: usize, within: Duration) -> Result<()> {
        let mut log = self.shared.log.subscribe();
        let arrived = log.wait_for(|log| count(log, machine.name(), what) >= times);
        match timeout_at(Instant::now() + within, arrived).await {
            Ok(_) => Ok(()),
            Err(_) => bail!(
                "waited {within:?} in vain for {what:?} number {times} of {}; {} came",
                machine.name(),
                self.count(machine, what)
            ),
        }
    }

    /// The most requests that it has ever been answering at one time, over all machines.
    pub fn most_at_once(&self) -> usize {
        self.shared.most.load(Ordering::Relaxed)
    }

    /// How many connections it has accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Waits until no connection is open.
    ///
    /// # Errors
    /// When that takes longer than `within`.
    pub async fn wait_idle(&self, within: Duration) -> Result<()> {
        let mut connections = self.shared.connections.subscribe();
        let idle = connections.wait_for(|open| *open == 0);
        match timeout_at(Instant::now() + within, idle).await {
            Ok(_) => Ok(()),
            Err(_) => bail!("waited {within:?} in vain for {} connections to end", *self.shared.connections.borrow()),
        }
    }

    fn unit(&self, machine: &Machine) -> &Arc<Unit> {
        self.shared.units.get(machine.name()).expect("the face serves this machine")
    }
}

impl Shared {
    /// The machine that a path is about; the root and the collection are about the only machine, if there is one only.
    fn unit_of(&self, path: &str) -> Option<&Arc<Unit>> {
        match tree::name_in(path) {
            Some(name) => self.units.get(name),
            None => self.units.values().next().filter(|_| self.units.len() == 1),
        }
    }

    fn authorised(&self, header: Option<&str>) -> bool {
        use base64::Engine as _;
        let pair = format!("{USERNAME}:{}", self.password.expose_secret());
        let expected = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        header == Some(expected.as_str())
    }

    /// Goes on with something, also when the connection that asked for it is gone.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.work.lock().expect("no panic while held");
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }
}

fn count(log: &[Request], machine: &str, what: What) -> usize {
    log.iter().filter(|request| request.machine.as_deref() == Some(machine) && request.what == what).count()
}

fn spki_sha256(identity: &Identity) -> Result<[u8; 32]> {
    use sha2::Digest as _;
    let key = rcgen::KeyPair::from_pem(identity.key.expose_secret()).context("reading the face's key")?;
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    Ok(sha2::Sha256::digest(spki).into())
}

//! The testbed's own IPMI face: a BMC that speaks RMCP+ for each of any number of machines, with every fault that one
//! has been seen to have, settable at any time, and a log of what was asked.
//!
//! It is a server we own, not a mock of our client: `ipmitool` can talk to it. What it does to a machine it does through
//! [`Machine::set_power`], so the oracle sees it; what it *says* is another matter.

mod account;
mod bmc;
mod fault;
mod request;
mod server;
mod unit;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agents::ipmi::{Privilege, Quirks};
use agents::{Command, Credentials};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use self::bmc::Bmc;
use self::unit::Unit;
use crate::machine::Machine;

pub use account::{ADMINISTRATOR, Options, VIEWER};
pub use fault::Fault;
pub use request::{Request, What};

/// Bytes of a password, at most (IPMI 2.0 specification, section 22.30).
const PASSWORD: usize = 20;

/// The BMCs of some machines, each at a port of its own. Dropping it ends them, with all that they still had to do.
pub struct Face {
    units: BTreeMap<String, (SocketAddr, Arc<Unit>)>,
    password: SecretString,
    kg: Option<SecretString>,
    shared: Arc<Shared>,
    _servers: JoinSet<()>,
}

/// What the BMCs share.
struct Shared {
    log: watch::Sender<Vec<Request>>,
    work: Mutex<JoinSet<()>>,
}

impl Face {
    /// Serves these machines on free ports of 127.0.0.1.
    pub async fn start(machines: &[Arc<Machine>]) -> Result<Self> {
        Self::start_with(machines, Options::default()).await
    }

    /// Serves these machines with other accounts, suites or keys than usual.
    pub async fn start_with(machines: &[Arc<Machine>], options: Options) -> Result<Self> {
        let mut password = Uuid::new_v4().simple().to_string();
        password.truncate(PASSWORD);
        let password = SecretString::from(password);
        let kg = options.kg.as_ref().map(|kg| unhex(kg.expose_secret())).transpose()?;
        let shared = Arc::new(Shared { log: watch::Sender::default(), work: Mutex::default() });
        let (mut units, mut servers) = (BTreeMap::new(), JoinSet::new());
        for machine in machines {
            let any: SocketAddr =
                if options.ipv6 { (Ipv6Addr::LOCALHOST, 0).into() } else { (Ipv4Addr::LOCALHOST, 0).into() };
            let socket = UdpSocket::bind(any).await.context("binding the IPMI face")?;
            let address = socket.local_addr().context("reading the port of the IPMI face")?;
            // In the handshake it tells some random one, as VirtualBMC does: nobody may take that for an identity.
            let guid = Uuid::new_v4().into_bytes();
            let bmc = Bmc::new(password.clone(), kg.clone(), options.suites.clone(), guid);
            let unit = Arc::new(Unit::new(machine.clone(), bmc));
            servers.spawn(server::run(socket, unit.clone(), shared.clone()));
            units.insert(machine.name().to_owned(), (address, unit));
        }
        Ok(Self { units, password, kg: options.kg, shared, _servers: servers })
    }

    /// Where a machine's BMC listens.
    ///
    /// Panics if the face does not serve the machine, as all methods that take one.
    pub fn address(&self, machine: &Machine) -> SocketAddr {
        self.units.get(machine.name()).expect("the face serves this machine").0
    }

    /// The UDP port of a machine's BMC.
    pub fn port(&self, machine: &Machine) -> u16 {
        self.address(machine).port()
    }

    /// The name of the account that may do everything.
    pub fn username(&self) -> &str {
        ADMINISTRATOR
    }

    /// The password of all accounts, new for each face.
    pub fn password(&self) -> &SecretString {
        &self.password
    }

    /// What a native client of one machine is made from.
    pub fn client_config(&self, machine: &Machine) -> agents::ipmi::Config {
        agents::ipmi::Config {
            address: self.address(machine).to_string(),
            port: None,
            credentials: Credentials { username: ADMINISTRATOR.to_owned(), password: self.password.clone() },
            kg: self.kg.clone(),
            suite: None,
            privilege: Privilege::Administrator,
            quirks: Quirks::default(),
        }
    }

    /// Gives a machine's BMC this fault, or none; what it had before is gone.
    pub fn set_fault(&self, machine: &Machine, fault: Option<Fault>) {
        self.set_faults(machine, fault);
    }

    /// Gives a machine's BMC several faults at once; what it had before is gone.
    pub fn set_faults(&self, machine: &Machine, faults: impl IntoIterator<Item = Fault>) {
        self.unit(machine).set_faults(faults.into_iter().collect());
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

    /// The commands that arrived for a machine, carried out or not; one that was sent twice, twice.
    pub fn commands(&self, machine: &Machine) -> Vec<(Timestamp, Command)> {
        let log = self.shared.log.borrow();
        let own = log.iter().filter(|request| request.machine == machine.name());
        own.filter_map(|request| match request.what {
            What::Control(command) => Some((request.at, command)),
            _ => None,
        })
        .collect()
    }

    /// How many sessions a machine's BMC holds.
    pub fn sessions(&self, machine: &Machine) -> usize {
        *self.unit(machine).sessions().borrow()
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

    /// Waits until no session is established.
    ///
    /// # Errors
    /// When that takes longer than `within`.
    pub async fn wait_idle(&self, within: Duration) -> Result<()> {
        let by = Instant::now() + within;
        for (name, (_, unit)) in &self.units {
            let mut sessions = unit.sessions();
            if timeout_at(by, sessions.wait_for(|held| *held == 0)).await.is_err() {
                bail!("waited {within:?} in vain for the sessions of {name} to end");
            }
        }
        Ok(())
    }

    fn unit(&self, machine: &Machine) -> &Arc<Unit> {
        &self.units.get(machine.name()).expect("the face serves this machine").1
    }
}

impl Drop for Face {
    /// What is being answered holds what it works with, itself included.
    fn drop(&mut self) {
        self.shared.work.lock().expect("no panic while held").abort_all();
    }
}

impl Shared {
    /// Goes on with something while the next datagram is waited for.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.work.lock().expect("no panic while held");
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }
}

fn count(log: &[Request], machine: &str, what: What) -> usize {
    log.iter().filter(|request| request.machine == machine && request.what == what).count()
}

fn unhex(digits: &str) -> Result<Vec<u8>> {
    let pair = |at| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..digits.len()).step_by(2).map(|at| pair(at).context("the key is not hexadecimal")).collect()
}

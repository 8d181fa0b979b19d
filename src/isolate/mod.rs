//! Ways to be sure that a node can't write: the trait, its laws, and the one place that wires an agent's name to an
//! isolator.
//!
//! Knows devices and what they say. Must not know remediations, phases or policies; a kube client only where a later
//! isolator needs one, injected.

mod power;
mod script;

use agents::ipmi::{self, Ipmi};
use agents::redfish::{Config, Redfish};
use agents::{Access, Ready, SystemUuid};
use futures::future::BoxFuture;
use tokio::time::Instant;
use url::Url;

pub use power::PowerIsolator;
pub use script::{AGENT_DIR, Scripts};

/// Cuts a node off from its workloads, and tells whether it is.
///
/// # Laws
/// Each is held against every isolator and every fault in `tests/isolators.rs`.
/// - **Commands don't testify, only `look` does.** `Ok` of a command means "accepted".
/// - Commands are idempotent: sent twice, they do what they do once.
/// - `look` and `ready` change nothing.
/// - `look` says [`State::Isolated`] only on positive evidence from a device that names its machine. An Off that names none
///   is [`State::Off`]; silence is [`State::Unknown`].
/// - A command is not sent to a device that says it belongs to another machine than the expected one.
/// - Every call ends by its deadline. Dropping a future leaves no process, socket or BMC session behind, and nothing more
///   is sent.
/// - Secrets never reach argv, logs, events, errors or `Debug`.
pub trait Isolator: Send + Sync {
    /// Orders the machine cut off: power off, never reboot, never cycle.
    fn isolate(&self, by: Instant) -> BoxFuture<'_, Result<(), agents::Error>>;
    /// Reads how it is.
    fn look(&self, by: Instant) -> BoxFuture<'_, Sight>;
    /// Reads how it is, and whether it could be cut off and given back; sends no command.
    fn ready(&self, by: Instant) -> BoxFuture<'_, Result<Ready, agents::Error>>;
    /// Orders the machine given back: power on.
    fn restore(&self, by: Instant) -> BoxFuture<'_, Result<(), agents::Error>>;
}

/// What a look saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The state.
    pub state: State,
    /// Which machine the device says it is.
    pub system_uuid: Option<SystemUuid>,
    /// When the state was read; what a proof is aged by.
    pub read_at: Instant,
    /// In words for people, with no secret in them: what was read, or why nothing was.
    pub said: String,
    /// Stable code of what went wrong ("BMCAuthFailed"), if anything did.
    pub label: Option<&'static str>,
    /// The device refused the account: each further try may lock it.
    pub account_refused: bool,
    /// What was read: a URL without credentials.
    pub source: Option<String>,
}

/// What a device says of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can't write.
    Isolated,
    /// The device says Off, and not of which machine. Many say so of a plug that does not exist: it means that a machine
    /// can't write only to somebody who knows more, such as that the same plug was read On before (P2).
    Off,
    /// It may write.
    Running,
    /// No answer that means anything; one may come.
    Unknown,
    /// No answer, and none will come until somebody changes something.
    Refused,
}

/// What an isolator is built from.
#[derive(Clone, Debug)]
pub struct Device<'a> {
    /// The fence agent's name.
    pub agent: &'a str,
    /// Base URL, or host and port.
    pub address: &'a str,
    /// Which system or outlet of it; for Redfish the system's path.
    pub plug: Option<&'a str>,
    /// The machine that it must be, if known. Scripts can't tell, and have none.
    pub expect: Option<SystemUuid>,
    /// How it is spoken to.
    pub access: Access,
}

/// Makes isolators. The operator's own is [`Scripts`], which serves every agent; a simulation brings another.
pub trait Workshop: Send + Sync {
    /// Builds the isolator of a device.
    ///
    /// # Errors
    /// As [`build`].
    fn build(&self, device: Device<'_>) -> Result<Box<dyn Isolator>, agents::Error>;
}

impl Workshop for Scripts {
    fn build(&self, device: Device<'_>) -> Result<Box<dyn Isolator>, agents::Error> {
        build(device, self)
    }
}

/// Builds the isolator of a device. Which agent's name is served by which driver is for the order to say.
///
/// # Errors
/// [`agents::Error::Config`] for an address that is no URL or parameters that can't be given,
/// [`agents::Error::AgentMissing`] for a name that is none of a script.
pub fn build(device: Device<'_>, scripts: &Scripts) -> Result<Box<dyn Isolator>, agents::Error> {
    let Device { agent, address, plug, expect, access } = device;
    match access {
        Access::Redfish { credentials, tls } => {
            let base = Url::parse(address).map_err(|e| agents::Error::Config(format!("{address} is no URL: {e}")))?;
            let redfish = Redfish::new(Config { base, systems_uri: plug.map(str::to_owned), credentials, tls })?;
            Ok(Box::new(PowerIsolator::new(redfish, expect)))
        }
        Access::Ipmi { credentials, kg, suite, privilege, quirks } => {
            let address = address.to_owned();
            let config = ipmi::Config { address, port: None, credentials, kg, suite, privilege, quirks };
            Ok(Box::new(PowerIsolator::new(Ipmi::new(config)?, expect)))
        }
        Access::Script(parameters) => {
            Ok(Box::new(PowerIsolator::new(scripts.script(agent, address, plug, parameters)?, None)))
        }
    }
}

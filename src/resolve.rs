//! From a remediation to an order: which device is told what, with which credentials.
//!
//! Knows the parameters of fence agents, where they may be written, and the Secrets of this one node. Must not know
//! phases or proofs, and talks to no device.
//!
//! Guarantees: whatever comes from a Secret is a [`SecretString`] from the first byte, and never part of an error or of
//! `Debug`. What goes into the order is the exception: a device's address and plug are no secrets, wherever they came
//! from.
//!
//! [`SecretString`]: secrecy::SecretString

mod error;
mod ipmi;
mod names;
mod parameters;
mod redfish;
mod script;
mod secrets;
mod template;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use agents::metadata::{Catalogue, Metadata, Role};
use agents::{Access, SystemUuid};
use kube::Client;
use tokio::time::Instant;

pub use error::Error;
pub use secrets::is_object_name;
pub use template::TemplateError;

use crate::api::{Driver, DriverChoice, FenceAgentsRemediation, IdentityPolicy, Order};
use secrets::Secrets;

/// The agents that we have clients of our own for.
const NATIVE: [&str; 8] = [
    "fence_idrac",
    "fence_ilo3",
    "fence_ilo4",
    "fence_ilo5",
    "fence_imm",
    "fence_ipmilan",
    "fence_ipmilanplus",
    "fence_redfish",
];

/// How long an agent's script may take to print its metadata: 0.1 s on an idle machine, and half a minute's patience of a
/// remediation is not to be used up by it.
const METADATA: Duration = Duration::from_secs(15);

/// What a remediation comes down to for one node.
pub struct Resolved {
    /// The device, and the machine expected behind it.
    pub order: Order,
    /// How the device is spoken to, with which account.
    pub access: Access,
    /// What is to become of the node.
    pub action: Action,
    /// What all this was resolved from: the spec's generation and the Secrets' resource versions. The same text means
    /// that nothing has changed.
    pub inputs: String,
}

/// What is to become of a fenced node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is powered on again after its workloads are released.
    Reboot,
    /// It stays off.
    Off,
}

impl Action {
    /// Returns the action's name, as fence agents have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::Off => "off",
        }
    }
}

/// A user name may come from a Secret too, so nothing of the access is shown.
impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved")
            .field("order", &self.order)
            .field("action", &self.action)
            .field("inputs", &self.inputs)
            .finish_non_exhaustive()
    }
}

/// Resolves a remediation for one node. `system_uuid` is the node's own, as its kubelet reports it.
///
/// `scripts` says which parameters an agent's script has. Reads the shared Secret, the Secret of this node and the CA's, all from the remediation's namespace, and nothing
/// else: a Secret missing for another node is none of this node's business.
///
/// # Errors
/// When the agent is unknown, a Secret is missing, or the parameters make no order; and when the API server fails or
/// does not answer by `by`, the only cases that pass by themselves ([`Error::may_pass`]).
pub async fn resolve(
    client: Client,
    far: &FenceAgentsRemediation,
    node: &str,
    system_uuid: Option<&str>,
    scripts: &impl Catalogue,
    by: Instant,
) -> Result<Resolved, Error> {
    let spec = &far.spec;
    // Before any Secret is read: an agent that is not there has no use for one.
    let served = served(&spec.agent, spec.driver, scripts).await?;
    if node.is_empty() {
        return Err(Error::NoNodeName);
    }
    let secrets = Secrets::read(client, far, node, by).await?;
    let mut parameters = parameters::parameters(spec, &secrets, node)?;
    let action = parameters::take_action(&mut parameters)?;
    let expected = match spec.identity_policy() {
        IdentityPolicy::Enforce => system_uuid.and_then(SystemUuid::parse).map(|uuid| uuid.to_string()),
        IdentityPolicy::Ignore => None,
    };
    let agent = spec.agent.clone();
    let (order, access) = match served {
        Served::Redfish => {
            let device = redfish::device(&parameters, spec.tls.as_ref(), secrets.ca.as_ref())?;
            let access = Access::Redfish { credentials: device.credentials, tls: device.tls };
            let (address, plug) = (device.base.to_string(), device.systems_uri);
            (Order { agent, driver: Driver::Native, address, plug, system_uuid: expected }, access)
        }
        Served::Ipmi => {
            if spec.tls.is_some() {
                return Err(Error::Conflict { one: "IPMI", other: "tls" });
            }
            let (address, access) = ipmi::device(&agent, &parameters)?;
            (Order { agent, driver: Driver::Native, address, plug: None, system_uuid: expected }, access)
        }
        Served::Script(metadata) => {
            if spec.tls.is_some() {
                return Err(Error::Conflict { one: "a fence agent's script", other: "tls" });
            }
            let (target, given) = script::device(&metadata, &parameters, scripts.allows_unsafe())?;
            let (address, plug) = (target.address(), target.plug());
            // A script never says which machine it has read.
            let order = Order { agent, driver: Driver::Script, address, plug, system_uuid: None };
            (order, Access::Script(given))
        }
    };
    Ok(Resolved { order, access, action, inputs: secrets.inputs(far.metadata.generation) })
}

/// What serves an agent.
enum Served {
    Redfish,
    Ipmi,
    Script(Arc<Metadata>),
}

async fn served(agent: &str, choice: DriverChoice, scripts: &impl Catalogue) -> Result<Served, Error> {
    match (agent, choice) {
        ("fence_redfish", DriverChoice::Auto | DriverChoice::Native) => Ok(Served::Redfish),
        (agent, DriverChoice::Auto | DriverChoice::Native) if ipmi::AGENTS.contains(&agent) => Ok(Served::Ipmi),
        (_, DriverChoice::Native) => Err(Error::NoNativeDriver { agent: agent.to_owned(), native: &NATIVE }),
        (_, DriverChoice::Auto | DriverChoice::Script) => {
            let metadata = scripts.metadata(agent, Instant::now() + METADATA).await.map_err(|error| match error {
                agents::Error::AgentMissing { agent, at } => Error::UnknownAgent { agent, native: &NATIVE, at },
                error => Error::Agent(error),
            })?;
            match metadata.role() {
                Role::Power => Ok(Served::Script(metadata)),
                Role::Fabric { why } => {
                    let why = format!("it cuts a machine off from a network or from storage ({why})");
                    Err(Error::NoPowerAgent { agent: agent.to_owned(), why })
                }
                Role::Other { why } => Err(Error::NoPowerAgent { agent: agent.to_owned(), why }),
            }
        }
    }
}

#[cfg(test)]
mod tests;

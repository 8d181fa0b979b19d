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
mod names;
mod parameters;
mod redfish;
mod secrets;
mod template;

use std::fmt;

use agents::{Credentials, SystemUuid, Tls};
use kube::Client;
use tokio::time::Instant;

pub use error::Error;
pub use secrets::is_object_name;
pub use template::TemplateError;

use crate::api::{Driver, DriverChoice, FenceAgentsRemediation, IdentityPolicy, Order};
use secrets::Secrets;

/// The agents that this build has, all with a client of our own.
const AGENTS: [&str; 1] = ["fence_redfish"];

/// What a remediation comes down to for one node.
pub struct Resolved {
    /// The device, and the machine expected behind it.
    pub order: Order,
    /// The account on the device.
    pub credentials: Credentials,
    /// How the device's certificate is judged.
    pub tls: Tls,
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

/// A user name may come from a Secret too, so nothing of the credentials is shown.
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
/// Reads the shared Secret, the Secret of this node and the CA's, all from the remediation's namespace, and nothing
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
    by: Instant,
) -> Result<Resolved, Error> {
    let spec = &far.spec;
    // Before any Secret is read: an agent that is not there has no use for one.
    let driver = driver(&spec.agent, spec.driver)?;
    if node.is_empty() {
        return Err(Error::NoNodeName);
    }
    let secrets = Secrets::read(client, far, node, by).await?;
    let mut parameters = parameters::parameters(spec, &secrets, node)?;
    let action = parameters::take_action(&mut parameters)?;
    let device = redfish::device(&parameters, spec.tls.as_ref(), secrets.ca.as_ref())?;
    let expected = match spec.identity_policy() {
        IdentityPolicy::Enforce => system_uuid.and_then(SystemUuid::parse).map(|uuid| uuid.to_string()),
        IdentityPolicy::Ignore => None,
    };
    Ok(Resolved {
        order: Order {
            agent: spec.agent.clone(),
            driver,
            address: device.base.to_string(),
            plug: device.systems_uri,
            system_uuid: expected,
        },
        credentials: device.credentials,
        tls: device.tls,
        action,
        inputs: secrets.inputs(far.metadata.generation),
    })
}

/// Returns the implementation for an agent.
fn driver(agent: &str, choice: DriverChoice) -> Result<Driver, Error> {
    if !AGENTS.contains(&agent) {
        return Err(Error::UnknownAgent { agent: agent.to_owned(), known: &AGENTS });
    }
    match choice {
        DriverChoice::Auto | DriverChoice::Native => Ok(Driver::Native),
        DriverChoice::Script => Err(Error::NoScriptDriver),
    }
}

#[cfg(test)]
mod tests;

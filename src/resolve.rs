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
use futures::future::join_all;
use kube::{Client, ResourceExt};
use tokio::time::Instant;

pub use error::Error;
pub use secrets::is_object_name;
pub use template::TemplateError;

use crate::api::{AgentSpec, Driver, DriverChoice, FenceAgentsRemediation, IdentityPolicy, MEATWARE, Order};
use parameters::Parameters;
use secrets::{Secrets, Store};

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
#[derive(Debug)]
pub struct Resolved {
    /// The devices of each level, the first level first; or why a level has none. At least one level has devices.
    pub levels: Vec<Result<Vec<Device>, Error>>,
    /// What is to become of the node.
    pub action: Action,
    /// What all this was resolved from: the spec's generation and the Secrets' resource versions. The same text means
    /// that nothing has changed.
    pub inputs: String,
}

/// One device that a node is fenced by.
pub struct Device {
    /// The device, and the machine expected behind it.
    pub order: Order,
    /// How the device is spoken to, with which account. `None`: it is a person, who is asked.
    pub access: Option<Access>,
}

impl Resolved {
    /// Returns the devices of a level, counted from 1, or why it has none; `None` if there is no such level.
    pub fn level(&self, level: u32) -> Option<&Result<Vec<Device>, Error>> {
        self.levels.get(usize::try_from(level).ok()?.checked_sub(1)?)
    }

    /// Returns the device of the first level, if it has one.
    pub fn first(&self) -> Option<&Device> {
        self.levels.first()?.as_ref().ok()?.first()
    }
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
impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("order", &self.order).finish_non_exhaustive()
    }
}

/// Resolves a remediation for one node. `system_uuid` is the node's own, as its kubelet reports it.
///
/// `scripts` says which parameters an agent's script has. Reads, for each agent that is there, its shared Secret, its Secret of
/// this node and its CA's, all from the remediation's namespace, and nothing else: a Secret missing for another node is none
/// of this node's business.
///
/// A level that makes no devices spoils no other. What is to become of the node is said by the spec's own agent; if that one
/// can't be resolved, by its parameters outside of Secrets.
///
/// # Errors
/// The first level's, if no level has devices: an agent is unknown, a Secret is missing, the parameters make no order. The action's, if
/// it is none. The API server's, if it fails or does not answer by `by`; then nothing is known of any level.
pub async fn resolve(
    client: Client,
    far: &FenceAgentsRemediation,
    node: &str,
    system_uuid: Option<&str>,
    scripts: &impl Catalogue,
    by: Instant,
) -> Result<Resolved, Error> {
    let levels = (1..=far.spec.levels.len() + 1).map(|level| far.spec.agents_at(level));
    let (levels, site) = Site::read(client, far, node, system_uuid, scripts, by, levels).await?;
    let mut levels: Vec<_> = (1..).zip(&levels).map(|(level, agents)| site.level(level, agents)).collect();
    if levels.iter().all(Result::is_err) {
        levels.swap_remove(0)?;
    }
    let action = site.action(&far.spec.own_agent())?;
    Ok(Resolved { levels, action, inputs: site.secrets.inputs(far.metadata.generation) })
}

/// Resolves one level, counted from 1, and reads nothing of the others. Returns its devices, and what they were resolved from.
///
/// # Errors
/// The level's, and the API server's, as [`resolve`] has them.
pub async fn resolve_level(
    client: Client,
    far: &FenceAgentsRemediation,
    level: usize,
    node: &str,
    system_uuid: Option<&str>,
    scripts: &impl Catalogue,
    by: Instant,
) -> Result<(Vec<Device>, String), Error> {
    let agents = std::iter::once(far.spec.agents_at(level));
    let (agents, site) = Site::read(client, far, node, system_uuid, scripts, by, agents).await?;
    let devices = site.level(level, agents.first().map_or(&[], Vec::as_slice))?;
    Ok((devices, site.secrets.inputs(far.metadata.generation)))
}

/// An agent, and what serves it.
struct Asked<'a> {
    agent: AgentSpec<'a>,
    served: Result<Served, Error>,
}

impl Asked<'_> {
    fn reads_secrets(&self) -> bool {
        match self.served {
            Ok(Served::Redfish | Served::Ipmi | Served::Script(_)) => true,
            Ok(Served::Person) | Err(_) => false,
        }
    }
}

async fn asked<'a>(agent: AgentSpec<'a>, scripts: &impl Catalogue) -> Asked<'a> {
    Asked { agent, served: served(agent.agent, agent.driver, scripts).await }
}

/// What the devices of one node have in common.
struct Site<'a> {
    node: &'a str,
    /// The machine's system UUID.
    expected: Option<String>,
    secrets: Store,
    allow_unsafe: bool,
}

impl<'a> Site<'a> {
    /// Asks the scripts of all agents what they are, and reads their Secrets.
    async fn read<'b>(
        client: Client,
        far: &FenceAgentsRemediation,
        node: &'a str,
        system_uuid: Option<&str>,
        scripts: &impl Catalogue,
        by: Instant,
        levels: impl Iterator<Item = Vec<AgentSpec<'b>>>,
    ) -> Result<(Vec<Vec<Asked<'b>>>, Self), Error> {
        if node.is_empty() {
            return Err(Error::NoNodeName);
        }
        // Before any Secret is read: an agent that is not there has no use for one.
        let levels = levels.map(|agents| join_all(agents.into_iter().map(|agent| asked(agent, scripts))));
        let levels = join_all(levels).await;
        let there = levels.iter().flatten().filter(|asked| asked.reads_secrets());
        let names = there.flat_map(|asked| secrets::names(&asked.agent, node)).flatten().collect();
        let secrets = Store::read(client, far.namespace().unwrap_or_default(), names, by).await?;
        let expected = match far.spec.identity_policy() {
            IdentityPolicy::Enforce => system_uuid.and_then(SystemUuid::parse).map(|uuid| uuid.to_string()),
            IdentityPolicy::Ignore => None,
        };
        Ok((levels, Self { node, expected, secrets, allow_unsafe: scripts.allows_unsafe() }))
    }

    /// Resolves a level. What is wrong with one of its devices is wrong with all of it.
    fn level(&self, level: usize, agents: &[Asked<'_>]) -> Result<Vec<Device>, Error> {
        if agents.is_empty() {
            // Of no device at all, "each is off" would be true.
            return Err(Error::Missing { parameters: vec!["agents".to_owned()] });
        }
        if agents.len() > 1 && agents.iter().any(|asked| asked.agent.is_person()) {
            return Err(Error::Conflict { one: MEATWARE, other: "another agent of its level" });
        }
        let mut devices: Vec<Device> = Vec::with_capacity(agents.len());
        for asked in agents {
            let served = asked.served.as_ref().map_err(Error::clone)?;
            let mut parameters = self.parameters(&asked.agent)?;
            match level {
                1 => drop(parameters::take_action(&mut parameters)?),
                _ => parameters::no_action(&parameters)?,
            }
            let device = self.device(&asked.agent, served, &parameters)?;
            // The other feed would stay on, and nobody would look at it.
            if devices.iter().any(|other| other.order == device.order) {
                let Order { agent, address, plug, .. } = device.order;
                return Err(Error::SameDevice { agent, address, plug });
            }
            devices.push(device);
        }
        Ok(devices)
    }

    /// Tells what is to become of the node. If a Secret is missing, what was in it is not known; what the spec itself says is.
    fn action(&self, own: &AgentSpec<'_>) -> Result<Action, Error> {
        let parameters = self.parameters(own).or_else(|_| parameters::action_only(own, self.node));
        parameters::take_action(&mut parameters?)
    }

    /// A person has no parameters but the action.
    fn parameters(&self, agent: &AgentSpec<'_>) -> Result<Parameters, Error> {
        match agent.is_person() {
            true => parameters::action_only(agent, self.node),
            false => parameters::parameters(agent, &Secrets::of(&self.secrets, agent, self.node)?, self.node),
        }
    }

    /// Makes a device of an agent's parameters, which are without the action.
    fn device(&self, of: &AgentSpec<'_>, served: &Served, parameters: &Parameters) -> Result<Device, Error> {
        let agent = of.agent.to_owned();
        let no_tls = |one| match of.tls {
            Some(_) => Err(Error::Conflict { one, other: "tls" }),
            None => Ok(()),
        };
        let (order, access) = match served {
            Served::Redfish => {
                let ca = Secrets::of(&self.secrets, of, self.node)?.ca;
                let device = redfish::device(parameters, of.tls, ca.as_ref())?;
                let access = Access::Redfish { credentials: device.credentials, tls: device.tls };
                let (address, plug) = (device.base.to_string(), device.systems_uri);
                (Order { agent, driver: Driver::Native, address, plug, system_uuid: self.expected.clone() }, access)
            }
            Served::Ipmi => {
                no_tls("IPMI")?;
                let (address, access) = ipmi::device(&agent, parameters)?;
                let system_uuid = self.expected.clone();
                (Order { agent, driver: Driver::Native, address, plug: None, system_uuid }, access)
            }
            Served::Script(metadata) => {
                no_tls("a fence agent's script")?;
                let (target, given) = script::device(metadata, parameters, self.allow_unsafe)?;
                let (address, plug) = (target.address(), target.plug());
                // A script never says which machine it has read.
                let order = Order { agent, driver: Driver::Script, address, plug, system_uuid: None };
                (order, Access::Script(given))
            }
            Served::Person => {
                let (address, plug) = (String::new(), Some(self.node.to_owned()));
                let order = Order { agent, driver: Driver::Person, address, plug, system_uuid: None };
                return Ok(Device { order, access: None });
            }
        };
        Ok(Device { order, access: Some(access) })
    }
}

/// What serves an agent.
enum Served {
    Redfish,
    Ipmi,
    Script(Arc<Metadata>),
    /// Somebody who goes and looks.
    Person,
}

async fn served(agent: &str, choice: DriverChoice, scripts: &impl Catalogue) -> Result<Served, Error> {
    match (agent, choice) {
        (MEATWARE, _) => Ok(Served::Person),
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

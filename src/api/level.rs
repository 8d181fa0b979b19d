//! Levels: which devices fence a node when those before them have failed, and the spec's own agent seen as one of them.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DriverChoice, DurationError, FenceAgentsRemediationSpec, NodeParameters, Parameters, TlsPolicy, parse_duration,
    schema,
};

/// The agent whose device is a person: somebody goes and looks, and says so in a confirmation.
pub const MEATWARE: &str = "fence_meatware";

/// The shared Secret where the spec names none. FAR's webhook writes this name into new objects if the Secret exists,
/// and takes it out if it does not; without a webhook the same is done when Secrets are read.
pub const DEFAULT_SHARED_SECRET: &str = "fence-agents-credentials-shared";

/// Devices that fence a node together: all of them must be off before it counts as off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = schema::a_person_alone()))]
pub struct Level {
    /// The devices: both feeds of a machine with two power supplies, for example. `fence_meatware` stands alone.
    #[schemars(length(min = 1, max = 8))]
    pub agents: Vec<LevelAgent>,

    /// How many times the power is tried to be cut at this level. Absent: the spec's number.
    #[serde(default, rename = "retrycount", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::retry_count")]
    pub retry_count: Option<i64>,

    /// The pause between two attempts at this level, as a Go duration. Absent: the spec's.
    #[serde(default, rename = "retryinterval", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::go_duration")]
    pub retry_interval: Option<String>,

    /// The time that one attempt at this level may take, as a Go duration. Absent: the spec's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::go_duration")]
    pub timeout: Option<String>,
}

/// One device of a level. The action is the spec's own: no parameter changes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LevelAgent {
    /// Names the fence agent, as ClusterLabs does, or is `fence_meatware`: a person.
    #[schemars(regex(pattern = schema::AGENT), length(max = 128))]
    pub agent: String,

    /// Parameters of the agent that are the same for every node. `{{.NodeName}}` in a value becomes the node's name.
    #[serde(default, rename = "sharedparameters", skip_serializing_if = "Parameters::is_empty")]
    #[schemars(schema_with = "schema::level_shared_parameters")]
    pub shared_parameters: Parameters,

    /// Parameters that differ from node to node: by parameter name, then by node name. They override the shared ones.
    #[serde(default, rename = "nodeparameters", skip_serializing_if = "NodeParameters::is_empty")]
    #[schemars(schema_with = "schema::level_node_parameters")]
    pub node_parameters: NodeParameters,

    /// The Secret, by node name, that holds this node's own parameters. It overrides keys of the shared Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_secret_names: BTreeMap<String, String>,

    /// The Secret that holds parameters of all nodes. Absent: none, not even the one that the spec's own agent has by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub shared_secret_name: Option<String>,

    /// Which implementation talks to the device.
    #[serde(default)]
    pub driver: DriverChoice,

    /// How the device's TLS certificate is verified. Absent: against the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TlsPolicy")]
    pub tls: Option<TlsPolicy>,
}

/// One agent with all that it is given, wherever in a spec it stands.
#[derive(Clone, Copy, Debug)]
pub struct AgentSpec<'a> {
    /// The fence agent's name.
    pub agent: &'a str,
    /// Parameters of all nodes.
    pub shared_parameters: &'a Parameters,
    /// Parameters of single nodes.
    pub node_parameters: &'a NodeParameters,
    /// The Secret of all nodes. [`DEFAULT_SHARED_SECRET`] need not exist.
    pub shared_secret_name: Option<&'a str>,
    /// The Secrets of single nodes.
    pub node_secret_names: &'a BTreeMap<String, String>,
    /// Which implementation is wanted.
    pub driver: DriverChoice,
    /// How a certificate is verified.
    pub tls: Option<&'a TlsPolicy>,
}

impl AgentSpec<'_> {
    /// Tells whether the device is a person.
    pub fn is_person(&self) -> bool {
        self.agent == MEATWARE
    }
}

impl Level {
    /// Returns its agents.
    pub fn agents(&self) -> impl Iterator<Item = AgentSpec<'_>> {
        self.agents.iter().map(|agent| AgentSpec {
            agent: &agent.agent,
            shared_parameters: &agent.shared_parameters,
            node_parameters: &agent.node_parameters,
            shared_secret_name: agent.shared_secret_name.as_deref().filter(|name| !name.is_empty()),
            node_secret_names: &agent.node_secret_names,
            driver: agent.driver,
            tls: agent.tls.as_ref(),
        })
    }
}

impl FenceAgentsRemediationSpec {
    /// Returns the spec's own agent, which makes the first level.
    pub fn own_agent(&self) -> AgentSpec<'_> {
        let shared = self.shared_secret_name.as_deref().filter(|name| !name.is_empty());
        AgentSpec {
            agent: &self.agent,
            shared_parameters: &self.shared_parameters,
            node_parameters: &self.node_parameters,
            shared_secret_name: shared.or(Some(DEFAULT_SHARED_SECRET)),
            node_secret_names: &self.node_secret_names,
            driver: self.driver,
            tls: self.tls.as_ref(),
        }
    }

    /// Returns the agents of a level, counted from 1: the first is the spec's own. None if there is no such level.
    pub fn agents_at(&self, level: usize) -> Vec<AgentSpec<'_>> {
        match level {
            1 => vec![self.own_agent()],
            level => self.level(level).into_iter().flat_map(Level::agents).collect(),
        }
    }

    /// Returns the number of attempts at a level, counted from 1: at least 1, whatever is stored. Where the level names none,
    /// or is not there any more, the spec's.
    pub fn attempts_at(&self, level: usize) -> i32 {
        attempts(self.level(level).and_then(|level| level.retry_count).unwrap_or(self.retry_count))
    }

    /// Returns the pause between two attempts at a level, as [`Self::attempts_at`] does.
    ///
    /// # Errors
    /// When the stored text is no Go duration. The schema refuses such text; objects older than it may have it.
    pub fn retry_interval_at(&self, level: usize) -> Result<Duration, DurationError> {
        parse_duration(
            self.level(level).and_then(|level| level.retry_interval.as_ref()).unwrap_or(&self.retry_interval),
        )
    }

    /// Returns the time that one attempt at a level may take, as [`Self::attempts_at`] does.
    ///
    /// # Errors
    /// As [`Self::retry_interval_at`].
    pub fn timeout_at(&self, level: usize) -> Result<Duration, DurationError> {
        parse_duration(self.level(level).and_then(|level| level.timeout.as_ref()).unwrap_or(&self.timeout))
    }

    /// What is said of a level; nothing of the first, which is the spec itself.
    fn level(&self, level: usize) -> Option<&Level> {
        self.levels.get(level.checked_sub(2)?)
    }
}

/// With FAR, a negative count "succeeded" at once, without one command sent.
fn attempts(stored: i64) -> i32 {
    i32::try_from(stored.max(1)).unwrap_or(i32::MAX)
}

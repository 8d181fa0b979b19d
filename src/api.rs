//! The custom resources: `FenceAgentsRemediation` and its template, as medik8s fence-agents-remediation (FAR) has
//! them, plus the fields that make fencing provable; and `RemediationConfirmation`, a person's word. Data only: nothing
//! here reads a cluster or decides anything.
//!
//! Invariant: every object that FAR accepts is accepted, with the same defaults, except a `retrycount` below 1 and a
//! missing `spec`. An extension field enters this file together with the code that obeys it.
//!
//! Reading is more lenient than the schema: one odd object that was stored before the schema knew better must not
//! make the whole list unreadable, and with it every other remediation.

#![allow(clippy::duplicated_attributes, reason = "every printcolumn has a type_ of its own")]

mod confirmation;
mod duration;
mod level;
mod schema;
mod status;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use confirmation::{
    ConfirmationRequest, Decision, GuardedConfirmation, RemediationConfirmation, RemediationConfirmationSpec,
    RemediationConfirmationStatus, Statement, Verdict,
};
pub use duration::{DurationError, parse_duration};
pub use level::{AgentSpec, DEFAULT_SHARED_SECRET, Level, LevelAgent, MEATWARE};
pub use status::{
    BegunLevel, FenceAgentsRemediationStatus, FenceAgentsRemediationTemplateStatus, NodeIdentity, Operation, Order,
    ProofRecord, Set, SetPod, TIMELINE_MAX, TemplateNode, TimelineEntry,
};

/// Names the node that a CR is about; set by NHC and MHC. Its presence counts, not its value.
pub const NODE_NAME_ANNOTATION: &str = "remediation.medik8s.io/node-name";
/// Names the template that NHC made a CR from.
pub const TEMPLATE_NAME_ANNOTATION: &str = "remediation.medik8s.io/template-name";
/// Set by NHC on a CR whose time is over: the next remediator is at work. Its presence counts, not its value.
pub const NHC_TIMED_OUT_ANNOTATION: &str = "remediation.medik8s.io/nhc-timed-out";
/// Tells NHC that several templates of this kind may be used together; NHC tests for the key only.
pub const MULTIPLE_TEMPLATES_ANNOTATION: &str = "remediation.medik8s.io/multiple-templates-support";
/// Label of a Node that is not to be remediated, for as long as its value is "true".
pub const EXCLUDE: &str = "remediation.medik8s.io/exclude-from-remediation";
/// Keeps a CR until its node is free of what the remediation put there.
pub const FINALIZER: &str = "fence-agents-remediation.medik8s.io/far-finalizer";
/// Key of the `NoSchedule` taint that marks and claims a node under remediation. Its value is empty.
pub const REMEDIATION_TAINT: &str = "remediation.medik8s.io/fence-agents-remediation";
/// Key of Kubernetes' own `NoExecute` taint for a node that is down for certain.
pub const OUT_OF_SERVICE_TAINT: &str = "node.kubernetes.io/out-of-service";
/// The value that FAR gives to [`OUT_OF_SERVICE_TAINT`].
pub const OUT_OF_SERVICE_VALUE: &str = "nodeshutdown";

/// Number of attempts where the CR names none.
pub const DEFAULT_RETRY_COUNT: i64 = 5;
const DEFAULT_RETRY_INTERVAL: &str = "5s";
const DEFAULT_TIMEOUT: &str = "60s";
const DEFAULT_RELEASE_TIMEOUT: &str = "60s";

/// Says how a node is fenced: by which fence agent, with which parameters, and how its workloads are released.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fence-agents-remediation.medik8s.io",
    version = "v1alpha1",
    kind = "FenceAgentsRemediation",
    plural = "fenceagentsremediations",
    shortname = "far",
    namespaced,
    status = "FenceAgentsRemediationStatus",
    derive = "PartialEq",
    doc = "FenceAgentsRemediation asks for one node to be fenced: powered off, proven off, and its workloads released.",
    printcolumn(name = "NODE", type_ = "string", json_path = ".status.node.name"),
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "REASON", type_ = "string", json_path = ".status.operation.why"),
    printcolumn(name = "AGENT", type_ = "string", json_path = ".spec.agent"),
    printcolumn(name = "LEVEL", type_ = "integer", json_path = ".status.level"),
    printcolumn(name = "PROOF", type_ = "string", json_path = ".status.proof.kind"),
    printcolumn(name = "ATTEMPT", type_ = "integer", json_path = ".status.attempt"),
    printcolumn(name = "MESSAGE", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FenceAgentsRemediationSpec {
    /// Names the fence agent, as ClusterLabs does: `fence_redfish`, for example.
    #[schemars(regex(pattern = schema::AGENT))]
    pub agent: String,

    /// How many times the power is tried to be cut, in all.
    #[serde(default = "default_retry_count", rename = "retrycount")]
    #[schemars(schema_with = "schema::retry_count")]
    pub retry_count: i64,

    /// The pause between two attempts, as a Go duration.
    #[serde(default = "default_retry_interval", rename = "retryinterval")]
    #[schemars(regex(pattern = schema::GO_DURATION))]
    pub retry_interval: String,

    /// The time that one attempt may take, as a Go duration.
    #[serde(default = "default_timeout")]
    #[schemars(regex(pattern = schema::GO_DURATION))]
    pub timeout: String,

    /// Parameters of the agent that are the same for every node. `{{.NodeName}}` in a value becomes the node's name.
    #[serde(default, rename = "sharedparameters", skip_serializing_if = "Parameters::is_empty")]
    #[schemars(schema_with = "schema::shared_parameters")]
    pub shared_parameters: Parameters,

    /// Parameters that differ from node to node: by parameter name, then by node name. They override the shared ones.
    #[serde(default, rename = "nodeparameters", skip_serializing_if = "NodeParameters::is_empty")]
    #[schemars(schema_with = "schema::node_parameters")]
    pub node_parameters: NodeParameters,

    /// How workloads leave the fenced node.
    #[serde(default)]
    pub remediation_strategy: RemediationStrategy,

    /// The Secret, by node name, that holds this node's own parameters. It overrides keys of the shared Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_secret_names: BTreeMap<String, String>,

    /// The Secret that holds parameters of all nodes. `{{.NodeName}}` in a value becomes the node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub shared_secret_name: Option<String>,

    /// Which implementation talks to the device.
    #[serde(default)]
    pub driver: DriverChoice,

    /// What counts as a proof that the node is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ProofPolicy")]
    pub proof: Option<ProofPolicy>,

    /// How the device's TLS certificate is verified. Absent: against the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TlsPolicy")]
    pub tls: Option<TlsPolicy>,

    /// What is tried in this order when the agent above has failed all its attempts: level 2, level 3, and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub levels: Vec<Level>,

    /// Fence a control-plane node even if the remaining ones do not make a majority.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_control_plane_quorum_loss: bool,

    /// How long to wait for the node's pods and volumes to go before power is restored anyway, as a Go duration.
    #[serde(default = "default_release_timeout")]
    #[schemars(regex(pattern = schema::GO_DURATION))]
    pub release_timeout: String,
}

/// Holds the specification that every remediation made from this template gets.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "fence-agents-remediation.medik8s.io",
    version = "v1alpha1",
    kind = "FenceAgentsRemediationTemplate",
    plural = "fenceagentsremediationtemplates",
    shortname = "fartemplate",
    namespaced,
    status = "FenceAgentsRemediationTemplateStatus",
    derive = "PartialEq",
    doc = "FenceAgentsRemediationTemplate is what NodeHealthCheck makes FenceAgentsRemediations from.",
    printcolumn(name = "AGENT", type_ = "string", json_path = ".spec.template.spec.agent"),
    printcolumn(name = "NODES", type_ = "integer", json_path = ".status.total"),
    printcolumn(name = "READY", type_ = "integer", json_path = ".status.ready"),
    printcolumn(name = "FAILED", type_ = "integer", json_path = ".status.failed"),
    printcolumn(name = "LASTCHECK", type_ = "date", json_path = ".status.lastCheck"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FenceAgentsRemediationTemplateSpec {
    /// How many of the template's nodes, or which share of them, have their parameters validated by a status query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::status_validation_sample")]
    pub status_validation_sample: Option<IntOrString>,

    /// What NHC copies into a new remediation.
    pub template: FenceAgentsRemediationTemplateResource,
}

/// Wraps the specification that NHC copies into a new remediation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FenceAgentsRemediationTemplateResource {
    /// The specification of the remediation.
    pub spec: FenceAgentsRemediationSpec,
}

/// How workloads leave a fenced node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RemediationStrategy {
    /// The node's pods are deleted. Objects older than FAR 0.4 say "" for it.
    #[default]
    #[serde(alias = "")]
    ResourceDeletion,
    /// Kubernetes' out-of-service taint is put on the node.
    OutOfServiceTaint,
}

/// Which implementation the user wants for an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriverChoice {
    /// Our own client where there is one for the agent, else the script.
    #[default]
    Auto,
    /// Our own client.
    Native,
    /// The ClusterLabs script.
    Script,
}

/// The implementation that an agent resolved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Driver {
    /// Our own client.
    Native,
    /// The ClusterLabs script.
    Script,
    /// A person, who is asked.
    Person,
}

/// What counts as a proof that a node is off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProofPolicy {
    /// Whether the device's system UUID must be the node's.
    #[serde(default)]
    pub identity: IdentityPolicy,
}

/// Whether a device's system UUID is held against the node's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IdentityPolicy {
    /// It must be the node's `status.nodeInfo.systemUUID`. A device that has none needs a witness instead.
    #[default]
    Enforce,
    /// It is not looked at. A witness is always needed.
    Ignore,
}

/// How a device's TLS certificate is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::one_trust()))]
pub struct TlsPolicy {
    /// The Secret, in the same namespace, whose key `ca.crt` holds the certificates that the device's must chain to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub ca_secret_name: Option<String>,
    /// SHA-256 of the SubjectPublicKeyInfo of the device's certificate, in hexadecimal or base64. Any of them will do.
    #[serde(default, rename = "pinnedSHA256", skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(regex(pattern = schema::PIN)))]
    pub pinned_sha256: Vec<String>,
}

/// Parameters of an agent, by name. `Debug` shows the names only: passwords are found here in practice.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Parameters(pub BTreeMap<String, String>);

/// Parameters by name, then by node. `Debug` shows the names only: passwords are found here in practice.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct NodeParameters(pub BTreeMap<String, BTreeMap<String, String>>);

/// A remediation as it is listed and watched: one that can't be read (upstream's schema lets a missing spec pass) must not
/// make all the others unreadable, nor bring the whole answer into a log.
pub type Guarded = kube::core::DeserializeGuard<FenceAgentsRemediation>;

/// A template as it is listed and watched, for the same reason.
pub type GuardedTemplate = kube::core::DeserializeGuard<FenceAgentsRemediationTemplate>;

impl FenceAgentsRemediation {
    /// Returns the name of the node to fence: the annotation's value if the key exists, even empty, else the CR's name.
    pub fn node_name(&self) -> &str {
        let annotated = self.metadata.annotations.as_ref().and_then(|all| all.get(NODE_NAME_ANNOTATION));
        annotated.or(self.metadata.name.as_ref()).map_or("", String::as_str)
    }

    /// Tells whether NHC has given up on this remediation.
    pub fn nhc_timed_out(&self) -> bool {
        self.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(NHC_TIMED_OUT_ANNOTATION))
    }
}

impl FenceAgentsRemediationSpec {
    /// Returns the number of attempts at the first level, as [`Self::attempts_at`].
    pub fn attempts(&self) -> i32 {
        self.attempts_at(1)
    }

    /// Returns the pause between two attempts at the first level.
    ///
    /// # Errors
    /// As [`Self::retry_interval_at`].
    pub fn retry_interval(&self) -> Result<Duration, DurationError> {
        self.retry_interval_at(1)
    }

    /// Returns the time that one attempt at the first level may take.
    ///
    /// # Errors
    /// As [`Self::retry_interval_at`].
    pub fn timeout(&self) -> Result<Duration, DurationError> {
        self.timeout_at(1)
    }

    /// Returns the time to wait for pods and volumes to go.
    ///
    /// # Errors
    /// As [`Self::retry_interval_at`].
    pub fn release_timeout(&self) -> Result<Duration, DurationError> {
        parse_duration(&self.release_timeout)
    }

    /// Returns whether the device's system UUID is held against the node's.
    pub fn identity_policy(&self) -> IdentityPolicy {
        self.proof.as_ref().map(|proof| proof.identity).unwrap_or_default()
    }
}

impl Parameters {
    /// Tells whether there is no parameter.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl NodeParameters {
    /// Tells whether there is no parameter.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl fmt::Debug for NodeParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, nodes)| (name, nodes.keys().collect::<Vec<_>>()))).finish()
    }
}

/// Returns the definitions of all resources.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        FenceAgentsRemediation::crd(),
        schema::without_nullable_sample(FenceAgentsRemediationTemplate::crd()),
        RemediationConfirmation::crd(),
    ]
}

/// Returns the file name and the YAML text of each definition, as they are checked in under `crds/`.
pub fn crd_files() -> Vec<(String, String)> {
    crds()
        .iter()
        .map(|crd| {
            let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
            let yaml = serde_yaml_ng::to_string(crd).expect("a definition is plain data with string keys");
            (name, format!("# Generated by `make crds` from src/api.rs. Do not edit.\n{yaml}"))
        })
        .collect()
}

fn default_retry_count() -> i64 {
    DEFAULT_RETRY_COUNT
}

fn default_retry_interval() -> String {
    DEFAULT_RETRY_INTERVAL.into()
}

fn default_timeout() -> String {
    DEFAULT_TIMEOUT.into()
}

fn default_release_timeout() -> String {
    DEFAULT_RELEASE_TIMEOUT.into()
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests;

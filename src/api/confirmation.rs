//! A person's word: what a remediation asks for where no device can tell, and the answer to it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// What a person says of a node that nothing else can be asked about. Never changed once it is created.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ringfence.dev",
    version = "v1alpha1",
    kind = "RemediationConfirmation",
    plural = "remediationconfirmations",
    namespaced,
    status = "RemediationConfirmationStatus",
    derive = "PartialEq",
    doc = "RemediationConfirmation is a person's word that a node can't write any more, or that it is not to be released. It answers the request in a remediation's status.request.",
    printcolumn(name = "NODE", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "DECISION", type_ = "string", json_path = ".spec.decision"),
    printcolumn(name = "BY", type_ = "string", json_path = ".spec.by"),
    printcolumn(name = "VERDICT", type_ = "string", json_path = ".status.verdict"),
    printcolumn(name = "REASON", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "MESSAGE", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::confirmation()))]
pub struct RemediationConfirmationSpec {
    /// The request that is answered: `status.request.id` of the remediation.
    #[schemars(regex(pattern = schema::REQUEST_ID))]
    pub request: String,

    /// The node's name, typed in full.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,

    /// The UID of the Node object, as the request has it.
    #[serde(rename = "nodeUID")]
    #[schemars(length(min = 1, max = 128))]
    pub node_uid: String,

    /// The boot of the node that is meant, as the request has it. Absent where the request has none.
    #[serde(default, rename = "bootID", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::short_string")]
    pub boot_id: Option<String>,

    /// Why the node can't write. Needed to approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Statement")]
    pub statement: Option<Statement>,

    /// Whether the node's workloads may be released.
    pub decision: Decision,

    /// Whatever is worth remembering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::comment")]
    pub comment: Option<String>,

    /// Who says so: the user name of whoever creates this, or the API server refuses it (`kubectl auth whoami`).
    #[schemars(length(min = 1, max = 512))]
    pub by: String,
}

/// Why a node can't write, as a person saw to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Statement {
    /// It has no power.
    PoweredOff,
    /// Its power was off, and is on again since.
    PowerCycled,
    /// It runs, perhaps, and reaches neither any storage nor the network.
    DisconnectedFromStorageAndNetwork,
    /// It is not there any more.
    HardwareRemoved,
}

/// Whether a node's workloads may be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Decision {
    /// They may.
    Approve,
    /// They may not.
    Deny,
}

/// What became of a confirmation. Written once, by the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::verdict()))]
pub struct RemediationConfirmationStatus {
    /// Whether it counts. Absent: it was not looked at yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Verdict")]
    pub verdict: Option<Verdict>,
    /// A stable code: `Accepted`, `Denied`, or why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub reason: Option<String>,
    /// The same in words, with what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub message: Option<String>,
    /// When it was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub at: Option<MicroTime>,
}

/// What the operator made of a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// It is taken as true.
    Accepted,
    /// The release was denied.
    Denied,
    /// It does not count.
    Refused,
}

/// What a remediation asks a person: `status.request`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmationRequest {
    /// Names this request; a later one of the same remediation has another.
    #[serde(default)]
    pub id: String,
    /// The node's name.
    #[serde(default)]
    pub node_name: String,
    /// The UID of the Node object.
    #[serde(default, rename = "nodeUID")]
    pub node_uid: String,
    /// The boot that the node was last seen in.
    #[serde(default, rename = "bootID", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub boot_id: Option<String>,
    /// When the node last showed life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_heartbeat: Option<Time>,
    /// Since when a person is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub opened_at: Option<MicroTime>,
    /// What two nodes would write to if the word were wrong: volumes and StatefulSet pods; bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at_risk: Vec<String>,
    /// What to do, and what to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub instructions: Option<String>,
}

/// A confirmation as it is listed: one that can't be read must not make all the others unreadable.
pub type GuardedConfirmation = kube::core::DeserializeGuard<RemediationConfirmation>;

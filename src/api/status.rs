//! What the controller writes: the status of a remediation and of a template.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfirmationRequest, Driver, Statement, schema};

/// How many entries the timeline keeps: a remediation in order has about eight, and a status is rewritten whole.
pub const TIMELINE_MAX: usize = 32;

/// Where a remediation stands, for people, for NHC, and for the leader that resumes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FenceAgentsRemediationStatus {
    /// Conditions under FAR's names and with FAR's meaning for NHC, and a few more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// The phase: Accepted, Isolating, Proving, Releasing, Restoring, Done or Halted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub phase: Option<String>,

    /// What is going on, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub message: Option<String>,

    /// The node, as it was when the remediation was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "NodeIdentity")]
    pub node: Option<NodeIdentity>,

    /// The attempt that is under way, or was the last; the first is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32")]
    pub attempt: Option<i32>,

    /// What was begun and is not settled yet. Written before the side effect that it announces; holds no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Operation")]
    pub operation: Option<Operation>,

    /// What the node was proven off by: a record for people. It licenses nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ProofRecord")]
    pub proof: Option<ProofRecord>,

    /// Which level is acted on, where there are several: 1 is the spec's own agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32")]
    pub level: Option<i32>,

    /// What a person is asked, where no device can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ConfirmationRequest")]
    pub request: Option<ConfirmationRequest>,

    /// What still keeps the remediation from going on, one thing an entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocking: Vec<String>,

    /// What happened, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<TimelineEntry>,

    /// When this status last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_update_time: Option<Time>,
}

/// Which node a remediation is about: a name may be given again, a UID is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeIdentity {
    /// The node's name.
    #[serde(default)]
    pub name: String,
    /// The UID of the Node object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub uid: Option<String>,
    /// The machine's SMBIOS UUID, as the kubelet reports it.
    #[serde(default, rename = "systemUUID", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub system_uuid: Option<String>,
    /// The boot that was fenced.
    #[serde(default, rename = "bootIDBefore", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub boot_id_before: Option<String>,
}

/// What a resumed leader needs to go on and never to repeat blindly. Times are of the wall clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// The pinned order of the first level: every command and every look uses this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Order")]
    pub order: Option<Order>,
    /// Another Node said the order's system UUID when the order was pinned: it tells neither.
    #[serde(default, rename = "sharedUUID", skip_serializing_if = "std::ops::Not::not")]
    pub shared_uuid: bool,
    /// Which level is acted on; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32")]
    pub level: Option<i32>,
    /// The levels that were begun, in their order, once there is more than the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<BegunLevel>,
    /// The node's signs of life when a person was asked, to be compared with later ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub pulse: Option<String>,
    /// What the order was resolved from: the spec's generation and the resource versions of the Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub inputs: Option<String>,
    /// Counts entries into a phase; the seal names it.
    #[serde(default)]
    pub entry: i64,
    /// The attempt that is under way, or was the last.
    #[serde(default)]
    pub attempt: i32,
    /// When the phase was entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub phase_since: Option<MicroTime>,
    /// When `off` was last sent, or is about to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub sent_off_at: Option<MicroTime>,
    /// Whether an `off` of this remediation was answered with success.
    #[serde(default)]
    pub answered: bool,
    /// When the machine was read On after its current boot and before our `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub witnessed_on_at: Option<MicroTime>,
    /// When `on` was last sent, or is about to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub sent_on_at: Option<MicroTime>,
    /// Since when nothing of this remediation can be under way any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub quiet_at: Option<MicroTime>,
    /// How often `on` was sent.
    #[serde(default)]
    pub restore_attempt: i32,
    /// Whether the node was promised to its next remediation, so that nothing continues here.
    #[serde(default)]
    pub yielded: bool,
    /// What follows the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub then: Option<String>,
    /// What is released, taken once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Set")]
    pub set: Option<Set>,
    /// Why the remediation halted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub why: Option<String>,
    /// The action that was begun with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub action: Option<String>,
}

/// A level that was begun, or passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BegunLevel {
    /// The pinned orders of its devices; none if it was passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<Order>,
    /// Stable code of why it was given up, once it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub failed: Option<String>,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub said: Option<String>,
}

impl Operation {
    /// How many levels were begun or passed over.
    pub fn begun(&self) -> usize {
        self.levels.len().max(usize::from(self.order.is_some()))
    }

    /// The pinned orders of a level, counted from 1; none if it was not begun.
    pub fn orders(&self, level: u32) -> &[Order] {
        let index = usize::try_from(level).unwrap_or(usize::MAX).wrapping_sub(1);
        match self.levels.get(index) {
            Some(begun) => &begun.orders,
            // Of a remediation with one level, or with only one begun.
            None if index == 0 => self.order.as_slice(),
            None => &[],
        }
    }
}

/// Which device is told what, and which machine is expected behind it. Nothing of it is secret, even where it came
/// from a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The fence agent's name.
    pub agent: String,
    /// The implementation that it resolved to.
    pub driver: Driver,
    /// Where the device is: host and port, or the base URL.
    pub address: String,
    /// Which outlet or system of the device; for Redfish the path of the system. Absent: the device's only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub plug: Option<String>,
    /// The SMBIOS UUID that the machine is expected to have. Absent: none is expected.
    #[serde(default, rename = "systemUUID", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub system_uuid: Option<String>,
}

/// What is released: a set that is taken once, and does not grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Set {
    /// The node's pods, except mirror and DaemonSet pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<SetPod>,
    /// The names of the node's VolumeAttachments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_attachments: Vec<String>,
}

/// One pod of the set. The UID tells it from its replacement of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct SetPod {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
}

/// What a node was proven off by, for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProofRecord {
    /// The kind of proof, such as `PowerOff`.
    #[serde(default)]
    pub kind: String,
    /// What ties the reading to the machine: `Identity` or `Witness`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub binding: Option<String>,
    /// The fence agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub agent: Option<String>,
    /// The implementation that read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Driver")]
    pub driver: Option<Driver>,
    /// What was read, such as the URL of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub source: Option<String>,
    /// The UUID that the device gave for the machine.
    #[serde(default, rename = "systemUUID", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub system_uuid: Option<String>,
    /// Who says so, where it is a person's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub by: Option<String>,
    /// What that person says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Statement")]
    pub statement: Option<Statement>,
    /// When it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub confirmed_at: Option<Time>,
    /// When the machine was first read off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub first_seen_off: Option<MicroTime>,
    /// When the machine was last read off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_seen_off: Option<MicroTime>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TimelineEntry {
    /// When it happened.
    #[schemars(schema_with = "schema::time")]
    pub at: MicroTime,
    /// The phase that it happened in.
    #[serde(default)]
    pub phase: String,
    /// What happened, in a few words.
    #[serde(default)]
    pub message: String,
}

impl FenceAgentsRemediationStatus {
    /// Adds an entry to the timeline and drops the oldest ones beyond [`TIMELINE_MAX`].
    pub fn record(&mut self, entry: TimelineEntry) {
        self.timeline.push(entry);
        let surplus = self.timeline.len().saturating_sub(TIMELINE_MAX);
        self.timeline.drain(..surplus);
    }
}

/// What is known of the nodes that a template names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FenceAgentsRemediationTemplateStatus {
    /// Conditions; FAR's is `FenceAgentStatusValidationSucceeded`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Nodes whose parameters failed the status query, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub validation_failed: BTreeMap<String, String>,
    /// Nodes whose parameters passed the status query.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub validation_passed: BTreeMap<String, String>,
    /// Whether each node could be fenced now, by name; the first thousand, those that could not before the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub nodes: Vec<TemplateNode>,
    /// How many nodes there are.
    #[serde(default)]
    pub total: i64,
    /// How many of them could be fenced.
    #[serde(default)]
    pub ready: i64,
    /// How many of them could not.
    #[serde(default)]
    pub failed: i64,
    /// When a device was last asked; written with the next change, or after some minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_check: Option<Time>,
}

/// What is known of one node through one template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateNode {
    /// The Node's name.
    pub name: String,
    /// Whether it could be fenced: its device answers, to this account, and is its own.
    #[serde(default)]
    pub ready: bool,
    /// A stable code: `Ready`, or why not.
    #[serde(default)]
    pub reason: String,
    /// The same in words, where there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub message: Option<String>,
    /// The fence agent.
    #[serde(default)]
    pub agent: String,
    /// The implementation that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Driver")]
    pub driver: Option<Driver>,
    /// What the device last said of the power: `On`, `Off`, or its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub power: Option<String>,
    /// The UUID that the device gave for the machine.
    #[serde(default, rename = "systemUUID", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub system_uuid: Option<String>,
    /// When the device was last asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub checked_at: Option<Time>,
    /// How long it took to answer, as a Go duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::string")]
    pub latency: Option<String>,
}

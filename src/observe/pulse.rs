//! The node's own signs of life: Lease, Ready heartbeat, boot ID (P3).

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt};

use super::look::Seeing;
use super::memory::Series;
use super::{Error, Observer};
use crate::cluster::call;
use crate::confirm;
use crate::decide::{Now, Reading, Time};

/// Where kubelets renew their Leases.
const LEASES: &str = "kube-node-lease";

/// What changes when, and only when, the node's kubelet speaks. (The node-lifecycle controller changes the Ready
/// condition's status, never its heartbeat.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pulse {
    pub lease: String,
    pub heartbeat: String,
    pub boot_id: String,
}

/// A reading with what is remembered of those before it, and of the node.
pub(super) struct Felt {
    pub reading: Reading,
    pub series: Option<Series>,
    /// When the node last showed life.
    pub life: Time,
    /// Its signs of life, as text.
    pub pulse: String,
}

/// A node's signs of life, and what they were read from.
#[derive(Default)]
pub(super) struct Life {
    pub pulse: Pulse,
    pub lease: Option<Lease>,
    pub node: Option<Node>,
}

impl Life {
    /// When the node last renewed its Lease, by the API server's clock.
    pub fn last_beat(&self) -> Option<Time> {
        self.lease.as_ref().and_then(confirm::last_renewal)
    }
}

impl Pulse {
    fn of(lease: Option<&Lease>, node: Option<&Node>) -> Self {
        let status = node.and_then(|node| node.status.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        let heartbeat = ready.and_then(|c| c.last_heartbeat_time.as_ref()).map(|t| t.0.to_string()).unwrap_or_default();
        let boot_id = status.and_then(|status| status.node_info.as_ref()).map(|info| info.boot_id.clone());
        let lease = lease.and_then(ResourceExt::resource_version).unwrap_or_default();
        Self { lease, heartbeat, boot_id: boot_id.unwrap_or_default() }
    }

    /// All of it, to be compared with what it once was.
    pub(super) fn as_text(&self) -> String {
        format!("{} {} {}", self.lease, self.heartbeat, self.boot_id)
    }
}

impl Observer {
    /// Feels the node's pulse after the look, and adds both to what is remembered. `expected`: the UID that the Node had before the
    /// look. If it has another by now, nothing is decided on what was read (L3).
    pub(super) async fn remember(
        &self,
        uid: &str,
        node: &str,
        listens: bool,
        seen: &Seeing,
        expected: Option<&str>,
    ) -> Result<Felt, Error> {
        let Seeing { reading, read_at, .. } = *seen;
        // As old as the reading itself, whatever else was asked after it (P4).
        let now = self.clock.now();
        let now = Now { mono: read_at.map_or(now.mono, |read_at| self.clock.mono(read_at)), ..now };
        let life = if listens { Some(self.life(node).await?) } else { None };
        let uid_of = |life: &Life| life.node.as_ref().and_then(|node| node.metadata.uid.clone());
        if expected.is_some() && life.as_ref().is_some_and(|life| uid_of(life).as_deref() != expected) {
            return Err(Error::Moving);
        }
        let pulse = life.map(|life| life.pulse);
        let text = pulse.as_ref().map(Pulse::as_text).unwrap_or_default();
        let (series, life) = self.memories.add(uid, reading, pulse, now);
        let reading = match (reading, series) {
            (Reading::Isolated { .. }, Some(Series { first, last })) => Reading::Isolated { first, last },
            (Reading::Isolated { .. }, None) => Reading::Unknown,
            (Reading::Running | Reading::Unknown | Reading::Refused, _) => reading,
        };
        Ok(Felt { reading, series, life, pulse: text })
    }

    /// Reads what a node says of itself.
    pub(super) async fn life(&self, node: &str) -> Result<Life, Error> {
        if node.is_empty() {
            return Ok(Life::default());
        }
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), LEASES);
        let nodes: Api<Node> = Api::all(self.client.clone());
        let (lease, node) = tokio::try_join!(
            call("reading the node's Lease", leases.get_opt(node)),
            call("reading the node's heartbeat", nodes.get_opt(node)),
        )?;
        Ok(Life { pulse: Pulse::of(lease.as_ref(), node.as_ref()), lease, node })
    }
}

//! The node's own signs of life: Lease, Ready heartbeat, boot ID (P3).

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt};

use super::memory::Series;
use super::{Error, Observer, Reading};
use crate::cluster::call;
use crate::decide::{Now, Time};
use crate::isolate::Sight;

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

impl Observer {
    /// Feels the node's pulse after the look, and adds both to what is remembered. `expected`: the UID that the Node had before the
    /// look. If it has another by now, nothing is decided on what was read (L3).
    pub(super) async fn remember(
        &self,
        uid: &str,
        node: &str,
        listens: bool,
        sight: Option<&Sight>,
        expected: Option<&str>,
    ) -> Result<(Reading, Option<Series>, Time), Error> {
        let reading = sight.map_or(Reading::Unknown, Reading::from);
        // As old as the reading itself, whatever else was asked after it (P4).
        let now = self.clock.now();
        let now = Now { mono: sight.map_or(now.mono, |sight| self.clock.mono(sight.read_at)), ..now };
        let pulse = if listens { Some(self.pulse(node, expected).await?) } else { None };
        let (series, life) = self.memories.add(uid, reading, pulse, now);
        let reading = match (reading, series) {
            (Reading::Isolated { .. }, Some(Series { first, last })) => Reading::Isolated { first, last },
            (Reading::Isolated { .. }, None) => Reading::Unknown,
            (Reading::Running | Reading::Unknown | Reading::Refused, _) => reading,
        };
        Ok((reading, series, life))
    }

    async fn pulse(&self, node: &str, expected: Option<&str>) -> Result<Pulse, Error> {
        if node.is_empty() {
            return Ok(Pulse::default());
        }
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), LEASES);
        let nodes: Api<Node> = Api::all(self.client.clone());
        let (lease, node) = tokio::try_join!(
            call("reading the node's Lease", leases.get_opt(node)),
            call("reading the node's heartbeat", nodes.get_opt(node)),
        )?;
        if expected.is_some() && node.as_ref().and_then(|node| node.metadata.uid.as_deref()) != expected {
            return Err(Error::Moving);
        }
        let status = node.and_then(|node| node.status).unwrap_or_default();
        let ready = status.conditions.unwrap_or_default().into_iter().find(|c| c.type_ == "Ready");
        let heartbeat = ready.and_then(|c| c.last_heartbeat_time).map(|t| t.0.to_string()).unwrap_or_default();
        let boot_id = status.node_info.map(|info| info.boot_id).unwrap_or_default();
        Ok(Pulse { lease: lease.and_then(|lease| lease.resource_version()).unwrap_or_default(), heartbeat, boot_id })
    }
}

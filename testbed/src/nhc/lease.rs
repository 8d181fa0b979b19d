//! The lease of a node under remediation, by which medik8s' operators keep out of each other's way.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Error, ResourceExt};
use serde_json::json;

/// How long a step without a time-out counts for.
pub(super) const CLASSIC: Duration = Duration::from_mins(10);
/// What a lease lasts beyond the step that it is for.
const BEYOND: Duration = Duration::from_mins(1);
/// A lease is held for as many times a step, and given up then: obtained once, and extended twice.
const TIMES: u32 = 3;

/// Whoever leases nodes.
pub(super) struct Lessee {
    pub leases: Api<Lease>,
    pub holder: String,
}

impl Lessee {
    /// Takes the node's lease, or has it already. False: another has it.
    pub async fn obtain(&self, node: &Node, step: Duration) -> Result<bool> {
        let now = Timestamp::now();
        let Some(mut lease) = self.get(&node.name_any()).await? else {
            let owner = json!({"apiVersion": "v1", "kind": "Node", "name": node.name_any(), "uid": node.uid()});
            let metadata = json!({"name": name_of(&node.name_any()), "ownerReferences": [owner]});
            let mut lease: Lease = serde_json::from_value(json!({"metadata": metadata, "spec": {}}))?;
            self.hold(&mut lease, step, now, true);
            return match self.leases.create(&PostParams::default(), &lease).await {
                Ok(_) => Ok(true),
                Err(Error::Api(status)) if status.code == 409 => Ok(false),
                Err(error) => Err(error).context("creating a lease"),
            };
        };
        let ours = self.holds(&lease);
        if !ours && until(&lease).is_some_and(|until| until >= now) {
            return Ok(false);
        }
        if ours && until(&lease).is_some_and(|until| until >= now + signed(step)) {
            return Ok(true);
        }
        self.hold(&mut lease, step, now, !ours);
        match self.leases.replace(&lease.name_any(), &PostParams::default(), &lease).await {
            Ok(_) => Ok(true),
            Err(Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error).context("renewing a lease"),
        }
    }

    /// Extends the lease while the step goes on. False: it was held for too long, and is given up.
    pub async fn keep(&self, node: &Node, step: Duration, before: Duration) -> Result<bool> {
        let lease = self.get(&node.name_any()).await?.filter(|lease| self.holds(lease));
        let acquired = lease.as_ref().and_then(|lease| lease.spec.as_ref()?.acquire_time.as_ref());
        let Some(acquired) = acquired else { return Ok(true) };
        if Timestamp::now() > acquired.0 + signed(step * TIMES + before) {
            self.release(&node.name_any()).await?;
            return Ok(false);
        }
        self.obtain(node, step).await?;
        Ok(true)
    }

    /// Deletes the lease if it is ours.
    pub async fn release(&self, node: &str) -> Result<()> {
        let Some(lease) = self.get(node).await?.filter(|lease| self.holds(lease)) else { return Ok(()) };
        match self.leases.delete(&lease.name_any(), &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error).context("deleting a lease"),
        }
    }

    async fn get(&self, node: &str) -> Result<Option<Lease>> {
        self.leases.get_opt(&name_of(node)).await.context("reading a lease")
    }

    fn holds(&self, lease: &Lease) -> bool {
        lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.holder)
    }

    fn hold(&self, lease: &mut Lease, step: Duration, now: Timestamp, anew: bool) {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(self.holder.clone());
        spec.lease_duration_seconds = i32::try_from((step + BEYOND).as_secs()).ok();
        spec.renew_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(now));
        if anew {
            spec.acquire_time.clone_from(&spec.renew_time);
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |count| count + 1));
        }
    }
}

fn name_of(node: &str) -> String {
    format!("node-{node}").to_lowercase()
}

fn until(lease: &Lease) -> Option<Timestamp> {
    let spec = lease.spec.as_ref()?;
    Some(spec.renew_time.as_ref()?.0 + SignedDuration::from_secs(spec.lease_duration_seconds?.into()))
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

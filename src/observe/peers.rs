//! Other remediations and other nodes: who holds this node, who waits for it, and whether the control plane can do
//! without it.

use agents::SystemUuid;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::{Error, Observer};
use crate::api::{EXCLUDE, FenceAgentsRemediation, Guarded};
use crate::breaker::Answer;
use crate::clock::millis;
use crate::cluster::call;
use crate::decide::{Claim, Held, Hold, Member, Phase, Time, Why, majority};
use crate::{marks, status};

/// Another remediation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Labels of control-plane nodes; the second is the one before Kubernetes 1.20.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

impl Observer {
    /// Tells who holds the node (A1). A claim of a remediation that no longer exists is nobody's.
    pub(super) async fn claim(
        &self,
        uid: &str,
        phase: Phase,
        node: Option<&Node>,
    ) -> Result<(Claim, Option<Peer>), Error> {
        let Some(node) = node else { return Ok((Claim::Free, None)) };
        match marks::claimed_by(node) {
            // The taint that upstream left with a remediation it had finished: taken off when that one is deleted.
            None if matches!(phase, Phase::Done { .. }) && marks::tainted(node).is_some() => Ok((Claim::Ours, None)),
            None => Ok((Claim::Free, None)),
            // Begun without the taint: claimed again, which puts it back.
            Some(holder) if holder == uid && phase == Phase::Accepted && marks::tainted(node).is_none() => {
                Ok((Claim::Free, None))
            }
            Some(holder) if holder == uid => Ok((Claim::Ours, None)),
            Some(holder) => {
                // Also one that can't be read: it is there, and may be at work.
                let all = self.all_remediations().await?;
                Ok(match all.into_iter().find(|far| far.uid().as_deref() == Some(holder)) {
                    None => (Claim::Free, None),
                    Some(far) => {
                        let peer = Peer { namespace: far.namespace().unwrap_or_default(), name: far.name_any() };
                        (Claim::Others, Some(peer))
                    }
                })
            }
        }
    }

    /// Returns the UID of the oldest remediation that waits for our node (L6).
    pub(super) async fn heir(&self, ours: &FenceAgentsRemediation) -> Result<Option<String>, Error> {
        let all = self.remediations().await?;
        let waiting = all.into_iter().filter(|far| {
            far.uid() != ours.uid()
                && node_of(far) == node_of(ours)
                && far.metadata.deletion_timestamp.is_none()
                && !far.nhc_timed_out()
                && halted(far) == Some(Why::Busy)
        });
        let oldest = waiting.min_by_key(|far| (far.creation_timestamp().map(|t| t.0), far.uid()));
        Ok(oldest.and_then(|far| far.uid()))
    }

    /// Tells what stands against an off for now, and who that is.
    pub(super) async fn hold(
        &self,
        far: &FenceAgentsRemediation,
        phase: Phase,
        node: Option<&Node>,
    ) -> Result<(Option<Hold>, Option<String>), Error> {
        let excluded = node.and_then(|node| node.labels().get(EXCLUDE)).is_some_and(|value| value == "true");
        if excluded {
            return Ok((Some(Hold::Excluded), None));
        }
        if let Some(node) = node
            && let Some((hold, who)) = self.holds.on(&self.client, node, self.clock.timestamp()).await?
        {
            return Ok((Some(hold), Some(who)));
        }
        let quorum = self.quorum(far, phase, node).await?;
        Ok(((!quorum).then_some(Hold::Quorum), None))
    }

    /// The same before anything was sent, and whether the remediation is counted already.
    pub(super) async fn may_begin(
        &self,
        far: &FenceAgentsRemediation,
        phase: Phase,
        node: Option<&Node>,
    ) -> Result<(Option<Hold>, Option<String>, bool), Error> {
        let (hold, by) = self.hold(far, phase, node).await?;
        let (None, Some(node)) = (hold, node) else { return Ok((hold, by, true)) };
        Ok(match self.breaker.ask(&self.client, far, node, self.clock.now().wall).await? {
            Answer::Admitted => (None, None, true),
            Answer::Free | Answer::Trips => (None, None, false),
            Answer::Waits(why) => (Some(Hold::Budget), Some(why.to_string()), false),
        })
    }

    /// Tells whether the control plane keeps its majority without this node (A3).
    async fn quorum(&self, far: &FenceAgentsRemediation, phase: Phase, node: Option<&Node>) -> Result<bool, Error> {
        let Some(node) = node.filter(|node| is_control_plane(node)) else { return Ok(true) };
        if far.spec.allow_control_plane_quorum_loss {
            return Ok(true);
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        let all = call("listing the nodes", nodes.list(&ListParams::default())).await?.items;
        let members: Vec<_> = all.into_iter().filter(is_control_plane).collect();
        // Read after the claims: whoever is seen to wait here goes on only after a count that sees our claim.
        let remediations = match members.iter().any(|other| marks::claimed_by(other).is_some()) {
            true => self.remediations().await?,
            false => vec![],
        };
        let phase_of = |uid: &str| {
            let holder = remediations.iter().find(|far| far.uid().as_deref() == Some(uid))?;
            status::phase(holder.status.as_ref()).ok().flatten()
        };
        let held = |node: &Node, phase: &dyn Fn(&str) -> Option<Phase>| {
            let uid = marks::claimed_by(node).unwrap_or_default();
            marks::tainted(node)
                .map(|since| Held { since: (since.map_or(Time::MAX, millis), uid.to_owned()), phase: phase(uid) })
        };
        let others: Vec<_> = members
            .iter()
            .filter(|other| other.uid() != node.uid())
            .map(|other| Member { ready: ready(other), held: held(other, &phase_of) })
            .collect();
        Ok(majority(held(node, &|_| Some(phase)).as_ref(), &others))
    }

    /// Tells whether another Node says the same system UUID: then it is nobody's identity (P2).
    pub(super) async fn shares_its_uuid(&self, node: &Node) -> Result<bool, Error> {
        let uuid = |node: &Node| system_uuid(node).and_then(SystemUuid::parse);
        let Some(ours) = uuid(node) else { return Ok(false) };
        let nodes: Api<Node> = Api::all(self.client.clone());
        let all = call("listing the nodes", nodes.list(&ListParams::default())).await?.items;
        let others = all.iter().filter(|other| other.metadata.name != node.metadata.name);
        Ok(others.filter_map(uuid).any(|other| other.same_machine(&ours)))
    }

    async fn remediations(&self) -> Result<Vec<FenceAgentsRemediation>, Error> {
        Ok(self.all_remediations().await?.into_iter().filter_map(|far| far.0.ok()).collect())
    }

    async fn all_remediations(&self) -> Result<Vec<Guarded>, Error> {
        let api: Api<Guarded> = Api::all(self.client.clone());
        Ok(call("listing the remediations", api.list(&ListParams::default())).await?.items)
    }
}

/// The node that a remediation is about, as pinned when it was accepted.
pub(super) fn node_of(far: &FenceAgentsRemediation) -> &str {
    let pinned = far.status.as_ref().and_then(|status| status.node.as_ref()).map(|node| node.name.as_str());
    pinned.unwrap_or_else(|| far.node_name())
}

fn halted(far: &FenceAgentsRemediation) -> Option<Why> {
    match status::phase(far.status.as_ref()) {
        Ok(Some(Phase::Halted { why, .. })) => Some(why),
        Ok(_) | Err(_) => None,
    }
}

/// The system UUID that a Node says, in whatever notation.
pub(super) fn system_uuid(node: &Node) -> Option<&str> {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref())?;
    Some(info.system_uuid.as_str()).filter(|uuid| !uuid.is_empty())
}

fn is_control_plane(node: &Node) -> bool {
    CONTROL_PLANE.iter().any(|label| node.labels().contains_key(*label))
}

pub(super) fn ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

//! Power losses: a Node whose Lease is stale, and whose machine's BMC says Off, gets a condition that health checks may act
//! upon at once. It proves nothing and releases nothing: it only calls the fencer sooner.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::cluster::{self, call};
use crate::events::{Events, Kind};

/// The type of the condition.
pub const POWERED_OFF: &str = "ringfence.dev/PoweredOff";
/// Where kubelets renew their Leases.
pub(super) const LEASES: &str = "kube-node-lease";
/// Kubelets renew every 10 s, with a jitter of 4 % (nodeLeaseRenewIntervalFraction): this late, a renewal was missed. Sooner than
/// what a proof waits for (P3): nothing rests on it, and the BMC must say Off as well.
pub(super) const STALE: Duration = Duration::from_secs(12);

/// When each node's Lease was last seen to change. By this process's own clock: no other's is believed.
#[derive(Default)]
pub(super) struct Beats {
    seen: HashMap<String, (Option<String>, Instant)>,
    /// Those found stale, and not heard of since.
    stale: BTreeSet<String>,
    /// Those heard of at least once, and not stale.
    alive: BTreeSet<String>,
}

impl Beats {
    /// Takes a Lease as it is now. True if that is a sign of life.
    pub(super) fn beat(&mut self, node: &str, version: Option<String>, now: Instant) -> bool {
        let known = self.seen.get(node);
        if known.is_some_and(|(known, _)| *known == version) {
            return false;
        }
        let first = known.is_none();
        self.seen.insert(node.to_owned(), (version, now));
        self.stale.remove(node);
        // The first may be as old as the hills.
        if !first {
            self.alive.insert(node.to_owned());
        }
        !first
    }

    /// The Lease is gone, and its Node with it.
    pub(super) fn gone(&mut self, node: &str) {
        self.seen.remove(node);
        self.stale.remove(node);
        self.alive.remove(node);
    }

    /// Returns the nodes that have become stale since it was last asked.
    pub(super) fn newly_stale(&mut self, now: Instant) -> Vec<String> {
        let late = self.seen.iter().filter(|(_, (_, at))| now.saturating_duration_since(*at) >= STALE);
        let new: Vec<_> = late.map(|(node, _)| node.clone()).filter(|node| !self.stale.contains(node)).collect();
        self.stale.extend(new.iter().cloned());
        self.alive.retain(|node| !new.contains(node));
        new
    }

    pub(super) fn is_stale(&self, node: &str) -> bool {
        self.stale.contains(node)
    }

    /// Tells whether it was heard of since this process began to listen, and is not stale.
    pub(super) fn is_alive(&self, node: &str) -> bool {
        self.alive.contains(node)
    }

    /// When the next one becomes stale, if none is heard of.
    pub(super) fn next(&self) -> Option<Instant> {
        self.seen.iter().filter(|(node, _)| !self.stale.contains(*node)).map(|(_, (_, at))| *at + STALE).min()
    }
}

/// Writes the condition.
pub(super) struct Marker<'a> {
    pub client: &'a Client,
    pub clock: &'a Clock,
    pub events: &'a Events,
}

impl Marker<'_> {
    /// Puts the condition on a Node.
    ///
    /// # Errors
    /// The API server's.
    pub(super) async fn mark(&self, node: &str, uid: &str, through: &str) -> Result<(), cluster::Error> {
        let message = format!("its Lease is stale, and the machine's power was read Off ({through})");
        let mut patch = marked(&message, self.clock.timestamp());
        // Not on another Node that has the name meanwhile: 409 then.
        patch["metadata"] = json!({ "uid": uid });
        self.patch(node, patch).await?;
        tracing::info!(node, "{message}");
        self.events.publish(&about(node), Kind::Warning, "PoweredOff", &message);
        Ok(())
    }

    /// Takes it off again.
    ///
    /// # Errors
    /// The API server's; a Node that is gone is none.
    pub(super) async fn unmark(&self, node: &str, why: &str) -> Result<(), cluster::Error> {
        let gone = json!({"status": {"conditions": [{"type": POWERED_OFF, "$patch": "delete"}]}});
        match self.patch(node, gone).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                tracing::info!(node, "no longer taken for powered off: {why}");
                self.events.publish(&about(node), Kind::Normal, "PoweredOn", why);
                Ok(())
            }
        }
    }

    /// Conditions are merged by type: nobody else's is touched.
    async fn patch(&self, node: &str, patch: Value) -> Result<(), cluster::Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
        call("writing the Node's condition", api.patch_status(node, &params, &patch)).await.map(drop)
    }
}

fn marked(message: &str, now: Timestamp) -> Value {
    // The API's time is of whole seconds.
    let now = format!("{now:.0}");
    json!({"status": {"conditions": [{
        "type": POWERED_OFF, "status": "True", "reason": "PowerReadOff", "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    }]}})
}

/// Events on Nodes carry the name as UID.
fn about(node: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".to_owned()),
        api_version: Some("v1".to_owned()),
        name: Some(node.to_owned()),
        uid: Some(node.to_owned()),
        ..ObjectReference::default()
    }
}

/// Tells whether a Node carries the condition.
pub(super) fn is_marked(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == POWERED_OFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_stale_when_it_was_not_renewed() {
        let (start, mut beats) = (Instant::now(), Beats::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let version = |text: &str| Some(text.to_owned());
        assert!(!beats.beat("n", version("1"), at(0)), "seen for the first time: of whatever age");
        assert_eq!(beats.next(), Some(at(12)));
        assert!(!beats.beat("n", version("1"), at(10)), "listed again: the same");
        assert!(beats.newly_stale(at(11)).is_empty());
        assert_eq!(beats.newly_stale(at(12)), ["n"]);
        assert!(beats.newly_stale(at(13)).is_empty(), "told once");
        assert!(beats.is_stale("n") && !beats.is_alive("n"));
        assert_eq!(beats.next(), None);
        assert!(beats.beat("n", version("2"), at(20)));
        assert!(!beats.is_stale("n") && beats.is_alive("n"));
        assert_eq!(beats.next(), Some(at(32)));
        beats.gone("n");
        assert!(beats.newly_stale(at(99)).is_empty());
    }

    #[test]
    fn the_condition_has_the_apis_whole_seconds() {
        let patch = marked("m", Timestamp::from_millisecond(1_500).expect("a time"));
        assert_eq!(patch["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:01Z");
    }
}

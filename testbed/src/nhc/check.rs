//! How well a node is.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

/// One of `unhealthyConditions`: a condition that has had this status for so long.
#[derive(Clone, Debug)]
pub struct Unhealthy {
    /// `type`.
    pub type_: String,
    /// `status`.
    pub status: String,
    /// `duration`.
    pub duration: Duration,
}

/// How many of the selected nodes must be healthy before any is remediated.
#[derive(Clone, Copy, Debug)]
pub enum MinHealthy {
    /// So many.
    Count(usize),
    /// Such a share of them, rounded up.
    Percent(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Well,
    /// A condition has turned, and not yet for long enough: whatever is under way is left alone.
    Soon,
    Ill,
}

impl MinHealthy {
    pub(super) fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (total * percent).div_ceil(100),
        }
    }
}

pub(super) fn health(node: &Node, unhealthy: &[Unhealthy], now: Timestamp) -> Health {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ages = conditions.iter().flat_map(|condition| {
        let same = |ill: &&Unhealthy| ill.type_ == condition.type_ && ill.status == condition.status;
        let since = condition.last_transition_time.as_ref().map_or(now, |at| at.0);
        unhealthy.iter().filter(same).map(move |ill| now.duration_since(since) - lasting(ill.duration))
    });
    match ages.max() {
        None => Health::Well,
        Some(over) if over < SignedDuration::ZERO => Health::Soon,
        Some(_) => Health::Ill,
    }
}

pub(super) fn excluded(node: &Node) -> bool {
    node.labels().get("remediation.medik8s.io/exclude-from-remediation").is_some_and(|value| value == "true")
}

pub(super) fn is_control_plane(node: &Node) -> bool {
    ["control-plane", "master"]
        .iter()
        .any(|role| node.labels().contains_key(&format!("node-role.kubernetes.io/{role}")))
}

fn lasting(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_must_last() {
        let node = json!({"status": {"conditions": [
            {"type": "Ready", "status": "Unknown", "lastTransitionTime": "2026-04-01T10:00:00Z"},
            {"type": "DiskPressure", "status": "False", "lastTransitionTime": "2026-04-01T09:00:00Z"},
        ]}});
        let node: Node = serde_json::from_value(node).expect("a Node");
        let ill = |type_: &str, status: &str, seconds| Unhealthy {
            type_: type_.to_owned(),
            status: status.to_owned(),
            duration: Duration::from_secs(seconds),
        };
        let now = "2026-04-01T10:00:30Z".parse().expect("a time");
        for (unhealthy, expected) in [
            (vec![ill("Ready", "Unknown", 30)], Health::Ill),
            (vec![ill("Ready", "Unknown", 31)], Health::Soon),
            (vec![ill("Ready", "False", 1), ill("DiskPressure", "True", 1)], Health::Well),
            (vec![ill("Ready", "Unknown", 31), ill("DiskPressure", "False", 1)], Health::Ill),
        ] {
            assert_eq!(health(&node, &unhealthy, now), expected, "{unhealthy:?}");
        }
        assert_eq!(
            (MinHealthy::Percent(51).of(3), MinHealthy::Percent(51).of(100), MinHealthy::Count(1).of(9)),
            (2, 51, 1)
        );
    }
}

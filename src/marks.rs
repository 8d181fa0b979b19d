//! What Ringfence writes on a Node: the claim, the barrier and the seal. Read from a Node, and written as one merge patch
//! that carries the Node's resourceVersion.
//!
//! Invariant (S2, S4): every patch made here holds `metadata.resourceVersion` and, where taints change, the whole list:
//! a Node that has changed since it was read answers 409, and an administrator's taints survive.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api::{OUT_OF_SERVICE_TAINT, OUT_OF_SERVICE_VALUE, REMEDIATION_TAINT};

/// Key of our own NoExecute taint: the barrier of `ResourceDeletion`, and wherever an administrator's out-of-service
/// taint stands already.
pub const ISOLATED_TAINT: &str = "ringfence.dev/isolated";
/// UID of the remediation that holds the node (A1).
pub const CLAIM: &str = "ringfence.dev/claim";
/// Set while the out-of-service taint is ours, not an administrator's.
pub const BARRIER: &str = "ringfence.dev/barrier";
/// "UID/entry" of the remediation that last sealed the node (S2). It stays: the last trace of the last remediation.
pub const SEAL: &str = "ringfence.dev/seal";

/// Key of the NoExecute taint of FAR up to 0.6. Later ones put another there, and leave this one behind.
const OLD_TAINT: &str = "medik8s.io/fence-agents-remediation";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Returns the UID of the remediation that claims the node.
pub fn claimed_by(node: &Node) -> Option<&str> {
    node.annotations().get(CLAIM).map(String::as_str)
}

/// Returns since when the node has carried the NoSchedule taint, if it does; `None` inside for a taint without a time.
pub fn tainted(node: &Node) -> Option<Option<Timestamp>> {
    taints(node).iter().find(|t| is(t, REMEDIATION_TAINT, NO_SCHEDULE)).map(|t| t.time_added.as_ref().map(|t| t.0))
}

/// Tells whether a NoExecute taint of ours is on the node.
pub fn barred(node: &Node) -> bool {
    taints(node).iter().any(|taint| is_barrier(node, taint))
}

/// Tells whether the node's seal names this entry of this remediation.
pub fn sealed(node: &Node, uid: &str, entry: i64) -> bool {
    node.annotations().get(SEAL).is_some_and(|seal| *seal == seal_of(uid, entry))
}

/// Claims the node: NoSchedule taint and annotation in one write.
pub fn claim(node: &Node, uid: &str, now: Timestamp) -> Value {
    let mut taints = taints(node).to_vec();
    if tainted(node).is_none() {
        taints.push(taint(REMEDIATION_TAINT, None, NO_SCHEDULE, now));
    }
    patch(node, json!({ CLAIM: uid }), Some(taints))
}

/// Gives the claim to another remediation; the taint stays (L6).
pub fn hand_over(node: &Node, heir: &str) -> Value {
    patch(node, json!({ CLAIM: heir }), None)
}

/// Puts the barrier up (R1).
pub fn bar(node: &Node, out_of_service: bool, now: Timestamp) -> Value {
    let mut all = taints(node).to_vec();
    let ours = bars_with_out_of_service(node, out_of_service);
    if !all.iter().any(|taint| is_barrier(node, taint)) {
        all.push(match ours {
            true => taint(OUT_OF_SERVICE_TAINT, Some(OUT_OF_SERVICE_VALUE), NO_EXECUTE, now),
            false => taint(ISOLATED_TAINT, None, NO_EXECUTE, now),
        });
    }
    patch(node, if ours { json!({ BARRIER: OUT_OF_SERVICE_TAINT }) } else { json!({}) }, Some(all))
}

/// Tells whether the barrier is, or would be, the out-of-service taint, where the strategy wants that: an administrator's
/// own stays the administrator's, and then ours is another.
pub fn bars_with_out_of_service(node: &Node, wanted: bool) -> bool {
    let foreign = |t: &Taint| t.key == OUT_OF_SERVICE_TAINT && !is_barrier(node, t);
    wanted && !taints(node).iter().any(foreign)
}

/// Takes the barrier down (S1).
pub fn retract(node: &Node) -> Value {
    let taints = taints(node).iter().filter(|taint| !is_barrier(node, taint)).cloned().collect();
    patch(node, json!({ BARRIER: null }), Some(taints))
}

/// Seals the node for this entry of the phase: whatever was decided on an older Node now fails.
pub fn seal(node: &Node, uid: &str, entry: i64) -> Value {
    patch(node, json!({ SEAL: seal_of(uid, entry) }), None)
}

/// Takes claim and NoSchedule taint off, and seals in the same write.
pub fn unclaim(node: &Node, uid: &str, entry: i64) -> Value {
    let taints = taints(node).iter().filter(|t| !is(t, REMEDIATION_TAINT, NO_SCHEDULE)).cloned().collect();
    // Whatever out-of-service taint comes later is not ours.
    patch(node, json!({ CLAIM: null, BARRIER: null, SEAL: seal_of(uid, entry) }), Some(taints))
}

/// Makes the out-of-service taint that FAR put there our barrier, which is taken down as any of ours; `None` if there is none,
/// if it is ours already, or if it was there before `since`. The taint says nobody's name: that it is FAR's, the caller must
/// know.
pub fn adopt(node: &Node, since: Timestamp) -> Option<Value> {
    let added = |taint: &&Taint| taint.key == OUT_OF_SERVICE_TAINT && taint.effect == NO_EXECUTE;
    let added = taints(node).iter().find(added).and_then(|taint| taint.time_added.as_ref());
    let before = added.is_some_and(|added| added.0 < since);
    let foreign = out_of_service(node) && !before && !node.annotations().contains_key(BARRIER);
    foreign.then(|| patch(node, json!({ BARRIER: OUT_OF_SERVICE_TAINT }), None))
}

/// Tells whether a node that is Ready carries an out-of-service taint that is not ours: Kubernetes then takes its volumes
/// away while it runs.
pub fn out_of_service_though_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    ready && out_of_service(node) && !node.annotations().contains_key(BARRIER)
}

/// Tells whether the node carries the NoExecute taint of FAR up to 0.6.
pub fn has_old_taint(node: &Node) -> bool {
    taints(node).iter().any(|taint| is(taint, OLD_TAINT, NO_EXECUTE))
}

/// Takes the NoExecute taint of FAR up to 0.6 off.
pub fn without_old_taint(node: &Node) -> Value {
    let taints = taints(node).iter().filter(|taint| !is(taint, OLD_TAINT, NO_EXECUTE)).cloned().collect();
    patch(node, json!({}), Some(taints))
}

/// Takes everything of ours off a node whose remediation no longer exists.
pub fn abandon(node: &Node) -> Value {
    let ours = |t: &Taint| is(t, REMEDIATION_TAINT, NO_SCHEDULE) || is_barrier(node, t);
    let taints = taints(node).iter().filter(|taint| !ours(taint)).cloned().collect();
    patch(node, json!({ CLAIM: null, BARRIER: null, SEAL: null }), Some(taints))
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn out_of_service(node: &Node) -> bool {
    let fars = |t: &Taint| is(t, OUT_OF_SERVICE_TAINT, NO_EXECUTE) && t.value.as_deref() == Some(OUT_OF_SERVICE_VALUE);
    taints(node).iter().any(fars)
}

fn is(taint: &Taint, key: &str, effect: &str) -> bool {
    taint.key == key && taint.effect == effect
}

fn is_barrier(node: &Node, taint: &Taint) -> bool {
    is(taint, ISOLATED_TAINT, NO_EXECUTE)
        || (is(taint, OUT_OF_SERVICE_TAINT, NO_EXECUTE) && node.annotations().contains_key(BARRIER))
}

fn taint(key: &str, value: Option<&str>, effect: &str, now: Timestamp) -> Taint {
    Taint {
        key: key.to_owned(),
        value: value.map(str::to_owned),
        effect: effect.to_owned(),
        time_added: Some(Time(now)),
    }
}

fn seal_of(uid: &str, entry: i64) -> String {
    format!("{uid}/{entry}")
}

fn patch(node: &Node, annotations: Value, taints: Option<Vec<Taint>>) -> Value {
    let mut patch = json!({ "metadata": { "resourceVersion": node.resource_version(), "annotations": annotations } });
    if let Some(taints) = taints {
        patch["spec"] = json!({ "taints": taints });
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S4: whatever we put on or take off, the administrator's taints and annotations are still there.
    #[test]
    fn an_administrators_taints_survive() {
        let admins = json!([
            { "key": "maintenance", "effect": "NoExecute", "value": "disk" },
            { "key": OUT_OF_SERVICE_TAINT, "effect": "NoExecute", "value": "mine" }
        ]);
        for out_of_service in [false, true] {
            let mut node = node(&admins);
            let steps: [&dyn Fn(&Node) -> Value; 6] = [
                &|n| claim(n, "u1", now()),
                &|n| bar(n, out_of_service, now()),
                &|n| hand_over(n, "u2"),
                &|n| seal(n, "u2", 3),
                &retract,
                &|n| unclaim(n, "u2", 3),
            ];
            for (done, step) in steps.iter().enumerate() {
                assert_eq!((barred(&node), claimed_by(&node).is_some()), ((2..5).contains(&done), done > 0), "{done}");
                let patch = step(&node);
                apply(&mut node, patch);
                let left = serde_json::to_value(taints(&node)).unwrap();
                assert!(
                    admins.as_array().unwrap().iter().all(|t| left.as_array().unwrap().contains(t)),
                    "{done}: {left}"
                );
            }
            assert_eq!(serde_json::to_value(taints(&node)).unwrap(), admins);
            assert!(sealed(&node, "u2", 3) && !sealed(&node, "u2", 4));
        }
    }

    /// R1: the out-of-service taint is ours only while our annotation says so.
    #[test]
    fn a_barrier_is_told_from_an_administrators() {
        let mut node = node(&json!([]));
        let patch = bar(&node, true, now());
        apply(&mut node, patch);
        assert!(barred(&node));
        assert_eq!(taints(&node)[0].key, OUT_OF_SERVICE_TAINT);
        let patch = retract(&node);
        apply(&mut node, patch);
        assert!(taints(&node).is_empty() && !node.annotations().contains_key(BARRIER));
    }

    /// What FAR left behind is told from an administrator's, and becomes ours only when the caller knows that it is FAR's.
    #[test]
    fn what_far_left_is_found_and_adopted() {
        let admins = json!({ "key": OUT_OF_SERVICE_TAINT, "effect": "NoExecute", "value": "mine" });
        let fars = json!({ "key": OUT_OF_SERVICE_TAINT, "effect": "NoExecute", "value": OUT_OF_SERVICE_VALUE });
        assert!(
            adopt(&node(&json!([admins])), Timestamp::UNIX_EPOCH).is_none()
                && adopt(&node(&json!([])), Timestamp::UNIX_EPOCH).is_none()
        );
        let mut left = node(&json!([fars]));
        assert!(!barred(&left) && !out_of_service_though_ready(&left), "as long as the node is down");
        left.status = serde_json::from_value(json!({"conditions": [{"type": "Ready", "status": "True"}]})).unwrap();
        assert!(out_of_service_though_ready(&left));
        let later = Timestamp::from_second(1_800_000_000).expect("a time");
        let patch = adopt(&left, Timestamp::UNIX_EPOCH).expect("there is one");
        let timed = json!({ "key": OUT_OF_SERVICE_TAINT, "effect": "NoExecute", "value": OUT_OF_SERVICE_VALUE, "timeAdded": "2026-01-01T00:00:00Z" });
        assert!(adopt(&node(&json!([timed])), later).is_none(), "older than the remediation: an administrator's");
        assert!(adopt(&node(&json!([timed])), Timestamp::UNIX_EPOCH).is_some());
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        apply(&mut left, patch);
        assert!(barred(&left) && adopt(&left, Timestamp::UNIX_EPOCH).is_none() && !out_of_service_though_ready(&left));
        let patch = retract(&left);
        apply(&mut left, patch);
        assert!(taints(&left).is_empty());
    }

    #[test]
    fn the_old_taint_goes_alone() {
        let others = json!([
            { "key": OLD_TAINT, "effect": "NoSchedule" },
            { "key": REMEDIATION_TAINT, "effect": "NoSchedule" }
        ]);
        assert!(!has_old_taint(&node(&others)), "the effect is part of it");
        let mut all = others.as_array().unwrap().clone();
        all.push(json!({ "key": OLD_TAINT, "effect": "NoExecute" }));
        let mut old = node(&json!(all));
        assert!(has_old_taint(&old));
        let patch = without_old_taint(&old);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        apply(&mut old, patch);
        assert_eq!(serde_json::to_value(taints(&old)).unwrap(), others);
    }

    /// S2: a patch without the version that was read could land on a Node that has changed since.
    #[test]
    fn every_patch_carries_the_resource_version() {
        let node = node(&json!([]));
        let n = &node;
        let patches = [claim(n, "u", now()), hand_over(n, "v"), bar(n, true, now()), retract(n), abandon(n)];
        for patch in patches.into_iter().chain([seal(n, "u", 1), unclaim(n, "u", 1)]) {
            assert_eq!(patch["metadata"]["resourceVersion"], "7", "{patch}");
        }
    }

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn node(taints: &Value) -> Node {
        let metadata = json!({ "name": "n", "resourceVersion": "7", "annotations": { "mine": "kept" } });
        serde_json::from_value(json!({ "metadata": metadata, "spec": { "taints": taints } })).unwrap()
    }

    /// RFC 7386, as the API server does it.
    fn apply(node: &mut Node, patch: Value) {
        fn merge(target: &mut Value, patch: Value) {
            match patch {
                Value::Object(fields) => {
                    if !target.is_object() {
                        *target = json!({});
                    }
                    for (key, value) in fields {
                        match value.is_null() {
                            true => drop(target.as_object_mut().unwrap().remove(&key)),
                            false => merge(&mut target[&key], value),
                        }
                    }
                }
                other => *target = other,
            }
        }
        let mut value = serde_json::to_value(&*node).unwrap();
        merge(&mut value, patch);
        *node = serde_json::from_value(value).unwrap();
        assert_eq!(node.annotations()["mine"], "kept");
    }
}

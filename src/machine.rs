//! The Machine that a remediation is for, where MachineHealthCheck made it and named no node: a Machine knows its node.
//!
//! Knows OpenShift's Machines and Cluster API's, in whatever version their owner reference has: both keep the node's name in
//! `status.nodeRef`.

use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Client, ResourceExt};

use crate::api::{FenceAgentsRemediation, NODE_NAME_ANNOTATION};
use crate::cluster::{self, call};
use crate::resolve::is_object_name;

/// Whose Machines are known.
const GROUPS: [&str; 2] = ["machine.openshift.io", "cluster.x-k8s.io"];

/// Why the Machine of a remediation gives no node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNode {
    /// NHC's controller of MachineHealthChecks writes an empty annotation for a Machine without a node.
    #[error("the annotation {NODE_NAME_ANNOTATION} is empty: whoever made this remediation knows no node for it")]
    Unnamed,
    /// An owner reference knows no namespace but the object's own.
    #[error("there is no Machine {0} beside this remediation, which names it as its owner")]
    Missing(String),
    /// Another Machine under the same name.
    #[error("Machine {0} is not the one that owns this remediation: it has another UID")]
    Replaced(String),
    /// It was not provisioned, or has lost its node.
    #[error("Machine {0} has no node: its status.nodeRef is empty")]
    Nodeless(String),
    /// Which of them is meant, nobody can tell.
    #[error("this remediation has {0} Machines as owners: annotate it with the node's name")]
    Several(usize),
}

/// Returns the name of the node to fence: that of the annotation if there is one, else the node of the Machine that owns the
/// remediation, else the remediation's own name.
///
/// # Errors
/// The API server's. That the Machine gives no node is an answer, not an error.
pub async fn node_name(
    client: &Client,
    far: &FenceAgentsRemediation,
) -> Result<Result<String, NoNode>, cluster::Error> {
    let is_machine = |api_version: &str, kind: &str| {
        kind == "Machine" && api_version.split_once('/').is_some_and(|(group, _)| GROUPS.contains(&group))
    };
    let owners = far.owner_references().iter();
    let machines: Vec<_> = owners.filter(|owner| is_machine(&owner.api_version, &owner.kind)).collect();
    let owner = match machines.as_slice() {
        _ if far.annotations().contains_key(NODE_NAME_ANNOTATION) => {
            let name = far.node_name();
            return Ok(if name.is_empty() { Err(NoNode::Unnamed) } else { Ok(name.to_owned()) });
        }
        [] => return Ok(Ok(far.node_name().to_owned())),
        [owner] => owner,
        several => return Ok(Err(NoNode::Several(several.len()))),
    };
    let (group, version) = owner.api_version.split_once('/').unwrap_or_default();
    // Both become parts of a path.
    if !is_object_name(&owner.name) || !is_object_name(version) {
        return Ok(Err(NoNode::Missing(owner.name.chars().filter(|c| !c.is_control()).take(100).collect())));
    }
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        plural: "machines".to_owned(),
    };
    let namespace = far.namespace().unwrap_or_default();
    let machines: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
    let name = format!("{namespace}/{} ({})", owner.name, owner.api_version);
    Ok(match call("reading the Machine", machines.get_opt(&owner.name)).await? {
        None => Err(NoNode::Missing(name)),
        Some(machine) if machine.uid().as_deref() != Some(&owner.uid) => Err(NoNode::Replaced(name)),
        Some(machine) => match machine.data["status"]["nodeRef"]["name"].as_str() {
            Some(node) if !node.is_empty() => Ok(node.to_owned()),
            Some(_) | None => Err(NoNode::Nodeless(name)),
        },
    })
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    const OPENSHIFT: &str = "machine.openshift.io/v1beta1";
    const CAPI: &str = "cluster.x-k8s.io/v1beta2";

    #[tokio::test]
    async fn the_annotation_counts_then_the_machine_then_the_name() {
        let on =
            |name: &str| json!({"metadata": {"name": "m-1", "uid": "uid-1"}, "status": {"nodeRef": {"name": name}}});
        let annotated = |value: &str| json!({NODE_NAME_ANNOTATION: value});
        let good = || json!([owner(CAPI, "uid-1")]);
        let found = |name: &str| Ok(name.to_owned());
        let named = format!("ns/m-1 ({CAPI})");
        for (owners, annotations, machine, expected) in [
            (json!([]), json!({}), on("worker-1"), found("m-1")),
            (json!([]), annotated("worker-2"), on("worker-1"), found("worker-2")),
            (good(), annotated("worker-2"), on("worker-1"), found("worker-2")),
            (good(), annotated(""), on("worker-1"), Err(NoNode::Unnamed)),
            (good(), json!({}), on("worker-1"), found("worker-1")),
            (json!([owner(OPENSHIFT, "uid-1")]), json!({}), on("worker-1"), found("worker-1")),
            // Somebody else's idea of a Machine.
            (json!([owner("example.com/v1", "uid-1")]), json!({}), on("worker-1"), found("m-1")),
            (good(), json!({}), Value::Null, Err(NoNode::Missing(named.clone()))),
            (json!([owner(CAPI, "uid-0")]), json!({}), on("worker-1"), Err(NoNode::Replaced(named.clone()))),
            (good(), json!({}), on(""), Err(NoNode::Nodeless(named.clone()))),
            (good(), json!({}), json!({"metadata": {"name": "m-1", "uid": "uid-1"}}), Err(NoNode::Nodeless(named))),
            (
                json!([owner(CAPI, "uid-1"), owner(OPENSHIFT, "uid-1")]),
                json!({}),
                on("worker-1"),
                Err(NoNode::Several(2)),
            ),
        ] {
            let far = json!({
                "metadata": {"name": "m-1", "namespace": "ns", "annotations": annotations, "ownerReferences": owners},
                "spec": {"agent": "fence_redfish"},
            });
            let far: FenceAgentsRemediation = serde_json::from_value(far).expect("a remediation");
            assert_eq!(node_name(&client(machine), &far).await.expect("an answer"), expected, "{far:?}");
        }
    }

    fn owner(version: &str, uid: &str) -> Value {
        json!({"apiVersion": version, "kind": "Machine", "name": "m-1", "uid": uid})
    }

    /// An API server that has one Machine, `ns/m-1`, or none.
    fn client(machine: Value) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let paths = [OPENSHIFT, CAPI].map(|version| format!("/apis/{version}/namespaces/ns/machines/m-1"));
            let is_there = !machine.is_null() && paths.iter().any(|path| path == request.uri().path());
            let missing = json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found"});
            let (code, body) = if is_there { (200, machine.to_string()) } else { (404, missing.to_string()) };
            let response = Response::builder().status(code).body(Body::from(body.into_bytes()));
            async move { Ok::<_, std::convert::Infallible>(response.expect("a response")) }
        });
        Client::new(service, "default")
    }
}

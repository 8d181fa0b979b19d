use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-04-01T10:00:00Z";
const SNR: &str = "/apis/self-node-remediation.medik8s.io/v1alpha1/selfnoderemediations";
const METAL3: &str = "/apis/infrastructure.cluster.x-k8s.io/v1beta1/metal3remediations";

#[tokio::test(start_paused = true)]
async fn a_lease_in_force_is_waited_for_but_not_nhcs() {
    let lease = |holder: &str, renewed: &str, seconds: i64| json!({"spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": seconds}});
    for (lease, expected) in [
        (lease("node-maintenance", "2026-04-01T09:59:00.000000Z", 3600), Some("node-maintenance")),
        (lease("node-maintenance", "2026-04-01T09:59:00.000000Z", 60), None),
        (lease("node-maintenance", "2026-04-01T10:00:10.000000Z", 60), Some("node-maintenance")),
        (lease("node-maintenance", "9999-01-01T00:00:00.000000Z", 60), None),
        (lease("NodeHealthCheck-workers", "2026-04-01T09:59:59.000000Z", 660), None),
        (lease("MachineHealthCheck-workers", "2026-04-01T09:59:59.000000Z", 660), None),
        (lease("", "2026-04-01T09:59:59.000000Z", 660), None),
        (lease("an\nother\u{7}", "2026-04-01T09:59:59.000000Z", 660), Some("another")),
        (json!({"spec": {"holderIdentity": "node-maintenance"}}), None),
        (json!({}), None),
    ] {
        let server = Server::new([("/apis/coordination.k8s.io/v1/namespaces/leases/leases/node-worker-1", lease)]);
        let found = server.hold(&node(json!({}))).await;
        assert_eq!(found, expected.map(|holder| (Hold::Leased, holder.to_owned())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_remediation_of_another_kind_is_waited_for_while_it_works() {
    let annotated = |name: &str, node: &str| json!({"metadata": {"name": name, "namespace": "ns", "annotations": {NODE_NAME_ANNOTATION: node}}});
    let snr = |status: Value| json!({"metadata": {"name": "worker-1", "namespace": "ns"}, "status": status});
    let condition = |type_: &str, status: &str| json!({"conditions": [{"type": type_, "status": status}]});
    let mut timed_out = snr(json!({}));
    timed_out["metadata"]["annotations"] = json!({NHC_TIMED_OUT_ANNOTATION: NOW});
    let found = |name: &str| Some((Hold::Foreign, format!("SelfNodeRemediation ns/{name}")));
    for (object, expected) in [
        (snr(json!({})), found("worker-1")),
        (annotated("worker-1-x7k2p", "worker-1"), found("worker-1-x7k2p")),
        (annotated("worker-1", "worker-2"), None),
        (annotated("worker-2", ""), None),
        (snr(condition("Succeeded", "Unknown")), found("worker-1")),
        (snr(condition("Processing", "False")), found("worker-1")),
        (snr(condition("Succeeded", "True")), None),
        (snr(condition("Succeeded", "False")), None),
        (snr(condition("FencingSucceeded", "False")), found("worker-1")),
        (snr(condition("FencingSucceeded", "True")), None),
        (timed_out, None),
    ] {
        let server = Server::new([(SNR, json!({"items": [object.clone()]}))]);
        assert_eq!(server.hold(&node(json!({}))).await, expected, "{object}");
    }
}

#[tokio::test(start_paused = true)]
async fn metal3_names_the_machine() {
    let capi = json!({MACHINE_CAPI.0: "m-1", MACHINE_CAPI.1: "metal3"});
    let metal3 = |namespace: &str, machine: &str, phase: &str| {
        let owner = json!({"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Machine", "name": machine, "uid": "u"});
        json!({
            "metadata": {"name": machine, "namespace": namespace, "ownerReferences": [owner]},
            "status": {"phase": phase},
        })
    };
    for (annotations, object, held) in [
        (capi.clone(), metal3("metal3", "m-1", "Running"), true),
        (capi.clone(), metal3("metal3", "m-1", "Failed"), false),
        (capi.clone(), metal3("metal3", "m-2", "Running"), false),
        (capi.clone(), metal3("elsewhere", "m-1", "Running"), false),
        (json!({MACHINE_OPENSHIFT: "metal3/m-1"}), metal3("metal3", "m-1", "Waiting"), true),
        (json!({}), metal3("metal3", "m-1", "Running"), false),
    ] {
        let server = Server::new([(METAL3, json!({"items": [object.clone()]}))]);
        assert_eq!(server.hold(&node(annotations)).await.is_some(), held, "{object}");
    }
}

/// The API server is well, but what somebody has put into it is not: fencing goes on, and does not ask again and again.
#[tokio::test(start_paused = true)]
async fn a_foreign_kind_that_cannot_be_read_holds_nothing_up() {
    let broken = json!({"kind": "Status", "code": 500, "reason": "InternalError", "message": "conversion webhook"});
    let works = json!({"items": [{"metadata": {"name": "worker-1", "namespace": "ns"}}]});
    let server = Server::new([(SNR, broken), (METAL3, works)]);
    let node = node(json!({}));
    for _ in 0..3 {
        let (hold, who) = server.hold(&node).await.expect("the other kind can be read");
        assert_eq!((hold, who.as_str()), (Hold::Foreign, "Metal3Remediation ns/worker-1"));
    }
    assert_eq!((server.asked(SNR), server.asked(METAL3), server.asked("/apis")), (2, 3, 1));
    tokio::time::advance(KNOWN_FOR).await;
    server.hold(&node).await.expect("as before");
    assert_eq!((server.asked(SNR), server.asked("/apis")), (4, 2), "learnt anew");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_decides_nothing() {
    let server = Server::new([("/apis", json!({"kind": "Status", "code": 503, "message": "starting"}))]);
    let now = NOW.parse().expect("a time");
    server.holds.on(&server.client, &node(json!({})), now).await.expect_err("nobody knows");
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_read_holds_nothing_up() {
    let denied = || json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"});
    let lease = "/apis/coordination.k8s.io/v1/namespaces/leases/leases/node-worker-1";
    let server = Server::new([("/apis", denied()), (lease, denied())]);
    assert_eq!(server.hold(&node(json!({}))).await, None);
}

#[test]
fn the_operator_may_list_every_kind() {
    let rbac = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rbac.yaml")).expect("the file");
    for Kind { group, plural, .. } in &KINDS {
        let rule = format!("apiGroups: [{group}]\n    resources: [{plural}]\n    verbs: [list]");
        assert!(rbac.contains(&rule), "{rule}");
    }
}

fn node(annotations: Value) -> Node {
    let node = json!({"metadata": {"name": "worker-1", "annotations": annotations}});
    serde_json::from_value(node).expect("a Node")
}

/// An API server that serves these paths, and the groups that they are of.
struct Server {
    client: Client,
    holds: Holds,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new<const N: usize>(objects: [(&'static str, Value); N]) -> Self {
        let mut answers: BTreeMap<String, Value> = BTreeMap::new();
        let mut groups: Vec<Value> = vec![];
        for (path, mut object) in objects {
            if let (["", "apis", group, version, plural], None) =
                (&path.split('/').collect::<Vec<_>>()[..], object.get("spec"))
            {
                let of = |version: &str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
                // Preferred by the group, and without this kind.
                let versions = [of("v9"), of(version)];
                groups.push(json!({"name": group, "preferredVersion": of("v9"), "versions": versions}));
                let list = |resources: Value| json!({"groupVersion": "g/v", "resources": resources});
                answers.insert(format!("/apis/{group}/v9"), list(json!([])));
                let resource = json!({
                    "name": plural, "singularName": "", "kind": "K", "namespaced": true, "verbs": ["list"],
                });
                answers.insert(format!("/apis/{group}/{version}"), list(json!([resource])));
                if object.get("items").is_some() {
                    object["metadata"] = json!({});
                }
            }
            answers.insert(path.to_owned(), object);
        }
        answers.entry("/apis".to_owned()).or_insert(json!({"groups": groups}));
        let asked = Arc::new(Mutex::new(vec![]));
        let log = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let missing = json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found"});
            let answer = answers.get(&path).cloned().unwrap_or(missing);
            log.lock().expect("no panic while held").push(path);
            async move {
                let code = answer["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(200);
                let response = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, std::convert::Infallible>(response.expect("a response"))
            }
        });
        Self { client: Client::new(service, "default"), holds: Holds::new("leases".to_owned()), asked }
    }

    async fn hold(&self, node: &Node) -> Option<(Hold, String)> {
        self.holds.on(&self.client, node, NOW.parse().expect("a time")).await.expect("an answer")
    }

    fn asked(&self, path: &str) -> usize {
        self.asked.lock().expect("no panic while held").iter().filter(|asked| *asked == path).count()
    }
}

//! The control plane is a real one: it starts in numbers, authorises, serves new kinds, and survives its API server.

use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use testbed::controlplane::{ControlPlane, Options, Timings, client};
use testbed::scratch::Scratch;
use testbed::{ports, setup, wait};
use tokio::process::Command;
use tokio::time::timeout;

const WIDGETS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {kind: Widget, plural: widgets}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: example.org/v1
kind: Widget
metadata: {name: small, namespace: shop}
spec: {size: 1}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: clerk, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: till, namespace: shop}
spec: {containers: [{name: till, image: till}]}
";

const NODE_READER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: node-reader}
rules: [{apiGroups: [''], resources: [nodes], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: clerk-reads-nodes}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: node-reader}
subjects: [{kind: ServiceAccount, name: clerk, namespace: shop}]
";

/// Whom the API server, and so an admission policy, takes a client for.
async fn seen_as(client: Client) -> kube::Result<(String, Vec<String>)> {
    let review =
        Api::<SelfSubjectReview>::all(client).create(&PostParams::default(), &SelfSubjectReview::default()).await?;
    let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
    Ok((user.username.unwrap_or_default(), user.groups.unwrap_or_default()))
}

async fn knows_who_asks(cluster: &ControlPlane) -> anyhow::Result<()> {
    let strings = |groups: &[&str]| groups.iter().map(|group| (*group).to_owned()).collect::<Vec<_>>();
    let alice = seen_as(cluster.client_as("alice", &["sre"]).await?).await?;
    assert_eq!(alice, ("alice".to_owned(), strings(&["sre", "system:authenticated"])));
    let node = seen_as(cluster.client_as_node("node-1").await?).await?;
    assert_eq!(node, ("system:node:node-1".to_owned(), strings(&["system:nodes", "system:authenticated"])));
    let clerk = seen_as(cluster.client_as_service_account("shop", "clerk").await?).await?;
    assert_eq!(clerk.0, "system:serviceaccount:shop:clerk");
    let nobody = seen_as(cluster.client_as_nobody().await?).await.expect_err("no role");
    assert!(nobody.to_string().contains("system:anonymous"), "{nobody}");

    let maps = Api::<ConfigMap>::namespaced(cluster.client_as("alice", &[]).await?, "shop");
    let refused = maps.list(&ListParams::default()).await.expect_err("no role");
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "she has no role: {refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_applied_kinds_and_authorises_service_accounts() {
    let cluster = ControlPlane::start(Options::default()).await.unwrap();
    cluster.apply_yaml(WIDGETS).await.unwrap();
    cluster.apply_yaml(WIDGETS).await.unwrap(); // again: nothing to change

    knows_who_asks(&cluster).await.unwrap();
    let clerk = client(&cluster.service_account_kubeconfig("shop", "clerk").await.unwrap()).await.unwrap();
    let nodes = Api::<Node>::all(clerk);
    let refused = nodes.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");

    cluster.apply_yaml(NODE_READER).await.unwrap();
    let allowed = || async { Ok(nodes.list(&ListParams::default()).await.ok()) };
    wait::until("the role's effect", Duration::from_secs(20), allowed).await.unwrap();

    // Somebody schedules: nothing fits, and the scheduler says so.
    let pods = Api::<Pod>::namespaced(cluster.client(), "shop");
    let unschedulable = || async {
        let status = pods.get("till").await?.status.unwrap_or_default();
        Ok(status.conditions.unwrap_or_default().into_iter().find(|c| c.reason.as_deref() == Some("Unschedulable")))
    };
    wait::until("the scheduler's verdict", Duration::from_secs(30), unschedulable).await.unwrap();

    let audit = std::fs::read_to_string(cluster.audit_log()).unwrap();
    assert!(audit.contains("\"resource\":\"pods\"") && !audit.contains("\"resource\":\"configmaps\""));

    let refused = cluster.apply_yaml("apiVersion: v1\nkind: Pod\nmetadata: {name: empty}\n").await.unwrap_err();
    assert_eq!(refused.to_string(), "applying Pod empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_run_at_once_and_know_nothing_of_each_other() {
    let fast = Options { timings: Timings::Fast, ..Options::default() };
    let (one, other) = tokio::join!(ControlPlane::start(Options::default()), ControlPlane::start(fast));
    let (one, other) = (one.unwrap(), other.unwrap());
    one.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: mine}}").await.unwrap();
    assert!(Api::<Namespace>::all(one.client()).get("mine").await.is_ok());
    assert!(Api::<Namespace>::all(other.client()).get_opt("mine").await.unwrap().is_none());

    let dir = one.dir().to_owned();
    drop(one);
    assert!(!dir.exists());
    assert!(Api::<Namespace>::all(other.client()).get("default").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_may_go_and_come_back() {
    let dir = std::env::temp_dir().join(format!("testbed-kept-{}", uuid::Uuid::new_v4()));
    let cluster = ControlPlane::start(Options { dir: Some(dir.clone()), ..Options::default() }).await.unwrap();
    cluster.apply_yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: note}}").await.unwrap();
    let notes = Api::<ConfigMap>::namespaced(cluster.client(), "default");

    cluster.stop_apiserver();
    assert!(notes.get("note").await.is_err());
    cluster.start_apiserver().await.unwrap();
    assert!(notes.get("note").await.is_ok());
    cluster.restart_apiserver().await.unwrap();
    assert!(notes.get("note").await.is_ok());

    drop(cluster);
    assert!(dir.join("apiserver.log").exists());
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_program_ends_when_its_parent_is_gone() {
    let scratch = Scratch::new("orphan").unwrap();
    let mut etcd = Command::new(setup::control_plane().await.unwrap())
        .arg("etcd")
        .arg(format!("--data-dir={}", scratch.path().join("etcd").display()))
        .arg(format!("--listen-client=http://127.0.0.1:{}", ports::free_port().unwrap()))
        .arg(format!("--listen-peer=http://127.0.0.1:{}", ports::free_port().unwrap()))
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let parents_end = etcd.stdin.take(); // the kernel closes it when its process dies, however it dies
    assert!(timeout(Duration::from_secs(1), etcd.wait()).await.is_err(), "it lives while the pipe is open");
    drop(parents_end);
    timeout(Duration::from_secs(60), etcd.wait()).await.expect("it ends with the pipe").unwrap();
}

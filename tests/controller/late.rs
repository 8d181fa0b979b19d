//! Leaders that change: how soon, and what becomes of the writes that the old one had on their way. API servers that change.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use testbed::api_proxy::{Catch, Point, Proxy, Request};
use testbed::operator::{Operator, Settings};
use testbed::workloads::Workload;

use crate::held::Held;
use crate::stage::{Cluster, Remediation, SOON, Stage, binary, phase_of, play};

const LEASE: &str = "/leases/cb305759.medik8s.io";
/// "Within the Lease's 15 s + 2 s after the leader's death."
const TAKEN_OVER: Duration = Duration::from_secs(17);
/// "At once": a follower looks each second.
const HANDED_OVER: Duration = Duration::from_secs(2);

/// Lead: with the times that are shipped, measured from the leader's death, which comes in the worst moment: right after a
/// renewal.
#[test]
fn the_shipped_lease_is_taken_over_in_time() {
    play(async {
        let shipped = || vec!["--health-addr=127.0.0.1:0".to_owned()];
        let (mut cluster, proxy) = Cluster::proxied(Some(shipped())).await?;
        cluster.operator.says("Leads", SOON).await?;
        let mut second = standby(&cluster, Some(shipped())).await?;
        let mut renewed = proxy.catch(Point::After, |request| request.writes("/apis/") && request.path.contains(LEASE));
        renewed.caught(SOON).await?;
        cluster.operator.kill().await?;
        let died = Timestamp::now();
        let took = since(died, second.says("Leads", SOON).await?.at);
        println!("taken over {took:.2?} after the leader's death");
        ensure!(took <= TAKEN_OVER, "taken over after {took:?}");

        let lines = cluster.operator.lines().len();
        cluster.operator.restart().await?;
        cluster.operator.says_after(lines, "Follows", SOON).await?;
        let stopped = Timestamp::now();
        ensure!(second.stop(SOON).await?.success(), "it did not stop well");
        let took = since(stopped, cluster.operator.says_after(lines, "Leads", SOON).await?.at);
        println!("taken over {took:.2?} after a graceful stop");
        ensure!(took <= HANDED_OVER, "taken over after {took:?}");
        Ok(())
    });
}

/// What is held back, and how it is known. The pod is one that no taint evicts: nobody else writes it before.
type Write = (&'static str, fn(&Request, &str) -> bool);

const WRITES: [Write; 6] = [
    ("bar", |request, stage| request.writes(&format!("/api/v1/nodes/{stage}-1?")) && says(request, "NoExecute")),
    ("mark", |request, stage| request.writes(&format!("/api/v1/namespaces/{stage}/pods/calm-0/status"))),
    ("delete", |request, stage| {
        request.method == http::Method::DELETE && request.path.contains(&format!("/namespaces/{stage}/pods/calm-0"))
    }),
    ("detach", |request, stage| request.writes(&format!("/api/v1/nodes/{stage}-1/status"))),
    ("releasing", |request, stage| enters(request, stage, "Releasing")),
    ("restoring", |request, stage| enters(request, stage, "Restoring")),
];

/// S2: each write of a release is held back while its leader is frozen, or dies; the next one finishes and restores; then the
/// write arrives, is refused, and changes nothing.
#[test]
fn a_late_write_of_an_old_leader_changes_nothing() {
    play(async {
        let (mut cluster, proxy) = Cluster::proxied(None).await?;
        cluster.operator.says("Leads", SOON).await?;
        let mut second = standby(&cluster, None).await?;
        for (ends, strategy) in [("frozen", "ResourceDeletion"), ("dead", "OutOfServiceTaint")] {
            let names = WRITES.map(|(name, _)| format!("{ends}-{name}"));
            let stages = try_join_all(names.iter().map(|name| cluster.stage(name))).await?;
            let lanes = stages.into_iter().zip(WRITES).map(|(stage, write)| {
                // Kubernetes itself detaches from a node that is out of service: there is nothing left for us to free.
                let strategy = if write.0 == "detach" { "ResourceDeletion" } else { strategy };
                Late::begin(stage, write, &proxy, json!({"timeout": "10s", "remediationStrategy": strategy}))
            });
            let mut lanes = try_join_all(lanes).await?;
            for lane in &mut lanes {
                lane.write.caught(SOON).await.with_context(|| lane.stage.name.clone())?;
            }
            let (lines, old) = (second.lines().len(), cluster.operator.lines().len());
            match ends {
                "frozen" => cluster.operator.pause().await?,
                _ => cluster.operator.kill().await?,
            }
            second.says_after(lines, "Leads", SOON).await?;
            try_join_all(lanes.into_iter().map(Late::arrives)).await?;

            match ends {
                "frozen" => cluster.operator.resume().await?,
                _ => cluster.operator.restart().await?,
            }
            cluster.operator.says_after(old, "Follows", SOON).await?;
            let old = cluster.operator.lines().len();
            second.stop(SOON).await?;
            cluster.operator.says_after(old, "Leads", SOON).await?;
            let lines = second.lines().len();
            second.restart().await?;
            second.says_after(lines, "Follows", SOON).await?;
        }
        Ok(())
    });
}

/// A remediation one of whose writes is held back.
struct Late {
    stage: Stage,
    far: Remediation,
    write: Catch,
}

impl Late {
    async fn begin(stage: Stage, (_, is): Write, proxy: &Proxy, changes: Value) -> Result<Self> {
        let name = stage.name.clone();
        stage.site.run(Workload::TolerantStatefulSet { replicas: 1 }, "calm").await?;
        stage.site.running("calm", 1, SOON).await?;
        let write = proxy.catch(Point::Before, move |request| is(request, &name));
        stage.victim().hang();
        let far = stage.remediate(changes).await?;
        Ok(Self { stage, far, write })
    }

    /// Waits until the next leader has restored all, lets the write arrive, and compares.
    async fn arrives(self) -> Result<()> {
        let Self { stage, far, write } = self;
        far.until("Done, and stamped so", SOON, |far| {
            let operation = far.status.as_ref().and_then(|status| status.operation.as_ref());
            phase_of(far) == "Done" && operation.is_some_and(|operation| operation.quiet_at.is_some())
        })
        .await?;
        stage.replacement(SOON).await?;
        stage.rack.ready().await?;
        stage.site.running("calm", 1, SOON).await?;
        let before = seen(&stage, &far).await?;
        let answer = write.deliver(SOON).await?;
        ensure!(answer.status == 409, "{}: the late write was answered {:?}", stage.name, answer);
        let after = seen(&stage, &far).await?;
        ensure!(before == after, "{}: it changed something:\n{before:#}\n{after:#}", stage.name);
        far.delete().await?;
        far.gone(SOON).await?;
        stage.node_is_clean(stage.victim(), SOON).await?;
        let power: Vec<_> = stage.victim().history().iter().map(|change| change.on).collect();
        ensure!(power == [false, true], "{}: switched {power:?}", stage.name);
        stage.judged().await.with_context(|| stage.name.clone())
    }
}

/// What a late write could change: the Node but for its heartbeats, the pod, the remediation.
async fn seen(stage: &Stage, far: &Remediation) -> Result<Value> {
    let node = stage.node(stage.victim()).await?;
    let pods: Api<Pod> = Api::namespaced(stage.client.clone(), stage.site.namespace());
    let mut pods = pods.list(&ListParams::default()).await?.items;
    pods.sort_by_key(|pod| pod.uid());
    let far = far.get().await?;
    Ok(json!({
        "spec": node.spec, "annotations": node.annotations(),
        "volumesInUse": node.status.as_ref().and_then(|status| status.volumes_in_use.clone()),
        "pods": pods.iter().map(|pod| (pod.uid(), pod.resource_version())).collect::<Vec<_>>(),
        "remediation": [phase_of(&far), &far.resource_version().unwrap_or_default()],
    }))
}

/// Issue 12: "two API servers (one paused, the operator moved to it)". It is moved to one that is frozen, which answers when all
/// is released, and first with what it knew before; then back.
#[test]
fn moved_between_api_servers_it_finishes() {
    play(async {
        let (cluster, proxy) = Cluster::proxied(None).await?;
        let other = cluster.plane.another_apiserver().await?;
        let stage = cluster.stage("moved").await?;
        cluster.operator.says("Leads", SOON).await?;
        other.pause().await?;
        Held::Releasing.prepare(&stage);
        stage.victim().hang();
        let far = stage.remediate(json!({"timeout": "10s"})).await?;
        Held::Releasing.reached(&stage, &far).await?;

        let lines = cluster.operator.lines().len();
        proxy.point_at(other.url());
        cluster.operator.says_after(lines, "Follows", SOON).await?;
        Held::Releasing.let_go(&stage);
        stage.replacement(SOON).await?;
        ensure!(!stage.victim().state().on, "it was switched by one that hears nothing");
        let lines = cluster.operator.lines().len();
        other.resume().await?;
        cluster.operator.says_after(lines, "Leads", SOON).await?;
        far.phase("Done", SOON).await?;

        proxy.point_at(&cluster.plane.url());
        far.delete().await?;
        far.gone(SOON).await?;
        stage.rack.ready().await?;
        stage.node_is_clean(stage.victim(), SOON).await?;
        let power: Vec<_> = stage.victim().history().iter().map(|change| change.on).collect();
        ensure!(power == [false, true], "switched {power:?}");
        stage.judged().await
    });
}

/// Another replica, with an API server of its own choice, that follows.
async fn standby(cluster: &Cluster, flags: Option<Vec<String>>) -> Result<Operator> {
    let installed = testbed::operator::install(&cluster.plane).await?;
    let mut settings = Settings::new(&binary(), &installed, &cluster.plane.dir().join("second.log"));
    settings.flags = flags.unwrap_or(settings.flags);
    let second = Operator::start(settings)?;
    second.says("Follows", SOON).await?;
    Ok(second)
}

fn since(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or_default()
}

fn says(request: &Request, text: &str) -> bool {
    request.body.windows(text.len()).any(|part| part == text.as_bytes())
}

fn enters(request: &Request, stage: &str, phase: &str) -> bool {
    request.method == http::Method::PUT
        && request.path.contains(&format!("/fenceagentsremediations/{stage}-1-"))
        && request.json()["status"]["phase"] == phase
}

//! One operator per cluster: leadership, its loss at the worst moment, a foreign operator, and what an idle leader costs.

use std::time::Duration;

use agents::Command;
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use testbed::controlplane::Timings;
use testbed::operator::{Operator, Settings};
use testbed::wait;

use crate::held::Held;
use crate::stage::{Cluster, NAMESPACE, SOON, binary, condition, namespace, phase_of, play, with_kind};

const LEASE: &str = "cb305759.medik8s.io";
/// How long the tests' leases last.
const LEASE_DURATION: Duration = Duration::from_secs(3);
/// "Under 40 MiB resident with 100 nodes and no remediation."
const IDLE_BYTES: u64 = 40 * 1024 * 1024;

/// S2, L4, I2: the leader is paused in the middle of a phase, deposed, and comes back: the other one finishes, and nothing
/// that the old one had under way lands on what is restored.
#[test]
fn a_deposed_leader_that_wakes_up_changes_nothing() {
    play(async {
        let cluster = Cluster::own(Timings::Default).await?;
        let mut second = replica(&cluster).await?;
        second.says("Follows", SOON).await?;
        let (mut leading, mut waiting) = (&cluster.operator, &second);
        for held in [Held::Accepted, Held::Isolating, Held::Releasing, Held::Restoring] {
            let stage = cluster.stage(&format!("deposed-{held:?}").to_lowercase()).await?;
            held.prepare(&stage);
            stage.victim().hang();
            let far = stage.remediate(json!({"timeout": "10s"})).await?;
            held.reached(&stage, &far).await?;
            let before = waiting.lines().len();
            leading.pause().await?;
            wait::until("the other replica to lead", SOON, || async {
                Ok(waiting.lines()[before..].iter().any(|line| line.text.contains("Leads")).then_some(()))
            })
            .await?;
            held.let_go(&stage);
            far.phase("Done", SOON).await?;
            let woken = leading.lines().len();
            leading.resume().await?;
            // It has had the time to do harm once it has seen that it no longer leads.
            wait::until("the old leader to follow", SOON, || async {
                Ok(leading.lines()[woken..].iter().any(|line| line.text.contains("Follows")).then_some(()))
            })
            .await?;
            stage.replacement(SOON).await?;
            stage.rack.ready().await?;
            far.delete().await?;
            far.gone(SOON).await?;
            let commands: Vec<_> =
                stage.face.commands(stage.victim()).into_iter().map(|(_, command)| command).collect();
            let restored = commands.iter().position(|command| *command == Command::On).unwrap_or(commands.len());
            ensure!(commands[restored..].iter().all(|command| *command == Command::On), "{held:?}: {commands:?}");
            let power: Vec<_> = stage.victim().history().iter().map(|change| change.on).collect();
            ensure!(power == [false, true], "{held:?}: {power:?}");
            stage.node_is_clean(stage.victim(), SOON).await?;
            stage.judged().await?;
            std::mem::swap(&mut leading, &mut waiting);
        }
        second.kill().await
    });
}

/// L4: a leader that is asked to stop gives its lease up, and the next one need not wait for it to expire.
#[test]
fn a_graceful_stop_hands_over_at_once() {
    play(async {
        let mut cluster = Cluster::own(Timings::Default).await?;
        let stage = cluster.stage("graceful").await?;
        stage.rack.attacher().hold();
        stage.victim().hang();
        let far = stage.remediate(json!({})).await?;
        far.phase("Releasing", SOON).await?;
        let second = replica(&cluster).await?;
        second.says("Follows", SOON).await?;
        let stopped = Timestamp::now();
        let status = cluster.operator.stop(SOON).await?;
        ensure!(status.success(), "{status}");
        let led = second.says("Leads", SOON).await?;
        let took = Duration::try_from(led.at.duration_since(stopped)).unwrap_or_default();
        ensure!(took < LEASE_DURATION, "the lease was not given up: {took:?}");
        stage.rack.attacher().release();
        far.phase("Done", SOON).await?;
        stage.replacement(SOON).await?;
        stage.judged().await
    });
}

/// "Lead": FAR leads in its own namespace: ours does not, says so on each remediation, and does when FAR is gone.
#[test]
fn a_foreign_operator_is_left_alone() {
    play(async {
        let cluster = Cluster::own(Timings::Default).await?;
        let stage = cluster.stage("foreign").await?;
        namespace(&stage.client, "openshift-workload-availability").await?;
        let renewing = tokio::spawn(renew(stage.client.clone(), "openshift-workload-availability"));
        cluster.operator.says("Foreign", SOON).await?;
        stage.victim().hang();
        let far = stage.remediate(json!({})).await?;
        let refused = far
            .until("refused", SOON, |far| condition(far, "Leading") == ("False".into(), "ForeignOperator".into()))
            .await?;
        let event = far.event("ForeignOperator").await?;
        ensure!(event.note.unwrap_or_default().contains("openshift-workload-availability"), "names where");
        ensure!(phase_of(&refused).is_empty() && stage.face.requests().is_empty(), "it was touched");
        stage.kept().await?;
        renewing.abort();
        stage.replacement(SOON).await?;
        let done = far.phase("Done", SOON).await?;
        ensure!(condition(&done, "Leading").0 != "False", "{:?}", done.status);
        stage.judged().await
    });
}

/// A leader without work costs next to nothing.
#[test]
fn an_idle_operator_is_small() {
    play(async {
        let cluster = Cluster::own(Timings::Default).await?;
        let nodes: Api<Node> = Api::all(cluster.plane.client());
        for number in 0..100 {
            let node = with_kind("v1", "Node", json!({"metadata": {"name": format!("idle-{number}")}}));
            nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        }
        cluster.operator.says("Leads", SOON).await?;
        // Some renewals later it has cached whatever it caches.
        let leases: Api<Lease> = Api::namespaced(cluster.plane.client(), NAMESPACE);
        let first = leases.get(LEASE).await?.spec.and_then(|spec| spec.renew_time).context("no renewal")?;
        wait::until("some renewals", SOON, || async {
            let last = leases.get(LEASE).await?.spec.and_then(|spec| spec.renew_time).context("no renewal")?;
            Ok((last.0.duration_since(first.0).unsigned_abs() > LEASE_DURATION * 2).then_some(()))
        })
        .await?;
        let bytes = cluster.operator.resident_bytes()?;
        println!("idle operator: {:.1} MiB resident", bytes as f64 / 1048576.0);
        ensure!(bytes < IDLE_BYTES, "{bytes} bytes resident");
        Ok(())
    });
}

async fn replica(cluster: &Cluster) -> Result<Operator> {
    let installed = testbed::operator::install(&cluster.plane).await?;
    Operator::start(Settings::new(&binary(), &installed, &cluster.plane.dir().join("second.log")))
}

/// FAR, as far as its lease shows it.
async fn renew(client: kube::Client, namespace: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client, namespace);
    let mut every = tokio::time::interval(Duration::from_millis(500));
    loop {
        every.tick().await;
        let spec = json!({
            "holderIdentity": "far", "leaseDurationSeconds": 3,
            "renewTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        });
        let lease = with_kind("coordination.k8s.io/v1", "Lease", json!({"metadata": {"name": LEASE}, "spec": spec}));
        leases.patch(LEASE, &PatchParams::apply("far").force(), &Patch::Apply(lease)).await.context("renewing")?;
    }
}

//! Real workloads: what tolerates everything, what counts its pods, what is held by others.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use kube::{Api, ResourceExt};
use serde_json::json;
use testbed::wait;
use testbed::workloads::{Workload, is_running, node_of};

use crate::stage::{Cluster, SOON, Stage, condition, play};

/// R2, R3, R5: everything of DESIGN.md section 6 on one node. The set is released at once, nothing outside it is deleted, a
/// job is done elsewhere, and what somebody else holds is named.
#[test]
fn a_full_node_is_released() {
    play(async {
        let stage = Cluster::shared().await?.stage("full").await?;
        let site = &stage.site;
        site.run(Workload::Deployment, "web").await?;
        site.run(Workload::TolerantStatefulSet { replicas: 1 }, "tolerant").await?;
        site.run(Workload::DaemonSet, "daemon").await?;
        site.run(Workload::Job { seconds: None }, "job").await?;
        site.run(Workload::PolicyJob { seconds: None }, "policy").await?;
        site.run(Workload::FinalizerPod, "held").await?;
        site.run(Workload::MirrorPod, "mirror").await?;
        for (name, count) in
            [("web", 1), ("tolerant", 1), ("daemon", 3), ("job", 1), ("policy", 1), ("held", 1), ("mirror", 1)]
        {
            site.running(name, count, SOON).await?;
        }
        let spared = uids(&stage, &["daemon", "mirror"]).await?;
        stage.victim().hang();
        let far = stage.remediate(json!({"releaseTimeout": "6s"})).await?;
        stage.replacement(SOON).await?;
        for name in ["web", "job", "policy"] {
            moved(&stage, name).await?;
        }
        let held = far
            .until("held by a finalizer", SOON, |far| {
                let blocking = far.status.as_ref().map(|status| status.blocking.clone()).unwrap_or_default();
                blocking.iter().any(|what| what.contains("held") && what.contains("example.com/hold"))
            })
            .await?;
        let blocking = held.status.map(|status| status.blocking).unwrap_or_default();
        let done = far.phase("Done", SOON).await?;
        ensure!(condition(&done, "Succeeded").0 == "True", "R5: {:?}", done.status);
        let left = uids(&stage, &["daemon", "mirror"]).await?;
        ensure!(spared.is_subset(&left), "R2: outside the set, and deleted: {spared:?} {left:?}");
        for name in ["job", "policy"] {
            let pod = site.running(name, 1, SOON).await?.remove(0);
            stage.rack.complete(&pod.uid().context("no UID")?)?;
            completed(&stage, name).await?;
        }
        ensure!(blocking.iter().filter(|what| what.starts_with("pod/")).count() <= 2, "{blocking:?}");
        stage.judged().await
    });
}

async fn uids(stage: &Stage, names: &[&str]) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for name in names {
        all.extend(stage.site.pods(name).await?.iter().filter_map(ResourceExt::uid));
    }
    Ok(all)
}

async fn moved(stage: &Stage, name: &str) -> Result<()> {
    wait::until(&format!("{name} to run on another node"), SOON, || async {
        let pods = stage.site.pods(name).await?;
        Ok(pods.iter().any(|pod| is_running(pod) && node_of(pod) != stage.victim().name()).then_some(()))
    })
    .await
}

async fn completed(stage: &Stage, name: &str) -> Result<()> {
    let jobs: Api<Job> = Api::namespaced(stage.client.clone(), stage.site.namespace());
    wait::until(&format!("job {name} to be complete"), SOON, || async {
        let status = jobs.get(name).await?.status.unwrap_or_default();
        Ok(status.completion_time.map(drop))
    })
    .await
}

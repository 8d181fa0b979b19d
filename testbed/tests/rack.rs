//! Racks on a real control plane: that nodes, pods and volumes behave as real ones do, and that the oracle can say no.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use testbed::controlplane::{ControlPlane, Options};
use testbed::oracle::Oracle;
use testbed::rack::{Layout, Rack};
use testbed::wait;
use testbed::workloads::{Site, Workload, node_of};

/// For what a healthy cluster does in one or two seconds, on a machine that also compiles.
const SOON: Duration = Duration::from_secs(60);

/// One control plane for all of them: they differ in their racks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racks_on_a_real_control_plane() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default()).await?;
    let client = control_plane.client();
    let rack = async |name: &str| Rack::start(client.clone(), &Layout::workers(name, 3)).await;
    nodes_are_registered(&rack("register").await?).await?;
    pods_run_and_move(&rack("move").await?).await?;
    a_hung_machine_writes_on(&rack("hang").await?).await?;
    a_reboot_restarts_what_is_still_bound(&rack("reboot").await?).await?;
    all_workloads_run(&rack("workloads").await?).await?;
    a_held_attacher_withholds(&rack("held").await?).await?;
    the_oracle_catches_a_release_without_fencing(&rack("unsafe").await?).await?;
    Ok(())
}

async fn nodes_are_registered(rack: &Rack) -> Result<()> {
    let machine = rack.machine("register-1")?;
    let nodes: Api<Node> = Api::all(rack.client().clone());
    let info = async || {
        let status = nodes.get("register-1").await?.status.expect("a status");
        anyhow::Ok(status.node_info.expect("node info"))
    };
    ensure!(info().await?.system_uuid == machine.uuid().to_string());
    let first = info().await?.boot_id;
    let leases: Api<Lease> = Api::namespaced(rack.client().clone(), "kube-node-lease");
    leases.get("register-1").await?;
    machine.set_power(false, "test");
    machine.set_power(true, "test");
    wait::until("a new boot ID", SOON, || async { Ok((info().await?.boot_id != first).then_some(())) }).await?;
    Ok(())
}

async fn pods_run_and_move(rack: &Rack) -> Result<()> {
    let oracle = Oracle::new(rack).await?;
    let site = Site::new(rack, "move", "move-2").await?;
    site.run(Workload::StatefulSet { replicas: 1 }, "db").await?;
    let pod = site.running("db", 1, SOON).await?.remove(0);
    ensure!(node_of(&pod) == "move-2", "it starts at home");
    writes(rack, &site.volume_of("data-db-0"), "move-2").await?;

    // Drained as an administrator does it: nothing unsafe about that.
    let pods: Api<Pod> = Api::namespaced(rack.client().clone(), "move");
    cordon(rack, "move-2").await?;
    pods.delete("db-0", &DeleteParams::default()).await?;
    let moved = wait::until("the pod on another node", SOON, || async {
        let pods = site.running("db", 1, SOON).await?;
        Ok(pods.into_iter().find(|new| new.uid() != pod.uid()))
    })
    .await?;
    writes(rack, &site.volume_of("data-db-0"), node_of(&moved)).await?;
    let verdict = oracle.verdict().await?;
    ensure!(verdict.is_clean(), "{verdict}");
    ensure!(verdict.volumes["move-data-db-0"].writers.len() == 2);
    Ok(())
}

async fn a_hung_machine_writes_on(rack: &Rack) -> Result<()> {
    let site = Site::new(rack, "hang", "hang-1").await?;
    site.run(Workload::StatefulSet { replicas: 1 }, "db").await?;
    let pod = site.running("db", 1, SOON).await?.remove(0);
    let machine = rack.machine("hang-1")?;
    let volume = site.volume_of("data-db-0");
    machine.hang();
    writes(rack, &volume, "hang-1").await?;
    // Told to stop, it does not hear.
    let pods: Api<Pod> = Api::namespaced(rack.client().clone(), "hang");
    pods.delete("db-0", &DeleteParams { grace_period_seconds: Some(1), ..DeleteParams::default() }).await?;
    writes(rack, &volume, "hang-1").await?;
    ensure!(pods.get("db-0").await?.uid() == pod.uid(), "only its kubelet can finish it");
    // Without power it writes no more, and that is known to the nanosecond.
    machine.set_power(false, "test");
    let off = machine.history().pop().expect("a power-off").at;
    ensure!(rack.journals().volume(&volume).iter().all(|entry| entry.at <= off));
    // Healed by its boot, the kubelet does what it was told.
    machine.set_power(true, "test");
    wait::until("the old pod to go", SOON, || async {
        Ok((pods.get_opt("db-0").await?.and_then(|p| p.uid()) != pod.uid()).then_some(()))
    })
    .await
}

async fn a_reboot_restarts_what_is_still_bound(rack: &Rack) -> Result<()> {
    let oracle = Oracle::new(rack).await?;
    let site = Site::new(rack, "reboot", "reboot-1").await?;
    site.run(Workload::StatefulSet { replicas: 1 }, "db").await?;
    let uid = site.running("db", 1, SOON).await?.remove(0).uid().expect("a UID");
    let machine = rack.machine("reboot-1")?;
    machine.set_power(false, "test");
    machine.set_power(true, "test");
    wait::until("a second life of the same pod", SOON, || async {
        Ok((rack.journals().lives_of(&uid).len() == 2).then_some(()))
    })
    .await?;
    wait::until("a restart to be reported", SOON, || async {
        let pods = site.running("db", 1, SOON).await?;
        let status = pods[0].status.as_ref().and_then(|status| status.container_statuses.as_ref());
        Ok(status.is_some_and(|containers| containers[0].restart_count == 1).then_some(()))
    })
    .await?;
    let verdict = oracle.verdict().await?;
    ensure!(verdict.is_clean(), "{verdict}");
    Ok(())
}

async fn all_workloads_run(rack: &Rack) -> Result<()> {
    let site = Site::new(rack, "workloads", "workloads-2").await?;
    let all = [
        (Workload::StatefulSet { replicas: 2 }, "db", 2),
        (Workload::TolerantStatefulSet { replicas: 1 }, "mon", 1),
        (Workload::Deployment, "web", 1),
        (Workload::DaemonSet, "proxy", 3),
        (Workload::Job { seconds: None }, "batch", 1),
        (Workload::PolicyJob { seconds: None }, "careful", 1),
        (Workload::FinalizerPod, "held", 1),
        (Workload::MirrorPod, "static", 1),
    ];
    for (workload, name, _) in all {
        site.run(workload, name).await?;
    }
    for (workload, name, count) in all {
        let pods = site.running(name, count, SOON).await?;
        let home = pods.iter().filter(|pod| node_of(pod) == "workloads-2").count();
        ensure!(home >= 1, "{workload:?} starts at home");
        ensure!(pods.iter().all(|pod| node_of(pod).starts_with("workloads-")), "{workload:?} keeps to its rack");
    }
    let job = site.running("batch", 1, SOON).await?.remove(0).uid().expect("a UID");
    rack.complete(&job)?;
    site.run(Workload::Job { seconds: Some(1) }, "short").await?;
    for name in ["batch", "short"] {
        wait::until("a finished job", SOON, || async {
            let pods = site.pods(name).await?;
            Ok(pods.iter().any(|pod| phase(pod) == "Succeeded").then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn a_held_attacher_withholds(rack: &Rack) -> Result<()> {
    let site = Site::new(rack, "held", "held-1").await?;
    rack.attacher().hold();
    site.run(Workload::StatefulSet { replicas: 1 }, "db").await?;
    let attachments: Api<VolumeAttachment> = Api::all(rack.client().clone());
    wait::until("an attachment to be asked for", SOON, || async {
        let all = attachments.list(&ListParams::default()).await?;
        Ok(all.items.into_iter().find(|va| va.spec.attacher == rack.driver()))
    })
    .await?;
    let held = site.pods("db").await?;
    ensure!(held.iter().all(|pod| phase(pod) == "Pending"), "it can't run without its volume");
    rack.attacher().release();
    site.running("db", 1, SOON).await?;
    Ok(())
}

/// The negative control: what a remediator does that takes silence for death.
async fn the_oracle_catches_a_release_without_fencing(rack: &Rack) -> Result<()> {
    let oracle = Oracle::new(rack).await?;
    let site = Site::new(rack, "unsafe", "unsafe-1").await?;
    site.run(Workload::StatefulSet { replicas: 1 }, "db").await?;
    site.running("db", 1, SOON).await?;
    let volume = site.volume_of("data-db-0");
    rack.machine("unsafe-1")?.hang();
    cordon(rack, "unsafe-1").await?;
    ensure!(oracle.verdict().await?.is_clean(), "a hang alone is nobody's fault");

    // Force-deleted, forgotten as in use, and so detached.
    let pods: Api<Pod> = Api::namespaced(rack.client().clone(), "unsafe");
    pods.delete("db-0", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await?;
    merge_status(rack, "unsafe-1", serde_json::json!({"volumesInUse": []})).await?;
    let pod = site.running("db", 1, SOON).await?.remove(0);
    ensure!(node_of(&pod) != "unsafe-1");
    writes(rack, &volume, node_of(&pod)).await?;
    writes(rack, &volume, "unsafe-1").await?;

    let verdict = oracle.verdict().await?;
    println!("{verdict}");
    for violation in [
        "had two writers",
        "ordinal ran twice",
        "after its object was gone",
        "was deleted while it ran",
        "was detached while",
    ] {
        ensure!(verdict.violations.iter().any(|found| found.contains(violation)), "no {violation:?} in: {verdict}");
    }
    Ok(())
}

/// Waits for a record that is written to the volume by the node from now on.
async fn writes(rack: &Rack, volume: &str, node: &str) -> Result<()> {
    let before = rack.journals().volume(volume).len();
    wait::until(&format!("{node} to write to {volume}"), SOON, || async {
        let entries = rack.journals().volume(volume).split_off(before);
        let by_node = entries.iter().any(|entry| rack.journals().life(entry.life).process.machine == node);
        Ok(by_node.then_some(()))
    })
    .await
}

async fn cordon(rack: &Rack, node: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(rack.client().clone());
    nodes.cordon(node).await?;
    Ok(())
}

async fn merge_status(rack: &Rack, node: &str, status: serde_json::Value) -> Result<()> {
    let nodes: Api<Node> = Api::all(rack.client().clone());
    let patch = kube::api::Patch::Merge(serde_json::json!({"status": status}));
    nodes.patch_status(node, &kube::api::PatchParams::default(), &patch).await?;
    Ok(())
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

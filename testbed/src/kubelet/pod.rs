//! What a kubelet does for one pod: admits it, waits for its volumes, runs it, says so; stops it and lets it go.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, Taint, Toleration};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Error, ResourceExt};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::container::{Container, Exit};
use super::node::seconds;
use super::{Booted, RETRY, RUN_SECONDS, is_mirror};
use crate::journal::{Ending, Process};

/// Runs a pod until it ends by itself. Aborted when it is to be stopped.
pub(super) async fn serve(booted: &Booted, pod: &Pod) {
    let container = match booted.container(&uid(pod)) {
        // The kubelet was silent for a while; its container was not.
        Some(container) => container,
        None => match start(booted, pod).await {
            Some(container) => container,
            None => return,
        },
    };
    say(booted, pod, running_status(pod)).await;
    match container.ended().await {
        Exit::Ended(Ending::Completed) => {
            unmount(booted, &uid(pod)).await;
            say(booted, pod, ended_status(pod, "Succeeded", 0)).await;
        }
        Exit::Ended(Ending::Stopped | Ending::Orphaned) | Exit::PowerLost => {}
    }
}

/// Stops a pod, gives its volumes back and, if it is to go, deletes it: in this order, as a kubelet does.
pub(super) async fn end(booted: &Booted, pod: &Pod) {
    let ran = booted.stop(&uid(pod), Ending::Stopped);
    unmount(booted, &uid(pod)).await;
    if pod.metadata.deletion_timestamp.is_none() {
        return;
    }
    if ran && phase(pod) != "Succeeded" && phase(pod) != "Failed" {
        // 143: ended by SIGTERM.
        say(booted, pod, ended_status(pod, "Failed", 143)).await;
    }
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    let (api, name) = (pods(booted, pod), pod.name_any());
    retry(pod, || async {
        match api.delete(&name, &params).await {
            Ok(_) => Ok(()),
            // Gone, or another of its name: either way this one is not there any more.
            Err(Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
    .await;
}

/// Reports a pod's volumes as no longer in use.
pub(super) async fn unmount(booted: &Booted, uid: &str) {
    while let Err(error) = booted.reporter.unmount(uid).await {
        tracing::debug!(uid, %error, "volumes in use could not be reported");
        sleep(RETRY).await;
    }
}

async fn start(booted: &Booted, pod: &Pod) -> Option<Container> {
    let seen = booted.node.borrow().clone();
    if let Some(taint) = seen.as_ref().and_then(|node| refuses(node, pod)) {
        let message = format!("Pod was rejected: it does not tolerate the taint {}:NoExecute", taint.key);
        let status = json!({"phase": "Failed", "reason": "TaintToleration", "message": message});
        say(booted, pod, status).await;
        return None;
    }
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if phase(pod) == "Running" && policy == Some("Never") {
        // It ran in an earlier boot, and the kubelet may not start it again. 137: killed.
        say(booted, pod, ended_status(pod, "Failed", 137)).await;
        return None;
    }
    let volumes = retry(pod, || Volumes::of(booted, pod)).await;
    let attached = |node: &Option<Node>| volumes.devices.is_subset(&node.as_ref().map(attached).unwrap_or_default());
    booted.node.subscribe().wait_for(attached).await.ok()?;
    retry(pod, || booted.reporter.mount(pod, &volumes.devices)).await;

    booted.launch(process(booted, pod), volumes.names, run_for(pod))
}

/// The RWO volumes of a pod.
#[derive(Default)]
struct Volumes {
    /// Names of PersistentVolumes.
    names: Vec<String>,
    /// As Nodes name them in their status.
    devices: BTreeSet<String>,
}

impl Volumes {
    async fn of(booted: &Booted, pod: &Pod) -> Result<Self> {
        let client = &booted.kubelet.client;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let volumes: Api<PersistentVolume> = Api::all(client.clone());
        let mut found = Self::default();
        for source in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let Some(claim) = &source.persistent_volume_claim else { continue };
            let claim = claims.get(&claim.claim_name).await?;
            let name = claim.spec.and_then(|spec| spec.volume_name).context("the claim is not bound yet")?;
            if let Some(csi) = volumes.get(&name).await?.spec.and_then(|spec| spec.csi) {
                found.devices.insert(format!("kubernetes.io/csi/{}^{}", csi.driver, csi.volume_handle));
                found.names.push(name);
            }
        }
        Ok(found)
    }
}

fn attached(node: &Node) -> BTreeSet<String> {
    let status = node.status.as_ref();
    status.iter().flat_map(|s| s.volumes_attached.iter().flatten()).map(|volume| volume.name.clone()).collect()
}

/// The taint for which a kubelet rejects a pod at admission: an untolerated NoExecute one
/// (pkg/kubelet/lifecycle/predicate.go). Static pods are exempt.
fn refuses<'a>(node: &'a Node, pod: &Pod) -> Option<&'a Taint> {
    if is_mirror(pod) {
        return None;
    }
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().find(|taint| taint.effect == "NoExecute" && !tolerations.iter().any(|t| tolerates(t, taint)))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let any_value = toleration.operator.as_deref() == Some("Exists");
    let value = toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || key.is_empty() && any_value)
        && (any_value || value)
}

fn process(booted: &Booted, pod: &Pod) -> Process {
    let namespace = pod.namespace().unwrap_or_default();
    let ordinal = pod.owner_references().iter().any(|owner| owner.kind == "StatefulSet");
    Process {
        machine: booted.kubelet.machine.name().to_owned(),
        boot: booted.boot,
        ordinal: ordinal.then(|| format!("{namespace}/{}", pod.name_any())),
        namespace,
        pod: pod.name_any(),
        uid: uid(pod),
        static_pod: is_mirror(pod),
    }
}

fn run_for(pod: &Pod) -> Option<Duration> {
    let seconds: f64 = pod.annotations().get(RUN_SECONDS)?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn running_status(pod: &Pod) -> Value {
    let now = seconds(Timestamp::now());
    json!({
        "phase": "Running",
        "startTime": pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(now.clone(), |time| seconds(time.0)),
        "conditions": conditions("True", &now, None),
        "containerStatuses": containers(pod, true, &json!({"running": {"startedAt": now}})),
    })
}

fn ended_status(pod: &Pod, phase: &str, exit_code: i32) -> Value {
    let now = seconds(Timestamp::now());
    let reason = if exit_code == 0 { "Completed" } else { "Error" };
    let state = json!({"terminated": {"exitCode": exit_code, "reason": reason, "finishedAt": now}});
    json!({
        "phase": phase,
        "conditions": conditions("False", &now, Some("PodCompleted")),
        "containerStatuses": containers(pod, false, &state),
    })
}

fn conditions(ready: &str, now: &str, reason: Option<&str>) -> Vec<Value> {
    [("PodReadyToStartContainers", "True"), ("Initialized", "True"), ("Ready", ready), ("ContainersReady", ready)]
        .map(|(kind, status)| json!({"type": kind, "status": status, "lastTransitionTime": now, "reason": reason}))
        .to_vec()
}

fn containers(pod: &Pod, ready: bool, state: &Value) -> Vec<Value> {
    let before = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let status = |container: &k8s_openapi::api::core::v1::Container| {
        let before = before.iter().find(|status| status.name == container.name);
        // A pod that is found Running and is started: it was restarted by a boot.
        let restarts = before.map_or(0, |status| status.restart_count + i32::from(ready && status.ready));
        json!({"name": container.name, "image": container.image, "imageID": "", "ready": ready, "started": ready,
            "restartCount": restarts, "state": state})
    };
    pod.spec.iter().flat_map(|spec| &spec.containers).map(status).collect()
}

/// Posts a status, unless the pod is gone.
async fn say(booted: &Booted, pod: &Pod, status: Value) {
    // The UID is a precondition: a status must not land on a namesake.
    let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": status}));
    let (api, name, params) = (pods(booted, pod), pod.name_any(), PatchParams::default());
    retry(pod, || async {
        match api.patch_status(&name, &params, &patch).await {
            Ok(_) => Ok(()),
            Err(Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
    .await;
}

/// Does it until it works: the API server may be away. Ends when the worker is aborted.
async fn retry<T, F: Future<Output = Result<T>>>(pod: &Pod, act: impl Fn() -> F) -> T {
    loop {
        match act().await {
            Ok(done) => return done,
            Err(error) => tracing::debug!(pod = pod.name_any(), error = format!("{error:#}"), "will try again"),
        }
        sleep(RETRY).await;
    }
}

fn pods(booted: &Booted, pod: &Pod) -> Api<Pod> {
    Api::namespaced(booted.kubelet.client.clone(), &pod.namespace().unwrap_or_default())
}

fn uid(pod: &Pod) -> String {
    pod.uid().unwrap_or_default()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

//! What a kubelet tells of its node: registration, Lease, conditions, volumes in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::{Kubelet, RACK_LABEL, Role};

/// Between two renewals of the Lease, and between two looks at one's own status: a kubelet's defaults
/// (nodeLeaseRenewIntervalFraction 0.25 of 40 s; nodeStatusUpdateFrequency).
const PERIOD: Duration = Duration::from_secs(10);
/// A status that did not change is posted this often (a kubelet's nodeStatusReportFrequency).
const HEARTBEAT: Duration = Duration::from_mins(5);
/// A kubelet's nodeLeaseDurationSeconds.
const LEASE_SECONDS: i32 = 40;

/// Reports one boot of one node.
pub(super) struct Reporter {
    kubelet: Arc<Kubelet>,
    boot: Uuid,
    /// Volumes by the pod that uses them; `None` until this boot has seen its pods, and so can't know.
    in_use: Mutex<Option<BTreeMap<String, BTreeSet<String>>>>,
}

impl Reporter {
    pub(super) fn new(kubelet: Arc<Kubelet>, boot: Uuid) -> Self {
        Self { kubelet, boot, in_use: Mutex::new(None) }
    }

    /// Makes the Node, or finds it and corrects what is the kubelet's, and posts Ready.
    pub(super) async fn register(&self) -> Result<Node> {
        let nodes = self.nodes();
        let node = match nodes.get_opt(self.name()).await? {
            Some(node) => node,
            None => nodes.create(&PostParams::default(), &serde_json::from_value(self.new_node())?).await?,
        };
        self.renew().await?;
        Ok(nodes.patch_status(self.name(), &PatchParams::default(), &Patch::Strategic(self.status(&node))).await?)
    }

    /// Keeps the Lease and the status fresh, for ever.
    pub(super) async fn run(&self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await; // registration has just done it all
        let mut posted = Instant::now();
        loop {
            ticks.tick().await;
            if let Err(error) = self.renew().await {
                tracing::debug!(node = self.name(), %error, "the Lease could not be renewed");
            }
            match self.refresh(posted.elapsed() >= HEARTBEAT).await {
                Ok(true) => posted = Instant::now(),
                Ok(false) => {}
                Err(error) => tracing::debug!(node = self.name(), %error, "the status could not be posted"),
            }
        }
    }

    /// Says that this boot has now seen all its pods, so that volumes no longer in use may be let go.
    pub(super) async fn pods_are_known(&self) -> Result<()> {
        let mut in_use = self.in_use.lock().await;
        if in_use.is_none() {
            let volumes = in_use.insert(BTreeMap::new());
            self.report(volumes).await?;
        }
        Ok(())
    }

    /// Reports volumes as in use by a pod; they may be mounted once this has returned.
    pub(super) async fn mount(&self, pod: &Pod, volumes: &BTreeSet<String>) -> Result<()> {
        let mut in_use = self.in_use.lock().await;
        let all = in_use.get_or_insert_default();
        all.insert(pod.uid().unwrap_or_default(), volumes.clone());
        if volumes.is_empty() { Ok(()) } else { self.report(all).await }
    }

    /// Reports a pod's volumes as unmounted.
    pub(super) async fn unmount(&self, uid: &str) -> Result<()> {
        let mut in_use = self.in_use.lock().await;
        let all = in_use.get_or_insert_default();
        match all.remove(uid) {
            Some(volumes) if !volumes.is_empty() => self.report(all).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Posts what differs from the truth, or is due. True if something was posted.
    async fn refresh(&self, due: bool) -> Result<bool> {
        let node = self.nodes().get(self.name()).await?;
        let posted = due || !is_ready(&node);
        if posted {
            self.nodes()
                .patch_status(self.name(), &PatchParams::default(), &Patch::Strategic(self.status(&node)))
                .await?;
        }
        let in_use = self.in_use.lock().await;
        if let Some(volumes) = in_use.as_ref() {
            let status = node.status.as_ref();
            let told = status.and_then(|status| status.volumes_in_use.clone()).unwrap_or_default();
            if union(volumes) != told.into_iter().collect() {
                self.report(volumes).await?;
            }
        }
        Ok(posted)
    }

    async fn report(&self, volumes: &BTreeMap<String, BTreeSet<String>>) -> Result<()> {
        let patch = json!({"status": {"volumesInUse": union(volumes)}});
        self.nodes().patch_status(self.name(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    async fn renew(&self) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client(), "kube-node-lease");
        let now = format!("{:.6}", Timestamp::now());
        let spec = json!({"holderIdentity": self.name(), "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now});
        let patch = Patch::Merge(json!({"spec": spec}));
        match leases.patch(self.name(), &PatchParams::default(), &patch).await {
            Err(Error::Api(status)) if status.code == 404 => {
                let lease = serde_json::from_value(json!({"metadata": {"name": self.name()}, "spec": spec}))?;
                leases.create(&PostParams::default(), &lease).await?;
            }
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn new_node(&self) -> Value {
        let mut node = json!({
            "metadata": {
                "name": self.name(),
                "labels": {
                    "kubernetes.io/hostname": self.name(),
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                    RACK_LABEL: self.kubelet.rack,
                    // Kubernetes evicts by zone: other racks' dead nodes are not to slow down, or stop, this one's.
                    "topology.kubernetes.io/zone": self.kubelet.rack,
                },
                // Without it the attach-detach controller leaves the node's volumes alone.
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": {},
        });
        match self.kubelet.role {
            Role::Worker => {}
            Role::ControlPlane => {
                let key = "node-role.kubernetes.io/control-plane";
                node["metadata"]["labels"][key] = json!("");
                node["spec"]["taints"] = json!([{"key": key, "effect": "NoSchedule"}]);
            }
        }
        node
    }

    fn status(&self, node: &Node) -> Value {
        let now = Timestamp::now();
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let condition = |kind: &str, status: &str, reason: &str| {
            let before = conditions.iter().find(|c| c.type_ == kind && c.status == status);
            let since = before.and_then(|c| c.last_transition_time.as_ref()).map_or(now, |time| time.0);
            json!({"type": kind, "status": status, "reason": reason, "message": reason,
                "lastHeartbeatTime": seconds(now), "lastTransitionTime": seconds(since)})
        };
        let resources = json!({"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"});
        json!({"status": {
            "capacity": resources,
            "allocatable": resources,
            "addresses": [{"type": "Hostname", "address": self.name()}],
            "nodeInfo": {
                "machineID": self.kubelet.machine.uuid().simple().to_string(),
                "systemUUID": self.kubelet.machine.uuid().to_string(),
                "bootID": self.boot.to_string(),
                "kernelVersion": "6.1.0", "osImage": "testbed", "containerRuntimeVersion": "testbed://1",
                "kubeletVersion": "v1.36.4", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
            },
            "conditions": [
                condition("Ready", "True", "KubeletReady"),
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
            ],
        }})
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client())
    }

    fn client(&self) -> Client {
        self.kubelet.client.clone()
    }

    fn name(&self) -> &str {
        self.kubelet.machine.name()
    }
}

/// The Node's Ready condition is True.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The API's second-grained time.
pub(super) fn seconds(at: Timestamp) -> String {
    format!("{:.0}", at)
}

fn union(volumes: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    volumes.values().flatten().cloned().collect()
}

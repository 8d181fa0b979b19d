//! Workloads as real clusters have them, each in a test's own namespace, starting on a node of the test's choice and free
//! to move to the others of its rack.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::discovery::ApiResource;
use kube::{Client, Error, ResourceExt};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kubelet::RACK_LABEL;
use crate::rack::Rack;
use crate::wait;

/// From a new namespace to its service account: 0.1 s on two idle cores; the rest is for a loaded machine.
const NAMESPACE: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// A StatefulSet; each replica writes to an RWO volume of its own.
    StatefulSet {
        /// How many.
        replicas: u32,
    },
    /// A StatefulSet without volumes that tolerates every taint.
    TolerantStatefulSet {
        /// How many.
        replicas: u32,
    },
    /// A Deployment of one replica that writes to an RWO volume.
    Deployment,
    /// A DaemonSet that tolerates every taint: one pod on every node of the rack.
    DaemonSet,
    /// A Job.
    Job {
        /// How long it takes, in seconds; `None` runs until [`Rack::complete`].
        seconds: Option<u32>,
    },
    /// A Job with a podFailurePolicy that ignores disruptions.
    PolicyJob {
        /// How long it takes, in seconds; `None` runs until [`Rack::complete`].
        seconds: Option<u32>,
    },
    /// A bare pod with a finalizer that nobody takes off (`example.com/hold`).
    FinalizerPod,
    /// The mirror of a static pod. Its kubelet does not make it anew when it is deleted.
    MirrorPod,
}

/// A namespace for a test's workloads.
pub struct Site {
    client: Client,
    namespace: String,
    rack: String,
    driver: String,
    home: String,
}

impl Site {
    /// Makes the namespace. Workloads start on the node `home`, while it takes pods.
    ///
    /// # Errors
    /// When the API server refuses, or the namespace's service account does not appear.
    pub async fn new(rack: &Rack, namespace: &str, home: &str) -> Result<Self> {
        let site = Self {
            client: rack.client().clone(),
            namespace: namespace.to_owned(),
            rack: rack.name().to_owned(),
            driver: rack.driver(),
            home: home.to_owned(),
        };
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        site.create(object).await?;
        let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
            "metadata": {"name": site.driver}, "spec": {"attachRequired": true}});
        site.create(driver).await?;
        // Bare pods are refused before.
        let accounts: Api<ServiceAccount> = Api::namespaced(site.client.clone(), namespace);
        wait::until("the namespace's service account", NAMESPACE, || async { Ok(accounts.get_opt("default").await?) })
            .await?;
        Ok(site)
    }

    /// The same namespace, for workloads that start on another node.
    #[must_use]
    pub fn at(&self, home: &str) -> Self {
        Self {
            client: self.client.clone(),
            namespace: self.namespace.clone(),
            rack: self.rack.clone(),
            driver: self.driver.clone(),
            home: home.to_owned(),
        }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Creates a workload; its pods carry the label `app: {name}`.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn run(&self, workload: Workload, name: &str) -> Result<()> {
        for claim in claims(workload, name) {
            self.create(self.volume(&claim)).await?;
        }
        let text = self.text(workload, name);
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let mut object = Value::deserialize(document).context("a workload's YAML")?;
            self.place(&mut object);
            self.create(object).await?;
        }
        Ok(())
    }

    /// The pods of a workload.
    ///
    /// # Errors
    /// When the API server can't be asked.
    pub async fn pods(&self, name: &str) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(pods.list(&ListParams::default().labels(&format!("app={name}"))).await?.items)
    }

    /// Waits until `count` pods of a workload run that are not being deleted, and returns them.
    ///
    /// # Errors
    /// When that takes longer than `within`.
    pub async fn running(&self, name: &str, count: usize, within: Duration) -> Result<Vec<Pod>> {
        wait::until(&format!("{count} running pods of {}/{name}", self.namespace), within, || async {
            let mut pods = self.pods(name).await?;
            pods.retain(is_running);
            Ok((pods.len() == count).then_some(pods))
        })
        .await
    }

    /// The name of the PersistentVolume behind a claim ("data-db-0"): the key of its journal.
    pub fn volume_of(&self, claim: &str) -> String {
        format!("{}-{claim}", self.namespace)
    }

    fn text(&self, workload: Workload, name: &str) -> String {
        let seconds = |seconds: Option<u32>| seconds.map_or("never".to_owned(), |seconds| seconds.to_string());
        let (text, replicas, seconds) = match workload {
            Workload::StatefulSet { replicas } => (include_str!("../workloads/statefulset.yaml"), replicas, None),
            Workload::TolerantStatefulSet { replicas } => {
                (include_str!("../workloads/statefulset-tolerant.yaml"), replicas, None)
            }
            Workload::Deployment => (include_str!("../workloads/deployment.yaml"), 1, None),
            Workload::DaemonSet => (include_str!("../workloads/daemonset.yaml"), 1, None),
            Workload::Job { seconds: time } => (include_str!("../workloads/job.yaml"), 1, Some(seconds(time))),
            Workload::PolicyJob { seconds: time } => {
                (include_str!("../workloads/job-policy.yaml"), 1, Some(seconds(time)))
            }
            Workload::FinalizerPod => (include_str!("../workloads/pod-finalizer.yaml"), 1, None),
            Workload::MirrorPod => (include_str!("../workloads/pod-mirror.yaml"), 1, None),
        };
        text.replace("NAME", name)
            .replace("NODE", &self.home)
            .replace("REPLICAS", &replicas.to_string())
            .replace("SECONDS", seconds.as_deref().unwrap_or_default())
    }

    /// Keeps an object's pods within the rack, and starts them at home.
    fn place(&self, object: &mut Value) {
        let pod = match object["kind"].as_str() {
            Some("Pod") => object.pointer_mut("/spec"),
            Some(_) | None => object.pointer_mut("/spec/template/spec"),
        };
        let Some(pod) = pod.filter(|pod| pod["nodeName"].is_null()) else { return };
        let home =
            json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [self.home]}]});
        pod["nodeSelector"] = json!({RACK_LABEL: self.rack});
        pod["affinity"] = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "preference": home},
        ]}});
    }

    fn volume(&self, claim: &str) -> Value {
        let name = self.volume_of(claim);
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                // Else another test's claim could take it.
                "claimRef": {"namespace": self.namespace, "name": claim},
                "csi": {"driver": self.driver, "volumeHandle": name},
            },
        })
    }

    async fn create(&self, object: Value) -> Result<()> {
        let object: DynamicObject = serde_json::from_value(object)?;
        let types = object.types.as_ref().context("an object without a kind")?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        let api: Api<DynamicObject> = match types.kind.as_str() {
            "Namespace" | "PersistentVolume" | "CSIDriver" => Api::all_with(self.client.clone(), &resource),
            _ => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
        };
        match api.create(&PostParams::default(), &object).await {
            // The driver is the rack's; every site of the rack asks for it.
            Err(Error::Api(status)) if status.code == 409 && types.kind == "CSIDriver" => Ok(()),
            Ok(_) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("creating {} {}", types.kind, object.name_any())),
        }
    }
}

/// The pod's phase is Running, and nobody has deleted it.
pub fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}

/// The Node that a pod is bound to; empty if none.
pub fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn claims(workload: Workload, name: &str) -> Vec<String> {
    match workload {
        Workload::StatefulSet { replicas } => (0..replicas).map(|ordinal| format!("data-{name}-{ordinal}")).collect(),
        Workload::Deployment => vec![name.to_owned()],
        Workload::TolerantStatefulSet { .. }
        | Workload::DaemonSet
        | Workload::Job { .. }
        | Workload::PolicyJob { .. }
        | Workload::FinalizerPod
        | Workload::MirrorPod => Vec::new(),
    }
}

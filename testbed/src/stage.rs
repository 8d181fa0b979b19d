//! The scene of the demo and of the speed figures: a cluster with the operator on it, and racks of three with their BMC, a
//! database and an oracle.

mod bmc;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::{Api, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::discovery::ApiResource;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use self::bmc::Bmc;
pub use self::bmc::Kind;
use crate::controlplane::{ControlPlane, Options};
use crate::journal::Life;
use crate::kubelet::is_ready;
use crate::machine::Machine;
use crate::operator::{Operator, Settings, install};
use crate::oracle::Oracle;
use crate::rack::{Layout, Rack};
use crate::wait;
use crate::workloads::{Site, Workload, is_running};

/// For steps of the set-up that take a second on an idle machine.
const SETUP: Duration = Duration::from_secs(60);
/// From the CR to Done: 3 s, and the patience of 15 s; the rest is for a loaded machine. From a hang to NotReady: 50 s.
const FENCE: Duration = Duration::from_secs(120);
/// Records of the hung machine that convince a reader that it still writes: half a second's.
const STILL_WRITING: usize = 10;
/// Between two looks: short against the seconds that are measured.
const PERIOD: Duration = Duration::from_millis(20);

const GROUP: &str = "fence-agents-remediation.medik8s.io";
const KIND: &str = "FenceAgentsRemediation";
const APP: &str = "db";

/// How workloads leave the fenced node (`spec.remediationStrategy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Strategy {
    /// The node's pods are deleted.
    ResourceDeletion,
    /// Kubernetes' out-of-service taint is put on the node.
    OutOfServiceTaint,
}

impl Strategy {
    /// As the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResourceDeletion => "ResourceDeletion",
            Self::OutOfServiceTaint => "OutOfServiceTaint",
        }
    }
}

/// A control plane with the operator on it.
pub struct Cluster {
    // In the order in which they are to end.
    operator: Operator,
    namespace: String,
    client: Client,
    _control_plane: ControlPlane,
}

/// A rack whose second machine runs a StatefulSet pod that writes to an RWO volume; everybody well.
pub struct Stage<'a> {
    cluster: &'a Cluster,
    oracle: Oracle,
    bmc: Bmc,
    site: Site,
    victim: Arc<Machine>,
    rack: Rack,
}

/// What a hang was.
#[derive(Clone, Debug)]
pub struct Hung {
    /// When the machine fell silent.
    pub at: Timestamp,
    /// How many records it has been seen to write since.
    pub records: usize,
    /// The pod that went on writing.
    pub pod: Pod,
}

/// How far a remediation is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Until the replacement runs and the node is back.
    Recovered,
    /// Until the remediation is Done too.
    Done,
}

/// A remediation, from its CR on.
#[derive(Clone, Debug)]
pub struct Fenced {
    /// The hang before it.
    pub hung: Hung,
    /// When the CR was sent to the API server.
    pub created: Timestamp,
    /// When the replacement was seen Running.
    pub running: Timestamp,
    /// The replacement.
    pub replacement: Pod,
    /// When the node was seen Ready again, after a new boot.
    pub back: Timestamp,
    /// When the remediation was seen Done, if that was waited for.
    pub done: Option<Timestamp>,
    /// The CR's last status.
    pub status: Value,
}

impl Cluster {
    /// Brings up a control plane and the operator on it, and waits until that leads. State and logs go to `dir`, and stay
    /// there; without one, to a temporary directory.
    ///
    /// # Errors
    /// Whatever part does not come up.
    pub async fn start(operator: &Path, dir: Option<PathBuf>) -> Result<Self> {
        let control_plane = ControlPlane::start(Options { dir, ..Options::default() }).await?;
        let client = control_plane.client();
        let installed = install(&control_plane).await?;
        let settings = Settings::new(operator, &installed, &control_plane.dir().join("operator.log"));
        let operator = Operator::start(settings)?;
        let cluster = Self { operator, namespace: installed.namespace, client, _control_plane: control_plane };
        cluster.is_led().await.with_context(|| cluster.operator_says())?;
        Ok(cluster)
    }

    async fn is_led(&self) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        wait::until("the operator to lead", SETUP, || async {
            let mut specs = leases.list(&ListParams::default()).await?.items.into_iter().filter_map(|lease| lease.spec);
            Ok(specs.any(|spec| spec.holder_identity.is_some_and(|holder| !holder.is_empty())).then_some(()))
        })
        .await
    }

    fn operator_says(&self) -> String {
        format!("the operator's last lines:\n{}", self.operator.tail())
    }
}

impl<'a> Stage<'a> {
    /// Sets up a rack `{name}-1` to `{name}-3`, a database in the namespace `namespace`, and an oracle.
    ///
    /// # Errors
    /// Whatever part does not come up.
    pub async fn set(cluster: &'a Cluster, name: &str, namespace: &str, bmc: Kind) -> Result<Self> {
        let rack = Rack::start(cluster.client.clone(), &Layout::workers(name, 3)).await?;
        let bmc = Bmc::start(bmc, rack.machines()).await?;
        let victim = rack.machines()[1].clone();
        let oracle = Oracle::new(&rack).await?;
        let site = Site::new(&rack, namespace, victim.name()).await?;
        site.run(Workload::StatefulSet { replicas: 1 }, APP).await?;
        site.running(APP, 1, SETUP).await?;
        let stage = Self { cluster, oracle, bmc, site, victim, rack };
        stage.secret("bmc", stage.bmc.credentials()).await?;
        stage.secret("bmc-ca", json!({"ca.crt": stage.bmc.ca_pem()})).await?;
        Ok(stage)
    }

    /// Hangs the victim, and waits until it is plain that it still writes.
    ///
    /// # Errors
    /// When it stops writing.
    pub async fn hang(&self) -> Result<Hung> {
        let mut hung = self.hang_unseen().await?;
        let records = || self.rack.journals().volume(&self.volume()).iter().filter(|entry| entry.at > hung.at).count();
        hung.records = wait::until("the hung machine to write on", SETUP, || async {
            Ok(Some(records()).filter(|records| *records >= STILL_WRITING))
        })
        .await?;
        Ok(hung)
    }

    /// Hangs the victim and does not wait for anything.
    ///
    /// # Errors
    /// When the database does not run.
    pub async fn hang_unseen(&self) -> Result<Hung> {
        let pod = self.site.running(APP, 1, SETUP).await?.remove(0);
        self.victim.hang();
        Ok(Hung { at: Timestamp::now(), records: 0, pod })
    }

    /// Waits until Kubernetes says that the victim is not Ready: some 50 s after its hang.
    ///
    /// # Errors
    /// When that takes longer than two minutes.
    pub async fn not_ready(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.cluster.client.clone());
        wait::until(&format!("{} to be NotReady", self.victim.name()), FENCE, || async {
            Ok((!is_ready(&nodes.get(self.victim.name()).await?)).then_some(()))
        })
        .await
    }

    /// Creates the remediation and waits until all is well again.
    ///
    /// # Errors
    /// When it halts, or the replacement or the node don't come; the operator's last lines are in the message.
    pub async fn fence(&self, strategy: Strategy, hung: Hung, until: Until) -> Result<Fenced> {
        self.remediate(strategy, hung, until).await.with_context(|| self.cluster.operator_says())
    }

    /// Who judges it.
    pub fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    /// The machine that runs the database.
    pub fn victim(&self) -> &Arc<Machine> {
        &self.victim
    }

    /// What the processes of a pod did.
    pub fn lives_of(&self, pod: &Pod) -> Vec<Life> {
        self.rack.journals().lives_of(&pod.uid().unwrap_or_default())
    }

    async fn remediate(&self, strategy: Strategy, hung: Hung, until: Until) -> Result<Fenced> {
        let boot = self.victim.state().boot_id.to_string();
        let remediation: DynamicObject = serde_json::from_value(self.remediation(strategy))?;
        let created = Timestamp::now();
        self.remediations().create(&PostParams::default(), &remediation).await?;

        let mut seen = Seen::default();
        let all = async {
            while !seen.is_all(until) {
                self.look(&hung, &boot, &mut seen).await?;
                sleep(PERIOD).await;
            }
            anyhow::Ok(())
        };
        match (timeout(FENCE, all).await, seen) {
            (Ok(Ok(())), Seen { running: Some((running, replacement)), back: Some(back), done, status }) => {
                Ok(Fenced { hung, created, running, replacement, back, done, status })
            }
            (Ok(Err(error)), _) => Err(error),
            (Ok(Ok(())) | Err(_), seen) => bail!(
                "after {FENCE:?}, replacement running: {}, node back: {}, remediation: {}",
                seen.running.is_some(),
                seen.back.is_some(),
                seen.status["message"]
            ),
        }
    }

    async fn look(&self, hung: &Hung, boot: &str, seen: &mut Seen) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.cluster.client.clone());
        let pods = self.site.pods(APP).await?;
        let replacement = pods.into_iter().find(|pod| pod.uid() != hung.pod.uid() && is_running(pod));
        seen.running = seen.running.take().or_else(|| Some((Timestamp::now(), replacement?)));
        if is_back(&nodes.get(self.victim.name()).await?, boot) {
            seen.back.get_or_insert_with(Timestamp::now);
        }
        seen.status = self.remediations().get(self.victim.name()).await?.data["status"].take();
        match seen.status["phase"].as_str() {
            Some("Done") => drop(seen.done.get_or_insert_with(Timestamp::now)),
            Some("Halted") => bail!("the remediation halted: {}", seen.status["message"]),
            Some(_) | None => {}
        }
        Ok(())
    }

    async fn secret(&self, name: &str, data: Value) -> Result<()> {
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client.clone(), &self.cluster.namespace);
        let name = self.secret_name(name);
        let secret = serde_json::from_value(json!({"metadata": {"name": name}, "stringData": data}))?;
        secrets.create(&PostParams::default(), &secret).await.with_context(|| format!("creating Secret {name}"))?;
        Ok(())
    }

    fn secret_name(&self, name: &str) -> String {
        format!("{}-{name}", self.rack.name())
    }

    fn remediation(&self, strategy: Strategy) -> Value {
        json!({
            "apiVersion": format!("{GROUP}/v1alpha1"),
            "kind": KIND,
            "metadata": {"name": self.victim.name()},
            "spec": {
                "agent": "fence_redfish",
                "sharedparameters": {"--ip": self.bmc.address(), "--ipport": self.bmc.port().to_string()},
                "nodeparameters": {"--systems-uri": {self.victim.name(): self.bmc.systems_uri(&self.victim)}},
                "sharedSecretName": self.secret_name("bmc"),
                "tls": {"caSecretName": self.secret_name("bmc-ca")},
                // The BMC answers within 0.1 s. Done comes not before this has passed since the off: it might be late.
                "timeout": "15s",
                "remediationStrategy": strategy.name(),
            },
        })
    }

    fn remediations(&self) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1alpha1", KIND));
        Api::namespaced_with(self.cluster.client.clone(), &self.cluster.namespace, &resource)
    }

    fn volume(&self) -> String {
        self.site.volume_of(&format!("data-{APP}-0"))
    }
}

#[derive(Default)]
struct Seen {
    running: Option<(Timestamp, Pod)>,
    back: Option<Timestamp>,
    done: Option<Timestamp>,
    status: Value,
}

impl Seen {
    fn is_all(&self, until: Until) -> bool {
        let recovered = self.running.is_some() && self.back.is_some();
        match until {
            Until::Recovered => recovered,
            Until::Done => recovered && self.done.is_some(),
        }
    }
}

fn is_back(node: &Node, boot: &str) -> bool {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    is_ready(node) && info.is_some_and(|info| info.boot_id != boot)
}

//! The scene of the demo and of the speed figures: a cluster, a rack of three, its BMC, a database, the operator.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::{Api, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::discovery::ApiResource;
use kube::{Client, ResourceExt};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::bmc::sushy::Sushy;
use crate::controlplane::{ControlPlane, Options};
use crate::journal::Life;
use crate::kubelet::is_ready;
use crate::machine::Machine;
use crate::operator::{Installed, Operator, Settings, install};
use crate::oracle::{Oracle, Verdict};
use crate::rack::{Layout, Rack};
use crate::wait;
use crate::workloads::{Site, Workload, is_running, node_of};

/// For steps of the set-up that take a second on an idle machine.
const SETUP: Duration = Duration::from_secs(60);
/// From the CR to Done: about 5 s, and the node's boot; more than any timeout of the remediation (60 s).
const FENCE: Duration = Duration::from_secs(120);
/// Records of the hung machine that convince a reader that it still writes.
const STILL_WRITING: usize = 10;

/// Between two looks: short against the seconds that are measured.
const PERIOD: Duration = Duration::from_millis(20);

const GROUP: &str = "fence-agents-remediation.medik8s.io";
const KIND: &str = "FenceAgentsRemediation";
/// The node that dies.
const VICTIM: &str = "node-2";
const SECRET: &str = "bmc-credentials";
const CA_SECRET: &str = "bmc-ca";
const APP: &str = "db";

/// How workloads leave the fenced node (`spec.remediationStrategy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Strategy {
    /// The node's pods are deleted.
    ResourceDeletion,
    /// Kubernetes' out-of-service taint is put on the node.
    OutOfServiceTaint,
}

impl Strategy {
    fn name(self) -> &'static str {
        match self {
            Self::ResourceDeletion => "ResourceDeletion",
            Self::OutOfServiceTaint => "OutOfServiceTaint",
        }
    }
}

/// The scene, set: everybody well.
pub struct Stage {
    // In the order in which they are to end.
    operator: Operator,
    oracle: Oracle,
    bmc: Sushy,
    site: Site,
    rack: Rack,
    installed: Installed,
    client: Client,
    _control_plane: ControlPlane,
}

/// What the hang was.
#[derive(Clone, Debug)]
pub struct Hung {
    /// When the machine fell silent.
    pub at: Timestamp,
    /// How many records it wrote between that and the end of waiting.
    pub records: usize,
    /// The pod that went on writing.
    pub pod: Pod,
}

/// A remediation from its CR to its end.
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
    /// When the remediation was seen Done.
    pub done: Timestamp,
    /// The CR's last status.
    pub status: Value,
}

impl Stage {
    /// Brings everything up, and tells `progress` what there is.
    ///
    /// # Errors
    /// Whatever part does not come up.
    pub async fn set(operator: &Path, dir: Option<PathBuf>, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        let control_plane = ControlPlane::start(Options { dir, ..Options::default() }).await?;
        let client = control_plane.client();
        progress("a Kubernetes control plane: etcd, API server, controller manager, scheduler");

        let workers = (1..=3).map(|number| format!("node-{number}")).collect();
        let layout = Layout { name: "demo".to_owned(), workers, control_plane: Vec::new() };
        let rack = async {
            let rack = Rack::start(client.clone(), &layout).await?;
            let bmc = Sushy::start(rack.machines()).await?;
            progress("a rack: node-1 to node-3, and their BMC, the real sushy-emulator (Redfish over TLS)");
            let site = Site::new(&rack, "shop", VICTIM).await?;
            site.run(Workload::StatefulSet { replicas: 1 }, APP).await?;
            site.running(APP, 1, SETUP).await?;
            progress("a StatefulSet with a ReadWriteOnce volume: shop/db-0 runs on node-2 and writes to it");
            anyhow::Ok((rack, bmc, site))
        };
        let ((rack, bmc, site), installed) = tokio::try_join!(rack, install(&control_plane))?;
        let settings = Settings::new(operator, &installed, &control_plane.dir().join("operator.log"));
        let operator = Operator::start(settings)?;
        let oracle = Oracle::new(&rack).await?;
        let stage = Self { operator, oracle, bmc, site, rack, installed, client, _control_plane: control_plane };
        stage.secrets().await?;
        stage.operator_leads().await?;
        progress("the operator, under the rights of its own ServiceAccount; and an oracle that watches from outside");
        Ok(stage)
    }

    /// Hangs the victim, and waits until it is plain that it still writes.
    ///
    /// # Errors
    /// When it stops writing.
    pub async fn hang(&self) -> Result<Hung> {
        let pod = self.site.running(APP, 1, SETUP).await?.remove(0);
        let machine = self.victim()?;
        let volume = self.volume();
        let journals = self.rack.journals();
        let before = journals.volume(&volume).len();
        let at = Timestamp::now();
        machine.hang();
        let records = wait::until("the hung machine to write on", SETUP, || async {
            let records = journals.volume(&volume).len().saturating_sub(before);
            Ok((records >= STILL_WRITING).then_some(records))
        })
        .await?;
        Ok(Hung { at, records, pod })
    }

    /// Waits until Kubernetes says that the victim is not Ready: some 50 s after its hang.
    ///
    /// # Errors
    /// When that takes longer than two minutes.
    pub async fn victim_is_not_ready(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        wait::until("the node to be NotReady", FENCE, || async {
            Ok((!is_ready(&nodes.get(VICTIM).await?)).then_some(()))
        })
        .await
    }

    /// Creates the remediation and waits until all is well again.
    ///
    /// # Errors
    /// When it does not end in Done, or the replacement or the node don't come; the operator's log is in the message.
    pub async fn fence(&self, strategy: Strategy, hung: Hung) -> Result<Fenced> {
        let fenced = self.remediate(strategy, hung).await;
        fenced.with_context(|| format!("the operator's last lines:\n{}", self.operator.tail()))
    }

    /// Takes the remediation away, so that the next may come, and moves the database home.
    ///
    /// # Errors
    /// When that takes longer than a minute.
    pub async fn reset(&self) -> Result<()> {
        let remediations = self.remediations();
        remediations.delete(VICTIM, &DeleteParams::default()).await?;
        wait::until("the remediation to go", FENCE, || async {
            Ok(remediations.get_opt(VICTIM).await?.is_none().then_some(()))
        })
        .await?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.site.namespace());
        let away = self.site.running(APP, 1, SETUP).await?.remove(0);
        pods.delete(&away.name_any(), &DeleteParams::default()).await?;
        wait::until("the database to be home", SETUP, || async {
            let pods = self.site.pods(APP).await?;
            let home = |pod: &Pod| pod.uid() != away.uid() && is_running(pod) && node_of(pod) == VICTIM;
            Ok(pods.iter().any(home).then_some(()))
        })
        .await
    }

    /// The oracle's verdict so far.
    ///
    /// # Errors
    /// When the oracle can't see the present.
    pub async fn verdict(&self) -> Result<Verdict> {
        self.oracle.verdict().await
    }

    pub(super) fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    pub(super) fn victim(&self) -> Result<&Machine> {
        Ok(self.rack.machine(VICTIM)?)
    }

    pub(super) fn lives_of(&self, pod: &Pod) -> Vec<Life> {
        self.rack.journals().lives_of(&pod.uid().unwrap_or_default())
    }

    async fn remediate(&self, strategy: Strategy, hung: Hung) -> Result<Fenced> {
        let remediations = self.remediations();
        let boot = self.victim()?.state().boot_id.to_string();
        let remediation: DynamicObject = serde_json::from_value(self.remediation(strategy)?)?;
        let created = Timestamp::now();
        remediations.create(&PostParams::default(), &remediation).await?;

        let mut seen = Seen::default();
        let all = async {
            while !seen.is_all() {
                self.look(&hung, &boot, &mut seen).await?;
                sleep(PERIOD).await;
            }
            anyhow::Ok(())
        };
        let ended = timeout(FENCE, all).await;
        match (ended, seen) {
            (
                Ok(Ok(())),
                Seen { running: Some((running, replacement)), back: Some(back), done: Some(done), status },
            ) => Ok(Fenced { hung, created, running, replacement, back, done, status }),
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
        let nodes: Api<Node> = Api::all(self.client.clone());
        let pods = self.site.pods(APP).await?;
        let replacement = pods.into_iter().find(|pod| pod.uid() != hung.pod.uid() && is_running(pod));
        seen.running = seen.running.take().or_else(|| Some((Timestamp::now(), replacement?)));
        if is_back(&nodes.get(VICTIM).await?, boot) {
            seen.back.get_or_insert_with(Timestamp::now);
        }
        seen.status = self.remediations().get(VICTIM).await?.data["status"].take();
        match seen.status["phase"].as_str() {
            Some("Done") => drop(seen.done.get_or_insert_with(Timestamp::now)),
            Some("Halted") => bail!("the remediation halted: {}", seen.status["message"]),
            Some(_) | None => {}
        }
        Ok(())
    }

    async fn secrets(&self) -> Result<()> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.installed.namespace);
        let credentials = json!({"--username": self.bmc.username(), "--password": self.bmc.password().expose_secret()});
        for (name, data) in [(SECRET, credentials), (CA_SECRET, json!({"ca.crt": self.bmc.ca_pem()}))] {
            let secret = serde_json::from_value(json!({"metadata": {"name": name}, "stringData": data}))?;
            secrets.create(&PostParams::default(), &secret).await.with_context(|| format!("creating Secret {name}"))?;
        }
        Ok(())
    }

    async fn operator_leads(&self) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.installed.namespace);
        let held = wait::until("the operator to lead", SETUP, || async {
            let mut specs = leases.list(&ListParams::default()).await?.items.into_iter().filter_map(|lease| lease.spec);
            Ok(specs.any(|spec| spec.holder_identity.is_some_and(|holder| !holder.is_empty())).then_some(()))
        });
        held.await.with_context(|| format!("the operator's last lines:\n{}", self.operator.tail()))
    }

    fn remediation(&self, strategy: Strategy) -> Result<Value> {
        Ok(json!({
            "apiVersion": format!("{GROUP}/v1alpha1"),
            "kind": KIND,
            "metadata": {"name": VICTIM},
            "spec": {
                "agent": "fence_redfish",
                "sharedparameters": {"--ip": self.bmc.address(), "--ipport": self.bmc.port().to_string()},
                "nodeparameters": {"--systems-uri": {VICTIM: self.bmc.systems_uri(self.victim()?)}},
                "sharedSecretName": SECRET,
                "tls": {"caSecretName": CA_SECRET},
                // The BMC answers within 0.1 s. Done comes not before this has passed since the off: it might be late.
                "timeout": "15s",
                "remediationStrategy": strategy.name(),
            },
        }))
    }

    fn remediations(&self) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1alpha1", KIND));
        Api::namespaced_with(self.client.clone(), &self.installed.namespace, &resource)
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
    fn is_all(&self) -> bool {
        self.running.is_some() && self.back.is_some() && self.done.is_some()
    }
}

fn is_back(node: &Node, boot: &str) -> bool {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    is_ready(node) && info.is_some_and(|info| info.boot_id != boot)
}

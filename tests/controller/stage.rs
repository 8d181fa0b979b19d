//! What a test plays on: a control plane, an operator, and a rack of its own with its BMCs, workloads and oracle.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use ringfence::api::FenceAgentsRemediation;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::sync::Arc;
use testbed::api_proxy::Proxy;
use testbed::bmc::redfish::Face;
use testbed::controlplane::{ControlPlane, Options, Timings};
use testbed::machine::Machine;
use testbed::operator::{Operator, Settings};
use testbed::oracle::Oracle;
use testbed::rack::{Layout, Rack};
use testbed::wait;
use testbed::workloads::{Site, Workload, node_of};
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

/// Where the operator runs, and remediations with it.
pub const NAMESPACE: &str = "ringfence-system";
/// Longer than anything takes that goes right, on two loaded cores.
pub const SOON: Duration = Duration::from_secs(60);
/// The shortest `timeout` that counts.
pub const SHORT: &str = "10s";

/// One runtime for all tests: what they share must outlive each of them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
static SHARED: OnceCell<Cluster> = OnceCell::const_new();
/// A control plane takes 0.7 GB and, while it starts, both cores.
static OWN: Semaphore = Semaphore::const_new(2);

/// Runs a test.
pub fn play(test: impl Future<Output = Result<()>>) {
    RUNTIME.block_on(test).unwrap_or_else(|error| panic!("{error:#}"));
}

/// A control plane with our operator on it.
pub struct Cluster {
    pub plane: ControlPlane,
    pub operator: Operator,
    _permit: Option<SemaphorePermit<'static>>,
}

impl Cluster {
    /// The one that tests share, which leave the operator alone.
    pub async fn shared() -> Result<&'static Self> {
        SHARED.get_or_try_init(|| Self::start(None, Timings::Default, &[])).await
    }

    /// One of the test's own.
    pub async fn own(timings: Timings) -> Result<Self> {
        Self::own_with(timings, &[]).await
    }

    /// The same, with further flags of the operator's.
    pub async fn own_with(timings: Timings, flags: &[&str]) -> Result<Self> {
        Self::start(Some(OWN.acquire().await?), timings, flags).await
    }

    /// One of the test's own, whose operator is another program.
    pub async fn own_with_program(program: impl FnOnce(&Path) -> PathBuf) -> Result<Self> {
        let permit = Some(OWN.acquire().await?);
        let (plane, mut settings) = Self::prepare(Timings::Default).await?;
        settings.binary = program(&settings.binary);
        Ok(Self { plane, operator: Operator::start(settings)?, _permit: permit })
    }

    /// One of the test's own, whose operator reaches the API server through a proxy; with these flags, if there are any,
    /// instead of those that tests have.
    pub async fn proxied(flags: Option<Vec<String>>) -> Result<(Self, Proxy)> {
        let permit = Some(OWN.acquire().await?);
        let (plane, mut settings) = Self::prepare(Timings::Default).await?;
        let proxy = Proxy::before_api_server(&plane).await?;
        settings.kubeconfig = proxy.kubeconfig(&settings.kubeconfig)?;
        settings.flags = flags.unwrap_or(settings.flags);
        Ok((Self { plane, operator: Operator::start(settings)?, _permit: permit }, proxy))
    }

    async fn start(permit: Option<SemaphorePermit<'static>>, timings: Timings, flags: &[&str]) -> Result<Self> {
        let (plane, mut settings) = Self::prepare(timings).await?;
        if permit.is_none() {
            plane.apply_yaml(include_str!("foreign.yaml")).await?;
        }
        settings.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let operator = Operator::start(settings)?;
        Ok(Self { plane, operator, _permit: permit })
    }

    async fn prepare(timings: Timings) -> Result<(ControlPlane, Settings)> {
        // For whoever wants to read the logs of a single test afterwards.
        let dir = std::env::var_os("RINGFENCE_TEST_DIR").map(PathBuf::from);
        let plane = ControlPlane::start(Options { timings, dir, ..Options::default() }).await?;
        let installed = testbed::operator::install(&plane).await?;
        let settings = Settings::new(&binary(), &installed, &plane.dir().join("operator.log"));
        Ok((plane, settings))
    }

    /// Sets a rack of three machines up, with one StatefulSet pod and its volume on the first.
    pub async fn stage(&self, name: &str) -> Result<Stage> {
        Stage::new(&self.plane, Layout::workers(name, 3)).await
    }
}

/// The operator under test.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_ringfence"))
}

/// A rack with BMCs, a StatefulSet `db` with a volume on its first machine, and an oracle watching.
pub struct Stage {
    pub client: Client,
    pub rack: Rack,
    pub face: Face,
    pub site: Site,
    pub oracle: Oracle,
    pub name: String,
}

impl Stage {
    pub async fn new(plane: &ControlPlane, layout: Layout) -> Result<Self> {
        let client = plane.client();
        let name = layout.name.clone();
        let rack = Rack::start(client.clone(), &layout).await?;
        let face = Face::start(rack.machines()).await?;
        let oracle = Oracle::new(&rack).await?;
        let site = Site::new(&rack, &name, rack.machines()[0].name()).await?;
        site.run(Workload::StatefulSet { replicas: 1 }, "db").await?;
        let pods = site.running("db", 1, SOON).await?;
        ensure!(node_of(&pods[0]) == rack.machines()[0].name(), "db-0 did not start on the first machine");
        let stage = Self { client, rack, face, site, oracle, name };
        stage.secret("ca", &[("ca.crt", stage.face.ca_pem())]).await?;
        let (username, password) = (stage.face.username(), stage.face.password().expose_secret());
        stage.secret("bmc", &[("--username", username), ("--password", password)]).await?;
        Ok(stage)
    }

    /// The first machine: the one to be fenced.
    pub fn victim(&self) -> &Arc<Machine> {
        &self.rack.machines()[0]
    }

    /// Creates a Secret `{stage}-{name}` beside the operator.
    pub async fn secret(&self, name: &str, data: &[(&str, &str)]) -> Result<()> {
        let data: Value = data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let name = format!("{}-{name}", self.name);
        let secret = json!({"metadata": {"name": name}, "stringData": data});
        let api: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(with_kind("v1", "Secret", secret))).await?;
        Ok(())
    }

    /// The spec that fences the victim: `changes` are merged into it.
    pub fn spec(&self, changes: Value) -> Value {
        let uris: Value =
            self.rack.machines().iter().map(|m| (m.name().to_owned(), json!(self.face.systems_uri(m)))).collect();
        let mut spec = json!({
            "agent": "fence_redfish",
            "retrycount": 2, "retryinterval": "1s", "timeout": SHORT,
            "sharedparameters": {"--ip": "127.0.0.1", "--ipport": self.face.port().to_string()},
            "nodeparameters": {"--systems-uri": uris},
            "sharedSecretName": format!("{}-bmc", self.name),
            "tls": {"caSecretName": format!("{}-ca", self.name)},
        });
        merge(&mut spec, changes);
        spec
    }

    /// Creates a remediation of the victim.
    pub async fn remediate(&self, changes: Value) -> Result<Remediation> {
        self.remediate_node(self.victim().name(), changes).await
    }

    /// Creates a remediation of a node; several of one node get names of their own.
    pub async fn remediate_node(&self, node: &str, changes: Value) -> Result<Remediation> {
        let object = json!({
            "metadata": {"generateName": format!("{node}-"), "annotations": {"remediation.medik8s.io/node-name": node}},
            "spec": self.spec(changes),
        });
        Remediation::create(&self.client, object).await
    }

    pub async fn node(&self, machine: &Machine) -> Result<Node> {
        Ok(Api::<Node>::all(self.client.clone()).get(machine.name()).await?)
    }

    /// The replacement of the victim's pod, once it runs elsewhere.
    pub async fn replacement(&self, within: Duration) -> Result<Pod> {
        wait::until("db-0 to run on another node", within, || async {
            let pods = self.site.pods("db").await?;
            let moved = |pod: &Pod| testbed::workloads::is_running(pod) && node_of(pod) != self.victim().name();
            Ok(pods.into_iter().find(moved))
        })
        .await
    }

    /// Fails unless the oracle finds nothing wrong.
    pub async fn judged(&self) -> Result<()> {
        let verdict = self.oracle.verdict().await?;
        ensure!(verdict.is_clean(), "{verdict}");
        Ok(())
    }

    /// Fails if the victim's workload was released, or anything else was wrong.
    pub async fn kept(&self) -> Result<()> {
        self.judged().await?;
        let releases = self.oracle.releases();
        ensure!(releases.is_empty(), "released without a proof: {releases:?}");
        Ok(())
    }

    /// Waits until nothing of ours is on the node but its last seal.
    pub async fn node_is_clean(&self, machine: &Machine, within: Duration) -> Result<()> {
        wait::until("the node to be free of our taints and claims", within, || async {
            let node = self.node(machine).await?;
            let taints = taint_keys(&node);
            let ours = taints
                .iter()
                .any(|key| key.contains("medik8s.io") || key.contains("ringfence") || key.contains("out-of-service"));
            let claimed = node.annotations().contains_key("ringfence.dev/claim");
            Ok((!ours && !claimed).then_some(()))
        })
        .await
    }
}

/// A remediation of the test's.
pub struct Remediation {
    pub api: Api<FenceAgentsRemediation>,
    pub name: String,
    client: Client,
}

impl Remediation {
    /// Creates one from its metadata and spec.
    pub async fn create(client: &Client, object: Value) -> Result<Self> {
        let api: Api<FenceAgentsRemediation> = Api::namespaced(client.clone(), NAMESPACE);
        let object = with_kind("fence-agents-remediation.medik8s.io/v1alpha1", "FenceAgentsRemediation", object);
        let far = api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(Self::existing(client, &far.name_any()))
    }

    /// One that somebody else created.
    pub fn existing(client: &Client, name: &str) -> Self {
        let api = Api::namespaced(client.clone(), NAMESPACE);
        Self { api, name: name.to_owned(), client: client.clone() }
    }

    pub async fn get(&self) -> Result<FenceAgentsRemediation> {
        Ok(self.api.get(&self.name).await?)
    }

    /// Waits until the remediation is as `is` wants, and says so.
    pub async fn until(
        &self,
        what: &str,
        within: Duration,
        is: impl Fn(&FenceAgentsRemediation) -> bool,
    ) -> Result<FenceAgentsRemediation> {
        let found = wait::until(&format!("{} to be {what}", self.name), within, || async {
            Ok(Some(self.get().await?).filter(&is))
        })
        .await;
        match found {
            Ok(far) => Ok(far),
            Err(error) => {
                let status = self.get().await.map(|far| far.status);
                Err(error.context(format!("its status: {}", serde_json::to_string(&status.ok()).unwrap_or_default())))
            }
        }
    }

    /// Waits until it is in a phase.
    pub async fn phase(&self, phase: &str, within: Duration) -> Result<FenceAgentsRemediation> {
        self.until(phase, within, |far| phase_of(far) == phase).await
    }

    /// Waits until it is Halted with `Succeeded` as given and this reason, and an event with the same reason exists.
    pub async fn halted(&self, succeeded: &str, reason: &str, within: Duration) -> Result<FenceAgentsRemediation> {
        self.halted_as(succeeded, reason, reason, within).await
    }

    /// As `halted`, for the reasons that FAR has, and its own events for them.
    pub async fn halted_for(&self, reason: &str, event: &str, within: Duration) -> Result<FenceAgentsRemediation> {
        self.halted_as("False", reason, event, within).await
    }

    async fn halted_as(
        &self,
        succeeded: &str,
        reason: &str,
        event: &str,
        within: Duration,
    ) -> Result<FenceAgentsRemediation> {
        let far = self
            .until(&format!("Halted, Succeeded={succeeded}, {reason}"), within, |far| {
                let condition = condition(far, "Succeeded");
                phase_of(far) == "Halted" && condition == (succeeded.to_owned(), reason.to_owned())
            })
            .await?;
        self.event(event).await?;
        Ok(far)
    }

    /// Waits for an event about it.
    pub async fn event(&self, reason: &str) -> Result<Event> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), NAMESPACE);
        wait::until(&format!("an event {reason} about {}", self.name), SOON, || async {
            let about = ListParams::default().fields(&format!("regarding.name={}", self.name));
            let events = api.list(&about).await?.items;
            Ok(events.into_iter().find(|event| event.reason.as_deref() == Some(reason)))
        })
        .await
    }

    pub async fn delete(&self) -> Result<()> {
        self.api.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until it is gone.
    pub async fn gone(&self, within: Duration) -> Result<()> {
        wait::until(&format!("{} to be gone", self.name), within, || async {
            Ok(self.api.get_opt(&self.name).await?.is_none().then_some(()))
        })
        .await
    }

    /// Merges changes into its spec.
    pub async fn edit(&self, spec: Value) -> Result<()> {
        self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await?;
        Ok(())
    }
}

pub fn phase_of(far: &FenceAgentsRemediation) -> &str {
    far.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Status and reason of a condition; empty if there is none.
pub fn condition(far: &FenceAgentsRemediation, type_: &str) -> (String, String) {
    let conditions = far.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let found = conditions.iter().find(|condition| condition.type_ == type_);
    found.map(|c| (c.status.clone(), c.reason.clone())).unwrap_or_default()
}

pub fn message(far: &FenceAgentsRemediation) -> &str {
    far.status.as_ref().and_then(|status| status.message.as_deref()).unwrap_or_default()
}

pub fn taint_keys(node: &Node) -> Vec<String> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    taints.into_iter().map(|taint| taint.key).collect()
}

pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Creates a namespace.
pub async fn namespace(client: &Client, name: &str) -> Result<()> {
    let object = with_kind("v1", "Namespace", json!({"metadata": {"name": name}}));
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(())
}

pub fn with_kind(version: &str, kind: &str, mut object: Value) -> Value {
    object["apiVersion"] = json!(version);
    object["kind"] = json!(kind);
    object
}

/// RFC 7386.
pub fn merge(target: &mut Value, patch: Value) {
    match patch {
        Value::Object(fields) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (key, value) in fields {
                match value.is_null() {
                    true => drop(target.as_object_mut().expect("made one").remove(&key)),
                    false => merge(&mut target[&key], value),
                }
            }
        }
        other => *target = other,
    }
}

//! Shadow mode beside the real FAR and Debian's real fence_redfish: what it says, and that it does nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use ringfence::api::FenceAgentsRemediation;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use testbed::bmc::redfish::{Face, Fault};
use testbed::controlplane::{ControlPlane, Options};
use testbed::machine::Machine;
use testbed::operator::{Operator, Settings};
use testbed::rack::{Layout, Rack};
use testbed::upstream::{self, NAMESPACE, Upstream};
use testbed::wait;

use crate::stage::{SOON, binary, condition, is_ready, merge, play, with_kind};

/// A BMC that takes its time, as real ones do.
const LATE: Duration = Duration::from_secs(3);

/// FAR beside its shadow, and machines.
struct Site {
    plane: ControlPlane,
    _far: Upstream,
    shadow: Operator,
    rack: Rack,
    face: Face,
}

impl Site {
    async fn new(machines: usize) -> Result<Self> {
        let dir = std::env::var_os("RINGFENCE_TEST_DIR").map(Into::into);
        let plane = ControlPlane::start(Options { dir, ..Options::default() }).await?;
        let installed = upstream::install(&plane).await?;
        plane.apply_yaml(&std::fs::read_to_string(rbac())?).await?;
        let kubeconfig = plane.service_account_kubeconfig(NAMESPACE, "ringfence-shadow").await?;
        let shadow = Operator::start(Settings {
            binary: binary(),
            kubeconfig,
            namespace: NAMESPACE.to_owned(),
            flags: ["--shadow", "--log-format=json", "--health-addr=127.0.0.1:0"].map(str::to_owned).to_vec(),
            log: plane.dir().join("shadow.log"),
        })?;
        let rack = Rack::start(plane.client(), &Layout::workers("shadow", machines)).await?;
        let face = Face::start(rack.machines()).await?;
        let far = Upstream::start(&installed, &plane.dir().join("upstream.log")).await?;
        Ok(Self { plane, _far: far, shadow, rack, face })
    }

    fn machine(&self, number: usize) -> &Arc<Machine> {
        &self.rack.machines()[number]
    }

    /// Creates a remediation as NHC does, with the real script's parameters; `changes` are merged into its spec.
    async fn remediate(&self, machine: &Machine, behind: &Machine, changes: Value) -> Result<FenceAgentsRemediation> {
        self.remediate_with(machine, behind, self.face.password().expose_secret(), changes).await
    }

    async fn remediate_with(
        &self,
        machine: &Machine,
        behind: &Machine,
        password: &str,
        changes: Value,
    ) -> Result<FenceAgentsRemediation> {
        let secret = format!("{}-bmc", machine.name());
        let data = json!({"--username": self.face.username(), "--password": password});
        let object = with_kind("v1", "Secret", json!({"metadata": {"name": secret}, "stringData": data}));
        let secrets: Api<Secret> = Api::namespaced(self.plane.client(), NAMESPACE);
        secrets.patch(&secret, &PatchParams::apply("test"), &Patch::Apply(object)).await?;
        let mut spec = json!({
            "agent": "fence_redfish", "retrycount": 2, "retryinterval": "1s", "timeout": "60s",
            "sharedSecretName": secret,
            "sharedparameters": {
                "--ip": "127.0.0.1", "--ipport": self.face.port().to_string(), "--ssl-insecure": "", "--power-wait": "1",
            },
            "nodeparameters": {"--systems-uri": {machine.name(): self.face.systems_uri(behind)}},
        });
        merge(&mut spec, changes);
        let object = json!({"metadata": {"name": machine.name()}, "spec": spec});
        let object = with_kind("fence-agents-remediation.medik8s.io/v1alpha1", "FenceAgentsRemediation", object);
        Ok(self.api().create(&PostParams::default(), &serde_json::from_value(object)?).await?)
    }

    fn api(&self) -> Api<FenceAgentsRemediation> {
        Api::namespaced(self.plane.client(), NAMESPACE)
    }

    /// Waits until FAR says so, whatever that is worth.
    async fn far_says(&self, machine: &Machine, succeeded: &str) -> Result<()> {
        wait::until(&format!("FAR to say Succeeded={succeeded} of {}", machine.name()), SOON, || async {
            let far = self.api().get(machine.name()).await?;
            Ok((condition(&far, "Succeeded").0 == succeeded).then_some(()))
        })
        .await
    }

    /// Waits for a finding about a machine's node, and returns its fields.
    async fn finds(&self, machine: &Machine, finding: &str, fields: Value) -> Result<Value> {
        let what = format!("the shadow to find {finding} {fields} of {}", machine.name());
        wait::until(&what, SOON, || async {
            let found = self.findings(machine).into_iter().find(|found| {
                found["finding"] == finding
                    && fields.as_object().is_some_and(|all| all.iter().all(|(k, v)| found[k] == *v))
            });
            Ok(found)
        })
        .await
        .with_context(|| format!("it said:\n{}", self.shadow.tail()))
    }

    fn findings(&self, machine: &Machine) -> Vec<Value> {
        let lines = self.shadow.lines().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line.text).ok());
        lines.filter(|line| line["span"]["node"] == machine.name()).map(|line| line["fields"].clone()).collect()
    }
}

/// A proof that was seen, a success without one (W1: FAR with a negative retrycount never runs its agent), the wrong machine
/// (W5), and a BMC that refuses the account.
#[test]
fn far_is_judged_by_what_its_machines_say() {
    play(async {
        let site = &Site::new(6).await?;
        futures::try_join!(honest(site), lie(site), crossed(site), refused(site))?;
        site.wrote_nothing().await
    });
}

async fn honest(site: &Site) -> Result<()> {
    let machine = site.machine(0);
    site.face.set_fault(machine, Some(Fault::Late(LATE)));
    site.remediate(machine, machine, json!({})).await?;
    let plan =
        site.finds(machine, "plan", json!({"agent": "fence_redfish", "driver": "Native", "action": "reboot"})).await?;
    ensure!(plan["plug"] == site.face.systems_uri(machine), "{plan}");
    ensure!(plan["expected_uuid"] == machine.uuid().to_string(), "{plan}");
    site.finds(machine, "reading", json!({"read": "On", "identity": "same"})).await?;
    site.finds(machine, "reading", json!({"read": "Off", "identity": "same"})).await?;
    let success = site.finds(machine, "success", json!({"proof": "seen"})).await?;
    ensure!(success["series"].as_str().is_some_and(|series| series.starts_with("On 0.")), "{success}");
    site.far_says(machine, "True").await?;
    site.node_ready(machine).await?;
    site.delete(machine).await?;
    site.finds(machine, "aftermath", json!({"restarted": true})).await?;
    // It looks once a second, and only while the remediation is under way: FAR's own requests are the others.
    let looks = success["looks"].as_u64().context("a number")?;
    ensure!((3..30).contains(&looks), "{success}");
    Ok(())
}

async fn lie(site: &Site) -> Result<()> {
    let machine = site.machine(1);
    site.remediate(machine, machine, json!({"retrycount": -1})).await?;
    let success = site.finds(machine, "success", json!({"proof": "none"})).await?;
    let message = success["message"].as_str().unwrap_or_default();
    ensure!(message.contains("power was never read Off") && message.contains("NO PROOF"), "{message}");
    ensure!(site.face.commands(machine).is_empty() && machine.history().is_empty(), "nobody switched it off");
    site.far_says(machine, "True").await?;
    site.delete(machine).await?;
    let after = site.finds(machine, "aftermath", json!({"restarted": false})).await?;
    ensure!(after["message"].as_str().is_some_and(|text| text.contains("NEVER RESTARTED")), "{after}");
    Ok(())
}

async fn crossed(site: &Site) -> Result<()> {
    let (machine, innocent) = (site.machine(2), site.machine(3));
    site.face.set_fault(innocent, Some(Fault::Late(LATE)));
    site.remediate(machine, innocent, json!({"sharedparameters": {"--action": "off"}})).await?;
    site.finds(machine, "reading", json!({"read": "Off", "identity": "other"})).await?;
    let success = site.finds(machine, "success", json!({"proof": "none"})).await?;
    ensure!(success["message"].as_str().is_some_and(|text| text.contains("another machine's")), "{success}");
    ensure!(machine.state().on && !innocent.state().on, "FAR switches off what it is told");
    Ok(())
}

async fn refused(site: &Site) -> Result<()> {
    let machine = site.machine(4);
    site.remediate_with(machine, machine, "wrong", json!({"retrycount": 3, "retryinterval": "2s"})).await?;
    site.finds(machine, "reading", json!({"read": "refused"})).await?;
    let failure = site.finds(machine, "failure", json!({"reason": "FenceAgentFailed"})).await?;
    ensure!(failure["looks"] == 1, "a refused account is tried once: {failure}");
    site.far_says(machine, "False").await
}

impl Site {
    async fn node_ready(&self, machine: &Machine) -> Result<()> {
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.plane.client());
        let booted = machine.boots().len();
        ensure!(booted == 2, "it was restarted once: {booted}");
        wait::until(&format!("{} to be Ready in its new boot", machine.name()), SOON, || async {
            let node = nodes.get(machine.name()).await?;
            let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
            let fresh = info.is_some_and(|info| info.boot_id == machine.state().boot_id.to_string());
            Ok((fresh && is_ready(&node)).then_some(()))
        })
        .await
    }

    async fn delete(&self, machine: &Machine) -> Result<()> {
        self.api().delete(machine.name(), &DeleteParams::default()).await?;
        Ok(())
    }

    /// The API server's own word: its audit log has every write to nodes, pods, volumes and remediations; the permissions
    /// have no verb for another.
    async fn wrote_nothing(&self) -> Result<()> {
        let text = std::fs::read_to_string(self.plane.audit_log())?;
        let users: BTreeSet<_> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|event| event["user"]["username"].as_str().map(str::to_owned))
            .collect();
        let account = |name: &str| format!("system:serviceaccount:{NAMESPACE}:{name}");
        ensure!(users.contains(&account(upstream::DEPLOYMENT)), "the log shows who writes: {users:?}");
        ensure!(!users.contains(&account("ringfence-shadow")), "the shadow wrote");
        for document in serde_yaml_ng::Deserializer::from_str(&std::fs::read_to_string(rbac())?) {
            let document = Value::deserialize(document)?;
            let rules = document["rules"].as_array().into_iter().flatten();
            let verbs = rules.flat_map(|rule| rule["verbs"].as_array().into_iter().flatten());
            for verb in verbs {
                ensure!(["get", "list", "watch"].iter().any(|reads| verb == reads), "{document}");
            }
        }
        Ok(())
    }
}

fn rbac() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/shadow/rbac.yaml")
}

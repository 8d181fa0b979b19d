//! The real FAR on a control plane of its own, with machines and their BMCs; ours comes when the test says so.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use ringfence::api::FenceAgentsRemediation;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testbed::bmc::redfish::Face;
use testbed::controlplane::{ControlPlane, Options};
use testbed::machine::Machine;
use testbed::operator::{Operator, Settings};
use testbed::rack::{Layout, Rack};
use testbed::upstream::{self, Installed, NAMESPACE, Upstream};
use testbed::wait;

use crate::stage::{SOON, binary, condition, is_ready, merge, with_kind};

/// The real FAR, and machines.
pub struct Site {
    pub plane: ControlPlane,
    pub installed: Installed,
    pub rack: Rack,
    pub face: Face,
}

impl Site {
    pub async fn new(name: &str, machines: usize) -> Result<Self> {
        let dir = std::env::var_os("RINGFENCE_TEST_DIR").map(|dir| Path::new(&dir).join(name));
        let plane = ControlPlane::start(Options { dir, ..Options::default() }).await?;
        let installed = upstream::install(&plane).await?;
        let rack = Rack::start(plane.client(), &Layout::workers(name, machines)).await?;
        let face = Face::start(rack.machines()).await?;
        Ok(Self { plane, installed, rack, face })
    }

    /// Starts FAR.
    pub async fn far(&self) -> Result<Upstream> {
        Upstream::start(&self.installed, &self.plane.dir().join("upstream.log")).await
    }

    /// Starts the shadow, under the permissions of `deploy/shadow`, which must be there.
    pub async fn shadow(&self) -> Result<Operator> {
        Operator::start(Settings {
            binary: binary(),
            kubeconfig: self.plane.service_account_kubeconfig(NAMESPACE, "ringfence-shadow").await?,
            namespace: NAMESPACE.to_owned(),
            flags: ["--shadow", "--log-format=json", "--health-addr=127.0.0.1:0"].map(str::to_owned).to_vec(),
            log: self.plane.dir().join("shadow.log"),
        })
    }

    pub fn machine(&self, number: usize) -> &Arc<Machine> {
        &self.rack.machines()[number]
    }

    /// Creates a remediation as NHC does, with the real script's parameters; `changes` are merged into its spec.
    pub async fn remediate(
        &self,
        machine: &Machine,
        behind: &Machine,
        changes: Value,
    ) -> Result<FenceAgentsRemediation> {
        self.remediate_with(machine, behind, self.face.password().expose_secret(), changes).await
    }

    pub async fn remediate_with(
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

    pub fn api(&self) -> Api<FenceAgentsRemediation> {
        Api::namespaced(self.plane.client(), NAMESPACE)
    }

    /// Waits until FAR says so, whatever that is worth.
    pub async fn far_says(&self, machine: &Machine, succeeded: &str) -> Result<()> {
        wait::until(&format!("FAR to say Succeeded={succeeded} of {}", machine.name()), SOON, || async {
            let far = self.api().get(machine.name()).await?;
            Ok((condition(&far, "Succeeded").0 == succeeded).then_some(()))
        })
        .await
    }

    /// Waits until a machine is in its second boot, and its node Ready.
    pub async fn node_ready(&self, machine: &Machine) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.plane.client());
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

    pub async fn delete(&self, machine: &Machine) -> Result<()> {
        self.api().delete(machine.name(), &DeleteParams::default()).await?;
        Ok(())
    }
}

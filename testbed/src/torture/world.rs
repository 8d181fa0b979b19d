//! What outlives a round: the control plane, whoever is judged, its remediations.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::plan::Contract;
use super::remediations::Remediations;
use super::remediator::Remediator;
use crate::controlplane::{ControlPlane, Options};
use crate::operator::install;

/// A control plane with a remediator on it.
pub(super) struct World {
    // In the order in which they are to end.
    pub(super) remediator: Mutex<Remediator>,
    pub(super) remediations: Remediations,
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) contract: Contract,
    pub(super) control: ControlPlane,
}

impl World {
    /// Brings it up, and waits until somebody leads. State and logs go to `dir`, and stay there; without one, to a
    /// temporary directory.
    pub(super) async fn start(operator: &Path, command: Option<&str>, dir: Option<PathBuf>) -> Result<Self> {
        let control = ControlPlane::start(Options { dir, ..Options::default() }).await?;
        let client = control.client();
        let installed = install(&control).await?;
        let (remediator, contract) = match command {
            None => {
                let remediator = Remediator::ringfence(operator, &installed, &control, &agents(&control)?).await?;
                (remediator, Contract::Ringfence)
            }
            Some(command) => (Remediator::command(command, &control, &installed.namespace)?, Contract::Far),
        };
        remediator.is_led().await?;
        let remediations = Remediations::new(client.clone(), &installed.namespace);
        let namespace = installed.namespace;
        Ok(Self { remediator: Mutex::new(remediator), remediations, client, namespace, contract, control })
    }

    /// Writes a Secret beside the remediations.
    pub(super) async fn secret(&self, name: &str, data: &Value) -> Result<()> {
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        let applied = self.secrets().patch(name, &PatchParams::apply("torture").force(), &Patch::Apply(object)).await;
        applied.map(drop).with_context(|| format!("writing Secret {name}"))
    }

    /// Deletes it.
    pub(super) async fn no_secret(&self, name: &str) -> Result<()> {
        match self.secrets().delete(name, &DeleteParams::default()).await {
            Err(Error::Api(status)) if status.code == 404 => Ok(()),
            deleted => deleted.map(drop).with_context(|| format!("deleting Secret {name}")),
        }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// All namespaces but those of the cluster itself.
    pub(super) fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.client.clone())
    }
}

/// A directory with the only script that is used.
fn agents(control: &ControlPlane) -> Result<PathBuf> {
    let dir = control.dir().join("agents");
    std::fs::create_dir(&dir).context("making the directory of scripts")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/agents/fence_stub");
    std::os::unix::fs::symlink(script, dir.join("fence_stub")).context("linking fence_stub")?;
    Ok(dir)
}

//! What outlives a round: the control plane, whoever is judged, its remediations.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Judged;
use super::plan::Contract;
use super::remediations::Remediations;
use super::remediator::Remediator;
use crate::controlplane::{ControlPlane, Options};
use crate::operator::install;
use crate::{upstream, wait};

/// An API server that restarts is away for 4 s on an idle machine, and a starved one for longer.
const AWAY: Duration = Duration::from_secs(90);

/// A control plane with a remediator on it.
pub(super) struct World {
    // In the order in which they are to end.
    pub(super) remediator: Mutex<Remediator>,
    pub(super) remediations: Remediations,
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) contract: Contract,
    pub(super) control: ControlPlane,
    _far: Option<upstream::Installed>,
}

impl World {
    /// Brings it up, and waits until somebody leads. State and logs go to `dir`, and stay there; without one, to a
    /// temporary directory.
    pub(super) async fn start(operator: &Path, judged: &Judged, dir: Option<PathBuf>) -> Result<Self> {
        let control = ControlPlane::start(Options { dir, ..Options::default() }).await?;
        let client = control.client();
        let (contract, namespace, remediator, far) = match judged {
            Judged::Ringfence => {
                let installed = install(&control).await?;
                let remediator = Remediator::ringfence(operator, &installed, &control, &agents(&control)?).await?;
                (Contract::Ringfence, installed.namespace, remediator, None)
            }
            Judged::Far => {
                let installed = upstream::install(&control).await?;
                let remediator = Remediator::command(&installed.command(), &control, upstream::NAMESPACE)?;
                (Contract::Far, upstream::NAMESPACE.to_owned(), remediator, Some(installed))
            }
            Judged::Command(command) => {
                let namespace = install(&control).await?.namespace;
                let remediator = Remediator::command(command, &control, &namespace)?;
                (Contract::Far, namespace, remediator, None)
            }
        };
        remediator.is_led().await?;
        let remediations = Remediations::new(client.clone(), &namespace);
        let remediator = Mutex::new(remediator);
        Ok(Self { remediator, remediations, client, namespace, contract, control, _far: far })
    }

    /// Writes a Secret beside the remediations; an API server that is away is waited for.
    pub(super) async fn secret(&self, name: &str, data: &Value) -> Result<()> {
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        let (secrets, params) = (self.secrets(), PatchParams::apply("torture").force());
        wait::until(&format!("Secret {name} to be written"), AWAY, || async {
            Ok(secrets.patch(name, &params, &Patch::Apply(&object)).await.map(drop).map(Some)?)
        })
        .await
    }

    /// Deletes it.
    pub(super) async fn no_secret(&self, name: &str) -> Result<()> {
        let secrets = self.secrets();
        wait::until(&format!("Secret {name} to be deleted"), AWAY, || async {
            match secrets.delete(name, &DeleteParams::default()).await {
                Err(Error::Api(status)) if status.code == 404 => Ok(Some(())),
                deleted => Ok(deleted.map(drop).map(Some)?),
            }
        })
        .await
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

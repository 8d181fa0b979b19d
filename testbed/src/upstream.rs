//! The real medik8s fence-agents-remediation 0.8.0, beside or before ours: built from its Go module, installed by its own
//! manifests, under its own permissions.
//!
//! Two things are not as in a cluster. It runs without `--leader-elect`: outside a pod it can't tell its namespace, so its
//! lease is for the test to play. And it may read Secrets and write events everywhere, as the Operator Lifecycle Manager
//! makes it: its plain manifests permit too little for it to work at all.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::controlplane::ControlPlane;
use crate::pki::{Authority, write_private};
use crate::process::Process;
use crate::scratch::Scratch;
use crate::{ports, setup, wait};

/// Where its own manifests put it.
pub const NAMESPACE: &str = "fence-agents-remediation";
/// Its Deployment.
pub const DEPLOYMENT: &str = "fence-agents-remediation-controller-manager";
/// Where its webhooks listen; it has no flag for that, so there is one on a machine at a time.
const WEBHOOKS: u16 = 9443;
/// Its caches are filled within a second; this is for a machine that builds something at the same time.
const START: Duration = Duration::from_secs(60);

/// What makes Secrets and events known to it in all namespaces.
const PROMOTED: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: fence-agents-remediation-promoted}
rules:
  - {apiGroups: [""], resources: [secrets], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [events], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: fence-agents-remediation-promoted}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: fence-agents-remediation-promoted}
subjects:
  - {kind: ServiceAccount, name: fence-agents-remediation-controller-manager, namespace: fence-agents-remediation}
"#;

/// Its objects in a cluster, and what it is started with.
pub struct Installed {
    binary: PathBuf,
    kubeconfig: PathBuf,
    scratch: Scratch,
}

/// The running manager; killed when dropped.
pub struct Upstream {
    // In the order in which they are to end.
    child: Child,
    _guard: Process,
    _port: File,
    log: PathBuf,
}

/// Applies its own manifests: definitions, permissions, Deployment, webhooks.
///
/// # Errors
/// When it can't be built, or the API server refuses a document.
pub async fn install(plane: &ControlPlane) -> Result<Installed> {
    let binary = setup::upstream().await?;
    let config = binary.with_file_name("config");
    let kubectl = setup::kubectl().await?;
    let rendered = Command::new(kubectl).arg("kustomize").arg(config.join("default")).output().await?;
    ensure!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));

    let scratch = Scratch::new("upstream")?;
    let authority = Authority::new("upstream's webhooks")?;
    let certificate = authority.issue(&["127.0.0.1"])?;
    let certificates = scratch.path().join("k8s-webhook-server/serving-certs");
    fs::create_dir_all(&certificates).context("making the directory of certificates")?;
    fs::write(certificates.join("tls.crt"), certificate.certificate).context("writing the certificate")?;
    write_private(&certificates.join("tls.key"), &certificate.key)?;

    let mut documents = String::new();
    for document in serde_yaml_ng::Deserializer::from_slice(&rendered.stdout) {
        let mut document = Value::deserialize(document).context("reading upstream's manifests")?;
        for webhook in document.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
            let path = webhook["clientConfig"]["service"]["path"].as_str().context("a webhook without a path")?;
            let url = format!("https://127.0.0.1:{WEBHOOKS}{path}");
            webhook["clientConfig"] = json!({ "url": url, "caBundle": base64(authority.pem()) });
        }
        documents.push_str("---\n");
        documents.push_str(&serde_yaml_ng::to_string(&document)?);
    }
    // In kustomize's order: the namespace first.
    plane.apply_yaml(&documents).await?;
    plane.apply_yaml(PROMOTED).await?;
    let kubeconfig = plane.service_account_kubeconfig(NAMESPACE, DEPLOYMENT).await?;
    Ok(Installed { binary, kubeconfig, scratch })
}

impl Installed {
    /// The command that starts it, for `sh`, whoever's child it is to be. There is one on a machine at a time.
    pub fn command(&self) -> String {
        let [temporary, kubeconfig, binary] =
            [self.scratch.path(), &self.kubeconfig, &self.binary].map(|path| path.display().to_string());
        format!(
            "env -i KUBECONFIG='{kubeconfig}' TMPDIR='{temporary}' PATH=/usr/sbin:/usr/bin:/sbin:/bin '{binary}' \
             --metrics-bind-address=0 --health-probe-bind-address=0"
        )
    }
}

impl Upstream {
    /// Starts it, and waits until it works and its webhooks answer.
    ///
    /// # Errors
    /// When it ends, or is not ready in time.
    pub async fn start(installed: &Installed, log: &Path) -> Result<Self> {
        let lock = std::env::temp_dir().join("ringfence-upstream.lock");
        let port = tokio::task::spawn_blocking(move || -> std::io::Result<File> {
            let file = File::options().create(true).append(true).open(lock)?;
            file.lock()?;
            Ok(file)
        });
        let port = port.await?.context("waiting for the port of its webhooks")?;
        let health = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_port()?));
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("opening {}", log.display()))?;
        let child = Command::new(&installed.binary)
            .args(["--metrics-bind-address=0", &format!("--health-probe-bind-address={health}")])
            .env_clear()
            .env("KUBECONFIG", &installed.kubeconfig)
            .env("TMPDIR", installed.scratch.path())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .context("starting upstream's manager")?;
        let pid = child.id().context("upstream's manager ended at once")?;
        // Should this process be killed, the guard's standard input ends, and it takes the manager along.
        let mut guard = std::process::Command::new("sh");
        guard.args(["-c", r#"cat >/dev/null; kill -s KILL "$0""#, &pid.to_string()]);
        let guard = Process::spawn("upstream's guard", &mut guard, log)?;
        let mut upstream = Self { child, _guard: guard, _port: port, log: log.to_owned() };
        let ready = wait::until("upstream to be ready", START, || async {
            let webhooks = TcpStream::connect((Ipv4Addr::LOCALHOST, WEBHOOKS)).await.is_ok();
            Ok((webhooks && TcpStream::connect(health).await.is_ok()).then_some(()))
        });
        let ready = ready.await;
        let ended = upstream.child.try_wait()?;
        ensure!(ready.is_ok() && ended.is_none(), "upstream is not ready; its log: {}", upstream.text()?);
        // It works when its caches are filled.
        upstream.says("Starting workers", START).await?;
        Ok(upstream)
    }

    /// Kills it, as the end of its pod does in the end.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("killing upstream")
    }

    /// Waits until its log holds `text`.
    ///
    /// # Errors
    /// When that takes longer than `within`.
    pub async fn says(&self, text: &str, within: Duration) -> Result<()> {
        wait::until(&format!("upstream to say {text:?}"), within, || async {
            Ok(self.text()?.contains(text).then_some(()))
        })
        .await
    }

    /// All it has said.
    ///
    /// # Errors
    /// When its log can't be read.
    pub fn text(&self) -> Result<String> {
        let bytes = fs::read(&self.log).with_context(|| format!("reading {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn base64(text: &str) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(text)
}

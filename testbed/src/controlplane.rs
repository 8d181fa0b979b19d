//! A real Kubernetes control plane on loopback: etcd, kube-apiserver with RBAC, kube-controller-manager and
//! kube-scheduler, each a process of its own.
//!
//! It starts in about 6 seconds and takes 0.7 GB. Any number run side by side: no port and no path is fixed.

mod apply;
mod components;
mod identity;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use secrecy::SecretString;
use uuid::Uuid;

use self::components::Components;
use crate::pki::Authority;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::setup;

/// etcd, with nothing in it and no fsync, listens in a tenth of a second; this is for a starved machine.
const ETCD_START: Duration = Duration::from_secs(60);
/// The API server takes 3 to 4 s on an idle machine; several may start at once, beside a compiler.
const APISERVER_START: Duration = Duration::from_secs(180);
/// From the API server's first answer until the controller manager has made the first service account: about 1 s.
const CONTROLLERS_START: Duration = Duration::from_secs(120);
/// Longer than anything that is run against a testbed: nobody refreshes the token.
const TOKEN_SECONDS: i64 = 7 * 24 * 3600;

/// How a control plane is to be.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where its state and logs are, kept afterwards for whoever wants to read them; must be empty or missing.
    /// Without: a temporary directory, removed in the end.
    pub dir: Option<PathBuf>,
    /// How long Kubernetes waits for a node.
    pub timings: Timings,
    /// Further arguments for kube-apiserver; they win over the testbed's own.
    pub apiserver_args: Vec<String>,
}

/// How long Kubernetes waits before it believes that a node is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timings {
    /// As a cluster in production has them: NotReady after 50 s, evicted 300 s later. Speed is measured with these.
    #[default]
    Default,
    /// NotReady after 6 s, evicted 5 s later: for tests of what happens then, not of how fast.
    Fast,
}

/// A running control plane, stopped when dropped.
pub struct ControlPlane {
    // In the order in which they are to end.
    _scheduler: Process,
    _controller_manager: Process,
    apiserver: Mutex<Option<Process>>,
    _etcd: Process,
    components: Components,
    client: Client,
    admin_kubeconfig: PathBuf,
    ca_pem: String,
    dir: PathBuf,
    _scratch: Option<Scratch>,
}

impl ControlPlane {
    /// Starts one and waits until pods can be created.
    ///
    /// The first call ever builds the programs from source, which takes minutes and says so on standard error.
    ///
    /// # Errors
    ///
    /// A program that ends or is not ready in time; the end of its log is in the message.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let binary = setup::control_plane().await?;
        let (dir, scratch) = state_directory(options.dir.as_deref())?;

        let ca = Authority::new("ringfence testbed control plane")?;
        let components = Components::new(binary, &dir, &ca, options.timings, options.apiserver_args)?;
        let admin_kubeconfig = components.write_kubeconfig("admin", &components.tokens().admin)?;
        let client = client(&admin_kubeconfig).await?;

        let mut etcd = components.spawn_etcd()?;
        let etcd_address = components.etcd_address();
        etcd.until_ready(ETCD_START, || async move { tokio::net::TcpStream::connect(etcd_address).await.is_ok() })
            .await?;
        let apiserver = start_apiserver(&components, &client).await?;
        let mut controller_manager = components.spawn_controller_manager()?;
        let scheduler = components.spawn_scheduler()?;
        // Pods are refused until their namespace has this one, and it is the last thing to appear.
        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
        controller_manager.until_ready(CONTROLLERS_START, || async { accounts.get("default").await.is_ok() }).await?;

        Ok(Self {
            _scheduler: scheduler,
            _controller_manager: controller_manager,
            apiserver: Mutex::new(Some(apiserver)),
            _etcd: etcd,
            components,
            client,
            admin_kubeconfig,
            ca_pem: ca.pem().to_owned(),
            dir,
            _scratch: scratch,
        })
    }

    /// A client that may do everything, and that repeats no request by itself.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig that may do everything.
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// The API server's URL.
    pub fn url(&self) -> String {
        self.components.url()
    }

    /// The authority of the API server's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Where state and logs are: `etcd.log`, `apiserver.log`, `controller-manager.log`, `scheduler.log`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Every write to nodes, pods, volume attachments and remediations: who, when, with what result; one JSON object
    /// of `audit.k8s.io/v1` a line, without the bodies.
    pub fn audit_log(&self) -> PathBuf {
        self.components.audit_log()
    }

    /// Writes a kubeconfig for whoever has `token`, into the control plane's directory.
    pub fn kubeconfig(&self, user: &str, token: &SecretString) -> anyhow::Result<PathBuf> {
        self.components.write_kubeconfig(&format!("{user}-{}", Uuid::new_v4().simple()), token)
    }

    /// Writes a kubeconfig for an existing service account, to run a program under the RBAC that it will really have.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let accounts = Api::<ServiceAccount>::namespaced(self.client(), namespace);
        let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("requesting a token for service account {namespace}/{name}"))?;
        let token = answer.status.and_then(|status| status.token).context("a token request without a token")?;
        self.kubeconfig(&format!("{namespace}-{name}"), &token.into())
    }

    /// Applies YAML documents of any kinds, in order; a CustomResourceDefinition is served before the next document.
    pub async fn apply_yaml(&self, yaml: &str) -> anyhow::Result<()> {
        apply::apply(&self.client, yaml).await
    }

    /// Kills the API server, as a crash would; a no-op if it is stopped.
    pub fn stop_apiserver(&self) {
        drop(self.lock_apiserver().take());
    }

    /// Starts the API server again where it was, and waits until it is ready; a no-op if it runs.
    pub async fn start_apiserver(&self) -> anyhow::Result<()> {
        if self.lock_apiserver().is_some() {
            return Ok(());
        }
        let apiserver = start_apiserver(&self.components, &self.client).await?;
        // Had another call been faster, the process that it replaces would be killed here.
        self.lock_apiserver().replace(apiserver);
        Ok(())
    }

    /// Kills the API server and starts it again: every connection and watch breaks, no data is lost.
    pub async fn restart_apiserver(&self) -> anyhow::Result<()> {
        self.stop_apiserver();
        self.start_apiserver().await
    }

    /// Starts one more API server on the same etcd, with the same users, keys and certificate, and waits until it is ready:
    /// as a highly available control plane has them. Only who is told its URL uses it.
    ///
    /// # Errors
    /// When it ends or is not ready in time.
    pub async fn another_apiserver(&self) -> anyhow::Result<ApiServer> {
        let name = format!("apiserver-{}", Uuid::new_v4().simple());
        let (mut process, url) = self.components.spawn_another_apiserver(&name)?;
        let kubeconfig = self.components.write_kubeconfig_at(&url, &name, &self.components.tokens().admin)?;
        until_serving(&mut process, &client(&kubeconfig).await?).await?;
        Ok(ApiServer { process, url, kubeconfig })
    }

    fn lock_apiserver(&self) -> MutexGuard<'_, Option<Process>> {
        self.apiserver.lock().expect("no panic while held")
    }
}

/// One more API server of a control plane; killed when dropped.
pub struct ApiServer {
    process: Process,
    url: String,
    kubeconfig: PathBuf,
}

impl ApiServer {
    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A kubeconfig that may do everything, through this API server.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Freezes it: it takes connections and answers nothing. Afterwards its watches are behind.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn pause(&self) -> anyhow::Result<()> {
        self.process.pause().await
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn resume(&self) -> anyhow::Result<()> {
        self.process.resume().await
    }
}

/// Makes a client of the user whom `kubeconfig` names; it repeats no request by itself and goes through no proxy.
pub async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    Client::try_from(config(kubeconfig).await?).context("making a Kubernetes client")
}

async fn config(kubeconfig: &Path) -> anyhow::Result<Config> {
    let parsed = Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
    let mut config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("loading {}", kubeconfig.display()))?;
    config.default_retry = false; // else one call may become 15, and a test sees neither the refusal nor its time
    config.proxy_url = None; // the environment's would be asked for loopback too
    Ok(config)
}

async fn start_apiserver(components: &Components, client: &Client) -> anyhow::Result<Process> {
    let mut apiserver = components.spawn_apiserver()?;
    until_serving(&mut apiserver, client).await?;
    Ok(apiserver)
}

async fn until_serving(apiserver: &mut Process, client: &Client) -> anyhow::Result<()> {
    let ready = || async {
        let request = http::Request::get("/readyz").body(Vec::new()).expect("a constant path");
        client.request_text(request).await.is_ok()
    };
    apiserver.until_ready(APISERVER_START, ready).await
}

fn state_directory(wanted: Option<&Path>) -> anyhow::Result<(PathBuf, Option<Scratch>)> {
    let Some(dir) = wanted else {
        let scratch = Scratch::new("controlplane")?;
        return Ok((scratch.path().to_owned(), Some(scratch)));
    };
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let mut entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    ensure!(entries.next().is_none(), "{} is not empty: a control plane starts from nothing", dir.display());
    Ok((std::path::absolute(dir).context("the working directory is gone")?, None))
}

//! The four programs' command lines, files and ports.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use rcgen::KeyPair;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use uuid::Uuid;

use super::Timings;
use crate::pki::{Authority, write_private};
use crate::ports::free_port;
use crate::process::Process;

/// What the tests and a real cluster's workloads rely on. The rest (certificates, quotas of dynamic resources, …) would
/// only cost memory.
const CONTROLLERS: &str = "serviceaccount-token-controller,serviceaccount-controller,\
    root-ca-certificate-publisher-controller,clusterrole-aggregation-controller,namespace-controller,\
    garbage-collector-controller,node-lifecycle-controller,taint-eviction-controller,pod-garbage-collector-controller,\
    persistentvolume-binder-controller,persistentvolume-attach-detach-controller,\
    persistentvolumeclaim-protection-controller,persistentvolume-protection-controller,statefulset-controller,\
    replicaset-controller,deployment-controller,daemonset-controller,job-controller,disruption-controller,\
    endpointslice-controller,resourcequota-controller";

/// Writes only: an oracle asks who changed what and when, and reads would be most of the log.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [get, list, watch]
- level: Metadata
  resources:
  - {group: '', resources: [nodes, nodes/status, pods, pods/status, pods/binding, pods/eviction]}
  - {group: storage.k8s.io, resources: [volumeattachments, volumeattachments/status]}
  - {group: fence-agents-remediation.medik8s.io}
- level: None
";

/// The users that exist before any service account.
#[derive(Debug)]
pub struct Tokens {
    /// In the group `system:masters`.
    pub admin: SecretString,
    controller_manager: SecretString,
    scheduler: SecretString,
}

/// How to start each program of one control plane.
#[derive(Debug)]
pub struct Components {
    binary: PathBuf,
    dir: PathBuf,
    etcd: SocketAddr,
    etcd_peer: SocketAddr,
    apiserver: SocketAddr,
    tokens: Tokens,
    timings: Timings,
    apiserver_args: Vec<String>,
}

impl Components {
    /// Chooses ports and writes certificates, keys, tokens and the audit policy into `dir`.
    pub fn new(
        binary: PathBuf,
        dir: &Path,
        ca: &Authority,
        timings: Timings,
        apiserver_args: Vec<String>,
    ) -> anyhow::Result<Self> {
        let port = || free_port().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let this = Self {
            binary,
            dir: dir.to_owned(),
            etcd: port()?,
            etcd_peer: port()?,
            apiserver: port()?,
            tokens: Tokens { admin: token(), controller_manager: token(), scheduler: token() },
            timings,
            apiserver_args,
        };
        this.write_files(ca)?;
        Ok(this)
    }

    /// The API server's URL.
    pub fn url(&self) -> String {
        url(self.apiserver)
    }

    /// Where etcd listens to clients.
    pub fn etcd_address(&self) -> SocketAddr {
        self.etcd
    }

    /// The tokens of the built-in users.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Where the API server writes its audit log.
    pub fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// Writes `NAME.kubeconfig` for whoever has `token`.
    pub fn write_kubeconfig(&self, name: &str, token: &SecretString) -> anyhow::Result<PathBuf> {
        self.write_kubeconfig_at(&self.url(), name, token)
    }

    /// The same, for an API server elsewhere.
    pub fn write_kubeconfig_at(&self, server: &str, name: &str, token: &SecretString) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(format!("{name}.kubeconfig"));
        let content = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "testbed",
                "cluster": {"server": server, "certificate-authority": self.dir.join("ca.crt")},
            }],
            "users": [{"name": name, "user": {"token": token.expose_secret()}}],
            "contexts": [{"name": name, "context": {"cluster": "testbed", "user": name}}],
            "current-context": name,
        });
        write_private(&path, &content.to_string().into())?; // JSON is YAML
        Ok(path)
    }

    /// Starts etcd, which knows neither TLS nor users here: it listens on loopback and holds nothing of value.
    pub fn spawn_etcd(&self) -> anyhow::Result<Process> {
        self.spawn(
            "etcd",
            "etcd",
            [
                self.path("--data-dir", "etcd"),
                format!("--listen-client=http://{}", self.etcd),
                format!("--listen-peer=http://{}", self.etcd_peer),
            ],
        )
    }

    /// Starts kube-apiserver.
    pub fn spawn_apiserver(&self) -> anyhow::Result<Process> {
        self.spawn_apiserver_at("apiserver", self.apiserver, &self.audit_log())
    }

    /// Starts one more kube-apiserver on the same etcd; returns it with its URL. It has logs of its own: `NAME.log`, and
    /// `NAME-audit.log`.
    pub fn spawn_another_apiserver(&self, name: &str) -> anyhow::Result<(Process, String)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let audit_log = self.dir.join(format!("{name}-audit.log"));
        Ok((self.spawn_apiserver_at(name, address, &audit_log)?, url(address)))
    }

    fn spawn_apiserver_at(&self, name: &str, address: SocketAddr, audit_log: &Path) -> anyhow::Result<Process> {
        let mut args = vec![
            format!("--etcd-servers=http://{}", self.etcd),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", address.port()),
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            self.path("--tls-cert-file", "apiserver.crt"),
            self.path("--tls-private-key-file", "apiserver.key"),
            self.path("--client-ca-file", "ca.crt"),
            self.path("--token-auth-file", "tokens.csv"),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--api-audiences=https://kubernetes.default.svc".to_owned(),
            self.path("--service-account-key-file", "service-accounts.pub"),
            self.path("--service-account-signing-key-file", "service-accounts.key"),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--profiling=false".to_owned(),
            "--enable-priority-and-fairness=false".to_owned(),
            self.path("--audit-policy-file", "audit-policy.yaml"),
            format!("--audit-log-path={}", audit_log.display()),
        ];
        match self.timings {
            Timings::Default => {}
            // Pods get these in place of the 300 s that the DefaultTolerationSeconds admission adds.
            Timings::Fast => args.extend([
                "--default-not-ready-toleration-seconds=5".to_owned(),
                "--default-unreachable-toleration-seconds=5".to_owned(),
            ]),
        }
        args.extend(self.apiserver_args.iter().cloned());
        self.spawn(name, "apiserver", args)
    }

    /// Starts kube-controller-manager.
    pub fn spawn_controller_manager(&self) -> anyhow::Result<Process> {
        let mut args = vec![
            self.path("--kubeconfig", "controller-manager.kubeconfig"),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            "--profiling=false".to_owned(),
            "--use-service-account-credentials=true".to_owned(),
            self.path("--service-account-private-key-file", "service-accounts.key"),
            self.path("--root-ca-file", "ca.crt"),
            format!("--controllers={CONTROLLERS}"),
        ];
        match self.timings {
            Timings::Default => {}
            Timings::Fast => args.extend([
                "--node-monitor-grace-period=6s".to_owned(),
                "--node-monitor-period=1s".to_owned(),
                "--node-startup-grace-period=10s".to_owned(),
                "--node-eviction-rate=10".to_owned(),
            ]),
        }
        self.spawn("controller-manager", "controller-manager", args)
    }

    /// Starts kube-scheduler.
    pub fn spawn_scheduler(&self) -> anyhow::Result<Process> {
        self.spawn(
            "scheduler",
            "scheduler",
            [
                self.path("--kubeconfig", "scheduler.kubeconfig"),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
                "--profiling=false".to_owned(),
            ],
        )
    }

    fn spawn(&self, name: &str, program: &str, args: impl IntoIterator<Item = String>) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.binary);
        command.arg(program).args(args).current_dir(&self.dir);
        Process::spawn(name, &mut command, &self.dir.join(format!("{name}.log")))
    }

    fn path(&self, flag: &str, file: &str) -> String {
        format!("{flag}={}", self.dir.join(file).display())
    }

    fn write_files(&self, ca: &Authority) -> anyhow::Result<()> {
        let write = |file: &str, content: &str| {
            fs::write(self.dir.join(file), content).with_context(|| format!("writing {file}"))
        };
        let names = ["127.0.0.1", "10.0.0.1", "localhost", "kubernetes.default.svc"];
        let server = ca.issue(&names)?;
        write("ca.crt", ca.pem())?;
        write("apiserver.crt", &server.certificate)?;
        write_private(&self.dir.join("apiserver.key"), &server.key)?;

        let key = KeyPair::generate().context("making the key that signs service account tokens")?;
        write("service-accounts.pub", &key.public_key_pem())?;
        write_private(&self.dir.join("service-accounts.key"), &key.serialize_pem().into())?;

        let Tokens { admin, controller_manager, scheduler } = &self.tokens;
        let users = format!(
            "{},admin,admin,system:masters\n{},system:kube-controller-manager,kcm\n{},system:kube-scheduler,scheduler\n",
            admin.expose_secret(),
            controller_manager.expose_secret(),
            scheduler.expose_secret(),
        );
        write_private(&self.dir.join("tokens.csv"), &users.into())?;
        self.write_kubeconfig("controller-manager", controller_manager)?;
        self.write_kubeconfig("scheduler", scheduler)?;
        write("audit-policy.yaml", AUDIT_POLICY)
    }
}

fn url(address: SocketAddr) -> String {
    format!("https://{address}")
}

fn token() -> SecretString {
    Uuid::new_v4().simple().to_string().into()
}

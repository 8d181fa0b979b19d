//! The command line: `ringfence controller | crds | agent`; called by a fence agent's name, it is that agent.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agents::cli::{self, Agent};
use anyhow::Context;
use clap::{Parser, Subcommand};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use ringfence::breaker::{Breaker, Limits, Share};
use ringfence::clock::Clock;
use ringfence::controller::{self, Settings};
use ringfence::isolate::{AGENT_DIR, Scripts};
use ringfence::lease::{Standing, Times};
use ringfence::shadow::{self, Eyes};
use ringfence::telemetry::{self, LogFormat};
use ringfence::{api, cluster, preflight};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// client-go renews every 2 s; tests every half.
const SHORTEST_RETRY: Duration = Duration::from_millis(100);

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the operator.
    Controller(Box<ControllerArgs>),
    /// Writes the custom resource definitions as YAML.
    Crds {
        /// Where to.
        #[arg(default_value = "crds")]
        dir: PathBuf,
    },
    /// Is a fence agent: `ringfence agent fence_redfish --ip …`; without options it reads them from standard input.
    #[command(disable_help_flag = true)]
    Agent {
        /// Which one.
        #[arg(value_parser = agent)]
        name: &'static Agent,
        /// Its options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
}

#[derive(clap::Args)]
struct ControllerArgs {
    /// How to reach the cluster; in a pod, its ServiceAccount does.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// The namespace that the operator runs in, and keeps its lease in.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: String,
    /// Names this process in the lease; as a rule the pod's name.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// A lease that was not renewed for this long is free.
    #[arg(long, default_value = "15s", value_parser = duration)]
    lease_duration: Duration,
    /// A leader that could not renew for this long stops leading.
    #[arg(long, default_value = "10s", value_parser = duration)]
    lease_renew_deadline: Duration,
    /// Pause between two attempts to lead.
    #[arg(long, default_value = "2s", value_parser = duration)]
    lease_retry_period: Duration,
    /// Where /healthz and /readyz are served.
    #[arg(long, default_value = "0.0.0.0:8081")]
    health_addr: SocketAddr,
    /// Where the scripts of fence agents are (fence_*), for agents that we have no client of our own for.
    #[arg(long, default_value = AGENT_DIR)]
    agent_dir: PathBuf,
    /// Obeys also parameters that make a script run commands, or use files, in the operator's container: whoever may create
    /// a remediation can do that then.
    #[arg(long)]
    allow_unsafe_parameters: bool,
    /// The namespace in which medik8s' operators lease the nodes that they work on.
    #[arg(long, env = "LEASE_NAMESPACE", default_value = "medik8s-leases")]
    node_lease_namespace: String,
    /// Only watches another operator at work, and says in the log what Ringfence would have done and what proof there was:
    /// nothing is written, no machine is commanded, and the lease is left alone.
    #[arg(long)]
    shadow: bool,
    /// How often each node's device is asked, for every template, whether the node could be fenced; 0s: never. Devices that
    /// are asked through a script are asked ten times as rarely.
    #[arg(long, default_value = "30s", value_parser = duration)]
    preflight_period: Duration,
    /// Sets the Node condition ringfence.dev/PoweredOff where a Lease is stale and the machine's power is read Off.
    #[arg(long)]
    detect_power_loss: bool,
    #[command(flatten)]
    breaker: BreakerArgs,
    /// How logs look.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

/// How much fencing is too much, of all nodes: a number, or a percentage such as 30%. Without a limit there is none.
#[derive(clap::Args)]
struct BreakerArgs {
    /// Remediations under way at a time; the others wait.
    #[arg(long)]
    max_concurrent: Option<Share>,
    /// Remediations begun within --breaker-window: one more opens the breaker, and none begins until it is closed.
    #[arg(long)]
    breaker_limit: Option<Share>,
    /// The same in one failure domain, of its nodes; more than that wait, and the breaker stays closed.
    #[arg(long)]
    breaker_domain_limit: Option<Share>,
    /// The label of a node that tells its failure domain.
    #[arg(long, default_value = "topology.kubernetes.io/zone")]
    breaker_domain_label: String,
    /// How long a remediation that was begun is counted.
    #[arg(long, default_value = "10m", value_parser = duration)]
    breaker_window: Duration,
    /// Closes an open breaker after this time. Without it a person does: kubectl delete configmap ringfence-breaker.
    #[arg(long, value_parser = duration)]
    breaker_cool_down: Option<Duration>,
}

impl BreakerArgs {
    fn breaker(self, namespace: &str) -> Breaker {
        let limits = Limits {
            concurrent: self.max_concurrent,
            begun: self.breaker_limit,
            in_domain: self.breaker_domain_limit,
            window: self.breaker_window,
            cool_down: self.breaker_cool_down,
        };
        Breaker { namespace: namespace.to_owned(), limits, domain_label: self.breaker_domain_label }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args_os();
    let called = args.next().unwrap_or_default();
    if let Some(agent) = Path::new(&called).file_name().and_then(|name| Agent::named(name.to_str()?)) {
        return Ok(cli::main(agent, args.collect()));
    }
    match Cli::parse().command {
        Command::Agent { name, options } => return Ok(cli::main(name, options)),
        Command::Controller(args) => {
            telemetry::logs(args.log_format);
            // Two workers: the work is waiting for API servers and BMCs.
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(run(*args))?;
        }
        Command::Crds { dir } => {
            std::fs::create_dir_all(&dir)?;
            for (name, yaml) in api::crd_files() {
                let path = dir.join(name);
                std::fs::write(&path, yaml).with_context(|| format!("writing {}", path.display()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn run(args: ControllerArgs) -> anyhow::Result<()> {
    let times = Times {
        duration: args.lease_duration,
        renew_deadline: args.lease_renew_deadline,
        retry_period: args.lease_retry_period,
    };
    anyhow::ensure!(
        times.retry_period >= SHORTEST_RETRY,
        "--lease-retry-period must be at least {} ms: each is a request",
        SHORTEST_RETRY.as_millis()
    );
    anyhow::ensure!(
        times.retry_period < times.renew_deadline && times.renew_deadline + times.retry_period <= times.duration,
        "--lease-retry-period must be shorter than --lease-renew-deadline, and both together no longer than --lease-duration"
    );
    let config = match &args.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => Config::incluster().context("not in a pod: give --kubeconfig")?,
    };
    let scripts = Arc::new(Scripts::new(&args.agent_dir, args.allow_unsafe_parameters));
    let (standing, watched) = watch::channel(Standing::Follows);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let health = async {
        let served = telemetry::health(args.health_addr, watched).await;
        served.with_context(|| format!("serving health on {}", args.health_addr))
    };
    if args.shadow {
        return tokio::select! {
            () = shadow::run(Eyes::open(config)?, Clock::system(), scripts, stop) => Ok(()),
            served = health => served,
        };
    }
    let client = cluster::client(config)?;
    // In a container every process has the same number.
    let identity = format!("{}_{}", args.identity.as_deref().unwrap_or("ringfence"), uuid::Uuid::new_v4());
    let node_leases = args.node_lease_namespace;
    let period = Some(args.preflight_period).filter(|period| !period.is_zero());
    anyhow::ensure!(period.is_some() || !args.detect_power_loss, "--detect-power-loss needs --preflight-period");
    let preflight = preflight::Settings { period, detect: args.detect_power_loss };
    let breaker = args.breaker.breaker(&args.namespace);
    let settings = Settings { namespace: args.namespace, identity, times, scripts, node_leases, preflight, breaker };
    tokio::select! {
        () = controller::run(client, Clock::system(), settings, standing, stop) => Ok(()),
        served = health => served,
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    api::parse_duration(text).map_err(|e| e.to_string())
}

fn agent(name: &str) -> Result<&'static Agent, String> {
    let known = || Agent::all().map(Agent::name).collect::<Vec<_>>().join(", ");
    Agent::named(name).ok_or_else(|| format!("there are: {}", known()))
}

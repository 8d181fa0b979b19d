//! A stand-in for the kubelet: what the control plane and a fencer can see of one, and nothing else.
//!
//! - *On and connected*: registers the Node, renews its Lease, posts Ready, runs the pods bound to it.
//! - *Hung*: silent to the API server, while its containers go on running and writing: the zombie that fencing is for.
//! - *Off*: nothing. The next boot starts over, as a real one: with the pods that are still bound to it and admitted.
//!
//! Knows machines, journals and the API; knows nothing of fencing.

mod container;
mod node;
mod pod;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use uuid::Uuid;

use self::container::{Container, Exit};
use self::node::Reporter;
pub(crate) use self::node::is_ready;
use crate::journal::{Ending, Journals, Process};
use crate::machine::Machine;

/// The annotation on a pod that says after how many seconds its container exits 0 ("1.5"); without it, never.
pub const RUN_SECONDS: &str = "testbed/run-seconds";

/// The label on a Node, and in a workload's nodeSelector, that names the rack.
pub const RACK_LABEL: &str = "testbed/rack";

/// Before the next try against an API server that refused or is away: short, because tests restart it.
pub(crate) const RETRY: Duration = Duration::from_millis(250);

/// What a machine is to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs workloads.
    Worker,
    /// Labelled and tainted as kubeadm does.
    ControlPlane,
}

/// A machine's kubelet. Runs for ever; silence it through the [`Machine`].
pub struct Kubelet {
    machine: Arc<Machine>,
    client: Client,
    rack: String,
    role: Role,
    journals: Arc<Journals>,
    containers: Mutex<Containers>,
}

/// The containers of one boot, by pod UID. They outlive the connection to the API server.
#[derive(Default)]
struct Containers {
    running: BTreeMap<String, Container>,
    /// What was stopped must not start: a worker may be at it just when it is called off.
    stopped: BTreeSet<String>,
}

/// One boot's kubelet: shared by the session and its workers.
struct Booted {
    kubelet: Arc<Kubelet>,
    boot: Uuid,
    reporter: Reporter,
    /// The Node as last seen: its taints and its attached volumes.
    node: watch::Sender<Option<Node>>,
}

impl Kubelet {
    /// Makes the kubelet of `machine`; nothing happens before [`run`](Self::run).
    pub fn new(machine: Arc<Machine>, client: Client, rack: &str, role: Role, journals: Arc<Journals>) -> Arc<Self> {
        Arc::new(Self { machine, client, rack: rack.to_owned(), role, journals, containers: Mutex::default() })
    }

    /// Acts while the machine is on and not hung. Dropping it is a kubelet that dies and leaves its containers behind.
    pub async fn run(self: Arc<Self>) {
        let mut state = self.machine.watch();
        let mut booted: Option<Arc<Booted>> = None;
        loop {
            let boot = match state.wait_for(|state| state.on && !state.hung).await {
                Ok(state) => state.boot_id,
                Err(_) => return,
            };
            let current = match booted.take() {
                Some(same) if same.boot == boot => same,
                Some(_) | None => self.boot(boot),
            };
            booted = Some(current.clone());
            tokio::select! {
                biased;
                gone = state.wait_for(|state| !state.on || state.hung || state.boot_id != boot) => if gone.is_err() { return },
                () = session::run(current) => {}
            }
        }
    }

    /// Lets a pod's container exit 0, as a job that is done.
    ///
    /// # Errors
    /// When no container of that pod runs here.
    pub fn complete(&self, uid: &str) -> Result<()> {
        match self.lock().running.get(uid) {
            Some(container) => container.finish(Exit::Ended(Ending::Completed)),
            None => bail!("no container of pod {uid} runs on {}", self.machine.name()),
        }
        Ok(())
    }

    /// The machine it runs on.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    fn boot(self: &Arc<Self>, boot: Uuid) -> Arc<Booted> {
        *self.lock() = Containers::default();
        Arc::new(Booted {
            reporter: Reporter::new(self.clone(), boot),
            kubelet: self.clone(),
            boot,
            node: watch::Sender::new(None),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Containers> {
        self.containers.lock().expect("no panic while held")
    }
}

impl Booted {
    /// Runs a pod's container, unless the pod was stopped meanwhile or the boot is over.
    fn launch(&self, process: Process, volumes: Vec<String>, run_for: Option<Duration>) -> Option<Container> {
        let mut containers = self.kubelet.lock();
        if containers.stopped.contains(&process.uid) {
            return None;
        }
        let uid = process.uid.clone();
        let kubelet = &self.kubelet;
        let container = Container::start(kubelet.machine.clone(), kubelet.journals.clone(), process, volumes, run_for)?;
        containers.running.insert(uid, container.clone());
        Some(container)
    }

    /// Stops a pod's container, if one runs; it has written its last when this returns.
    fn stop(&self, uid: &str, how: Ending) -> bool {
        let mut containers = self.kubelet.lock();
        containers.stopped.insert(uid.to_owned());
        let container = containers.running.remove(uid);
        if let Some(container) = &container {
            container.finish(Exit::Ended(how));
        }
        container.is_some()
    }

    fn container(&self, uid: &str) -> Option<Container> {
        self.kubelet.lock().running.get(uid).cloned()
    }

    fn is_static(&self, uid: &str) -> bool {
        self.container(uid).is_some_and(|container| container.is_static())
    }

    fn running(&self) -> BTreeSet<String> {
        self.kubelet.lock().running.keys().cloned().collect()
    }
}

/// A pod that belongs to the machine, not to the API server: what a kubelet runs from a file and only mirrors.
fn is_mirror(pod: &Pod) -> bool {
    pod.annotations().contains_key("kubernetes.io/config.mirror")
}

//! A rack: machines with their kubelets, one storage with its attacher, and the journals of what ran and wrote.
//!
//! Several racks share one control plane: nothing here is global but the names, which the caller chooses.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::task::JoinSet;

use crate::attacher::Attacher;
use crate::journal::Journals;
use crate::kubelet::{Kubelet, RACK_LABEL, Role, is_ready};
use crate::machine::Machine;
use crate::wait;

/// From power to a Node that takes pods: measured 0.2 to 1 s on two idle cores; the rest is for a loaded machine.
const BOOT: Duration = Duration::from_secs(30);

/// What to put into a rack. Names are the Nodes', and unique in the cluster.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// The rack's own name: a label value, and part of its CSI driver's name.
    pub name: String,
    /// Nodes that run workloads.
    pub workers: Vec<String>,
    /// Nodes that are labelled and tainted as control plane.
    pub control_plane: Vec<String>,
    /// How many power feeds each machine has; none means one.
    pub feeds: usize,
}

impl Layout {
    /// A rack of `count` workers named `{name}-1`, `{name}-2`, …
    pub fn workers(name: &str, count: usize) -> Self {
        let workers = (1..=count).map(|number| format!("{name}-{number}")).collect();
        Self { name: name.to_owned(), workers, ..Self::default() }
    }

    /// The same, with so many power feeds to each machine.
    pub fn with_feeds(self, feeds: usize) -> Self {
        Self { feeds, ..self }
    }
}

/// A running rack. Dropping it ends its kubelets and its attacher; the API objects stay.
pub struct Rack {
    name: String,
    client: Client,
    machines: Vec<Arc<Machine>>,
    kubelets: Vec<Arc<Kubelet>>,
    journals: Arc<Journals>,
    attacher: Attacher,
    _tasks: JoinSet<()>,
}

impl Rack {
    /// Switches on all machines and waits until every Node is Ready and takes pods.
    ///
    /// # Errors
    /// When that takes longer than half a minute.
    pub async fn start(client: Client, layout: &Layout) -> Result<Self> {
        let journals = Journals::new();
        let roles = [(&layout.workers, Role::Worker), (&layout.control_plane, Role::ControlPlane)];
        let named = roles.into_iter().flat_map(|(names, role)| names.iter().map(move |name| (name, role)));
        let kubelets: Vec<_> = named
            .map(|(name, role)| {
                let machine = Machine::with_feeds(name, layout.feeds.max(1));
                Kubelet::new(machine, client.clone(), &layout.name, role, journals.clone())
            })
            .collect();
        let machines: Vec<_> = kubelets.iter().map(|kubelet| kubelet.machine().clone()).collect();
        let nodes: BTreeSet<_> = machines.iter().map(|machine| machine.name().to_owned()).collect();
        let attacher = Attacher::start(client.clone(), &driver(&layout.name), nodes);
        let mut tasks = JoinSet::new();
        for kubelet in &kubelets {
            tasks.spawn(kubelet.clone().run());
        }
        let name = layout.name.clone();
        let rack = Self { name, client, machines, kubelets, journals, attacher, _tasks: tasks };
        rack.ready().await?;
        Ok(rack)
    }

    /// Waits until every Node of the rack is Ready, and free of the taints that Kubernetes puts on one that is not.
    ///
    /// # Errors
    /// When that takes longer than half a minute.
    pub async fn ready(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let ours = ListParams::default().labels(&format!("{RACK_LABEL}={}", self.name));
        wait::until(&format!("the nodes of rack {} to be Ready", self.name), BOOT, || async {
            let found = nodes.list(&ours).await?.items;
            let ready = found.iter().filter(|node| takes_pods(node)).count();
            Ok((ready == self.machines.len()).then_some(()))
        })
        .await
    }

    /// The rack's name: what its Nodes carry as label `testbed/rack`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the rack's CSI driver.
    pub fn driver(&self) -> String {
        driver(&self.name)
    }

    /// The API client that the rack was started with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// All machines: workers first, each group in the order of the layout.
    pub fn machines(&self) -> &[Arc<Machine>] {
        &self.machines
    }

    /// The machine of a Node.
    ///
    /// # Errors
    /// When the rack has none of that name.
    pub fn machine(&self, node: &str) -> Result<&Arc<Machine>> {
        self.machines.iter().find(|machine| machine.name() == node).with_context(|| format!("no machine {node}"))
    }

    /// What ran and wrote.
    pub fn journals(&self) -> &Arc<Journals> {
        &self.journals
    }

    /// The attacher of the rack's volumes.
    pub fn attacher(&self) -> &Attacher {
        &self.attacher
    }

    /// Lets a running pod's container exit 0, as a job that is done.
    ///
    /// # Errors
    /// When it runs nowhere in this rack.
    pub fn complete(&self, uid: &str) -> Result<()> {
        if self.kubelets.iter().any(|kubelet| kubelet.complete(uid).is_ok()) {
            return Ok(());
        }
        bail!("no container of pod {uid} runs in rack {}", self.name)
    }
}

fn driver(rack: &str) -> String {
    format!("{rack}.csi.testbed")
}

fn takes_pods(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let lifecycle = |key: &str| key.starts_with("node.kubernetes.io/");
    is_ready(node) && !taints.iter().any(|taint| lifecycle(&taint.key))
}

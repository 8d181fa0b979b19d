//! The kinds of objects that can release a workload, and how.

use std::collections::BTreeSet;
use std::fmt::Debug;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::judge::What;

/// An object whose changes can release a workload of a node.
pub(super) trait Watched:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// Names the kind.
    const KIND: &'static str;

    /// The node it concerns; empty if none yet.
    fn node(&self) -> &str;
    /// What it releases as it stands.
    fn shows(&self) -> BTreeSet<What>;
    /// What it releases by going.
    fn gone(&self) -> What;

    /// Its UID.
    fn id(&self) -> String {
        self.uid().unwrap_or_default()
    }
}

impl Watched for Pod {
    const KIND: &'static str = "Pod";

    fn node(&self) -> &str {
        self.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
    }

    fn shows(&self) -> BTreeSet<What> {
        BTreeSet::new()
    }

    fn gone(&self) -> What {
        let name = format!("{}/{}", self.namespace().unwrap_or_default(), self.name_any());
        What::PodGone { node: self.node().to_owned(), name, uid: self.id() }
    }
}

impl Watched for Node {
    const KIND: &'static str = "Node";

    fn node(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn shows(&self) -> BTreeSet<What> {
        let taints = self.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let barriers = taints.iter().filter(|taint| is_barrier(taint));
        barriers.map(|taint| What::Barred { node: self.name_any(), taint: taint.key.clone() }).collect()
    }

    fn gone(&self) -> What {
        What::NodeGone { node: self.name_any() }
    }
}

impl Watched for VolumeAttachment {
    const KIND: &'static str = "VolumeAttachment";

    fn node(&self) -> &str {
        &self.spec.node_name
    }

    fn shows(&self) -> BTreeSet<What> {
        self.metadata.deletion_timestamp.iter().map(|_| self.gone()).collect()
    }

    fn gone(&self) -> What {
        let volume = self.spec.source.persistent_volume_name.clone().unwrap_or_default();
        What::Detached { node: self.spec.node_name.clone(), volume }
    }
}

/// Taints by which a remediator releases a node's workloads: the out-of-service taint with any effect (pod GC and the
/// attach-detach controller look at its key only), and the NoExecute taints of remediators.
fn is_barrier(taint: &Taint) -> bool {
    let domain = taint.key.split('/').next().unwrap_or_default();
    let remediator = domain.ends_with("medik8s.io") || domain.ends_with("ringfence.dev");
    taint.key == "node.kubernetes.io/out-of-service" || remediator && taint.effect == "NoExecute"
}

//! The set of a release (R2): which pods and volumes it starts with, and what remains of it.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::{Error, Observer};
use crate::api::{Set, SetPod};
use crate::cluster::call;
use crate::decide::{Pods, Volumes};

/// What remains of a set.
pub struct Left {
    /// How its pods stand.
    pub standing: Pods,
    /// How its volumes stand.
    pub volumes: Volumes,
    /// The pods that remain.
    pub pods: Vec<Pod>,
    /// What remains, in words: one thing an entry.
    pub blocking: Vec<String>,
}

impl Observer {
    /// Lists the node's pods and volumes: the set that a release would start with now, and what remains of `begun`.
    pub(super) async fn left(&self, uid: &str, node: Option<&Node>, begun: Option<&Set>) -> Result<(Set, Left), Error> {
        let Some(node) = node else { return Ok((Set::default(), Left::default())) };
        let name = node.name_any();
        let pods: Api<Pod> = Api::all(self.client.clone());
        let attachments: Api<VolumeAttachment> = Api::all(self.client.clone());
        let on_node = ListParams::default().fields(&format!("spec.nodeName={name}"));
        let all = ListParams::default();
        let (pods, attachments) = tokio::try_join!(
            call("listing the node's pods", pods.list(&on_node)),
            call("listing the volume attachments", attachments.list(&all)),
        )?;
        let attached: Vec<_> = attachments.items.into_iter().filter(|va| va.spec.node_name == name).collect();
        let set = Set {
            pods: pods.items.iter().filter(|pod| is_released(pod)).filter_map(set_pod).collect(),
            volume_attachments: attached.iter().map(ResourceExt::name_any).collect(),
        };
        let Some(begun) = begun else { return Ok((set, Left::default())) };

        let uids: BTreeSet<&str> = begun.pods.iter().map(|pod| pod.uid.as_str()).collect();
        let (ours, others): (Vec<_>, Vec<_>) =
            pods.items.into_iter().partition(|pod| pod.uid().is_some_and(|uid| uids.contains(uid.as_str())));
        let mut volumes = vec![];
        for va in attached {
            if begun.volume_attachments.contains(&va.name_any()) && !self.is_wanted(&va, &others).await? {
                volumes.push(va.name_any());
            }
        }
        let in_use =
            node.status.as_ref().and_then(|status| status.volumes_in_use.as_ref()).is_some_and(|v| !v.is_empty());
        let refusal = |pod: &Pod| self.memories.refusal(uid, &pod.uid().unwrap_or_default());
        let told = |pod: &Pod| match refusal(pod) {
            Some(refusal) => format!("{}: {refusal}", in_words(pod)),
            None => in_words(pod),
        };
        let blocking = ours.iter().map(told).chain(volumes.iter().map(|va| format!("volumeattachment/{va}")));
        let left = Left {
            standing: match ours.iter().all(|pod| was_deleted(pod) || refusal(pod).is_some()) {
                _ if ours.is_empty() => Pods::Gone,
                true => Pods::Terminating,
                false => Pods::Untouched,
            },
            volumes: match in_use {
                _ if volumes.is_empty() => Volumes::Gone,
                true => Volumes::InUse,
                false => Volumes::Attached,
            },
            blocking: blocking.collect(),
            pods: ours,
        };
        Ok((set, left))
    }

    /// Tells whether a pod outside the set, bound to the node, wants the volume: then it stays attached, and nobody may
    /// wait for it.
    async fn is_wanted(&self, va: &VolumeAttachment, others: &[Pod]) -> Result<bool, Error> {
        let claims: BTreeSet<_> = others.iter().filter(|pod| !is_terminal(pod)).flat_map(claims).collect();
        let Some(pv) = va.spec.source.persistent_volume_name.as_deref().filter(|_| !claims.is_empty()) else {
            return Ok(false);
        };
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let pv = call("reading a PersistentVolume", volumes.get_opt(pv)).await?;
        let claim = pv.and_then(|pv| pv.spec).and_then(|spec| spec.claim_ref);
        Ok(claim.is_some_and(|c| claims.contains(&(c.namespace.unwrap_or_default(), c.name.unwrap_or_default()))))
    }
}

/// Tells whether a pod belongs to the set: not a mirror pod, not a DaemonSet's, not one that is over already.
fn is_released(pod: &Pod) -> bool {
    let mirror = pod.annotations().contains_key("kubernetes.io/config.mirror");
    let daemon = pod.owner_references().iter().any(|owner| owner.kind == "DaemonSet" && owner.controller == Some(true));
    let over = is_terminal(pod) && pod.metadata.deletion_timestamp.is_none();
    !(mirror || daemon || over)
}

fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Tells whether a pod was deleted with grace 0 and is held by a finalizer only. A graceful deletion, waiting for its
/// kubelet, does not count: that kubelet will never answer.
fn was_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// The claims of a pod's volumes, by namespace and name; a generic ephemeral volume's claim is named after both.
fn claims(pod: &Pod) -> Vec<(String, String)> {
    let namespace = pod.namespace().unwrap_or_default();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let claim = |v: &k8s_openapi::api::core::v1::Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name_any(), v.name)),
        (None, None) => None,
    };
    volumes.iter().filter_map(claim).map(|claim| (namespace.clone(), claim)).collect()
}

fn set_pod(pod: &Pod) -> Option<SetPod> {
    Some(SetPod { namespace: pod.namespace()?, name: pod.name_any(), uid: pod.uid()? })
}

fn in_words(pod: &Pod) -> String {
    let name = format!("pod/{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    match pod.finalizers() {
        [] => name,
        finalizers => format!("{name}: finalizer {}", finalizers.join(", ")),
    }
}

//! The three effects of a release: bar, delete, detach. Each takes a [`Proof`] by value, and asks it again right before
//! every single write.
//!
//! Knows the API server and proofs. Must not know isolators: it can't look, and so can't release on its own belief.
//!
//! Invariant (S2): every write carries the resourceVersion that was read before the proof. A release still in flight from
//! a dead, paused or deposed leader hits 409 instead of a live node or a live pod.

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::cluster::{self, call};
use crate::decide::Proof;

/// Pods deleted at a time: the API server's default share for one client is far above it, and a node has at most some
/// hundred pods.
const AT_ONCE: usize = 16;

/// Why an effect was not carried out, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The proof expired before the write that needed it: look again.
    #[error("the proof expired before it was used")]
    Expired,
}

/// A pod that was not deleted.
#[derive(Debug)]
pub struct Undeleted {
    /// Its UID.
    pub uid: String,
    /// What the API server or a webhook said.
    pub why: String,
    /// Trying the same again is no use.
    pub refused: bool,
}

/// Releases the workloads of one node.
pub struct Release<'a> {
    /// To the API server.
    pub client: &'a Client,
    /// The clock that proofs are aged by.
    pub clock: &'a Clock,
}

impl Release<'_> {
    /// Puts the barrier up: `patch`, made by `marks` from the Node that was read before the proof.
    ///
    /// # Errors
    /// [`Error::Expired`], or the API server's: 409 if the Node has changed since.
    pub async fn bar(&self, node: &Node, patch: Value, proof: Proof) -> Result<(), Error> {
        self.holds(&proof)?;
        let api: Api<Node> = Api::all(self.client.clone());
        call("putting the barrier up", api.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(patch)))
            .await?;
        Ok(())
    }

    /// Deletes pods as pod GC does it (R3): status Failed with the DisruptionTarget condition, then DELETE with grace 0, by
    /// UID and resourceVersion. All are tried, whatever happens to one.
    ///
    /// Returns those that were not deleted, and the first error met: one pod holds up nobody else. A 409 or 404 of one is no
    /// error: somebody was faster, and the next look shows it; nor is a refusal.
    pub async fn delete(&self, pods: &[Pod], proof: Proof) -> (Vec<Undeleted>, Result<(), Error>) {
        let proof = &proof;
        let deletions: Vec<_> =
            pods.iter().map(|pod| self.delete_one(pod, proof).map(|result| (pod.uid(), result))).collect();
        // As each ends: one that hangs keeps no place behind it.
        let mut results = futures::stream::iter(deletions).buffer_unordered(AT_ONCE);
        let (mut undeleted, mut first) = (vec![], Ok(()));
        while let Some((uid, result)) = results.next().await {
            match result {
                Err(Error::Cluster(error)) if error.is_conflict() || error.is_not_found() => {}
                Err(Error::Cluster(error)) => {
                    let refused = error.is_refused();
                    undeleted.push(Undeleted { uid: uid.unwrap_or_default(), why: error.story(), refused });
                    first = first.and(if refused { Ok(()) } else { Err(Error::Cluster(error)) });
                }
                result => first = first.and(result),
            }
        }
        (undeleted, first)
    }

    /// Empties `node.status.volumesInUse` (R4): nothing is in use on a machine proven off, and the attach-detach
    /// controller now detaches what no pod wants, by itself.
    ///
    /// # Errors
    /// As [`Self::bar`].
    pub async fn detach(&self, node: &Node, proof: Proof) -> Result<(), Error> {
        self.holds(&proof)?;
        let api: Api<Node> = Api::all(self.client.clone());
        let version = node.resource_version();
        let patch = json!({ "metadata": { "resourceVersion": version }, "status": { "volumesInUse": null } });
        let patch = Patch::Merge(patch);
        call("freeing the volumes", api.patch_status(&node.name_any(), &PatchParams::default(), &patch)).await?;
        Ok(())
    }

    async fn delete_one(&self, pod: &Pod, proof: &Proof) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let version = match phase {
            Some("Failed" | "Succeeded") => pod.resource_version(),
            Some(_) | None => {
                self.holds(proof)?;
                let patch = Patch::Strategic(failed(pod, self.clock));
                let params = PatchParams::default();
                call("marking a pod Failed", api.patch_status(&name, &params, &patch)).await?.resource_version()
            }
        };
        self.holds(proof)?;
        let preconditions = Preconditions { uid: pod.uid(), resource_version: version };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default().grace_period(0) };
        call("deleting a pod", api.delete(&name, &params)).await?;
        Ok(())
    }

    fn holds(&self, proof: &Proof) -> Result<(), Error> {
        if proof.holds(self.clock.now().mono) { Ok(()) } else { Err(Error::Expired) }
    }
}

/// What pod GC writes on a pod whose node is out of service; a Job with a podFailurePolicy waits for it.
fn failed(pod: &Pod, clock: &Clock) -> Value {
    let now = clock.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "metadata": { "uid": pod.uid(), "resourceVersion": pod.resource_version() },
        "status": {
            "phase": "Failed",
            "conditions": [{
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByFenceAgentsRemediation",
                "message": "the pod's node is proven off",
                "lastTransitionTime": now,
            }],
        },
    })
}

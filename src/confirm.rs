//! A person's word: `RemediationConfirmation`s are read here, judged, and given their verdict.
//!
//! Knows the confirmations and the admission policy that vouches for who wrote them. Whether a word that was accepted
//! permits anything is not decided here. Nothing of it is a proof: it is what a person said, and is called so for ever.

mod judge;

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use serde_json::json;

pub use judge::{
    Facts, Judgement, Life, Refusal, SILENT, Vouching, concerns, counts, instructions, judge, request_id, unasked,
};

use crate::api::{GuardedConfirmation, RemediationConfirmation, RemediationConfirmationStatus};
use crate::clock;
use crate::cluster::{self, call};
use crate::decide::Time;

/// The admission policy and its binding have this name.
pub const POLICY: &str = "ringfence-confirmation";

/// The policy as it is shipped.
const SHIPPED: &str = include_str!("../deploy/confirmation.yaml");

/// Lists the confirmations of a namespace, oldest first; of all namespaces without one. One that can't be read is left
/// out: it says nothing.
///
/// # Errors
/// The API server's.
pub async fn read(client: &Client, namespace: Option<&str>) -> Result<Vec<RemediationConfirmation>, cluster::Error> {
    let api: Api<GuardedConfirmation> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let all = call("listing the confirmations", api.list(&ListParams::default())).await?.items;
    let mut all: Vec<_> = all.into_iter().filter_map(|confirmation| confirmation.0.ok()).collect();
    all.sort_by_key(|c| (c.metadata.creation_timestamp.as_ref().map(|at| at.0), c.name_any()));
    Ok(all)
}

/// Writes a verdict to a confirmation, unless it has changed since it was read.
///
/// # Errors
/// The API server's; a conflict if somebody else has written meanwhile: read it again.
pub async fn write_verdict(
    client: &Client,
    confirmation: &RemediationConfirmation,
    judgement: &Judgement,
    now: Time,
) -> Result<(), cluster::Error> {
    let namespace = confirmation.namespace().unwrap_or_default();
    let api: Api<RemediationConfirmation> = Api::namespaced(client.clone(), &namespace);
    let status = RemediationConfirmationStatus {
        verdict: Some(judgement.verdict()),
        reason: Some(judgement.reason().to_owned()),
        message: Some(judgement.message()),
        at: Some(MicroTime(clock::timestamp(now))),
    };
    // The UID besides: with a name alone, the word of one person could get the verdict of another's.
    let ObjectMeta { resource_version, uid, .. } = &confirmation.metadata;
    let patch = json!({"metadata": {"resourceVersion": resource_version, "uid": uid}, "status": status});
    let (name, patch) = (confirmation.name_any(), Patch::Merge(patch));
    call("writing the verdict on a confirmation", api.patch_status(&name, &PatchParams::default(), &patch)).await?;
    Ok(())
}

/// Tells since when the admission policy and its binding have been in place, by the API server's clock: for as long as
/// nobody has changed them. `None`: they are not, or not as shipped, and nobody vouches for who wrote a confirmation.
///
/// # Errors
/// The API server's.
pub async fn policy_since(client: &Client) -> Result<Option<Time>, cluster::Error> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let (policy, binding) = tokio::try_join!(
        call("reading the admission policy", policies.get_opt(POLICY)),
        call("reading the admission policy's binding", bindings.get_opt(POLICY)),
    )?;
    let (Some(policy), Some(binding)) = (policy, binding) else { return Ok(None) };
    let as_shipped = shipped().is_some_and(|shipped| shipped.0.spec == policy.spec && shipped.1.spec == binding.spec);
    Ok(touched(&policy.metadata).max(touched(&binding.metadata)).filter(|_| as_shipped))
}

/// Tells when a Lease was last renewed, by the API server's clock, to the second: the node's own may be wrong.
pub fn last_renewal(lease: &Lease) -> Option<Time> {
    touched(&lease.metadata)
}

/// The policy and the binding as they are shipped, with all defaults.
fn shipped() -> Option<(ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding)> {
    let mut documents = serde_yaml_ng::Deserializer::from_str(SHIPPED);
    let policy = ValidatingAdmissionPolicy::deserialize(documents.next()?).ok()?;
    let binding = ValidatingAdmissionPolicyBinding::deserialize(documents.next()?).ok()?;
    Some((policy, binding))
}

/// When anything but the status of an object was last changed. The API server writes these times itself.
fn touched(metadata: &ObjectMeta) -> Option<Time> {
    let fields =
        metadata.managed_fields.iter().flatten().filter(|entry| entry.subresource.as_deref() != Some("status"));
    let times = fields.filter_map(|entry| entry.time.as_ref()).chain(&metadata.creation_timestamp);
    times.map(|at| clock::millis(at.0)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shipped_can_be_read_and_fails_closed() {
        let (policy, binding) = shipped().expect("two documents");
        let names = [&policy.metadata.name, &binding.metadata.name].map(|name| name.as_deref());
        assert_eq!(names, [Some(POLICY); 2]);
        assert_eq!(policy.spec.expect("a spec").failure_policy.as_deref(), Some("Fail"));
        let spec = binding.spec;
        assert_eq!((spec.policy_name.as_str(), spec.validation_actions), (POLICY, vec!["Deny".to_owned()]));
    }
}

//! Others at work on this node: who holds its medik8s lease, and which remediation of another kind is under way. Each is
//! waited for.
//!
//! This is courtesy, not safety: whatever another remediator does to the machine's power, a release needs a fresh proof of
//! our own. So what can't be read for certain is asked twice, and then holds nothing up: somebody else's broken conversion
//! webhook, or a permission that was not given, must not keep a node from being fenced.

use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

use crate::api::{NHC_TIMED_OUT_ANNOTATION, NODE_NAME_ANNOTATION};
use crate::cluster::{self, call};
use crate::decide::Hold;

/// A remediator of another kind.
struct Kind {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
}

/// Every kind that medik8s and metal3 have, as of 2026. `deploy/rbac.yaml` has the same list.
const KINDS: [Kind; 6] = [
    Kind { group: "self-node-remediation.medik8s.io", kind: "SelfNodeRemediation", plural: "selfnoderemediations" },
    Kind {
        group: "machine-deletion-remediation.medik8s.io",
        kind: "MachineDeletionRemediation",
        plural: "machinedeletionremediations",
    },
    Kind {
        group: "customized-user-remediation.medik8s.io",
        kind: "CustomizedUserRemediation",
        plural: "customizeduserremediations",
    },
    Kind {
        group: "customized-script-remediation.medik8s.io",
        kind: "CustomizedScriptRemediation",
        plural: "customizedscriptremediations",
    },
    Kind {
        group: "storage-based-remediation.medik8s.io",
        kind: "StorageBasedRemediation",
        plural: "storagebasedremediations",
    },
    Kind { group: "infrastructure.cluster.x-k8s.io", kind: "Metal3Remediation", plural: "metal3remediations" },
];

/// How long it is taken for known which of those kinds this cluster has: an operator is installed once a year.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// More versions of one group than any has served at a time.
const VERSIONS_MAX: usize = 8;
/// Who takes a node's lease in order to create remediations like ours.
const CALLERS: [&str; 2] = ["NodeHealthCheck-", "MachineHealthCheck-"];
/// A holder's name is anybody's text, and ends up in `status`.
const NAME_MAX: usize = 100;
/// The Machine of a Node, as OpenShift notes it there: "namespace/name".
const MACHINE_OPENSHIFT: &str = "machine.openshift.io/machine";
/// The same of Cluster API: the name, and the namespace of its own.
const MACHINE_CAPI: (&str, &str) = ("cluster.x-k8s.io/machine", "cluster.x-k8s.io/cluster-namespace");

/// Looks for others at work.
pub struct Holds {
    leases: String,
    known: Mutex<Option<Known>>,
}

#[derive(Clone)]
struct Known {
    at: Instant,
    kinds: Vec<ApiResource>,
}

impl Holds {
    /// `leases`: the namespace in which medik8s' operators lease nodes.
    pub fn new(leases: String) -> Self {
        Self { leases, known: Mutex::default() }
    }

    /// Tells who is at work on the node, if anybody is.
    ///
    /// # Errors
    /// The API server's, where it is the API server that fails, not what others have put into it.
    pub(super) async fn on(
        &self,
        client: &Client,
        node: &Node,
        now: Timestamp,
    ) -> Result<Option<(Hold, String)>, cluster::Error> {
        if let Some(holder) = self.leased(client, node, now).await? {
            return Ok(Some((Hold::Leased, holder)));
        }
        Ok(self.foreign(client, node).await?.map(|who| (Hold::Foreign, who)))
    }

    /// Who holds the node's lease, but for those who take it to have remediations like ours created.
    async fn leased(&self, client: &Client, node: &Node, now: Timestamp) -> Result<Option<String>, cluster::Error> {
        let leases: Api<Lease> = Api::namespaced(client.clone(), &self.leases);
        let name = format!("node-{}", node.name_any());
        match call("reading the node's medik8s lease", leases.get_opt(&name)).await {
            Ok(lease) => Ok(lease.as_ref().and_then(|lease| holder(lease, now))),
            Err(error) if error.is_refused() => {
                tracing::warn!(error = error.story(), "not waited for: it may not be read");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn foreign(&self, client: &Client, node: &Node) -> Result<Option<String>, cluster::Error> {
        let everywhere = ListParams::default();
        for resource in self.kinds(client).await? {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let listed = twice(|| call("listing foreign remediations", api.list(&everywhere))).await;
            let all = match listed {
                Ok(list) => list.items,
                Err(error) => {
                    tracing::warn!(kind = resource.kind, error = error.story(), "not waited for: it can't be read");
                    self.forget(&resource);
                    continue;
                }
            };
            if let Some(found) = all.iter().find(|object| is_about(object, node) && !is_over(object)) {
                let namespace = found.namespace().unwrap_or_default();
                return Ok(Some(format!("{} {namespace}/{}", resource.kind, found.name_any())));
            }
        }
        Ok(None)
    }

    /// Those of [`KINDS`] that this cluster has, each in the version that is preferred of those that have it.
    async fn kinds(&self, client: &Client) -> Result<Vec<ApiResource>, cluster::Error> {
        let known = self.known.lock().expect("no panic while held").clone();
        if let Some(known) = known.filter(|known| known.at.elapsed() < KNOWN_FOR) {
            return Ok(known.kinds);
        }
        let at = Instant::now();
        let groups = match call("listing the API groups", client.list_api_groups()).await {
            Ok(list) => list.groups,
            Err(error) if error.is_refused() => {
                tracing::warn!(error = error.story(), "no remediation of another kind is waited for");
                vec![]
            }
            Err(error) => return Err(error),
        };
        let mut kinds = vec![];
        for kind in &KINDS {
            let Some(group) = groups.iter().find(|group| group.name == kind.group) else { continue };
            let preferred = group.preferred_version.iter();
            for version in preferred.chain(&group.versions).take(VERSIONS_MAX) {
                let list = || call("listing an API group", client.list_api_group_resources(&version.group_version));
                match twice(list).await {
                    Ok(list) if list.resources.iter().any(|resource| resource.name == kind.plural) => {
                        kinds.push(kind.resource(&version.version));
                        break;
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(group = kind.group, error = error.story(), "not waited for"),
                }
            }
        }
        *self.known.lock().expect("no panic while held") = Some(Known { at, kinds: kinds.clone() });
        Ok(kinds)
    }

    /// Not to be asked again before the kinds are learnt anew: each question may take as long as a call may.
    fn forget(&self, resource: &ApiResource) {
        if let Some(known) = self.known.lock().expect("no panic while held").as_mut() {
            known.kinds.retain(|kind| kind != resource);
        }
    }
}

impl Kind {
    fn resource(&self, version: &str) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: version.to_owned(),
            api_version: format!("{}/{version}", self.group),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}

/// A hiccup is not a fault.
async fn twice<T, F>(ask: impl Fn() -> F) -> Result<T, cluster::Error>
where
    F: Future<Output = Result<T, cluster::Error>>,
{
    match ask().await {
        Ok(answer) => Ok(answer),
        Err(_) => ask().await,
    }
}

/// The holder of a lease that is in force: renewed within its duration, seen from here. (A renewal from the future counts
/// within the same bounds: clocks differ, but nobody holds a node for ever.)
fn holder(lease: &Lease, now: Timestamp) -> Option<String> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
    let renewed = spec.renew_time.as_ref()?.0.as_millisecond();
    let lasts = i64::from(spec.lease_duration_seconds?).saturating_mul(1_000);
    let in_force = now.as_millisecond().saturating_sub(renewed).saturating_abs() < lasts;
    let calls_us = CALLERS.iter().any(|caller| holder.starts_with(caller));
    (in_force && !calls_us).then(|| holder.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect())
}

/// Whose node a foreign remediation is about: the one that it is annotated with; else its name is the node's, or it is
/// owned by the node's Machine.
fn is_about(object: &DynamicObject, node: &Node) -> bool {
    let name = node.name_any();
    if let Some(annotated) = object.annotations().get(NODE_NAME_ANNOTATION) {
        return *annotated == name;
    }
    object.name_any() == name || is_owned_by_machine_of(object, node)
}

fn is_owned_by_machine_of(object: &DynamicObject, node: &Node) -> bool {
    let noted = |key| node.annotations().get(key).map(String::as_str);
    let openshift = noted(MACHINE_OPENSHIFT).and_then(|machine| machine.split_once('/'));
    let capi = noted(MACHINE_CAPI.1).zip(noted(MACHINE_CAPI.0));
    let namespace = object.namespace().unwrap_or_default();
    let machines: Vec<_> = object.owner_references().iter().filter(|owner| owner.kind == "Machine").collect();
    let owns = |machine: Option<(&str, &str)>| {
        machine.is_some_and(|(within, name)| within == namespace && machines.iter().any(|owner| owner.name == name))
    };
    owns(openshift) || owns(capi)
}

/// Tells whether a foreign remediation does nothing more: NHC has given it up, or it says itself that it is through. (One
/// that is being deleted may still be at work until it is gone.)
fn is_over(object: &DynamicObject) -> bool {
    let status = &object.data["status"];
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is = |type_: &str, status: &[&str]| {
        let of_type = conditions.iter().filter(|condition| condition["type"] == type_);
        of_type.into_iter().any(|condition| status.iter().any(|status| condition["status"] == *status))
    };
    object.annotations().contains_key(NHC_TIMED_OUT_ANNOTATION)
        || is("Succeeded", &["True", "False"])
        // Storage-based remediation has no Succeeded, and this one False while it works.
        || is("FencingSucceeded", &["True"])
        // Metal3's have no conditions.
        || matches!(status["phase"].as_str(), Some("Failed" | "Succeeded"))
}

#[cfg(test)]
mod tests;

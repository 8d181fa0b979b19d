//! What preflight reads of the cluster: templates, Nodes and remediations; and the one thing that it writes on a template
//! besides its status.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::time::sleep;

use super::check::{Facts, Nodes};
use super::detect::is_marked;
use crate::api::{FenceAgentsRemediationTemplate as Template, Guarded, GuardedTemplate, MULTIPLE_TEMPLATES_ANNOTATION};
use crate::cluster::{self, call};

/// Pause before a watch that failed is begun again.
const REWATCH: Duration = Duration::from_secs(1);

/// All that is listed.
pub(super) struct World {
    pub templates: Vec<Template>,
    pub nodes: Nodes,
    /// Nodes that a remediation is at work on.
    pub busy: BTreeSet<String>,
}

impl World {
    /// Reads it. A template that can't be read is nobody's but its author's.
    pub(super) async fn read(client: &Client) -> Result<Self, cluster::Error> {
        let all = ListParams::default();
        let templates: Api<GuardedTemplate> = Api::all(client.clone());
        let nodes: Api<Node> = Api::all(client.clone());
        let templates = call("listing the templates", templates.list(&all)).await?.items;
        let templates = templates.into_iter().filter_map(|template| template.0.ok());
        let nodes = call("listing the nodes", nodes.list(&all)).await?.items;
        Ok(Self {
            templates: templates.filter(|template| template.metadata.deletion_timestamp.is_none()).collect(),
            nodes: nodes.into_iter().map(facts).collect(),
            busy: busy(client).await?,
        })
    }
}

/// The nodes that a template is for: those that it names, else all.
pub(super) fn names(template: &Template, nodes: &Nodes) -> BTreeSet<String> {
    let spec = &template.spec.template.spec;
    let named = spec.node_parameters.0.values().flat_map(BTreeMap::keys).chain(spec.node_secret_names.keys());
    let named: BTreeSet<_> = named.cloned().collect();
    if named.is_empty() { nodes.keys().cloned().collect() } else { named }
}

fn facts(node: Node) -> (String, Facts) {
    let marked = is_marked(&node);
    let info = node.status.as_ref().and_then(|status| status.node_info.clone()).unwrap_or_default();
    let (name, uid) = (node.name_any(), node.metadata.uid.unwrap_or_default());
    (name, Facts { uid, system_uuid: info.system_uuid, boot_id: info.boot_id, marked })
}

/// The nodes that remediations are at work on. Those that have ended, well or not, leave the device to us.
pub(super) async fn busy(client: &Client) -> Result<BTreeSet<String>, cluster::Error> {
    let api: Api<Guarded> = Api::all(client.clone());
    let all = call("listing the remediations", api.list(&ListParams::default())).await?.items;
    let at_work = all.into_iter().filter_map(|far| far.0.ok()).filter(|far| {
        let phase = far.status.as_ref().and_then(|status| status.phase.as_deref());
        !matches!(phase, Some("Done" | "Halted"))
    });
    Ok(at_work
        .map(|far| {
            far.status
                .as_ref()
                .and_then(|status| status.node.as_ref())
                .map_or_else(|| far.node_name().to_owned(), |node| node.name.clone())
        })
        .collect())
}

/// Tells NHC that templates of this kind may be used side by side. It looks for the key alone: a value stays.
pub(super) async fn annotate(client: &Client, template: &Template) {
    if template.annotations().contains_key(MULTIPLE_TEMPLATES_ANNOTATION) {
        return;
    }
    let api: Api<Template> = Api::namespaced(client.clone(), &template.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({"metadata": {
        "resourceVersion": template.resource_version(), "annotations": { MULTIPLE_TEMPLATES_ANNOTATION: "true" },
    }}));
    let (name, params) = (template.name_any(), PatchParams::default());
    if let Err(error) = call("annotating a template", api.patch(&name, &params, &patch)).await {
        tracing::debug!(error = error.story(), "the next list tries again");
    }
}

/// Watches for ever.
pub(super) fn watched<K>(api: Api<K>) -> BoxStream<'static, Event<K>>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let events = watcher(api, watcher::Config::default());
    let events = events.then(|event| async {
        if let Err(error) = &event {
            tracing::warn!(%error, "preflight's watch");
            sleep(REWATCH).await;
        }
        event
    });
    events.into_stream().filter_map(|event| async { event.ok() }).boxed()
}

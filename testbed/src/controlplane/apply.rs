//! Server-side apply of YAML, whatever it holds.

use std::time::Duration;

use anyhow::{Context, bail};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, Scope, pinned_kind};
use kube::{Client, ResourceExt};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};

/// A new definition is served within a second; this is for a machine that builds something at the same time.
const WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// Applies each document in order, as field manager `testbed`, taking over fields that others own.
///
/// # Guarantees
///
/// A CustomResourceDefinition is served when this returns, so that its objects may follow in the same text.
///
/// # Errors
///
/// The first document that the server refuses, by kind and name.
pub async fn apply(client: &Client, yaml: &str) -> anyhow::Result<()> {
    for document in serde_yaml_ng::Deserializer::from_str(yaml) {
        let value = serde_json::Value::deserialize(document).context("reading YAML")?;
        if value.is_null() {
            continue; // nothing between two separators
        }
        let object: DynamicObject = serde_json::from_value(value).context("reading a Kubernetes object")?;
        let name = object.name_any();
        let kind = object.types.as_ref().map_or_else(String::new, |types| types.kind.clone());
        apply_one(client, &object).await.with_context(|| format!("applying {kind} {name}"))?;
    }
    Ok(())
}

async fn apply_one(client: &Client, object: &DynamicObject) -> anyhow::Result<()> {
    let types = object.types.as_ref().context("no apiVersion or kind")?;
    let kind = GroupVersionKind::try_from(types).context("reading apiVersion")?;
    let deadline = Instant::now() + WITHIN;
    let applied = loop {
        let error = match timeout_at(deadline, attempt(client, &kind, object)).await {
            Ok(Ok(applied)) => break applied,
            Ok(Err(error)) => error,
            Err(_) => bail!("the API server did not answer within {WITHIN:?}"),
        };
        if !may_pass(&error) || Instant::now() >= deadline {
            return Err(error.into());
        }
        sleep(POLL).await;
    };
    if kind.kind == "CustomResourceDefinition" {
        let (resource, _) = pinned_kind(client, &kind).await?;
        until_established(&Api::all_with(client.clone(), &resource), &applied.name_any(), deadline).await?;
    }
    Ok(())
}

async fn attempt(client: &Client, kind: &GroupVersionKind, object: &DynamicObject) -> kube::Result<DynamicObject> {
    let (resource, capabilities) = pinned_kind(client, kind).await?;
    let api = api(client, &resource, &capabilities, object.namespace());
    api.patch(&object.name_any(), &PatchParams::apply("testbed").force(), &Patch::Apply(object)).await
}

fn api(
    client: &Client,
    resource: &ApiResource,
    can: &ApiCapabilities,
    namespace: Option<String>,
) -> Api<DynamicObject> {
    match can.scope {
        Scope::Cluster => Api::all_with(client.clone(), resource),
        Scope::Namespaced => Api::namespaced_with(client.clone(), namespace.as_deref().unwrap_or("default"), resource),
    }
}

async fn until_established(api: &Api<DynamicObject>, name: &str, deadline: Instant) -> anyhow::Result<()> {
    loop {
        let definition = api.get(name).await.context("reading the definition back")?;
        let conditions = definition.data.pointer("/status/conditions").and_then(|all| all.as_array());
        let established =
            |condition: &serde_json::Value| condition["type"] == "Established" && condition["status"] == "True";
        if conditions.is_some_and(|all| all.iter().any(established)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("not established; its conditions: {conditions:?}");
        }
        sleep(POLL).await;
    }
}

/// Whether the same request may succeed a moment later.
///
/// The administrator is refused (403) only where a namespace's default service account does not exist yet; a kind is
/// unknown (404, or missing from discovery) until its definition is served, which begins with 429.
fn may_pass(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 403 | 404 | 429 | 503),
        kube::Error::Discovery(_) => true,
        _ => false, // kube's own enum, not ours
    }
}

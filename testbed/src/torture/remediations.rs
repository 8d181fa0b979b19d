//! The remediations of a namespace, as anybody with a watch sees them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{Api, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::discovery::ApiResource;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, Error, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::phase::Phase;
use crate::kubelet::RETRY;
use crate::wait;

const GROUP: &str = "fence-agents-remediation.medik8s.io";
const KIND: &str = "FenceAgentsRemediation";
/// An API server that restarts is away for 4 s on an idle machine, and a starved one for longer.
const AWAY: Duration = Duration::from_secs(90);

/// All remediations of a namespace.
pub(super) struct Remediations {
    api: Api<DynamicObject>,
    seen: Arc<watch::Sender<BTreeMap<String, Value>>>,
    _watch: JoinSet<()>,
}

impl Remediations {
    pub(super) fn new(client: Client, namespace: &str) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1alpha1", KIND));
        let api = Api::namespaced_with(client, namespace, &resource);
        let seen = Arc::new(watch::Sender::default());
        let mut task = JoinSet::new();
        task.spawn(follow(api.clone(), seen.clone()));
        Self { api, seen, _watch: task }
    }

    /// Creates one, and waits until it is seen; an API server that is away is waited for.
    pub(super) async fn create(&self, name: &str, node: &str, spec: &Value) -> Result<()> {
        let object = json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": KIND,
            "metadata": {"name": name, "annotations": {"remediation.medik8s.io/node-name": node}},
            "spec": spec,
        });
        let object: DynamicObject = serde_json::from_value(object)?;
        wait::until(&format!("remediation {name} to be created"), AWAY, || async {
            match self.api.create(&PostParams::default(), &object).await {
                // An answer that was lost.
                Err(Error::Api(status)) if status.code == 409 => Ok(Some(())),
                created => Ok(created.map(drop).map(Some)?),
            }
        })
        .await?;
        self.until(name, "the watch does not show it", AWAY, |far| !far.is_null()).await?;
        Ok(())
    }

    /// Asks for it now, or as soon as there is an API server.
    pub(super) async fn get(&self, name: &str) -> Result<Option<Value>> {
        let what = format!("remediation {name} to be read");
        let far = wait::until(&what, AWAY, || async { Ok(Some(self.api.get_opt(name).await?)) }).await?;
        far.map(|far| Ok(serde_json::to_value(far)?)).transpose()
    }

    /// All that there are now.
    pub(super) async fn list(&self) -> Result<Vec<(String, Value)>> {
        let all = self.api.list(&ListParams::default()).await.context("listing remediations")?;
        all.items.into_iter().map(|far| Ok((far.name_any(), serde_json::to_value(far)?))).collect()
    }

    /// Merges a change into it; a remediation that is gone is none to change.
    pub(super) async fn patch(&self, name: &str, change: &Value) -> Result<()> {
        wait::until(&format!("remediation {name} to be changed"), AWAY, || async {
            match self.api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await {
                Err(Error::Api(status)) if status.code == 404 => Ok(Some(())),
                patched => Ok(patched.map(drop).map(Some)?),
            }
        })
        .await
    }

    /// Asks for its deletion.
    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        wait::until(&format!("remediation {name} to be deleted"), AWAY, || async {
            match self.api.delete(name, &DeleteParams::default()).await {
                Err(Error::Api(status)) if status.code == 404 => Ok(Some(())),
                deleted => Ok(deleted.map(drop).map(Some)?),
            }
        })
        .await
    }

    /// Waits until what the watch shows of it is as `is` wants; null once it is gone.
    ///
    /// # Errors
    /// After `within`, with the last status.
    pub(super) async fn until(
        &self,
        name: &str,
        what: &str,
        within: Duration,
        is: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut seen = self.seen.subscribe();
        let mut last = Value::Null;
        let found = timeout(within, async {
            loop {
                last = seen.borrow_and_update().get(name).cloned().unwrap_or_default();
                if is(&last) {
                    return;
                }
                if seen.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        })
        .await;
        match found {
            Ok(()) => Ok(last),
            Err(_) => bail!("{what}: not within {within:?}; its status: {}", tell(&last)),
        }
    }

    /// Waits until the API server no longer has it.
    pub(super) async fn gone(&self, name: &str, within: Duration) -> Result<()> {
        self.until(name, &format!("remediation {name} is to be gone"), within, Value::is_null).await?;
        Ok(())
    }
}

/// What a remediation says of itself, in a line.
pub(super) fn tell(far: &Value) -> String {
    if far.is_null() {
        return "gone".to_owned();
    }
    let deleted = if far["metadata"]["deletionTimestamp"].is_null() { "" } else { ", deleted" };
    let why = far["status"]["operation"]["why"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
    format!("{}{why}{deleted}: {}", Phase::of(far), far["status"]["message"].as_str().unwrap_or_default())
}

async fn follow(api: Api<DynamicObject>, seen: Arc<watch::Sender<BTreeMap<String, Value>>>) {
    let mut events = watcher(api, Config::default()).boxed();
    let mut listed = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(far)) => drop(listed.insert(far.name_any(), value(&far))),
            Ok(Event::InitDone) => drop(seen.send_replace(std::mem::take(&mut listed))),
            Ok(Event::Apply(far)) => seen.send_modify(|all| drop(all.insert(far.name_any(), value(&far)))),
            Ok(Event::Delete(far)) => seen.send_modify(|all| drop(all.remove(&far.name_any()))),
            Err(error) => {
                tracing::debug!(%error, "the watch of remediations broke");
                sleep(RETRY).await;
            }
        }
    }
}

fn value(far: &DynamicObject) -> Value {
    // It has come as JSON.
    serde_json::to_value(far).unwrap_or_default()
}

/// The times of a remediation's phases, for a report.
pub(super) fn timeline(far: &Value) -> Vec<String> {
    let entries = far["status"]["timeline"].as_array().map(Vec::as_slice).unwrap_or_default();
    let line = |entry: &Value| {
        let at = entry["at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let at = at.map(|at| at.strftime("%H:%M:%S%.3f").to_string()).unwrap_or_default();
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        format!("{at} {:<10} {}", text("phase"), text("message"))
    };
    entries.iter().map(line).collect()
}

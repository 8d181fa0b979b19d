//! A stand-in for medik8s' NodeHealthCheck operator, for one NodeHealthCheck: what a remediator can see of it, and nothing
//! else. Level-triggered: it keeps nothing but what NHC keeps in its own status.
//!
//! Left out: storm recovery, `healthyDelay`, pause requests, the flag on remediations older than 48 h, OpenShift's Machines
//! and its guards for upgrades and etcd.

mod check;
mod lease;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::{Client, Error, ResourceExt};
use serde_json::json;
use tokio::task::JoinSet;

use self::check::{Health, excluded, health, is_control_plane};
pub use self::check::{MinHealthy, Unhealthy};
use self::lease::Lessee;

const NODE_NAME: &str = "remediation.medik8s.io/node-name";
const TEMPLATE_NAME: &str = "remediation.medik8s.io/template-name";
const TIMED_OUT: &str = "remediation.medik8s.io/nhc-timed-out";
const MULTIPLE_TEMPLATES: &str = "remediation.medik8s.io/multiple-templates-support";
const IS_CONTROL_PLANE: &str = "remediation.medik8s.io/isControlPlaneNode";
const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "node-healthcheck-controller");

/// What a NodeHealthCheck says, and what of its operator can be made faster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `metadata.name`.
    pub name: String,
    /// The object that stands for the NodeHealthCheck: any that is cluster-scoped. What is created belongs to it.
    pub owner: OwnerReference,
    /// `selector`, as a label selector's text.
    pub selector: String,
    /// `unhealthyConditions`: any of them.
    pub unhealthy: Vec<Unhealthy>,
    /// `minHealthy`.
    pub min_healthy: MinHealthy,
    /// `remediationTemplate` or `escalatingRemediations`.
    pub remediation: Remediation,
    /// How many remediations are created at once where one is meant: NHC looks for existing ones in a cache that may lag.
    pub at_once: usize,
    /// `LEASE_NAMESPACE`; it must exist.
    pub leases: String,
    /// The pause between two looks, where NHC watches.
    pub period: Duration,
}

/// Which templates are used.
#[derive(Clone, Debug)]
pub enum Remediation {
    /// One, and then it is waited for ever.
    Classic(Template),
    /// One after the other.
    Escalating(Vec<Step>),
}

/// One of `escalatingRemediations`.
#[derive(Clone, Debug)]
pub struct Step {
    /// What to create.
    pub template: Template,
    /// Lower ones come first.
    pub order: i32,
    /// Until the next one; at least a minute in a real NHC.
    pub timeout: Duration,
}

/// A reference to a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its `apiVersion`, which is also that of what is made from it.
    pub api_version: String,
    /// Its kind: that of what is made from it, and `Template`.
    pub kind: String,
    /// Where it is, and what is made from it goes.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Did {
    /// Created a remediation of this name.
    Created(String),
    /// Gave it up by annotation: the next one follows.
    TimedOut(String),
    /// Asked for its deletion.
    Deleted(String),
    /// Did nothing for a node, for this reason.
    Skipped(String, &'static str),
}

/// A running NodeHealthCheck. Ends when dropped; what it created stays.
pub struct Nhc {
    log: Arc<Mutex<Vec<(Timestamp, Did)>>>,
    _task: JoinSet<()>,
}

impl Nhc {
    /// Starts it, as whoever `client` is.
    pub fn start(client: Client, settings: Settings) -> Self {
        let log = Arc::<Mutex<Vec<_>>>::default();
        let mut task = JoinSet::new();
        let mut check = Check { client, settings, log: log.clone(), given_up: BTreeMap::new() };
        task.spawn(async move {
            loop {
                if let Err(error) = check.pass().await {
                    tracing::warn!(nhc = check.settings.name, "{error:#}");
                }
                tokio::time::sleep(check.settings.period).await;
            }
        });
        Self { log, _task: task }
    }

    /// All that it did so far. Skipping is told once for as long as nothing else happens.
    pub fn log(&self) -> Vec<(Timestamp, Did)> {
        self.log.lock().expect("no panic while held").clone()
    }
}

struct Check {
    client: Client,
    settings: Settings,
    log: Arc<Mutex<Vec<(Timestamp, Did)>>>,
    /// `status.timedOut`, by UID: a remediation that had succeeded is given up without the annotation.
    given_up: BTreeMap<String, Timestamp>,
}

impl Check {
    async fn pass(&mut self) -> Result<()> {
        let now = Timestamp::now();
        let api: Api<Node> = Api::all(self.client.clone());
        let nodes = api.list(&ListParams::default().labels(&self.settings.selector)).await.context("listing nodes")?;
        let all = self.remediations().await?;
        let ours: Vec<_> = all.iter().filter(|object| self.owns(object)).cloned().collect();
        let of = |name: &str| ours.iter().filter(|object| node_of(object) == name).cloned().collect::<Vec<_>>();
        // The Node is gone, or no longer selected.
        for object in ours.iter().filter(|object| !nodes.items.iter().any(|node| node.name_any() == node_of(object))) {
            let awaited = is(object, "PermanentNodeDeletionExpected", "True") && !is(object, "Succeeded", "True");
            if !awaited {
                self.delete(object).await?;
            }
        }
        let healths: Vec<_> = nodes.iter().map(|node| health(node, &self.settings.unhealthy, now)).collect();
        let well = |(node, health): &(&Node, &Health)| **health == Health::Well && of(&node.name_any()).is_empty();
        let healthy = nodes.iter().zip(&healths).filter(well).count();
        let enough = healthy >= self.settings.min_healthy.of(nodes.items.len());
        for (node, health) in nodes.iter().zip(&healths) {
            let name = node.name_any();
            let started = of(&name);
            match health {
                Health::Well if started.is_empty() => self.lessee().release(&name).await?,
                Health::Well => {
                    for object in &started {
                        self.delete(object).await?;
                    }
                }
                Health::Soon => {}
                Health::Ill if excluded(node) => self.skip(&name, "the node is excluded"),
                Health::Ill if started.is_empty() && !enough => self.skip(&name, "too few are healthy"),
                Health::Ill => self.remediate(node, &started, &all, now).await?,
            }
        }
        Ok(())
    }

    async fn remediate(
        &mut self,
        node: &Node,
        started: &[DynamicObject],
        all: &[DynamicObject],
        now: Timestamp,
    ) -> Result<()> {
        let name = node.name_any();
        let (steps, escalates) = self.steps();
        let mut before = Duration::ZERO;
        for step in &steps {
            let is_of = |object: &&DynamicObject| {
                annotation(object, TEMPLATE_NAME) == Some(&step.template.name) && node_of(object) == name
            };
            let same: Vec<_> = started.iter().filter(is_of).cloned().collect();
            let Some(first) = same.first() else {
                if all.iter().any(|object| is_of(&object)) {
                    self.skip(&name, "the remediation is not owned");
                    return Ok(());
                }
                let others = all.iter().filter(|object| node_of(object) != name);
                let busy = others.into_iter().any(|object| object.labels().contains_key(IS_CONTROL_PLANE));
                if is_control_plane(node) && busy {
                    self.skip(&name, "another control-plane node is being remediated");
                    return Ok(());
                }
                if !self.lessee().obtain(node, step.timeout).await? {
                    self.skip(&name, "the lease is held by another");
                    return Ok(());
                }
                for _ in 0..self.settings.at_once.max(1) {
                    self.create(node, &step.template).await?;
                }
                return Ok(());
            };
            if let Some(at) = self.given_up(first) {
                // The next one follows a second later.
                if now < at + SignedDuration::from_secs(1) {
                    return Ok(());
                }
                before += step.timeout;
                continue;
            }
            let since = first.creation_timestamp().map_or(now, |at| at.0);
            let overdue = !self.lessee().keep(node, step.timeout, before).await?;
            let late = now >= since + SignedDuration::try_from(step.timeout)?;
            if overdue || escalates && (late || is(first, "Succeeded", "False")) {
                for object in &same {
                    self.give_up(object, now).await?;
                }
            }
            return Ok(());
        }
        self.skip(&name, "no template is left");
        Ok(())
    }

    async fn create(&self, node: &Node, reference: &Template) -> Result<()> {
        let api: Api<DynamicObject> = self.namespaced(reference, &reference.kind);
        let template = api.get(&reference.name).await.context("reading the template")?;
        let spec = template.data["spec"]["template"]["spec"].clone();
        anyhow::ensure!(spec.is_object(), "template {} has no spec.template.spec", reference.name);
        let name = node.name_any();
        let named = match template.annotations().contains_key(MULTIPLE_TEMPLATES) {
            true => json!({"generateName": format!("{name}-")}),
            false => json!({"name": name}),
        };
        let kind = reference.remediation();
        let mut object: DynamicObject =
            serde_json::from_value(json!({"apiVersion": reference.api_version, "kind": kind, "metadata": named}))?;
        object.data = json!({"spec": spec});
        object.annotations_mut().insert(NODE_NAME.to_owned(), name.clone());
        object.annotations_mut().insert(TEMPLATE_NAME.to_owned(), reference.name.clone());
        object.labels_mut().insert(PART_OF.0.to_owned(), PART_OF.1.to_owned());
        if is_control_plane(node) {
            object.labels_mut().insert(IS_CONTROL_PLANE.to_owned(), String::new());
        }
        object.owner_references_mut().push(self.settings.owner.clone());
        let made = self.namespaced(reference, kind).create(&PostParams::default(), &object).await;
        self.say(Did::Created(made.context("creating a remediation")?.name_any()));
        Ok(())
    }

    /// The annotation, by a PUT of the whole object, and `status.timedOut`.
    async fn give_up(&mut self, object: &DynamicObject, now: Timestamp) -> Result<()> {
        if !is(object, "Succeeded", "True") {
            let mut object = object.clone();
            object.annotations_mut().insert(TIMED_OUT.to_owned(), format!("{now:.0}"));
            let api = self.api_of(&object)?;
            api.replace(&object.name_any(), &PostParams::default(), &object).await.context("giving up")?;
        }
        self.given_up.insert(object.uid().unwrap_or_default(), now);
        self.say(Did::TimedOut(object.name_any()));
        Ok(())
    }

    fn given_up(&self, object: &DynamicObject) -> Option<Timestamp> {
        let noted = self.given_up.get(object.uid().as_deref().unwrap_or_default()).copied();
        noted.or_else(|| annotation(object, TIMED_OUT)?.parse().ok())
    }

    async fn delete(&self, object: &DynamicObject) -> Result<()> {
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        match self.api_of(object)?.delete(&object.name_any(), &DeleteParams::default()).await {
            Ok(_) => self.say(Did::Deleted(object.name_any())),
            Err(Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error).context("deleting a remediation"),
        }
        Ok(())
    }

    /// All remediations of the kinds that this NodeHealthCheck creates, whosever they are.
    async fn remediations(&self) -> Result<Vec<DynamicObject>> {
        let mut kinds: Vec<_> = self.steps().0.into_iter().map(|step| step.template).collect();
        kinds.sort_by(|a, b| (&a.api_version, &a.kind).cmp(&(&b.api_version, &b.kind)));
        kinds.dedup_by(|a, b| (&a.api_version, &a.kind) == (&b.api_version, &b.kind));
        let mut found = vec![];
        for template in kinds {
            let resource = template.resource(template.remediation());
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            found.extend(
                api.list(&ListParams::default()).await.context("listing remediations")?.items.into_iter().map(
                    // A list leaves the kind to its items' readers.
                    |object| DynamicObject {
                        types: Some(kube::core::TypeMeta {
                            api_version: resource.api_version.clone(),
                            kind: resource.kind.clone(),
                        }),
                        ..object
                    },
                ),
            );
        }
        Ok(found)
    }

    /// The steps in their order, and whether one follows another.
    fn steps(&self) -> (Vec<Step>, bool) {
        match &self.settings.remediation {
            Remediation::Classic(template) => {
                (vec![Step { template: template.clone(), order: 0, timeout: lease::CLASSIC }], false)
            }
            Remediation::Escalating(steps) => {
                let mut steps = steps.clone();
                steps.sort_by_key(|step| step.order);
                (steps, true)
            }
        }
    }

    fn owns(&self, object: &DynamicObject) -> bool {
        object.owner_references().iter().any(|owner| owner.uid == self.settings.owner.uid)
    }

    fn lessee(&self) -> Lessee {
        let holder = format!("NodeHealthCheck-{}", self.settings.name);
        Lessee { leases: Api::namespaced(self.client.clone(), &self.settings.leases), holder }
    }

    fn namespaced(&self, reference: &Template, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &reference.namespace, &reference.resource(kind))
    }

    fn api_of(&self, object: &DynamicObject) -> Result<Api<DynamicObject>> {
        let types = object.types.as_ref().context("an object without a kind")?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        Ok(Api::namespaced_with(self.client.clone(), &object.namespace().unwrap_or_default(), &resource))
    }

    fn skip(&self, node: &str, why: &'static str) {
        let skipped = Did::Skipped(node.to_owned(), why);
        if self.log.lock().expect("no panic while held").last().is_none_or(|(_, last)| *last != skipped) {
            self.say(skipped);
        }
    }

    fn say(&self, did: Did) {
        self.log.lock().expect("no panic while held").push((Timestamp::now(), did));
    }
}

impl Template {
    fn remediation(&self) -> &str {
        self.kind.trim_end_matches("Template")
    }

    fn resource(&self, kind: &str) -> ApiResource {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
    }
}

fn node_of(object: &DynamicObject) -> &str {
    annotation(object, NODE_NAME).or(object.metadata.name.as_deref()).unwrap_or_default()
}

fn annotation<'a>(object: &'a DynamicObject, key: &str) -> Option<&'a str> {
    object.annotations().get(key).map(String::as_str)
}

/// Of a condition NHC reads the type, the status and the time of its last transition.
fn is(object: &DynamicObject, type_: &str, status: &str) -> bool {
    let conditions = object.data["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == type_ && condition["status"] == status)
}

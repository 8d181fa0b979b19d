//! Under NodeHealthCheck, which runs with the rights that it finds by label: a whole story, escalation, duplicates, the Node
//! gone. And the YAML of `docs/nhc.md`, as it stands.

use std::time::Duration;

use agents::Command;
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client, ResourceExt};
use ringfence::api::{FenceAgentsRemediation, NHC_TIMED_OUT_ANNOTATION, parse_duration};
use serde::Deserialize;
use serde_json::{Value, json};
use testbed::bmc::redfish::Fault;
use testbed::machine::Machine;
use testbed::nhc::{Did, MinHealthy, Nhc, Remediation, Settings, Step, Template, Unhealthy};
use testbed::wait;

use crate::stage::{
    Cluster, NAMESPACE, Remediation as Far, SHORT, SOON, Stage, condition, is_ready, merge, phase_of, play, with_kind,
};

const LEASES: &str = "medik8s-leases";
const PAGE: &str = include_str!("../../docs/nhc.md");

/// A node hangs; NHC creates a remediation; the workload moves, the node comes back, NHC deletes the remediation, and
/// nothing is left of it.
#[test]
fn from_a_hang_to_a_node_that_is_well() {
    play(async {
        let stage = Cluster::shared().await?.stage("nhc-story").await?;
        let check = Check::new(&stage).await?;
        let template = check.template("only", json!({})).await?;
        let nhc = check.start(json!({"remediationTemplate": template}), |_| {}).await?;
        stage.victim().hang();
        not_ready(&stage, stage.victim()).await?;
        let name = created(&nhc, 1).await?.remove(0);
        ensure!(name.starts_with(&format!("{}-", stage.victim().name())), "{name}: the template is one of several");
        let far = far(&stage, &name);
        let [made] = &of(&stage).await?[..] else { anyhow::bail!("one remediation was expected") };
        ensure!(made.annotations()["remediation.medik8s.io/template-name"] == "nhc-story-only");
        ensure!(holder(&stage).await?.as_deref() == Some("NodeHealthCheck-nhc-story"), "NHC holds the node's lease");
        stage.replacement(SOON).await?;
        far.gone(SOON).await?;
        stage.rack.ready().await?;
        stage.node_is_clean(stage.victim(), SOON).await?;
        ensure!(commands(&stage) == [Command::Off, Command::On], "{:?}", commands(&stage));
        let did: Vec<_> = nhc.log().into_iter().map(|(_, did)| did).collect();
        ensure!(did == [Did::Created(name.clone()), Did::Deleted(name)], "{did:?}");
        wait::until("the lease to be given up", SOON, || async { Ok(holder(&stage).await?.is_none().then_some(())) })
            .await?;
        stage.judged().await
    });
}

/// L6: the first remediation fails, NHC goes on within a second, and leaves it standing; the second one takes the node over;
/// both go when the node is well, and nothing is left on it.
#[test]
fn it_escalates_and_nothing_is_lost() {
    play(async {
        let stage = Cluster::shared().await?.stage("nhc-steps").await?;
        let check = Check::new(&stage).await?;
        let first = check.template("first", json!({"retrycount": 1})).await?;
        let second = check.template("second", json!({})).await?;
        let steps = json!({"escalatingRemediations": [
            {"order": 7, "timeout": "5m", "remediationTemplate": second},
            {"order": 1, "timeout": "5m", "remediationTemplate": first},
        ]});
        let nhc = check.start(steps, |_| {}).await?;
        stage.face.set_fault(stage.victim(), Some(Fault::LieOff));
        stage.victim().hang();
        not_ready(&stage, stage.victim()).await?;
        let first = far(&stage, &created(&nhc, 1).await?[0]);
        let given_up = first.until("given up", SOON, |far| condition(far, "Succeeded").0 == "False").await?;
        let failed = given_up.status.iter().flat_map(|s| &s.conditions).find(|c| c.type_ == "Succeeded").cloned();
        let failed = failed.context("Succeeded")?.last_transition_time.0;
        let second = far(&stage, &created(&nhc, 2).await?[1]);
        stage.face.set_fault(stage.victim(), None);
        let log = nhc.log();
        let gave_up = log.iter().find(|(_, did)| matches!(did, Did::TimedOut(_))).context("a time-out")?.0;
        // Of conditions, NHC and we have whole seconds.
        ensure!(gave_up.duration_since(failed).as_secs_f64() < 3.0, "it was slow to say so: {log:?}");

        let standing = first.halted_for("RemediationInterruptedByNHC", "RemediationStopped", SOON).await?;
        ensure!(standing.annotations().contains_key(NHC_TIMED_OUT_ANNOTATION), "it stands, given up");
        let uid = second.get().await?.uid();
        let claim = |node: &Node| node.annotations().get("ringfence.dev/claim").cloned();
        wait::until("the second to hold the node", SOON, || async {
            Ok((claim(&stage.node(stage.victim()).await?) == uid).then_some(()))
        })
        .await?;
        ensure!(
            first.get().await?.metadata.deletion_timestamp.is_none(),
            "the first one stands while the second works"
        );
        stage.replacement(SOON).await?;
        first.gone(SOON).await?;
        second.gone(SOON).await?;
        stage.rack.ready().await?;
        stage.node_is_clean(stage.victim(), SOON).await?;
        let commands = commands(&stage);
        ensure!(commands == [Command::Off, Command::Off, Command::On], "one of the first's: {commands:?}");
        stage.judged().await
    });
}

/// A1: a second NHC finds the lease taken; of two remediations that one NHC created at once, one acts and the other waits.
#[test]
fn duplicates_do_no_harm() {
    play(async {
        let stage = Cluster::shared().await?.stage("nhc-twice").await?;
        let check = Check::new(&stage).await?;
        let template = check.template("one", json!({})).await?;
        let first = check.start(json!({"remediationTemplate": template}), |settings| settings.at_once = 2).await?;
        stage.rack.attacher().hold();
        stage.victim().hang();
        not_ready(&stage, stage.victim()).await?;
        let names = created(&first, 2).await?;
        let other = check.template("other", json!({})).await?;
        let second = check
            .start(json!({"remediationTemplate": other}), |settings| {
                settings.name = "nhc-twice-other".to_owned();
                settings.owner.uid = "another".to_owned();
            })
            .await?;
        let fars: Vec<_> = names.iter().map(|name| far(&stage, name)).collect();
        wait::until("one to work, and one to wait", SOON, || async {
            let (a, b) = tokio::try_join!(fars[0].get(), fars[1].get())?;
            let waits = |far: &FenceAgentsRemediation| condition(far, "Succeeded") == ("Unknown".into(), "Busy".into());
            let works = |far: &FenceAgentsRemediation| !matches!(phase_of(far), "" | "Accepted" | "Halted");
            Ok(((waits(&a) && works(&b)) || (waits(&b) && works(&a))).then_some(()))
        })
        .await?;
        stage.rack.attacher().release();
        stage.replacement(SOON).await?;
        for far in &fars {
            far.gone(SOON).await?;
        }
        stage.rack.ready().await?;
        stage.node_is_clean(stage.victim(), SOON).await?;
        ensure!(commands(&stage) == [Command::Off, Command::On], "both acted: {:?}", commands(&stage));
        let skipped: Vec<_> = second.log().into_iter().map(|(_, did)| did).collect();
        let held = Did::Skipped(stage.victim().name().to_owned(), "the lease is held by another");
        ensure!(skipped == [held], "{skipped:?}");
        stage.judged().await
    });
}

/// L3: the Node is deleted while it is fenced; NHC deletes the remediation at once, and that goes without a Node.
#[test]
fn the_node_is_gone_and_so_is_the_remediation() {
    play(async {
        let stage = Cluster::shared().await?.stage("nhc-gone").await?;
        let check = Check::new(&stage).await?;
        let template = check.template("only", json!({})).await?;
        let nhc = check.start(json!({"remediationTemplate": template}), |_| {}).await?;
        stage.face.set_fault(stage.victim(), Some(Fault::LieOff));
        stage.victim().hang();
        not_ready(&stage, stage.victim()).await?;
        let far = far(&stage, &created(&nhc, 1).await?[0]);
        far.phase("Proving", SOON).await?;
        let nodes: Api<Node> = Api::all(stage.client.clone());
        nodes.delete(stage.victim().name(), &DeleteParams::default()).await?;
        let sent = commands(&stage).len();
        far.gone(SOON).await?;
        ensure!(nodes.get_opt(stage.victim().name()).await?.is_none(), "nobody made the Node anew");
        // One may have been on its way while the Node went.
        let late = commands(&stage).split_off(sent);
        ensure!(late.len() <= 1 && !late.contains(&Command::On), "commands to no node's machine: {late:?}");
        Ok(())
    });
}

/// Every document of the page is accepted as it stands, and NHC's are what its stand-in understands.
#[test]
fn the_page_can_be_applied() {
    play(async {
        let cluster = Cluster::shared().await?;
        let mut kinds = vec![];
        for block in PAGE.split("```yaml\n").skip(1) {
            let text = block.split("```").next().context("an end")?;
            for document in serde_yaml_ng::Deserializer::from_str(text) {
                let value = Value::deserialize(document)?;
                let object: DynamicObject = serde_json::from_value(value.clone())?;
                let resource = resource_of(&object)?;
                let client = cluster.plane.client();
                let api: Api<DynamicObject> = match object.namespace() {
                    Some(namespace) => Api::namespaced_with(client, &namespace, &resource),
                    None => Api::all_with(client, &resource),
                };
                let dry = PatchParams { dry_run: true, ..PatchParams::apply("test") };
                api.patch(&object.name_any(), &dry, &Patch::Apply(&object)).await.with_context(|| text.to_owned())?;
                if resource.kind == "NodeHealthCheck" {
                    settings("page", &value["spec"], OwnerReference::default())?;
                }
                kinds.push(resource.kind);
            }
        }
        kinds.sort();
        kinds.dedup();
        ensure!(
            kinds == ["FenceAgentsRemediation", "FenceAgentsRemediationTemplate", "NodeHealthCheck", "Secret"],
            "{kinds:?}"
        );
        Ok(())
    });
}

/// NHC beside a stage.
struct Check<'a> {
    stage: &'a Stage,
    client: Client,
    owner: OwnerReference,
}

impl<'a> Check<'a> {
    async fn new(stage: &'a Stage) -> Result<Self> {
        let client = client(Cluster::shared().await?).await?;
        let object = json!({"metadata": {"name": stage.name}, "spec": {}});
        let object: DynamicObject =
            serde_json::from_value(with_kind("remediation.medik8s.io/v1alpha1", "NodeHealthCheck", object))?;
        let api: Api<DynamicObject> = Api::all_with(stage.client.clone(), &resource_of(&object)?);
        let made = api.create(&PostParams::default(), &object).await?;
        let owner = OwnerReference {
            api_version: "remediation.medik8s.io/v1alpha1".to_owned(),
            kind: "NodeHealthCheck".to_owned(),
            name: stage.name.clone(),
            uid: made.uid().context("a UID")?,
            controller: Some(false),
            ..OwnerReference::default()
        };
        Ok(Self { stage, client, owner })
    }

    /// Creates a template of the stage's spec; returns a reference to it.
    async fn template(&self, name: &str, changes: Value) -> Result<Value> {
        let name = format!("{}-{name}", self.stage.name);
        let mut spec = self.stage.spec(json!({"timeout": SHORT}));
        merge(&mut spec, changes);
        let annotations = json!({"remediation.medik8s.io/multiple-templates-support": "true"});
        let object =
            json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"template": {"spec": spec}}});
        let (version, kind) = ("fence-agents-remediation.medik8s.io/v1alpha1", "FenceAgentsRemediationTemplate");
        let object: DynamicObject = serde_json::from_value(with_kind(version, kind, object))?;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.stage.client.clone(), NAMESPACE, &resource_of(&object)?);
        api.create(&PostParams::default(), &object).await?;
        Ok(json!({"apiVersion": version, "kind": kind, "namespace": NAMESPACE, "name": name}))
    }

    /// Starts NHC for the stage's nodes.
    async fn start(&self, remediation: Value, change: impl FnOnce(&mut Settings)) -> Result<Nhc> {
        let mut spec = json!({
            "selector": {"matchLabels": {"testbed/rack": self.stage.name}},
            "minHealthy": 1,
            "unhealthyConditions": [
                {"type": "Ready", "status": "False", "duration": "1s"},
                {"type": "Ready", "status": "Unknown", "duration": "1s"},
            ],
        });
        merge(&mut spec, remediation);
        let mut settings = settings(&self.stage.name, &spec, self.owner.clone())?;
        change(&mut settings);
        Ok(Nhc::start(self.client.clone(), settings))
    }
}

/// Reads a NodeHealthCheck's spec.
fn settings(name: &str, spec: &Value, owner: OwnerReference) -> Result<Settings> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
    let lasting = |value: &Value| Ok::<_, anyhow::Error>(parse_duration(value.as_str().context("a duration")?)?);
    let mut selector = vec![];
    for (key, value) in spec["selector"]["matchLabels"].as_object().into_iter().flatten() {
        selector.push(format!("{key}={}", text(value)?));
    }
    for expression in spec["selector"]["matchExpressions"].as_array().into_iter().flatten() {
        ensure!(expression["operator"] == "DoesNotExist", "{expression}");
        selector.push(format!("!{}", text(&expression["key"])?));
    }
    ensure!(!selector.is_empty(), "a selector is mandatory");
    let conditions = spec["unhealthyConditions"].as_array().context("unhealthyConditions")?;
    let unhealthy = conditions.iter().map(|condition| {
        let (type_, status) = (text(&condition["type"])?, text(&condition["status"])?);
        Ok(Unhealthy { type_, status, duration: lasting(&condition["duration"])? })
    });
    let min_healthy = match (&spec["minHealthy"], spec["minHealthy"].as_str().and_then(|text| text.strip_suffix('%'))) {
        (_, Some(percent)) => MinHealthy::Percent(percent.parse()?),
        (count, None) => MinHealthy::Count(usize::try_from(count.as_u64().context("minHealthy")?)?),
    };
    let template = |reference: &Value| {
        let field = |name| text(&reference[name]);
        let (api_version, kind) = (field("apiVersion")?, field("kind")?);
        ensure!(kind.ends_with("Template"), "{kind}");
        Ok(Template { api_version, kind, namespace: field("namespace")?, name: field("name")? })
    };
    let remediation = match (spec.get("remediationTemplate"), spec["escalatingRemediations"].as_array()) {
        (Some(reference), None) => Remediation::Classic(template(reference)?),
        (None, Some(steps)) => {
            let step = |step: &Value| {
                let timeout = lasting(&step["timeout"])?;
                ensure!(timeout >= Duration::from_secs(60), "NHC refuses less than a minute");
                let order = i32::try_from(step["order"].as_i64().context("order")?)?;
                Ok(Step { template: template(&step["remediationTemplate"])?, order, timeout })
            };
            Remediation::Escalating(steps.iter().map(step).collect::<Result<_>>()?)
        }
        _ => anyhow::bail!("one of remediationTemplate and escalatingRemediations"),
    };
    Ok(Settings {
        name: name.to_owned(),
        owner,
        selector: selector.join(","),
        unhealthy: unhealthy.collect::<Result<_>>()?,
        min_healthy,
        remediation,
        at_once: 1,
        leases: LEASES.to_owned(),
        period: Duration::from_millis(200),
    })
}

/// NHC's ServiceAccount: it may remediate by the roles that carry the label, and nothing else but what is its own.
async fn client(cluster: &Cluster) -> Result<Client> {
    let kubeconfig = cluster.plane.service_account_kubeconfig("nhc", "nhc").await?;
    testbed::controlplane::client(&kubeconfig).await
}

/// Does what the node-lifecycle controller does some 50 s after a hang.
async fn not_ready(stage: &Stage, machine: &Machine) -> Result<()> {
    let condition = json!({"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.", "lastTransitionTime": format!("{:.0}", Timestamp::now())});
    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    let nodes: Api<Node> = Api::all(stage.client.clone());
    let node = nodes.patch_status(machine.name(), &PatchParams::default(), &patch).await?;
    ensure!(!is_ready(&node), "the Node is Ready");
    Ok(())
}

/// Waits until NHC has created so many.
async fn created(nhc: &Nhc, count: usize) -> Result<Vec<String>> {
    let found = wait::until(&format!("NHC to create {count} remediation(s)"), SOON, || async {
        let created = nhc.log().into_iter().filter_map(|(_, did)| match did {
            Did::Created(name) => Some(name),
            Did::TimedOut(_) | Did::Deleted(_) | Did::Skipped(..) => None,
        });
        let created: Vec<_> = created.collect();
        Ok((created.len() >= count).then_some(created))
    })
    .await;
    found.with_context(|| format!("it did: {:?}", nhc.log()))
}

fn far(stage: &Stage, name: &str) -> Far {
    Far::existing(&stage.client, name)
}

/// The remediations of the victim.
async fn of(stage: &Stage) -> Result<Vec<FenceAgentsRemediation>> {
    let api: Api<FenceAgentsRemediation> = Api::namespaced(stage.client.clone(), NAMESPACE);
    let all = api.list(&Default::default()).await?.items;
    Ok(all.into_iter().filter(|far| far.node_name() == stage.victim().name()).collect())
}

async fn holder(stage: &Stage) -> Result<Option<String>> {
    let api: Api<Lease> = Api::namespaced(stage.client.clone(), LEASES);
    let lease = api.get_opt(&format!("node-{}", stage.victim().name())).await?;
    Ok(lease.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity))
}

fn commands(stage: &Stage) -> Vec<Command> {
    stage.face.commands(stage.victim()).into_iter().map(|(_, command)| command).collect()
}

fn resource_of(object: &DynamicObject) -> Result<ApiResource> {
    let types = object.types.as_ref().context("apiVersion and kind")?;
    Ok(ApiResource::from_gvk(&GroupVersionKind::try_from(types)?))
}

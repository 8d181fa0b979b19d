//! Preflight: what would keep a node from being fenced is found before it has to be, and without any harm; and a power cut
//! is noticed in seconds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use ringfence::api::{FenceAgentsRemediationTemplate as Template, TemplateNode};
use ringfence::preflight::detect::POWERED_OFF;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testbed::bmc::redfish::{Certificate, Face, Fault, What};
use testbed::controlplane::Timings;
use testbed::machine::Machine;
use testbed::operator::{Operator, Settings, install};
use testbed::ports;
use testbed::wait;
use tokio::time::Instant;

use crate::stage::{Cluster, NAMESPACE, SOON, Stage, binary, is_ready, merge, play, with_kind};

/// Of the operator under test. A fault that may pass is reported after two looks.
const PERIOD: Duration = Duration::from_secs(3);
/// One period with its jitter, the writing of the status, and a loaded machine.
const FOUND: Duration = Duration::from_secs(12);
/// From a power cut to the replacement: one missed renewal (12 s), a look, NHC's second, and the release.
const ANSWERED: Duration = Duration::from_secs(20);

#[test]
fn preflight_finds_what_would_keep_a_node_from_being_fenced() {
    play(async {
        let mut cluster = Cluster::own(Timings::Default).await?;
        cluster.operator.kill().await?;
        let installed = install(&cluster.plane).await?;
        let mut settings = Settings::new(&binary(), &installed, &cluster.plane.dir().join("preflight.log"));
        settings.flags.extend([format!("--preflight-period={}s", PERIOD.as_secs()), "--detect-power-loss".to_owned()]);
        let operator = Operator::start(settings)?;
        let (faults, fifty, cut) =
            (cluster.stage("faults").await?, cluster.stage("fifty").await?, cluster.stage("cut").await?);
        let levels = cluster.stage("levels").await?;
        let found = tokio::join!(
            faults_are_found(&faults),
            one_missing_secret_spares_49(&fifty),
            later_levels_are_asked(&levels)
        );
        found.0.with_context(|| operator.tail())?;
        found.1.with_context(|| operator.tail())?;
        found.2.with_context(|| operator.tail())?;
        a_power_cut_is_answered(&cut).await.with_context(|| operator.tail())?;
        for stage in [&faults, &fifty, &cut, &levels] {
            let password = stage.face.password().expose_secret();
            ensure!(operator.lines().iter().all(|line| !line.text.contains(password)), "a password in the log");
        }
        Ok(())
    });
}

/// Each of the faults within one period; no command; one session at a time; a wrong password once.
async fn faults_are_found(stage: &Stage) -> Result<()> {
    let machines = stage.rack.machines();
    for machine in machines {
        stage.face.set_fault(machine, Some(Fault::Slow(Duration::from_millis(50))));
    }
    let (locked, foreign) =
        (Face::start(machines).await?, Face::start_with(machines, Certificate::ForeignAuthority).await?);
    let at = |port: u16| json!({"sharedparameters": {"--ipport": port.to_string()}});
    let ca = |name: &str| json!({"tls": {"caSecretName": format!("{}-{name}", stage.name)}});
    let secret = |name: &str| json!({"sharedSecretName": format!("{}-{name}", stage.name)});
    stage.secret("locked-ca", &[("ca.crt", locked.ca_pem())]).await?;
    stage.secret("foreign-ca", &[("ca.crt", foreign.ca_pem())]).await?;
    stage.secret("wrong", &[("--username", locked.username()), ("--password", "no-such-password")]).await?;
    let right = [("--username", stage.face.username()), ("--password", stage.face.password().expose_secret())];
    stage.secret("doomed", &right).await?;
    let old_pin: String = locked.spki_sha256().iter().map(|byte| format!("{byte:02x}")).collect();
    let uris = [machines[0].clone(), machines[2].clone(), machines[1].clone()].map(|m| stage.face.systems_uri(&m));
    let crossed: Value = machines.iter().zip(uris).map(|(m, uri)| (m.name().to_owned(), json!(uri))).collect();

    let begun = Instant::now();
    let well = Checks::create(stage, "well", json!("100%"), &[]).await?;
    let twin = Checks::create(stage, "twin", json!(null), &[]).await?;
    let wrong = [at(locked.port()), ca("locked-ca"), secret("wrong")];
    let refused = Checks::create(stage, "refused", json!(null), &wrong).await?;
    let again = Checks::create(stage, "again", json!(null), &wrong).await?;
    let dead = Checks::create(stage, "dead", json!(1), &[at(ports::free_port()?)]).await?;
    let untrusted = Checks::create(stage, "untrusted", json!(null), &[at(foreign.port()), ca("foreign-ca")]).await?;
    let pinned = json!({"tls": {"caSecretName": null, "pinnedSHA256": [old_pin]}});
    let changed = Checks::create(stage, "changed", json!(null), &[pinned]).await?;
    let swapped = json!({"nodeparameters": {"--systems-uri": crossed}});
    let swapped = Checks::create(stage, "swapped", json!(null), &[swapped]).await?;
    let doomed = Checks::create(stage, "doomed", json!(null), &[secret("doomed")]).await?;

    let fine = well.all("Ready").await?;
    for (node, machine) in fine.iter().zip(machines) {
        ensure!(
            node.power.as_deref() == Some("On") && node.system_uuid == Some(machine.uuid().to_string()),
            "{node:?}"
        );
        ensure!(
            node.checked_at.is_some() && node.latency.as_ref().is_some_and(|took| took.ends_with("ms")),
            "{node:?}"
        );
    }
    let template = well.conditioned("FenceAgentStatusValidationSucceeded", "True", "ValidationSucceeded").await?;
    let status = template.status.clone().unwrap_or_default();
    ensure!(status.validation_passed.len() == 3 && status.validation_passed.values().all(|said| said == "Success"));
    ensure!((status.total, status.ready, status.failed) == (3, 3, 0), "{status:?}");
    ensure!(template.annotations()["remediation.medik8s.io/multiple-templates-support"] == "true");
    well.conditioned("Ready", "True", "AllNodesReady").await?;
    twin.all("Ready").await?;
    doomed.all("Ready").await?;
    refused.all("BMCAuthFailed").await?;
    again.all("BMCAuthFailed").await?;
    dead.all("BMCUnreachable").await?;
    dead.conditioned("FenceAgentStatusValidationSucceeded", "False", "ValidationFailed").await?;
    untrusted.all("BMCCertificateUntrusted").await?;
    changed.all("BMCCertificateUntrusted").await?;
    let crossed =
        swapped.until("two crossed", |nodes| nodes.iter().filter(|n| n.reason == "WrongMachine").count() == 2);
    for node in crossed.await?.iter().filter(|node| node.reason == "WrongMachine") {
        let other = machines[1..].iter().find(|machine| machine.name() != node.name).context("no neighbour")?;
        let message = node.message.as_deref().unwrap_or_default();
        let (ours, theirs) = (stage.rack.machine(&node.name)?.uuid().to_string(), other.uuid().to_string());
        ensure!(message.contains(&ours) && message.contains(&theirs) && message.contains(other.name()), "{message}");
    }
    eprintln!("preflight: all faults of ten templates were found {:?} after the first was created", begun.elapsed());
    well.event("WrongMachine", &swapped).await?;

    // Nothing changes: nothing is written, and the wrong account is left alone.
    let version = well.get().await?.resource_version();
    let looks = stage.face.count(&machines[0], What::System);
    stage.face.wait_for(&machines[0], What::System, looks + 8, FOUND * 2).await?;
    ensure!(well.get().await?.resource_version() == version, "a status was written although nothing had changed");
    ensure!(locked.requests().len() == 1, "a wrong password was tried again: {:?}", locked.requests());

    // What is changed is noticed: the password is put right, the other Secret deleted.
    let api: Api<Secret> = Api::namespaced(stage.client.clone(), NAMESPACE);
    api.delete(&format!("{}-doomed", stage.name), &DeleteParams::default()).await?;
    let changed_at = Instant::now();
    let password = locked.password().expose_secret();
    stage.secret("wrong", &[("--username", locked.username()), ("--password", password)]).await?;
    doomed.all("SecretNotFound").await?;
    refused.all("Ready").await?;
    again.all("Ready").await?;
    eprintln!("preflight: changed Secrets were noticed within {:?}", changed_at.elapsed());
    for face in [&stage.face, &locked, &foreign] {
        ensure!(machines.iter().all(|machine| face.commands(machine).is_empty()), "a power command was sent");
        ensure!(face.most_at_once() <= 1, "{} sessions at once", face.most_at_once());
    }
    ensure!(machines.iter().all(|machine| machine.history().is_empty()));
    stage.kept().await
}

/// 50 nodes, two templates, one Secret missing: 49 are ready, and one beside the missing one is fenced.
async fn one_missing_secret_spares_49(stage: &Stage) -> Result<()> {
    let bare: Vec<_> = (4..=50).map(|number| Machine::new(&format!("{}-{number}", stage.name))).collect();
    futures::future::try_join_all(bare.iter().map(|machine| register(stage, machine))).await?;
    let machines: Vec<_> = stage.rack.machines().iter().cloned().chain(bare).collect();
    let face = Face::start(&machines).await?;
    stage.secret("all-ca", &[("ca.crt", face.ca_pem())]).await?;
    stage.secret("all", &[("--username", face.username()), ("--password", face.password().expose_secret())]).await?;
    let spec = |machines: &[Arc<Machine>], more: Value| {
        let uris: Value = machines.iter().map(|m| (m.name().to_owned(), json!(face.systems_uri(m)))).collect();
        let mut spec = stage.spec(json!({
            "sharedparameters": {"--ipport": face.port().to_string()},
            "sharedSecretName": format!("{}-all", stage.name), "tls": {"caSecretName": format!("{}-all-ca", stage.name)},
        }));
        merge(&mut spec, more);
        spec["nodeparameters"] = json!({"--systems-uri": uris});
        spec
    };
    let missing = json!({"nodeSecretNames": {machines[1].name(): "no-such-secret"}});
    let (one, two) = (spec(&machines[..25], missing), spec(&machines[25..], json!({})));
    let begun = Instant::now();
    let (one, two) = (
        Checks::create_from(stage, "one", json!(null), one).await?,
        Checks::create_from(stage, "two", json!(null), two).await?,
    );
    two.all("Ready").await?;
    let nodes = one.until("24 ready", |nodes| nodes.iter().filter(|node| node.ready).count() == 24).await?;
    ensure!(nodes.len() == 25, "{nodes:?}");
    let lacking: Vec<_> = nodes.iter().filter(|node| !node.ready).collect();
    ensure!(lacking.len() == 1 && lacking[0].name == machines[1].name(), "{lacking:?}");
    ensure!(lacking[0].reason == "SecretNotFound", "{lacking:?}");
    eprintln!("preflight: 49 of 50 nodes ready {:?} after the templates were created", begun.elapsed());
    ensure!(machines.iter().all(|machine| face.commands(machine).is_empty()), "a power command was sent");
    ensure!(face.most_at_once() <= 1, "{} sessions at once", face.most_at_once());

    stage.victim().hang();
    let template = one.get().await?;
    let far = stage.remediate(serde_json::to_value(&template.spec.template.spec)?).await?;
    stage.replacement(SOON).await?;
    far.phase("Done", SOON).await?;
    let commanded: Vec<_> = machines.iter().filter(|m| !face.commands(m).is_empty()).map(|m| m.name()).collect();
    ensure!(commanded == [stage.victim().name()], "{commanded:?}");
    stage.judged().await
}

/// A wrong password at level 2 is found, and tried once; level 1 is asked on as before, and the node is ready when all are.
async fn later_levels_are_asked(stage: &Stage) -> Result<()> {
    let machines = stage.rack.machines();
    let second = Face::start(machines).await?;
    stage.secret("second-ca", &[("ca.crt", second.ca_pem())]).await?;
    stage.secret("second", &[("--username", second.username()), ("--password", "no-such-password")]).await?;
    let uris: Value = machines.iter().map(|m| (m.name().to_owned(), json!(second.systems_uri(m)))).collect();
    let bmc = json!({
        "agent": "fence_redfish", "nodeparameters": {"--systems-uri": uris},
        "sharedparameters": {"--ip": "127.0.0.1", "--ipport": second.port().to_string()},
        "sharedSecretName": format!("{}-second", stage.name), "tls": {"caSecretName": format!("{}-second-ca", stage.name)},
    });
    let levels = json!({"levels": [{"agents": [bmc]}, {"agents": [{"agent": "fence_meatware"}]}]});
    let template = Checks::create(stage, "levels", json!("100%"), &[levels]).await?;
    for (node, machine) in template.all("BMCAuthFailed").await?.iter().zip(machines) {
        ensure!(node.message.as_deref().is_some_and(|said| said.starts_with("level 2: ")), "{node:?}");
        ensure!(
            !node.ready && node.system_uuid == Some(machine.uuid().to_string()),
            "the facts are level 1's: {node:?}"
        );
    }
    let looks = stage.face.count(&machines[0], What::System);
    stage.face.wait_for(&machines[0], What::System, looks + 3, FOUND * 2).await?;
    ensure!(second.requests().len() == 1, "a wrong password was tried again: {:?}", second.requests());

    let right = [("--username", second.username()), ("--password", second.password().expose_secret())];
    stage.secret("second", &right).await?;
    template.all("Ready").await?;
    template.conditioned("FenceAgentStatusValidationSucceeded", "True", "ValidationSucceeded").await?;
    for face in [&stage.face, &second] {
        ensure!(machines.iter().all(|machine| face.commands(machine).is_empty()), "a power command was sent");
        ensure!(face.most_at_once() <= 1, "{} sessions at once", face.most_at_once());
    }
    stage.kept().await
}

/// Power is cut; NHC's part is played with `duration: 1s`. Neither a hung node nor one whose BMC says Off falsely, while it
/// lives, is taken for powered off.
async fn a_power_cut_is_answered(stage: &Stage) -> Result<()> {
    let [_, lied, hung] = stage.rack.machines() else { anyhow::bail!("not three machines") };
    let template = Checks::create(stage, "cut", json!(null), &[]).await?;
    template.all("Ready").await?;
    stage.face.set_fault(lied, Some(Fault::HearsayOff));
    template
        .until("Off of the node that lives", |nodes| {
            nodes.iter().any(|node| node.name == lied.name() && node.power.as_deref() == Some("Off"))
        })
        .await?;
    // Nothing would start there, and it takes Kubernetes 50 s to know.
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    Api::<Node>::all(stage.client.clone()).patch(hung.name(), &PatchParams::default(), &cordon).await?;
    hung.hang();
    let cut = Instant::now();
    stage.victim().set_power(false, "power cut");
    marked(stage, stage.victim(), true, SOON).await?;
    let noticed = cut.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await; // NHC's `duration: 1s`
    let far = stage.remediate(json!({})).await?;
    stage.replacement(SOON).await?;
    let replaced = cut.elapsed();
    eprintln!("power cut: noticed after {noticed:?}, replacement Running after {replaced:?}");
    ensure!(replaced <= ANSWERED, "the replacement runs {replaced:?} after the cut, noticed after {noticed:?}");
    for (machine, why) in [(lied, "renews its Lease"), (hung, "has power")] {
        ensure!(!is_marked(&stage.node(machine).await?), "{} {why}, and was taken for powered off", machine.name());
    }
    far.phase("Done", SOON).await?;
    marked(stage, stage.victim(), false, SOON).await?;
    wait::until("the victim to be back", SOON, || async {
        Ok(is_ready(&stage.node(stage.victim()).await?).then_some(()))
    })
    .await?;
    stage.judged().await
}

/// A template of a test's, and what preflight says of it.
struct Checks {
    api: Api<Template>,
    name: String,
}

impl Checks {
    /// One that is for all machines of the stage, with changes.
    async fn create(stage: &Stage, name: &str, sample: Value, changes: &[Value]) -> Result<Self> {
        let mut spec = stage.spec(json!({}));
        changes.iter().for_each(|change| merge(&mut spec, change.clone()));
        Self::create_from(stage, name, sample, spec).await
    }

    async fn create_from(stage: &Stage, name: &str, sample: Value, spec: Value) -> Result<Self> {
        let name = format!("{}-{name}", stage.name);
        let mut spec = json!({"template": {"spec": spec}});
        merge(&mut spec, json!({ "statusValidationSample": sample }));
        let object = with_kind(
            "fence-agents-remediation.medik8s.io/v1alpha1",
            "FenceAgentsRemediationTemplate",
            json!({"metadata": {"name": name}, "spec": spec}),
        );
        let api: Api<Template> = Api::namespaced(stage.client.clone(), NAMESPACE);
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(Self { api, name })
    }

    async fn get(&self) -> Result<Template> {
        Ok(self.api.get(&self.name).await?)
    }

    /// Waits until its nodes are as `is` wants, and returns them by name.
    async fn until(&self, what: &str, is: impl Fn(&[TemplateNode]) -> bool) -> Result<Vec<TemplateNode>> {
        let wanted = format!("template {}: {what}", self.name);
        let found = wait::until(&wanted, FOUND, || async {
            let mut nodes = self.get().await?.status.unwrap_or_default().nodes;
            nodes.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(Some(nodes).filter(|nodes| is(nodes)))
        });
        match found.await {
            Ok(nodes) => Ok(nodes),
            Err(error) => Err(error.context(serde_json::to_string(&self.get().await?.status)?)),
        }
    }

    /// Waits until there is this to say of all nodes that it names.
    async fn all(&self, reason: &str) -> Result<Vec<TemplateNode>> {
        let spec = self.get().await?.spec.template.spec;
        let count = spec.node_parameters.0.values().map(|nodes| nodes.len()).max().unwrap_or_default();
        let is = |nodes: &[TemplateNode]| nodes.len() == count && nodes.iter().all(|node| node.reason == reason);
        self.until(&format!("{reason} for all nodes"), is).await
    }

    async fn conditioned(&self, type_: &str, status: &str, reason: &str) -> Result<Template> {
        wait::until(&format!("template {}: {type_}={status}, {reason}", self.name), FOUND, || async {
            let template = self.get().await?;
            let conditions = template.status.clone().unwrap_or_default().conditions;
            let is = conditions.iter().any(|c| c.type_ == type_ && c.status == status && c.reason == reason);
            Ok(is.then_some(template))
        })
        .await
    }

    /// Waits for an event about `other`, and sees that there is no such about this one.
    async fn event(&self, reason: &str, other: &Self) -> Result<()> {
        let api: Api<Event> = Api::namespaced(self.api.clone().into_client(), NAMESPACE);
        let of = |name: &str| ListParams::default().fields(&format!("regarding.name={name}"));
        wait::until(&format!("an event {reason} about {}", other.name), SOON, || async {
            let events = api.list(&of(&other.name)).await?.items;
            Ok(events.iter().any(|event| event.reason.as_deref() == Some(reason)).then_some(()))
        })
        .await?;
        let own = api.list(&of(&self.name)).await?.items;
        ensure!(own.is_empty(), "an event about a template where all is well: {own:?}");
        Ok(())
    }
}

/// A Node without a kubelet.
async fn register(stage: &Stage, machine: &Machine) -> Result<()> {
    let api: Api<Node> = Api::all(stage.client.clone());
    let node = with_kind("v1", "Node", json!({"metadata": {"name": machine.name()}}));
    api.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    let info = json!({
        "systemUUID": machine.uuid().to_string(), "bootID": machine.state().boot_id.to_string(), "machineID": "",
        "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "",
        "operatingSystem": "linux", "architecture": "amd64",
    });
    let status = Patch::Merge(json!({"status": {"nodeInfo": info}}));
    api.patch_status(machine.name(), &PatchParams::default(), &status).await?;
    Ok(())
}

fn is_marked(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == POWERED_OFF && condition.status == "True")
}

async fn marked(stage: &Stage, machine: &Machine, is: bool, within: Duration) -> Result<()> {
    wait::until(&format!("{POWERED_OFF} of {} to be {is}", machine.name()), within, || async {
        Ok((is_marked(&stage.node(machine).await?) == is).then_some(()))
    })
    .await
}

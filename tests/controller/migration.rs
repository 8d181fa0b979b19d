//! `docs/migration.md`, as a new user would follow it: its own commands, from the real FAR 0.8.0 to Ringfence and back, with
//! remediations in flight and what older FARs leave behind.
//!
//! No container runs here: when a command scales a Deployment, the test starts or ends the process that it stands for, and
//! answers `kubectl logs` from that process' log.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use ringfence::api::FenceAgentsRemediation;
use serde_json::{Value, json};
use testbed::bmc::redfish::Fault;
use testbed::machine::Machine;
use testbed::operator::{self, Operator};
use testbed::setup;
use testbed::upstream::{self, NAMESPACE};
use testbed::wait;
use tokio::process::Command;

use crate::site::Site;
use crate::stage::{SHORT, SOON, binary, condition, message, phase_of, play, taint_keys};

const PAGE: &str = include_str!("../../docs/migration.md");
const OLD_TAINT: &str = "medik8s.io/fence-agents-remediation";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The page's blocks, in order.
struct Page<'a> {
    site: &'a Site,
    blocks: std::vec::IntoIter<&'static str>,
    kubectl: PathBuf,
    variables: &'static str,
}

impl<'a> Page<'a> {
    async fn new(site: &'a Site) -> Result<Self> {
        let blocks: Vec<_> = PAGE.split("```sh\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
        let mut blocks = blocks.into_iter();
        let variables = blocks.next().context("the page begins with its variables")?;
        Ok(Self { site, blocks, kubectl: setup::kubectl().await?, variables })
    }

    /// Runs the next block, which must be the one that holds `what`.
    async fn run(&mut self, what: &str) -> Result<String> {
        let block = self.blocks.next().with_context(|| format!("the page has no block {what} any more"))?;
        ensure!(block.contains(what), "the next block of the page is not about {what}:\n{block}");
        self.sh(block).await.with_context(|| format!("running\n{block}"))
    }

    async fn sh(&self, commands: &str) -> Result<String> {
        // No kubelet serves logs here.
        let logs = r#"kubectl() { case " $* " in *" logs "*) cat "$SHADOW_LOG";; *) command kubectl "$@";; esac; }"#;
        let path = self.kubectl.parent().context("a program without a folder")?;
        let ran = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &format!("{logs}\n{}{commands}", self.variables)])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PATH", format!("{}:{}", path.display(), std::env::var("PATH").unwrap_or_default()))
            .env("KUBECONFIG", self.site.plane.admin_kubeconfig())
            .env("SHADOW_LOG", self.site.plane.dir().join("shadow.log"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let ran = tokio::time::timeout(SOON * 2, ran).await.context("it does not end")??;
        let (out, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        ensure!(ran.status.success(), "{}:\n{out}{error}", ran.status);
        Ok(format!("{out}{error}"))
    }
}

#[test]
fn the_page_leads_from_far_to_ringfence_and_back() {
    play(async {
        let site = &Site::new("migration", 8).await?;
        let mut page = Page::new(site).await?;
        let far = site.far().await?;
        let machines = site.rack.machines();
        // The last two are for both operators' pods: all others carry taints.
        let [honest, hanging, lied, succeeded, old, stray, _, _] = machines else { anyhow::bail!("eight machines") };

        // Watch first.
        page.run("apply -k deploy/shadow").await?;
        let shadow = site.shadow().await?;
        shadow.says("in the shadow", SOON).await?;
        site.remediate(honest, honest, json!({"timeout": SHORT, "sharedparameters": {"--action": "off"}})).await?;
        site.far_says(honest, "True").await?;
        shadow.says(r#""finding":"success""#, SOON).await?;
        let said = page.run("logs deployment/ringfence-shadow").await?;
        ensure!(said.contains(r#""finding":"plan""#) && said.contains(honest.name()), "{said}");

        // FAR is stopped in the midst of its work.
        site.face.set_fault(hanging, Some(Fault::Hang));
        site.remediate(hanging, hanging, json!({"timeout": SHORT})).await?;
        until(site, hanging, "under way", |far| condition(far, "FenceAgentActionSucceeded").0 == "Unknown").await?;
        let lie = json!({"retrycount": -1, "timeout": SHORT, "remediationStrategy": "OutOfServiceTaint"});
        site.remediate(lied, lied, lie).await?;
        site.far_says(lied, "True").await?;
        ensure!(taint_keys(&node(site, lied).await?).iter().any(|key| key == OUT_OF_SERVICE), "FAR's taint");
        far.kill().await?;
        page.run("scale deployment").await?;
        let blocked = page.sh(&format!("kubectl -n $FAR annotate far {} a=b", hanging.name())).await;
        ensure!(blocked.is_err_and(|error| format!("{error:#}").contains("webhook")), "they refuse without FAR");
        page.run("delete validatingwebhookconfiguration").await?;
        left_behind(site, succeeded, old, hanging, stray).await?;

        page.run("kubectl kustomize deploy").await?;
        site.face.set_fault(hanging, None);
        let kubeconfig = site.plane.service_account_kubeconfig(NAMESPACE, "ringfence").await?;
        let installed = operator::Installed { namespace: NAMESPACE.to_owned(), kubeconfig };
        let log = site.plane.dir().join("operator.log");
        let mut ours = Operator::start(operator::Settings::new(&binary(), &installed, &log))?;
        taken_over(site, hanging, lied, succeeded).await?;
        swept(site, old, hanging, stray).await?;
        let events = page.run("reason=OldTaintRemoved").await?;
        ensure!(events.contains(old.name()) && events.contains(stray.name()), "{events}");
        page.run("delete -k deploy/shadow").await?;
        drop(shadow);

        // The others end; one is left for FAR to clean up after.
        for machine in [honest, hanging, lied] {
            site.delete(machine).await?;
        }
        for machine in [honest, hanging, lied] {
            gone(site, machine).await?;
        }
        wait::until("the old taint to go with the remediation", SOON, || async {
            Ok((!taint_keys(&node(site, hanging).await?).iter().any(|key| key == OLD_TAINT)).then_some(()))
        })
        .await?;

        // Back.
        let listed = page.run("scale deployment ringfence").await?;
        ensure!(listed.contains("Done"), "{listed}");
        ours.stop(SOON).await?;
        page.run("delete deployment,serviceaccount").await?;
        let again = upstream::install(&site.plane).await?;
        page.run("--replicas=2").await?;
        let far = upstream::Upstream::start(&again, &site.plane.dir().join("again.log")).await?;
        site.delete(succeeded).await?;
        gone(site, succeeded).await?;
        let keys = taint_keys(&node(site, succeeded).await?);
        ensure!(!keys.iter().any(|key| key.contains("medik8s") || key.contains("ringfence")), "{keys:?}");
        site.remediate(succeeded, succeeded, json!({"sharedparameters": {"--action": "off"}})).await?;
        site.far_says(succeeded, "True").await?;
        ensure!(!succeeded.state().on, "FAR fences again");
        far.kill().await?;
        ensure!(page.blocks.next().is_none(), "the page has blocks that nobody runs");
        Ok(())
    });
}

/// By hand: what FAR up to 0.7, or a FAR that was stopped at a worse moment, leaves behind (far-contract, section 3).
async fn left_behind(
    site: &Site,
    succeeded: &Machine,
    old: &Machine,
    hanging: &Machine,
    stray: &Machine,
) -> Result<()> {
    let far =
        site.remediate(succeeded, succeeded, json!({"timeout": SHORT, "remediationStrategy": "OutOfServiceTaint"}));
    let mut far = far.await?;
    far.metadata.finalizers = Some(vec!["fence-agents-remediation.medik8s.io/far-finalizer".to_owned()]);
    let mut far = site.api().replace(succeeded.name(), &PostParams::default(), &far).await?;
    let condition = |type_: &str, status: &str, reason: &str| json!({"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": Timestamp::now()});
    let status = json!({"conditions": [
        condition("Processing", "True", "RemediationStarted"),
        condition("FenceAgentActionSucceeded", "True", "FenceAgentSucceeded"),
        condition("Succeeded", "Unknown", "RemediationStarted"),
    ], "lastUpdateTime": Timestamp::now()});
    far.status = Some(serde_json::from_value(status)?);
    site.api().replace_status(succeeded.name(), &PostParams::default(), &far).await?;
    taint(site, succeeded, json!({"key": "remediation.medik8s.io/fence-agents-remediation", "effect": "NoSchedule"}))
        .await?;
    for machine in [succeeded, stray] {
        taint(site, machine, json!({"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"})).await?;
    }
    for machine in [old, hanging] {
        taint(site, machine, json!({"key": OLD_TAINT, "effect": "NoExecute"})).await?;
    }
    Ok(())
}

/// FAR's word is no proof: what it had not finished is fenced anew, and only then released.
async fn taken_over(site: &Site, hanging: &Machine, lied: &Machine, succeeded: &Machine) -> Result<()> {
    for machine in [hanging, succeeded] {
        let done = until(site, machine, "Done", |far| phase_of(far) == "Done").await?;
        ensure!(condition(&done, "Succeeded").0 == "True", "{:?}", done.status);
        ensure!(done.status.as_ref().is_some_and(|status| status.proof.is_some()), "{:?}", done.status);
        let power: Vec<_> = machine.history().iter().map(|change| change.on).collect();
        ensure!(power == [false, true], "{}: {power:?}", machine.name());
    }
    let left = until(site, lied, "left as it is", |far| phase_of(far) == "Done").await?;
    ensure!(message(&left).contains("another operator"), "{}", message(&left));
    ensure!(
        lied.history().is_empty() && site.face.commands(lied).is_empty(),
        "what FAR has finished is not begun again"
    );
    for machine in [lied, succeeded] {
        wait::until(&format!("FAR's out-of-service taint to leave {}", machine.name()), SOON, || async {
            Ok((!taint_keys(&node(site, machine).await?).iter().any(|key| key == OUT_OF_SERVICE)).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn swept(site: &Site, old: &Machine, hanging: &Machine, stray: &Machine) -> Result<()> {
    wait::until("the old taint to go where no remediation is", SOON, || async {
        Ok((!taint_keys(&node(site, old).await?).iter().any(|key| key == OLD_TAINT)).then_some(()))
    })
    .await?;
    let kept = |keys: Vec<String>, key: &str| keys.iter().any(|found| found == key);
    ensure!(kept(taint_keys(&node(site, hanging).await?), OLD_TAINT), "as long as there is a remediation");
    ensure!(kept(taint_keys(&node(site, stray).await?), OUT_OF_SERVICE), "it may be an administrator's");
    let events: Api<Event> = Api::all(site.plane.client());
    for (machine, reason) in [(old, "OldTaintRemoved"), (hanging, "OldTaintFound"), (stray, "OutOfServiceThoughReady")]
    {
        wait::until(&format!("an event {reason} about {}", machine.name()), SOON, || async {
            let about = ListParams::default().fields(&format!("reason={reason},regarding.name={}", machine.name()));
            Ok((!events.list(&about).await?.items.is_empty()).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn until(
    site: &Site,
    machine: &Machine,
    what: &str,
    is: impl Fn(&FenceAgentsRemediation) -> bool,
) -> Result<FenceAgentsRemediation> {
    wait::until(&format!("the remediation of {} to be {what}", machine.name()), SOON * 2, || async {
        Ok(Some(site.api().get(machine.name()).await?).filter(&is))
    })
    .await
}

async fn gone(site: &Site, machine: &Machine) -> Result<()> {
    wait::until(&format!("the remediation of {} to be gone", machine.name()), SOON * 2, || async {
        Ok(site.api().get_opt(machine.name()).await?.is_none().then_some(()))
    })
    .await
}

async fn node(site: &Site, machine: &Machine) -> Result<Node> {
    Ok(Api::<Node>::all(site.plane.client()).get(machine.name()).await?)
}

async fn taint(site: &Site, machine: &Machine, taint: Value) -> Result<()> {
    let nodes = Api::<Node>::all(site.plane.client());
    wait::until("a taint to be put on", SOON, || async {
        let node = nodes.get(machine.name()).await?;
        let mut taints = serde_json::to_value(node.spec.and_then(|spec| spec.taints).unwrap_or_default())?;
        taints.as_array_mut().context("a list")?.push(taint.clone());
        let patch =
            json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
        nodes.patch(machine.name(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(Some(()))
    })
    .await
}

//! The ways to a device: scripts (a stand-in's, and upstream's own), and IPMI. Each fences a hung node; a script's word is
//! bound by a witness.

use anyhow::{Context, Result, ensure};
use ringfence::api::{Driver, FenceAgentsRemediation};
use secrecy::ExposeSecret;
use serde_json::json;
use testbed::bmc::ipmi;
use testbed::bmc::outlets::{Misbehaviour, Outlets};
use testbed::controlplane::Timings;
use testbed::operator::{Operator, Settings, install};
use testbed::rack::Layout;

use crate::stage::{Cluster, SOON, Stage, binary, message, play};

/// Scope and P2: the operator runs whatever lies in its `--agent-dir`.
#[test]
fn a_script_fences_with_a_witness() {
    play(async {
        let mut cluster = Cluster::own(Timings::Default).await?;
        let layout = Layout::workers("script", 3);
        let upstream = Stage::new(&cluster.plane, Layout::workers("upstream", 3)).await?;
        let stage = Stage::new(&cluster.plane, layout).await?;
        let outlets = Outlets::start(stage.rack.machines()).await?;
        std::os::unix::fs::symlink("/usr/sbin/fence_redfish", outlets.agent_dir().join("fence_redfish"))?;
        cluster.operator.kill().await?;
        let installed = install(&cluster.plane).await?;
        let mut settings = Settings::new(&binary(), &installed, &cluster.plane.dir().join("scripts.log"));
        settings.flags.push(format!("--agent-dir={}", outlets.agent_dir().display()));
        let operator = Operator::start(settings)?;

        let password = outlets.password().expose_secret();
        stage.secret("outlets", &[("--username", outlets.username()), ("--password", password)]).await?;
        refused(&stage, &outlets).await?;
        let (stub, redfish) = tokio::join!(stub(&stage, &outlets), upstreams(&upstream));
        stub.with_context(|| operator.tail())?;
        redfish.with_context(|| operator.tail())?;
        for secret in [password, upstream.face.password().expose_secret()] {
            ensure!(operator.lines().iter().all(|line| !line.text.contains(secret)), "a secret in the log");
        }
        ensure!(outlets.processes().is_empty(), "left behind: {:?}", outlets.processes());
        Ok(())
    });
}

/// A plug that does not exist reads OFF with some PDUs (16): it was never ON, so that is no proof.
async fn refused(stage: &Stage, outlets: &Outlets) -> Result<()> {
    outlets.set_misbehaviour(Some(Misbehaviour::AnyPlugIsOff));
    let node = stage.rack.machines()[2].name();
    let far = stage.remediate_node(node, outlets_spec(stage, outlets, (node, "no-such-plug"), "10s")).await?;
    let halted = far.phase("Halted", SOON).await?;
    ensure!(halted.status.and_then(|status| status.proof).is_none());
    ensure!(!outlets.commands().is_empty(), "it was not even tried");
    outlets.set_misbehaviour(None);
    stage.kept().await
}

async fn stub(stage: &Stage, outlets: &Outlets) -> Result<()> {
    stage.victim().hang();
    let victim = stage.victim().name();
    let far = stage.remediate(outlets_spec(stage, outlets, (victim, victim), "30s")).await?;
    stage.replacement(SOON * 2).await?;
    let done = far.phase("Done", SOON * 2).await?;
    let order = done.status.as_ref().and_then(|status| status.operation.as_ref()).and_then(|op| op.order.as_ref());
    let order = order.context("no order")?;
    ensure!(order.address == outlets.address().to_string() && order.plug.as_deref() == Some(victim));
    is_proven(&done, Driver::Script, "Witness")?;
    ensure!(!serde_json::to_string(&done)?.contains(outlets.password().expose_secret()), "a secret in the object");
    ensure!(stage.victim().history().iter().map(|change| change.on).collect::<Vec<_>>() == [false, true]);
    stage.judged().await
}

async fn upstreams(stage: &Stage) -> Result<()> {
    stage.victim().hang();
    let changes = json!({
        "driver": "Script", "timeout": "30s", "tls": null,
        "sharedparameters": {"--ssl-insecure": "1", "--power-timeout": "5"},
    });
    let far = stage.remediate(changes).await?;
    stage.replacement(SOON * 2).await?;
    let done = far.phase("Done", SOON * 2).await?;
    is_proven(&done, Driver::Script, "Witness")?;
    stage.judged().await
}

/// IPMI 2.0, under the name that upstream has for it; the machine's own UUID binds it.
#[test]
fn native_ipmi_fences() {
    play(async {
        let stage = Cluster::shared().await?.stage("ipmi").await?;
        let face = ipmi::Face::start(stage.rack.machines()).await?;
        let password = face.password().expose_secret();
        stage.secret("ipmi", &[("--username", face.username()), ("--password", password)]).await?;
        let ports: serde_json::Value = stage
            .rack
            .machines()
            .iter()
            .map(|machine| (machine.name().to_owned(), json!(face.port(machine).to_string())))
            .collect();
        let changes = |lanplus: &str| {
            json!({
                "agent": "fence_ipmilan", "tls": null, "sharedSecretName": format!("{}-ipmi", stage.name),
                "sharedparameters": {"--ipport": null, "--lanplus": lanplus},
                "nodeparameters": {"--systems-uri": null, "--ipport": ports},
            })
        };
        stage.victim().hang();
        let far = stage.remediate(changes("0")).await?;
        let halted = far.halted("False", "RefusedParameter", SOON).await?;
        ensure!(message(&halted).contains("driver: Script"), "{}", message(&halted));
        far.edit(json!({"sharedparameters": {"--lanplus": "1"}})).await?;
        stage.replacement(SOON).await?;
        let done = far.phase("Done", SOON).await?;
        is_proven(&done, Driver::Native, "Identity")?;
        ensure!(stage.victim().history().iter().map(|change| change.on).collect::<Vec<_>>() == [false, true]);
        face.wait_idle(SOON).await?;
        stage.judged().await
    });
}

fn outlets_spec(stage: &Stage, outlets: &Outlets, (node, plug): (&str, &str), timeout: &str) -> serde_json::Value {
    json!({
        "agent": "fence_stub", "timeout": timeout, "tls": null, "sharedSecretName": format!("{}-outlets", stage.name),
        "sharedparameters": {"--ip": "127.0.0.1", "--ipport": outlets.address().port().to_string()},
        "nodeparameters": {"--systems-uri": null, "--plug": {node: plug}},
    })
}

fn is_proven(far: &FenceAgentsRemediation, driver: Driver, binding: &str) -> Result<()> {
    let proof = far.status.as_ref().and_then(|status| status.proof.clone()).context("no proof in status")?;
    ensure!(proof.kind == "PowerOff" && proof.driver == Some(driver), "{proof:?}");
    ensure!(proof.binding.as_deref() == Some(binding), "{proof:?}");
    let word = match driver {
        Driver::Native => "(native)",
        Driver::Script => "(script)",
        Driver::Person => "(a person)",
    };
    let timeline = far.status.as_ref().map(|status| status.timeline.as_slice()).unwrap_or_default();
    ensure!(timeline.iter().any(|entry| entry.message.contains(word)), "which driver acted: {timeline:?}");
    Ok(())
}

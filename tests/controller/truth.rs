//! A BMC that lies, is silent or dies: nothing is released, and the remediation says why.

use std::time::Duration;

use agents::Command;
use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use testbed::bmc::redfish::{Fault, What};
use testbed::controlplane::Timings;

use crate::stage::{Cluster, SOON, Stage, condition, message, play, with_kind};

/// P1: 204, and nothing happens.
#[test]
fn an_off_that_does_nothing_releases_nothing() {
    play(async {
        let stage = Cluster::shared().await?.stage("truth-lie").await?;
        stage.face.set_fault(stage.victim(), Some(Fault::LieOff));
        stage.victim().hang();
        let far = stage.remediate(json!({})).await?;
        let halted = far.halted("False", "NotProven", SOON).await?;
        ensure!(message(&halted).contains("On"), "says what it read: {}", message(&halted));
        ensure!(stage.face.count(stage.victim(), What::Reset(Command::Off)) == 2, "each of its attempts was made");
        stage.kept().await
    });
}

/// I2: Off, without having been told, of a machine that runs; and the off is refused as "already off", or answered and
/// ignored.
#[test]
fn an_off_that_nobody_ordered_releases_nothing() {
    play(async {
        for (name, fault) in [("refuses", Fault::AlreadyOffRefusal), ("conflict", Fault::Conflict)] {
            let stage = Cluster::shared().await?.stage(&format!("truth-hearsay-{name}")).await?;
            stage.face.set_faults(stage.victim(), [Fault::HearsayOff, fault]);
            stage.victim().hang();
            let far = stage.remediate(json!({})).await?;
            let halted = far.halted("False", "OffNotAccepted", SOON).await?;
            ensure!(message(&halted).contains("Off"), "says what it read: {}", message(&halted));
            stage.kept().await?;
        }
        Ok(())
    });
}

/// P1, openbmc#2224: a product known to derive System power from something else; its chassis knows better.
#[test]
fn an_openbmc_off_needs_its_chassis() {
    play(async {
        let stage = Cluster::shared().await?.stage("truth-openbmc").await?;
        stage.face.set_faults(stage.victim(), [Fault::OpenBmc, Fault::HearsayOff, Fault::LieOff]);
        stage.victim().hang();
        let far = stage.remediate(json!({})).await?;
        far.halted("False", "NotProven", SOON).await?;
        stage.kept().await
    });
}

/// I3, Live: a BMC that is dead from the start ends in Halted, not in Isolating for ever; and when it comes back, the
/// remediation goes on by itself.
#[test]
fn a_dead_bmc_halts_and_one_that_comes_back_is_heard() {
    play(async {
        let stage = Cluster::shared().await?.stage("truth-dead").await?;
        stage.face.set_fault(stage.victim(), Some(Fault::Dead));
        stage.victim().hang();
        let far = stage.remediate(json!({})).await?;
        let halted = far.until("Halted", SOON, |far| crate::stage::phase_of(far) == "Halted").await?;
        ensure!(condition(&halted, "Succeeded").0 == "False", "{:?}", halted.status);
        stage.kept().await?;
        stage.face.set_fault(stage.victim(), None);
        stage.replacement(SOON).await?;
        let done = far.phase("Done", SOON).await?;
        ensure!(condition(&done, "Succeeded").0 == "True", "{:?}", done.status);
        stage.judged().await
    });
}

/// R6: it dies with the node, after the off was carried out and before anything could be read.
#[test]
fn a_bmc_that_dies_with_the_node_releases_nothing() {
    play(async {
        let stage = Cluster::shared().await?.stage("truth-dies").await?;
        stage.face.set_fault(stage.victim(), Some(Fault::DiesWithNode));
        stage.victim().hang();
        let far = stage.remediate(json!({})).await?;
        let halted = far.until("Halted", SOON, |far| crate::stage::phase_of(far) == "Halted").await?;
        ensure!(condition(&halted, "Succeeded").0 == "False", "{:?}", halted.status);
        ensure!(!stage.victim().state().on, "the off was carried out");
        stage.kept().await
    });
}

/// P2: whatever a BMC says of another machine is no proof, and nothing is sent to it.
#[test]
fn another_machines_bmc_gets_no_command() {
    play(async {
        let stage = Cluster::shared().await?.stage("truth-other").await?;
        stage.victim().hang();
        let neighbour = stage.rack.machines()[1].clone();
        let uri = stage.face.systems_uri(&neighbour);
        let crossed = json!({"nodeparameters": {"--systems-uri": {stage.victim().name(): uri}}});
        let far = stage.remediate(crossed).await?;
        let halted = far.halted("False", "WrongMachine", SOON).await?;
        let uuid = neighbour.uuid().to_string();
        ensure!(message(&halted).contains(&uuid), "says what it found: {}", message(&halted));
        ensure!(stage.face.commands(&neighbour).is_empty(), "a healthy machine was commanded");
        stage.kept().await
    });
}

/// P2: the addresses of two nodes' BMCs are swapped. Whichever is to be fenced, neither machine is switched, and each says
/// what was expected and what was found.
#[test]
fn swapped_addresses_switch_neither_machine() {
    play(async {
        let stage = Cluster::shared().await?.stage("truth-swapped").await?;
        let [one, other, _] = stage.rack.machines() else { anyhow::bail!("three machines") };
        let (first, second) = (stage.face.systems_uri(one), stage.face.systems_uri(other));
        let swapped = json!({"nodeparameters": {"--systems-uri": {one.name(): second, other.name(): first}}});
        one.hang();
        other.hang();
        let fars = [stage.remediate(swapped.clone()).await?, stage.remediate_node(other.name(), swapped).await?];
        for (far, expected, found) in [(&fars[0], one, other), (&fars[1], other, one)] {
            let halted = far.halted("False", "WrongMachine", SOON).await?;
            let said = format!("expected system UUID {}, found {}", expected.uuid(), found.uuid());
            ensure!(message(&halted).contains(&said), "{}", message(&halted));
        }
        for machine in [one, other] {
            ensure!(stage.face.commands(machine).is_empty() && machine.history().is_empty(), "{}", machine.name());
        }
        stage.kept().await
    });
}

/// P2, P3: no identity, but read On before our off and Off after it: a witness binds it, one renewal later.
#[test]
fn a_witness_binds_a_bmc_without_identity() {
    play(async {
        let stage = Cluster::shared().await?.stage("truth-witness").await?;
        stage.face.set_fault(stage.victim(), Some(Fault::NoIdentity));
        stage.victim().hang();
        let far = stage.remediate(json!({"timeout": "30s"})).await?;
        let done = far.phase("Done", SOON * 2).await?;
        let proof = done.status.and_then(|status| status.proof).unwrap_or_default();
        ensure!(proof.binding.as_deref() == Some("Witness"), "{proof:?}");
        stage.judged().await
    });
}

/// P2: boards that were all given one UUID: whichever of them the BMC is, it names neither.
#[test]
fn a_uuid_that_two_nodes_share_is_no_identity() {
    play(async {
        let stage = Cluster::shared().await?.stage("truth-twin").await?;
        let nodes: Api<Node> = Api::all(stage.client.clone());
        let twin = with_kind("v1", "Node", json!({"metadata": {"name": "truth-twin-other"}}));
        nodes.create(&PostParams::default(), &serde_json::from_value(twin)?).await?;
        let victim = stage.node(stage.victim()).await?;
        let status = json!({"status": {"nodeInfo": victim.status.and_then(|status| status.node_info)}});
        nodes.patch_status("truth-twin-other", &PatchParams::default(), &Patch::Merge(status)).await?;
        stage.victim().hang();
        let far = stage.remediate(json!({"timeout": "30s"})).await?;
        let done = far.phase("Done", SOON * 2).await?;
        let proof = done.status.and_then(|status| status.proof).unwrap_or_default();
        ensure!(proof.binding.as_deref() == Some("Witness"), "{proof:?}");
        nodes.delete("truth-twin-other", &DeleteParams::default()).await?;
        stage.judged().await
    });
}

/// P3: with no identity to go by, the wrong outlet reads On, then Off; but the node goes on renewing its Lease. Neither a
/// restart of the operator, which forgets what it has heard, nor time makes that a proof.
#[test]
fn a_wrong_outlet_of_a_living_node_proves_nothing() {
    play(async {
        let mut cluster = Cluster::own(Timings::Default).await?;
        let stage = cluster.stage("truth-outlet").await?;
        let neighbour = stage.rack.machines()[1].clone();
        stage.face.set_fault(&neighbour, Some(Fault::NoIdentity));
        let uri = stage.face.systems_uri(&neighbour);
        let crossed = json!({"timeout": "10s", "retrycount": 1, "nodeparameters": {"--systems-uri": {stage.victim().name(): uri}}});
        let far = stage.remediate(crossed).await?;
        far.phase("Proving", SOON).await?;
        let off = neighbour.history().first().map(|change| change.at);
        for pause in [16, 8] {
            // The moment after one missed renewal, seen from the off; then any other.
            let until = off.unwrap_or_default() + jiff::SignedDuration::from_secs(pause);
            testbed::wait::until("time to pass", SOON, || async { Ok((jiff::Timestamp::now() > until).then_some(())) })
                .await?;
            cluster.operator.restart().await?;
        }
        let halted = far.halted("False", "Contradicted", SOON * 3).await?;
        let said = format!("{} has shown life since: is this its machine?", stage.victim().name());
        ensure!(message(&halted).contains(&said), "{}", message(&halted));
        stage.kept().await
    });
}

/// I1, P1: slow, transitional, late, lost and unruly answers end in a proof all the same.
#[test]
fn a_clumsy_bmc_is_understood() {
    play(async {
        let faults = [
            ("powering-off", Fault::PoweringOff(Duration::from_millis(1500))),
            ("late", Fault::Late(Duration::from_millis(1500))),
            ("refuses-once", Fault::Refuse { status: 400, times: Some(1) }),
            ("slow", Fault::Slow(Duration::from_millis(300))),
        ];
        for (name, fault) in faults {
            let stage = Cluster::shared().await?.stage(&format!("clumsy-{name}")).await?;
            stage.face.set_fault(stage.victim(), Some(fault));
            stage.victim().hang();
            let far = stage.remediate(json!({"timeout": "10s"})).await?;
            fenced(&stage).await?;
            far.phase("Done", SOON).await?;
            stage.judged().await?;
        }
        Ok(())
    });
}

/// R6, S1: somebody else owns the power button: never two writers, and an honest end.
#[test]
fn a_power_owner_ends_the_war_in_halted() {
    play(async {
        let stage = Cluster::shared().await?.stage("truth-owner").await?;
        stage.face.set_fault(stage.victim(), Some(Fault::PowerOwner(Duration::from_millis(200))));
        stage.victim().hang();
        let far = stage.remediate(json!({})).await?;
        far.halted("False", "NotProven", SOON).await?;
        stage.kept().await
    });
}

/// The same with an owner who takes 3 s each time, and a release that takes longer: what was proven off is on again in the
/// middle of it, the barrier comes down, and each time costs an attempt.
#[test]
fn a_slow_power_owner_ends_the_war_in_halted() {
    play(async {
        let stage = Cluster::shared().await?.stage("truth-slow-owner").await?;
        stage.face.set_fault(stage.victim(), Some(Fault::PowerOwner(Duration::from_secs(3))));
        stage.rack.attacher().hold();
        stage.victim().hang();
        let far = stage.remediate(json!({"timeout": "10s"})).await?;
        let halted = far.halted("False", "NotProven", SOON).await?;
        let said = message(&halted);
        ensure!(said.contains("2 attempts") && said.contains("On"), "says what it read: {said}");
        let power: Vec<_> = stage.victim().history().iter().map(|change| (change.on, change.by.clone())).collect();
        ensure!(power.iter().filter(|(on, _)| !on).count() == 2, "one off for each attempt: {power:?}");
        let barred = |node: &k8s_openapi::api::core::v1::Node| {
            let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
            taints.iter().any(|taint| taint.effect == "NoExecute" && taint.key.contains("ringfence"))
        };
        ensure!(!barred(&stage.node(stage.victim()).await?), "S1: the barrier stands on a node that runs");
        stage.rack.attacher().release();
        stage.judged().await
    });
}

async fn fenced(stage: &Stage) -> Result<()> {
    stage.replacement(SOON).await?;
    Ok(())
}

//! Four ways of leaving: deleted, timed out, the Node gone, and the operator stopped (that one is in `lead` and `crash`).

use agents::Command;
use anyhow::ensure;
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use testbed::bmc::redfish::Fault;
use testbed::wait;

use crate::held::{ALL, Held};
use crate::stage::{Cluster, SOON, Stage, message, play};

/// L1: deleted in each phase: nothing is sent if nothing was, and the cycle is finished if something was.
#[test]
fn deleted_in_each_phase_it_leaves_a_whole_node() {
    play(async {
        let cluster = Cluster::shared().await?;
        for held in ALL {
            let stage = cluster.stage(&format!("deleted-{held:?}").to_lowercase()).await?;
            held.prepare(&stage);
            stage.victim().hang();
            let far = stage.remediate(json!({"timeout": "10s"})).await?;
            held.reached(&stage, &far).await?;
            far.delete().await?;
            held.let_go(&stage);
            far.gone(SOON).await?;
            stage.node_is_clean(stage.victim(), SOON).await?;
            let commands = commands(&stage);
            match held {
                Held::Accepted => ensure!(commands.is_empty(), "{commands:?}"),
                Held::Isolating | Held::Proving | Held::Releasing | Held::Restoring | Held::Done => {
                    ensure!(commands == [Command::Off, Command::On], "{held:?}: {commands:?}");
                    stage.rack.ready().await?;
                }
            }
            ensure!(stage.victim().state().on, "{held:?}: left off");
            stage.judged().await?;
        }
        Ok(())
    });
}

/// L2: NHC has gone on: no power command and no release ever again; taints and finalizer stay until the deletion.
#[test]
fn timed_out_it_does_nothing_more() {
    play(async {
        let stage = Cluster::shared().await?.stage("timed-out").await?;
        stage.face.set_fault(stage.victim(), Some(Fault::LieOff));
        stage.victim().hang();
        let far = stage.remediate(json!({"timeout": "10s"})).await?;
        far.phase("Proving", SOON).await?;
        let stamp =
            json!({"metadata": {"annotations": {"remediation.medik8s.io/nhc-timed-out": "2026-01-01T00:00:00Z"}}});
        far.api.patch(&far.name, &PatchParams::default(), &Patch::Merge(stamp)).await?;
        let halted = far.halted_for("RemediationInterruptedByNHC", "RemediationStopped", SOON).await?;
        ensure!(message(&halted).contains("read On"), "names the last power state: {}", message(&halted));
        let sent = commands(&stage);
        // A real off by the next remediator: Off is read now, and is not ours to act on.
        stage.face.set_fault(stage.victim(), None);
        stage.victim().set_power(false, "the next remediator");
        far.delete().await?;
        far.gone(SOON).await?;
        ensure!(commands(&stage) == sent, "L2: a command after the time-out: {:?}", commands(&stage));
        ensure!(!stage.victim().state().on, "and none that undoes another's");
        stage.node_is_clean(stage.victim(), SOON).await?;
        stage.kept().await
    });
}

/// L3: the Node is gone and another stands under its name: no command, no write on what is not ours.
#[test]
fn another_node_under_the_name_is_left_alone() {
    play(async {
        let stage = Cluster::shared().await?.stage("replaced").await?;
        stage.face.set_fault(stage.victim(), Some(Fault::LieOff));
        stage.victim().hang();
        let far = stage.remediate(json!({"timeout": "10s"})).await?;
        far.phase("Proving", SOON).await?;
        let nodes: Api<Node> = Api::all(stage.client.clone());
        let old = stage.node(stage.victim()).await?.uid();
        nodes.delete(stage.victim().name(), &DeleteParams::default()).await?;
        stage.victim().heal();
        let new = wait::until("the node to register again", SOON, || async {
            Ok(nodes.get_opt(stage.victim().name()).await?.filter(|node| node.uid() != old))
        })
        .await?;
        far.halted_for("RemediationFinishedNodeNotFound", "NodeNotFound", SOON).await?;
        let sent = commands(&stage).len();
        far.delete().await?;
        far.gone(SOON).await?;
        ensure!(commands(&stage).len() == sent && stage.victim().state().on, "a command to another node's machine");
        let node = stage.node(stage.victim()).await?;
        ensure!(node.uid() == new.uid() && !node.annotations().keys().any(|key| key.starts_with("ringfence.dev/")));
        Ok(())
    });
}

/// A remediation of a node that was never there halts, and can be deleted at once.
#[test]
fn a_node_that_never_was_halts() {
    play(async {
        let stage = Cluster::shared().await?.stage("no-node").await?;
        let far = stage.remediate_node("no-such-node", json!({})).await?;
        far.halted_for("RemediationFinishedNodeNotFound", "NodeNotFound", SOON).await?;
        far.delete().await?;
        far.gone(SOON).await?;
        stage.kept().await
    });
}

/// Somebody takes the finalizer off by hand: what is left on the node is taken off all the same.
#[test]
fn marks_without_a_remediation_are_swept() {
    play(async {
        let stage = Cluster::shared().await?.stage("swept").await?;
        stage.rack.attacher().hold();
        stage.victim().hang();
        let far = stage.remediate(json!({"remediationStrategy": "OutOfServiceTaint"})).await?;
        far.phase("Releasing", SOON).await?;
        wait::until("the barrier", SOON, || async {
            let keys = crate::stage::taint_keys(&stage.node(stage.victim()).await?);
            Ok(keys.iter().any(|key| key.contains("out-of-service")).then_some(()))
        })
        .await?;
        let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        far.delete().await?;
        far.api.patch(&far.name, &PatchParams::default(), &bare).await?;
        far.gone(SOON).await?;
        stage.node_is_clean(stage.victim(), SOON).await?;
        stage.rack.attacher().release();
        stage.victim().set_power(true, "power button");
        stage.rack.ready().await?;
        stage.judged().await
    });
}

fn commands(stage: &Stage) -> Vec<Command> {
    stage.face.commands(stage.victim()).into_iter().map(|(_, command)| command).collect()
}

//! The breaker: a fault that makes a part of the nodes look dead does not become as many dead nodes.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use testbed::controlplane::Timings;
use testbed::rack::Layout;
use testbed::wait;

use crate::stage::{
    Cluster, NAMESPACE, Remediation, SOON, Stage, condition, message, phase_of, play, taint_keys, with_kind,
};

/// Nodes in all, and those that are reported dead within a second.
const NODES: usize = 100;
const DEAD: usize = 30;
/// With --breaker-limit=10%.
const AT_ONCE: usize = 10;

/// 30 of 100 nodes are reported dead: 10 are fenced, the breaker opens, and 20 wait and say so. Closing it lets them go on,
/// 10 at a time. No machine is touched that waits.
#[test]
fn a_tenth_is_fenced_and_the_others_wait() {
    play(async {
        let cluster = Cluster::own_with(Timings::Default, &["--breaker-limit=10%"]).await?;
        let stage = Stage::new(&cluster.plane, Layout::workers("storm", DEAD + 1)).await?;
        let nodes: Api<Node> = Api::all(stage.client.clone());
        for number in 0..NODES - DEAD - 1 {
            let node = with_kind("v1", "Node", json!({"metadata": {"name": format!("storm-calm-{number}")}}));
            nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        }
        let dead = &stage.rack.machines()[..DEAD];
        let mut all = vec![];
        for machine in dead {
            machine.hang();
            all.push(stage.remediate_node(machine.name(), json!({})).await?);
        }
        let events: Api<Event> = Api::namespaced(stage.client.clone(), NAMESPACE);
        for fenced in [AT_ONCE, 2 * AT_ONCE] {
            settled(&all, fenced, &events).await?;
            let off = dead.iter().filter(|machine| !machine.history().is_empty()).count();
            ensure!(off == fenced, "{off} machines were switched, of {fenced}");
            for machine in dead.iter().filter(|machine| machine.history().is_empty()) {
                let taints = taint_keys(&stage.node(machine).await?);
                ensure!(!taints.iter().any(|key| key.contains("medik8s")), "{} waits: {taints:?}", machine.name());
            }
            let ledgers: Api<ConfigMap> = Api::namespaced(stage.client.clone(), NAMESPACE);
            ledgers.delete("ringfence-breaker", &DeleteParams::default()).await?;
        }
        settled(&all, DEAD, &events).await?;
        stage.judged().await
    });
}

/// Of each zone one node may be fenced: the second of a zone waits and says for which, the one of another zone and the one
/// of none do not. When the ledger is deleted it goes on.
#[test]
fn a_zone_has_a_limit_of_its_own() {
    play(async {
        let cluster = Cluster::own_with(Timings::Default, &["--breaker-domain-limit=1"]).await?;
        let stage = Stage::new(&cluster.plane, Layout::workers("zone", 5)).await?;
        let nodes: Api<Node> = Api::all(stage.client.clone());
        let [early, late, elsewhere, nowhere, _] = stage.rack.machines() else { anyhow::bail!("five machines") };
        for (machine, zone) in [(early, "a"), (late, "a"), (elsewhere, "b")] {
            let label = Patch::Merge(json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}));
            nodes.patch(machine.name(), &PatchParams::default(), &label).await?;
        }
        [early, late, elsewhere, nowhere].iter().for_each(|machine| machine.hang());
        let first = stage.remediate_node(early.name(), json!({})).await?;
        first.phase("Proving", SOON).await?;
        let waiting = stage.remediate_node(late.name(), json!({})).await?;
        let others = [
            stage.remediate_node(elsewhere.name(), json!({})).await?,
            stage.remediate_node(nowhere.name(), json!({})).await?,
        ];
        let halted = waiting.halted("Unknown", "Budget", SOON).await?;
        ensure!(message(&halted).contains("failure domain a"), "{}", message(&halted));
        for far in others.iter().chain([&first]) {
            far.phase("Done", SOON).await?;
        }
        ensure!(late.history().is_empty() && stage.face.commands(late).is_empty(), "it was switched all the same");
        let ledgers: Api<ConfigMap> = Api::namespaced(stage.client.clone(), NAMESPACE);
        ledgers.delete("ringfence-breaker", &DeleteParams::default()).await?;
        waiting.phase("Done", SOON).await?;
        stage.judged().await
    });
}

/// Waits until so many are done, and all the others wait for the breaker; one of them has said that it opened.
async fn settled(all: &[Remediation], fenced: usize, events: &Api<Event>) -> Result<()> {
    wait::until(&format!("{fenced} to be fenced and the others to wait"), SOON, || async {
        let (mut done, mut waiting) = (0, 0);
        for far in all {
            let far = far.get().await?;
            let held = condition(&far, "Succeeded") == ("Unknown".to_owned(), "Budget".to_owned());
            done += usize::from(phase_of(&far) == "Done");
            waiting += usize::from(phase_of(&far) == "Halted" && held && message(&far).contains("breaker is open"));
        }
        Ok((done == fenced && waiting == all.len() - fenced).then_some(()))
    })
    .await?;
    // It was opened once for each ten but the last.
    let expected = (fenced / AT_ONCE).min(all.len() / AT_ONCE - 1);
    wait::until(&format!("the breaker to have opened {expected} times"), SOON, || async {
        let said = events.list(&ListParams::default()).await?.items;
        let opened = said.iter().filter(|event| event.reason.as_deref() == Some("BreakerOpened")).count();
        ensure!(opened <= expected, "the breaker opened {opened} times, not {expected}");
        Ok((opened == expected).then_some(()))
    })
    .await
}

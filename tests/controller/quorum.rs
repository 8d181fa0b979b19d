//! A3: the control plane keeps its majority. Off, release and on need the API server in the middle.

use anyhow::ensure;
use serde_json::json;
use testbed::controlplane::Timings;
use testbed::rack::Layout;

use crate::stage::{Cluster, SOON, Stage, is_ready, message, phase_of, play};

/// A3: a control-plane node whose loss would break the majority waits, with the reason, and goes on when it would not.
#[test]
fn the_control_plane_keeps_its_majority() {
    play(async {
        let cluster = Cluster::own(Timings::Fast).await?;
        let stage = Stage::new(&cluster.plane, three_control_planes("quorum")).await?;
        let [_, _, first, second, _] = stage.rack.machines() else { anyhow::bail!("five machines") };
        first.hang();
        second.set_power(false, "power button");
        testbed::wait::until("both to be NotReady", SOON, || async {
            let (first, second) = tokio::try_join!(stage.node(first), stage.node(second))?;
            Ok((!is_ready(&first) && !is_ready(&second)).then_some(()))
        })
        .await?;
        let far = stage.remediate_node(first.name(), json!({})).await?;
        let halted = far.halted("Unknown", "QuorumWouldBeLost", SOON).await?;
        ensure!(message(&halted).contains("majority"), "{}", message(&halted));
        ensure!(first.state().on && stage.face.commands(first).is_empty(), "an off was sent without a majority");
        second.set_power(true, "power button");
        far.phase("Done", SOON).await?;
        stage.judged().await
    });
}

/// A3: of two that wait for each other the older claim goes first, and the other only once that node is free again.
#[test]
fn two_control_plane_nodes_go_one_after_the_other() {
    play(async {
        let cluster = Cluster::own(Timings::Default).await?;
        let stage = Stage::new(&cluster.plane, three_control_planes("turns")).await?;
        let [_, _, first, second, _] = stage.rack.machines() else { anyhow::bail!("five machines") };
        first.hang();
        second.hang();
        let (one, other) = tokio::try_join!(
            stage.remediate_node(first.name(), json!({})),
            stage.remediate_node(second.name(), json!({}))
        )?;
        testbed::wait::until("one of them to be done", SOON, || async {
            let (a, b) = tokio::try_join!(one.get(), other.get())?;
            Ok((phase_of(&a) == "Done" || phase_of(&b) == "Done").then_some(()))
        })
        .await?;
        let (early, late, waiting) = match phase_of(&one.get().await?) {
            "Done" => (&one, &other, second),
            _ => (&other, &one, first),
        };
        late.halted("Unknown", "QuorumWouldBeLost", SOON).await?;
        ensure!(waiting.state().on && stage.face.commands(waiting).is_empty(), "both were switched off");
        early.delete().await?;
        early.gone(SOON).await?;
        late.phase("Done", SOON).await?;
        let off = |machine: &testbed::machine::Machine| machine.history().first().map(|change| change.at);
        let back = |machine: &testbed::machine::Machine| machine.history().get(1).map(|change| change.at);
        let (a, b) = if off(first) < off(second) { (first, second) } else { (second, first) };
        ensure!(back(a) < off(b), "both were off at a time");
        stage.judged().await
    });
}

fn three_control_planes(name: &str) -> Layout {
    let control_plane = (1..=3).map(|n| format!("{name}-cp-{n}")).collect();
    Layout {
        workers: vec![format!("{name}-1"), format!("{name}-2")],
        control_plane,
        name: name.to_owned(),
        ..Layout::default()
    }
}

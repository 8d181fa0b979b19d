//! kill -9 of the operator at each phase, held from outside: by the BMC's face or the attacher, never by a hook in the
//! operator. Whoever comes next resumes, and never repeats blindly.

use std::time::Duration;

use agents::Command;
use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use testbed::bmc::redfish::Face;
use testbed::controlplane::Timings;

use crate::held::Held;
use crate::stage::{Cluster, Remediation, SOON, Stage, condition, play};

/// What `deploy/` gives it to stop, terminationGracePeriodSeconds.
const GRACE: Duration = Duration::from_secs(10);

/// How an operator ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// SIGKILL.
    Killed,
    /// SIGTERM.
    Stopped,
}

/// Has a remediation in each phase, ends the operator, edits the specs if so wanted, starts another, and lets the world go on.
async fn survive(name: &str, end: End, edit: Option<Value>) -> Result<()> {
    let mut cluster = Cluster::own(Timings::Default).await?;
    // Those that stay where they are held come first, then those that do for seconds, those that are there soonest last.
    let order = [Held::Done, Held::Releasing, Held::Restoring, Held::Accepted, Held::Isolating, Held::Proving];
    let order = order.map(|held| (held, format!("{name}-{held:?}").to_lowercase()));
    let stages = try_join_all(order.iter().map(|(_, name)| cluster.stage(name))).await?;
    let mut waiting: Vec<_> = order.iter().map(|(held, _)| *held).zip(stages).collect();
    let mut all = vec![];
    for count in [2, 1, 3] {
        let begun = waiting.drain(..count).map(|(held, stage)| async move {
            held.prepare(&stage);
            stage.victim().hang();
            let far = stage.remediate(json!({"timeout": "10s", "releaseTimeout": "60s"})).await?;
            held.reached(&stage, &far).await?;
            anyhow::Ok((held, stage, far))
        });
        all.extend(try_join_all(begun).await?);
    }
    match end {
        End::Killed => cluster.operator.kill().await?,
        End::Stopped => ensure!(cluster.operator.stop(GRACE).await?.success(), "it did not stop well"),
    }
    for (held, stage, far) in &all {
        if let Some(edit) = &edit {
            far.edit(edit.clone()).await?;
        }
        held.let_go(stage);
    }
    cluster.operator.restart().await?;
    try_join_all(all.iter().map(|(held, stage, far)| finishes(*held, stage, far))).await?;
    Ok(())
}

async fn finishes(held: Held, stage: &Stage, far: &Remediation) -> Result<()> {
    let done = far.phase("Done", SOON).await?;
    ensure!(condition(&done, "Succeeded").0 == "True", "{held:?}: {:?}", done.status);
    stage.replacement(SOON).await?;
    stage.rack.ready().await?;
    far.delete().await?;
    far.gone(SOON).await?;
    stage.node_is_clean(stage.victim(), SOON).await?;
    // L1, S3: once it was restored, it is left alone.
    let commands: Vec<_> = stage.face.commands(stage.victim()).into_iter().map(|(_, command)| command).collect();
    let restored = commands.iter().position(|command| *command == Command::On).unwrap_or(commands.len());
    ensure!(commands[restored..].iter().all(|command| *command == Command::On), "{held:?}: {commands:?}");
    let power: Vec<_> = stage.victim().history().iter().map(|change| change.on).collect();
    ensure!(power == [false, true], "{held:?}: switched {power:?}");
    stage.judged().await
}

#[test]
fn killed_at_each_phase_it_finishes() {
    play(survive("crash", End::Killed, None));
}

/// A2: an edit that leaves the order as it is changes nothing of what was begun.
#[test]
fn killed_at_each_phase_and_edited_it_finishes() {
    let edit = json!({"retrycount": 3, "retryinterval": "2s", "remediationStrategy": "OutOfServiceTaint"});
    play(survive("edited", End::Killed, Some(edit)));
}

/// L4: asked to stop between off and on, or anywhere else, it does so at once, and the next one finishes.
#[test]
fn stopped_in_each_phase_the_next_one_finishes() {
    play(survive("stopped", End::Stopped, None));
}

/// A2: another order while it was down: the pinned device is switched on again first, then the new one is used.
#[test]
fn killed_and_given_another_order_it_starts_anew() {
    play(async {
        let mut cluster = Cluster::own(Timings::Default).await?;
        for held in [Held::Isolating, Held::Proving, Held::Releasing] {
            let stage = cluster.stage(&format!("reorder-{held:?}").to_lowercase()).await?;
            let other = Face::start(stage.rack.machines()).await?;
            stage.secret("other", &[("ca.crt", other.ca_pem())]).await?;
            use secrecy::ExposeSecret;
            let keys = [("--username", other.username()), ("--password", other.password().expose_secret())];
            stage.secret("other-bmc", &keys).await?;
            held.prepare(&stage);
            stage.victim().hang();
            let far = stage.remediate(json!({"timeout": "10s"})).await?;
            held.reached(&stage, &far).await?;
            cluster.operator.kill().await?;
            // The old device keeps its account: credentials are not part of the order.
            let ca = format!("{}\n{}", stage.face.ca_pem(), other.ca_pem());
            stage.secret("both", &[("ca.crt", &ca)]).await?;
            far.edit(json!({
                "sharedparameters": {"--ipport": other.port().to_string()},
                "sharedSecretName": format!("{}-other-bmc", stage.name),
                "tls": {"caSecretName": format!("{}-both", stage.name)},
            }))
            .await?;
            held.let_go(&stage);
            cluster.operator.restart().await?;
            far.event("OrderChanged").await?;
            far.phase("Done", SOON * 2).await?;
            stage.replacement(SOON).await?;
            ensure!(!other.commands(stage.victim()).is_empty(), "the new device was used");
            stage.rack.ready().await?;
            far.delete().await?;
            far.gone(SOON).await?;
            stage.node_is_clean(stage.victim(), SOON).await?;
            stage.judged().await?;
        }
        Ok(())
    });
}

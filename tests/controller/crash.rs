//! kill -9 of the operator at each phase, held from outside: by the BMC's face or the attacher, never by a hook in the
//! operator. Whoever comes next resumes, and never repeats blindly.

use agents::Command;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::bmc::redfish::Face;
use testbed::controlplane::Timings;

use crate::held::{ALL, Held};
use crate::stage::{Cluster, SOON, condition, play};

/// Kills the operator in a phase, edits the spec if so wanted, starts another, and lets the world go on.
async fn survive(cluster: &mut Cluster, held: Held, edit: Option<Value>) -> Result<()> {
    let name = format!("crash-{held:?}{}", if edit.is_some() { "-edited" } else { "" }).to_lowercase();
    let stage = cluster.stage(&name).await?;
    held.prepare(&stage);
    stage.victim().hang();
    let far = stage.remediate(json!({"timeout": "10s", "releaseTimeout": "60s"})).await?;
    held.reached(&stage, &far).await?;
    cluster.operator.kill().await?;
    if let Some(edit) = edit {
        far.edit(edit).await?;
    }
    held.let_go(&stage);
    cluster.operator.restart().await?;

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
    play(async {
        let mut cluster = Cluster::own(Timings::Default).await?;
        for held in ALL {
            survive(&mut cluster, held, None).await?;
        }
        Ok(())
    });
}

/// A2: an edit that leaves the order as it is changes nothing of what was begun.
#[test]
fn killed_at_each_phase_and_edited_it_finishes() {
    play(async {
        let mut cluster = Cluster::own(Timings::Default).await?;
        for held in ALL {
            let edit = json!({"retrycount": 3, "retryinterval": "2s", "remediationStrategy": "OutOfServiceTaint"});
            survive(&mut cluster, held, Some(edit)).await?;
        }
        Ok(())
    });
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

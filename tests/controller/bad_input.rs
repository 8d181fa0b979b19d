//! Bad input: each ends in a condition and an event that name the cause, and nothing is released or sent.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::bmc::redfish::Certificate;

use crate::stage::{Cluster, SOON, Stage, message, play};

/// What is wrong, the reason it must end with, and words that must be in the message.
fn spoiled(stage: &Stage) -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let victim = stage.victim().name().to_owned();
    vec![
        ("agent", json!({"agent": "fence_unheard_of"}), "UnsupportedAgent", "fence_unheard_of"),
        ("secret", json!({"sharedSecretName": "no-such-secret"}), "SecretNotFound", "no-such-secret"),
        ("template", json!({"sharedparameters": {"--ip": "{{.Nodename}}"}}), "InvalidTemplate", "--ip"),
        ("action", json!({"sharedparameters": {"--action": "cycle"}}), "UnsupportedAction", "reboot"),
        ("node", json!({"nodeparameters": {"--systems-uri": {victim: null}}}), "MissingParameter", "--systems-uri"),
        (
            "parameter",
            json!({"sharedparameters": {"--password-script": "/bin/sh"}}),
            "RefusedParameter",
            "password-script",
        ),
    ]
}

/// What spec and Secrets alone show.
#[test]
fn a_bad_spec_says_what_is_wrong() {
    play(async {
        let stage = Cluster::shared().await?.stage("bad-spec").await?;
        for (what, changes, reason, words) in spoiled(&stage) {
            let far = stage.remediate(changes).await?;
            let halted = far.halted("False", reason, SOON).await?;
            ensure!(message(&halted).contains(words), "{what}: {}", message(&halted));
            far.delete().await?;
            far.gone(SOON).await?;
        }
        untouched(&stage).await
    });
}

/// A bad Secret put right is taken up without anybody touching the remediation.
#[test]
fn what_is_put_right_goes_on() {
    play(async {
        let stage = Cluster::shared().await?.stage("bad-then-good").await?;
        stage.victim().hang();
        let name = format!("{}-late", stage.name);
        let far = stage.remediate(json!({"sharedSecretName": name})).await?;
        far.halted("False", "SecretNotFound", SOON).await?;
        stage.secret("late", &[("--username", stage.face.username()), ("--password", "wrong-p4ssword")]).await?;
        let halted = far.halted("False", "BMCAuthFailed", SOON).await?;
        ensure!(!serde_json::to_string(&halted)?.contains("wrong-p4ssword"), "a secret in the object");
        use secrecy::ExposeSecret;
        let password = stage.face.password().expose_secret();
        stage.secret("late", &[("--username", stage.face.username()), ("--password", password)]).await?;
        stage.replacement(SOON).await?;
        far.phase("Done", SOON).await?;
        stage.judged().await
    });
}

/// What the BMC alone shows: wrong password, untrusted certificate, nobody there, several systems and no choice.
#[test]
fn a_bad_way_to_the_bmc_says_what_is_wrong() {
    play(async {
        let stage = Cluster::shared().await?.stage("bad-bmc").await?;
        stage.secret("wrong", &[("--username", stage.face.username()), ("--password", "not-the-p4ssword")]).await?;
        let foreign =
            testbed::bmc::redfish::Face::start_with(stage.rack.machines(), Certificate::ForeignAuthority).await?;
        let port = |port: u16| json!({"sharedparameters": {"--ipport": port.to_string()}});
        let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let uris = json!({"--systems-uri": null, "--ip": {stage.victim().name(): "127.0.0.1"}});
        let cases = [
            (json!({"sharedSecretName": format!("{}-wrong", stage.name)}), "BMCAuthFailed", "Secret"),
            (port(foreign.port()), "BMCCertificateUntrusted", "caSecretName"),
            (port(closed), "BMCUnreachable", "127.0.0.1"),
            (
                json!({"sharedparameters": {"--ip": null}, "nodeparameters": uris}),
                "BMCAmbiguousSystem",
                "--systems-uri",
            ),
        ];
        for (changes, reason, words) in cases {
            let far = stage.remediate(changes).await?;
            let halted = far.halted("False", reason, SOON).await?;
            ensure!(message(&halted).contains(words), "{reason}: {}", message(&halted));
            ensure!(!serde_json::to_string(&halted)?.contains("not-the-p4ssword"), "a secret in the object");
            far.delete().await?;
            far.gone(SOON * 2).await?;
        }
        untouched(&stage).await
    });
}

/// A spec that no schema should let in is refused by the API server itself.
#[test]
fn the_schema_refuses_what_it_can() {
    play(async {
        let stage = Cluster::shared().await?.stage("bad-schema").await?;
        let spoiled = [
            json!({"retrycount": 0}),
            json!({"retrycount": -1}),
            json!({"agent": null}),
            json!({"agent": "reboot"}),
            json!({"timeout": "soon"}),
            json!({"remediationStrategy": "Hope"}),
        ];
        for changes in spoiled {
            let refused = stage.remediate(changes.clone()).await;
            ensure!(refused.is_err(), "accepted: {changes}");
        }
        Ok(())
    });
}

/// FAR's own sample objects, as its users have them, are accepted by a real API server.
#[test]
fn fars_samples_are_accepted() {
    play(async {
        let cluster = Cluster::shared().await?;
        let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
        let mut applied = 0;
        for entry in std::fs::read_dir(samples)? {
            let text = std::fs::read_to_string(entry?.path())?;
            // Where our operator may not read Secrets, and no such nodes are: accepted, and Halted.
            cluster.plane.apply_yaml(&text.replace("worker-", "no-such-node-")).await?;
            applied += 1;
        }
        ensure!(applied > 0, "no samples");
        Ok(())
    });
}

async fn untouched(stage: &Stage) -> Result<()> {
    for machine in stage.rack.machines() {
        ensure!(stage.face.commands(machine).is_empty(), "{} was commanded", machine.name());
        ensure!(machine.history().is_empty());
        stage.node_is_clean(machine, SOON).await?;
    }
    stage.kept().await
}

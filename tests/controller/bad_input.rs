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
        ("action", json!({"sharedparameters": {"-action": "cycle"}}), "UnsupportedAction", "reboot"),
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

async fn untouched(stage: &Stage) -> Result<()> {
    for machine in stage.rack.machines() {
        ensure!(stage.face.commands(machine).is_empty(), "{} was commanded", machine.name());
        ensure!(machine.history().is_empty());
        stage.node_is_clean(machine, SOON).await?;
    }
    stage.kept().await
}

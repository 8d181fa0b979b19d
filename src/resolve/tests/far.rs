//! FAR's own test cases about parameters and admission (far-contract, section 6), each with the outcome that is right here.
//! `docs/far.md` is the list.

use super::*;

const DEFAULT: &str = "fence-agents-credentials-shared";

/// FAR's sample agent and spec, with changes.
fn ipmilan(changes: &Value) -> FenceAgentsRemediation {
    let mut spec = json!({
        "agent": "fence_ipmilan",
        "sharedparameters": {"--lanplus": "", "--ip": "192.168.111.1", "--username": "admin"},
        "nodeparameters": {"--ipport": {"w0": "6233", "w1": "6234"}},
    });
    for (field, value) in changes.as_object().into_iter().flatten() {
        match (spec.get_mut(field), value) {
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new.clone()),
            _ => spec[field] = value.clone(),
        }
    }
    remediation(spec)
}

type Data<'a> = &'a [(&'a str, &'a [(&'a str, &'a str)])];

async fn resolved(changes: Value, secrets: Data<'_>) -> Resolved {
    let api = Server::start(secrets).await;
    api.resolve(&ipmilan(&changes), None).await.unwrap_or_else(|error| panic!("{changes}: {}", error.story()))
}

async fn refused(changes: Value, secrets: Data<'_>) -> Error {
    let api = Server::start(secrets).await;
    api.resolve(&ipmilan(&changes), None).await.expect_err("no order")
}

fn password(resolved: &Resolved) -> &str {
    let Some(Access::Ipmi { credentials, .. }) = &one(resolved).access else { panic!("{resolved:?}") };
    credentials.password.expose_secret()
}

fn is_duplicate(error: &Error, parameter: &str) {
    let text = format!("invalid multiple definition of FAR parameter, parameter name: {parameter}");
    assert_eq!((error.label(), error.to_string()), ("DuplicateParameter", text));
}

#[tokio::test]
async fn far_6_1_01_a_node_secret_overrides_the_shared_secret() {
    let secrets: Data =
        &[("shared", &[("--password", "all"), ("--privlvl", "operator")]), ("w1", &[("--password", "one")])];
    let found = resolved(json!({"sharedSecretName": "shared", "nodeSecretNames": {"w1": "w1"}}), secrets).await;
    let Some(Access::Ipmi { credentials, privilege, .. }) = &one(&found).access else { panic!("{found:?}") };
    assert_eq!((credentials.username.as_str(), password(&found), privilege.name()), ("admin", "one", "operator"));
    assert_eq!((one(&found).order.address.as_str(), found.action), ("192.168.111.1:6234", Action::Reboot));
}

#[tokio::test]
async fn far_6_1_02_a_shared_secret_must_not_define_a_shared_parameter() {
    let error = refused(json!({"sharedSecretName": "s"}), &[("s", &[("--username", "a")])]).await;
    is_duplicate(&error, "--username");
}

#[tokio::test]
async fn far_6_1_03_a_shared_secret_must_not_define_a_node_parameter() {
    let error = refused(json!({"sharedSecretName": "s"}), &[("s", &[("--ipport", "1")])]).await;
    is_duplicate(&error, "--ipport");
}

#[tokio::test]
async fn far_6_1_04_a_node_secret_must_not_define_a_shared_parameter() {
    let error = refused(json!({"nodeSecretNames": {"w1": "s"}}), &[("s", &[("--username", "a")])]).await;
    is_duplicate(&error, "--username");
}

#[tokio::test]
async fn far_6_1_05_a_node_secret_must_not_define_a_node_parameter() {
    let error = refused(json!({"nodeSecretNames": {"w1": "s"}}), &[("s", &[("--ipport", "1")])]).await;
    is_duplicate(&error, "--ipport");
}

#[tokio::test]
async fn far_6_1_06_a_missing_action_is_reboot() {
    assert_eq!(resolved(json!({}), &[]).await.action, Action::Reboot);
}

#[tokio::test]
async fn far_6_1_07_action_off_is_off() {
    for name in ["--action", "action"] {
        let found = resolved(json!({"sharedparameters": {name: "off"}}), &[]).await;
        assert_eq!(found.action, Action::Off, "{name}: with FAR, the one without dashes rebooted (W20)");
    }
}

#[tokio::test]
async fn far_6_1_08_action_reboot_is_reboot() {
    assert_eq!(resolved(json!({"sharedparameters": {"--action": "reboot"}}), &[]).await.action, Action::Reboot);
}

#[tokio::test]
async fn far_6_1_09_a_node_parameter_overrides_a_shared_one() {
    let found = resolved(json!({"sharedparameters": {"--ipport": "6230"}}), &[]).await;
    assert_eq!(one(&found).order.address, "192.168.111.1:6234");
}

#[tokio::test]
async fn far_6_1_10_a_shared_secret_may_name_the_node() {
    let found = resolved(json!({"sharedSecretName": "s"}), &[("s", &[("--password", "of-{{.NodeName}}")])]).await;
    assert_eq!(password(&found), "of-w1");
}

#[tokio::test]
async fn far_6_1_11_an_invalid_template_in_a_shared_secret_sends_nothing() {
    let error = refused(json!({"sharedSecretName": "s"}), &[("s", &[("--password", "hunter2{{.NodeName")])]).await;
    assert_eq!(error.label(), "InvalidTemplate");
    assert!(error.story().contains("key --password of secret 's'") && !error.story().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn far_6_1_15_action_cycle_is_unsupported() {
    for (place, secrets) in [
        (json!({"sharedparameters": {"--action": "cycle"}}), &[][..]),
        (json!({"nodeparameters": {"--action": {"w1": "cycle"}}}), &[][..]),
        (json!({"sharedSecretName": "s"}), &[("s", &[("--action", "cycle")][..])][..]),
    ] {
        let error = refused(place, secrets).await;
        assert_eq!((error.label(), error.to_string()), ("UnsupportedAction", ACTION.to_owned()));
    }
}

const ACTION: &str = "FAR doesn't support any other action than `reboot` or `off`";

#[tokio::test]
async fn far_6_3_and_6_4_an_agent_is_known_or_unsupported() {
    resolved(json!({}), &[]).await;
    let error = refused(json!({"agent": "fence_unheard_of"}), &[]).await;
    assert_eq!(error.label(), "UnsupportedAgent");
    assert!(error.to_string().starts_with("unsupported fence agent: fence_unheard_of"), "{error}");
}

/// FAR asks the API server's version; there is no supported one any more (1.26 and later) that does not have the taint.
#[tokio::test]
async fn far_6_3_and_6_4_the_out_of_service_strategy_is_supported() {
    resolved(json!({"remediationStrategy": "OutOfServiceTaint"}), &[]).await;
}

/// FAR's webhook writes the old default name into the spec, or takes it out; here the same holds at use.
#[tokio::test]
async fn far_6_3_and_6_4_the_shared_secrets_old_default() {
    let of_default: Data = &[(DEFAULT, &[("--password", "default")])];
    let others: Data = &[(DEFAULT, &[("--password", "default")]), ("custom", &[("--password", "custom")])];
    let named = |name: Option<&str>| json!({"sharedSecretName": name});
    for (what, name, secrets, want) in [
        ("nil, and it exists", None, of_default, "default"),
        ("named, and it exists", Some(DEFAULT), of_default, "default"),
        ("nil, and it does not exist", None, &[][..], ""),
        ("named, and it does not exist: treated as none", Some(DEFAULT), &[][..], ""),
        ("a custom name is kept", Some("custom"), others, "custom"),
    ] {
        assert_eq!(password(&resolved(named(name), secrets).await), want, "{what}");
    }
    let error = refused(named(Some("custom")), of_default).await;
    assert_eq!(error.to_string(), "secret 'custom' not found in namespace 'fencing'");
}

#[tokio::test]
async fn far_6_3_and_6_4_an_error_of_the_look_up_is_told_and_passes() {
    let api = Server::troubled(Trouble::Status(500)).await;
    let error = api.resolve(&ipmilan(&json!({})), None).await.expect_err("no answer");
    assert_eq!((error.label(), error.may_pass()), ("APIServerError", true));
    assert!(error.story().contains(DEFAULT), "{}", error.story());
}

/// Taking the old default name out of a spec is no harm while its Secret exists: it is used as if it were named. FAR
/// refuses the update there, because its webhook fills a missing name in at creation only.
#[tokio::test]
async fn far_6_4_the_default_secrets_name_may_be_removed() {
    let secrets: Data = &[(DEFAULT, &[("--password", "default")]), ("other", &[("--password", "other")])];
    for (what, before, after, secrets, want) in [
        ("no old name", None, None, &[][..], ""),
        ("another old name", Some("other"), None, secrets, "default"),
        ("replaced by another", Some(DEFAULT), Some("other"), secrets, "other"),
        ("removed, and it is absent", Some(DEFAULT), None, &[][..], ""),
        ("removed, and it exists", Some(DEFAULT), None, secrets, "default"),
        ("set to nothing, and it exists", Some(DEFAULT), Some(""), secrets, "default"),
    ] {
        resolved(json!({"sharedSecretName": before}), secrets).await;
        assert_eq!(password(&resolved(json!({"sharedSecretName": after}), secrets).await), want, "{what}");
    }
}

#[tokio::test]
async fn far_6_4_nothing_that_tells_nodes_apart_is_missing_parameters() {
    let api = Server::start(&[("s", &[("--password", "p")])]).await;
    for spec in [
        json!({"agent": "fence_ipmilan"}),
        json!({"agent": "fence_ipmilan", "sharedparameters": {"--ip": "a"}}),
        json!({"agent": "fence_ipmilan", "sharedparameters": {"--ip": "a"}, "sharedSecretName": "s"}),
    ] {
        let error = api.resolve(&remediation(spec.clone()), None).await.expect_err("no order");
        assert_eq!(error.label(), "MissingParameter", "{spec}");
        assert!(error.to_string().starts_with("invalid spec: mandatory parameters are missing"), "{error}");
    }
}

#[tokio::test]
async fn far_6_4_shared_parameters_with_a_template_are_enough() {
    let api = Server::start(&[]).await;
    let far = remediation(json!({"agent": "fence_ipmilan", "sharedparameters": {"--ip": "bmc-{{.NodeName}}"}}));
    assert_eq!(one(&api.resolve(&far, None).await.expect("an order")).order.address, "bmc-w1:623");
}

#[tokio::test]
async fn far_6_4_a_shared_secret_with_a_template_is_enough() {
    let api = Server::start(&[("s", &[("--ip", "bmc-{{.NodeName}}"), ("--password", "p")])]).await;
    let far = remediation(json!({"agent": "fence_ipmilan", "sharedSecretName": "s"}));
    assert_eq!(one(&api.resolve(&far, None).await.expect("an order")).order.address, "bmc-w1:623");
}

/// W21: with FAR this was "mandatory parameters are missing".
#[tokio::test]
async fn w21_a_nodes_own_secret_is_enough() {
    let api = Server::start(&[("of-w1", &[("--ip", "bmc-1"), ("--password", "{{p\n")])]).await;
    let far = remediation(json!({"agent": "fence_ipmilan", "nodeSecretNames": {"w1": "of-w1"}}));
    let found = api.resolve(&far, None).await.expect("an order");
    assert_eq!(
        (one(&found).order.address.as_str(), password(&found)),
        ("bmc-1:623", "{{p"),
        "braces stay, the newline goes"
    );
}

#[tokio::test]
async fn far_6_4_every_bad_template_is_named_and_no_good_one() {
    let bad = json!({"sharedparameters": {"--bad1": "{{.Nope}}", "--good": "{{.NodeName}}", "--bad2": "x {{if}} y"},
        "sharedSecretName": "s"});
    let error = refused(bad, &[("s", &[("--bad3", "{{.NodeName"), ("--fine", "{{.NodeName}}")])]).await;
    let text = error.story();
    for name in ["--bad1", "--bad2", "--bad3"] {
        assert_eq!(text.matches(name).count(), 1, "{text}");
    }
    assert!(!text.contains("--good") && !text.contains("--fine"), "{text}");
    assert!(text.contains("can't evaluate field Nope"), "{text}");
    let many: Value = (0..100).map(|n| (format!("--p{n:03}"), json!("{{"))).collect();
    let text = refused(json!({"sharedparameters": many}), &[]).await.story();
    assert!(text.ends_with("and 92 more") && text.len() < 2000, "{text}");
}

#[tokio::test]
async fn far_6_4_an_invalid_action_is_unsupported() {
    for action in ["shutdown", "on", "status", "Off", " off"] {
        let error = refused(json!({"sharedparameters": {"--action": action}}), &[]).await;
        assert_eq!((error.label(), error.to_string()), ("UnsupportedAction", ACTION.to_owned()));
    }
}

/// With FAR, each of these kept every node of the template from being fenced (W14); here, the nodes that need the Secret.
#[tokio::test]
async fn far_6_4_a_missing_secret_is_named_where_it_is_needed() {
    let error = refused(json!({"sharedSecretName": "gone"}), &[]).await;
    assert_eq!(error.to_string(), "secret 'gone' not found in namespace 'fencing'");
    let error = refused(json!({"nodeSecretNames": {"w1": "gone"}}), &[]).await;
    assert_eq!((error.label(), error.to_string().contains("secret 'gone' not found")), ("SecretNotFound", true));
    resolved(json!({"nodeSecretNames": {"w0": "gone"}}), &[]).await;
}

/// W5: with FAR, the agent ran with what was left: another machine was switched off.
#[tokio::test]
async fn w5_a_node_without_a_value_is_an_error() {
    let far = ipmilan(&json!({"nodeparameters": {"--ipport": {"w0": "6233"}}}));
    let error = Server::start(&[]).await.resolve(&far, None).await.expect_err("no port of its own");
    assert_eq!(error.to_string(), "node parameter --ipport has no value for node w1");
}

/// W14: two templates, 50 nodes, one Secret missing: 49 nodes have an order from each, and only the one has none.
#[tokio::test]
async fn w14_of_fifty_nodes_one_lacks_its_secret() {
    let name = |n: usize| format!("bmc-{n:02}");
    let secrets: Vec<(String, String)> =
        (0..50).filter(|n| *n != 17).map(|n| (name(n), format!("10.0.0.{n}"))).collect();
    let data: Vec<[(&str, &str); 2]> =
        secrets.iter().map(|(_, ip)| [("--ip", ip.as_str()), ("--password", "p")]).collect();
    let served: Vec<(&str, &[(&str, &str)])> =
        secrets.iter().zip(&data).map(|((name, _), data)| (name.as_str(), &data[..])).collect();
    let api = Server::start(&served).await;
    let names: Value = (0..50).map(|n| (format!("w{n}"), json!(name(n)))).collect();
    for agent in ["fence_ipmilan", "fence_redfish"] {
        let far =
            remediation(json!({"agent": agent, "sharedparameters": {"--username": "a"}, "nodeSecretNames": names}));
        let (mut good, mut bad) = (0, vec![]);
        for n in 0..50 {
            match api.resolve_for(&far, &format!("w{n}")).await {
                Ok(found) if one(&found).order.address.contains(&format!("10.0.0.{n}")) => good += 1,
                Ok(found) => panic!("w{n}: {found:?}"),
                Err(error) => bad.push((n, error.label())),
            }
        }
        assert_eq!((good, bad), (49, vec![(17, "SecretNotFound")]), "{agent}");
    }
}

#[tokio::test]
async fn far_6_5_an_empty_node_name_is_an_error() {
    let error = Server::start(&[]).await.resolve_for(&ipmilan(&json!({})), "").await.expect_err("no node");
    assert_eq!(error.to_string(), "nodeName cannot be empty");
}

/// W12: with FAR, the value of a parameter with a bad template was logged.
#[tokio::test]
async fn w12_a_bad_template_shows_no_value() {
    let error = refused(json!({"sharedparameters": {"--password": "hunter2 {{if}} hunter2"}}), &[]).await;
    assert!(!format!("{error:?} {error} {}", error.story()).contains("hunter2"), "{error:?}");
}

/// W19, W20 and section 7b: what runs a program, writes a file, or makes an agent succeed without fencing.
#[tokio::test]
async fn w19_w20_7b_dangerous_parameters_are_refused() {
    for name in ["--version", "--help", "-o", "--password-script", "--debug-file", "--ipmitool-path", "-ometadata"] {
        for place in ["sharedparameters", "nodeparameters"] {
            let value = if place == "nodeparameters" { json!({"w1": "off"}) } else { json!("off") };
            let error = refused(json!({place: {name: value}}), &[]).await;
            assert!(["RefusedParameter", "UnknownParameter"].contains(&error.label()), "{name}: {}", error.story());
        }
        let error = refused(json!({"sharedSecretName": "s"}), &[("s", &[(name, "off")])]).await;
        assert!(["RefusedParameter", "UnknownParameter"].contains(&error.label()), "{name}: {}", error.story());
    }
}

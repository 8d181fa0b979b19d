//! Levels: several devices for one node, each with parameters and Secrets of its own.

use super::*;
use crate::api::DEFAULT_SHARED_SECRET;

/// A BMC, and behind it what `levels` says.
fn leveled(levels: Value) -> FenceAgentsRemediation {
    let mut far = plain();
    far.spec.levels = serde_json::from_value(levels).expect("levels");
    far
}

fn feed(ip: &str) -> Value {
    json!({"agent": "fence_pdu", "sharedparameters": {"--ip": ip, "--username": "u"},
        "nodeparameters": {"--plug": {"w1": "1", "w2": "2"}}, "sharedSecretName": "pdu"})
}

fn person() -> Value {
    json!({"agent": "fence_meatware"})
}

/// What became of each level: the addresses of its devices, or the code of its error.
fn shape(resolved: &Resolved) -> Vec<Result<Vec<&str>, &'static str>> {
    let levels = resolved.levels.iter().map(|level| {
        let devices = level.as_ref().map_err(Error::label)?;
        Ok(devices.iter().map(|device| device.order.address.as_str()).collect())
    });
    levels.collect()
}

const PDU: (&str, &[(&str, &str)]) = ("pdu", &[("--password", "hunter2")]);

/// Pacemaker's `custom_merge_with_topology`, as far as it is about parameters: each device has its own.
#[tokio::test]
async fn each_device_has_its_own_account() {
    let api = Server::start(&[PDU, ("of-w1", &[("--password", "hunter3")]), (DEFAULT_SHARED_SECRET, &[])]).await;
    let mut own = feed("b");
    own["sharedSecretName"] = Value::Null;
    own["nodeSecretNames"] = json!({"w1": "of-w1", "w2": "of-w2"});
    let far = leveled(json!([{"agents": [feed("a"), own]}, {"agents": [feed("c")]}, {"agents": [person()]}]));
    let resolved = api.resolve(&far, Some(UUID)).await.expect("orders");
    assert_eq!(shape(&resolved), [Ok(vec!["https://bmc/redfish/v1"]), Ok(vec!["a", "b"]), Ok(vec!["c"]), Ok(vec![""])]);
    let passwords = resolved.levels.iter().flatten().flatten().map(|device| match &device.access {
        Some(Access::Script(given)) => given.values["password"].expose_secret(),
        Some(Access::Redfish { credentials, .. }) => credentials.password.expose_secret(),
        Some(other) => panic!("{other:?}"),
        None => "nobody's",
    });
    assert_eq!(passwords.collect::<Vec<_>>(), ["b", "hunter2", "hunter3", "hunter2", "nobody's"]);
    let last = &resolved.levels[3].as_ref().expect("a person")[0].order;
    assert_eq!((last.driver, last.plug.as_deref()), (Driver::Person, Some("w1")));
    assert_eq!(api.read(), [DEFAULT_SHARED_SECRET, "of-w1", "pdu"], "each once, and of this node only");
    assert_eq!(
        resolved.inputs,
        "generation 3, secret fence-agents-credentials-shared at 7, secret of-w1 at 7, secret pdu at 7"
    );
    let debug = format!("{resolved:?}");
    assert!(!debug.contains("hunter") && !debug.contains("password"), "{debug}");
}

/// Pacemaker's `fence_missing_agent` and `topology_missing_devices`: what is not there is skipped over.
#[tokio::test]
async fn a_level_that_makes_no_device_spoils_no_other() {
    let api = Server::start(&[PDU]).await;
    let changed = |field: &str, value: Value| {
        let mut agent = feed("a");
        agent[field] = value;
        json!({"agents": [feed("b"), agent]})
    };
    let cases = [
        (changed("sharedSecretName", json!("none")), "SecretNotFound"),
        (changed("nodeSecretNames", json!({"w1": "none"})), "SecretNotFound"),
        (changed("agent", json!("fence_unheard_of")), "UnsupportedAgent"),
        (changed("agent", json!("fence_port")), "NotAPowerAgent"),
        (changed("driver", json!("Native")), "UnsupportedDriver"),
        (changed("tls", json!({"caSecretName": "pdu"})), "SecretInvalid"),
        (changed("tls", json!({})), "ConflictingParameters"),
        (changed("nodeparameters", json!({"--plug": {"w2": "2"}})), "MissingParameter"),
        (changed("nodeparameters", json!({})), "MissingParameter"),
        (changed("sharedparameters", json!({"--ip": "{{.Nope}}"})), "InvalidTemplate"),
        (changed("sharedparameters", json!({"--ip": "b", "--username": "v"})), "ConflictingParameters"),
        (json!({"agents": [person(), feed("a")]}), "ConflictingParameters"),
        (json!({"agents": [person(), person()]}), "ConflictingParameters"),
        (json!({"agents": []}), "MissingParameter"),
    ];
    for (level, label) in cases {
        let far = leveled(json!([level, {"agents": [feed("c")]}]));
        let resolved = api.resolve(&far, None).await.unwrap_or_else(|error| panic!("{level}: {}", error.story()));
        assert_eq!(shape(&resolved), [Ok(vec!["https://bmc/redfish/v1"]), Err(label), Ok(vec!["c"])], "{level}");
    }
    let far = leveled(json!([changed("sharedparameters", json!({"--ip": "b", "--username": "v"}))]));
    let resolved = api.resolve(&far, None).await.expect("an order");
    let error = resolved.levels[1].as_ref().expect_err("the same plug twice");
    assert_eq!(error.to_string(), "two agents of one level are the same device: fence_pdu at b (1)");
}

/// The action is the spec's own, wherever it is said; a level's is refused.
#[tokio::test]
async fn a_level_has_no_action_of_its_own() {
    let secret: (&str, &[(&str, &str)]) = ("acts", &[("--action", "off"), ("--password", "p")]);
    let api = Server::start(&[PDU, secret]).await;
    let changed = |field: &str, value: Value| {
        let mut agent = feed("a");
        match (&mut agent[field], value) {
            (Value::Object(old), Value::Object(new)) => old.extend(new),
            (old, new) => *old = new,
        }
        leveled(json!([{"agents": [agent]}]))
    };
    for far in [
        changed("sharedparameters", json!({"--action": "off"})),
        changed("sharedparameters", json!({"action": "reboot"})),
        changed("sharedparameters", json!({"-o": "off"})),
        changed("nodeparameters", json!({"--action": {"w1": "off"}})),
        changed("sharedSecretName", json!("acts")),
    ] {
        let resolved = api.resolve(&far, None).await.expect("the first level");
        assert_eq!(shape(&resolved)[1], Err("RefusedParameter"), "{far:?}");
        assert_eq!(resolved.action, Action::Reboot);
    }
}

#[tokio::test]
async fn later_levels_stand_in_for_a_first_one_that_makes_no_device() {
    let api = Server::start(&[PDU]).await;
    let levels = json!([{"agents": [feed("a")]}]);
    for (said, action) in [("off", Action::Off), ("", Action::Reboot)] {
        for broken in [json!({"sharedSecretName": "none"}), json!({"agent": "fence_unheard_of"})] {
            let mut spec = serde_json::to_value(leveled(levels.clone()).spec).expect("plain data");
            spec.as_object_mut().expect("a spec").extend(broken.as_object().expect("changes").clone());
            spec["nodeparameters"]["--action"] = json!({"w1": said});
            let resolved = api.resolve(&remediation(spec), None).await.expect("the second level");
            assert!(resolved.first().is_none());
            assert_eq!((shape(&resolved)[1].clone(), resolved.action), (Ok(vec!["a"]), action), "{broken}");
        }
    }
}

/// Nobody knows then what is to become of the machine.
#[tokio::test]
async fn an_action_that_is_none_is_everybodys_error() {
    let api = Server::start(&[PDU, ("acts", &[("--action", "cycle")])]).await;
    let mut far = leveled(json!([{"agents": [feed("a")]}]));
    far.spec.shared_secret_name = Some("acts".into());
    assert_eq!(api.resolve(&far, None).await.expect_err("no action").label(), "UnsupportedAction");
    far.spec.shared_secret_name = Some("none".into());
    far.spec.shared_parameters.0.insert("action".into(), "cycle".into());
    assert_eq!(api.resolve(&far, None).await.expect_err("no action").label(), "UnsupportedAction");
}

#[tokio::test]
async fn where_no_level_has_a_device_the_first_says_why() {
    let api = Server::start(&[]).await;
    let mut far = leveled(json!([{"agents": [feed("a")]}, {"agents": [{"agent": "fence_unheard_of"}]}]));
    far.spec.shared_parameters.0.remove("--password");
    let error = api.resolve(&far, None).await.expect_err("nothing at all");
    assert_eq!(error.to_string(), "invalid spec: mandatory parameters are missing: --password");
}

/// Which level is to be used can't be told while it is not known what there is.
#[tokio::test]
async fn an_api_server_in_trouble_is_everybodys_error() {
    let api = Server::troubled(Trouble::Status(500)).await;
    let mut far = leveled(json!([{"agents": [feed("a")]}]));
    far.spec.agent = "fence_meatware".into();
    let error = api.resolve(&far, None).await.expect_err("trouble");
    assert_eq!((error.label(), error.may_pass()), ("APIServerError", true));
    assert_eq!(api.read(), ["pdu"], "a person's Secrets are not read");
}

/// A template may have nothing but a person: NHC escalates to it.
#[tokio::test]
async fn a_person_needs_no_parameters() {
    let api = Server::start(&[]).await;
    for (parameters, action) in [(json!({}), Action::Reboot), (json!({"--action": "off", "--ip": "x"}), Action::Off)] {
        let far = remediation(json!({"agent": "fence_meatware", "sharedparameters": parameters, "driver": "Native"}));
        let resolved = api.resolve(&far, Some(UUID)).await.expect("a person");
        assert_eq!(resolved.action, action);
        assert!(one(&resolved).access.is_none() && one(&resolved).order.driver == Driver::Person);
    }
    assert!(api.read().is_empty());
}

use super::*;
use crate::api::FenceAgentsRemediationSpec;
use crate::resolve::secrets::SecretValues;

type Given<'a> = &'a [(&'a str, &'a str)];

/// Where each parameter of a case comes from; `node` is by parameter, for nodes w1 and w2 alike unless `only_w2`.
#[derive(Default)]
struct Case<'a> {
    shared: Given<'a>,
    node: Given<'a>,
    only_w2: Given<'a>,
    shared_secret: Given<'a>,
    node_secret: Given<'a>,
}

#[test]
fn precedence_is_fars() {
    let cases: &[(&str, Case, Given)] = &[
        (
            "node parameters override shared ones, under any of their names",
            Case { shared: &[("--ipaddr", "a"), ("--x", "b")], node: &[("--ip", "c")], ..Case::default() },
            &[("ip", "c"), ("x", "b")],
        ),
        (
            "a node's Secret overrides the shared one",
            Case {
                node: &[("--ip", "a")],
                shared_secret: &[("--password", "b"), ("--username", "c")],
                node_secret: &[("passwd", "d")],
                ..Case::default()
            },
            &[("ip", "a"), ("password", "d"), ("username", "c")],
        ),
        (
            "shared parameters and the shared Secret are templates, the others are not",
            Case {
                shared: &[("--ip", "s-{{.NodeName}}")],
                node: &[("--b", "{{.NodeName}}")],
                shared_secret: &[("--c", "x-{{ .NodeName }}")],
                node_secret: &[("--d", "{{nonsense")],
                ..Case::default()
            },
            &[("b", "{{.NodeName}}"), ("c", "x-w1"), ("d", "{{nonsense"), ("ip", "s-w1")],
        ),
        (
            "a Secret of the node alone is enough (W21)",
            Case { node_secret: &[("--ip", "a"), ("--password", "b")], ..Case::default() },
            &[("ip", "a"), ("password", "b")],
        ),
        (
            "a template in the shared Secret alone is enough",
            Case { shared_secret: &[("--ip", "{{.NodeName}}.bmc")], ..Case::default() },
            &[("ip", "w1.bmc")],
        ),
        (
            "a node parameter without a value for this node falls back to the shared one",
            Case {
                shared: &[("--ip", "{{.NodeName}}"), ("--ipport", "443")],
                only_w2: &[("--ipport", "8443")],
                ..Case::default()
            },
            &[("ip", "w1"), ("ipport", "443")],
        ),
        (
            "a node parameter without a value for this node may be in its Secret",
            Case { only_w2: &[("--ip", "b")], node_secret: &[("--ip", "a")], ..Case::default() },
            &[("ip", "a")],
        ),
    ];
    for (what, case, want) in cases {
        let found = case.parameters("w1").unwrap_or_else(|error| panic!("{what}: {error}"));
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(found, *want, "{what}");
    }
}

#[test]
fn what_makes_no_set_of_parameters_is_named() {
    let cases: &[(&str, Case, &str, &str)] = &[
        (
            "shared Secret and shared parameters",
            Case { shared: &[("--ip", "{{.NodeName}}")], shared_secret: &[("--ip", "b")], ..Case::default() },
            "DuplicateParameter",
            "invalid multiple definition of FAR parameter, parameter name: --ip",
        ),
        (
            "shared Secret and node parameters",
            Case { node: &[("--ip", "a")], shared_secret: &[("--ip", "b")], ..Case::default() },
            "DuplicateParameter",
            "parameter name: --ip",
        ),
        (
            "node Secret and shared parameters, under another name",
            Case { shared: &[("--password", "a")], node_secret: &[("passwd", "b")], ..Case::default() },
            "DuplicateParameter",
            "parameter name: passwd",
        ),
        (
            "node Secret and node parameters",
            Case { node: &[("--ip", "a")], node_secret: &[("-a", "b")], ..Case::default() },
            "DuplicateParameter",
            "parameter name: -a",
        ),
        (
            "two names in one place",
            Case { node: &[("--ip", "a"), ("--ipaddr", "b")], ..Case::default() },
            "DuplicateParameter",
            "parameter name: --ipaddr",
        ),
        (
            "no value for this node (W5)",
            Case { shared: &[("--ip", "a")], only_w2: &[("--ipport", "6233")], ..Case::default() },
            "MissingParameter",
            "node parameter --ipport has no value for node w1",
        ),
        ("nothing", Case::default(), "MissingParameter", "invalid spec: mandatory parameters are missing"),
        (
            "nothing that tells nodes apart",
            Case { shared: &[("--ip", "a")], shared_secret: &[("--password", "b")], ..Case::default() },
            "MissingParameter",
            "invalid spec: mandatory parameters are missing: nothing in them tells node w1 from others",
        ),
        (
            "one machine for all nodes but another (W5)",
            Case {
                shared: &[("--ip", "a"), ("systems-uri", "/1")],
                only_w2: &[("systems_uri", "/2")],
                ..Case::default()
            },
            "MissingParameter",
            "nothing in them tells node w1 from others",
        ),
        (
            "an account of its own is no machine of its own",
            Case {
                shared: &[("--ip", "a"), ("--username", "{{.NodeName}}")],
                node: &[("--power-timeout", "9")],
                shared_secret: &[("--x", "{{.NodeName}}")],
                node_secret: &[("--password", "b")],
                ..Case::default()
            },
            "MissingParameter",
            "nothing in them tells node w1 from others",
        ),
        (
            "a bad template",
            Case { shared: &[("--ip", "{{.Node}}")], ..Case::default() },
            "InvalidTemplate",
            "invalid NodeTemplate syntax in shared parameter --ip: failed to execute template: can't evaluate field Node",
        ),
        (
            "a bad template in a Secret",
            Case { node: &[("--ip", "a")], shared_secret: &[("--password", "hunter2{{.hunter3")], ..Case::default() },
            "InvalidTemplate",
            "invalid NodeTemplate syntax in key --password of secret 'shared': failed to parse template",
        ),
    ];
    for (what, case, label, text) in cases {
        let error = case.parameters("w1").map(|_| ()).expect_err(what);
        assert_eq!(error.label(), *label, "{what}");
        assert!(error.story().contains(text), "{what}: {}", error.story());
        assert!(!error.may_pass(), "{what}");
        assert!(!format!("{error:?} {}", error.story()).contains("hunter"), "{what}");
    }
}

#[test]
fn the_action_is_reboot_or_off_and_nothing_else() {
    let cases = [
        (None, Some(Action::Reboot)),
        (Some(("--action", "")), Some(Action::Reboot)),
        (Some(("--action", "reboot")), Some(Action::Reboot)),
        (Some(("--action", "off")), Some(Action::Off)),
        // With FAR this one rebooted (W20).
        (Some(("action", "off")), Some(Action::Off)),
        (Some(("action", "Off")), None),
        (Some(("--action", "cycle")), None),
        (Some(("--action", "shutdown")), None),
        (Some(("--action", "status")), None),
    ];
    for (given, want) in cases {
        let mut parameters = Case { node: &[("--ip", "a")], shared: given.as_slice(), ..Case::default() }
            .parameters("w1")
            .expect("parameters");
        let found = take_action(&mut parameters);
        match want {
            Some(action) => assert_eq!(found.expect("an action"), action, "{given:?}"),
            None => assert_eq!(found.expect_err("no action").label(), "UnsupportedAction", "{given:?}"),
        }
        assert!(!parameters.contains_key("action"), "{given:?}: it is taken out");
    }
}

#[test]
fn debug_shows_no_value() {
    let case = Case {
        shared: &[("--password", "hunter1")],
        node: &[("--ip", "hunter2")],
        node_secret: &[("--x", "hunter3")],
        ..Case::default()
    };
    let debug = format!("{:?} {:?}", case.parameters("w1").expect("parameters"), case.secrets());
    assert!(!debug.contains("hunter"), "{debug}");
}

impl Case<'_> {
    fn parameters(&self, node: &str) -> Result<Parameters, Error> {
        parameters(&self.spec().own_agent(), &self.secrets(), node)
    }

    fn spec(&self) -> FenceAgentsRemediationSpec {
        let mut spec: FenceAgentsRemediationSpec =
            serde_json::from_value(serde_json::json!({"agent": "fence_redfish"})).expect("a spec");
        spec.shared_parameters.0 = owned(self.shared);
        for (nodes, given) in [(&["w1", "w2"][..], self.node), (&["w2"][..], self.only_w2)] {
            for (name, value) in given {
                let values = nodes.iter().map(|node| ((*node).to_owned(), (*value).to_owned()));
                spec.node_parameters.0.entry((*name).to_owned()).or_default().extend(values);
            }
        }
        spec
    }

    fn secrets(&self) -> Secrets {
        let secret = |name: &str, given: Given| {
            let values = owned(given).into_iter().map(|(key, value)| (key, value.into())).collect();
            (!given.is_empty()).then(|| SecretValues { name: name.into(), values })
        };
        Secrets { shared: secret("shared", self.shared_secret), node: secret("node", self.node_secret), ca: None }
    }
}

fn owned(given: Given) -> BTreeMap<String, String> {
    given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

use std::sync::Arc;

use agents::metadata::Role;
use secrecy::ExposeSecret;

use super::*;

/// Agents as they describe themselves: a PDU, one with an old set of names, a cloud, and one that cuts a port.
pub(in crate::resolve) fn catalogue() -> BTreeMap<String, Arc<Metadata>> {
    let parameter = |name: &str, kind: &str, more: &str| {
        format!(r#"<parameter name="{name}" {more}><getopt mixed="--{name}"/><content {kind}/></parameter>"#)
    };
    let text = |name: &str, more: &str| parameter(name, r#"type="string""#, more);
    let account = text("username", r#"required="1" obsoletes="login""#) + &text("login", r#"deprecated="1""#);
    let account = account + &text("password", "") + &text("password_script", "");
    let pdu = [
        r#"<parameter name="ip" required="1" obsoletes="ipaddr"><getopt mixed="-a, --ip=[ip]"/></parameter>"#
            .to_owned(),
        r#"<parameter name="community"><getopt mixed="-c, --community=[c]"/></parameter>"#.to_owned(),
        r#"<parameter name="snmpget_path"><getopt mixed="-g, --snmpget-path=[p]"/></parameter>"#.to_owned(),
        r#"<parameter name="snmp_version"><content type="select"><option value="1"/><option value="2c"/></content>
           </parameter>"#
            .to_owned(),
        text("ipaddr", r#"deprecated="1""#),
        parameter("ipport", r#"type="integer" default="161""#, ""),
        text("plug", r#"required="1" obsoletes="port""#),
        text("port", r#"deprecated="1""#),
        parameter("power_wait", r#"type="second" default="0""#, ""),
        parameter("retry_on", r#"type="integer" default="1""#, ""),
        parameter("ssl_insecure", r#"type="boolean""#, ""),
        parameter("lanplus", r#"type="boolean" default="1""#, ""),
        parameter("missing_as_off", r#"type="boolean""#, ""),
        account,
    ];
    let old = [text("ipaddr", r#"required="1""#), text("port", ""), text("action", r#"required="1""#)];
    let cloud = [text("plug", r#"required="1""#), text("zone", ""), text("token", ""), text("token_file", "")];
    let actions = |names: &[&str]| -> String { names.iter().map(|n| format!(r#"<action name="{n}"/>"#)).collect() };
    let power = actions(&["on", "off", "reboot", "status"]);
    let agent = |name: &str, parameters: &[String], actions: &str| {
        let xml = format!(
            "<resource-agent><parameters>{}</parameters><actions>{actions}</actions></resource-agent>",
            parameters.concat()
        );
        (name.to_owned(), Arc::new(Metadata::parse(name, &xml).expect("metadata")))
    };
    BTreeMap::from([
        agent("fence_pdu", &pdu, &power),
        agent("fence_old", &old, &power),
        agent("fence_cloud", &cloud, &power),
        agent("fence_port", &pdu, &actions(&["on", "off", "status"])),
    ])
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn read(agent: &str, pairs: Pairs, allow_unsafe: bool) -> Result<(Target, Given), Error> {
    let parameters = pairs.iter().map(|(name, text)| (names::canonical(name), Value::of_spec(name, text)));
    device(&catalogue()[agent], &parameters.collect(), allow_unsafe)
}

#[test]
fn names_are_the_agents_own() {
    let cases: &[(&str, Pairs, &str, Option<&str>, Pairs)] = &[
        (
            "fence_pdu",
            &[("--ip", "pdu"), ("-n", "3"), ("--login", "u"), ("-p", "x"), ("-c", "c"), ("--power-wait", "2.5")],
            "pdu",
            Some("3"),
            &[("community", "c"), ("password", "x"), ("power_wait", "2.5"), ("username", "u")],
        ),
        (
            "fence_pdu",
            &[("ipaddr", "fd00::1"), ("ipport", "162"), ("port", "a=b"), ("username", "u"), ("delay", "9"), ("-v", "")],
            "[fd00::1]:162",
            Some("plug=a%3Db"),
            &[("username", "u")],
        ),
        (
            "fence_pdu",
            &[("ip", "p"), ("plug", "1"), ("username", "u"), ("ssl_insecure", "no"), ("--lanplus", "0")],
            "p",
            Some("1"),
            &[("lanplus", "0"), ("username", "u")],
        ),
        (
            "fence_pdu",
            &[("ip", "p"), ("plug", "1"), ("username", "u"), ("ssl_insecure", ""), ("--lanplus", "yes")],
            "p",
            Some("1"),
            &[("lanplus", "1"), ("ssl_insecure", "1"), ("username", "u")],
        ),
        ("fence_old", &[("--ip", "h"), ("--plug", "7")], "h", Some("7"), &[]),
        (
            "fence_cloud",
            &[("--plug", "vm-1"), ("--zone", "eu 1"), ("--token", "t")],
            "",
            Some("plug=vm-1&zone=eu+1"),
            &[("token", "t")],
        ),
    ];
    for (agent, pairs, address, plug, values) in cases {
        let (target, given) = read(agent, pairs, false).expect(agent);
        assert_eq!((target.address().as_str(), target.plug().as_deref()), (*address, *plug), "{pairs:?}");
        let found: Vec<_> = given.values.iter().map(|(name, text)| (name.as_str(), text.expose_secret())).collect();
        assert_eq!(found, *values, "{pairs:?}");
    }
    let (_, given) = read("fence_old", &[("--ip", "h"), ("--plug", "7")], false).expect("an order");
    assert_eq!((given.ip.as_deref(), given.plug.as_deref()), (Some("ipaddr"), Some("port")));
}

#[test]
fn what_an_agent_does_not_understand_is_refused() {
    let good: Pairs = &[("ip", "pdu"), ("plug", "3"), ("username", "u")];
    let cases: &[(Pairs, &str)] = &[
        (&[("--nonsense", "hunter2")], "UnknownParameter"),
        (&[("-x", "hunter2")], "UnknownParameter"),
        (&[("option", "status")], "UnknownParameter"),
        (&[("--password-script", "hunter2")], "RefusedParameter"),
        (&[("-g", "hunter2")], "RefusedParameter"),
        (&[("snmpget_path", "hunter2")], "RefusedParameter"),
        (&[("missing_as_off", "hunter2")], "RefusedParameter"),
        (&[("--version", "hunter2")], "RefusedParameter"),
        (&[("-c", "hunter2"), ("community", "x")], "DuplicateParameter"),
        (&[("ipport", "hunter2")], "InvalidParameter"),
        (&[("ipport", "0")], "InvalidParameter"),
        (&[("retry_on", "hunter2")], "InvalidParameter"),
        (&[("power_wait", "-1")], "InvalidParameter"),
        (&[("ssl_insecure", "hunter2")], "InvalidParameter"),
        (&[("snmp_version", "hunter2")], "InvalidParameter"),
        (&[("password", "hunter2\naction=on")], "InvalidParameter"),
        (&[("password", "\"hunter2\"")], "InvalidParameter"),
        (&[("password", "hunter2 ")], "InvalidParameter"),
    ];
    for (more, label) in cases {
        let error = read("fence_pdu", &[good, more].concat(), false).expect_err(label);
        assert_eq!(error.label(), *label, "{more:?}: {error}");
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error}");
    }
    let error = read("fence_pdu", &[("ip", "pdu"), ("username", "")], false).expect_err("no plug");
    assert_eq!(error.to_string(), "invalid spec: mandatory parameters are missing: --plug, --username");
    let error = read("fence_old", &[("ip", "h:1"), ("plug", "1")], false).expect_err("no port");
    assert_eq!(error.label(), "InvalidParameter");
}

/// What makes an agent lie is refused also where everything else is allowed.
#[test]
fn the_operator_may_be_told_to_obey() {
    let good: Pairs = &[("ip", "pdu"), ("plug", "3"), ("username", "u")];
    for name in ["password_script", "-g"] {
        let (_, given) = read("fence_pdu", &[good, &[(name, "/bin/x")]].concat(), true).expect(name);
        assert!(given.values.values().any(|text| text.expose_secret() == "/bin/x"), "{name}");
    }
    for name in ["missing_as_off", "--help", "-V"] {
        let error = read("fence_pdu", &[good, &[(name, "1")]].concat(), true).expect_err(name);
        assert_eq!(error.label(), "RefusedParameter", "{name}");
    }
    assert!(matches!(catalogue()["fence_port"].role(), Role::Fabric { .. }));
}

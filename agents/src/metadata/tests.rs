use proptest::prelude::*;

use super::*;

fn xml(parameters: &str, actions: &str) -> String {
    format!(
        "<?xml version=\"1.0\" ?>\n<resource-agent name=\"fence_x\" shortdesc=\"x\"><symlink name=\"a\"/>\
         <symlink name=\"b\"/><longdesc>a &lt;b&gt;</longdesc><parameters>{parameters}</parameters>\
         <actions>{actions}</actions></resource-agent>"
    )
}

fn actions(names: &[&str]) -> String {
    names.iter().map(|name| format!("<action name=\"{name}\"/>")).collect()
}

#[test]
fn a_parameter_is_found_by_all_its_names() {
    let parameters = r#"
        <parameter name="ip" unique="0" required="1" obsoletes="ipaddr">
          <getopt mixed="-a, --ip=[ip]"/><content type="string"/><shortdesc lang="en">x</shortdesc></parameter>
        <parameter name="ipaddr" required="1" deprecated="1">
          <getopt mixed="-a, --ip=[ip]"/><content type="string"/></parameter>
        <parameter name="snmp_version" required="0"><getopt mixed="-d, --snmp-version=[version]"/>
          <content type="select" default="1"><option value="1"/><option value="2c"/></content></parameter>"#;
    let metadata = Metadata::parse("fence_x", &xml(parameters, "")).expect("metadata");
    let name = |written| metadata.parameter(written).map(|parameter| parameter.name.as_str());
    for written in ["ip", "--ip", "-a", "ipaddr", "--ipaddr"] {
        assert_eq!(name(written), Some("ip"), "{written}");
    }
    for written in ["snmp_version", "--snmp-version", "snmp-version", "-d"] {
        assert_eq!(name(written), Some("snmp_version"), "{written}");
    }
    for written in ["", "-", "--", "a", "-x", "IP", "version"] {
        assert_eq!(name(written), None, "{written}");
    }
    let version = metadata.parameter("-d").expect("one");
    assert_eq!(version.kind, Kind::Select(vec!["1".into(), "2c".into()]));
    assert_eq!(version.default.as_deref(), Some("1"));
}

/// (18): what cuts a port or a reservation is no power switch.
#[test]
fn actions_make_a_power_switch() {
    let role = |xml: &str| Metadata::parse("fence_x", xml).expect("metadata").role();
    let all = ["off", "on", "status", "reboot"];
    assert_eq!(role(&xml("", &actions(&all))), Role::Power);
    for (lacks, want) in [("off", "other"), ("on", "other"), ("status", "other"), ("reboot", "fabric")] {
        let rest: Vec<_> = all.into_iter().filter(|name| *name != lacks).collect();
        let found = match role(&xml("", &actions(&rest))) {
            Role::Power => "power",
            Role::Fabric { .. } => "fabric",
            Role::Other { .. } => "other",
        };
        assert_eq!(found, want, "without {lacks}");
    }
    let automatic = r#"<action name="on" on_target="1" automatic="1"/>"#.to_owned() + &actions(&all);
    assert!(matches!(role(&xml("", &automatic)), Role::Fabric { .. }));
    let sbd = Metadata::parse("fence_sbd", &xml("", &actions(&all))).expect("metadata");
    assert!(matches!(sbd.role(), Role::Other { .. }));
}

#[test]
fn what_is_no_metadata_is_refused() {
    let many: String = (0..=MAX_PARAMETERS).map(|i| format!("<parameter name=\"p{i}\"/>")).collect();
    let long = format!("<!--{}-->{}", "x".repeat(MAX_BYTES), xml("", ""));
    let deep = "<a>".repeat(20_000);
    let bombs = "<!DOCTYPE r [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><resource-agent name=\"&b;\"/>";
    let named = xml("<parameter name=\"a=b\nc\"/>", "");
    for bad in ["", "usage:", "<resource-agent/>", &deep, bombs, &many, &xml(&many, ""), &long, &named] {
        let error = Metadata::parse("fence_x", bad).expect_err(&bad[..bad.len().min(60)]);
        assert_eq!((error.label(), error.may_pass()), ("AgentUnfit", false));
        assert!(error.to_string().len() < 500 && !error.to_string().contains('\n'), "{error}");
    }
}

/// What was found odd once: read without a panic ever after. One document a line.
#[test]
fn the_corpus_is_read_without_a_panic() {
    for line in include_str!("corpus.txt").lines() {
        if let Ok(metadata) = Metadata::parse("fence_x", line) {
            let _ = (metadata.role(), metadata.parameter("--ip"), metadata.parameter("-a"), metadata.parameter(""));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any text, and any order of the pieces that metadata are made of: an answer or an error, within the caps.
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}", pieces in prop::collection::vec(0..PIECES.len(), 0..40), name in ".{0,8}") {
        let spliced: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        let whole = xml(&spliced, &actions(&["on", "off"]));
        for xml in [&text, &spliced, &whole, &format!("{spliced}{text}")] {
            if let Ok(metadata) = Metadata::parse("fence_x", xml) {
                prop_assert!(metadata.parameters.len() <= MAX_PARAMETERS && metadata.actions.len() <= MAX_ACTIONS);
                prop_assert!(metadata.parameters.iter().all(|parameter| is_name(&parameter.name)));
                let _ = (metadata.role(), metadata.parameter(&name));
            }
        }
    }
}

const PIECES: [&str; 16] = [
    "<resource-agent name=\"a\">",
    "</resource-agent>",
    "<parameters>",
    "</parameters>",
    "<parameter name=\"ip\" required=\"1\" obsoletes=\"ipaddr\">",
    "<parameter name=\"ipaddr\" deprecated=\"1\"/>",
    "</parameter>",
    "<getopt mixed=\"-a, --ip=[ip]\"/>",
    "<getopt mixed=\",,-,--,=[\"/>",
    "<content type=\"select\" default=\"&#x0;\"><option value=\"1\"/></content>",
    "<content type=\"boolean\"/>",
    "<actions>",
    "<action name=\"on\" automatic=\"1\"/>",
    "</actions>",
    "<![CDATA[ ]]>",
    "<!-- -- -->",
];

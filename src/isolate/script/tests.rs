use std::time::Duration;

use super::*;

/// Exit code and text must agree, and say one thing only.
#[test]
fn only_what_is_exactly_off_is_off() {
    let off = [(Some(2), "Status: OFF"), (Some(2), "Status: OFF\n"), (Some(2), "a warning\n Status: OFF \r\n")];
    let on = [(Some(0), "Status: ON\n")];
    let neither = [
        (Some(0), "Status: OFF\n"),
        (Some(1), "Status: OFF\n"),
        (None, "Status: OFF\n"),
        (Some(2), "Status: ON\n"),
        (Some(2), ""),
        (Some(0), ""),
        (Some(2), "Status: off\n"),
        (Some(2), "Status: OFFLINE\n"),
        (Some(2), "status: OFF\n"),
        (Some(2), "Success: Already OFF\n"),
        (Some(2), "Not Status: OFF\n"),
        (Some(2), "Status: OFF\nStatus: ON\n"),
        (Some(2), "Status: OFF\nStatus: OFF\n"),
        (Some(2), "Status: \u{202e}OFF\n"),
    ];
    for (code, text) in off {
        assert_eq!(power(code, text), Some(PowerState::Off), "{text:?}");
    }
    for (code, text) in on {
        assert_eq!(power(code, text), Some(PowerState::On), "{text:?}");
    }
    for (code, text) in neither {
        assert_eq!(power(code, text), None, "{code:?} {text:?}");
    }
}

#[test]
fn an_agent_is_a_name_in_the_directory() {
    let scripts = Scripts::new(Path::new("/agents"), false);
    assert_eq!(scripts.program("fence_apc_snmp").expect("a name"), Path::new("/agents/fence_apc_snmp"));
    for bad in ["", "fence_", "apc", "/usr/sbin/fence_x", "../fence_x", "fence_x/y", "fence_x ", "fence_x\n", "fence_ä"]
    {
        assert_eq!(scripts.program(bad).expect_err(bad).label(), "UnsupportedAgent");
    }
    assert!(scripts.program(&format!("fence_{}", "x".repeat(MAX_NAME))).is_err());
}

#[test]
fn the_order_says_which_machine() {
    let parameters = Parameters {
        values: BTreeMap::from([("passwd".to_owned(), "a=\"b\" c".into()), ("ssl".to_owned(), "1".into())]),
        ip: Some("ipaddr".to_owned()),
        ipport: Some("ipport".to_owned()),
        plug: Some("port".to_owned()),
    };
    let text = |address: &str, plug| {
        let input = input("fence_x", &Target::read(address, plug), &parameters);
        input.map(|text| text.expose_secret().to_owned())
    };
    let secret = "passwd=a=\"b\" c\nssl=1\n";
    assert_eq!(text("pdu:161", Some("3")).expect("lines"), format!("ipaddr=pdu\nipport=161\nport=3\n{secret}"));
    assert_eq!(text("", Some("zone=eu&plug=3")).expect("lines"), format!("port=3\nzone=eu\n{secret}"));
    for (address, plug) in [("pdu\naction=on", None), ("pdu", Some("3\n")), ("pdu", Some("zone=%0Aaction%3Don"))] {
        assert_eq!(text(address, plug).expect_err(address).label(), "BMCConfigInvalid");
    }
    let nameless = Parameters::default();
    let error = input("fence_x", &Target::read("pdu", None), &nameless).expect_err("no such parameter");
    assert_eq!(error.to_string(), "fence_x has no parameter for an address");
    let huge = BTreeMap::from([("passwd".to_owned(), "x".repeat(MAX_INPUT).into())]);
    assert!(input("fence_x", &Target::default(), &Parameters { values: huge, ..nameless }).is_err());
}

#[test]
fn secrets_are_taken_out() {
    let secrets: Vec<SecretString> = ["hunter2", "hunter2!", "it's", "a\"b"].map(|s| s.to_owned().into()).to_vec();
    let text = r#"u=hunter2 p=hunter2! q='it\'s' r=it's s="a\"b""#;
    let masked = masked(text, &secrets);
    assert_eq!(masked, r#"u=[hidden] p=[hidden] q='[hidden]' r=[hidden] s="[hidden]""#);
}

/// A broken agent is named, is asked again, and disturbs nobody.
#[tokio::test]
async fn metadata_are_asked_for_once() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testbed/agents");
    let scripts = Scripts::new(&dir, false);
    let by = Instant::now() + Duration::from_secs(30);
    let (first, second) = tokio::join!(scripts.metadata("fence_stub", by), scripts.metadata("fence_stub", by));
    let (first, second) = (first.expect("metadata"), second.expect("metadata"));
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.parameter("-n").map(|parameter| parameter.name.as_str()), Some("plug"));
    assert_eq!(scripts.metadata("fence_none", by).await.expect_err("none").label(), "UnsupportedAgent");

    // No script, but executable: it exits with 1.
    let scripts = Scripts::new(Path::new("/nowhere"), false);
    let error = scripts.ask("fence_false", Path::new("/bin/false"), by).await.expect_err("no metadata");
    assert_eq!(error.to_string(), "fence agent fence_false can't be used: it prints no metadata (exit code 1):");
    let error = scripts.ask("fence_x", Path::new("/nowhere/fence_x"), by).await.expect_err("not there");
    assert_eq!(error.label(), "AgentFailed");
}

/// Nothing is started at or after the deadline.
#[tokio::test]
async fn a_deadline_that_has_passed_starts_nothing() {
    let failure = run(Path::new("/bin/true"), &[], &SecretString::default(), Instant::now()).await;
    assert!(matches!(failure, Err(Failure::Deadline)));
}

/// A process that closes its pipes, and one that leaves its group with them open, end all the same.
#[tokio::test]
async fn pipes_do_not_decide_when_it_ends() {
    let by = Instant::now() + Duration::from_secs(30);
    let shell = Path::new("/bin/sh");
    let closes = run(shell, &["-c", "exec >&- 2>&-; exit 3"], &SecretString::default(), by).await.expect("an end");
    assert_eq!((closes.code, closes.stdout.as_str()), (Some(3), ""));
    let nothing = SecretString::default();
    let leaves = run(shell, &["-c", "setsid sleep 3 & echo said; exit 4"], &nothing, by).await.expect("an end");
    assert_eq!((leaves.code, leaves.stdout.as_str()), (Some(4), "said\n"));
    assert!(Instant::now() < by);
}

/// Nothing of our own environment is the script's.
#[tokio::test]
async fn the_environment_is_bare() {
    let by = Instant::now() + Duration::from_secs(30);
    let ended = run(Path::new("/usr/bin/env"), &[], &SecretString::default(), by).await.expect("an end");
    let mut names: Vec<_> = ended.stdout.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["LANG", "PATH"]);
}

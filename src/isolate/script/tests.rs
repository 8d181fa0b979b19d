use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// What scripts said, and what it means: verdict (`off`, `on`, `none`), exit code (`-`: a signal), and the output as a
/// JSON string. What is found odd is added there.
const CORPUS: &str = include_str!("corpus.txt");

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
fn the_corpus_means_what_it_says() {
    let mut cases = 0;
    for line in CORPUS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut parts = line.splitn(3, ' ');
        let (verdict, code, text) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().expect(line));
        let expected = match verdict {
            "off" => Some(PowerState::Off),
            "on" => Some(PowerState::On),
            "none" => None,
            other => panic!("{other}: no verdict"),
        };
        let text: String = serde_json::from_str(text).expect(line);
        assert_eq!(power(code.parse().ok(), &text), expected, "{line}");
        cases += 1;
    }
    assert!(cases > 30, "{cases}");
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

/// One that begins where another has not ended gives away neither.
#[test]
fn secrets_that_run_into_each_other_are_taken_out() {
    let secrets: Vec<SecretString> = ["abcd", "cdefgh", "xx"].map(|s| s.to_owned().into()).to_vec();
    assert_eq!(masked("abcdefgh, xxx", &secrets), "[hidden], [hidden]");
}

const PIECES: &[&str] = &[
    "Status:",
    "status:",
    "OFF",
    "ON",
    "off",
    "UNKNOWN",
    " ",
    "\t",
    "\n",
    "\r\n",
    "\u{b}",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "\0",
    "Status: OFF",
    "Status: ON",
    "Status: OFF\n",
    "Success: Powered OFF\n",
    "WARNING:root:x\n",
];

/// Short, and of few letters, so that they meet, overlap, and look like what stands in their place.
const SECRET: &str = "[ab'\"\\\\ é\\[hide\\]]{2,5}";

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    /// Off is exit code 2 and one line that says so, on whatever else there is; On is exit code 0 and one line.
    #[test]
    fn off_is_said_by_code_and_by_one_line(
        code in prop_oneof![Just(None), (0..4).prop_map(Some), any::<i32>().prop_map(Some)],
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..10),
        text in any::<String>(),
    ) {
        for text in [pieces.concat(), text.clone(), format!("{text}\nStatus: OFF\n"), format!("Status: OFF\n{text}")] {
            let lines: Vec<_> = text.split('\n').map(str::trim).collect();
            let says = |what: &str| {
                let words = |line: &&str| line.strip_prefix("Status:").map(|rest| rest.trim().to_owned());
                let said: Vec<_> = lines.iter().filter_map(words).collect();
                said == [what]
            };
            let expected = match code {
                Some(2) if says("OFF") => Some(PowerState::Off),
                Some(0) if says("ON") => Some(PowerState::On),
                _ => None,
            };
            prop_assert_eq!(power(code, &text), expected, "{:?} {:?}", code, text);
        }
    }

    /// Nothing of a secret is shown, in whichever form; and what is no secret is.
    #[test]
    fn no_secret_is_shown(
        secrets in prop::collection::vec(SECRET, 0..4),
        parts in prop::collection::vec((any::<prop::sample::Index>(), 0..4usize, ".{0,3}"), 0..6),
    ) {
        let all: Vec<String> = secrets.iter().flat_map(|secret| forms(secret)).collect();
        let text: String = parts.iter().map(|(which, cut, other)| match all.is_empty() {
            true => other.clone(),
            // Cut off at its beginning, it runs on where the one before has ended.
            false => format!("{}{other}", which.get(&all).chars().skip(*cut).collect::<String>()),
        }).collect();
        let secrets: Vec<SecretString> = secrets.into_iter().map(Into::into).collect();
        let masked = masked(&text, &secrets);
        let shown: Vec<&str> = masked.split(HIDDEN).collect();
        for form in &all {
            prop_assert!(shown.iter().all(|shown| !shown.contains(form.as_str())), "{:?} in {:?}", form, masked);
        }
        if !all.iter().any(|form| text.contains(form.as_str())) {
            prop_assert_eq!(masked, text);
        }
    }

    /// The last words are one line of what was written, and there are some if anything was.
    #[test]
    fn last_words_are_a_line(
        stdout in prop::collection::vec(prop::sample::select(PIECES), 0..6),
        stderr in prop::collection::vec(prop::sample::select(PIECES), 0..6),
    ) {
        let (stdout, stderr) = (stdout.concat(), stderr.concat());
        let source = if stderr.trim().is_empty() { stdout.clone() } else { stderr.clone() };
        let ended = Ended { code: Some(1), stdout, stderr, spoke_at: Instant::now() };
        prop_assert_eq!(ended.last().is_empty(), source.trim().is_empty());
        prop_assert!(!ended.last().contains('\n') && source.trim_end().ends_with(ended.last()));
    }

    /// Nothing that an order says adds a line to what the script reads, or changes one.
    #[test]
    fn a_value_is_one_line(
        address in prop_oneof!["[a-z0-9.:]{0,12}".boxed(), any::<String>().boxed()],
        plug in prop::option::of(any::<String>()),
        values in prop::collection::btree_map("[a-z_]{1,8}", prop_oneof![any::<String>(), "[ab=\" \n]{0,6}"], 0..4),
    ) {
        let parameters = Parameters {
            values: values.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect(),
            ip: Some("ip".to_owned()),
            ipport: Some("ipport".to_owned()),
            plug: Some("plug".to_owned()),
        };
        let target = Target::read(&address, plug.as_deref());
        if let Ok(text) = input("fence_x", &target, &parameters) {
            let port = target.ipport.map(|port| port.to_string());
            let own = [("ip", &target.ip), ("ipport", &port), ("plug", &target.plug)];
            let own = own.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
            let others = target.others.iter().chain(&values).map(|(name, value)| (name.as_str(), value.as_str()));
            let expected: Vec<_> = own.chain(others).map(|(name, value)| format!("{name}={value}")).collect();
            let text = text.expose_secret();
            prop_assert_eq!(text.split_terminator('\n').collect::<Vec<_>>(), expected);
            prop_assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()));
        }
    }
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

//! Addresses, links, and the resources against anything that a BMC may send.

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::schema::{ActionInfo, Chassis, Collection, Manager, Resource, ServiceRoot, System, error_words, is_refusal};
use super::*;

/// What BMCs send, and what none should: bodies (`body`) and links (`link`), one a line.
const CORPUS: &str = include_str!("corpus.txt");

fn base(address: &str, port: Option<u16>) -> String {
    base_url(address, port, "/redfish/v1").map_or_else(|error| error.to_string(), |url| url.to_string())
}

#[test]
fn an_address_is_a_host_with_or_without_a_port() {
    assert_eq!(base("10.0.0.7", None), "https://10.0.0.7/redfish/v1");
    assert_eq!(base("bmc.example", Some(8443)), "https://bmc.example:8443/redfish/v1");
    assert_eq!(base("10.0.0.7:8443", None), "https://10.0.0.7:8443/redfish/v1");
    assert_eq!(base("10.0.0.7:8443", Some(8443)), "https://10.0.0.7:8443/redfish/v1");
    assert_eq!(base("fd00::7", None), "https://[fd00::7]/redfish/v1");
    assert_eq!(base("fd00::7", Some(8443)), "https://[fd00::7]:8443/redfish/v1");
    assert_eq!(base("[fd00::7]", None), "https://[fd00::7]/redfish/v1");
    assert_eq!(base("[fd00::7]:8443", None), "https://[fd00::7]:8443/redfish/v1");
}

#[test]
fn what_is_no_address_is_refused() {
    for (address, port) in [
        ("", None),
        ("https://bmc", None),
        ("bmc/path", None),
        ("user@bmc", None),
        ("bmc:x", None),
        ("b m c", None),
        ("bmc:1", Some(2)),
        ("[fd00::7", None),
        ("[fd00::7]8443", None),
        ("[fd00::7]x:8443", None),
        ("[fd00::7]:", None),
        ("[bmc]:1", None),
        ("bmc:", None),
        ("bmc:0", None),
        ("010.0.0.7", None),
        ("10.7", None),
        ("0x0a000007", None),
    ] {
        assert!(base(address, port).starts_with("the BMC's address"), "{address:?}: {}", base(address, port));
    }
    assert!(base_url("bmc", None, "redfish/v1").is_err());
}

#[test]
fn an_action_lies_under_its_system() {
    let url = |path: &str| Url::parse("https://bmc").and_then(|bmc| bmc.join(path)).expect("a URL");
    let part = |action: &str, system: &str| is_part_of(&url(action), &url(system));
    for system in ["/redfish/v1/Systems/1", "/redfish/v1/Systems/1/", "/redfish/v1/systems/1"] {
        assert!(part("/redfish/v1/Systems/1/Actions/ComputerSystem.Reset", system), "{system}");
        assert!(part("/redfish/v1/Systems/1/Actions/ComputerSystem.Reset/", system), "{system}");
        for elsewhere in [
            "/redfish/v1/Systems/2/Actions/ComputerSystem.Reset",
            "/redfish/v1/Systems/10/Actions/ComputerSystem.Reset",
            "/redfish/v1/Systems/1/../2/Actions/ComputerSystem.Reset",
            "/redfish/v1/Systems/1/%2e%2e/2/Actions/ComputerSystem.Reset",
            "/redfish/v1/Systems/1/..%2f2/Actions/ComputerSystem.Reset",
            "/redfish/v1/Systems/1/..%5C2/Actions/ComputerSystem.Reset",
            "/redfish/v1/Systems/1\\..\\2/Actions/ComputerSystem.Reset",
            "/redfish/v1/Managers/1/Actions/Manager.Reset",
            "/redfish/v1/Systems/1",
            "/redfish/v1/Systems/1/",
            "#",
            "?x",
            "/",
        ] {
            assert!(!part(elsewhere, system), "{elsewhere}");
        }
    }
}

#[test]
fn a_link_has_no_account_and_an_end() {
    let config = Config {
        base: Url::parse("https://bmc/redfish/v1").expect("a URL"),
        systems_uri: None,
        credentials: Credentials { username: "admin".into(), password: "s3cr3t".to_owned().into() },
        tls: Tls::Insecure,
    };
    for account in ["admin:s3cr3t@", "s3cr3t@", ":s3cr3t@"] {
        let uri = Some(format!("https://{account}bmc/redfish/v1/Systems/1"));
        let error = Redfish::new(Config { systems_uri: uri, ..config.clone() }).map(drop).expect_err("an account");
        assert_eq!(error.label(), "BMCForeignLink");
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
    }
    let long = Config { systems_uri: Some(format!("/{}", "x".repeat(256))), ..config };
    assert_eq!(Redfish::new(long).map(drop).expect_err("too long").label(), "BMCProtocolError");
}

#[test]
fn the_credentials_stay_on_the_bmc() {
    let config = |base: &str, systems_uri: Option<&str>| Config {
        base: Url::parse(base).expect("a URL"),
        systems_uri: systems_uri.map(str::to_owned),
        credentials: Credentials { username: "admin".into(), password: "s3cr3t".to_owned().into() },
        tls: Tls::Insecure,
    };
    let label = |config| Redfish::new(config).map(drop).map_err(|error| error.label());
    let bmc = "https://bmc:8443/redfish/v1";
    assert_eq!(label(config(bmc, Some("/redfish/v1/Systems/1"))), Ok(()));
    assert_eq!(label(config(bmc, Some("https://bmc:8443/redfish/v1/Systems/1"))), Ok(()));
    for elsewhere in ["https://bmc/redfish/v1/Systems/1", "http://bmc:8443/x", "//other/redfish/v1/Systems/1"] {
        assert_eq!(label(config(bmc, Some(elsewhere))), Err("BMCForeignLink"), "{elsewhere}");
    }
    assert_eq!(label(config("http://bmc/redfish/v1", None)), Err("BMCConfigInvalid"));
    assert_eq!(label(config("https://admin:s3cr3t@bmc/redfish/v1", None)), Err("BMCConfigInvalid"));
    assert!(!format!("{:?}", config(bmc, None)).contains("s3cr3t"));
}

fn corpus(kind: &str) -> Vec<&'static str> {
    let found: Vec<_> = CORPUS.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' ')).collect();
    assert!(found.len() > 20, "{kind}: {}", found.len());
    found
}

/// Reads a resource. What can't be read is said in few words, whatever they quote.
fn read<T: Resource>(body: &[u8]) -> Option<T> {
    schema::read(body).map_err(|error| assert!(fit_for_a_log(&clean(&error, 200)), "{error:?}")).ok()
}

fn fit_for_a_log(words: &str) -> bool {
    words.chars().count() <= 201 && !words.contains(char::is_control)
}

/// Lets everything that reads have a go at a body, and compares with what JSON itself says.
fn survey(body: &[u8]) {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        // A number out of range, or half a surrogate, where nobody looks.
        let is_json = serde_json::from_slice::<IgnoredAny>(body).is_ok();
        return assert!(is_json || read::<System>(body).is_none() && read::<Chassis>(body).is_none());
    };
    let says = |pointer: &str| json.pointer(pointer);
    let is_resource = |kind: &str| {
        says("").is_some_and(Value::is_object)
            && says("/error").is_none_or(Value::is_null)
            && says("/@odata.type").is_none_or(|said| said.as_str().is_none_or(|said| said.starts_with(kind)))
    };
    if let Some(system) = read::<System>(body) {
        assert!(is_resource("#ComputerSystem."));
        assert_eq!(system.power.as_deref(), says("/PowerState").and_then(Value::as_str));
        assert_eq!(system.uuid.as_deref(), says("/UUID").and_then(Value::as_str));
        // Within a resource serde may take an array for an object, by position. What it reads there are links, and those
        // are judged as such.
        let by_name = |path: &[&str]| path.iter().all(|pointer| says(pointer).is_none_or(Value::is_object));
        if by_name(&["/Actions", "/Actions/#ComputerSystem.Reset"]) {
            let target = system.actions.reset.and_then(|reset| reset.target);
            assert_eq!(target.as_deref(), says("/Actions/#ComputerSystem.Reset/target").and_then(Value::as_str));
        }
        if by_name(&["/Links"]) {
            let managers = says("/Links/ManagedBy").and_then(Value::as_array).map_or(0, Vec::len);
            assert_eq!(system.links.managed_by.len(), managers);
        }
    }
    if let Some(chassis) = read::<Chassis>(body) {
        assert!(is_resource("#Chassis."));
        assert_eq!(chassis.power.as_deref(), says("/PowerState").and_then(Value::as_str));
    }
    if let Some(manager) = read::<Manager>(body) {
        assert!(is_resource("#Manager."));
        if manager.model.as_deref() == Some("OpenBmc") {
            assert_eq!(products::recognise(&manager), Product::OpenBmc);
        }
    }
    if let Some(list) = read::<Collection>(body) {
        assert!(is_resource(""));
        let whole = says("/Members@odata.nextLink").is_none_or(Value::is_null)
            && says("/Members@odata.count")
                .and_then(Value::as_u64)
                .is_none_or(|count| count <= list.members.len() as u64);
        assert_eq!(list.is_partial(), !whole);
    }
    if let Some(root) = read::<ServiceRoot>(body) {
        assert!(is_resource(""));
        assert_eq!(root.systems.is_some(), says("/Systems").is_some_and(|link| !link.is_null()));
    }
    let _ = read::<ActionInfo>(body);
    let (code, message) = error_words(body);
    assert!(fit_for_a_log(&clean(&code, 200)) && fit_for_a_log(&clean(&message, 200)));
    // Without an error there is nothing that refuses.
    assert!(!is_refusal(body) || says("/error").is_some_and(|error| !error.is_null()));
}

const SYSTEM: &str = "https://bmc:8443/redfish/v1/Systems/1";

/// Follows a link of a BMC: our account goes nowhere but to that BMC, and an action that is taken for the system's leads
/// to nothing above it, however often a server may decode it.
fn follow(link: &str) {
    let system = Url::parse(SYSTEM).expect("a URL");
    let credentials = Credentials { username: "admin".into(), password: "s3cr3t".to_owned().into() };
    let channel = Channel::new(&system, &credentials, &Tls::Insecure).expect("a channel");
    match channel.resolve(&system, link, "testing") {
        Ok(url) => {
            assert!(link.len() <= 256 && url.as_str().starts_with("https://bmc:8443/"), "{link:?}: {url}");
            if is_part_of(&url, &system) {
                let path = url.path().to_ascii_lowercase().replace("%2f", "/").replace("%5c", "/").replace("%2e", ".");
                let rest = path.strip_prefix("/redfish/v1/systems/1/").expect("below the system");
                assert!(!rest.is_empty() && rest.split('/').all(|segment| segment != ".."), "{link:?}: {url}");
            }
        }
        Err(error) => assert!(error.to_string().chars().count() < 300 && !error.to_string().contains(char::is_control)),
    }
}

#[test]
fn the_corpus_is_survived() {
    for body in corpus("body").into_iter().map(str::as_bytes) {
        for end in 0..=body.len() {
            survey(&body[..end]);
        }
    }
    corpus("link").into_iter().for_each(follow);
}

/// JSON of the names and values that matter, in all the wrong places.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0u64..4).prop_map(Value::from),
        prop::sample::select(VALUES).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let name = prop::sample::select(NAMES).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

const NAMES: &[&str] = &[
    "@odata.id",
    "@odata.type",
    "error",
    "code",
    "message",
    "@Message.ExtendedInfo",
    "MessageId",
    "Message",
    "PowerState",
    "UUID",
    "Actions",
    "#ComputerSystem.Reset",
    "target",
    "ResetType@Redfish.AllowableValues",
    "@Redfish.ActionInfo",
    "Links",
    "Chassis",
    "ManagedBy",
    "Systems",
    "Members",
    "Members@odata.count",
    "Members@odata.nextLink",
    "Model",
    "Oem",
    "OpenBmc",
    "Parameters",
    "Name",
    "AllowableValues",
];

const VALUES: &[&str] = &[
    "On",
    "Off",
    "PoweringOff",
    "#ComputerSystem.v1_5_0.ComputerSystem",
    "#Chassis.v1_0_0.Chassis",
    "#Manager.v1_0_0.Manager",
    "Base.1.0.Success",
    "OpenBmc",
    "ResetType",
    "ForceOff",
    "/redfish/v1/Systems/1",
];

const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "1e999",
    "\"PowerState\":\"Off\"",
    "\"PowerState\":\"On\"",
    "\"error\"",
    "\"@odata.type\":\"#ComputerSystem.x\"",
    "\"Links\"",
    "\"\\ud800\"",
    "\u{feff}",
    " ",
];

const LINKS: &[&str] = &[
    "https:",
    "http:",
    "//",
    "/",
    "\\",
    "bmc",
    "bmc:8443",
    "evil",
    "admin",
    "@",
    ":",
    "..",
    ".",
    "%2e",
    "%2F",
    "%5c",
    "%25",
    "redfish/v1/Systems/1",
    "/redfish/v1/systems/1/",
    "Actions",
    "?",
    "#",
    " ",
    "\t",
    "\n",
    "[::1]",
    "\u{ff0f}",
    "\u{202e}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_body_is_too_much(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..24),
        (json, cut) in (json(), any::<prop::sample::Index>()),
    ) {
        survey(&bytes);
        let pieces = pieces.concat();
        survey(pieces.as_bytes());
        survey(format!("{{{pieces}}}").as_bytes());
        let text = json.to_string();
        survey(text.as_bytes());
        survey(&text.as_bytes()[..cut.index(text.len() + 1)]);
    }

    #[test]
    fn no_link_leads_away(pieces in prop::collection::vec(prop::sample::select(LINKS), 0..12), text in ".{0,40}") {
        follow(&text);
        follow(&pieces.concat());
        follow(&format!("/redfish/v1/Systems/1/{}", pieces.concat()));
        follow(&format!("{}{text}", pieces.concat()));
    }

    /// What is taken for an address is one: host and port, and no account, path or query.
    #[test]
    fn no_address_hides_anything(
        pieces in prop::collection::vec(prop::sample::select(LINKS), 0..5),
        text in ".{0,20}",
        port in prop::option::of(any::<u16>()),
    ) {
        for address in [pieces.concat(), text] {
            if let Ok(url) = base_url(&address, port, "/redfish/v1") {
                prop_assert_eq!((url.scheme(), url.path()), ("https", "/redfish/v1"));
                prop_assert!(url.username().is_empty() && url.password().is_none() && url.query().is_none());
                prop_assert!(port.is_none_or(|port| url.port_or_known_default() == Some(port)));
            }
        }
    }
}

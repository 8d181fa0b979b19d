//! From a remediation to an order, against an API server of our own that serves Secrets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use k8s_openapi::ByteString;
use kube::Config;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use agents::Tls;

mod far;
mod levels;

const UUID: &str = "4C4C4544-0042-3510-8052-B4C04F4E4231";

#[tokio::test]
async fn an_order_from_everywhere() {
    let api = Server::start(&[
        ("shared", &[("--password", "hunter2\n"), ("--username", "admin-{{.NodeName}}\r\n")]),
        ("of-w1", &[("--username", "root")]),
    ])
    .await;
    let far = remediation(json!({
        "agent": "fence_redfish",
        "sharedparameters": {"--ip": "bmc-{{.NodeName}}", "--action": "off", "--power-timeout": "30", "--verbose": ""},
        "nodeparameters": {"systems_uri": {"w1": "/redfish/v1/Systems/1"}, "--ipport": {"w1": "8443"}},
        "sharedSecretName": "shared",
        "nodeSecretNames": {"w1": "of-w1", "w2": "of-w2"}
    }));
    let resolved = api.resolve(&far, Some(UUID)).await.expect("an order");
    assert_eq!(
        one(&resolved).order,
        Order {
            agent: "fence_redfish".into(),
            driver: Driver::Native,
            address: "https://bmc-w1:8443/redfish/v1".into(),
            plug: Some("/redfish/v1/Systems/1".into()),
            system_uuid: Some(UUID.to_lowercase()),
        }
    );
    assert_eq!(resolved.action, Action::Off);
    let Some(Access::Redfish { credentials, tls }) = &one(&resolved).access else { panic!("{resolved:?}") };
    assert_eq!(credentials.username, "root");
    assert_eq!(credentials.password.expose_secret(), "hunter2", "without the newline");
    assert!(matches!(tls, Tls::Roots));
    assert_eq!(resolved.inputs, "generation 3, secret of-w1 at 7, secret shared at 7");
    assert_eq!(api.read(), ["of-w1", "shared"], "only this node's Secrets (W14)");
    let debug = format!("{resolved:?}");
    assert!(!debug.contains("hunter2") && !debug.contains("root"), "{debug}");
}

#[tokio::test]
async fn the_old_default_secret_is_used_where_it_is_there() {
    for (named, exists) in [(None, true), (None, false), (Some("fence-agents-credentials-shared"), false)] {
        let secrets: &[(&str, &[(&str, &str)])] =
            if exists { &[("fence-agents-credentials-shared", &[("--password", "x")])] } else { &[] };
        let api = Server::start(secrets).await;
        let mut far = remediation(json!({
            "agent": "fence_redfish",
            "sharedparameters": {"--ip": "{{.NodeName}}", "--username": "a"}
        }));
        far.spec.shared_secret_name = named.map(str::to_owned);
        let result = api.resolve(&far, None).await;
        match result {
            Ok(_) => assert!(exists, "{named:?}"),
            Err(error) => {
                assert!(!exists, "{named:?}: {error}");
                assert_eq!(error.to_string(), "invalid spec: mandatory parameters are missing: --password");
            }
        }
    }
}

#[tokio::test]
async fn identity_is_expected_only_where_there_is_one() {
    let api = Server::start(&[]).await;
    for (policy, uuid, want) in [
        ("Enforce", Some(UUID), Some(UUID.to_lowercase())),
        ("Enforce", None, None),
        ("Enforce", Some("00000000-0000-0000-0000-000000000000"), None),
        ("Enforce", Some("Not Specified"), None),
        ("Ignore", Some(UUID), None),
    ] {
        let mut far = plain();
        far.spec.proof = serde_json::from_value(json!({"identity": policy})).expect("a policy");
        let resolved = api.resolve(&far, uuid).await.expect("an order");
        assert_eq!(one(&resolved).order.system_uuid, want, "{policy} {uuid:?}");
    }
}

#[tokio::test]
async fn certificates_are_judged_as_the_spec_says() {
    let api = Server::start(&[("ca", &[("ca.crt", "PEM")]), ("empty", &[])]).await;
    let hex = "ab".repeat(32);
    let base64 = "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=";
    let pins = json!({"pinnedSHA256": [hex.to_uppercase(), base64]});
    let cases = [
        (json!({}), json!({}), "Roots"),
        (json!({"caSecretName": "ca"}), json!({}), "Ca"),
        (pins.clone(), json!({}), "Pins"),
        (json!({}), json!({"--ssl-insecure": ""}), "Insecure"),
        (json!({}), json!({"ssl_insecure": "YES"}), "Insecure"),
        (json!({}), json!({"--ssl-insecure": "0"}), "Roots"),
        (json!({}), json!({"--ssl-secure": "1", "--ssl": "1"}), "Roots"),
        (json!({}), json!({"--ssl-insecure": "maybe"}), "InvalidParameter"),
        (json!({}), json!({"--ssl-insecure": "", "--ssl-secure": ""}), "ConflictingParameters"),
        (json!({"caSecretName": "ca"}), json!({"--ssl-insecure": "1"}), "ConflictingParameters"),
        (pins, json!({"--ssl-insecure": "1"}), "ConflictingParameters"),
        (json!({"caSecretName": "ca", "pinnedSHA256": [hex]}), json!({}), "ConflictingParameters"),
        (json!({"pinnedSHA256": ["abcd"]}), json!({}), "InvalidParameter"),
        (json!({"pinnedSHA256": [""]}), json!({}), "InvalidParameter"),
        (json!({"caSecretName": "none"}), json!({}), "SecretNotFound"),
        (json!({"caSecretName": ""}), json!({}), "SecretNotFound"),
        (json!({"caSecretName": "empty"}), json!({}), "SecretInvalid"),
    ];
    for (tls, parameters, want) in cases {
        let mut far = plain();
        far.spec.tls = serde_json::from_value(tls.clone()).expect("a policy");
        far.spec.shared_parameters.0.extend(strings(&parameters));
        let found = match api.resolve(&far, None).await.map(|all| one(&all).access.clone().expect("a device")) {
            Ok(Access::Redfish { tls: Tls::Roots, .. }) => "Roots",
            Ok(Access::Redfish { tls: Tls::Insecure, .. }) => "Insecure",
            Ok(Access::Redfish { tls: Tls::Ca(pem), .. }) => {
                assert_eq!(pem, b"PEM");
                "Ca"
            }
            Ok(Access::Redfish { tls: Tls::Pins { spki_sha256 }, .. }) => {
                assert_eq!(spki_sha256, [[0xab; 32]; 2]);
                "Pins"
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => error.label(),
        };
        assert_eq!(found, want, "{tls} {parameters}");
    }
}

#[tokio::test]
async fn addresses() {
    let api = Server::start(&[]).await;
    let cases = [
        (json!({"--ip": "10.0.0.7"}), Ok("https://10.0.0.7/redfish/v1")),
        (json!({"--ip": "10.0.0.7:8443"}), Ok("https://10.0.0.7:8443/redfish/v1")),
        (json!({"--ip": "10.0.0.7", "-u": "8443"}), Ok("https://10.0.0.7:8443/redfish/v1")),
        (json!({"--ip": "fd00::7"}), Ok("https://[fd00::7]/redfish/v1")),
        (json!({"--ip": "[fd00::7]:8443"}), Ok("https://[fd00::7]:8443/redfish/v1")),
        (json!({"--ip": "bmc", "redfish_uri": "/rf/v1"}), Ok("https://bmc/rf/v1")),
        (json!({"--ip": "bmc:1", "--ipport": "2"}), Err("InvalidParameter")),
        (json!({"--ip": "https://bmc"}), Err("InvalidParameter")),
        (json!({"--ip": "bmc", "--ipport": "0"}), Err("InvalidParameter")),
        (json!({"--ip": "bmc", "--ipport": "65536"}), Err("InvalidParameter")),
        (json!({"--ip": "bmc", "--redfish-uri": "redfish"}), Err("InvalidParameter")),
        (json!({"--ip": "bmc", "--systems-uri": "https://a:b@c/"}), Err("InvalidParameter")),
        (json!({"--ip": "bmc", "--systems-uri": "//other/x"}), Err("InvalidParameter")),
        (json!({"--ip": "bmc", "--systems-uri": ""}), Err("InvalidParameter")),
        (json!({"--ip": ""}), Err("MissingParameter")),
    ];
    for (parameters, want) in cases {
        let mut far = plain();
        far.spec.node_parameters.0.clear();
        for (name, value) in strings(&parameters) {
            far.spec.node_parameters.0.insert(name, BTreeMap::from([("w1".to_owned(), value)]));
        }
        let found = api.resolve(&far, None).await;
        let found = found.as_ref().map(|all| one(all).order.address.as_str()).map_err(Error::label);
        assert_eq!(found, want, "{parameters}");
    }
}

#[tokio::test]
async fn names_that_are_not_obeyed() {
    let api = Server::start(&[]).await;
    let cases = [
        ("--nonsense", "UnknownParameter", "unknown parameter --nonsense of fence_redfish; known are --action, --ip"),
        ("--plug", "UnknownParameter", "--plug"),
        ("--method", "UnknownParameter", "--method"),
        ("--password-script", "RefusedParameter", "parameter --password-script is refused"),
        ("--gnutlscli_path", "RefusedParameter", "--gnutlscli_path"),
        ("--debug-file", "RefusedParameter", "--debug-file"),
        ("--version", "RefusedParameter", "--version"),
        ("--help", "RefusedParameter", "--help"),
        ("-o", "RefusedParameter", "write --action"),
    ];
    for (name, label, text) in cases {
        let mut far = plain();
        far.spec.shared_parameters.0.insert(name.into(), "hunter2".into());
        let error = api.resolve(&far, None).await.expect_err(name);
        assert_eq!(error.label(), label, "{name}");
        assert!(error.story().contains(text), "{}", error.story());
        assert!(!format!("{error:?} {}", error.story()).contains("hunter2"), "{name}");
    }
}

#[tokio::test]
async fn nothing_of_a_secret_is_in_an_error() {
    let bad: [(&str, &str); 7] = [
        ("--ip", "https://hunter2"),
        ("--ipport", "hunter2"),
        ("--systems-uri", "hunter2"),
        ("--redfish-uri", "hunter2"),
        ("--ssl-insecure", "hunter2"),
        ("--action", "hunter2"),
        ("--hunt", "hunter2"),
    ];
    for (name, value) in bad {
        let api = Server::start(&[("of-w1", &[(name, value), ("-l", "hunter3"), ("-p", "hunter4")])]).await;
        let mut far = remediation(json!({"agent": "fence_redfish", "nodeSecretNames": {"w1": "of-w1"}}));
        if name != "--ip" {
            far.spec.shared_parameters.0.insert("--ip".into(), "bmc".into());
        }
        let error = api.resolve(&far, None).await.expect_err(name);
        let shown = format!("{error:?} {error} {}", error.story());
        assert!(!shown.contains("hunter"), "{shown}");
    }
}

#[tokio::test]
async fn an_unknown_agent_reads_no_secret() {
    let api = Server::start(&[("shared", &[])]).await;
    for agent in ["fence_unheard_of", "fence_", "/usr/sbin/fence_redfish", "fence_redfish ", "../fence_redfish"] {
        let mut far = plain();
        far.spec.agent = agent.into();
        far.spec.shared_secret_name = Some("shared".into());
        for (driver, label) in [(DriverChoice::Auto, "UnsupportedAgent"), (DriverChoice::Native, "UnsupportedDriver")] {
            far.spec.driver = driver;
            let error = api.resolve(&far, None).await.expect_err(agent);
            assert_eq!(error.label(), label);
            assert!(error.to_string().contains(agent), "{error}");
        }
    }
    assert!(api.read().is_empty());
}

#[tokio::test]
async fn native_ipmi_has_upstreams_parameters() {
    let api = Server::start(&[]).await;
    let far = |parameters: &Value| {
        let mut far = plain();
        far.spec.agent = "fence_ipmilan".into();
        far.spec.shared_parameters.0.extend(strings(parameters));
        far
    };
    let with_ip = |ip: &str| {
        let mut far = far(&json!({}));
        far.spec.node_parameters.0 = BTreeMap::from([("--ip".into(), BTreeMap::from([("w1".into(), ip.into())]))]);
        far
    };
    for (ip, want) in [
        ("bmc", "bmc:623"),
        ("bmc:6230", "bmc:6230"),
        ("fd00::7", "[fd00::7]:623"),
        ("[fd00::7]", "[fd00::7]:623"),
        ("[fd00::7]:624", "[fd00::7]:624"),
    ] {
        let resolved = api.resolve(&with_ip(ip), Some(UUID)).await.expect(ip);
        let order = &one(&resolved).order;
        assert_eq!((order.address.as_str(), &order.plug), (want, &None));
        assert_eq!((order.driver, &order.system_uuid), (Driver::Native, &Some(UUID.to_lowercase())));
    }
    let all = json!({"-P": "1", "--cipher": "3", "-L": "OPERATOR", "--hexadecimal_kg": "0badcafe",
        "--ipport": "624", "--auth": "md5", "--method": "onoff", "--power-wait": "2", "--ipmitool-timeout": "2"});
    let resolved = api.resolve(&far(&all), None).await.expect("an order");
    let Some(Access::Ipmi { suite, privilege, kg, .. }) = &one(&resolved).access else { panic!("{resolved:?}") };
    assert_eq!((*suite, privilege.name(), kg.is_some()), (Some(3), "operator", true));
    assert!(!format!("{resolved:?} {:?}", one(&resolved).access).contains("0badcafe"));
    for (parameters, label, text) in [
        (json!({"--lanplus": "0"}), "RefusedParameter", "driver: Script"),
        (json!({"-P": "1", "lanplus": "1"}), "DuplicateParameter", ""),
        (json!({"--target": "0x20"}), "RefusedParameter", "driver: Script"),
        (json!({"--cipher": "0"}), "InvalidParameter", "driver: Script"),
        (json!({"--privlvl": "hunter2"}), "InvalidParameter", "--privlvl"),
        (json!({"--hexadecimal-kg": "hunter2"}), "InvalidParameter", ""),
        (json!({"--ipmitool-path": "/x"}), "RefusedParameter", ""),
        (json!({"--use-sudo": "0"}), "RefusedParameter", ""),
        (json!({"--systems-uri": "/x"}), "UnknownParameter", "of fence_ipmilan"),
    ] {
        let error = api.resolve(&far(&parameters), None).await.expect_err(label);
        assert_eq!(error.label(), label, "{parameters}");
        assert!(error.story().contains(text) && !error.story().contains("hunter2"), "{}", error.story());
    }
}

#[tokio::test]
async fn the_driver_is_native_where_there_is_one() {
    let api = Server::start(&[]).await;
    let mut far = plain();
    far.spec.shared_parameters.0.insert("--plug".into(), "3".into());
    far.spec.tls = None;
    for (agent, driver, want) in [
        ("fence_pdu", DriverChoice::Auto, Ok(Driver::Script)),
        ("fence_pdu", DriverChoice::Script, Ok(Driver::Script)),
        ("fence_pdu", DriverChoice::Native, Err("UnsupportedDriver")),
        ("fence_port", DriverChoice::Auto, Err("NotAPowerAgent")),
        ("fence_unheard_of", DriverChoice::Script, Err("UnsupportedAgent")),
    ] {
        far.spec.agent = agent.into();
        far.spec.driver = driver;
        let resolved = api.resolve(&far, Some(UUID)).await;
        let found = resolved.as_ref().map(|all| one(all).order.driver).map_err(Error::label);
        assert_eq!(found, want, "{agent} {driver:?}");
        if let Ok(resolved) = resolved {
            let order = &one(&resolved).order;
            assert_eq!((order.address.as_str(), order.plug.as_deref()), ("bmc", Some("3")));
            assert_eq!(order.system_uuid, None, "a script names no machine");
            assert!(!format!("{resolved:?}").contains("password"), "{resolved:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_secret_is_named_and_does_not_pass() {
    let api = Server::start(&[]).await;
    let mut far = plain();
    far.spec.shared_secret_name = Some("bmc".into());
    let error = api.resolve(&far, None).await.expect_err("no such Secret");
    assert_eq!((error.label(), error.may_pass()), ("SecretNotFound", false));
    assert_eq!(error.to_string(), "secret 'bmc' not found in namespace 'fencing'");

    far.spec.shared_secret_name = Some("../configmaps/x".into());
    assert_eq!(api.resolve(&far, None).await.expect_err("no name").label(), "SecretNotFound");
    assert_eq!(api.read(), ["bmc"], "a name that is none is not asked for");
}

#[tokio::test]
async fn troubles_of_the_api_server_pass() {
    let cases = [
        (Trouble::Status(403), "SecretForbidden"),
        (Trouble::Status(500), "APIServerError"),
        (Trouble::Garbage, "APIServerError"),
        (Trouble::Silence, "APIServerError"),
    ];
    for (trouble, label) in cases {
        let api = Server::troubled(trouble).await;
        let mut far = plain();
        far.spec.shared_secret_name = Some("bmc".into());
        let error = api.resolve_within(Duration::from_millis(300), &far, None).await.expect_err("trouble");
        assert_eq!((error.label(), error.may_pass()), (label, true), "{trouble:?}");
        assert!(error.story().contains("'bmc'"), "{}", error.story());
        assert!(!format!("{error:?} {}", error.story()).contains("hunter2"), "{trouble:?}");
    }
}

/// kube's typed calls would log the body.
#[tokio::test]
async fn an_answer_that_is_no_secret_is_not_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    tracing::info!("the log works");
    let api = Server::troubled(Trouble::Garbage).await;
    let mut far = plain();
    far.spec.shared_secret_name = Some("bmc".into());
    api.resolve(&far, None).await.expect_err("no Secret");
    let log = String::from_utf8(log.0.lock().expect("no panic").clone()).expect("text");
    assert!(log.contains("the log works") && !log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused() {
    let api = Server::start(&[("bmc", &[("--password", "\u{fffd}")])]).await;
    let mut far = plain();
    far.spec.shared_secret_name = Some("bmc".into());
    let error = api.resolve(&far, None).await.expect_err("not text");
    assert_eq!(error.to_string(), "secret 'bmc': key --password is not text (UTF-8)");
}

/// A remediation that resolves without any Secret.
fn plain() -> FenceAgentsRemediation {
    remediation(json!({
        "agent": "fence_redfish",
        "sharedparameters": {"--username": "a", "--password": "b"},
        "nodeparameters": {"--ip": {"w1": "bmc"}}
    }))
}

fn remediation(spec: Value) -> FenceAgentsRemediation {
    serde_json::from_value(json!({
        "apiVersion": "fence-agents-remediation.medik8s.io/v1alpha1",
        "kind": "FenceAgentsRemediation",
        "metadata": {"name": "w1", "namespace": "fencing", "generation": 3},
        "spec": spec
    }))
    .expect("a remediation")
}

/// The only device of the first level.
fn one(resolved: &Resolved) -> &Device {
    resolved.first().expect("a device")
}

fn strings(map: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(map.clone()).expect("a map of strings")
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Status(u16),
    /// An answer that is no Secret and quotes something secret.
    Garbage,
    /// No answer.
    Silence,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An API server that knows Secrets, and notes which were asked for.
struct Server {
    client: Client,
    state: Arc<Served>,
}

#[derive(Default)]
struct Served {
    secrets: BTreeMap<String, BTreeMap<String, ByteString>>,
    trouble: Option<Trouble>,
    read: Mutex<Vec<String>>,
}

impl Server {
    async fn start(secrets: &[(&str, &[(&str, &str)])]) -> Self {
        // U+FFFD stands for a byte that is no text.
        let bytes = |text: &str| ByteString(if text == "\u{fffd}" { vec![0xff] } else { text.into() });
        let values =
            |values: &[(&str, &str)]| values.iter().map(|(key, text)| ((*key).to_owned(), bytes(text))).collect();
        let secrets = secrets.iter().map(|(name, all)| ((*name).to_owned(), values(all))).collect();
        Self::serve(Served { secrets, ..Served::default() }).await
    }

    async fn troubled(trouble: Trouble) -> Self {
        Self::serve(Served { trouble: Some(trouble), ..Served::default() }).await
    }

    async fn serve(served: Served) -> Self {
        let state = Arc::new(served);
        let routes = Router::new().route("/api/v1/namespaces/{namespace}/secrets/{name}", get(secret));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(axum::serve(listener, routes.with_state(state.clone())).into_future());
        let mut config = Config::new(format!("http://{address}").parse().expect("a URL"));
        config.default_retry = false;
        Self { client: Client::try_from(config).expect("a client"), state }
    }

    async fn resolve(&self, far: &FenceAgentsRemediation, uuid: Option<&str>) -> Result<Resolved, Error> {
        self.resolve_within(Duration::from_secs(10), far, uuid).await
    }

    async fn resolve_within(
        &self,
        time: Duration,
        far: &FenceAgentsRemediation,
        uuid: Option<&str>,
    ) -> Result<Resolved, Error> {
        resolve(self.client.clone(), far, "w1", uuid, &script::tests::catalogue(), Instant::now() + time).await
    }

    async fn resolve_for(&self, far: &FenceAgentsRemediation, node: &str) -> Result<Resolved, Error> {
        let by = Instant::now() + Duration::from_secs(10);
        resolve(self.client.clone(), far, node, None, &script::tests::catalogue(), by).await
    }

    /// Which Secrets were asked for, in the order of their names.
    fn read(&self) -> Vec<String> {
        let mut read = self.state.read.lock().expect("no panic").clone();
        read.sort();
        read
    }
}

async fn secret(State(state): State<Arc<Served>>, Path((namespace, name)): Path<(String, String)>) -> Response {
    state.read.lock().expect("no panic").push(name.clone());
    assert_eq!(namespace, "fencing");
    let failure = |code: u16, reason: &str| {
        let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
            "message": "the message"});
        (StatusCode::from_u16(code).expect("a status"), Json(body)).into_response()
    };
    match (state.trouble, state.secrets.get(&name)) {
        (Some(Trouble::Status(code)), _) => failure(code, "Trouble"),
        (Some(Trouble::Garbage), _) => Json(json!({"data": {"--password": 1, "x": "hunter2"}})).into_response(),
        (Some(Trouble::Silence), _) => std::future::pending().await,
        (None, None) => failure(404, "NotFound"),
        (None, Some(data)) => {
            let metadata = json!({"name": name, "namespace": namespace, "resourceVersion": "7"});
            Json(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})).into_response()
        }
    }
}

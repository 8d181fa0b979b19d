//! The real sushy-emulator as the machines' BMC: somebody else's Redfish service, for conformance and for the demo.
//!
//! What it knows of power is kept equal to the [`Machine`]s in both directions:
//!
//! - It tells us each change by a PUT (sushy-tools calls that an external notification), before the request that causes
//!   or reveals it is answered.
//! - A change that was asked for happens there only when somebody reads the system. It tells us of the request too, so
//!   we read until the change has happened; else an off would land only when the controller looks.
//! - A machine that somebody else switched is switched there by an ordinary reset request.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::put;
use axum::{Json, Router};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::machine::Machine;
use crate::pki::{Authority, write_private};
use crate::process::Process;
use crate::scratch::Scratch;
use crate::{ports, setup};

const CONFIGURATION: &str = include_str!("../../emulators/sushy/emulator.conf");
const ADDRESS: &str = "127.0.0.1";
const USERNAME: &str = "admin";
/// Who a machine's power history says it was.
const BY: &str = "sushy";
/// Python needs about a second; this is for a machine that compiles at the same time.
const START: Duration = Duration::from_secs(60);
/// One request on loopback takes 30 ms, most of it TLS and Python.
const CALL: Duration = Duration::from_secs(10);
/// Between two readings of a system that still has a change before it.
const POLL: Duration = Duration::from_millis(50);

/// How the emulator is to behave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whole seconds from an accepted request to its effect.
    pub latency_seconds: u32,
}

/// A running sushy-emulator that serves a list of machines as Redfish systems; killed when dropped.
#[derive(Debug)]
pub struct Sushy {
    // In the order in which they are to end.
    _tasks: JoinSet<()>,
    _emulator: Process,
    client: Client,
    ca_pem: String,
    port: u16,
    _scratch: Scratch,
}

impl Sushy {
    /// Starts one that obeys at once.
    pub async fn start(machines: &[Arc<Machine>]) -> anyhow::Result<Self> {
        Self::start_with(machines, Options::default()).await
    }

    /// Starts one and waits until it answers. The first call ever installs it from PyPI.
    ///
    /// # Errors
    ///
    /// It ended or did not answer in time; the end of its log is in the message.
    pub async fn start_with(machines: &[Arc<Machine>], options: Options) -> anyhow::Result<Self> {
        let python = setup::python("emulators/sushy/requirements.txt").await?;
        let scratch = Scratch::new("sushy")?;
        let faces: Faces = Arc::new(machines.iter().map(|machine| (machine.uuid(), Face::new(machine))).collect());

        let listener = tokio::net::TcpListener::bind((ADDRESS, 0)).await.context("listening for sushy-emulator")?;
        let notify = format!("http://{}", listener.local_addr().context("listening for sushy-emulator")?);
        let mut tasks = JoinSet::new();
        let router = Router::new().route("/", put(notified)).with_state(Arc::clone(&faces));
        tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "sushy-emulator's changes are no longer heard");
            }
        });

        let port = ports::free_port()?;
        let password: SecretString = Uuid::new_v4().simple().to_string().into();
        let ca = Authority::new("ringfence testbed BMC")?;
        let server = ca.issue(&[ADDRESS])?;
        let systems: Vec<_> = faces.values().map(Face::describe).collect();
        let rack = json!({
            "port": port,
            "username": USERNAME,
            "password": password.expose_secret(),
            "latency": options.latency_seconds,
            "notify": notify,
            "systems": systems,
        });
        let dir = scratch.path();
        let file = |name: &str, content: SecretString| write_private(&dir.join(name), &content);
        file("rack.json", rack.to_string().into())?;
        file("server.crt", server.certificate.into())?;
        file("server.key", server.key)?;
        file("emulator.conf", CONFIGURATION.into())?;

        let mut command = Command::new(python.join("bin/sushy-emulator"));
        command.arg("--config").arg(dir.join("emulator.conf")).env("RINGFENCE_SUSHY", dir).env("NO_PROXY", ADDRESS);
        let mut emulator = Process::spawn("sushy-emulator", &mut command, &dir.join("log"))?;
        let client = Client::new(port, ca.pem(), password)?;
        emulator.until_ready(START, || async { client.root().await.is_ok() }).await?;

        for uuid in faces.keys().copied() {
            tasks.spawn(follow(Arc::clone(&faces), uuid, client.clone()));
        }
        Ok(Self { _tasks: tasks, _emulator: emulator, client, ca_pem: ca.pem().to_owned(), port, _scratch: scratch })
    }

    /// The address it listens on.
    pub fn address(&self) -> &'static str {
        ADDRESS
    }

    /// The TCP port it listens on, HTTPS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of a machine's system resource.
    pub fn systems_uri(&self, machine: &Machine) -> String {
        systems_uri(machine.uuid())
    }

    /// The authority of its certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The one user, who may do everything.
    pub fn username(&self) -> &'static str {
        USERNAME
    }

    /// That user's password.
    pub fn password(&self) -> &SecretString {
        &self.client.password
    }
}

/// One system of the emulator and the machine behind it.
#[derive(Debug)]
struct Face {
    machine: Arc<Machine>,
    shown: Mutex<Shown>,
    /// Something in `shown` has changed.
    told: Notify,
}

/// What the emulator last told of a system.
#[derive(Clone, Copy, Debug)]
struct Shown {
    on: bool,
    /// A change was asked for and has not happened yet.
    pending: bool,
}

type Faces = Arc<BTreeMap<Uuid, Face>>;

/// What makes a system equal to its machine.
#[derive(Clone, Copy, Debug)]
enum Due {
    Nothing,
    Read,
    Press { on: bool },
}

impl Face {
    fn new(machine: &Arc<Machine>) -> Self {
        let shown = Shown { on: machine.state().on, pending: false };
        Self { machine: Arc::clone(machine), shown: Mutex::new(shown), told: Notify::new() }
    }

    fn describe(&self) -> serde_json::Value {
        let shown = self.shown.lock().expect("no panic while held");
        json!({
            "uuid": self.machine.uuid(),
            "name": self.machine.name(),
            "power_state": if shown.on { "On" } else { "Off" },
        })
    }

    /// Takes what the emulator tells. Only a change switches the machine: the emulator repeats itself, and what it
    /// repeats may be older than somebody's hand on the power button.
    fn tell(&self, told: Shown) {
        let mut shown = self.shown.lock().expect("no panic while held");
        if told.on != shown.on {
            // Under the lock, else `due` could see the one changed and not the other, and undo it.
            self.machine.set_power(told.on, BY);
        }
        *shown = told;
        self.told.notify_one();
    }

    fn due(&self) -> Due {
        let shown = self.shown.lock().expect("no panic while held");
        let on = self.machine.state().on;
        match (shown.pending, shown.on == on) {
            (true, _) => Due::Read,
            (false, false) => Due::Press { on },
            (false, true) => Due::Nothing,
        }
    }
}

/// The fake driver's record of a system, as its notifications carry it.
#[derive(Deserialize)]
struct Notification {
    uuid: Uuid,
    power_state: String,
    #[serde(default)]
    pending_power: Option<serde_json::Value>,
}

async fn notified(State(faces): State<Faces>, Json(system): Json<Notification>) -> StatusCode {
    let Some(face) = faces.get(&system.uuid) else { return StatusCode::NOT_FOUND };
    face.tell(Shown { on: system.power_state == "On", pending: system.pending_power.is_some() });
    StatusCode::NO_CONTENT
}

/// Keeps a system and its machine equal, for ever.
async fn follow(faces: Faces, uuid: Uuid, client: Client) {
    let face = &faces[&uuid];
    let mut power = face.machine.watch();
    loop {
        let done = match face.due() {
            Due::Nothing => {
                tokio::select! {
                    biased;
                    () = face.told.notified() => {}
                    // Never an error: `face` keeps the machine.
                    _ = power.changed() => {}
                }
                continue;
            }
            Due::Read => client.read(uuid).await.map(drop),
            Due::Press { on } => client.reset(uuid, if on { "On" } else { "ForceOff" }).await,
        };
        if let Err(error) = done {
            tracing::warn!(
                machine = face.machine.name(),
                error = format!("{error:#}"),
                "sushy-emulator did not answer"
            );
        }
        if !matches!(face.due(), Due::Nothing) {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Just enough Redfish to keep the emulator going; the product's client is judged with it, so this isn't that one.
#[derive(Clone, Debug)]
struct Client {
    http: reqwest::Client,
    base: String,
    password: SecretString,
}

impl Client {
    fn new(port: u16, ca_pem: &str, password: SecretString) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).context("reading our own authority")?)?;
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .timeout(CALL)
            .build()
            .context("making an HTTP client")?;
        Ok(Self { http, base: format!("https://{ADDRESS}:{port}"), password })
    }

    async fn root(&self) -> anyhow::Result<()> {
        self.http.get(format!("{}/redfish/v1/", self.base)).send().await?.error_for_status()?;
        Ok(())
    }

    async fn read(&self, uuid: Uuid) -> anyhow::Result<serde_json::Value> {
        let request = self.http.get(format!("{}{}", self.base, systems_uri(uuid)));
        let request = request.basic_auth(USERNAME, Some(self.password.expose_secret()));
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    async fn reset(&self, uuid: Uuid, kind: &str) -> anyhow::Result<()> {
        let url = format!("{}{}/Actions/ComputerSystem.Reset", self.base, systems_uri(uuid));
        let request = self.http.post(url).basic_auth(USERNAME, Some(self.password.expose_secret()));
        request.json(&json!({"ResetType": kind})).send().await?.error_for_status()?;
        Ok(())
    }
}

fn systems_uri(uuid: Uuid) -> String {
    format!("/redfish/v1/Systems/{uuid}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_reset_switches_the_machine_and_the_power_button_shows() {
        let rack = [Machine::new("alpha"), Machine::new("beta")];
        let [alpha, beta] = &rack;
        let sushy = Sushy::start(&rack).await.unwrap();

        let system = sushy.client.read(alpha.uuid()).await.unwrap();
        assert_eq!((&system["PowerState"], &system["UUID"]), (&json!("On"), &json!(alpha.uuid())));
        assert_eq!((&system["Name"], &system["@odata.id"]), (&json!("alpha"), &json!(sushy.systems_uri(alpha))));

        // Nobody reads it after this but the testbed itself.
        sushy.client.reset(alpha.uuid(), "ForceOff").await.unwrap();
        until("alpha is off", || async { !alpha.state().on }).await;
        sushy.client.reset(alpha.uuid(), "On").await.unwrap();
        until("alpha is on", || async { alpha.state().on }).await;

        beta.set_power(false, "power button");
        until("beta is shown off", || async { shown(&sushy, beta).await == "Off" }).await;
        beta.set_power(true, "power button");
        until("beta is shown on", || async { shown(&sushy, beta).await == "On" }).await;

        assert_eq!(switched(alpha), [(false, "sushy".into()), (true, "sushy".into())]);
        assert_eq!(switched(beta), [(false, "power button".into()), (true, "power button".into())]);
    }

    #[tokio::test]
    async fn latency_delays_an_accepted_change() {
        let rack = [Machine::new("alpha")];
        let sushy = Sushy::start_with(&rack, Options { latency_seconds: 3 }).await.unwrap();
        let asked = std::time::Instant::now();
        sushy.client.reset(rack[0].uuid(), "ForceOff").await.unwrap();
        until("alpha is off", || async { !rack[0].state().on }).await;
        // It counts from the beginning of the second.
        assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
    }

    #[tokio::test]
    async fn it_asks_for_the_password() {
        let rack = [Machine::new("alpha")];
        let sushy = Sushy::start(&rack).await.unwrap();
        let stranger = Client { password: "wrong".into(), ..sushy.client.clone() };
        let error = stranger.read(rack[0].uuid()).await.unwrap_err();
        assert!(error.to_string().contains("401"), "{error:#}");
    }

    async fn shown(sushy: &Sushy, machine: &Machine) -> String {
        let system = sushy.client.read(machine.uuid()).await.unwrap();
        system["PowerState"].as_str().unwrap_or_default().to_owned()
    }

    fn switched(machine: &Machine) -> Vec<(bool, String)> {
        machine.history().into_iter().map(|change| (change.on, change.by)).collect()
    }

    async fn until<F: Future<Output = bool>>(what: &str, is: impl Fn() -> F) {
        wait::until(what, SOON, || async { Ok(is().await.then_some(())) }).await.unwrap();
    }
}

//! The real ipmi_sim (Debian's `openipmi`) as a machine's BMC: somebody else's IPMI, for conformance.
//!
//! It asks and tells about the power by a script; ours asks and tells the testbed, so that the [`Machine`] is all there
//! is of power. It knows suites 0 to 3 and 6, not 17.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use agents::ipmi::packet::{APP, BMC, CONSOLE, MAX_DATAGRAM, Message, encode_v15, parse_v15};
use agents::ipmi::{Config, Privilege, Quirks};
use agents::{Credentials, SystemUuid};
use anyhow::{Context, Result};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use crate::machine::Machine;
use crate::pki::write_private;
use crate::ports;
use crate::process::Process;
use crate::scratch::Scratch;

const LAN: &str = include_str!("../../emulators/ipmi_sim/lan.conf");
const EMULATION: &str = include_str!("../../emulators/ipmi_sim/bmc.emu");
const CHASSIS: &str = include_str!("../../emulators/ipmi_sim/chassis.sh");
/// Runs ipmi_sim, and ends it when our end of the pipe closes: it does not read its standard input itself.
const RUN: &str = r#"exec 3<&0; { cat <&3 >/dev/null; kill $$; } & exec 3<&-; exec "$@""#;
/// It starts in some 50 ms; this is for a machine that compiles at the same time.
const START: Duration = Duration::from_secs(30);
/// One probe on loopback.
const PROBE: Duration = Duration::from_millis(500);
/// The script asks as soon as it is connected.
const ASK: Duration = Duration::from_secs(10);

/// The account that may do everything.
pub const ADMINISTRATOR: &str = "admin";
/// The account that may switch.
pub const OPERATOR: &str = "oper";
/// The account that may only look.
pub const VIEWER: &str = "viewer";

/// How the chassis takes a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chassis {
    /// Does it.
    #[default]
    Obeys,
    /// Says that it did, and does nothing.
    Ignores,
    /// Refuses.
    Refuses,
}

/// A running ipmi_sim that is the BMC of one machine; killed when dropped.
#[derive(Debug)]
pub struct IpmiSim {
    // In the order in which they are to end.
    _emulator: Process,
    _chassis: JoinSet<()>,
    behaviour: watch::Sender<Chassis>,
    port: u16,
    password: SecretString,
    kg: Option<SecretString>,
    _scratch: Scratch,
}

impl IpmiSim {
    /// Starts one and waits until it answers. `kg` is hexadecimal: 32 digits, no more and no fewer.
    ///
    /// # Errors
    ///
    /// It is not installed, ended, or did not answer in time; the end of its log is in the message.
    pub async fn start(machine: &Arc<Machine>, kg: Option<SecretString>) -> Result<Self> {
        let scratch = Scratch::new("ipmi-sim")?;
        let dir = scratch.path();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listening for chassis.sh")?;
        let asked_at = listener.local_addr().context("listening for chassis.sh")?.port();
        let behaviour = watch::Sender::new(Chassis::default());
        let mut chassis = JoinSet::new();
        chassis.spawn(serve(listener, machine.clone(), behaviour.subscribe()));

        let port = ports::free_port()?;
        let mut password = Uuid::new_v4().simple().to_string();
        password.truncate(16);
        let lan = LAN
            .replace("@PORT@", &port.to_string())
            .replace("@GUID@", &machine.uuid().simple().to_string())
            .replace("@KEY@", &kg.as_ref().map(|kg| format!("bmc_key {}", kg.expose_secret())).unwrap_or_default())
            .replace("@CHASSIS@", &format!("/bin/bash {}", dir.join("chassis.sh").display()))
            .replace("@PASSWORD@", &password);
        write_private(&dir.join("lan.conf"), &lan.into())?;
        std::fs::write(dir.join("bmc.emu"), EMULATION).context("writing ipmi_sim's configuration")?;
        std::fs::write(dir.join("chassis.sh"), CHASSIS).context("writing ipmi_sim's script")?;
        std::fs::create_dir(dir.join("state")).context("making ipmi_sim's directory")?;

        let mut command = Command::new("sh");
        command.args(["-c", RUN, "sh", "ipmi_sim", "-n", "-c"]).arg(dir.join("lan.conf"));
        command.arg("-f").arg(dir.join("bmc.emu")).arg("-s").arg(dir.join("state"));
        command.env("RINGFENCE_CHASSIS", asked_at.to_string()).current_dir(dir);
        let mut emulator = Process::spawn("ipmi_sim", &mut command, &dir.join("log"))?;
        emulator.until_ready(START, || async { answers(port).await.unwrap_or(false) }).await?;
        let password = password.into();
        Ok(Self { _emulator: emulator, _chassis: chassis, behaviour, port, password, kg, _scratch: scratch })
    }

    /// The UDP port of 127.0.0.1 that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The password of all accounts.
    pub fn password(&self) -> &SecretString {
        &self.password
    }

    /// Changes how the chassis takes commands from now on.
    pub fn behave(&self, chassis: Chassis) {
        self.behaviour.send_replace(chassis);
    }

    /// What a native client is made from that logs in with an account.
    pub fn client_config(&self, username: &str, privilege: Privilege) -> Config {
        Config {
            address: "127.0.0.1".to_owned(),
            port: Some(self.port),
            credentials: Credentials { username: username.to_owned(), password: self.password.clone() },
            kg: self.kg.clone(),
            suite: Some(3),
            privilege,
            quirks: Quirks::default(),
        }
    }
}

/// The identity that a machine's BMC tells.
pub fn identity(machine: &Machine) -> Option<SystemUuid> {
    SystemUuid::parse(&machine.uuid().to_string())
}

/// Asks what any BMC answers to anybody: Get Channel Authentication Capabilities.
async fn answers(port: u16) -> Result<bool> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
    socket.connect(("127.0.0.1", port)).await?;
    let probe = Message { to: BMC, netfn: APP, from: CONSOLE, sequence: 1, command: 0x38, data: &[0x8e, 4] };
    socket.send(&encode_v15(&probe.encode())).await?;
    let mut buffer = [0; MAX_DATAGRAM];
    let length = timeout(PROBE, socket.recv(&mut buffer)).await??;
    Ok(parse_v15(&buffer[..length]).is_some())
}

/// Answers the script, for ever.
async fn serve(listener: TcpListener, machine: Arc<Machine>, behaviour: watch::Receiver<Chassis>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // It is called one at a time, and one that goes wrong shows in ipmi_sim's answer.
        let behaviour = *behaviour.borrow();
        let _ = timeout(ASK, converse(stream, &machine, behaviour)).await;
    }
}

async fn converse(stream: TcpStream, machine: &Machine, behaviour: Chassis) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let answer = match (line.trim(), behaviour) {
            ("get", _) => format!("power:{}\n", u8::from(machine.state().on)),
            ("set 0" | "set 1", Chassis::Refuses) => "no\n".to_owned(),
            ("set 0" | "set 1", Chassis::Ignores) => "ok\n".to_owned(),
            (set @ ("set 0" | "set 1"), Chassis::Obeys) => {
                machine.set_power(set == "set 1", "ipmi_sim");
                "ok\n".to_owned()
            }
            _ => "no\n".to_owned(),
        };
        stream.write_all(answer.as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

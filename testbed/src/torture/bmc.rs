//! A machine's own BMC, of whatever kind, and what can be wrong with it.

use std::sync::Arc;
use std::time::Duration;

use agents::Command;
use anyhow::Result;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::bmc::outlets::{Misbehaviour, Outlets};
use crate::bmc::{ipmi, redfish};
use crate::machine::Machine;

/// Longer than the driver takes for one call (5 s): such an answer is none.
const BUSY: Duration = Duration::from_secs(6);

/// How a machine is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Redfish,
    Ipmi,
    /// A fence agent's script, and an outlet of a power strip.
    Script,
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Silent,
    Hangs,
    Errors,
    Busy,
    Ignores,
    Late(Duration),
    Refuses,
    SaysOff,
}

/// What is withheld, so that a remediation stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Looks,
    Off,
}

/// One machine's BMC.
pub(super) struct Bmc {
    face: Face,
    machine: Arc<Machine>,
    /// It says which machine it is.
    identity: bool,
}

enum Face {
    Redfish(redfish::Face),
    Ipmi(ipmi::Face),
    Script(Outlets),
}

impl Bmc {
    pub(super) async fn start(kind: Kind, machine: &Arc<Machine>, identity: bool) -> Result<Self> {
        let machines = std::slice::from_ref(machine);
        let face = match kind {
            Kind::Redfish => Face::Redfish(redfish::Face::start(machines).await?),
            Kind::Ipmi => Face::Ipmi(ipmi::Face::start(machines).await?),
            Kind::Script => Face::Script(Outlets::start(machines).await?),
        };
        let bmc = Self { face, machine: machine.clone(), identity };
        bmc.trouble(None);
        Ok(bmc)
    }

    /// Lets it have this trouble, and no other.
    pub(super) fn trouble(&self, trouble: Option<Trouble>) {
        match &self.face {
            Face::Redfish(face) => {
                let unnamed = (!self.identity).then_some(redfish::Fault::NoIdentity);
                face.set_faults(&self.machine, trouble.map(redfish_fault).into_iter().chain(unnamed));
            }
            Face::Ipmi(face) => {
                let unnamed = (!self.identity).then_some(ipmi::Fault::NoIdentity);
                face.set_faults(&self.machine, trouble.map(ipmi_fault).into_iter().chain(unnamed));
            }
            Face::Script(outlets) => outlets.set_misbehaviour(trouble.and_then(misbehaviour)),
        }
    }

    /// Withholds its answers of this kind. A script's can't be.
    pub(super) fn hold(&self, held: Held) {
        match &self.face {
            Face::Redfish(face) => face.hold(
                &self.machine,
                match held {
                    Held::Looks => redfish::What::System,
                    Held::Off => redfish::What::Reset(Command::Off),
                },
            ),
            Face::Ipmi(face) => face.hold(
                &self.machine,
                match held {
                    Held::Looks => ipmi::What::Status,
                    Held::Off => ipmi::What::Control(Command::Off),
                },
            ),
            Face::Script(_) => {}
        }
    }

    /// Gives all answers that were withheld.
    pub(super) fn release(&self) {
        match &self.face {
            Face::Redfish(face) => face.release(&self.machine),
            Face::Ipmi(face) => face.release(&self.machine),
            Face::Script(_) => {}
        }
    }

    /// Waits until it was asked for its power, or told to switch it off.
    pub(super) async fn asked(&self, held: Held, within: Duration) -> Result<()> {
        match (&self.face, held) {
            (Face::Redfish(face), Held::Looks) => face.wait_for(&self.machine, redfish::What::System, 1, within).await,
            (Face::Redfish(face), Held::Off) => {
                face.wait_for(&self.machine, redfish::What::Reset(Command::Off), 1, within).await
            }
            (Face::Ipmi(face), Held::Looks) => face.wait_for(&self.machine, ipmi::What::Status, 1, within).await,
            (Face::Ipmi(face), Held::Off) => {
                face.wait_for(&self.machine, ipmi::What::Control(Command::Off), 1, within).await
            }
            (Face::Script(_), Held::Looks | Held::Off) => Ok(()),
        }
    }

    /// The commands that came, with their times; a strip notes none.
    pub(super) fn commands(&self) -> Vec<(Timestamp, Command)> {
        match &self.face {
            Face::Redfish(face) => face.commands(&self.machine),
            Face::Ipmi(face) => face.commands(&self.machine),
            Face::Script(_) => Vec::new(),
        }
    }

    /// What fences through it, in a remediation's spec.
    pub(super) fn spec(&self, secret: &str, authority: &str) -> Value {
        let node = self.machine.name();
        match &self.face {
            Face::Redfish(face) => json!({
                "agent": "fence_redfish",
                "sharedparameters": {"--ip": "127.0.0.1"},
                "nodeparameters": {
                    "--ipport": {node: face.port().to_string()},
                    "--systems-uri": {node: face.systems_uri(&self.machine)},
                },
                "sharedSecretName": secret,
                "tls": {"caSecretName": authority},
            }),
            Face::Ipmi(face) => json!({
                "agent": "fence_ipmilan",
                "sharedparameters": {"--ip": "127.0.0.1", "--lanplus": "1"},
                "nodeparameters": {"--ipport": {node: face.port(&self.machine).to_string()}},
                "sharedSecretName": secret,
            }),
            Face::Script(outlets) => json!({
                "agent": "fence_stub",
                "sharedparameters": {"--ip": "127.0.0.1", "--ipport": outlets.address().port().to_string()},
                "nodeparameters": {"--plug": {node: node}},
                "sharedSecretName": secret,
            }),
        }
    }

    /// The data of its Secret.
    pub(super) fn credentials(&self) -> Value {
        let (username, password) = match &self.face {
            Face::Redfish(face) => (face.username(), face.password()),
            Face::Ipmi(face) => (face.username(), face.password()),
            Face::Script(outlets) => (outlets.username(), outlets.password()),
        };
        json!({"--username": username, "--password": password.expose_secret()})
    }

    /// The authority of its certificate, if it has one.
    pub(super) fn authority(&self) -> Option<&str> {
        match &self.face {
            Face::Redfish(face) => Some(face.ca_pem()),
            Face::Ipmi(_) | Face::Script(_) => None,
        }
    }
}

fn redfish_fault(trouble: Trouble) -> redfish::Fault {
    match trouble {
        Trouble::Silent => redfish::Fault::Dead,
        Trouble::Hangs => redfish::Fault::Hang,
        Trouble::Errors => redfish::Fault::Fails(500),
        Trouble::Busy => redfish::Fault::Unavailable { retry_after: Some(Duration::from_secs(1)) },
        Trouble::Ignores => redfish::Fault::LieOff,
        Trouble::Late(time) => redfish::Fault::Late(time),
        Trouble::Refuses => redfish::Fault::Refuse { status: 400, times: None },
        Trouble::SaysOff => redfish::Fault::HearsayOff,
    }
}

fn ipmi_fault(trouble: Trouble) -> ipmi::Fault {
    match trouble {
        Trouble::Silent => ipmi::Fault::Dead,
        Trouble::Hangs => ipmi::Fault::Hang,
        Trouble::Errors => ipmi::Fault::NoSessions,
        Trouble::Busy => ipmi::Fault::Busy(u32::MAX),
        Trouble::Ignores => ipmi::Fault::LieOff,
        Trouble::Late(time) => ipmi::Fault::Late(time),
        // FFh: unspecified error.
        Trouble::Refuses => ipmi::Fault::Refuse { code: 0xff, times: None },
        Trouble::SaysOff => ipmi::Fault::HearsayOff,
    }
}

/// A strip knows no lateness, and never lies about a plug that it has.
fn misbehaviour(trouble: Trouble) -> Option<Misbehaviour> {
    match trouble {
        Trouble::Silent | Trouble::Hangs => Some(Misbehaviour::Hangs),
        Trouble::Errors => Some(Misbehaviour::Exits(1)),
        Trouble::Busy => Some(Misbehaviour::Slow(BUSY)),
        Trouble::Ignores => Some(Misbehaviour::Ignores),
        Trouble::Refuses => Some(Misbehaviour::Refuses),
        Trouble::Late(_) | Trouble::SaysOff => None,
    }
}

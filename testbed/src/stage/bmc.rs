//! The BMC of a stage: somebody else's Redfish service, or the testbed's own.

use std::sync::Arc;

use anyhow::Result;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::bmc::redfish::Face;
use crate::bmc::sushy::Sushy;
use crate::machine::Machine;

/// Which BMC a stage has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The real sushy-emulator: a process of its own.
    Sushy,
    /// The testbed's own Redfish face: any number of them.
    Face,
}

/// A BMC that is up.
pub(super) enum Bmc {
    Sushy(Box<Sushy>),
    Face(Face),
}

impl Bmc {
    pub(super) async fn start(kind: Kind, machines: &[Arc<Machine>]) -> Result<Self> {
        Ok(match kind {
            Kind::Sushy => Self::Sushy(Box::new(Sushy::start(machines).await?)),
            Kind::Face => Self::Face(Face::start(machines).await?),
        })
    }

    pub(super) fn address(&self) -> String {
        match self {
            Self::Sushy(bmc) => bmc.address().to_owned(),
            Self::Face(bmc) => bmc.address().ip().to_string(),
        }
    }

    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Sushy(bmc) => bmc.port(),
            Self::Face(bmc) => bmc.port(),
        }
    }

    pub(super) fn systems_uri(&self, machine: &Machine) -> String {
        match self {
            Self::Sushy(bmc) => bmc.systems_uri(machine),
            Self::Face(bmc) => bmc.systems_uri(machine),
        }
    }

    pub(super) fn ca_pem(&self) -> &str {
        match self {
            Self::Sushy(bmc) => bmc.ca_pem(),
            Self::Face(bmc) => bmc.ca_pem(),
        }
    }

    /// The data of a remediation's Secret.
    pub(super) fn credentials(&self) -> Value {
        let (username, password) = match self {
            Self::Sushy(bmc) => (bmc.username(), bmc.password()),
            Self::Face(bmc) => (bmc.username(), bmc.password()),
        };
        json!({"--username": username, "--password": password.expose_secret()})
    }
}

//! What a BMC was asked.

use agents::Command;
use agents::ipmi::packet::{APP, CHASSIS};
use jiff::Timestamp;

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Something outside of any session: what the BMC can do.
    Probe,
    /// Open Session Request.
    Open,
    /// RAKP Message 1.
    Rakp1,
    /// RAKP Message 3.
    Rakp3,
    /// Set Session Privilege Level.
    Privilege,
    /// Get Chassis Status.
    Status,
    /// Get System GUID.
    Guid,
    /// Chassis Control: power down or power up.
    Control(Command),
    /// Close Session.
    Close,
    /// Anything else.
    Other,
}

impl What {
    /// The kind of a message in a session.
    pub(super) fn of(netfn: u8, command: u8, data: &[u8]) -> Self {
        match (netfn, command, data) {
            (APP, 0x3b, _) => Self::Privilege,
            (APP, 0x3c, _) => Self::Close,
            (APP, 0x37, _) => Self::Guid,
            (CHASSIS, 0x01, _) => Self::Status,
            (CHASSIS, 0x02, [0]) => Self::Control(Command::Off),
            (CHASSIS, 0x02, [1]) => Self::Control(Command::On),
            _ => Self::Other,
        }
    }
}

/// One datagram that made sense to a BMC. What was lost on the way to it is not among them; what was sent twice, twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it arrived.
    pub at: Timestamp,
    /// Whose BMC it arrived at.
    pub machine: String,
    /// What it asked.
    pub what: What,
}

//! What was asked of a face, and when.

use agents::Command;
use http::Method;
use jiff::Timestamp;

use super::tree;

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// GET of the service root.
    Root,
    /// GET of the list of systems.
    Systems,
    /// GET of a system.
    System,
    /// GET of a system's ActionInfo.
    ActionInfo,
    /// GET of a chassis.
    Chassis,
    /// GET of a manager.
    Manager,
    /// POST of a Reset with a type that we know.
    Reset(Command),
    /// Anything else.
    Other,
}

/// One request that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When its last byte arrived.
    pub at: Timestamp,
    /// The machine it was about. Requests about none in particular count for the only machine of a face, if there is one.
    pub machine: Option<String>,
    /// What was asked.
    pub what: What,
}

impl What {
    /// The command it is, if it is one.
    pub fn command(self) -> Option<Command> {
        match self {
            Self::Reset(command) => Some(command),
            Self::Root
            | Self::Systems
            | Self::System
            | Self::ActionInfo
            | Self::Chassis
            | Self::Manager
            | Self::Other => None,
        }
    }

    pub(super) fn of(method: &Method, path: &str, body: &[u8]) -> Self {
        match (method, tree::segments(path).as_slice()) {
            (&Method::GET, []) => Self::Root,
            (&Method::GET, ["Systems"]) => Self::Systems,
            (&Method::GET, ["Systems", _]) => Self::System,
            (&Method::GET, ["Systems", _, "ResetActionInfo"]) => Self::ActionInfo,
            (&Method::GET, ["Chassis", _]) => Self::Chassis,
            (&Method::GET, ["Managers", _]) => Self::Manager,
            (&Method::POST, ["Systems", _, "Actions", "ComputerSystem.Reset"]) => Self::reset(body),
            _ => Self::Other,
        }
    }

    fn reset(body: &[u8]) -> Self {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        match body["ResetType"].as_str() {
            Some("ForceOff") => Self::Reset(Command::Off),
            Some("On" | "ForceOn") => Self::Reset(Command::On),
            _ => Self::Other,
        }
    }
}

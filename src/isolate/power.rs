//! Isolation by power: any [`PowerSwitch`] of `agents` (Redfish, later IPMI).

use agents::{Command, Error, PowerState, PowerSwitch, Ready, Status, SystemUuid};
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{Isolator, Sight, State};

/// Isolates a machine by cutting its power.
#[derive(Debug)]
pub struct PowerIsolator<S> {
    switch: S,
    expect: Option<SystemUuid>,
}

impl<S: PowerSwitch> PowerIsolator<S> {
    /// Wraps a power switch; commands are refused where it says it is another machine than `expect`.
    pub fn new(switch: S, expect: Option<SystemUuid>) -> Self {
        Self { switch, expect }
    }
}

impl<S: PowerSwitch> Isolator for PowerIsolator<S> {
    fn isolate(&self, by: Instant) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.switch.command(Command::Off, self.expect.as_ref(), by))
    }

    fn look(&self, by: Instant) -> BoxFuture<'_, Sight> {
        Box::pin(async move { self.switch.status(by).await.map_or_else(|error| Sight::failed(&error), Sight::from) })
    }

    fn ready(&self, by: Instant) -> BoxFuture<'_, Result<Ready, Error>> {
        Box::pin(self.switch.ready(by))
    }

    fn restore(&self, by: Instant) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.switch.command(Command::On, self.expect.as_ref(), by))
    }
}

impl From<Status> for Sight {
    fn from(status: Status) -> Self {
        let (state, said) = match status.power {
            PowerState::Off if status.system_uuid.is_some() => (State::Isolated, "it says Off".to_owned()),
            PowerState::Off => (State::Off, "it says Off".to_owned()),
            PowerState::On => (State::Running, "it says On".to_owned()),
            // On its way down, or a contradiction: not off (P1).
            PowerState::Other(said) => (State::Running, format!("it says {said}")),
        };
        let Status { system_uuid, read_at, source, .. } = status;
        Self { state, system_uuid, read_at, said, label: None, account_refused: false, source: Some(source) }
    }
}

impl Sight {
    /// Returns what a look that failed has seen: nothing, and why.
    pub fn failed(error: &Error) -> Self {
        let state = if error.may_pass() { State::Unknown } else { State::Refused };
        let (said, label, read_at) = (error.to_string(), Some(error.label()), Instant::now());
        let account_refused = error.refuses_account();
        Self { state, system_uuid: None, read_at, said, label, account_refused, source: None }
    }
}

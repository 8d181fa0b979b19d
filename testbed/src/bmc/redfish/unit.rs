//! One machine behind a face: what its BMC believes, and what it does when told.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use agents::Command;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Shared;
use super::fault::Fault;
use super::request::What;
use crate::machine::{Machine, State};

/// What a BMC says of its machine.
#[derive(Debug)]
pub(super) struct Belief {
    pub(super) power: &'static str,
    pub(super) uuid: String,
}

/// What a BMC answers to a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// 204.
    Accepted,
    /// A refusal: status, message ID, message.
    Refused(u16, &'static str, &'static str),
}

/// A machine and its BMC.
pub(super) struct Unit {
    pub(super) machine: Arc<Machine>,
    mind: Mutex<Mind>,
    held: watch::Sender<Vec<What>>,
}

#[derive(Default)]
struct Mind {
    faults: Vec<Fault>,
    powering_off: bool,
}

impl Unit {
    pub(super) fn new(machine: Arc<Machine>) -> Self {
        Self { machine, mind: Mutex::default(), held: watch::Sender::default() }
    }

    pub(super) fn set_faults(&self, faults: Vec<Fault>) {
        self.mind().faults = faults;
    }

    pub(super) fn faults(&self) -> Vec<Fault> {
        self.mind().faults.clone()
    }

    pub(super) fn hold(&self, what: What) {
        self.held.send_modify(|held| held.push(what));
    }

    pub(super) fn release(&self) {
        self.held.send_modify(Vec::clear);
    }

    /// Waits until requests of this kind are not withheld.
    pub(super) async fn released(&self, what: What) {
        // An error would mean that the sender is gone; it is `self`'s.
        let _ = self.held.subscribe().wait_for(|held| !held.contains(&what)).await;
    }

    /// Tells whether nothing at all answers for this machine.
    pub(super) fn is_dead(&self) -> bool {
        let State { on, mains, .. } = self.machine.state();
        let dies = |fault: &Fault| *fault == Fault::Dead || (*fault == Fault::DiesWithNode && !on);
        !mains || self.mind().faults.iter().any(dies)
    }

    /// How much longer each request takes.
    pub(super) fn delay(&self) -> Duration {
        let mind = self.mind();
        let slow =
            mind.faults.iter().find_map(|fault| if let Fault::Slow(delay) = fault { Some(*delay) } else { None });
        slow.unwrap_or_default()
    }

    pub(super) fn belief(&self) -> Belief {
        let on = self.machine.state().on;
        let mind = self.mind();
        let power = match (mind.powering_off, mind.believes_on(on)) {
            (true, _) => "PoweringOff",
            (false, true) => "On",
            (false, false) => "Off",
        };
        let claimed = mind
            .faults
            .iter()
            .find_map(|fault| if let Fault::WrongIdentity(uuid) = fault { Some(*uuid) } else { None });
        Belief { power, uuid: claimed.unwrap_or(self.machine.uuid()).to_string() }
    }

    /// Takes a command: refuses it, ignores it, or sees to it that it is carried out.
    pub(super) fn command(self: &Arc<Self>, command: Command, shared: &Shared) -> Verdict {
        let on = self.machine.state().on;
        let mut mind = self.mind();
        if let Some(refusal) = mind.refusal(command, on) {
            return refusal;
        }
        if command == Command::Off && mind.faults.contains(&Fault::LieOff) {
            return Verdict::Accepted;
        }
        let (mut late, mut owner) = (None, None);
        for fault in &mind.faults {
            if let Fault::Late(delay) = fault {
                late = Some(*delay);
            }
            if command == Command::Off {
                if let Fault::PoweringOff(delay) = fault {
                    late = Some(*delay);
                }
                if let Fault::PowerOwner(delay) = fault {
                    owner = Some(*delay);
                }
            }
        }
        let gradual = mind.faults.iter().any(|fault| matches!(fault, Fault::PoweringOff(_)));
        mind.powering_off = gradual && on && command == Command::Off;
        drop(mind);
        if late.is_none() {
            self.carry_out(command);
        }
        if late.is_some() || owner.is_some() {
            let unit = self.clone();
            shared.spawn(async move {
                if let Some(delay) = late {
                    sleep(delay).await;
                    unit.carry_out(command);
                }
                if let Some(delay) = owner {
                    sleep(delay).await;
                    unit.machine.set_power(true, "power owner");
                }
            });
        }
        Verdict::Accepted
    }

    fn carry_out(&self, command: Command) {
        self.machine.set_power(command == Command::On, "redfish");
        let mut mind = self.mind();
        mind.powering_off = false;
        mind.faults.retain(|fault| *fault != Fault::HearsayOff);
    }

    fn mind(&self) -> MutexGuard<'_, Mind> {
        self.mind.lock().expect("no panic while held")
    }
}

impl Mind {
    fn believes_on(&self, on: bool) -> bool {
        on && !self.faults.contains(&Fault::HearsayOff)
    }

    fn refusal(&mut self, command: Command, on: bool) -> Option<Verdict> {
        let believes_on = self.believes_on(on);
        for fault in &mut self.faults {
            if let Fault::Refuse { status, times } = fault
                && *times != Some(0)
            {
                *times = times.map(|left| left - 1);
                return Some(Verdict::Refused(*status, "Base.1.18.ActionNotSupported", "The action is not supported."));
            }
        }
        if self.faults.contains(&Fault::Conflict) {
            return Some(Verdict::Refused(409, "Base.1.18.ResourceInUse", "The resource is in use."));
        }
        if self.faults.contains(&Fault::AlreadyOffRefusal) && command == Command::Off && !believes_on {
            return Some(Verdict::Refused(
                400,
                "Vendor.2.14.InvalidOperationForSystemState",
                "The operation was not successful due to the current power state.",
            ));
        }
        None
    }
}

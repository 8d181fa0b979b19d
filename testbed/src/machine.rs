//! A machine of the rack: power, a boot ID, an identity, and what has been done to its power, by whom and when.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

/// What can be seen of a machine at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Mains power: while it is off, nothing on the machine runs or writes.
    pub on: bool,
    /// New at each boot.
    pub boot_id: Uuid,
    /// Silent to the API server, while everything on it goes on running and writing: the zombie.
    pub hung: bool,
}

/// One change of power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerChange {
    /// When it took effect.
    pub at: Timestamp,
    /// What it changed to.
    pub on: bool,
    /// Who did it ("redfish", "power button").
    pub by: String,
}

/// One uninterrupted stretch of power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The boot ID during it.
    pub id: Uuid,
    /// When power came.
    pub since: Timestamp,
    /// When power went; `None` while it lasts.
    pub until: Option<Timestamp>,
}

impl Boot {
    /// Says whether the machine had power at `at`, in this boot.
    pub fn covers(&self, at: Timestamp) -> bool {
        self.since <= at && self.until.is_none_or(|until| at < until)
    }
}

/// A machine of the rack. Shared by its BMC face, its kubelet and the oracle.
#[derive(Debug)]
pub struct Machine {
    name: String,
    uuid: Uuid,
    state: watch::Sender<State>,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    changes: Vec<PowerChange>,
    boots: Vec<Boot>,
}

impl Machine {
    /// Makes a machine that is on and well.
    pub fn new(name: &str) -> Arc<Self> {
        let state = State { on: true, boot_id: Uuid::new_v4(), hung: false };
        let boot = Boot { id: state.boot_id, since: Timestamp::now(), until: None };
        Arc::new(Self {
            name: name.to_owned(),
            uuid: Uuid::new_v4(),
            state: watch::Sender::new(state),
            record: Mutex::new(Record { changes: Vec::new(), boots: vec![boot] }),
        })
    }

    /// The Node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The system UUID that BMC and kubelet both report.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Follows the state.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Cuts or gives power; a no-op if it is so already. Booting ends a hang and makes a new boot ID.
    pub fn set_power(&self, on: bool, by: &str) {
        let mut record = self.record.lock().expect("no panic while held");
        self.state.send_if_modified(|state| {
            if state.on == on {
                return false;
            }
            // Noted before anyone can see it, so that no effect of it is older than its record.
            let at = Timestamp::now();
            record.changes.push(PowerChange { at, on, by: by.to_owned() });
            state.on = on;
            if on {
                state.boot_id = Uuid::new_v4();
                state.hung = false;
                record.boots.push(Boot { id: state.boot_id, since: at, until: None });
            } else if let Some(boot) = record.boots.last_mut() {
                boot.until = Some(at);
            }
            true
        });
    }

    /// Makes the machine a zombie: silent to the API server, still writing.
    pub fn hang(&self) {
        self.state.send_modify(|state| state.hung = true);
    }

    /// Ends a hang without a reboot, as a healed network does.
    pub fn heal(&self) {
        self.state.send_modify(|state| state.hung = false);
    }

    /// Does something that takes power, in the boot `boot`: `None` if that boot is over.
    ///
    /// Power can't change while `act` runs, so what it writes is either older than the record of the power-off or never
    /// happens. `act` gets the time; it must not block, nor touch this machine.
    pub fn during<T>(&self, boot: Uuid, act: impl FnOnce(Timestamp) -> T) -> Option<T> {
        let _held = self.record.lock().expect("no panic while held");
        let alive = {
            let state = self.state.borrow();
            state.on && state.boot_id == boot
        };
        alive.then(|| act(Timestamp::now()))
    }

    /// All changes of power so far, oldest first.
    pub fn history(&self) -> Vec<PowerChange> {
        self.record.lock().expect("no panic while held").changes.clone()
    }

    /// All boots so far, oldest first; the first began when the machine was made.
    pub fn boots(&self) -> Vec<Boot> {
        self.record.lock().expect("no panic while held").boots.clone()
    }

    /// Says whether the machine had power without a break from `from` to `to`.
    pub fn on_throughout(&self, from: Timestamp, to: Timestamp) -> bool {
        self.boots().iter().any(|boot| boot.covers(from) && boot.covers(to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_happens_in_a_boot_that_is_over() {
        let machine = Machine::new("m");
        let first = machine.state().boot_id;
        let wrote = machine.during(first, |at| at).expect("it is on");
        machine.set_power(false, "test");
        assert!(machine.during(first, |_| ()).is_none());
        machine.set_power(true, "test");
        assert!(machine.during(first, |_| ()).is_none(), "a new boot is not the old one");

        let boots = machine.boots();
        assert_eq!(boots.len(), 2);
        assert!(boots[0].covers(wrote) && !boots[1].covers(wrote));
        assert!(!machine.on_throughout(wrote, Timestamp::now()));
    }
}

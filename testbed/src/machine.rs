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

/// A machine of the rack. Shared by its BMC face, its kubelet and the oracle.
#[derive(Debug)]
pub struct Machine {
    name: String,
    uuid: Uuid,
    state: watch::Sender<State>,
    history: Mutex<Vec<PowerChange>>,
}

impl Machine {
    /// Makes a machine that is on and well.
    pub fn new(name: &str) -> Arc<Self> {
        let state = State { on: true, boot_id: Uuid::new_v4(), hung: false };
        Arc::new(Self {
            name: name.to_owned(),
            uuid: Uuid::new_v4(),
            state: watch::Sender::new(state),
            history: Mutex::default(),
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
        let mut history = self.history.lock().expect("no panic while held");
        self.state.send_if_modified(|state| {
            if state.on == on {
                return false;
            }
            // Noted before anyone can see it, so that no effect of it is older than its record.
            history.push(PowerChange { at: Timestamp::now(), on, by: by.to_owned() });
            state.on = on;
            if on {
                state.boot_id = Uuid::new_v4();
                state.hung = false;
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

    /// All changes of power so far, oldest first.
    pub fn history(&self) -> Vec<PowerChange> {
        self.history.lock().expect("no panic while held").clone()
    }
}

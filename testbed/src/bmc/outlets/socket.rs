//! One outlet: what hangs on it, and what is wrong with it.

use std::sync::Arc;

use crate::machine::Machine;

/// What hangs on an outlet.
#[derive(Clone, Debug)]
pub enum Load {
    /// The machine's own switch: what a BMC has.
    Switch(Arc<Machine>),
    /// One of the machine's power feeds: what a PDU has. The first is 0.
    Feed(Arc<Machine>, usize),
}

/// What is wrong with an outlet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutletFault {
    /// It says that it did what it was told, and stays as it is: a welded relay.
    Stuck,
    /// It refuses to be switched, and tells its state.
    Refuses,
    /// It takes what it is told, and neither does it nor answers.
    Hangs,
    /// As [`OutletFault::Stuck`], and says "off" whatever it is.
    SaysOff,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) load: Load,
    pub(super) fault: Option<OutletFault>,
}

impl Socket {
    pub(super) fn new(load: Load) -> Self {
        Self { load, fault: None }
    }

    /// The state that it tells.
    pub(super) fn says(&self) -> &'static str {
        if self.load.is_on() && self.fault != Some(OutletFault::SaysOff) { "on" } else { "off" }
    }

    /// Does what it is told, or not; returns its answer.
    pub(super) fn switch(&self, on: bool) -> &'static str {
        match self.fault {
            Some(OutletFault::Refuses) => return "refused",
            Some(OutletFault::Stuck | OutletFault::SaysOff | OutletFault::Hangs) => {}
            None => self.load.switch(on),
        }
        "done"
    }
}

impl Load {
    fn is_on(&self) -> bool {
        match self {
            Self::Switch(machine) => machine.state().on,
            Self::Feed(machine, feed) => machine.feed(*feed),
        }
    }

    fn switch(&self, on: bool) {
        match self {
            Self::Switch(machine) => machine.set_power(on, "outlets"),
            Self::Feed(machine, feed) => machine.set_feed(*feed, on),
        }
    }
}

//! A machine of the rack: power, a boot ID, an identity, and what has been done to its power, by whom and when.
//!
//! Power comes through feeds, and goes through the machine's own switch, which its BMC and its button turn. It has mains
//! while any feed is on, and runs while it has mains and the switch is on. When mains come back, it starts, whatever the
//! switch was before: most BIOSes are set so ("power on after AC loss").

use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

/// What can be seen of a machine at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The machine runs; while it does not, nothing on it writes.
    pub on: bool,
    /// A feed is on. Without mains the machine is off, its BMC is dead, and its button does nothing.
    pub mains: bool,
    /// New at each boot.
    pub boot_id: Uuid,
    /// Silent to the API server, while everything on it goes on running and writing: the zombie.
    pub hung: bool,
}

/// One change of whether the machine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerChange {
    /// When it took effect.
    pub at: Timestamp,
    /// What it changed to.
    pub on: bool,
    /// Who did it ("redfish", "power button", "feed B": the last one to go, or the first one to come back).
    pub by: String,
}

/// One change of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedChange {
    /// When it took effect.
    pub at: Timestamp,
    /// Which: 0 is the first.
    pub feed: usize,
    /// What it changed to.
    pub on: bool,
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

#[derive(Debug)]
struct Record {
    changes: Vec<PowerChange>,
    boots: Vec<Boot>,
    /// Which feeds are on.
    feeds: Vec<bool>,
    feed_changes: Vec<FeedChange>,
}

impl Machine {
    /// Makes a machine that is on and well, with one feed.
    pub fn new(name: &str) -> Arc<Self> {
        Self::with_feeds(name, 1)
    }

    /// Makes a machine that is on and well, with so many feeds, all of them on.
    ///
    /// Panics if there are none.
    pub fn with_feeds(name: &str, feeds: usize) -> Arc<Self> {
        assert!(feeds > 0, "{name} has no feed");
        let state = State { on: true, mains: true, boot_id: Uuid::new_v4(), hung: false };
        let boot = Boot { id: state.boot_id, since: Timestamp::now(), until: None };
        Arc::new(Self {
            name: name.to_owned(),
            uuid: Uuid::new_v4(),
            state: watch::Sender::new(state),
            record: Mutex::new(Record {
                changes: Vec::new(),
                boots: vec![boot],
                feeds: vec![true; feeds],
                feed_changes: Vec::new(),
            }),
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

    /// Turns the machine's own switch, as its BMC or its button does; a no-op if it is so already, or there are no mains.
    /// Booting ends a hang and makes a new boot ID.
    pub fn set_power(&self, on: bool, by: &str) {
        let mut record = self.lock();
        self.state.send_if_modified(|state| state.mains && record.switch(state, on, by));
    }

    /// Turns a feed on or off, as an outlet of a PDU does; a no-op if it is so already. The first feed that comes back
    /// starts the machine.
    ///
    /// Panics if the machine has no such feed.
    pub fn set_feed(&self, feed: usize, on: bool) {
        let mut record = self.lock();
        self.state.send_if_modified(|state| {
            if std::mem::replace(&mut record.feeds[feed], on) == on {
                return false;
            }
            record.feed_changes.push(FeedChange { at: Timestamp::now(), feed, on });
            let mains = record.feeds.contains(&true);
            if std::mem::replace(&mut state.mains, mains) == mains {
                return false;
            }
            record.switch(state, mains, &feed_name(feed));
            true
        });
    }

    /// Says whether a feed is on.
    ///
    /// Panics if the machine has no such feed.
    pub fn feed(&self, feed: usize) -> bool {
        self.lock().feeds[feed]
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
        let _held = self.lock();
        let alive = {
            let state = self.state.borrow();
            state.on && state.boot_id == boot
        };
        alive.then(|| act(Timestamp::now()))
    }

    /// All changes of whether it runs so far, oldest first.
    pub fn history(&self) -> Vec<PowerChange> {
        self.lock().changes.clone()
    }

    /// All changes of the feeds so far, oldest first.
    pub fn feed_history(&self) -> Vec<FeedChange> {
        self.lock().feed_changes.clone()
    }

    /// All boots so far, oldest first; the first began when the machine was made.
    pub fn boots(&self) -> Vec<Boot> {
        self.lock().boots.clone()
    }

    /// Says whether the machine had power without a break from `from` to `to`.
    pub fn on_throughout(&self, from: Timestamp, to: Timestamp) -> bool {
        self.boots().iter().any(|boot| boot.covers(from) && boot.covers(to))
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no panic while held")
    }
}

impl Record {
    /// Starts or stops the machine, and says whether that is a change.
    fn switch(&mut self, state: &mut State, on: bool, by: &str) -> bool {
        if std::mem::replace(&mut state.on, on) == on {
            return false;
        }
        // Noted before anyone can see it, so that no effect of it is older than its record.
        let at = Timestamp::now();
        self.changes.push(PowerChange { at, on, by: by.to_owned() });
        if on {
            state.boot_id = Uuid::new_v4();
            state.hung = false;
            self.boots.push(Boot { id: state.boot_id, since: at, until: None });
        } else if let Some(boot) = self.boots.last_mut() {
            boot.until = Some(at);
        }
        true
    }
}

/// "feed A", "feed B", …
fn feed_name(feed: usize) -> String {
    match u8::try_from(feed) {
        Ok(letter @ ..26) => format!("feed {}", char::from(b'A' + letter)),
        Ok(_) | Err(_) => format!("feed {feed}"),
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

    #[test]
    fn it_runs_while_any_feed_is_on() {
        let machine = Machine::with_feeds("m", 2);
        let first = machine.state().boot_id;
        machine.set_feed(0, false);
        machine.set_feed(0, false);
        assert_eq!((machine.state().boot_id, machine.feed(0), machine.feed(1)), (first, false, true), "one is enough");
        machine.set_feed(1, false);
        let dark = machine.state();
        assert!(!dark.on && !dark.mains && machine.during(first, |_| ()).is_none());
        machine.set_power(true, "power button");
        assert_eq!(machine.state(), dark, "a button needs mains");
        machine.set_feed(1, true);
        machine.set_feed(0, true);

        let changes: Vec<_> = machine.history().into_iter().map(|change| (change.on, change.by)).collect();
        assert_eq!(changes, [(false, "feed B".to_owned()), (true, "feed B".to_owned())]);
        let feeds: Vec<_> = machine.feed_history().iter().map(|change| (change.feed, change.on)).collect();
        assert_eq!(feeds, [(0, false), (1, false), (1, true), (0, true)]);
        assert!(machine.state().boot_id != first && machine.boots().len() == 2);
    }

    #[test]
    fn mains_that_come_back_start_a_machine_that_was_off() {
        let machine = Machine::new("m");
        machine.set_power(false, "redfish");
        machine.set_feed(0, false);
        assert_eq!(machine.history().len(), 1, "it was off already");
        machine.set_feed(0, true);
        assert!(machine.state().on);
        assert_eq!(machine.history().last().map(|change| change.by.clone()), Some("feed A".to_owned()));
    }
}

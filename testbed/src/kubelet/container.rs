//! A running container: it writes to its volumes, and gives signs of life, for as long as its machine has power.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use crate::journal::{Ending, Journals, LifeId, Process};
use crate::machine::Machine;

/// Between two writes: dense enough that two writers on one volume show as interleaved within a tenth of a second.
const BEAT: Duration = Duration::from_millis(50);

/// How a container came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// By itself or by its kubelet.
    Ended(Ending),
    /// The power went.
    PowerLost,
}

/// A handle on a running container. Dropping it lets the container run on: a kubelet that dies kills nothing.
#[derive(Clone, Debug)]
pub(super) struct Container {
    journals: Arc<Journals>,
    life: LifeId,
    exit: watch::Sender<Option<Exit>>,
}

impl Container {
    /// Starts a container; `None` if the boot of its process is already over. It completes after `run_for`, or never.
    pub(super) fn start(
        machine: Arc<Machine>,
        journals: Arc<Journals>,
        process: Process,
        volumes: Vec<String>,
        run_for: Option<Duration>,
    ) -> Option<Self> {
        let boot = process.boot;
        let life = machine.during(boot, |at| journals.begin(process, volumes, at))?;
        let container = Self { journals, life, exit: watch::Sender::new(None) };
        tokio::spawn(container.clone().beat(machine, boot, run_for.map(|time| Instant::now() + time)));
        Some(container)
    }

    /// Ends the container, unless it has ended; it has written its last when this returns.
    pub(super) fn finish(&self, exit: Exit) {
        self.exit.send_if_modified(|ended| {
            if ended.is_some() {
                return false;
            }
            match exit {
                Exit::Ended(how) => self.journals.end(self.life, how),
                Exit::PowerLost => {} // the machine's record has the time
            }
            *ended = Some(exit);
            true
        });
    }

    pub(super) fn is_static(&self) -> bool {
        self.journals.life(self.life).process.static_pod
    }

    /// Waits for the end.
    pub(super) async fn ended(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        match exit.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(exit)) => *exit,
            Ok(None) | Err(_) => unreachable!("a sender is held, and waited for is Some"),
        }
    }

    async fn beat(self, machine: Arc<Machine>, boot: Uuid, until: Option<Instant>) {
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if self.exit.borrow().is_some() {
                return;
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return self.finish(Exit::Ended(Ending::Completed));
            }
            if machine.during(boot, |at| self.journals.beat(self.life, at)).is_none() {
                return self.finish(Exit::PowerLost);
            }
        }
    }
}

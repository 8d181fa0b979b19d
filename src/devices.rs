//! What this process remembers of devices, whoever asks: who speaks to a BMC just now, which account it has refused, and
//! which machines were read On.
//!
//! Knows orders and sights. Must not know remediations, templates or policies. Losing it costs time, and one more try of a
//! wrong password; never safety.
//!
//! - *One session per BMC.* BMCs have few sessions, and some lose one when another begins. Whoever is in no hurry waits for all
//!   others. Remediations wait for none: one machine of a chassis that hangs must not keep its neighbours from being fenced.
//! - *Refusals.* A wrong password is tried once on a BMC, then not again before somebody changes something.
//! - *Witnesses* (P2). A machine that was read On through an order, in this boot of its node, is the one behind it.

mod refusals;
mod witnesses;

use std::collections::HashMap;
use std::hash::RandomState;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agents::{Access, SystemUuid};
use tokio::sync::{RwLock, watch};
use tokio::time::{Instant, timeout_at};
use url::Url;

use self::refusals::Refusals;
pub use self::refusals::{Account, Asking};
use self::witnesses::Witnesses;
pub use self::witnesses::{Boot, WITNESS_GAP};
use crate::api::Order;
use crate::isolate::{Device, Sight};

/// BMCs remembered before those that nobody speaks to are forgotten: more than one cluster has.
const MAX_GATES: usize = 4096;

/// What is remembered of devices. Shared by all that speak to them.
#[derive(Default)]
pub struct Devices {
    gates: Mutex<HashMap<String, Arc<Gate>>>,
    refusals: Mutex<Refusals>,
    witnesses: Mutex<Witnesses>,
    /// Random for each process: what is hashed with it can't be guessed at from a dump.
    key: RandomState,
}

/// Who may speak to one BMC.
#[derive(Default)]
struct Gate {
    /// Shared by those in a hurry; the others have it alone.
    turn: RwLock<()>,
    /// Callers that are in a hurry, whether they wait or speak.
    urgent: watch::Sender<usize>,
}

/// Counts a caller in a hurry while it lives.
struct Hurry<'a>(&'a watch::Sender<usize>);

impl<'a> Hurry<'a> {
    fn new(urgent: &'a watch::Sender<usize>) -> Self {
        urgent.send_modify(|callers| *callers += 1);
        Self(urgent)
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|callers| *callers -= 1);
    }
}

impl Devices {
    /// Makes a call on behalf of a remediation: an idle look in flight at the same BMC is dropped, which leaves nothing
    /// behind (a law of [`Isolator`](crate::isolate::Isolator)). Other urgent calls are not waited for.
    ///
    /// `None` if it has not ended by `by`; the call is dropped then, or was never begun.
    pub async fn urgent<T>(&self, order: &Order, by: Instant, call: impl Future<Output = T>) -> Option<T> {
        let gate = self.gate(order);
        let _hurry = Hurry::new(&gate.urgent);
        let in_turn = async {
            // Idle ones let go of it, and of their place in the queue, as soon as they see the hurry.
            let _turn = gate.turn.read().await;
            call.await
        };
        // What has come while this process stood still may be of any age.
        timeout_at(by, in_turn).await.ok().filter(|_| Instant::now() <= by)
    }

    /// Takes a look that is in no hurry. It gets its `time` from when its turn has come, and its deadline with it.
    ///
    /// `None` if it gave way to an urgent call, in whatever state it was.
    pub async fn idle<T, F>(&self, order: &Order, time: Duration, look: impl FnOnce(Instant) -> F) -> Option<T>
    where
        F: Future<Output = T>,
    {
        let gate = self.gate(order);
        let mut urgent = gate.urgent.subscribe();
        let mut in_turn = pin!(async {
            let _turn = gate.turn.write().await;
            look(Instant::now() + time).await
        });
        tokio::select! {
            biased;
            // An error would mean that the gate is gone; it is held here.
            _ = urgent.wait_for(|callers| *callers > 0) => None,
            seen = &mut in_turn => Some(seen),
        }
    }

    /// Returns what tells accounts apart without keeping them.
    pub fn account(&self, access: &Access) -> Account {
        Account::of(access, &self.key)
    }

    /// Returns why this account is not to be tried again on this BMC, if it is not: it was refused, and the one who asks has
    /// changed nothing since.
    ///
    /// To be asked when the turn has come, not before: another caller may be trying the same account.
    pub fn refusal(&self, asking: &Asking<'_>) -> Option<Sight> {
        self.refusals.lock().expect("no panic while held").known(&host(asking.order), asking)
    }

    /// Notes what a look saw. `boot`: the node's boot as its Node said *before* the look.
    pub fn saw(&self, asking: &Asking<'_>, boot: Option<Boot<'_>>, sight: &Sight) {
        self.refusals.lock().expect("no panic while held").note(host(asking.order), asking, sight);
        if let Some(boot) = boot {
            self.witnesses.lock().expect("no panic while held").note(asking.order, boot, sight);
        }
    }

    /// Tells whether the machine was read On through this very order in this boot of its node, and every look since has
    /// answered, none later than [`WITNESS_GAP`] after the one before (P2).
    pub fn witnessed(&self, order: &Order, boot: Boot<'_>, now: Instant) -> bool {
        self.witnesses.lock().expect("no panic while held").holds(order, boot, now)
    }

    fn gate(&self, order: &Order) -> Arc<Gate> {
        let mut gates = self.gates.lock().expect("no panic while held");
        if gates.len() >= MAX_GATES {
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        gates.entry(host(order)).or_default().clone()
    }
}

/// Returns what an isolator of this order is built from.
pub fn device<'a>(order: &'a Order, access: &Access) -> Device<'a> {
    Device {
        agent: &order.agent,
        address: &order.address,
        plug: order.plug.as_deref(),
        expect: order.system_uuid.as_deref().and_then(SystemUuid::parse),
        access: access.clone(),
    }
}

/// What an order's device is known by: host and port, whichever machine behind it is meant. Agents without an address
/// (clouds) speak to no BMC: each of their machines is a device of its own.
fn host(order: &Order) -> String {
    match Url::parse(&order.address) {
        Ok(url) if url.has_host() => {
            format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
        }
        Ok(_) | Err(_) if order.address.is_empty() => {
            format!("{} {}", order.agent, order.plug.as_deref().unwrap_or_default())
        }
        Ok(_) | Err(_) => order.address.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests;

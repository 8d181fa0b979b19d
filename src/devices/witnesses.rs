//! Machines that were read On: what ties an order to a node where the device says no identity, or where its Off might be
//! older than ours (P2).

use std::collections::HashMap;
use std::time::Duration;

use agents::SystemUuid;
use tokio::time::Instant;

use crate::api::Order;
use crate::isolate::{Sight, State};

/// A witness counts no longer if nothing was heard of the device for this long: a BMC that restarts, and then says Off
/// falsely (openbmc#2224), is silent for longer, one to three minutes. Preflight looks every 30 s, at most 36.
pub const WITNESS_GAP: Duration = Duration::from_secs(45);

/// Nodes remembered before those whose witness is too old are forgotten.
const MAX: usize = 8192;

/// One boot of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot<'a> {
    /// The Node's UID.
    pub node: &'a str,
    /// Its `status.nodeInfo.bootID`.
    pub id: &'a str,
}

/// By Node UID; a node has as many as it has devices.
#[derive(Default)]
pub(super) struct Witnesses(HashMap<String, Vec<Witness>>);

/// It was read On, and has not been silent since.
struct Witness {
    order: Order,
    boot: String,
    last: Instant,
}

impl Witnesses {
    pub(super) fn note(&mut self, order: &Order, boot: Boot<'_>, sight: &Sight) {
        if self.0.len() >= MAX {
            let now = Instant::now();
            self.0.retain(|_, all| all.iter().any(|witness| !is_late(witness.last, now)));
        }
        let all = self.0.entry(boot.node.to_owned()).or_default();
        let known = all.iter().position(|witness| witness.order == *order).map(|at| all.swap_remove(at));
        let last = sight.read_at;
        let unbroken = known.is_some_and(|known| known.boot == boot.id && !is_late(known.last, last));
        let holds = match sight.state {
            _ if is_another(order, sight) => false,
            State::Running => true,
            State::Isolated | State::Off => unbroken,
            State::Unknown | State::Refused => false,
        };
        if holds && !boot.id.is_empty() {
            all.push(Witness { order: order.clone(), boot: boot.id.to_owned(), last });
        }
        if all.is_empty() {
            self.0.remove(boot.node);
        }
    }

    pub(super) fn holds(&self, order: &Order, boot: Boot<'_>, now: Instant) -> bool {
        let of_node = self.0.get(boot.node).map(Vec::as_slice).unwrap_or_default();
        of_node.iter().any(|known| known.order == *order && known.boot == boot.id && !is_late(known.last, now))
    }
}

fn is_late(last: Instant, now: Instant) -> bool {
    now.saturating_duration_since(last) > WITNESS_GAP
}

/// Tells whether the device says that it belongs to another machine than the order expects.
fn is_another(order: &Order, sight: &Sight) -> bool {
    let expected = order.system_uuid.as_deref().and_then(SystemUuid::parse);
    match (expected, &sight.system_uuid) {
        (Some(expected), Some(found)) => !expected.same_machine(found),
        (Some(_) | None, Some(_) | None) => false,
    }
}

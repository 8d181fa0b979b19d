//! The levels of a remediation: which one is acted on, what its devices come to, and what the devices of other levels say
//! meanwhile.

use std::sync::Arc;
use std::time::Duration;

use agents::Access;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;

use super::Observer;
use super::look::{Subject, identity};
use crate::api::{self, Driver, Operation};
use crate::decide::{FIRST, Identity, Level, Levels, Order, Phase, Reading, Revived, Why};
use crate::devices::Asking;
use crate::isolate::{Isolator, Sight};
use crate::resolve::{self, Resolved};
use crate::status::why_name;

/// A device of another level is asked this often. What it says is no proof, but it may be against one; a dead BMC, which such
/// a device is as a rule, takes 5 s to say nothing.
const OTHERS: Duration = Duration::from_secs(10);

/// One device of the level that is acted on.
pub struct Device {
    /// Its pinned order; before one is pinned, what spec and Secrets say.
    pub order: api::Order,
    /// None for a person, and where spec and Secrets give no way to reach it.
    pub isolator: Option<Arc<dyn Isolator>>,
    /// What it said, if it was asked.
    pub sight: Option<Sight>,
}

/// What the devices of other levels say.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// One that is no outlet says On, of this machine: which, in words.
    pub on: Option<String>,
    /// See [`Levels::revived`].
    pub revived: Option<Revived>,
}

/// Tells which level is acted on.
pub(super) fn level(phase: Phase, op: &Operation, resolved: &Result<Resolved, resolve::Error>) -> Level {
    let begun = phase.level().or_else(|| tops(op).last());
    let resolves =
        || resolved.as_ref().ok().and_then(|now| (FIRST..).zip(&now.levels).find(|(_, level)| level.is_ok()));
    match phase {
        Phase::Accepted => resolves().map(|(level, _)| level),
        _ => begun,
    }
    .unwrap_or(FIRST)
}

/// The levels of devices that were begun: an off may have been sent to each. Nothing is sent to a device that speaks for
/// another machine; but beside it may be one that has obeyed.
fn tops(op: &Operation) -> impl Iterator<Item = Level> {
    let begun = Level::try_from(op.begun()).unwrap_or(FIRST);
    let other = |level: Level| op.orders(level).len() == 1 && failed(op, level) == Some(why_name(Why::WrongMachine));
    (FIRST..=begun)
        .filter(move |level| !op.orders(*level).is_empty() && !asks_a_person(op.orders(*level)) && !other(*level))
}

/// Why a level was given up, if it was.
fn failed(op: &Operation, level: Level) -> Option<&str> {
    let index = usize::try_from(level.checked_sub(FIRST)?).ok()?;
    op.levels.get(index)?.failed.as_deref()
}

/// Tells whether a level's device is a person.
pub(super) fn asks_a_person(orders: &[api::Order]) -> bool {
    orders.iter().any(|order| order.driver == Driver::Person)
}

/// What other levels there are, as seen from this one.
pub(super) fn levels(op: &Operation, resolved: &Result<Resolved, resolve::Error>, now: Level) -> Levels {
    let all = resolved.as_ref().map(|resolved| resolved.levels.as_slice()).unwrap_or_default();
    let next = (FIRST..).zip(all).find(|(level, found)| *level > now && found.is_ok()).map(|(level, _)| level);
    let below = tops(op).filter(|level| *level < now).last();
    Levels { now, next, below, top: tops(op).last(), revived: None }
}

/// Holds what spec and Secrets say now against what was pinned (A2). A level that is not begun may still change.
pub(super) fn order(op: &Operation, pinned: bool, now: Level, resolved: &Result<Resolved, resolve::Error>) -> Order {
    let Ok(resolved) = resolved else { return Order::Unresolved };
    let mut order = Order::Same;
    let begun = Level::try_from(op.begun()).unwrap_or(FIRST);
    for level in (FIRST..=begun).filter(|level| pinned && !op.orders(*level).is_empty()) {
        match resolved.level(level) {
            Some(Ok(devices)) if devices.iter().map(|device| &device.order).eq(op.orders(level)) => {}
            Some(Err(_)) if level == now => order = Order::Unresolved,
            Some(Err(_)) => {}
            Some(Ok(_)) | None => return Order::Changed,
        }
    }
    order
}

/// Pairs the level's orders with what spec and Secrets give to reach them.
pub(super) fn devices(
    op: &Operation,
    pinned: bool,
    level: Level,
    resolved: &Result<Resolved, resolve::Error>,
) -> Vec<(api::Order, Option<Access>)> {
    let now = resolved.as_ref().ok().and_then(|now| now.level(level)?.as_ref().ok());
    let now: &[resolve::Device] = now.map(Vec::as_slice).unwrap_or_default();
    if !pinned {
        return now.iter().map(|device| (device.order.clone(), device.access.clone())).collect();
    }
    // What spec and Secrets say now is for the agent that they name now.
    let serves = |order: &api::Order, device: &resolve::Device| {
        order.agent == device.order.agent && order.driver == device.order.driver
    };
    let access = |number: usize, order: &api::Order| {
        let exactly = now.iter().find(|device| device.order == *order);
        let likely = now.get(number).filter(|device| serves(order, device));
        exactly.or(likely).and_then(|device| device.access.clone())
    };
    op.orders(level).iter().enumerate().map(|(number, order)| (order.clone(), access(number, order))).collect()
}

impl Observer {
    /// Looks at all devices of the level at once, if it `looks`; they are built whether it does or not.
    pub(super) async fn look_at(
        &self,
        uid: &str,
        devices: Vec<(api::Order, Option<Access>)>,
        inputs: &str,
        node: Option<&Node>,
        looks: bool,
    ) -> Vec<Device> {
        join_all(devices.into_iter().map(|(order, access)| async move {
            if order.driver == Driver::Person {
                return Device { order, isolator: None, sight: None };
            }
            let Some(access) = access else {
                let error = agents::Error::Config("spec and Secrets now give no way to reach this device".to_owned());
                return Device { order, isolator: None, sight: Some(Sight::failed(&error)) };
            };
            let subject = Subject { uid, order: &order, access: &access, inputs };
            let (isolator, sight) = self.look(subject, node, looks).await;
            Device { order, isolator, sight }
        }))
        .await
    }

    /// Asks the devices of all other levels, each once in a while: those that may contradict a proof (P3), and those that never
    /// answered before.
    pub(super) async fn others(
        &self,
        uid: &str,
        op: &Operation,
        resolved: &Result<Resolved, resolve::Error>,
        now: Level,
        shared: bool,
        node: Option<&Node>,
    ) -> Others {
        let Ok(resolved) = resolved else { return Others::default() };
        let begun = Level::try_from(op.begun()).unwrap_or(FIRST);
        let silent = |level: Level| level <= begun && failed(op, level) == Some(why_name(Why::Unheard));
        let mut others = Others::default();
        for (level, found) in (FIRST..).zip(&resolved.levels).filter(|(level, _)| *level != now) {
            let Ok(found) = found else { continue };
            let asked = found.iter().filter(|device| silent(level) || !agents::is_outlet(&device.order.agent));
            let sights = join_all(asked.map(|device| async move {
                let sight = self.ask(uid, device, &resolved.inputs, node).await?;
                Some((device, identity(&device.order, shared, &sight), sight))
            }))
            .await;
            let sights: Vec<_> = sights.into_iter().flatten().collect();
            let ours = |(_, identity, sight): &(&resolve::Device, Identity, Sight)| match Reading::from(sight) {
                Reading::Running | Reading::Isolated { .. } => *identity != Identity::Other,
                Reading::Unknown | Reading::Refused => false,
            };
            let on = |(_, _, sight): &(&resolve::Device, Identity, Sight)| Reading::from(sight) == Reading::Running;
            if let Some((device, ..)) =
                sights.iter().find(|one| ours(one) && on(one) && !agents::is_outlet(&one.0.order.agent))
            {
                let which = format!("{} at {} (level {level})", device.order.agent, device.order.address);
                others.on.get_or_insert(which);
            }
            if silent(level) && !sights.is_empty() && sights.len() == found.len() && sights.iter().all(ours) {
                others.revived.get_or_insert(Revived { level, on: sights.iter().all(on) });
            }
        }
        others
    }

    /// Asks a device of another level, or says what it said a moment ago.
    async fn ask(&self, uid: &str, device: &resolve::Device, inputs: &str, node: Option<&Node>) -> Option<Sight> {
        let access = device.access.as_ref()?;
        if let Some(sight) = self.memories.said(uid, &device.order, Instant::now(), OTHERS) {
            return Some(sight);
        }
        let asking = Asking { order: &device.order, account: self.devices.account(access), asker: uid, inputs };
        if let Some(refused) = self.devices.refusal(&asking) {
            return Some(refused);
        }
        let subject = Subject { uid, order: &device.order, access, inputs };
        let (_, sight) = self.look(subject, node, true).await;
        if let Some(sight) = &sight {
            self.memories.heard(uid, &device.order, sight);
        }
        sight
    }
}

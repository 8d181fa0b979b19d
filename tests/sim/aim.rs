//! Faults aimed at the moments between a reading and what it was read for: when a replica makes a certain call, that call
//! comes late, or the replica stands still, and something else happens meanwhile.

use http::Method;
use serde_json::Value;

use super::chance::Chance;
use super::faults::{Deed, When};
use super::store::{Key, Part};
use super::tally::{count, note};
use super::world::{FARS, World, taints};

/// What a replica does, as far as anything is aimed at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Look,
    Command,
    ReadNode,
    /// The node's Lease, right after the look.
    ReadPulse,
    ReadRemediation,
    /// Claim, seal, retraction, hand-over, and their end.
    Mark,
    Bar,
    Free,
    SealPod,
    FailPod,
    DeletePod,
    Enter,
    Finalize,
}

/// What becomes of the call, or of who makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// It arrives so much later.
    Late(u64),
    /// It is carried out; the replica stands still for so long before it hears of it.
    Stop(u64),
    /// It is carried out; the replica is killed before it hears of it.
    Kill,
}

/// One fault, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim {
    pub call: Call,
    /// Only while a remediation stands there.
    pub phase: Option<&'static str>,
    /// So many such calls pass first.
    pub skip: u64,
    pub blow: Blow,
    /// What else happens, so long after.
    pub then: Option<(u64, Deed)>,
}

/// What comes late. The more often, the rarer it is reached.
const WRITES: [(u64, Call); 8] = [
    (1, Call::Mark),
    (3, Call::Bar),
    (3, Call::Free),
    (1, Call::SealPod),
    (2, Call::FailPod),
    (3, Call::DeletePod),
    (2, Call::Enter),
    (1, Call::Finalize),
];
const READS: [Call; 5] = [Call::Look, Call::Command, Call::ReadNode, Call::ReadPulse, Call::ReadRemediation];
const PHASES: [&str; 8] =
    ["Isolating", "Proving", "Proving", "Releasing", "Releasing", "Releasing", "Restoring", "Halted"];
/// What ends a release before it is through.
const CUTS_SHORT: [Deed; 3] = [Deed::Delete, Deed::Delete, Deed::Address(1)];
/// What changes what a replica has read.
const THEN: [Deed; 13] = [
    Deed::Delete,
    Deed::Delete,
    Deed::Delete,
    Deed::Delete,
    Deed::Address(1),
    Deed::Address(1),
    Deed::TimeOut,
    Deed::Replace,
    Deed::Button,
    Deed::Button,
    Deed::Button,
    Deed::Wake,
    Deed::Another,
];

fn weighed(chance: &mut Chance) -> Call {
    let mut left = chance.within(1, WRITES.iter().map(|(weight, _)| weight).sum());
    let drawn = WRITES.iter().find(|(weight, _)| {
        left = left.saturating_sub(*weight);
        left == 0
    });
    drawn.map_or(Call::Mark, |(_, call)| *call)
}

impl Aim {
    pub fn draw(chance: &mut Chance) -> Self {
        let length = match chance.within(0, 4) {
            0 => chance.within(300, 5_000),
            1 | 2 => chance.within(5_000, 15_000),
            _ => chance.within(15_000, 45_000),
        };
        if chance.percent(55) {
            let soon = chance.within(0, 1_500);
            let deed = if chance.percent(50) { chance.of(&CUTS_SHORT) } else { chance.of(&THEN) };
            let deed = chance.percent(80).then_some((soon, deed));
            let blow = if chance.percent(90) { Blow::Late(length) } else { Blow::Kill };
            let skip = chance.within(0, 3) * chance.within(0, 1);
            return Aim { call: weighed(chance), phase: None, skip, blow, then: deed };
        }
        let deed = chance.percent(80).then(|| (chance.within(0, length / 2), chance.of(&THEN)));
        let phase = chance.percent(80).then(|| chance.of(&PHASES));
        let skip = chance.within(0, 5) * chance.within(0, 1);
        Aim { call: chance.of(&READS), phase, skip, blow: Blow::Stop(length), then: deed }
    }
}

impl World {
    /// A replica makes a call. Returns how much later it arrives, if somebody aimed at it.
    pub fn strike(&mut self, replica: usize, call: Call) -> Option<u64> {
        let phases: Vec<_> = self.store.all(FARS).iter().map(|far| far["status"]["phase"].clone()).collect();
        let stands = |phase: &str| phases.iter().any(|stands| *stands == phase);
        let fits = |aim: &Aim| aim.call == call && aim.phase.is_none_or(stands);
        let index = self.mix.aims.iter().position(fits)?;
        if self.mix.aims[index].skip > 0 {
            self.mix.aims[index].skip -= 1;
            return None;
        }
        let aim = self.mix.aims.remove(index);
        note(|| format!("replica {replica} is struck: {aim:?}"));
        count("struck", &format!("{call:?}"));
        if let Some((after, deed)) = aim.then {
            self.mix.deeds.push((When::At(self.now + after), deed));
        }
        match aim.blow {
            Blow::Late(length) => return Some(length),
            Blow::Stop(length) => self.replicas[replica].pause = Some((0, length)),
            Blow::Kill => self.replicas[replica].crash = Some(0),
        }
        None
    }

    /// Names a request to the API server, if anything could be aimed at it.
    pub fn named(&self, method: &Method, key: &Key, part: Part, body: &Value) -> Option<Call> {
        let (plural, one) = (key.0.as_str(), !key.2.is_empty());
        Some(match (plural, method, part) {
            ("nodes", &Method::GET, _) if one => Call::ReadNode,
            ("leases", &Method::GET, _) if key.1 == super::cluster::LEASES => Call::ReadPulse,
            (FARS, &Method::GET, _) if one => Call::ReadRemediation,
            ("nodes", &Method::PATCH, Part::Status) => Call::Free,
            ("nodes", &Method::PATCH, Part::Main) => {
                let bars = |node: &Value| taints(node).iter().filter(|taint| taint["effect"] == "NoExecute").count();
                let before = self.store.now(key).map_or(0, |node| bars(&node));
                if bars(body) > before { Call::Bar } else { Call::Mark }
            }
            ("pods", &Method::PATCH, Part::Status) => Call::FailPod,
            ("pods", &Method::PATCH, Part::Main) => Call::SealPod,
            ("pods", &Method::DELETE, _) => Call::DeletePod,
            (FARS, &Method::PUT, Part::Status) => Call::Enter,
            (FARS, &Method::PATCH, Part::Main) => Call::Finalize,
            _ => return None,
        })
    }
}

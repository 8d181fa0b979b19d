//! The product's protection, taken away from outside: what it asks for to be safe is not done, although it is told so. The
//! simulation must then find what the protection is for.

use ringfence::marks;
use serde_json::Value;

use super::aim::{Aim, Blow, Call};
use super::chance::Chance;
use super::faults::{Deed, Mix, Says, When};
use super::store::{Key, Part};
use super::world::{FARS, World};

/// What is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nodes' marks are written whatever their resourceVersion is.
    Marks,
    /// The same of `volumesInUse`.
    Volumes,
    /// The same of pods, whose UID still counts.
    Pods,
    /// The same of a remediation's status.
    Status,
    /// A seal on a Node makes no new resourceVersion.
    NodeSeal,
    /// The same of a pod.
    PodSeal,
    /// Whoever asks for a remediation again is told what it was told before.
    Reread,
    /// A reading never ages.
    Age,
    /// A BMC always says that it is the machine that is expected.
    Identity,
    /// Node Leases stand still.
    Pulse,
}

impl Broken {
    pub const ALL: [Self; 10] = [
        Self::Marks,
        Self::Volumes,
        Self::Pods,
        Self::Status,
        Self::NodeSeal,
        Self::PodSeal,
        Self::Reread,
        Self::Age,
        Self::Identity,
        Self::Pulse,
    ];

    /// The faults that this protects from, and no others.
    pub fn tempting(self, seed: u64) -> Mix {
        let chance = &mut Chance::new(seed);
        let mut mix = Mix::calm_but(1, vec![]);
        (mix.tolerant, mix.all_lead) = (true, true);
        let late = chance.within(6_000, 40_000);
        let mut aim = |call, phase, blow, then: &[Deed]| {
            let then = (!then.is_empty()).then(|| (chance.within(0, 1_500), chance.of(then)));
            mix.aims.push(Aim { call, phase, skip: chance.within(0, 3) * chance.within(0, 1), blow, then });
        };
        match self {
            Broken::Marks | Broken::NodeSeal => {
                aim(Call::Bar, None, Blow::Late(late / 3 + 4_000), &[Deed::Delete, Deed::Address(1)]);
            }
            Broken::Volumes => aim(Call::Free, None, Blow::Late(late), &[]),
            Broken::Pods | Broken::PodSeal => aim(Call::FailPod, None, Blow::Late(late), &[Deed::Delete]),
            Broken::Status => aim(Call::Enter, None, Blow::Late(late), &[]),
            Broken::Reread => {
                aim(Call::ReadPulse, Some("Isolating"), Blow::Stop(11_000 + late), &[Deed::Delete, Deed::TimeOut]);
                aim(Call::ReadPulse, Some("Restoring"), Blow::Stop(11_000 + late), &[Deed::TimeOut]);
            }
            // Longer than a proof lasts; after 10 s nothing that was read is decided on at all.
            Broken::Age => aim(Call::ReadPulse, Some("Releasing"), Blow::Stop(7_500 + late / 20), &[Deed::Button]),
            Broken::Identity => (mix.hung, mix.deeds) = (false, vec![(When::At(0), Deed::Address(1))]),
            Broken::Pulse => {
                (mix.hung, mix.says, mix.deeds) = (false, Says::Nothing, vec![(When::At(0), Deed::Address(1))]);
            }
        }
        mix
    }

    /// What a write is guarded by, as far as it still is.
    pub fn guards(self, key: &Key, part: Part, body: &Value) -> Value {
        let mut body = body.clone();
        let gone = match (key.0.as_str(), part) {
            ("nodes", Part::Main) => self == Broken::Marks,
            ("nodes", Part::Status) => self == Broken::Volumes,
            ("pods", _) => self == Broken::Pods,
            (FARS, Part::Status) => self == Broken::Status,
            _ => false,
        };
        for guards in ["metadata", "preconditions"] {
            if let Some(fields) = body[guards].as_object_mut().filter(|_| gone) {
                fields.remove("resourceVersion");
            }
        }
        body
    }

    /// Tells whether a write leaves the resourceVersion as it was.
    pub fn is_silent(self, key: &Key, part: Part, body: &Value) -> bool {
        let seals = !body["metadata"]["annotations"][marks::SEAL].is_null();
        let only = body["metadata"]["annotations"].as_object().is_some_and(|all| all.len() == 1);
        match (key.0.as_str(), part) {
            ("nodes", Part::Main) => self == Broken::NodeSeal && seals && only && body.get("spec").is_none(),
            ("pods", Part::Main) => self == Broken::PodSeal && seals,
            _ => false,
        }
    }
}

impl World {
    pub fn is_broken(&self, broken: Broken) -> bool {
        self.mix.broken == Some(broken)
    }
}

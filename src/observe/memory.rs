//! What this process remembers of a remediation between two looks: the series of Offs, the node's last sign of life, the
//! device. Nothing here is needed to resume: without it, a series begins anew, and whatever must be waited for from the
//! beginning of the series is waited for again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::pulse::Pulse;
use crate::api::Order;
use crate::decide::{Mono, Now, Reading, Time};
use crate::isolate::{Isolator, Sight};

/// A pod whose deletion failed so often, for whatever reason, is waited for: a webhook for it may run on this very node. Each
/// try may take 5 s, and a release has 60.
const TRIES: u32 = 3;

/// An unbroken series of Offs, with no command in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// The first of them.
    pub first: Mono,
    /// The latest.
    pub last: Mono,
}

/// By remediation UID.
#[derive(Default)]
pub struct Memories(Mutex<HashMap<String, Memory>>);

#[derive(Default)]
struct Memory {
    series: Option<Series>,
    pulse: Option<Pulse>,
    life: Time,
    answer: Option<String>,
    failures: BTreeMap<String, u32>,
    refused: BTreeMap<String, String>,
    devices: Vec<(Key, Arc<dyn Isolator>)>,
    others: Vec<(Order, Sight)>,
}

/// What a device was built from: the order, and the versions of the spec and Secrets that gave its credentials.
type Key = (Order, String);

impl Memories {
    /// A command is about to be sent: what was read before it says nothing of what comes after.
    pub fn commanded(&self, uid: &str) {
        self.with(uid, |memory| memory.series = None);
    }

    /// Notes how the last command was answered, for the message of a halt.
    pub fn answered(&self, uid: &str, answer: Option<String>) {
        self.with(uid, |memory| memory.answer = answer);
    }

    /// Returns how the last command was answered, if not with success.
    pub fn answer(&self, uid: &str) -> Option<String> {
        self.with(uid, |memory| memory.answer.clone())
    }

    /// Notes that a pod was not deleted, and why. One whose deletion is `refused`, or has failed again and again, is waited for,
    /// and not tried again.
    pub fn undeleted(&self, uid: &str, pod: String, why: String, refused: bool) {
        self.with(uid, |memory| {
            let failures = memory.failures.entry(pod.clone()).or_default();
            *failures += 1;
            if refused || *failures >= TRIES {
                memory.refused.insert(pod, why);
            }
        });
    }

    /// Returns those pods that are to be deleted: who failed before comes last, and holds up nobody.
    pub fn in_order(&self, uid: &str, pods: &[Pod]) -> Vec<Pod> {
        self.with(uid, |memory| {
            let known = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
            let mut pods: Vec<_> =
                pods.iter().filter(|pod| !memory.refused.contains_key(&known(pod))).cloned().collect();
            pods.sort_by_key(|pod| memory.failures.get(&known(pod)).copied().unwrap_or_default());
            pods
        })
    }

    /// Returns why the deletion of a pod was refused, if it was.
    pub fn refusal(&self, uid: &str, pod: &str) -> Option<String> {
        self.with(uid, |memory| memory.refused.get(pod).cloned())
    }

    /// Returns the device built from this order and these inputs, or builds it: what it has learnt of its BMC is kept.
    ///
    /// # Errors
    /// Those of `build`.
    pub(super) fn device(
        &self,
        uid: &str,
        order: &Order,
        inputs: &str,
        build: impl FnOnce() -> Result<Box<dyn Isolator>, agents::Error>,
    ) -> Result<Arc<dyn Isolator>, agents::Error> {
        self.with(uid, |memory| {
            // Of older inputs none is asked for again.
            memory.devices.retain(|(key, _)| key.1 == inputs);
            if let Some((_, device)) = memory.devices.iter().find(|(key, _)| key.0 == *order) {
                return Ok(device.clone());
            }
            let device: Arc<dyn Isolator> = build()?.into();
            memory.devices.push(((order.clone(), inputs.to_owned()), device.clone()));
            Ok(device)
        })
    }

    /// Notes what a device of another level than the one that is acted on has said.
    pub(super) fn heard(&self, uid: &str, order: &Order, sight: &Sight) {
        self.with(uid, |memory| {
            memory.others.retain(|(known, _)| known != order);
            memory.others.push((order.clone(), sight.clone()));
        });
    }

    /// Returns what such a device said, if that is not older than `age`.
    pub(super) fn said(&self, uid: &str, order: &Order, now: Instant, age: Duration) -> Option<Sight> {
        self.with(uid, |memory| {
            let (_, sight) = memory.others.iter().find(|(known, _)| known == order)?;
            (now.saturating_duration_since(sight.read_at) < age).then(|| sight.clone())
        })
    }

    /// The remediation is over.
    pub fn forget(&self, uid: &str) {
        self.0.lock().expect("no panic while held").remove(uid);
    }

    /// Adds a reading, and the pulse that was felt after it.
    pub(super) fn add(&self, uid: &str, reading: Reading, pulse: Option<Pulse>, now: Now) -> (Option<Series>, Time) {
        self.with(uid, |memory| {
            // A clock was set back: a time that has not come yet is no time at which anything was felt.
            memory.life = memory.life.min(now.wall);
            let before = memory.series;
            memory.series = match reading {
                Reading::Isolated { .. } => {
                    Some(Series { first: before.map_or(now.mono, |series| series.first), last: now.mono })
                }
                Reading::Running | Reading::Unknown | Reading::Refused => None,
            };
            if let Some(pulse) = pulse {
                // P3: the baseline is the pulse at the first Off; what came before it proves nothing against it.
                let first_off = before.is_none() && memory.series.is_some();
                if memory.pulse.as_ref().is_some_and(|known| *known != pulse) && !first_off {
                    memory.life = now.wall;
                }
                memory.pulse = Some(pulse);
            }
            (memory.series, memory.life)
        })
    }

    fn with<T>(&self, uid: &str, f: impl FnOnce(&mut Memory) -> T) -> T {
        f(self.0.lock().expect("no panic while held").entry(uid.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: Reading = Reading::Isolated { first: 0, last: 0 };

    fn at(ms: u64) -> Now {
        Now { wall: 1_000_000 + ms, mono: ms }
    }

    fn pulse(beat: &str) -> Option<Pulse> {
        Some(Pulse { lease: beat.to_owned(), ..Pulse::default() })
    }

    /// P1, P4: a series is broken by any other reading, and by a command.
    #[test]
    fn a_series_is_unbroken_offs() {
        let memories = Memories::default();
        let series = |reading, ms| memories.add("u", reading, None, at(ms)).0;
        assert_eq!(series(OFF, 10), Some(Series { first: 10, last: 10 }));
        assert_eq!(series(OFF, 20), Some(Series { first: 10, last: 20 }));
        for other in [Reading::Unknown, Reading::Running, Reading::Refused] {
            assert_eq!(series(other, 30), None);
            assert_eq!(series(OFF, 40), Some(Series { first: 40, last: 40 }));
        }
        memories.commanded("u");
        assert_eq!(series(OFF, 50), Some(Series { first: 50, last: 50 }));
    }

    /// P3: a pulse after the first Off is a sign of life; one before it is not.
    #[test]
    fn a_pulse_after_the_first_off_is_life() {
        let memories = Memories::default();
        let life = |reading, beat, ms| memories.add("u", reading, pulse(beat), at(ms)).1;
        assert_eq!(life(Reading::Running, "1", 10), 0, "nothing to compare with");
        assert_eq!(life(Reading::Running, "2", 20), at(20).wall);
        assert_eq!(life(OFF, "3", 30), at(20).wall, "renewed before the power was cut");
        assert_eq!(life(OFF, "3", 40), at(20).wall);
        assert_eq!(life(OFF, "4", 50), at(50).wall);
        assert_eq!(life(Reading::Unknown, "5", 60), at(60).wall, "a silent BMC, and the node speaks");
    }

    /// R3: a webhook that can't be reached holds up its own pod only, and not for ever.
    #[test]
    fn who_fails_comes_last_and_is_given_up() {
        let pod =
            |uid: &str| serde_json::from_value::<Pod>(serde_json::json!({"metadata": {"uid": uid}})).expect("a pod");
        let (memories, pods) = (Memories::default(), [pod("a"), pod("b"), pod("c")]);
        let order = || memories.in_order("u", &pods).into_iter().filter_map(|pod| pod.metadata.uid).collect::<Vec<_>>();
        let fails = |pod: &str, refused| memories.undeleted("u", pod.to_owned(), "no".to_owned(), refused);
        fails("a", false);
        assert_eq!(order(), ["b", "c", "a"]);
        fails("b", true);
        fails("a", false);
        assert_eq!((order(), memories.refusal("u", "a")), (vec!["c".to_owned(), "a".to_owned()], None));
        fails("a", false);
        assert_eq!((order(), memories.refusal("u", "a")), (vec!["c".to_owned()], Some("no".to_owned())));
    }

    /// Else the node would seem to live for as long as the clock was set back.
    #[test]
    fn a_clock_that_is_set_back_takes_life_with_it() {
        let memories = Memories::default();
        let life = |beat, ms: i64| {
            let now = Now { wall: 1_000_000u64.checked_add_signed(ms).expect("a time"), mono: 0 };
            memories.add("u", Reading::Unknown, pulse(beat), now).1
        };
        life("1", 10);
        assert_eq!(life("2", 20), at(20).wall);
        assert_eq!(life("2", -500), 1_000_000 - 500);
    }
}

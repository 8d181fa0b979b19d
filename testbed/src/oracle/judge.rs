//! The judgement: evidence in, verdict out. Pure.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::journal::{Ending, Life};
use crate::machine::Boot;

/// A taint, or a Node's absence, is held against a remediator only if its machine had power for this long before it was
/// seen: the oracle sees things a little later than they happen, and a machine may have been switched on in between.
const LAG: SignedDuration = SignedDuration::from_secs(1);

/// Something that lets a node's workloads start elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A pod's object is gone.
    PodGone {
        /// Where it was bound.
        node: String,
        /// Namespace and name.
        name: String,
        /// The pod's UID.
        uid: String,
    },
    /// A taint that evicts and detaches is on the node.
    Barred {
        /// The node.
        node: String,
        /// The taint's key.
        taint: String,
    },
    /// The Node's object is gone.
    NodeGone {
        /// The node.
        node: String,
    },
    /// A VolumeAttachment is being deleted, or gone.
    Detached {
        /// The node.
        node: String,
        /// The PersistentVolume.
        volume: String,
    },
}

/// A release as the oracle saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// When it was seen: never before it happened.
    pub at: Timestamp,
    /// What was seen.
    pub what: What,
}

/// Why something that happens to a machine is not its remediator's fault.
///
/// Covers what happens from `from` to `until`, and what follows from that: for as long as the boot of that time lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excuse {
    /// The machine's name.
    pub machine: String,
    /// When whoever is to blame did it.
    pub from: Timestamp,
    /// Until when a remediator can't have known; `None` for as long as that boot lasts.
    pub until: Option<Timestamp>,
    /// Who did what.
    pub reason: &'static str,
}

/// All there is to judge by.
pub(super) struct Evidence {
    pub(super) lives: Vec<Life>,
    /// By machine.
    pub(super) boots: BTreeMap<String, Vec<Boot>>,
    pub(super) releases: Vec<Release>,
    pub(super) excuses: Vec<Excuse>,
}

/// Something wrong: which machines are concerned, and since when.
struct Finding {
    machines: Vec<String>,
    at: Timestamp,
    what: String,
}

/// What the oracle says. Its Display is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// One sentence each; none if all was safe.
    pub violations: Vec<String>,
    /// What would be a violation, had not somebody else done it; with the reason.
    pub excused: Vec<String>,
    /// Who wrote to which volume, by the volume's name.
    pub volumes: BTreeMap<String, Volume>,
    /// How many pods vanished while their process had run and had not been stopped by its kubelet: released by someone.
    pub released: usize,
    /// How many processes there were.
    pub processes: usize,
}

/// Who wrote to a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The writers, in the order of their first record.
    pub writers: Vec<Life>,
}

impl Verdict {
    /// Says whether nothing was violated.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [processes, volumes] = [count(self.processes, "process"), count(self.volumes.len(), "volume")];
        write!(f, "{processes}, {volumes}, {} released: ", count(self.released, "pod"))?;
        match self.violations.as_slice() {
            [] => write!(
                f,
                "clean. No volume had two machines writing, no ordinal ran twice, nothing spoke after its release, \
                 and nothing was released from a machine that had power."
            ),
            violations => {
                write!(f, "UNSAFE.")?;
                violations.iter().try_for_each(|violation| write!(f, "\n- {violation}"))
            }
        }
    }
}

/// Judges.
pub(super) fn judge(evidence: &Evidence) -> Verdict {
    let mut findings = evidence.two_writers();
    findings.extend(evidence.twins());
    findings.extend(evidence.releases.iter().filter_map(|release| evidence.spoke_after(release)));
    findings.extend(evidence.releases.iter().filter_map(|release| evidence.released_with_power(release)));
    let (violations, excused) = evidence.excuse(findings);
    let released = evidence.releases.iter().filter(|release| evidence.was_released(release)).count();
    Verdict { violations, excused, volumes: evidence.volumes(), released, processes: evidence.lives.len() }
}

impl Evidence {
    fn volumes(&self) -> BTreeMap<String, Volume> {
        let mut volumes: BTreeMap<String, Volume> = BTreeMap::new();
        for life in &self.lives {
            for name in &life.volumes {
                let volume = volumes.entry(name.clone()).or_insert_with(|| Volume { writers: Vec::new() });
                volume.writers.push(life.clone());
            }
        }
        volumes
    }

    /// ReadWriteOnce is once per node: pods of one machine may share a volume.
    fn two_writers(&self) -> Vec<Finding> {
        let volumes = self.volumes();
        let per_volume = volumes.iter().flat_map(|(name, volume)| {
            let foreign = |a: &Life, b: &Life| a.process.machine != b.process.machine;
            let named = move |what: &str| format!("volume {name} had two writers: {what}");
            overlaps(&volume.writers, foreign).map(move |overlap| Finding { what: named(&overlap.what), ..overlap })
        });
        per_volume.collect()
    }

    fn twins(&self) -> Vec<Finding> {
        let places: Vec<_> = self.lives.iter().filter(|life| life.process.ordinal.is_some()).cloned().collect();
        let twins = |a: &Life, b: &Life| a.process.ordinal == b.process.ordinal;
        let named = |what: &str| format!("one StatefulSet ordinal ran twice: {what}");
        overlaps(&places, twins).map(|overlap| Finding { what: named(&overlap.what), ..overlap }).collect()
    }

    fn spoke_after(&self, release: &Release) -> Option<Finding> {
        let What::PodGone { uid, .. } = &release.what else { return None };
        let spoke = |life: &&Life| &life.process.uid == uid && !life.process.static_pod && life.last > release.at;
        let life = self.lives.iter().find(spoke)?;
        let late = seconds(life.last.duration_since(release.at));
        let what = format!("{} still wrote or answered {late} after its object was gone", life.process.describe());
        Some(Finding { machines: vec![life.process.machine.clone()], at: release.at, what })
    }

    fn released_with_power(&self, release: &Release) -> Option<Finding> {
        let (node, what) = match &release.what {
            What::PodGone { node, uid, .. } => {
                let life = self.lives.iter().find(|life| &life.process.uid == uid && self.lived(life, release.at))?;
                (node, format!("{} was deleted while it ran, and not by its kubelet", life.process.describe()))
            }
            What::Barred { node, taint } => (
                self.had_power(node, release.at).then_some(node)?,
                format!("{node} got the taint {taint} while it had power"),
            ),
            What::NodeGone { node } => (
                self.had_power(node, release.at).then_some(node)?,
                format!("the Node {node} was deleted while it had power"),
            ),
            What::Detached { node, volume } => {
                let writes = |life: &&Life| {
                    &life.process.machine == node && life.volumes.contains(volume) && self.lived(life, release.at)
                };
                let life = self.lives.iter().find(writes)?;
                (node, format!("volume {volume} was detached while {} had it in use", life.process.describe()))
            }
        };
        Some(Finding { machines: vec![node.clone()], at: release.at, what })
    }

    /// Parts what nobody but the remediator can have done from what is excused.
    fn excuse(&self, mut findings: Vec<Finding>) -> (Vec<String>, Vec<String>) {
        findings.sort_by_key(|finding| finding.at);
        // By excuse: until when it covers what is found.
        let mut covered: Vec<_> =
            self.excuses.iter().map(|excuse| excuse.until.unwrap_or_else(|| self.boot_ends(excuse))).collect();
        let (mut violations, mut excused) = (Vec::new(), Vec::new());
        for Finding { machines, at, what } in findings {
            let covers = |(excuse, until): &(&Excuse, &mut Timestamp)| {
                machines.contains(&excuse.machine) && excuse.from <= at && at <= **until
            };
            match self.excuses.iter().zip(&mut covered).find(covers) {
                Some((excuse, until)) => {
                    *until = self.boot_ends(excuse);
                    excused.push(format!("{what} ({})", excuse.reason));
                }
                None => violations.push(what),
            }
        }
        (violations, excused)
    }

    /// The end of the boot of that time, or of the next one: power may have come by what is excused.
    fn boot_ends(&self, excuse: &Excuse) -> Timestamp {
        let mut boots = self.boots.get(&excuse.machine).into_iter().flatten();
        let boot = boots.find(|boot| boot.until.is_none_or(|until| excuse.from < until));
        boot.map_or(excuse.from, |boot| boot.until.unwrap_or(Timestamp::MAX))
    }

    /// The pod was taken from its kubelet, which had not stopped it.
    fn was_released(&self, release: &Release) -> bool {
        let What::PodGone { uid, .. } = &release.what else { return false };
        let last = self.lives.iter().rfind(|life| &life.process.uid == uid && !life.process.static_pod);
        last.is_some_and(|life| !ended_well(life, release.at))
    }

    /// The process still ran at `at`, or was killed only because the API had forgotten it.
    ///
    /// A machine that has been off and on since gives no false alarm, however late `at` is: its boot is another.
    fn lived(&self, life: &Life, at: Timestamp) -> bool {
        let process = &life.process;
        let mut boots = self.boots.get(&process.machine).into_iter().flatten();
        let powered = boots.any(|boot| boot.id == process.boot && boot.covers(at));
        // A pod may come back to a machine in the boot from which another was released.
        powered && life.first <= at && !process.static_pod && !ended_well(life, at)
    }

    fn had_power(&self, node: &str, at: Timestamp) -> bool {
        let boots = self.boots.get(node).map(Vec::as_slice).unwrap_or_default();
        boots.iter().any(|boot| boot.covers(at) && boot.covers(at - LAG))
    }
}

/// It ended by itself, or its kubelet stopped it as it was told, before `at`.
fn ended_well(life: &Life, at: Timestamp) -> bool {
    life.ended.is_some_and(|end| match end.how {
        Ending::Completed | Ending::Stopped => end.at <= at,
        Ending::Orphaned => false,
    })
}

/// Describes the pairs that lived at once and are `alike`.
fn overlaps(lives: &[Life], alike: impl Fn(&Life, &Life) -> bool) -> impl Iterator<Item = Finding> {
    let pairs = lives.iter().enumerate().flat_map(|(index, a)| lives[index + 1..].iter().map(move |b| (a, b)));
    pairs.filter(move |(a, b)| alike(a, b)).filter_map(|(a, b)| {
        let (from, to) = (a.first.max(b.first), a.last.min(b.last));
        let length = seconds(to.duration_since(from));
        (from <= to).then(|| Finding {
            machines: vec![a.process.machine.clone(), b.process.machine.clone()],
            at: from,
            what: format!("{} and {} for {length}", a.process.describe(), b.process.describe()),
        })
    })
}

fn seconds(duration: SignedDuration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn count(number: usize, noun: &str) -> String {
    match (number, noun.ends_with('s')) {
        (1, _) => format!("1 {noun}"),
        (_, true) => format!("{number} {noun}es"),
        (_, false) => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests;

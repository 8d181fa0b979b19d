//! What ran where and wrote what: the volumes' journals and the lives of processes.
//!
//! Written only by containers, under the lock of their machine's power ([`Machine::during`](crate::machine::Machine::during)),
//! so that an entry is never younger than the end of the power that wrote it. Read by the oracle and by tests. Knows
//! nothing of Kubernetes beyond the names of things.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use uuid::Uuid;

/// Who runs: one pod on one boot of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The machine's name.
    pub machine: String,
    /// The boot it runs in; the same pod restarted after a reboot is another process.
    pub boot: Uuid,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// The place that only one process may hold at a time ("ns/statefulset/db-0"); `None` for pods that are cattle.
    pub ordinal: Option<String>,
    /// Runs whatever the API says: its mirror in the API is not its licence.
    pub static_pod: bool,
}

impl Process {
    /// Names the process for people.
    pub fn describe(&self) -> String {
        let uid = self.uid.get(..8).unwrap_or(&self.uid);
        format!("{}/{} ({uid}) on {}", self.namespace, self.pod, self.machine)
    }
}

/// The life of a process, from its own signs of life.
///
/// Each beat is also the answer that it gives to a client. Between its first and its last beat it ran without a break:
/// a process that lost its machine's power never comes back as the same process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Who.
    pub process: Process,
    /// The PersistentVolumes it writes to at each beat.
    pub volumes: Vec<String>,
    /// The first beat.
    pub first: Timestamp,
    /// The last beat so far.
    pub last: Timestamp,
    /// How many.
    pub beats: u64,
    /// How it ended; `None` for one that runs or died with the power.
    pub ended: Option<End>,
}

/// The end of a life that had power to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub at: Timestamp,
    /// How.
    pub how: Ending,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with exit code 0.
    Completed,
    /// Its kubelet was told by the API to stop it, and did.
    Stopped,
    /// Its kubelet found that the API had forgotten it, and killed it.
    Orphaned,
}

/// One record in a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was written.
    pub at: Timestamp,
    /// Counts the writer's records from 1.
    pub sequence: u64,
    /// Who wrote it: a key for [`Journals::life`].
    pub life: LifeId,
}

/// Names a life within its journals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LifeId(usize);

/// All journals of one rack.
#[derive(Debug, Default)]
pub struct Journals {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lives: Vec<Life>,
    volumes: BTreeMap<String, Vec<Entry>>,
}

impl Journals {
    /// Makes empty journals.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Begins a life with its first beat.
    pub fn begin(&self, process: Process, volumes: Vec<String>, at: Timestamp) -> LifeId {
        let mut inner = self.lock();
        let id = LifeId(inner.lives.len());
        inner.lives.push(Life { process, volumes, first: at, last: at, beats: 0, ended: None });
        inner.beat(id, at);
        id
    }

    /// Writes a record to each volume of a life and notes its beat; nothing once it has ended.
    pub fn beat(&self, id: LifeId, at: Timestamp) {
        self.lock().beat(id, at);
    }

    /// Ends a life; the first end counts.
    pub fn end(&self, id: LifeId, how: Ending) {
        let life = &mut self.lock().lives[id.0];
        life.ended = life.ended.or_else(|| Some(End { at: Timestamp::now(), how }));
    }

    /// One life.
    pub fn life(&self, id: LifeId) -> Life {
        self.lock().lives[id.0].clone()
    }

    /// All lives, in the order of their beginning.
    pub fn lives(&self) -> Vec<Life> {
        self.lock().lives.clone()
    }

    /// The lives of one pod, in the order of their beginning: several if it was restarted after a reboot.
    pub fn lives_of(&self, uid: &str) -> Vec<Life> {
        self.lock().lives.iter().filter(|life| life.process.uid == uid).cloned().collect()
    }

    /// One volume's records, in the order of writing.
    pub fn volume(&self, name: &str) -> Vec<Entry> {
        self.lock().volumes.get(name).cloned().unwrap_or_default()
    }

    /// The names of all volumes ever written to.
    pub fn volumes(&self) -> Vec<String> {
        self.lock().volumes.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while held")
    }
}

impl Inner {
    fn beat(&mut self, id: LifeId, at: Timestamp) {
        let life = &mut self.lives[id.0];
        if life.ended.is_some() {
            return;
        }
        life.last = at;
        life.beats += 1;
        for volume in &life.volumes {
            let entry = Entry { at, sequence: life.beats, life: id };
            match self.volumes.get_mut(volume) {
                Some(entries) => entries.push(entry),
                None => drop(self.volumes.insert(volume.clone(), vec![entry])),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_life_writes_no_more() {
        let journals = Journals::new();
        let process = Process {
            machine: "m".into(),
            boot: Uuid::new_v4(),
            namespace: "ns".into(),
            pod: "db-0".into(),
            uid: "u".into(),
            ordinal: None,
            static_pod: false,
        };
        let at = |second| Timestamp::from_second(second).expect("in range");
        let id = journals.begin(process, vec!["pv".into()], at(1));
        journals.beat(id, at(2));
        journals.end(id, Ending::Stopped);
        journals.beat(id, at(4));
        let life = journals.life(id);
        assert_eq!((life.first, life.last, life.beats), (at(1), at(2), 2));
        assert_eq!(life.ended.map(|end| end.how), Some(Ending::Stopped));
        assert_eq!(journals.volume("pv").iter().map(|e| e.sequence).collect::<Vec<_>>(), [1, 2]);
    }
}

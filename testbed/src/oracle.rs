//! The oracle: judges from outside whether a remediator was safe.
//!
//! Its evidence is what the containers wrote, when the machines had power, and its own watch of the API. It knows nothing
//! of any remediator and reads none of its claims, so it can judge them all. What it asks:
//!
//! - Did two machines ever write to one volume in overlapping time?
//! - Did two processes of one StatefulSet ordinal ever live at once?
//! - Did a process write or answer after its pod's object was gone?
//! - Was a workload released (its pod deleted by someone else than its kubelet, its node barred or deleted, its volume
//!   detached) while its machine had power?

mod judge;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::ListParams;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::judge::{Evidence, judge};
pub use self::judge::{Excuse, Release, Verdict, Volume, What};
use self::watched::Watched;
use crate::journal::Journals;
use crate::kubelet::RETRY;
use crate::machine::Machine;
use crate::rack::Rack;
use crate::wait;

/// How far the oracle's watches may lag behind the API server; usually 10 ms.
const LAG: Duration = Duration::from_secs(20);

/// Watches one rack from its creation on.
pub struct Oracle {
    client: Client,
    machines: Vec<Arc<Machine>>,
    journals: Arc<Journals>,
    seen: Arc<Seen>,
    _watches: JoinSet<()>,
}

impl Oracle {
    /// Begins to watch, and returns once it sees the present.
    ///
    /// # Errors
    /// When the API server can't be watched.
    pub async fn new(rack: &Rack) -> Result<Self> {
        let client = rack.client().clone();
        let machines = rack.machines().to_vec();
        let nodes = machines.iter().map(|machine| machine.name().to_owned()).collect();
        let seen = Arc::new(Seen { nodes, inner: Mutex::default(), listed: watch::Sender::default() });
        let mut watches = JoinSet::new();
        watches.spawn(follow::<Pod>(client.clone(), seen.clone()));
        watches.spawn(follow::<Node>(client.clone(), seen.clone()));
        watches.spawn(follow::<VolumeAttachment>(client.clone(), seen.clone()));
        let mut listed = seen.listed.subscribe();
        let all = listed.wait_for(|kinds| kinds.len() == watches.len());
        tokio::time::timeout(LAG, all).await.context("the oracle could not list pods, nodes and attachments")??;
        Ok(Self { client, machines, journals: rack.journals().clone(), seen, _watches: watches })
    }

    /// Judges what happened so far, once the watches have caught up with the API server.
    ///
    /// # Errors
    /// When they don't: then nothing can be said.
    pub async fn verdict(&self) -> Result<Verdict> {
        self.verdict_excusing(Vec::new()).await
    }

    /// The same, knowing what others than the remediator did.
    ///
    /// # Errors
    /// As [`verdict`](Self::verdict).
    pub async fn verdict_excusing(&self, excuses: Vec<Excuse>) -> Result<Verdict> {
        wait::until("the oracle to see the present", LAG, || async { Ok(self.is_current().await?.then_some(())) })
            .await?;
        let lives = self.journals.lives();
        let boots = self.machines.iter().map(|machine| (machine.name().to_owned(), machine.boots())).collect();
        let releases = self.seen.lock().releases.clone();
        Ok(judge(&Evidence { lives, boots, releases, excuses }))
    }

    /// What was released so far, as far as the watches have come, in the order seen.
    pub fn releases(&self) -> Vec<Release> {
        self.seen.lock().releases.clone()
    }

    async fn is_current(&self) -> Result<bool> {
        Ok(self.shows::<Pod>().await? && self.shows::<Node>().await? && self.shows::<VolumeAttachment>().await?)
    }

    async fn shows<K: Watched>(&self) -> Result<bool> {
        let list = Api::<K>::all(self.client.clone()).list(&ListParams::default()).await?;
        let ours = list.items.into_iter().filter(|object| self.seen.nodes.contains(object.node()));
        let there: BTreeMap<_, _> = ours.map(|object| (object.id(), object.shows())).collect();
        let inner = self.seen.lock();
        let known = inner.objects.get(K::KIND).into_iter().flatten();
        Ok(known.map(|(id, object)| (id.clone(), object.shown.clone())).collect::<BTreeMap<_, _>>() == there)
    }
}

/// What the watches have shown.
struct Seen {
    nodes: BTreeSet<String>,
    inner: Mutex<Inner>,
    /// The kinds that have been listed at least once.
    listed: watch::Sender<BTreeSet<&'static str>>,
}

#[derive(Default)]
struct Inner {
    /// What is there, by kind and UID.
    objects: BTreeMap<&'static str, BTreeMap<String, Object>>,
    releases: Vec<Release>,
}

struct Object {
    /// What it releases as it stands.
    shown: BTreeSet<What>,
    /// What it releases when it goes.
    gone: What,
}

impl Seen {
    fn there<K: Watched>(&self, object: &K) {
        if !self.nodes.contains(object.node()) {
            return;
        }
        let new = Object { shown: object.shows(), gone: object.gone() };
        let mut inner = self.lock();
        let shown = new.shown.clone();
        let before = inner.objects.entry(K::KIND).or_default().insert(object.id(), new);
        let before = before.map(|object| object.shown).unwrap_or_default();
        let at = Timestamp::now();
        inner.releases.extend(shown.difference(&before).map(|what| Release { at, what: what.clone() }));
    }

    fn gone<K: Watched>(&self, id: &str) {
        let mut inner = self.lock();
        if let Some(object) = inner.objects.entry(K::KIND).or_default().remove(id)
            // An attachment that was being deleted has released its volume already.
            && !object.shown.contains(&object.gone)
        {
            inner.releases.push(Release { at: Timestamp::now(), what: object.gone });
        }
    }

    fn known<K: Watched>(&self) -> BTreeSet<String> {
        self.lock().objects.get(K::KIND).into_iter().flatten().map(|(id, _)| id.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while held")
    }
}

async fn follow<K: Watched>(client: Client, seen: Arc<Seen>) {
    let mut events = watcher(Api::<K>::all(client), Config::default()).boxed();
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.insert(object.id());
                seen.there(&object);
            }
            Ok(Event::InitDone) => {
                for id in &seen.known::<K>() - &listed {
                    seen.gone::<K>(&id);
                }
                seen.listed.send_modify(|kinds| kinds.extend([K::KIND]));
            }
            Ok(Event::Apply(object)) => seen.there(&object),
            Ok(Event::Delete(object)) => seen.gone::<K>(&object.id()),
            Err(error) => {
                tracing::debug!(kind = K::KIND, %error, "a watch of the oracle broke");
                sleep(RETRY).await;
            }
        }
    }
}

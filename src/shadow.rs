//! Shadow mode: beside a running FAR, says for each of its remediations what Ringfence would have done, what the machine's
//! BMC said, and whether FAR's success had a proof behind it. The way a site gets to trust us.
//!
//! Guarantees
//! - It writes nothing: its only way to the API server is [`Eyes`], and it publishes no events.
//! - It sends no power command: it knows [`Observer::peek`], and no isolator.
//! - It takes no part in FAR's election, and does not care who leads.
//! - It disturbs no BMC: one look at a time at each, at most one a second, only while a remediation is under way, and no
//!   longer than FAR may take; a BMC that refuses us is asked once, and again when spec or Secret have changed.

mod eyes;
mod follow;
mod judge;
mod report;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;

pub use eyes::Eyes;

use crate::api::{FenceAgentsRemediation, Guarded};
use crate::clock::Clock;
use crate::isolate::Scripts;
use crate::observe::Observer;
use follow::{Follow, Seen};

/// Pause before a watch that failed is begun again.
const REWATCH: Duration = Duration::from_secs(1);

/// Watches until `stop` resolves.
pub async fn run(eyes: Eyes, clock: Clock, scripts: Arc<Scripts>, stop: impl Future<Output = ()>) {
    let observer = Arc::new(Observer::watching(eyes.client(), clock, scripts));
    let shadow = Shadow { watched: HashMap::new(), follows: JoinSet::new(), observer };
    tracing::info!("in the shadow: nothing is written, and no machine is commanded");
    tokio::select! {
        biased;
        () = stop => tracing::info!("stopping"),
        () = shadow.watch() => {}
    }
}

struct Shadow {
    /// By UID. A remediation stays until it is deleted, though it is no longer followed.
    watched: HashMap<String, watch::Sender<Seen>>,
    follows: JoinSet<()>,
    observer: Arc<Observer>,
}

impl Shadow {
    async fn watch(mut self) {
        let api: Api<Guarded> = Api::all(self.observer.client.clone());
        let mut events = watcher(api, watcher::Config::default()).boxed();
        let mut listed = HashSet::new();
        while let Some(event) = events.next().await {
            // Those that have ended are taken out of the set.
            while self.follows.try_join_next().is_some() {}
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(Guarded { 0: far })) => {
                    listed.extend(uid(&far));
                    self.apply(far.ok());
                }
                Ok(Event::InitDone) => {
                    self.watched.retain(|uid, seen| {
                        let kept = listed.contains(uid);
                        if !kept {
                            seen.send_replace(Seen::Gone);
                        }
                        kept
                    });
                }
                Ok(Event::Apply(Guarded { 0: far })) => self.apply(far.ok()),
                Ok(Event::Delete(Guarded { 0: far })) => {
                    if let Some(seen) = uid(&far).and_then(|uid| self.watched.remove(&uid)) {
                        seen.send_replace(Seen::Gone);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "watching the remediations");
                    tokio::time::sleep(REWATCH).await;
                }
            }
        }
    }

    fn apply(&mut self, far: Option<FenceAgentsRemediation>) {
        let Some((uid, far)) = far.and_then(|far| Some((far.uid()?, far))) else { return };
        let span = tracing::info_span!("remediation", node = far.node_name(), name = far.name_any(), uid);
        let seen = Seen::Now(Arc::new(far));
        if let Some(known) = self.watched.get(&uid) {
            known.send_replace(seen);
            return;
        }
        let (sender, receiver) = watch::channel(seen);
        self.watched.insert(uid.clone(), sender);
        let follow = Follow::new(self.observer.clone(), uid, receiver);
        self.follows.spawn(follow.run().instrument(span));
    }
}

fn uid(far: &Result<FenceAgentsRemediation, kube::core::error_boundary::InvalidObject>) -> Option<String> {
    match far {
        Ok(far) => far.uid(),
        Err(invalid) => invalid.metadata.uid.clone(),
    }
}

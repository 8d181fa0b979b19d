//! The loop: watch remediations, and for each observe → decide → act until there is nothing to do; all of it only while
//! this process leads.
//!
//! Only remediations are watched; all else is read live when a decision needs it. Each remediation is reconciled by itself,
//! however long its BMC takes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{ListParams, PostParams};
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use crate::act::{Actor, Outcome};
use crate::api::{FenceAgentsRemediation, Guarded};
use crate::breaker::Breaker;
use crate::clock::Clock;
use crate::cluster::{self, call};
use crate::decide::{Claim, decide};
use crate::devices::Devices;
use crate::events::{Events, Kind};
use crate::isolate::Scripts;
use crate::lease::{Elector, LEASE, Standing, Times};
use crate::observe::{self, Holds, Memories, Observer, Seen};
use crate::status::LEADING;
use crate::{preflight, sweep};

/// First pause after an error; doubled with each one in a row.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// An API server that is down is not helped by more than this; a node that waits to be fenced is not by less.
const RETRY_LAST: Duration = Duration::from_secs(5);
/// Conflicts in a row to answer at once: each is somebody's write between our read and ours, milliseconds apart.
const CONFLICTS: usize = 8;
/// Failures in a row after which people are told, and then again each time that many more have come: some half a minute.
const TELL_AFTER: u32 = 10;
/// Remediations to wake; each wakes at most one.
const WAKE_QUEUE: usize = 256;

/// What the operator is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace it runs in: where its lease is.
    pub namespace: String,
    /// Names this process in the lease and in events.
    pub identity: String,
    /// Times of the election.
    pub times: Times,
    /// The fence agents' scripts.
    pub scripts: Arc<Scripts>,
    /// The namespace in which medik8s' operators lease nodes.
    pub node_leases: String,
    /// How devices are asked before anything happens.
    pub preflight: preflight::Settings,
    /// Limits how many machines are cut off.
    pub breaker: Breaker,
}

/// Runs the operator until `stop` resolves, then gives the lease up.
pub async fn run(
    client: Client,
    clock: Clock,
    settings: Settings,
    standing: watch::Sender<Standing>,
    stop: impl Future<Output = ()>,
) {
    let (events, publisher) = Events::new(clock.clone(), settings.identity.clone());
    let Settings { namespace, identity, times, .. } = settings.clone();
    let elector = Elector::new(client.clone(), clock.clone(), namespace.clone(), identity.clone(), times);
    let standings = standing.subscribe();
    tokio::select! {
        biased;
        () = stop => tracing::info!("stopping"),
        () = elector.run(standing.clone()) => {}
        () = lead(client.clone(), clock, events, settings, standings) => {}
        () = publisher.run(client.clone()) => {}
    }
    // Everything that was under way is being cancelled: whoever leads next finds it in status, and what is still in flight
    // meets conditional writes (S2).
    standing.send_replace(Standing::Follows);
    if let Err(error) = Elector::release(client, &namespace, &identity).await {
        tracing::warn!(error = error.story(), "the lease could not be given up; it will expire");
    }
}

/// Works while this process leads; drops everything that is under way when it no longer does.
async fn lead(
    client: Client,
    clock: Clock,
    events: Events,
    settings: Settings,
    mut standing: watch::Receiver<Standing>,
) {
    let Settings { scripts, node_leases, preflight, breaker, .. } = settings;
    let (holds, breaker, devices) = (Arc::new(Holds::new(node_leases)), Arc::new(breaker), Arc::<Devices>::default());
    loop {
        let now = standing.borrow_and_update().clone();
        let work = match &now {
            Standing::Leads => {
                let observer = Observer {
                    client: client.clone(),
                    clock: clock.clone(),
                    memories: Memories::default(),
                    breaker: breaker.clone(),
                    devices: devices.clone(),
                    scripts: scripts.clone(),
                    workshop: scripts.clone(),
                    holds: holds.clone(),
                };
                let work = reconcile_all(observer, events.clone());
                let (clock, devices, scripts) = (clock.clone(), devices.clone(), scripts.clone());
                let check = preflight::run(client.clone(), clock, events.clone(), devices, scripts, preflight);
                futures::future::join3(work, check, sweep::run(&client, &events)).map(drop).boxed()
            }
            Standing::Follows => futures::future::pending().boxed(),
            Standing::Foreign(namespace) => refuse(&client, &clock, &events, namespace).boxed(),
        };
        tracing::info!(standing = ?now, "leadership");
        tokio::select! {
            biased;
            changed = standing.changed() => if changed.is_err() { return },
            () = work => {}
        }
    }
}

async fn reconcile_all(observer: Observer, events: Events) {
    let api: Api<Guarded> = Api::all(observer.client.clone());
    let (reconciler, woken) = Reconciler::new(observer, events);
    let woken = futures::stream::unfold(woken, |mut woken| async { woken.recv().await.map(|object| (object, woken)) });
    Controller::new(api, watcher::Config::default())
        .reconcile_on(woken)
        .trigger_backoff(Rewatch)
        .run(reconcile, |_, _, _| Action::requeue(RETRY_LAST), Arc::new(reconciler))
        .for_each(|result| async {
            if let Err(error) = result {
                // Of an object that is gone this is usual; of a watch that fails it is all there is to see.
                tracing::warn!(%error, "watching the remediations");
            }
        })
        .await;
}

/// Pause before a watch that failed is begun again. kube's default grows to 30 s, which a node would wait to be fenced.
struct Rewatch;

impl Iterator for Rewatch {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }
}

impl Backoff for Rewatch {
    fn reset(&mut self) {}
}

async fn reconcile(far: Arc<Guarded>, reconciler: Arc<Reconciler>) -> Result<Action, std::convert::Infallible> {
    let again = match &far.0 {
        Ok(far) => reconciler.reconcile(far).await,
        Err(invalid) => {
            reconciler.unreadable(invalid);
            None
        }
    };
    Ok(again.map_or_else(Action::await_change, Action::requeue))
}

/// Observes, decides and acts, for one remediation at a time. What watches and what leads is somebody else's.
pub struct Reconciler {
    observer: Observer,
    events: Events,
    failures: Mutex<HashMap<String, u32>>,
    wake: mpsc::Sender<ObjectRef<Guarded>>,
}

impl Reconciler {
    /// Returns it, and the remediations that others wait for: each is to be reconciled soon.
    pub fn new(observer: Observer, events: Events) -> (Self, mpsc::Receiver<ObjectRef<Guarded>>) {
        let (wake, woken) = mpsc::channel(WAKE_QUEUE);
        (Self { observer, events, failures: Mutex::default(), wake }, woken)
    }

    /// Goes on until there is nothing to do. Returns after which time to come again, unless something changes before;
    /// `None`: only when something changes.
    pub async fn reconcile(&self, far: &FenceAgentsRemediation) -> Option<Duration> {
        let uid = far.uid().unwrap_or_default();
        let pinned = far.status.as_ref().and_then(|status| status.node.as_ref()).map(|node| node.name.as_str());
        let span = tracing::info_span!("remediation", node = pinned.unwrap_or_else(|| far.node_name()), uid);
        async {
            match self.settle(far).await {
                Ok(again) => {
                    self.failures.lock().expect("no panic while held").remove(&uid);
                    again
                }
                Err(error) => Some(self.failed(far, &uid, &error)),
            }
        }
        .instrument(span)
        .await
    }

    async fn settle(&self, far: &FenceAgentsRemediation) -> Result<Option<Duration>, observe::Error> {
        let Observer { client, clock, memories, breaker, devices, .. } = &self.observer;
        let actor = Actor { client, clock, events: &self.events, memories, breaker, devices };
        let (namespace, name) = (far.namespace().unwrap_or_default(), far.name_any());
        let mut conflicts = 0;
        loop {
            let outcome = match self.observer.observe(&namespace, &name).await? {
                Seen::Nothing => {
                    memories.forget(&far.uid().unwrap_or_default());
                    // The watch has it, and nobody has deleted it: this API server may be behind, and nothing else would
                    // bring us back.
                    Ok(if far.metadata.deletion_timestamp.is_none() {
                        Outcome::Wait(RETRY_LAST)
                    } else {
                        Outcome::Over
                    })
                }
                Seen::New(far) => actor.accept(*far).await,
                Seen::Scene(scene) => {
                    let now = clock.now();
                    let step = decide(&scene.case, now);
                    let doubt = scene.case.phase.off().and_then(|off| scene.case.doubt(off, now));
                    tracing::debug!(?step, ?doubt, case = ?scene.case, "decided");
                    self.wake_holder(&scene);
                    actor.act(*scene, step).await
                }
            };
            match outcome {
                Ok(Outcome::Went) => {}
                Ok(Outcome::Wait(pause)) => return Ok(Some(pause)),
                Ok(Outcome::Over) => return Ok(None),
                // Something has changed since it was read; what changes all the time is not raced against.
                Err(error) if error.is_conflict() && conflicts < CONFLICTS => {
                    tracing::debug!(error = error.story(), "conflict: looking again");
                    conflicts += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whoever holds the node for which this one waits may be able to hand it over now (L6).
    fn wake_holder(&self, scene: &observe::Scene) {
        if let (Claim::Others, Some(holder)) = (scene.case.claim, &scene.holder) {
            let holder = ObjectRef::new(&holder.name).within(&holder.namespace);
            // A full queue wakes it anyway.
            let _ = self.wake.try_send(holder);
        }
    }

    /// The values that don't fit are not told: they may be secrets.
    fn unreadable(&self, invalid: &InvalidObject) {
        let note = "this remediation can't be read: a field is missing or of the wrong kind; delete it, or correct it";
        let api: ObjectReference =
            ObjectRef::<FenceAgentsRemediation>::new(invalid.metadata.name.as_deref().unwrap_or_default())
                .within(invalid.metadata.namespace.as_deref().unwrap_or_default())
                .into();
        tracing::warn!(name = invalid.metadata.name, "{note}");
        self.events.publish(
            &ObjectReference { uid: invalid.metadata.uid.clone(), ..api },
            Kind::Warning,
            "InvalidObject",
            note,
        );
    }

    fn failed(&self, far: &FenceAgentsRemediation, uid: &str, error: &observe::Error) -> Duration {
        let text = match error {
            observe::Error::Cluster(error) => error.story(),
            observe::Error::Resolve(_) | observe::Error::Malformed(_) | observe::Error::Moving => error.to_string(),
        };
        tracing::warn!(error = text, "will try again");
        let mut failures = self.failures.lock().expect("no panic while held");
        let count = failures.entry(uid.to_owned()).and_modify(|n| *n = n.saturating_add(1)).or_insert(0);
        match error {
            observe::Error::Malformed(_) if count.is_multiple_of(TELL_AFTER) => {
                self.events.publish(&far.object_ref(&()), Kind::Warning, "StatusMalformed", &text);
            }
            // A single one is usual: the API server was restarted, say.
            _ if *count > 0 && count.is_multiple_of(TELL_AFTER) => {
                self.events.publish(&far.object_ref(&()), Kind::Warning, "APIServerError", &text);
            }
            _ => {}
        }
        RETRY_FIRST.saturating_mul(1 << (*count).min(8)).min(RETRY_LAST)
    }
}

/// Another operator leads: says so on every remediation that nobody has accepted, and touches nothing else.
async fn refuse(client: &Client, clock: &Clock, events: &Events, namespace: &str) {
    let message = format!(
        "not leading: another operator renews the lease {LEASE} in namespace {namespace}; stop it, or Ringfence will not fence"
    );
    loop {
        if let Err(error) = refuse_each(client, clock, events, &message).await {
            tracing::warn!(error = error.story(), "{message}");
        }
        tokio::time::sleep(RETRY_LAST).await;
    }
}

async fn refuse_each(client: &Client, clock: &Clock, events: &Events, message: &str) -> Result<(), cluster::Error> {
    let all: Api<Guarded> = Api::all(client.clone());
    let listed = call("listing the remediations", all.list(&ListParams::default())).await?.items;
    for mut far in listed.into_iter().filter_map(|far| far.0.ok()) {
        let about: ObjectReference = far.object_ref(&());
        let generation = far.metadata.generation;
        let status = far.status.get_or_insert_default();
        let told = status.conditions.iter().any(|c| c.type_ == LEADING && c.message == message);
        if told || status.phase.is_some() {
            continue;
        }
        status.conditions.retain(|c| c.type_ != LEADING);
        status.conditions.push(Condition {
            type_: LEADING.to_owned(),
            status: "False".to_owned(),
            reason: FOREIGN.to_owned(),
            message: message.to_owned(),
            observed_generation: generation,
            last_transition_time: Time(clock.timestamp()),
        });
        let api: Api<FenceAgentsRemediation> = Api::namespaced(client.clone(), &far.namespace().unwrap_or_default());
        match call("writing the status", api.replace_status(&far.name_any(), &PostParams::default(), &far)).await {
            Ok(_) => events.publish(&about, Kind::Warning, FOREIGN, message),
            // The other operator writes there, too; the next pass tells.
            Err(error) => tracing::debug!(error = error.story(), "not told"),
        }
    }
    Ok(())
}

/// The reason of that condition and of its event.
const FOREIGN: &str = "ForeignOperator";

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::api::FenceAgentsRemediationSpec;

    /// An API server that is behind knows nothing yet of what the watch has told of. (Found by the simulation.)
    #[tokio::test(start_paused = true)]
    async fn what_was_not_deleted_is_asked_for_again() {
        let answer = json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 }).to_string();
        let service = tower::service_fn(move |_: Request<Body>| {
            let answer = Response::builder().status(404).body(Body::from(answer.clone().into_bytes()));
            async move { answer }
        });
        let (client, clock) = (Client::new(service, "ns"), Clock::system());
        let scripts = Arc::new(Scripts::new("/nonexistent".as_ref(), false));
        let (events, _publisher) = Events::new(clock.clone(), "test".to_owned());
        let (reconciler, _woken) = Reconciler::new(Observer::watching(client, clock, scripts), events);
        let spec: FenceAgentsRemediationSpec = serde_json::from_value(json!({ "agent": "fence_redfish" })).unwrap();
        let mut far = FenceAgentsRemediation::new("n", spec);
        far.metadata.namespace = Some("ns".to_owned());
        assert_eq!(reconciler.reconcile(&far).await, Some(RETRY_LAST));
        far.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(reconciler.reconcile(&far).await, None);
    }
}

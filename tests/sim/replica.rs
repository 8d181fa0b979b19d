//! One replica of the operator: the real election and the real reconciler, driven by a small scheduler of our own instead
//! of kube's, whose order is that of hash maps and spawned tasks.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use ringfence::api::FenceAgentsRemediation;
use ringfence::breaker::{Breaker, Limits, Share};
use ringfence::clock::Clock;
use ringfence::controller::Reconciler;
use ringfence::devices::Devices;
use ringfence::events::Events;
use ringfence::isolate::Scripts;
use ringfence::lease::{Elector, Standing, Times};
use ringfence::observe::{Holds, Memories, Observer};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::api;
use super::bmc::Bench;
use super::tally::note;
use super::world::{FARS, NAMESPACE, NODE_LEASES, Shared, text, wall_off};

/// client-go's.
const TIMES: Times = Times {
    duration: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    retry_period: Duration::from_secs(2),
};

/// Runs one replica for ever, through one life after another.
pub async fn run(shared: Shared, replica: usize) {
    loop {
        let life = live(shared.clone(), replica);
        Governed { inner: Box::pin(life), shared: shared.clone(), replica, stopped: None }.await;
        note(|| format!("replica {replica} is killed"));
        let pause = shared.enter().chance.within(50, 4_000);
        sleep(Duration::from_millis(pause)).await;
    }
}

async fn live(shared: Shared, replica: usize) {
    let client = api::client(&shared, replica);
    let (clock, all_lead) = {
        let mut world = shared.enter();
        let skew = world.mix.skew;
        // Each life has a clock of its own: it is set while the process is down.
        let off = i64::try_from(world.chance.within(0, 2 * skew)).unwrap_or(0) - i64::try_from(skew).unwrap_or(0);
        (Clock::simulated(wall_off(world.now, off)), world.mix.all_lead)
    };
    let (events, _publisher) = Events::new(clock.clone(), format!("replica-{replica}"));
    let (standing, standings) = watch::channel(if all_lead { Standing::Leads } else { Standing::Follows });
    let elector =
        Elector::new(client.clone(), clock.clone(), NAMESPACE.to_owned(), format!("replica-{replica}"), TIMES);
    let work = Work { shared, replica, client, clock, events };
    tokio::select! {
        biased;
        () = elector.run(standing), if !all_lead => {}
        () = work.lead(standings) => {}
    }
}

struct Work {
    shared: Shared,
    replica: usize,
    client: kube::Client,
    clock: Clock,
    events: Events,
}

impl Work {
    /// As the operator's own: drops everything that is under way when it no longer leads.
    async fn lead(self, mut standing: watch::Receiver<Standing>) {
        let devices = Arc::<Devices>::default();
        let holds = Arc::new(Holds::new(NODE_LEASES.to_owned()));
        loop {
            let now = standing.borrow_and_update().clone();
            note(|| format!("replica {}: {now:?}", self.replica));
            let work = match &now {
                Standing::Leads => self.reconcile_all(devices.clone(), holds.clone()).boxed_local(),
                Standing::Follows | Standing::Foreign(_) => futures::future::pending().boxed_local(),
            };
            tokio::select! {
                biased;
                changed = standing.changed() => if changed.is_err() { return },
                () = work => {}
            }
        }
    }

    async fn reconcile_all(&self, devices: Arc<Devices>, holds: Arc<Holds>) {
        let observer = Observer {
            client: self.client.clone(),
            clock: self.clock.clone(),
            memories: Memories::default(),
            breaker: Arc::new(self.breaker()),
            devices,
            scripts: Arc::new(Scripts::new("/nonexistent".as_ref(), false)),
            workshop: Arc::new(Bench { shared: self.shared.clone(), replica: self.replica }),
            holds,
        };
        let (reconciler, mut woken) = Reconciler::new(observer, self.events.clone());
        let mut changes = self.shared.enter().changed.subscribe();
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        let mut due: BTreeMap<String, Instant> = BTreeMap::new();
        let mut busy: Vec<String> = vec![];
        let mut running = FuturesUnordered::new();
        loop {
            let all = self.listed();
            let listed = |name: &String| all.iter().any(|far| far.metadata.name.as_deref() == Some(name));
            due.retain(|name, _| listed(name));
            seen.retain(|name, _| listed(name));
            for far in all {
                let name = far.metadata.name.clone().unwrap_or_default();
                let version = far.metadata.resource_version.clone().unwrap_or_default();
                if seen.insert(name.clone(), version.clone()).is_none_or(|known| known != version) {
                    due.insert(name.clone(), Instant::now());
                }
                let is_due = due.get(&name).is_some_and(|at| *at <= Instant::now());
                if is_due && !busy.contains(&name) {
                    due.remove(&name);
                    busy.push(name.clone());
                    let reconciler = &reconciler;
                    running.push(async move { (reconciler.reconcile(&far).await, name) });
                }
            }
            let next = due.iter().filter(|(name, _)| !busy.contains(name)).map(|(_, at)| *at).min();
            let next = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            tokio::select! {
                biased;
                Some((again, name)) = running.next() => {
                    busy.retain(|other| *other != name);
                    if let Some(again) = again {
                        due.entry(name).or_insert_with(|| Instant::now() + again);
                    }
                }
                Some(object) = woken.recv() => drop(due.insert(object.name, Instant::now())),
                _ = changes.changed() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    fn breaker(&self) -> Breaker {
        let one = self.shared.enter().mix.limited.then_some(Share::Count(1));
        let window = Duration::from_secs(20);
        let limits = Limits { concurrent: one, begun: one, in_domain: None, window, cool_down: Some(window) };
        Breaker { namespace: NAMESPACE.to_owned(), limits, domain_label: String::new() }
    }

    fn listed(&self) -> Vec<FenceAgentsRemediation> {
        let all = {
            let world = self.shared.enter();
            let at = world.replicas[self.replica].view.map_or(u64::MAX, |(_, at)| at);
            world.store.list(FARS, None, at)
        };
        let read = |far: &std::sync::Arc<serde_json::Value>| {
            serde_json::from_value(far.as_ref().clone()).unwrap_or_else(|error| {
                panic!("{} can't be read: {error}", text(&far["metadata"]["name"]));
            })
        };
        all.iter().map(read).collect()
    }
}

/// A process that can be killed or stopped at each of its polls.
struct Governed {
    inner: Pin<Box<dyn Future<Output = ()>>>,
    shared: Shared,
    replica: usize,
    stopped: Option<Pin<Box<Sleep>>>,
}

impl Future for Governed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(stopped) = &mut self.stopped {
            if stopped.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.stopped = None;
            note(|| format!("replica {} goes on", self.replica));
        }
        let stop = {
            let mut world = self.shared.enter();
            let governor = &mut world.replicas[self.replica];
            match &mut governor.crash {
                Some(0) => {
                    governor.crash = None;
                    return Poll::Ready(());
                }
                Some(polls) => *polls -= 1,
                None => {}
            }
            match &mut governor.pause {
                Some((0, length)) => {
                    let length = *length;
                    governor.pause = None;
                    Some(length)
                }
                Some((polls, _)) => {
                    *polls -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some(length) = stop {
            note(|| format!("replica {} stands still for {length} ms", self.replica));
            let mut sleep = Box::pin(sleep(Duration::from_millis(length)));
            let _ = sleep.as_mut().poll(context);
            self.stopped = Some(sleep);
            return Poll::Pending;
        }
        self.inner.as_mut().poll(context)
    }
}

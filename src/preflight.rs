//! Preflight: asks, before anything dies, whether each node could be fenced through each template, and says so in the
//! template's status. Runs while this process leads.
//!
//! Knows templates, Nodes and devices. Must not know the policy; sends no power command, and releases nothing.
//!
//! - A device is asked by one who is in no hurry: remediations go first, and where a node has one, it looks itself.
//! - A wrong password is tried once (see [`devices`](crate::devices)).
//! - Secrets are not watched: their versions are read at each check, so a change is noticed within one period.
//! - What is read here is also a remediation's witness, and, where that is wanted, tells of power losses ([`detect`]).

mod check;
pub mod detect;
mod levels;
mod plan;
mod report;
mod sample;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use self::check::{Job, Nodes, Outcome, check};
use self::detect::{Beats, LEASES, Marker};
use self::levels::{Place, places, together};
use self::plan::{Pair, Times};
use self::report::report;
use self::world::{World, annotate, busy, names, watched};
use crate::api::{FenceAgentsRemediationTemplate as Template, GuardedTemplate, MULTIPLE_TEMPLATES_ANNOTATION};
use crate::clock::Clock;
use crate::cluster::{self, call};
use crate::devices::Devices;
use crate::events::Events;
use crate::isolate::Scripts;

/// Checks at once: as many sockets, and a few milliseconds of work each.
const AT_ONCE: usize = 16;
/// Scripts at once: each is a Python interpreter of some 20 MiB.
const INTERPRETERS: usize = 4;
/// A status waits this long for the other checks of its template: a thousand results are not a thousand writes.
const GATHER: Duration = Duration::from_secs(1);
/// What is refused now is refused again: a permission is missing, or an object that is older than a rule of its schema.
const WRITE_AGAIN: Duration = Duration::from_secs(60);
/// How often templates are looked at where nothing is checked: for the annotation.
const IDLE: Duration = Duration::from_secs(30);
/// Nodes and templates are listed no more often than this, however short the period.
const LIST_MIN: Duration = Duration::from_secs(1);

/// What is asked for on the command line.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How often each device is asked; none: never.
    pub period: Option<Duration>,
    /// Nodes whose machine has lost its power get a condition.
    pub detect: bool,
}

/// What checks need.
pub(crate) struct Context {
    client: Client,
    clock: Clock,
    events: Events,
    devices: Arc<Devices>,
    scripts: Arc<Scripts>,
    interpreters: Semaphore,
    at_once: Semaphore,
}

impl Context {
    /// Waits for a place among those who ask at a time. A node that may just have died does not stand in line behind those that
    /// have not.
    async fn place(&self, job: &Job) -> Option<SemaphorePermit<'_>> {
        if job.soon { None } else { self.at_once.acquire().await.ok() }
    }
}

/// Runs for ever. Dropping it ends all checks.
pub async fn run(
    client: Client,
    clock: Clock,
    events: Events,
    devices: Arc<Devices>,
    scripts: Arc<Scripts>,
    settings: Settings,
) {
    let context = Context {
        client,
        clock,
        events,
        devices,
        scripts,
        interpreters: Semaphore::new(INTERPRETERS),
        at_once: Semaphore::new(AT_ONCE),
    };
    Preflight::new(Arc::new(context), settings).run().await;
}

struct Preflight {
    context: Arc<Context>,
    settings: Settings,
    times: Times,
    /// By UID.
    templates: BTreeMap<String, Known>,
    nodes: Arc<Nodes>,
    /// Nodes that a remediation is at work on.
    busy: BTreeSet<String>,
    /// When that was last seen.
    asked_busy: Instant,
    /// When all that is listed was listed, and when it is again.
    listed: Instant,
    list: Instant,
    checks: JoinSet<Done>,
    beats: Beats,
}

/// A template, and what is known of its nodes.
struct Known {
    template: Arc<Template>,
    /// By node, and by device of the node.
    pairs: BTreeMap<(String, Place), Pair>,
    /// When its status is to be written.
    write: Option<Instant>,
}

/// A check that has ended.
struct Done {
    template: String,
    generation: Option<i64>,
    node: String,
    place: Place,
    outcome: Outcome,
}

impl Preflight {
    fn new(context: Arc<Context>, settings: Settings) -> Self {
        Self {
            context,
            settings,
            times: Times::new(settings.period.unwrap_or(IDLE)),
            templates: BTreeMap::new(),
            nodes: Arc::default(),
            busy: BTreeSet::new(),
            listed: Instant::now(),
            asked_busy: Instant::now(),
            list: Instant::now(),
            checks: JoinSet::new(),
            beats: Beats::default(),
        }
    }

    async fn run(mut self) {
        let mut changes = watched::<GuardedTemplate>(Api::all(self.context.client.clone()));
        let mut leases = match self.settings.detect {
            true => watched::<Lease>(Api::namespaced(self.context.client.clone(), LEASES)),
            false => futures::stream::pending().boxed(),
        };
        loop {
            if Instant::now() >= self.list {
                self.list().await;
            }
            self.check_stale().await;
            self.start();
            self.write().await;
            let next = self.next();
            tokio::select! {
                biased;
                Some(done) = self.checks.join_next() => match done {
                    Ok(done) => self.done(done).await,
                    Err(error) => {
                        tracing::warn!(%error, "a check ended without a result");
                        // Whose it was is not told: another check of one that is still asked only waits for its turn.
                        self.templates.values_mut().for_each(|known| {
                            known.pairs.values_mut().for_each(|pair| pair.in_flight = false);
                        });
                    }
                },
                Some(event) = leases.next() => self.beat(event).await,
                Some(event) = changes.next() => self.changed(&event),
                () = sleep_until(next) => {}
            }
        }
    }

    /// Reads templates, Nodes and remediations anew. What can't be read stays as it was.
    async fn list(&mut self) {
        self.listed = Instant::now();
        self.list = self.listed + self.settings.period.unwrap_or(IDLE).max(LIST_MIN);
        let World { templates, nodes, busy } = match World::read(&self.context.client).await {
            Ok(world) => world,
            Err(error) => return tracing::warn!(error = error.story(), "preflight can't see the cluster"),
        };
        (self.nodes, self.busy) = (Arc::new(nodes), busy);
        let mut known = std::mem::take(&mut self.templates);
        for template in templates {
            annotate(&self.context.client, &template).await;
            let uid = template.uid().unwrap_or_default();
            let known = known.remove(&uid);
            self.templates.insert(uid, Known::new(template, known, &self.nodes, self.settings));
        }
        self.sweep_marks().await;
    }

    /// Begins whatever is due.
    fn start(&mut self) {
        if self.settings.period.is_none() {
            return;
        }
        let now = Instant::now();
        for (uid, known) in &mut self.templates {
            for ((node, place), pair) in known.pairs.iter_mut().filter(|(_, pair)| pair.is_due(now)) {
                if self.busy.contains(node) {
                    pair.put_off(now);
                    continue;
                }
                pair.in_flight = true;
                let job = Job {
                    template: known.template.clone(),
                    node: node.clone(),
                    place: *place,
                    nodes: self.nodes.clone(),
                    known: pair.known(now),
                    soon: place.is_first() && self.beats.is_stale(node),
                };
                let (context, uid, generation) =
                    (self.context.clone(), uid.clone(), known.template.metadata.generation);
                self.checks.spawn(async move {
                    let outcome = check(&context, &job).await;
                    Done { template: uid, generation, node: job.node, place: job.place, outcome }
                });
            }
        }
    }

    async fn done(&mut self, done: Done) {
        let Done { template, generation, node, place, outcome } = done;
        let now = Instant::now();
        let Some(known) = self.templates.get_mut(&template) else { return };
        let Some(pair) = known.pairs.get_mut(&(node.clone(), place)) else { return };
        if known.template.metadata.generation != generation {
            pair.in_flight = false; // of a spec that is no longer
            return pair.hurry();
        }
        // A remediation has begun: which nodes are to be left alone is seen before the next try. Giving way time and again would
        // leave an IPMI session behind each time, and a BMC has few.
        let gave_way = matches!(outcome, Outcome::GaveWay);
        // Only what was read just now says whether the machine has power.
        let (off, on) = match &outcome {
            Outcome::Checked(checked, _) if place.is_first() && checked.asked.is_some() => (checked.off, checked.on),
            Outcome::Checked(..) | Outcome::Unchanged | Outcome::GaveWay => (false, false),
        };
        if pair.done(outcome, &self.times, now) {
            known.write.get_or_insert(now + GATHER);
        }
        let marked = self.nodes.get(&node).is_some_and(|facts| facts.marked);
        if self.settings.detect && off && !marked && self.beats.is_stale(&node) {
            let through = known.template.name_any();
            self.mark(&node, Some(&through), "").await;
        } else if marked && on {
            self.mark(&node, None, "the machine's power was read On").await;
        }
        if gave_way && now >= self.asked_busy + LIST_MIN {
            self.ask_busy().await;
        }
    }

    /// Sees which nodes have a remediation.
    async fn ask_busy(&mut self) {
        self.asked_busy = Instant::now();
        match busy(&self.context.client).await {
            Ok(busy) => self.busy = busy,
            Err(error) => tracing::warn!(error = error.story(), "asking all the same"),
        }
    }

    /// Leases that have just become stale: their nodes' devices are asked at once.
    async fn check_stale(&mut self) {
        let stale = self.beats.newly_stale(Instant::now());
        if stale.is_empty() {
            return;
        }
        tracing::debug!(?stale, "Leases were not renewed");
        self.ask_busy().await;
        for known in self.templates.values_mut() {
            for (_, pair) in
                known.pairs.iter_mut().filter(|((node, place), _)| place.is_first() && stale.contains(node))
            {
                pair.hurry();
            }
        }
    }

    async fn beat(&mut self, event: Event<Lease>) {
        match event {
            Event::Apply(lease) | Event::InitApply(lease) => {
                let node = lease.name_any();
                let alive = self.beats.beat(&node, lease.resource_version(), Instant::now());
                if alive && self.nodes.get(&node).is_some_and(|facts| facts.marked) {
                    self.mark(&node, None, "the node renews its Lease again").await;
                }
            }
            Event::Delete(lease) => self.beats.gone(&lease.name_any()),
            Event::Init | Event::InitDone => {}
        }
    }

    /// What is written to status changes no generation, and is no news.
    fn changed(&mut self, event: &Event<GuardedTemplate>) {
        let news = match event {
            Event::Apply(template) | Event::InitApply(template) => {
                let meta = template.meta();
                let known = meta.uid.as_ref().and_then(|uid| self.templates.get(uid));
                known.is_none_or(|known| known.template.metadata.generation != meta.generation)
                    || !meta.annotations.as_ref().is_some_and(|all| all.contains_key(MULTIPLE_TEMPLATES_ANNOTATION))
            }
            Event::Delete(_) => true,
            Event::Init | Event::InitDone => false,
        };
        if news {
            self.list = self.list.min(self.listed + LIST_MIN);
        }
    }

    /// Writes the statuses that are due.
    async fn write(&mut self) {
        let now = Instant::now();
        for known in self.templates.values_mut().filter(|known| known.write.is_some_and(|at| at <= now)) {
            known.write = None;
            if let Err(error) = known.write(&self.context).await {
                if error.is_conflict() {
                    // Whoever was faster is listed next; what is told then is what is known then.
                    known.write = Some(now + GATHER);
                    self.list = self.list.min(self.listed + LIST_MIN);
                } else {
                    tracing::warn!(error = error.story(), "the status of a template was not written");
                    known.write = Some(now + WRITE_AGAIN);
                }
            }
        }
    }

    /// Puts the condition on a Node, or takes it off.
    async fn mark(&mut self, node: &str, through: Option<&str>, why: &str) {
        let Context { client, clock, events, .. } = &*self.context;
        let marker = Marker { client, clock, events };
        let written = match through {
            Some(through) => {
                let uid = self.nodes.get(node).map_or_else(String::new, |facts| facts.uid.clone());
                marker.mark(node, &uid, through).await
            }
            None => marker.unmark(node, why).await,
        };
        match written {
            Ok(()) => {
                if let Some(facts) = Arc::make_mut(&mut self.nodes).get_mut(node) {
                    facts.marked = through.is_some();
                }
            }
            // The next check, or the next list, tries again.
            Err(error) => tracing::warn!(node, error = error.story(), "the condition of a Node was not written"),
        }
    }

    /// Conditions that an earlier leader left on nodes that live, or that nobody asks for any more.
    async fn sweep_marks(&mut self) {
        let marked = self.nodes.iter().filter(|(_, facts)| facts.marked).map(|(name, _)| name.clone());
        for node in marked.collect::<Vec<_>>() {
            match self.settings.detect {
                false => self.mark(&node, None, "power losses are no longer looked for").await,
                true if self.beats.is_alive(&node) => self.mark(&node, None, "the node renews its Lease again").await,
                true => {}
            }
        }
    }

    /// When there is something to do, if nothing happens before.
    fn next(&self) -> Instant {
        let pairs = self.templates.values().flat_map(|known| known.pairs.values());
        let due = pairs.filter(|pair| !pair.in_flight).filter_map(Pair::due);
        let writes = self.templates.values().filter_map(|known| known.write);
        let due = due.filter(|_| self.settings.period.is_some());
        due.chain(writes).chain(self.beats.next()).fold(self.list, Instant::min)
    }
}

impl Known {
    /// Takes a template as it is now; what is known of its nodes stays unless its spec has changed.
    fn new(template: Template, before: Option<Self>, nodes: &Nodes, settings: Settings) -> Self {
        let same = before.as_ref().is_some_and(|b| b.template.metadata.generation == template.metadata.generation);
        let mut old = before.map(|before| before.pairs).unwrap_or_default();
        let places = places(&template.spec.template.spec);
        let keys =
            names(&template, nodes).into_iter().flat_map(|name| places.iter().map(move |at| (name.clone(), *at)));
        let mut pairs: BTreeMap<_, _> = keys
            .map(|key| {
                let pair = old.remove(&key).unwrap_or_default();
                (key, pair)
            })
            .collect();
        if !same {
            pairs.values_mut().for_each(Pair::hurry);
        }
        // Also where nothing new is known: nodes come and go.
        let write = settings.period.map(|_| Instant::now() + GATHER);
        Self { template: Arc::new(template), pairs, write }
    }

    async fn write(&mut self, context: &Context) -> Result<(), cluster::Error> {
        let pairs: Vec<_> = self.pairs.iter().collect();
        let nodes = pairs.chunk_by(|((one, _), _), ((other, _), _)| one == other);
        let known = nodes.filter_map(|node| {
            let devices = node.iter().map(|((_, place), pair)| (*place, pair.checked.as_ref()));
            Some((&node.first()?.0.0, together(devices)))
        });
        let known = known.collect();
        let Some((status, sayings)) = report(&self.template, &known, context.clock.timestamp()) else { return Ok(()) };
        let mut template = Template::clone(&self.template);
        template.status = Some(status);
        let api: Api<Template> = Api::namespaced(context.client.clone(), &template.namespace().unwrap_or_default());
        let (name, params) = (template.name_any(), PostParams::default());
        let write = api.replace_status(&name, &params, &template);
        self.template = Arc::new(call("writing the template's status", write).await?);
        for (kind, reason, note) in sayings {
            tracing::info!(template = self.template.name_any(), reason, "{note}");
            context.events.publish(&self.template.object_ref(&()), kind, &reason, &note);
        }
        Ok(())
    }
}

//! One operator per cluster: leadership by a coordination/v1 Lease, under FAR's name, so that FAR and Ringfence never lead
//! together.
//!
//! Every write carries the resourceVersion (409: another was faster). Whether another's lease has expired is judged by this
//! process's monotonic clock since the last *change* it saw, never by the other's wall clock. Leadership ends locally at
//! the renew deadline, even when the API server hangs. Safety does not rest on any of this (S2).

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::clock::Clock;
use crate::cluster::{self, call};

/// FAR's leader election ID.
pub const LEASE: &str = "cb305759.medik8s.io";

/// Times of the election; client-go's defaults are 15, 10 and 2 s.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A lease that was not renewed for this long is free.
    pub duration: Duration,
    /// A leader that could not renew for this long stops leading.
    pub renew_deadline: Duration,
    /// Pause between two attempts.
    pub retry_period: Duration,
}

/// Where this process stands in the election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It leads.
    Leads,
    /// Another process of this operator leads, or nobody yet.
    Follows,
    /// Another operator leads in the namespace named: ours must not.
    Foreign(String),
}

/// Takes part in the election.
pub struct Elector {
    client: Client,
    clock: Clock,
    namespace: String,
    identity: String,
    times: Times,
    seen: Option<Seen>,
    foreign: Vec<Seen>,
}

/// A lease as it was last seen to change.
#[derive(Clone, Debug)]
struct Seen {
    namespace: String,
    version: Option<String>,
    lifetime: Duration,
    at: Instant,
}

impl Elector {
    /// Prepares to take part, in the namespace that the operator runs in.
    pub fn new(client: Client, clock: Clock, namespace: String, identity: String, times: Times) -> Self {
        Self { client, clock, namespace, identity, times, seen: None, foreign: vec![] }
    }

    /// Takes part for ever, and tells where this process stands.
    pub async fn run(mut self, standing: watch::Sender<Standing>) {
        let mut renewed: Option<Instant> = None;
        loop {
            let start = Instant::now();
            let deadline = self.times.renew_deadline;
            let left = renewed.map_or(deadline, |at| deadline.saturating_sub(at.elapsed()));
            match timeout(left.max(Duration::from_millis(1)), self.attempt()).await {
                Ok(Ok(Standing::Leads)) => {
                    renewed = Some(start); // counted from before the request was sent
                    tell(&standing, Standing::Leads);
                }
                Ok(Ok(other @ (Standing::Follows | Standing::Foreign(_)))) => {
                    renewed = None;
                    tell(&standing, other);
                }
                Ok(Err(error)) => tracing::warn!(error = error.story(), "the lease could not be renewed"),
                Err(_) => tracing::warn!("the lease could not be renewed in time"),
            }
            if renewed.is_some_and(|at| at.elapsed() >= deadline) {
                renewed = None;
                tell(&standing, Standing::Follows);
            }
            sleep(self.pause(renewed.is_some())).await;
        }
    }

    /// Who follows looks twice as often as a leader renews, and again in the moment in which the lease expires: each is a
    /// part of the time in which nobody fences after a leader's death.
    fn pause(&self, leads: bool) -> Duration {
        let period = self.times.retry_period;
        if leads {
            return period;
        }
        let expires =
            self.seen.as_ref().map(|seen| seen.lifetime.max(self.times.duration).saturating_sub(seen.at.elapsed()));
        expires.filter(|left| !left.is_zero()).map_or(period / 2, |left| left.min(period / 2))
    }

    /// Gives the lease up, so that another replica need not wait for it to expire.
    ///
    /// # Errors
    /// The API server's; the lease then expires by itself.
    pub async fn release(client: Client, namespace: &str, identity: &str) -> Result<(), cluster::Error> {
        let api: Api<Lease> = Api::namespaced(client, namespace);
        let Some(mut lease) = call("reading the lease", api.get_opt(LEASE)).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(identity) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        call("releasing the lease", api.replace(LEASE, &PostParams::default(), &lease)).await?;
        Ok(())
    }

    async fn attempt(&mut self) -> Result<Standing, cluster::Error> {
        if let Some(namespace) = self.foreign_leader().await? {
            return Ok(Standing::Foreign(namespace));
        }
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let now = MicroTime(self.clock.timestamp());
        let seconds = i32::try_from(self.times.duration.as_secs()).unwrap_or(i32::MAX).max(1);
        let Some(mut lease) = call("reading the lease", api.get_opt(LEASE)).await? else {
            let spec = LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(seconds),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            };
            let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec) };
            return won(call("creating the lease", api.create(&PostParams::default(), &lease)).await.map(drop));
        };
        let known = self.seen.take().filter(|seen| seen.version == lease.resource_version());
        let seen = known.unwrap_or_else(|| Seen::new(&lease));
        let seen = self.seen.insert(seen);
        let expired = seen.at.elapsed() >= seen.lifetime.max(self.times.duration);

        let spec = lease.spec.get_or_insert_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let ours = holder.as_deref() == Some(self.identity.as_str());
        if holder.is_some() && !ours && !expired {
            return Ok(Standing::Follows);
        }
        if !ours {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(seconds);
        spec.renew_time = Some(now);
        won(call("renewing the lease", api.replace(LEASE, &PostParams::default(), &lease)).await.map(drop))
    }

    /// FAR's lease lies in *its* namespace: one that is held there, and still renewed, means a second operator.
    async fn foreign_leader(&mut self) -> Result<Option<String>, cluster::Error> {
        let api: Api<Lease> = Api::all(self.client.clone());
        let named = ListParams::default().fields(&format!("metadata.name={LEASE}"));
        let leases = call("looking for another operator's lease", api.list(&named)).await?.items;
        let known = std::mem::take(&mut self.foreign);
        let mut leader = None;
        for lease in leases {
            let spec = lease.spec.clone().unwrap_or_default();
            let held = spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty());
            let namespace = lease.namespace().unwrap_or_default();
            if !held || namespace == self.namespace {
                continue;
            }
            let same = |seen: &&Seen| seen.namespace == namespace && seen.version == lease.resource_version();
            let seen = known.iter().find(same).cloned().unwrap_or_else(|| Seen::new(&lease));
            if seen.at.elapsed() < seen.lifetime.max(self.times.duration) {
                leader = Some(namespace);
            }
            self.foreign.push(seen);
        }
        Ok(leader)
    }
}

impl Seen {
    fn new(lease: &Lease) -> Self {
        Self {
            namespace: lease.namespace().unwrap_or_default(),
            version: lease.resource_version(),
            lifetime: lease.spec.as_ref().map(lifetime).unwrap_or_default(),
            at: Instant::now(),
        }
    }
}

fn lifetime(spec: &LeaseSpec) -> Duration {
    Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0))
}

fn won(write: Result<(), cluster::Error>) -> Result<Standing, cluster::Error> {
    match write {
        Ok(()) => Ok(Standing::Leads),
        Err(error) if error.is_conflict() => Ok(Standing::Follows),
        Err(error) => Err(error),
    }
}

fn tell(standing: &watch::Sender<Standing>, new: Standing) {
    standing.send_if_modified(|old| std::mem::replace(old, new.clone()) != new);
}

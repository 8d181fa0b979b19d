//! Reads the world of one remediation, all of it live: the remediation, its Node, the isolator, pods, volumes, the Lease,
//! and the remediation again. Returns what `decide` decides on, and what `act` needs to carry it out.
//!
//! Order of reading: everything that a write will be conditional on (Node, pods) before the isolator's reading, whatever
//! could contradict the reading (Lease, heartbeat) after it, and the remediation once more at the end. If that has moved,
//! look again.

mod holds;
mod look;
mod memory;
mod peers;
mod preview;
mod pulse;
mod set;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

pub use holds::Holds;
use look::{LOOK, boot, identity};
pub use memory::{Memories, Series};
use peers::system_uuid;
pub use preview::{Peek, Preview};
pub use set::Left;

use crate::api::{DurationError, FenceAgentsRemediation, IdentityPolicy, Set};
use crate::breaker::Breaker;
use crate::clock::{Clock, millis};
use crate::cluster::{self, call};
use crate::decide::{Case, Claim, Identity, Leave, Millis, Order, Phase, Pods, Policy, Reading, Rest, Volumes, Why};
use crate::devices::Devices;
use crate::isolate::{Isolator, Scripts, Sight, Workshop};
use crate::resolve::{self, Action, Resolved};
use crate::{marks, status};

/// A proof expires this long after its last Off (P4): a pause of this process longer than that makes it look again.
const MAX_AGE: Millis = 2_000;
/// Kubelets renew their Lease every 10 s; after 1.5 times that, one renewal was missed (P3).
const RENEWAL: Millis = 15_000;
/// Off is read again after this time where no better figure is known for the driver (P1).
const SETTLE: Millis = 500;
/// A command may take half of this, and the device be late by the other half: less is no time for any real BMC, and S2
/// and I2 rest on it. A shorter `timeout` counts as this.
const PATIENCE_MIN: Millis = 10_000;
/// A shorter `retryinterval` counts as this: a BMC is not to be hammered.
const GAP_MIN: Millis = 250;
/// A shorter `releaseTimeout` counts as this: deletion and detaching take a second or two when all goes well.
const RELEASE_MIN: Millis = 5_000;
/// How often to begin anew when the remediation changes under our eyes, before leaving it to the next event.
const TRIES: usize = 3;
/// What was read longer ago than this is not decided on: this process, or the API server, has stood still meanwhile. A look
/// that is answered is followed by three readings, and each call ends after 5 s.
const STALE: Duration = Duration::from_secs(10);
/// The same of what is read before the look: that may take 15 s itself.
const STALE_WORLD: Duration = Duration::from_secs(30);

/// Why the world could not be read. Nothing has been decided.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// Spec and Secrets could not be read for now.
    #[error(transparent)]
    Resolve(#[from] resolve::Error),
    /// The status is not ours.
    #[error(transparent)]
    Malformed(#[from] status::Malformed),
    /// The remediation kept changing.
    #[error("the remediation kept changing while its world was read")]
    Moving,
}

/// What was found.
pub enum Seen {
    /// There is no such remediation.
    Nothing,
    /// It was not accepted yet.
    New(Box<FenceAgentsRemediation>),
    /// Its world.
    Scene(Box<Scene>),
}

/// The world of one remediation at one moment.
pub struct Scene {
    /// The remediation, as it stands.
    pub far: FenceAgentsRemediation,
    /// When its Node and the remediation were last asked for: they stood so then, or later. What can't be conditional on them is
    /// aged by this (S2).
    pub asked: Instant,
    /// When reading began.
    began: Instant,
    /// Its Node as read before the isolator was; none if it is gone or another.
    pub node: Option<Node>,
    /// What the decision is made on.
    pub case: Case,
    /// What spec and Secrets say now.
    pub resolved: Result<Resolved, resolve::Error>,
    /// The isolator of the pinned order, if it can be built.
    pub device: Option<Arc<dyn Isolator>>,
    /// What it saw, if it was looked at.
    pub sight: Option<Sight>,
    /// The series of Offs that the sight belongs to.
    pub series: Option<Series>,
    /// Another Node says the same system UUID: it proves no identity (P2).
    pub shared: bool,
    /// The set that Releasing would start with, taken from the pods and volumes now on the node.
    pub set: Set,
    /// Those pods of the persisted set that remain.
    pub pods: Vec<Pod>,
    /// What remains of the persisted set, in words.
    pub blocking: Vec<String>,
    /// UID of the remediation that waits for this node (L6).
    pub heir: Option<String>,
    /// UID and name of the remediation that holds this node, if another does.
    pub holder: Option<peers::Peer>,
    /// Who or what stands against an off for now, for people.
    pub held_by: Option<String>,
}

/// Reads worlds.
pub struct Observer {
    /// To the API server.
    pub client: Client,
    /// The clocks.
    pub clock: Clock,
    /// What this process remembers between looks. Losing it begins every watch anew (P1, P3): it costs time, never safety.
    pub memories: Memories,
    /// Counts the remediations that begin.
    pub breaker: Arc<Breaker>,
    /// What it remembers of devices, for all who speak to them.
    pub devices: Arc<Devices>,
    /// The agents' scripts.
    pub scripts: Arc<Scripts>,
    /// Makes the isolators.
    pub workshop: Arc<dyn Workshop>,
    /// Who else may be at work on a node.
    pub holds: Arc<Holds>,
}

impl Scene {
    /// Tells whether it is too old to be decided on: whatever waits for time to pass would take it for what is now.
    fn is_stale(&self, now: Instant) -> bool {
        let age = |since| now.saturating_duration_since(since);
        let looked = self.sight.as_ref().map_or(now, |sight| sight.read_at);
        age(self.asked) > STALE || age(looked) > STALE || age(self.began) > STALE_WORLD
    }
}

impl Observer {
    /// Makes one for whoever only watches another operator: it shares with nobody what it remembers.
    pub fn watching(client: Client, clock: Clock, scripts: Arc<Scripts>) -> Self {
        let holds = Arc::new(Holds::new(String::new()));
        let workshop = scripts.clone();
        Self {
            client,
            clock,
            memories: Memories::default(),
            breaker: Arc::default(),
            devices: Arc::default(),
            scripts,
            workshop,
            holds,
        }
    }

    /// Reads the world of the remediation `namespace/name`.
    ///
    /// # Errors
    /// [`Error`]; nothing was changed.
    pub async fn observe(&self, namespace: &str, name: &str) -> Result<Seen, Error> {
        let api: Api<FenceAgentsRemediation> = Api::namespaced(self.client.clone(), namespace);
        let read = || call("reading the remediation", api.get_opt(name));
        let Some(mut far) = read().await? else { return Ok(Seen::Nothing) };
        for _ in 0..TRIES {
            let phase = match status::phase(far.status.as_ref()) {
                // Deleted, and nobody can tell where it stands: no command, no release, only what is ours comes off (L2).
                Err(_) if far.metadata.deletion_timestamp.is_some() => Some(given_up(&far)),
                phase => phase?,
            };
            let Some(phase) = phase else { return Ok(Seen::New(Box::new(far))) };
            let version = far.resource_version();
            let scene = self.scene(far, phase).await?;
            match read().await? {
                None => return Ok(Seen::Nothing),
                Some(again) if again.resource_version() == version && !scene.is_stale(Instant::now()) => {
                    return Ok(Seen::Scene(Box::new(scene)));
                }
                Some(moved) => far = moved,
            }
        }
        Err(Error::Moving)
    }

    async fn scene(&self, far: FenceAgentsRemediation, phase: Phase) -> Result<Scene, Error> {
        let began = Instant::now();
        let uid = far.uid().unwrap_or_default();
        let status = far.status.as_ref();
        let op = status.and_then(|s| s.operation.clone()).unwrap_or_default();
        let pinned_node = status.and_then(|s| s.node.clone()).unwrap_or_default();
        let found = self.node(&pinned_node.name).await?;
        let gone = !found.as_ref().is_some_and(|node| node.uid().is_some() && node.uid() == pinned_node.uid);
        // L3: another Node with our marks on it (restored from a backup) is freed of them, and of nothing else.
        let node = found.filter(|node| !gone || marks::claimed_by(node) == Some(&uid));

        let pinned = op.order.as_ref().filter(|_| phase != Phase::Accepted);
        let (policy, resolved) = self.spec(&far, node.as_ref(), &pinned_node.name).await?;
        let order = match (&resolved, pinned) {
            (Err(_), _) => Order::Unresolved,
            (Ok(now), Some(pinned)) if now.first().is_none_or(|now| now.order != *pinned) => Order::Changed,
            (Ok(_), Some(_) | None) => Order::Same,
        };
        let edited = resolved.as_ref().is_ok_and(|now| Some(&now.inputs) != op.inputs.as_ref());
        let restore = match (&resolved, op.action.as_deref()) {
            (Ok(now), _) => now.action == Action::Reboot,
            (Err(_), pinned) => pinned != Some(OFF),
        };

        let (claim, holder) = self.claim(&uid, phase, node.as_ref()).await?;
        let barrier = claim != Claim::Others && node.as_ref().is_some_and(marks::barred);
        let heir = match phase {
            Phase::Done { .. } | Phase::Halted { .. } if claim == Claim::Ours => self.heir(&far).await?,
            _ => None,
        };
        let (hold, held_by, admitted) = match phase {
            Phase::Accepted | Phase::Halted { why: Why::Held(_), off: None, .. } => {
                self.may_begin(&far, phase, node.as_ref()).await?
            }
            Phase::Isolating { .. } | Phase::Proving { .. } | Phase::Halted { why: Why::Held(_), .. } => {
                let (hold, held_by) = self.hold(&far, phase, node.as_ref()).await?;
                (hold, held_by, true)
            }
            Phase::Releasing { .. } | Phase::Restoring { .. } | Phase::Done { .. } | Phase::Halted { .. } => {
                (None, None, true)
            }
        };
        let (set, left) = match phase {
            Phase::Proving { .. } | Phase::Releasing { .. } | Phase::Restoring { .. } | Phase::Halted { .. }
                if !gone =>
            {
                self.left(&uid, node.as_ref(), op.set.as_ref()).await?
            }
            _ => (Set::default(), Left::default()),
        };

        let ours = node.as_ref().filter(|_| !gone);
        let looks = phase.looks(claim, barrier, edited);
        // Pinned with the order: what it is then is what every reading is judged by.
        let shared = match (phase, ours) {
            (Phase::Accepted, Some(node)) if looks => self.shares_its_uuid(node).await?,
            (_, Some(_) | None) => op.shared_uuid,
        };
        let named = pinned.or(resolved.as_ref().ok().and_then(Resolved::first).map(|now| &now.order));
        let (device, sight) = match (named, &resolved) {
            (Some(order), Ok(now)) => self.look(&uid, order, now, ours, looks).await,
            (None, _) | (_, Err(_)) => (None, None),
        };
        // After the look: one that nobody answered ends what was witnessed before it (P2).
        let witnessed = named
            .zip(ours.and_then(boot))
            .is_some_and(|(order, boot)| self.devices.witnessed(order, boot, Instant::now()));
        let identity = match (&sight, named) {
            (Some(sight), Some(order)) => identity(order, shared, sight),
            _ => Identity::Unsaid,
        };
        // S1, P3: also where the device is left alone, the node itself may show life.
        let listens = claim != Claim::Others;
        let expected = pinned_node.uid.as_deref().filter(|_| !gone);
        let asked = Instant::now();
        let (reading, series, life) = self.remember(&uid, &pinned_node.name, listens, sight.as_ref(), expected).await?;

        let case = Case {
            policy: Policy { restore, ..policy },
            phase,
            leave: leave(&far, gone),
            order,
            edited,
            reading,
            identity,
            other_on: false,
            life,
            hold,
            admitted,
            witnessed,
            claim,
            heir: heir.is_some(),
            barrier,
            sealed: gone || node.as_ref().is_some_and(|node| marks::sealed(node, &uid, op.entry)),
            pods: left.standing,
            volumes: left.volumes,
        };
        let Left { pods, blocking, .. } = left;
        Ok(Scene {
            far,
            asked,
            began,
            node,
            case,
            resolved,
            device,
            sight,
            series,
            shared,
            set,
            pods,
            blocking,
            heir,
            holder,
            held_by,
        })
    }

    async fn node(&self, name: &str) -> Result<Option<Node>, Error> {
        if name.is_empty() {
            return Ok(None);
        }
        Ok(call("reading the Node", Api::<Node>::all(self.client.clone()).get_opt(name)).await?)
    }

    /// Resolves the spec. An API server that does not answer is no reason to halt: nothing is decided then.
    async fn spec(
        &self,
        far: &FenceAgentsRemediation,
        node: Option<&Node>,
        name: &str,
    ) -> Result<(Policy, Result<Resolved, resolve::Error>), Error> {
        let expected = node.and_then(system_uuid).filter(|_| far.spec.identity_policy() == IdentityPolicy::Enforce);
        let by = self.clock.deadline(LOOK);
        let resolved = resolve::resolve(self.client.clone(), far, name, expected, &*self.scripts, by).await;
        // Only the first level is acted upon.
        let resolved = resolved.and_then(|all| all.levels[0].as_ref().map(drop).map_err(Clone::clone).map(|()| all));
        match (policy(far), resolved) {
            // A Secret that may not be read is somebody's to put right, and they must be told.
            (_, Err(error)) if error.may_pass() && !matches!(error, resolve::Error::SecretForbidden { .. }) => {
                Err(error.into())
            }
            (Ok(policy), resolved) => Ok((policy, resolved)),
            (Err(error), _) => Ok((fallback(), Err(error))),
        }
    }
}

/// The action that is not restored from.
pub const OFF: &str = "off";

fn given_up(far: &FenceAgentsRemediation) -> Phase {
    let last = far.status.as_ref().and_then(|status| status.last_update_time.as_ref()).map_or(0, |at| millis(at.0));
    Phase::Halted { why: Why::TimedOut, off: None, rest: Rest { quiet: Some(last), yielded: false } }
}

fn leave(far: &FenceAgentsRemediation, gone: bool) -> Leave {
    let deleted = far.metadata.deletion_timestamp.is_some();
    match (gone, far.nhc_timed_out()) {
        (true, _) => Leave::NodeGone { deleted },
        (false, true) => Leave::TimedOut { deleted },
        (false, false) if deleted => Leave::Deleted,
        (false, false) => Leave::No,
    }
}

fn policy(far: &FenceAgentsRemediation) -> Result<Policy, resolve::Error> {
    let spec = &far.spec;
    let length_of = |field: &str, length: Result<Duration, DurationError>| {
        let length =
            length.map_err(|_| resolve::Error::Invalid { parameter: field.to_owned(), want: "a duration like 60s" })?;
        Ok::<_, resolve::Error>(Millis::try_from(length.as_millis()).unwrap_or(Millis::MAX))
    };
    Ok(Policy {
        attempts: u32::try_from(spec.attempts()).unwrap_or(1),
        patience: length_of("timeout", spec.timeout())?.max(PATIENCE_MIN),
        gap: length_of("retryinterval", spec.retry_interval())?.max(GAP_MIN),
        release_timeout: length_of("releaseTimeout", spec.release_timeout())?.max(RELEASE_MIN),
        ..fallback()
    })
}

/// FAR's defaults, for a spec whose durations can't be read: it is going nowhere but to Halted.
fn fallback() -> Policy {
    Policy {
        attempts: 5,
        patience: 60_000,
        gap: 5_000,
        release_timeout: 60_000,
        settle: SETTLE,
        max_age: MAX_AGE,
        renewal: RENEWAL,
        restore: true,
    }
}

impl Default for Left {
    fn default() -> Self {
        Self { standing: Pods::Gone, volumes: Volumes::Gone, pods: vec![], blocking: vec![] }
    }
}

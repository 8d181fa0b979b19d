//! Reads the world of one remediation, all of it live: the remediation, its Node, the isolator, pods, volumes, the Lease,
//! and the remediation again. Returns what `decide` decides on, and what `act` needs to carry it out.
//!
//! Order of reading: everything that a write will be conditional on (Node, pods) before the isolator's reading, whatever
//! could contradict the reading (Lease, heartbeat) after it, and the remediation once more at the end. If that has moved,
//! look again.

mod holds;
mod levels;
mod look;
mod memory;
mod peers;
mod preview;
mod pulse;
mod set;
mod word;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

pub use holds::Holds;
pub use levels::Device;
use levels::Others;
use look::{LOOK, Seeing, boot};
pub use memory::{Memories, Series};
use peers::system_uuid;
pub use preview::{Peek, Preview};
use pulse::Felt;
pub use set::Left;
pub use word::Said;

use crate::api::{Driver, DurationError, FenceAgentsRemediation, IdentityPolicy, Set};
use crate::breaker::Breaker;
use crate::clock::{Clock, millis};
use crate::cluster::{self, call};
use crate::decide::{Case, Claim, Leave, Level, Levels, Millis, Phase, Pods, Policy, Rest, Volumes, Why, Word};
use crate::devices::Devices;
use crate::isolate::{Scripts, Workshop};
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
/// The same of what is read before the look: that may take 15 s itself, and so may the one at the other levels before it.
const STALE_WORLD: Duration = Duration::from_secs(45);

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
    /// The devices of the level that is acted on.
    pub devices: Vec<Device>,
    /// What a person has said, where one is asked.
    pub said: Said,
    /// The device of another level that says On, in words.
    pub says_on: Option<String>,
    /// The node's signs of life, as text.
    pub pulse: String,
    /// The series of Offs that the devices' words belong to.
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
        let looks = self.devices.iter().filter_map(|device| device.sight.as_ref());
        // The last answer: of several devices one may take all the time that a look has.
        let looked = looks.map(|sight| sight.read_at).max().unwrap_or(now);
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

        let pinned = phase != Phase::Accepted;
        let resolved = self.resolve(&far, node.as_ref(), &pinned_node.name).await?;
        let level = levels::level(phase, &op, &resolved);
        let (policy, resolved) = match policy(&far, level) {
            Ok(policy) => (policy, resolved),
            Err(error) => (fallback(), Err(error)),
        };
        let order = levels::order(&op, pinned, level, &resolved);
        let edited = resolved.as_ref().is_ok_and(|now| Some(&now.inputs) != op.inputs.as_ref());
        let restore = match (&resolved, op.action.as_deref()) {
            (Ok(now), _) => now.action == Action::Reboot,
            (Err(_), pinned) => pinned != Some(OFF),
        };
        // Whoever made sure of the machine switches it on: hands may be in it.
        let by_hand = status.and_then(|status| status.proof.as_ref()).is_some_and(|proof| proof.kind == BY_HAND);
        let restore = restore && !by_hand;

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
        let named = levels::devices(&op, pinned, level, &resolved);
        let asks_a_person = named.iter().any(|(order, _)| order.driver == Driver::Person);
        let inputs = resolved.as_ref().map(|now| now.inputs.as_str()).unwrap_or_default();
        // Before the look: a dead one takes longer to say nothing than a proof lasts (P4).
        let others = match phase.is_judged() && !gone {
            true => self.others(&uid, &op, &resolved, level, shared, ours).await,
            false => Others::default(),
        };
        let devices = self.look_at(&uid, named, inputs, ours, looks).await;
        // After the look: one that nobody answered ends what was witnessed before it (P2).
        let witnesses = |order, boot| self.devices.witnessed(order, boot, Instant::now());
        let witnessed = ours
            .and_then(boot)
            .is_some_and(|boot| !devices.is_empty() && devices.iter().all(|device| witnesses(&device.order, boot)));
        let request = status.and_then(|status| status.request.as_ref()).filter(|_| asks_a_person && !gone);
        let said = match request.filter(|_| phase.is_judged()) {
            Some(request) => Some(self.word(&far, request, op.pulse.as_deref(), others.on.as_deref()).await?),
            None => None,
        };
        let seen = match &said {
            Some((said, read_at)) => Seeing::of_a_person(said, *read_at),
            None => Seeing::of(&devices, shared),
        };
        let word = match (asks_a_person, &said) {
            (false, _) => Word::NotAsked,
            (true, None) => Word::Awaited,
            (true, Some((said, _))) => said.word(),
        };
        // S1, P3: also where the device is left alone, the node itself may show life.
        let listens = claim != Claim::Others;
        let expected = pinned_node.uid.as_deref().filter(|_| !gone);
        let asked = Instant::now();
        let felt = self.remember(&uid, &pinned_node.name, listens, &seen, expected).await?;
        let Felt { reading, series, life, pulse } = felt;

        let case = Case {
            policy: Policy { restore, ..policy },
            phase,
            leave: leave(&far, gone),
            order,
            edited,
            reading,
            partly: seen.partly,
            nobody: seen.nobody,
            identity: seen.identity,
            word,
            levels: Levels { revived: others.revived, ..levels::levels(&op, &resolved, level) },
            other_on: others.on.is_some(),
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
            devices,
            said: said.map(|(said, _)| said).unwrap_or_default(),
            says_on: others.on,
            pulse,
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
    async fn resolve(
        &self,
        far: &FenceAgentsRemediation,
        node: Option<&Node>,
        name: &str,
    ) -> Result<Result<Resolved, resolve::Error>, Error> {
        let expected = node.and_then(system_uuid).filter(|_| far.spec.identity_policy() == IdentityPolicy::Enforce);
        let by = self.clock.deadline(LOOK);
        let resolved = resolve::resolve(self.client.clone(), far, name, expected, &*self.scripts, by).await;
        match resolved {
            // A Secret that may not be read is somebody's to put right, and they must be told.
            Err(error) if error.may_pass() && !matches!(error, resolve::Error::SecretForbidden { .. }) => {
                Err(error.into())
            }
            resolved => Ok(resolved),
        }
    }
}

/// The kind of a proof that rests on a person's word.
pub const BY_HAND: &str = "HumanConfirmed";
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

/// The numbers of a level. What may still land is covered by the longest patience of all: an off of one level is waited for
/// while another is restored.
fn policy(far: &FenceAgentsRemediation, level: Level) -> Result<Policy, resolve::Error> {
    let spec = &far.spec;
    let length_of = |field: &str, length: Result<Duration, DurationError>| {
        let length =
            length.map_err(|_| resolve::Error::Invalid { parameter: field.to_owned(), want: "a duration like 60s" })?;
        Ok::<_, resolve::Error>(Millis::try_from(length.as_millis()).unwrap_or(Millis::MAX))
    };
    let mut patience = 0;
    for level in 1..=spec.levels.len() + 1 {
        patience = patience.max(length_of("timeout", spec.timeout_at(level))?);
    }
    let index = usize::try_from(level).unwrap_or(usize::MAX);
    Ok(Policy {
        attempts: u32::try_from(spec.attempts_at(index)).unwrap_or(1),
        patience: patience.max(PATIENCE_MIN),
        gap: length_of("retryinterval", spec.retry_interval_at(index))?.max(GAP_MIN),
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

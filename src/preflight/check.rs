//! One check: could this node be fenced through this template now? Sends no command.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agents::{PowerState, Ready, SystemUuid};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use tokio::time::{Instant, timeout_at};

use super::Context;
use super::levels::Place;
use crate::api::{Driver, FenceAgentsRemediation, FenceAgentsRemediationTemplate, IdentityPolicy, Order};
use crate::devices::{self, Asking, Boot};
use crate::isolate::{self, Sight};
use crate::resolve::{self, Device};

/// How long one check may take once its turn has come: as long as a remediation's look.
const LOOK: Duration = Duration::from_secs(5);
/// The same through a script.
const LOOK_SCRIPT: Duration = Duration::from_secs(15);
/// How long the API server and an agent's metadata may take.
const RESOLVE: Duration = Duration::from_secs(20);
/// Characters of a message, at most: a thousand of them must fit into one object.
const MAX_MESSAGE: usize = 400;

/// The code of a node that could be fenced.
pub(super) const READY: &str = "Ready";

/// What a Node says of itself. Read before the device is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub uid: String,
    pub system_uuid: String,
    pub boot_id: String,
    /// It carries our condition.
    pub marked: bool,
}

/// The cluster's nodes, by name.
pub(super) type Nodes = BTreeMap<String, Facts>;

/// What is to be checked.
#[derive(Clone)]
pub(super) struct Job {
    pub template: Arc<FenceAgentsRemediationTemplate>,
    pub node: String,
    /// Which of its devices.
    pub place: Place,
    pub nodes: Arc<Nodes>,
    /// With these inputs the device need not be asked again yet.
    pub known: Option<String>,
    /// It waits for nobody's turn but the device's.
    pub soon: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A remediation spoke to the device, and goes first.
    GaveWay,
    /// Nothing has changed, and it is not yet time to ask.
    Unchanged,
    /// A result, and the inputs that it is of, if the device was or may not be asked.
    Checked(Checked, Option<String>),
}

/// What is known of a node through a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Checked {
    pub ready: bool,
    /// A stable code.
    pub reason: &'static str,
    pub message: Option<String>,
    /// It may be otherwise the next time, though nobody changes anything.
    pub may_pass: bool,
    pub driver: Option<Driver>,
    pub power: Option<PowerState>,
    pub system_uuid: Option<String>,
    /// When the device was asked, and how long it took; none if it was not.
    pub asked: Option<(Timestamp, Duration)>,
    /// Off was read from the right machine: by its identity, or by a witness.
    pub off: bool,
    /// On was read from a device that names this very machine.
    pub on: bool,
}

impl Checked {
    pub(super) fn failed(reason: &'static str, message: String, may_pass: bool) -> Self {
        let cut = message.char_indices().nth(MAX_MESSAGE).map(|(at, _)| format!("{}…", &message[..at]));
        let message = Some(cut.unwrap_or(message));
        let (driver, power, system_uuid, asked) = (None, None, None, None);
        Self { ready: false, reason, message, may_pass, driver, power, system_uuid, asked, off: false, on: false }
    }

    /// A person can't be tried.
    fn person() -> Self {
        Self { ready: true, message: None, driver: Some(Driver::Person), ..Self::failed(READY, String::new(), false) }
    }

    fn of(error: &agents::Error) -> Self {
        Self::failed(error.label(), error.to_string(), error.may_pass())
    }
}

/// What was heard when the turn had come.
enum Heard {
    /// The account was refused before, and is not tried again.
    Before(Sight),
    Now(Result<Ready, agents::Error>, Timestamp, Duration),
}

/// Checks one device of one node of one template.
pub(super) async fn check(context: &Context, job: &Job) -> Outcome {
    let Some(facts) = job.nodes.get(&job.node) else {
        let message = "the cluster has no node of this name".to_owned();
        return Outcome::Checked(Checked::failed("NodeNotFound", message, false), None);
    };
    let far = remediation(&job.template, &job.node);
    let expected = Some(facts.system_uuid.as_str()).filter(|uuid| !uuid.is_empty());
    let expected = expected.filter(|_| far.spec.identity_policy() == IdentityPolicy::Enforce);
    let twin = expected.and_then(|uuid| twin(uuid, &job.node, &job.nodes));
    let client = context.client.clone();
    let resolved = {
        let _place = context.place(job).await;
        let by = Instant::now() + RESOLVE;
        let (level, node) = (job.place.level, &job.node);
        resolve::resolve_level(client, &far, level, node, expected, &*context.scripts, by).await
    };
    let (devices, inputs) = match resolved {
        Ok((devices, inputs)) => (devices, inputs),
        Err(error) => {
            return Outcome::Checked(Checked::failed(error.label(), error.story(), error.may_pass()), None);
        }
    };
    if job.known.as_ref() == Some(&inputs) {
        return Outcome::Unchanged;
    }
    let inputs = &inputs;
    let Some(Device { order, access: Some(access) }) = devices.get(job.place.at) else {
        return Outcome::Checked(Checked::person(), Some(inputs.clone()));
    };
    // Built anew each time: what it keeps open to its BMC ends with the check.
    let isolator = match isolate::build(devices::device(order, access), &context.scripts) {
        Ok(isolator) => isolator,
        Err(error) => {
            return Outcome::Checked(
                Checked { driver: Some(order.driver), ..Checked::of(&error) },
                Some(inputs.clone()),
            );
        }
    };
    let (time, _place) = match order.driver {
        Driver::Native | Driver::Person => (LOOK, context.place(job).await),
        Driver::Script => (LOOK_SCRIPT, context.interpreters.acquire().await.ok()),
    };
    // Inputs are a level's: by those of another, an account that was refused would look changed each time.
    let asker = format!("{}/{}/{}", job.template.uid().unwrap_or_default(), job.node, job.place.level);
    let asking = Asking { order, account: context.devices.account(access), asker: &asker, inputs };
    let boot = Boot { node: &facts.uid, id: &facts.boot_id };
    let (devices, clock) = (&context.devices, &context.clock);
    let look = |by: Instant| async move {
        if let Some(sight) = devices.refusal(&asking) {
            return Heard::Before(sight);
        }
        let begun = Instant::now();
        let ready = timeout_at(by, isolator.ready(by)).await;
        let ready = ready.unwrap_or(Err(agents::Error::Deadline { doing: "reading the power state" }));
        let sight = ready.as_ref().map_or_else(Sight::failed, |ready| Sight::from(ready.status.clone()));
        devices.saw(&asking, Some(boot), &sight);
        Heard::Now(ready, clock.timestamp(), begun.elapsed())
    };
    let checked = match context.devices.idle(order, time, look).await {
        None => return Outcome::GaveWay,
        Some(Heard::Before(sight)) => {
            let message = format!("{}; not tried again until the spec or a Secret changes", sight.said);
            Checked::failed(sight.label.unwrap_or("Refused"), message, false)
        }
        Some(Heard::Now(ready, at, took)) => {
            let witnessed = context.devices.witnessed(order, boot, Instant::now());
            Checked { asked: Some((at, took)), ..judge(&ready, order, twin, &job.nodes, witnessed) }
        }
    };
    Outcome::Checked(Checked { driver: Some(order.driver), ..checked }, Some(inputs.clone()))
}

/// What NHC would make of the template for this node.
fn remediation(template: &FenceAgentsRemediationTemplate, node: &str) -> FenceAgentsRemediation {
    let metadata = ObjectMeta {
        name: Some(node.to_owned()),
        namespace: template.namespace(),
        generation: template.metadata.generation,
        ..ObjectMeta::default()
    };
    FenceAgentsRemediation { metadata, spec: template.spec.template.spec.clone(), status: None }
}

/// Makes something of an answer. Whose machine it is comes first: nothing else that another's says is of interest.
///
/// `twin`: the node that says the same system UUID. It can't tell then that the machine is the right one, and still tells that it
/// is neither (P2).
fn judge(
    ready: &Result<Ready, agents::Error>,
    order: &Order,
    twin: Option<&str>,
    nodes: &Nodes,
    witnessed: bool,
) -> Checked {
    let Ready { status, lacks } = match ready {
        Ok(ready) => ready,
        Err(error) => return Checked::of(error),
    };
    let expected = order.system_uuid.as_deref().and_then(SystemUuid::parse);
    let same = expected.zip(status.system_uuid).map(|(expected, found)| expected.same_machine(&found));
    let same = same.filter(|same| !same || twin.is_none());
    let checked = match (same, status.system_uuid, lacks) {
        (Some(false), Some(found), _) => Checked::failed("WrongMachine", wrong(order, found, nodes), false),
        (_, _, Some(error)) => Checked::of(error),
        (_, _, None) => {
            let unsaid = match twin {
                Some(twin) => format!("its system UUID is node {twin}'s, too"),
                None => "the device does not say which machine it is".to_owned(),
            };
            let needed = expected.is_some() && same.is_none();
            let message = needed.then(|| format!("{unsaid}: a proof will need it to have been seen on"));
            Checked {
                ready: true,
                reason: READY,
                message,
                may_pass: false,
                ..Checked::failed(READY, String::new(), false)
            }
        }
    };
    let off = status.power == PowerState::Off && (same == Some(true) || (same.is_none() && witnessed));
    let on = status.power == PowerState::On && same == Some(true);
    let (power, system_uuid) = (Some(status.power.clone()), status.system_uuid.map(|uuid| uuid.to_string()));
    Checked { power, system_uuid, off, on, ..checked }
}

/// The other node that says this system UUID.
fn twin<'a>(uuid: &str, node: &str, nodes: &'a Nodes) -> Option<&'a str> {
    let ours = SystemUuid::parse(uuid)?;
    let is_ours = |facts: &Facts| SystemUuid::parse(&facts.system_uuid).is_some_and(|uuid| uuid.same_machine(&ours));
    nodes.iter().find(|(name, facts)| *name != node && is_ours(facts)).map(|(name, _)| name.as_str())
}

/// Names both machines: crossed cables are found by that.
fn wrong(order: &Order, found: SystemUuid, nodes: &Nodes) -> String {
    let is_its = |facts: &Facts| SystemUuid::parse(&facts.system_uuid).is_some_and(|uuid| uuid.same_machine(&found));
    let owner = nodes.iter().find(|(_, facts)| is_its(facts)).map(|(name, _)| name);
    let whose = owner.map_or("which is no node's".to_owned(), |name| format!("which is node {name}'s"));
    format!(
        "the BMC at {} is that of another machine: expected system UUID {}, found {found}, {whose}",
        order.address,
        order.system_uuid.as_deref().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use agents::Status;

    use super::*;

    const OURS: &str = "33221100-5544-7766-8899-aabbccddeef0";
    const THEIRS: &str = "33221100-5544-7766-8899-aabbccddeef1";

    fn judged(power: PowerState, uuid: Option<&str>, lacks: Option<agents::Error>, witnessed: bool) -> Checked {
        judged_beside(None, power, uuid, lacks, witnessed)
    }

    fn judged_beside(
        twin: Option<&str>,
        power: PowerState,
        uuid: Option<&str>,
        lacks: Option<agents::Error>,
        witnessed: bool,
    ) -> Checked {
        let order = Order {
            agent: "fence_redfish".into(),
            driver: Driver::Native,
            address: "https://bmc/redfish/v1".into(),
            plug: None,
            system_uuid: Some(OURS.into()),
        };
        let facts = |uuid: &str| Facts { system_uuid: uuid.into(), ..Facts::default() };
        let nodes = Nodes::from([("n-1".into(), facts(OURS)), ("n-2".into(), facts(THEIRS))]);
        let system_uuid = uuid.and_then(SystemUuid::parse);
        let status = Status { power, system_uuid, read_at: Instant::now(), source: "https://bmc/1".into() };
        judge(&Ok(Ready { status, lacks }), &order, twin, &nodes, witnessed)
    }

    #[test]
    fn its_own_machine_is_ready_on_and_off() {
        let on = judged(PowerState::On, Some(OURS), None, false);
        assert!(on.ready && !on.off && on.message.is_none(), "{on:?}");
        let off = judged(PowerState::Off, Some(OURS), None, false);
        assert!(off.ready && off.off);
    }

    /// P2: whichever byte order each says it in.
    #[test]
    fn a_uuid_of_two_nodes_is_neithers() {
        let facts = |uuid: &str| Facts { system_uuid: uuid.into(), ..Facts::default() };
        let mixed = "00112233-4455-6677-8899-aabbccddeef0";
        let nodes = [("n-1", OURS), ("n-2", THEIRS), ("n-3", mixed), ("n-4", "")];
        let nodes: Nodes = nodes.map(|(name, uuid)| (name.to_owned(), facts(uuid))).into();
        assert_eq!(twin(OURS, "n-1", &nodes), Some("n-3"));
        assert_eq!(twin(mixed, "n-3", &nodes), Some("n-1"));
        assert_eq!(twin(THEIRS, "n-2", &nodes), None);
        assert_eq!(twin("", "n-4", &nodes), None, "none is nobody's");
    }

    /// P2: it proves nothing by itself, and a third machine is still refused.
    #[test]
    fn a_shared_uuid_needs_a_witness() {
        let off = |uuid, witnessed| judged_beside(Some("n-3"), PowerState::Off, Some(uuid), None, witnessed);
        assert!(off(OURS, true).off && !off(OURS, false).off);
        assert!(off(OURS, false).message.is_some_and(|said| said.contains("n-3's, too")));
        assert_eq!(off(THEIRS, true).reason, "WrongMachine");
    }

    #[test]
    fn another_machine_is_named_with_its_node() {
        let lacks = agents::Error::NotOffered { want: "ForceOff", offered: vec![] };
        let wrong = judged(PowerState::Off, Some(THEIRS), Some(lacks), true);
        assert_eq!((wrong.ready, wrong.off, wrong.reason), (false, false, "WrongMachine"));
        let message = wrong.message.expect("a message");
        assert!(
            message.contains(OURS) && message.contains(THEIRS) && message.ends_with("which is node n-2's"),
            "{message}"
        );
    }

    #[test]
    fn a_machine_without_a_name_is_off_with_a_witness_only() {
        let told = |witnessed| judged(PowerState::Off, None, None, witnessed);
        assert!(told(true).off && !told(false).off);
        assert!(told(false).ready && told(false).message.is_some_and(|said| said.contains("which machine")));
        assert!(!judged(PowerState::Other("PoweringOff".into()), Some(OURS), None, true).off);
    }

    #[test]
    fn what_takes_no_command_is_not_ready() {
        let lacks = agents::Error::NotOffered { want: "ForceOff", offered: vec!["On".into()] };
        let checked = judged(PowerState::On, Some(OURS), Some(lacks), false);
        assert_eq!((checked.ready, checked.reason, checked.power), (false, "BMCResetNotOffered", Some(PowerState::On)));
    }

    #[test]
    fn a_message_is_cut_to_length() {
        let message = Checked::failed("X", "ö".repeat(1000), false).message.expect("a message");
        assert_eq!(message.chars().count(), MAX_MESSAGE + 1);
    }
}

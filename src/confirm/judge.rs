//! What a person's word is worth: no clock, no I/O.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::api::{ConfirmationRequest, Decision, RemediationConfirmation, Verdict};
use crate::clock::millis;
use crate::decide::{Millis, Time};

/// A node that spoke within this time is alive: kubelets renew their Leases every 10 s, for 40 s each
/// (`nodeLeaseDurationSeconds`).
pub const SILENT: Millis = 40_000;

/// How long the API server may take to obey a new admission policy: it looks for them every second, a loaded one or one of
/// several a bit later.
const OBEYED: Millis = 5_000;

/// What is known at the moment in which a confirmation is judged.
///
/// Read all of it *after* the confirmation: what is older says nothing about what the person claims to have done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The UID of the Node of that name; `None`: there is none.
    pub node_uid: Option<&'a str>,
    /// The boot that it reports.
    pub boot_id: Option<&'a str>,
    /// Whether it is Ready.
    pub ready: bool,
    /// When it last showed life, by our clock or the API server's ([`super::last_renewal`]): the node's own may be wrong.
    pub last_beat: Option<Time>,
    /// Which device of the node says that the machine is on, in words.
    pub says_on: Option<&'a str>,
    /// Since when the admission policy has been in place, by the API server's clock; `None`: it is not.
    pub policy_since: Option<Time>,
    /// The wall time.
    pub now: Time,
}

/// What a confirmation is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is taken as true.
    Accepted,
    /// The release is denied.
    Denied,
    /// It does not count.
    Refused(Refusal),
}

/// Why a confirmation does not count. `Display` says it in words, with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody waits for it.
    NoRequest {
        /// The request that it names.
        named: String,
    },
    /// It names another request than the one that is waiting.
    WrongRequest {
        /// The request that it names.
        named: String,
        /// The one that waits.
        waiting: String,
    },
    /// It names another node than the request.
    WrongNode {
        /// The node that it names, with its UID.
        named: String,
        /// The one that is meant.
        meant: String,
    },
    /// The Node of that name is not the one that the request is about any more.
    NodeReplaced {
        /// Its name.
        node: String,
    },
    /// It names another boot than the request.
    WrongBoot {
        /// The boot that it names.
        named: String,
        /// The one that is meant.
        meant: String,
    },
    /// Nobody vouches for `by`.
    PolicyMissing(Vouching),
    /// `by` is no person.
    NotAPerson {
        /// Who says so.
        by: String,
    },
    /// It approves, and says no reason.
    NoStatement,
    /// The node shows life.
    NodeAlive(Life),
    /// A device says that the machine is on.
    MachineOn {
        /// Which one, in words.
        device: String,
    },
}

/// Why nobody vouches for the name in a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vouching {
    /// The admission policy or its binding is missing, or is not as shipped.
    Nobody,
    /// The confirmation may be older than they are.
    TooLate,
}

/// How a node shows life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is Ready.
    Ready,
    /// It spoke a moment ago.
    Spoke {
        /// So long ago.
        ago: Millis,
    },
    /// It spoke after the request was opened.
    SpokeSince,
    /// It has booted since the request was opened.
    Booted,
}

/// Names a request: by its remediation, and by the time of the off that it stands for. 16 hexadecimal digits of SHA-256.
pub fn request_id(remediation: &str, off_at: Time) -> String {
    let hash = Sha256::digest(format!("{remediation}/{off_at}"));
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Judges what answers `request`, or means to.
///
/// Who speaks and of what comes before what the world says; a denial needs no more than that.
pub fn judge(confirmation: &RemediationConfirmation, request: &ConfirmationRequest, facts: &Facts<'_>) -> Judgement {
    match refusal(confirmation, request, facts) {
        Some(refusal) => Judgement::Refused(refusal),
        None => match confirmation.spec.decision {
            Decision::Approve => Judgement::Accepted,
            Decision::Deny => Judgement::Denied,
        },
    }
}

/// Judges what nobody asked for.
pub fn unasked(confirmation: &RemediationConfirmation) -> Judgement {
    Judgement::Refused(Refusal::NoRequest { named: confirmation.spec.request.clone() })
}

/// Tells whether a confirmation is for the remediation with this request to judge: it answers the request, or means its
/// node, and has no verdict yet.
pub fn concerns(confirmation: &RemediationConfirmation, request: &ConfirmationRequest) -> bool {
    let spec = &confirmation.spec;
    verdict(confirmation).is_none() && (spec.request == request.id || spec.node_name == request.node_name)
}

/// Returns the word that counts for a request, of those that have their verdict: a denial before any approval, else the
/// first approval.
pub fn counts<'a>(
    confirmations: &'a [RemediationConfirmation],
    request: &ConfirmationRequest,
) -> Option<(Verdict, &'a RemediationConfirmation)> {
    let answers = |verdict| {
        let with = move |confirmation: &&RemediationConfirmation| self::verdict(confirmation) == Some(verdict);
        let all = confirmations.iter().filter(|c| c.spec.request == request.id).filter(with);
        let first = all.min_by_key(|c| c.status.as_ref().and_then(|status| status.at.clone()).map(|at| at.0));
        first.map(|first| (verdict, first))
    };
    answers(Verdict::Denied).or_else(|| answers(Verdict::Accepted))
}

/// Says what a person has to do for a request of a remediation in `namespace`, and what to answer.
pub fn instructions(namespace: &str, request: &ConfirmationRequest) -> String {
    let ConfirmationRequest { id, node_name, node_uid, boot_id, .. } = request;
    let boot = boot(boot_id.as_deref()).map_or_else(String::new, |id| format!("\n  bootID: \"{}\"", plain(id)));
    format!(
        "No device can tell whether {node_name} is off. Go and see to it: cut its power, or take it off the network and off \
         all storage. If it can still write, data will be lost. Then create this, as yourself:\n\
         apiVersion: ringfence.dev/v1alpha1\n\
         kind: RemediationConfirmation\n\
         metadata:\n\
         \x20 generateName: {node}-\n\
         \x20 namespace: {namespace}\n\
         spec:\n\
         \x20 request: \"{id}\"\n\
         \x20 nodeName: \"{node}\"\n\
         \x20 nodeUID: \"{uid}\"{boot}\n\
         \x20 decision: Approve          # or Deny\n\
         \x20 statement: PoweredOff      # or PowerCycled, DisconnectedFromStorageAndNetwork, HardwareRemoved\n\
         \x20 by: your-user-name         # as `kubectl auth whoami` says\n",
        node = plain(node_name),
        uid = plain(node_uid),
    )
}

impl Judgement {
    /// Returns the verdict without its reason.
    pub fn verdict(&self) -> Verdict {
        match self {
            Judgement::Accepted => Verdict::Accepted,
            Judgement::Denied => Verdict::Denied,
            Judgement::Refused(_) => Verdict::Refused,
        }
    }

    /// Returns its stable code.
    pub fn reason(&self) -> &'static str {
        match self {
            Judgement::Accepted => "Accepted",
            Judgement::Denied => "Denied",
            Judgement::Refused(refusal) => match refusal {
                Refusal::NoRequest { .. } => "NoRequest",
                Refusal::WrongRequest { .. } => "WrongRequest",
                Refusal::WrongNode { .. } | Refusal::NodeReplaced { .. } => "WrongNode",
                Refusal::WrongBoot { .. } => "WrongBoot",
                Refusal::PolicyMissing(_) => "PolicyMissing",
                Refusal::NotAPerson { .. } => "NotAPerson",
                Refusal::NoStatement => "NoStatement",
                Refusal::NodeAlive(_) => "NodeAlive",
                Refusal::MachineOn { .. } => "MachineOn",
            },
        }
    }

    /// Says it in words.
    pub fn message(&self) -> String {
        match self {
            Judgement::Accepted => {
                "taken as true: nothing that Ringfence can see speaks against it; it has proven nothing".to_owned()
            }
            Judgement::Denied => "the release is denied: the node's workloads stay where they are".to_owned(),
            Judgement::Refused(refusal) => refusal.to_string(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoRequest { named } => write!(
                f,
                "no remediation in this namespace waits for request {named}: it was never made, or the node came back or was \
                 fenced otherwise; confirm only what status.request of a remediation asks for"
            ),
            Refusal::WrongRequest { named, waiting } => write!(
                f,
                "it answers request {named}, and the node is now asked about by {waiting}, because it showed life or was \
                 switched since: see to the machine again, and confirm {waiting}"
            ),
            Refusal::WrongNode { named, meant } => write!(
                f,
                "it is about node {named}, and the request about {meant}: make sure which machine you have switched off, and \
                 confirm that one"
            ),
            Refusal::NodeReplaced { node } => write!(
                f,
                "the Node {node} that the request is about was deleted or made anew: there is nothing left to confirm"
            ),
            Refusal::WrongBoot { named, meant } => write!(
                f,
                "it is about boot {named}, and the request about {meant}: see to the machine again, and copy bootID from the \
                 request"
            ),
            Refusal::PolicyMissing(Vouching::Nobody) => write!(
                f,
                "the ValidatingAdmissionPolicy ringfence-confirmation or its binding is missing or changed, so nobody \
                 vouches for spec.by: apply deploy/confirmation.yaml, and confirm once more"
            ),
            Refusal::PolicyMissing(Vouching::TooLate) => write!(
                f,
                "the ValidatingAdmissionPolicy ringfence-confirmation and its binding came into force too late to vouch for \
                 its spec.by: confirm once more"
            ),
            Refusal::NotAPerson { by } => {
                write!(f, "{by} is no person: whoever saw to the machine has to confirm it, under their own name")
            }
            Refusal::NoStatement => {
                write!(f, "it approves and does not say why the node can't write: confirm once more, with a statement")
            }
            Refusal::NodeAlive(life) => {
                write!(
                    f,
                    "{life}: switch it off, wait until it was silent for {} s, and confirm once more",
                    SILENT / 1000
                )
            }
            Refusal::MachineOn { device } => write!(
                f,
                "{device} says that the machine is on: switch it off, or correct which device is this node's, and confirm \
                 once more"
            ),
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The node-lifecycle controller calls a silent node so for up to 50 s.
            Life::Ready => write!(f, "the node is Ready"),
            Life::Spoke { ago } => write!(f, "the node was heard {} s ago", ago / 1000),
            Life::SpokeSince => write!(f, "the node was heard after the request was opened"),
            Life::Booted => write!(f, "the node has booted since the request was opened"),
        }
    }
}

fn refusal(
    confirmation: &RemediationConfirmation,
    request: &ConfirmationRequest,
    facts: &Facts<'_>,
) -> Option<Refusal> {
    let spec = &confirmation.spec;
    let of = |name: &str, uid: &str| format!("{name} (UID {uid})");
    let or_none = |id: &Option<String>| boot(id.as_deref()).unwrap_or("(none)").to_owned();
    let approves = spec.decision == Decision::Approve;
    if spec.request != request.id {
        Some(Refusal::WrongRequest { named: spec.request.clone(), waiting: request.id.clone() })
    } else if (&spec.node_name, &spec.node_uid) != (&request.node_name, &request.node_uid) {
        let (named, meant) = (of(&spec.node_name, &spec.node_uid), of(&request.node_name, &request.node_uid));
        Some(Refusal::WrongNode { named, meant })
    } else if boot(spec.boot_id.as_deref()) != boot(request.boot_id.as_deref()) {
        Some(Refusal::WrongBoot { named: or_none(&spec.boot_id), meant: or_none(&request.boot_id) })
    } else if let Some(vouching) = unvouched(confirmation, facts) {
        Some(Refusal::PolicyMissing(vouching))
    } else if !is_person(&spec.by) {
        Some(Refusal::NotAPerson { by: spec.by.clone() })
    } else if facts.node_uid != Some(&request.node_uid) {
        Some(Refusal::NodeReplaced { node: request.node_name.clone() })
    } else if approves && spec.statement.is_none() {
        Some(Refusal::NoStatement)
    } else if let Some(life) = life(request, facts).filter(|_| approves) {
        Some(Refusal::NodeAlive(life))
    } else {
        facts.says_on.filter(|_| approves).map(|device| Refusal::MachineOn { device: device.to_owned() })
    }
}

fn unvouched(confirmation: &RemediationConfirmation, facts: &Facts<'_>) -> Option<Vouching> {
    let Some(since) = facts.policy_since else { return Some(Vouching::Nobody) };
    let created = confirmation.metadata.creation_timestamp.as_ref().map(|at| millis(at.0));
    created.is_none_or(|at| at < since.saturating_add(OBEYED)).then_some(Vouching::TooLate)
}

fn life(request: &ConfirmationRequest, facts: &Facts<'_>) -> Option<Life> {
    // Without the time, whatever it said was said since.
    let opened = request.opened_at.as_ref().map_or(0, |at| millis(at.0));
    if facts.ready {
        return Some(Life::Ready);
    }
    if boot(facts.boot_id) != boot(request.boot_id.as_deref()) {
        return Some(Life::Booted);
    }
    let beat = facts.last_beat?;
    // A time ahead of our clock is taken for now.
    match facts.now.saturating_sub(beat) {
        ago if ago < SILENT => Some(Life::Spoke { ago }),
        _ if beat > opened => Some(Life::SpokeSince),
        _ => None,
    }
}

/// The API server keeps the prefix for its own (nodes, service accounts, controllers, anonymous). `system:admin` is who
/// installed an OpenShift cluster.
fn is_person(by: &str) -> bool {
    !by.is_empty() && (!by.starts_with("system:") || by == "system:admin")
}

/// A kubelet that knows none says "".
fn boot(id: Option<&str>) -> Option<&str> {
    id.filter(|id| !id.is_empty())
}

fn verdict(confirmation: &RemediationConfirmation) -> Option<Verdict> {
    confirmation.status.as_ref().and_then(|status| status.verdict)
}

/// What identifiers are made of, and nothing else: a kubelet chooses its boot ID, and people paste this into a shell.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':')).collect()
}

#[cfg(test)]
mod tests;

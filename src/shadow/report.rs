//! What a shadow says: one log line for each finding, with the facts as fields and a sentence for people.
//!
//! WARN is a success of FAR's without a proof behind it, and what confirms that.

use k8s_openapi::api::core::v1::Node;

use super::judge::{Binding, Lack, Seconds, Verdict, Watch, name};
use crate::api::Order;
use crate::decide::{Identity, Millis, Policy};
use crate::isolate::Sight;
use crate::resolve::Action;

/// Which of FAR's conditions turned True.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// `FenceAgentActionSucceeded`: FAR releases the workloads next.
    ActionSucceeded,
    /// `Succeeded`: it has.
    Succeeded,
}

impl Word {
    fn as_str(self) -> &'static str {
        match self {
            Self::ActionSucceeded => "FenceAgentActionSucceeded",
            Self::Succeeded => "Succeeded",
        }
    }
}

/// What Ringfence would have done: with the first level, for a spec of FAR's has no other.
pub fn plan(order: &Order, action: Action) {
    let does = match action {
        Action::Reboot => "would send off, prove it, release, and send on",
        Action::Off => "would send off, prove it, and release; the machine stays off",
    };
    tracing::info!(
        finding = "plan",
        agent = order.agent,
        driver = ?order.driver,
        address = order.address,
        plug = order.plug,
        expected_uuid = order.system_uuid,
        action = action.as_str(),
        "Ringfence {does}"
    );
}

/// Why Ringfence would have done nothing.
pub fn no_plan(why: &str, policy: Policy) {
    let attempts = policy.attempts;
    tracing::info!(finding = "plan", attempts, "Ringfence would halt, and release nothing: {why}");
}

/// What the BMC says, when that changes.
pub fn reading(at: Millis, sight: &Sight, identity: Identity) {
    let (read, source) = (name(sight.state), sight.source.as_deref());
    let whose = match identity {
        Identity::Same => "same",
        Identity::Other => "other",
        Identity::Unsaid | Identity::Attested => "unsaid",
    };
    let after = Seconds(at);
    tracing::info!(finding = "reading", read, identity = whose, source, "after {after}: {}", sight.said);
}

/// What FAR's success had behind it.
pub fn success(word: Word, at: Millis, verdict: Verdict, watch: &Watch) {
    let (word, after, looks) = (word.as_str(), Seconds(at), watch.looks());
    let series = watch.to_string();
    match verdict {
        Verdict::Seen { at, binding } => {
            let off = Seconds(at);
            let binding = match binding {
                Binding::Identity => "its BMC names the node's machine",
                Binding::Witness => "the same plug was read On before",
            };
            tracing::info!(
                finding = "success",
                proof = "seen",
                looks,
                series,
                "FAR says {word} after {after}; Off was read after {off}, and {binding}"
            );
        }
        Verdict::NoProof(lack) => {
            let why = lacks(lack);
            tracing::warn!(
                finding = "success",
                proof = "none",
                looks,
                series,
                "FAR says {word} after {after}; {why}: this release had NO PROOF, and Ringfence would not have made it"
            );
        }
    }
}

fn lacks(lack: Lack) -> String {
    match lack {
        Lack::NotLooked => "nobody could look at the machine".to_owned(),
        Lack::Silent => "its BMC never answered".to_owned(),
        Lack::NeverOff { answers, gap } => {
            format!("power was never read Off (answers: {answers}; longest time without one: {})", Seconds(gap))
        }
        Lack::WrongMachine => "its BMC is another machine's".to_owned(),
        Lack::Unbound => "power was read Off from the start, and the BMC does not say of which machine".to_owned(),
        Lack::Hearsay => "power was read Off from the start, so nobody knows who switched it off".to_owned(),
        Lack::OnAgain => "power was read Off, and On again".to_owned(),
    }
}

/// This process came after FAR's success.
pub fn late(word: Word) {
    tracing::info!(
        finding = "late",
        "FAR said {} before this process looked: nothing can be said of it",
        word.as_str()
    );
}

/// FAR gave up; it releases nothing then.
pub fn failure(reason: &str, at: Millis, watch: &Watch) {
    let (after, looks, series) = (Seconds(at), watch.looks(), watch.to_string());
    tracing::info!(finding = "failure", reason, looks, series, "FAR gives up after {after}: {reason}");
}

/// The remediation was deleted, given up by NHC, or taken over by Ringfence.
pub fn left(at: Millis, watch: &Watch) {
    let (after, looks, series) = (Seconds(at), watch.looks(), watch.to_string());
    tracing::info!(finding = "left", looks, series, "the remediation was left after {after}, without a result");
}

/// FAR neither succeeds nor fails.
pub fn stuck(at: Millis, watch: &Watch) {
    let (after, looks, series) = (Seconds(at), watch.looks(), watch.to_string());
    tracing::warn!(
        finding = "stuck",
        looks,
        series,
        "FAR has no result after {after}, longer than all its attempts take; the machine is no longer looked at"
    );
}

/// Whether the machine was restarted, by the node's own word.
pub fn aftermath(before: Option<&str>, node: &Node, verdict: Verdict) {
    let (Some(before), Some(after)) = (before, boot(node)) else { return };
    let unproven = matches!(verdict, Verdict::NoProof(_));
    match (before == after, unproven, is_ready(node)) {
        (false, true, _) => {
            tracing::info!(finding = "aftermath", restarted = true, "the node has restarted since: it was off, unseen");
        }
        (false, false, _) => tracing::info!(finding = "aftermath", restarted = true, "the node has restarted since"),
        (true, _, true) => tracing::warn!(
            finding = "aftermath",
            restarted = false,
            "the node is Ready and was NEVER RESTARTED: its workloads were released while it ran"
        ),
        // It may still be off, or silent: nothing is known.
        (true, _, false) => {}
    }
}

/// The boot that a node's kubelet last reported.
pub fn boot(node: &Node) -> Option<String> {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    info.map(|info| info.boot_id.clone()).filter(|id| !id.is_empty())
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

//! Follows one of FAR's remediations: looks at its machine until FAR has said how it went, and judges that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::judge::{Look, Verdict, Wanted, Watch};
use super::report::{self, Word};
use crate::api::FenceAgentsRemediation;
use crate::decide::{Millis, Policy};
use crate::isolate::State;
use crate::observe::{self, Observer, Peek, Preview};
use crate::resolve::{Action, Device};

/// Pause between two looks: a BMC under load answers in 1 to 3 s, and must have time left for FAR.
const PAUSE: Duration = Duration::from_secs(1);
/// What FAR may take beyond its attempts: to see the remediation, to start its agents, to write the result.
const GRACE: Duration = Duration::from_secs(60);
/// Nobody is looked at longer than this, whatever a spec says.
const LONGEST: Duration = Duration::from_secs(3600);

/// A remediation as the watch shows it.
#[derive(Clone, Debug)]
pub enum Seen {
    /// As it stands.
    Now(Arc<FenceAgentsRemediation>),
    /// Deleted, finalizer and all.
    Gone,
}

/// One remediation.
pub struct Follow {
    observer: Arc<Observer>,
    uid: String,
    seen: watch::Receiver<Seen>,
    began: Instant,
    watch: Watch,
    /// What was told last of the plan: told again when it changes.
    plan: Option<String>,
    /// That the device refuses us was told.
    told_refused: bool,
    wanted: Wanted,
    boot: Option<String>,
}

impl Follow {
    /// Prepares to follow a remediation that was just seen for the first time.
    pub fn new(observer: Arc<Observer>, uid: String, seen: watch::Receiver<Seen>) -> Self {
        let began = Instant::now();
        Self {
            observer,
            uid,
            seen,
            began,
            watch: Watch::default(),
            plan: None,
            told_refused: false,
            wanted: Wanted::Reboot,
            boot: None,
        }
    }

    /// Follows it until it is gone.
    pub async fn run(mut self) {
        let Seen::Now(first) = self.seen.borrow().clone() else { return };
        match standing(&first) {
            Standing::Underway => {}
            // Nothing was seen of how it came about.
            Standing::Claimed(word) => return report::late(word),
            Standing::Ours | Standing::Failed { .. } | Standing::Left => return,
        }
        let ended = self.look_until_it_ends().await;
        self.observer.memories.forget(&self.uid);
        match ended {
            Ended::Claimed { word, at } => {
                let verdict = self.watch.verdict(self.wanted);
                report::success(word, at, verdict, &self.watch);
                self.aftermath(&first, verdict).await;
            }
            Ended::Failed { reason, at } => report::failure(&reason, at, &self.watch),
            Ended::Left { at } => report::left(at, &self.watch),
            Ended::Stuck { at } => report::stuck(at, &self.watch),
        }
    }

    /// Looks every second; once more after a success, since what was read last may be a second old.
    async fn look_until_it_ends(&mut self) -> Ended {
        let mut next = Instant::now();
        let mut ended = None;
        let mut patience = LONGEST;
        loop {
            let seen = self.seen.borrow_and_update().clone();
            let at = self.at(Instant::now());
            let standing = match &seen {
                Seen::Now(far) => standing(far),
                Seen::Gone => Standing::Left,
            };
            ended = ended.or(match standing {
                Standing::Underway if self.began.elapsed() > patience => Some(Ended::Stuck { at }),
                Standing::Underway => None,
                Standing::Claimed(word) => Some(Ended::Claimed { word, at }),
                Standing::Failed { reason } => Some(Ended::Failed { reason, at }),
                // Ours has been started meanwhile: it tells by itself.
                Standing::Left | Standing::Ours => Some(Ended::Left { at }),
            });
            if ended.is_none() {
                tokio::select! {
                    biased;
                    changed = self.seen.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => ended = Some(Ended::Left { at }),
                    },
                    () = sleep_until(next) => {}
                }
            }
            match ended.take() {
                Some(end @ Ended::Claimed { .. }) => ended = Some(end),
                Some(end) => return end,
                None => {}
            }
            sleep_until(next).await;
            next = Instant::now() + PAUSE;
            if let Seen::Now(far) = &seen
                && let Some(policy) = self.look(far).await
            {
                patience = longest(policy);
            }
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    async fn look(&mut self, far: &FenceAgentsRemediation) -> Option<Policy> {
        let observer = self.observer.clone();
        let Preview { node, policy, resolved } = match observer.preview(far).await {
            Ok(preview) => preview,
            Err(error) => {
                let text = match &error {
                    observe::Error::Cluster(error) => error.story(),
                    error => error.to_string(),
                };
                tracing::warn!(error = text, "the remediation could not be resolved for now");
                return None;
            }
        };
        if self.boot.is_none() {
            self.boot = node.as_ref().and_then(report::boot);
        }
        let resolved = match resolved {
            Ok(resolved) => resolved,
            Err(error) => {
                self.tell_plan(error, |why| report::no_plan(why, policy));
                return Some(policy);
            }
        };
        self.wanted = match resolved.action {
            Action::Reboot => Wanted::Reboot,
            Action::Off => Wanted::Off,
        };
        if let Some(Device { order, .. }) = resolved.first() {
            self.tell_plan(format!("{order:?} {:?}", resolved.action), |_| report::plan(order, resolved.action));
        }
        if let Some(peek) = observer.peek(&self.uid, node.as_ref(), &resolved).await {
            self.read(&peek);
        }
        Some(policy)
    }

    fn read(&mut self, Peek { sight, identity, asked }: &Peek) {
        let at = self.at(sight.read_at);
        let news = match asked {
            true => self.watch.add(Look { at, state: sight.state, identity: *identity }),
            // Refused before, or no device at all: told once, and counted as no look.
            false => !std::mem::replace(&mut self.told_refused, true),
        };
        if news {
            self.told_refused |= sight.state == State::Refused;
            report::reading(at, sight, *identity);
        }
    }

    fn tell_plan(&mut self, plan: String, tell: impl FnOnce(&str)) {
        if self.plan.as_ref() != Some(&plan) {
            tell(&plan);
            self.plan = Some(plan);
        }
    }

    /// Waits for the remediation to go, and tells by the boot ID whether the machine was restarted. That is the node's own
    /// word, and comes too late for a proof; but it settles what was missed between two looks.
    async fn aftermath(&mut self, far: &FenceAgentsRemediation, verdict: Verdict) {
        while matches!(*self.seen.borrow_and_update(), Seen::Now(_)) {
            if self.seen.changed().await.is_err() {
                break;
            }
        }
        match self.observer.preview(far).await {
            Ok(Preview { node: Some(node), .. }) => report::aftermath(self.boot.as_deref(), &node, verdict),
            Ok(Preview { node: None, .. }) => {}
            Err(error) => tracing::warn!(%error, "how the node fared afterwards could not be read"),
        }
    }

    fn at(&self, at: Instant) -> Millis {
        Millis::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(Millis::MAX)
    }
}

/// How a remediation ended, and when that was seen.
enum Ended {
    Claimed { word: Word, at: Millis },
    Failed { reason: String, at: Millis },
    Left { at: Millis },
    Stuck { at: Millis },
}

/// Where a remediation stands, by FAR's word.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Underway,
    Claimed(Word),
    Failed {
        reason: String,
    },
    /// It is being deleted, or NHC has given it up.
    Left,
    /// Ringfence itself works on it.
    Ours,
}

fn standing(far: &FenceAgentsRemediation) -> Standing {
    let status = far.status.as_ref();
    if status.is_some_and(|status| status.phase.is_some()) {
        return Standing::Ours;
    }
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let is = |type_: &str, value: &str| conditions.iter().find(|c| c.type_ == type_ && c.status == value);
    if is("Succeeded", "True").is_some() {
        return Standing::Claimed(Word::Succeeded);
    }
    if is("FenceAgentActionSucceeded", "True").is_some() {
        return Standing::Claimed(Word::ActionSucceeded);
    }
    if let Some(failed) = is("Succeeded", "False").or_else(|| is("Processing", "False")) {
        return Standing::Failed { reason: failed.reason.clone() };
    }
    match far.metadata.deletion_timestamp.is_some() || far.nhc_timed_out() {
        true => Standing::Left,
        false => Standing::Underway,
    }
}

/// How long FAR may take with all its attempts, and some more.
fn longest(policy: Policy) -> Duration {
    let attempts = u64::from(policy.attempts);
    let of = Duration::from_millis(
        attempts.saturating_mul(policy.patience).saturating_add(attempts.saturating_mul(policy.gap)),
    );
    of.saturating_add(GRACE).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn far(metadata: Value, status: Value) -> FenceAgentsRemediation {
        let spec = json!({"agent": "fence_redfish"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    fn conditions(conditions: &[(&str, &str, &str)]) -> Value {
        let all: Vec<_> = conditions
            .iter()
            .map(|(type_, status, reason)| {
                json!({"type": type_, "status": status, "reason": reason, "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        json!({ "conditions": all })
    }

    /// far-contract, section 3.1: what FAR writes, and what it means to whoever watches.
    #[test]
    fn fars_conditions_are_read() {
        let (unknown, yes, no) = ("Unknown", "True", "False");
        let of = |processing, action, succeeded, reason| {
            let all = [
                ("Processing", processing, reason),
                ("FenceAgentActionSucceeded", action, reason),
                ("Succeeded", succeeded, reason),
            ];
            standing(&far(json!({}), conditions(&all)))
        };
        assert_eq!(standing(&far(json!({}), Value::Null)), Standing::Underway);
        assert_eq!(of(yes, unknown, unknown, "RemediationStarted"), Standing::Underway);
        assert_eq!(of(yes, yes, unknown, "FenceAgentSucceeded"), Standing::Claimed(Word::ActionSucceeded));
        assert_eq!(of(no, yes, yes, "RemediationFinishedSuccessfully"), Standing::Claimed(Word::Succeeded));
        let failed = |reason: &str| Standing::Failed { reason: reason.to_owned() };
        for reason in ["FenceAgentFailed", "FenceAgentTimedOut", "RemediationInterruptedByNHC"] {
            assert_eq!(of(no, no, no, reason), failed(reason));
        }
    }

    #[test]
    fn what_is_given_up_or_ours_is_left() {
        let started = conditions(&[("Processing", "True", "RemediationStarted")]);
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(standing(&far(deleted, started.clone())), Standing::Left);
        let timed_out = json!({"annotations": {"remediation.medik8s.io/nhc-timed-out": ""}});
        assert_eq!(standing(&far(timed_out, started)), Standing::Left);
        assert_eq!(standing(&far(json!({}), json!({"phase": "Accepted"}))), Standing::Ours);
    }
}

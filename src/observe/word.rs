//! A person's word, where no device can be asked: what is asked for, what was said, and whether it counts.

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;

use super::peers::ready;
use super::pulse::Life;
use super::{Error, Observer};
use crate::api::{ConfirmationRequest, FenceAgentsRemediation, RemediationConfirmation, Verdict};
use crate::clock::millis;
use crate::confirm::{self, Facts, Judgement};
use crate::decide::{Identity, Word};
use crate::isolate::{Sight, State};

/// What is known of a person's word for a request.
#[derive(Default)]
pub struct Said {
    /// What was said and not judged yet, with what it is worth.
    pub judged: Vec<(Judgement, RemediationConfirmation)>,
    /// What counts, if anything does.
    pub counts: Option<(Verdict, RemediationConfirmation)>,
    /// The node has shown life since it was asked for.
    pub void: bool,
}

impl Said {
    /// Returns it as a decision depends on it.
    pub(super) fn word(&self) -> Word {
        match &self.counts {
            _ if !self.judged.is_empty() => Word::Unjudged,
            _ if self.void => Word::Void,
            Some((Verdict::Denied, _)) => Word::Denied,
            Some((Verdict::Accepted, _)) => Word::Given,
            Some((Verdict::Refused, _)) | None => Word::Awaited,
        }
    }

    /// Returns what was seen, as of any isolator.
    pub(super) fn sight(&self, read_at: Instant) -> (Sight, Identity) {
        let (state, identity, said, source) = match (&self.counts, self.word()) {
            (Some((_, word)), Word::Given) => {
                let said = match word.spec.statement {
                    Some(statement) => format!("{} says {statement:?}", word.spec.by),
                    None => format!("{} says so", word.spec.by),
                };
                (
                    State::Isolated,
                    Identity::Attested,
                    said,
                    Some(format!("RemediationConfirmation {}", word.name_any())),
                )
            }
            (Some(_) | None, _) => (State::Unknown, Identity::Unsaid, "nobody has confirmed it".to_owned(), None),
        };
        let sight = Sight { state, system_uuid: None, read_at, said, label: None, account_refused: false, source };
        (sight, identity)
    }
}

impl Observer {
    /// Reads what people have said to a request, and judges what is new. `pulse`: the node's, as it was when the request was
    /// opened. `says_on`: a device of the node that says On.
    pub(super) async fn word(
        &self,
        far: &FenceAgentsRemediation,
        request: &ConfirmationRequest,
        pulse: Option<&str>,
        says_on: Option<&str>,
    ) -> Result<(Said, Instant), Error> {
        let all = confirm::read(&self.client, far.namespace().as_deref()).await?;
        let read_at = Instant::now();
        let counts = confirm::counts(&all, request).map(|(verdict, word)| (verdict, word.clone()));
        let new: Vec<_> = all.into_iter().filter(|said| confirm::concerns(said, request)).collect();
        // After what was said: it is to be judged by what is known since.
        let life = self.life(&request.node_name).await?;
        // Where nobody knows how it was, nobody knows that it is the same.
        let void = pulse.is_none_or(|pulse| life.pulse.as_text() != pulse);
        let judged = match new.is_empty() {
            true => vec![],
            false => {
                let facts =
                    facts(&life, void, says_on, confirm::policy_since(&self.client).await?, self.clock.timestamp());
                let judge = |said| (confirm::judge(&said, request, &facts), said);
                new.into_iter().map(judge).collect()
            }
        };
        Ok((Said { judged, counts, void }, read_at))
    }
}

fn facts<'a>(
    life: &'a Life,
    void: bool,
    says_on: Option<&'a str>,
    policy_since: Option<u64>,
    now: Timestamp,
) -> Facts<'a> {
    let node = life.node.as_ref();
    let info = node.and_then(|node| node.status.as_ref()).and_then(|status| status.node_info.as_ref());
    let now = millis(now);
    Facts {
        node_uid: node.and_then(|node| node.metadata.uid.as_deref()),
        boot_id: info.map(|info| info.boot_id.as_str()),
        ready: node.is_some_and(ready),
        // Another pulse than at the opening is life, whatever the clocks say.
        last_beat: if void { Some(now) } else { life.last_beat() },
        says_on,
        policy_since,
        now,
    }
}

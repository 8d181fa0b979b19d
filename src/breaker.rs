//! The breaker: a limit to how many machines are cut off at once and within a while, whoever asks for it. A fault that makes
//! half of the nodes look dead must not become half of the nodes dead.
//!
//! Knows the ledger, a ConfigMap beside the operator: what was begun is written there before the first off, by
//! compare-and-swap, so that two replicas count together and a new leader goes on counting. Deleting it closes the breaker.

mod ledger;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};

pub use ledger::{Answer, Limits, Share, Why};
use ledger::{Ask, Ledger, Now};

use crate::api::{FenceAgentsRemediation, Guarded};
use crate::cluster::{self, call};
use crate::decide::{Phase, Time};
use crate::status;

/// The ledger's ConfigMap.
pub const NAME: &str = "ringfence-breaker";
const KEY: &str = "ledger.json";

/// Lets remediations through, or not. The default one lets every one through.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    /// The operator's namespace.
    pub namespace: String,
    /// How much is too much.
    pub limits: Limits,
    /// The label that tells a node's failure domain.
    pub domain_label: String,
}

impl Breaker {
    /// Tells whether a remediation of this node may begin. Changes nothing.
    ///
    /// # Errors
    /// The API server's.
    pub async fn ask(
        &self,
        client: &Client,
        far: &FenceAgentsRemediation,
        node: &Node,
        now: Time,
    ) -> Result<Answer, cluster::Error> {
        if !self.limits.any() {
            return Ok(Answer::Admitted);
        }
        Ok(self.weigh(client, far, node, now).await?.0)
    }

    /// Writes down that a remediation of this node begins, or that the breaker opens, if it is still so. Tells whether the
    /// breaker was opened.
    ///
    /// # Errors
    /// The API server's; a conflict if somebody else has written meanwhile.
    pub async fn admit(
        &self,
        client: &Client,
        far: &FenceAgentsRemediation,
        node: &Node,
        now: Time,
    ) -> Result<bool, cluster::Error> {
        let (answer, ledger, known) = self.weigh(client, far, node, now).await?;
        let opens = match answer {
            Answer::Free => false,
            Answer::Trips => true,
            Answer::Admitted | Answer::Waits(_) => return Ok(false),
        };
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &self.namespace);
        let text = serde_json::to_string(&ledger).expect("plain data");
        let map =
            ConfigMap { data: Some(BTreeMap::from([(KEY.to_owned(), text)])), ..known.clone().unwrap_or_default() };
        let params = PostParams::default();
        match known {
            Some(_) => drop(call("writing the breaker's ledger", maps.replace(NAME, &params, &map)).await?),
            None => {
                let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
                drop(call("writing the breaker's ledger", maps.create(&params, &ConfigMap { metadata, ..map })).await?);
            }
        }
        Ok(opens)
    }

    /// Returns the answer, the ledger as it is to be then, and the object that it was read from.
    async fn weigh(
        &self,
        client: &Client,
        far: &FenceAgentsRemediation,
        node: &Node,
        now: Time,
    ) -> Result<(Answer, Ledger, Option<ConfigMap>), cluster::Error> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &self.namespace);
        // First of all: what it says is compared when it is written.
        let known = call("reading the breaker's ledger", maps.get_opt(NAME)).await?;
        let text = known.as_ref().and_then(|map| map.data.as_ref()).and_then(|data| data.get(KEY));
        // Spoilt by hand: as good as deleted, which is how a person closes it.
        let ledger = text.and_then(|text| serde_json::from_str::<Ledger>(text).ok()).unwrap_or_default();
        let mut ledger = ledger.believable(&self.limits, now);
        let remediation = far.metadata.uid.as_deref().unwrap_or_default();
        // Those who wait, and they may be hundreds, have nothing listed for them.
        if let Some(answer) = ledger.answer_at_once(remediation, &self.limits, now) {
            return Ok((answer, ledger, known));
        }
        let nodes: Api<Node> = Api::all(client.clone());
        let nodes = call("counting the nodes", nodes.list_metadata(&ListParams::default())).await?.items;
        let domain = node.labels().get(&self.domain_label).map(String::as_str);
        let in_domain = |other: &&PartialObjectMeta<Node>| {
            domain.is_some() && other.labels().get(&self.domain_label).map(String::as_str) == domain
        };
        let remediations: Api<Guarded> = Api::all(client.clone());
        let all = call("listing the remediations", remediations.list(&ListParams::default())).await?.items;
        let mut at_work = Now::default();
        all.into_iter().filter_map(|far| far.0.ok()).for_each(|far| count(&far, &mut at_work));
        let ask = Ask {
            remediation,
            node: node.metadata.name.as_deref().unwrap_or_default(),
            domain,
            nodes: nodes.len(),
            nodes_in_domain: nodes.iter().filter(in_domain).count(),
            now: &at_work,
        };
        let answer = ledger.answer(&ask, &self.limits, now);
        match answer {
            Answer::Free => ledger.begin(&ask, &self.limits, now),
            Answer::Trips => ledger.open(now),
            Answer::Admitted | Answer::Waits(_) => {}
        }
        Ok((answer, ledger, known))
    }
}

/// One that has halted is not at work: it may stay so for days.
fn count(far: &FenceAgentsRemediation, now: &mut Now) {
    let (Some(uid), Ok(Some(phase))) = (far.uid(), status::phase(far.status.as_ref())) else { return };
    match phase {
        Phase::Accepted => drop(now.accepted.insert(uid)),
        Phase::Isolating { .. } | Phase::Proving { .. } => drop(now.acting.insert(uid)),
        Phase::Releasing { .. } | Phase::Restoring { .. } => drop(now.acting.insert(uid)),
        Phase::Done { .. } | Phase::Halted { .. } => {}
    }
}

//! Takes a remediation on: finalizer, node, first status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};

use super::{Actor, Outcome};
use crate::api::{FINALIZER, FenceAgentsRemediation, NodeIdentity, RemediationStrategy};
use crate::cluster::{self, call};
use crate::decide::{Phase, Rest, Why};
use crate::events::Kind;
use crate::resolve::is_object_name;
use crate::status::{self, Standing};
use crate::story::About;
use crate::{machine, marks};

/// FAR's event about a remediation that names no node.
const NODE_NOT_FOUND: &str = "NodeNotFound";

impl Actor<'_> {
    /// Takes a remediation on: finalizer, then its first status.
    ///
    /// # Errors
    /// The API server's.
    pub async fn accept(&self, far: FenceAgentsRemediation) -> Result<Outcome, cluster::Error> {
        let deleted = far.metadata.deletion_timestamp.is_some();
        let adopted = far.finalizers().iter().any(|f| f == FINALIZER);
        match (adopted, deleted) {
            (false, true) => Ok(Outcome::Over),
            (false, false) => {
                let finalizers: Vec<_> = far.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
                self.set_finalizers(&far, &finalizers).await?;
                self.say(&far, None, About::Remediation, Kind::Normal, "AddFinalizer", "Finalizer was added");
                Ok(Outcome::Went)
            }
            (true, _) => self.first_status(far).await,
        }
    }

    async fn first_status(&self, mut far: FenceAgentsRemediation) -> Result<Outcome, cluster::Error> {
        let (name, nowhere) = match machine::node_name(self.client, &far).await? {
            Ok(name) => (name, None),
            Err(nowhere) => (String::new(), Some(nowhere)),
        };
        let node = match is_object_name(&name) {
            false => None,
            true => call("reading the Node", Api::<Node>::all(self.client.clone()).get_opt(&name)).await?,
        };
        let info = node.as_ref().and_then(|node| node.status.as_ref()).and_then(|status| status.node_info.as_ref());
        let identity = NodeIdentity {
            uid: node.as_ref().and_then(ResourceExt::uid),
            system_uuid: info.map(|info| info.system_uuid.clone()),
            boot_id_before: info.map(|info| info.boot_id.clone()),
            name: name.clone(),
        };
        self.adopt(&far, node.as_ref()).await?;
        let now = self.clock.timestamp();
        let generation = far.metadata.generation;
        let status = far.status.get_or_insert_default();
        status.node = Some(identity);
        if status::is_over(status) {
            // Upstream's work, done before we were installed: it is left as it is, and cleaned up after when deleted.
            status::enter(status, Phase::Done { rest: Rest::UNTOUCHED }, now);
            status::tell(status, "finished by another operator before this one came; left as it is", vec![], now);
            self.write_status(&far).await?;
            return Ok(Outcome::Went);
        }
        // L3 at once: there is no node to decide on.
        let (phase, message) = match &nowhere {
            Some(nowhere) => {
                (Phase::Halted { why: Why::NodeGone, off: None, rest: Rest::UNTOUCHED }, nowhere.to_string())
            }
            None => (Phase::Accepted, format!("accepted; about to look at {name}")),
        };
        status::enter(status, phase, now);
        status::tell(status, &message, vec![], now);
        let standing = Standing {
            phase,
            released: false,
            restored: false,
            code: NODE_NOT_FOUND,
            message: &message,
            proof: "",
            asked: false,
            generation,
        };
        status::conditions(&mut status.conditions, standing, now);
        self.write_status(&far).await?;
        tracing::info!("{message}");
        match nowhere {
            Some(_) => self.say(&far, None, About::Remediation, Kind::Warning, NODE_NOT_FOUND, &message),
            None => self.say(&far, None, About::Remediation, Kind::Normal, "RemediationStarted", "Remediation started"),
        }
        Ok(Outcome::Went)
    }

    /// An out-of-service taint that FAR put there becomes our barrier, before its word for it is overwritten: it is to come off
    /// as ours do (S1), and not to be taken for an administrator's.
    async fn adopt(&self, far: &FenceAgentsRemediation, node: Option<&Node>) -> Result<(), cluster::Error> {
        let since = far.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |at| at.0);
        let released = far.status.as_ref().is_some_and(status::is_released_by_far);
        let fars = released && far.spec.remediation_strategy == RemediationStrategy::OutOfServiceTaint;
        let Some((node, patch)) = node.filter(|_| fars).and_then(|node| Some((node, marks::adopt(node, since)?)))
        else {
            return Ok(());
        };
        let nodes: Api<Node> = Api::all(self.client.clone());
        let (name, patch) = (node.name_any(), Patch::Merge(patch));
        call("taking FAR's taint over", nodes.patch(&name, &PatchParams::default(), &patch)).await.map(drop)
    }
}

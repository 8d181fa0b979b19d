//! What a remediation would come down to, and what its machine says: for whoever only watches another operator.

use k8s_openapi::api::core::v1::Node;

use tokio::time::timeout_at;

use super::look::{LOOK, LOOK_SCRIPT, Subject, boot, identity};
use super::{Error, Observer, fallback, policy};
use crate::api::{Driver, FenceAgentsRemediation};
use crate::decide::{FIRST, Identity, Policy};
use crate::devices::Asking;
use crate::isolate::Sight;
use crate::machine;
use crate::resolve::{Device, Resolved, is_object_name};

/// A remediation, as this operator would take it on.
pub struct Preview {
    /// Its Node; none if there is none.
    pub node: Option<Node>,
    /// Its numbers.
    pub policy: Policy,
    /// Its order, or why there is none.
    pub resolved: Result<Resolved, String>,
}

impl Preview {
    fn nowhere(far: &FenceAgentsRemediation, why: String) -> Self {
        Self { node: None, policy: policy(far, FIRST).unwrap_or_else(|_| fallback()), resolved: Err(why) }
    }
}

/// What was seen of a machine.
pub struct Peek {
    /// What it said.
    pub sight: Sight,
    /// Whose machine that is.
    pub identity: Identity,
    /// It was asked just now; else this is what is known without asking.
    pub asked: bool,
}

impl Observer {
    /// Resolves a remediation that is not ours.
    ///
    /// # Errors
    /// [`Error`]; ask again.
    pub async fn preview(&self, far: &FenceAgentsRemediation) -> Result<Preview, Error> {
        let name = match machine::node_name(&self.client, far).await? {
            Ok(name) if is_object_name(&name) => name,
            Ok(name) => return Ok(Preview::nowhere(far, format!("{name:?} can be no node's name"))),
            Err(nowhere) => return Ok(Preview::nowhere(far, nowhere.to_string())),
        };
        let node = self.node(&name).await?;
        let resolved = self.resolve(far, node.as_ref(), &name).await?;
        let (policy, resolved) = match policy(far, FIRST) {
            Ok(policy) => (policy, resolved),
            Err(error) => (fallback(), Err(error)),
        };
        let resolved = match (&node, resolved) {
            (None, _) => Err(format!("there is no Node {name}")),
            (Some(_), resolved) => resolved.map_err(|error| error.to_string()),
        };
        Ok(Preview { node, policy, resolved })
    }

    /// Looks once at the machine of an order, and tells whose it is. It waits for its turn at the BMC, and does not try an
    /// account there that was refused. The device is not given out: nothing can be commanded.
    pub async fn peek(&self, uid: &str, node: Option<&Node>, resolved: &Resolved) -> Option<Peek> {
        let Device { order, access } = resolved.first()?;
        let (access, inputs) = (access.as_ref()?, resolved.inputs.as_str());
        // Whether another Node says this UUID is not looked into: it would take the right to list them.
        let whose = |sight: &Sight| identity(order, false, sight);
        let device = match self.look(Subject { uid, order, access, inputs }, node, false).await {
            (Some(device), _) => device,
            (None, sight) => return sight.map(|sight| Peek { identity: whose(&sight), sight, asked: false }),
        };
        let asking = Asking { order, account: self.devices.account(access), asker: uid, inputs };
        let time = match order.driver {
            Driver::Native | Driver::Person => LOOK,
            Driver::Script => LOOK_SCRIPT,
        };
        let look = |by| async move {
            if let Some(sight) = self.devices.refusal(&asking) {
                return Peek { identity: Identity::Unsaid, sight, asked: false };
            }
            let sight = timeout_at(by, device.look(by)).await;
            let sight = sight.unwrap_or_else(|_| Sight::failed(&agents::Error::Deadline { doing: "looking" }));
            self.devices.saw(&asking, node.and_then(boot), &sight);
            Peek { identity: whose(&sight), sight, asked: true }
        };
        self.devices.idle(order, time, look).await
    }
}

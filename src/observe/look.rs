//! One look at a device, and whose machine it is.

use std::sync::Arc;
use std::time::Duration;

use agents::SystemUuid;
use k8s_openapi::api::core::v1::Node;

use super::Observer;
use crate::api::{Driver, Order};
use crate::decide::{Identity, Reading};
use crate::devices::{self, Asking, Boot};
use crate::isolate::{Isolator, Sight, State};
use crate::resolve::Resolved;

/// How long one look may take: a BMC under load answers in 1 to 3 s; later than this is no answer.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// How long one look through a script may take: it starts an interpreter, and may log in by telnet at human speed.
pub(super) const LOOK_SCRIPT: Duration = Duration::from_secs(15);

impl Observer {
    /// Looks, if it `looks`; the device is built whether it does or not.
    pub(super) async fn look(
        &self,
        uid: &str,
        order: &Order,
        now: &Resolved,
        node: Option<&Node>,
        looks: bool,
    ) -> (Option<Arc<dyn Isolator>>, Option<Sight>) {
        let Some((served, access)) = now.first().and_then(|now| Some((&now.order, now.access.as_ref()?))) else {
            let nobody = agents::Error::Config("there is nobody to ask".to_owned());
            return (None, Some(Sight::failed(&nobody)));
        };
        // What spec and Secrets say now is for the agent that they name now.
        let is_served = order.agent == served.agent && order.driver == served.driver;
        let build = || match is_served {
            true => self.workshop.build(devices::device(order, access)),
            false => Err(agents::Error::Config("the spec now has another agent than was pinned".to_owned())),
        };
        match self.memories.device(uid, order, &now.inputs, build) {
            Err(error) => (None, Some(Sight::failed(&error))),
            Ok(device) if looks => {
                let by = self.clock.deadline(match order.driver {
                    Driver::Native | Driver::Person => LOOK,
                    Driver::Script => LOOK_SCRIPT,
                });
                // The device keeps its own deadline; this one holds whatever it does.
                let sight = self.devices.urgent(order, by, device.look(by)).await;
                let sight = sight.unwrap_or_else(|| Sight::failed(&agents::Error::Deadline { doing: "looking" }));
                let account = self.devices.account(access);
                let asking = Asking { order, account, asker: uid, inputs: &now.inputs };
                self.devices.saw(&asking, node.and_then(boot), &sight);
                (Some(device), Some(sight))
            }
            Ok(device) => (Some(device), None),
        }
    }
}

/// The boot that a Node is in, as it says.
pub(super) fn boot(node: &Node) -> Option<Boot<'_>> {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref())?;
    Some(Boot { node: node.metadata.uid.as_deref()?, id: &info.boot_id })
}

/// Tells whose machine it is, by what the order expects (P2). A UUID that is `shared` by two Nodes can't tell that it is this
/// one, and still tells that it is neither.
pub(super) fn identity(order: &Order, shared: bool, sight: &Sight) -> Identity {
    let expected = order.system_uuid.as_deref().and_then(SystemUuid::parse);
    match (&expected, &sight.system_uuid) {
        (Some(expected), Some(found)) if expected.same_machine(found) => match shared {
            true => Identity::Unsaid,
            false => Identity::Same,
        },
        (Some(_), Some(_)) => Identity::Other,
        // The driver compared before it sent, and may say no more than that.
        (Some(_), None) if sight.label == Some("WrongMachine") => Identity::Other,
        (Some(_) | None, Some(_) | None) => Identity::Unsaid,
    }
}

impl From<&Sight> for Reading {
    /// Without its series: that is for [`Memories`] to know.
    fn from(sight: &Sight) -> Self {
        match sight.state {
            // Whose Off it is says the identity.
            State::Isolated | State::Off => Reading::Isolated { first: 0, last: 0 },
            State::Running => Reading::Running,
            State::Unknown => Reading::Unknown,
            State::Refused => Reading::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const OURS: &str = "33221100-5544-7766-8899-aabbccddeef0";
    const THEIRS: &str = "33221100-5544-7766-8899-aabbccddeef1";

    /// P2: what two Nodes say proves neither; a third machine is refused all the same.
    #[test]
    fn a_shared_uuid_tells_only_who_it_is_not() {
        let (address, system_uuid) = ("https://bmc".to_owned(), Some(OURS.to_owned()));
        let order =
            Order { agent: "fence_redfish".to_owned(), driver: Driver::Native, address, plug: None, system_uuid };
        let told = |shared, uuid| {
            let sight = Sight { system_uuid: SystemUuid::parse(uuid), ..Sight::failed(&agents::Error::WrongPassword) };
            identity(&order, shared, &Sight { read_at: Instant::now(), label: None, ..sight })
        };
        assert_eq!([told(false, OURS), told(true, OURS)], [Identity::Same, Identity::Unsaid]);
        assert_eq!([told(false, THEIRS), told(true, THEIRS)], [Identity::Other; 2]);
    }
}

//! One look at a device, and whose machine it is.

use std::sync::Arc;
use std::time::Duration;

use agents::{Access, SystemUuid};
use k8s_openapi::api::core::v1::Node;

use tokio::time::Instant;

use super::{Device, Observer, Said};
use crate::api::{Driver, Order};
use crate::decide::{Identity, Reading};
use crate::devices::{self, Asking, Boot};
use crate::isolate::{Isolator, Sight, State};

/// How long one look may take: a BMC under load answers in 1 to 3 s; later than this is no answer.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// How long one look through a script may take: it starts an interpreter, and may log in by telnet at human speed.
pub(super) const LOOK_SCRIPT: Duration = Duration::from_secs(15);

/// A device, and who asks.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The remediation's UID.
    pub uid: &'a str,
    /// The device's order.
    pub order: &'a Order,
    /// How it is reached.
    pub access: &'a Access,
    /// What order and access were resolved from.
    pub inputs: &'a str,
}

impl Observer {
    /// Looks, if it `looks`; the device is built whether it does or not.
    pub(super) async fn look(
        &self,
        subject: Subject<'_>,
        node: Option<&Node>,
        looks: bool,
    ) -> (Option<Arc<dyn Isolator>>, Option<Sight>) {
        let Subject { uid, order, access, inputs } = subject;
        let build = || self.workshop.build(devices::device(order, access));
        match self.memories.device(uid, order, inputs, build) {
            Err(error) => (None, Some(Sight::failed(&error))),
            Ok(device) if looks => {
                let by = self.clock.deadline(match order.driver {
                    Driver::Native | Driver::Person => LOOK,
                    Driver::Script => LOOK_SCRIPT,
                });
                // The device keeps its own deadline; this one holds whatever it does.
                let sight = self.devices.urgent(order, by, device.look(by)).await;
                let sight = sight.unwrap_or_else(|| Sight::failed(&agents::Error::Deadline { doing: "looking" }));
                let asking = Asking { order, account: self.devices.account(access), asker: uid, inputs };
                self.devices.saw(&asking, node.and_then(boot), &sight);
                (Some(device), Some(sight))
            }
            Ok(device) => (Some(device), None),
        }
    }
}

/// What the devices of a level, or a person, come to.
pub(super) struct Seeing {
    pub reading: Reading,
    pub partly: bool,
    pub nobody: bool,
    pub identity: Identity,
    /// As old as the oldest of them.
    pub read_at: Option<Instant>,
}

impl Seeing {
    /// Each of the devices must be off, and must be the node's.
    pub(super) fn of(devices: &[Device], shared: bool) -> Self {
        let sights: Vec<_> = devices.iter().filter_map(|d| Some((&d.order, d.sight.as_ref()?))).collect();
        // Whoever was not asked has not answered.
        let complete = sights.len() == devices.len() && !devices.is_empty();
        let readings: Vec<_> = sights.iter().map(|(_, sight)| Reading::from(*sight)).collect();
        let (reading, partly) = match complete {
            true => Reading::of_all(&readings),
            false => (Reading::Unknown, false),
        };
        let identities: Vec<_> = sights.iter().map(|(order, sight)| identity(order, shared, sight)).collect();
        Self {
            reading,
            partly,
            nobody: sights.iter().any(|(_, sight)| sight.label == Some("BMCUnreachable")),
            identity: Identity::of_all(&identities),
            read_at: sights.iter().map(|(_, sight)| sight.read_at).min(),
        }
    }

    pub(super) fn of_a_person(said: &Said, read_at: Instant) -> Self {
        let (sight, identity) = said.sight(read_at);
        Self { reading: Reading::from(&sight), partly: false, nobody: false, identity, read_at: Some(read_at) }
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

//! The devices of a template: which there are for each node, and what their checks come to together. Pure.

use super::check::Checked;
use crate::api::FenceAgentsRemediationSpec;

/// Where a device stands in a spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// From 1.
    pub level: usize,
    /// Which of the level's agents, from 0.
    pub at: usize,
    /// It is the level's only one.
    alone: bool,
}

impl Place {
    /// Tells whether it is the spec's own agent. Only that one tells of power losses: it is the machine's BMC in most cases,
    /// and asked often.
    pub(super) fn is_first(self) -> bool {
        self.level == 1
    }

    fn prefixed(self, message: &str) -> String {
        match (self.is_first(), self.alone) {
            (true, _) => message.to_owned(),
            (false, true) => format!("level {}: {message}", self.level),
            (false, false) => format!("level {}: agent {}: {message}", self.level, self.at + 1),
        }
    }
}

/// Returns the places of all devices, in the order of their levels.
pub(super) fn places(spec: &FenceAgentsRemediationSpec) -> Vec<Place> {
    let later = (2..).zip(&spec.levels).flat_map(|(level, of)| {
        let alone = of.agents.len() == 1;
        (0..of.agents.len()).map(move |at| Place { level, at, alone })
    });
    std::iter::once(Place { level: 1, at: 0, alone: true }).chain(later).collect()
}

/// Returns what is known of a node whose devices are these, in the order of their levels: it is ready when all are. `None` if
/// one was not asked yet, unless another has failed.
///
/// Power, UUID and times are the first device's: an outlet says nothing of the machine.
pub(super) fn together<'a>(devices: impl Iterator<Item = (Place, Option<&'a Checked>)>) -> Option<Checked> {
    let (mut first, mut open) = (None, false);
    let mut failed: Option<(Place, &Checked)> = None;
    for (place, checked) in devices {
        match checked {
            None => open = true,
            Some(checked) => {
                first = first.or(place.is_first().then_some(checked));
                failed = failed.or((!checked.ready).then_some((place, checked)));
            }
        }
    }
    let Some((place, failed)) = failed else { return first.filter(|_| !open).cloned() };
    let said = failed.message.as_deref().unwrap_or(failed.reason);
    let told = Checked::failed(failed.reason, place.prefixed(said), failed.may_pass);
    let facts = first.cloned().unwrap_or_else(|| told.clone());
    Some(Checked { ready: false, reason: told.reason, message: told.message, may_pass: told.may_pass, ..facts })
}

#[cfg(test)]
mod tests {
    use agents::PowerState;
    use serde_json::json;

    use super::*;

    fn ready(power: PowerState) -> Checked {
        Checked { ready: true, reason: "Ready", message: None, power: Some(power), ..failed("Ready") }
    }

    fn failed(reason: &'static str) -> Checked {
        Checked::failed(reason, format!("it is {reason}"), false)
    }

    /// A BMC, two feeds, one more outlet, and a person.
    fn devices() -> Vec<Place> {
        let agent = json!({"agent": "fence_apc"});
        let levels =
            json!([{"agents": [agent, agent]}, {"agents": [agent]}, {"agents": [{"agent": "fence_meatware"}]}]);
        places(&serde_json::from_value(json!({"agent": "fence_redfish", "levels": levels})).expect("a spec"))
    }

    fn told(all: [Option<Checked>; 5]) -> Option<Checked> {
        together(devices().into_iter().zip(all.iter().map(Option::as_ref)))
    }

    #[test]
    fn all_devices_have_a_place_in_order() {
        let all: Vec<_> = devices().iter().map(|place| (place.level, place.at, place.alone)).collect();
        assert_eq!(all, [(1, 0, true), (2, 0, false), (2, 1, false), (3, 0, true), (4, 0, true)]);
        assert!(devices().is_sorted());
    }

    #[test]
    fn a_node_is_ready_when_all_are() {
        let on = || Some(ready(PowerState::On));
        let off = || Some(ready(PowerState::Off));
        let all = told([on(), off(), off(), off(), off()]).expect("all were asked");
        assert_eq!((all.ready, all.power), (true, Some(PowerState::On)), "the power is the machine's");
        for open in 0..5 {
            let mut devices = [on(), on(), on(), on(), on()];
            devices[open] = None;
            assert_eq!(told(devices), None, "one was not asked");
        }
    }

    #[test]
    fn the_first_failure_is_told_with_its_place() {
        let on = || Some(ready(PowerState::On));
        let bad = |reason| Some(failed(reason));
        let words = |all| told(all).map(|c| (c.ready, c.reason, c.message.unwrap_or_default(), c.power));
        let power = Some(PowerState::On);
        for (all, reason, message, power) in [
            ([bad("A"), bad("B"), on(), on(), on()], "A", "it is A", None),
            ([on(), on(), bad("B"), bad("C"), on()], "B", "level 2: agent 2: it is B", power.clone()),
            ([on(), on(), on(), bad("C"), on()], "C", "level 3: it is C", power),
            ([None, on(), on(), bad("C"), None], "C", "level 3: it is C", None),
        ] {
            assert_eq!(words(all), Some((false, reason, message.to_owned(), power)));
        }
    }
}

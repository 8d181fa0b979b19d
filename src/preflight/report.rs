//! What a template's status says, and which events are told of it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use agents::PowerState;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::check::Checked;
use super::sample::{Sample, VALIDATION};
use crate::api::{FenceAgentsRemediationTemplate, FenceAgentsRemediationTemplateStatus as Status, TemplateNode};
use crate::events::Kind;

/// The condition that says whether all nodes could be fenced.
const READINESS: &str = "Ready";
/// Nodes in a status, at most: with messages of some hundred bytes, half of what etcd takes.
const MAX_NODES: usize = 1000;
/// Events told of nodes at once; a Secret that goes may be that of a thousand.
const MAX_EVENTS: usize = 20;
/// Nodes that a condition names.
const MAX_NAMED: usize = 3;
/// With nothing new, times are written this rarely: a kubelet, too, posts an unchanged status every 5 minutes. The status
/// of a thousand nodes is 200 KiB; once in 30 s it would be most of what a quiet cluster writes to etcd.
const TIMES: Duration = Duration::from_mins(5);

/// An event about a template.
pub(super) type Saying = (Kind, String, String);

/// What is known of a template's nodes, in the order of names; `None`: not asked yet.
pub(super) type Known<'a> = BTreeMap<&'a String, Option<Checked>>;

/// What there is to write, if there is anything, and what to tell.
pub(super) fn report(
    template: &FenceAgentsRemediationTemplate,
    known: &Known<'_>,
    now: Timestamp,
) -> Option<(Status, Vec<Saying>)> {
    let before = template.status.clone().unwrap_or_default();
    let generation = template.metadata.generation;
    let mut status = before.clone();
    status.nodes = nodes(template, known);
    status.total = count(known.len());
    status.ready = count(known.values().flatten().filter(|checked| checked.ready).count());
    status.failed = count(known.values().flatten().filter(|checked| !checked.ready).count());
    status.last_check = known.values().flatten().filter_map(|checked| checked.asked).map(|(at, _)| Time(at)).max();
    let mut conditions = vec![readiness(known)];

    let sample = Sample::of(template.spec.status_validation_sample.as_ref(), known.len());
    let validation = sample.judge(known.iter().map(|(name, checked)| (*name, checked.as_ref())));
    (status.validation_failed, status.validation_passed) = (BTreeMap::new(), BTreeMap::new());
    if let Some(found) = validation {
        (status.validation_failed, status.validation_passed) = (found.failed, found.passed);
        conditions.push((VALIDATION, found.status, found.reason, found.message));
    }
    let mut sayings = transitions(&before, &status.nodes);
    sayings.extend(about_sample(&sample, &before, generation));
    // Others' conditions stay as they are.
    status.conditions.retain(|condition| ![READINESS, VALIDATION].contains(&condition.type_.as_str()));
    let ours = conditions.into_iter().map(|(type_, state, reason, message)| {
        let old = before.conditions.iter().find(|old| old.type_ == type_ && old.status == state);
        let last_transition_time = old.map_or(Time(now), |old| old.last_transition_time.clone());
        let (type_, status, reason) = (type_.to_owned(), state.to_owned(), reason.to_owned());
        Condition { type_, status, reason, message, last_transition_time, observed_generation: generation }
    });
    status.conditions.extend(ours);
    let is_old = |at: &Time| now.duration_since(at.0).unsigned_abs() >= TIMES;
    let due = before.last_check != status.last_check && before.last_check.as_ref().is_none_or(is_old);
    (due || timeless(&before) != timeless(&status)).then_some((status, sayings))
}

/// Those that could not be fenced before the others, then by name.
fn nodes(template: &FenceAgentsRemediationTemplate, known: &Known<'_>) -> Vec<TemplateNode> {
    let (mut failed, ready): (Vec<_>, Vec<_>) = known
        .iter()
        .filter_map(|(name, checked)| Some(node(template, name, checked.as_ref()?)))
        .partition(|node| !node.ready);
    failed.extend(ready);
    failed.truncate(MAX_NODES);
    failed
}

fn node(template: &FenceAgentsRemediationTemplate, name: &str, checked: &Checked) -> TemplateNode {
    let power = checked.power.as_ref().map(|power| match power {
        PowerState::On => "On".to_owned(),
        PowerState::Off => "Off".to_owned(),
        PowerState::Other(said) => said.clone(),
    });
    TemplateNode {
        name: name.to_owned(),
        ready: checked.ready,
        reason: checked.reason.to_owned(),
        message: checked.message.clone(),
        agent: template.spec.template.spec.agent.clone(),
        driver: checked.driver,
        power,
        system_uuid: checked.system_uuid.clone(),
        checked_at: checked.asked.map(|(at, _)| Time(at)),
        latency: checked.asked.map(|(_, took)| format!("{}ms", took.as_millis())),
    }
}

fn readiness(known: &Known<'_>) -> (&'static str, &'static str, &'static str, String) {
    let total = known.len();
    let failed: Vec<_> = known
        .iter()
        .filter_map(|(name, checked)| Some((name, checked.as_ref().filter(|checked| !checked.ready)?)))
        .collect();
    let open = known.values().filter(|checked| checked.is_none()).count();
    let (status, reason, message) = match (total, failed.len(), open) {
        (0, _, _) => ("Unknown", "NoNodes", "there is no node that this template is for".to_owned()),
        (_, 0, 0) => ("True", "AllNodesReady", format!("all {total} nodes could be fenced")),
        (_, 0, open) => ("Unknown", "Checking", format!("{open} of {total} nodes were not asked yet")),
        (_, many, _) => {
            let named = failed.iter().take(MAX_NAMED).map(|(name, checked)| format!("{name} ({})", checked.reason));
            let named = named.collect::<Vec<_>>().join(", ");
            let more = match many.saturating_sub(MAX_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            ("False", "NodesNotReady", format!("{many} of {total} nodes could not be fenced: {named}{more}"))
        }
    };
    (READINESS, status, reason, message)
}

/// What has changed, node by node; also over a restart, for it is told from the status.
fn transitions(before: &Status, nodes: &[TemplateNode]) -> Vec<Saying> {
    let old: BTreeMap<_, _> = before.nodes.iter().map(|node| (node.name.as_str(), node)).collect();
    let changed = nodes.iter().filter_map(|node| {
        let old = old.get(node.name.as_str());
        match (old.map(|old| (old.ready, old.reason.as_str())), node.ready) {
            (None | Some((true, _)), true) => None,
            (Some((false, _)), true) => {
                Some((Kind::Normal, "NodeReady".to_owned(), format!("{} could be fenced again", node.name)))
            }
            (Some((false, reason)), false) if reason == node.reason => None,
            (None | Some(_), false) => {
                let why = node.message.as_deref().unwrap_or(&node.reason);
                Some((Kind::Warning, node.reason.clone(), format!("{} could not be fenced: {why}", node.name)))
            }
        }
    });
    let mut told: Vec<_> = changed.collect();
    let more = told.len().saturating_sub(MAX_EVENTS);
    if more > 0 {
        told.truncate(MAX_EVENTS);
        told.push((Kind::Warning, "NodesChanged".to_owned(), format!("and {more} more nodes: see status.nodes")));
    }
    told
}

fn about_sample(sample: &Sample, before: &Status, generation: Option<i64>) -> Option<Saying> {
    let told = before.conditions.iter().any(|c| c.type_ == VALIDATION && c.observed_generation == generation);
    match sample {
        _ if told => None,
        Sample::None | Sample::First { wanted: None, .. } => None,
        Sample::First { count, wanted: Some(wanted) } => Some((
            Kind::Warning,
            "StatusValidationSampleExceedsNodes".to_owned(),
            format!(
                "StatusValidationSample value exceeds number of nodes, capped to total nodes: requested {wanted}, capped to {count} nodes"
            ),
        )),
        Sample::Invalid(_) => {
            let note = "Invalid value for StatusValidationSample".to_owned();
            Some((Kind::Warning, "InvalidStatusValidationSample".to_owned(), note))
        }
    }
}

/// A status without what changes with each check.
fn timeless(status: &Status) -> Status {
    let mut status = status.clone();
    status.last_check = None;
    for node in &mut status.nodes {
        (node.checked_at, node.latency) = (None, None);
    }
    status
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(sample: serde_json::Value) -> FenceAgentsRemediationTemplate {
        serde_json::from_value(json!({
            "apiVersion": "fence-agents-remediation.medik8s.io/v1alpha1", "kind": "FenceAgentsRemediationTemplate",
            "metadata": {"name": "t", "generation": 3},
            "spec": {"statusValidationSample": sample, "template": {"spec": {"agent": "fence_redfish"}}},
        }))
        .expect("a template")
    }

    fn on(second: i64) -> Checked {
        let asked = Some((at(second), Duration::from_millis(7)));
        let power = Some(PowerState::On);
        Checked { ready: true, reason: "Ready", message: None, power, asked, ..failed() }
    }

    fn failed() -> Checked {
        Checked::failed("SecretNotFound", "secret 'x' not found in namespace 'y'".into(), false)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// Reports, and takes the status over as if it had been written.
    fn told(
        template: &mut FenceAgentsRemediationTemplate,
        all: &[Option<Checked>],
        second: i64,
    ) -> Option<Vec<Saying>> {
        let names: Vec<_> = (1..=all.len()).map(|number| format!("n-{number:02}")).collect();
        let known = names.iter().zip(all.iter().cloned()).collect();
        let (status, sayings) = report(template, &known, at(second))?;
        template.status = Some(status);
        Some(sayings)
    }

    fn condition(template: &FenceAgentsRemediationTemplate, type_: &str) -> Option<(String, String, String)> {
        let all = template.status.as_ref()?.conditions.iter();
        all.clone().find(|c| c.type_ == type_).map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
    }

    #[test]
    fn it_is_written_when_something_changes_and_else_rarely() {
        let mut template = template(json!(null));
        assert_eq!(told(&mut template, &[None, None], 0), Some(vec![]));
        assert_eq!(condition(&template, READINESS).map(|c| c.0).as_deref(), Some("Unknown"));
        assert_eq!(told(&mut template, &[Some(on(1)), Some(on(1))], 1), Some(vec![]), "no event for what is well");
        assert_eq!(condition(&template, READINESS).map(|c| c.1).as_deref(), Some("AllNodesReady"));
        for second in [2, 30, 60, 299] {
            assert_eq!(told(&mut template, &[Some(on(second)), Some(on(second))], second), None, "after {second} s");
        }
        assert_eq!(told(&mut template, &[Some(on(301)), Some(on(301))], 301), Some(vec![]));
        let off = Checked { power: Some(PowerState::Off), ..on(302) };
        assert_eq!(told(&mut template, &[Some(off), Some(on(302))], 302), Some(vec![]), "power matters");
    }

    #[test]
    fn an_event_tells_of_a_change_only() {
        let mut template = template(json!(null));
        let kinds = |sayings: Option<Vec<Saying>>| -> Vec<(Kind, String)> {
            sayings.into_iter().flatten().map(|(kind, reason, _)| (kind, reason)).collect()
        };
        told(&mut template, &[Some(on(1)), Some(on(1))], 1);
        let bad = || Some(failed());
        assert_eq!(kinds(told(&mut template, &[Some(on(1)), bad()], 2)), [(Kind::Warning, "SecretNotFound".into())]);
        let (status, reason, message) = condition(&template, READINESS).expect("a condition");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "NodesNotReady"));
        assert_eq!(message, "1 of 2 nodes could not be fenced: n-02 (SecretNotFound)");
        assert_eq!(
            template.status.as_ref().map(|s| s.nodes[0].name.as_str()),
            Some("n-02"),
            "what is wrong comes first"
        );
        assert_eq!(told(&mut template, &[Some(on(1)), bad()], 3), None);
        let other = Checked { reason: "BMCTimeout", ..failed() };
        assert_eq!(kinds(told(&mut template, &[Some(on(1)), Some(other)], 4)), [(Kind::Warning, "BMCTimeout".into())]);
        assert_eq!(kinds(told(&mut template, &[Some(on(1)), Some(on(5))], 5)), [(Kind::Normal, "NodeReady".into())]);
    }

    #[test]
    fn a_thousand_nodes_make_no_thousand_events() {
        let mut template = template(json!(null));
        let sayings = told(&mut template, &vec![Some(failed()); 1500], 1).expect("news");
        assert_eq!(sayings.len(), MAX_EVENTS + 1);
        let status = template.status.expect("a status");
        assert_eq!((status.nodes.len(), status.total, status.failed), (MAX_NODES, 1500, 1500));
    }

    #[test]
    fn a_sample_is_told_by_fars_condition() {
        let mut template = template(json!(5));
        let sayings = told(&mut template, &[Some(on(1)), Some(on(1))], 1).expect("news");
        assert_eq!(sayings.iter().map(|s| s.1.as_str()).collect::<Vec<_>>(), ["StatusValidationSampleExceedsNodes"]);
        assert_eq!(condition(&template, VALIDATION).map(|c| c.0).as_deref(), Some("True"));
        assert_eq!(told(&mut template, &[Some(on(2)), Some(on(2))], 2), None, "told once");
        template.spec.status_validation_sample = None;
        told(&mut template, &[Some(on(3)), Some(on(3))], 3).expect("it is taken back");
        let status = template.status.as_ref().expect("a status");
        assert!(status.validation_passed.is_empty() && condition(&template, VALIDATION).is_none());
    }

    #[test]
    fn conditions_of_others_stay() {
        let mut template = template(json!(null));
        let theirs: Condition = serde_json::from_value(json!({
            "type": "Theirs", "status": "True", "reason": "R", "message": "", "lastTransitionTime": at(0).to_string(),
        }))
        .expect("a condition");
        template.status = Some(Status { conditions: vec![theirs], ..Status::default() });
        told(&mut template, &[Some(on(1))], 1);
        assert!(condition(&template, "Theirs").is_some());
        assert_eq!(told(&mut template, &[Some(on(1))], 2), None);
    }
}

//! The story of a remediation, in order of time, from everybody who saw a part of it.

use std::fmt::Write;

use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;

use crate::oracle::What;
use crate::stage::{Fenced, Stage};
use crate::workloads::node_of;

/// One line of the story.
struct Event {
    at: Timestamp,
    who: &'static str,
    what: String,
}

/// Tells what happened, with times relative to the creation of the remediation.
pub(super) fn tell(stage: &Stage<'_>, fenced: &Fenced) -> String {
    let mut events = by_the_world(fenced);
    events.extend(by_the_machines(stage, fenced));
    events.extend(by_the_operator(fenced));
    events.extend(by_the_api(stage, fenced));
    events.sort_by_key(|event| event.at);
    let mut story = String::new();
    for Event { at, who, what } in events {
        let time = at.duration_since(fenced.created).as_secs_f64();
        let _ = writeln!(story, "{time:>+7.2} s  {who:<9} {what}"); // writing to a String can't fail
    }
    let _ = writeln!(story, "\n{}", in_short(stage, fenced));
    story
}

fn by_the_world(fenced: &Fenced) -> Vec<Event> {
    let records = fenced.hung.records;
    let moved = format!("{} runs on {}", name(fenced), node_of(&fenced.replacement));
    [
        (
            fenced.hung.at,
            "machine",
            format!("node-2 hangs: silent to the cluster, but {} goes on writing", name(fenced)),
        ),
        (fenced.created, "you", format!("create a FenceAgentsRemediation; {records} records written since the hang")),
        (fenced.running, "cluster", format!("{moved}: the replacement is Running")),
        (fenced.back, "cluster", "node-2 is Ready again, after a new boot".to_owned()),
    ]
    .map(|(at, who, what)| Event { at, who, what })
    .into()
}

fn by_the_machines(stage: &Stage<'_>, fenced: &Fenced) -> Vec<Event> {
    let history = stage.victim().history();
    let mut events: Vec<_> = history
        .into_iter()
        .filter(|change| change.at > fenced.hung.at)
        .map(|change| {
            let what = if change.on { "node-2 gets power, and boots" } else { "node-2 loses power" };
            Event { at: change.at, who: "machine", what: format!("{what} (by {})", change.by) }
        })
        .collect();
    if let Some(life) = stage.lives_of(&fenced.hung.pod).first() {
        let what = format!("the old {} has written its last, on node-2: record {}", name(fenced), life.beats);
        events.push(Event { at: life.last, who: "volume", what });
    }
    if let Some(life) = stage.lives_of(&fenced.replacement).first() {
        let what = format!("the new {} writes its first, on {}", name(fenced), life.process.machine);
        events.push(Event { at: life.first, who: "volume", what });
    }
    events
}

fn by_the_operator(fenced: &Fenced) -> Vec<Event> {
    let entries = fenced.status["timeline"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut events: Vec<_> = entries
        .iter()
        .filter_map(|entry| {
            let what = format!("{}: {}", text(&entry["phase"]), text(&entry["message"]));
            Some(Event { at: time(&entry["at"])?, who: "operator", what })
        })
        .collect();
    let proof = &fenced.status["proof"];
    if let Some(at) = time(&proof["lastSeenOff"]) {
        let [kind, source, binding] = ["kind", "source", "binding"].map(|field| text(&proof[field]));
        let what = format!("the proof ({kind}): read Off from {source}; the right machine by its {binding}");
        events.push(Event { at, who: "operator", what });
    }
    events
}

fn by_the_api(stage: &Stage<'_>, fenced: &Fenced) -> Vec<Event> {
    let releases = stage.oracle().releases().into_iter().filter(|release| release.at > fenced.hung.at);
    releases
        .map(|release| {
            let what = match release.what {
                What::PodGone { name, node, .. } => format!("the old pod {name} on {node} is gone"),
                What::Barred { node, taint } => format!("{node} is barred: taint {taint}"),
                What::NodeGone { node } => format!("the Node {node} is gone"),
                What::Detached { node, volume } => format!("volume {volume} is detached from {node}"),
            };
            Event { at: release.at, who: "cluster", what }
        })
        .collect()
}

fn in_short(stage: &Stage<'_>, fenced: &Fenced) -> String {
    let after = |at: Timestamp| format!("{:.2} s", at.duration_since(fenced.created).as_secs_f64());
    let history = stage.victim().history();
    let off = history.iter().find(|change| change.at > fenced.hung.at && !change.on).map(|change| change.at);
    let (old, new) = (stage.lives_of(&fenced.hung.pod), stage.lives_of(&fenced.replacement));
    let gap = old.last().zip(new.first()).map(|(old, new)| new.first.duration_since(old.last).as_secs_f64());
    format!(
        "From the remediation to the replacement: {} (power off after {}). \
         Between the old writer's last record and the new one's first: {:.2} s.",
        after(fenced.running),
        off.map_or("never".to_owned(), after),
        gap.unwrap_or(f64::NAN),
    )
}

fn name(fenced: &Fenced) -> String {
    fenced.hung.pod.name_any()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

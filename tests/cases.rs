//! Golden cases: the policy by example, in `cases/*.yaml`.
//!
//! Each case is a patch over `cases/base.yaml` (a hung node, its machine on, its BMC well) and the step that `decide`
//! takes. `10s ago`, `now` and `10s ahead` are moments, `10s` and `500ms` lengths of time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use ringfence::decide::{Binding, Case, Effect, FIRST, Level, Now, Off, Phase, Proof, Rest, Step, Time, decide};
use serde::Deserialize;
use serde_yaml_ng::{Mapping, Value};

const NOW: Time = 10_000_000;
/// Every rule of DESIGN.md section 1.
const RULES: &str = "A1 A2 A3 I1 I2 I3 P1 P2 P3 P4 R1 R2 R3 R4 R5 R6 S1 S2 S3 S4 L1 L2 L3 L4 L5 L6 Live";
/// Kept outside of `decide`, and tested on a real control plane: nothing is kept in memory only.
const ELSEWHERE: &[&str] = &["L4"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    name: String,
    rules: Vec<String>,
    case: Mapping,
    step: String,
}

#[test]
fn every_case_is_decided_as_written() {
    let base: Value = read(&cases().join("base.yaml"));
    let (mut names, mut wrong) = (BTreeSet::new(), vec![]);
    for (file, golden) in all() {
        assert!(names.insert(golden.name.clone()), "{file}: two cases named {:?}", golden.name);
        let mut value = base.clone();
        patch(&mut value, Value::Mapping(golden.case));
        moments(&mut value);
        let case: Case = serde_yaml_ng::from_value(value).unwrap_or_else(|e| panic!("{file}: {}: {e}", golden.name));
        let step = said(&decide(&case, Now { wall: NOW, mono: NOW }));
        if step != golden.step {
            wrong.push(format!("{file}: {}\n  written: {}\n  decided: {step}", golden.name, golden.step));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_has_a_case_or_a_mutant() {
    let known: BTreeSet<&str> = RULES.split(' ').collect();
    let mut shown: BTreeSet<String> = ELSEWHERE.iter().map(|r| r.to_string()).collect();
    for (file, golden) in all() {
        for rule in golden.rules {
            assert!(known.contains(rule.as_str()), "{file}: {}: no such rule: {rule}", golden.name);
            shown.insert(rule);
        }
    }
    let mutants = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model/mutants");
    for file in fs::read_dir(mutants).expect("the mutants are there") {
        let text = fs::read_to_string(file.expect("a listed file").path()).expect("readable");
        let broken = known.iter().filter(|r| text.contains(&format!("(\"{r}\", \"")));
        shown.extend(broken.map(|r| r.to_string()));
    }
    let missing: Vec<_> = known.iter().filter(|r| !shown.contains(**r)).collect();
    assert!(missing.is_empty(), "neither a case nor a mutant for {missing:?}");
}

fn cases() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn all() -> Vec<(String, Golden)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(cases()).expect("the cases are there") {
        let path = entry.expect("a listed file").path();
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        if name != "base" {
            let golden: Vec<Golden> = read(&path);
            files.insert(name, golden);
        }
    }
    files.into_iter().flat_map(|(name, golden)| golden.into_iter().map(move |g| (name.clone(), g))).collect()
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> T {
    let text = fs::read_to_string(path).expect("readable");
    serde_yaml_ng::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Mappings are merged, everything else is replaced.
fn patch(base: &mut Value, with: Value) {
    match (base, with) {
        (Value::Mapping(base), Value::Mapping(with)) => {
            for (key, value) in with {
                assert!(base.contains_key(&key), "no such field: {key:?}");
                patch(base.get_mut(&key).expect("just seen"), value);
            }
        }
        (base, with) => *base = with,
    }
}

/// Turns `now`, `10s ago`, `10s ahead`, `10s`, `500ms` into milliseconds.
fn moments(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(time) = moment(text) {
                *value = Value::Number(time.into());
            }
        }
        Value::Sequence(values) => values.iter_mut().for_each(moments),
        Value::Mapping(fields) => fields.iter_mut().for_each(|(_, v)| moments(v)),
        Value::Tagged(tagged) => moments(&mut tagged.value),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn moment(text: &str) -> Option<Time> {
    if text == "now" {
        return Some(NOW);
    }
    if let Some(past) = text.strip_suffix(" ago") {
        return Some(NOW - length(past)?);
    }
    match text.strip_suffix(" ahead") {
        Some(future) => Some(NOW + length(future)?),
        None => length(text),
    }
}

fn length(text: &str) -> Option<Time> {
    match text.strip_suffix("ms") {
        Some(millis) => millis.parse().ok(),
        None => Some(text.strip_suffix('s')?.parse::<Time>().ok()? * 1000),
    }
}

fn said(step: &Step) -> String {
    match step {
        Step::Enter(phase) => format!("enter {}", phase_said(*phase)),
        Step::Do(effect) => effect_said(effect),
        Step::Send { power, answered, silent } if answered == silent => {
            format!("send {power:?}, then {}", phase_said(*answered))
        }
        Step::Send { power, answered, silent } => {
            format!("send {power:?}, then {}; without an answer {}", phase_said(*answered), phase_said(*silent))
        }
        Step::Wait(pause) => format!("wait {}ms", pause.as_millis()),
        Step::Finished => "finished".to_string(),
    }
}

fn effect_said(effect: &Effect) -> String {
    let by = |proof: &Proof| match proof.binding() {
        Binding::Identity => "proven by identity",
        Binding::Witness => "proven by witness",
        Binding::Person => "proven by a person",
    };
    match effect {
        Effect::Claim => "claim".to_string(),
        Effect::Admit => "admit".to_string(),
        Effect::Judge => "judge".to_string(),
        Effect::Bar(proof) => format!("bar, {}", by(proof)),
        Effect::Delete(proof) => format!("delete, {}", by(proof)),
        Effect::Detach(proof) => format!("detach, {}", by(proof)),
        Effect::Retract => "retract".to_string(),
        Effect::Seal => "seal".to_string(),
        Effect::HandOver => "hand over".to_string(),
        Effect::Unclaim => "unclaim".to_string(),
    }
}

fn phase_said(phase: Phase) -> String {
    match phase {
        Phase::Accepted => "Accepted".to_string(),
        Phase::Isolating { level, attempt, seen_on } => {
            format!("Isolating, {}attempt {attempt}, {}", at(level), seen(seen_on))
        }
        Phase::Proving { attempt, off } => format!("Proving, attempt {attempt}, {}", off_said(off)),
        Phase::Releasing { attempt, off, since } => {
            format!("Releasing, attempt {attempt}, {}, since {}", off_said(off), ago(since))
        }
        Phase::Restoring { level, attempt, off, on, then } => {
            let on = on.map_or("no on yet".to_string(), |on| format!("on {}", ago(on)));
            format!("Restoring, {}attempt {attempt}, no off after {}, {on}, then {then:?}", at(level), ago(off))
        }
        Phase::Done { rest } => format!("Done, {}", rest_said(rest)),
        Phase::Halted { why, off, rest } => {
            let off = off.map_or("nothing to finish".to_string(), off_said);
            format!("Halted, {why:?}, {off}, {}", rest_said(rest))
        }
    }
}

fn off_said(off: Off) -> String {
    let answered = if off.answered { "answered" } else { "unanswered" };
    format!("{}off {} {answered}, {}", at(off.level), ago(off.at), seen(off.seen_on))
}

/// The first level goes without saying.
fn at(level: Level) -> String {
    if level == FIRST { String::new() } else { format!("level {level}, ") }
}

fn seen(on: bool) -> &'static str {
    if on { "seen on" } else { "never seen on" }
}

fn rest_said(rest: Rest) -> String {
    let quiet = match rest.quiet {
        None => "not stamped".to_string(),
        Some(0) => "nothing was sent".to_string(),
        Some(quiet) => format!("quiet since {}", ago(quiet)),
    };
    if rest.yielded { format!("{quiet}, promised") } else { quiet }
}

fn ago(time: Time) -> String {
    match NOW - time {
        0 => "now".to_string(),
        millis if millis % 1000 == 0 => format!("{}s ago", millis / 1000),
        millis => format!("{millis}ms ago"),
    }
}

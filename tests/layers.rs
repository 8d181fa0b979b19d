//! Who may import whom, checked from the sources.
//!
//! The order of the table is the order of dependence: pure things first. A row that has to grow is a design decision,
//! to be made in `docs/architecture.md` first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What a module may use of its siblings (a whole module, or single items of it), and the crates it must not use.
struct Layer {
    module: &'static str,
    may: &'static [&'static str],
    not: &'static [&'static str],
}

/// Whoever can reach a network, a device or an API server.
const WORLD: &[&str] = &["kube", "k8s_openapi", "tokio", "agents", "reqwest", "std::fs", "std::net", "std::process"];
/// Whoever can reach an API server.
const CLUSTER: &[&str] = &["kube", "k8s_openapi"];
const DEVICES: &[&str] = &["agents", "reqwest", "std::process"];

const LAYERS: &[Layer] = &[
    // The policy knows nothing, so that it can be explored.
    Layer { module: "decide", may: &[], not: WORLD },
    Layer { module: "api", may: &[], not: &["tokio", "agents", "reqwest", "std::fs", "std::net"] },
    Layer { module: "status", may: &["api", "clock", "decide"], not: &["kube", "tokio", "agents", "reqwest"] },
    // An isolator serves any remediator: it has never heard of a remediation.
    Layer { module: "isolate", may: &["decide::Reading", "decide::Identity"], not: CLUSTER },
    // Counts remediations, and makes no choice between them.
    Layer {
        module: "breaker",
        may: &["api", "cluster", "decide::Millis", "decide::Phase", "decide::Time", "status"],
        not: DEVICES,
    },
    // Judges what people say; of the world it knows what it is told.
    Layer { module: "confirm", may: &["api", "clock", "cluster", "decide::Millis", "decide::Time"], not: DEVICES },
    Layer { module: "resolve", may: &["api", "clock", "cluster"], not: &["reqwest", "std::process"] },
    Layer { module: "machine", may: &["api", "cluster", "resolve::is_object_name"], not: DEVICES },
    // Takes a proof, and can't look for itself.
    Layer { module: "release", may: &["clock", "cluster", "decide::Proof", "marks"], not: DEVICES },
    // Knows what devices said, and of no remediation.
    Layer {
        module: "devices",
        may: &["api::Driver", "api::Order", "isolate::Device", "isolate::Sight", "isolate::State"],
        not: CLUSTER,
    },
    Layer {
        module: "observe",
        may: &[
            "api", "breaker", "clock", "cluster", "confirm", "decide", "devices", "isolate", "machine", "marks",
            "resolve", "status",
        ],
        not: &["reqwest", "std::process"],
    },
    // Only watches: no isolator to command, no event to publish, no release.
    Layer {
        module: "shadow",
        may: &[
            "api",
            "clock",
            "cluster",
            "resolve",
            "observe::self",
            "observe::Error",
            "observe::Observer",
            "observe::Peek",
            "observe::Preview",
            "isolate::Scripts",
            "isolate::Sight",
            "isolate::State",
            "decide::Identity",
            "decide::Millis",
            "decide::Policy",
        ],
        not: &["agents", "reqwest", "std::fs", "std::net", "std::process"],
    },
    // Asks, and can neither decide, command nor release.
    Layer {
        module: "preflight",
        may: &["api", "clock", "cluster", "devices", "events", "isolate", "resolve"],
        not: &["reqwest", "std::process"],
    },
    // Makes no choices: of observing it knows what was seen, not how to look; of deciding, the types.
    Layer {
        module: "act",
        may: &[
            "api",
            "breaker",
            "clock",
            "cluster",
            "confirm",
            "devices::Devices",
            "events",
            "isolate",
            "machine",
            "marks",
            "release",
            "status",
            "story",
            "resolve::self",
            "resolve::Action",
            "resolve::Resolved",
            "resolve::is_object_name",
            "observe::BY_HAND",
            "observe::Device",
            "observe::Memories",
            "observe::OFF",
            "observe::Scene",
            "decide::Effect",
            "decide::FIRST",
            "decide::Identity",
            "decide::Level",
            "decide::Millis",
            "decide::Now",
            "decide::Phase",
            "decide::Power",
            "decide::Rest",
            "decide::Step",
            "decide::Time",
            "decide::Why",
            "decide::Word",
        ],
        not: &["reqwest", "std::process"],
    },
];

#[test]
fn every_module_keeps_to_its_layer() {
    let sources = sources("src");
    let mut wrong = vec![];
    for layer in LAYERS {
        let files: Vec<_> = sources.iter().filter(|(path, _)| module(path) == layer.module).collect();
        assert!(!files.is_empty(), "no module {}: has it moved?", layer.module);
        for (path, text) in files {
            for import in siblings(text) {
                let name = import.split("::").next().unwrap_or_default();
                let known = name == layer.module || layer.may.iter().any(|may| *may == name || *may == import);
                if !known {
                    wrong.push(format!("{}: {} must not use {import}", path.display(), layer.module));
                }
            }
            for name in layer.not.iter().filter(|name| mentions(text, name)) {
                wrong.push(format!("{}: {} must not use {name}", path.display(), layer.module));
            }
            // From here `super` would be the crate, past this test.
            if is_root(path) && text.replace("super::*", "").contains("super::") {
                wrong.push(format!("{}: write crate::", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn members_keep_to_theirs() {
    let mut wrong = vec![];
    for (folder, not) in [("agents/src", &["kube", "k8s_openapi", "ringfence"][..]), ("testbed/src", &["ringfence"])] {
        for (path, text) in sources(folder) {
            wrong.extend(not.iter().filter(|n| mentions(&text, n)).map(|n| format!("{}: no {n}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_read_as_the_compiler_does() {
    let text =
        "use crate::decide::{Case, proof::{Proof, Doubt}};\nuse crate::{marks, status::Told as T};\ncrate::api::X;";
    let found: Vec<_> = siblings(text).into_iter().collect();
    assert_eq!(found, ["api::X", "decide::Case", "decide::proof", "marks", "status::Told"]);
    assert!(mentions("let x = kube::Client;", "kube"));
    assert!(!mentions("let x = my_kube::Client;", "kube") && !mentions("crate::kube::Client", "kube"));
}

/// Every source file below a folder of the workspace, without its comments.
fn sources(folder: &str) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("a listed file").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("readable");
                let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
                found.insert(path, code.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    found
}

/// `src/observe/set.rs` and `src/observe.rs` are both of `observe`.
fn module(path: &Path) -> String {
    let inner = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("below src");
    inner.iter().next().unwrap_or_default().to_string_lossy().trim_end_matches(".rs").to_string()
}

/// Whether this file is the root of a module of the crate.
fn is_root(path: &Path) -> bool {
    let inner = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("below src");
    inner.components().count() == 1 || inner.components().count() == 2 && inner.ends_with("mod.rs")
}

/// What is named as `crate::…`: the first two parts of each path.
fn siblings(text: &str) -> BTreeSet<String> {
    let rest = text.split("crate::").skip(1);
    rest.flat_map(|rest| tree(rest, "")).collect()
}

/// The paths of a use tree, down to the second part.
fn tree(text: &str, above: &str) -> Vec<String> {
    let text = text.trim_start();
    if let Some(list) = text.strip_prefix('{') {
        return branches(list).into_iter().flat_map(|branch| tree(branch, above)).collect();
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    match (above, rest.strip_prefix("::")) {
        ("", Some(rest)) => tree(rest, name),
        ("", None) => vec![name.to_string()],
        (above, _) => vec![format!("{above}::{name}")],
    }
}

/// The parts of `a, b::{c, d}, e}…`, up to its closing brace.
fn branches(list: &str) -> Vec<&str> {
    let (mut found, mut depth, mut from) = (vec![], 0, 0);
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(&list[from..i]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&list[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    found.into_iter().filter(|branch| !branch.trim().is_empty()).collect()
}

/// Whether a path begins with this crate (or `std` module).
fn mentions(text: &str, name: &str) -> bool {
    let path = format!("{name}::");
    text.match_indices(&path).any(|(i, _)| {
        let before = text[..i].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
    })
}

//! What `docs/far.md` says of FAR's contract is true of the sources: every test that it names is there, every case of FAR's and
//! every one of its weaknesses has its row; and the permissions are those that it claims.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

#[test]
fn every_test_that_the_page_names_is_there() {
    let named = named();
    assert!(named.len() > 60, "only {} tests are named", named.len());
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, name)| {
            let text = fs::read_to_string(root(file)).unwrap_or_default();
            !is_test(&text, name)
        })
        .collect();
    assert!(missing.is_empty(), "docs/far.md names tests that are not there: {missing:?}");
}

/// And the other way round: whoever adds a test of FAR's cases says so on the page.
#[test]
fn every_test_of_fars_cases_is_on_the_page() {
    let page: BTreeSet<String> = named().into_iter().map(|(_, name)| name).collect();
    let mut files = vec!["src/resolve/tests/far.rs".to_owned(), "tests/far.rs".to_owned()];
    let e2e = fs::read_dir(root("tests/controller")).expect("the folder is there");
    files.extend(e2e.map(|entry| format!("tests/controller/{}", entry.expect("a file").file_name().to_string_lossy())));
    let mut missing = vec![];
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let text = fs::read_to_string(root(file)).expect("readable");
        let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
        let ours = names.filter(|name| {
            let number = name.strip_prefix('w').and_then(|rest| rest.split('_').next());
            let weakness = number.is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()));
            (name.starts_with("far_6_") || weakness) && is_test(&text, name)
        });
        missing.extend(ours.filter(|name| !page.contains(*name)).map(|name| format!("{file}::{name}")));
    }
    assert!(missing.is_empty(), "not in docs/far.md: {missing:?}");
}

#[test]
fn every_weakness_has_a_row() {
    let page = page();
    for number in 1..=24 {
        let row = page.lines().find(|line| line.starts_with(&format!("| W{number} |")));
        let row = row.unwrap_or_else(|| panic!("docs/far.md has no row for W{number}"));
        let test = row.contains(".rs::");
        let reason = row.contains("can't occur") || row.contains("open:");
        assert!(test || reason, "neither a test nor a reason: {row}");
    }
}

/// FAR read every Secret of the cluster into its memory; here they are read by name, in one namespace.
#[test]
fn w11_secrets_are_got_by_name_in_one_namespace() {
    let text = fs::read_to_string(root("deploy/rbac.yaml")).expect("readable");
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(|d| Value::deserialize(d).expect("YAML"));
    let mut found = vec![];
    for document in documents {
        for rule in document["rules"].as_array().into_iter().flatten() {
            let any = |field: &str, what: &str| rule[field].as_array().is_some_and(|all| all.contains(&json!(what)));
            assert!(!any("resources", "*") && !any("verbs", "*") && !any("apiGroups", "*"), "a wildcard: {rule}");
            if any("resources", "secrets") {
                found.push((document["kind"].clone(), rule["verbs"].clone()));
            }
        }
    }
    assert_eq!(found, [(json!("Role"), json!(["get"]))]);
}

/// Every `file.rs::name` of the page.
fn named() -> BTreeSet<(String, String)> {
    let page = page();
    let quoted = page.split('`').skip(1).step_by(2);
    let tests = quoted.filter_map(|text| text.split_once(".rs::"));
    tests.map(|(file, name)| (format!("{file}.rs"), name.to_owned())).collect()
}

fn is_test(text: &str, name: &str) -> bool {
    let definition = format!("fn {name}(");
    let Some(at) = text.find(&definition) else { return false };
    let before = text[..at].rsplit("\n\n").next().unwrap_or_default();
    before.contains("#[test]") || before.contains("#[tokio::test")
}

fn page() -> String {
    fs::read_to_string(root("docs/far.md")).expect("docs/far.md")
}

fn root(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

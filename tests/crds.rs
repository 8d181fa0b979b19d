//! The resource definitions: what is checked in is what the code says, and objects in FAR's shape can be read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};
use ringfence::api::{self, FenceAgentsRemediation, FenceAgentsRemediationTemplate, RemediationStrategy};
use serde_json::{Value, json};

#[test]
fn checked_in_definitions_are_the_generated_ones() {
    let generated: BTreeMap<String, String> = api::crd_files().into_iter().collect();
    let checked_in: BTreeMap<String, String> = yaml_files("crds").into_iter().collect();
    assert_eq!(
        generated.keys().collect::<Vec<_>>(),
        checked_in.keys().collect::<Vec<_>>(),
        "crds/ holds other files than the code generates: run `make crds`"
    );
    for (name, text) in generated {
        assert!(checked_in[&name] == text, "crds/{name} is stale: run `make crds`");
    }
}

#[test]
fn kustomize_installs_every_definition() {
    let text = fs::read_to_string(path("crds/Kustomization")).expect("crds/Kustomization");
    let kustomization: Value = serde_yaml_ng::from_str(&text).expect("YAML");
    let names: Vec<String> = api::crd_files().into_iter().map(|(name, _)| name).collect();
    assert_eq!(kustomization["resources"], json!(names));
}

#[test]
fn names_are_fars() {
    let cases = [
        ("FenceAgentsRemediation", "fenceagentsremediations", "far"),
        ("FenceAgentsRemediationTemplate", "fenceagentsremediationtemplates", "fartemplate"),
    ];
    for (crd, (kind, plural, short)) in api::crds().iter().zip(cases) {
        assert_eq!(crd.spec.group, "fence-agents-remediation.medik8s.io");
        assert_eq!(crd.metadata.name.as_deref(), Some(format!("{plural}.{}", crd.spec.group).as_str()));
        assert_eq!(crd.spec.names.kind, kind);
        assert_eq!(crd.spec.names.plural, plural);
        assert_eq!(crd.spec.names.singular.as_deref(), Some(kind.to_lowercase().as_str()));
        assert_eq!(crd.spec.names.short_names.as_deref(), Some(&[short.to_owned()][..]));
        assert_eq!(crd.spec.scope, "Namespaced");
        let [version] = crd.spec.versions.as_slice() else { panic!("one version") };
        assert_eq!((version.name.as_str(), version.served, version.storage), ("v1alpha1", true, true));
        assert!(version.subresources.as_ref().is_some_and(|all| all.status.is_some()));
    }
}

#[test]
fn the_schema_is_fars() {
    let far = root(&api::crds()[0]);
    let spec = property(&far, "spec");
    assert_eq!(spec.required.as_deref(), Some(&["agent".to_owned()][..]), "only the agent must be named");

    let duration = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$";
    let cases = [
        ("agent", "string", None, Some(r"^fence_[0-9A-Za-z._-]+$")),
        ("retrycount", "integer", Some(json!(5)), None),
        ("retryinterval", "string", Some(json!("5s")), Some(duration)),
        ("timeout", "string", Some(json!("60s")), Some(duration)),
        ("sharedparameters", "object", None, None),
        ("nodeparameters", "object", None, None),
        ("remediationStrategy", "string", Some(json!("ResourceDeletion")), None),
        ("nodeSecretNames", "object", None, None),
        ("sharedSecretName", "string", None, None),
        ("driver", "string", Some(json!("Auto")), None),
        ("releaseTimeout", "string", Some(json!("60s")), Some(duration)),
    ];
    for (name, kind, default, pattern) in cases {
        let field = property(&spec, name);
        assert_eq!(field.type_.as_deref(), Some(kind), "{name}");
        assert_eq!(field.default.as_ref().map(|value| value.0.clone()), default, "{name}");
        assert_eq!(field.pattern.as_deref(), pattern, "{name}");
        assert_eq!(field.format, None, "{name}: a format refuses what FAR accepts");
        assert_ne!(field.nullable, Some(true), "{name}: FAR's null is pruned, not kept");
    }
    assert_eq!(property(&spec, "retrycount").minimum, Some(1.0));
    let strategies = property(&spec, "remediationStrategy").enum_.expect("an enumeration");
    let strategies: Vec<Value> = strategies.into_iter().map(|value| value.0).collect();
    assert_eq!(strategies, [json!("ResourceDeletion"), json!("OutOfServiceTaint")]);
}

#[test]
fn the_template_carries_the_same_specification() {
    let [far, template] = [root(&api::crds()[0]), root(&api::crds()[1])];
    let spec = property(&template, "spec");
    assert_eq!(spec.required.as_deref(), Some(&["template".to_owned()][..]));
    let inner = property(&spec, "template");
    assert_eq!(inner.required.as_deref(), Some(&["spec".to_owned()][..]));
    let (of_template, of_far) = (property(&inner, "spec"), property(&far, "spec"));
    assert_eq!(of_template.properties, of_far.properties);
    assert_eq!(of_template.required, of_far.required);

    let sample = property(&spec, "statusValidationSample");
    assert_eq!(sample.x_kubernetes_int_or_string, Some(true));
    assert_eq!(sample.nullable, None);
    let [rule] = sample.x_kubernetes_validations.as_deref().expect("a rule") else { panic!("one rule") };
    assert_eq!(rule.message.as_deref(), Some("Value must be an integer >=0, or string between 0% and 100%"));
}

#[test]
fn a_confirmation_is_bounded_and_never_changed() {
    let crd = &api::crds()[2];
    assert_eq!(crd.metadata.name.as_deref(), Some("remediationconfirmations.ringfence.dev"));
    assert_eq!((crd.spec.names.kind.as_str(), crd.spec.scope.as_str()), ("RemediationConfirmation", "Namespaced"));
    let columns = crd.spec.versions[0].additional_printer_columns.as_deref().unwrap_or_default();
    let names: Vec<_> = columns.iter().filter(|column| column.priority.is_none()).map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["NODE", "DECISION", "BY", "VERDICT", "REASON", "AGE"]);
    let [spec, status] = ["spec", "status"].map(|name| property(&root(crd), name));
    let rules = |of: &JSONSchemaProps| -> Vec<_> {
        of.x_kubernetes_validations.iter().flatten().map(|rule| rule.rule.clone()).collect()
    };
    assert!(rules(&spec).contains(&"self == oldSelf".to_owned()), "{:?}", rules(&spec));
    assert_eq!(rules(&status), ["!has(oldSelf.verdict) || self == oldSelf"]);
    for (name, field) in spec.properties.iter().flatten() {
        let bounded = field.max_length.is_some() || field.pattern.is_some() || field.enum_.is_some();
        assert!(bounded && field.nullable != Some(true), "{name}");
    }
    let required: Vec<_> = spec.required.iter().flatten().map(String::as_str).collect();
    assert_eq!(required, ["by", "decision", "nodeName", "nodeUID", "request"]);
}

/// Structural schemas and server-side apply need these; the API server refuses the definition otherwise.
#[test]
fn conditions_are_a_map_by_type() {
    for crd in &api::crds()[..2] {
        let conditions = property(&property(&root(crd), "status"), "conditions");
        assert_eq!(conditions.x_kubernetes_list_type.as_deref(), Some("map"));
        assert_eq!(conditions.x_kubernetes_list_map_keys.as_deref(), Some(&["type".to_owned()][..]));
    }
}

#[test]
fn objects_in_fars_shape_can_be_read_and_lose_nothing() {
    let samples = yaml_files("tests/samples");
    assert!(!samples.is_empty());
    for (name, text) in samples {
        let given: Value = serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let read = match given["kind"].as_str() {
            Some("FenceAgentsRemediation") => {
                let far: FenceAgentsRemediation =
                    serde_json::from_value(given.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
                serde_json::to_value(far)
            }
            Some("FenceAgentsRemediationTemplate") => {
                let template: FenceAgentsRemediationTemplate =
                    serde_json::from_value(given.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
                serde_json::to_value(template)
            }
            other => panic!("{name}: unexpected kind {other:?}"),
        };
        assert_contains(&read.expect("plain data"), &given, &name);
    }
}

/// A field that is added to the schema must be added to the samples that have all of them. (A certificate is trusted in one
/// of two ways: the other is in `template-redfish.yaml`.)
#[test]
fn the_full_samples_leave_no_field_out() {
    let far = property(&root(&api::crds()[0]), "spec");
    for (name, pointer) in [("remediation-full.yaml", "/spec"), ("template-full.yaml", "/spec/template/spec")] {
        let text = fs::read_to_string(path("tests/samples").join(name)).expect("the sample");
        let sample: Value = serde_yaml_ng::from_str(&text).expect("YAML");
        let spec = sample.pointer(pointer).and_then(Value::as_object).expect("a spec");
        let fields: Vec<_> = far.properties.iter().flatten().map(|(field, _)| field).collect();
        assert_eq!(spec.keys().collect::<std::collections::BTreeSet<_>>(), fields.into_iter().collect(), "{name}");
    }
}

#[test]
fn the_sample_template_says_what_it_says() {
    let text = fs::read_to_string(path("tests/samples/template-ipmilan.yaml")).expect("the sample");
    let template: FenceAgentsRemediationTemplate = serde_yaml_ng::from_str(&text).expect("readable");
    let spec = template.spec.template.spec;
    assert_eq!(spec.agent, "fence_ipmilan");
    assert_eq!(spec.remediation_strategy, RemediationStrategy::OutOfServiceTaint);
    assert_eq!(spec.node_parameters.0["--ipport"]["worker-0"], "6233");
    assert_eq!(spec.shared_secret_name.as_deref(), Some("fence-agents-credentials-shared"));
}

/// Everything in `part` is in `whole`, with the same value.
fn assert_contains(whole: &Value, part: &Value, at: &str) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, value) in part {
                let found = whole.get(key).unwrap_or_else(|| panic!("{at}: {key} is lost"));
                assert_contains(found, value, &format!("{at}: {key}"));
            }
        }
        _ => assert_eq!(whole, part, "{at}"),
    }
}

fn root(crd: &CustomResourceDefinition) -> JSONSchemaProps {
    let schema = crd.spec.versions[0].schema.as_ref().expect("a schema");
    schema.open_api_v3_schema.clone().expect("a schema")
}

fn property(of: &JSONSchemaProps, name: &str) -> JSONSchemaProps {
    of.properties.as_ref().and_then(|all| all.get(name)).unwrap_or_else(|| panic!("no property {name}")).clone()
}

fn yaml_files(folder: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(path(folder))
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "yaml"))
        .map(|file| {
            let name = file.file_name().expect("a file").to_string_lossy().into_owned();
            (name, fs::read_to_string(&file).expect("a readable file"))
        })
        .collect();
    files.sort();
    files
}

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

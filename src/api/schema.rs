//! Schemas that the derive cannot produce: types of k8s-openapi, whose own `schemars` feature costs 42 s of release
//! build, and rules that FAR's definitions carry.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::{Schema, SchemaGenerator, json_schema};

/// A Go duration, exactly as FAR's definitions have it: no sign, and the `µ` of U+00B5 only.
pub(super) const GO_DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$";

/// A fence agent: a file's name, and no path. FAR's own pattern is not anchored; what else it lets through is no agent.
pub(super) const AGENT: &str = r"^fence_[0-9A-Za-z._-]+$";

/// A SHA-256 as openssl writes it: hexadecimal, with or without colons, or base64.
pub(super) const PIN: &str = r"^(([0-9A-Fa-f]{2}:?){32}|[0-9A-Za-z+/]{43}=)$";

/// Half a SHA-256's hexadecimal digits: 64 bits tell requests apart, and can be read out over a telephone.
pub(super) const REQUEST_ID: &str = r"^[0-9a-f]{16}$";

/// More parameters than any agent has: 44 at most in Debian's, older names included. Without bounds no rule would be allowed.
const PARAMETERS: u32 = 80;

/// The longest argument that Linux hands to a program (MAX_ARG_STRLEN); with FAR each parameter is one.
const ARGUMENT: u32 = 131_072;

/// The same where there may be 64 such maps: each character counts for the cost of the rules.
const LEVEL_ARGUMENT: u32 = 1024;

/// Shared parameters: templates, whose actions must be closed, and only the actions that fence.
///
/// The rules stand at the values that they are about: then the API server does not apply them to what an update leaves as
/// it is, and never blocks a finalizer for the sake of an old object.
pub(super) fn shared_parameters(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": PARAMETERS,
        "additionalProperties": template(ARGUMENT),
        "x-kubernetes-validations": [{
            "rule": "['--action', 'action'].all(k, !(k in self) || self[k] in ['', 'reboot', 'off'] || self[k].contains('{{'))",
            "message": ACTION
        }]
    })
}

/// Shared parameters of a device of a level: templates, too, and no action.
pub(super) fn level_shared_parameters(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": PARAMETERS,
        "additionalProperties": template(LEVEL_ARGUMENT),
        "x-kubernetes-validations": [no_action()]
    })
}

/// Node parameters of a device of a level: no action.
pub(super) fn level_node_parameters(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": PARAMETERS,
        "additionalProperties": {"type": "object", "additionalProperties": {"type": "string"}},
        "x-kubernetes-validations": [no_action()]
    })
}

/// A person is asked only where no other device is left to be asked.
pub(super) fn a_person_alone() -> serde_json::Value {
    serde_json::json!([{
        "rule": "self.agents.size() < 2 || self.agents.all(a, a.agent != 'fence_meatware')",
        "message": "fence_meatware must be the only agent of its level"
    }])
}

fn template(longest: u32) -> serde_json::Value {
    serde_json::json!({
        "type": "string",
        "maxLength": longest,
        "x-kubernetes-validations": [{
            "rule": "self.lastIndexOf('}}') >= self.lastIndexOf('{{')",
            "message": "invalid NodeTemplate syntax in shared parameter: failed to parse template: unclosed action"
        }]
    })
}

fn no_action() -> serde_json::Value {
    serde_json::json!({
        "rule": "!('--action' in self) && !('action' in self)",
        "message": "the action is that of the spec's own agent; a level has none"
    })
}

/// Node parameters: only the actions that fence.
pub(super) fn node_parameters(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": PARAMETERS,
        "additionalProperties": {"type": "object", "additionalProperties": {"type": "string"}},
        // Two rules: each is weighed by itself, and one for both would be too heavy.
        "x-kubernetes-validations": [
            {
                "rule": "!('--action' in self) || self['--action'].all(n, self['--action'][n] in ['', 'reboot', 'off'])",
                "message": ACTION
            },
            {
                "rule": "!('action' in self) || self['action'].all(n, self['action'][n] in ['', 'reboot', 'off'])",
                "message": ACTION
            }
        ]
    })
}

/// Of the two ways to trust a certificate, one.
pub(super) fn one_trust() -> serde_json::Value {
    serde_json::json!([{
        "rule": "!has(self.caSecretName) || !has(self.pinnedSHA256) || size(self.pinnedSHA256) == 0",
        "message": "caSecretName and pinnedSHA256 exclude each other"
    }])
}

/// A person's word is given once: what was judged, or is about to be, must not become another.
pub(super) fn confirmation() -> serde_json::Value {
    serde_json::json!([
        {"rule": "self == oldSelf", "message": "a confirmation is never changed: create another one"},
        {"rule": "self.decision == 'Deny' || has(self.statement)", "message": "to approve, say why the node can't write: statement"}
    ])
}

/// A verdict is given once, too.
pub(super) fn verdict() -> serde_json::Value {
    serde_json::json!([{"rule": "!has(oldSelf.verdict) || self == oldSelf", "message": "a verdict is never changed"}])
}

/// FAR's words.
const ACTION: &str = "FAR doesn't support any other action than `reboot` or `off`";

/// An optional string that is not nullable: the API server then prunes an explicit null, as it does for FAR's.
pub(super) fn string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string"})
}

/// The same, for an identifier.
pub(super) fn short_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 128})
}

/// The same, for a few sentences.
pub(super) fn comment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 1024})
}

/// An optional Go duration, not nullable either.
pub(super) fn go_duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": GO_DURATION})
}

/// An integer of any width, as Go's `int` becomes: a `format` would refuse what FAR accepts.
pub(super) fn retry_count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1})
}

/// FAR's `statusValidationSample`: a number of nodes or a percentage of them. (`anyOf` integer and string, which FAR
/// has beside it, is implied by int-or-string; kube's rewriter would empty it.)
pub(super) fn status_validation_sample(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "x-kubernetes-validations": [{
            "rule": "type(self) == int && self >= 0 || type(self) == string && self.matches('^([0-9]|[1-9][0-9]|100)%$')",
            "message": "Value must be an integer >=0, or string between 0% and 100%"
        }]
    })
}

/// A point in time; both `Time` and `MicroTime`.
pub(super) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// The standard list of conditions, merged by type. Bounds and patterns are those of `metav1.Condition`.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "type": "string",
                    "maxLength": 316,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
                },
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
                },
                "message": {"type": "string", "maxLength": 32768}
            }
        }
    })
}

/// Takes back what kube's rewriter makes of an optional int-or-string: FAR's is not nullable. (`"nullable": false` in
/// the schema would do, but the API server drops it, and every `apply` would find a difference.)
pub(super) fn without_nullable_sample(mut template: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut template.spec.versions {
        let root = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let spec = root.and_then(|root| root.properties.as_mut()?.get_mut("spec"));
        let sample = spec.and_then(|spec| spec.properties.as_mut()?.get_mut("statusValidationSample"));
        sample.expect("the template's schema has this field").nullable = None;
    }
    template
}

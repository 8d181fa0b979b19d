//! Where a remediation stands, as its own status says it: Ringfence's phases, or what FAR's conditions show of them.

use std::fmt;

use serde_json::Value;

/// A phase of a remediation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Phase {
    Accepted,
    Isolating,
    Proving,
    Releasing,
    Restoring,
    Done,
    Halted,
}

impl Phase {
    pub(super) const ALL: [Self; 7] =
        [Self::Accepted, Self::Isolating, Self::Proving, Self::Releasing, Self::Restoring, Self::Done, Self::Halted];

    /// Reads it from a remediation.
    pub(super) fn of(far: &Value) -> Self {
        if let Some(name) = far["status"]["phase"].as_str() {
            return Self::ALL.into_iter().find(|phase| phase.to_string() == name).unwrap_or(Self::Accepted);
        }
        let is = |kind: &str, status: &str| condition(far, kind)["status"] == status;
        match () {
            () if is("Succeeded", "True") => Self::Done,
            () if is("Succeeded", "False") => Self::Halted,
            () if is("FenceAgentActionSucceeded", "True") => Self::Releasing,
            () if is("Processing", "True") => Self::Isolating,
            () => Self::Accepted,
        }
    }

    /// Nothing more is to come by itself.
    pub(super) fn is_rest(self) -> bool {
        matches!(self, Self::Done | Self::Halted)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A condition of a remediation; null if there is none.
pub(super) fn condition<'a>(far: &'a Value, kind: &str) -> &'a Value {
    let mut all = far["status"]["conditions"].as_array().into_iter().flatten();
    all.find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fars_conditions_show_what_they_can() {
        let of = |all: &[(&str, &str)]| {
            let all: Vec<_> = all.iter().map(|(kind, status)| json!({"type": kind, "status": status})).collect();
            Phase::of(&json!({"status": {"conditions": all}}))
        };
        assert_eq!(of(&[]), Phase::Accepted);
        assert_eq!(of(&[("Processing", "True"), ("Succeeded", "Unknown")]), Phase::Isolating);
        assert_eq!(of(&[("Processing", "True"), ("FenceAgentActionSucceeded", "True")]), Phase::Releasing);
        assert_eq!(of(&[("Processing", "False"), ("Succeeded", "True")]), Phase::Done);
        assert_eq!(of(&[("Processing", "False"), ("Succeeded", "False")]), Phase::Halted);
        assert_eq!(Phase::of(&json!({"status": {"phase": "Proving"}})), Phase::Proving);
    }
}

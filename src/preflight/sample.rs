//! FAR's `statusValidationSample`: the first so many of a template's nodes, whose devices must say On. Its words are FAR's.

use std::collections::BTreeMap;

use agents::PowerState;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::check::Checked;
use crate::api::Driver;

/// FAR's condition.
pub(super) const VALIDATION: &str = "FenceAgentStatusValidationSucceeded";

/// How many nodes a sample is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sample {
    /// None was asked for.
    None,
    /// The first so many in the order of names; `wanted` if more were asked for than there are.
    First { count: usize, wanted: Option<String> },
    /// It can't be read; the schema refuses such a value.
    Invalid(String),
}

/// What the sample has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validation {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
    pub failed: BTreeMap<String, String>,
    pub passed: BTreeMap<String, String>,
}

impl Sample {
    /// Reads a sample of `total` nodes. A percentage rounds up.
    pub(super) fn of(value: Option<&IntOrString>, total: usize) -> Self {
        let wanted = match value {
            None => return Self::None,
            Some(IntOrString::Int(wanted)) => usize::try_from(*wanted).map_err(|_| wanted.to_string()),
            Some(IntOrString::String(text)) => {
                let percent = text.strip_suffix('%').and_then(|number| number.parse::<usize>().ok());
                let percent = percent.filter(|percent| *percent <= 100).ok_or_else(|| text.clone());
                percent.map(|percent| (total * percent).div_ceil(100))
            }
        };
        match wanted {
            Err(text) => Self::Invalid(text),
            Ok(0) => Self::None,
            Ok(wanted) if wanted > total => Self::First { count: total, wanted: Some(wanted.to_string()) },
            Ok(count) => Self::First { count, wanted: None },
        }
    }

    /// Judges the sample's nodes, given all of the template's in the order of names.
    pub(super) fn judge<'a>(
        &self,
        nodes: impl Iterator<Item = (&'a String, Option<&'a Checked>)>,
    ) -> Option<Validation> {
        let told = |status, reason, message| Validation {
            status,
            reason,
            message,
            failed: BTreeMap::new(),
            passed: BTreeMap::new(),
        };
        let count = match self {
            Self::None => return None,
            Self::Invalid(text) => {
                let message = format!("parameters validation failed: invalid value of StatusValidationSample: {text}");
                return Some(told("False", "ValidationFailed", message));
            }
            Self::First { count, .. } => *count,
        };
        let (mut failed, mut passed, mut open) = (BTreeMap::new(), BTreeMap::new(), 0_usize);
        for (name, checked) in nodes.take(count) {
            match checked.map(fault) {
                None => open += 1,
                Some(None) => drop(passed.insert(name.clone(), "Success".to_owned())),
                Some(Some(fault)) => drop(failed.insert(name.clone(), fault)),
            }
        }
        let validation = match (open, failed.len()) {
            (1.., _) => told("Unknown", "ValidationInProgress", format!("validating parameters for {count} node(s)")),
            (0, 0) => told("True", "ValidationSucceeded", "parameters validation succeeded".to_owned()),
            (0, many) => told("False", "ValidationFailed", format!("parameters validation failed for {many} node(s)")),
        };
        Some(Validation { failed, passed, ..validation })
    }
}

/// Why a node does not pass. A machine that is off can't have been seen to be the right one, says FAR; ours says which.
fn fault(checked: &Checked) -> Option<String> {
    let said = checked.message.as_deref().unwrap_or(checked.reason);
    match (&checked.power, checked.ready) {
        // A person can't be asked how the machine is, and is needed for nothing else.
        (None, true) if checked.driver == Some(Driver::Person) => None,
        (Some(PowerState::On), true) => None,
        (Some(PowerState::Off), true) => {
            Some("fence agent command completed but status is not ON (it says Off)".to_owned())
        }
        (Some(PowerState::Other(other)), true) => {
            Some(format!("fence agent command completed but status is not ON (it says {other})"))
        }
        (_, _) if matches!(checked.reason, "BMCTimeout" | "AgentTimeout") => {
            Some(format!("status command timed out: {said}"))
        }
        (_, _) => Some(format!("fence agent command failed: {said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(value: &str, total: usize) -> Sample {
        let value = value.parse().map_or_else(|_| IntOrString::String(value.to_owned()), IntOrString::Int);
        Sample::of(Some(&value), total)
    }

    #[test]
    fn a_sample_is_a_number_or_a_share() {
        let first = |count| Sample::First { count, wanted: None };
        assert_eq!(Sample::of(None, 3), Sample::None);
        for nothing in ["0", "0%"] {
            assert_eq!(sample(nothing, 3), Sample::None);
        }
        for (value, total, count) in [
            ("1", 3, 1),
            ("3", 3, 3),
            ("66%", 3, 2),
            ("67%", 3, 3),
            ("1%", 3, 1),
            ("100%", 3, 3),
            ("34%", 3, 2),
            ("5%", 20, 1),
        ] {
            assert_eq!(sample(value, total), first(count), "{value} of {total}");
        }
        assert_eq!(sample("105", 3), Sample::First { count: 3, wanted: Some("105".into()) });
        for odd in ["-1", "x", "101%", "-5%", "%", "50"] {
            let told = sample(odd, 3);
            assert!(odd == "50" || matches!(told, Sample::Invalid(_)), "{odd}: {told:?}");
        }
        assert_eq!(Sample::of(Some(&IntOrString::String("10".into())), 3), Sample::Invalid("10".into()));
    }

    fn on() -> Checked {
        Checked {
            ready: true,
            reason: "Ready",
            power: Some(PowerState::On),
            ..Checked::failed("", String::new(), false)
        }
    }

    fn judged(sample: &str, all: [Option<Checked>; 3]) -> Option<Validation> {
        let names = ["n-1".to_owned(), "n-2".to_owned(), "n-3".to_owned()];
        let sample = self::sample(sample, 3);
        sample.judge(names.iter().zip(&all).map(|(name, checked)| (name, checked.as_ref())))
    }

    /// FAR says "timed out" of all of these.
    #[test]
    fn each_failure_says_what_it_is() {
        let off = Checked { power: Some(PowerState::Off), ..on() };
        let slow =
            Checked::failed("BMCTimeout", "the BMC did not answer in time while reading the system".into(), true);
        let found = judged("100%", [Some(on()), Some(off), Some(slow)]).expect("a sample");
        assert_eq!((found.status, found.reason), ("False", "ValidationFailed"));
        assert_eq!(found.message, "parameters validation failed for 2 node(s)");
        assert_eq!(found.passed, BTreeMap::from([("n-1".into(), "Success".into())]));
        assert!(found.failed["n-2"].contains("status is not ON") && !found.failed["n-2"].contains("timed out"));
        assert!(found.failed["n-3"].contains("timed out"));
    }

    #[test]
    fn the_first_in_the_order_of_names_count() {
        let bad = || Some(Checked::failed("SecretNotFound", "secret 'x' not found".into(), false));
        let one = judged("1", [Some(on()), bad(), None]).expect("a sample");
        assert_eq!(
            (one.status, one.reason, one.message.as_str()),
            ("True", "ValidationSucceeded", "parameters validation succeeded")
        );
        let two = judged("66%", [Some(on()), bad(), None]).expect("a sample");
        assert_eq!(two.failed.keys().collect::<Vec<_>>(), ["n-2"]);
        let all = judged("3", [Some(on()), bad(), None]).expect("a sample");
        assert_eq!(
            (all.status, all.reason, all.message.as_str()),
            ("Unknown", "ValidationInProgress", "validating parameters for 3 node(s)")
        );
        assert_eq!(judged("0", [None, None, None]), None);
        let odd = judged("200%", [None, None, None]).expect("a word");
        assert_eq!((odd.status, odd.reason), ("False", "ValidationFailed"));
        assert!(odd.message.ends_with("invalid value of StatusValidationSample: 200%"));
    }
}

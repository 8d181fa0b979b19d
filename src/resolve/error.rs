//! Why a remediation makes no order. Where FAR has a text for the same cause, it is kept: people search for it.

use std::error::Error as _;
use std::sync::Arc;

use super::template::TemplateError;

/// Why a remediation makes no order.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No such agent.
    #[error("unsupported fence agent: {agent} (not one of {}, and no such script in {at})", native.join(", "))]
    UnknownAgent {
        /// The agent, as the spec names it.
        agent: String,
        /// The agents that we have clients of our own for.
        native: &'static [&'static str],
        /// Where scripts were looked for.
        at: String,
    },
    /// `driver: Native` was asked for, and there is none.
    #[error("there is no native driver for {agent}, only for {}; use driver: Auto or Script", native.join(", "))]
    NoNativeDriver {
        /// The agent.
        agent: String,
        /// The agents that have one.
        native: &'static [&'static str],
    },
    /// The agent does not switch power.
    #[error("{agent} is no power agent, it can't prove a machine off: {why}")]
    NoPowerAgent {
        /// The agent.
        agent: String,
        /// What tells.
        why: String,
    },
    /// The agent's script can't be used.
    #[error(transparent)]
    Agent(agents::Error),
    /// The remediation names no node.
    #[error("nodeName cannot be empty")]
    NoNodeName,
    /// An action that does not fence, or not provably.
    #[error("FAR doesn't support any other action than `reboot` or `off`")]
    UnsupportedAction,
    /// One parameter from two places that may not override each other.
    #[error("invalid multiple definition of FAR parameter, parameter name: {parameter}")]
    Duplicate {
        /// The parameter, as written.
        parameter: String,
    },
    /// Parameters that the agent can't do without.
    #[error("invalid spec: mandatory parameters are missing: {}", parameters.join(", "))]
    Missing {
        /// All of them.
        parameters: Vec<String>,
    },
    /// A parameter is given per node, but not for this one: with FAR, another machine was powered off then.
    #[error("node parameter {parameter} has no value for node {node}")]
    MissingForNode {
        /// The parameter, as written.
        parameter: String,
        /// The node.
        node: String,
    },
    /// Nothing that chooses the machine differs between nodes: any node's remediation would hit the same one.
    #[error(
        "invalid spec: mandatory parameters are missing: nothing in them tells node {node} from others; \
         give --ip, --ipport or --systems-uri in nodeparameters, nodeSecretNames or by {{{{.NodeName}}}}"
    )]
    NothingForNode {
        /// The node.
        node: String,
    },
    /// A parameter that the agent does not have.
    #[error("unknown parameter {parameter} of {agent}; known are {}", known.join(", "))]
    Unknown {
        /// The parameter, as written.
        parameter: String,
        /// The agent.
        agent: String,
        /// The parameters that there are.
        known: Vec<String>,
    },
    /// A parameter that is never obeyed.
    #[error("parameter {parameter} is refused: {reason}")]
    Refused {
        /// The parameter, as written.
        parameter: String,
        /// Why.
        reason: &'static str,
    },
    /// A value that does not fit. It is not shown: it may be a secret.
    #[error("parameter {parameter} must be {want}")]
    Invalid {
        /// The parameter or field, as written.
        parameter: String,
        /// What it must be.
        want: &'static str,
    },
    /// Address, port and Redfish URI make no URL.
    #[error("the parameters give no address: {detail}")]
    Address {
        /// Why; without the value if that came from a Secret.
        detail: String,
    },
    /// Two settings that contradict each other.
    #[error("{one} and {other} exclude each other")]
    Conflict {
        /// One setting.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// Two agents of one level that switch the same: what else the machine is fed by would not be switched.
    #[error("two agents of one level are the same device: {agent} at {address}{}", plug.as_ref().map(|plug| format!(" ({plug})")).unwrap_or_default())]
    SameDevice {
        /// The agent.
        agent: String,
        /// Where the device is.
        address: String,
        /// Which outlet of it, where it has several.
        plug: Option<String>,
    },
    /// Templates that are none, or use more of the language than is known.
    #[error("{}", templates(bad))]
    Template {
        /// All of them: the parameter, or the Secret and its key, and what is wrong with it.
        bad: Vec<(String, TemplateError)>,
    },
    /// A Secret that is named but not there.
    #[error("secret '{name}' not found in namespace '{namespace}'")]
    SecretNotFound {
        /// The Secret's name.
        name: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// A Secret without what is needed, or with what can't be used.
    #[error("secret '{name}': key {key} {problem}")]
    SecretInvalid {
        /// The Secret's name.
        name: String,
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The operator may not read the Secret.
    #[error(
        "failed to get secret '{name}' in namespace '{namespace}': forbidden; \
         remediations, templates and their Secrets belong in the operator's namespace"
    )]
    SecretForbidden {
        /// The Secret's name.
        name: String,
        /// Its namespace.
        namespace: String,
    },
    /// The API server answered something that is no Secret. What exactly is not kept: it may be a secret.
    #[error("failed to get secret '{name}' in namespace '{namespace}': the answer is not a Secret")]
    SecretUnreadable {
        /// The Secret's name.
        name: String,
        /// Its namespace.
        namespace: String,
    },
    /// The API server answered with an error, or not at all.
    #[error("failed to get secret '{name}' in namespace '{namespace}'")]
    Api {
        /// The Secret's name.
        name: String,
        /// Its namespace.
        namespace: String,
        /// What came back.
        source: Arc<kube::Error>,
    },
    /// No answer in time.
    #[error("failed to get secret '{name}' in namespace '{namespace}': no answer from the API server in time")]
    Deadline {
        /// The Secret's name.
        name: String,
        /// Its namespace.
        namespace: String,
    },
}

impl Error {
    /// Tells whether asking again may help without anybody changing the spec or a Secret.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Agent(error) => error.may_pass(),
            Self::Api { .. } | Self::Deadline { .. } | Self::SecretForbidden { .. } | Self::SecretUnreadable { .. } => {
                true
            }
            Self::UnknownAgent { .. }
            | Self::NoNativeDriver { .. }
            | Self::NoPowerAgent { .. }
            | Self::NoNodeName
            | Self::UnsupportedAction
            | Self::Duplicate { .. }
            | Self::Missing { .. }
            | Self::MissingForNode { .. }
            | Self::NothingForNode { .. }
            | Self::Unknown { .. }
            | Self::Refused { .. }
            | Self::Invalid { .. }
            | Self::Address { .. }
            | Self::Conflict { .. }
            | Self::SameDevice { .. }
            | Self::Template { .. }
            | Self::SecretNotFound { .. }
            | Self::SecretInvalid { .. } => false,
        }
    }

    /// Names the kind of error: a stable code for conditions, events and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::UnknownAgent { .. } => "UnsupportedAgent",
            Self::NoNativeDriver { .. } => "UnsupportedDriver",
            Self::NoPowerAgent { .. } => "NotAPowerAgent",
            Self::Agent(error) => error.label(),
            Self::NoNodeName => "NoNodeName",
            Self::UnsupportedAction => "UnsupportedAction",
            Self::Duplicate { .. } => "DuplicateParameter",
            Self::Missing { .. } | Self::MissingForNode { .. } | Self::NothingForNode { .. } => "MissingParameter",
            Self::Unknown { .. } => "UnknownParameter",
            Self::Refused { .. } => "RefusedParameter",
            Self::Invalid { .. } | Self::Address { .. } => "InvalidParameter",
            Self::Conflict { .. } | Self::SameDevice { .. } => "ConflictingParameters",
            Self::Template { .. } => "InvalidTemplate",
            Self::SecretNotFound { .. } => "SecretNotFound",
            Self::SecretInvalid { .. } => "SecretInvalid",
            Self::SecretForbidden { .. } => "SecretForbidden",
            Self::SecretUnreadable { .. } | Self::Api { .. } | Self::Deadline { .. } => "APIServerError",
        }
    }

    /// Returns the whole story in one line, for conditions, events and logs.
    pub fn story(&self) -> String {
        self.source().map_or_else(|| self.to_string(), |source| format!("{self}: {source}"))
    }
}

/// A condition's message is for people: nobody reads more than a few.
const SHOWN: usize = 8;

fn templates(bad: &[(String, TemplateError)]) -> String {
    let shown = bad.iter().take(SHOWN).map(|(at, error)| format!("invalid NodeTemplate syntax in {at}: {error}"));
    let mut shown: Vec<_> = shown.collect();
    if bad.len() > SHOWN {
        shown.push(format!("and {} more", bad.len() - SHOWN));
    }
    shown.join("; ")
}

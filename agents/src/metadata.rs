//! What a fence agent says of itself: the XML that it prints for `-o metadata`, as the Fence Agent API has it.
//!
//! Knows the names and kinds of an agent's parameters, its actions, and whether those make it a switch of a machine's
//! power. Must not know where the XML comes from, nor what the parameters are for.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use serde::Deserialize;
use tokio::time::Instant;

use crate::Error;

/// The longest text that is read. The longest of Debian's 83 agents prints 11,293 bytes.
const MAX_BYTES: usize = 64 * 1024;
/// Parameters of one agent, at most; the most that one of Debian's has is 61.
const MAX_PARAMETERS: usize = 256;
/// Actions of one agent, at most; upstream knows 13.
const MAX_ACTIONS: usize = 64;
/// The longest name of a parameter or an action; upstream's longest has 23 letters.
const MAX_NAME: usize = 64;

/// Agents whose metadata make them look like a power switch, and what they are instead.
const NO_SWITCHES: [(&str, &str); 4] = [
    ("fence_crosslink", "it calls a machine off when that does not answer a ping"),
    ("fence_dummy", "it is a stand-in for tests and switches nothing"),
    ("fence_evacuate", "it moves instances away and switches nothing"),
    ("fence_sbd", "it leaves the machine a message to kill itself, and its status is about the message"),
];

/// Tells what agents say of themselves, wherever they are kept.
pub trait Catalogue: Send + Sync {
    /// Returns an agent's metadata.
    ///
    /// # Errors
    /// [`Error::AgentMissing`] if there is no such agent, [`Error::AgentUnfit`] if its metadata can't be used, another if
    /// it can't be asked; [`Error::Deadline`] at `by`.
    fn metadata(&self, agent: &str, by: Instant) -> impl Future<Output = Result<Arc<Metadata>, Error>> + Send;

    /// Tells whether parameters that make an agent run commands or use files may be given.
    fn allows_unsafe(&self) -> bool;
}

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its name.
    pub agent: String,
    /// Its parameters, old names included.
    pub parameters: Vec<Parameter>,
    /// Its actions.
    pub actions: Vec<Action>,
}

/// A parameter of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name on standard input.
    pub name: String,
    /// What a value must be.
    pub kind: Kind,
    /// What holds if none is given.
    pub default: Option<String>,
    /// Whether the agent can't do without.
    pub required: bool,
    /// Whether this is an older name of another one.
    pub deprecated: bool,
    /// The older name that this one replaces.
    pub obsoletes: Option<String>,
    /// Its names on the command line, with their dashes: `-a`, `--ip`.
    pub options: Vec<String>,
}

/// What the value of a parameter must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A flag.
    Boolean,
    /// A whole number.
    Integer,
    /// A time in seconds.
    Seconds,
    /// One of these, in any case.
    Select(Vec<String>),
}

/// An action of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// Whether it is run by itself when a node joins: `on` of an agent that cuts off from storage or a network.
    pub automatic: bool,
    /// Whether it has to be run on the node itself.
    pub on_target: bool,
}

/// Whether an agent switches a machine's power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It does.
    Power,
    /// It cuts a machine off from a network or from storage; the machine lives on.
    Fabric {
        /// What tells.
        why: &'static str,
    },
    /// Neither.
    Other {
        /// What tells.
        why: String,
    },
}

impl Metadata {
    /// Reads the XML.
    ///
    /// # Errors
    /// [`Error::AgentUnfit`] if it is none, or beyond all measure.
    pub fn parse(agent: &str, xml: &str) -> Result<Self, Error> {
        let unfit = |why: String| Error::agent_unfit(agent, &format!("its metadata can't be read: {why}"));
        if xml.len() > MAX_BYTES {
            return Err(unfit(format!("longer than {MAX_BYTES} bytes")));
        }
        let Xml { parameters, actions } = quick_xml::de::from_str(xml).map_err(|error| unfit(error.to_string()))?;
        if parameters.all.len() > MAX_PARAMETERS || actions.all.len() > MAX_ACTIONS {
            return Err(unfit("too many parameters or actions".to_owned()));
        }
        let names = parameters.all.iter().map(|p| &p.name).chain(actions.all.iter().map(|a| &a.name));
        if let Some(name) = names.into_iter().find(|name| !is_name(name)) {
            return Err(unfit(format!("{name:?} is no name")));
        }
        Ok(Self {
            agent: agent.to_owned(),
            parameters: parameters.all.into_iter().map(Parameter::from).collect(),
            actions: actions.all.into_iter().map(Action::from).collect(),
        })
    }

    /// Returns the parameter that is meant by a name: long or short option, name on standard input, with `-` for `_` or
    /// not, or an older name. Of a parameter with several names in the metadata, the one that is not deprecated.
    pub fn parameter(&self, written: &str) -> Option<&Parameter> {
        let found = self.parameters.iter().filter(|parameter| parameter.is_called(written));
        let found = found.min_by_key(|parameter| parameter.deprecated)?;
        let replaces = |parameter: &&Parameter| parameter.obsoletes.as_deref() == Some(&found.name);
        match found.deprecated {
            true => self.parameters.iter().find(replaces).or(Some(found)),
            false => Some(found),
        }
    }

    /// Tells whether the agent switches a machine's power. Not by its name or description: by its actions. Switching a
    /// fabric agent's "on" again would give a machine that still runs its storage back.
    pub fn role(&self) -> Role {
        let has = |name: &str| self.actions.iter().any(|action| action.name == name);
        if let Some((_, why)) = NO_SWITCHES.iter().find(|(agent, _)| *agent == self.agent) {
            return Role::Other { why: (*why).to_owned() };
        }
        if self.actions.iter().any(|action| action.name == "on" && action.automatic) {
            return Role::Fabric { why: "its \"on\" is run automatically when a node joins" };
        }
        let lacks: Vec<_> = ["off", "on", "status"].into_iter().filter(|name| !has(name)).collect();
        match lacks.as_slice() {
            [] if has("reboot") => Role::Power,
            [] => Role::Fabric { why: "it has no action \"reboot\"" },
            lacks => Role::Other { why: format!("it has no action {}", lacks.join(", ")) },
        }
    }
}

impl Parameter {
    /// Tells whether this is a name of it. A short option is one dash and one letter; all other names may be written
    /// with dashes in front or without.
    fn is_called(&self, written: &str) -> bool {
        if written.starts_with('-') && written.chars().count() == 2 {
            return self.options.iter().any(|option| option == written);
        }
        let long = |name: &str| name.trim_start_matches('-').replace('_', "-");
        let wanted = long(written);
        let longs = self.options.iter().filter(|option| option.starts_with("--"));
        !wanted.is_empty() && (long(&self.name) == wanted || longs.into_iter().any(|option| long(option) == wanted))
    }
}

fn is_name(name: &str) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fits)
}

#[derive(Deserialize)]
struct Xml {
    parameters: XmlParameters,
    actions: XmlActions,
}

#[derive(Deserialize)]
struct XmlParameters {
    #[serde(rename = "parameter", default)]
    all: Vec<XmlParameter>,
}

#[derive(Deserialize)]
struct XmlActions {
    #[serde(rename = "action", default)]
    all: Vec<XmlAction>,
}

#[derive(Deserialize)]
struct XmlParameter {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@required", default)]
    required: String,
    #[serde(rename = "@deprecated", default)]
    deprecated: String,
    #[serde(rename = "@obsoletes")]
    obsoletes: Option<String>,
    getopt: Option<XmlGetopt>,
    content: Option<XmlContent>,
}

#[derive(Deserialize)]
struct XmlGetopt {
    #[serde(rename = "@mixed", default)]
    mixed: String,
}

#[derive(Deserialize)]
struct XmlContent {
    #[serde(rename = "@type", default)]
    kind: String,
    #[serde(rename = "@default")]
    default: Option<String>,
    #[serde(rename = "option", default)]
    options: Vec<XmlOption>,
}

#[derive(Deserialize)]
struct XmlOption {
    #[serde(rename = "@value")]
    value: String,
}

#[derive(Deserialize)]
struct XmlAction {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@automatic", default)]
    automatic: String,
    #[serde(rename = "@on_target", default)]
    on_target: String,
}

impl From<XmlParameter> for Parameter {
    fn from(xml: XmlParameter) -> Self {
        let (kind, default) = match xml.content {
            None => (Kind::Text, None),
            Some(XmlContent { kind, default, options }) => {
                let kind = match kind.as_str() {
                    "boolean" => Kind::Boolean,
                    "integer" => Kind::Integer,
                    "second" => Kind::Seconds,
                    "select" => Kind::Select(options.into_iter().map(|option| option.value).collect()),
                    _ => Kind::Text,
                };
                (kind, default)
            }
        };
        let mixed = xml.getopt.map(|getopt| getopt.mixed).unwrap_or_default();
        Self {
            name: xml.name,
            kind,
            default,
            required: xml.required == "1",
            deprecated: xml.deprecated == "1",
            obsoletes: xml.obsoletes,
            options: options(&mixed),
        }
    }
}

impl From<XmlAction> for Action {
    fn from(xml: XmlAction) -> Self {
        Self { name: xml.name, automatic: xml.automatic == "1", on_target: xml.on_target == "1" }
    }
}

/// `-a, --ip=[ip]` names `-a` and `--ip`.
fn options(mixed: &str) -> Vec<String> {
    let words = mixed.split(',').map(str::trim).filter(|word| word.starts_with('-'));
    words.map(|word| word.split(['=', ' ', '[']).next().unwrap_or_default().to_owned()).collect()
}

/// A catalogue of agents that are known beforehand, for tests and tools.
impl Catalogue for BTreeMap<String, Arc<Metadata>> {
    async fn metadata(&self, agent: &str, _: Instant) -> Result<Arc<Metadata>, Error> {
        let missing = || Error::AgentMissing { agent: agent.to_owned(), at: "this catalogue".to_owned() };
        self.get(agent).cloned().ok_or_else(missing)
    }

    fn allows_unsafe(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;

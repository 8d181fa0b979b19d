//! Which parameters a node has: those of the spec and those of its Secrets, in FAR's order of precedence.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use super::secrets::{SecretValues, Secrets};
use super::{Action, Error, TemplateError, names, template};
use crate::api::AgentSpec;

/// The canonical name of what is to become of the node.
const ACTION: &str = "action";

/// All parameters of one node, by canonical name.
pub(super) type Parameters = BTreeMap<String, Value>;

/// The value of one parameter. Also what the spec holds in clear is treated as a secret: passwords are found there.
#[derive(Clone, Debug)]
pub(super) struct Value {
    /// The name, as written.
    pub(super) written: String,
    /// Whether it came from a Secret.
    pub(super) from_secret: bool,
    text: SecretString,
}

impl Value {
    /// Returns the value itself.
    pub(super) fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    #[cfg(test)]
    pub(super) fn of_spec(name: &str, text: &str) -> Self {
        Self { written: name.to_owned(), from_secret: false, text: text.into() }
    }
}

/// Puts together the parameters of one node.
///
/// Node parameters override shared ones, and keys of the node's Secret override those of the shared Secret. Between
/// spec and Secrets nothing overrides anything: a parameter that is in both is an error, as FAR has it.
///
/// Shared parameters and values of the shared Secret are templates; node parameters and the node's Secret are not.
///
/// # Errors
/// When templates are bad (all are named), a name is given twice, a node parameter has no value for this node and no other source has
/// one either, or nothing that chooses the machine is particular to this node. (An account or a time-out of its own is
/// not enough: another node's remediation would hit the same machine.)
pub(super) fn parameters(agent: &AgentSpec<'_>, secrets: &Secrets, node: &str) -> Result<Parameters, Error> {
    let Merged { all, missing, particular } = merge(agent, secrets, node, |_| true)?;
    if let Some(parameter) = missing.into_iter().find(|name| !all.contains_key(&names::canonical(name))) {
        return Err(Error::MissingForNode { parameter, node: node.to_owned() });
    }
    if all.is_empty() || !particular {
        return Err(Error::NothingForNode { node: node.to_owned() });
    }
    Ok(all)
}

/// Returns what an agent's parameters outside of Secrets say of the action, and nothing else of them.
///
/// # Errors
/// When the action's own template is bad, or it is given twice.
pub(super) fn action_only(agent: &AgentSpec<'_>, node: &str) -> Result<Parameters, Error> {
    merge(agent, &Secrets::default(), node, |name| name == ACTION).map(|merged| merged.all)
}

/// The parameters of all places, put together.
struct Merged {
    all: Parameters,
    /// Those that have no value for this node where they are given per node.
    missing: Vec<String>,
    /// Something that chooses the machine is particular to this node.
    particular: bool,
}

/// Puts together those parameters whose canonical name is `wanted`.
fn merge(agent: &AgentSpec<'_>, secrets: &Secrets, node: &str, wanted: impl Fn(&str) -> bool) -> Result<Merged, Error> {
    let mut particular = false;
    let chooses = |name: &str| names::chooses(&names::canonical(name));
    let wanted = |name: &str| wanted(&names::canonical(name));

    let mut bad = Vec::new();

    let mut shared = Layer::of_spec();
    for (name, text) in agent.shared_parameters.0.iter().filter(|(name, _)| wanted(name)) {
        match template::render(text, node) {
            Ok(rendered) => {
                particular |= rendered.names_node && chooses(name);
                shared.insert(name, &rendered.text)?;
            }
            Err(error) => bad.push((format!("shared parameter {name}"), error)),
        }
    }

    let mut own = Layer::of_spec();
    let mut missing = Vec::new();
    for (name, nodes) in agent.node_parameters.0.iter().filter(|(name, _)| wanted(name)) {
        match nodes.get(node) {
            Some(text) => {
                particular |= chooses(name);
                own.insert(name, text)?;
            }
            None => missing.push(name.clone()),
        }
    }
    let mut all = shared.overridden_by(own);

    let mut shared = Layer::of_secret();
    if let Some(secret) = &secrets.shared {
        for (name, text) in secret.values.iter().filter(|(name, _)| wanted(name)) {
            match template::render(text.expose_secret(), node) {
                Ok(rendered) => {
                    particular |= rendered.names_node && chooses(name);
                    shared.insert(name, &rendered.text)?;
                }
                // The error itself is dropped: it may quote the value.
                Err(_) => bad.push((format!("key {name} of secret '{}'", secret.name), TemplateError::InSecret)),
            }
        }
    }
    if !bad.is_empty() {
        return Err(Error::Template { bad });
    }
    let own = secrets.node.as_ref().map_or_else(|| Ok(Layer::of_secret()), Layer::raw)?;
    particular |= own.all.keys().any(|name| chooses(name));
    for (name, value) in shared.overridden_by(own) {
        if all.contains_key(&name) {
            return Err(Error::Duplicate { parameter: value.written });
        }
        all.insert(name, value);
    }
    Ok(Merged { all, missing, particular })
}

/// Takes the action out of the parameters. Without one it is `reboot`.
///
/// # Errors
/// When it is anything but `reboot`, `off` or empty, case-sensitive.
pub(super) fn take_action(parameters: &mut Parameters) -> Result<Action, Error> {
    match parameters.remove(ACTION).as_ref().map_or("", Value::expose) {
        "" | "reboot" => Ok(Action::Reboot),
        "off" => Ok(Action::Off),
        _ => Err(Error::UnsupportedAction),
    }
}

/// Makes sure that there is no action: a level has that of the spec's own agent.
///
/// # Errors
/// When there is one.
pub(super) fn no_action(parameters: &Parameters) -> Result<(), Error> {
    match parameters.get(ACTION) {
        None => Ok(()),
        Some(value) => Err(Error::Refused {
            parameter: value.written.clone(),
            reason: "the action is that of the spec's own agent; a level has none",
        }),
    }
}

/// Parameters of one source. Within one, no parameter may have two values under two of its names.
struct Layer {
    all: Parameters,
    from_secret: bool,
}

impl Layer {
    fn of_spec() -> Self {
        Self { all: Parameters::new(), from_secret: false }
    }

    fn of_secret() -> Self {
        Self { all: Parameters::new(), from_secret: true }
    }

    fn raw(secret: &SecretValues) -> Result<Self, Error> {
        let mut layer = Self::of_secret();
        for (name, text) in &secret.values {
            layer.insert(name, text.expose_secret())?;
        }
        Ok(layer)
    }

    fn insert(&mut self, name: &str, text: &str) -> Result<(), Error> {
        let value = Value { written: name.to_owned(), from_secret: self.from_secret, text: text.into() };
        match self.all.insert(names::canonical(name), value) {
            None => Ok(()),
            Some(_) => Err(Error::Duplicate { parameter: name.to_owned() }),
        }
    }

    fn overridden_by(mut self, other: Self) -> Parameters {
        self.all.extend(other.all);
        self.all
    }
}

#[cfg(test)]
mod tests;

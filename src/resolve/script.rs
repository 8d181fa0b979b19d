//! The parameters of an agent's script, by what its metadata say.

use std::collections::BTreeMap;

use agents::metadata::{Kind, Metadata, Parameter};
use agents::{Parameters as Given, Target};

use super::parameters::{Parameters, Value};
use super::redfish::{flag, invalid};
use super::{Error, names};

/// Options that every agent has and that mean nothing here: a delayed off would land when it is least expected, and what
/// an agent logs is not shown.
const IGNORED: [&str; 4] = ["delay", "quiet", "verbose", "verbose-level"];

/// Reads the parameters, without the action.
pub(super) fn device(
    metadata: &Metadata,
    parameters: &Parameters,
    allow_unsafe: bool,
) -> Result<(Target, Given), Error> {
    let mut given = BTreeMap::new();
    for (canonical, value) in parameters {
        if IGNORED.contains(&canonical.as_str()) {
            continue;
        }
        let parameter = parameter(metadata, canonical, value, allow_unsafe)?;
        if given.insert(parameter.name.as_str(), (parameter, value)).is_some() {
            return Err(Error::Duplicate { parameter: value.written.clone() });
        }
    }
    let needed = metadata.parameters.iter().filter(|p| p.required && !p.deprecated && p.name != "action");
    let is_given = |name: &str| given.get(name).is_some_and(|(_, value)| !value.expose().is_empty());
    let missing: Vec<_> = needed.filter(|p| !is_given(&p.name)).map(|p| format!("--{}", dashed(&p.name))).collect();
    if !missing.is_empty() {
        return Err(Error::Missing { parameters: missing });
    }

    let (mut target, mut access) = (Target::default(), Given::default());
    for (name, (parameter, value)) in given {
        let canonical = names::canonical(name);
        let Some(text) = text(parameter, value)? else { continue };
        match canonical.as_str() {
            "ip" => (access.ip, target.ip) = (Some(name.to_owned()), Some(text)),
            "ipport" => {
                let port = text.parse().ok().filter(|port| *port > 0);
                target.ipport = Some(port.ok_or_else(|| invalid(value, "a port number, 1 to 65535"))?);
                access.ipport = Some(name.to_owned());
            }
            "plug" => (access.plug, target.plug) = (Some(name.to_owned()), Some(text)),
            _ if names::chooses(&canonical) => drop(target.others.insert(name.to_owned(), text)),
            _ => drop(access.values.insert(name.to_owned(), text.into())),
        }
    }
    // An order says both in one text; `ip` with a port in it is read back as two.
    access.ipport = access.ipport.or_else(|| metadata.parameter("ipport").map(|parameter| parameter.name.clone()));
    if Target::read(&target.address(), target.plug().as_deref()) != target
        && let Some(ip) = parameters.get("ip")
        && access.ipport.is_none()
    {
        return Err(invalid(ip, "without a port: the agent has no parameter for one"));
    }
    Ok((target, access))
}

/// The agent's own parameter that is meant.
fn parameter<'a>(
    metadata: &'a Metadata,
    canonical: &str,
    value: &Value,
    allow_unsafe: bool,
) -> Result<&'a Parameter, Error> {
    let refusal = |name: &str| if allow_unsafe { names::never(name) } else { names::refusal(name) };
    let refused = |reason| Error::Refused { parameter: value.written.clone(), reason };
    if let Some(reason) = refusal(canonical) {
        return Err(refused(reason));
    }
    let older = || names::older(canonical).and_then(|name| metadata.parameter(name));
    let found = metadata.parameter(&value.written).or_else(|| metadata.parameter(canonical)).or_else(older);
    let Some(parameter) = found else {
        let current = metadata.parameters.iter().filter(|parameter| !parameter.deprecated);
        let known = current.map(|parameter| format!("--{}", dashed(&parameter.name))).collect();
        return Err(Error::Unknown { parameter: value.written.clone(), agent: metadata.agent.clone(), known });
    };
    // A short option is known to the agent only.
    match refusal(&names::canonical(&parameter.name)) {
        Some(reason) => Err(refused(reason)),
        None => Ok(parameter),
    }
}

/// What the agent is given; nothing for a flag that is not set.
///
/// Agents take a flag for set if it is there at all, whatever its value: `ssl_insecure=0` is insecure. Only one that is
/// set by default (`lanplus` of fence_ilo3) is looked at.
fn text(parameter: &Parameter, value: &Value) -> Result<Option<String>, Error> {
    let text = value.expose();
    let wrong = |want| Err(invalid(value, want));
    let quoted = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
    if text.contains(char::is_control) || text.trim_end() != text || quoted {
        return wrong("one line, without blanks at its end and not in quotes");
    }
    match &parameter.kind {
        Kind::Boolean => Ok(match flag(value)? {
            true => Some("1".to_owned()),
            false => parameter.default.as_deref().filter(|set| *set == "1").map(|_| "0".to_owned()),
        }),
        Kind::Integer if text.parse::<i64>().is_err() => wrong("a whole number"),
        Kind::Seconds if !text.parse::<f64>().is_ok_and(|seconds| seconds.is_finite() && seconds >= 0.0) => {
            wrong("a number of seconds")
        }
        Kind::Select(options) if !options.iter().any(|option| option.eq_ignore_ascii_case(text)) => {
            wrong("one of the values that the agent's metadata list")
        }
        Kind::Text | Kind::Integer | Kind::Seconds | Kind::Select(_) => Ok(Some(text.to_owned())),
    }
}

fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

#[cfg(test)]
pub(super) mod tests;

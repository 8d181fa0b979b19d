//! The parameters of `fence_ipmilan` and its other names (`fence_idrac`, `fence_ilo4` and so on), for IPMI 2.0.

use agents::ipmi::{Config, Ipmi, Privilege, Quirks};
use agents::{Access, Credentials, Target};
use secrecy::SecretString;

use super::parameters::{Parameters, Value};
use super::redfish::{IGNORED, flag, invalid};
use super::{Error, names};

/// The agents that speak IPMI.
pub(super) const AGENTS: [&str; 7] =
    ["fence_idrac", "fence_ilo3", "fence_ilo4", "fence_ilo5", "fence_imm", "fence_ipmilan", "fence_ipmilanplus"];

/// What they know, and is obeyed here.
const KNOWN: [&str; 9] = [
    "--action",
    "--ip",
    "--ipport",
    "--username",
    "--password",
    "--lanplus",
    "--cipher",
    "--privlvl",
    "--hexadecimal-kg",
];

/// Options that mean nothing here, besides those of every agent: a machine is never cycled, IPMI 2.0 has its own
/// authentication, and time-outs are the remediation's.
const MORE_IGNORED: [&str; 3] = ["auth", "ipmitool-timeout", "method"];

/// Short options that these agents have for themselves; those of all agents are in [`names`].
const SHORT: [(&str, &str); 4] = [("-A", "auth"), ("-C", "cipher"), ("-L", "privlvl"), ("-P", "lanplus")];

/// The port of RMCP (IPMI 2.0, section 13.1.2).
const PORT: u16 = 623;

/// Reads the parameters, without the action: the address, and how it is spoken to.
///
/// Upstream's agents speak IPMI 1.5 unless `lanplus` is set (all but fence_ilo3 and fence_ipmilanplus); here it is 2.0
/// unless `lanplus` is set to 0, and then nothing is.
pub(super) fn device(agent: &str, parameters: &Parameters) -> Result<(String, Access), Error> {
    let parameters = &by_long_names(parameters)?;
    check_names(agent, parameters)?;
    let given = |name: &str| parameters.get(name).filter(|value| !value.expose().is_empty());
    let refused = |value: &Value, reason| Error::Refused { parameter: value.written.clone(), reason };
    if let Some(value) = parameters.get("lanplus")
        && !flag(value)?
    {
        return Err(refused(value, "this driver speaks IPMI 2.0 (lanplus) only; for IPMI 1.5 use driver: Script"));
    }
    let ip = given("ip").ok_or_else(|| Error::Missing { parameters: vec!["--ip".to_owned()] })?;
    let address = address(ip, given("ipport"))?;
    let text = |name: &str| given(name).map_or("", Value::expose);
    let credentials =
        Credentials { username: text("username").to_owned(), password: text("password").to_owned().into() };
    let suite = given("cipher").map(|value| match value.expose() {
        "3" => Ok(3),
        "17" => Ok(17),
        _ => Err(invalid(value, "3 or 17; for other cipher suites use driver: Script")),
    });
    let privilege = given("privlvl").map(|value| {
        // The error itself is dropped: it quotes the value.
        Privilege::parse(value.expose()).map_err(|_| invalid(value, "user, operator or administrator"))
    });
    let (suite, privilege) = (suite.transpose()?, privilege.transpose()?.unwrap_or_default());
    let kg = given("hexadecimal-kg").map(|value| SecretString::from(value.expose().to_owned()));
    let config = Config {
        address: address.clone(),
        port: None,
        credentials: credentials.clone(),
        kg: kg.clone(),
        suite,
        privilege,
        quirks: Quirks::default(),
    };
    // It says at once what does not fit: a name or password that is too long, a key that is no key.
    Ipmi::new(config).map_err(|error| Error::Address {
        detail: match ip.from_secret {
            true => "--ip, --ipport, --username, --password or --hexadecimal-kg can't be used for IPMI".to_owned(),
            false => error.to_string(),
        },
    })?;
    Ok((address, Access::Ipmi { credentials, kg, suite, privilege, quirks: Quirks::default() }))
}

fn by_long_names(parameters: &Parameters) -> Result<Parameters, Error> {
    let mut renamed = Parameters::new();
    for (name, value) in parameters {
        let long = SHORT.iter().find(|(short, _)| short == name).map_or(name.as_str(), |(_, long)| long);
        if renamed.insert(long.to_owned(), value.clone()).is_some() {
            return Err(Error::Duplicate { parameter: value.written.clone() });
        }
    }
    Ok(renamed)
}

fn check_names(agent: &str, parameters: &Parameters) -> Result<(), Error> {
    for (name, value) in parameters {
        let refused = |reason| Error::Refused { parameter: value.written.clone(), reason };
        if let Some(reason) = names::refusal(name) {
            return Err(refused(reason));
        }
        if name == "target" {
            return Err(refused("this driver bridges to no other controller; use driver: Script"));
        }
        let ignored = IGNORED.contains(&name.as_str()) || MORE_IGNORED.contains(&name.as_str());
        let known = KNOWN.iter().any(|known| known.trim_start_matches('-') == name);
        if !known && !ignored {
            let known = KNOWN.map(str::to_owned).to_vec();
            return Err(Error::Unknown { parameter: value.written.clone(), agent: agent.to_owned(), known });
        }
    }
    Ok(())
}

/// `host:port`, with brackets around an IPv6 address.
fn address(ip: &Value, port: Option<&Value>) -> Result<String, Error> {
    let number = port.map(|port| {
        let number = port.expose().parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| invalid(port, "a port number, 1 to 65535"))
    });
    let mut target = Target::read(ip.expose().trim(), None);
    target.ip = target.ip.map(|ip| ip.trim_start_matches('[').trim_end_matches(']').to_owned());
    target.ipport = match (target.ipport, number.transpose()?) {
        (Some(own), Some(given)) if own != given => {
            return Err(invalid(ip, "without a port, or with that of --ipport"));
        }
        (own, given) => own.or(given).or(Some(PORT)),
    };
    Ok(target.address())
}

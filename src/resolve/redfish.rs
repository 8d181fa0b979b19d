//! The parameters of `fence_redfish`.

use agents::{Credentials, Tls};
use k8s_openapi::ByteString;
use url::Url;

use super::parameters::{Parameters, Value};
use super::secrets::Ca;
use super::{Error, names};
use crate::api::TlsPolicy;

/// What `fence_redfish` knows, and is obeyed here.
const KNOWN: [&str; 9] = [
    "--action",
    "--ip",
    "--ipport",
    "--username",
    "--password",
    "--systems-uri",
    "--redfish-uri",
    "--ssl-insecure",
    "--ssl-secure",
];

/// Options that upstream's agents have and that mean nothing here: times and retries are those of the remediation, logs
/// are the operator's own, and Redfish is always HTTPS.
pub(super) const IGNORED: [&str; 14] = [
    "delay",
    "disable-timeout",
    "login-timeout",
    "plug-separator",
    "power-timeout",
    "power-wait",
    "quiet",
    "retry-on",
    "separator",
    "shell-timeout",
    "ssl",
    "stonith-status-sleep",
    "verbose",
    "verbose-level",
];

const DEFAULT_REDFISH_URI: &str = "/redfish/v1";

/// One system behind one BMC.
pub(super) struct Device {
    pub(super) base: Url,
    pub(super) systems_uri: Option<String>,
    pub(super) credentials: Credentials,
    pub(super) tls: Tls,
}

/// Reads the parameters, without the action.
pub(super) fn device(parameters: &Parameters, tls: Option<&TlsPolicy>, ca: Option<&Ca>) -> Result<Device, Error> {
    check_names(parameters)?;
    let given = |name: &str| parameters.get(name).filter(|value| !value.expose().is_empty());
    let (Some(ip), Some(username), Some(password)) = (given("ip"), given("username"), given("password")) else {
        let mandatory = [("ip", "--ip"), ("username", "--username"), ("password", "--password")];
        let parameters =
            mandatory.into_iter().filter(|(name, _)| given(name).is_none()).map(|(_, name)| name.to_owned());
        return Err(Error::Missing { parameters: parameters.collect() });
    };
    Ok(Device {
        base: base(ip, parameters.get("ipport"), parameters.get("redfish-uri"))?,
        systems_uri: parameters.get("systems-uri").map(path).transpose()?,
        credentials: Credentials {
            username: username.expose().to_owned(),
            password: password.expose().to_owned().into(),
        },
        tls: certificate(
            tls,
            ca,
            parameters.get("ssl-insecure").map(flag).transpose()?.unwrap_or(false),
            parameters.get("ssl-secure").map(flag).transpose()?.unwrap_or(false),
        )?,
    })
}

fn check_names(parameters: &Parameters) -> Result<(), Error> {
    for (name, value) in parameters {
        let parameter = || value.written.clone();
        if let Some(reason) = names::refusal(name) {
            return Err(Error::Refused { parameter: parameter(), reason });
        }
        let known = KNOWN.iter().any(|known| known.trim_start_matches('-') == name);
        if !known && !IGNORED.contains(&name.as_str()) {
            let known = KNOWN.map(str::to_owned).to_vec();
            return Err(Error::Unknown { parameter: parameter(), agent: "fence_redfish".to_owned(), known });
        }
    }
    Ok(())
}

fn base(ip: &Value, port: Option<&Value>, uri: Option<&Value>) -> Result<Url, Error> {
    let number = port.map(|port| match port.expose().parse::<u16>() {
        Ok(number) if number > 0 => Ok(number),
        Ok(_) | Err(_) => Err(invalid(port, "a port number, 1 to 65535")),
    });
    let path = uri.map_or_else(|| Ok(DEFAULT_REDFISH_URI.to_owned()), path)?;
    agents::redfish::base_url(ip.expose(), number.transpose()?, &path).map_err(|error| {
        let secret = [Some(ip), port, uri].into_iter().flatten().find(|value| value.from_secret);
        Error::Address {
            detail: match secret {
                None => error.to_string(),
                Some(_) if port.is_some() => {
                    "--ip is no host name or IP address, or has another port than --ipport".to_owned()
                }
                Some(_) => "--ip is no host name or IP address".to_owned(),
            },
        }
    })
}

/// A path on the BMC itself. Not a whole URL: that could name another host, or hold a password.
fn path(value: &Value) -> Result<String, Error> {
    let text = value.expose();
    let printable = text.chars().all(|c| c.is_ascii_graphic());
    if !text.starts_with('/') || text.starts_with("//") || !printable || text.contains('\\') {
        return Err(invalid(value, "a path that begins with one slash, such as /redfish/v1/Systems/1"));
    }
    Ok(text.to_owned())
}

/// A flag, by its value: upstream's agents take `ssl_insecure=0` for "insecure".
pub(super) fn flag(value: &Value) -> Result<bool, Error> {
    match value.expose().to_ascii_lowercase().as_str() {
        "" | "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(invalid(value, "empty, 1, true, yes or on to set it; 0, false, no or off not to")),
    }
}

fn certificate(policy: Option<&TlsPolicy>, ca: Option<&Ca>, insecure: bool, secure: bool) -> Result<Tls, Error> {
    let pins = policy.map(|policy| policy.pinned_sha256.as_slice()).unwrap_or_default();
    match (insecure, ca, pins) {
        (true, Some(_), _) => Err(Error::Conflict { one: "--ssl-insecure", other: "tls.caSecretName" }),
        (true, None, [_, ..]) => Err(Error::Conflict { one: "--ssl-insecure", other: "tls.pinnedSHA256" }),
        (true, None, []) if secure => Err(Error::Conflict { one: "--ssl-insecure", other: "--ssl-secure" }),
        (true, None, []) => Ok(Tls::Insecure),
        (false, Some(_), [_, ..]) => Err(Error::Conflict { one: "tls.caSecretName", other: "tls.pinnedSHA256" }),
        (false, Some(ca), []) => Ok(Tls::Ca(ca.pem.clone())),
        (false, None, [_, ..]) => {
            Ok(Tls::Pins { spki_sha256: pins.iter().map(|pin| parse_pin(pin)).collect::<Result<_, _>>()? })
        }
        (false, None, []) => Ok(Tls::Roots),
    }
}

/// Reads a SHA-256 as openssl writes it: hexadecimal, with or without colons, or base64.
fn parse_pin(text: &str) -> Result<[u8; 32], Error> {
    let bytes = hexadecimal(&text.replace(':', "")).or_else(|| base64(text));
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(Error::Invalid {
        parameter: "tls.pinnedSHA256".into(),
        want: "a SHA-256 in hexadecimal (64 digits) or base64 (44 characters)",
    })
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    (digits.len() == 64).then(|| digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}

/// Kubernetes' own reading of bytes in JSON is base64.
fn base64(text: &str) -> Option<Vec<u8>> {
    serde_json::from_value::<ByteString>(text.into()).ok().map(|bytes| bytes.0)
}

pub(super) fn invalid(value: &Value, want: &'static str) -> Error {
    Error::Invalid { parameter: value.written.clone(), want }
}

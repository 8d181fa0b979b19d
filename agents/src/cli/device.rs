//! The device that the options describe.

use std::fs::File;
use std::io::Read as _;

use secrecy::SecretString;
use tokio::time::Instant;

use super::agent::{Agent, Family};
use super::failure::Failure;
use super::input::Input;
use super::settings::{address, port};
use crate::ipmi::{self, Ipmi, Privilege, Quirks};
use crate::redfish::{self, Redfish};
use crate::{Command, Credentials, Error, PowerSwitch, Status, SystemUuid, Tls, Visit};

/// The most that is read of a file of certificates, in bytes: twice what a system's whole trust store has.
const MAX_CA: u64 = 1 << 20;

/// A machine's power, by whichever protocol.
#[derive(Debug)]
pub(super) enum Device {
    /// Over Redfish.
    Redfish(Box<Redfish>),
    /// Over IPMI 2.0.
    Ipmi(Box<Ipmi>),
}

impl Device {
    /// Makes the device; nothing is sent yet.
    ///
    /// `ca_bundle`: the file of `REQUESTS_CA_BUNDLE`, which counts where no other is given.
    pub(super) fn new(
        agent: &Agent,
        input: &Input,
        password: SecretString,
        ca_bundle: Option<&str>,
    ) -> Result<Self, Failure> {
        match agent.family {
            Family::Redfish => redfish(input, password, ca_bundle),
            Family::Ipmi => ipmi(input, password),
        }
    }
}

impl PowerSwitch for Device {
    async fn status(&self, by: Instant) -> Result<Status, Error> {
        match self {
            Self::Redfish(redfish) => redfish.status(by).await,
            Self::Ipmi(ipmi) => ipmi.status(by).await,
        }
    }

    async fn visit(&self, command: Command, by: Instant) -> Result<Visit, Error> {
        match self {
            Self::Redfish(redfish) => redfish.visit(command, by).await,
            Self::Ipmi(ipmi) => ipmi.visit(command, by).await,
        }
    }

    async fn command(&self, command: Command, expect: Option<&SystemUuid>, by: Instant) -> Result<(), Error> {
        match self {
            Self::Redfish(redfish) => redfish.command(command, expect, by).await,
            Self::Ipmi(ipmi) => ipmi.command(command, expect, by).await,
        }
    }
}

const DOING: &str = "reading the options";

fn redfish(input: &Input, password: SecretString, ca_bundle: Option<&str>) -> Result<Device, Failure> {
    let bad = |error| Failure::Bmc { doing: DOING, error };
    let uri = input.get("redfish_uri").unwrap_or("/redfish/v1");
    let config = redfish::Config {
        base: redfish::base_url(address(input).unwrap_or_default(), port(input)?, uri).map_err(bad)?,
        systems_uri: input.get("systems_uri").filter(|uri| !uri.is_empty()).map(str::to_owned),
        credentials: Credentials { username: input.get("username").unwrap_or_default().to_owned(), password },
        tls: tls(input, ca_bundle)?,
    };
    Redfish::new(config).map(|redfish| Device::Redfish(Box::new(redfish))).map_err(bad)
}

fn ipmi(input: &Input, password: SecretString) -> Result<Device, Failure> {
    let bad = |error| Failure::Bmc { doing: DOING, error };
    let given = |name: &str| input.get(name).map(str::trim).filter(|value| !value.is_empty());
    if input.get("lanplus").is_some() && !input.flag("lanplus") {
        return Err(Failure::Option("lanplus=0 is IPMI 1.5, which is not spoken here: use upstream's script".into()));
    }
    if given("target").is_some() {
        return Err(Failure::Option("target: bridging to another controller is not done here".into()));
    }
    let suite = given("cipher").map(|number| number.parse().map_err(|_| Failure::Option("cipher is no number".into())));
    let privilege = given("privlvl").map(Privilege::parse).transpose().map_err(bad)?;
    let config = ipmi::Config {
        address: address(input).unwrap_or_default().to_owned(),
        port: port(input)?,
        credentials: Credentials { username: input.get("username").unwrap_or_default().to_owned(), password },
        kg: given("hexadecimal_kg").map(SecretString::from),
        suite: suite.transpose()?,
        privilege: privilege.unwrap_or_default(),
        quirks: Quirks::default(),
    };
    Ipmi::new(config).map(|ipmi| Device::Ipmi(Box::new(ipmi))).map_err(bad)
}

/// How the certificate is judged. Whoever asks for both is told so, and not believed to have meant the weaker.
fn tls(input: &Input, ca_bundle: Option<&str>) -> Result<Tls, Failure> {
    let own = input.get("ca_file").filter(|path| !path.is_empty());
    match (input.flag("ssl_insecure"), input.flag("ssl_secure") || own.is_some()) {
        (true, true) => Err(Failure::Option("ssl_insecure contradicts ssl_secure and ca_file".into())),
        (true, false) => Ok(Tls::Insecure),
        (false, _) => match own.or(ca_bundle) {
            Some(path) => read(path).map(Tls::Ca).map_err(|source| Failure::File { what: "ca_file", source }),
            None => Ok(Tls::Roots),
        },
    }
}

fn read(path: &str) -> std::io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    File::open(path)?.take(MAX_CA).read_to_end(&mut pem)?;
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(text: &str) -> Result<Device, String> {
        made("fence_redfish", text)
    }

    fn made(agent: &str, text: &str) -> Result<Device, String> {
        let agent = Agent::named(agent).expect("known");
        let input = Input::from_lines(agent, text).expect("readable");
        Device::new(agent, &input, "s3cr3t".to_owned().into(), None).map_err(|failure| failure.to_string())
    }

    #[test]
    fn addresses_are_taken_in_all_forms() {
        for ip in ["bmc.example.com", "10.0.0.7", "10.0.0.7:8443", "::1", "[::1]", "[::1]:8443"] {
            let made = device(&format!("ip={ip}\nusername=u\nssl_insecure=1")).expect("an address");
            assert!(!format!("{made:?}").contains("s3cr3t"));
        }
        for text in ["ip=a b", "ip=h:1\nipport=2", "ip=h\nipport=70000", "ip=h\nredfish_uri=x"] {
            device(&format!("{text}\nusername=u\nssl_insecure=1")).expect_err(text);
        }
    }

    #[test]
    fn the_weaker_of_two_orders_is_not_chosen() {
        let error = device("ip=h\nusername=u\nssl_insecure=1\nssl_secure=1").expect_err("both");
        assert!(error.contains("contradicts"), "{error}");
        let error = device("ip=h\nusername=u\nca_file=/no/such/file").expect_err("no file");
        assert!(error.contains("ca_file"), "{error}");
        device("ip=h\nusername=u\nssl_secure=0\nssl_insecure=1").expect("one");
    }

    #[test]
    fn ipmi_is_2_0_and_says_so() {
        let account = "ip=h\nlogin=u\n";
        for lines in ["", "lanplus=1", "cipher=3", "cipher=17", "privlvl=OPERATOR", "auth=md5", "hexadecimal_kg=00ff"] {
            let made = made("fence_ipmilan", &format!("{account}{lines}")).expect(lines);
            assert!(!format!("{made:?}").contains("s3cr3t"));
        }
        for (lines, says) in [
            ("lanplus=0", "IPMI 1.5"),
            ("target=0x24", "bridging"),
            ("cipher=x", "cipher"),
            ("privlvl=callback", "privilege"),
            ("hexadecimal_kg=wat", "kg"),
        ] {
            let error = made("fence_ipmilan", &format!("{account}{lines}")).expect_err(lines);
            assert!(error.to_lowercase().contains(&says.to_lowercase()), "{lines}: {error}");
        }
    }
}

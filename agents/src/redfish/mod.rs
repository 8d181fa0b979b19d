//! Power through Redfish (DMTF DSP0266).
//!
//! A reading is one GET, or three where the system has to be found first; a command is that, and one POST. Nothing is
//! kept between calls but the product (whether it is one that [`products`] distrusts), so a BMC that comes to manage a
//! second system is noticed at once.

mod http;
mod products;
mod schema;
mod tls;

use std::fmt;
use std::sync::OnceLock;

use serde_json::json;
use tokio::time::Instant;
use url::Url;

use self::http::Channel;
use self::products::Product;
use crate::error::clean;
use crate::{Command, Credentials, Error, PowerState, PowerSwitch, Status, SystemUuid, Tls};

/// Chassis read for one system, at most. Real systems list one or two.
const MAX_CHASSIS: usize = 8;

/// How to reach one system.
#[derive(Clone, Debug)]
pub struct Config {
    /// The service root, `https://host:port/redfish/v1`; see [`base_url`].
    pub base: Url,
    /// The system's own URI, where a BMC manages several (`/redfish/v1/Systems/1`).
    pub systems_uri: Option<String>,
    /// The account.
    pub credentials: Credentials,
    /// How the certificate is judged.
    pub tls: Tls,
}

/// The power switch of one system, over Redfish.
pub struct Redfish {
    channel: Channel,
    base: Url,
    system: Option<Url>,
    product: OnceLock<Product>,
}

/// Makes the URL of a service root from the parameters `ip`, `ipport` and `redfish_uri` of a fence agent.
///
/// `address` is a host name, an IPv4 or an IPv6 address (with or without brackets), optionally with a port; an IPv6
/// address with a port needs the brackets. The port is 443 if none is given.
///
/// Errors: [`Error::Config`] if that is not a host, or names two different ports.
pub fn base_url(address: &str, port: Option<u16>, uri: &str) -> Result<Url, Error> {
    let bad = |reason: &str| Error::Config(format!("the BMC's address {:?}: {reason}", clean(address, 100)));
    if !uri.starts_with('/') {
        return Err(Error::Config(format!("the Redfish URI {:?} does not begin with a slash", clean(uri, 100))));
    }
    let (host, own_port) = split_port(address.trim());
    let own_port = own_port.map(|port| port.parse().map_err(|_| bad("the port is not a number"))).transpose()?;
    let port = match (own_port, port) {
        (Some(one), Some(other)) if one != other => return Err(bad("its port is not the given ipport")),
        (Some(port), _) | (None, Some(port)) => port,
        (None, None) => 443,
    };
    if host.is_empty() || host.contains(['/', '@', '?', '#', '\\', '%']) || host.contains(char::is_whitespace) {
        return Err(bad("neither a host name nor an IP address"));
    }
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Url::parse(&format!("https://{host}:{port}{uri}")).map_err(|error| bad(&error.to_string()))
}

/// Splits `host:port`, `[v6]:port`, `[v6]`, `v6` and `host`; the brackets are dropped.
fn split_port(address: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match address.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        Some(_) | None => (address, None),
    }
}

impl Redfish {
    /// Makes the switch; nothing is sent yet.
    ///
    /// Errors: [`Error::Config`], or [`Error::ForeignLink`] if `systems_uri` is on another host than `base`.
    pub fn new(config: Config) -> Result<Self, Error> {
        let channel = Channel::new(&config.base, &config.credentials, &config.tls)?;
        let system = config
            .systems_uri
            .map(|uri| channel.resolve(&config.base, &uri, "resolving the systems URI"))
            .transpose()?;
        Ok(Self { channel, base: config.base, system, product: OnceLock::new() })
    }

    /// Reads the system: the chosen one, else the only one.
    async fn system(&self, by: Instant) -> Result<(Url, schema::System), Error> {
        const DOING: &str = "reading the system";
        let url = match &self.system {
            Some(url) => url.clone(),
            None => self.only_system(by).await?,
        };
        match self.channel.get(&url, DOING, by).await {
            Ok(system) => Ok((url, system)),
            Err(Error::Refused { status: 404, .. }) => Err(Error::NoSystem { at: url.to_string() }),
            Err(error) => Err(error),
        }
    }

    /// Finds the only system: never the first or the last of several, which may be another machine.
    async fn only_system(&self, by: Instant) -> Result<Url, Error> {
        const DOING: &str = "listing the systems";
        let root: schema::ServiceRoot = self.channel.get(&self.base, "reading the service root", by).await?;
        let link = root.systems.ok_or_else(|| Error::NoSystem { at: self.base.to_string() })?;
        let list = self.channel.resolve(&self.base, &link.id, DOING)?;
        let collection: schema::Collection = self.channel.get(&list, DOING, by).await?;
        match collection.members.as_slice() {
            [] => Err(Error::NoSystem { at: list.to_string() }),
            [only] => self.channel.resolve(&list, &only.id, DOING),
            several => {
                Err(Error::Ambiguous { found: several.iter().take(8).map(|link| clean(&link.id, 80)).collect() })
            }
        }
    }

    /// Takes an Off at its word, unless the product is one that says Off for other reasons.
    async fn confirm_off(&self, url: &Url, system: &schema::System, by: Instant) -> Result<PowerState, Error> {
        match self.product(url, system, by).await? {
            Product::Other => Ok(PowerState::Off),
            Product::OpenBmc => self.chassis_off(url, system, by).await,
        }
    }

    async fn chassis_off(&self, url: &Url, system: &schema::System, by: Instant) -> Result<PowerState, Error> {
        const DOING: &str = "reading the chassis";
        let mut off = false;
        for link in system.links.chassis.iter().take(MAX_CHASSIS) {
            let chassis = self.channel.resolve(url, &link.id, DOING)?;
            let chassis: schema::Chassis = self.channel.get(&chassis, DOING, by).await?;
            match chassis.power.as_deref() {
                Some("Off") => off = true,
                // Not every chassis has power of its own; one that says nothing contradicts nothing.
                None => {}
                Some(other) => return Ok(PowerState::Other(format!("Off, but its chassis says {}", clean(other, 40)))),
            }
        }
        Ok(if off { PowerState::Off } else { PowerState::Other("Off, but no chassis says so".into()) })
    }

    /// Recognises the product, once.
    async fn product(&self, url: &Url, system: &schema::System, by: Instant) -> Result<Product, Error> {
        const DOING: &str = "reading the manager";
        if let Some(product) = self.product.get() {
            return Ok(*product);
        }
        let product = match system.links.managed_by.first() {
            None => Product::Other,
            Some(link) => {
                let manager = self.channel.resolve(url, &link.id, DOING)?;
                match self.channel.get::<schema::Manager>(&manager, DOING, by).await {
                    Ok(manager) => products::recognise(&manager),
                    // Not there, or not for this account: an Off must not hang on it for ever. Every product of the
                    // table lets any account read its manager. Not remembered: a BMC that starts up may say 404.
                    Err(Error::Auth { status: 403, .. } | Error::Refused { .. }) => return Ok(Product::Other),
                    Err(error) => return Err(error),
                }
            }
        };
        Ok(*self.product.get_or_init(|| product))
    }

    /// Chooses the reset type: the first wanted one that is offered.
    async fn reset_type(
        &self,
        url: &Url,
        reset: &schema::Reset,
        command: Command,
        by: Instant,
    ) -> Result<&'static str, Error> {
        let wanted = reset_types(command);
        let Some(offered) = self.offered(url, reset, by).await?.filter(|offered| !offered.is_empty()) else {
            return Ok(wanted[0]); // It doesn't say what it takes: it will say so if it doesn't take this.
        };
        match wanted.iter().find(|want| offered.iter().any(|offer| offer == *want)) {
            Some(want) => Ok(want),
            None => Err(not_offered(command, &offered)),
        }
    }

    /// The reset types the system offers, from the action itself or from its ActionInfo.
    async fn offered(&self, url: &Url, reset: &schema::Reset, by: Instant) -> Result<Option<Vec<String>>, Error> {
        const DOING: &str = "reading what resets the system offers";
        let Some(link) = reset.info.as_ref().filter(|_| reset.allowable.is_none()) else {
            return Ok(reset.allowable.clone());
        };
        let info = self.channel.resolve(url, link, DOING)?;
        let info: schema::ActionInfo = self.channel.get(&info, DOING, by).await?;
        Ok(info
            .parameters
            .into_iter()
            .find(|parameter| parameter.name == "ResetType")
            .and_then(|found| found.allowable))
    }
}

impl fmt::Debug for Redfish {
    /// Says which system it is, and nothing of the account.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let system = self.system.as_ref().map(Url::as_str);
        f.debug_struct("Redfish").field("base", &self.base.as_str()).field("system", &system).finish_non_exhaustive()
    }
}

impl PowerSwitch for Redfish {
    async fn status(&self, by: Instant) -> Result<Status, Error> {
        let (url, system) = self.system(by).await?;
        let power = match system.power.as_deref() {
            Some("On") => PowerState::On,
            Some("Off") => self.confirm_off(&url, &system, by).await?,
            Some(other) => PowerState::Other(clean(other, 40)),
            None => {
                return Err(Error::Protocol { doing: "reading the system", reason: "it has no PowerState".into() });
            }
        };
        let system_uuid = system.uuid.as_deref().and_then(SystemUuid::parse);
        tracing::debug!(%url, ?power, "read the system");
        Ok(Status { power, system_uuid, source: url.to_string() })
    }

    async fn command(&self, command: Command, expect: Option<&SystemUuid>, by: Instant) -> Result<(), Error> {
        let (url, system) = self.system(by).await?;
        let found = system.uuid.as_deref().and_then(SystemUuid::parse);
        if let (Some(expected), Some(found)) = (expect, found)
            && !expected.same_machine(&found)
        {
            return Err(Error::WrongMachine { expected: *expected, found });
        }
        let doing = match command {
            Command::Off => "sending ForceOff",
            Command::On => "sending On",
        };
        let reset = system.actions.reset.ok_or_else(|| not_offered(command, &[]))?;
        let reset_type = self.reset_type(&url, &reset, command, by).await?;
        let target = self.channel.resolve(&url, &reset.target, doing)?;
        let document = json!({ "ResetType": reset_type }).to_string();
        let sent = self.channel.post(&target, document.into(), doing, by).await;
        tracing::debug!(%target, reset_type, ?sent, "sent a reset");
        sent
    }
}

/// The reset types that do what a command says, the best first (DSP2046, ComputerSystem.ResetType).
///
/// For Off there is no substitute: GracefulShutdown asks an operating system that may hang, PushPowerButton toggles.
fn reset_types(command: Command) -> &'static [&'static str] {
    match command {
        Command::Off => &["ForceOff"],
        Command::On => &["On", "ForceOn"],
    }
}

fn not_offered(command: Command, offered: &[String]) -> Error {
    let offered = offered.iter().take(16).map(|offer| clean(offer, 40)).collect();
    Error::NotOffered { want: reset_types(command)[0], offered }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(address: &str, port: Option<u16>) -> String {
        base_url(address, port, "/redfish/v1").map_or_else(|error| error.to_string(), |url| url.to_string())
    }

    #[test]
    fn an_address_is_a_host_with_or_without_a_port() {
        assert_eq!(base("10.0.0.7", None), "https://10.0.0.7/redfish/v1");
        assert_eq!(base("bmc.example", Some(8443)), "https://bmc.example:8443/redfish/v1");
        assert_eq!(base("10.0.0.7:8443", None), "https://10.0.0.7:8443/redfish/v1");
        assert_eq!(base("10.0.0.7:8443", Some(8443)), "https://10.0.0.7:8443/redfish/v1");
        assert_eq!(base("fd00::7", None), "https://[fd00::7]/redfish/v1");
        assert_eq!(base("fd00::7", Some(8443)), "https://[fd00::7]:8443/redfish/v1");
        assert_eq!(base("[fd00::7]", None), "https://[fd00::7]/redfish/v1");
        assert_eq!(base("[fd00::7]:8443", None), "https://[fd00::7]:8443/redfish/v1");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (address, port) in [
            ("", None),
            ("https://bmc", None),
            ("bmc/path", None),
            ("user@bmc", None),
            ("bmc:x", None),
            ("b m c", None),
            ("bmc:1", Some(2)),
            ("[fd00::7", None),
        ] {
            assert!(base(address, port).starts_with("the BMC's address"), "{address:?}: {}", base(address, port));
        }
        assert!(base_url("bmc", None, "redfish/v1").is_err());
    }

    #[test]
    fn the_credentials_stay_on_the_bmc() {
        let config = |base: &str, systems_uri: Option<&str>| Config {
            base: Url::parse(base).expect("a URL"),
            systems_uri: systems_uri.map(str::to_owned),
            credentials: Credentials { username: "admin".into(), password: "s3cr3t".to_owned().into() },
            tls: Tls::Insecure,
        };
        let label = |config| Redfish::new(config).map(drop).map_err(|error| error.label());
        let bmc = "https://bmc:8443/redfish/v1";
        assert_eq!(label(config(bmc, Some("/redfish/v1/Systems/1"))), Ok(()));
        assert_eq!(label(config(bmc, Some("https://bmc:8443/redfish/v1/Systems/1"))), Ok(()));
        for elsewhere in ["https://bmc/redfish/v1/Systems/1", "http://bmc:8443/x", "//other/redfish/v1/Systems/1"] {
            assert_eq!(label(config(bmc, Some(elsewhere))), Err("BMCForeignLink"), "{elsewhere}");
        }
        assert_eq!(label(config("http://bmc/redfish/v1", None)), Err("BMCConfigInvalid"));
        assert_eq!(label(config("https://admin:s3cr3t@bmc/redfish/v1", None)), Err("BMCConfigInvalid"));
        assert!(!format!("{:?}", config(bmc, None)).contains("s3cr3t"));
    }
}

//! Power through Redfish (DMTF DSP0266).
//!
//! A reading is one GET, or three where the system has to be found first; a command is that, and one POST: all on one
//! connection, if the BMC keeps it open. Nothing is kept between calls but the product (whether it is one that
//! [`products`] distrusts), so a BMC that comes to manage a second system is noticed at once.

mod answer;
mod http;
mod line;
mod products;
mod schema;
mod tls;

use std::fmt;
use std::sync::OnceLock;

use serde_json::json;
use tokio::time::Instant;
use url::{Host, Url};

use self::http::{Call, Channel, Found, same_path};
use self::products::Product;
use crate::error::clean;
use crate::{Command, Credentials, Error, PowerState, PowerSwitch, Ready, Status, SystemUuid, Tls, Visit};

/// Chassis read for one system, at most. Real systems list one or two.
const MAX_CHASSIS: usize = 8;

/// Managers read for one system, at most. Real systems have one, GPU servers two.
const MAX_MANAGERS: usize = 4;

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
    if port == 0 {
        return Err(bad("there is no port 0"));
    }
    if host.is_empty() || host.contains(['/', '@', '?', '#', '\\', '%']) || host.contains(char::is_whitespace) {
        return Err(bad("neither a host name nor an IP address"));
    }
    let url_host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let url = Url::parse(&format!("https://{url_host}:{port}{uri}")).map_err(|error| bad(&error.to_string()))?;
    match url.host() {
        // 010.0.0.7 is 8.0.0.7 to a URL, and 10.7 is 10.0.0.7: hardly what was meant.
        Some(Host::Ipv4(ip)) if ip.to_string() != host => Err(bad("not an IP address in its usual form")),
        Some(_) | None => Ok(url),
    }
}

/// Splits `host:port`, `[v6]:port`, `[v6]`, `v6` and `host`; the brackets are dropped where they are well placed.
pub(crate) fn split_port(address: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        && host.contains(':')
    {
        match (rest, rest.strip_prefix(':')) {
            ("", _) => return (host, None),
            (_, Some(port)) => return (host, Some(port)),
            (_, None) => {}
        }
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
    async fn system(&self, call: &mut Call<'_>) -> Result<(Url, schema::System), Error> {
        const DOING: &str = "reading the system";
        let url = match &self.system {
            Some(url) => url.clone(),
            None => self.only_system(call).await?,
        };
        match call.get::<schema::System>(&url, DOING).await {
            Ok(Found { url, resource }) => {
                self.is_about(&url, resource.id.as_deref(), DOING)?;
                Ok((url, resource))
            }
            Err(Error::Refused { status: 404, .. }) => Err(Error::NoSystem { at: url.to_string() }),
            Err(error) => Err(error),
        }
    }

    /// Makes sure that a resource is the one that was asked for, if it says which it is.
    fn is_about(&self, url: &Url, id: Option<&str>, doing: &'static str) -> Result<(), Error> {
        let Some(id) = id else { return Ok(()) };
        if same_path(&self.channel.resolve(url, id, doing)?, url) {
            return Ok(());
        }
        Err(Error::Protocol { doing, reason: format!("asked for {}, it answered with {}", url.path(), clean(id, 100)) })
    }

    /// Finds the only system: never the first or the last of several, which may be another machine.
    async fn only_system(&self, call: &mut Call<'_>) -> Result<Url, Error> {
        const DOING: &str = "listing the systems";
        let root = call.get::<schema::ServiceRoot>(&self.base, "reading the service root").await?;
        let link = root.resource.systems.ok_or_else(|| Error::NoSystem { at: self.base.to_string() })?;
        let list = self.channel.resolve(&root.url, &link.id, DOING)?;
        let list = call.get::<schema::Collection>(&list, DOING).await?;
        match list.resource.members.as_slice() {
            [] => Err(Error::NoSystem { at: list.url.to_string() }),
            [only] if !list.resource.is_partial() => self.channel.resolve(&list.url, &only.id, DOING),
            several => {
                Err(Error::Ambiguous { found: several.iter().take(8).map(|link| clean(&link.id, 80)).collect() })
            }
        }
    }

    /// Makes a reading of the system that has just been read.
    async fn read(&self, call: &mut Call<'_>, url: &Url, system: &schema::System) -> Result<Status, Error> {
        let read_at = Instant::now();
        let power = match system.power.as_deref() {
            Some("On") => PowerState::On,
            Some("Off") => self.confirm_off(call, url, system).await?,
            Some(other) => PowerState::Other(clean(other, 40)),
            None => {
                return Err(Error::Protocol { doing: "reading the system", reason: "it has no PowerState".into() });
            }
        };
        let system_uuid = system.uuid.as_deref().and_then(SystemUuid::parse);
        tracing::debug!(%url, ?power, "read the system");
        Ok(Status { power, system_uuid, read_at, source: url.to_string() })
    }

    /// Makes sure that the system offers what switches it off and on.
    async fn takes_commands(&self, call: &mut Call<'_>, url: &Url, reset: Option<&schema::Reset>) -> Result<(), Error> {
        const DOING: &str = "reading what resets the system offers";
        let reset = reset.ok_or_else(|| not_offered(Command::Off, &[]))?;
        self.target(url, reset, Command::Off, DOING)?;
        let offered = self.offered(call, url, reset).await?;
        chosen(Command::Off, offered.as_deref())?;
        chosen(Command::On, offered.as_deref())?;
        Ok(())
    }

    /// Where commands are sent to.
    fn target(&self, url: &Url, reset: &schema::Reset, command: Command, doing: &'static str) -> Result<Url, Error> {
        let target = reset.target.as_deref().ok_or_else(|| not_offered(command, &[]))?;
        let target = self.channel.resolve(url, target, doing)?;
        if !is_part_of(&target, url) {
            let reason = format!("the Reset of {} is at {}", url.path(), target.path());
            return Err(Error::Protocol { doing, reason: clean(&reason, 200) });
        }
        Ok(target)
    }

    /// Takes an Off at its word, unless the product is one that says Off for other reasons.
    async fn confirm_off(&self, call: &mut Call<'_>, url: &Url, system: &schema::System) -> Result<PowerState, Error> {
        match self.product(call, url, system).await? {
            Product::Other => Ok(PowerState::Off),
            Product::Unread => self.chassis_off(call, url, system, true).await,
            Product::OpenBmc => self.chassis_off(call, url, system, false).await,
        }
    }

    /// Asks the chassis for confirmation; where `silence` confirms, it is enough that none says otherwise.
    async fn chassis_off(
        &self,
        call: &mut Call<'_>,
        url: &Url,
        system: &schema::System,
        silence: bool,
    ) -> Result<PowerState, Error> {
        const DOING: &str = "reading the chassis";
        let mut off = silence;
        for link in system.links.chassis.iter().take(MAX_CHASSIS) {
            let chassis = self.channel.resolve(url, &link.id, DOING)?;
            let chassis = call.get::<schema::Chassis>(&chassis, DOING).await?;
            self.is_about(&chassis.url, chassis.resource.id.as_deref(), DOING)?;
            match chassis.resource.power.as_deref() {
                Some("Off") => off = true,
                // Not every chassis has power of its own; one that says nothing contradicts nothing.
                None => {}
                Some(other) => return Ok(PowerState::Other(format!("Off, but its chassis says {}", clean(other, 40)))),
            }
        }
        Ok(if off { PowerState::Off } else { PowerState::Other("Off, but no chassis says so".into()) })
    }

    /// Recognises the product, once.
    async fn product(&self, call: &mut Call<'_>, url: &Url, system: &schema::System) -> Result<Product, Error> {
        const DOING: &str = "reading the manager";
        if let Some(product) = self.product.get() {
            return Ok(*product);
        }
        let mut product = Product::Other;
        for link in system.links.managed_by.iter().take(MAX_MANAGERS) {
            let manager = self.channel.resolve(url, &link.id, DOING)?;
            match call.get::<schema::Manager>(&manager, DOING).await {
                Ok(manager) => match products::recognise(&manager.resource) {
                    Product::OpenBmc => return Ok(*self.product.get_or_init(|| Product::OpenBmc)),
                    Product::Other | Product::Unread => {}
                },
                // Not there, or not for this account: an Off must not hang on it for ever.
                Err(Error::Auth { status: 403, .. } | Error::Refused { .. }) => product = Product::Unread,
                Err(error) => return Err(error),
            }
        }
        // What was not seen is not remembered: a BMC that starts up may say 404, or not yet name its manager.
        if product == Product::Other && !system.links.managed_by.is_empty() {
            return Ok(*self.product.get_or_init(|| product));
        }
        Ok(product)
    }

    /// The reset types the system offers, from the action itself or from its ActionInfo.
    async fn offered(
        &self,
        call: &mut Call<'_>,
        url: &Url,
        reset: &schema::Reset,
    ) -> Result<Option<Vec<String>>, Error> {
        const DOING: &str = "reading what resets the system offers";
        let Some(link) = reset.info.as_ref().filter(|_| reset.allowable.is_none()) else {
            return Ok(reset.allowable.clone());
        };
        let info = self.channel.resolve(url, link, DOING)?;
        let info = call.get::<schema::ActionInfo>(&info, DOING).await?;
        Ok(info
            .resource
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
        let mut call = self.channel.call(by);
        let (url, system) = self.system(&mut call).await?;
        self.read(&mut call, &url, &system).await
    }

    async fn ready(&self, by: Instant) -> Result<Ready, Error> {
        let mut call = self.channel.call(by);
        let (url, system) = self.system(&mut call).await?;
        let status = self.read(&mut call, &url, &system).await?;
        let lacks = self.takes_commands(&mut call, &url, system.actions.reset.as_ref()).await.err();
        Ok(Ready { status, lacks })
    }

    /// One connection.
    async fn visit(&self, command: Command, by: Instant) -> Result<Visit, Error> {
        let mut call = self.channel.call(by);
        let (url, system) = self.system(&mut call).await?;
        let before = self.read(&mut call, &url, &system).await?;
        let answer = self.send(&mut call, command, &url, system).await;
        let after = match answer {
            Ok(()) => self.read_again(&mut call, &url).await.ok(),
            Err(_) => None,
        };
        Ok(Visit { before, answer, after })
    }

    async fn command(&self, command: Command, expect: Option<&SystemUuid>, by: Instant) -> Result<(), Error> {
        let mut call = self.channel.call(by);
        let (url, system) = self.system(&mut call).await?;
        let found = system.uuid.as_deref().and_then(SystemUuid::parse);
        if let (Some(expected), Some(found)) = (expect, found)
            && !expected.same_machine(&found)
        {
            return Err(Error::WrongMachine { expected: *expected, found });
        }
        self.send(&mut call, command, &url, system).await
    }
}

impl Redfish {
    /// Sends a command to the system that was read.
    async fn send(
        &self,
        call: &mut Call<'_>,
        command: Command,
        url: &Url,
        system: schema::System,
    ) -> Result<(), Error> {
        let doing = match command {
            Command::Off => "sending ForceOff",
            Command::On => "sending On",
        };
        let reset = system.actions.reset.ok_or_else(|| not_offered(command, &[]))?;
        let target = self.target(url, &reset, command, doing)?;
        let reset_type = chosen(command, self.offered(call, url, &reset).await?.as_deref())?;
        let document = json!({ "ResetType": reset_type }).to_string();
        let sent = call.post(&target, document.into(), doing).await;
        tracing::debug!(%target, reset_type, ?sent, "sent a reset");
        sent
    }

    /// Reads the same system once more, without looking for it.
    async fn read_again(&self, call: &mut Call<'_>, url: &Url) -> Result<Status, Error> {
        const DOING: &str = "reading the system";
        let Found { url, resource } = call.get::<schema::System>(url, DOING).await?;
        self.is_about(&url, resource.id.as_deref(), DOING)?;
        self.read(call, &url, &resource).await
    }
}

/// Tells whether an action belongs to this system: its path lies under the system's (DSP0266, "Actions"). One that lies
/// elsewhere may switch another machine off.
fn is_part_of(action: &Url, system: &Url) -> bool {
    let (action, system) = (action.path().to_ascii_lowercase(), system.path().to_ascii_lowercase());
    let below = action.strip_prefix(system.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/'));
    // Dots are resolved by now; an encoded slash may hide some.
    below.is_some_and(|rest| !rest.is_empty() && !rest.contains("%2f") && !rest.contains("%5c"))
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

/// Chooses the reset type: the first wanted one that is offered.
fn chosen(command: Command, offered: Option<&[String]>) -> Result<&'static str, Error> {
    let wanted = reset_types(command);
    let Some(offered) = offered.filter(|offered| !offered.is_empty()) else {
        return Ok(wanted[0]); // It doesn't say what it takes: it will say so if it doesn't take this.
    };
    match wanted.iter().find(|want| offered.iter().any(|offer| offer == *want)) {
        Some(want) => Ok(want),
        None => Err(not_offered(command, offered)),
    }
}

fn not_offered(command: Command, offered: &[String]) -> Error {
    let offered = offered.iter().take(16).map(|offer| clean(offer, 40)).collect();
    Error::NotOffered { want: reset_types(command)[0], offered }
}

#[cfg(test)]
mod tests;

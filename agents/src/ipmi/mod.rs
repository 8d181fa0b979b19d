//! Power through IPMI 2.0 over LAN (RMCP+, "lanplus").
//!
//! A reading is one session: open it, take the privilege, read the chassis and the system's GUID, close it; seven round
//! trips. A command is the same with Chassis Control instead. Nothing is kept between calls but the cipher suite that
//! worked. The codec is public, for servers that play a BMC.

pub mod crypto;
mod line;
pub mod packet;
pub mod session;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;
use zeroize::Zeroizing;

use self::crypto::Suite;
use self::line::Line;
use self::packet::{APP, CHASSIS};
use self::session::{Login, Reply};
use crate::error::clean;
use crate::{Command, Credentials, Error, PowerState, PowerSwitch, Ready, Status, SystemUuid, Visit};

/// Bytes of a user's name, at most (section 22.28).
pub(crate) const MAX_USER: usize = 16;
/// Bytes of a password for IPMI 2.0, at most (section 22.30).
const MAX_PASSWORD: usize = 20;
/// Bytes of Kg, at most (section 22.25).
const MAX_KG: usize = 20;
/// The port of RMCP (section 13.1.2).
const PORT: u16 = 623;
/// Addresses of one host that are tried: one for IPv4, one for IPv6, and as many again.
const MAX_ADDRESSES: usize = 4;
/// What is kept of a call's time for closing the session: a round trip on a slow network. A short call keeps a tenth.
const CLOSING: Duration = Duration::from_millis(500);

const SET_SESSION_PRIVILEGE: u8 = 0x3b;
const GET_SYSTEM_GUID: u8 = 0x37;
const CHASSIS_STATUS: u8 = 0x01;
const CHASSIS_CONTROL: u8 = 0x02;
/// Completion code: the session's privilege is too low (section 5.2).
const PRIVILEGE_TOO_LOW: u8 = 0xd4;

/// How to reach one BMC.
#[derive(Clone, Debug)]
pub struct Config {
    /// A host name, an IPv4 or an IPv6 address (with or without brackets), optionally with a port; an IPv6 address with
    /// a port needs the brackets.
    pub address: String,
    /// The port; 623 if there is none here nor in the address.
    pub port: Option<u16>,
    /// The account. A name of at most 16 bytes (it may be empty), a password of at most 20.
    pub credentials: Credentials,
    /// The BMC's key Kg in hexadecimal, at most 40 digits, where it has one. All zeros is as good as none.
    pub kg: Option<SecretString>,
    /// The cipher suite: 3 or 17. `None`: 17, then 3; what worked is remembered in the [`Ipmi`].
    pub suite: Option<u8>,
    /// The privilege that the session is to have. To switch takes at least [`Privilege::Operator`].
    pub privilege: Privilege,
    /// What the BMC gets wrong.
    pub quirks: Quirks,
}

/// What a session may do (section 6.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// To look.
    User = 2,
    /// To switch, too.
    Operator = 3,
    /// Everything.
    #[default]
    Administrator = 4,
}

impl Privilege {
    /// Reads the name of a level, in any case.
    ///
    /// Errors: [`Error::Config`] for anything else, also for `callback`, which may not even look.
    pub fn parse(name: &str) -> Result<Self, Error> {
        let all = [Self::User, Self::Operator, Self::Administrator];
        let found = all.into_iter().find(|level| level.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            Error::Config(format!("the privilege {:?} is none of user, operator, administrator", clean(name, 40)))
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }
}

/// What some BMCs get wrong, and we then do their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// The BMC hashes the privilege of the Open Session Request where the one of RAKP 1 belongs. Known as the workaround
    /// `opensesspriv` of FreeIPMI; MAAS sets it by default, as "required on many BMCs". Without it they seem to have
    /// another password.
    pub open_session_privilege: bool,
}

/// The power switch of one machine, over IPMI.
pub struct Ipmi {
    host: String,
    port: u16,
    login: Login,
    suite: Option<Suite>,
    worked: Mutex<Option<Suite>>,
}

impl Ipmi {
    /// Makes the switch; nothing is sent yet.
    ///
    /// Errors: [`Error::Config`].
    pub fn new(config: Config) -> Result<Self, Error> {
        let (host, port) = host_and_port(&config.address, config.port)?;
        let Credentials { username, password } = config.credentials;
        if username.len() > MAX_USER {
            return Err(Error::Config(format!("a username of more than {MAX_USER} bytes is too long for IPMI")));
        }
        if password.expose_secret().len() > MAX_PASSWORD {
            return Err(Error::Config(format!("a password of more than {MAX_PASSWORD} bytes is too long for IPMI")));
        }
        let suite = config.suite.map(supported).transpose()?;
        let login = Login {
            address: display(&host, port),
            user: username,
            password: Zeroizing::new(password.expose_secret().as_bytes().to_vec()),
            key: config.kg.as_ref().map(key).transpose()?.flatten(),
            privilege: config.privilege,
            open_privilege: config.quirks.open_session_privilege,
        };
        Ok(Self { host, port, login, suite, worked: Mutex::default() })
    }

    /// The suites to try, the best first.
    fn suites(&self) -> Vec<Suite> {
        match (self.suite, *self.worked.lock().expect("no panic while held")) {
            (Some(asked), _) => vec![asked],
            (None, Some(Suite::Three)) => vec![Suite::Three, Suite::Seventeen],
            (None, Some(Suite::Seventeen) | None) => vec![Suite::Seventeen, Suite::Three],
        }
    }

    /// Opens a session with the privilege that was asked for.
    async fn open(&self, by: Instant) -> Result<Line<'_>, Error> {
        let unreachable =
            |reason: &str| Error::Unreachable { address: self.login.address.clone(), reason: reason.into() };
        let found = timeout_at(by, lookup_host((self.host.as_str(), self.port))).await;
        let found = found.map_err(|_| Error::Deadline { doing: "looking up the BMC's name" })?;
        let found = found.map_err(|error| unreachable(&clean(&error.to_string(), 200)))?;
        let addresses: Vec<_> = found.take(MAX_ADDRESSES).collect();
        let mut failed = unreachable("its name has no address");
        for (before, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - before).expect("a handful");
            let now = Instant::now();
            let share = now + by.saturating_duration_since(now) / left;
            match Line::open(*address, &self.login, self.suites(), share).await {
                Ok(mut line) => {
                    *self.worked.lock().expect("no panic while held") = line.suite();
                    return match self.raise(&mut line, before_closing(by)).await {
                        Ok(()) => Ok(line),
                        Err(error) => {
                            line.close(by).await;
                            Err(error)
                        }
                    };
                }
                // Another address of the host may do better.
                Err(error @ (Error::Unreachable { .. } | Error::Deadline { .. })) => failed = error,
                Err(error) => return Err(error),
            }
        }
        Err(failed)
    }

    /// Takes the privilege: a session begins as a user's, whatever the handshake granted (section 22.18).
    async fn raise(&self, line: &mut Line<'_>, by: Instant) -> Result<(), Error> {
        const DOING: &str = "raising the privilege";
        let wanted = self.login.privilege as u8;
        let reply = line.ask(APP, SET_SESSION_PRIVILEGE, &[wanted], DOING, by).await?;
        match (reply.code, reply.data.first()) {
            (0, Some(level)) if level & 0x0f >= wanted => Ok(()),
            // Not for this user; not on this channel; too low to ask.
            (0, Some(_)) | (0x80 | 0x81 | PRIVILEGE_TOO_LOW, _) => {
                Err(Error::PrivilegeTooLow { doing: DOING, privilege: self.login.privilege.name() })
            }
            (0, None) => Err(Error::Protocol { doing: DOING, reason: "it does not say which it is".into() }),
            (code, _) => Err(refused(DOING, code)),
        }
    }

    /// Makes something of a completion code.
    fn judge(&self, reply: &Reply, doing: &'static str) -> Result<(), Error> {
        match reply.code {
            0 => Ok(()),
            PRIVILEGE_TOO_LOW => Err(Error::PrivilegeTooLow { doing, privilege: self.login.privilege.name() }),
            code => Err(refused(doing, code)),
        }
    }

    async fn read(&self, line: &mut Line<'_>, by: Instant) -> Result<Status, Error> {
        let (power, read_at) = self.power(line, by).await?;
        let system_uuid = self.identity(line, by).await?;
        Ok(self.status_of(power, read_at, system_uuid))
    }

    fn status_of(&self, power: PowerState, read_at: Instant, system_uuid: Option<SystemUuid>) -> Status {
        let source = format!("ipmi://{}", self.login.address);
        tracing::debug!(source, ?power, "read the chassis");
        Status { power, system_uuid, read_at, source }
    }

    async fn power(&self, line: &mut Line<'_>, by: Instant) -> Result<(PowerState, Instant), Error> {
        const DOING: &str = "reading the chassis status";
        let reply = line.ask(CHASSIS, CHASSIS_STATUS, &[], DOING, by).await?;
        let read_at = Instant::now();
        self.judge(&reply, DOING)?;
        // Power state, last event, miscellany; front panel only on some (section 28.2).
        let power = match reply.data.as_slice() {
            [state, _, _, ..] if state & 1 == 1 => PowerState::On,
            [_, _, _, ..] => PowerState::Off,
            short => {
                return Err(Error::Protocol { doing: DOING, reason: format!("{} bytes instead of 3", short.len()) });
            }
        };
        Ok((power, read_at))
    }

    /// Reads the system's GUID. `None` if the BMC has none to tell, in whatever way it puts that.
    async fn identity(&self, line: &mut Line<'_>, by: Instant) -> Result<Option<SystemUuid>, Error> {
        let reply = line.ask(APP, GET_SYSTEM_GUID, &[], "reading the system GUID", by).await?;
        // The byte order is anybody's guess (ipmitool#25); comparisons allow for all three.
        let guid = <[u8; 16]>::try_from(reply.data).ok().filter(|_| reply.code == 0);
        Ok(guid.and_then(|guid| SystemUuid::parse(&Uuid::from_bytes(guid).to_string())))
    }

    async fn switch(
        &self,
        line: &mut Line<'_>,
        command: Command,
        expect: Option<&SystemUuid>,
        by: Instant,
    ) -> Result<(), Error> {
        if let Some(expected) = expect
            && let Some(found) = self.identity(line, by).await?
            && !expected.same_machine(&found)
        {
            return Err(Error::WrongMachine { expected: *expected, found });
        }
        let (control, doing) = match command {
            Command::Off => (0, "sending power down"),
            Command::On => (1, "sending power up"),
        };
        let reply = line.ask(CHASSIS, CHASSIS_CONTROL, &[control], doing, by).await?;
        let taken = self.judge(&reply, doing);
        tracing::debug!(bmc = self.login.address, ?taken, doing);
        taken
    }
}

impl fmt::Debug for Ipmi {
    /// Says which BMC it is, and nothing of the account.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ipmi").field("address", &self.login.address).finish_non_exhaustive()
    }
}

impl PowerSwitch for Ipmi {
    async fn status(&self, by: Instant) -> Result<Status, Error> {
        let mut line = self.open(by).await?;
        let status = self.read(&mut line, before_closing(by)).await;
        line.close(by).await;
        status
    }

    /// One session, nine round trips.
    async fn visit(&self, command: Command, by: Instant) -> Result<Visit, Error> {
        let mut line = self.open(by).await?;
        let end = before_closing(by);
        let found = match self.read(&mut line, end).await {
            Err(error) => Err(error),
            Ok(before) => {
                let answer = self.switch(&mut line, command, None, end).await;
                let after = match answer {
                    Ok(()) => self.power(&mut line, end).await.ok(),
                    Err(_) => None,
                };
                let after = after.map(|(power, read_at)| self.status_of(power, read_at, before.system_uuid));
                Ok(Visit { before, answer, after })
            }
        };
        line.close(by).await;
        found
    }

    /// The session has the privilege that was asked for, or there is none; Chassis Control takes an operator's (appendix G).
    async fn ready(&self, by: Instant) -> Result<Ready, Error> {
        let status = self.status(by).await?;
        let privilege = self.login.privilege;
        let lacks = (privilege < Privilege::Operator)
            .then(|| Error::PrivilegeTooLow { doing: "switch the power", privilege: privilege.name() });
        Ok(Ready { status, lacks })
    }

    /// Caveats: over UDP "at most once" can't be had. A power down that nobody answers is sent again, inside of the same
    /// session and before `by`: a BMC that hears it twice cuts the power twice.
    async fn command(&self, command: Command, expect: Option<&SystemUuid>, by: Instant) -> Result<(), Error> {
        let mut line = self.open(by).await?;
        let taken = self.switch(&mut line, command, expect, before_closing(by)).await;
        line.close(by).await;
        taken
    }
}

/// When work has to end for the session to be closed by `by`.
fn before_closing(by: Instant) -> Instant {
    let left = by.saturating_duration_since(Instant::now());
    by - CLOSING.min(left / 10)
}

fn supported(number: u8) -> Result<Suite, Error> {
    Suite::numbered(number)
        .ok_or_else(|| Error::Config(format!("cipher suite {number} is neither 3 nor 17: use driver: Script")))
}

/// Reads Kg; `None` for the one that means none.
fn key(hex: &SecretString) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let bad = || Error::Config(format!("the key Kg is not made of at most {MAX_KG} pairs of hexadecimal digits"));
    let digits = hex.expose_secret().trim();
    if digits.len() > 2 * MAX_KG || digits.len() % 2 != 0 {
        return Err(bad());
    }
    let mut key = Zeroizing::new(Vec::with_capacity(MAX_KG));
    for pair in digits.as_bytes().chunks(2) {
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or_else(bad);
        key.push(u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).map_err(|_| bad())?);
    }
    Ok(key.iter().any(|byte| *byte != 0).then_some(key))
}

fn host_and_port(address: &str, port: Option<u16>) -> Result<(String, u16), Error> {
    let bad = |reason: &str| Error::Config(format!("the BMC's address {:?}: {reason}", clean(address, 100)));
    let (host, own) = crate::redfish::split_port(address.trim());
    let own = own.map(str::parse::<u16>).transpose().map_err(|_| bad("the port is not a number"))?;
    let port = match (own, port) {
        (Some(one), Some(other)) if one != other => return Err(bad("its port is not the given ipport")),
        (Some(port), _) | (None, Some(port)) => port,
        (None, None) => PORT,
    };
    if port == 0 {
        return Err(bad("there is no port 0"));
    }
    let odd = |c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%'));
    let digits_only = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    let v6 = host.contains(':');
    if host.is_empty()
        || host.contains(odd)
        || (v6 && host.split('%').next().is_none_or(|ip| ip.parse::<std::net::Ipv6Addr>().is_err()))
    {
        return Err(bad("neither a host name nor an IP address"));
    }
    // 010.0.0.7 is 8.0.0.7 to a resolver, and 10.7 is 10.0.0.7: hardly what was meant.
    if digits_only && host.parse::<std::net::Ipv4Addr>().is_err() {
        return Err(bad("not an IP address in its usual form"));
    }
    Ok((host.to_owned(), port))
}

/// Host and port, for people.
fn display(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What a completion code means (section 5.2).
fn refused(doing: &'static str, code: u8) -> Error {
    let meaning = match code {
        0xc1 => "it does not know the command",
        0xc3 => "it ran out of time",
        0xc7 => "the request has a wrong length",
        0xc9 | 0xcc => "the request has a wrong parameter",
        0xcb => "it has nothing of that kind",
        0xce => "it can't answer",
        0xd0..=0xd2 => "it is starting or being updated",
        0xd3 => "it can't reach what is to do that",
        0xd5 => "not in the present state",
        0xd6 => "it is disabled",
        _ => "it does not say why in known words",
    };
    Error::IpmiRefused { doing, code, meaning }
}

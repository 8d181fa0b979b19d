//! Why a BMC could not be read or commanded. One sentence each, fit for a status field or an event.

use std::time::Duration;

use crate::SystemUuid;

/// The most that is quoted of what a fence agent's script wrote, in characters.
const MAX_WORDS: usize = 200;

/// Why a call to a BMC failed.
///
/// Messages contain no credentials, are at most a few hundred characters long and have no control characters, also where
/// they quote the BMC. `doing` is what we were at: "reading the system".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection came about (refused, no route, name unknown, TLS handshake cut off): nothing was sent.
    #[error("cannot reach the BMC at {address}: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the network said.
        reason: String,
    },
    /// The connection was lost before the whole answer came. The request may have arrived.
    #[error("the BMC gave no answer while {doing}: {reason}")]
    NoAnswer {
        /// What we were at.
        doing: &'static str,
        /// How the connection ended.
        reason: String,
    },
    /// The deadline passed. A request may have arrived.
    #[error("the BMC did not answer in time while {doing}")]
    Deadline {
        /// What we were at.
        doing: &'static str,
    },
    /// The BMC does not accept the account, or does not let it do this. Trying again may lock the account.
    #[error("the BMC refused the credentials while {doing} (HTTP {status}): check username and password in the Secret")]
    Auth {
        /// What we were at.
        doing: &'static str,
        /// 401 or 403.
        status: u16,
    },
    /// The BMC has another password for this account (IPMI: what it proves does not fit ours). Our own was not sent.
    #[error("the BMC has another password for this user: check username and password in the Secret")]
    WrongPassword,
    /// The BMC has no such user, or none that may log in over this network.
    #[error("the BMC knows no such user, or none that may use IPMI over the network: check the username in the Secret")]
    UnknownUser,
    /// The BMC has another key Kg than we have, or one where we have none.
    #[error("the BMC has another key Kg: check --hexadecimal-kg")]
    WrongKg,
    /// The account may not do this, or not with this privilege.
    #[error("the BMC does not let the account {doing} as {privilege}: check --privlvl and the account's privilege")]
    PrivilegeTooLow {
        /// What we were at.
        doing: &'static str,
        /// What we asked to be.
        privilege: &'static str,
    },
    /// The BMC has none of the cipher suites that we may use.
    #[error("the BMC has no IPMI cipher suite {}: check --cipher, or use driver: Script", numbers(tried))]
    NoCipherSuite {
        /// Their numbers.
        tried: Vec<u8>,
    },
    /// The certificate is not trusted, not for this address, or not the pinned one: nothing was sent.
    #[error(
        "the certificate of the BMC at {address} is not trusted ({reason}): set tls.caSecretName or a pin, or --ssl-insecure"
    )]
    Certificate {
        /// Host and port.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The peer speaks no TLS that we speak (TLS 1.3, or 1.2 with ECDHE): nothing was sent.
    #[error(
        "the BMC at {address} speaks no TLS newer than 1.1, or only RSA key exchange ({reason}): use driver: Script"
    )]
    OldTls {
        /// Host and port.
        address: String,
        /// What the handshake said.
        reason: String,
    },
    /// The BMC manages several systems and none was chosen.
    #[error("the BMC manages several systems ({}): choose one with --systems-uri", found.join(", "))]
    Ambiguous {
        /// Their URIs (the first few).
        found: Vec<String>,
    },
    /// The BMC has no such system, or none at all (for a while after a reset, some list none).
    #[error("the BMC has no system at {at}")]
    NoSystem {
        /// Where we looked.
        at: String,
    },
    /// The BMC says it is another machine: nothing was sent to it.
    #[error("the BMC is that of another machine: expected system UUID {expected}, found {found}")]
    WrongMachine {
        /// The machine we were sent for.
        expected: SystemUuid,
        /// The machine the BMC says it manages.
        found: SystemUuid,
    },
    /// The system does not offer the reset we need, and nothing else is a substitute.
    #[error("the system does not offer reset type {want} (it offers: {})", list(offered))]
    NotOffered {
        /// The reset type we need.
        want: &'static str,
        /// Those it offers.
        offered: Vec<String>,
    },
    /// The BMC understood and refused (HTTP 4xx).
    #[error("the BMC refused while {doing} (HTTP {status}){}", words(&[code, message]))]
    Refused {
        /// What we were at.
        doing: &'static str,
        /// The HTTP status.
        status: u16,
        /// The Redfish message ID, if any.
        code: String,
        /// The vendor's words, cleaned and cut to length.
        message: String,
    },
    /// The BMC understood and refused, in a code of IPMI.
    #[error("the BMC refused while {doing} (code {code:02X}h: {meaning})")]
    IpmiRefused {
        /// What we were at.
        doing: &'static str,
        /// The completion code, or the status of a handshake.
        code: u8,
        /// What it means.
        meaning: &'static str,
    },
    /// The BMC is busy (HTTP 503 or 429, or a code of IPMI).
    #[error("the BMC is busy while {doing}{}", pause(*retry_after))]
    Busy {
        /// What we were at.
        doing: &'static str,
        /// How long it asks us to wait (Retry-After, in whole seconds).
        retry_after: Option<Duration>,
    },
    /// The BMC failed (HTTP 5xx).
    #[error("the BMC failed while {doing} (HTTP {status})")]
    Server {
        /// What we were at.
        doing: &'static str,
        /// The HTTP status.
        status: u16,
    },
    /// What came back is not what Redfish says (bad JSON, too large, no PowerState, an odd redirect).
    #[error("the BMC answered nonsense while {doing}: {reason}")]
    Protocol {
        /// What we were at.
        doing: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A link or redirect leaves the BMC; our credentials do not follow it.
    #[error("the BMC points to another host while {doing}: {link}")]
    ForeignLink {
        /// What we were at.
        doing: &'static str,
        /// Where it points to.
        link: String,
    },
    /// There is no such fence agent.
    #[error("there is no fence agent {agent} in {at}")]
    AgentMissing {
        /// Its name.
        agent: String,
        /// Where it was looked for.
        at: String,
    },
    /// The fence agent can't be used at all.
    #[error("fence agent {agent} can't be used: {why}")]
    AgentUnfit {
        /// Its name.
        agent: String,
        /// Why not.
        why: String,
    },
    /// The fence agent's script failed, or said something that means nothing.
    #[error("{agent} failed while {doing} ({how}){}", words(&[said]))]
    Agent {
        /// Its name.
        agent: String,
        /// What we were at.
        doing: &'static str,
        /// How it ended: "exit code 1".
        how: String,
        /// Its own last words, without secrets, cleaned and cut to length.
        said: String,
    },
    /// The fence agent's script was still running at the deadline, and was killed. What it did by then is not known.
    #[error("{agent} was still {doing} at the deadline and was killed")]
    AgentKilled {
        /// Its name.
        agent: String,
        /// What we were at.
        doing: &'static str,
    },
    /// The parameters make no sense.
    #[error("{0}")]
    Config(String),
}

impl Error {
    /// Makes an [`Error::Agent`] from what the script wrote; its secrets must have been taken out.
    pub fn agent(agent: &str, doing: &'static str, how: &str, said: &str) -> Self {
        let (how, said) = (clean(how, MAX_WORDS), clean(said, MAX_WORDS));
        Self::Agent { agent: agent.to_owned(), doing, how, said }
    }

    /// Makes an [`Error::AgentUnfit`].
    pub fn agent_unfit(agent: &str, why: &str) -> Self {
        Self::AgentUnfit { agent: agent.to_owned(), why: clean(why, MAX_WORDS) }
    }

    /// Tells whether trying again may help without anybody changing anything.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::NoAnswer { .. }
            | Self::Deadline { .. }
            | Self::NoSystem { .. }
            | Self::Refused { .. }
            | Self::IpmiRefused { .. }
            | Self::Busy { .. }
            | Self::Server { .. }
            | Self::Agent { .. }
            | Self::AgentKilled { .. }
            | Self::Protocol { .. } => true,
            Self::Auth { .. }
            | Self::WrongPassword
            | Self::UnknownUser
            | Self::WrongKg
            | Self::PrivilegeTooLow { .. }
            | Self::NoCipherSuite { .. }
            | Self::Certificate { .. }
            | Self::OldTls { .. }
            | Self::Ambiguous { .. }
            | Self::WrongMachine { .. }
            | Self::NotOffered { .. }
            | Self::ForeignLink { .. }
            | Self::AgentMissing { .. }
            | Self::AgentUnfit { .. }
            | Self::Config(_) => false,
        }
    }

    /// Tells whether the BMC refused the account, so that trying it again may lock it.
    pub fn refuses_account(&self) -> bool {
        match self {
            Self::Auth { .. } | Self::WrongPassword | Self::UnknownUser | Self::WrongKg => true,
            // The account was let in, or never shown.
            Self::PrivilegeTooLow { .. } | Self::NoCipherSuite { .. } | Self::Certificate { .. } => false,
            Self::OldTls { .. } | Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::Deadline { .. } => false,
            Self::Ambiguous { .. } | Self::NoSystem { .. } | Self::WrongMachine { .. } => false,
            Self::NotOffered { .. } | Self::Refused { .. } | Self::IpmiRefused { .. } => false,
            Self::Busy { .. } | Self::Server { .. } | Self::Protocol { .. } | Self::ForeignLink { .. } => false,
            // A script does not say which of its failures is this one.
            Self::Agent { .. } | Self::AgentKilled { .. } | Self::AgentMissing { .. } => false,
            Self::AgentUnfit { .. } | Self::Config(_) => false,
        }
    }

    /// Names the kind of error: a stable code for conditions, events and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "BMCUnreachable",
            Self::NoAnswer { .. } => "BMCNoAnswer",
            Self::Deadline { .. } => "BMCTimeout",
            Self::Auth { .. } => "BMCAuthFailed",
            Self::WrongPassword => "BMCWrongPassword",
            Self::UnknownUser => "BMCUnknownUser",
            Self::WrongKg => "BMCWrongKg",
            Self::PrivilegeTooLow { .. } => "BMCPrivilegeTooLow",
            Self::NoCipherSuite { .. } => "BMCNoCipherSuite",
            Self::Certificate { .. } => "BMCCertificateUntrusted",
            Self::OldTls { .. } => "BMCTLSTooOld",
            Self::Ambiguous { .. } => "BMCAmbiguousSystem",
            Self::NoSystem { .. } => "BMCNoSystem",
            Self::WrongMachine { .. } => "WrongMachine",
            Self::NotOffered { .. } => "BMCResetNotOffered",
            Self::Refused { .. } | Self::IpmiRefused { .. } => "BMCRefused",
            Self::Busy { .. } => "BMCBusy",
            Self::Server { .. } => "BMCServerError",
            Self::Protocol { .. } => "BMCProtocolError",
            Self::ForeignLink { .. } => "BMCForeignLink",
            Self::AgentMissing { .. } => "UnsupportedAgent",
            Self::AgentUnfit { .. } => "AgentUnfit",
            Self::Agent { .. } => "AgentFailed",
            Self::AgentKilled { .. } => "AgentTimeout",
            Self::Config(_) => "BMCConfigInvalid",
        }
    }
}

fn words(said: &[&str]) -> String {
    said.iter().filter(|word| !word.is_empty()).map(|word| format!(": {word}")).collect()
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

fn numbers(suites: &[u8]) -> String {
    suites.iter().map(u8::to_string).collect::<Vec<_>>().join(" or ")
}

fn pause(retry_after: Option<Duration>) -> String {
    retry_after.map(|pause| format!(" (it asks for {} s)", pause.as_secs())).unwrap_or_default()
}

/// Makes a peer's words fit for a log line: no control characters, no runs of blanks, at most `cap` characters.
pub(crate) fn clean(words: &str, cap: usize) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let words = words.replace(|c: char| c.is_control() || turns(c), " ");
    let mut cleaned = String::new();
    for word in words.split_whitespace() {
        if !cleaned.is_empty() {
            cleaned.push(' ');
        }
        cleaned.push_str(word);
    }
    match cleaned.char_indices().nth(cap) {
        Some((at, _)) => format!("{}…", &cleaned[..at]),
        None => cleaned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_words_are_cleaned_and_capped() {
        assert_eq!(clean("no\r\nsuch\u{1b}[31m  thing\t", 40), "no such [31m thing");
        assert_eq!(clean("äöü-and-more", 3), "äöü…");
        assert_eq!(clean("a\u{2066}b\u{202e}c\u{200f}d\u{2028}e", 40), "a b c d e");
        assert_eq!(clean("", 3), "");
    }

    #[test]
    fn messages_name_the_fix() {
        let several = Error::Ambiguous { found: vec!["/a".into(), "/b".into()] };
        assert_eq!(several.to_string(), "the BMC manages several systems (/a, /b): choose one with --systems-uri");
        let untrusted = Error::Certificate { address: "h:443".into(), reason: "UnknownIssuer".into() };
        assert!(untrusted.to_string().contains("tls.caSecretName"));
        let old = Error::OldTls { address: "h:443".into(), reason: "ProtocolVersion".into() };
        assert!(old.to_string().contains("driver: Script"));
    }

    #[test]
    fn a_refusal_without_words_reads_well() {
        let refused = |code: &str, message: &str| {
            Error::Refused { doing: "sending ForceOff", status: 409, code: code.into(), message: message.into() }
                .to_string()
        };
        assert_eq!(refused("", ""), "the BMC refused while sending ForceOff (HTTP 409)");
        assert_eq!(refused("A.1", ""), "the BMC refused while sending ForceOff (HTTP 409): A.1");
        assert_eq!(refused("A.1", "is off"), "the BMC refused while sending ForceOff (HTTP 409): A.1: is off");
    }
}

//! Why an agent did not do what it was told.

use crate::Error;

/// Why an agent ends with exit code 1.
///
/// Cluster managers read the messages: Pacemaker takes "timed out" and "timeout" for a time-out, and "unsupported action"
/// for that. Those words are said here only where they are meant.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The command line or standard input can't be read.
    #[error("Parse error: {0}")]
    Parse(String),
    /// An option has no such value, or one that is needed is missing.
    #[error("{0}")]
    Option(String),
    /// There is no such action.
    #[error("Unrecognised action '{0}'")]
    Action(String),
    /// The action exists, and is refused here.
    #[error("unsupported action {action}: {reason}")]
    Unsupported {
        /// The action.
        action: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// The program that should have printed the password did not.
    #[error("the password script {0}")]
    Script(String),
    /// A file that an option names.
    #[error("{what} can't be used: {source}")]
    File {
        /// Which option's file.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The BMC, or the way to it.
    #[error("{}", bmc(.doing, .error))]
    Bmc {
        /// What we were at.
        doing: &'static str,
        /// What came of it.
        error: Error,
    },
    /// The machine did not get there in time.
    #[error("Timed out waiting to power {wanted}{}", last(.error))]
    NotReached {
        /// ON or OFF.
        wanted: &'static str,
        /// The last thing that went wrong meanwhile.
        error: Option<Error>,
    },
}

impl From<(&'static str, Error)> for Failure {
    fn from((doing, error): (&'static str, Error)) -> Self {
        Self::Bmc { doing, error }
    }
}

fn bmc(doing: &str, error: &Error) -> String {
    let timed_out = if matches!(error, Error::Deadline { .. }) { "Connection timed out, " } else { "" };
    format!("{timed_out}{doing}: {}", said(error))
}

fn last(error: &Option<Error>) -> String {
    error.as_ref().map(|error| format!(" ({})", said(error))).unwrap_or_default()
}

/// The error in the words of a fence agent: where the driver's name the operator's fields, ours name the options.
pub(super) fn said(error: &Error) -> String {
    match error {
        Error::Auth { doing, status } => {
            format!("the BMC refused the credentials while {doing} (HTTP {status}): check username and password")
        }
        Error::Certificate { address, reason } => {
            format!("the certificate of the BMC at {address} is not trusted ({reason}): give ca_file, or ssl_insecure")
        }
        Error::OldTls { address, reason } => format!(
            "the BMC at {address} speaks no TLS newer than 1.1, or only RSA key exchange ({reason}), which is not \
             spoken here"
        ),
        Error::WrongPassword => "the BMC has another password for this user: check username and password".into(),
        Error::UnknownUser => "the BMC knows no such user, or none that may use IPMI over the network".into(),
        Error::NoCipherSuite { tried } => {
            let tried: Vec<String> = tried.iter().map(u8::to_string).collect();
            format!("the BMC has no IPMI cipher suite {}: check cipher", tried.join(" or "))
        }
        // These say nothing that is the operator's only.
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_timeout_says_so() {
        let failure = |error| Failure::Bmc { doing: "reading the power state", error }.to_string();
        let late = failure(Error::Deadline { doing: "reading the system" });
        assert!(late.contains("timed out"), "{late}");
        let other = failure(Error::Unreachable { address: "h:443".into(), reason: "connection refused".into() });
        assert!(!other.contains("timed out") && !other.contains("timeout"), "{other}");
        assert!(Failure::NotReached { wanted: "OFF", error: None }.to_string().starts_with("Timed out"));
    }

    #[test]
    fn the_operators_fields_are_not_named() {
        for error in [
            Error::Auth { doing: "reading", status: 401 },
            Error::Certificate { address: "h:443".into(), reason: "UnknownIssuer".into() },
            Error::OldTls { address: "h:443".into(), reason: "ProtocolVersion".into() },
            Error::WrongPassword,
            Error::UnknownUser,
            Error::NoCipherSuite { tried: vec![17, 3] },
        ] {
            let said = said(&error);
            for field in ["Secret", "tls.", "driver:"] {
                assert!(!said.contains(field), "{said}");
            }
        }
    }
}

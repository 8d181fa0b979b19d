//! Who may do what on a face, and how.

use agents::ipmi::Privilege;
use secrecy::SecretString;

/// What all BMCs of a face know: its key, its cipher suites, where it listens.
#[derive(Clone, Debug)]
pub struct Options {
    /// Kg in hexadecimal, if there is one.
    pub kg: Option<SecretString>,
    /// The cipher suites: of 0 (nothing is protected), 3 and 17.
    pub suites: Vec<u8>,
    /// On ::1 instead of 127.0.0.1.
    pub ipv6: bool,
}

impl Default for Options {
    /// No Kg, and all suites that BMCs usually have.
    fn default() -> Self {
        Self { kg: None, suites: vec![0, 3, 17], ipv6: false }
    }
}

/// The account that may do everything.
pub const ADMINISTRATOR: &str = "operator";
/// The account that may only look.
pub const VIEWER: &str = "viewer";

/// The highest privilege of an account, if there is such an account.
pub(super) fn limit(user: &[u8]) -> Option<Privilege> {
    match user {
        user if user == ADMINISTRATOR.as_bytes() => Some(Privilege::Administrator),
        user if user == VIEWER.as_bytes() => Some(Privilege::User),
        _ => None,
    }
}

//! One step of a session: what is known of a datagram that is sent until it is answered.

use std::time::Duration;

use tokio::time::Instant;

use crate::Error;

/// Something that is sent until it is answered.
pub(super) struct Turn {
    pub(super) doing: &'static str,
    pub(super) sends: u32,
    /// When it was sent last.
    pub(super) sent: Option<Instant>,
    pub(super) wait: Duration,
    pub(super) due: Option<Instant>,
    pub(super) verdict: Option<Verdict>,
    /// What the network said of it.
    pub(super) lost: Option<String>,
    pub(super) busy: bool,
}

/// What an unsigned answer would mean.
pub(super) enum Verdict {
    /// The BMC knows of no such session any more.
    Afresh,
    /// Not with this cipher suite.
    OtherSuite,
    /// Not with this password; or it advertises a suite that it gets wrong (ipmitool#363), and the next one decides.
    WrongPassword,
    Fail(Error),
}

impl Turn {
    pub(super) fn new(doing: &'static str, pace: Duration) -> Self {
        Self { doing, sends: 0, sent: None, wait: pace, due: None, verdict: None, lost: None, busy: false }
    }

    /// The first of a handshake.
    pub(super) fn opening(pace: Duration) -> Self {
        Self::new("opening a session", pace)
    }
}

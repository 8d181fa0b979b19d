//! Drivers for the power of a machine, through its baseboard management controller (BMC).
//!
//! What this crate knows: how to ask a BMC for the power state and the identity of a machine, and how to order it off
//! or on. What it must not know: Kubernetes, remediations, retries. Whether a machine is *proven* off is decided
//! elsewhere; a driver only says what it read, from which machine, or why it could not.
//!
//! Invariants of every driver:
//! - Only [`PowerSwitch::status`] testifies. An accepted command proves nothing.
//! - Every call ends by the deadline it was given.
//! - Cancellation is drop: a dropped call closes its connection at once, and nothing more is sent.
//! - Passwords live in [`SecretString`]s and never reach logs, errors or `Debug`.
//! - A BMC is an untrusted, flaky computer: every answer is capped in length, and nothing it says sends our credentials
//!   to another host.

mod access;
pub mod cli;
mod error;
mod identity;
pub mod ipmi;
pub mod metadata;
mod outlet;
pub mod redfish;
mod target;

use std::future::Future;

use secrecy::SecretString;
use tokio::time::Instant;

pub use access::{Access, Parameters};
pub use error::Error;
pub use identity::SystemUuid;
pub use outlet::is_outlet;
pub use target::Target;

/// The account a BMC is spoken to with.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user's name. May not contain a colon (RFC 7617, section 2).
    pub username: String,
    /// The password; redacted in `Debug`.
    pub password: SecretString,
}

/// How a BMC's certificate is judged.
#[derive(Clone, Debug)]
pub enum Tls {
    /// By the trust store of the operating system (or of `SSL_CERT_FILE`).
    Roots,
    /// By these certificate authorities only: one or more PEM certificates. (The self-signed certificate of a BMC is
    /// better pinned: most name neither the address nor a CA.)
    Ca(Vec<u8>),
    /// By its public key only: SHA-256 of the DER SubjectPublicKeyInfo, as in RFC 7469. Name, dates and issuer do not
    /// matter then, which is what the self-signed certificate of a BMC needs.
    Pins {
        /// The keys that are believed.
        spki_sha256: Vec<[u8; 32]>,
    },
    /// Not at all. Whoever answers gets the password.
    Insecure,
}

/// What a BMC says about the power of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PowerState {
    /// It said exactly "On".
    On,
    /// It said exactly "Off", and nothing else it says contradicts that.
    Off,
    /// Anything else ("PoweringOff", "Paused", a contradiction), in its words. Not off.
    Other(String),
}

/// One reading of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The power, as the BMC says.
    pub power: PowerState,
    /// Which machine it was read from, if the BMC says so.
    pub system_uuid: Option<SystemUuid>,
    /// When the power state came, before anything else was asked: what it says is no younger.
    pub read_at: Instant,
    /// The URL of what was read, without credentials.
    pub source: String,
}

/// What a look found that also asked whether commands would be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The reading.
    pub status: Status,
    /// Why the machine could not be switched off and on, as far as that shows without trying.
    pub lacks: Option<Error>,
}

/// What one visit to a BMC brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The reading before the command.
    pub before: Status,
    /// How the command was answered.
    pub answer: Result<(), Error>,
    /// A reading right after an answer of success, where the same session allowed for one.
    pub after: Option<Status>,
}

/// An order to a machine's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Cut the power, without asking the operating system.
    Off,
    /// Give power.
    On,
}

/// A machine's power, read and switched through its BMC.
pub trait PowerSwitch: Send + Sync {
    /// Reads the power state and the identity of the machine.
    ///
    /// Guarantees: nothing on the machine or its BMC is changed. [`PowerState::Off`] only if the BMC said exactly that.
    ///
    /// Errors: whatever kept us from a reading; no error is ever "probably off".
    fn status(&self, by: Instant) -> impl Future<Output = Result<Status, Error>> + Send;

    /// Reads, sends a command whatever was read, and reads again: in one session, where the protocol has sessions. For those
    /// who ask no more than that of a machine, such as the fence-agent command line.
    ///
    /// Errors: those of the first reading; nothing was sent then.
    fn visit(&self, command: Command, by: Instant) -> impl Future<Output = Result<Visit, Error>> + Send {
        async move {
            let before = self.status(by).await?;
            let answer = self.command(command, None, by).await;
            Ok(Visit { before, answer, after: None })
        }
    }

    /// Reads as [`status`](Self::status) does, and makes sure, as far as that shows without a command, that a command would
    /// be taken. No command is sent.
    ///
    /// Errors: as [`status`](Self::status).
    fn ready(&self, by: Instant) -> impl Future<Output = Result<Ready, Error>> + Send {
        async move { Ok(Ready { status: self.status(by).await?, lacks: None }) }
    }

    /// Sends one command, at most once.
    ///
    /// Guarantees: if `expect` is given and the BMC says it is another machine, nothing is sent
    /// ([`Error::WrongMachine`]). `Ok` means the BMC accepted the command, *not* that it was carried out.
    ///
    /// Caveats: after an error that arrives later than the request, or after a drop, the command may still have been
    /// accepted. Look at the machine before anything else.
    fn command(
        &self,
        command: Command,
        expect: Option<&SystemUuid>,
        by: Instant,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

//! What can be wrong with a BMC.

use std::time::Duration;

use uuid::Uuid;

use super::request::What;

/// One fault or quirk of a machine's BMC. Several can be had at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every request of the machine takes that much longer. A command is carried out at the end of it, also when its
    /// sender has given up.
    Slow(Duration),
    /// ForceOff is answered with 204, and nothing happens.
    LieOff,
    /// Says Off while the machine is on, without having been told. Ends when a command is carried out.
    HearsayOff,
    /// Closes the connection without an answer; nothing is done.
    Drop,
    /// Does what it is told, but closes the connection instead of answering a command.
    LoseAnswer,
    /// Answers one request on each connection, and says that it will close it then.
    SaysClose,
    /// Answers so many requests on each connection, and closes it at the next one, as if it had never come.
    ClosesAfter(usize),
    /// Accepts requests and never answers; nothing is done.
    Hang,
    /// Never answers, not even to the TLS handshake if all machines behind the port are dead.
    Dead,
    /// As [`Fault::Dead`] while the machine is off, by whatever: they share the supply behind the switch. (Without mains
    /// every BMC is dead, fault or not.)
    DiesWithNode,
    /// Refuses commands with this status (4xx).
    Refuse {
        /// The HTTP status.
        status: u16,
        /// How often; `None` for ever.
        times: Option<u32>,
    },
    /// Refuses commands with 409.
    Conflict,
    /// Refuses a ForceOff with 400 when it believes the machine to be off already.
    AlreadyOffRefusal,
    /// Answers everything with 401, as if the password were wrong.
    Unauthorized,
    /// Answers everything with 503.
    Unavailable {
        /// What the Retry-After header says; none if `None`.
        retry_after: Option<Duration>,
    },
    /// Answers everything with this status.
    Fails(u16),
    /// Says that it is another machine.
    WrongIdentity(Uuid),
    /// Doesn't say which machine it is.
    NoIdentity,
    /// Takes that long to switch off, and says PoweringOff meanwhile.
    PoweringOff(Duration),
    /// Accepts a command at once and carries it out that much later; until then it says what was before.
    Late(Duration),
    /// Somebody switches the machine on again, that long after each off.
    PowerOwner(Duration),
    /// Is an OpenBMC: its manager says so, and its chassis says what power there really is.
    OpenBmc,
    /// Offers only these reset types; an empty list is not sent.
    Offers(&'static [&'static str]),
    /// As [`Fault::Offers`], but in an ActionInfo resource.
    OffersInActionInfo(&'static [&'static str]),
    /// Has no Reset action.
    NoReset,
    /// Has no PowerState.
    NoPowerState,
    /// Redirects every path without a trailing slash to the one with it, with this status.
    Redirect(u16),
    /// Redirects every path to another host.
    RedirectElsewhere,
    /// Says that commands are to be sent to another host.
    ForeignTarget,
    /// Answers a GET with something that is not JSON.
    Garbage,
    /// Answers a GET with two megabytes.
    Huge,
    /// Answers requests of one kind with just this, and does nothing.
    Answers {
        /// Which requests.
        what: What,
        /// The HTTP status.
        status: u16,
        /// The Location header, if there is one.
        location: Option<String>,
        /// The body.
        body: String,
    },
}

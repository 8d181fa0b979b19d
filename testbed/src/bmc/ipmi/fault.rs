//! What can be wrong with a BMC that speaks IPMI, or with the way to it.

use std::time::Duration;

use uuid::Uuid;

/// One fault or quirk of a machine's BMC. Several can be had at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every answer takes that much longer. A command is carried out at the end of it.
    Slow(Duration),
    /// A power down is answered with success, and nothing happens.
    LieOff,
    /// Says Off while the machine is on, without having been told. Ends when a command is carried out.
    HearsayOff,
    /// Of the datagrams each way, this many in a hundred are lost; which ones, the seed says.
    Loss {
        /// 0 to 100.
        percent: u8,
        /// Chooses which.
        seed: u64,
    },
    /// Sends every answer twice.
    Duplicate,
    /// Sends every answer of a session behind the one before it, once more.
    Replay,
    /// Before every true answer comes one that somebody forged: a refusal of each step of the handshake; in a session
    /// "off" and "done", unsigned and signed with a wrong key.
    Forge,
    /// One bit of every answer in a session is turned on the way, each time another.
    Tamper,
    /// Does what it is told, but no answer to a command arrives.
    LoseAnswer,
    /// Opens sessions, and then answers nothing; nothing is done.
    Hang,
    /// Answers nothing at all.
    Dead,
    /// As [`Fault::Dead`] while the machine is off, by whatever: they share the supply behind the switch. (Without mains
    /// every BMC is dead, fault or not.)
    DiesWithNode,
    /// Refuses commands with this completion code.
    Refuse {
        /// The completion code.
        code: u8,
        /// How often; `None` for ever.
        times: Option<u32>,
    },
    /// Answers so many requests with C0h: it is busy.
    Busy(u32),
    /// Refuses a power down with D5h when it believes the machine to be off already.
    AlreadyOffRefusal,
    /// Has no session to give.
    NoSessions,
    /// Lets an account ask for more privilege than it has, and refuses only when it is taken.
    LateRefusal,
    /// Hashes the privilege of the Open Session Request where the one of RAKP 1 belongs (`opensesspriv`).
    HashesOpenPrivilege,
    /// Says that it is another machine.
    WrongIdentity(Uuid),
    /// Doesn't say which machine it is: it does not know the command.
    NoIdentity,
    /// Sends the system's GUID in SMBIOS's order: the first three fields little-endian.
    MixedEndianIdentity,
    /// Sends the system's GUID from its last byte to its first.
    ReversedIdentity,
    /// Accepts a command at once and carries it out that much later; until then it says what was before.
    Late(Duration),
    /// Somebody switches the machine on again, that long after each off.
    PowerOwner(Duration),
}

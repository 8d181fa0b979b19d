//! The bytes of IPMI over LAN: the RMCP+ envelope, the messages inside it, and those of the handshake.
//!
//! What it knows: where each field lies (IPMI 2.0 specification, sections 13 and 22). What it must not know: keys, time,
//! whose turn it is. Everything parsed here is only *said* by somebody; who believes it is decided in [`super::session`].

/// Longer datagrams are nobody's: the longest of ours has some 120 bytes.
pub const MAX_DATAGRAM: usize = 1024;

/// The network function of chassis commands (section 5.1).
pub const CHASSIS: u8 = 0x00;
/// The network function of application commands (section 5.1).
pub const APP: u8 = 0x06;
/// The BMC's address on the IPMB.
pub const BMC: u8 = 0x20;
/// The address of remote console software.
pub const CONSOLE: u8 = 0x81;

/// RMCP version 1.0, reserved, no acknowledgement wanted, class IPMI (section 13.1.3).
const RMCP: [u8; 4] = [0x06, 0x00, 0xff, 0x07];
/// The authentication type that means RMCP+.
const RMCP_PLUS: u8 = 0x06;
const ENCRYPTED: u8 = 0x80;
const AUTHENTICATED: u8 = 0x40;
/// The RMCP header, which no code protects.
pub(super) const UNPROTECTED: usize = RMCP.len();
/// Everything before the payload.
pub(super) const HEADER: usize = 16;

/// What an RMCP+ packet carries (section 13.27.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An IPMI message.
    Ipmi,
    /// Open Session Request.
    OpenRequest,
    /// Open Session Response.
    OpenResponse,
    /// RAKP Message 1.
    Rakp1,
    /// RAKP Message 2.
    Rakp2,
    /// RAKP Message 3.
    Rakp3,
    /// RAKP Message 4.
    Rakp4,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Ipmi => 0x00,
            Self::OpenRequest => 0x10,
            Self::OpenResponse => 0x11,
            Self::Rakp1 => 0x12,
            Self::Rakp2 => 0x13,
            Self::Rakp3 => 0x14,
            Self::Rakp4 => 0x15,
        }
    }

    fn of(code: u8) -> Option<Self> {
        let all =
            [Self::Ipmi, Self::OpenRequest, Self::OpenResponse, Self::Rakp1, Self::Rakp2, Self::Rakp3, Self::Rakp4];
        all.into_iter().find(|kind| kind.code() == code)
    }
}

/// An RMCP+ packet, without what may follow the payload (padding and the authentication code).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it carries.
    pub kind: Kind,
    /// Whether it says that the payload is encrypted.
    pub encrypted: bool,
    /// Whether it says that an authentication code follows.
    pub authenticated: bool,
    /// The session, by the receiver's number; 0 outside of any.
    pub session: u32,
    /// Its number in the session; 0 outside of any.
    pub sequence: u32,
    /// The payload, as sent.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// A packet outside of any session.
    pub fn bare(kind: Kind, payload: &'a [u8]) -> Self {
        Self { kind, encrypted: false, authenticated: false, session: 0, sequence: 0, payload }
    }

    /// Takes a datagram apart; `None` if it is no RMCP+ packet.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (header, rest) = datagram.split_at_checked(HEADER)?;
        // The second byte is reserved: to be ignored.
        let rmcp = [header[0], RMCP[1], header[2], header[3]];
        if datagram.len() > MAX_DATAGRAM || rmcp != RMCP || header[4] != RMCP_PLUS {
            return None;
        }
        let length = usize::from(u16::from_le_bytes([header[14], header[15]]));
        Some(Self {
            kind: Kind::of(header[5] & !(ENCRYPTED | AUTHENTICATED))?,
            encrypted: header[5] & ENCRYPTED != 0,
            authenticated: header[5] & AUTHENTICATED != 0,
            session: word(header, 6)?,
            sequence: word(header, 10)?,
            payload: rest.get(..length)?,
        })
    }

    /// Makes the datagram, up to the end of the payload.
    pub fn encode(&self) -> Vec<u8> {
        let flags = if self.encrypted { ENCRYPTED } else { 0 } | if self.authenticated { AUTHENTICATED } else { 0 };
        let length = u16::try_from(self.payload.len()).expect("our payloads are short");
        let mut datagram = RMCP.to_vec();
        datagram.extend([RMCP_PLUS, self.kind.code() | flags]);
        datagram.extend(self.session.to_le_bytes());
        datagram.extend(self.sequence.to_le_bytes());
        datagram.extend(length.to_le_bytes());
        datagram.extend(self.payload);
        datagram
    }
}

/// An IPMI message outside of any session, in the envelope of IPMI 1.5 (section 13.6): what a console asks before it
/// knows whether the BMC speaks RMCP+.
pub fn parse_v15(datagram: &[u8]) -> Option<&[u8]> {
    let (header, rest) = datagram.split_at_checked(14)?;
    let length = usize::from(header[13]);
    // Authentication type none, sequence 0, session 0.
    (header[0] == RMCP[0] && header[2..13] == [0xff, 0x07, 0, 0, 0, 0, 0, 0, 0, 0, 0]).then(|| rest.get(..length))?
}

/// Makes a datagram of IPMI 1.5 outside of any session.
pub fn encode_v15(message: &[u8]) -> Vec<u8> {
    let length = u8::try_from(message.len()).expect("our messages are short");
    [&RMCP[..], &[0; 9], &[length], message].concat()
}

/// An IPMI message (section 13.8). The data of an answer begin with the completion code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Whom it is for.
    pub to: u8,
    /// The network function: even for a request, one more for its answer.
    pub netfn: u8,
    /// Whom it is from.
    pub from: u8,
    /// The number of the request, 0 to 63, repeated in its answer.
    pub sequence: u8,
    /// The command.
    pub command: u8,
    /// The data.
    pub data: &'a [u8],
}

impl<'a> Message<'a> {
    /// Takes a message apart; `None` if it is too short or one of its checksums is wrong.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, tail) = bytes.split_at_checked(3)?;
        if tail.len() < 4 || sum(head) != 0 || sum(tail) != 0 {
            return None;
        }
        Some(Self {
            to: head[0],
            netfn: head[1] >> 2,
            from: tail[0],
            sequence: tail[1] >> 2,
            command: tail[2],
            data: &tail[3..tail.len() - 1],
        })
    }

    /// Makes the bytes of the message; both logical units are 0.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.to, self.netfn << 2];
        bytes.push(sum(&bytes).wrapping_neg());
        bytes.extend([self.from, self.sequence << 2, self.command]);
        bytes.extend(self.data);
        bytes.push(sum(&bytes[3..]).wrapping_neg());
        bytes
    }
}

/// Open Session Request (section 13.17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    /// Repeated in the answer.
    pub tag: u8,
    /// The highest privilege that is wanted; 0 for the highest there is.
    pub privilege: u8,
    /// The console's number for the session.
    pub console: u32,
    /// Authentication, integrity, confidentiality.
    pub algorithms: [u8; 3],
}

impl OpenRequest {
    /// Takes a payload apart.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let console = word(payload, 4)?;
        Some(Self { tag: payload[0], privilege: payload[1], console, algorithms: algorithms(payload, 8)? })
    }

    /// Makes the payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = vec![self.tag, self.privilege, 0, 0];
        payload.extend(self.console.to_le_bytes());
        extend_algorithms(&mut payload, self.algorithms);
        payload
    }
}

/// Makes the answer of a BMC that refuses a step of the handshake.
pub fn encode_refusal(tag: u8, status: u8, console: u32) -> Vec<u8> {
    let mut payload = vec![tag, status, 0, 0];
    payload.extend(console.to_le_bytes());
    payload
}

/// Takes an answer of the handshake apart: its tag, and what was granted or the status of the refusal. A refusal may end
/// after the status (sections 13.18, 13.21, 13.23).
fn answer<T>(payload: &[u8], granted: impl FnOnce() -> Option<T>) -> Option<(u8, Result<T, u8>)> {
    match (*payload.first()?, *payload.get(1)?) {
        (tag, 0) => Some((tag, Ok(granted()?))),
        (tag, status) => Some((tag, Err(status))),
    }
}

/// Open Session Response, granted (section 13.18).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenResponse {
    /// The highest privilege that this session may have.
    pub privilege: u8,
    /// The console's number for the session.
    pub console: u32,
    /// The BMC's number for the session.
    pub bmc: u32,
    /// Authentication, integrity, confidentiality.
    pub algorithms: [u8; 3],
}

impl OpenResponse {
    /// Takes a payload apart: the tag, and what was granted or the status of the refusal.
    pub fn parse(payload: &[u8]) -> Option<(u8, Result<Self, u8>)> {
        answer(payload, || {
            let (console, bmc) = (word(payload, 4)?, word(payload, 8)?);
            Some(Self { privilege: payload[2], console, bmc, algorithms: algorithms(payload, 12)? })
        })
    }

    /// Makes the payload.
    pub fn encode(&self, tag: u8) -> Vec<u8> {
        let mut payload = vec![tag, 0, self.privilege, 0];
        payload.extend(self.console.to_le_bytes());
        payload.extend(self.bmc.to_le_bytes());
        extend_algorithms(&mut payload, self.algorithms);
        payload
    }
}

/// RAKP Message 1 (section 13.20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rakp1 {
    /// Repeated in the answer.
    pub tag: u8,
    /// The BMC's number for the session.
    pub bmc: u32,
    /// The console's random number.
    pub random: [u8; 16],
    /// The privilege that is wanted; bit 4 means that the user is looked up by name alone.
    pub role: u8,
    /// The user's name, at most 16 bytes.
    pub user: Vec<u8>,
}

impl Rakp1 {
    /// Takes a payload apart.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let length = usize::from(*payload.get(27)?);
        let user = payload.get(28..28 + length).filter(|_| length <= super::MAX_USER)?;
        let (bmc, random) = (word(payload, 4)?, block(payload, 8)?);
        Some(Self { tag: payload[0], bmc, random, role: payload[24], user: user.to_vec() })
    }

    /// Makes the payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = vec![self.tag, 0, 0, 0];
        payload.extend(self.bmc.to_le_bytes());
        payload.extend(self.random);
        payload.extend([self.role, 0, 0, u8::try_from(self.user.len()).expect("at most 16 bytes")]);
        payload.extend(&self.user);
        payload
    }
}

/// RAKP Message 2, granted (section 13.21).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rakp2 {
    /// The console's number for the session.
    pub console: u32,
    /// The BMC's random number.
    pub random: [u8; 16],
    /// The BMC's GUID as far as the handshake is concerned; some send a random one (VirtualBMC).
    pub guid: [u8; 16],
    /// The key exchange authentication code.
    pub code: Vec<u8>,
}

impl Rakp2 {
    /// Takes a payload apart: the tag, and what was granted or the status of the refusal.
    pub fn parse(payload: &[u8]) -> Option<(u8, Result<Self, u8>)> {
        answer(payload, || {
            let (console, random, guid) = (word(payload, 4)?, block(payload, 8)?, block(payload, 24)?);
            Some(Self { console, random, guid, code: payload[40..].to_vec() })
        })
    }

    /// Makes the payload.
    pub fn encode(&self, tag: u8) -> Vec<u8> {
        let mut payload = vec![tag, 0, 0, 0];
        payload.extend(self.console.to_le_bytes());
        payload.extend(self.random);
        payload.extend(self.guid);
        payload.extend(&self.code);
        payload
    }
}

/// RAKP Message 3 (section 13.22).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rakp3 {
    /// Repeated in the answer.
    pub tag: u8,
    /// 0, or why the console gives up.
    pub status: u8,
    /// The BMC's number for the session.
    pub bmc: u32,
    /// The key exchange authentication code.
    pub code: Vec<u8>,
}

impl Rakp3 {
    /// Takes a payload apart.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let bmc = word(payload, 4)?;
        Some(Self { tag: payload[0], status: payload[1], bmc, code: payload[8..].to_vec() })
    }

    /// Makes the payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = vec![self.tag, self.status, 0, 0];
        payload.extend(self.bmc.to_le_bytes());
        payload.extend(&self.code);
        payload
    }
}

/// RAKP Message 4, granted (section 13.23).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rakp4 {
    /// The console's number for the session.
    pub console: u32,
    /// The integrity check value.
    pub code: Vec<u8>,
}

impl Rakp4 {
    /// Takes a payload apart: the tag, and what was granted or the status of the refusal.
    pub fn parse(payload: &[u8]) -> Option<(u8, Result<Self, u8>)> {
        answer(payload, || Some(Self { console: word(payload, 4)?, code: payload[8..].to_vec() }))
    }

    /// Makes the payload.
    pub fn encode(&self, tag: u8) -> Vec<u8> {
        let mut payload = vec![tag, 0, 0, 0];
        payload.extend(self.console.to_le_bytes());
        payload.extend(&self.code);
        payload
    }
}

/// Reads the three algorithm payloads: type, two reserved bytes, length 8, algorithm, three reserved bytes.
fn algorithms(payload: &[u8], at: usize) -> Option<[u8; 3]> {
    let mut found = [0; 3];
    for (kind, found) in (0..).zip(&mut found) {
        let record = payload.get(at + 8 * usize::from(kind)..)?.get(..8)?;
        (record[0] == kind && record[3] == 8).then_some(())?;
        *found = record[4] & 0x3f;
    }
    Some(found)
}

fn extend_algorithms(payload: &mut Vec<u8>, algorithms: [u8; 3]) {
    for (kind, algorithm) in (0..).zip(algorithms) {
        payload.extend([kind, 0, 0, 8, algorithm, 0, 0, 0]);
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn block(bytes: &[u8], at: usize) -> Option<[u8; 16]> {
    bytes.get(at..at + 16)?.try_into().ok()
}

/// The sum of all bytes; 0 over a part that ends with its checksum.
fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

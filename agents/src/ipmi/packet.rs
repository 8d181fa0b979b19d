//! The bytes of IPMI over LAN: the RMCP+ envelope, the messages inside it, and those of the handshake.
//!
//! What it knows: where each field lies (IPMI 2.0 specification, sections 13 and 22). What it must not know: keys, time,
//! whose turn it is. Everything parsed here is only *said* by somebody; who believes it is decided in [`super::session`].

mod handshake;

pub use handshake::{OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp3, Rakp4, encode_refusal};

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

//! The payloads of the handshake: Open Session and RAKP.

use super::{block, word};
use crate::ipmi::MAX_USER;

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
        let user = payload.get(28..28 + length).filter(|_| length <= MAX_USER)?;
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

//! The keys of an RMCP+ session: who proves what with which of them, and sealed messages.
//!
//! What it knows: the two cipher suites that are strong enough (IPMI 2.0 specification, sections 13.24 to 13.33). What
//! it must not know: whose turn it is.

use aes::Aes128;
use aes::cipher::block_padding::NoPadding;
use aes::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit as _};
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::packet::{HEADER, Kind, Packet, UNPROTECTED};
use crate::Error;

/// Bytes of an AES block, and of the initialisation vector.
const BLOCK: usize = 16;
/// What follows the payload's padding: its length and the constant 7 ("next header", section 13.28.4).
const TRAILER: usize = 2;

/// A cipher suite (section 22.15.2). Weaker ones are not supported: without an integrity code anybody may say "off".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Suite 3: RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128. Every IPMI 2.0 BMC has it.
    Three,
    /// Suite 17: RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Seventeen,
}

impl Suite {
    /// The suite of that number, if it is supported.
    pub fn numbered(number: u8) -> Option<Self> {
        [Self::Three, Self::Seventeen].into_iter().find(|suite| suite.number() == number)
    }

    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            Self::Three => 3,
            Self::Seventeen => 17,
        }
    }

    /// Its algorithms: authentication, integrity, confidentiality.
    pub fn algorithms(self) -> [u8; 3] {
        match self {
            Self::Three => [1, 1, 1],
            Self::Seventeen => [3, 4, 1],
        }
    }

    /// Bytes of the codes that follow messages: the hash, cut.
    pub fn cut(self) -> usize {
        match self {
            Self::Three => 12,
            Self::Seventeen => 16,
        }
    }

    fn mac(self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Three => mac::<Hmac<Sha1>>(key, parts),
            Self::Seventeen => mac::<Hmac<Sha256>>(key, parts),
        }
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut mac = <M as Mac>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

/// Compares two codes in a time that depends on their lengths only.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

/// Fills an array with random bytes.
///
/// Errors: [`Error::Config`] if the operating system has none to give.
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::Config(format!("no random numbers: {error}")))?;
    Ok(bytes)
}

/// What both sides of a handshake have said, and prove that they heard (section 13.31).
#[derive(Clone, Debug)]
pub struct Transcript {
    /// The cipher suite.
    pub suite: Suite,
    /// The console's number for the session.
    pub console: u32,
    /// The BMC's number for the session.
    pub bmc: u32,
    /// The console's random number.
    pub console_random: [u8; 16],
    /// The BMC's random number.
    pub bmc_random: [u8; 16],
    /// The BMC's GUID.
    pub guid: [u8; 16],
    /// The role byte.
    pub role: u8,
    /// The user's name.
    pub user: Vec<u8>,
}

impl Transcript {
    /// The code of RAKP 2, by which the BMC shows that it knows the user's password.
    pub fn bmc_code(&self, password: &[u8]) -> Zeroizing<Vec<u8>> {
        let (console, bmc) = (self.console.to_le_bytes(), self.bmc.to_le_bytes());
        let parts: [&[u8]; 6] = [&console, &bmc, &self.console_random, &self.bmc_random, &self.guid, &self.account()];
        self.suite.mac(password, &parts)
    }

    /// The code of RAKP 3, by which the console shows that it knows the password.
    pub fn console_code(&self, password: &[u8]) -> Zeroizing<Vec<u8>> {
        self.suite.mac(password, &[&self.bmc_random, &self.console.to_le_bytes(), &self.account()])
    }

    /// The session's keys. `key` is Kg, or the user's password where the BMC has none.
    pub fn keys(&self, key: &[u8]) -> Keys {
        let session = self.suite.mac(key, &[&self.console_random, &self.bmc_random, &self.account()]);
        let mut aes = Zeroizing::new([0; 16]);
        aes.copy_from_slice(&self.suite.mac(&session, &[&[2; 20]])[..16]);
        Keys { suite: self.suite, integrity: self.suite.mac(&session, &[&[1; 20]]), aes, session }
    }

    /// The code of RAKP 4, by which the BMC shows that it has the same keys.
    pub fn final_code(&self, keys: &Keys) -> Zeroizing<Vec<u8>> {
        let mut code = self.suite.mac(&keys.session, &[&self.console_random, &self.bmc.to_le_bytes(), &self.guid]);
        code.truncate(self.suite.cut());
        code
    }

    /// The role, the length of the name and the name.
    fn account(&self) -> Vec<u8> {
        let length = u8::try_from(self.user.len()).expect("at most 16 bytes");
        [&[self.role, length], self.user.as_slice()].concat()
    }
}

/// The keys of one session; wiped when dropped.
pub struct Keys {
    suite: Suite,
    session: Zeroizing<Vec<u8>>,
    integrity: Zeroizing<Vec<u8>>,
    aes: Zeroizing<[u8; 16]>,
}

impl Keys {
    /// Makes an encrypted and authenticated datagram.
    ///
    /// Errors: as [`random`].
    pub fn seal(&self, session: u32, sequence: u32, message: &[u8]) -> Result<Vec<u8>, Error> {
        let iv = random::<BLOCK>()?;
        // 1, 2, 3 … and how many of them, up to a whole block (section 13.29).
        let padding = (BLOCK - (message.len() + 1) % BLOCK) % BLOCK;
        let counted = u8::try_from(padding).expect("less than a block");
        let mut payload = iv.to_vec();
        payload.extend(message);
        payload.extend(1..=counted);
        payload.push(counted);
        let length = payload.len() - BLOCK;
        cbc::Encryptor::<Aes128>::new((&*self.aes).into(), (&iv).into())
            .encrypt_padded_mut::<NoPadding>(&mut payload[BLOCK..], length)
            .expect("whole blocks");
        let packet =
            Packet { encrypted: true, authenticated: true, session, sequence, ..Packet::bare(Kind::Ipmi, &payload) };
        let mut datagram = packet.encode();
        // What the code covers is a multiple of 4 bytes long.
        let fill = (4 - (datagram.len() - UNPROTECTED + TRAILER) % 4) % 4;
        datagram.resize(datagram.len() + fill, 0xff);
        datagram.extend([u8::try_from(fill).expect("less than 4"), 7]);
        let code = self.suite.mac(&self.integrity, &[&datagram[UNPROTECTED..]]);
        datagram.extend(&code[..self.suite.cut()]);
        Ok(datagram)
    }

    /// Opens a datagram of this session: its sequence number and the message. `None` if it is not encrypted, not
    /// authenticated, of another session, or if its code is wrong.
    ///
    /// Caveats: it may be old; see [`super::session::Window`].
    pub fn open(&self, session: u32, datagram: &[u8]) -> Option<(u32, Vec<u8>)> {
        let packet = Packet::parse(datagram)?;
        let expected = packet.kind == Kind::Ipmi && packet.encrypted && packet.authenticated;
        if !expected || packet.session != session {
            return None;
        }
        let (covered, code) = datagram.split_at_checked(datagram.len().checked_sub(self.suite.cut())?)?;
        let right = self.suite.mac(&self.integrity, &[covered.get(UNPROTECTED..)?]);
        let whole = covered.len() >= HEADER + packet.payload.len() + TRAILER;
        if !whole || !same(&right[..self.suite.cut()], code) {
            return None;
        }
        let (iv, sealed) = packet.payload.split_at_checked(BLOCK)?;
        let mut message = sealed.to_vec();
        cbc::Decryptor::<Aes128>::new_from_slices(&*self.aes, iv)
            .ok()?
            .decrypt_padded_mut::<NoPadding>(&mut message)
            .ok()?;
        let padding = usize::from(*message.last()?);
        message.truncate(message.len().checked_sub(padding + 1).filter(|_| padding < BLOCK)?);
        Some((packet.sequence, message))
    }
}

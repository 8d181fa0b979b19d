//! One RMCP+ session, without I/O: told what arrives and what time it is, it says what to send and how long to wait.
//!
//! What it knows: the handshake, numbering, retransmission, and which datagrams are to be believed. What it must not
//! know: sockets, deadlines (who drives it stops driving), and what the messages mean.
//!
//! Rules:
//! - A datagram is believed only if everything about it fits: kind, session, code, window, function, command and number.
//!   Anything else is as if it had never come.
//! - A refusal during the handshake is signed by nobody. It counts only if nothing better comes before the next
//!   transmission is due.
//! - Each step of the handshake is sent twice, then all begins afresh: a BMC whose last answer got lost takes the
//!   session for established, and does not answer the same step again.
//! - A request is sent again with the same number inside of a new sequence number, until somebody loses patience.

mod link;
mod turn;

use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Privilege;
use super::crypto::{Keys, Suite, Transcript, random, same};
use super::packet::{APP, BMC, CONSOLE, Kind, Message, OpenRequest, OpenResponse, Packet, Rakp1, Rakp2, Rakp3, Rakp4};
use crate::Error;

use self::link::{Link, Request};

pub(super) use link::Reply;
pub use link::Window;
use turn::{Turn, Verdict};

/// The first wait for an answer. BMCs answer in 10 to 200 ms; one that is slower is given twice the time it took.
const PACE: Duration = Duration::from_millis(250);
/// The longest wait: what is sent after it has a chance of being heard that hardly grows any more.
const LONGEST: Duration = Duration::from_secs(2);
/// Transmissions of each step of a handshake.
const SENDS: u32 = 2;
/// Looks the user up by the name alone, not by name and privilege (section 13.20).
const BY_NAME: u8 = 0x10;
const CLOSE_SESSION: u8 = 0x3c;
/// Completion codes by which a BMC asks to be asked again: busy, and "I am still at that request" (section 5.2).
const NODE_BUSY: u8 = 0xc0;
const DUPLICATE: u8 = 0xcf;

/// Who logs in, and how.
pub(super) struct Login {
    /// The BMC, for people: host and port.
    pub(super) address: String,
    pub(super) user: String,
    pub(super) password: Zeroizing<Vec<u8>>,
    /// Kg, where the BMC has one.
    pub(super) key: Option<Zeroizing<Vec<u8>>>,
    pub(super) privilege: Privilege,
    /// See [`super::Quirks::open_session_privilege`].
    pub(super) open_privilege: bool,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send this, and ask again.
    Send(Vec<u8>),
    /// Wait for a datagram, at most until then, and ask again.
    Wait(Instant),
    /// The handshake is over, or the request is answered.
    Ready,
}

pub(super) struct Session<'a> {
    login: &'a Login,
    /// Those that may still be tried; the one being tried is the first.
    suites: Vec<Suite>,
    /// The numbers of those that the BMC could not do.
    refused: Vec<u8>,
    /// Whether the BMC could do one of them, but with another password.
    wrong_password: bool,
    stage: Stage,
    turn: Turn,
    pace: Duration,
    /// The longest that an answer took.
    slowest: Option<Duration>,
    /// The end of a session that the BMC may hold, and nobody else.
    farewell: Option<Vec<u8>>,
    reply: Option<Reply>,
}

enum Stage {
    Opening { tag: u8, console: u32 },
    Greeting { tag: u8, transcript: Transcript },
    Proving { tag: u8, transcript: Transcript, keys: Keys },
    Open(Link),
}

impl<'a> Session<'a> {
    /// Begins a handshake with the first of these suites, and goes on to the next where the BMC can't do that one.
    pub(super) fn new(login: &'a Login, suites: Vec<Suite>) -> Result<Self, Error> {
        Ok(Self {
            login,
            suites,
            refused: Vec::new(),
            wrong_password: false,
            stage: Stage::opening()?,
            turn: Turn::opening(PACE),
            pace: PACE,
            slowest: None,
            farewell: None,
            reply: None,
        })
    }

    /// Says what to do next.
    ///
    /// Errors: the session can't come about.
    pub(super) fn poll(&mut self, now: Instant) -> Result<Step, Error> {
        loop {
            if let Some(datagram) = self.farewell.take() {
                return Ok(Step::Send(datagram));
            }
            if matches!(&self.stage, Stage::Open(link) if link.request.is_none()) {
                return Ok(Step::Ready);
            }
            if let Some(due) = self.turn.due.filter(|due| now < *due) {
                return Ok(Step::Wait(due));
            }
            match self.turn.verdict.take() {
                None => {}
                Some(Verdict::Afresh) => {
                    self.begin_afresh()?;
                    continue;
                }
                Some(Verdict::Fail(error)) => return Err(error),
                Some(verdict @ (Verdict::OtherSuite | Verdict::WrongPassword)) => {
                    self.wrong_password |= matches!(verdict, Verdict::WrongPassword);
                    self.refused.push(self.suites.remove(0).number());
                    if self.suites.is_empty() {
                        return Err(self.no_suite());
                    }
                    self.begin_afresh()?;
                    continue;
                }
            }
            if !self.is_open() && self.turn.sends == SENDS {
                if let Some(reason) = self.turn.lost.take() {
                    return Err(Error::Unreachable { address: self.login.address.clone(), reason });
                }
                // Some BMCs keep silent about a suite that they don't have.
                if !matches!(self.stage, Stage::Proving { .. }) {
                    self.suites.rotate_left(1);
                }
                // Lost, or slow: so slow perhaps that it answers too late.
                self.pace = (self.pace * 3 / 2).min(LONGEST);
                self.begin_afresh()?;
                continue;
            }
            let open = self.is_open();
            let turn = &mut self.turn;
            turn.sends += 1;
            turn.lost = None;
            turn.sent = Some(now);
            turn.due = Some(now + turn.wait);
            if open {
                turn.wait = (turn.wait * 2).min(LONGEST);
            }
            return Ok(Step::Send(self.datagram()?));
        }
    }

    /// Takes a datagram in.
    pub(super) fn receive(&mut self, datagram: &[u8], now: Instant) -> Result<(), Error> {
        match &mut self.stage {
            Stage::Opening { .. } | Stage::Greeting { .. } | Stage::Proving { .. } => {
                let Some(packet) = Packet::parse(datagram) else { return Ok(()) };
                if packet.session == 0 && !packet.encrypted && !packet.authenticated {
                    self.handshake(packet.kind, packet.payload, now)?;
                }
            }
            Stage::Open(link) => match link.answer(datagram) {
                Some(Reply { code: NODE_BUSY, .. }) => {
                    self.turn.busy = true;
                    // That request was answered; the next one is another.
                    link.number = link.next_number();
                }
                Some(Reply { code: DUPLICATE, .. }) => self.turn.busy = true,
                Some(reply) => {
                    link.request = None;
                    self.reply = Some(reply);
                    self.learn_pace(now);
                }
                None => {}
            },
        }
        Ok(())
    }

    /// Takes in that the network could not deliver.
    pub(super) fn lost(&mut self, reason: String) {
        self.turn.lost = Some(reason);
    }

    /// Begins a request; what was asked before is forgotten, and its answer will not be believed.
    ///
    /// Panics before the session is open.
    pub(super) fn request(&mut self, netfn: u8, command: u8, data: &[u8], doing: &'static str) {
        let Stage::Open(link) = &mut self.stage else { panic!("only an open session takes requests") };
        link.number = link.next_number();
        link.request = Some(Request { netfn, command, data: data.to_vec() });
        self.reply = None;
        self.turn = Turn::new(doing, self.pace);
    }

    /// The answer to the request, once.
    pub(super) fn take_reply(&mut self) -> Option<Reply> {
        self.reply.take()
    }

    /// The cipher suite of the open session.
    pub(super) fn suite(&self) -> Option<Suite> {
        if let Stage::Open(link) = &self.stage { Some(link.suite) } else { None }
    }

    /// Begins to close the session, if it is open.
    pub(super) fn close(&mut self) {
        if let Stage::Open(link) = &self.stage {
            let id = link.bmc.to_le_bytes();
            self.request(APP, CLOSE_SESSION, &id, "closing the session");
        }
    }

    /// Why there is no answer yet.
    pub(super) fn give_up(&mut self) -> Error {
        let doing = self.turn.doing;
        match self.turn.verdict.take() {
            Some(Verdict::Fail(error)) => return error,
            Some(Verdict::WrongPassword) => return Error::WrongPassword,
            Some(Verdict::OtherSuite) => {
                self.refused.push(self.suites[0].number());
                return self.no_suite();
            }
            Some(Verdict::Afresh) | None => {}
        }
        match self.turn.lost.take() {
            Some(reason) if self.is_open() => Error::NoAnswer { doing, reason },
            Some(reason) => Error::Unreachable { address: self.login.address.clone(), reason },
            None if self.turn.busy => Error::Busy { doing, retry_after: None },
            None => Error::Deadline { doing },
        }
    }

    fn no_suite(&self) -> Error {
        if self.wrong_password { Error::WrongPassword } else { Error::NoCipherSuite { tried: self.refused.clone() } }
    }

    fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Makes what is to be sent now.
    fn datagram(&mut self) -> Result<Vec<u8>, Error> {
        let privilege = self.login.privilege as u8;
        let (kind, payload) = match &mut self.stage {
            Stage::Opening { tag, console } => {
                let privilege = if self.login.open_privilege { privilege } else { 0 };
                let algorithms = self.suites[0].algorithms();
                let open = OpenRequest { tag: *tag, privilege, console: *console, algorithms };
                (Kind::OpenRequest, open.encode())
            }
            Stage::Greeting { tag, transcript } => {
                let (bmc, random) = (transcript.bmc, transcript.console_random);
                let rakp1 = Rakp1 { tag: *tag, bmc, random, role: privilege | BY_NAME, user: transcript.user.clone() };
                (Kind::Rakp1, rakp1.encode())
            }
            Stage::Proving { tag, transcript, .. } => {
                let code = transcript.console_code(&self.login.password).to_vec();
                (Kind::Rakp3, Rakp3 { tag: *tag, status: 0, bmc: transcript.bmc, code }.encode())
            }
            Stage::Open(link) => return link.seal(),
        };
        Ok(Packet::bare(kind, &payload).encode())
    }

    /// Takes in an answer of the handshake.
    fn handshake(&mut self, kind: Kind, payload: &[u8], now: Instant) -> Result<(), Error> {
        let login = self.login;
        let suite = self.suites[0];
        let verdict = match (&self.stage, kind) {
            (Stage::Opening { tag, console }, Kind::OpenResponse) => match OpenResponse::parse(payload) {
                Some((said, Err(status))) if said == *tag => self.refused(status),
                Some((said, Ok(open))) if said == *tag && open.console == *console && open.bmc != 0 => {
                    if open.algorithms == suite.algorithms() {
                        let transcript = Transcript::new(suite, *console, open.bmc, login)?;
                        let tag = tag.wrapping_add(1);
                        self.advance(Stage::Greeting { tag, transcript }, "naming the user", now);
                        return Ok(());
                    }
                    // It chose what nobody asked for.
                    Verdict::OtherSuite
                }
                Some(_) | None => return Ok(()),
            },
            (Stage::Greeting { tag, transcript }, Kind::Rakp2) => match Rakp2::parse(payload) {
                Some((said, Err(status))) if said == *tag => self.refused(status),
                Some((said, Ok(rakp2))) if said == *tag && rakp2.console == transcript.console => {
                    let transcript = Transcript { bmc_random: rakp2.random, guid: rakp2.guid, ..transcript.clone() };
                    if same(&transcript.bmc_code(&login.password), &rakp2.code) {
                        let keys = transcript.keys(login.key.as_ref().unwrap_or(&login.password));
                        let tag = tag.wrapping_add(1);
                        self.advance(Stage::Proving { tag, transcript, keys }, "proving the password", now);
                        return Ok(());
                    }
                    Verdict::WrongPassword
                }
                Some(_) | None => return Ok(()),
            },
            (Stage::Proving { tag, transcript, keys }, Kind::Rakp4) => match Rakp4::parse(payload) {
                Some((said, Err(status))) if said == *tag => self.refused(status),
                Some((said, Ok(rakp4))) if said == *tag && rakp4.console == transcript.console => {
                    if same(&transcript.final_code(keys), &rakp4.code) {
                        let link = Link::new(transcript, login.key.as_ref().unwrap_or(&login.password));
                        self.advance(Stage::Open(link), "talking to the BMC", now);
                        return Ok(());
                    }
                    Verdict::Fail(Error::WrongKg)
                }
                Some(_) | None => return Ok(()),
            },
            _ => return Ok(()),
        };
        self.turn.verdict = Some(verdict);
        Ok(())
    }

    /// What a refusal of the handshake means (section 13.24, table 13-15).
    fn refused(&self, status: u8) -> Verdict {
        let doing = self.turn.doing;
        let fail = |meaning| Verdict::Fail(Error::IpmiRefused { doing, code: status, meaning });
        match status {
            // Its sessions are used up; they end by themselves (openbmc#1241).
            0x01 | 0x0e => Verdict::Fail(Error::Busy { doing, retry_after: None }),
            0x02 | 0x08 => Verdict::Afresh,
            0x04 | 0x05 | 0x10 | 0x11 => Verdict::OtherSuite,
            0x09 | 0x0a => Verdict::Fail(Error::PrivilegeTooLow { doing, privilege: self.login.privilege.name() }),
            0x0d => Verdict::Fail(Error::UnknownUser),
            0x0f => Verdict::Fail(Error::WrongPassword),
            0x0b => fail("no role for the account"),
            0x0c => fail("a name of the wrong length"),
            0x12 => fail("a parameter that it does not allow"),
            _ => fail("it does not say why in known words"),
        }
    }

    fn advance(&mut self, stage: Stage, doing: &'static str, now: Instant) {
        self.stage = stage;
        self.learn_pace(now);
        self.turn = Turn::new(doing, self.pace);
    }

    /// Learns how slow this BMC is, from an answer that can only be to the one transmission. What is only lost now and
    /// then is soon sent again.
    fn learn_pace(&mut self, now: Instant) {
        if let (1, Some(sent)) = (self.turn.sends, self.turn.sent) {
            let took = now.saturating_duration_since(sent);
            self.slowest = Some(self.slowest.map_or(took, |slowest| slowest.max(took)));
        }
        if let Some(slowest) = self.slowest.filter(|_| self.is_open()) {
            self.pace = (2 * slowest).clamp(PACE, LONGEST);
        }
    }

    /// Begins the handshake once more. A session that the BMC may have taken for established is closed.
    fn begin_afresh(&mut self) -> Result<(), Error> {
        self.farewell = self.last_words()?;
        self.stage = Stage::opening()?;
        self.turn = Turn::opening(self.pace);
        Ok(())
    }

    /// The datagram that closes a session whose establishment nobody confirmed; `None` where there can be none.
    pub(super) fn last_words(&self) -> Result<Option<Vec<u8>>, Error> {
        let Stage::Proving { transcript, keys, .. } = &self.stage else { return Ok(None) };
        let data = transcript.bmc.to_le_bytes();
        let close = Message { to: BMC, netfn: APP, from: CONSOLE, sequence: 1, command: CLOSE_SESSION, data: &data };
        keys.seal(transcript.bmc, 1, &close.encode()).map(Some)
    }
}

impl Stage {
    fn opening() -> Result<Self, Error> {
        let [tag] = random()?;
        Ok(Self::Opening { tag, console: u32::from_le_bytes(random()?).max(1) })
    }
}

impl Transcript {
    fn new(suite: Suite, console: u32, bmc: u32, login: &Login) -> Result<Self, Error> {
        let privilege = login.privilege as u8;
        // With the quirk, the BMC hashes the privilege that it was sent first.
        let role = if login.open_privilege { privilege } else { privilege | BY_NAME };
        let (console_random, user) = (random()?, login.user.clone().into_bytes());
        Ok(Self { suite, console, bmc, console_random, bmc_random: [0; 16], guid: [0; 16], role, user })
    }
}

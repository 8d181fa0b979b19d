//! The sessions of one BMC, without I/O: what a datagram asks, and how the answer is wrapped.
//!
//! Built on the codec of `agents`, and judged by `ipmitool`: a mistake that client and face had in common would show.

use std::collections::BTreeMap;

use agents::ipmi::crypto::{Keys, Suite, Transcript, random, same};
use agents::ipmi::packet::{
    APP, BMC, Kind, Message, OpenRequest, OpenResponse, Packet, Rakp1, Rakp2, Rakp3, Rakp4, encode_refusal, encode_v15,
    parse_v15,
};
use agents::ipmi::session::Window;
use anyhow::Result;
use secrecy::{ExposeSecret as _, SecretString};

use super::account;
use super::request::What;

/// Bits of a role byte that are the privilege.
const LEVEL: u8 = 0x0f;
const USER: u8 = 2;

/// What all sessions of a BMC share.
pub(super) struct Bmc {
    pub(super) password: SecretString,
    pub(super) kg: Option<Vec<u8>>,
    /// Their numbers.
    pub(super) suites: Vec<u8>,
    pub(super) guid: [u8; 16],
    sessions: BTreeMap<u32, Session>,
}

/// The faults that change a handshake.
#[derive(Clone, Copy, Default)]
pub(super) struct Handshake {
    pub(super) no_sessions: bool,
    pub(super) late_refusal: bool,
    pub(super) hashes_open_privilege: bool,
}

struct Session {
    /// `None`: suite 0.
    suite: Option<Suite>,
    opened_with: u8,
    transcript: Transcript,
    limit: u8,
    established: Option<Established>,
}

struct Established {
    keys: Keys,
    privilege: u8,
    sequence: u32,
    window: Window,
}

/// Something that a BMC was asked.
pub(super) struct Asked {
    pub(super) what: What,
    via: Via,
}

enum Via {
    /// A step of the handshake, its answer made already; `None` for silence.
    Handshake(Option<Vec<u8>>),
    /// A message in a session.
    Session { session: u32, message: Owned },
    /// A message outside of any; in the envelope of IPMI 1.5, or in that of 2.0.
    Outside { old: bool, message: Owned },
}

/// A message that is kept.
struct Owned {
    netfn: u8,
    from: u8,
    sequence: u8,
    command: u8,
    data: Vec<u8>,
}

impl Owned {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let Message { netfn, from, sequence, command, data, .. } = Message::parse(bytes)?;
        Some(Self { netfn, from, sequence, command, data: data.to_vec() })
    }

    fn answered(&self, answer: &[u8]) -> Vec<u8> {
        let (to, netfn, sequence, command) = (self.from, self.netfn | 1, self.sequence, self.command);
        Message { to, netfn, from: BMC, sequence, command, data: answer }.encode()
    }
}

impl Asked {
    /// Network function, command and data, where it is a message.
    pub(super) fn message(&self) -> Option<(u8, u8, &[u8])> {
        match &self.via {
            Via::Handshake(_) => None,
            Via::Session { message, .. } | Via::Outside { message, .. } => {
                Some((message.netfn, message.command, &message.data))
            }
        }
    }
}

impl Bmc {
    pub(super) fn new(password: SecretString, kg: Option<Vec<u8>>, suites: Vec<u8>, guid: [u8; 16]) -> Self {
        Self { password, kg, suites, guid, sessions: BTreeMap::new() }
    }

    /// How many sessions are established.
    pub(super) fn established(&self) -> usize {
        self.sessions.values().filter(|session| session.established.is_some()).count()
    }

    /// Finds out what a datagram asks; `None` if it is nothing that this BMC listens to.
    pub(super) fn understand(&mut self, datagram: &[u8], faults: Handshake) -> Result<Option<Asked>> {
        if let Some(message) = parse_v15(datagram) {
            let outside = |message| Asked { what: What::Probe, via: Via::Outside { old: true, message } };
            return Ok(Owned::parse(message).map(outside));
        }
        let Some(packet) = Packet::parse(datagram) else { return Ok(None) };
        let (what, answer) = match packet.kind {
            Kind::OpenRequest => (What::Open, self.open(packet.payload, faults)?),
            Kind::Rakp1 => (What::Rakp1, self.greet(packet.payload, faults)),
            Kind::Rakp3 => (What::Rakp3, self.establish(packet.payload)),
            Kind::Ipmi if packet.session == 0 => {
                let outside = |message| Asked { what: What::Probe, via: Via::Outside { old: false, message } };
                return Ok(Owned::parse(packet.payload).map(outside));
            }
            Kind::Ipmi => return Ok(self.in_session(&packet, datagram)),
            Kind::OpenResponse | Kind::Rakp2 | Kind::Rakp4 => return Ok(None),
        };
        Ok(Some(Asked { what, via: Via::Handshake(answer) }))
    }

    /// Wraps an answer: completion code and data. `None` if there is nobody to answer to.
    pub(super) fn answer(&mut self, asked: &Asked, answer: &[u8]) -> Result<Option<Vec<u8>>> {
        match &asked.via {
            Via::Handshake(datagram) => Ok(datagram.clone()),
            Via::Outside { old: true, message } => Ok(Some(encode_v15(&message.answered(answer)))),
            Via::Outside { old: false, message } => {
                Ok(Some(Packet::bare(Kind::Ipmi, &message.answered(answer)).encode()))
            }
            Via::Session { session: id, message } => {
                let Some(session) = self.sessions.get_mut(id) else { return Ok(None) };
                let sealed = session.seal(&message.answered(answer))?;
                if asked.what == What::Close && answer == [0] {
                    self.sessions.remove(id);
                }
                Ok(sealed)
            }
        }
    }

    /// Takes the privilege that a session asks for: the completion code and the level.
    pub(super) fn set_privilege(&mut self, asked: &Asked) -> Vec<u8> {
        let Some((session, message)) = self.session_of(asked) else { return vec![0xff] };
        let wanted = message.data.first().map_or(0, |level| level & LEVEL);
        let limit = session.limit;
        let Some(established) = &mut session.established else { return vec![0xff] };
        match wanted {
            0 => {}
            level if level <= limit => established.privilege = level,
            _ => return vec![0x81],
        }
        vec![0, established.privilege]
    }

    /// The privilege that a session has now; 0 outside of any.
    pub(super) fn privilege(&mut self, asked: &Asked) -> u8 {
        let session = self.session_of(asked).map(|(session, _)| session);
        session.and_then(|session| session.established.as_ref()).map_or(0, |established| established.privilege)
    }

    fn session_of<'a>(&mut self, asked: &'a Asked) -> Option<(&mut Session, &'a Owned)> {
        let Via::Session { session, message } = &asked.via else { return None };
        Some((self.sessions.get_mut(session)?, message))
    }

    fn open(&mut self, payload: &[u8], faults: Handshake) -> Result<Option<Vec<u8>>> {
        let Some(OpenRequest { tag, privilege, console, algorithms }) = OpenRequest::parse(payload) else {
            return Ok(None);
        };
        let refuse = |status| Ok(Some(datagram(Kind::OpenResponse, &encode_refusal(tag, status, console))));
        if faults.no_sessions {
            return refuse(0x01);
        }
        let offered = self.suites.iter().map(|number| Suite::numbered(*number));
        let Some(suite) = offered.into_iter().find(|suite| suite.map_or([0; 3], Suite::algorithms) == algorithms)
        else {
            return refuse(0x11);
        };
        let bmc = u32::from_le_bytes(random()?).max(1);
        let transcript = Transcript {
            // With suite 0 nothing is ever computed from it.
            suite: suite.unwrap_or(Suite::Three),
            console,
            bmc,
            console_random: [0; 16],
            bmc_random: random()?,
            guid: self.guid,
            role: 0,
            user: Vec::new(),
        };
        self.sessions.insert(bmc, Session { suite, opened_with: privilege, transcript, limit: 0, established: None });
        let response = OpenResponse { privilege: 4, console, bmc, algorithms };
        Ok(Some(datagram(Kind::OpenResponse, &response.encode(tag))))
    }

    fn greet(&mut self, payload: &[u8], faults: Handshake) -> Option<Vec<u8>> {
        let rakp1 = Rakp1::parse(payload)?;
        let refuse = |status, console| Some(datagram(Kind::Rakp2, &encode_refusal(rakp1.tag, status, console)));
        let Some(session) = self.sessions.get_mut(&rakp1.bmc) else { return refuse(0x02, 0) };
        let transcript = &mut session.transcript;
        let Some(limit) = account::limit(&rakp1.user) else { return refuse(0x0d, transcript.console) };
        let wanted = rakp1.role & LEVEL;
        if wanted > limit as u8 && !faults.late_refusal {
            return refuse(0x0a, transcript.console);
        }
        transcript.console_random = rakp1.random;
        transcript.role = if faults.hashes_open_privilege { session.opened_with } else { rakp1.role };
        transcript.user = rakp1.user;
        session.limit = wanted.min(limit as u8);
        let code = match session.suite {
            Some(_) => transcript.bmc_code(self.password.expose_secret().as_bytes()).to_vec(),
            None => Vec::new(),
        };
        let (console, random, guid) = (transcript.console, transcript.bmc_random, transcript.guid);
        Some(datagram(Kind::Rakp2, &Rakp2 { console, random, guid, code }.encode(rakp1.tag)))
    }

    fn establish(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let rakp3 = Rakp3::parse(payload)?;
        let refuse = |status, console| Some(datagram(Kind::Rakp4, &encode_refusal(rakp3.tag, status, console)));
        let Some(session) = self.sessions.get_mut(&rakp3.bmc) else { return refuse(0x02, 0) };
        if session.established.is_some() {
            return None; // It is established, and the same step gets no second answer.
        }
        let (transcript, password) = (&session.transcript, self.password.expose_secret().as_bytes());
        if rakp3.status != 0 {
            self.sessions.remove(&rakp3.bmc);
            return None;
        }
        if session.suite.is_some() && !same(&transcript.console_code(password), &rakp3.code) {
            return refuse(0x0f, transcript.console);
        }
        let keys = transcript.keys(self.kg.as_deref().unwrap_or(password));
        let code = if session.suite.is_some() { transcript.final_code(&keys).to_vec() } else { Vec::new() };
        let rakp4 = Rakp4 { console: transcript.console, code };
        session.established = Some(Established { keys, privilege: USER, sequence: 0, window: Window::default() });
        Some(datagram(Kind::Rakp4, &rakp4.encode(rakp3.tag)))
    }

    fn in_session(&mut self, packet: &Packet<'_>, datagram: &[u8]) -> Option<Asked> {
        let session = self.sessions.get_mut(&packet.session)?;
        let established = session.established.as_mut()?;
        let message = match session.suite {
            Some(_) => {
                let (sequence, message) = established.keys.open(packet.session, datagram)?;
                established.window.take(sequence).then_some(message)?
            }
            None => packet.payload.to_vec(),
        };
        let message = Owned::parse(&message)?;
        let what = What::of(message.netfn, message.command, &message.data);
        Some(Asked { what, via: Via::Session { session: packet.session, message } })
    }
}

impl Session {
    fn seal(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(established) = &mut self.established else { return Ok(None) };
        established.sequence += 1;
        let (console, sequence) = (self.transcript.console, established.sequence);
        Ok(Some(match self.suite {
            Some(_) => established.keys.seal(console, sequence, message)?,
            None => Packet { session: console, ..Packet::bare(Kind::Ipmi, message) }.encode(),
        }))
    }
}

fn datagram(kind: Kind, payload: &[u8]) -> Vec<u8> {
    Packet::bare(kind, payload).encode()
}

/// Answers what a console asks outside of any session: completion code and data.
pub(super) fn outside(netfn: u8, command: u8, data: &[u8], bmc: &Bmc) -> Vec<u8> {
    match (netfn, command) {
        // Get Channel Authentication Capabilities (section 22.13): IPMI 2.0 only, named users, perhaps Kg.
        (APP, 0x38) => vec![0, 1, 0x80, if bmc.kg.is_some() { 0x24 } else { 0x04 }, 0x02, 0, 0, 0, 0],
        // Get Channel Cipher Suites (section 22.15): all fit into the first part of the list.
        (APP, 0x54) => {
            let mut answer = vec![0, 1];
            if data.get(2).is_some_and(|index| index & 0x3f == 0) {
                for number in &bmc.suites {
                    let [auth, integrity, privacy] = Suite::numbered(*number).map_or([0; 3], Suite::algorithms);
                    answer.extend([0xc0, *number, auth, 0x40 | integrity, 0x80 | privacy]);
                }
            }
            answer
        }
        _ => vec![0xc1],
    }
}

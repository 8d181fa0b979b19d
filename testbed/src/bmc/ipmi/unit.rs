//! One machine behind a face: what its BMC believes, and what it does when told.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use agents::Command;
use agents::ipmi::Privilege;
use agents::ipmi::crypto::{Suite, Transcript};
use agents::ipmi::packet::{Kind, Message, Packet, encode_refusal};
use anyhow::Result;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Shared;
use super::bmc::{Asked, Bmc, Handshake, outside};
use super::fault::Fault;
use super::request::What;
use crate::machine::{Machine, State};

const INVALID_COMMAND: u8 = 0xc1;
const PRIVILEGE_TOO_LOW: u8 = 0xd4;
const NOT_IN_THIS_STATE: u8 = 0xd5;
const BUSY: u8 = 0xc0;

/// A machine and its BMC.
pub(super) struct Unit {
    pub(super) machine: Arc<Machine>,
    bmc: Mutex<Bmc>,
    mind: Mutex<Mind>,
    held: watch::Sender<Vec<What>>,
    sessions: watch::Sender<usize>,
}

#[derive(Default)]
struct Mind {
    faults: Vec<Fault>,
    /// How many datagrams came or went while some are lost.
    travelled: u64,
    /// What [`Fault::Replay`] sends once more.
    before: Option<Vec<u8>>,
}

impl Unit {
    pub(super) fn new(machine: Arc<Machine>, bmc: Bmc) -> Self {
        Self {
            machine,
            bmc: Mutex::new(bmc),
            mind: Mutex::default(),
            held: watch::Sender::default(),
            sessions: watch::Sender::default(),
        }
    }

    pub(super) fn set_faults(&self, faults: Vec<Fault>) {
        *self.mind() = Mind { faults, ..Mind::default() };
    }

    pub(super) fn has(&self, fault: &Fault) -> bool {
        self.mind().faults.contains(fault)
    }

    pub(super) fn hold(&self, what: What) {
        self.held.send_modify(|held| held.push(what));
    }

    pub(super) fn release(&self) {
        self.held.send_modify(Vec::clear);
    }

    /// Waits until requests of this kind are not withheld.
    pub(super) async fn released(&self, what: What) {
        // An error would mean that the sender is gone; it is `self`'s.
        let _ = self.held.subscribe().wait_for(|held| !held.contains(&what)).await;
    }

    /// Follows how many sessions are established.
    pub(super) fn sessions(&self) -> watch::Receiver<usize> {
        self.sessions.subscribe()
    }

    /// Tells whether nothing at all answers for this machine.
    pub(super) fn is_dead(&self) -> bool {
        let State { on, mains, .. } = self.machine.state();
        let dies = |fault: &Fault| *fault == Fault::Dead || (*fault == Fault::DiesWithNode && !on);
        !mains || self.mind().faults.iter().any(dies)
    }

    /// How much longer each answer takes.
    pub(super) fn delay(&self) -> Duration {
        let mind = self.mind();
        let slow =
            mind.faults.iter().find_map(|fault| if let Fault::Slow(delay) = fault { Some(*delay) } else { None });
        slow.unwrap_or_default()
    }

    /// Tells whether the next datagram, whichever way, is lost.
    pub(super) fn loses_one(&self) -> bool {
        let mut mind = self.mind();
        let loss = mind.faults.iter().find_map(|fault| match fault {
            Fault::Loss { percent, seed } => Some((*percent, *seed)),
            _ => None,
        });
        let Some((percent, seed)) = loss else { return false };
        mind.travelled += 1;
        mixed(seed, mind.travelled) % 100 < u64::from(percent)
    }

    /// Finds out what a datagram asks.
    pub(super) fn understand(&self, datagram: &[u8]) -> Result<Option<Asked>> {
        let faults = {
            let mind = self.mind();
            Handshake {
                no_sessions: mind.faults.contains(&Fault::NoSessions),
                late_refusal: mind.faults.contains(&Fault::LateRefusal),
                hashes_open_privilege: mind.faults.contains(&Fault::HashesOpenPrivilege),
            }
        };
        let asked = self.bmc().understand(datagram, faults);
        self.count_sessions();
        asked
    }

    /// Does what was asked, and makes the datagram that says so; `None` for silence.
    pub(super) fn answer(self: &Arc<Self>, asked: &Asked, shared: &Shared) -> Result<Option<Vec<u8>>> {
        let answer = self.carry_out(asked, shared);
        let datagram = self.bmc().answer(asked, &answer);
        self.count_sessions();
        datagram
    }

    /// What arrives at the console in place of an answer.
    pub(super) fn on_the_way(&self, asked: &Asked, datagram: Vec<u8>) -> Vec<Vec<u8>> {
        let in_session = !matches!(asked.what, What::Probe | What::Open | What::Rakp1 | What::Rakp3);
        let mut mind = self.mind();
        let mut arriving = vec![datagram.clone()];
        for fault in mind.faults.clone() {
            match fault {
                Fault::Tamper if in_session => {
                    mind.travelled += 1;
                    // The first four bytes are protected by nothing, and mean nothing.
                    let bits = 8 * (datagram.len() as u64 - 4);
                    let bit = 32 + mixed(0, mind.travelled) % bits;
                    let byte = usize::try_from(bit / 8).expect("within a datagram");
                    arriving[0][byte] ^= 1 << (bit % 8);
                }
                Fault::Duplicate => arriving.push(datagram.clone()),
                Fault::Replay if in_session => {
                    let before = mind.before.replace(datagram.clone());
                    arriving.splice(0..0, before);
                }
                Fault::Forge => {
                    arriving.splice(0..0, forged(asked, &datagram));
                }
                _ => {}
            }
        }
        arriving
    }

    fn carry_out(self: &Arc<Self>, asked: &Asked, shared: &Shared) -> Vec<u8> {
        if let Some((netfn, command, data)) = asked.message().filter(|_| asked.what == What::Probe) {
            return outside(netfn, command, data, &self.bmc());
        }
        if let Some(Fault::Busy(times)) = self.mind().faults.iter_mut().find(|fault| matches!(fault, Fault::Busy(1..)))
            && asked.message().is_some()
        {
            *times -= 1;
            return vec![BUSY];
        }
        let privilege = self.bmc().privilege(asked);
        match asked.what {
            What::Privilege => self.bmc().set_privilege(asked),
            What::Close => vec![0],
            What::Status if privilege >= Privilege::User as u8 => {
                // Restores what was before (bits 5 and 6); no event, no more.
                vec![0, 0x20 | u8::from(self.believes_on()), 0, 0]
            }
            What::Guid => self.guid(),
            What::Control(_) if privilege < Privilege::Operator as u8 => vec![PRIVILEGE_TOO_LOW],
            What::Control(command) => vec![self.command(command, shared)],
            What::Status | What::Probe | What::Open | What::Rakp1 | What::Rakp3 | What::Other => vec![INVALID_COMMAND],
        }
    }

    fn guid(&self) -> Vec<u8> {
        let (mut uuid, mut order) = (self.machine.uuid(), None);
        for fault in &self.mind().faults {
            match fault {
                Fault::NoIdentity => return vec![INVALID_COMMAND],
                Fault::WrongIdentity(other) => uuid = *other,
                Fault::MixedEndianIdentity | Fault::ReversedIdentity => order = Some(fault.clone()),
                _ => {}
            }
        }
        let mut bytes = if order == Some(Fault::MixedEndianIdentity) { uuid.to_bytes_le() } else { uuid.into_bytes() };
        if order == Some(Fault::ReversedIdentity) {
            bytes.reverse();
        }
        [&[0], &bytes[..]].concat()
    }

    fn believes_on(&self) -> bool {
        self.machine.state().on && !self.has(&Fault::HearsayOff)
    }

    /// Takes a command, and says with which completion code.
    fn command(self: &Arc<Self>, command: Command, shared: &Shared) -> u8 {
        let believes_on = self.believes_on();
        let (mut late, mut owner) = (None, None);
        for fault in &mut self.mind().faults {
            match fault {
                Fault::Refuse { code, times } if *times != Some(0) => {
                    *times = times.map(|left| left - 1);
                    return *code;
                }
                Fault::AlreadyOffRefusal if command == Command::Off && !believes_on => return NOT_IN_THIS_STATE,
                Fault::LieOff if command == Command::Off => return 0,
                Fault::Late(delay) => late = Some(*delay),
                Fault::PowerOwner(delay) if command == Command::Off => owner = Some(*delay),
                _ => {}
            }
        }
        if late.is_none() {
            self.switch(command);
        }
        if late.is_some() || owner.is_some() {
            let unit = self.clone();
            shared.spawn(async move {
                if let Some(delay) = late {
                    sleep(delay).await;
                    unit.switch(command);
                }
                if let Some(delay) = owner {
                    sleep(delay).await;
                    unit.machine.set_power(true, "power owner");
                }
            });
        }
        0
    }

    fn switch(&self, command: Command) {
        self.machine.set_power(command == Command::On, "ipmi");
        self.mind().faults.retain(|fault| *fault != Fault::HearsayOff);
    }

    fn count_sessions(&self) {
        let established = self.bmc().established();
        self.sessions.send_if_modified(|sessions| std::mem::replace(sessions, established) != established);
    }

    fn bmc(&self) -> MutexGuard<'_, Bmc> {
        self.bmc.lock().expect("no panic while held")
    }

    fn mind(&self) -> MutexGuard<'_, Mind> {
        self.mind.lock().expect("no panic while held")
    }
}

/// A number that looks random, and is the same each time (SplitMix64).
fn mixed(seed: u64, count: u64) -> u64 {
    let mut mixed = seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What somebody who sees the traffic, and knows no key, might send before the true answer.
fn forged(asked: &Asked, answer: &[u8]) -> Vec<Vec<u8>> {
    let Some(packet) = Packet::parse(answer) else { return Vec::new() };
    let Some((netfn, command, _)) = asked.message() else {
        // The tag, and that the name is not authorised.
        return vec![Packet::bare(packet.kind, &encode_refusal(packet.payload[0], 0x0d, 0)).encode()];
    };
    let wrong = Transcript {
        suite: Suite::Seventeen,
        console: packet.session,
        bmc: 0,
        console_random: [0; 16],
        bmc_random: [0; 16],
        guid: [0; 16],
        role: 4,
        user: Vec::new(),
    };
    let wrong = wrong.keys(b"guessed");
    let lies = (0..64).flat_map(|sequence| {
        let data: &[u8] = if asked.what == What::Status { &[0, 0x20, 0, 0] } else { &[0] };
        let message = Message { to: 0x81, netfn: netfn | 1, from: 0x20, sequence, command, data }.encode();
        let plain = Packet { session: packet.session, sequence: packet.sequence, ..Packet::bare(Kind::Ipmi, &message) };
        let outside = Packet::bare(Kind::Ipmi, &message).encode();
        [Some(plain.encode()), Some(outside), wrong.seal(packet.session, packet.sequence, &message).ok()]
    });
    lies.flatten().collect()
}

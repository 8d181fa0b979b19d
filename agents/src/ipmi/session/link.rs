//! An established session: numbering, sealing, and which datagrams are the answer.

use crate::Error;
use crate::ipmi::crypto::{Keys, Suite, Transcript};
use crate::ipmi::packet::{BMC, CONSOLE, Message};

/// A BMC's answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ipmi) struct Reply {
    pub(in crate::ipmi) code: u8,
    pub(in crate::ipmi) data: Vec<u8>,
}

/// An established session.
pub(super) struct Link {
    pub(super) keys: Keys,
    pub(super) suite: Suite,
    pub(super) console: u32,
    pub(super) bmc: u32,
    pub(super) sequence: u32,
    pub(super) number: u8,
    pub(super) window: Window,
    pub(super) request: Option<Request>,
}

#[derive(Clone)]
pub(super) struct Request {
    pub(super) netfn: u8,
    pub(super) command: u8,
    pub(super) data: Vec<u8>,
}

impl Link {
    pub(super) fn new(transcript: &Transcript, key: &[u8]) -> Self {
        Self {
            keys: transcript.keys(key),
            suite: transcript.suite,
            console: transcript.console,
            bmc: transcript.bmc,
            sequence: 0,
            number: 0,
            window: Window::default(),
            request: None,
        }
    }

    pub(super) fn next_number(&self) -> u8 {
        (self.number + 1) & 0x3f
    }

    pub(super) fn seal(&mut self) -> Result<Vec<u8>, Error> {
        let request = self.request.as_ref().expect("only a request is sent");
        // 2^32 datagrams at the fastest pace take decades.
        self.sequence = self.sequence.checked_add(1).expect("no session lives that long");
        let Request { netfn, command, data } = request;
        let message = Message { to: BMC, netfn: *netfn, from: CONSOLE, sequence: self.number, command: *command, data };
        self.keys.seal(self.bmc, self.sequence, &message.encode())
    }

    /// Reads a datagram as the answer to the request; `None` if it is anything else.
    pub(super) fn answer(&mut self, datagram: &[u8]) -> Option<Reply> {
        let (sequence, message) = self.keys.open(self.console, datagram)?;
        if !self.window.take(sequence) {
            return None;
        }
        let request = self.request.as_ref()?;
        let message = Message::parse(&message)?;
        let fits =
            message.netfn == request.netfn | 1 && message.command == request.command && message.sequence == self.number;
        let (code, data) = message.data.split_first().filter(|_| fits)?;
        Some(Reply { code: *code, data: data.to_vec() })
    }
}

/// The sequence numbers of a session's authenticated datagrams: each is taken once, old ones never (section 6.12.13).
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    highest: u32,
    /// Bit n: the one n below the highest was taken.
    taken: u32,
}

impl Window {
    /// Takes a number; false if it was taken before, is 32 or more below the highest, or is 0.
    pub fn take(&mut self, number: u32) -> bool {
        if number == 0 {
            return false;
        }
        if let Some(ahead) = number.checked_sub(self.highest).filter(|ahead| *ahead > 0) {
            self.taken = self.taken.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = number;
            return true;
        }
        let Some(bit) = 1u32.checked_shl(self.highest - number) else { return false };
        let fresh = self.taken & bit == 0;
        self.taken |= bit;
        fresh
    }
}

//! The thin shell around a session: a UDP socket and a clock.
//!
//! The socket belongs to the call's future, and what is sent is sent between two looks at the clock: a dropped call
//! sends nothing more, and neither does one whose deadline passed while its process was stopped.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::crypto::Suite;
use super::packet::MAX_DATAGRAM;
use super::session::{Login, Reply, Session, Step};
use crate::Error;
use crate::error::clean;

/// How long a session's end may stay unconfirmed: two transmissions to a BMC at the usual pace. The result of a call is
/// known by then, and is not to wait for a lost datagram.
const GOODBYE: Duration = Duration::from_millis(750);

/// A session with a BMC and the socket that it goes through.
pub(super) struct Line<'a> {
    socket: UdpSocket,
    session: Session<'a>,
}

impl<'a> Line<'a> {
    /// Opens a session.
    pub(super) async fn open(to: SocketAddr, login: &'a Login, suites: Vec<Suite>, by: Instant) -> Result<Self, Error> {
        let unreachable = |error: std::io::Error| Error::Unreachable {
            address: login.address.clone(),
            reason: clean(&error.to_string(), 200),
        };
        let any = match to {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = UdpSocket::bind((any, 0)).await.map_err(unreachable)?;
        // Connected, it takes datagrams from there only, and hears what the network can't deliver.
        socket.connect(to).await.map_err(unreachable)?;
        let mut line = Self { socket, session: Session::new(login, suites)? };
        match line.drive(by).await {
            Ok(()) => Ok(line),
            Err(error) => {
                if let Ok(Some(datagram)) = line.session.last_words() {
                    line.send(&datagram, by).await;
                }
                Err(error)
            }
        }
    }

    /// The cipher suite in use.
    pub(super) fn suite(&self) -> Option<Suite> {
        self.session.suite()
    }

    /// Asks for something and waits for the answer, whatever its completion code.
    pub(super) async fn ask(
        &mut self,
        netfn: u8,
        command: u8,
        data: &[u8],
        doing: &'static str,
        by: Instant,
    ) -> Result<Reply, Error> {
        self.session.request(netfn, command, data, doing);
        self.drive(by).await?;
        self.session.take_reply().ok_or(Error::Deadline { doing })
    }

    /// Closes the session, as far as that can be done by then.
    pub(super) async fn close(mut self, by: Instant) {
        self.session.close();
        if let Err(error) = self.drive(by.min(Instant::now() + GOODBYE)).await {
            // It ends by itself, after a minute without traffic (section 6.12.15).
            tracing::debug!(%error, "an IPMI session was left open");
        }
    }

    /// Does what the session says until it is ready.
    async fn drive(&mut self, by: Instant) -> Result<(), Error> {
        // One byte more than is believed, so that what is longer is seen to be.
        let mut buffer = [0; MAX_DATAGRAM + 1];
        loop {
            let now = Instant::now();
            if now >= by {
                return Err(self.session.give_up());
            }
            match self.session.poll(now)? {
                Step::Ready => return Ok(()),
                Step::Send(datagram) => self.send(&datagram, by).await,
                Step::Wait(until) => {
                    let until = until.min(by);
                    match timeout_at(until, self.socket.recv(&mut buffer)).await {
                        Ok(Ok(length)) => self.session.receive(&buffer[..length], Instant::now())?,
                        Ok(Err(error)) => {
                            self.session.lost(clean(&error.to_string(), 200));
                            sleep_until(until).await;
                        }
                        Err(_) => {}
                    }
                }
            }
        }
    }

    /// Sends a datagram, unless it is too late.
    async fn send(&mut self, datagram: &[u8], by: Instant) {
        // An error shows in the sending, too.
        let _ = timeout_at(by, self.socket.writable()).await;
        if Instant::now() >= by {
            return;
        }
        match self.socket.try_send(datagram) {
            // What a full buffer swallows is as good as lost on the way.
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                self.session.lost(clean(&error.to_string(), 200));
            }
            Ok(_) | Err(_) => {}
        }
    }
}

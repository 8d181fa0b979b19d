//! Free ports on loopback, for servers that must be told theirs.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

use anyhow::bail;
use uuid::Uuid;

/// Below Linux's ephemeral range (32768 to 60999), so that no outgoing connection takes a port between its choice and
/// its use, or while a server restarts.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
/// Were half of the range in use, so many tries would still fail only once in 10^15.
const TRIES: usize = 50;

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Finds a TCP port of 127.0.0.1 that nobody uses and that this process has not given out before.
///
/// Chosen at random, so that two processes that look at the same time do not find the same one.
pub fn free_port() -> anyhow::Result<u16> {
    for _ in 0..TRIES {
        let random = Uuid::new_v4().as_u128() % u128::from(RANGE.end - RANGE.start);
        let port = RANGE.start + u16::try_from(random).expect("less than the range's length");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free && GIVEN.lock().expect("no panic while held").insert(port) {
            return Ok(port);
        }
    }
    bail!("no free TCP port on 127.0.0.1 between {} and {}", RANGE.start, RANGE.end - 1)
}

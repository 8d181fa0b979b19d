//! The injected clocks: wall time for what is persisted, monotonic time for what is aged.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::decide::{Mono, Now, Time};

/// Tells the time. Everything that waits uses tokio's clock; wall time comes from here alone, so that a simulation
/// under tokio's paused clock sees both move together.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    wall: Wall,
}

#[derive(Clone, Debug)]
enum Wall {
    System,
    /// Started at this time, and moves with tokio's clock.
    From(Timestamp),
}

impl Clock {
    /// Makes the clock of a real process.
    pub fn system() -> Self {
        Self { start: Instant::now(), wall: Wall::System }
    }

    /// Makes a clock whose wall time starts at `wall` and moves with tokio's clock.
    pub fn simulated(wall: Timestamp) -> Self {
        Self { start: Instant::now(), wall: Wall::From(wall) }
    }

    /// Returns the wall time.
    pub fn timestamp(&self) -> Timestamp {
        match self.wall {
            Wall::System => Timestamp::now(),
            Wall::From(start) => start.saturating_add(self.start.elapsed()).unwrap_or(start),
        }
    }

    /// Returns this moment on both clocks.
    pub fn now(&self) -> Now {
        Now { wall: millis(self.timestamp()), mono: self.mono(Instant::now()) }
    }

    /// Returns an instant as `decide` counts: milliseconds since this clock was made, rounded down.
    pub fn mono(&self, at: Instant) -> Mono {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(Mono::MAX)
    }

    /// Returns the deadline that lies `after` from now.
    pub fn deadline(&self, after: Duration) -> Instant {
        Instant::now() + after
    }
}

/// Returns a timestamp as `decide` counts: milliseconds since the epoch, 0 for anything before it.
pub fn millis(at: Timestamp) -> Time {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

/// Returns a time of `decide` as a timestamp; the epoch for one that no calendar holds.
pub fn timestamp(at: Time) -> Timestamp {
    i64::try_from(at).ok().and_then(|at| Timestamp::from_millisecond(at).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

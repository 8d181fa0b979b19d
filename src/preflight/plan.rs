//! When each node is checked next. Pure: times come in, and go out.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::check::{Checked, Outcome};
use crate::api::Driver;

/// A failure that may pass is looked at again after this, then after twice as long, up to the period: a BMC that was busy
/// is not reported for half a minute.
const AGAIN: Duration = Duration::from_secs(2);
/// After giving way to a remediation, or when a node has one: it will be at it for seconds. Long enough for the cluster to
/// be listed in between.
const LATER: Duration = Duration::from_secs(3);
/// Scripts are asked this many times as rarely: each starts an interpreter.
const SCRIPT: u32 = 10;
/// A script that has never succeeded is asked ever more rarely, up to this many of its periods: it does not say which of
/// its failures is a wrong password, and most accounts are locked by a few within half an hour.
const SCRIPT_RAREST: u32 = 12;

/// How often.
pub(super) struct Times {
    period: Duration,
    /// Spreads the checks: all BMCs at once is what no management network likes.
    chance: RandomState,
    drawn: AtomicU64,
}

/// One node of one template.
#[derive(Default)]
pub(super) struct Pair {
    /// What is known.
    pub checked: Option<Checked>,
    /// Of which inputs.
    inputs: Option<String>,
    /// When spec and Secrets are looked at next. `None`: now.
    due: Option<Instant>,
    /// When the device is asked next, whatever they say. `None`: now.
    ask: Option<Instant>,
    pub in_flight: bool,
    /// It became due while it was in flight.
    hurried: bool,
    /// Failures in a row that might have passed.
    failures: u32,
    /// It has answered with these inputs.
    answered: bool,
}

impl Times {
    pub(super) fn new(period: Duration) -> Self {
        Self { period, chance: RandomState::new(), drawn: AtomicU64::default() }
    }

    /// A period, 20 % more or less.
    fn next(&self, period: Duration) -> Duration {
        let chance = self.chance.hash_one(self.drawn.fetch_add(1, Ordering::Relaxed)) % 401;
        period * (800 + u32::try_from(chance).unwrap_or(200)) / 1000
    }
}

impl Pair {
    /// When it is to be checked next; `None`: now.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.in_flight && self.due.is_none_or(|due| due <= now)
    }

    /// The inputs with which the device need not be asked now.
    pub(super) fn known(&self, now: Instant) -> Option<String> {
        self.ask.filter(|ask| *ask > now).and_then(|_| self.inputs.clone())
    }

    /// Makes it due, whatever was planned.
    pub(super) fn hurry(&mut self) {
        (self.due, self.ask) = (None, None);
        self.hurried = self.in_flight;
    }

    /// Its node has a remediation, which looks itself.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.due = Some(now + LATER);
    }

    /// Takes a result in, and plans the next check. True if there is something new to tell.
    pub(super) fn done(&mut self, outcome: Outcome, times: &Times, now: Instant) -> bool {
        self.in_flight = false;
        let news = self.take(outcome, times, now);
        if std::mem::take(&mut self.hurried) {
            self.hurry();
        }
        news
    }

    fn take(&mut self, outcome: Outcome, times: &Times, now: Instant) -> bool {
        let (mut checked, inputs) = match outcome {
            Outcome::GaveWay => {
                self.due = Some(now + LATER);
                return false;
            }
            Outcome::Unchanged => {
                self.due = Some(now + times.next(times.period));
                return false;
            }
            Outcome::Checked(checked, inputs) => (checked, inputs),
        };
        let changed = inputs != self.inputs;
        self.answered = checked.power.is_some() || (self.answered && !changed);
        self.inputs = inputs;
        self.failures = if checked.may_pass && !checked.ready { self.failures.saturating_add(1) } else { 0 };
        self.plan(&checked, times, now);
        match &self.checked {
            // Once is no news: a BMC may be busy.
            Some(before) if before.ready && self.failures == 1 && !changed => return false,
            // What was last read of it, and when.
            Some(before) if checked.asked.is_none() => {
                checked.asked = before.asked;
                checked.power = checked.power.take().or_else(|| before.power.clone());
                checked.system_uuid = checked.system_uuid.take().or_else(|| before.system_uuid.clone());
            }
            Some(_) | None => {}
        }
        self.checked = Some(checked);
        true
    }

    fn plan(&mut self, checked: &Checked, times: &Times, now: Instant) {
        let doubled = |first: Duration| first.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        let period = times.next(times.period);
        let (due, ask) = match (checked.driver, self.failures) {
            (Some(Driver::Script), 1..) if !self.answered => {
                let rarest = times.period * SCRIPT * SCRIPT_RAREST;
                (period, doubled(times.period * SCRIPT).min(rarest))
            }
            (Some(Driver::Script), _) => (period, times.next(times.period * SCRIPT)),
            (Some(Driver::Native | Driver::Person) | None, 0) => (period, Duration::ZERO),
            (Some(Driver::Native | Driver::Person) | None, _) => (doubled(AGAIN).min(period), Duration::ZERO),
        };
        (self.due, self.ask) = (Some(now + due), Some(now + ask));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);

    fn times() -> Times {
        Times::new(PERIOD)
    }

    fn ready(driver: Driver) -> Checked {
        let power = Some(agents::PowerState::On);
        Checked { ready: true, reason: "Ready", driver: Some(driver), power, ..failed(driver, false) }
    }

    fn failed(driver: Driver, may_pass: bool) -> Checked {
        Checked { driver: Some(driver), ..Checked::failed("BMCTimeout", "no answer".into(), may_pass) }
    }

    fn done(pair: &mut Pair, checked: Checked, now: Instant) -> bool {
        pair.done(Outcome::Checked(checked, Some("1".into())), &times(), now)
    }

    fn in_seconds(at: Option<Instant>, now: Instant) -> f64 {
        at.expect("planned").duration_since(now).as_secs_f64()
    }

    #[test]
    fn a_period_has_jitter() {
        let (now, mut pair) = (Instant::now(), Pair::default());
        assert!(pair.is_due(now), "a new one at once");
        let all: Vec<_> = (0..200)
            .map(|_| {
                done(&mut pair, ready(Driver::Native), now);
                in_seconds(pair.due, now)
            })
            .collect();
        assert!(all.iter().all(|due| (24.0..=36.1).contains(due)), "{all:?}");
        assert!(all.iter().any(|due| *due < 27.0) && all.iter().any(|due| *due > 33.0), "{all:?}");
    }

    #[test]
    fn what_may_pass_is_looked_at_again_soon_and_told_the_second_time() {
        let (now, mut pair) = (Instant::now(), Pair::default());
        assert!(done(&mut pair, ready(Driver::Native), now));
        assert!(!done(&mut pair, failed(Driver::Native, true), now), "once is no news");
        assert!(pair.checked.as_ref().is_some_and(|checked| checked.ready));
        assert_eq!(in_seconds(pair.due, now), 2.0);
        assert!(done(&mut pair, failed(Driver::Native, true), now));
        assert_eq!(in_seconds(pair.due, now), 4.0);
        assert!(pair.checked.as_ref().is_some_and(|checked| !checked.ready && checked.power.is_some()));
        for _ in 0..100 {
            done(&mut pair, failed(Driver::Native, true), now);
        }
        assert!((24.0..=36.1).contains(&in_seconds(pair.due, now)), "back to the period");
    }

    #[test]
    fn what_nothing_mends_is_told_at_once() {
        let (now, mut pair) = (Instant::now(), Pair::default());
        done(&mut pair, ready(Driver::Native), now);
        assert!(done(&mut pair, failed(Driver::Native, false), now));
        assert!((24.0..=36.1).contains(&in_seconds(pair.due, now)));
    }

    #[test]
    fn a_script_is_asked_rarely_but_its_secrets_are_looked_at() {
        let (now, mut pair) = (Instant::now(), Pair::default());
        done(&mut pair, ready(Driver::Script), now);
        assert!(in_seconds(pair.due, now) < 37.0);
        let ask = in_seconds(pair.ask, now);
        assert!((240.0..=361.0).contains(&ask), "{ask}");
        assert_eq!(pair.known(now).as_deref(), Some("1"), "it need not be asked");
        assert_eq!(pair.known(now + 13 * PERIOD), None);
        assert!(!pair.done(Outcome::Unchanged, &times(), now));
        assert_eq!(in_seconds(pair.ask, now), ask);
    }

    /// It does not say whether its password is wrong.
    #[test]
    fn a_script_that_never_succeeded_is_asked_ever_more_rarely() {
        let (now, mut pair) = (Instant::now(), Pair::default());
        let mut asked = vec![];
        for _ in 0..6 {
            done(&mut pair, failed(Driver::Script, true), now);
            asked.push(in_seconds(pair.ask, now));
        }
        assert_eq!(asked, [300.0, 600.0, 1200.0, 2400.0, 3600.0, 3600.0]);
        done(&mut pair, ready(Driver::Script), now);
        done(&mut pair, failed(Driver::Script, true), now);
        assert!(in_seconds(pair.ask, now) < 361.0, "its account is known to be good");
    }

    #[test]
    fn a_remediation_goes_first() {
        let (now, mut pair) = (Instant::now(), Pair { in_flight: true, ..Pair::default() });
        assert!(!pair.is_due(now));
        assert!(!pair.done(Outcome::GaveWay, &times(), now));
        assert_eq!(in_seconds(pair.due, now), 3.0);
        pair.hurry();
        assert!(pair.is_due(now));
    }
}

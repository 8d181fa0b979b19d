//! Which machines were begun to be fenced, and whether another one may be: no clock, no I/O.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decide::{Millis, Time};

/// Remediations kept in the ledger: an API object may have 1 MiB, and one takes some 200 bytes, names included.
const MAX: usize = 2_000;

/// So many, or such a part of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// An absolute number.
    Count(usize),
    /// Percent; rounded down, and one at least: none would be no limit but a switch.
    Percent(usize),
}

impl Share {
    fn of(self, all: usize) -> usize {
        match self {
            Share::Count(count) => count,
            Share::Percent(percent) => (all.saturating_mul(percent) / 100).max(1),
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a number from 1 on nor a percentage from 1% to 100%");
        let number = |text: &str| text.parse::<usize>().ok().filter(|n| *n > 0).ok_or_else(wrong);
        match text.strip_suffix('%') {
            Some(percent) => number(percent).and_then(|n| if n <= 100 { Ok(Share::Percent(n)) } else { Err(wrong()) }),
            None => number(text).map(Share::Count),
        }
    }
}

/// How much fencing is too much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Remediations under way at a time, of all nodes.
    pub concurrent: Option<Share>,
    /// Those begun within the window, of all nodes: one more opens the breaker.
    pub begun: Option<Share>,
    /// Those begun within the window in one failure domain, of its nodes.
    pub in_domain: Option<Share>,
    /// The window.
    pub window: Duration,
    /// An open breaker closes after this; `None`: a person closes it.
    pub cool_down: Option<Duration>,
}

impl Limits {
    /// Tells whether there is any limit.
    pub fn any(&self) -> bool {
        let Self { concurrent, begun, in_domain, window: _, cool_down: _ } = self;
        concurrent.is_some() || begun.is_some() || in_domain.is_some()
    }
}

/// What was begun, as it is kept for whoever leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    begun: Vec<Start>,
    /// Since when the breaker is open.
    open: Option<Time>,
}

/// One remediation that was let through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Start {
    remediation: String,
    node: String,
    domain: Option<String>,
    at: Time,
}

/// A remediation that asks whether it may begin.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Its UID.
    pub remediation: &'a str,
    /// Its node.
    pub node: &'a str,
    /// The node's failure domain, if it has one.
    pub domain: Option<&'a str>,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many in this domain.
    pub nodes_in_domain: usize,
    /// Which remediations are under way now.
    pub now: &'a Now,
}

/// Remediations that are under way, by UID.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Accepted; they count if they were let through.
    pub accepted: BTreeSet<String>,
    /// Further: they count also if somebody has deleted the ledger since.
    pub acting: BTreeSet<String>,
}

impl Now {
    fn has(&self, remediation: &str) -> bool {
        self.accepted.contains(remediation) || self.acting.contains(remediation)
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was let through before.
    Admitted,
    /// It may begin, once that is written down.
    Free,
    /// It would be one too many: the breaker is to be opened.
    Trips,
    /// It is to wait.
    Waits(Why),
}

/// Why it is to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The breaker is open.
    Open {
        /// Since then.
        since: Time,
        /// Until then, if it closes by itself.
        until: Option<Time>,
    },
    /// As many as may be are under way.
    Concurrent {
        /// So many.
        most: usize,
    },
    /// As many as may be were begun in the failure domain.
    Domain {
        /// Which one.
        domain: String,
        /// So many.
        most: usize,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Open { until: None, .. } => {
                write!(f, "the breaker is open: too many nodes were fenced in a short time")
            }
            Why::Open { until: Some(_), .. } => {
                write!(f, "the breaker is open for a while: too many nodes were fenced in a short time")
            }
            Why::Concurrent { most } => write!(f, "{most} remediations are under way, as many as may be at a time"),
            Why::Domain { domain, most } => {
                write!(f, "{most} nodes of failure domain {domain} were fenced lately, as many as may be")
            }
        }
    }
}

impl Ledger {
    /// Leaves out what was begun further ahead of the clock than a window: it would count for days. (A breaker that was opened
    /// then stays open: closing one is a person's.)
    pub fn believable(mut self, limits: &Limits, now: Time) -> Self {
        self.begun.retain(|start| start.at <= now.saturating_add(millis(limits.window)));
        self
    }

    /// Tells what can be told without knowing anything else of the cluster.
    pub fn answer_at_once(&self, remediation: &str, limits: &Limits, now: Time) -> Option<Answer> {
        if self.begun.iter().any(|start| start.remediation == remediation) {
            return Some(Answer::Admitted);
        }
        let until = |since: Time| limits.cool_down.map(|lasts| since.saturating_add(millis(lasts)));
        let open = self.open.filter(|since| until(*since).is_none_or(|until| now < until));
        open.map(|since| Answer::Waits(Why::Open { since, until: until(since) }))
    }

    /// Tells whether a remediation may begin.
    pub fn answer(&self, ask: &Ask<'_>, limits: &Limits, now: Time) -> Answer {
        if let Some(answer) = self.answer_at_once(ask.remediation, limits, now) {
            return answer;
        }
        let let_through = |start: &&Start| ask.now.accepted.contains(&start.remediation);
        let under_way = ask.now.acting.len() + self.begun.iter().filter(let_through).count();
        if let Some(most) = limits.concurrent.map(|share| share.of(ask.nodes)).filter(|most| under_way >= *most) {
            return Answer::Waits(Why::Concurrent { most });
        }
        // What was begun before the breaker was opened has been paid for.
        let lately = |start: &&Start| {
            now.saturating_sub(start.at) < millis(limits.window) && self.open.is_none_or(|opened| start.at > opened)
        };
        let all = self.begun.iter().filter(lately).count();
        if limits.begun.is_some_and(|share| all >= share.of(ask.nodes)) || self.begun.len() >= MAX {
            return Answer::Trips;
        }
        if let (Some(share), Some(domain)) = (limits.in_domain, ask.domain) {
            let most = share.of(ask.nodes_in_domain);
            let there =
                self.begun.iter().filter(lately).filter(|start| start.domain.as_deref() == Some(domain)).count();
            if there >= most {
                return Answer::Waits(Why::Domain { domain: domain.to_owned(), most });
            }
        }
        Answer::Free
    }

    /// Writes down that a remediation begins now, and forgets what counts no more.
    pub fn begin(&mut self, ask: &Ask<'_>, limits: &Limits, now: Time) {
        self.begun
            .retain(|start| now.saturating_sub(start.at) < millis(limits.window) || ask.now.has(&start.remediation));
        self.begun.push(Start {
            remediation: ask.remediation.to_owned(),
            node: ask.node.to_owned(),
            domain: ask.domain.map(str::to_owned),
            at: now,
        });
    }

    /// Opens the breaker.
    pub fn open(&mut self, now: Time) {
        self.open = Some(now);
    }
}

fn millis(length: Duration) -> Millis {
    Millis::try_from(length.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = 1_700_000_000_000;

    fn limits() -> Limits {
        Limits { window: Duration::from_secs(600), ..Limits::default() }
    }

    /// A ledger, its limits, and 100 nodes of which 10 are in each domain; all that was begun is under way.
    struct Site {
        ledger: Ledger,
        limits: Limits,
        now: Now,
    }

    impl Site {
        fn new(limits: Limits) -> Self {
            Self { ledger: Ledger::default(), limits, now: Now::default() }
        }

        fn ask<'a>(&'a self, name: &'a str, domain: Option<&'a str>) -> Ask<'a> {
            Ask { remediation: name, node: name, domain, nodes: 100, nodes_in_domain: 10, now: &self.now }
        }

        /// Asks, and does what act does.
        fn at(&mut self, now: Time, name: &str, domain: Option<&str>) -> Answer {
            let mut ledger = self.ledger.clone().believable(&self.limits, now);
            let ask = self.ask(name, domain);
            let answer = ledger.answer(&ask, &self.limits, now);
            match &answer {
                Answer::Free => ledger.begin(&ask, &self.limits, now),
                Answer::Trips => ledger.open(now),
                Answer::Admitted | Answer::Waits(_) => {}
            }
            if answer == Answer::Free {
                self.now.acting.insert(name.to_owned());
            }
            self.ledger = ledger;
            answer
        }
    }

    #[test]
    fn a_share_is_a_number_or_a_percentage() {
        assert_eq!("3".parse(), Ok(Share::Count(3)));
        assert_eq!("10%".parse(), Ok(Share::Percent(10)));
        for wrong in ["", "0", "0%", "101%", "-1", "ten", "%", "1.5"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong:?}");
        }
        assert_eq!([9, 10, 19, 0].map(|all| Share::Percent(10).of(all)), [1, 1, 1, 1]);
        assert_eq!(Share::Percent(30).of(100), 30);
    }

    #[test]
    fn without_limits_everybody_begins() {
        let mut site = Site::new(limits());
        assert!((0..100).all(|n| site.at(NOW, &n.to_string(), Some("a")) == Answer::Free));
        assert_eq!(site.at(NOW, "0", None), Answer::Admitted);
    }

    #[test]
    fn a_storm_opens_the_breaker_and_a_person_closes_it() {
        let mut site = Site::new(Limits { begun: Some(Share::Percent(10)), ..limits() });
        for n in 0..10 {
            assert_eq!(site.at(NOW + n, &n.to_string(), None), Answer::Free);
        }
        assert_eq!(site.at(NOW + 10, "10", None), Answer::Trips);
        let open = Answer::Waits(Why::Open { since: NOW + 10, until: None });
        for n in 10..30 {
            assert_eq!(site.at(NOW + 20, &n.to_string(), None), open);
        }
        assert_eq!(site.at(NOW + 20, "3", None), Answer::Admitted, "who was let through goes on");
        assert_eq!(site.at(NOW + 86_400_000, "10", None), open, "for as long as nobody closes it");
        site.ledger = Ledger::default();
        assert!((10..20).all(|n| site.at(NOW + 30, &n.to_string(), None) == Answer::Free));
        assert_eq!(site.at(NOW + 40, "20", None), Answer::Trips);
    }

    #[test]
    fn the_window_slides() {
        let mut site = Site::new(Limits { begun: Some(Share::Count(1)), ..limits() });
        assert_eq!(site.at(NOW, "a", None), Answer::Free);
        assert_eq!(site.at(NOW + 600_000, "b", None), Answer::Free);
        assert_eq!(site.at(NOW + 600_001, "c", None), Answer::Trips);
    }

    #[test]
    fn a_cool_down_closes_it_and_what_was_begun_before_has_been_paid_for() {
        let cool_down = Some(Duration::from_secs(60));
        let mut site = Site::new(Limits { begun: Some(Share::Count(1)), cool_down, ..limits() });
        assert_eq!(site.at(NOW, "a", None), Answer::Free);
        assert_eq!(site.at(NOW + 1, "b", None), Answer::Trips);
        let until = NOW + 60_001;
        assert_eq!(site.at(until - 1, "b", None), Answer::Waits(Why::Open { since: NOW + 1, until: Some(until) }));
        assert_eq!(site.at(until, "b", None), Answer::Free);
        assert_eq!(site.at(until, "c", None), Answer::Trips);
    }

    #[test]
    fn those_under_way_are_counted_until_they_are_through() {
        let mut site = Site::new(Limits { concurrent: Some(Share::Count(2)), ..limits() });
        assert_eq!(site.at(NOW, "a", None), Answer::Free);
        assert_eq!(site.at(NOW, "b", None), Answer::Free);
        assert_eq!(site.at(NOW, "c", None), Answer::Waits(Why::Concurrent { most: 2 }));
        site.now.acting.remove("a");
        assert_eq!(site.at(NOW + 1, "c", None), Answer::Free);
        site.ledger = Ledger::default();
        assert_eq!(site.at(NOW + 2, "d", None), Answer::Waits(Why::Concurrent { most: 2 }), "b and c are still off");
        // One that was let through, and has not sent its off yet.
        site.now = Now { accepted: BTreeSet::from(["e".to_owned(), "f".to_owned()]), ..Now::default() };
        assert_eq!(site.at(NOW + 2, "e", None), Answer::Free);
        site.now.acting.clear();
        assert_eq!(site.at(NOW + 2, "f", None), Answer::Free, "one of two");
        site.now.acting.clear();
        assert_eq!(site.at(NOW + 2, "g", None), Answer::Waits(Why::Concurrent { most: 2 }));
    }

    #[test]
    fn a_clock_that_was_ahead_counts_for_no_longer_than_any() {
        let mut site = Site::new(Limits { begun: Some(Share::Count(1)), ..limits() });
        assert_eq!(site.at(NOW + 86_400_000, "a", None), Answer::Free);
        assert_eq!(site.at(NOW, "b", None), Answer::Free);
        assert_eq!(site.at(NOW, "c", None), Answer::Trips);
    }

    #[test]
    fn a_failure_domain_has_its_own_limit() {
        let mut site = Site::new(Limits { in_domain: Some(Share::Percent(20)), ..limits() });
        assert_eq!(site.at(NOW, "a", Some("zone-1")), Answer::Free);
        assert_eq!(site.at(NOW, "b", Some("zone-1")), Answer::Free);
        let full = Answer::Waits(Why::Domain { domain: "zone-1".to_owned(), most: 2 });
        assert_eq!(site.at(NOW, "c", Some("zone-1")), full);
        assert_eq!(site.at(NOW, "c", Some("zone-2")), Answer::Free);
        assert_eq!(site.at(NOW, "d", None), Answer::Free);
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let mut site = Site::new(Limits { begun: Some(Share::Count(1)), ..limits() });
        site.at(NOW, "a", Some("zone-1"));
        site.at(NOW, "b", None);
        let text = serde_json::to_string(&site.ledger).expect("plain data");
        assert_eq!(serde_json::from_str::<Ledger>(&text).expect("what was written"), site.ledger);
    }
}

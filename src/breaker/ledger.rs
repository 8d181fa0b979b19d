//! Which machines were begun to be fenced, and whether another one may be: no clock, no I/O.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decide::{Millis, Time};

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
    /// UIDs of the remediations that are under way now.
    pub under_way: &'a BTreeSet<String>,
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
    /// Tells whether a remediation may begin.
    pub fn answer(&self, ask: &Ask<'_>, limits: &Limits, now: Time) -> Answer {
        if self.begun.iter().any(|start| start.remediation == ask.remediation) {
            return Answer::Admitted;
        }
        let lasts = limits.cool_down.map(millis);
        let until = |since: Time| lasts.map(|lasts| since.saturating_add(lasts));
        if let Some(since) = self.open.filter(|since| until(*since).is_none_or(|until| now < until)) {
            return Answer::Waits(Why::Open { since, until: until(since) });
        }
        let under_way = self.begun.iter().filter(|start| ask.under_way.contains(&start.remediation)).count();
        if let Some(most) = limits.concurrent.map(|share| share.of(ask.nodes)).filter(|most| under_way >= *most) {
            return Answer::Waits(Why::Concurrent { most });
        }
        // What was begun before the breaker was opened has been paid for.
        let lately = |start: &&Start| {
            now.saturating_sub(start.at) < millis(limits.window) && self.open.is_none_or(|opened| start.at > opened)
        };
        let all = self.begun.iter().filter(lately).count();
        if limits.begun.is_some_and(|share| all >= share.of(ask.nodes)) {
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
        self.begun.retain(|start| {
            now.saturating_sub(start.at) < millis(limits.window) || ask.under_way.contains(&start.remediation)
        });
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
        under_way: BTreeSet<String>,
    }

    impl Site {
        fn new(limits: Limits) -> Self {
            Self { ledger: Ledger::default(), limits, under_way: BTreeSet::new() }
        }

        fn ask<'a>(&'a self, name: &'a str, domain: Option<&'a str>) -> Ask<'a> {
            let under_way = &self.under_way;
            Ask { remediation: name, node: name, domain, nodes: 100, nodes_in_domain: 10, under_way }
        }

        /// Asks, and does what act does.
        fn at(&mut self, now: Time, name: &str, domain: Option<&str>) -> Answer {
            let mut ledger = self.ledger.clone();
            let ask = self.ask(name, domain);
            let answer = ledger.answer(&ask, &self.limits, now);
            match &answer {
                Answer::Free => ledger.begin(&ask, &self.limits, now),
                Answer::Trips => ledger.open(now),
                Answer::Admitted | Answer::Waits(_) => {}
            }
            if answer == Answer::Free {
                self.under_way.insert(name.to_owned());
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
        site.under_way.remove("a");
        assert_eq!(site.at(NOW + 1, "c", None), Answer::Free);
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

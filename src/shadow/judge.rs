//! What was seen while another operator fenced a node, and what its word is worth by that. Pure.
//!
//! Must not know Kubernetes, BMCs or clocks: times are handed in, in milliseconds since the watch began.
//!
//! It is not the mint of a [`Proof`](crate::decide::Proof): nothing may be released on what is said here, and nobody here
//! could. It judges more mildly than a proof would have to, one Off is enough: whoever is accused must have been given
//! every chance.

use std::fmt;

use crate::decide::{Identity, Millis};
use crate::isolate::State;

/// Stretches of equal looks that are kept: a remediation in order has three or four; a BMC that flaps is cut short.
const STRETCHES: usize = 24;

/// One look at the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// When it was read.
    pub at: Millis,
    /// What the device says of its machine.
    pub state: State,
    /// Whose machine that is.
    pub identity: Identity,
}

/// All looks at one machine during one remediation, in the order of their time.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    stretches: Vec<Stretch>,
    cut: bool,
    looks: u32,
    answered: u32,
    others: u32,
    /// When it was last read, whatever it said, and the longest time between two such readings.
    heard: Option<Millis>,
    gap: Millis,
    first_on: Option<Millis>,
    off: Option<Off>,
    last: Option<State>,
}

/// Looks in a row that saw the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    state: State,
    identity: Identity,
    from: Millis,
    to: Millis,
    looks: u32,
}

/// The best Off that was read: one of the right machine counts more than one of a machine that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Off {
    at: Millis,
    identity: Identity,
    /// The same device was read On before it.
    seen_on: bool,
}

/// What the node's fate afterwards is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Switched on again.
    Reboot,
    /// Left off.
    Off,
}

/// What a success that was claimed had behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Off was read from the right machine.
    Seen {
        /// When first.
        at: Millis,
        /// Why it is the right one.
        binding: Binding,
    },
    /// It was not.
    NoProof(Lack),
}

/// Why the right machine is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The device's system UUID is the node's.
    Identity,
    /// The same plug was read On, and then Off.
    Witness,
}

/// What a success that was claimed lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Nobody could look: there was no order, or the device refused us.
    NotLooked,
    /// The device never gave an answer that means anything.
    Silent,
    /// It answered, and never said Off.
    NeverOff {
        /// How often it answered.
        answers: u32,
        /// The longest time without an answer.
        gap: Millis,
    },
    /// It answered for another machine only.
    WrongMachine,
    /// It said Off from the first look on, and not whose machine it is.
    Unbound,
    /// It said Off from the first look on: whether anybody switched it off can't be told.
    Hearsay,
    /// It said Off, and at the last look On, though it was to stay off.
    OnAgain,
}

impl Watch {
    /// Adds a look; tells whether it saw something else than the one before.
    pub fn add(&mut self, look: Look) -> bool {
        let Look { at, state, identity } = look;
        self.looks = self.looks.saturating_add(1);
        if matches!(state, State::Isolated | State::Off | State::Running) {
            self.answered = self.answered.saturating_add(1);
            self.others = self.others.saturating_add(u32::from(identity == Identity::Other));
            self.gap = self.gap.max(at.saturating_sub(self.heard.unwrap_or(0)));
            self.heard = Some(at);
        }
        match state {
            State::Running => {
                self.first_on.get_or_insert(at);
            }
            State::Isolated | State::Off => {
                let off = Off { at, identity, seen_on: self.first_on.is_some() };
                if self.off.is_none_or(|known| off.worth() > known.worth()) {
                    self.off = Some(off);
                }
            }
            State::Unknown | State::Refused => {}
        }
        self.last = Some(state);
        let full = self.stretches.len() == STRETCHES;
        match self.stretches.last_mut() {
            Some(last) if last.state == state && last.identity == identity => {
                last.to = at;
                last.looks = last.looks.saturating_add(1);
                false
            }
            _ if full => {
                self.cut = true;
                false
            }
            _ => {
                self.stretches.push(Stretch { state, identity, from: at, to: at, looks: 1 });
                true
            }
        }
    }

    /// Returns how many looks there were.
    pub fn looks(&self) -> u32 {
        self.looks
    }

    /// Judges a success that is claimed now.
    pub fn verdict(&self, wanted: Wanted) -> Verdict {
        let Some(off) = self.off else {
            let asked = self.stretches.iter().any(|stretch| stretch.state != State::Refused);
            return Verdict::NoProof(match (asked, self.answered) {
                (false, _) => Lack::NotLooked,
                (true, 0) => Lack::Silent,
                (true, answers) if answers == self.others => Lack::WrongMachine,
                (true, answers) => Lack::NeverOff { answers, gap: self.gap },
            });
        };
        if wanted == Wanted::Off && self.last == Some(State::Running) {
            return Verdict::NoProof(Lack::OnAgain);
        }
        match (off.identity, off.seen_on) {
            (Identity::Other, _) => Verdict::NoProof(Lack::WrongMachine),
            (Identity::Same, true) => Verdict::Seen { at: off.at, binding: Binding::Identity },
            (Identity::Unsaid | Identity::Attested, true) => Verdict::Seen { at: off.at, binding: Binding::Witness },
            (Identity::Same, false) => Verdict::NoProof(Lack::Hearsay),
            (Identity::Unsaid | Identity::Attested, false) => Verdict::NoProof(Lack::Unbound),
        }
    }
}

impl Off {
    fn worth(self) -> u8 {
        match (self.identity, self.seen_on) {
            (Identity::Other, _) => 0,
            (Identity::Unsaid | Identity::Attested, false) => 1,
            (Identity::Same, false) => 2,
            (Identity::Unsaid | Identity::Attested, true) => 3,
            (Identity::Same, true) => 4,
        }
    }
}

/// The series, for people: "On 0.0 to 2.1 s (3 looks), Off 3.1 s (1 look)".
impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stretches.is_empty() {
            return f.write_str("it was not looked at");
        }
        for (number, Stretch { state, identity, from, to, looks }) in self.stretches.iter().enumerate() {
            f.write_str(if number == 0 { "" } else { ", " })?;
            f.write_str(name(*state))?;
            f.write_str(match identity {
                Identity::Other => " of another machine",
                Identity::Same | Identity::Unsaid | Identity::Attested => "",
            })?;
            match from == to {
                true => write!(f, " {}", Seconds(*from))?,
                false => write!(f, " {:.1} to {}", *from as f64 / 1000.0, Seconds(*to))?,
            }
            write!(f, " ({looks} look{})", if *looks == 1 { "" } else { "s" })?;
        }
        f.write_str(if self.cut { ", and more" } else { "" })
    }
}

/// A time, for people.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(pub Millis);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0 as f64 / 1000.0)
    }
}

/// Returns what a state is called.
pub fn name(state: State) -> &'static str {
    match state {
        State::Isolated | State::Off => "Off",
        State::Running => "On",
        State::Unknown => "no answer",
        State::Refused => "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Identity::{Other, Same, Unsaid};
    use State::{Isolated as OFF, Refused, Running as ON, Unknown};

    fn watch(looks: &[(Millis, State, Identity)]) -> Watch {
        let mut watch = Watch::default();
        for (at, state, identity) in looks {
            watch.add(Look { at: *at, state: *state, identity: *identity });
        }
        watch
    }

    fn lack(looks: &[(Millis, State, Identity)]) -> Lack {
        match watch(looks).verdict(Wanted::Reboot) {
            Verdict::NoProof(lack) => lack,
            seen => panic!("{seen:?}"),
        }
    }

    #[test]
    fn an_off_of_the_right_machine_is_seen() {
        let seen = |looks: &[_]| watch(looks).verdict(Wanted::Reboot);
        let identity = Verdict::Seen { at: 1000, binding: Binding::Identity };
        assert_eq!(seen(&[(0, ON, Same), (1000, OFF, Same)]), identity);
        assert_eq!(seen(&[(0, ON, Same), (1000, OFF, Same), (2000, ON, Same)]), identity, "a reboot ends with On");
        assert_eq!(seen(&[(0, ON, Same), (1000, OFF, Same), (2000, Unknown, Unsaid)]), identity);
        let witness = Verdict::Seen { at: 1000, binding: Binding::Witness };
        assert_eq!(seen(&[(0, ON, Unsaid), (1000, State::Off, Unsaid)]), witness);
    }

    #[test]
    fn whatever_else_was_seen_is_no_proof() {
        assert_eq!(lack(&[]), Lack::NotLooked);
        assert_eq!(lack(&[(0, Refused, Unsaid)]), Lack::NotLooked);
        assert_eq!(lack(&[(0, Unknown, Unsaid), (5000, Unknown, Unsaid)]), Lack::Silent);
        let never = Lack::NeverOff { answers: 3, gap: 3000 };
        assert_eq!(lack(&[(0, ON, Same), (1000, ON, Same), (2000, Unknown, Unsaid), (4000, ON, Same)]), never);
        assert_eq!(lack(&[(0, ON, Other), (1000, OFF, Other)]), Lack::WrongMachine);
        assert_eq!(lack(&[(0, ON, Other), (1000, Unknown, Unsaid)]), Lack::WrongMachine);
        assert_eq!(lack(&[(0, State::Off, Unsaid)]), Lack::Unbound);
        assert_eq!(lack(&[(0, OFF, Same), (1000, OFF, Same)]), Lack::Hearsay);
    }

    /// Whoever is accused gets the best of what was seen, in whatever order.
    #[test]
    fn the_best_off_counts() {
        let looks = [(0, OFF, Same), (1000, ON, Same), (2000, OFF, Same), (3000, OFF, Other)];
        let seen = Verdict::Seen { at: 2000, binding: Binding::Identity };
        assert_eq!(watch(&looks).verdict(Wanted::Reboot), seen);
    }

    #[test]
    fn a_machine_that_was_to_stay_off_must() {
        let looks = [(0, ON, Same), (1000, OFF, Same), (2000, ON, Same)];
        assert_eq!(watch(&looks).verdict(Wanted::Off), Verdict::NoProof(Lack::OnAgain));
        assert!(matches!(watch(&looks[..2]).verdict(Wanted::Off), Verdict::Seen { .. }));
    }

    #[test]
    fn a_series_is_told_by_its_changes_and_is_bounded() {
        let mut series = watch(&[(0, ON, Same), (1000, ON, Same), (2100, OFF, Other)]);
        assert_eq!(series.to_string(), "On 0.0 to 1.0 s (2 looks), Off of another machine 2.1 s (1 look)");
        assert!(!series.add(Look { at: 3100, state: OFF, identity: Other }) && series.looks() == 4);
        for at in 0..1000 {
            let state = if at % 2 == 0 { ON } else { OFF };
            series.add(Look { at: 4000 + at, state, identity: Same });
        }
        assert!(series.to_string().ends_with("and more") && series.to_string().len() < 1500, "{series}");
        assert!(matches!(series.verdict(Wanted::Reboot), Verdict::Seen { .. }), "what is not told is still known");
    }
}

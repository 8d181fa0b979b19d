//! Each rule, broken, and the property of a world that notices.
//!
//! A mutant that nothing notices is either a rule that is superfluous, or a model that lacks something: `SURVIVORS`
//! says which.

#[path = "mutants/leave.rs"]
mod leave;
#[path = "mutants/levels.rs"]
mod levels;
#[path = "mutants/prove.rs"]
mod prove;
#[path = "mutants/release.rs"]
mod release;

use ringfence::decide::{Case, Off, Phase, Rest};

use crate::state::Act;
use crate::world::{Flaw, Slip};
pub use leave::SURVIVORS;

/// One broken rule.
pub struct Mutant {
    /// The rule's id in DESIGN.md section 1.
    pub rule: &'static str,
    /// What is done instead.
    pub breaks: &'static str,
    /// How.
    pub slip: Slip,
    /// The world that notices.
    pub world: &'static str,
    /// By which property.
    pub property: &'static str,
}

/// Lists the broken rules, in the order of one remediation.
pub fn all() -> impl Iterator<Item = &'static Mutant> {
    prove::MUTANTS.iter().chain(release::MUTANTS).chain(leave::MUTANTS).chain(levels::MUTANTS)
}

/// Where a mutant is noticed: world, property.
type Noticed = (&'static str, &'static str);

/// `decide` is told something else.
const fn case(rule: &'static str, breaks: &'static str, bend: fn(&mut Case), (world, property): Noticed) -> Mutant {
    Mutant { rule, breaks, slip: Slip::Case(bend), world, property }
}

/// Something else is done.
const fn act(
    rule: &'static str,
    breaks: &'static str,
    twist: fn(&Case, Act) -> Act,
    (world, property): Noticed,
) -> Mutant {
    Mutant { rule, breaks, slip: Slip::Act(twist), world, property }
}

/// What surrounds `decide` does not keep its side.
const fn flaw(rule: &'static str, breaks: &'static str, flaw: Flaw, (world, property): Noticed) -> Mutant {
    Mutant { rule, breaks, slip: Slip::World(flaw), world, property }
}

/// Properties, as `properties.rs` and `frozen.rs` name them.
mod property {
    pub const LIVE: &str = "NoExecute on a live node";
    pub const WRITERS: &str = "two live writers";
    pub const VOLUME: &str = "a volume detached from a live writer";
    pub const BEHIND: &str = "something of ours left behind";
    pub const OFF: &str = "node left off after a finished cycle";
    pub const CIRCLES: &str = "goes round in circles";
    pub const TWO: &str = "two remediations command one node";
    pub const UNHEARD: &str = "rests Unheard, and the BMC speaks";
    pub const FOREIGN: &str = "a pod that is not of the set was deleted";
    pub const ELSEWHERE: &str = "goes on although the BMC names another machine";
    pub const LOCKED: &str = "asks a BMC that refuses again and again";
    pub const STOPPED: &str = "power command after TimedOut/NodeGone";
}

fn off_of(phase: Phase) -> Option<Off> {
    match phase {
        Phase::Proving { off, .. } | Phase::Releasing { off, .. } => Some(off),
        Phase::Halted { off, .. } => off,
        Phase::Accepted | Phase::Isolating { .. } | Phase::Restoring { .. } | Phase::Done { .. } => None,
    }
}

fn each_off(c: &mut Case, change: fn(&mut Off)) {
    match &mut c.phase {
        Phase::Proving { off, .. } | Phase::Releasing { off, .. } | Phase::Halted { off: Some(off), .. } => change(off),
        Phase::Accepted | Phase::Isolating { .. } | Phase::Restoring { .. } => {}
        Phase::Done { .. } | Phase::Halted { off: None, .. } => {}
    }
}

fn restoring(c: &Case) -> bool {
    matches!(c.phase, Phase::Restoring { .. })
}

fn rest_of(phase: &mut Phase) -> Option<&mut Rest> {
    match phase {
        Phase::Done { rest } | Phase::Halted { rest, .. } => Some(rest),
        Phase::Accepted | Phase::Isolating { .. } | Phase::Proving { .. } => None,
        Phase::Releasing { .. } | Phase::Restoring { .. } => None,
    }
}

/// As if it had been quiet for ever.
fn long_quiet(rest: &mut Rest) {
    rest.quiet = rest.quiet.map(|_| 0);
}

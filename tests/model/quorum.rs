//! A3 with two remediations at once: two of three control-plane nodes, both Ready, each with its own remediation.

use std::collections::HashSet;

use ringfence::decide::{Case, Claim, FIRST, Held, Hold, Member, Phase, Rest, Why, majority};

use crate::explore::key;
use crate::state::{Act, FRESH, IDLE, State};
use crate::world::{CALM, Slip, World};

/// How the other node is counted.
type Count = fn(ours: Option<&Held>, others: &[Member]) -> bool;

/// What came of two remediations that began at once.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Both machines were off at a time.
    lost: bool,
    /// Both wait, and neither will go on.
    stuck: bool,
}

/// Explores every interleaving; the first node's claim is the older one, or the second's (taints have whole seconds, and
/// leaders their own clocks).
fn explore(world: &World, count: Count) -> Found {
    let start = State::starts(world)[0];
    let mut found = Found::default();
    for older in [0, 1] {
        let (mut todo, mut seen) = (vec![[start, start]], HashSet::new());
        while let Some(nodes) = todo.pop() {
            if !seen.insert(nodes.map(|n| key(&n))) {
                continue;
            }
            found.lost |= nodes.iter().all(|n| !n.on);
            let mut changes = false;
            for i in [0, 1] {
                let mut x = nodes;
                let held = |i: usize| {
                    let since = (u64::from(i != older), String::new());
                    nodes[i].cordoned.then_some(Held { since, phase: Some(nodes[i].phase) })
                };
                let others = [Member { ready: true, held: held(1 - i) }, Member { ready: true, held: None }];
                let node = &mut x[i];
                match node.hands[0].act {
                    Act::Idle if node.on => {
                        node.quorum = count(held(i).as_ref(), &others);
                        let view = node.view(world);
                        let (act, case) = node.ask(0, view, world);
                        node.hands[0] = FRESH;
                        node.decided(0, act, &case, view, world);
                    }
                    Act::Idle | Act::Looked(_) => continue,
                    Act::Send(..) => {
                        node.cut();
                        node.hands[0] = IDLE;
                    }
                    Act::Enter(_) | Act::Do(_) | Act::Finish => node.fire(0, world),
                }
                changes |= x != nodes;
                todo.push(x);
            }
            // Nothing to do: time passes, until that changes nothing either.
            let mut later = nodes;
            later.iter_mut().filter(|_| !changes).for_each(|n| n.tick(world));
            found.stuck |= !changes && later == nodes && nodes.iter().all(|n| n.on);
            todo.push(later);
        }
    }
    found
}

fn untainted(_: Option<&Held>, others: &[Member]) -> bool {
    others.iter().all(|other| other.held.is_none())
}

/// The older claim alone goes first, as it once was.
fn older(ours: Option<&Held>, others: &[Member]) -> bool {
    let waits = |held: &Held| matches!(held.phase, Some(Phase::Halted { why: Why::Held(_), off: None, .. }));
    others.iter().all(|other| {
        other.held.as_ref().is_none_or(|theirs| waits(theirs) && ours.is_some_and(|ours| ours.since < theirs.since))
    })
}

#[test]
fn of_two_at_once_one_goes_ahead() {
    assert_eq!(explore(&CALM, majority), Found { lost: false, stuck: false });
}

#[test]
fn counting_otherwise_loses_the_majority() {
    assert!(explore(&CALM, |_, _| true).lost, "whoever counts tainted nodes");
    let claimed: fn(&mut Case) = |c| c.claim = Claim::Ours;
    assert!(explore(&World { slip: Slip::Case(claimed), ..CALM }, majority).lost, "whoever counts without a taint");
}

#[test]
fn counting_otherwise_waits_for_ever() {
    assert_eq!(explore(&CALM, untainted), Found { lost: false, stuck: true }, "nobody goes first");
    assert_eq!(explore(&CALM, older), Found { lost: false, stuck: true }, "one has begun, and the other is older");
}

/// Of two that wait for each other, the older claim goes first; whoever has begun, before both.
#[test]
fn the_older_claim_goes_first() {
    let waits = Phase::Halted { why: Why::Held(Hold::Quorum), off: None, rest: Rest::UNTOUCHED };
    let held = |since, phase| Held { since: (since, String::new()), phase: Some(phase) };
    let counts = |ours: &Held, theirs: Held| {
        let others = [Member { ready: true, held: Some(theirs) }, Member { ready: true, held: None }];
        majority(Some(ours), &others)
    };
    let accepted = |since| held(since, Phase::Accepted);
    assert!(counts(&accepted(1), held(2, waits)) && !counts(&accepted(2), held(1, waits)));
    assert!(!counts(&accepted(1), accepted(2)), "it does not wait, and may have counted us");
    assert!(counts(&held(2, Phase::Isolating { level: FIRST, attempt: 1, seen_on: true }), held(1, waits)));
}

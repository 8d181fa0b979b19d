//! A3 with two remediations at once: two of three control-plane nodes, both Ready, each with its own remediation.

use std::collections::HashSet;

use ringfence::decide::{Case, Claim};

use crate::explore::key;
use crate::state::{Act, FRESH, IDLE, State};
use crate::world::{CALM, Slip, World};

/// Tells whether both machines can be off at once. `tainted_count`: a node that carries our taint counts as Ready.
fn majority_lost(world: &World, tainted_count: bool) -> bool {
    let start = State::starts(world)[0];
    let mut todo = vec![[start, start]];
    let mut seen = HashSet::new();
    let mut lost = false;
    while let Some(nodes) = todo.pop() {
        if !seen.insert(nodes.map(|n| key(&n))) {
            continue;
        }
        lost |= nodes.iter().all(|n| !n.on);
        for i in [0, 1] {
            let mut x = nodes;
            let other_tainted = nodes[1 - i].cordoned;
            let node = &mut x[i];
            match node.hands[0].act {
                Act::Idle if node.on => {
                    node.quorum = tainted_count || !other_tainted;
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
            todo.push(x);
        }
    }
    lost
}

#[test]
fn of_two_at_once_one_goes_ahead() {
    assert!(!majority_lost(&CALM, false), "taint, then count the untainted: one at most goes ahead");
}

#[test]
fn counting_otherwise_loses_the_majority() {
    let untainted: fn(&mut Case) = |c| c.claim = Claim::Ours;
    assert!(majority_lost(&CALM, true), "whoever counts tainted nodes");
    assert!(majority_lost(&World { slip: Slip::Case(untainted), ..CALM }, false), "whoever counts without a taint");
}

//! The ways out, and that there always is one.

use ringfence::decide::{Claim, Identity, Leave, Order, Phase, Reading, Rest, Then, Why};

use super::property::{BEHIND, LIVE, LOCKED, OFF, STOPPED, TWO, UNHEARD, WRITERS};
use super::{Mutant, act, case, flaw, long_quiet, off_of, rest_of};
use crate::clock::{CAP, NOW, PATIENCE};
use crate::state::{Act, Deed};
use crate::world::Flaw;

#[rustfmt::skip]
pub const MUTANTS: &[Mutant] = &[
    // Leave
    case("L1", "Running settles a restoration at once", |c| {
        if let Phase::Restoring { off, .. } = &mut c.phase { *off = NOW - CAP }
    }, ("cycle: reboot", OFF)),
    act("L1", "deleted, and left off", |c, act| match (act, c.phase) {
        (Act::Enter(Phase::Restoring { .. }), Phase::Isolating { .. } | Phase::Proving { .. }) => {
            Act::Enter(Phase::Done { rest: Rest::UNTOUCHED })
        }
        (_, _) => act,
    }, ("cycle: reboot", OFF)),
    case("L1", "deleted, and an off is sent", |c| {
        if let Phase::Accepted | Phase::Isolating { .. } = c.phase { c.leave = Leave::No }
    }, ("cycle: reboot", "off after the deletion")),
    act("L1", "the last off is taken for older than it may be", |c, act| match (act, off_of(c.phase)) {
        (Act::Enter(Phase::Restoring { level, attempt, on, then, .. }), Some(off)) => {
            Act::Enter(Phase::Restoring { level, attempt, off: off.at, on, then })
        }
        (_, _) => act,
    }, ("two replicas", OFF)),
    case("L2", "timed out is deleted", |c| {
        if let Leave::TimedOut { deleted } = c.leave { c.leave = if deleted { Leave::Deleted } else { Leave::No } }
    }, ("leave: timed out, node gone", STOPPED)),
    case("L2", "timed out leaves before the deletion", |c| {
        if let (Leave::TimedOut { deleted }, Phase::Halted { .. }) = (&mut c.leave, c.phase) { *deleted = true }
    }, ("leave: timed out, node gone", "left before the deletion")),
    case("L3", "node gone is deleted", |c| {
        if let Leave::NodeGone { .. } = c.leave { c.leave = Leave::Deleted }
    }, ("leave: timed out, node gone", STOPPED)),
    case("L3", "the barrier stays on a Node that is not ours", |c| {
        if let Leave::NodeGone { deleted: false } = c.leave { c.barrier = false }
    }, ("leave: Node restored from a backup", "rests with NoExecute on a Node that is not ours")),
    case("L5", "it finishes at once", |c| {
        if let Some(rest) = rest_of(&mut c.phase) { long_quiet(rest) }
    }, ("cycle: reboot", LIVE)),
    act("L5", "it is stamped quiet by the write that ends it", |_, act| match act {
        Act::Enter(Phase::Done { rest: Rest { quiet: None, yielded } }) => {
            Act::Enter(Phase::Done { rest: Rest { quiet: Some(NOW), yielded } })
        }
        _ => act,
    }, ("two replicas, two CRs, BMC down", LIVE)),
    case("L5", "the claim goes before it is quiet", |c| {
        let leaves = c.claim == Claim::Ours && c.leave == Leave::Deleted;
        if let (true, Some(rest)) = (leaves, rest_of(&mut c.phase)) { long_quiet(rest) }
    }, ("another remediation", TWO)),
    case("L5", "the claim stays", |c| {
        if c.claim == Claim::Ours && matches!(c.phase, Phase::Done { .. } | Phase::Halted { .. }) {
            (c.claim, c.sealed) = (Claim::Free, true)
        }
    }, ("cycle: reboot", BEHIND)),
    act("L6", "the promise is not written ahead", |_, act| match act {
        Act::Enter(Phase::Halted { rest: Rest { yielded: true, .. }, .. }) => Act::Do(Deed::HandOver),
        _ => act,
    }, ("hand-over", TWO)),
    case("L6", "the node is handed over while an on may be in flight", |c| {
        if let Phase::Halted { off: None, rest, .. } = &mut c.phase { long_quiet(rest) }
    }, ("hand-over", TWO)),
    case("L6", "a late on meets the next remediation", |c| {
        if let Phase::Halted { off: None, rest, .. } = &mut c.phase { long_quiet(rest) }
    }, ("hand-over, successor, timed out", LIVE)),
    case("L6", "what was handed over goes on", |c| {
        if let (Claim::Others, Some(rest)) = (c.claim, rest_of(&mut c.phase)) { rest.yielded = false }
    }, ("hand-over", TWO)),
    case("L6", "what was promised is undone after a deletion", |c| {
        let undone = c.leave == Leave::Deleted && !c.heir;
        if let (true, Phase::Halted { off: Some(_), rest, .. }) = (undone, &mut c.phase) { rest.yielded = false }
    }, ("hand-over", TWO)),
    case("L6", "handed over without a seal", |c| {
        c.sealed |= matches!(c.phase, Phase::Halted { rest: Rest { yielded: true, .. }, .. })
    }, ("two replicas, successor", WRITERS)),
    case("L6", "the node is kept from its heir", |c| {
        c.heir = false
    }, ("hand-over", "keeps the node from its next remediation")),

    // Live
    case("Live", "Halted does not look", |c| {
        if let Phase::Halted { .. } = c.phase { (c.reading, c.identity) = (Reading::Unknown, Identity::Unsaid) }
    }, ("cycle: reboot", UNHEARD)),
    case("Live", "a BMC that speaks again is not told again", |c| {
        if let Phase::Halted { why: why @ Why::Unheard, rest: Rest { quiet: Some(_), .. }, .. } = &mut c.phase {
            *why = Why::NotProven
        }
    }, ("cycle: reboot", UNHEARD)),
    flaw("Live", "it looks in every phase", Flaw::LooksAgain, ("refused", LOCKED)),
    case("Live", "a refusal is a silence", |c| {
        if c.reading == Reading::Refused { c.reading = Reading::Unknown }
    }, ("refused", LOCKED)),
    case("Live", "an edit is not noticed", |c| {
        c.edited = false
    }, ("refused", "rests, and what it rests for was corrected")),
    case("Live", "an order that comes back is not noticed", |c| {
        if let Phase::Halted { why: Why::Unresolved, .. } = c.phase { c.order = Order::Unresolved }
    }, ("unresolved", "rests for an order that is there")),
];

/// What no world notices, and why.
#[rustfmt::skip]
pub const SURVIVORS: &[Mutant] = &[
    // Nothing of a release is decided any more once Restoring was entered and sealed. Kept: sealing is cheap, and a
    // stale status read by a bug would meet it.
    case("S2", "sealed once, not before every retry", |c| {
        c.sealed |= matches!(c.phase, Phase::Restoring { attempt: 2.., .. })
    }, ("", "")),
    // The stamp is as late as Proving's would be. Kept: one phase less from which the machine may be switched on.
    act("L1", "Isolating is left straight for Restoring", |c, act| match act {
        Act::Enter(Phase::Proving { .. }) => {
            let then = if c.order == Order::Changed && c.leave == Leave::No { Then::Again } else { Then::Leave };
            Act::Enter(Phase::Restoring { level: c.levels.now, attempt: 1, off: NOW, on: None, then })
        }
        _ => act,
    }, ("", "")),
    // It only spares the device: an off is idempotent.
    case("I3", "an off that nobody answered is repeated without a pause", |c| c.policy.gap = 0, ("", "")),
    // It only spares an attempt: Halted goes on looking, until a renewal has been watched.
    act("P3", "another off is sent while renewals are awaited", |c, act| match (act, c.phase, c.reading) {
        (Act::Idle, Phase::Proving { attempt, off }, Reading::Isolated { .. }) if NOW >= off.at + PATIENCE => {
            Act::Enter(match attempt < c.policy.attempts {
                true => Phase::Isolating { level: off.level, attempt: attempt + 1, seen_on: off.seen_on },
                false => Phase::Halted { why: Why::NotProven, off: Some(off), rest: Rest::NEW },
            })
        }
        (_, _, _) => act,
    }, ("", "")),
];

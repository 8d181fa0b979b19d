//! Accept, isolate, prove: what leads to a proof.

use ringfence::decide::{Case, Claim, FIRST, Identity, Order, Phase, Reading, Why};

use super::property::{CIRCLES, ELSEWHERE, LIVE, OFF, TWO};
use super::{Mutant, act, case, each_off, flaw, long_quiet, off_of};
use crate::clock::{NOW, RENEWAL};
use crate::state::Act;
use crate::world::Flaw;

/// As long an Off as is ever asked for.
const READS_OFF: Reading = Reading::Isolated { first: NOW - RENEWAL, last: NOW };

fn watched(c: &mut Case) {
    if let Reading::Isolated { first, .. } = &mut c.reading {
        *first = NOW - RENEWAL
    }
}

#[rustfmt::skip]
pub const MUTANTS: &[Mutant] = &[
    // Accept
    flaw("A1", "NoExecute comes with the claim", Flaw::NoExecuteFirst, ("cycle: reboot", LIVE)),
    case("A1", "another's claim is ignored", |c| {
        if c.claim == Claim::Others { c.claim = Claim::Free }
    }, ("another remediation", TWO)),
    case("A1", "it starts without a claim", |c| {
        if let (Phase::Accepted, Claim::Free) = (c.phase, c.claim) { c.claim = Claim::Ours }
    }, ("another remediation", CIRCLES)),
    case("A2", "another order is ignored", |c| {
        c.order = Order::Same
    }, ("order corrected, identity", "rests on an order that was corrected")),
    act("A2", "another order is pinned without undoing the first", |c, act| match act {
        Act::Enter(Phase::Restoring { .. }) if c.order == Order::Changed => {
            Act::Enter(Phase::Isolating { level: FIRST, attempt: 1, seen_on: false })
        }
        _ => act,
    }, ("order corrected, witness", "another machine left off")),
    case("A2", "it starts anew while an on may be in flight", |c| {
        if let Phase::Halted { why: Why::NewOrder, rest, .. } = &mut c.phase { long_quiet(rest) }
    }, ("two replicas, orders", LIVE)),
    case("A1", "it begins uncounted", |c| c.admitted = true, ("breaker", "off of a remediation that is not counted")),
    case("A3", "the quorum is not counted", |c| c.hold = None, ("quorum", "off without quorum")),

    // Isolate
    flaw("I1", "reboot is sent for off", Flaw::OffIsReboot, ("cycle: reboot", LIVE)),
    case("I2", "an Off counts without an answer to our off", |c| {
        each_off(c, |off| off.answered = true)
    }, ("hearsay at any time", LIVE)),
    act("I2", "no off is sent when it reads Off", |c, act| match (act, c.phase) {
        (Act::Send(_, answered, _), Phase::Isolating { .. }) if c.reading != Reading::Running => Act::Enter(answered),
        (_, _) => act,
    }, ("hearsay at any time", LIVE)),
    case("I2", "an Off of a machine never seen On counts at once", |c| {
        each_off(c, |off| off.seen_on = true)
    }, ("cycle: reboot", LIVE)),
    act("I3", "without an answer it stays in Isolating", |c, act| match (act, c.phase) {
        (Act::Send(power, answered, _), Phase::Isolating { .. }) => Act::Send(power, answered, c.phase),
        (_, _) => act,
    }, ("cycle: reboot", CIRCLES)),
    act("I3", "no Proving: an answer is a proof", |c, act| match (act, c.phase) {
        (Act::Send(power, Phase::Proving { attempt, off }, _), Phase::Isolating { .. }) => {
            let releasing = Phase::Releasing { attempt, off, since: NOW };
            Act::Send(power, releasing, releasing)
        }
        (_, _) => act,
    }, ("hearsay at any time", LIVE)),
    act("I3", "an off that nobody answered costs no attempt", |c, act| match (act, c.phase) {
        (Act::Enter(Phase::Isolating { level, seen_on, .. }), Phase::Proving { attempt, .. }) => {
            Act::Enter(Phase::Isolating { level, attempt, seen_on })
        }
        (_, _) => act,
    }, ("cycle: reboot", CIRCLES)),

    // Prove
    case("P1", "no answer counts as off", |c| {
        if c.reading == Reading::Unknown { c.reading = READS_OFF }
    }, ("cycle: reboot", LIVE)),
    case("P1", "Off is not read again after the settle time", |c| c.policy.settle = 0, ("power fades", LIVE)),
    case("P2", "an ON that preflight read counts although the BMC was silent since", |c| {
        c.witnessed = true
    }, ("cycle: reboot", LIVE)),
    case("P2", "any machine will do", |c| c.identity = Identity::Same, ("identity: wrong device", ELSEWHERE)),
    case("P2", "a wrong machine is a machine without a name", |c| {
        if c.identity == Identity::Other { c.identity = Identity::Unsaid }
    }, ("identity: wrong device", ELSEWHERE)),
    case("P2", "no witness is needed", |c| {
        let seen = off_of(c.phase).is_some_and(|off| off.seen_on);
        if c.identity == Identity::Unsaid && !seen { c.identity = Identity::Same }
    }, ("witness: no such plug", LIVE)),
    flaw("P2", "the driver commands a wrong machine", Flaw::WrongMachineSent,
        ("identity: wrong device", "another machine was commanded")),
    case("P3", "the node's life is ignored", |c| c.life = 0, ("witness: wrong device", LIVE)),
    case("P3", "witness only, and no renewal is waited for", |c| {
        let seen = off_of(c.phase).is_some_and(|off| off.seen_on);
        if c.identity == Identity::Unsaid && seen { c.identity = Identity::Same }
    }, ("witness: wrong device", LIVE)),
    case("P3", "by witness, an Off need not have been watched for a renewal", |c| {
        if c.identity == Identity::Unsaid { watched(c) }
    }, ("witness: wrong device", LIVE)),
    case("P3", "nor the Off of a machine never seen on", |c| {
        if c.identity == Identity::Same { watched(c) }
    }, ("hearsay, 2xx and nothing", LIVE)),
    flaw("P1", "neither a command nor silence breaks a series", Flaw::SeriesUnbroken, ("power fades, hearsay", LIVE)),
    flaw("P4", "a reading is used however old", Flaw::OldReading, ("two replicas, split", OFF)),
];

//! More than one way to cut the node off, and a person's word.

use ringfence::decide::{Case, FIRST, Identity, Off, Phase, Power, Reading, Why, Word};

use super::property::{LIVE, OFF, WRITERS};
use super::{Mutant, act, case, each_off, flaw};
use crate::clock::{CAP, NOW, RENEWAL};
use crate::state::{Act, Deed};
use crate::world::Flaw;

/// An Off as long as is ever asked for.
const WATCHED: Reading = Reading::Isolated { first: NOW - RENEWAL, last: NOW };

/// It is taken for as old as it need be.
fn long_asked(c: &mut Case) {
    if c.identity == Identity::Attested {
        each_off(c, |off| off.at = NOW - CAP)
    }
}

/// A word is given, and a renewal was watched; it is not asked since when.
fn watched(c: &Case, off: Off) -> bool {
    let long = matches!(c.reading, Reading::Isolated { first, .. } if first + RENEWAL <= NOW);
    c.identity == Identity::Attested && long && c.life <= off.at
}

#[rustfmt::skip]
pub const MUTANTS: &[Mutant] = &[
    // Levels
    flaw("P1", "one of two feeds is enough", Flaw::OneFeed, ("levels: sockets as they come", LIVE)),
    case("P2", "at another level than the first, no witness is needed and no renewal is waited for", |c| {
        if c.levels.now > FIRST && c.identity == Identity::Unsaid { c.identity = Identity::Same }
    }, ("levels: a socket feeds another", LIVE)),
    case("P3", "a device of another level says On, and is ignored", |c| {
        c.other_on = false
    }, ("levels: a socket feeds another, the BMC sees it", LIVE)),
    case("Live", "another level is never tried", |c| {
        c.levels.next = None
    }, ("levels: sockets as they come", "rests, and another level is left")),
    case("Live", "a level is begun without noticing that it refuses us", |c| {
        if let (Phase::Isolating { .. }, Reading::Refused) = (c.phase, c.reading) { c.reading = Reading::Unknown }
    }, ("levels: sockets as they come", "off to a device that refuses us")),
    case("Live", "a device that comes back is not noticed", |c| {
        c.levels.revived = None
    }, ("levels: sockets as they come", "rests, and the BMC is back")),
    act("S3", "on is sent before its phase is written", |c, act| match (act, c.phase) {
        (Act::Enter(next @ Phase::Restoring { .. }), Phase::Proving { .. }) => Act::Send(Power::On, next, next),
        (_, _) => act,
    }, ("levels: sockets as they come", "on outside of a restoration")),
    case("S3", "the levels below are not switched on", |c| {
        c.levels.below = None
    }, ("levels: it stays off when mains return", OFF)),
    case("L1", "the level below is switched on while an off may still land", |c| {
        if let Phase::Restoring { level: 2.., off, .. } = &mut c.phase { *off = NOW - CAP }
    }, ("levels: late", OFF)),
    case("S3", "sockets that are on settle a restoration that failed", |c| {
        if let Phase::Halted { why: Why::NotRestored, .. } = c.phase { c.levels.below = None }
    }, ("levels: the BMC refuses us later", OFF)),

    // A person's word
    case("P3", "a word counts although the node has shown life since", |c| {
        if c.word == Word::Void { (c.word, c.reading, c.identity) = (Word::Given, WATCHED, Identity::Attested) }
    }, ("word: the node comes back, and falls silent", WRITERS)),
    case("P3", "no renewal is waited for after a word", |c| {
        long_asked(c);
        if let (Identity::Attested, Reading::Isolated { first, .. }) = (c.identity, &mut c.reading) { *first = NOW - RENEWAL }
    }, ("word: hasty, and denied", LIVE)),
    act("P3", "what was seen of an earlier question is a beginning for this one", |c, act| match (act, c.phase) {
        (Act::Idle, Phase::Halted { off: Some(off), .. }) if watched(c, off) => {
            Act::Enter(Phase::Releasing { attempt: 1, off, since: NOW })
        }
        (Act::Idle, Phase::Releasing { off, .. }) if watched(c, off) && !c.barrier => Act::Do(Deed::Bar),
        (_, _) => act,
    }, ("word: two replicas", LIVE)),
    flaw("P2", "a word given to an earlier question counts", Flaw::OldWord, ("word: the node comes back, and falls silent", WRITERS)),
    case("P2", "a word counts before it is judged", |c| {
        if c.word == Word::Unjudged { (c.word, c.reading, c.identity) = (Word::Given, WATCHED, Identity::Attested) }
    }, ("word: hasty, and denied", "rests, and does not judge")),
    case("Live", "a denial is not heard", |c| {
        if c.word == Word::Denied { (c.word, c.reading, c.identity) = (Word::Given, WATCHED, Identity::Attested) }
    }, ("word: behind a BMC, hung, 2xx and nothing", LIVE)),
];

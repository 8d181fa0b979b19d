//! Liveness: from every state, with nobody intervening and the BMC frozen in one behaviour, the remediation comes to
//! rest in Done or Halted, and rightly so. "A way out exists" would not be enough.

use std::collections::HashSet;

use ringfence::decide::{Leave, Order, Phase, Power, Reading, Rest, Why, Word};

use crate::explore::{Fast, Key, key};
use crate::levels::{Kind, Socket, kind};
use crate::memory::BLANK;
use crate::state::{Act, Bmc, Deed, FRESH, Hand, IDLE, Pod, State};
use crate::world::World;

/// How the BMC behaves for the rest of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Frozen {
    /// It does what it is told, and says so.
    Honest,
    /// It does so a tick later.
    Late,
    /// It is silent.
    Down,
    /// 2xx, and nothing.
    Nothing,
    /// It reads well, and refuses every command.
    Refuses,
    /// It does what it is told, and its answers get lost.
    Mute,
    /// Someone switches the machine on again and again.
    War,
    /// 401 to everything.
    Locked,
}

const FROZEN: [Frozen; 8] = [
    Frozen::Honest,
    Frozen::Late,
    Frozen::Down,
    Frozen::Nothing,
    Frozen::Refuses,
    Frozen::Mute,
    Frozen::War,
    Frozen::Locked,
];

/// Remembers what came to rest before, per behaviour and whether a finalizer holds the pod.
pub struct Rests {
    /// States checked, but for what the second replica is about to do.
    seen: HashSet<Key, Fast>,
    calm: Vec<(Frozen, bool, HashSet<Key, Fast>)>,
}

impl Default for Rests {
    fn default() -> Self {
        let each = |b| [false, true].map(|held| (b, held, HashSet::default()));
        Rests { seen: HashSet::default(), calm: FROZEN.into_iter().flat_map(each).collect() }
    }
}

impl Rests {
    /// Runs the controller alone from this state on; answers what is wrong with where it ends, and the way there.
    pub fn check(&mut self, state: &State, world: &World) -> Result<(), (&'static str, Vec<String>)> {
        // What it leads to is a state of its own, and checked as that.
        if let Act::Enter(_) | Act::Finish = state.hands[0].act {
            return Ok(());
        }
        if let Act::Do(deed) = state.hands[0].act
            && deed != Deed::Delete
        {
            return Ok(());
        }
        let mut alone = State { hands: [state.hands[0], IDLE], sends: 0, off_sent: false, ..*state };
        alone.memories[1] = BLANK;
        if let Act::Looked(_) = alone.hands[0].act {
            alone.hands[0] = IDLE;
        }
        if state.gone || !self.seen.insert(key(&alone)) {
            return Ok(());
        }
        for (frozen, held, calm) in &mut self.calm {
            if *held && alone.old == Pod::Gone {
                continue; // nothing to hold
            }
            let mut x = freeze(&alone, *frozen);
            let mut way = vec![];
            let wrong = loop {
                let k = key(&x);
                if x.gone || !calm.insert(k) {
                    break way.iter().any(|(seen, _)| *seen == k).then_some("goes round in circles");
                }
                way.push((k, x));
                match step(&x, *frozen, *held, world) {
                    Alone::Goes(y) => x = y,
                    Alone::Rests => break at_rest(&x, world),
                    Alone::Ends => break None,
                }
            };
            if let Some(wrong) = wrong {
                let mut text = vec![format!("then, BMC {frozen:?}, pods held={held}:")];
                text.extend(way.iter().map(|(_, s)| format!("  {:?} | {:?}", s.phase, s.hands[0].act)));
                return Err((wrong, text));
            }
        }
        Ok(())
    }
}

fn freeze(state: &State, frozen: Frozen) -> State {
    let mut x = *state;
    x.bmc = match (frozen, state.bmc) {
        (Frozen::Down, _) => Bmc::Down,
        (Frozen::Locked, _) => Bmc::Locked,
        (_, Bmc::Hearsay) => Bmc::Hearsay,
        (_, Bmc::Up | Bmc::Down | Bmc::Locked) => Bmc::Up,
    };
    x
}

#[expect(clippy::large_enum_variant, reason = "short-lived, and never stored")]
enum Alone {
    Goes(State),
    Rests,
    Ends,
}

/// One step of the controller alone.
fn step(state: &State, frozen: Frozen, held: bool, world: &World) -> Alone {
    let mut x = *state;
    match state.hands[0].act {
        Act::Idle | Act::Looked(_) => {
            let view = state.view(world);
            x.remember(0, &view, world);
            match x.ask(0, view, world) {
                (Act::Idle, _) => {
                    x.hands[0] = IDLE;
                    x.tick(world);
                    if frozen == Frozen::War {
                        x.boot(world);
                    }
                    if x == *state {
                        return Alone::Rests;
                    }
                }
                (Act::Finish, _) => return Alone::Ends,
                (act, case) => {
                    x.hands[0] = FRESH;
                    x.decided(0, act, &case, view, world);
                }
            }
        }
        Act::Send(power, answered, silent) => {
            let answer = send(&mut x, power, state.hands[0], frozen, world);
            x.sent(0, if answer { answered } else { silent }, world);
        }
        Act::Do(Deed::Delete) if held => {
            x.hands[0] = IDLE;
            if x.old != Pod::Gone {
                x.old = Pod::Terminating;
            }
        }
        Act::Enter(_) | Act::Do(_) | Act::Finish => x.fire(0, world),
    }
    Alone::Goes(x)
}

/// Carries a command out, or not; tells whether success was heard.
fn send(x: &mut State, power: Power, hand: Hand, frozen: Frozen, world: &World) -> bool {
    match kind(hand.level, world) {
        Kind::Bmc => {}
        Kind::Sockets => return x.tell_sockets(power, world),
        Kind::Person => return true,
    }
    if !x.obeys(hand.wrong, world) {
        return false;
    }
    match frozen {
        Frozen::Honest | Frozen::War | Frozen::Mute => x.command(power, hand.wrong, world),
        Frozen::Late => x.accept(power),
        Frozen::Down | Frozen::Nothing | Frozen::Refuses | Frozen::Locked => {}
    }
    match frozen {
        Frozen::Honest | Frozen::War | Frozen::Late | Frozen::Nothing => true,
        Frozen::Down | Frozen::Refuses | Frozen::Mute | Frozen::Locked => false,
    }
}

/// What is wrong with resting here, where nothing will ever change by itself.
fn at_rest(x: &State, world: &World) -> Option<&'static str> {
    let view = x.view(world);
    let (case_order, awaited) = (order(x), x.heir && x.cordoned);
    match x.phase {
        _ if view.barrier && x.on && x.talks => Some("rests with NoExecute on a node that lives"),
        _ if view.barrier && matches!(x.leave, Leave::NodeGone { .. }) => {
            Some("rests with NoExecute on a Node that is not ours")
        }
        Phase::Accepted => Some("waits for ever in Accepted"),
        Phase::Isolating { .. } => Some("waits for ever in Isolating"),
        Phase::Proving { .. } => Some("waits for ever in Proving"),
        Phase::Releasing { .. } => Some("waits for ever in Releasing"),
        Phase::Restoring { .. } => Some("waits for ever in Restoring"),
        Phase::Done { .. } | Phase::Halted { .. } if awaited => Some("keeps the node from its next remediation"),
        Phase::Done { .. } | Phase::Halted { .. }
            if x.bmc == Bmc::Locked && x.kind(world) == Kind::Bmc && !view.barrier && x.looks(world) =>
        {
            Some("asks a BMC that refuses again and again")
        }
        Phase::Done { .. } | Phase::Halted { rest: Rest { yielded: true, .. }, .. } => None,
        Phase::Halted { why, off, rest: Rest { yielded: false, .. } } => match (why, off) {
            (Why::NotProven | Why::Unheard | Why::Refused | Why::WrongMachine, Some(_))
                if x.levels(world).next.is_some() =>
            {
                Some("rests, and another level is left")
            }
            (Why::NotProven | Why::Unheard | Why::Refused | Why::WrongMachine, _) if x.obedient(world) => {
                Some("rests, and the sockets would have done it")
            }
            (Why::NotProven | Why::Refused | Why::WrongMachine | Why::Unconfirmed | Why::Denied, Some(_))
                if view.revived.is_some() =>
            {
                Some("rests, and the BMC is back")
            }
            (Why::Unconfirmed, _) if view.word == Word::Unjudged => Some("rests, and does not judge"),
            (Why::Unconfirmed, _) if view.word == Word::Given && !view.other_on && !x.talks => {
                Some("rests, and a person's word counts")
            }
            (Why::TimedOut | Why::NodeGone | Why::NotRestored, _) => None,
            (_, Some(_)) if case_order == Order::Changed => Some("rests on an order that was corrected"),
            (Why::Unheard, _) if x.kind(world) == Kind::Bmc && x.speaks(world) => {
                Some("rests Unheard, and the BMC speaks")
            }
            (Why::Held(_), _) if x.quorum && x.bmc != Bmc::Locked => Some("rests for a quorum that is there"),
            (Why::Refused | Why::WrongMachine | Why::Denied, _) if x.edited => {
                Some("rests, and what it rests for was corrected")
            }
            (Why::Unresolved, _) if !x.unresolved => Some("rests for an order that is there"),
            (Why::Busy, _) if !x.other => Some("rests for a node that is free"),
            (Why::NewOrder, _) => Some("rests, and nothing is in flight"),
            (Why::NotProven, Some(off))
                if x.kind(world) == Kind::Bmc
                    && !x.on
                    && off.answered
                    && x.bmc == Bmc::Up
                    && !x.unresolved
                    && world.uuid
                    && !x.astray(world) =>
            {
                Some("rests NotProven before a proof")
            }
            (Why::NotProven | Why::Unheard | Why::Held(_) | Why::Unresolved, _) => None,
            (Why::Refused | Why::WrongMachine | Why::Busy | Why::Unconfirmed | Why::Denied, _) => None,
        },
    }
}

impl State {
    /// The BMC answers.
    fn speaks(&self, world: &World) -> bool {
        matches!(self.bmc_says(world), Reading::Running | Reading::Isolated { .. })
    }

    /// Both sockets do as they are told, and feed this machine only.
    fn obedient(&self, world: &World) -> bool {
        let there = world.levels.contains(&Kind::Sockets) && !self.ladder.fewer;
        let asks = self.levels(world).next.is_none() && self.kind(world) == Kind::Person;
        // An off that was held up was an attempt, too; and a level that is begun again may have been switched off before.
        let sent = !world.quorum || self.phase.off().is_some_and(|off| off.answered && off.seen_on);
        there && !asks && sent && self.ladder.sockets == [Socket::Works; 2] && !world.miswired && !world.lost
    }
}

fn order(x: &State) -> Order {
    match x.pinned_wrong {
        Some(pinned) if !x.unresolved && pinned != x.spec_wrong => Order::Changed,
        Some(_) | None => Order::Same,
    }
}

//! What is to happen in a round: drawn from its seed, and from what other rounds still owe, and from nothing else.

use std::fmt;
use std::time::Duration;

use super::bmc::Kind;
use super::chance::Chance;
use super::fault::{Cell, Fault, STRATEGIES};
use super::matrix::{Matrix, impossible};
use super::phase::Phase;
use crate::stage::Strategy;

/// Whose word the plan is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contract {
    /// Ringfence: all phases, devices and troubles.
    Ringfence,
    /// Whoever obeys FAR's contract: Redfish through upstream's script.
    Far,
}

/// What is wrong with the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Illness {
    /// It hangs, and writes on.
    Hung,
    /// It loses its power, and gets it back by itself.
    Crashed(Duration),
    /// Its kubelet can't reach the API server for so long.
    CutOff(Duration),
    /// It has lost its power.
    Dark,
    /// Nothing; it is fenced all the same.
    None,
}

/// What brings a remediation to a halt that is to be met there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    Password,
    Refusal,
    Disobedience,
    Silence,
}

/// What happens to one remediation.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) strategy: Strategy,
    /// `action: off`.
    pub(super) stays_off: bool,
    pub(super) kind: Kind,
    pub(super) identity: bool,
    pub(super) illness: Illness,
    /// From the beginning of the round.
    pub(super) after: Duration,
    /// The phase in which it is to be met, and held.
    pub(super) phase: Phase,
    pub(super) obstacle: Obstacle,
    /// What befalls it there.
    pub(super) fault: Option<Fault>,
    /// It waits there for the cluster's blow of this number.
    pub(super) blow: Option<usize>,
    /// A second fault, in Restoring or Done.
    pub(super) later: Option<(Fault, Phase)>,
    /// How long what can last lasts.
    pub(super) lasting: Duration,
    /// For so long it is held there still, once the fault has come.
    pub(super) linger: Duration,
}

/// What happens to the whole cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blow {
    pub(super) fault: Fault,
    /// From the beginning of the round; not before those that wait for it are there.
    pub(super) after: Duration,
    pub(super) lasting: Duration,
    /// Both replicas, not only the leader.
    pub(super) all: bool,
    /// What is cut off stalls; else its connections break.
    pub(super) stalls: bool,
}

/// A round.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) seed: u64,
    pub(super) plans: Vec<Plan>,
    pub(super) blows: Vec<Blow>,
}

/// Where one is to be when the cluster is hit: phases that pass in less than two seconds, so that it must be held there. The
/// others come by themselves to enough of those in flight.
const FLEETING: [Phase; 4] = [Phase::Accepted, Phase::Isolating, Phase::Proving, Phase::Releasing];
/// Where a fault is a remediation's first.
const EARLY: [Phase; 5] = [Phase::Accepted, Phase::Isolating, Phase::Proving, Phase::Releasing, Phase::Halted];
/// Where it is the second, perhaps.
const LATE: [Phase; 2] = [Phase::Restoring, Phase::Done];
/// How often the cluster is hit in a round, and when. A round lasts for about a minute.
const BLOWS: [Duration; 2] = [Duration::from_secs(7), Duration::from_secs(27)];
/// Second faults dealt to a round, for each strategy.
const SECONDS: usize = 8;
/// Of what is owed, and can be paid only by a first fault, so much at a time.
const DEBTS: usize = 6;

impl Schedule {
    /// Draws a round of so many machines: what is owed first, then the cards that are this seed's.
    ///
    /// The cells are dealt like cards, from one shuffled deck after the other, so that all of them come equally often and
    /// a seed's hand is always the same.
    pub(super) fn draw(seed: u64, machines: usize, faults: bool, contract: Contract, owed: &[Cell]) -> Self {
        let mut chance = Chance::new(seed);
        if !faults {
            let plans = (0..machines).map(|_| plan(&mut chance, contract, Phase::Done, None, None)).collect();
            return Self { seed, plans, blows: Vec::new() };
        }
        let cells = Matrix::cells(contract);
        let (mut blows, mut plans) = (Vec::new(), Vec::new());
        let of_cluster: Vec<_> = Fault::ALL.into_iter().filter(|fault| fault.is_of_the_cluster()).collect();
        for (after, (number, fault)) in BLOWS.into_iter().zip(hand(&of_cluster, BLOWS.len(), seed, 1)) {
            let (lasting, all, stalls) = (chance.millis(1_000, 9_000), chance.percent(30), chance.percent(50));
            let blow = Blow { fault, after, lasting, all, stalls };
            for (slot, phase) in FLEETING.into_iter().enumerate() {
                // The other strategy with the next deck.
                let strategy = STRATEGIES[(number / of_cluster.len() + slot) % STRATEGIES.len()];
                let cell = Cell { fault, phase, strategy };
                if plans.len() < machines && impossible(cell, contract).is_none() {
                    let mut plan = plan(&mut chance, contract, phase, None, Some(strategy));
                    plan.after = after.saturating_sub(approach(phase));
                    plan.blow = Some(blows.len());
                    plans.push(plan);
                }
            }
            blows.push(blow);
        }
        let alone = |cell: &&Cell| !cell.fault.is_of_the_cluster();
        let early: Vec<_> = cells.iter().filter(alone).filter(|cell| EARLY.contains(&cell.phase)).copied().collect();
        // Places of their own for debts, so that no card of this hand is lost to them; without debts, any will do.
        let left = machines - plans.len();
        let fresh = hand(&early, left.saturating_sub(DEBTS), seed, 2).into_iter().map(|(_, cell)| cell);
        let owed: Vec<_> = owed.iter().filter(|cell| EARLY.contains(&cell.phase)).take(DEBTS).copied().collect();
        let more: Vec<_> = (0..left).map(|_| chance.of(&early)).collect();
        for cell in fresh.chain(owed).chain(more).take(left) {
            plans.push(plan(&mut chance, contract, cell.phase, Some(cell.fault), Some(cell.strategy)));
        }
        for (salt, strategy) in (3..).zip(STRATEGIES) {
            let wanted = |cell: &&Cell| LATE.contains(&cell.phase) && cell.strategy == strategy;
            let late: Vec<_> = cells.iter().filter(alone).filter(wanted).copied().collect();
            let able = |plan: &&mut Plan| plan.strategy == strategy && plan.goes_on();
            let dealt = hand(&late, SECONDS, seed, salt);
            for (plan, (_, cell)) in plans.iter_mut().filter(able).zip(dealt) {
                plan.later = Some((cell.fault, cell.phase));
            }
        }
        Self { seed, plans, blows }
    }
}

impl Plan {
    /// What is to be met, if all goes as it is meant to.
    pub(super) fn cells(&self) -> Vec<Cell> {
        let first = self.fault.map(|fault| (fault, self.phase));
        let both = first.into_iter().chain(self.later);
        both.map(|(fault, phase)| Cell { fault, phase, strategy: self.strategy }).collect()
    }

    /// It comes to Restoring, unless its first fault hinders it.
    fn goes_on(&self) -> bool {
        self.phase != Phase::Halted && !self.fault.is_some_and(Fault::ends_it)
    }
}

/// This seed's share of the decks: each card with its place among all that were ever dealt.
fn hand<T: Copy>(cards: &[T], size: usize, seed: u64, salt: u64) -> Vec<(usize, T)> {
    let first = usize::try_from(seed).unwrap_or(0).wrapping_mul(size);
    let card = |index: usize| {
        let mut deck = cards.to_vec();
        Chance::new((index / cards.len()) as u64 ^ (salt << 32)).shuffle(&mut deck);
        (index, deck[index % cards.len()])
    };
    (0..size).filter(|_| !cards.is_empty()).map(|offset| card(first.wrapping_add(offset))).collect()
}

/// From the creation of a remediation to a phase, on two cores that are busy.
fn approach(phase: Phase) -> Duration {
    Duration::from_millis(match phase {
        Phase::Accepted | Phase::Isolating => 500,
        Phase::Proving => 1_000,
        Phase::Releasing | Phase::Restoring | Phase::Done | Phase::Halted => 2_500,
    })
}

fn plan(
    chance: &mut Chance,
    contract: Contract,
    phase: Phase,
    fault: Option<Fault>,
    strategy: Option<Strategy>,
) -> Plan {
    // A script's answers can't be withheld, and it takes its time; a strip is never late and does not restart.
    let scripted = matches!(phase, Phase::Releasing | Phase::Done | Phase::Halted)
        && !matches!(fault, Some(Fault::BmcLate | Fault::BmcRestarts));
    let kind = match (contract, fault, chance.within(0, 99)) {
        (Contract::Far, ..) | (_, Some(Fault::OrderEdit), _) | (.., 0..65) => Kind::Redfish,
        (.., 65..88) => Kind::Ipmi,
        _ if scripted => Kind::Script,
        _ => Kind::Ipmi,
    };
    // By witness, a proof takes 15 s more; and none of a machine that was never read On.
    let identity = kind != Kind::Script && chance.percent(88);
    let illness = match chance.within(0, 99) {
        0..10 if identity => Illness::Crashed(chance.millis(500, 3_000)),
        10..20 if identity => Illness::Dark,
        20..40 => Illness::CutOff(chance.millis(3_000, 15_000)),
        40..55 => Illness::None,
        _ => Illness::Hung,
    };
    let strategy = strategy.unwrap_or_else(|| chance.of(&STRATEGIES));
    // What says Off untold must not have had an off that it ignored (Known limit 2).
    let obstacles: &[Obstacle] = match fault {
        Some(Fault::BmcRestarts) => &[Obstacle::Password, Obstacle::Refusal],
        _ => &[Obstacle::Password, Obstacle::Refusal, Obstacle::Disobedience, Obstacle::Silence],
    };
    Plan {
        strategy,
        stays_off: chance.percent(15),
        kind,
        identity,
        illness,
        after: if identity { chance.millis(0, 15_000) } else { chance.millis(0, 2_000) },
        phase,
        obstacle: chance.of(obstacles),
        fault,
        blow: None,
        later: None,
        lasting: chance.millis(500, 8_000),
        linger: chance.millis(0, 1_000),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = if self.identity { "identity" } else { "witness" };
        let action = if self.stays_off { "off" } else { "reboot" };
        write!(
            f,
            "{:?} after {:.1?}, {:?} ({bound}), {}, action {action}",
            self.illness,
            self.after,
            self.kind,
            self.strategy.name()
        )?;
        match (self.fault, self.blow) {
            (Some(fault), _) => write!(f, "; {fault} for {:.1?} in {}", self.lasting, self.phase)?,
            (None, Some(blow)) => write!(f, "; waits in {} for blow {blow}", self.phase)?,
            (None, None) => {}
        }
        if self.phase == Phase::Halted {
            write!(f, ", halted by {:?}", self.obstacle)?;
        }
        if let Some((fault, phase)) = self.later {
            write!(f, "; {fault} in {phase}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(seed: u64, owed: &[Cell]) -> Vec<String> {
        let schedule = Schedule::draw(seed, 24, true, Contract::Ringfence, owed);
        let blows = schedule.blows.iter().map(|blow| format!("{blow:?}"));
        schedule.plans.iter().map(Plan::to_string).chain(blows).collect()
    }

    #[test]
    fn a_seed_draws_its_schedule_again() {
        assert_eq!(told(7, &[]), told(7, &[]));
        assert_ne!(told(7, &[]), told(8, &[]));
    }

    #[test]
    fn all_boxes_are_dealt_and_debts_first() {
        let mut dealt = Matrix::default();
        for seed in 1..=34 {
            let schedule = Schedule::draw(seed, 36, true, Contract::Ringfence, &[]);
            schedule.plans.iter().flat_map(Plan::cells).for_each(|cell| dealt.count(cell));
        }
        for cell in Matrix::cells(Contract::Ringfence) {
            assert!(cell.fault.is_of_the_cluster() || dealt.of(cell) >= 3, "{cell}: {}", dealt.of(cell));
        }
        let owed = Cell { fault: Fault::TimedOut, phase: Phase::Accepted, strategy: Strategy::OutOfServiceTaint };
        let schedule = Schedule::draw(1, 24, true, Contract::Ringfence, &[owed]);
        assert!(schedule.plans.iter().any(|plan| plan.cells().contains(&owed)));
    }

    /// Known limits 1 and 2: an Off that is false must not meet an off of ours that is late or was ignored.
    #[test]
    fn known_limits_are_not_drawn() {
        for seed in 1..=200 {
            for plan in Schedule::draw(seed, 24, true, Contract::Ringfence, &[]).plans {
                let lies = plan.cells().iter().any(|cell| cell.fault == Fault::BmcRestarts);
                assert!(!lies || plan.phase != Phase::Halted || plan.obstacle != Obstacle::Disobedience, "{plan}");
            }
        }
    }
}

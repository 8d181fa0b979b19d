//! What was really met: fault by phase by strategy, counted at the moment of injection.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::fault::{Cell, Fault, STRATEGIES};
use super::phase::Phase;
use super::plan::Contract;
use crate::stage::Strategy;

/// How often each cell was met.
#[derive(Clone, Debug, Default)]
pub(super) struct Matrix(BTreeMap<Cell, u32>);

/// Why there can be no such injection; `None` if there can.
pub(super) fn impossible(cell: Cell, contract: Contract) -> Option<&'static str> {
    match (contract, cell.phase, cell.fault) {
        (Contract::Far, Phase::Proving | Phase::Restoring, _) => Some("FAR's conditions show no such phase"),
        (Contract::Far, _, Fault::OperatorCutOff | Fault::ApiMoved) => Some("a given command is not behind the proxy"),
        (Contract::Far | Contract::Ringfence, ..) => None,
    }
}

impl Matrix {
    pub(super) fn count(&mut self, cell: Cell) {
        *self.0.entry(cell).or_default() += 1;
    }

    pub(super) fn of(&self, cell: Cell) -> u32 {
        self.0.get(&cell).copied().unwrap_or(0)
    }

    pub(super) fn total(&self) -> u32 {
        self.0.values().sum()
    }

    /// All cells that can exist.
    pub(super) fn cells(contract: Contract) -> Vec<Cell> {
        Self::all_cells().filter(|cell| impossible(*cell, contract).is_none()).collect()
    }

    /// All cells, those that can't exist too.
    pub(super) fn all_cells() -> impl Iterator<Item = Cell> {
        let all = Fault::ALL.into_iter().flat_map(|fault| Phase::ALL.map(|phase| (fault, phase)));
        all.flat_map(|(fault, phase)| STRATEGIES.map(|strategy| Cell { fault, phase, strategy }))
    }

    /// As a Markdown table: in each cell ResourceDeletion / OutOfServiceTaint.
    pub(super) fn table(&self, contract: Contract) -> String {
        let mut text = format!("| {:<37} |", "fault");
        let _ = write!(text, "{}", Phase::ALL.map(|phase| format!(" {phase:>10} |")).concat());
        let _ = write!(text, "\n|{}|{}\n", "-".repeat(39), format!("{}:|", "-".repeat(11)).repeat(Phase::ALL.len()));
        for fault in Fault::ALL {
            let _ = write!(text, "| {:<37} |", fault.story());
            for phase in Phase::ALL {
                let of = |strategy| {
                    let cell = Cell { fault, phase, strategy };
                    impossible(cell, contract).map_or_else(|| self.of(cell).to_string(), |_| "–".to_owned())
                };
                let both = format!("{} / {}", of(Strategy::ResourceDeletion), of(Strategy::OutOfServiceTaint));
                let _ = write!(text, " {both:>10} |");
            }
            text.push('\n');
        }
        text
    }
}

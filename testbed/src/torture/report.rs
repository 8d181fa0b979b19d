//! What came of a run: the verdict, the matrix, how the remediations ended.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::fault::Cell;
use super::matrix::{Matrix, impossible};
use super::plan::{Contract, Schedule};
use super::round::Outcome;

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// The first seed and the last.
    pub seeds: (u64, u64),
    /// How many remediations there were.
    pub remediations: usize,
    /// How many faults met one.
    pub faults: u32,
    /// Each with its seed.
    pub violations: Vec<String>,
    contract: Contract,
    matrix: Matrix,
    ends: BTreeMap<String, usize>,
    excused: BTreeMap<String, usize>,
}

impl Report {
    pub(super) fn new(seed: u64, contract: Contract) -> Self {
        Self {
            seeds: (seed, seed),
            remediations: 0,
            faults: 0,
            violations: Vec::new(),
            contract,
            matrix: Matrix::default(),
            ends: BTreeMap::new(),
            excused: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, seed: u64, outcome: Outcome, matrix: &Matrix) {
        self.seeds.1 = seed;
        self.remediations += outcome.remediations;
        self.faults = matrix.total();
        self.matrix = matrix.clone();
        self.violations.extend(outcome.violations.into_iter().map(|what| format!("seed {seed}: {what}")));
        for end in outcome.ends {
            *self.ends.entry(end).or_default() += 1;
        }
        for excused in outcome.excused {
            // The reason stands in brackets at the end.
            let reason = excused.rsplit_once('(').map_or(excused.as_str(), |(_, reason)| reason.trim_end_matches(')'));
            *self.excused.entry(reason.to_owned()).or_default() += 1;
        }
    }

    /// The verdict, in a line.
    pub fn verdict(&self) -> String {
        format!(
            "torture: seed {}..{}, {} remediations, {} faults injected, {} violations",
            self.seeds.0,
            self.seeds.1,
            self.remediations,
            self.faults,
            self.violations.len()
        )
    }

    /// All of it, as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = self.matrix.table(self.contract);
        let cells = Matrix::cells(self.contract);
        let least = cells.iter().map(|cell| self.matrix.of(*cell)).min().unwrap_or(0);
        let _ = writeln!(
            text,
            "\nIn each box: ResourceDeletion / OutOfServiceTaint. The emptiest of {} boxes has {least}.",
            cells.len()
        );
        let none: BTreeMap<_, usize> = Matrix::all_cells().filter_map(|cell| impossible(cell, self.contract)).fold(
            BTreeMap::new(),
            |mut all, why| {
                *all.entry(why).or_default() += 1;
                all
            },
        );
        for (why, count) in none {
            let _ = writeln!(text, "{count} boxes can't be: {why}.");
        }
        text.push_str(&list("How the remediations came to rest:", &self.ends));
        text.push_str(&list("Excused, because somebody else did it:", &self.excused));
        if !self.violations.is_empty() {
            let _ = writeln!(text, "\nViolations:\n");
            for violation in &self.violations {
                let _ = writeln!(text, "- {violation}");
            }
        }
        let _ = writeln!(text, "\n`{}`", self.verdict());
        text
    }
}

fn list(title: &str, counts: &BTreeMap<String, usize>) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let lines: String = counts.iter().map(|(what, count)| format!("- {count} × {what}\n")).collect();
    format!("\n{title}\n\n{lines}")
}

/// All that is known of a round that went wrong.
pub(super) fn told(schedule: &Schedule, owed: &[Cell], outcome: &Outcome) -> String {
    let mut text = format!("  schedule (again: --seed {} --seeds 1", schedule.seed);
    if !owed.is_empty() {
        let owed: Vec<_> = owed.iter().map(Cell::to_string).collect();
        let _ = write!(text, " --owed {}", owed.join(","));
    }
    let _ = writeln!(text, "):");
    for (number, plan) in schedule.plans.iter().enumerate() {
        let _ = writeln!(text, "    t{}-{}: {plan}", schedule.seed, number + 1);
    }
    for blow in &schedule.blows {
        let _ = writeln!(text, "    {blow:?}");
    }
    let _ = writeln!(text, "  what happened:");
    for (at, what) in &outcome.story {
        let _ = writeln!(text, "    {} {what}", at.strftime("%H:%M:%S%.3f"));
    }
    text
}

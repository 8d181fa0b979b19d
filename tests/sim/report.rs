//! Many seeds, and what they came to.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use agents::Error;

use super::faults::BREAKAGES;
use super::machine::broken;
use super::run;
use super::tally::Counts;

/// What a run of many seeds came to.
#[derive(Default)]
pub struct Report {
    pub seeds: u64,
    /// Seeds, and what each broke.
    pub wrong: Vec<(u64, String)>,
    pub counts: Counts,
    /// Virtual milliseconds.
    pub lasted: u64,
}

/// Runs seeds on all cores.
pub fn of(seeds: Range<u64>) -> Report {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut report = Report::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return report;
            }
            let run = run::run(seed, false);
            report.seeds += 1;
            report.lasted += run.lasted;
            report.counts.add(run.counts);
            if let Some(wrong) = run.wrong {
                println!("seed {seed}: {wrong}");
                report.wrong.push((seed, wrong));
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut all = Report::default();
        for thread in threads {
            let part = thread.join().expect("a seed panicked");
            all.seeds += part.seeds;
            all.lasted += part.lasted;
            all.counts.add(part.counts);
            all.wrong.extend(part.wrong);
        }
        all.wrong.sort();
        all
    })
}

const DOUBTS: [&str; 9] =
    ["Running", "Unknown", "Refused", "Stale", "Unsettled", "Uncommanded", "Unbound", "WrongMachine", "Contradicted"];

const WHYS: [&str; 15] = [
    "Busy",
    "Excluded",
    "ForeignRemediation",
    "NodeLeased",
    "Budget",
    "Quorum",
    "Unresolved",
    "Refused",
    "WrongMachine",
    "Unheard",
    "NotProven",
    "NotRestored",
    "NewOrder",
    "TimedOut",
    "NodeGone",
];

/// What must be reached, by table and row.
fn wanted() -> Vec<(&'static str, &'static str)> {
    let labels = (0..BREAKAGES).map(|kind| ("label", Error::label(&broken(kind))));
    let rows = DOUBTS.map(|row| ("doubt", row)).into_iter().chain(WHYS.map(|row| ("why", row)));
    rows.chain(labels).collect()
}

impl Report {
    /// Returns what was reached more rarely than `least` times.
    pub fn scarce(&self, least: u64) -> Vec<String> {
        let rare = wanted().into_iter().filter(|(table, row)| self.counts.of(table, row) < least);
        rare.map(|(table, row)| format!("{table} {row}")).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = wanted();
        for (table, row) in &wanted {
            writeln!(f, "{table:8} {row:24} {}", self.counts.of(table, row))?;
        }
        for ((table, row), count) in &self.counts.0 {
            if !wanted.iter().any(|(known, _)| known == table) {
                writeln!(f, "{table:8} {row:24} {count}")?;
            }
        }
        let never = self.scarce(1);
        writeln!(f, "never reached: {}", if never.is_empty() { "none".to_owned() } else { never.join(", ") })?;
        let virtual_hours = self.lasted / 3_600_000;
        write!(f, "{} seeds, {virtual_hours} hours of virtual time, {} violations", self.seeds, self.wrong.len())
    }
}

//! What was reached, and what happened, told by the product's own log and by the world.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
    static TRACE: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    static COUNTS: RefCell<Counts> = const { RefCell::new(Counts(BTreeMap::new())) };
}

/// How often each thing was met: by table and row.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<(&'static str, String), u64>);

impl Counts {
    pub fn add(&mut self, other: Counts) {
        for (row, count) in other.0 {
            *self.0.entry(row).or_default() += count;
        }
    }

    pub fn of(&self, table: &'static str, row: &str) -> u64 {
        self.0.get(&(table, row.to_owned())).copied().unwrap_or(0)
    }
}

/// Counts one more.
pub fn count(table: &'static str, row: &str) {
    COUNTS.with_borrow_mut(|counts| *counts.0.entry((table, row.to_owned())).or_default() += 1);
}

/// Takes what this thread has counted.
pub fn take_counts() -> Counts {
    COUNTS.take()
}

/// Tells the time to whoever notes something.
pub fn set_now(now: u64) {
    NOW.set(now);
}

/// Begins a trace, or leaves it out.
pub fn begin_trace(wanted: bool) {
    TRACE.set(wanted.then(Vec::new));
}

/// Takes the trace.
pub fn take_trace() -> Vec<String> {
    TRACE.take().unwrap_or_default()
}

/// Adds a line to the trace, if there is one.
pub fn note(line: impl FnOnce() -> String) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            let now = NOW.get();
            trace.push(format!("{:4}.{:03} {}", now / 1_000, now % 1_000, line()));
        }
    });
}

/// Hears the product's log, from now on.
pub fn listen() {
    // Another test may have been first.
    let _ = tracing::subscriber::set_global_default(Ear);
}

/// Hears what the product logs.
struct Ear;

impl Subscriber for Ear {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        match metadata.is_event() && metadata.target().starts_with("ringfence") {
            true => tracing::subscriber::Interest::sometimes(),
            false => tracing::subscriber::Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let heard = metadata.is_event() && metadata.target().starts_with("ringfence");
        heard && (metadata.fields().field("doubt").is_some() || TRACE.with_borrow(Option::is_some))
    }

    fn event(&self, event: &Event<'_>) {
        let mut heard = Heard::default();
        event.record(&mut heard);
        if let Some(doubt) = heard.doubt.filter(|doubt| doubt != "None") {
            count("doubt", doubt.trim_start_matches("Some(").trim_end_matches(')'));
        }
        note(|| format!("  log {}: {}", event.metadata().level(), heard.line));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Heard {
    doubt: Option<String>,
    line: String,
}

impl Visit for Heard {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "doubt" {
            self.doubt = Some(format!("{value:?}"));
        }
        if TRACE.with_borrow(Option::is_some) {
            let _ = write!(self.line, "{}={value:?} ", field.name());
        }
    }
}

//! Two minutes of the torture rig (docs/torture.md), and that it can convict.

use std::path::PathBuf;
use std::time::Duration;

use testbed::torture::{Judged, Options, run};

fn options(machines: usize) -> Options {
    Options {
        operator: PathBuf::from(env!("CARGO_BIN_EXE_ringfence")),
        seed: 1,
        time: Duration::from_secs(60),
        seeds: 2,
        machines,
        owed: Vec::new(),
        judged: Judged::Ringfence,
        keep: std::env::var_os("RINGFENCE_TEST_DIR").map(PathBuf::from),
        no_faults: false,
        report: None,
    }
}

/// Safe under whatever one round, or two, brings. More of it: `testbed torture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_of_it_is_survived() {
    let report = run(&options(20)).await.unwrap();
    assert_eq!(report.violations, Vec::<String>::new());
    assert!(report.remediations >= 20 && report.faults >= 20, "{}", report.verdict());
}

/// A remediator that fences nothing is found out, and for what it does: it releases what still runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_fence_is_convicted() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/testbed/agents/no_fencing");
    let options =
        Options { judged: Judged::Command(script.to_owned()), no_faults: true, seed: 5, seeds: 1, ..options(6) };
    let report = run(&options).await.unwrap();
    // Two writers follow as soon as the replacements have started; how soon that is, the machine says.
    let crime = "while it had power";
    assert!(report.violations.iter().any(|found| found.contains(crime)), "no {crime:?}: {}", report.markdown());
}

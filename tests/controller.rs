//! The operator on a real control plane, under the permissions of `deploy/`, judged by the testbed's oracle.
//!
//! Tests that leave the operator alone share one control plane and one operator; those that kill, pause or configure it
//! have their own, two at a time.

#[path = "controller/confined.rs"]
mod confined;
#[path = "controller/held.rs"]
mod held;
#[path = "controller/site.rs"]
mod site;
#[path = "controller/stage.rs"]
mod stage;

#[path = "controller/bad_input.rs"]
mod bad_input;
#[path = "controller/confirmation.rs"]
mod confirmation;
#[path = "controller/contract.rs"]
mod contract;
#[path = "controller/crash.rs"]
mod crash;
#[path = "controller/cycle.rs"]
mod cycle;
#[path = "controller/drivers.rs"]
mod drivers;
#[path = "controller/far.rs"]
mod far;
#[path = "controller/late.rs"]
mod late;
#[path = "controller/lead.rs"]
mod lead;
#[path = "controller/leave.rs"]
mod leave;
#[path = "controller/matrix.rs"]
mod matrix;
#[path = "controller/migration.rs"]
mod migration;
#[path = "controller/nhc.rs"]
mod nhc;
#[path = "controller/others.rs"]
mod others;
#[path = "controller/preflight.rs"]
mod preflight;
#[path = "controller/quorum.rs"]
mod quorum;
#[path = "controller/shadow.rs"]
mod shadow;
#[path = "controller/storm.rs"]
mod storm;
#[path = "controller/truth.rs"]
mod truth;
#[path = "controller/workloads.rs"]
mod workloads;

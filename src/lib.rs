//! Ringfence fences Kubernetes nodes on bare metal, and can prove it did.
//!
//! > **No workload is released without a proof that the node is isolated, and only a fresh reading of the machine is a
//! > proof.**
//!
//! # Map, in reading order
//! - [`api`]: the custom resources; data only.
//! - [`decide`]: the whole policy, one pure function; [`decide::Proof`] is the only licence to release.
//! - [`isolate`]: ways to be sure that a node can't write; the trait and its laws.
//! - [`machine`]: which node a remediation is about, where only its Machine knows.
//! - [`resolve`]: spec and Secrets → which device is told what, with which credentials.
//! - [`confirm`]: what a person's word is worth, where no device can tell.
//! - [`devices`]: what this process remembers of devices; one session per BMC.
//! - [`observe`]: reads the world of one remediation → [`decide::Case`].
//! - [`act`]: carries out one decision; with [`marks`] (what we write on a Node), [`release`] (what a proof permits),
//!   [`status`] (how a phase is persisted) and [`story`] (what people are told).
//! - [`breaker`]: how many machines may be cut off at once and within a while.
//! - [`controller`]: watches; reconcile = observe → decide → act; [`lease`]: only while this process leads; [`sweep`]:
//!   marks that outlived their remediation.
//! - [`shadow`]: beside another operator, says what this one would have done; it can only read.
//! - [`preflight`]: whether each node could be fenced, asked before it has to be.
//! - [`clock`], [`cluster`], [`events`], [`telemetry`]: time, calls to the API server, events, logs and health.
//!
//! # Invariants
//! - A phase is written to `status` before anything that it permits is done.
//! - Every write of a release carries the resourceVersion that was read before its proof.
//! - Secrets never reach argv, logs, events, status or error texts.

pub mod act;
pub mod api;
pub mod breaker;
pub mod clock;
pub mod cluster;
pub mod confirm;
pub mod controller;
pub mod decide;
pub mod devices;
pub mod events;
pub mod isolate;
pub mod lease;
pub mod machine;
pub mod marks;
pub mod observe;
pub mod preflight;
pub mod release;
pub mod resolve;
pub mod shadow;
pub mod status;
pub mod story;
pub mod sweep;
pub mod telemetry;

//! A rack and a cluster on one machine: a real control plane, machines with BMCs, kubelets, volumes, workloads, and an
//! oracle that judges from outside.

pub mod controlplane;
pub mod machine;
pub mod pki;
pub mod ports;
pub mod process;
pub mod scratch;
pub mod setup;

//! A rack and a cluster on one machine: a real control plane, machines with BMCs, kubelets, volumes, workloads, and an
//! oracle that judges from outside.

pub mod api_proxy;
pub mod attacher;
pub mod bench;
pub mod bmc;
pub mod controlplane;
pub mod demo;
pub mod journal;
pub mod kubelet;
pub mod machine;
pub mod nhc;
pub mod operator;
pub mod oracle;
pub mod pki;
pub mod ports;
pub mod process;
pub mod rack;
pub mod scratch;
pub mod setup;
pub mod stage;
pub mod torture;
pub mod upstream;
pub mod wait;
pub mod workloads;

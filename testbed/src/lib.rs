//! A rack and a cluster on one machine: a real control plane, machines with BMCs, kubelets, volumes, workloads, and an
//! oracle that judges from outside.

pub mod machine;

//! The faces of the machines' BMCs.

pub mod ipmi;
pub mod ipmi_sim;
pub mod outlets;
pub mod redfish;
pub mod sushy;

//! The faces of the machines' BMCs.

pub mod redfish;
pub mod sushy;

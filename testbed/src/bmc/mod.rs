//! The faces of the machines' BMCs.

pub mod outlets;
pub mod redfish;
pub mod sushy;

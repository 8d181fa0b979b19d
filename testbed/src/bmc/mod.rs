//! The faces of the machines' BMCs, and the outlets that they hang on.
//!
//! Ways in which a BMC can be dead:
//!
//! | | how |
//! |---|---|
//! | the mains are gone, and it with the machine | [`Machine::set_feed`](crate::machine::Machine::set_feed), [`outlets`]; not the real emulators |
//! | off takes it along | `Fault::DiesWithNode` |
//! | it takes connections, and says nothing | `Fault::Dead`; after the handshake: `Fault::Hang` |
//! | nobody listens: connections are refused | [`redfish::Door::Closed`]; IPMI: a port of [`free_port`](crate::ports::free_port) |
//! | a black hole: connections are not answered | [`redfish::Door::BlackHole`]; IPMI: `Fault::Dead` |

pub mod ipmi;
pub mod ipmi_sim;
pub mod outlets;
pub mod redfish;
pub mod snmp;
pub mod sushy;

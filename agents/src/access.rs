//! How a device is spoken to: which protocol, with which account.

use std::collections::BTreeMap;

use secrecy::SecretString;

use crate::ipmi::{Privilege, Quirks};
use crate::{Credentials, Tls};

/// How a device is spoken to. `Debug` shows no passwords and keys.
#[derive(Clone, Debug)]
pub enum Access {
    /// By our own Redfish client.
    Redfish {
        /// The account.
        credentials: Credentials,
        /// How its certificate is judged.
        tls: Tls,
    },
    /// By our own IPMI client.
    Ipmi {
        /// The account.
        credentials: Credentials,
        /// The BMC's key Kg in hexadecimal, where it has one.
        kg: Option<SecretString>,
        /// The cipher suite, if one is asked for.
        suite: Option<u8>,
        /// The privilege that sessions are to have.
        privilege: Privilege,
        /// What the BMC gets wrong.
        quirks: Quirks,
    },
    /// By a fence agent's script.
    Script(Parameters),
}

/// What a fence agent's script is given, besides the action and what the [`Target`](crate::Target) says.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    /// Values by the names that the agent's metadata have. All are treated as secrets: passwords are found anywhere.
    pub values: BTreeMap<String, SecretString>,
    /// What the agent calls the address: `ip`, in most agents.
    pub ip: Option<String>,
    /// What the agent calls the port of the address.
    pub ipport: Option<String>,
    /// What the agent calls the outlet, blade or virtual machine.
    pub plug: Option<String>,
}

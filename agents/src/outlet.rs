//! Which agents switch an outlet of a power distributor, and not a machine.

/// By what they say of themselves (`-o metadata`) or, of those that Debian 12 does not have, by upstream's description. A
/// distributor is a PDU or a "network power switch". `fence_powerman` is not here: what it switches is for its daemon to know,
/// and may be the machine itself.
const OUTLETS: [&str; 15] = [
    "fence_apc",
    "fence_apc_snmp",
    "fence_cdu",
    "fence_cyberpower_ssh",
    "fence_eaton_snmp",
    "fence_eaton_ssh",
    "fence_emerson",
    "fence_eps",
    "fence_ipdu",
    "fence_lindypdu",
    "fence_netio",
    "fence_raritan",
    "fence_raritan_px3",
    "fence_tripplite_snmp",
    "fence_wti",
];

/// Tells whether an agent switches an outlet of a power distributor.
///
/// It matters for what On means. A machine that says On runs. An outlet that says On has a voltage, and the machine behind it
/// may be off all the same, by its own switch or by its BMC: such an On contradicts nobody who has read the machine Off.
/// (An outlet's Off is no less than a machine's, if the machine has no other feed.) An agent that is not known counts as
/// the machine's own.
pub fn is_outlet(agent: &str) -> bool {
    OUTLETS.contains(&agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distributor_s_agents_are_told_from_a_machine_s() {
        for agent in ["fence_apc", "fence_apc_snmp", "fence_eaton_snmp", "fence_raritan_px3", "fence_wti"] {
            assert!(is_outlet(agent), "{agent}");
        }
        // BMCs, chassis that switch their blades, hypervisors, a person, and what nobody knows.
        for agent in
            ["fence_redfish", "fence_ipmilan", "fence_rsb", "fence_bladecenter", "fence_hpblade", "fence_virsh"]
        {
            assert!(!is_outlet(agent), "{agent}");
        }
        for agent in ["fence_powerman", "fence_meatware", "fence_unheard_of", "apc", "fence_apc_", ""] {
            assert!(!is_outlet(agent), "{agent}");
        }
    }
}

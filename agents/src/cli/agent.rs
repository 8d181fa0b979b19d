//! Which agents there are, and what upstream calls them.

/// The way an agent speaks to its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Redfish over HTTPS.
    Redfish,
    /// IPMI 2.0 over UDP (RMCP+, "lanplus").
    Ipmi,
}

/// One fence agent: a name, and the defaults that go with it.
///
/// The names of the IPMI family differ in nothing but two defaults, as with upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    name: &'static str,
    pub(super) family: Family,
    /// What the metadata says of the product.
    pub(super) shortdesc: &'static str,
    /// The default of `lanplus`, where there is such an option.
    pub(super) lanplus: &'static str,
    /// The default of `power_wait`, in seconds.
    pub(super) power_wait: &'static str,
}

/// All agents; of each family its main name first.
static AGENTS: [Agent; 8] = [
    Agent {
        name: "fence_redfish",
        family: Family::Redfish,
        shortdesc: "Power fencing through Redfish",
        lanplus: "",
        power_wait: "0",
    },
    ipmi("fence_ipmilan", "Power fencing through IPMI", "0", "2"),
    ipmi("fence_ilo3", "Power fencing through IPMI, for HP iLO 3", "1", "4"),
    ipmi("fence_ilo4", "Power fencing through IPMI, for HP iLO 4", "1", "2"),
    ipmi("fence_ilo5", "Power fencing through IPMI, for HPE iLO 5", "1", "2"),
    ipmi("fence_ipmilanplus", "Power fencing through IPMI 2.0", "1", "2"),
    ipmi("fence_imm", "Power fencing through IPMI, for IBM and Lenovo IMM", "0", "2"),
    ipmi("fence_idrac", "Power fencing through IPMI, for Dell iDRAC", "0", "2"),
];

const fn ipmi(name: &'static str, shortdesc: &'static str, lanplus: &'static str, power_wait: &'static str) -> Agent {
    Agent { name, family: Family::Ipmi, shortdesc, lanplus, power_wait }
}

impl Agent {
    /// Finds the agent of this name, as a program is called or as `ringfence agent` is told.
    pub fn named(name: &str) -> Option<&'static Self> {
        AGENTS.iter().find(|agent| agent.name == name)
    }

    /// Lists all agents.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        AGENTS.iter()
    }

    /// The name it goes by.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The other names of its family, as the metadata lists them.
    pub(super) fn symlinks(&self) -> impl Iterator<Item = &'static Self> {
        let family = self.family;
        AGENTS.iter().filter(move |other| other.family == family).skip(1)
    }

    /// What the family is for, in a sentence or two.
    pub(super) fn longdesc(&self) -> &'static str {
        match self.family {
            Family::Redfish => {
                "Switches a machine off and on through the Redfish service of its BMC, and reports success only when \
                 the new power state was read back."
            }
            Family::Ipmi => {
                "Switches a machine off and on through IPMI 2.0 over the network, without ipmitool, and reports \
                 success only when the new power state was read back. method=cycle is carried out as off, then on."
            }
        }
    }

    /// Where the protocol is described, if upstream says so.
    pub(super) fn vendor_url(&self) -> &'static str {
        match self.family {
            Family::Redfish => "http://www.dmtf.org",
            Family::Ipmi => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_found_by_their_exact_name() {
        assert_eq!(Agent::named("fence_idrac").map(Agent::name), Some("fence_idrac"));
        for name in ["", "redfish", "FENCE_REDFISH", "fence_redfish.py", "/usr/sbin/fence_redfish"] {
            assert_eq!(Agent::named(name), None, "{name}");
        }
    }

    #[test]
    fn a_family_lists_all_its_names_but_the_first() {
        let names = |agent: &str| Agent::named(agent).expect("known").symlinks().map(Agent::name).collect::<Vec<_>>();
        assert_eq!(names("fence_redfish"), [""; 0]);
        assert_eq!(names("fence_idrac").len(), 6);
        assert!(!names("fence_ilo3").contains(&"fence_ipmilan"));
    }
}

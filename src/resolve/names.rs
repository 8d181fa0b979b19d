//! Names of fence-agent parameters: how one may be written, and which are never obeyed. The names are those of the
//! Fence Agent API, the same for every agent.

/// Other names of a parameter: short options, and the older names that are still in use.
const ALIASES: [(&str, &str); 17] = [
    ("-a", "ip"),
    ("ipaddr", "ip"),
    ("-u", "ipport"),
    ("-l", "username"),
    ("login", "username"),
    ("-p", "password"),
    ("passwd", "password"),
    ("-S", "password-script"),
    ("passwd-script", "password-script"),
    ("-z", "ssl"),
    ("-n", "plug"),
    ("port", "plug"),
    ("-v", "verbose"),
    ("-q", "quiet"),
    ("-D", "debug-file"),
    ("debug", "debug-file"),
    ("sudo", "use-sudo"),
];

/// The parameters that choose a machine, in whatever agent, by canonical name. What is missing here can be edited without
/// the order becoming another one; what is here too much costs nothing.
const CHOICE: [&str; 42] = [
    "api-path",
    "auth-url",
    "cloud",
    "compute-domain",
    "crn",
    "devices",
    "domain",
    "drac-version",
    "endpoint-type",
    "filter",
    "host-os",
    "instance",
    "instance-filtering",
    "ip",
    "ipport",
    "managed",
    "namespace",
    "node-name",
    "nodename",
    "plug",
    "port-as-ip",
    "project",
    "project-domain",
    "project-domain-name",
    "project-name",
    "pve-node",
    "redfish-uri",
    "region",
    "region-name",
    "resourceGroup",
    "serial-port",
    "session-url",
    "suborg",
    "subscriptionId",
    "switch",
    "systems-uri",
    "target",
    "tenant-name",
    "tenantId",
    "uuid",
    "vmware-datacenter",
    "zone",
];

/// Returns the one name of a parameter: the long option without its dashes, with `-` for `_`. `--ip`, `ipaddr` and
/// `-a` are all `ip`.
pub(super) fn canonical(written: &str) -> String {
    let long = match written.strip_prefix('-') {
        // A short option: one dash, one letter.
        Some(letter) if letter.chars().count() == 1 && letter != "-" => written.to_owned(),
        Some(_) | None => written.trim_start_matches('-').replace('_', "-"),
    };
    ALIASES.iter().find(|(alias, _)| *alias == long).map_or(long, |(_, name)| (*name).to_owned())
}

/// Returns the older name of a parameter, given its canonical one: agents from before 2018 know nothing else.
pub(super) fn older(canonical: &str) -> Option<&'static str> {
    let mut longs = ALIASES.iter().filter(|(alias, _)| !alias.starts_with('-'));
    longs.find(|(_, name)| *name == canonical).map(|(alias, _)| *alias)
}

/// Tells whether a parameter chooses the machine, given its canonical name: a device's address, or one of those behind it.
pub(super) fn chooses(canonical: &str) -> bool {
    CHOICE.contains(&canonical)
}

/// Returns why a parameter is not obeyed, given its canonical name.
pub(super) fn refusal(canonical: &str) -> Option<&'static str> {
    never(canonical).or_else(|| unsafe_to_obey(canonical))
}

/// Returns why a parameter is never obeyed, whatever the operator was told.
pub(super) fn never(canonical: &str) -> Option<&'static str> {
    match canonical {
        "-o" => Some("write --action"),
        "help" | "-h" | "version" | "-V" => Some("an agent that prints a text has fenced nothing"),
        "missing-as-off" | "network-fencing" => Some("what it makes the agent call off may be running"),
        _ => None,
    }
}

/// Returns why a parameter is obeyed only if the operator was started with `--allow-unsafe-parameters`: whoever may
/// create a remediation would run commands in the operator's container, or read and write files there.
fn unsafe_to_obey(canonical: &str) -> Option<&'static str> {
    match canonical {
        "use-sudo" | "exec" | "ssh-options" | "runonfail" | "runonwarn" => Some(RUNS),
        "debug-file" | "logfile" | "kubeconfig" | "openrc" | "tlscert" | "tlskey" | "tlscacert" | "cacert" => {
            Some(FILE)
        }
        name if name.ends_with("-script") || name.ends_with("-path") => Some(RUNS),
        name if name.ends_with("-file") => Some(FILE),
        _ => None,
    }
}

const RUNS: &str = "it would run a command in the operator's container";
const FILE: &str = "it would use a file in the operator's container";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_parameter_has_one_name() {
        let cases = [
            ("--ip", "ip"),
            ("ip", "ip"),
            ("ipaddr", "ip"),
            ("--ipaddr", "ip"),
            ("-a", "ip"),
            ("a", "a"),
            ("--a", "a"),
            ("--ipport", "ipport"),
            ("-u", "ipport"),
            ("login", "username"),
            ("-l", "username"),
            ("passwd", "password"),
            ("-p", "password"),
            ("--systems-uri", "systems-uri"),
            ("systems_uri", "systems-uri"),
            ("--systems_uri", "systems-uri"),
            ("passwd_script", "password-script"),
            ("-o", "-o"),
            ("-", ""),
            ("--", ""),
            ("IP", "IP"),
        ];
        for (written, name) in cases {
            assert_eq!(canonical(written), name, "{written}");
        }
    }

    #[test]
    fn what_runs_code_or_fences_nothing_is_refused() {
        let refused = [
            "--password-script",
            "passwd_script",
            "-S",
            "--gnutlscli-path",
            "ipmitool_path",
            "sudo_path",
            "--debug-file",
            "-D",
            "debug",
            "--help",
            "-h",
            "version",
            "-V",
            "-o",
            "use_sudo",
            "missing_as_off",
        ];
        for written in refused {
            assert!(refusal(&canonical(written)).is_some(), "{written}");
        }
        for written in ["--ip", "password", "action", "systems_uri", "nonsense"] {
            assert!(refusal(&canonical(written)).is_none(), "{written}");
        }
    }
}

//! Names of fence-agent parameters: how one may be written, and which are never obeyed. The names are those of the
//! Fence Agent API, the same for every agent.

/// Other names of a parameter: short options, and the older names that are still in use.
const ALIASES: [(&str, &str); 16] = [
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

/// Returns why a parameter is never obeyed, given its canonical name.
pub(super) fn refusal(canonical: &str) -> Option<&'static str> {
    match canonical {
        "-o" => Some("write --action"),
        "help" | "-h" | "version" | "-V" => Some("an agent that prints a text has fenced nothing"),
        "debug-file" => Some("it would write a file in the operator's container"),
        "use-sudo" => Some("it would run a command in the operator's container"),
        "missing-as-off" | "network-fencing" => Some("what it makes the agent call off may be running"),
        name if name.ends_with("-script") || name.ends_with("-path") => {
            Some("it would run a command in the operator's container")
        }
        _ => None,
    }
}

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

//! The options of each agent: upstream's names, types and defaults, described in our own words.

use super::agent::{Agent, Family};

/// What values an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// None on the command line, where it is set by being there; on stdin, 1 or 0 and their like.
    Flag,
    /// A whole number.
    Integer,
    /// A whole number of seconds.
    Seconds,
    /// One of these, in any case.
    Choice(&'static [&'static str]),
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opt {
    /// The name on stdin, with underscores.
    pub(super) name: &'static str,
    /// The older name that stdin takes as well.
    pub(super) old: Option<&'static str>,
    /// The name on the command line, without dashes.
    pub(super) long: &'static str,
    /// Its one letter there.
    pub(super) short: Option<char>,
    /// What the metadata shows for its value.
    pub(super) argument: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Option<&'static str>,
    pub(super) required: bool,
    /// Its place in the metadata, where options of one place are sorted by name. `None`: it is ours, and upstream's
    /// metadata doesn't have it.
    pub(super) place: Option<u8>,
    pub(super) words: &'static str,
}

/// Places in the metadata.
const DEVICE: u8 = 1;
const QUIET: u8 = 2;
const VERBOSE: u8 = 3;
const LEVEL: u8 = 4;
const DEBUG: u8 = 5;
const VERSION: u8 = 6;
const HELP: u8 = 7;
const SEPARATOR: u8 = 8;
const TIMES: u8 = 9;
const RETRIES: u8 = 10;
const SUDO: u8 = 11;
const SUDO_PATH: u8 = 12;

const fn opt(place: u8, name: &'static str, long: &'static str, kind: Kind, words: &'static str) -> Opt {
    Opt {
        name,
        old: None,
        long,
        short: None,
        argument: "",
        kind,
        default: None,
        required: false,
        place: Some(place),
        words,
    }
}

const fn flag(place: u8, name: &'static str, long: &'static str, words: &'static str) -> Opt {
    opt(place, name, long, Kind::Flag, words)
}

const fn text(name: &'static str, long: &'static str, argument: &'static str, words: &'static str) -> Opt {
    opt(DEVICE, name, long, Kind::Text, words).arg(argument)
}

const fn seconds(name: &'static str, long: &'static str, default: &'static str, words: &'static str) -> Opt {
    opt(TIMES, name, long, Kind::Seconds, words).arg("[seconds]").default(default)
}

impl Opt {
    const fn old(mut self, old: &'static str) -> Self {
        self.old = Some(old);
        self
    }

    const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    const fn arg(mut self, argument: &'static str) -> Self {
        self.argument = argument;
        self
    }

    const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    const fn at(mut self, place: u8) -> Self {
        self.place = Some(place);
        self
    }

    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn unlisted(mut self) -> Self {
        self.place = None;
        self
    }

    /// Whether it has a value on the command line.
    pub(super) fn takes_value(&self) -> bool {
        !matches!(self.kind, Kind::Flag)
    }

    /// Whether this is its name on stdin, the present or the older one; dashes are underscores there.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let name = name.replace('-', "_");
        self.name == name || self.old.is_some_and(|old| old.replace('-', "_") == name)
    }
}

const COMMON: [Opt; 24] = [
    text("action", "action", "[action]", "What to do: off, on, reboot, status, monitor, …")
        .short('o')
        .default("reboot")
        .required(),
    text("ip", "ip", "[ip]", "Address or host name of the BMC").old("ipaddr").short('a'),
    text("password", "password", "[password]", "The account's password").old("passwd").short('p'),
    text("password_script", "password-script", "[script]", "Shell command that prints the password")
        .old("passwd_script")
        .short('S'),
    text("plug", "plug", "[ip]", "Taken as the BMC's address if port_as_ip is set, else without meaning")
        .old("port")
        .short('n'),
    flag(QUIET, "quiet", "quiet", "Write nothing to stderr").short('q'),
    flag(VERBOSE, "verbose", "verbose", "Tell each step on stderr").short('v'),
    opt(LEVEL, "verbose_level", "verbose-level", Kind::Integer, "How much to tell: 0 is nothing"),
    text("debug_file", "debug-file", "[debugfile]", "Append what is told to this file, too")
        .old("debug")
        .short('D')
        .at(DEBUG),
    flag(VERSION, "version", "version", "Print the version").short('V'),
    flag(HELP, "help", "help", "Print the options").short('h'),
    text("plug_separator", "plug-separator", "[char]", "Without meaning: there is one plug").default(",").at(SEPARATOR),
    seconds("delay", "delay", "0", "Time to wait before off and reboot"),
    text(
        "disable_timeout",
        "disable-timeout",
        "[true/false]",
        "Poll until the caller ends it, 10 minutes at most (set by default under Pacemaker)",
    )
    .at(TIMES),
    seconds("login_timeout", "login-timeout", "5", "Part of the time for one call, with shell_timeout"),
    flag(TIMES, "port_as_ip", "port-as-ip", "Take plug as the BMC's address"),
    seconds("power_timeout", "power-timeout", "20", "Polls for the new power state; least time for one call"),
    seconds("shell_timeout", "shell-timeout", "3", "Part of the time for one call, with login_timeout"),
    seconds("stonith_status_sleep", "stonith-status-sleep", "1", "Pause between two polls"),
    opt(RETRIES, "retry_on", "retry-on", Kind::Integer, "How often to send on again").arg("[attempts]").default("1"),
    text("ca_file", "ca-file", "[file]", "PEM certificates of the authorities to believe, and no others").unlisted(),
    // Where the families differ, what `options` puts in their place.
    text("username", "username", "[name]", "The account's name").old("login").short('l'),
    opt(DEVICE, "ipport", "ipport", Kind::Integer, "Port of the BMC").arg("[port]").short('u'),
    seconds("power_wait", "power-wait", "", "Time to wait after a command before the first poll"),
];

const REDFISH: [Opt; 6] = [
    text("redfish_uri", "redfish-uri", "[uri]", "The service root").old("redfish-uri").default("/redfish/v1"),
    text("systems_uri", "systems-uri", "[uri]", "The system, where the BMC has several").old("systems-uri"),
    flag(DEVICE, "ssl", "ssl", "Without meaning: Redfish is always HTTPS").short('z').default("1"),
    flag(DEVICE, "ssl_insecure", "ssl-insecure", "Believe any certificate: whoever answers gets the password"),
    flag(DEVICE, "ssl_secure", "ssl-secure", "Verify the certificate, as is done anyway"),
    text("gnutlscli_path", "gnutlscli-path", "[path]", "Without meaning: gnutls-cli is not used")
        .default("/usr/bin/gnutls-cli")
        .at(SUDO_PATH),
];

const IPMI: [Opt; 11] = [
    opt(DEVICE, "auth", "auth", Kind::Choice(&["md5", "password", "none"]), "Without meaning: it is of IPMI 1.5")
        .arg("[auth]")
        .short('A'),
    text("cipher", "cipher", "[cipher]", "Number of the cipher suite, 3 or 17; by default 17, then 3").short('C'),
    text("hexadecimal_kg", "hexadecimal-kg", "[key]", "The BMC's key Kg, in hexadecimal digits"),
    flag(DEVICE, "lanplus", "lanplus", "Speak IPMI 2.0, as is done anyway; 0, for IPMI 1.5, is refused").short('P'),
    opt(
        DEVICE,
        "method",
        "method",
        Kind::Choice(&["onoff", "cycle"]),
        "How to reboot; both are carried out as off, then on",
    )
    .arg("[method]")
    .short('m')
    .default("onoff"),
    opt(
        DEVICE,
        "privlvl",
        "privlvl",
        Kind::Choice(&["callback", "user", "operator", "administrator"]),
        "Privilege level of the session",
    )
    .arg("[level]")
    .short('L')
    .default("administrator"),
    text("target", "target", "[targetaddress]", "Bridging to another controller: refused"),
    text("ipmitool_path", "ipmitool-path", "[path]", "Without meaning: ipmitool is not used")
        .default("/usr/bin/ipmitool")
        .at(TIMES),
    text("ipmitool_timeout", "ipmitool-timeout", "[timeout]", "Without meaning: the driver repeats by itself")
        .default("2")
        .at(RETRIES),
    flag(SUDO, "use_sudo", "use-sudo", "Without meaning: no other program is run").old("sudo"),
    text("sudo_path", "sudo-path", "[path]", "Without meaning: no other program is run")
        .default("/usr/bin/sudo")
        .at(SUDO_PATH),
];

/// Lists an agent's options with the defaults of its name.
pub(super) fn options(agent: &Agent) -> Vec<Opt> {
    let (own, port, login) = match agent.family {
        Family::Redfish => (&REDFISH[..], "443", true),
        Family::Ipmi => (&IPMI[..], "623", false),
    };
    let mut all: Vec<Opt> = COMMON.iter().chain(own).copied().collect();
    for option in &mut all {
        match option.name {
            "username" => option.required = login,
            "ipport" => option.default = Some(port),
            "power_wait" => option.default = Some(agent.power_wait),
            "lanplus" => option.default = Some(agent.lanplus),
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_means_two_things() {
        for agent in Agent::all() {
            let mut seen = BTreeSet::new();
            for option in options(agent) {
                let old = option.old.map(|old| old.replace('-', "_")).filter(|old| old != option.name);
                let names = [Some(option.name.to_owned()), old, option.short.map(|c| format!("-{c}"))];
                for name in names.into_iter().flatten() {
                    assert!(seen.insert(name.clone()), "{}: {name}", agent.name());
                }
            }
        }
    }

    #[test]
    fn old_names_and_dashes_are_understood() {
        let agent = Agent::named("fence_redfish").expect("known");
        let find = |name: &str| options(agent).iter().find(|o| o.is_called(name)).map(|o| o.name);
        assert_eq!(find("passwd"), Some("password"));
        assert_eq!(find("redfish-uri"), Some("redfish_uri"));
        assert_eq!(find("systems_uri"), Some("systems_uri"));
        assert_eq!(find("Password"), None);
    }
}

//! What an agent is told: options on the command line, or lines on standard input, never both.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};

use super::agent::Agent;
use super::failure::Failure;
use super::options::{Kind, Opt, options};

/// The most that is read from standard input, in bytes: a hundred options with a thousand each.
pub(super) const MAX_INPUT: usize = 100_000;

/// The options given, by name. Any may be a secret, and is treated as one.
#[derive(Debug)]
pub(super) struct Input {
    values: BTreeMap<&'static str, SecretString>,
    /// How often `verbose` was given.
    verbose: u32,
    /// What was passed over.
    pub(super) warnings: Vec<String>,
}

impl Input {
    /// Reads a command line, as GNU getopt does: options in any order, the last of a kind counts, unique beginnings of
    /// long names will do. A flag takes no value there.
    ///
    /// Errors: [`Failure::Parse`] on what is no option, or has no value, or one too many.
    pub(super) fn from_args(agent: &Agent, args: &[String]) -> Result<Self, Failure> {
        let options = options(agent);
        let mut input = Self::new();
        let mut words = Vec::new();
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            if arg == "--" {
                words.extend(args.by_ref());
            } else if let Some(long) = arg.strip_prefix("--") {
                let (name, value) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (long, None),
                };
                let option = by_long_name(&options, name)?;
                let value = match (option.takes_value(), value) {
                    (true, Some(value)) => value,
                    (true, None) => args.next().ok_or_else(|| lacks_value(option.long))?,
                    (false, None) => "1",
                    (false, Some(_)) => {
                        return Err(Failure::Parse(format!("option --{} must not have an argument", option.long)));
                    }
                };
                input.set(option, value);
            } else if let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                input.short_options(&options, letters, &mut args)?;
            } else {
                words.push(arg);
            }
        }
        if input.get("plug").is_some() && !input.flag("port_as_ip") {
            return Err(Failure::Parse("option -n/--plug is only known together with --port-as-ip".into()));
        }
        if !words.is_empty() {
            input.warnings.push(format!("{} words on the command line are no options: ignored", words.len()));
        }
        Ok(input)
    }

    /// Reads lines of `name=value`. What is no option is passed over with a warning, as all callers expect; but not
    /// where a reboot instead of something else would come of it.
    ///
    /// Errors: [`Failure::Parse`] on a line that was meant as the action, and isn't; and on `help` and `version`, which
    /// would exit with 0 and fence nothing.
    pub(super) fn from_lines(agent: &Agent, text: &str) -> Result<Self, Failure> {
        let options = options(agent);
        let mut input = Self::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            let option = options.iter().find(|option| option.is_called(name));
            let Some(option) = option else {
                if meant_as_action(name) {
                    return Err(Failure::Parse("a line was meant as action=…, and is not".into()));
                }
                if name != "nodename" {
                    input.warnings.push(format!("Parse error: Ignoring unknown option '{}'", shown(name)));
                }
                continue;
            };
            let value = unquoted(value);
            if option.kind != Kind::Flag {
                input.set(option, value);
                continue;
            }
            match boolean(value) {
                Some(true) if ["help", "version"].contains(&option.name) => {
                    return Err(Failure::Parse(format!("{} is only for the command line", option.name)));
                }
                Some(true) => input.set(option, "1"),
                Some(false) => input.set(option, "0"),
                None => {
                    let warning = format!("Parse error: Ignoring option '{}': neither 1 nor 0", option.name);
                    input.warnings.push(warning);
                }
            }
        }
        Ok(input)
    }

    /// The value of a text option, if it was given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(SecretString::expose_secret)
    }

    /// Whether a flag is set: by its value, not by its being there.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name) == Some("1")
    }

    /// Whether to tell each step.
    pub(super) fn is_verbose(&self) -> bool {
        match self.get("verbose_level") {
            Some(level) => level.trim().parse::<i64>().is_ok_and(|level| level > 0),
            None => self.verbose > 0,
        }
    }

    fn new() -> Self {
        Self { values: BTreeMap::new(), verbose: 0, warnings: Vec::new() }
    }

    fn set(&mut self, option: &Opt, value: &str) {
        if option.name == "verbose" {
            self.verbose = if value == "1" { self.verbose + 1 } else { 0 };
        }
        self.values.insert(option.name, value.into());
    }

    fn short_options<'a>(
        &mut self,
        options: &[Opt],
        letters: &'a str,
        args: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(), Failure> {
        let mut rest = letters.chars();
        while let Some(letter) = rest.next() {
            let option = options
                .iter()
                .find(|option| option.short == Some(letter))
                .ok_or_else(|| Failure::Parse("an option with one dash is not recognized".into()))?;
            if !option.takes_value() {
                self.set(option, "1");
                continue;
            }
            let value = match rest.as_str() {
                "" => args.next().ok_or_else(|| lacks_value(option.long))?,
                glued => glued,
            };
            self.set(option, value);
            break;
        }
        Ok(())
    }
}

fn by_long_name<'a>(options: &'a [Opt], name: &str) -> Result<&'a Opt, Failure> {
    if let Some(option) = options.iter().find(|option| option.long == name) {
        return Ok(option);
    }
    let found: Vec<&Opt> = options.iter().filter(|option| option.long.starts_with(name)).collect();
    match found.as_slice() {
        [only] => Ok(only),
        [] => Err(Failure::Parse(format!("option --{} not recognized", shown(name)))),
        _ => Err(Failure::Parse(format!("option --{} not a unique prefix", shown(name)))),
    }
}

fn lacks_value(long: &str) -> Failure {
    Failure::Parse(format!("option --{long} requires argument"))
}

/// A line such as `ACTION=status`, `action = off`, or `option=off` (the name of long ago).
fn meant_as_action(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    name == "action" || name == "option"
}

fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "on" | "true" => Some(true),
        "0" | "no" | "off" | "false" => Some(false),
        _ => None,
    }
}

/// Takes one pair of double quotes off, if it is around the whole value.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// A name that we don't know, fit for a log. It may be a mistyped line with a secret: no more than its beginning.
fn shown(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).take(24).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> &'static Agent {
        Agent::named("fence_redfish").expect("known")
    }

    fn args(args: &[&str]) -> Result<Input, String> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        Input::from_args(agent(), &args).map_err(|failure| failure.to_string())
    }

    fn lines(text: &str) -> Result<Input, String> {
        Input::from_lines(agent(), text).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_command_line_is_read_as_getopt_does() {
        let input = args(&["-vvofoo", "--ip", "h", "word", "-l", "u", "--act=status", "--password=x=y", "--", "--wat"]);
        let input = input.expect("readable");
        assert_eq!(input.get("action"), Some("status"));
        assert_eq!(
            (input.get("ip"), input.get("username"), input.get("password")),
            (Some("h"), Some("u"), Some("x=y"))
        );
        assert!(input.is_verbose());
        assert_eq!(input.warnings.len(), 1);
    }

    #[test]
    fn what_is_no_option_is_an_error() {
        for (given, says) in [
            (&["--wat"][..], "--wat not recognized"),
            (&["--pass"], "not a unique prefix"),
            (&["--ssl-insecure=0"], "must not have an argument"),
            (&["--ip"], "--ip requires argument"),
            (&["-a"], "--ip requires argument"),
            (&["-x"], "not recognized"),
            (&["--nodename=n"], "not recognized"),
            (&["-n", "3"], "only known together with --port-as-ip"),
        ] {
            let error = args(given).expect_err("no option");
            assert!(error.contains(says), "{given:?}: {error}");
        }
        assert_eq!(args(&["--port-as-ip", "-n", "h"]).expect("together").get("plug"), Some("h"));
    }

    #[test]
    fn lines_are_read_as_pacemaker_writes_them() {
        let text = "# comment\n\n  ipaddr=h \nlogin=u\npasswd=\"a=b\"\nnodename=n\nport=n\nssl-insecure=ON\nwat=1\n\
                    verbose=0\nip=last\n";
        let input = lines(text).expect("readable");
        assert_eq!(input.get("ip"), Some("last"));
        assert_eq!((input.get("password"), input.get("plug")), (Some("a=b"), Some("n")));
        assert!(input.flag("ssl_insecure") && !input.is_verbose());
        assert_eq!(input.warnings, ["Parse error: Ignoring unknown option 'wat'"]);
    }

    #[test]
    fn flags_go_by_their_value() {
        let input = lines("ssl_insecure=0\nquiet=No\nport_as_ip=false\nversion=0\nhelp=off\nssl=perhaps\n");
        let input = input.expect("readable");
        for flag in ["ssl_insecure", "quiet", "port_as_ip", "version", "help"] {
            assert!(!input.flag(flag), "{flag}");
        }
        assert_eq!(input.get("ssl"), None);
        assert_eq!(input.warnings.len(), 1);
    }

    #[test]
    fn no_line_turns_into_a_reboot_or_into_nothing() {
        for text in ["option=status", "ACTION=status", "action = off", "Action=off", "help=1", "version=yes"] {
            assert!(lines(text).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_are_neither_in_debug_nor_in_warnings() {
        let input = lines("password=s3cr3t\npasswort=s3cr3t\n").expect("readable");
        assert!(!format!("{input:?}").contains("s3cr3t"));
    }

    #[test]
    fn verbose_level_overrides_the_count() {
        assert!(!args(&["-vv", "--verbose-level=0"]).expect("readable").is_verbose());
        assert!(args(&["--verbose-level", "2"]).expect("readable").is_verbose());
        assert!(!args(&["-v", "--verbose-level=x"]).expect("readable").is_verbose());
    }
}

//! The options, checked: what is to be done, how long it may take, and what the device is.

use std::time::Duration;

use super::agent::Agent;
use super::failure::Failure;
use super::input::Input;
use super::options::{Kind, options};
use super::power::Times;

/// One call, at least: also where the time-outs are zero, which upstream takes for "none".
const CALL: Duration = Duration::from_secs(20);

/// The longest time that is taken seriously, in seconds: one day.
const LONGEST: i64 = 86_400;

/// What an agent is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    On,
    Off,
    Reboot,
    Status,
    Monitor,
    List,
    Validate,
    Metadata,
    Manpage,
    Diag,
}

impl Action {
    /// Reads the action; without one it is `reboot`, as cluster managers expect.
    pub(super) fn of(input: &Input) -> Result<Self, Failure> {
        match input.get("action").unwrap_or("reboot") {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            "reboot" => Ok(Self::Reboot),
            "status" => Ok(Self::Status),
            "monitor" => Ok(Self::Monitor),
            "list" | "list-status" => Ok(Self::List),
            "validate-all" => Ok(Self::Validate),
            "metadata" | "meta-data" => Ok(Self::Metadata),
            "manpage" => Ok(Self::Manpage),
            "diag" => Ok(Self::Diag),
            other => Err(Failure::Action(other.chars().filter(|c| !c.is_control()).take(32).collect())),
        }
    }
}

/// Checks everything that can be checked without the device: that nothing mandatory is missing, and that numbers are
/// numbers and choices are among those offered.
pub(super) fn check(agent: &Agent, input: &Input) -> Result<(), Failure> {
    let given = |name: &str| input.get(name).is_some_and(|value| !value.is_empty());
    let missing = |what: &str| Err(Failure::Option(format!("{what} has to be given")));
    let all = options(agent);
    let account = all.iter().any(|option| option.name == "username" && option.required);
    if account && !given("username") {
        return missing("username");
    }
    if address(input).is_none() {
        return missing("ip, the address of the device,");
    }
    if account && input.get("password").is_none() && !given("password_script") {
        return missing("password or password_script");
    }
    for option in &all {
        let Some(value) = input.get(option.name) else { continue };
        match option.kind {
            // An odd verbose_level is taken for 0.
            Kind::Integer if option.name == "verbose_level" => {}
            Kind::Integer => drop(number(option.name, value, "a whole number")?),
            Kind::Seconds => drop(number(option.name, value, "a whole number of seconds")?),
            Kind::Choice(values) if !values.iter().any(|valid| valid.eq_ignore_ascii_case(value)) => {
                return Err(Failure::Option(format!("{} is none of: {}", option.name, values.join(", "))));
            }
            Kind::Choice(_) | Kind::Text | Kind::Flag => {}
        }
    }
    Ok(())
}

/// Where the device is: `ip`, or `plug` if that is to be the address.
pub(super) fn address(input: &Input) -> Option<&str> {
    let name = if input.flag("port_as_ip") { "plug" } else { "ip" };
    input.get(name).filter(|address| !address.is_empty())
}

/// The port, if one was given.
pub(super) fn port(input: &Input) -> Result<Option<u16>, Failure> {
    let Some(value) = input.get("ipport") else { return Ok(None) };
    let port = number("ipport", value, "a port number")?;
    u16::try_from(port).map(Some).map_err(|_| Failure::Option("ipport is no port number".into()))
}

/// How long the agent waits before it switches.
pub(super) fn delay(input: &Input) -> Result<Duration, Failure> {
    seconds(input, "delay").map(Option::unwrap_or_default)
}

/// How long the actions take, at most.
///
/// `under_pacemaker`: Pacemaker ends its agents itself, after a time that it was told; theirs is not to end before.
pub(super) fn times(input: &Input, under_pacemaker: bool) -> Result<Times, Failure> {
    let disabled = match input.get("disable_timeout").map(str::to_ascii_lowercase).as_deref() {
        None => under_pacemaker,
        Some("1" | "true" | "yes" | "on") => true,
        Some("" | "0" | "false" | "no" | "off") => false,
        Some(_) => return Err(Failure::Option("disable_timeout is neither true nor false".into())),
    };
    let given = |name, default| seconds(input, name).map(|given| given.unwrap_or(Duration::from_secs(default)));
    let (power, login, shell) = (given("power_timeout", 20)?, given("login_timeout", 5)?, given("shell_timeout", 3)?);
    let polls = u32::try_from(power.as_secs()).unwrap_or(u32::MAX);
    let none = power.is_zero() || login.is_zero() || shell.is_zero() || disabled;
    let retries = input.get("retry_on").map(|value| number("retry_on", value, "a whole number")).transpose()?;
    Ok(Times {
        call: if none { CALL } else { power.max(login + shell) },
        // Upstream's default is a wait for nothing where the machine is polled anyway; one that was asked for is not.
        power_wait: seconds(input, "power_wait")?.unwrap_or_default(),
        sleep: given("stonith_status_sleep", 1)?,
        polls: (!disabled && polls > 0).then_some(polls),
        on_tries: 1 + u32::try_from(retries.unwrap_or(1)).unwrap_or(u32::MAX - 1).min(100),
    })
}

fn seconds(input: &Input, name: &'static str) -> Result<Option<Duration>, Failure> {
    let Some(value) = input.get(name) else { return Ok(None) };
    let number = number(name, value, "a whole number of seconds")?;
    Ok(Some(Duration::from_secs(number.unsigned_abs())))
}

/// A number that is not negative. The value isn't quoted: what is mistyped may be a secret.
fn number(name: &str, value: &str, what: &str) -> Result<i64, Failure> {
    match value.trim().parse::<i64>() {
        Ok(number) if (0..=LONGEST).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(Failure::Option(format!("{name} is not {what} from 0 to {LONGEST}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(agent: &str, text: &str) -> (&'static Agent, Input) {
        let agent = Agent::named(agent).expect("known");
        (agent, Input::from_lines(agent, text).expect("readable"))
    }

    fn checked(agent: &str, text: &str) -> Result<(), String> {
        let (agent, input) = read(agent, text);
        check(agent, &input).map_err(|failure| failure.to_string())
    }

    fn timed(text: &str, under_pacemaker: bool) -> Times {
        times(&read("fence_redfish", text).1, under_pacemaker).expect("good times")
    }

    #[test]
    fn what_is_mandatory_is_asked_for() {
        assert_eq!(checked("fence_redfish", "ip=h\nusername=u\npassword=p"), Ok(()));
        assert_eq!(checked("fence_redfish", "ip=h\nlogin=u\npasswd_script=true"), Ok(()));
        assert_eq!(checked("fence_redfish", "port=h\nport_as_ip=1\nlogin=u\npasswd=p"), Ok(()));
        for (text, says) in [
            ("username=u\npassword=p", "ip"),
            ("ip=h\npassword=p", "username"),
            ("ip=h\nusername=u", "password"),
            ("ip=h\nport_as_ip=1\nusername=u\npassword=p", "ip"),
            ("port=h\nport_as_ip=0\nusername=u\npassword=p", "ip"),
            ("ip=h\nusername=u\npassword=p\nipport=x", "ipport"),
            ("ip=h\nusername=u\npassword=p\ndelay=1.5", "delay"),
            ("ip=h\nusername=u\npassword=p\ndelay=-1", "delay"),
            ("ip=h\nusername=u\npassword=p\nretry_on=", "retry_on"),
        ] {
            let error = checked("fence_redfish", text).expect_err("not valid");
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn zero_is_no_limit_for_polls_but_for_calls_it_is_the_default() {
        assert_eq!((timed("", false).polls, timed("", false).call), (Some(20), CALL));
        for (text, pacemaker) in [("", true), ("power_timeout=0", false), ("disable_timeout=True", false)] {
            let times = timed(text, pacemaker);
            assert_eq!((times.polls, times.call), (None, CALL), "{text}");
        }
        let short = timed("disable_timeout=0\npower_timeout=4\nlogin_timeout=2", true);
        assert_eq!((short.polls, short.call), (Some(4), Duration::from_secs(5)));
    }

    #[test]
    fn power_wait_is_waited_only_if_asked_for() {
        assert_eq!(timed("", false).power_wait, Duration::ZERO);
        assert_eq!(timed("power_wait=2", false).power_wait, Duration::from_secs(2));
        assert_eq!((timed("", false).on_tries, timed("retry_on=0", false).on_tries), (2, 1));
    }

    #[test]
    fn values_are_not_quoted() {
        let error = checked("fence_redfish", "ip=h\nusername=u\npassword=p\nipport=s3cr3t").expect_err("no port");
        assert!(!error.contains("s3cr3t"), "{error}");
    }

    #[test]
    fn actions_are_those_and_no_others() {
        let action = |name: &str| Action::of(&read("fence_redfish", &format!("action={name}")).1);
        assert_eq!(Action::of(&read("fence_redfish", "").1).expect("known"), Action::Reboot);
        assert_eq!(action("meta-data").expect("known"), Action::Metadata);
        for name in ["OFF", "cycle", "enable", "disable", "", "of\u{7}f"] {
            assert!(action(name).expect_err("unknown").to_string().starts_with("Unrecognised action"), "{name}");
        }
    }
}

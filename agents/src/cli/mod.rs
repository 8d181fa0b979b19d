//! The drivers as fence agents: the command line, standard input, output and exit codes of ClusterLabs' fence agents, so
//! that Pacemaker, scripts and people can use them in their place.
//!
//! Knows that interface (the Fence Agent API) and the options and metadata of the agents whose devices we have a driver
//! for. Must not know Kubernetes. Where it is safer than the agents of those names: `docs/decisions/0005`.
//!
//! Exit codes: 0, done, or `status` found the machine on; 1, failed, or the power state is unknown; 2, `status` found it
//! off. Results go to standard output, everything else to standard error.

mod agent;
mod device;
mod failure;
mod input;
mod log;
mod metadata;
mod options;
mod power;
mod script;
mod settings;

use std::env;
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use secrecy::SecretString;
use tokio::time::{Instant, sleep_until};

pub use agent::Agent;

use self::device::Device;
use self::failure::Failure;
use self::input::{Input, MAX_INPUT};
use self::log::Log;
use self::power::Operator;
use self::settings::Action;
use crate::PowerState;

/// What is left to say at the end: for standard output, and the exit code.
struct Done {
    output: String,
    code: u8,
}

impl Done {
    fn with(output: impl Into<String>) -> Self {
        Self { output: output.into(), code: 0 }
    }
}

/// Runs an agent in this process, from its arguments (without the program's name) to its exit code.
///
/// Without arguments the options are read from standard input. Reads the environment variables `PCMK_service`, by which
/// Pacemaker makes itself known, and `REQUESTS_CA_BUNDLE`; no proxy's.
///
/// Assumptions: called outside of an async runtime.
pub fn main(agent: &'static Agent, args: Vec<OsString>) -> ExitCode {
    let began = Instant::now();
    let mut log = Log::default();
    let done = read(agent, args).and_then(|input| {
        log = Log::open(input.flag("quiet"), input.is_verbose(), input.get("debug_file"))?;
        for warning in &input.warnings {
            log.warn(warning);
        }
        // One thread will do: there is nothing to do but wait.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| Failure::File { what: "the event loop", source })?;
        runtime.block_on(act(agent, &input, began, &mut log))
    });
    let done = done.unwrap_or_else(|failure| {
        log.error(&format!("Failed: {failure}"));
        Done { output: String::new(), code: 1 }
    });
    match std::io::stdout().write_all(done.output.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Ok(()) => ExitCode::from(done.code),
        // What nobody could read has not been said.
        Err(_) => ExitCode::FAILURE,
    }
}

fn read(agent: &Agent, args: Vec<OsString>) -> Result<Input, Failure> {
    if args.is_empty() {
        let mut text = Vec::new();
        let read = std::io::stdin().take(MAX_INPUT as u64 + 1).read_to_end(&mut text);
        read.map_err(|source| Failure::File { what: "standard input", source })?;
        if text.len() > MAX_INPUT {
            return Err(Failure::Parse(format!("more than {MAX_INPUT} bytes on standard input")));
        }
        let text = String::from_utf8(text).map_err(|_| Failure::Parse("standard input is not UTF-8".into()))?;
        return Input::from_lines(agent, &text);
    }
    let args: Result<Vec<String>, OsString> = args.into_iter().map(OsString::into_string).collect();
    Input::from_args(agent, &args.map_err(|_| Failure::Parse("an option is not UTF-8".into()))?)
}

async fn act(agent: &Agent, input: &Input, began: Instant, log: &mut Log) -> Result<Done, Failure> {
    if input.flag("help") {
        return Ok(Done::with(metadata::usage(agent)));
    }
    if input.flag("version") {
        return Ok(Done::with(format!("ringfence {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let action = Action::of(input)?;
    match action {
        Action::Metadata => return Ok(Done::with(metadata::xml(agent))),
        Action::Manpage => return Ok(Done::with(metadata::manpage(agent))),
        Action::Diag => {
            let reason = "nothing shows whether an NMI was delivered";
            return Err(Failure::Unsupported { action: "diag", reason });
        }
        Action::On
        | Action::Off
        | Action::Reboot
        | Action::Status
        | Action::Monitor
        | Action::List
        | Action::Validate => {}
    }
    settings::check(agent, input)?;
    let under_pacemaker = env::var_os("PCMK_service").is_some_and(|service| service == "pacemaker-fenced");
    let times = settings::times(input, under_pacemaker)?;
    let delay = settings::delay(input)?;
    let given = input.get("password").map(SecretString::from);
    let password = match (given, input.get("password_script")) {
        (Some(password), _) => password,
        // Also checking a script would be running it.
        (None, Some(script)) if action != Action::Validate => {
            script::password(script, Instant::now() + times.call).await?
        }
        (None, _) => SecretString::default(),
    };
    let ca_bundle = env::var("REQUESTS_CA_BUNDLE").ok().filter(|path| !path.is_empty());
    let device = Device::new(agent, input, password, ca_bundle.as_deref())?;
    if action == Action::Reboot && input.get("method").is_some_and(|method| method.eq_ignore_ascii_case("cycle")) {
        log.warn("method=cycle is carried out as off, verified, then on");
    }
    let mut operator = Operator { switch: &device, times, log };
    let said = match action {
        Action::Off | Action::Reboot => {
            sleep_until(began + delay).await;
            if action == Action::Off { operator.off().await? } else { operator.reboot().await? }
        }
        Action::On => operator.on().await?,
        Action::Status => {
            return Ok(match operator.status().await? {
                PowerState::On | PowerState::Other(_) => Done::with("Status: ON\n"),
                PowerState::Off => Done { output: "Status: OFF\n".into(), code: 2 },
            });
        }
        Action::Monitor => return operator.status().await.map(|_| Done::with("")),
        Action::List => {
            operator.log.warn("there is one machine behind this device: nothing to list");
            return operator.status().await.map(|_| Done::with(""));
        }
        Action::Validate | Action::Metadata | Action::Manpage | Action::Diag => return Ok(Done::with("")),
    };
    Ok(Done::with(format!("{said}\n")))
}

//! The laws of [`Isolator`] (see its documentation), held against every isolator and every fault, over real sockets.

use std::sync::Arc;
use std::time::Duration;

use agents::{Command, SystemUuid};
use anyhow::{Context, Result, ensure};
use ringfence::isolate::{Device, Isolator, Sight, State, build};
use secrecy::ExposeSecret;
use testbed::bmc::redfish::{Face, Fault};
use testbed::machine::Machine;
use testbed::wait;
use tokio::time::{Instant, timeout};

/// A deadline that a BMC in order keeps with ease, on a loaded machine.
const CALL: Duration = Duration::from_millis(1500);
/// What a call may take beyond its deadline before it has broken the law.
const SLACK: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(20);

/// What a BMC in this state may be believed to say of a machine that is on, and of one that is off.
struct Row {
    name: &'static str,
    faults: Vec<Fault>,
    when_on: &'static [State],
    when_off: &'static [State],
}

fn table() -> Vec<Row> {
    use State::{Isolated, Refused, Running, Unknown};
    let row = |name, faults: &[Fault], when_on, when_off| Row { name, faults: faults.to_vec(), when_on, when_off };
    vec![
        row("honest", &[], &[Running], &[Isolated]),
        row("slow", &[Fault::Slow(Duration::from_millis(200))], &[Running], &[Isolated]),
        row("slower than the deadline", &[Fault::Slow(SOON)], &[Unknown], &[Unknown]),
        row("off does nothing", &[Fault::LieOff], &[Running], &[Isolated]),
        // The BMC itself lies: what its word is worth is for `decide` to weigh (I2, P2).
        row("says Off untold", &[Fault::HearsayOff], &[Isolated], &[Isolated]),
        row("says Off untold, OpenBMC", &[Fault::OpenBmc, Fault::HearsayOff], &[Running], &[Isolated]),
        row("drops connections", &[Fault::Drop], &[Unknown], &[Unknown]),
        row("hangs", &[Fault::Hang], &[Unknown], &[Unknown]),
        row("dead", &[Fault::Dead], &[Unknown], &[Unknown]),
        row("dies with the machine", &[Fault::DiesWithNode], &[Running], &[Unknown]),
        row("loses answers", &[Fault::LoseAnswer], &[Running], &[Isolated]),
        row("refuses", &[Fault::Refuse { status: 400, times: None }], &[Running], &[Isolated]),
        row("conflict", &[Fault::Conflict], &[Running], &[Isolated]),
        row("401", &[Fault::Unauthorized], &[Refused], &[Refused]),
        row("503", &[Fault::Unavailable { retry_after: Some(SOON) }], &[Unknown], &[Unknown]),
        row("500", &[Fault::Fails(500)], &[Unknown], &[Unknown]),
        row("takes its time", &[Fault::PoweringOff(Duration::from_millis(300))], &[Running], &[Isolated]),
        row("late", &[Fault::Late(Duration::from_millis(300))], &[Running], &[Isolated]),
        row("no identity", &[Fault::NoIdentity], &[Running], &[Isolated]),
        row("no reset", &[Fault::NoReset], &[Running], &[Isolated]),
        row("no power state", &[Fault::NoPowerState], &[Unknown], &[Unknown]),
        row("redirects", &[Fault::Redirect(307)], &[Running], &[Isolated]),
        row("redirects elsewhere", &[Fault::RedirectElsewhere], &[Refused], &[Refused]),
        row("garbage", &[Fault::Garbage], &[Unknown], &[Unknown]),
        row("huge", &[Fault::Huge], &[Unknown], &[Unknown]),
    ]
}

/// A machine, its BMC, and the isolator under test. A new isolator gets a bench of its own beside this one.
struct Bench {
    machine: Arc<Machine>,
    face: Face,
    isolator: Box<dyn Isolator>,
}

impl Bench {
    async fn redfish(faults: Vec<Fault>) -> Result<Self> {
        let machine = Machine::new("node-1");
        let face = Face::start(std::slice::from_ref(&machine)).await?;
        face.set_faults(&machine, faults);
        let config = face.client_config(&machine);
        let isolator = build(Device {
            agent: "fence_redfish",
            address: config.base.as_str(),
            plug: config.systems_uri.as_deref(),
            expect: SystemUuid::parse(&machine.uuid().to_string()),
            credentials: config.credentials,
            tls: config.tls,
        })?;
        Ok(Self { machine, face, isolator })
    }

    /// Looks, and holds what came to the laws of a look.
    async fn look(&self) -> Result<Sight> {
        let (power, commands) = (self.machine.history(), self.face.commands(&self.machine));
        let start = Instant::now();
        let sight = self.isolator.look(start + CALL).await;
        ensure!(start.elapsed() < CALL + SLACK, "a look took {:?}", start.elapsed());
        ensure!(
            power == self.machine.history() && commands == self.face.commands(&self.machine),
            "a look changed something"
        );
        self.keeps_its_secret(&format!("{sight:?}"))?;
        Ok(sight)
    }

    async fn command(&self, command: Command) -> Result<bool> {
        let start = Instant::now();
        let by = start + CALL;
        let answer = match command {
            Command::Off => self.isolator.isolate(by).await,
            Command::On => self.isolator.restore(by).await,
        };
        ensure!(start.elapsed() < CALL + SLACK, "a command took {:?}", start.elapsed());
        if let Err(error) = &answer {
            self.keeps_its_secret(&format!("{error:?} {error}"))?;
        }
        Ok(answer.is_ok())
    }

    fn keeps_its_secret(&self, text: &str) -> Result<()> {
        ensure!(!text.contains(self.face.password().expose_secret()), "a secret in {text}");
        Ok(())
    }
}

/// `look` changes nothing, ends by its deadline, and says Isolated only on positive evidence.
#[tokio::test]
async fn a_look_testifies_and_changes_nothing() -> Result<()> {
    for Row { name, faults, when_on, when_off } in table() {
        let bench = Bench::redfish(faults).await?;
        for (on, allowed) in [(true, when_on), (false, when_off)] {
            bench.machine.set_power(on, "test");
            let sight = bench.look().await.context(name)?;
            ensure!(allowed.contains(&sight.state), "{name}, machine on: {on}: {sight:?}");
            ensure!(sight.label.is_some() == sight.source.is_none(), "{name}: {sight:?}");
        }
    }
    Ok(())
}

/// Commands are idempotent, end by their deadline, and never cycle the machine: whatever the fault, two offs leave a
/// machine that changed at most once, and so do two ons.
#[tokio::test]
async fn a_command_sent_twice_acts_once() -> Result<()> {
    for Row { name, faults, .. } in table() {
        let bench = Bench::redfish(faults).await?;
        for command in [Command::Off, Command::Off, Command::On, Command::On] {
            bench.command(command).await.context(name)?;
        }
        let changes: Vec<_> = bench.machine.history().iter().map(|change| change.on).collect();
        ensure!([&[][..], &[false], &[false, true]].contains(&changes.as_slice()), "{name}: {changes:?}");
    }
    Ok(())
}

/// An honest BMC does what it is told, and that is seen.
#[tokio::test]
async fn an_honest_device_obeys() -> Result<()> {
    let bench = Bench::redfish(vec![]).await?;
    for (command, on) in [(Command::Off, false), (Command::On, true)] {
        ensure!(bench.command(command).await?, "{command:?}");
        ensure!(bench.machine.state().on == on);
        let seen = bench.look().await?.state;
        ensure!(seen == if on { State::Running } else { State::Isolated }, "{command:?}: {seen:?}");
    }
    Ok(())
}

/// P2: a command is not sent to a device that says it is another machine's.
#[tokio::test]
async fn another_machine_gets_no_command() -> Result<()> {
    let bench = Bench::redfish(vec![Fault::WrongIdentity(uuid::Uuid::new_v4())]).await?;
    for command in [Command::Off, Command::On] {
        ensure!(!bench.command(command).await?, "{command:?} was accepted");
    }
    ensure!(bench.face.commands(&bench.machine).is_empty());
    let sight = bench.look().await?;
    ensure!(sight.system_uuid.is_some(), "whose machine it is must be said: {sight:?}");
    Ok(())
}

/// Dropping a future leaves no connection behind, and nothing more is sent.
#[tokio::test]
async fn a_dropped_future_leaves_nothing_behind() -> Result<()> {
    for command in [None, Some(Command::Off), Some(Command::On)] {
        let bench = Bench::redfish(vec![Fault::Hang]).await?;
        let by = Instant::now() + SOON;
        let call: std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> = match command {
            None => Box::pin(async { drop(bench.isolator.look(by).await) }),
            Some(Command::Off) => Box::pin(async { drop(bench.isolator.isolate(by).await) }),
            Some(Command::On) => Box::pin(async { drop(bench.isolator.restore(by).await) }),
        };
        let arrived = wait::until("the request to arrive", SOON, || async {
            Ok((!bench.face.requests().is_empty()).then_some(()))
        });
        tokio::select! {
            () = call => anyhow::bail!("{command:?} ended against a BMC that hangs"),
            arrived = arrived => arrived?,
        }
        timeout(SOON, bench.face.wait_idle(SOON)).await??;
        ensure!(bench.face.commands(&bench.machine).is_empty(), "{command:?} was sent after its drop");
        ensure!(bench.face.requests().len() == 1, "{command:?}: {:?}", bench.face.requests());
    }
    Ok(())
}

/// An agent that nobody serves is refused by name.
#[test]
fn an_unknown_agent_is_refused() {
    let device = Device {
        agent: "fence_unheard_of",
        address: "https://127.0.0.1",
        plug: None,
        expect: None,
        credentials: agents::Credentials { username: "u".into(), password: "p".to_owned().into() },
        tls: agents::Tls::Roots,
    };
    let error = build(device).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("fence_unheard_of"), "{error}");
}

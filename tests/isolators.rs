//! The laws of [`Isolator`] (see its documentation), held against every isolator and every fault, over real sockets and
//! processes.

#[path = "isolators/bench.rs"]
mod bench;

use std::path::Path;

use agents::{Access, Command};
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use ringfence::isolate::{Device, Scripts, State, build};
use testbed::bmc::ipmi::Fault as IpmiFault;
use testbed::bmc::outlets::Misbehaviour;
use testbed::bmc::redfish::Fault;
use testbed::wait;
use tokio::time::{Instant, timeout};

use bench::{Bench, Row, SOON, table};

/// Rows at a time: they mostly wait.
const AT_ONCE: usize = 4;

/// `look` changes nothing, ends by its deadline, and says Isolated only on positive evidence.
#[tokio::test]
async fn a_look_testifies_and_changes_nothing() -> Result<()> {
    let rows = stream::iter(table()).map(anyhow::Ok);
    rows.try_for_each_concurrent(AT_ONCE, async |row| {
        let Row { name, when_on, when_off, .. } = row;
        let bench = Bench::new(&row).await?;
        for (on, allowed) in [(true, when_on), (false, when_off)] {
            bench.machine.set_power(on, "test");
            let sight = bench.look().await.context(name)?;
            ensure!(allowed.contains(&sight.state), "{name}, machine on: {on}: {sight:?}");
            ensure!(sight.label.is_some() == sight.source.is_none(), "{name}: {sight:?}");
        }
        Ok(())
    })
    .await
}

/// Commands are idempotent, end by their deadline, and never cycle the machine: whatever the fault, two offs leave a
/// machine that changed at most once, and so do two ons.
#[tokio::test]
async fn a_command_sent_twice_acts_once() -> Result<()> {
    let rows = stream::iter(table()).map(anyhow::Ok);
    rows.try_for_each_concurrent(AT_ONCE, async |row| {
        let (name, bench) = (row.name, Bench::new(&row).await?);
        for command in [Command::Off, Command::Off, Command::On, Command::On] {
            bench.command(command).await.context(name)?;
        }
        bench.leaves_nothing_behind().await.context(name)?;
        let changes: Vec<_> = bench.machine.history().iter().map(|change| change.on).collect();
        ensure!([&[][..], &[false], &[false, true]].contains(&changes.as_slice()), "{name}: {changes:?}");
        Ok(())
    })
    .await
}

/// An honest BMC does what it is told, and that is seen.
#[tokio::test]
async fn an_honest_device_obeys() -> Result<()> {
    for row in table().into_iter().filter(|row| row.is_honest()) {
        let (name, bench) = (row.name, Bench::new(&row).await?);
        for (command, on) in [(Command::Off, false), (Command::On, true)] {
            ensure!(bench.command(command).await?, "{name}: {command:?}");
            ensure!(bench.machine.state().on == on, "{name}: {command:?}");
            let seen = bench.look().await?.state;
            let wanted = if on { row.when_on } else { row.when_off };
            ensure!(wanted == [seen], "{name}: {command:?}: {seen:?}");
        }
    }
    Ok(())
}

/// P2: a command is not sent to a device that says it is another machine's.
#[tokio::test]
async fn another_machine_gets_no_command() -> Result<()> {
    let other = uuid::Uuid::new_v4();
    let redfish = Bench::redfish(vec![Fault::WrongIdentity(other)]).await?;
    let ipmi = Bench::ipmi(Some(IpmiFault::WrongIdentity(other))).await?;
    for bench in [redfish, ipmi] {
        for command in [Command::Off, Command::On] {
            ensure!(!bench.command(command).await?, "{command:?} was accepted");
        }
        ensure!(bench.commands() == 0);
        let sight = bench.look().await?;
        ensure!(sight.system_uuid.is_some(), "whose machine it is must be said: {sight:?}");
        bench.leaves_nothing_behind().await?;
    }
    Ok(())
}

/// Dropping a future leaves no connection and no process behind, and nothing more is sent.
#[tokio::test]
async fn a_dropped_future_leaves_nothing_behind() -> Result<()> {
    for row in table().into_iter().filter(Row::hangs) {
        for command in [None, Some(Command::Off), Some(Command::On)] {
            let (name, bench) = (row.name, Bench::new(&row).await?);
            let by = Instant::now() + SOON;
            let call: std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> = match command {
                None => Box::pin(async { drop(bench.isolator.look(by).await) }),
                Some(Command::Off) => Box::pin(async { drop(bench.isolator.isolate(by).await) }),
                Some(Command::On) => Box::pin(async { drop(bench.isolator.restore(by).await) }),
            };
            let arrived = wait::until("the request to arrive", SOON, || async { Ok(bench.is_hanging().then_some(())) });
            tokio::select! {
                () = call => anyhow::bail!("{name}: {command:?} ended against a device that hangs"),
                arrived = arrived => arrived?,
            }
            let requests = bench.requests();
            timeout(SOON, bench.leaves_nothing_behind()).await?.context(name)?;
            ensure!(bench.commands() == 0, "{name}: {command:?} was sent after its drop");
            ensure!(bench.requests() == requests, "{name}: {command:?}");
        }
    }
    Ok(())
}

/// A script's parameters are on its standard input, and nowhere else that another process could see.
#[tokio::test]
async fn a_scripts_parameters_are_nobody_elses() -> Result<()> {
    let bench = Bench::script(Some(Misbehaviour::Hangs)).await?;
    let seen = wait::until("the script to run", SOON, || async {
        Ok(bench.is_hanging().then(|| bench.seen_by_others()).filter(|seen| !seen.is_empty()))
    });
    let seen = tokio::select! {
        sight = bench.isolator.look(Instant::now() + SOON) => anyhow::bail!("{sight:?}"),
        seen = seen => seen?,
    };
    bench.keeps_its_secret(&seen)?;
    ensure!(!seen.contains("127.0.0.1") && !seen.contains("HOME="), "{seen}");
    Ok(())
}

/// Whatever a script is pointed at that is not there, it is not isolated, also where its device says Off (16).
#[tokio::test]
async fn no_such_plug_is_not_isolated() -> Result<()> {
    let lies = Some(Misbehaviour::AnyPlugIsOff);
    for (plug, misbehaviour, want) in [
        (Some("nobody"), None, State::Unknown),
        (Some(""), None, State::Unknown),
        (Some("plug=%00"), None, State::Unknown),
        (None, None, State::Unknown),
        (Some("nobody"), lies, State::Off),
    ] {
        let bench = Bench::script_at(plug, misbehaviour).await?;
        let seen = bench.as_ref().map(Bench::look);
        let (state, identity) = match seen {
            Ok(look) => look.await.map(|sight| (sight.state, sight.system_uuid))?,
            // It could not even be told.
            Err(_) => (State::Unknown, None),
        };
        ensure!(state == want && identity.is_none(), "{plug:?}: {state:?}");
    }
    Ok(())
}

/// An agent that nobody serves is refused by name.
#[test]
fn an_unknown_agent_is_refused() {
    for agent in ["fence_", "../fence_stub", "reboot"] {
        let access = Access::Script(agents::Parameters::default());
        let device = Device { agent, address: "", plug: None, expect: None, access };
        let error = build(device, &Scripts::new(Path::new("/usr/sbin"), false)).err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(agent), "{error}");
    }
}

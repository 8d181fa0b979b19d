//! A PDU as a fence agent sees it, and what each fault of an outlet does to machine and agent.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use secrecy::ExposeSecret as _;
use testbed::bmc::outlets::{Load, OutletFault, Outlets, PDU_AGENT};
use testbed::machine::Machine;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Python starts in a tenth of a second; this is for a loaded machine.
const SOON: Duration = Duration::from_secs(30);
/// Long enough for an agent that answers, if it takes so long on a loaded machine.
const WHILE: Duration = Duration::from_secs(3);

/// Exit codes of the fence agent API.
const DONE: i32 = 0;
const FAILED: i32 = 1;
const OFF: i32 = 2;

async fn run(pdu: &Outlets, plug: &str, action: &str) -> Result<i32> {
    let mut agent = Command::new(pdu.agent_dir().join(PDU_AGENT))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let input = format!(
        "ip=127.0.0.1\nipport={}\nusername={}\npassword={}\nplug={plug}\naction={action}\n",
        pdu.address().port(),
        pdu.username(),
        pdu.password().expose_secret(),
    );
    agent.stdin.take().context("no pipe")?.write_all(input.as_bytes()).await?;
    agent.wait().await?.code().context("killed")
}

#[tokio::test]
async fn a_machine_is_off_when_both_its_outlets_are() -> Result<()> {
    let machine = Machine::with_feeds("m", 2);
    let (a, b) = (Outlets::pdu(&[("1", &machine, 0)]).await?, Outlets::pdu(&[("7", &machine, 1)]).await?);
    ensure!(a.address() != b.address());
    ensure!(run(&a, "1", "off").await? == DONE && run(&a, "1", "status").await? == OFF);
    ensure!(machine.state().on && run(&b, "7", "status").await? == DONE);
    ensure!(run(&b, "7", "off").await? == DONE && !machine.state().on);
    ensure!(run(&b, "1", "off").await? == FAILED, "no such outlet");
    ensure!(run(&a, "1", "on").await? == DONE && machine.state().on);
    let by: Vec<_> = machine.history().into_iter().map(|change| change.by).collect();
    ensure!(by == ["feed B", "feed A"], "{by:?}");
    let asked: Vec<_> = b.asked().into_iter().map(|asked| (asked.verb, asked.plug)).collect();
    let runs = [("status", "7"), ("off", "7"), ("off", "1")];
    let want: Vec<_> = runs.into_iter().flat_map(|(verb, plug)| [("how", plug), (verb, plug)]).collect();
    ensure!(asked.iter().map(|(verb, plug)| (verb.as_str(), plug.as_str())).eq(want), "{asked:?}");
    Ok(())
}

#[tokio::test]
async fn an_outlet_can_be_wrong_in_many_ways() -> Result<()> {
    for (fault, off, status) in [
        (None, DONE, OFF),
        (Some(OutletFault::Stuck), DONE, DONE),
        (Some(OutletFault::Refuses), FAILED, DONE),
        (Some(OutletFault::SaysOff), DONE, OFF),
    ] {
        let machine = Machine::with_feeds("m", 2);
        let pdu = Outlets::pdu(&[("1", &machine, 0), ("2", &machine, 1)]).await?;
        pdu.set_outlet_fault("1", fault);
        ensure!(run(&pdu, "1", "off").await? == off, "{fault:?}");
        ensure!(run(&pdu, "1", "status").await? == status, "{fault:?}");
        ensure!(machine.feed(0) == fault.is_some(), "{fault:?}");
        ensure!(run(&pdu, "2", "off").await? == DONE && !machine.feed(1), "{fault:?}: the other outlet is well");
        ensure!(machine.state().on == fault.is_some(), "{fault:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_outlet_that_hangs_is_never_done_with() -> Result<()> {
    let machine = Machine::new("m");
    let pdu = Outlets::pdu(&[("1", &machine, 0)]).await?;
    pdu.set_outlet_fault("1", Some(OutletFault::Hangs));
    for action in ["status", "off"] {
        let before = pdu.asked().len();
        let run = tokio::time::timeout(WHILE, run(&pdu, "1", action)).await;
        ensure!(run.is_err(), "{action}: {run:?}");
        testbed::wait::until("the outlet to be asked", SOON, || async {
            Ok((pdu.asked().len() > before).then_some(()))
        })
        .await?;
    }
    ensure!(machine.state().on);
    pdu.set_outlet_fault("1", None);
    ensure!(run(&pdu, "1", "off").await? == DONE && !machine.state().on);
    Ok(())
}

#[tokio::test]
async fn a_cable_in_the_wrong_outlet_takes_another_machine_down() -> Result<()> {
    let [ours, theirs] = ["ours", "theirs"].map(|name| Machine::with_feeds(name, 2));
    let pdu = Outlets::pdu(&[("1", &ours, 0)]).await?;
    pdu.plug_in("1", Load::Feed(theirs.clone(), 1));
    ensure!(run(&pdu, "1", "off").await? == DONE && run(&pdu, "1", "status").await? == OFF);
    ensure!(ours.feed(0) && ours.feed(1) && theirs.feed(0) && !theirs.feed(1));
    Ok(())
}

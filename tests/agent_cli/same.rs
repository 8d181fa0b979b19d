//! The same operations through both, each on a machine of its own: the same state in the end, the same exit code, and
//! the same line on standard output.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use testbed::bmc::redfish::Fault;

use crate::bench::{Agents, BOTH, Bmc, Ran, Whose};

/// A pair of agents is mostly Python, which takes a core each.
const AT_ONCE: usize = 3;

struct Case {
    name: String,
    on: bool,
    faults: Vec<Fault>,
    /// Lines after those with address and account.
    lines: String,
    code: i32,
}

fn case(name: &str, on: bool, faults: &[Fault], lines: &str, code: i32) -> Case {
    Case { name: name.to_owned(), on, faults: faults.to_vec(), lines: lines.to_owned(), code }
}

/// What one agent made of one case.
async fn one(agents: &Agents, whose: Whose, case: &Case) -> Result<(Ran, bool)> {
    let bmc = Bmc::new(case.on, &case.faults).await?;
    let uri = bmc.face.systems_uri(&bmc.machine);
    let lines = format!("{}{}", bmc.lines(), case.lines).replace("SYSTEM", &uri);
    let ran = agents.stdin(whose, "fence_redfish", &lines, Some(&bmc.ca())).await?;
    ensure!(!format!("{}{}", ran.out, ran.err).contains(bmc.password()), "{}: the password is shown", case.name);
    Ok((ran, bmc.is_on()))
}

async fn compare(cases: Vec<Case>) -> Result<()> {
    let agents = &Agents::new()?;
    let compared = stream::iter(cases).map(|case| async move {
        let (ours, theirs) = try_join(one(agents, Whose::Ours, &case), one(agents, Whose::Theirs, &case)).await?;
        let seen = |(ran, on): &(Ran, bool)| (ran.code, *on, ran.out.trim().to_owned());
        ensure!(
            seen(&ours) == seen(&theirs) && ours.0.code == Some(case.code),
            "{}: expected {}\nours: {ours:?}\ntheirs: {theirs:?}",
            case.name,
            case.code
        );
        anyhow::Ok(())
    });
    compared.buffer_unordered(AT_ONCE).try_collect::<()>().await
}

#[tokio::test]
async fn every_action_on_a_machine_that_is_on_and_one_that_is_off() -> Result<()> {
    let mut cases = Vec::new();
    for on in [true, false] {
        for (action, code) in [
            ("on", 0),
            ("off", 0),
            ("reboot", 0),
            ("status", if on { 0 } else { 2 }),
            ("monitor", 0),
            ("validate-all", 0),
        ] {
            let name = format!("{action}, on: {on}");
            cases.push(case(&name, on, &[], &format!("action={action}\n"), code));
        }
        let chosen = "action=off\nsystems_uri=SYSTEM\nport=node-1\nnodename=node-1\n";
        cases.push(case(&format!("off with a URI, on: {on}"), on, &[], chosen, 0));
    }
    compare(cases).await
}

#[tokio::test]
async fn a_bmc_in_trouble() -> Result<()> {
    let short = "action=off\npower_timeout=2\n";
    let second = Duration::from_secs(1);
    compare(vec![
        case("off does nothing", true, &[Fault::LieOff], short, 1),
        case("off is late", true, &[Fault::Late(second)], "action=off\n", 0),
        case("off takes its time", true, &[Fault::PoweringOff(second)], "action=off\n", 0),
        case("slow", true, &[Fault::Slow(second / 2)], "action=off\n", 0),
        case("off is refused", true, &[Fault::Refuse { status: 400, times: None }], short, 1),
        case("off is not offered for this account", true, &[Fault::Refuse { status: 403, times: None }], short, 1),
        case("conflict", true, &[Fault::Conflict], short, 1),
        case("500", true, &[Fault::Fails(500)], short, 1),
        case("503", true, &[Fault::Unavailable { retry_after: None }], "action=status\n", 1),
        case("no state", true, &[Fault::NoPowerState], "action=status\n", 1),
        case("garbage", true, &[Fault::Garbage], "action=monitor\n", 1),
        case("no reset", true, &[Fault::NoReset], short, 1),
        case("drops", true, &[Fault::Drop], short, 1),
        case("redirects", true, &[Fault::Redirect(308)], "action=reboot\n", 0),
        case("wrong password", true, &[], "action=status\npasswd=wrong\n", 1),
        case("wrong password, off", true, &[], "action=off\npower_timeout=2\npasswd=wrong\n", 1),
        case("already off, and refuses", false, &[Fault::AlreadyOffRefusal], "action=off\n", 0),
        case("power comes back", true, &[Fault::PowerOwner(second * 30)], "action=off\npower_wait=1\n", 0),
    ])
    .await
}

#[tokio::test]
async fn lines_that_do_not_fit() -> Result<()> {
    compare(vec![
        case("unknown key", true, &[], "action=status\nwat=1\n", 0),
        case("no value", true, &[], "action=status\nverbose\n", 0),
        case("bad flag", true, &[], "action=status\nssl=perhaps\n", 0),
        case("quotes", true, &[], "action=\"status\"\n", 0),
        case("the last counts", true, &[], "action=off\naction=status\n", 0),
        case("unknown action", true, &[], "action=cycle\n", 1),
        case("bad number", true, &[], "action=status\ndelay=x\n", 1),
        case("a CA of the environment", true, &[], "action=status\nssl_secure=1\n", 0),
        case("old names", true, &[], "action=status\nredfish-uri=/redfish/v1\nsystems-uri=SYSTEM\n", 0),
        case("alias of the address", true, &[], "action=status\nip=192.0.2.1\nport_as_ip=1\nport=127.0.0.1\n", 0),
        case("a script for the password", true, &[], "action=validate-all\npasswd_script=true\n", 0),
    ])
    .await
}

#[tokio::test]
async fn command_lines() -> Result<()> {
    let agents = Agents::new()?;
    let bmc = Bmc::new(true, &[]).await?;
    let (port, user, password, ca) = (bmc.face.port().to_string(), bmc.face.username(), bmc.password(), bmc.ca());
    let address = format!("127.0.0.1:{port}");
    let long = [format!("--ipport={port}"), format!("--username={user}"), format!("--password={password}")];
    let long: Vec<&str> = long.iter().map(String::as_str).chain(["--ip=127.0.0.1"]).collect();
    let also = |more: &[&'static str]| [long.as_slice(), more].concat();
    for (args, code) in [
        (vec!["-a", "127.0.0.1", "-u", &port, "-l", user, "-p", password, "-o", "status"], 0),
        (vec!["-a", &address, "-l", user, "-p", password, "-ostatus"], 0),
        (also(&["--action", "status"]), 0),
        (also(&["--action=off", "--act=status"]), 0),
        (also(&["--action=monitor", "--ssl-secure", "-z"]), 0),
        (also(&["--action=validate-all", "a", "word"]), 0),
        (also(&["--action=status", "--plug=3"]), 1),
        (also(&["--action=status", "--port-as-ip", "--plug=127.0.0.1"]), 0),
        (also(&["--action=status", "--ssl-insecure=1"]), 1),
        (also(&["--action=status", "--wat"]), 1),
        (also(&["--action=status", "--nodename=x"]), 1),
        (also(&["--action=status", "--ssl"]), 0),
        (also(&["--action=status", "--pass"]), 1),
        (also(&["--action=list"]), 0),
        (also(&["--action=list-status"]), 0),
        (also(&["--action=enable"]), 1),
        (also(&["--action"]), 1),
        (vec!["--action=validate-all", "--ip=h", "--username=u"], 1),
        (vec!["--action=validate-all", "--ip=h", "--password=p"], 1),
        (vec!["--action=validate-all", "--username=u", "--password=p"], 1),
        (vec!["--action=validate-all", "--ip=h", "--username=u", "--password=p", "--ipport=x"], 1),
        (vec!["--action=validate-all", "--ip=h", "--username=u", "--password-script=false"], 0),
        (vec!["--action=status", "--ip=127.0.0.1:1", "--username=u", "--password=p"], 1),
    ] {
        for whose in BOTH {
            let ran = agents.argv(whose, "fence_redfish", &args, Some(&ca)).await?;
            assert_eq!(ran.code, Some(code), "{whose:?} {args:?}\n{ran:?}");
        }
    }
    assert!(bmc.is_on());
    Ok(())
}

#[tokio::test]
async fn nothing_at_all_is_no_reboot() -> Result<()> {
    let agents = Agents::new()?;
    for whose in BOTH {
        for agent in ["fence_redfish", "fence_ipmilan"] {
            assert_eq!(agents.stdin(whose, agent, "", None).await?.code, Some(1), "{whose:?} {agent}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_delay_comes_before_off_and_not_before_status() -> Result<()> {
    let agents = Agents::new()?;
    for whose in BOTH {
        let bmc = Bmc::new(true, &[]).await?;
        let lines = format!("{}delay=3\n", bmc.lines());
        let began = jiff::Timestamp::now();
        let ran = agents.stdin(whose, "fence_redfish", &format!("{lines}action=off"), Some(&bmc.ca())).await?;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let sent = bmc.face.commands(&bmc.machine)[0].0;
        assert!(sent.duration_since(began).as_secs() >= 3, "{whose:?}: sent after {:?}", sent.duration_since(began));
    }
    let bmc = Bmc::new(true, &[]).await?;
    let lines = format!("{}delay=60\naction=status\n", bmc.lines());
    let ran = agents.stdin(Whose::Ours, "fence_redfish", &lines, Some(&bmc.ca())).await?;
    assert!(ran.code == Some(0) && ran.took < Duration::from_secs(60), "{ran:?}");
    Ok(())
}

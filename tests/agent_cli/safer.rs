//! Where ours differs from upstream's scripts, and why that is safer (docs/decisions/0005). Each test shows both.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use testbed::bmc::redfish::{Certificate, Face, Fault, What};
use testbed::machine::Machine;
use testbed::wait;

use crate::bench::{Agents, BOTH, Bmc, SOON, Whose, finish};

/// How often it had to be switched off.
fn offs(bmc: &Bmc) -> usize {
    bmc.face.count(&bmc.machine, What::Reset(agents::Command::Off))
}

#[tokio::test]
async fn a_flag_set_to_no_is_no() -> Result<()> {
    let agents = Agents::new()?;
    // An untrusted certificate: upstream takes ssl_insecure=0 for "insecure", and sends the password.
    for (whose, code) in [(Whose::Ours, 1), (Whose::Theirs, 0)] {
        let bmc = Bmc::with(Certificate::ForeignAuthority, true, &[]).await?;
        let lines = format!("{}action=status\nssl_insecure=0\n", bmc.lines());
        let ran = agents.stdin(whose, "fence_redfish", &lines, Some(&bmc.ca())).await?;
        assert_eq!(ran.code, Some(code), "{whose:?}: {ran:?}");
        assert_eq!(bmc.face.requests().is_empty(), whose == Whose::Ours);
    }
    // help=0 and version=0 end upstream's with 0: "fenced".
    for (lines, fenced) in [("help=0", true), ("version=no", true), ("help=1", false)] {
        for whose in BOTH {
            let bmc = Bmc::new(true, &[]).await?;
            let lines = format!("{}action=off\n{lines}\n", bmc.lines());
            let ran = agents.stdin(whose, "fence_redfish", &lines, Some(&bmc.ca())).await?;
            let expected = match whose {
                Whose::Ours => (Some(if fenced { 0 } else { 1 }), !fenced),
                Whose::Theirs => (Some(0), true),
            };
            assert_eq!((ran.code, bmc.is_on()), expected, "{whose:?} {lines:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_was_meant_as_an_action_is_no_reboot() -> Result<()> {
    let agents = Agents::new()?;
    for line in ["option=status", "ACTION=status", "action = status"] {
        for (whose, code, offs_sent) in [(Whose::Ours, 1, 0), (Whose::Theirs, 0, 1)] {
            let bmc = Bmc::new(true, &[]).await?;
            let lines = format!("{}{line}\n", bmc.lines());
            let ran = agents.stdin(whose, "fence_redfish", &lines, Some(&bmc.ca())).await?;
            assert_eq!((ran.code, offs(&bmc)), (Some(code), offs_sent), "{whose:?} {line:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn of_several_machines_none_is_guessed() -> Result<()> {
    let agents = Agents::new()?;
    for (whose, code) in [(Whose::Ours, 1), (Whose::Theirs, 0)] {
        let machines = [Machine::new("node-1"), Machine::new("node-2")];
        let bmc = Bmc::new(true, &[]).await?;
        let face = Face::start(&machines).await?;
        std::fs::write(bmc.ca(), face.ca_pem())?;
        let password = secrecy::ExposeSecret::expose_secret(face.password()).to_owned();
        let lines = format!(
            "ip=127.0.0.1\nipport={}\nusername={}\npassword={password}\naction=off\n",
            face.port(),
            face.username()
        );
        let ran = agents.stdin(whose, "fence_redfish", &lines, Some(&bmc.ca())).await?;
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert_eq!(machines.iter().all(|machine| machine.state().on), whose == Whose::Ours);
        assert_eq!(ran.err.contains("several systems"), whose == Whose::Ours, "{ran:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_bmc_that_never_answers_is_left() -> Result<()> {
    // Upstream's has no time-out at all: it hangs until somebody kills it.
    let agents = Agents::new()?;
    for fault in [Fault::Hang, Fault::Dead] {
        let bmc = Bmc::new(true, &[fault]).await?;
        let times = "power_timeout=1\nlogin_timeout=1\nshell_timeout=1\n";
        let lines = format!("{}action=off\n{times}", bmc.lines());
        let ran = agents.stdin(Whose::Ours, "fence_redfish", &lines, Some(&bmc.ca())).await?;
        assert_eq!(ran.code, Some(1));
        assert!(ran.took < SOON, "{:?}", ran.took);
        assert!(ran.err.contains("timed out"), "{}", ran.err);
        assert_eq!(offs(&bmc), 0);
        bmc.face.wait_idle(SOON).await?;
    }
    Ok(())
}

/// Runs an action; as soon as the command has arrived the BMC answers everything with 503, until it was asked twice more
/// or the agent has given up.
async fn stumbling(
    agents: &Agents,
    whose: Whose,
    action: &str,
    command: agents::Command,
) -> Result<(Option<i32>, bool)> {
    let bmc = Bmc::new(true, &[]).await?;
    let uri = bmc.face.systems_uri(&bmc.machine);
    let lines = format!("{}action={action}\nsystems_uri={uri}\npower_timeout=5\n", bmc.lines());
    bmc.face.hold(&bmc.machine, What::Reset(command));
    let ca = bmc.ca();
    let ran = agents.stdin(whose, "fence_redfish", &lines, Some(&ca));
    let trouble = async {
        bmc.face.wait_for(&bmc.machine, What::Reset(command), 1, SOON).await?;
        let seen = bmc.face.count(&bmc.machine, What::System);
        bmc.face.set_fault(&bmc.machine, Some(Fault::Unavailable { retry_after: None }));
        bmc.face.release(&bmc.machine);
        // It fails when the agent has given up after the first.
        let _ = bmc.face.wait_for(&bmc.machine, What::System, seen + 2, Duration::from_secs(4)).await;
        bmc.face.set_fault(&bmc.machine, None);
        anyhow::Ok(())
    };
    let (ran, trouble) = tokio::join!(ran, trouble);
    trouble?;
    Ok((ran?.code, bmc.is_on()))
}

#[tokio::test]
async fn a_bmc_that_stumbles_after_a_command_is_asked_again() -> Result<()> {
    let agents = Agents::new()?;
    let off = agents::Command::Off;
    assert_eq!(stumbling(&agents, Whose::Ours, "off", off).await?, (Some(0), false));
    assert_eq!(stumbling(&agents, Whose::Theirs, "off", off).await?, (Some(1), false));
    Ok(())
}

#[tokio::test]
async fn a_reboot_that_was_off_has_fenced() -> Result<()> {
    // Upstream's says 1 when the BMC stumbles in the second half: a cluster then fences a fenced node once more.
    let agents = Agents::new()?;
    let on = agents::Command::On;
    assert_eq!(stumbling(&agents, Whose::Ours, "reboot", on).await?, (Some(0), true));
    assert_eq!(stumbling(&agents, Whose::Theirs, "reboot", on).await?, (Some(1), true));
    Ok(())
}

#[tokio::test]
async fn a_redirected_command_arrives() -> Result<()> {
    let agents = Agents::new()?;
    for (whose, code) in [(Whose::Ours, 0), (Whose::Theirs, 1)] {
        let bmc = Bmc::new(true, &[Fault::Redirect(301)]).await?;
        let lines = format!("{}action=off\npower_timeout=2\n", bmc.lines());
        let ran = agents.stdin(whose, "fence_redfish", &lines, Some(&bmc.ca())).await?;
        assert_eq!((ran.code, bmc.is_on()), (Some(code), code == 1), "{whose:?}: {ran:?}");
    }
    Ok(())
}

#[tokio::test]
async fn off_is_sent_to_a_machine_that_says_off_untold() -> Result<()> {
    let agents = Agents::new()?;
    for (whose, still_on) in [(Whose::Ours, false), (Whose::Theirs, true)] {
        let bmc = Bmc::new(true, &[Fault::HearsayOff]).await?;
        let lines = format!("{}action=off\n", bmc.lines());
        let ran = agents.stdin(whose, "fence_redfish", &lines, Some(&bmc.ca())).await?;
        assert_eq!((ran.code, ran.out.trim()), (Some(0), "Success: Already OFF"), "{whose:?}: {ran:?}");
        assert_eq!(bmc.is_on(), still_on, "{whose:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_command_is_told_at_once_in_the_bmcs_words() -> Result<()> {
    let agents = Agents::new()?;
    let bmc = Bmc::new(true, &[Fault::Refuse { status: 400, times: None }]).await?;
    let lines = format!("{}action=off\n", bmc.lines());
    let ran = agents.stdin(Whose::Ours, "fence_redfish", &lines, Some(&bmc.ca())).await?;
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("The action is not supported"), "{}", ran.err);
    assert!(!ran.err.to_lowercase().contains("timed out"), "{}", ran.err);
    // One look before it, one after: not the twenty of a wait in vain.
    assert_eq!(bmc.face.count(&bmc.machine, What::Reset(agents::Command::Off)), 1);
    assert!(bmc.face.count(&bmc.machine, What::System) <= 3);
    Ok(())
}

#[tokio::test]
async fn nothing_but_force_off_counts_as_off() -> Result<()> {
    let agents = Agents::new()?;
    let bmc = Bmc::new(true, &[Fault::Offers(&["On", "GracefulShutdown", "PushPowerButton"])]).await?;
    let lines = format!("{}action=off\n", bmc.lines());
    let ran = agents.stdin(Whose::Ours, "fence_redfish", &lines, Some(&bmc.ca())).await?;
    assert_eq!((ran.code, bmc.is_on()), (Some(1), true));
    assert!(ran.err.contains("does not offer reset type ForceOff"), "{}", ran.err);
    Ok(())
}

#[tokio::test]
async fn diag_is_refused_where_upstreams_says_done() -> Result<()> {
    let agents = Agents::new()?;
    for (whose, code) in [(Whose::Ours, 1), (Whose::Theirs, 0)] {
        let bmc = Bmc::new(true, &[Fault::Refuse { status: 501, times: None }]).await?;
        let lines = format!("{}action=diag\n", bmc.lines());
        let ran = agents.stdin(whose, "fence_redfish", &lines, Some(&bmc.ca())).await?;
        assert_eq!(ran.code, Some(code), "{whose:?}: {ran:?}");
        assert_eq!(ran.err.contains("unsupported action"), whose == Whose::Ours);
    }
    Ok(())
}

#[tokio::test]
async fn a_password_script_that_fails_locks_no_account() -> Result<()> {
    let agents = Agents::new()?;
    for whose in BOTH {
        let bmc = Bmc::new(true, &[]).await?;
        let account = format!("ip=127.0.0.1\nipport={}\nlogin={}\n", bmc.face.port(), bmc.face.username());
        let lines = format!("{account}action=status\npasswd_script=exit 1\n");
        let ran = agents.stdin(whose, "fence_redfish", &lines, Some(&bmc.ca())).await?;
        assert_eq!(ran.code, Some(1), "{whose:?}: {ran:?}");
        assert_eq!(bmc.face.requests().is_empty(), whose == Whose::Ours, "{whose:?}");

        let lines = format!("{account}action=status\npassword_script=printf '%s\\n' '{}'\n", bmc.password());
        let ran = agents.stdin(whose, "fence_redfish", &lines, Some(&bmc.ca())).await?;
        assert_eq!(ran.code, Some(0), "{whose:?}: {ran:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_proxy_of_the_environment_gets_nothing() -> Result<()> {
    let agents = Agents::new()?;
    for (whose, code) in [(Whose::Ours, 0), (Whose::Theirs, 1)] {
        let bmc = Bmc::new(true, &[]).await?;
        let mut command = agents.command(whose, "fence_redfish")?;
        command.env("HTTPS_PROXY", "http://127.0.0.1:1").env("REQUESTS_CA_BUNDLE", bmc.ca());
        let ran = finish(command, &format!("{}action=status\n", bmc.lines())).await?;
        assert_eq!(ran.code, Some(code), "{whose:?}: {ran:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_ca_can_be_named() -> Result<()> {
    let agents = Agents::new()?;
    let bmc = Bmc::new(true, &[]).await?;
    let lines = format!("{}action=status\n", bmc.lines());
    let untrusted = agents.stdin(Whose::Ours, "fence_redfish", &lines, None).await?;
    assert_eq!(untrusted.code, Some(1));
    assert!(untrusted.err.contains("is not trusted"), "{}", untrusted.err);
    let lines = format!("{lines}ca_file={}\n", bmc.ca().display());
    assert_eq!(agents.stdin(Whose::Ours, "fence_redfish", &lines, None).await?.code, Some(0));
    Ok(())
}

#[tokio::test]
async fn no_secret_is_shown_anywhere_and_no_process_is_left() -> Result<()> {
    let agents = Agents::new()?;
    let bmc = Bmc::new(true, &[]).await?;
    let debug = agents.path().join("debug.log");
    let lines = format!("{}action=off\nverbose_level=9\ndebug_file={}\n", bmc.lines(), debug.display());
    bmc.face.hold(&bmc.machine, What::Reset(agents::Command::Off));

    let mut command = agents.command(Whose::Ours, "fence_redfish")?;
    command.env("REQUESTS_CA_BUNDLE", bmc.ca());
    let ran = finish(command, &lines);
    let program = agents.path().join("fence_redfish");
    let look = async {
        bmc.face.wait_for(&bmc.machine, What::Reset(agents::Command::Off), 1, SOON).await?;
        let process = own_child(&program).context("the agent runs")?;
        let read =
            |file: &str| std::fs::read(process.join(file)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let seen = [read("cmdline")?, read("environ")?];
        let children = own_children_of(&process);
        bmc.face.release(&bmc.machine);
        anyhow::Ok((seen, children))
    };
    let (ran, looked) = tokio::join!(ran, look);
    let (ran, (seen, children)) = (ran?, looked?);
    assert_eq!((ran.code, children), (Some(0), 0), "{ran:?}");
    let told = std::fs::read_to_string(&debug)?;
    assert!(told.contains("sending OFF") && ran.err.contains("sending OFF"));
    for text in seen.iter().chain([&ran.out, &ran.err, &told]) {
        assert!(!text.contains(bmc.password()), "{text}");
    }
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&debug)?.permissions()) & 0o777, 0o600);

    // Killed in the middle of a call, it leaves no connection.
    bmc.machine.set_power(true, "test");
    bmc.face.hold(&bmc.machine, What::System);
    let before = bmc.face.count(&bmc.machine, What::System);
    let mut command = agents.command(Whose::Ours, "fence_redfish")?;
    command.env("REQUESTS_CA_BUNDLE", bmc.ca());
    let lines = format!("{}action=off\n", bmc.lines());
    let killed = finish(command, &lines);
    tokio::select! {
        ran = killed => panic!("it ended: {ran:?}"),
        seen = bmc.face.wait_for(&bmc.machine, What::System, before + 1, SOON) => seen?,
    }
    bmc.face.release(&bmc.machine);
    bmc.face.wait_idle(SOON).await?;
    wait::until("nothing was sent", SOON, || async { Ok((offs(&bmc) == 1).then_some(())) }).await
}

/// Finds the child of this process that runs this program. (Each test has links of its own.)
fn own_child(program: &Path) -> Option<std::path::PathBuf> {
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    let is_it = |path: &std::path::PathBuf| {
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        parent(path).as_ref() == Some(&own) && line.starts_with(program.as_os_str().as_encoded_bytes())
    };
    entries.map(|entry| entry.path()).find(is_it)
}

fn own_children_of(process: &Path) -> usize {
    let id = process.file_name().map(|name| name.to_string_lossy().into_owned());
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter(|entry| id.is_some() && parent(&entry.path()) == id).count()
}

fn parent(process: &Path) -> Option<String> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1).map(str::to_owned)
}

//! The same operations through both against BMCs that somebody else wrote: sushy-emulator and ipmi_sim.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join;
use secrecy::ExposeSecret as _;
use testbed::bmc::ipmi_sim::{ADMINISTRATOR, Chassis, IpmiSim, OPERATOR, VIEWER};
use testbed::bmc::sushy::Sushy;
use testbed::machine::Machine;
use testbed::scratch::Scratch;
use testbed::{ports, wait};

use crate::bench::{Agents, BOTH, Ran, SOON, Whose};

/// Every action twice, so that each meets a machine that is there already.
const DAY: [(&str, i32, bool); 11] = [
    ("status", 0, true),
    ("monitor", 0, true),
    ("on", 0, true),
    ("off", 0, false),
    ("status", 2, false),
    ("monitor", 0, false),
    ("off", 0, false),
    ("reboot", 0, true),
    ("off", 0, false),
    ("on", 0, true),
    ("reboot", 0, true),
];

/// Waits until a machine has the power that it should have: an emulator's machine follows it.
async fn has_power(machine: &Machine, on: bool) -> Result<()> {
    wait::until("the machine's power", SOON, || async { Ok((machine.state().on == on).then_some(())) }).await
}

#[tokio::test]
async fn a_day_with_sushy_emulator() -> Result<()> {
    let agents = &Agents::new()?;
    let machines = [Machine::new("node-1"), Machine::new("node-2")];
    let sushy = &Sushy::start(&machines).await?;
    let scratch = Scratch::new("agent-cli-sushy")?;
    let ca = &scratch.path().join("ca.pem");
    std::fs::write(ca, sushy.ca_pem())?;
    let one = |whose, machine: Arc<Machine>| async move {
        let mut said = Vec::new();
        for (action, code, on) in DAY {
            let lines = format!(
                "ip={}\nipport={}\nusername={}\npassword={}\nsystems_uri={}\naction={action}\n",
                sushy.address(),
                sushy.port(),
                sushy.username(),
                sushy.password().expose_secret(),
                sushy.systems_uri(&machine)
            );
            let ran = agents.stdin(whose, "fence_redfish", &lines, Some(ca)).await?;
            ensure!(ran.code == Some(code), "{whose:?} {action}: {ran:?}");
            has_power(&machine, on).await.with_context(|| format!("{whose:?} {action}"))?;
            said.push(ran.out.trim().to_owned());
        }
        Ok(said)
    };
    let [ours, theirs] = machines.clone();
    let (ours, theirs) = try_join(one(Whose::Ours, ours), one(Whose::Theirs, theirs)).await?;
    assert_eq!(ours, theirs);
    Ok(())
}

/// A machine behind an ipmi_sim.
struct Sim {
    machine: Arc<Machine>,
    sim: IpmiSim,
}

impl Sim {
    async fn new(kg: Option<&str>) -> Result<Self> {
        let machine = Machine::new("node-1");
        let sim = IpmiSim::start(&machine, kg.map(Into::into)).await?;
        Ok(Self { machine, sim })
    }

    /// Address and account, as lines. Upstream's would wait 14 s for the cipher suites that ipmi_sim doesn't tell.
    fn lines(&self, user: &str) -> String {
        let password = self.sim.password().expose_secret();
        format!("ip=127.0.0.1\nipport={}\nlogin={user}\npasswd={password}\nlanplus=1\ncipher=3\n", self.sim.port())
    }

    async fn run(&self, agents: &Agents, whose: Whose, user: &str, more: &str) -> Result<Ran> {
        let ran = agents.stdin(whose, "fence_ipmilan", &format!("{}{more}", self.lines(user)), None).await?;
        let password = self.sim.password().expose_secret();
        ensure!(!format!("{}{}", ran.out, ran.err).contains(password), "{whose:?}: the password is shown");
        Ok(ran)
    }
}

#[tokio::test]
async fn a_day_with_ipmi_sim() -> Result<()> {
    let agents = &Agents::new()?;
    let one = |whose| async move {
        let sim = Sim::new(None).await?;
        let mut said = Vec::new();
        for (action, code, on) in DAY {
            let more = format!("action={action}\npower_wait=0\nport=node-1\n");
            let ran = sim.run(agents, whose, ADMINISTRATOR, &more).await?;
            ensure!(ran.code == Some(code), "{whose:?} {action}: {ran:?}");
            ensure!(sim.machine.state().on == on, "{whose:?} {action}: on is {}", !on);
            said.push(ran.out.trim().to_owned());
        }
        Ok(said)
    };
    let (ours, theirs) = try_join(one(Whose::Ours), one(Whose::Theirs)).await?;
    assert_eq!(ours, theirs);
    Ok(())
}

#[tokio::test]
async fn an_ipmi_bmc_in_trouble() -> Result<()> {
    let agents = Agents::new()?;
    let off = "action=off\npower_wait=0\npower_timeout=3\n";
    for (name, chassis, user, more, code, on) in [
        ("off does nothing", Chassis::Ignores, ADMINISTRATOR, off, 1, true),
        ("off is refused", Chassis::Refuses, ADMINISTRATOR, off, 1, true),
        ("wrong password", Chassis::Obeys, ADMINISTRATOR, "action=status\npasswd=wrong\n", 1, true),
        ("no password", Chassis::Obeys, ADMINISTRATOR, "action=status\npasswd=\n", 1, true),
        ("unknown user", Chassis::Obeys, "nobody", "action=status\n", 1, true),
        ("a viewer looks", Chassis::Obeys, VIEWER, "action=status\nprivlvl=user\n", 0, true),
        ("a viewer switches", Chassis::Obeys, VIEWER, "action=off\nprivlvl=user\npower_timeout=2\n", 1, true),
        ("an operator switches", Chassis::Obeys, OPERATOR, "action=off\nprivlvl=Operator\n", 0, false),
        ("the default wait", Chassis::Obeys, ADMINISTRATOR, "action=off\n", 0, false),
        ("cycle", Chassis::Obeys, ADMINISTRATOR, "action=reboot\nmethod=cycle\n", 0, true),
        ("auth is of 1.5", Chassis::Obeys, ADMINISTRATOR, "action=status\nauth=md5\n", 0, true),
        ("checked only", Chassis::Obeys, ADMINISTRATOR, "action=validate-all\n", 0, true),
        ("no such method", Chassis::Obeys, ADMINISTRATOR, "action=validate-all\nmethod=wat\n", 1, true),
        ("no such level", Chassis::Obeys, ADMINISTRATOR, "action=validate-all\nprivlvl=wat\n", 1, true),
    ] {
        for whose in BOTH {
            let sim = Sim::new(None).await?;
            sim.sim.behave(chassis);
            let ran = sim.run(&agents, whose, user, more).await?;
            assert_eq!((ran.code, sim.machine.state().on), (Some(code), on), "{whose:?}, {name}: {ran:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn nobody_at_the_port() -> Result<()> {
    let agents = Agents::new()?;
    let lines = format!(
        "ip=127.0.0.1\nipport={}\nlogin=u\npasswd=p\nlanplus=1\ncipher=3\naction=status\npower_timeout=2\n\
         login_timeout=1\nshell_timeout=1\n",
        ports::free_port()?
    );
    for whose in BOTH {
        assert_eq!(agents.stdin(whose, "fence_ipmilan", &lines, None).await?.code, Some(1), "{whose:?}");
    }
    Ok(())
}

#[tokio::test]
async fn safer_without_lanplus_the_session_is_protected_all_the_same() -> Result<()> {
    let agents = Agents::new()?;
    let sim = Sim::new(None).await?;
    let lines = sim.lines(ADMINISTRATOR).replace("lanplus=1\n", "");
    for whose in BOTH {
        for agent in ["fence_ipmilan", "fence_idrac", "fence_imm"] {
            let ran = agents.stdin(whose, agent, &format!("{lines}action=status\n"), None).await?;
            assert_eq!(ran.code, Some(0), "{whose:?} {agent}: {ran:?}");
        }
    }
    // Whoever asks for IPMI 1.5 is told, and bridging is not silently left out.
    for (more, says) in [("lanplus=0", "IPMI 1.5"), ("target=0x24", "bridging")] {
        let lines = format!("{lines}action=status\n{more}\n");
        let ran = agents.stdin(Whose::Ours, "fence_ipmilan", &lines, None).await?;
        assert!(ran.code == Some(1) && ran.err.contains(says), "{ran:?}");
    }
    Ok(())
}

#[tokio::test]
async fn safer_what_is_wrong_is_told_at_once() -> Result<()> {
    let agents = Agents::new()?;
    let sim = Sim::new(None).await?;
    sim.sim.behave(Chassis::Refuses);
    for (user, more, says) in [
        (ADMINISTRATOR, "action=status\npasswd=wrong\n", "another password"),
        ("nobody", "action=status\n", "no such user"),
        (VIEWER, "action=off\nprivlvl=user\n", "privilege"),
        (ADMINISTRATOR, "action=off\n", "refused"),
    ] {
        let ran = sim.run(&agents, Whose::Ours, user, more).await?;
        assert_eq!(ran.code, Some(1));
        assert!(ran.err.contains(says) && !ran.err.to_lowercase().contains("timed out"), "{user} {more}: {}", ran.err);
        assert!(ran.took < Duration::from_secs(15), "{user} {more}: {:?}", ran.took);
    }
    assert!(sim.machine.state().on);
    Ok(())
}

#[tokio::test]
async fn safer_a_cycle_that_does_nothing_is_no_success() -> Result<()> {
    let agents = Agents::new()?;
    for (whose, code) in [(Whose::Ours, 1), (Whose::Theirs, 0)] {
        let sim = Sim::new(None).await?;
        sim.sim.behave(Chassis::Ignores);
        let ran = sim.run(&agents, whose, ADMINISTRATOR, "action=reboot\nmethod=cycle\npower_timeout=2\n").await?;
        assert_eq!((ran.code, sim.machine.state().on), (Some(code), true), "{whose:?}: {ran:?}");
        assert!(sim.machine.history().is_empty());
    }
    Ok(())
}

//! Every fence agent of Debian's package: its metadata, which kind it is, and what it says of a plug that does not exist.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use agents::metadata::{Catalogue, Metadata, Role};
use agents::{Access, Parameters, is_outlet};
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use ringfence::isolate::{AGENT_DIR, Device, Scripts, State, build};
use testbed::bmc::outlets::{OutletFault, Outlets};
use testbed::bmc::redfish::{Face, Fault};
use testbed::bmc::snmp::{Apc, COMMUNITY, Snmpd};
use testbed::machine::Machine;
use tokio::time::Instant;

/// Each agent starts an interpreter and loads its libraries, on a loaded machine.
const ASK: Duration = Duration::from_secs(60);
/// What an agent gets for one look; those that wait for a host that does not answer are cut off by it.
const LOOK: Duration = Duration::from_secs(20);
/// Interpreters at a time, on two cores.
const AT_ONCE: usize = 2;

/// SNMP agents that can be pointed at any SNMP service.
const SNMP: [&str; 6] =
    ["fence_apc_snmp", "fence_emerson", "fence_ibmblade", "fence_intelmodular", "fence_ipdu", "fence_tripplite_snmp"];

/// The introduction of the table.
const HEAD: &str = "# Fence agents

<!-- Written by tests/agents.rs from the metadata of Debian's package fence-agents: RINGFENCE_WRITE_DOCS=1 cargo test --test agents -->

`driver: Auto` takes our own client where there is one, and else the script of that name in `--agent-dir` (default
`/usr/sbin`); `driver: Script` always takes the script. A script's OFF proves nothing by itself: many say OFF of a plug that
does not exist. It counts only with a witness: the same agent, address and plug was read ON since the node booted.

What no metadata show, and what a witness must do for: an agent's `off` says \"Already OFF\" without sending anything where
it reads OFF; fence_vmware_rest calls a suspended machine OFF, fence_rhevm one without a status. `missing_as_off` and
`network_fencing` are refused. What a process of an agent leaves its group by (a daemon, `setsid`) outlives the agent.

An agent is a *power* agent if it has the actions off, on, status and reboot, and `on` is not automatic. A *fabric* agent cuts
a port or a reservation, and the machine lives on: switching it \"on\" again would give a zombie its storage back. What
switches the power *of an outlet* says nothing of the machine by an ON: that one may be off by itself.

The native IPMI client speaks 2.0 (lanplus) also where `lanplus` is not given; with `lanplus=0` (IPMI 1.5) it refuses:
`driver: Script`. Scripts are also the way to a BMC whose TLS is too old for us.

| agent | kind | driver | |
|---|---|---|---|
";

/// (18): the metadata of all agents parse, and the table in `docs/` says what they are.
#[tokio::test]
async fn every_agent_is_what_the_table_says() -> Result<()> {
    let scripts = Scripts::new(Path::new(AGENT_DIR), false);
    let all = metadata(&scripts).await?;
    ensure!(all.len() > 80, "{} agents: is Debian's fence-agents installed?", all.len());
    let mut table = HEAD.to_owned();
    for (agent, metadata) in &all {
        let (kind, why) = match metadata {
            Ok(metadata) => match metadata.role() {
                Role::Power if is_outlet(agent) => ("power of an outlet", String::new()),
                Role::Power => ("power", String::new()),
                Role::Fabric { why } => ("fabric, refused", why.to_owned()),
                Role::Other { why } => ("refused", why),
            },
            Err(error) => ("refused", error.clone()),
        };
        let driver = match kind {
            "power" if is_native(agent) => "native, script",
            "power" | "power of an outlet" => "script",
            _ => "–",
        };
        writeln!(table, "| `{agent}` | {kind} | {driver} | {why} |")?;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/agents.md");
    if std::env::var_os("RINGFENCE_WRITE_DOCS").is_some() {
        std::fs::write(&path, &table)?;
    }
    let written = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    ensure!(written == table, "docs/agents.md is not what the agents say; the first line of the test's file says how");
    // The one file that is no agent, and none of all the others, has no metadata.
    let broken: Vec<_> =
        all.iter().filter(|(_, metadata)| metadata.is_err()).map(|(agent, _)| agent.as_str()).collect();
    ensure!(broken == ["fence_ack_manual"], "{broken:?}");
    Ok(())
}

/// Whatever they are pointed at: a host that is not there gives no reading.
#[tokio::test]
async fn a_wrong_host_is_never_isolated() -> Result<()> {
    let scripts = Scripts::new(Path::new(AGENT_DIR), false);
    let all = metadata(&scripts).await?;
    let power = all.iter().filter_map(|(agent, metadata)| {
        let metadata = metadata.as_ref().ok()?;
        (metadata.role() == Role::Power && metadata.parameter("ip").is_some()).then_some((agent, metadata))
    });
    let looks = stream::iter(power).map(|(agent, metadata)| look(agent, metadata, &scripts));
    let looks: Vec<_> = looks.buffer_unordered(AT_ONCE).try_collect().await?;
    ensure!(looks.len() > 50, "{looks:?}");
    let isolated: Vec<_> = looks.iter().filter(|(_, state)| *state != State::Unknown).collect();
    ensure!(isolated.is_empty(), "a reading from nowhere: {isolated:?}");
    Ok(())
}

/// (16): against a bare snmpd, each of these says OFF of an outlet that does not exist, by SNMP 2c. It names no machine, so it
/// is never Isolated, and the outlet was never read ON, so that it proves nothing (`tests/controller/drivers.rs`). By SNMP 1, for a plug that is garbage, or with the wrong community it says nothing.
#[tokio::test]
async fn snmp_agents_say_off_of_what_does_not_exist() -> Result<()> {
    let scripts = Scripts::new(Path::new(AGENT_DIR), false);
    let snmpd = Snmpd::start().await?;
    let cases = [
        ("2c", "99", "private", State::Off),
        ("1", "99", "private", State::Unknown),
        ("2c", "garbage", "private", State::Unknown),
        ("2c", "99", "wrong", State::Unknown),
    ];
    let all = SNMP.into_iter().flat_map(|agent| cases.map(|case| (agent, case)));
    let looks = stream::iter(all).map(async |(agent, (version, plug, community, want))| {
        let values = [("snmp_version", version), ("community", community)];
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned().into())).into();
        let names = |name: &str| Some(name.to_owned());
        let given = Parameters { values, ip: names("ip"), ipport: names("ipport"), plug: names("plug") };
        let access = Access::Script(given);
        let device = Device { agent, address: snmpd.address(), plug: Some(plug), expect: None, access };
        let sight = build(device, &scripts)?.look(Instant::now() + LOOK).await;
        ensure!(sight.system_uuid.is_none(), "{agent}: {sight:?}");
        ensure!(sight.state == want, "{agent}, SNMP {version}, plug {plug}, community {community}: {sight:?}");
        Ok(())
    });
    looks.buffer_unordered(AT_ONCE).try_collect().await
}

/// Upstream's fence_apc_snmp, through our script driver, against an snmpd that is an APC rack PDU: it switches the one feed
/// that it is told to, and says what that is.
#[tokio::test]
async fn upstreams_snmp_script_switches_a_feed() -> Result<()> {
    let scripts = Scripts::new(Path::new(AGENT_DIR), false);
    let machine = Machine::with_feeds("node-1", 2);
    let outlets = [("node-1 left", &machine, 0), ("node-1 right", &machine, 1)];
    let pdu = Apc::start(Outlets::pdu(&outlets).await?).await?;
    let outlet = |plug: &'static str, community: &str| {
        let values = [("community".to_owned(), community.to_owned().into())].into();
        let names = |name: &str| Some(name.to_owned());
        let given = Parameters { values, ip: names("ip"), ipport: names("ipport"), plug: names("plug") };
        let (address, access) = (pdu.address(), Access::Script(given));
        build(Device { agent: "fence_apc_snmp", address, plug: Some(plug), expect: None, access }, &scripts)
    };
    let by = || Instant::now() + LOOK;
    let [left, right] = [outlet("1", COMMUNITY)?, outlet("node-1 right", COMMUNITY)?];
    ensure!(left.look(by()).await.state == State::Running);
    left.isolate(by()).await?;
    ensure!(left.look(by()).await.state == State::Off && right.look(by()).await.state == State::Running);
    ensure!(!machine.feed(0) && machine.feed(1) && machine.state().on, "one feed is not enough");
    right.isolate(by()).await?;
    ensure!(right.look(by()).await.state == State::Off && !machine.state().on);
    left.restore(by()).await?;
    ensure!(left.look(by()).await.state == State::Running && machine.state().on && !machine.feed(1));

    for (plug, community) in [("3", COMMUNITY), ("nobody", COMMUNITY), ("1", "wrong")] {
        let nowhere = outlet(plug, community)?;
        let state = nowhere.look(Instant::now() + LOOK).await.state;
        ensure!(state == State::Unknown, "plug {plug}, community {community}: {state:?}");
    }
    pdu.outlets().set_outlet_fault("node-1 left", Some(OutletFault::Refuses));
    ensure!(left.isolate(by()).await.is_err() && machine.feed(0), "it refused");
    Ok(())
}

/// Upstream's fence_redfish against a BMC: a system that is not there, garbage, no answer; then one that is.
#[tokio::test]
async fn upstreams_redfish_script_says_what_is() -> Result<()> {
    let machine = Machine::new("node-1");
    let face = Face::start(std::slice::from_ref(&machine)).await?;
    let good = face.systems_uri(&machine);
    let scripts = Scripts::new(Path::new(AGENT_DIR), false);
    let values = [("username", face.username().to_owned().into()), ("password", face.password().clone())];
    let values: BTreeMap<String, _> = values.map(|(name, value)| (name.to_owned(), value)).into();
    let values: BTreeMap<_, _> = values.into_iter().chain([("ssl_insecure".to_owned(), "1".into())]).collect();
    let names = |name: &str| Some(name.to_owned());
    let look = async |uri: &str, fault: Option<Fault>, by: Duration| {
        face.set_fault(&machine, fault);
        let plug = url::form_urlencoded::Serializer::new(String::new()).append_pair("systems_uri", uri).finish();
        let given = Parameters { values: values.clone(), ip: names("ip"), ipport: names("ipport"), plug: None };
        let address = face.address().to_string();
        let access = Access::Script(given);
        let device = Device { agent: "fence_redfish", address: &address, plug: Some(&plug), expect: None, access };
        anyhow::Ok(build(device, &scripts)?.look(Instant::now() + by).await.state)
    };
    ensure!(look(&good, None, LOOK).await? == State::Running);
    for uri in ["/redfish/v1/Systems/nobody", "/redfish/v1/Systems", "/", "nonsense"] {
        let state = look(uri, None, LOOK).await?;
        ensure!(state == State::Unknown, "{uri}: {state:?}");
    }
    let short = Duration::from_secs(3);
    for fault in [Fault::Garbage, Fault::NoPowerState, Fault::Unauthorized, Fault::Drop, Fault::Fails(500), Fault::Hang]
    {
        let state = look(&good, Some(fault.clone()), short).await?;
        ensure!(state == State::Unknown, "{fault:?}: {state:?}");
    }
    machine.set_power(false, "test");
    ensure!(look(&good, None, LOOK).await? == State::Off, "a script names no machine");
    Ok(())
}

/// Points an agent at a port of this machine that nobody serves.
async fn look(agent: &str, metadata: &Metadata, scripts: &Scripts) -> Result<(String, State)> {
    let name = |name: &str| metadata.parameter(name).map(|parameter| parameter.name.clone());
    let mut values = BTreeMap::new();
    for parameter in metadata.parameters.iter().filter(|parameter| !parameter.deprecated) {
        let value = match parameter.name.as_str() {
            "username" | "password" => "nobody",
            // What each needs to get as far as its device.
            "snmp_version" => "2c",
            "login_timeout" | "shell_timeout" => "1",
            "power_timeout" => "2",
            "ssl_insecure" | "secure" => "1",
            _ if parameter.required && parameter.default.is_none() => "1",
            _ => continue,
        };
        if !["ip", "plug", "ipport"].contains(&parameter.name.as_str()) {
            values.insert(parameter.name.clone(), value.to_owned().into());
        }
    }
    let port = testbed::ports::free_port()?;
    let address = if name("ipport").is_some() { format!("127.0.0.1:{port}") } else { "127.0.0.1".to_owned() };
    let plug = name("plug").map(|_| "no-such-plug");
    let given = Parameters { values, ip: name("ip"), ipport: name("ipport"), plug: name("plug") };
    let device = Device { agent, address: &address, plug, expect: None, access: Access::Script(given) };
    let sight = build(device, scripts)?.look(Instant::now() + LOOK).await;
    Ok((agent.to_owned(), sight.state))
}

/// The metadata of all agents of the package, or why there are none.
async fn metadata(scripts: &Scripts) -> Result<BTreeMap<String, Result<Metadata, String>>> {
    let names = std::fs::read_dir(AGENT_DIR)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<_> = names.collect::<Result<Vec<_>>>()?.into_iter().filter(|n| n.starts_with("fence_")).collect();
    let asked = stream::iter(names).map(async |agent| {
        let metadata = scripts.metadata(&agent, Instant::now() + ASK).await;
        (agent, metadata.map(|metadata| (*metadata).clone()).map_err(|_| "it prints no metadata".to_owned()))
    });
    Ok(asked.buffer_unordered(AT_ONCE).collect().await)
}

fn is_native(agent: &str) -> bool {
    agent == "fence_redfish"
        || agent.starts_with("fence_ipmilan")
        || ["fence_idrac", "fence_imm", "fence_ilo3", "fence_ilo4", "fence_ilo5"].contains(&agent)
}

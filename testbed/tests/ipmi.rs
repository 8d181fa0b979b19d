//! The native IPMI client against the testbed's face and the real ipmi_sim, over real sockets; and the face against the
//! real ipmitool.

use std::process::Command as Program;
use std::sync::Arc;
use std::time::Duration;

use agents::ipmi::{Config, Ipmi, Privilege, Quirks};
use agents::{Command, Error, PowerState, PowerSwitch, Status, SystemUuid};
use secrecy::ExposeSecret as _;
use testbed::bmc::ipmi::{Face, Fault, Options, VIEWER, What};
use testbed::bmc::ipmi_sim::{self, Chassis, IpmiSim};
use testbed::machine::Machine;
use tokio::net::UdpSocket;
use tokio::time::Instant;
use uuid::Uuid;

/// Time for what is expected to happen, on a loaded machine.
const SOON: Duration = Duration::from_secs(20);
/// How long something lasts that the test looks at meanwhile: long against a call, also on a loaded machine.
const WHILE: Duration = Duration::from_secs(2);
/// A deadline that is meant to pass.
const SHORT: Duration = Duration::from_millis(700);
/// How much later than its deadline a call may return, on a loaded machine.
const LATE: Duration = Duration::from_secs(2);

/// What a configuration differs in.
type Change = fn(&mut Config);

/// One machine, its face, and a client of it.
struct Bench {
    machine: Arc<Machine>,
    face: Face,
    client: Ipmi,
}

impl Bench {
    async fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self::with(Options::default(), faults).await
    }

    async fn with(options: Options, faults: impl IntoIterator<Item = Fault>) -> Self {
        let machine = Machine::new("node-1");
        let face = Face::start_with(std::slice::from_ref(&machine), options).await.expect("a free port");
        face.set_faults(&machine, faults);
        let client = Ipmi::new(face.client_config(&machine)).expect("a good configuration");
        Self { machine, face, client }
    }

    /// Another client of the same BMC.
    fn client(&self, change: impl FnOnce(&mut Config)) -> Ipmi {
        let mut config = self.face.client_config(&self.machine);
        change(&mut config);
        Ipmi::new(config).expect("a good configuration")
    }

    async fn status(&self) -> Result<Status, Error> {
        self.client.status(Instant::now() + SOON).await
    }

    async fn power(&self) -> PowerState {
        self.status().await.expect("a reading").power
    }

    async fn command(&self, command: Command) -> Result<(), Error> {
        self.client.command(command, None, Instant::now() + SOON).await
    }

    /// The commands that arrived.
    fn commands(&self) -> Vec<Command> {
        self.face.commands(&self.machine).into_iter().map(|(_, command)| command).collect()
    }

    /// The requests that arrived.
    fn requests(&self) -> Vec<What> {
        self.face.requests().into_iter().map(|request| request.what).collect()
    }
}

fn uuid(uuid: Uuid) -> SystemUuid {
    SystemUuid::parse(&uuid.to_string()).expect("a UUID of one machine")
}

#[tokio::test]
async fn reads_power_and_identity_in_seven_round_trips() {
    let bench = Bench::new([]).await;
    let status = bench.status().await.unwrap();
    assert_eq!(status.power, PowerState::On);
    assert_eq!(status.system_uuid, Some(uuid(bench.machine.uuid())));
    assert_eq!(status.source, format!("ipmi://127.0.0.1:{}", bench.face.port(&bench.machine)));
    assert_eq!(
        bench.requests(),
        [What::Open, What::Rakp1, What::Rakp3, What::Privilege, What::Status, What::Guid, What::Close]
    );
    bench.machine.set_power(false, "test");
    assert_eq!(bench.power().await, PowerState::Off);
    assert!(bench.commands().is_empty(), "a look changes nothing");
    assert_eq!(bench.face.sessions(&bench.machine), 0);
}

#[tokio::test]
async fn switches_off_and_on_in_seven_round_trips() {
    let bench = Bench::new([]).await;
    let expect = uuid(bench.machine.uuid());
    bench.client.command(Command::Off, Some(&expect), Instant::now() + SOON).await.unwrap();
    assert!(!bench.machine.state().on);
    let off = What::Control(Command::Off);
    assert_eq!(bench.requests(), [What::Open, What::Rakp1, What::Rakp3, What::Privilege, What::Guid, off, What::Close]);
    bench.command(Command::Off).await.unwrap();
    bench.command(Command::On).await.unwrap();
    assert!(bench.machine.state().on);
    assert_eq!(bench.commands(), [Command::Off, Command::Off, Command::On]);
    assert!(bench.machine.history().iter().all(|change| change.by == "ipmi"));
    assert_eq!(bench.face.sessions(&bench.machine), 0);
}

/// What the fence-agent command line does: read, off, and read again.
#[tokio::test]
async fn an_off_with_its_readings_is_nine_round_trips() {
    let bench = Bench::new([]).await;
    let visit = bench.client.visit(Command::Off, Instant::now() + SOON).await.unwrap();
    assert_eq!((visit.before.power, visit.answer), (PowerState::On, Ok(())));
    assert_eq!(visit.after.map(|status| status.power), Some(PowerState::Off));
    let off = What::Control(Command::Off);
    let session = [What::Open, What::Rakp1, What::Rakp3, What::Privilege];
    let asked = [What::Status, What::Guid, off, What::Status, What::Close];
    assert_eq!(bench.requests(), session.into_iter().chain(asked).collect::<Vec<_>>());
    assert_eq!(bench.face.sessions(&bench.machine), 0);
}

#[tokio::test]
async fn seven_failures_are_seven_errors() {
    let bench =
        Bench::with(Options { kg: Some("0102030405".to_owned().into()), suites: vec![0, 3], ipv6: false }, []).await;
    assert_eq!(bench.power().await, PowerState::On, "suite 17 is tried, and 3 is taken");
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = silent.local_addr().unwrap();
    let clients = [
        (bench.client(|config| config.credentials.password = "wrong".to_owned().into()), "BMCWrongPassword"),
        (bench.client(|config| config.credentials.username = "nobody".to_owned()), "BMCUnknownUser"),
        (bench.client(|config| config.kg = Some("0102030406".to_owned().into())), "BMCWrongKg"),
        (bench.client(|config| config.credentials.username = VIEWER.to_owned()), "BMCPrivilegeTooLow"),
        (bench.client(|config| config.suite = Some(17)), "BMCNoCipherSuite"),
        (bench.client(|config| config.address = closed.to_string()), "BMCUnreachable"),
        (bench.client(|config| config.address = at.to_string()), "BMCTimeout"),
    ];
    let password = bench.face.password().expose_secret();
    for (client, label) in clients {
        // So much time has none of them but the last to take.
        let by = Instant::now() + WHILE * 2;
        let error = client.status(by).await.unwrap_err();
        assert_eq!(error.label(), label, "{error}");
        assert_eq!(Instant::now() >= by, label == "BMCTimeout", "{error}");
        assert!(!error.to_string().contains(password) && !format!("{client:?} {error:?}").contains(password));
    }
    assert!(bench.machine.history().is_empty());
}

#[tokio::test]
async fn no_kg_where_there_is_one_is_a_wrong_kg() {
    let bench = Bench::with(Options { kg: Some("ff".repeat(20).into()), ..Options::default() }, []).await;
    assert_eq!(bench.power().await, PowerState::On);
    let without = bench.client(|config| config.kg = None);
    assert_eq!(without.status(Instant::now() + SOON).await.unwrap_err(), Error::WrongKg);
}

#[tokio::test]
async fn a_viewer_may_look_and_not_touch() {
    let bench = Bench::new([]).await;
    let viewer = |privilege| {
        bench.client(|config| {
            config.credentials.username = VIEWER.to_owned();
            config.privilege = privilege;
        })
    };
    let status = viewer(Privilege::User).status(Instant::now() + SOON).await.unwrap();
    assert_eq!(status.power, PowerState::On);
    let by = Instant::now() + SOON;
    let error = viewer(Privilege::User).command(Command::Off, None, by).await.unwrap_err();
    assert_eq!(error, Error::PrivilegeTooLow { doing: "sending power down", privilege: "user" });
    bench.face.set_fault(&bench.machine, Some(Fault::LateRefusal));
    let error = viewer(Privilege::Operator).command(Command::Off, None, by).await.unwrap_err();
    assert_eq!(error, Error::PrivilegeTooLow { doing: "raising the privilege", privilege: "operator" });
    assert!(bench.machine.state().on);
    assert_eq!(bench.face.sessions(&bench.machine), 0, "also a session that failed is closed");
}

/// What preflight asks: a session that may look, and could not switch, is told apart without a command.
#[tokio::test]
async fn ready_says_whether_the_privilege_would_do() {
    let bench = Bench::new([]).await;
    for (privilege, lacks) in
        [(Privilege::User, Some("BMCPrivilegeTooLow")), (Privilege::Operator, None), (Privilege::Administrator, None)]
    {
        let client = bench.client(|config| config.privilege = privilege);
        let ready = client.ready(Instant::now() + SOON).await.expect("a reading");
        assert_eq!(ready.status.power, PowerState::On);
        assert_eq!(ready.lacks.map(|error| error.label()), lacks, "{privilege:?}");
    }
    assert!(bench.face.commands(&bench.machine).is_empty());
}

#[tokio::test]
async fn the_suite_that_worked_is_remembered() {
    let bench = Bench::with(Options { suites: vec![3], ..Options::default() }, []).await;
    bench.status().await.unwrap();
    assert_eq!(bench.face.count(&bench.machine, What::Open), 2);
    bench.status().await.unwrap();
    assert_eq!(bench.face.count(&bench.machine, What::Open), 3);
}

#[tokio::test]
async fn suite_zero_is_not_even_asked_for() {
    let bench = Bench::with(Options { suites: vec![0], ..Options::default() }, []).await;
    assert_eq!(bench.status().await.unwrap_err(), Error::NoCipherSuite { tried: vec![17, 3] });
    let mut config = bench.face.client_config(&bench.machine);
    config.suite = Some(0);
    assert_eq!(Ipmi::new(config).unwrap_err().label(), "BMCConfigInvalid");
}

#[tokio::test]
async fn a_fifth_lost_each_way_is_no_hindrance() {
    let mut calls = tokio::task::JoinSet::new();
    for seed in 0..20 {
        calls.spawn(async move {
            let bench = Bench::new([Fault::Loss { percent: 20, seed }]).await;
            let status = bench.status().await;
            assert_eq!(status.as_ref().map(|status| &status.power), Ok(&PowerState::On), "seed {seed}");
            let expect = uuid(bench.machine.uuid());
            let off = bench.client.command(Command::Off, Some(&expect), Instant::now() + SOON).await;
            assert_eq!(off, Ok(()), "seed {seed}");
            assert!(!bench.machine.state().on, "seed {seed}");
        });
    }
    assert_eq!(calls.join_all().await.len(), 20);
}

#[tokio::test]
async fn what_is_forged_tampered_with_or_repeated_is_not_believed() {
    for fault in [Fault::Forge, Fault::Duplicate, Fault::Replay] {
        let bench = Bench::new([fault.clone()]).await;
        assert_eq!(bench.power().await, PowerState::On, "{fault:?}");
        bench.command(Command::Off).await.unwrap();
        assert!(!bench.machine.state().on, "{fault:?}");
        assert_eq!(bench.power().await, PowerState::Off, "{fault:?}");
    }
    let bench = Bench::new([Fault::Forge, Fault::LoseAnswer]).await;
    let by = Instant::now() + SHORT;
    let error = bench.client.command(Command::Off, None, by).await.unwrap_err();
    assert_eq!(error.label(), "BMCTimeout", "a forged success is none");
    let bench = Bench::new([Fault::Tamper]).await;
    let error = bench.client.status(Instant::now() + WHILE).await.unwrap_err();
    assert_eq!(error, Error::Deadline { doing: "raising the privilege" });
}

#[tokio::test]
async fn keeps_its_deadline() {
    for fault in [Fault::Hang, Fault::Dead, Fault::Slow(SOON * 6), Fault::Loss { percent: 100, seed: 0 }] {
        let bench = Bench::new([fault.clone()]).await;
        for command in [false, true] {
            let by = Instant::now() + SHORT;
            let error = match command {
                false => bench.client.status(by).await.unwrap_err(),
                true => bench.client.command(Command::Off, None, by).await.unwrap_err(),
            };
            assert_eq!(error.label(), "BMCTimeout", "{fault:?}");
            assert!(Instant::now() < by + LATE, "{fault:?}");
        }
        assert!(bench.commands().is_empty() && bench.machine.state().on, "{fault:?}");
    }
}

#[tokio::test]
async fn a_slow_bmc_is_waited_for() {
    let bench = Bench::new([Fault::Slow(Duration::from_millis(600))]).await;
    assert_eq!(bench.power().await, PowerState::On);
    bench.face.wait_idle(SOON).await.unwrap();
}

#[tokio::test]
async fn a_dropped_call_sends_nothing_more() {
    let bench = Bench::new([]).await;
    bench.face.hold(&bench.machine, What::Guid);
    let (client, expect) = (bench.client(|_| ()), uuid(bench.machine.uuid()));
    let call = tokio::spawn(async move { client.command(Command::Off, Some(&expect), Instant::now() + SOON).await });
    bench.face.wait_for(&bench.machine, What::Guid, 1, SOON).await.unwrap();
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    bench.face.release(&bench.machine);
    let requests = bench.requests().len();
    // Another call, so that what the first one might still have sent has had its time.
    bench.power().await;
    assert_eq!(bench.requests().len(), requests + 7);
    assert!(bench.commands().is_empty() && bench.machine.state().on);
}

/// A process that is stopped, and goes on after the deadline: nothing is sent any more, wherever it was.
#[test]
fn a_process_that_was_stopped_sends_nothing_after_its_deadline() {
    const STOP: Duration = Duration::from_millis(50);
    let bmc = tokio::runtime::Runtime::new().unwrap();
    let bench = bmc.block_on(Bench::new([]));
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // A call has some fourteen steps, of which the last two only close; before every one the process is stopped.
    for steps in 0..14 {
        let expired = client.block_on(async {
            let by = Instant::now() + STOP * steps + STOP / 2;
            let mut call = std::pin::pin!(bench.client.command(Command::Off, None, by));
            let mut late = None;
            let done = std::future::poll_fn(|cx| {
                std::thread::sleep(STOP);
                // What was sent before this step was sent in time.
                if late.is_none() && Instant::now() >= by {
                    // Time for it to arrive.
                    std::thread::sleep(STOP * 6);
                    late = Some(bench.requests().len());
                }
                call.as_mut().poll(cx)
            })
            .await;
            late.map(|sent| (sent, done))
        });
        if let Some((in_time, done)) = expired {
            // Time for what must not have been sent.
            std::thread::sleep(STOP * 2);
            assert_eq!(bench.requests().len(), in_time, "{steps}: {done:?}");
        }
    }
    bmc.shutdown_background();
}

#[tokio::test]
async fn another_machine_is_never_commanded() {
    let other = Uuid::new_v4();
    let bench = Bench::new([Fault::WrongIdentity(other)]).await;
    let expect = uuid(bench.machine.uuid());
    let error = bench.client.command(Command::Off, Some(&expect), Instant::now() + SOON).await.unwrap_err();
    assert_eq!(error, Error::WrongMachine { expected: expect, found: uuid(other) });
    assert!(bench.commands().is_empty());
    assert_eq!(bench.face.sessions(&bench.machine), 0);
}

#[tokio::test]
async fn the_same_machine_in_another_byte_order_is_commanded() {
    for fault in [Fault::MixedEndianIdentity, Fault::ReversedIdentity] {
        let bench = Bench::new([fault.clone()]).await;
        let expect = uuid(bench.machine.uuid());
        bench.client.command(Command::Off, Some(&expect), Instant::now() + SOON).await.unwrap();
        let status = bench.status().await.unwrap();
        assert!(status.system_uuid.is_some_and(|found| found.same_machine(&expect)), "{fault:?}");
    }
}

#[tokio::test]
async fn no_identity_and_placeholders_are_none() {
    for fault in [Fault::NoIdentity, Fault::WrongIdentity(Uuid::nil()), Fault::WrongIdentity(Uuid::max())] {
        let bench = Bench::new([fault.clone()]).await;
        assert_eq!(bench.status().await.unwrap().system_uuid, None, "{fault:?}");
        let expect = uuid(bench.machine.uuid());
        bench.client.command(Command::Off, Some(&expect), Instant::now() + SOON).await.unwrap();
    }
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let bench = Bench::new([Fault::Refuse { code: 0xff, times: Some(1) }]).await;
    let error = bench.command(Command::Off).await.unwrap_err();
    assert_eq!((error.label(), error.may_pass()), ("BMCRefused", true));
    assert!(bench.machine.state().on);

    bench.face.set_fault(&bench.machine, Some(Fault::AlreadyOffRefusal));
    bench.command(Command::Off).await.unwrap();
    let error = bench.command(Command::Off).await.unwrap_err();
    assert!(matches!(error, Error::IpmiRefused { code: 0xd5, .. }), "{error}");

    bench.face.set_fault(&bench.machine, Some(Fault::NoSessions));
    assert_eq!(bench.status().await.unwrap_err(), Error::Busy { doing: "opening a session", retry_after: None });
}

#[tokio::test]
async fn busy_is_asked_again() {
    let bench = Bench::new([Fault::Busy(3)]).await;
    bench.command(Command::Off).await.unwrap();
    assert_eq!(bench.commands(), [Command::Off]);
    bench.face.set_fault(&bench.machine, Some(Fault::Busy(u32::MAX)));
    let error = bench.client.status(Instant::now() + SHORT).await.unwrap_err();
    assert_eq!(error, Error::Busy { doing: "raising the privilege", retry_after: None });
}

#[tokio::test]
async fn power_is_what_the_bmc_says() {
    let bench = Bench::new([Fault::LieOff]).await;
    bench.command(Command::Off).await.unwrap();
    assert_eq!(bench.power().await, PowerState::On, "a lie is seen by looking");
    bench.face.set_fault(&bench.machine, Some(Fault::HearsayOff));
    assert_eq!(bench.power().await, PowerState::Off);
    bench.face.set_fault(&bench.machine, Some(Fault::Late(WHILE)));
    bench.command(Command::Off).await.unwrap();
    assert_eq!(bench.power().await, PowerState::On, "accepted, and done later");
    let mut state = bench.machine.watch();
    tokio::time::timeout(SOON, state.wait_for(|state| !state.on)).await.expect("in time").expect("the machine lives");
    bench.face.set_fault(&bench.machine, Some(Fault::DiesWithNode));
    let error = bench.client.status(Instant::now() + SHORT).await.unwrap_err();
    assert_eq!(error.label(), "BMCTimeout");
}

#[tokio::test]
async fn the_quirk_of_the_open_session_privilege() {
    let bench = Bench::new([Fault::HashesOpenPrivilege]).await;
    assert_eq!(bench.status().await.unwrap_err(), Error::WrongPassword);
    let quirky = bench.client(|config| config.quirks = Quirks { open_session_privilege: true });
    assert_eq!(quirky.status(Instant::now() + SOON).await.unwrap().power, PowerState::On);
}

#[tokio::test]
async fn speaks_ipv6() {
    let bench = Bench::with(Options { ipv6: true, ..Options::default() }, []).await;
    assert_eq!(bench.status().await.unwrap().source, format!("ipmi://[::1]:{}", bench.face.port(&bench.machine)));
    let port = Some(bench.face.port(&bench.machine));
    let bare = bench.client(|config| (config.address, config.port) = ("::1".to_owned(), port));
    assert_eq!(bare.status(Instant::now() + SOON).await.unwrap().power, PowerState::On);
    // Where a name has both, the one that answers is found.
    let bench = Bench::new([]).await;
    let port = Some(bench.face.port(&bench.machine));
    let named = bench.client(|config| (config.address, config.port) = ("localhost".to_owned(), port));
    assert_eq!(named.status(Instant::now() + SOON).await.unwrap().power, PowerState::On);
}

#[tokio::test]
async fn the_real_ipmitool_judges_the_face() {
    // ipmitool 1.8 takes a key that begins with a zero for none.
    let kg = "10112233445566778899aabbccddeeff00112233";
    for (suite, kg) in [("3", None), ("17", None), ("0", None), ("3", Some(kg)), ("17", Some(kg))] {
        let options = Options { kg: kg.map(|kg| kg.to_owned().into()), ..Options::default() };
        let bench = Bench::with(options, []).await;
        let mut common: Vec<String> = ["-C", suite].map(str::to_owned).to_vec();
        common.extend(kg.iter().flat_map(|kg| ["-y".to_owned(), (*kg).to_owned()]));
        let tool = async |what: &str| ipmitool(&bench, &common, what).await;
        assert_eq!(tool("chassis power status").await, "Chassis Power is on\n", "suite {suite}");
        tool("chassis power off").await;
        assert!(!bench.machine.state().on, "suite {suite}");
        assert_eq!(tool("chassis power status").await, "Chassis Power is off\n", "suite {suite}");
        tool("chassis power on").await;
        assert!(bench.machine.state().on, "suite {suite}");
        bench.face.wait_idle(SOON).await.unwrap();
    }
    // Without a suite it asks for the list, and takes the best.
    let bench = Bench::new([]).await;
    assert_eq!(ipmitool(&bench, &[], "chassis power status").await, "Chassis Power is on\n");
}

/// Runs ipmitool as the administrator, and returns what it printed.
async fn ipmitool(bench: &Bench, options: &[String], what: &str) -> String {
    let mut program = Program::new("ipmitool");
    program.args(["-I", "lanplus", "-H", "127.0.0.1", "-E", "-U", bench.face.username()]);
    program.args(["-p", &bench.face.port(&bench.machine).to_string()]).args(options).args(what.split(' '));
    program.env("IPMI_PASSWORD", bench.face.password().expose_secret());
    let output = tokio::task::spawn_blocking(move || program.output()).await.expect("no panic");
    let output = output.expect("ipmitool is installed");
    assert!(output.status.success() && !output.stdout.is_empty(), "{options:?} {what}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn the_real_ipmi_sim_is_read_and_commanded() {
    let machine = Machine::new("node-1");
    let sim = IpmiSim::start(&machine, None).await.unwrap();
    let client = Ipmi::new(sim.client_config(ipmi_sim::ADMINISTRATOR, Privilege::Administrator)).unwrap();
    let by = || Instant::now() + SOON;
    let status = client.status(by()).await.unwrap();
    assert_eq!((status.power, status.system_uuid), (PowerState::On, ipmi_sim::identity(&machine)));
    let identity = ipmi_sim::identity(&machine);
    client.command(Command::Off, identity.as_ref(), by()).await.unwrap();
    assert!(!machine.state().on);
    assert_eq!(client.status(by()).await.unwrap().power, PowerState::Off);
    client.command(Command::On, identity.as_ref(), by()).await.unwrap();
    assert!(machine.state().on);
    let error = client.command(Command::Off, Some(&uuid(Uuid::new_v4())), by()).await.unwrap_err();
    assert_eq!(error.label(), "WrongMachine");

    sim.behave(Chassis::Refuses);
    assert_eq!(client.command(Command::Off, None, by()).await.unwrap_err().label(), "BMCRefused");
    sim.behave(Chassis::Ignores);
    client.command(Command::Off, None, by()).await.unwrap();
    assert_eq!(client.status(by()).await.unwrap().power, PowerState::On);
    assert!(machine.history().iter().all(|change| change.by == "ipmi_sim"));
}

#[tokio::test]
async fn the_real_ipmi_sim_knows_accounts_suites_and_levels() {
    let machine = Machine::new("node-1");
    let sim = IpmiSim::start(&machine, Some("00112233445566778899aabbccddeeff".to_owned().into())).await.unwrap();
    let by = || Instant::now() + SOON;
    let client = |username: &str, privilege, change: Change| {
        let mut config = sim.client_config(username, privilege);
        change(&mut config);
        Ipmi::new(config).expect("a good configuration")
    };
    let as_is: Change = |_| ();
    let viewer = client(ipmi_sim::VIEWER, Privilege::User, as_is);
    assert_eq!(viewer.status(by()).await.unwrap().power, PowerState::On);
    assert_eq!(viewer.command(Command::Off, None, by()).await.unwrap_err().label(), "BMCPrivilegeTooLow");
    assert!(machine.state().on);
    client(ipmi_sim::OPERATOR, Privilege::Operator, as_is).command(Command::Off, None, by()).await.unwrap();
    assert!(!machine.state().on);

    let wrong: [(Change, &str); 5] = [
        (|config| config.credentials.password = "wrong".to_owned().into(), "BMCWrongPassword"),
        (|config| config.credentials.username = "nobody".to_owned(), "BMCUnknownUser"),
        (|config| config.kg = Some("00112233445566778899aabbccddeefe".to_owned().into()), "BMCWrongKg"),
        (|config| config.kg = None, "BMCWrongKg"),
        (|config| config.suite = Some(17), "BMCNoCipherSuite"),
    ];
    for (change, label) in wrong {
        let client = client(ipmi_sim::ADMINISTRATOR, Privilege::Administrator, change);
        assert_eq!(client.status(by()).await.unwrap_err().label(), label);
    }
    let unasked = client(ipmi_sim::ADMINISTRATOR, Privilege::Administrator, |config: &mut Config| config.suite = None);
    assert_eq!(unasked.status(by()).await.unwrap().power, PowerState::Off);
}

#[tokio::test]
async fn what_makes_no_sense_is_said_before_anything_is_sent() {
    let bench = Bench::new([]).await;
    let changes: [Change; 11] = [
        |config| config.address = String::new(),
        |config| config.address = "10.7".to_owned(),
        |config| config.address = "a b".to_owned(),
        |config| config.address = "h:1:2".to_owned(),
        |config| config.port = Some(0),
        |config| config.suite = Some(17 + 1),
        |config| config.credentials.username = "x".repeat(17),
        |config| config.credentials.password = "x".repeat(21).into(),
        |config| config.kg = Some("0".to_owned().into()),
        |config| config.kg = Some("zz".to_owned().into()),
        |config| config.kg = Some("00".repeat(21).into()),
    ];
    for change in changes {
        let mut config = bench.face.client_config(&bench.machine);
        change(&mut config);
        let shown = format!("{config:?}");
        assert_eq!(Ipmi::new(config).expect_err(&shown).label(), "BMCConfigInvalid", "{shown}");
    }
    assert!(bench.requests().is_empty());
}

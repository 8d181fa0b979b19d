//! The native Redfish client against the testbed's face, over real sockets: for every fault the right reading or the
//! right error, deadlines kept, and nothing sent that must not be.

use std::future::Future as _;
use std::sync::Arc;
use std::time::Duration;

use agents::redfish::{Config, Redfish};
use agents::{Command, Credentials, Error, PowerState, PowerSwitch, Status, SystemUuid, Tls};
use secrecy::ExposeSecret;
use serde_json::json;
use testbed::bmc::redfish::{Certificate, Door, Face, Fault, OldTls, What};
use testbed::bmc::sushy::Sushy;
use testbed::machine::Machine;
use testbed::wait;
use tokio::net::TcpListener;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

/// Time for what is expected to happen, on a loaded machine.
const SOON: Duration = Duration::from_secs(10);
/// How long something lasts that the test looks at meanwhile: long against a call, also on a loaded machine.
const WHILE: Duration = Duration::from_secs(2);
/// A deadline that is meant to pass.
const SHORT: Duration = Duration::from_millis(300);

/// One machine, its face, and a client of it.
struct Bench {
    machine: Arc<Machine>,
    face: Face,
    client: Redfish,
}

impl Bench {
    async fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        let machine = Machine::new("node-1");
        let face = Face::start(std::slice::from_ref(&machine)).await.expect("a free port");
        face.set_faults(&machine, faults);
        let client = Redfish::new(face.client_config(&machine)).expect("a good configuration");
        Self { machine, face, client }
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

    /// Waits until the power is that, or fails the test.
    async fn becomes(&self, on: bool) {
        let mut state = self.machine.watch();
        let changed = tokio::time::timeout(SOON, state.wait_for(|state| state.on == on));
        changed.await.expect("in time").expect("the machine lives");
    }
}

fn uuid(uuid: Uuid) -> SystemUuid {
    SystemUuid::parse(&uuid.to_string()).expect("a UUID of one machine")
}

#[tokio::test]
async fn reads_power_and_identity() {
    let bench = Bench::new([]).await;
    let status = bench.status().await.unwrap();
    assert_eq!(status.power, PowerState::On);
    assert_eq!(status.system_uuid, Some(uuid(bench.machine.uuid())));
    assert_eq!(status.source, format!("https://127.0.0.1:{}/redfish/v1/Systems/node-1", bench.face.port()));

    bench.machine.set_power(false, "test");
    assert_eq!(bench.power().await, PowerState::Off);
    assert!(bench.commands().is_empty(), "a look changes nothing");
}

#[tokio::test]
async fn switches_off_and_on() {
    let bench = Bench::new([]).await;
    bench.command(Command::Off).await.unwrap();
    assert!(!bench.machine.state().on);
    bench.command(Command::Off).await.unwrap();
    bench.command(Command::On).await.unwrap();
    assert!(bench.machine.state().on);
    assert_eq!(bench.commands(), [Command::Off, Command::Off, Command::On], "each is sent once");
    assert!(bench.machine.history().iter().all(|change| change.by == "redfish"));
}

#[tokio::test]
async fn finds_the_only_system_and_refuses_to_choose() {
    let machines: Vec<_> = ["a", "b"].map(Machine::new).to_vec();
    let one = Face::start(&machines[..1]).await.unwrap();
    let config = Config { systems_uri: None, ..one.client_config(&machines[0]) };
    let client = Redfish::new(config).unwrap();
    client.command(Command::Off, Some(&uuid(machines[0].uuid())), Instant::now() + SOON).await.unwrap();
    assert!(!machines[0].state().on);

    machines[0].set_power(true, "test");
    let both = Face::start(&machines).await.unwrap();
    let client = Redfish::new(Config { systems_uri: None, ..both.client_config(&machines[0]) }).unwrap();
    let several = vec!["/redfish/v1/Systems/a".to_owned(), "/redfish/v1/Systems/b".to_owned()];
    let refused = Err(Error::Ambiguous { found: several });
    assert_eq!(client.command(Command::Off, None, Instant::now() + SOON).await, refused);
    assert!(machines.iter().all(|machine| machine.state().on));

    let chosen = Redfish::new(both.client_config(&machines[1])).unwrap();
    chosen.command(Command::Off, None, Instant::now() + SOON).await.unwrap();
    assert!(machines[0].state().on && !machines[1].state().on);
}

#[tokio::test]
async fn a_system_that_is_not_there_is_no_system() {
    let bench = Bench::new([]).await;
    let none =
        Config { systems_uri: Some("/redfish/v1/Systems/another".into()), ..bench.face.client_config(&bench.machine) };
    let at = format!("https://127.0.0.1:{}/redfish/v1/Systems/another", bench.face.port());
    assert_eq!(Redfish::new(none).unwrap().status(Instant::now() + SOON).await, Err(Error::NoSystem { at }));
    let empty = Face::start(&[]).await.unwrap();
    let config = Config { base: empty.base(), systems_uri: None, ..bench.face.client_config(&bench.machine) };
    let config = Config {
        credentials: Credentials { username: empty.username().into(), password: empty.password().clone() },
        tls: Tls::Ca(empty.ca_pem().into()),
        ..config
    };
    let error = Redfish::new(config).unwrap().status(Instant::now() + SOON).await.unwrap_err();
    assert_eq!(error.label(), "BMCNoSystem");
}

#[tokio::test]
async fn keeps_its_deadline_and_hangs_up() {
    for fault in [Fault::Hang, Fault::Dead, Fault::Slow(SOON * 6)] {
        let bench = Bench::new([fault.clone()]).await;
        for command in [false, true] {
            let begun = Instant::now();
            let by = begun + SHORT;
            let error = match command {
                false => bench.client.status(by).await.unwrap_err(),
                true => bench.client.command(Command::Off, None, by).await.unwrap_err(),
            };
            assert_eq!(error, Error::Deadline { doing: "reading the system" }, "{fault:?}");
            assert!(begun.elapsed() < SHORT + Duration::from_secs(2), "{fault:?}: {:?}", begun.elapsed());
            bench.face.wait_idle(SOON).await.unwrap();
        }
        assert!(bench.commands().is_empty());
        assert!(bench.machine.state().on);
    }
}

#[tokio::test]
async fn without_mains_there_is_no_bmc() {
    let bench = Bench::new([]).await;
    bench.machine.set_power(false, "test");
    assert_eq!(bench.power().await, PowerState::Off);
    bench.machine.set_feed(0, false);
    let silent = bench.client.status(Instant::now() + SHORT).await.unwrap_err();
    assert_eq!(silent, Error::Deadline { doing: "reading the system" });
    bench.machine.set_feed(0, true);
    assert_eq!(bench.power().await, PowerState::On);
}

#[tokio::test]
async fn a_closed_port_refuses_and_a_black_hole_swallows() {
    let bench = Bench::new([]).await;
    for door in [Door::Closed, Door::BlackHole] {
        assert_eq!(bench.power().await, PowerState::On);
        bench.face.set_door(door).await.expect("the port is ours");
        let begun = Instant::now();
        let error = bench.client.status(begun + WHILE).await.unwrap_err();
        match door {
            Door::Closed => assert!(!matches!(error, Error::Deadline { .. }) && begun.elapsed() < WHILE, "{error:?}"),
            Door::BlackHole => assert_eq!(error, Error::Deadline { doing: "reading the system" }),
            Door::Open => unreachable!("not among them"),
        }
        bench.face.wait_idle(SOON).await.unwrap();
        let accepted = bench.face.accepted();
        bench.face.set_door(Door::Open).await.expect("the port is ours");
        assert_eq!(bench.power().await, PowerState::On);
        assert_eq!(bench.face.accepted(), accepted + 1, "nothing came through the door");
    }
}

#[tokio::test]
async fn a_dropped_call_hangs_up_and_sends_nothing_more() {
    let bench = Bench::new([]).await;
    bench.face.hold(&bench.machine, What::System);
    let config = bench.face.client_config(&bench.machine);
    let call =
        tokio::spawn(
            async move { Redfish::new(config).unwrap().command(Command::Off, None, Instant::now() + SOON).await },
        );
    bench.face.wait_for(&bench.machine, What::System, 1, SOON).await.unwrap();
    call.abort();
    bench.face.wait_idle(SOON).await.unwrap();
    bench.face.release(&bench.machine);
    assert!(call.await.unwrap_err().is_cancelled());
    assert!(bench.commands().is_empty());
    assert!(bench.machine.state().on);
}

#[tokio::test]
async fn a_withheld_answer_is_a_deadline_and_the_command_is_not_sent_again() {
    let bench = Bench::new([]).await;
    bench.face.hold(&bench.machine, What::Reset(Command::Off));
    let by = Instant::now() + WHILE;
    let error = bench.client.command(Command::Off, None, by).await.unwrap_err();
    assert_eq!(error, Error::Deadline { doing: "sending ForceOff" });
    assert!(!bench.machine.state().on, "it was carried out nevertheless");
    bench.face.wait_idle(SOON).await.unwrap();
    assert_eq!(bench.commands(), [Command::Off]);
}

#[tokio::test]
async fn a_call_has_one_connection_and_leaves_none() {
    let bench = Bench::new([]).await;
    bench.status().await.unwrap();
    assert_eq!(bench.face.accepted(), 1);
    bench.command(Command::Off).await.unwrap();
    assert_eq!(bench.face.accepted(), 2, "none is kept between calls");
    // Now it is off: its manager is read too.
    bench.power().await;
    assert_eq!(bench.face.accepted(), 3);
    bench.face.wait_idle(SOON).await.unwrap();

    let config = Config { systems_uri: None, ..bench.face.client_config(&bench.machine) };
    Redfish::new(config).unwrap().command(Command::Off, None, Instant::now() + SOON).await.unwrap();
    assert_eq!(bench.face.accepted(), 4, "also where the system has to be found");

    // What the fence-agent command line does: read, off, and read again.
    bench.machine.set_power(true, "test");
    let config = Config { systems_uri: None, ..bench.face.client_config(&bench.machine) };
    let visit = Redfish::new(config).unwrap().visit(Command::Off, Instant::now() + SOON).await.unwrap();
    assert_eq!((visit.before.power, visit.answer), (PowerState::On, Ok(())));
    assert_eq!(visit.after.map(|status| status.power), Some(PowerState::Off));
    assert_eq!(bench.face.accepted(), 5, "an off with its readings");
}

/// A BMC that closes its connections, whether it says so or not, costs new ones, and no command.
#[tokio::test]
async fn a_bmc_that_hangs_up_after_an_answer_is_called_again() {
    for fault in [Fault::SaysClose, Fault::ClosesAfter(1)] {
        for (connections, find) in [(2, false), (4, true)] {
            let bench = Bench::new([fault.clone()]).await;
            let mut config = bench.face.client_config(&bench.machine);
            config.systems_uri = config.systems_uri.filter(|_| !find);
            let (client, by) = (Redfish::new(config).unwrap(), Instant::now() + SOON);
            client.command(Command::Off, None, by).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            assert!(!bench.machine.state().on);
            assert_eq!((bench.commands(), bench.face.accepted()), (vec![Command::Off], connections), "{fault:?}");
            assert_eq!(client.status(by).await.unwrap().power, PowerState::Off, "{fault:?}");
            bench.face.wait_idle(SOON).await.unwrap();
        }
    }
}

/// What was sent may have arrived: on no other connection is it sent again.
#[tokio::test]
async fn a_command_is_sent_on_one_connection_only() {
    for (fault, on) in [(Fault::ClosesAfter(2), true), (Fault::LoseAnswer, false)] {
        let bench = Bench::new([fault.clone()]).await;
        let error = bench.command(Command::Off).await.unwrap_err();
        assert!(matches!(error, Error::NoAnswer { doing: "sending ForceOff", .. }), "{fault:?}: {error}");
        assert_eq!((bench.commands(), bench.face.accepted()), (vec![Command::Off], 1), "{fault:?}");
        assert_eq!(bench.machine.state().on, on, "{fault:?}");
    }
}

#[tokio::test]
async fn a_lie_is_seen_by_looking() {
    let bench = Bench::new([Fault::LieOff]).await;
    bench.command(Command::Off).await.unwrap();
    assert_eq!(bench.power().await, PowerState::On);
    assert!(bench.machine.state().on);
}

#[tokio::test]
async fn hearsay_lasts_until_a_command_is_carried_out() {
    let bench = Bench::new([Fault::HearsayOff]).await;
    assert_eq!(bench.power().await, PowerState::Off);
    assert!(bench.machine.state().on);
    bench.command(Command::Off).await.unwrap();
    bench.command(Command::On).await.unwrap();
    assert_eq!(bench.power().await, PowerState::On);
}

#[tokio::test]
async fn a_lost_answer_is_no_answer() {
    let bench = Bench::new([Fault::Drop]).await;
    assert_eq!(bench.status().await.unwrap_err().label(), "BMCNoAnswer");
    bench.face.set_fault(&bench.machine, Some(Fault::LoseAnswer));
    let error = bench.command(Command::Off).await.unwrap_err();
    assert!(matches!(error, Error::NoAnswer { doing: "sending ForceOff", .. }), "{error}");
    assert!(error.may_pass());
    assert!(!bench.machine.state().on);
    assert_eq!(bench.commands(), [Command::Off], "not sent again");
}

#[tokio::test]
async fn a_refusal_carries_the_vendors_words() {
    let bench = Bench::new([Fault::Refuse { status: 405, times: Some(2) }]).await;
    for _ in 0..2 {
        let error = bench.command(Command::Off).await.unwrap_err();
        let words = "the BMC refused while sending ForceOff (HTTP 405): Base.1.18.ActionNotSupported: \
                     The action is not supported.";
        assert_eq!(error.to_string(), words);
    }
    bench.command(Command::Off).await.unwrap();
    assert_eq!(bench.commands().len(), 3);
}

#[tokio::test]
async fn a_conflict_is_a_refusal() {
    let bench = Bench::new([Fault::Conflict]).await;
    let error = bench.command(Command::Off).await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: 409, .. }), "{error}");
    assert!(bench.machine.state().on);
}

#[tokio::test]
async fn a_bmc_may_refuse_what_it_believes_done() {
    let bench = Bench::new([Fault::AlreadyOffRefusal]).await;
    bench.command(Command::Off).await.unwrap();
    let error = bench.command(Command::Off).await.unwrap_err();
    let Error::Refused { status: 400, code, .. } = &error else { panic!("{error}") };
    assert_eq!(code, "Vendor.2.14.InvalidOperationForSystemState");
    assert_eq!(bench.power().await, PowerState::Off);

    bench.command(Command::On).await.unwrap();
    bench.face.set_faults(&bench.machine, [Fault::AlreadyOffRefusal, Fault::HearsayOff]);
    assert_eq!(bench.command(Command::Off).await.unwrap_err().label(), "BMCRefused");
    assert!(bench.machine.state().on, "refused on hearsay");
}

#[tokio::test]
async fn wrong_credentials_are_tried_once() {
    let bench = Bench::new([]).await;
    let mut config = bench.face.client_config(&bench.machine);
    config.credentials.password = "wrong".to_owned().into();
    let client = Redfish::new(config).unwrap();
    let error = client.command(Command::Off, None, Instant::now() + SOON).await.unwrap_err();
    assert_eq!(error, Error::Auth { doing: "reading the system", status: 401 });
    assert!(!error.may_pass());
    assert_eq!(bench.face.requests().len(), 1);

    bench.face.set_fault(&bench.machine, Some(Fault::Unauthorized));
    assert_eq!(bench.status().await.unwrap_err().label(), "BMCAuthFailed");
    bench.face.set_fault(&bench.machine, Some(Fault::Refuse { status: 403, times: None }));
    let error = bench.command(Command::Off).await.unwrap_err();
    assert_eq!(error, Error::Auth { doing: "sending ForceOff", status: 403 });
}

#[tokio::test]
async fn busy_and_broken_are_told_apart() {
    let pause = Duration::from_secs(7);
    let bench = Bench::new([Fault::Unavailable { retry_after: Some(pause) }]).await;
    let busy = Error::Busy { doing: "reading the system", retry_after: Some(pause) };
    assert_eq!(bench.status().await, Err(busy));
    bench.face.set_fault(&bench.machine, Some(Fault::Fails(500)));
    assert_eq!(bench.status().await, Err(Error::Server { doing: "reading the system", status: 500 }));
    bench.face.set_fault(&bench.machine, Some(Fault::Refuse { status: 503, times: None }));
    assert_eq!(bench.command(Command::Off).await.unwrap_err().label(), "BMCBusy");
}

#[tokio::test]
async fn another_machine_is_never_commanded() {
    let stranger = Uuid::new_v4();
    let bench = Bench::new([Fault::WrongIdentity(stranger)]).await;
    let expected = uuid(bench.machine.uuid());
    let by = Instant::now() + SOON;
    let error = bench.client.command(Command::Off, Some(&expected), by).await.unwrap_err();
    assert_eq!(error, Error::WrongMachine { expected, found: uuid(stranger) });
    assert!(!error.may_pass());
    assert!(bench.commands().is_empty(), "refused before anything was sent");
    assert_eq!(bench.status().await.unwrap().system_uuid, Some(uuid(stranger)));
}

#[tokio::test]
async fn the_same_machine_in_another_byte_order_is_commanded() {
    let bench = Bench::new([]).await;
    let mixed = Uuid::from_bytes(bench.machine.uuid().to_bytes_le());
    bench.face.set_fault(&bench.machine, Some(Fault::WrongIdentity(mixed)));
    let expected = uuid(bench.machine.uuid());
    bench.client.command(Command::Off, Some(&expected), Instant::now() + SOON).await.unwrap();
    assert!(!bench.machine.state().on);
}

#[tokio::test]
async fn a_machine_without_identity_is_commanded_and_says_so() {
    for fault in [Fault::NoIdentity, Fault::WrongIdentity(Uuid::nil())] {
        let bench = Bench::new([fault]).await;
        assert_eq!(bench.status().await.unwrap().system_uuid, None);
        let expected = uuid(bench.machine.uuid());
        bench.client.command(Command::Off, Some(&expected), Instant::now() + SOON).await.unwrap();
        assert!(!bench.machine.state().on);
    }
}

#[tokio::test]
async fn powering_off_is_not_off() {
    let bench = Bench::new([Fault::PoweringOff(WHILE)]).await;
    bench.command(Command::Off).await.unwrap();
    assert_eq!(bench.power().await, PowerState::Other("PoweringOff".into()));
    bench.becomes(false).await;
    assert_eq!(bench.power().await, PowerState::Off);
}

#[tokio::test]
async fn a_late_off_is_accepted_first_and_done_later() {
    let bench = Bench::new([Fault::Late(WHILE)]).await;
    bench.command(Command::Off).await.unwrap();
    assert_eq!(bench.power().await, PowerState::On);
    bench.becomes(false).await;
    assert_eq!(bench.power().await, PowerState::Off);
}

#[tokio::test]
async fn a_power_owner_switches_on_again() {
    let bench = Bench::new([Fault::PowerOwner(WHILE)]).await;
    bench.command(Command::Off).await.unwrap();
    assert!(!bench.machine.state().on);
    bench.becomes(true).await;
    assert_eq!(bench.machine.history().last().unwrap().by, "power owner");
}

#[tokio::test]
async fn a_bmc_that_shares_the_supply_falls_silent() {
    let bench = Bench::new([Fault::DiesWithNode]).await;
    assert_eq!(bench.power().await, PowerState::On);
    bench.machine.set_power(false, "test");
    let silent = bench.client.status(Instant::now() + SHORT).await;
    assert_eq!(silent, Err(Error::Deadline { doing: "reading the system" }));
}

#[tokio::test]
async fn openbmc_must_not_be_contradicted_by_its_chassis() {
    let bench = Bench::new([Fault::OpenBmc, Fault::HearsayOff]).await;
    assert_eq!(bench.power().await, PowerState::Other("Off, but its chassis says On".into()));
    bench.command(Command::Off).await.unwrap();
    assert_eq!(bench.power().await, PowerState::Off);
    assert_eq!(bench.face.count(&bench.machine, What::Manager), 1, "the product is recognised once");

    let other = Bench::new([Fault::HearsayOff]).await;
    assert_eq!(other.power().await, PowerState::Off);
    assert_eq!(other.face.count(&other.machine, What::Chassis), 0, "elsewhere the chassis is not asked");
}

/// What preflight asks: it finds what a command would meet, and sends none.
#[tokio::test]
async fn ready_says_what_a_command_would_meet() {
    const HARD: &[&str] = &["ForceOff", "ForceOn"];
    const GRACEFUL: &[&str] = &["On", "GracefulShutdown"];
    const NO_ON: &[&str] = &["ForceOff"];
    let bench = Bench::new([]).await;
    let lacks = |fault: Option<Fault>| {
        bench.face.set_fault(&bench.machine, fault);
        async {
            let ready = bench.client.ready(Instant::now() + SOON).await.expect("a reading");
            assert_eq!(
                (ready.status.power, ready.status.system_uuid),
                (PowerState::On, Some(uuid(bench.machine.uuid())))
            );
            ready.lacks.map(|error| error.label())
        }
    };
    for well in [None, Some(Fault::Offers(&[])), Some(Fault::OffersInActionInfo(HARD)), Some(Fault::Offers(HARD))] {
        assert_eq!(lacks(well.clone()).await, None, "{well:?}");
    }
    for fault in [Fault::Offers(GRACEFUL), Fault::OffersInActionInfo(GRACEFUL), Fault::Offers(NO_ON), Fault::NoReset] {
        assert_eq!(lacks(Some(fault.clone())).await, Some("BMCResetNotOffered"), "{fault:?}");
    }
    assert_eq!(lacks(Some(Fault::ForeignTarget)).await, Some("BMCForeignLink"));
    bench.face.set_fault(&bench.machine, Some(Fault::Unauthorized));
    let refused = bench.client.ready(Instant::now() + SOON).await.expect_err("no reading");
    assert_eq!(refused.label(), "BMCAuthFailed");
    assert!(bench.commands().is_empty());
}

#[tokio::test]
async fn only_what_is_offered_is_sent() {
    let graceful: &[&str] = &["On", "GracefulShutdown", "PushPowerButton"];
    let refused = |offered: &[&str]| {
        let offered = offered.iter().map(|offer| (*offer).to_owned()).collect();
        Err(Error::NotOffered { want: "ForceOff", offered })
    };
    let bench = Bench::new([Fault::Offers(graceful)]).await;
    assert_eq!(bench.command(Command::Off).await, refused(graceful));
    bench.face.set_fault(&bench.machine, Some(Fault::OffersInActionInfo(graceful)));
    assert_eq!(bench.command(Command::Off).await, refused(graceful));
    bench.face.set_fault(&bench.machine, Some(Fault::NoReset));
    assert_eq!(bench.command(Command::Off).await, refused(&[]));
    assert!(bench.commands().is_empty());

    for offers in [Fault::Offers(&[]), Fault::OffersInActionInfo(&["ForceOff", "ForceOn"])] {
        bench.face.set_fault(&bench.machine, Some(offers));
        bench.command(Command::Off).await.unwrap();
        assert!(!bench.machine.state().on);
        bench.command(Command::On).await.unwrap();
        assert!(bench.machine.state().on);
    }
}

#[tokio::test]
async fn nonsense_is_no_reading() {
    for fault in [Fault::NoPowerState, Fault::Garbage, Fault::Huge] {
        let bench = Bench::new([fault.clone()]).await;
        let error = bench.status().await.unwrap_err();
        assert!(matches!(error, Error::Protocol { doing: "reading the system", .. }), "{fault:?}: {error}");
        assert!(error.to_string().len() < 300, "{error}");
    }
}

#[tokio::test]
async fn a_redirect_on_the_bmc_is_followed_also_by_a_command() {
    for status in [301, 302, 307, 308] {
        let bench = Bench::new([Fault::Redirect(status)]).await;
        assert_eq!(bench.power().await, PowerState::On);
        bench.command(Command::Off).await.unwrap();
        assert!(!bench.machine.state().on, "{status}");
        assert_eq!(bench.commands().len(), 2, "once to each place");
    }
    let bench = Bench::new([Fault::Redirect(303)]).await;
    assert_eq!(bench.command(Command::Off).await.unwrap_err().label(), "BMCProtocolError");
}

#[tokio::test]
async fn credentials_stay_on_the_bmc() {
    let bench = Bench::new([Fault::RedirectElsewhere]).await;
    let error = bench.status().await.unwrap_err();
    assert_eq!(error.label(), "BMCForeignLink");
    bench.face.set_fault(&bench.machine, Some(Fault::ForeignTarget));
    let error = bench.command(Command::Off).await.unwrap_err();
    assert_eq!(error, Error::ForeignLink { doing: "sending ForceOff", link: "https://192.0.2.1/reset".into() });
    assert!(bench.commands().is_empty());
}

#[tokio::test]
async fn an_untrusted_certificate_gets_no_password() {
    for certificate in [Certificate::ForeignAuthority, Certificate::WrongName] {
        let machine = Machine::new("node-1");
        let face = Face::start_with(std::slice::from_ref(&machine), certificate).await.unwrap();
        let read = async |tls: Tls| {
            let client = Redfish::new(Config { tls, ..face.client_config(&machine) }).unwrap();
            client.status(Instant::now() + SOON).await
        };
        let wrong_pin = Tls::Pins { spki_sha256: vec![[7; 32]] };
        for tls in [Tls::Ca(face.ca_pem().into()), Tls::Roots, wrong_pin] {
            let error = read(tls).await.unwrap_err();
            assert_eq!(error.label(), "BMCCertificateUntrusted", "{error}");
            assert!(!error.may_pass());
        }
        assert!(face.requests().is_empty(), "nothing was sent");
        let pinned = Tls::Pins { spki_sha256: vec![[7; 32], face.spki_sha256()] };
        assert_eq!(read(pinned).await.unwrap().power, PowerState::On);
        assert_eq!(read(Tls::Insecure).await.unwrap().power, PowerState::On);
    }
}

#[tokio::test]
async fn what_can_not_be_reached_is_said() {
    let bench = Bench::new([]).await;
    let read = async |port: u16| {
        let base = Url::parse(&format!("https://127.0.0.1:{port}/redfish/v1")).unwrap();
        let config = Config { base, ..bench.face.client_config(&bench.machine) };
        Redfish::new(config).unwrap().status(Instant::now() + SOON).await.unwrap_err()
    };
    let old = OldTls::start().await.unwrap();
    let error = read(old.address().port()).await;
    assert_eq!(error.label(), "BMCTLSTooOld", "{error}");

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let error = read(port).await;
    assert_eq!(error.label(), "BMCUnreachable", "{error}");
}

#[tokio::test]
async fn the_password_is_nowhere_to_be_read() {
    let bench = Bench::new([]).await;
    let password = bench.face.password().expose_secret().to_owned();
    let mut seen = format!("{:?} {:?}", bench.client, bench.face.client_config(&bench.machine));
    for fault in [Fault::Unauthorized, Fault::Drop, Fault::Garbage, Fault::RedirectElsewhere, Fault::NoReset] {
        bench.face.set_fault(&bench.machine, Some(fault));
        for error in [bench.status().await.err(), bench.command(Command::Off).await.err()].into_iter().flatten() {
            seen.push_str(&format!(" {error} {error:?}"));
        }
    }
    assert!(!seen.contains(&password));
}

/// Answers the requests of one kind with just this.
fn answers(what: What, status: u16, location: Option<&str>, body: impl ToString) -> Fault {
    Fault::Answers { what, status, location: location.map(str::to_owned), body: body.to_string() }
}

/// A system of this name that is off.
fn off(name: &str) -> serde_json::Value {
    json!({
        "@odata.id": format!("/redfish/v1/Systems/{name}"),
        "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem",
        "PowerState": "Off",
        "Actions": {"#ComputerSystem.Reset": {
            "target": format!("/redfish/v1/Systems/{name}/Actions/ComputerSystem.Reset")
        }},
    })
}

fn changed(mut system: serde_json::Value, pointer: &str, value: serde_json::Value) -> serde_json::Value {
    *system.pointer_mut(pointer).expect("it is there") = value;
    system
}

#[tokio::test]
async fn what_is_not_the_system_is_no_reading_of_it() {
    let own = off("node-1");
    let with_error =
        json!({"PowerState": "Off", "error": {"@Message.ExtendedInfo": [{"MessageId": "A.1.InternalError"}]}});
    let cases = [
        (200, own.to_string(), true),
        (200, changed(own.clone(), "/@odata.id", json!("/redfish/v1/systems/node-1/")).to_string(), true),
        (200, r#"{"PowerState":"Off"}"#.to_owned(), true),
        (200, off("node-2").to_string(), false),
        (200, changed(own.clone(), "/@odata.type", json!("#Chassis.v1_22_0.Chassis")).to_string(), false),
        (200, with_error.to_string(), false),
        (200, r#"[null,"Off",null]"#.to_owned(), false),
        (200, r#"{"PowerState":"On","PowerState":"Off"}"#.to_owned(), false),
        (200, format!("{own}{own}"), false),
        (202, own.to_string(), false),
        (206, own.to_string(), false),
    ];
    let bench = Bench::new([]).await;
    for (status, body, is_reading) in cases {
        bench.face.set_fault(&bench.machine, Some(answers(What::System, status, None, &body)));
        match bench.status().await {
            Ok(found) => assert!(is_reading && found.power == PowerState::Off, "{status} {body}"),
            Err(error) => assert!(!is_reading && error.label() == "BMCProtocolError", "{status} {body}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_command_goes_to_the_chosen_system_only() {
    let machines: Vec<_> = ["a", "b"].map(Machine::new).to_vec();
    let face = Face::start(&machines).await.unwrap();
    let client = Redfish::new(face.client_config(&machines[0])).unwrap();
    let reset = "/Actions/#ComputerSystem.Reset/target";
    let of_b = "/redfish/v1/Systems/b/Actions/ComputerSystem.Reset";
    let redirected = |status| answers(What::Reset(Command::Off), status, Some(of_b), "");
    let own = "/redfish/v1/Systems/a/Actions/ComputerSystem.Reset";
    let faults = [
        answers(What::System, 200, None, changed(off("a"), reset, json!(of_b))),
        answers(What::System, 200, None, changed(off("a"), reset, json!("/redfish/v1/Systems/a/../b/Actions/X"))),
        answers(What::System, 200, None, changed(off("a"), reset, json!(""))),
        answers(What::System, 200, None, changed(off("a"), reset, json!(null))),
        redirected(302),
        redirected(307),
        redirected(308),
        // The very same place: it would be sent twice.
        answers(What::Reset(Command::Off), 307, Some(own), ""),
    ];
    for fault in faults {
        face.set_fault(&machines[0], Some(fault.clone()));
        let before = face.commands(&machines[0]).len();
        let error = client.command(Command::Off, None, Instant::now() + SOON).await.unwrap_err();
        assert!(["BMCProtocolError", "BMCResetNotOffered"].contains(&error.label()), "{fault:?}: {error}");
        assert!(face.commands(&machines[1]).is_empty(), "{fault:?}");
        assert!(face.commands(&machines[0]).len() <= before + 1, "{fault:?}");
    }
    assert!(machines.iter().all(|machine| machine.state().on));
}

#[tokio::test]
async fn the_only_system_of_a_part_of_a_list_is_not_the_only_one() {
    let member = json!({"@odata.id": "/redfish/v1/Systems/node-1"});
    let bench = Bench::new([]).await;
    let config = Config { systems_uri: None, ..bench.face.client_config(&bench.machine) };
    let client = Redfish::new(config).unwrap();
    for list in [
        json!({"Members": [member], "Members@odata.count": 2}),
        json!({"Members": [member], "Members@odata.nextLink": "/redfish/v1/Systems?$skip=1"}),
        json!({"Members": [member, member]}),
    ] {
        bench.face.set_fault(&bench.machine, Some(answers(What::Systems, 200, None, &list)));
        let error = client.command(Command::Off, None, Instant::now() + SOON).await.unwrap_err();
        assert_eq!(error.label(), "BMCAmbiguousSystem", "{list}");
    }
    assert!(bench.commands().is_empty());
}

#[tokio::test]
async fn a_success_that_reports_an_error_is_a_refusal() {
    let bench = Bench::new([]).await;
    let report =
        |id: &str| json!({"error": {"code": "A.1.See", "@Message.ExtendedInfo": [{"MessageId": id, "Message": "x"}]}});
    let reset = What::Reset(Command::Off);
    bench.face.set_fault(&bench.machine, Some(answers(reset, 200, None, report("A.1.InvalidOperation"))));
    let error = bench.command(Command::Off).await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: 200, .. }), "{error}");
    bench.face.set_fault(&bench.machine, Some(answers(reset, 200, None, report("Base.0.10.Success"))));
    bench.command(Command::Off).await.unwrap();
}

/// An OpenBMC that starts up says Off for no reason, and may not yet know its manager.
#[tokio::test]
async fn an_off_of_an_unknown_product_must_not_be_contradicted_either() {
    for status in [403, 404] {
        let bench = Bench::new([Fault::OpenBmc, Fault::HearsayOff, answers(What::Manager, status, None, "")]).await;
        assert_eq!(bench.power().await, PowerState::Other("Off, but its chassis says On".into()));
        bench.machine.set_power(false, "test");
        assert_eq!(bench.power().await, PowerState::Off);
    }
    let bench =
        Bench::new([Fault::HearsayOff, answers(What::Manager, 404, None, ""), answers(What::Chassis, 404, None, "")])
            .await;
    assert_eq!(bench.status().await.unwrap_err().label(), "BMCRefused");
}

/// A process that is stopped, and goes on after the deadline: nothing is sent any more, wherever it was.
#[test]
fn a_process_that_was_stopped_sends_nothing_after_its_deadline() {
    const STOP: Duration = Duration::from_millis(50);
    let bmc = tokio::runtime::Runtime::new().unwrap();
    let bench = bmc.block_on(Bench::new([]));
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Two calls of some five steps each; before every step the process is stopped for a while.
    for steps in 0..12 {
        let sent = bench.commands().len();
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
                    late = Some(bench.commands().len());
                }
                call.as_mut().poll(cx)
            })
            .await;
            late.map(|sent| (sent, done))
        });
        bmc.block_on(bench.face.wait_idle(SOON)).unwrap();
        if let Some((in_time, done)) = expired {
            assert_eq!(bench.commands().len(), in_time, "{steps}: {done:?}");
        }
        assert!(bench.commands().len() <= sent + 1);
    }
    bmc.shutdown_background();
}

/// Somebody else's service: by the system's own URI, by a name that it redirects, and as the only one.
#[tokio::test]
async fn the_real_sushy_emulator_is_read_and_commanded() {
    let machines = [Machine::new("alpha")];
    let sushy = Sushy::start(&machines).await.unwrap();
    let base = format!("https://{}:{}/redfish/v1", sushy.address(), sushy.port());
    for systems_uri in [Some(sushy.systems_uri(&machines[0])), Some("/redfish/v1/Systems/alpha".into()), None] {
        let client = Redfish::new(Config {
            base: Url::parse(&base).unwrap(),
            systems_uri: systems_uri.clone(),
            credentials: Credentials { username: sushy.username().into(), password: sushy.password().clone() },
            tls: Tls::Ca(sushy.ca_pem().into()),
        })
        .unwrap();
        let expected = uuid(machines[0].uuid());
        for (command, power) in [(Command::Off, PowerState::Off), (Command::On, PowerState::On)] {
            client.command(command, Some(&expected), Instant::now() + SOON).await.unwrap();
            wait::until("the power changes", SOON, || async {
                let status = client.status(Instant::now() + SOON).await?;
                Ok((status.power == power && status.system_uuid == Some(expected)).then_some(()))
            })
            .await
            .unwrap_or_else(|error| panic!("{systems_uri:?}: {error:#}"));
        }
    }
}

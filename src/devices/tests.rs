use std::sync::atomic::{AtomicUsize, Ordering};

use agents::{Credentials, SystemUuid, Tls};
use tokio::sync::oneshot;

use super::*;
use crate::api::Driver;
use crate::isolate::State;

const SECOND: Duration = Duration::from_secs(1);

fn order(address: &str, plug: &str) -> Order {
    Order {
        agent: "fence_redfish".into(),
        driver: Driver::Native,
        address: address.into(),
        plug: Some(plug.into()),
        system_uuid: None,
    }
}

fn bmc() -> Order {
    order("https://bmc:443/redfish/v1", "/redfish/v1/Systems/1")
}

fn access(password: &str) -> Access {
    let credentials = Credentials { username: "admin".into(), password: password.to_owned().into() };
    Access::Redfish { credentials, tls: Tls::Roots }
}

fn sight(state: State, read_at: Instant) -> Sight {
    Sight { state, system_uuid: None, read_at, said: String::new(), label: None, account_refused: false, source: None }
}

fn refused() -> Sight {
    Sight { account_refused: true, ..sight(State::Refused, Instant::now()) }
}

#[test]
fn a_device_is_its_host_and_port() {
    let host = |address, plug| host(&order(address, plug));
    assert_eq!(host("https://bmc/redfish/v1", "/a"), host("https://BMC:443/redfish/v1", "/b"));
    assert_ne!(host("https://bmc/redfish/v1", "/a"), host("https://bmc:8443/redfish/v1", "/a"));
    assert_eq!(host("10.0.0.7:623", "1"), host("10.0.0.7:623", "2"), "two outlets of one PDU");
    assert_eq!(host("[fd00::7]:623", "1"), host("[FD00::7]:623", "1"));
    assert_ne!(host("", "vm-1"), host("", "vm-2"), "a cloud is no BMC");
}

/// A remediation goes first, and nobody speaks while another does.
#[tokio::test]
async fn an_idle_look_gives_way() {
    let (devices, bmc) = (Devices::default(), bmc());
    let (started, has_started) = oneshot::channel();
    let idle = devices.idle(&bmc, SECOND, |_| async {
        let _ = started.send(());
        std::future::pending::<()>().await;
    });
    let urgent = async {
        has_started.await.expect("the idle look has its turn");
        devices.urgent(&bmc, Instant::now() + SECOND, async { 7 }).await
    };
    let other = order("https://other/redfish/v1", "/redfish/v1/Systems/1");
    assert_eq!(tokio::join!(idle, urgent), (None, Some(7)));
    // The gate is free again, and was never shut for another BMC.
    assert_eq!(devices.idle(&bmc, SECOND, |_| async { 8 }).await, Some(8));
    let elsewhere = async { devices.idle(&other, SECOND, |_| async { 9 }).await };
    assert_eq!(devices.urgent(&bmc, Instant::now() + SECOND, elsewhere).await, Some(Some(9)));
}

/// Nor does one begin while a remediation waits or speaks.
#[tokio::test]
async fn an_idle_look_does_not_begin_before_an_urgent_one() {
    let (devices, bmc) = (Devices::default(), bmc());
    let begun = AtomicUsize::new(0);
    let urgent = devices.urgent(&bmc, Instant::now() + SECOND, async {
        let idle = devices.idle(&bmc, SECOND, |_| async { begun.fetch_add(1, Ordering::Relaxed) });
        idle.await
    });
    assert_eq!(urgent.await, Some(None));
    assert_eq!(begun.into_inner(), 0);
}

/// One at a time, however many there are.
#[tokio::test]
async fn nobody_speaks_while_another_does() {
    let (devices, bmc) = (Devices::default(), bmc());
    let (speaking, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let speak = || async {
        most.fetch_max(speaking.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        speaking.fetch_sub(1, Ordering::Relaxed);
    };
    let all = (0..20).map(|_| devices.idle(&bmc, SECOND, |_| speak()));
    assert!(futures::future::join_all(all).await.into_iter().all(|spoke| spoke.is_some()));
    assert_eq!(most.into_inner(), 1);
}

/// One machine of a chassis hangs: its neighbours are fenced all the same, also with idle looks in the queue.
#[tokio::test]
async fn remediations_do_not_wait_for_each_other() {
    let (devices, bmc) = (Devices::default(), bmc());
    let by = Instant::now() + 10 * SECOND;
    let idle = futures::future::join_all((0..5).map(|_| devices.idle(&bmc, SECOND, |_| std::future::pending::<()>())));
    let hung = devices.urgent(&bmc, by, std::future::pending::<()>());
    let others = futures::future::join_all((0..20).map(|number| devices.urgent(&bmc, by, async move { number })));
    let dropped = async { tokio::join!(idle, others) };
    tokio::select! {
        biased;
        _ = hung => panic!("it has no end"),
        (idle, others) = dropped => {
            assert!(idle.iter().all(Option::is_none));
            assert!(others.iter().all(Option::is_some));
        }
    }
}

#[tokio::test]
async fn an_urgent_call_ends_at_its_deadline() {
    let (devices, begun) = (Devices::default(), Instant::now());
    let by = begun + Duration::from_millis(50);
    assert_eq!(devices.urgent(&bmc(), by, std::future::pending::<()>()).await, None);
    assert!(begun.elapsed() < SECOND);
}

/// A process that was stopped meanwhile finds an answer in the socket, and can't tell how long it has lain there.
#[tokio::test(start_paused = true)]
async fn an_answer_after_the_deadline_is_none() {
    let (devices, by) = (Devices::default(), Instant::now() + SECOND);
    let stands_still = async { tokio::time::advance(2 * SECOND).await };
    assert_eq!(devices.urgent(&bmc(), by, stands_still).await, None);
}

/// A wrong password is tried once on a BMC, also if two templates name it, and once more after a change.
#[test]
fn a_refused_account_is_left_alone_until_something_changes() {
    let devices = Devices::default();
    let (one, two) = (bmc(), order("https://bmc/redfish/v1", "/redfish/v1/Systems/2"));
    let wrong = devices.account(&access("wrong"));
    let ask = |order, asker, inputs| Asking { order, account: wrong, asker, inputs };
    assert!(devices.refusal(&ask(&one, "a", "1")).is_none(), "never tried");
    devices.saw(&ask(&one, "a", "1"), None, &refused());
    assert!(devices.refusal(&ask(&one, "a", "1")).is_some());
    assert!(devices.refusal(&ask(&two, "b", "7")).is_some(), "the same account, for another machine of that BMC");
    let elsewhere = order("https://other/redfish/v1", "/");
    assert!(devices.refusal(&ask(&elsewhere, "a", "1")).is_none(), "another BMC may know it");
    let right = Asking { account: devices.account(&access("right")), ..ask(&one, "a", "2") };
    assert!(devices.refusal(&right).is_none(), "another password");

    // The Secret was touched: both see it, and one tries.
    assert!(devices.refusal(&ask(&two, "b", "8")).is_none());
    devices.saw(&ask(&two, "b", "8"), None, &refused());
    assert!(devices.refusal(&ask(&one, "a", "2")).is_some());
    assert!(devices.refusal(&ask(&one, "a", "3")).is_none());

    // Silence says nothing of the account; an answer does.
    devices.saw(&ask(&one, "a", "2"), None, &sight(State::Unknown, Instant::now()));
    assert!(devices.refusal(&ask(&one, "a", "2")).is_some());
    devices.saw(&ask(&one, "c", "1"), None, &sight(State::Isolated, Instant::now()));
    assert!(devices.refusal(&ask(&one, "a", "2")).is_none());
}

#[test]
fn what_is_no_refusal_of_the_account_is_looked_at_again() {
    let devices = Devices::default();
    let bmc = bmc();
    let asking = Asking { order: &bmc, account: devices.account(&access("p")), asker: "a", inputs: "1" };
    devices.saw(&asking, None, &sight(State::Refused, Instant::now())); // an untrusted certificate, say
    assert!(devices.refusal(&asking).is_none());
}

#[test]
fn an_account_does_not_show_its_password() {
    let devices = Devices::default();
    let account = devices.account(&access("s3cr3t"));
    assert_eq!(format!("{account:?}"), "Account");
    assert!(account == devices.account(&access("s3cr3t")) && account != devices.account(&access("s3cr3u")));
    assert!(account != Devices::default().account(&access("s3cr3t")), "each process has a key of its own");
}

/// P2: read On in this boot, and heard ever since.
#[test]
fn a_witness_lasts_as_long_as_the_device_answers() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let boot = Boot { node: "uid", id: "boot" };
    let bmc = bmc();
    // Looks in turn, by second and state, and whether there is a witness then.
    let told = |looks: &[(u64, State)]| {
        let devices = Devices::default();
        let asking = Asking { order: &bmc, account: devices.account(&access("p")), asker: "a", inputs: "1" };
        for (second, state) in looks {
            devices.saw(&asking, Some(boot), &sight(*state, at(*second)));
        }
        devices.witnessed(&bmc, boot, at(looks.last().map_or(0, |look| look.0)))
    };
    use State::{Isolated, Refused, Running, Unknown};
    assert!(!told(&[]));
    assert!(told(&[(0, Running)]));
    assert!(told(&[(0, Running), (30, Running), (66, Isolated), (67, Isolated)]));
    assert!(!told(&[(0, Isolated)]), "never read On");
    assert!(!told(&[(0, Isolated), (1, Isolated)]));
    assert!(!told(&[(0, Running), (1, Unknown), (2, Isolated)]), "it was silent in between");
    assert!(!told(&[(0, Running), (1, Refused), (2, Isolated)]));
    assert!(told(&[(0, Running), (45, Isolated)]));
    assert!(!told(&[(0, Running), (46, Isolated)]), "it may have restarted unseen");
    assert!(!told(&[(0, Running), (46, Isolated), (47, Isolated)]));
    assert!(told(&[(0, Unknown), (100, Running), (101, Isolated)]));
}

#[test]
fn a_witness_is_of_one_order_and_one_boot() {
    let (now, devices) = (Instant::now(), Devices::default());
    let (ours, other) = (bmc(), order("https://bmc:443/redfish/v1", "/redfish/v1/Systems/2"));
    let ask = |order| Asking { order, account: devices.account(&access("p")), asker: "a", inputs: "1" };
    let boot = Boot { node: "uid", id: "boot" };
    devices.saw(&ask(&ours), Some(boot), &sight(State::Running, now));
    assert!(devices.witnessed(&ours, boot, now));
    assert!(!devices.witnessed(&ours, boot, now + WITNESS_GAP + SECOND), "nobody has looked since");
    assert!(!devices.witnessed(&other, boot, now), "another plug");
    assert!(!devices.witnessed(&ours, Boot { id: "next", ..boot }, now), "another boot");
    assert!(!devices.witnessed(&ours, Boot { node: "other", ..boot }, now), "another Node");
    // Off in a boot that it was never read On in.
    devices.saw(&ask(&ours), Some(Boot { id: "next", ..boot }), &sight(State::Isolated, now));
    assert!(!devices.witnessed(&ours, Boot { id: "next", ..boot }, now));
    // A Node that does not say its boot has no witness.
    let mute = Boot { id: "", ..boot };
    devices.saw(&ask(&ours), Some(mute), &sight(State::Running, now));
    assert!(!devices.witnessed(&ours, mute, now));
}

#[test]
fn another_machine_is_no_witness() {
    let (now, devices) = (Instant::now(), Devices::default());
    let uuid = |last: char| format!("33221100-5544-7766-8899-aabbccddeef{last}");
    let ours = Order { system_uuid: Some(uuid('0')), ..bmc() };
    let asking = Asking { order: &ours, account: devices.account(&access("p")), asker: "a", inputs: "1" };
    let boot = Boot { node: "uid", id: "boot" };
    let on = |last| Sight { system_uuid: SystemUuid::parse(&uuid(last)), ..sight(State::Running, now) };
    devices.saw(&asking, Some(boot), &on('0'));
    assert!(devices.witnessed(&ours, boot, now));
    devices.saw(&asking, Some(boot), &on('1'));
    assert!(!devices.witnessed(&ours, boot, now));
}

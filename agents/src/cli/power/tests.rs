//! Against a switch whose answers are written down, with tokio's clock stopped: time passes only where it is waited for.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;
use crate::Status;

const TIMES: Times = Times {
    call: Duration::from_secs(20),
    power_wait: Duration::ZERO,
    sleep: Duration::from_secs(1),
    polls: Some(20),
    on_tries: 2,
};

/// What a reading says, and how long it takes.
type Reading = (Result<PowerState, Error>, Duration);

/// A machine that says what is written, the last of it again and again.
struct Script {
    readings: Mutex<VecDeque<Reading>>,
    refusal: Option<Error>,
    sent: Mutex<Vec<Command>>,
}

impl PowerSwitch for Script {
    async fn status(&self, by: Instant) -> Result<Status, Error> {
        let (said, takes) = {
            let mut readings = self.readings.lock().expect("no panic while held");
            match readings.len() {
                1 => readings[0].clone(),
                _ => readings.pop_front().expect("at least one"),
            }
        };
        sleep_until(by.min(Instant::now() + takes)).await;
        if Instant::now() >= by {
            return Err(Error::Deadline { doing: "reading the system" });
        }
        let power = said?;
        Ok(Status { power, system_uuid: None, read_at: Instant::now(), source: "script".into() })
    }

    async fn command(&self, command: Command, _: Option<&crate::SystemUuid>, _: Instant) -> Result<(), Error> {
        self.sent.lock().expect("no panic while held").push(command);
        self.refusal.clone().map_or(Ok(()), Err)
    }
}

fn script(readings: &[Result<PowerState, Error>]) -> Script {
    let readings = readings.iter().map(|said| (said.clone(), Duration::ZERO)).collect();
    Script { readings: Mutex::new(readings), refusal: None, sent: Mutex::default() }
}

impl Script {
    fn refusing(mut self, error: Error) -> Self {
        self.refusal = Some(error);
        self
    }

    fn sent(&self) -> Vec<Command> {
        self.sent.lock().expect("no panic while held").clone()
    }
}

fn quiet() -> Log {
    Log::open(true, false, None).expect("no file to open")
}

const ON: Result<PowerState, Error> = Ok(PowerState::On);
const OFF: Result<PowerState, Error> = Ok(PowerState::Off);

fn busy() -> Error {
    Error::Busy { doing: "reading the system", retry_after: None }
}

fn refused() -> Error {
    Error::Refused { doing: "sending ForceOff", status: 400, code: "A.1".into(), message: "no".into() }
}

macro_rules! act {
    ($script:expr, $action:ident) => {
        act!($script, $action, TIMES)
    };
    ($script:expr, $action:ident, $times:expr) => {{
        let mut log = quiet();
        Operator { switch: $script, times: $times, log: &mut log }
            .$action()
            .await
            .map_err(|failure| failure.to_string())
    }};
}

#[tokio::test(start_paused = true)]
async fn off_is_sent_also_to_a_machine_that_says_off() {
    let machine = script(&[OFF]);
    assert_eq!(act!(&machine, off), Ok("Success: Already OFF"));
    assert_eq!(machine.sent(), [Command::Off]);

    let machine = script(&[OFF]).refusing(refused());
    assert_eq!(act!(&machine, off), Ok("Success: Already OFF"));
}

#[tokio::test(start_paused = true)]
async fn off_waits_for_exactly_off() {
    let going = Ok(PowerState::Other("PoweringOff".into()));
    let machine = script(&[ON, ON, going.clone(), OFF]);
    assert_eq!(act!(&machine, off), Ok("Success: Powered OFF"));
    assert_eq!(machine.sent(), [Command::Off]);

    let failure = act!(&script(&[ON, going]), off).expect_err("never off");
    assert_eq!(failure, "Timed out waiting to power OFF");
}

#[tokio::test(start_paused = true)]
async fn polls_are_counted_and_so_is_their_time() {
    let began = Instant::now();
    act!(&script(&[ON]), off).expect_err("stays on");
    assert_eq!(began.elapsed(), Duration::from_secs(19), "20 polls, 19 pauses");

    // Each poll takes 6 s: not 20 × (6 + 1), but the limit.
    let mut slow = script(&[ON]);
    slow.readings.get_mut().expect("no panic while held")[0].1 = Duration::from_secs(6);
    let began = Instant::now();
    act!(&slow, off).expect_err("stays on");
    assert!(began.elapsed() <= Duration::from_secs(66), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_there_is_an_end_all_the_same() {
    let began = Instant::now();
    act!(&script(&[ON]), off, Times { polls: None, ..TIMES }).expect_err("stays on");
    assert!(began.elapsed() >= Duration::from_secs(600) && began.elapsed() <= Duration::from_secs(621));
}

#[tokio::test(start_paused = true)]
async fn power_wait_comes_before_the_first_poll() {
    let began = Instant::now();
    let times = Times { power_wait: Duration::from_secs(4), ..TIMES };
    assert_eq!(act!(&script(&[ON, OFF]), off, times), Ok("Success: Powered OFF"));
    assert_eq!(began.elapsed(), Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn a_bmc_that_stumbles_after_the_reset_is_polled_on() {
    let machine = script(&[ON, Err(busy()), Err(busy()), OFF]);
    assert_eq!(act!(&machine, off), Ok("Success: Powered OFF"));
    let failure = act!(&script(&[ON, Err(busy())]), off).expect_err("never said Off");
    assert!(failure.starts_with("Timed out") && failure.contains("busy"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_at_once() {
    let began = Instant::now();
    let machine = script(&[ON]).refusing(refused());
    let failure = act!(&machine, off).expect_err("refused");
    assert!(failure.contains("A.1: no") && !failure.to_lowercase().contains("timed out"), "{failure}");
    assert_eq!((began.elapsed(), machine.sent().len()), (Duration::ZERO, 1));

    let denied = Error::Auth { doing: "reading the system", status: 401 };
    let failure = act!(&script(&[ON, Err(denied)]), off).expect_err("no account");
    assert!(failure.contains("refused the credentials"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_on_the_way_to_the_state_is_none() {
    let going = Ok(PowerState::Other("PoweringOff".into()));
    assert!(act!(&script(&[ON, going.clone(), going, OFF]).refusing(refused()), off).is_ok());
    let lost = Error::NoAnswer { doing: "sending ForceOff", reason: "closed".into() };
    assert!(act!(&script(&[ON, ON, ON, OFF]).refusing(lost), off).is_ok());
}

#[tokio::test(start_paused = true)]
async fn unknown_at_the_start_sends_nothing() {
    for action in ["off", "on", "reboot"] {
        let machine = script(&[Err(busy())]);
        let done = match action {
            "off" => act!(&machine, off),
            "on" => act!(&machine, on),
            _ => act!(&machine, reboot),
        };
        done.expect_err(action);
        assert_eq!(machine.sent(), [], "{action}");
    }
}

#[tokio::test(start_paused = true)]
async fn on_is_sent_again_and_not_to_a_machine_that_is_on() {
    let machine = script(&[OFF]);
    assert_eq!(act!(&machine, on).expect_err("stays off"), "Timed out waiting to power ON");
    assert_eq!(machine.sent(), [Command::On, Command::On]);

    let machine = script(&[ON]);
    assert_eq!(act!(&machine, on), Ok("Success: Already ON"));
    assert_eq!(machine.sent(), []);
}

#[tokio::test(start_paused = true)]
async fn on_is_reached_by_nothing_but_on() {
    let going = Ok(PowerState::Other("PoweringOff".into()));
    act!(&script(&[going]), on).expect_err("not On");
}

#[tokio::test(start_paused = true)]
async fn after_a_verified_off_nothing_makes_a_reboot_fail() {
    for after in [OFF, Err(busy()), Err(Error::Auth { doing: "reading the system", status: 401 })] {
        let machine = script(&[ON, OFF, after]);
        assert_eq!(act!(&machine, reboot), Ok("Success: Rebooted"));
        assert_eq!(machine.sent()[..2], [Command::Off, Command::On]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reboot_gives_no_power_before_off_was_read() {
    let machine = script(&[ON]);
    assert_eq!(act!(&machine, reboot).expect_err("stays on"), "Timed out waiting to power OFF");
    assert_eq!(machine.sent(), [Command::Off]);
}

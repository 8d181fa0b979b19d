//! BMCs as the product meets them, behind the `Isolator` trait.

use std::time::Duration;

use agents::{Command, Error, PowerState, PowerSwitch, Status, SystemUuid};
use ringfence::isolate::{Device, Isolator, PowerIsolator, Workshop};
use tokio::time::{Instant, sleep, sleep_until};

use super::aim::Call;
use super::broken::Broken;
use super::faults::{Manner, Says};
use super::machine::{AGENT_MISSING, broken};
use super::tally::{count, note};
use super::world::{Shared, World};

/// Builds isolators of simulated BMCs, for a replica.
pub struct Bench {
    pub shared: Shared,
    pub replica: usize,
}

impl Workshop for Bench {
    fn build(&self, device: Device<'_>) -> Result<Box<dyn Isolator>, Error> {
        let machine = device.address.strip_prefix("https://bmc-n").and_then(|rest| rest.chars().next());
        let machine = machine.and_then(|digit| digit.to_digit(10)).and_then(|digit| usize::try_from(digit).ok());
        let machine = machine.ok_or_else(|| Error::Config(format!("no machine at {}", device.address)))?;
        if self.shared.enter().machines[machine].bmc.manner == Manner::Broken(AGENT_MISSING) {
            count("label", broken(AGENT_MISSING).label());
            return Err(broken(AGENT_MISSING));
        }
        let switch = Switch { shared: self.shared.clone(), replica: self.replica, machine, expected: device.expect };
        Ok(Box::new(PowerIsolator::new(switch, device.expect)))
    }
}

struct Switch {
    shared: Shared,
    replica: usize,
    machine: usize,
    expected: Option<SystemUuid>,
}

/// Shorter than the time after which Off is read again (P1).
const BLINK: u64 = 450;

/// What a BMC does with a request.
struct Plan {
    connect: u64,
    /// When it happens, after the connection; `None`: it does not.
    lands: Option<u64>,
    /// When it is answered after that; `None`: never.
    answers: Option<u64>,
    error: Option<Error>,
}

impl PowerSwitch for Switch {
    async fn status(&self, by: Instant) -> Result<Status, Error> {
        let doing = "reading the system";
        let plan = self.shared.enter().plan(self.machine, None);
        pause(plan.connect).await;
        let seen = {
            let mut world = self.shared.enter();
            let seen = world.read(self.machine);
            world.strike(self.replica, Call::Look);
            world.replicas[self.replica].looked = plan.answers.map(|after| world.now + after);
            seen
        };
        let seen = plan.error.map_or(seen, Err);
        match plan.answers {
            Some(after) if Instant::now() + Duration::from_millis(after) <= by => pause(after).await,
            Some(_) | None => {
                sleep_until(by).await;
                return self.said(Err(Error::Deadline { doing }));
            }
        }
        let seen = seen.map(|(power, system_uuid)| {
            let source = format!("https://bmc-n{}/redfish/v1/Systems/1", self.machine);
            let world = self.shared.enter();
            let system_uuid = if world.is_broken(Broken::Identity) { self.expected } else { system_uuid };
            let for_ever = Duration::from_secs(if world.is_broken(Broken::Age) { 1_000 } else { 0 });
            Status { power, system_uuid, read_at: Instant::now() + for_ever, source }
        });
        self.said(seen)
    }

    async fn command(&self, command: Command, expect: Option<&SystemUuid>, by: Instant) -> Result<(), Error> {
        let doing = "sending the command";
        let plan = self.shared.enter().plan(self.machine, Some(command));
        pause(plan.connect).await;
        if Instant::now() >= by {
            return self.said(Err(Error::Deadline { doing }));
        }
        {
            let mut world = self.shared.enter();
            world.strike(self.replica, Call::Command);
            let blind = world.is_broken(Broken::Identity);
            if let (Some(expected), Some(found), false) = (expect, world.identity(self.machine), blind)
                && !expected.same_machine(&found)
            {
                let error = Error::WrongMachine { expected: *expected, found };
                return self.said(Err(error));
            }
            world.commanded(self.machine, command, plan.lands);
        }
        match plan.answers {
            Some(after) if Instant::now() + Duration::from_millis(after) <= by => pause(after).await,
            Some(_) | None => {
                sleep_until(by).await;
                return self.said(Err(Error::Deadline { doing }));
            }
        }
        self.said(plan.error.map_or(Ok(()), Err))
    }
}

impl Switch {
    fn said<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &answer {
            count("label", error.label());
        }
        answer
    }
}

impl World {
    /// Draws what becomes of a request.
    fn plan(&mut self, machine: usize, command: Option<Command>) -> Plan {
        let chance = &mut self.chance;
        let (connect, soon) = (chance.within(3, 60), chance.within(5, 80));
        let honest = Plan { connect, lands: Some(soon), answers: Some(soon + 5), error: None };
        let doing = if command.is_some() { "sending the command" } else { "reading the system" };
        let lost = || Error::NoAnswer { doing, reason: "connection reset".to_owned() };
        let failed = |error| Plan { connect, lands: None, answers: Some(soon), error: Some(error) };
        let machine = &self.machines[machine];
        if machine.bmc.dies_with_node && !machine.power {
            let reason = "no route to host".to_owned();
            return failed(Error::Unreachable { address: machine.name.clone(), reason });
        }
        // What is left of `timeout` after the driver's deadline is the device's.
        let lateness = (self.mix.patience * 500).saturating_sub(1_500 + 2 * self.mix.skew).clamp(500, 8_000);
        match machine.bmc.manner {
            Manner::Busy => failed(Error::Busy { doing, retry_after: None }),
            Manner::Locked => failed(Error::Auth { doing, status: 401 }),
            Manner::Broken(kind) => failed(broken(kind)),
            Manner::Slow => Plan { answers: Some(chance.within(300, 3_500)), ..honest },
            Manner::Hang => {
                let lands = chance.percent(50).then_some(soon);
                Plan { answers: None, lands, ..honest }
            }
            Manner::Drop if command.is_some() => failed(lost()),
            Manner::Mute if command.is_some() => Plan { error: Some(lost()), ..honest },
            Manner::Lie if command.is_some() => Plan { lands: None, ..honest },
            Manner::Refuse if command.is_some() => {
                failed(Error::Refused { doing, status: 409, code: String::new(), message: "not now".to_owned() })
            }
            Manner::Late | Manner::Fading | Manner::Blink if command.is_some() => {
                Plan { lands: Some(chance.within(500, lateness)), ..honest }
            }
            Manner::Honest | Manner::Drop | Manner::Mute | Manner::Lie => honest,
            Manner::Refuse | Manner::Late | Manner::Fading | Manner::Blink => honest,
        }
    }

    fn identity(&self, machine: usize) -> Option<SystemUuid> {
        match self.machines[machine].bmc.says {
            Says::Itself => SystemUuid::parse(&self.machines[machine].uuid),
            Says::Another => SystemUuid::parse("99999999-0000-4000-8000-00000000abcd"),
            Says::Nothing => None,
        }
    }

    fn read(&mut self, machine: usize) -> Result<(PowerState, Option<SystemUuid>), Error> {
        let identity = self.identity(machine);
        let now = self.now;
        let power = self.machines[machine].says(now);
        note(|| format!("BMC of n{machine} is asked: {power:?}"));
        Ok((power, identity))
    }

    /// A command has arrived; it is carried out after `lands`.
    fn commanded(&mut self, machine: usize, command: Command, lands: Option<u64>) {
        let now = self.now;
        note(|| format!("BMC of n{machine} is told {command:?}; done after {lands:?} ms"));
        self.judge_command(machine, command);
        let bmc = &mut self.machines[machine].bmc;
        match lands {
            None => bmc.lied |= command == Command::Off,
            Some(after) => {
                bmc.pending.push((now + after, command));
                if bmc.manner == Manner::Fading && command == Command::Off {
                    bmc.fades_until = now + after;
                }
                if bmc.manner == Manner::Blink && command == Command::Off {
                    bmc.blinks_until = now + BLINK.min(after);
                }
            }
        }
    }
}

async fn pause(millis: u64) {
    sleep(Duration::from_millis(millis)).await;
}

//! The actions that switch: off, on, reboot. Success is what was read, never what was answered.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::failure::{Failure, said};
use super::log::Log;
use crate::{Command, Error, PowerState, PowerSwitch};

/// How long an action is polled for where no limit is set: longer than any cluster manager waits for a device, so it is
/// theirs that counts; and an end for an agent whose caller has died.
const NO_LIMIT: Duration = Duration::from_secs(600);

/// What one poll may take beyond the pause between two, before the time of all counts and no longer their number. A
/// reading takes some 100 ms.
const PER_POLL: Duration = Duration::from_secs(1);

/// How long an action waits, and how often it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// One call to the BMC.
    pub(super) call: Duration,
    /// From a command to the first poll.
    pub(super) power_wait: Duration,
    /// Between two polls.
    pub(super) sleep: Duration,
    /// Polls for one command; `None`: as many as there is time for.
    pub(super) polls: Option<u32>,
    /// How often `on` is sent, at most.
    pub(super) on_tries: u32,
}

impl Times {
    /// How long one command has, polls included: next to their number, since each of them may be slow.
    fn limit(&self) -> Duration {
        let polls = self.polls.map_or(NO_LIMIT, |polls| (self.sleep + PER_POLL).saturating_mul(polls));
        (self.call + self.power_wait).saturating_add(polls)
    }
}

/// A machine, and the patience to switch it.
pub(super) struct Operator<'a, S> {
    pub(super) switch: &'a S,
    pub(super) times: Times,
    pub(super) log: &'a mut Log,
}

impl<S: PowerSwitch> Operator<'_, S> {
    /// Reads the power state once.
    pub(super) async fn status(&mut self) -> Result<PowerState, Failure> {
        let by = Instant::now() + self.times.call;
        self.read(by).await.map_err(|error| ("reading the power state", error).into())
    }

    /// Cuts the power. Sent whatever the machine says: an Off that nobody commanded is hearsay (OpenBMC says it of a
    /// hung machine after its own restart, openbmc#2224).
    pub(super) async fn off(&mut self) -> Result<&'static str, Failure> {
        let before = self.look_and_reach(Command::Off).await?;
        Ok(if before == PowerState::Off { "Success: Already OFF" } else { "Success: Powered OFF" })
    }

    /// Gives power, if the machine doesn't say On.
    pub(super) async fn on(&mut self) -> Result<&'static str, Failure> {
        if self.status().await? == PowerState::On {
            return Ok("Success: Already ON");
        }
        self.switch_on().await.map(|()| "Success: Powered ON")
    }

    /// Cuts the power, and gives it again once Off was read. The machine is fenced then: what fails after it is told,
    /// and is no failure.
    pub(super) async fn reboot(&mut self) -> Result<&'static str, Failure> {
        self.look_and_reach(Command::Off).await?;
        if let Err(failure) = self.switch_on().await {
            self.log.error(&failure.to_string());
        }
        Ok("Success: Rebooted")
    }

    async fn switch_on(&mut self) -> Result<(), Failure> {
        for _ in 1..self.times.on_tries {
            match self.reach(Command::On).await {
                Err(failure @ Failure::NotReached { .. }) => self.log.warn(&failure.to_string()),
                done => return done,
            }
        }
        self.reach(Command::On).await
    }

    /// Reads, sends one command whatever was read, and polls until the machine is there: all but further polls in one visit
    /// to the BMC. Returns what was read first.
    async fn look_and_reach(&mut self, command: Command) -> Result<PowerState, Failure> {
        // Three calls.
        let (limit, by) = (Instant::now() + self.times.limit(), Instant::now() + self.times.call * 3);
        self.announce(command);
        let visit = self.switch.visit(command, by).await.map_err(|error| ("reading the power state", error))?;
        self.log.debug(&format!("{} said {:?} before", visit.before.source, visit.before.power));
        let after = visit.after.map(|status| status.power).filter(|_| self.times.power_wait.is_zero());
        self.arrive(command, visit.answer, after, limit).await?;
        Ok(visit.before.power)
    }

    /// Sends one command, once, and polls until the machine is there.
    async fn reach(&mut self, command: Command) -> Result<(), Failure> {
        let limit = Instant::now() + self.times.limit();
        self.announce(command);
        let answer = self.switch.command(command, None, Instant::now() + self.times.call).await;
        self.arrive(command, answer, None, limit).await
    }

    fn announce(&mut self, command: Command) {
        self.log.debug(match command {
            Command::Off => "sending OFF",
            Command::On => "sending ON",
        });
    }

    /// Polls until the machine is where the command sent it; `read`: what was read right after it, if anything was.
    async fn arrive(
        &mut self,
        command: Command,
        answer: Result<(), Error>,
        mut read: Option<PowerState>,
        limit: Instant,
    ) -> Result<(), Failure> {
        let (wanted, doing, state) = match command {
            Command::Off => ("OFF", "switching the machine off", PowerState::Off),
            Command::On => ("ON", "switching the machine on", PowerState::On),
        };
        let mut heard = match answer {
            Ok(()) => None,
            Err(error) => {
                self.log.debug(&format!("{wanted} was not accepted: {}", said(&error)));
                // A BMC that is there already may say so by a refusal; one on its way, too.
                match self.read(limit.min(Instant::now() + self.times.call)).await {
                    Ok(read) if read == state => return Ok(()),
                    Ok(PowerState::Other(_)) if matches!(error, Error::Refused { .. } | Error::IpmiRefused { .. }) => {}
                    Ok(_) | Err(_) if may_have_arrived(&error) => {}
                    Ok(_) | Err(_) => return Err((doing, error).into()),
                }
                Some(error)
            }
        };
        sleep(self.times.power_wait).await;
        let mut polled = 0;
        loop {
            let now = match read.take() {
                Some(read) => Ok(read),
                None => self.read(limit.min(Instant::now() + self.times.call)).await,
            };
            match now {
                Ok(read) if read == state => return Ok(()),
                Ok(_) => {}
                // Many BMCs answer nothing sensible for a while after a reset.
                Err(error) if error.may_pass() => heard = Some(error),
                Err(error) => return Err((doing, error).into()),
            }
            polled += 1;
            let next = Instant::now() + self.times.sleep;
            if self.times.polls.is_some_and(|polls| polled >= polls) || next >= limit {
                return Err(Failure::NotReached { wanted, error: heard });
            }
            sleep_until(next).await;
        }
    }

    async fn read(&mut self, by: Instant) -> Result<PowerState, Error> {
        let read = self.switch.status(by).await;
        match &read {
            Ok(status) => self.log.debug(&format!("{} says {:?}", status.source, status.power)),
            Err(error) => self.log.debug(&format!("no reading: {}", said(error))),
        }
        read.map(|status| status.power)
    }
}

/// Whether the BMC may have got a command in spite of the error, and may carry it out yet.
fn may_have_arrived(error: &Error) -> bool {
    matches!(
        error,
        Error::Deadline { .. }
            | Error::NoAnswer { .. }
            | Error::Busy { .. }
            | Error::Server { .. }
            | Error::Protocol { .. }
    )
}

#[cfg(test)]
mod tests;

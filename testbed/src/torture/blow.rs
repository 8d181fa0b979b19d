//! What befalls the whole cluster: all remediations in flight are hit, each in the phase that it is in.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{sleep, sleep_until};

use super::fault::{Cell, Fault, STRATEGIES};
use super::phase::Phase;
use super::plan::{Blow, Schedule};
use super::round::{Gate, Scene};
use crate::stage::Strategy;

/// Answers are withheld for those that wait, and no call of a driver takes longer than 5 s.
const PATIENCE: Duration = Duration::from_secs(3);
/// A deposed leader's lease lasts for 3 s.
const PAST_THE_LEASE: Duration = Duration::from_secs(4);

impl Scene<'_> {
    /// Deals all blows of a round, one after the other.
    pub(super) async fn strike(&self, schedule: &Schedule) -> Result<()> {
        for (number, (blow, gate)) in schedule.blows.iter().zip(&self.gates).enumerate() {
            let waiting = schedule.plans.iter().filter(|plan| plan.blow == Some(number)).count();
            let struck = self.deal(blow, gate, waiting).await;
            // Whatever went wrong, nobody is to wait for ever.
            gate.open();
            struck?;
        }
        Ok(())
    }

    async fn deal(&self, blow: &Blow, gate: &Gate, waiting: usize) -> Result<()> {
        let control = &self.world.control;
        let behind = match blow.fault {
            Fault::ApiMoved => Some(control.another_apiserver().await?),
            _ => None,
        };
        sleep_until(self.began + blow.after).await;
        if let Some(behind) = &behind {
            // What happens now, it will learn late.
            behind.pause().await?;
        }
        gate.fill(waiting, PATIENCE).await;
        self.count(blow).await?;
        let mut remediator = self.world.remediator.lock().await;
        match (blow.fault, behind) {
            (Fault::OperatorKilled, _) => {
                remediator.kill(blow.all).await?;
                gate.open();
            }
            (Fault::LeaderPaused, _) => {
                gate.open();
                remediator.pause(PAST_THE_LEASE + blow.lasting / 2).await?;
            }
            (Fault::OperatorCutOff, _) => {
                gate.open();
                remediator.cut_off(blow.all, blow.stalls, blow.lasting).await;
            }
            (Fault::ApiRestarted, _) => {
                control.stop_apiserver();
                gate.open();
                control.start_apiserver().await?;
            }
            (Fault::ApiMoved, Some(behind)) => {
                behind.resume().await?;
                remediator.move_to(behind.url());
                gate.open();
                sleep(blow.lasting).await;
                remediator.move_to(&control.url());
            }
            _ => unreachable!("none of the cluster's"),
        }
        self.tell(format!("the cluster: {} is over", blow.fault));
        Ok(())
    }

    /// Counts one injection for each remediation in flight, in its phase.
    async fn count(&self, blow: &Blow) -> Result<()> {
        let own = format!("{}-", self.rack.name());
        let mut met = Vec::new();
        for (name, far) in self.world.remediations.list().await? {
            let strategy = far["spec"]["remediationStrategy"].as_str();
            let strategy = STRATEGIES.into_iter().find(|each| Some(each.name()) == strategy);
            if name.starts_with(&own) {
                let strategy = strategy.unwrap_or(Strategy::ResourceDeletion);
                met.push((name, Cell { fault: blow.fault, phase: Phase::of(&far), strategy }));
            }
        }
        let told: Vec<_> = met.iter().map(|(name, cell)| format!("{name} {}", cell.phase)).collect();
        self.tell(format!(
            "the cluster: {} (all: {}, {:.1?}): {}",
            blow.fault,
            blow.all,
            blow.lasting,
            told.join(", ")
        ));
        let mut matrix = self.matrix.lock().expect("no panic while held");
        met.into_iter().for_each(|(_, cell)| matrix.count(cell));
        Ok(())
    }
}

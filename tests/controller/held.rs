//! Phases, held from outside: by the BMC's face or the attacher, never by a hook in the operator.

use std::time::Duration;

use agents::Command;
use anyhow::Result;
use testbed::bmc::redfish::{Fault, What};

use crate::stage::{Remediation, SOON, Stage, phase_of};

/// A phase, and how the world holds a remediation in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The first look is not answered.
    Accepted,
    /// The off is carried out, its answer withheld.
    Isolating,
    /// The machine takes its time to switch off.
    Proving,
    /// The attacher does not detach.
    Releasing,
    /// The on is carried out, its answer withheld.
    Restoring,
    /// Nothing is left to do.
    Done,
}

pub const ALL: [Held; 6] =
    [Held::Accepted, Held::Isolating, Held::Proving, Held::Releasing, Held::Restoring, Held::Done];

impl Held {
    /// Prepares the world, before the remediation is created.
    pub fn prepare(self, stage: &Stage) {
        match self {
            Held::Accepted => stage.face.hold(stage.victim(), What::System),
            Held::Isolating => stage.face.hold(stage.victim(), What::Reset(Command::Off)),
            Held::Proving => {
                stage.face.set_fault(stage.victim(), Some(Fault::PoweringOff(Duration::from_secs(4))));
            }
            Held::Releasing => stage.rack.attacher().hold(),
            Held::Restoring => stage.face.hold(stage.victim(), What::Reset(Command::On)),
            Held::Done => {}
        }
    }

    /// Waits until the operator is in the phase, and held there.
    pub async fn reached(self, stage: &Stage, far: &Remediation) -> Result<()> {
        let (face, victim) = (&stage.face, stage.victim());
        match self {
            Held::Accepted => face.wait_for(victim, What::System, 1, SOON).await?,
            Held::Isolating => face.wait_for(victim, What::Reset(Command::Off), 1, SOON).await?,
            Held::Restoring => face.wait_for(victim, What::Reset(Command::On), 1, SOON).await?,
            Held::Releasing => {
                far.until("waiting for its volume", SOON, |far| {
                    let blocking = far.status.as_ref().map(|s| s.blocking.clone()).unwrap_or_default();
                    phase_of(far) == "Releasing" && blocking.len() == 1 && blocking[0].starts_with("volumeattachment/")
                })
                .await?;
            }
            Held::Proving | Held::Done => {}
        }
        let name = format!("{self:?}");
        far.phase(&name, SOON).await?;
        Ok(())
    }

    /// Lets the world go on.
    pub fn let_go(self, stage: &Stage) {
        match self {
            Held::Accepted | Held::Isolating | Held::Restoring => stage.face.release(stage.victim()),
            Held::Releasing => stage.rack.attacher().release(),
            Held::Proving | Held::Done => {}
        }
    }
}

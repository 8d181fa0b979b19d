//! One machine's story: it falls ill, is remediated, something befalls it meanwhile, and in the end all must be well.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agents::Command;
use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::Api;
use serde_json::{Value, json};
use tokio::time::{sleep, sleep_until, timeout};

use super::bmc::{Bmc, Held, Trouble};
use super::fault::Fault;
use super::phase::{Phase, condition};
use super::plan::{Contract, Illness, Obstacle, Plan};
use super::remediations::{tell, timeline};
use super::round::Scene;
use super::world::World;
use crate::machine::Machine;
use crate::wait;

/// To the phase in which it is to be met: a halt takes two attempts, of 10 to 20 s.
const REACH: Duration = Duration::from_secs(60);
/// From Accepted to the first look.
const ASKED: Duration = Duration::from_secs(2);
/// From the end of all faults to rest: attempts and patience (10 to 20 s each), 30 s to the next look, an election.
const REST: Duration = Duration::from_secs(150);
/// Pod GC looks every 20 s (podgc's gcCheckPeriod): then whatever a taint has released runs elsewhere.
const COLLECTED: Duration = Duration::from_secs(25);
/// From its deletion until it is gone: the cycle, and `timeout` twice.
const GONE: Duration = Duration::from_secs(150);

/// A machine and what is to happen to it.
pub(super) struct Subject {
    pub(super) machine: Arc<Machine>,
    pub(super) bmc: Arc<Bmc>,
    /// Another way to the same machine, once the order names it.
    pub(super) other: Mutex<Option<Bmc>>,
    pub(super) plan: Plan,
    /// The remediation's name: the Node's, as NHC has it.
    pub(super) name: String,
}

impl Subject {
    pub(super) async fn new(world: &World, machine: &Arc<Machine>, plan: Plan) -> Result<Self> {
        let bmc = Arc::new(Bmc::start(plan.kind, machine, plan.identity).await?);
        let (machine, name, other) = (machine.clone(), machine.name().to_owned(), Mutex::default());
        let subject = Self { machine, bmc, other, plan, name };
        let credentials = match (subject.plan.phase, subject.plan.obstacle) {
            (Phase::Halted, Obstacle::Password) => subject.wrong_password(),
            _ => subject.bmc.credentials(),
        };
        world.secret(&subject.secret(), &credentials).await?;
        if let Some(authority) = subject.bmc.authority() {
            world.secret(&subject.authority(), &json!({"ca.crt": authority})).await?;
        }
        Ok(subject)
    }

    pub(super) fn secret(&self) -> String {
        format!("{}-bmc", self.name)
    }

    fn authority(&self) -> String {
        format!("{}-ca", self.name)
    }

    /// Plays it to the end. What goes wrong is the remediator's violation.
    pub(super) async fn play(&self, scene: &Scene<'_>) {
        if let Err(error) = self.story(scene).await {
            scene.violated(format!("{}: {error:#}", self.name));
            if let Ok(Some(far)) = scene.world.remediations.get(&self.name).await {
                timeline(&far).into_iter().for_each(|line| scene.tell(format!("{}:   {line}", self.name)));
            }
        }
    }

    async fn story(&self, scene: &Scene<'_>) -> Result<()> {
        sleep_until(scene.began + self.plan.after).await;
        scene.tell(format!("{}: {}", self.name, self.plan));
        self.hold(scene);
        self.fall_ill();
        let remediations = &scene.world.remediations;
        remediations.create(&self.name, &self.name, &self.spec(scene.world.contract)).await?;
        tokio::join!(self.hold_looks_after_off(), self.reach(scene, self.plan.phase));
        match (self.plan.fault, self.plan.blow) {
            // It is held until the fault has come, and for a moment longer.
            (Some(fault), _) => tokio::try_join!(self.befall(scene, fault), self.let_go(scene))?.0,
            (None, Some(blow)) => {
                scene.gates[blow].pass().await;
                self.let_go(scene).await?;
            }
            (None, None) => self.let_go(scene).await?,
        }
        self.recover(scene).await?;
        if let Some((fault, phase)) = self.plan.later {
            self.reach(scene, phase).await;
            self.befall(scene, fault).await?;
        }
        let rested = self.rest(scene).await?;
        scene.tell(format!("{}: at rest: {}", self.name, tell(&rested)));
        self.leave(scene, &rested).await
    }

    /// Prepares that it stays in the phase in which it is to be met.
    fn hold(&self, scene: &Scene<'_>) {
        match self.plan.phase {
            Phase::Accepted => self.bmc.hold(Held::Looks),
            Phase::Isolating => self.bmc.hold(Held::Off),
            Phase::Releasing => scene.rack.attacher().hold_node(&self.name),
            Phase::Proving | Phase::Restoring | Phase::Done => {}
            Phase::Halted => match self.plan.obstacle {
                Obstacle::Password => {}
                Obstacle::Refusal => self.bmc.trouble(Some(Trouble::Refuses)),
                Obstacle::Disobedience => self.bmc.trouble(Some(Trouble::Ignores)),
                Obstacle::Silence => self.bmc.trouble(Some(Trouble::Silent)),
            },
        }
    }

    /// The look that Isolating begins with is answered, those of Proving are not.
    async fn hold_looks_after_off(&self) {
        // If no off comes, it will not come to Proving either.
        if self.plan.phase == Phase::Proving && self.bmc.asked(Held::Off, REACH).await.is_ok() {
            self.bmc.hold(Held::Looks);
        }
    }

    /// Waits until it is in a phase, or will never be.
    async fn reach(&self, scene: &Scene<'_>, phase: Phase) {
        let over = |far: &Value| {
            let now = Phase::of(far);
            far.is_null() || now == phase || now.is_rest() || (phase != Phase::Halted && now > phase)
        };
        // Whatever phase it is in then, that is where it is met.
        let _ = scene.world.remediations.until(&self.name, "it does not come there", REACH, over).await;
        if phase == Phase::Accepted {
            let _ = self.bmc.asked(Held::Looks, ASKED).await;
        }
    }

    /// Ends what holds it, after a moment.
    async fn let_go(&self, scene: &Scene<'_>) -> Result<()> {
        sleep(self.plan.linger).await;
        self.bmc.release();
        scene.rack.attacher().release_node(&self.name);
        Ok(())
    }

    /// Ends all that was wrong with it.
    async fn recover(&self, scene: &Scene<'_>) -> Result<()> {
        self.bmc.trouble(None);
        if self.plan.phase == Phase::Halted && self.plan.obstacle == Obstacle::Password {
            scene.world.secret(&self.secret(), &self.bmc.credentials()).await?;
        }
        Ok(())
    }

    fn spec(&self, contract: Contract) -> Value {
        let mut spec = self.bmc.spec(&self.secret(), &self.authority());
        spec["remediationStrategy"] = json!(self.plan.strategy.name());
        spec["retrycount"] = json!(2);
        spec["retryinterval"] = json!("1s");
        spec["releaseTimeout"] = json!("12s");
        // By witness, a missed renewal of the Lease is waited for as well.
        spec["timeout"] = json!(if self.plan.identity { "10s" } else { "20s" });
        if self.plan.stays_off {
            spec["sharedparameters"]["--action"] = json!("off");
        }
        if contract == Contract::Far {
            spec["sharedparameters"]["--ssl-insecure"] = json!("");
            spec["tls"].take();
        }
        spec
    }

    fn fall_ill(&self) {
        match self.plan.illness {
            Illness::Hung => self.machine.hang(),
            Illness::Dark => self.machine.set_power(false, "mains"),
            Illness::Crashed(time) => {
                self.machine.set_power(false, "crash");
                let (machine, bmc) = (self.machine.clone(), self.bmc.clone());
                self.later(time, move || {
                    // One that was told meanwhile to be off is.
                    if !bmc.commands().iter().any(|(_, command)| *command == Command::Off) {
                        machine.set_power(true, "crash");
                    }
                });
            }
            Illness::CutOff(time) => {
                self.machine.hang();
                let machine = self.machine.clone();
                self.later(time, move || machine.heal());
            }
            Illness::None => {}
        }
    }

    fn later(&self, time: Duration, what: impl FnOnce() + Send + 'static) {
        tokio::spawn(async move {
            sleep(time).await;
            what();
        });
    }

    /// Waits until nothing more is to come, and it says why.
    async fn rest(&self, scene: &Scene<'_>) -> Result<Value> {
        let at_rest = |far: &Value| far.is_null() || Phase::of(far).is_rest();
        let far = scene.world.remediations.until(&self.name, "it does not come to rest", REST, at_rest).await?;
        if !far.is_null() {
            let says = |far: &Value| far["status"]["message"].as_str().is_some_and(|message| !message.is_empty());
            let honest = scene.world.contract == Contract::Far || says(&far);
            ensure!(honest, "it is {} and does not say why", Phase::of(&far));
            let succeeded = condition(&far, "Succeeded")["status"].as_str().unwrap_or_default().to_owned();
            scene.lock().ends.push(match Phase::of(&far) {
                Phase::Done => "Done".to_owned(),
                phase => format!("{phase} ({})", far["status"]["operation"]["why"].as_str().unwrap_or(&succeeded)),
            });
        }
        Ok(far)
    }

    /// Deletes it, and looks at what it leaves.
    async fn leave(&self, scene: &Scene<'_>, rested: &Value) -> Result<()> {
        let remediations = &scene.world.remediations;
        if Phase::of(rested) == Phase::Done && self.machine.state().on {
            // NHC deletes it once the node is well; one that hangs on has been left to the cluster until then.
            let mut state = self.machine.watch();
            let _ = timeout(COLLECTED, state.wait_for(|state| !state.on || !state.hung)).await;
        }
        remediations.delete(&self.name).await?;
        remediations.gone(&self.name, GONE).await?;
        scene.tell(format!("{}: gone", self.name));
        let marks = self.marks(scene).await?;
        let left_off = self.was_left_off(rested);
        // Somebody sees to a machine that is honestly left as it is.
        self.machine.heal();
        self.machine.set_power(true, "person");
        ensure!(marks.is_empty(), "left on the Node: {}", marks.join(", "));
        ensure!(!left_off, "the machine was switched off, and left so; {}", tell(rested));
        Ok(())
    }

    /// Its remediation switched it off, and nothing excuses that it still is.
    fn was_left_off(&self, rested: &Value) -> bool {
        let by_a_person = |by: &str| ["person", "mains", "crash"].contains(&by);
        let switched = self.machine.history().last().is_some_and(|change| !change.on && !by_a_person(&change.by));
        let befell = |fault| self.plan.fault == Some(fault) || self.plan.later.is_some_and(|(later, _)| later == fault);
        let given_up = befell(Fault::TimedOut) || befell(Fault::NodeReplaced);
        // The old device does not know the account that the new order has (Known limit 12).
        let locked_out = befell(Fault::OrderEdit);
        let message = rested["status"]["message"].as_str().unwrap_or_default();
        let says_so = message.contains("not be switched on again");
        switched && !self.plan.stays_off && !given_up && !locked_out && !says_so
    }

    /// What is on the Node that only a remediation may have put there.
    async fn marks(&self, scene: &Scene<'_>) -> Result<Vec<String>> {
        let nodes: Api<Node> = Api::all(scene.world.client.clone());
        let node = wait::until("the Node to be read", GONE, || async { Ok(Some(nodes.get_opt(&self.name).await?)) });
        let Some(node) = node.await? else { return Ok(Vec::new()) };
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let ours =
            |key: &String| ["medik8s.io", "ringfence.dev", "out-of-service"].iter().any(|word| key.contains(word));
        let claims = node.annotations().keys().filter(|key| *key == "ringfence.dev/claim").cloned();
        Ok(taints.into_iter().map(|taint| taint.key).filter(ours).chain(claims).collect())
    }
}

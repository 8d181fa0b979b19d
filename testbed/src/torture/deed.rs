//! How a fault is done to a remediation, and undone.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use super::bmc::{Bmc, Kind, Trouble};
use super::fault::{Cell, Fault};
use super::phase::Phase;
use super::round::Scene;
use super::subject::Subject;
use crate::oracle::Excuse;
use crate::wait;

/// An API server that restarts is away for 4 s on an idle machine.
const AWAY: Duration = Duration::from_secs(90);
/// A BMC's own restart, from its last answer to its first: short, for the sake of the round.
const RESTART: Duration = Duration::from_millis(1_500);
/// A proof is good for 2 s (P4), and its write takes its time: who presses the button within that is not noticed (Known
/// limit 8).
const UNNOTICED: SignedDuration = SignedDuration::from_secs(4);

/// Longer than a round.
const FREED: SignedDuration = SignedDuration::from_mins(30);

impl Subject {
    /// Does it to the remediation, and counts it in the phase that it is in at that moment. Ends when it is undone.
    pub(super) async fn befall(&self, scene: &Scene<'_>, fault: Fault) -> Result<()> {
        let Some(far) = scene.world.remediations.get(&self.name).await? else { return Ok(()) };
        let cell = Cell { fault, phase: Phase::of(&far), strategy: self.plan.strategy };
        scene.tell(format!("{}: {fault} in {}, for {:.1?}", self.name, cell.phase, self.plan.lasting));
        scene.matrix.lock().expect("no panic while held").count(cell);
        let done = self.deed(scene, fault).await.with_context(|| format!("doing {fault}"));
        scene.tell(format!("{}: {fault} is over", self.name));
        done
    }

    async fn deed(&self, scene: &Scene<'_>, fault: Fault) -> Result<()> {
        let (world, lasting) = (scene.world, self.plan.lasting);
        let remediations = &world.remediations;
        match fault {
            Fault::BmcSilent => self.trouble(Trouble::Silent).await,
            Fault::BmcHangs => self.trouble(Trouble::Hangs).await,
            Fault::BmcErrors => self.trouble(Trouble::Errors).await,
            Fault::BmcBusy => self.trouble(Trouble::Busy).await,
            Fault::BmcIgnores => self.trouble(Trouble::Ignores).await,
            Fault::BmcLate => self.trouble(Trouble::Late(lasting / 2)).await,
            Fault::BmcRefuses => self.trouble(Trouble::Refuses).await,
            Fault::BmcRestarts => {
                self.bmc.trouble(Some(Trouble::Silent));
                sleep(RESTART).await;
                self.trouble(Trouble::SaysOff).await;
            }
            Fault::WrongPassword => {
                world.secret(&self.secret(), &self.wrong_password()).await?;
                sleep(lasting).await;
                world.secret(&self.secret(), &self.bmc.credentials()).await?;
            }
            Fault::SecretReplaced => {
                world.no_secret(&self.secret()).await?;
                sleep(lasting / 4).await;
                world.secret(&self.secret(), &self.bmc.credentials()).await?;
            }
            Fault::KubeletCut if self.machine.state().hung => self.machine.heal(),
            Fault::KubeletCut => self.silenced(lasting).await,
            Fault::HarmlessEdit => {
                let change = json!({"spec": {"retrycount": 3, "retryinterval": "2s", "releaseTimeout": "13s"}});
                remediations.patch(&self.name, &change).await?;
            }
            Fault::OrderEdit => self.another_device(scene).await?,
            Fault::Deleted => remediations.delete(&self.name).await?,
            Fault::TimedOut => {
                let stamp = json!({"remediation.medik8s.io/nhc-timed-out": Timestamp::now().to_string()});
                remediations.patch(&self.name, &json!({"metadata": {"annotations": stamp}})).await?;
            }
            Fault::NodeReplaced => self.replace_node(scene).await?,
            Fault::PowerButton if self.machine.state().on => self.machine.set_power(false, "person"),
            Fault::PowerButton => self.press(scene).await?,
            Fault::PowerOwner => self.owned(scene, lasting).await?,
            Fault::OperatorKilled
            | Fault::LeaderPaused
            | Fault::OperatorCutOff
            | Fault::ApiRestarted
            | Fault::ApiMoved => unreachable!("the cluster's"),
        }
        Ok(())
    }

    async fn trouble(&self, trouble: Trouble) {
        self.bmc.trouble(Some(trouble));
        sleep(self.plan.lasting).await;
        self.bmc.trouble(None);
    }

    pub(super) fn wrong_password(&self) -> Value {
        let mut data = self.bmc.credentials();
        data["--password"] = json!("not-this-one");
        data
    }

    /// Whenever its kubelet could speak, it can't.
    async fn silenced(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.machine.watch();
        while timeout_at(until, state.wait_for(|state| state.on && !state.hung)).await.is_ok() {
            self.machine.hang();
        }
        self.machine.heal();
    }

    /// The order names another BMC of the same machine.
    async fn another_device(&self, scene: &Scene<'_>) -> Result<()> {
        let other = Bmc::start(Kind::Redfish, &self.machine, self.plan.identity).await?;
        let (secret, authority) = (format!("{}-other", self.secret()), format!("{}-both", self.name));
        let both = [self.bmc.authority(), other.authority()].map(Option::unwrap_or_default).join("\n");
        scene.world.secret(&secret, &other.credentials()).await?;
        scene.world.secret(&authority, &json!({"ca.crt": both})).await?;
        let spec = other.spec(&secret, &authority);
        self.other.lock().expect("no panic while held").replace(other);
        let change = json!({"spec": {
            "nodeparameters": spec["nodeparameters"], "sharedSecretName": spec["sharedSecretName"], "tls": spec["tls"],
        }});
        scene.world.remediations.patch(&self.name, &change).await
    }

    /// The Node is deleted, and its kubelet, which starts anew, finds another under its name.
    async fn replace_node(&self, scene: &Scene<'_>) -> Result<()> {
        let nodes: Api<Node> = Api::all(scene.world.client.clone());
        // That frees the volumes of whatever runs on the machine, now or after its next boot; whoever did it is to blame.
        self.excuse(scene, Timestamp::now(), FREED, "somebody deleted the Node");
        wait::until("the Node to be replaced", AWAY, || async {
            let Some(old) = nodes.get_opt(&self.name).await? else { return Ok(Some(())) };
            let labels = old.metadata.labels.clone();
            nodes.delete(&self.name, &DeleteParams::default()).await?;
            let new = json!({"metadata": {
                "name": self.name, "labels": labels,
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            }});
            nodes.create(&PostParams::default(), &serde_json::from_value(new)?).await?;
            Ok(Some(()))
        })
        .await?;
        self.machine.hang();
        // Long enough for the kubelet to notice that it is to end.
        sleep(Duration::from_millis(200)).await;
        self.machine.heal();
        Ok(())
    }

    /// Someone switches the machine on.
    async fn press(&self, scene: &Scene<'_>) -> Result<()> {
        let nodes: Api<Node> = Api::all(scene.world.client.clone());
        let node = wait::until("the Node to be read", AWAY, || async { Ok(Some(nodes.get_opt(&self.name).await?)) });
        let taints = node.await?.and_then(|node| node.spec).and_then(|spec| spec.taints).unwrap_or_default();
        let pressed = Timestamp::now();
        self.machine.set_power(true, "power button");
        if !taints.iter().any(|taint| taint.effect == "NoExecute") {
            self.excuse(scene, pressed, UNNOTICED, "somebody pressed the power button before there was a barrier");
        }
        Ok(())
    }

    /// Somebody else wants the machine on, for a while.
    async fn owned(&self, scene: &Scene<'_>, time: Duration) -> Result<()> {
        let until = Instant::now() + time + time;
        let mut state = self.machine.watch();
        while timeout_at(until, state.wait_for(|state| !state.on)).await.is_ok() {
            sleep(time / 10).await;
            self.press(scene).await?;
        }
        Ok(())
    }

    fn excuse(&self, scene: &Scene<'_>, from: Timestamp, lasting: SignedDuration, reason: &'static str) {
        scene.excuse(Excuse { machine: self.name.clone(), from, until: Some(from + lasting), reason });
    }
}

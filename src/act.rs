//! Carries out one decision: one status write, or one effect. Makes no choices.
//!
//! Everything here is cancelled by drop when the lease is lost; a dropped write or command leaves the world unknown, and
//! `decide` copes.

mod accept;
mod record;

use std::time::Duration;

use futures::future::{join, join_all, try_join_all};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::{Driver, FINALIZER, FenceAgentsRemediation};
use crate::breaker::{self, Breaker};
use crate::clock::{Clock, millis};
use crate::cluster::{self, call};
use crate::confirm::{self, Judgement};
use crate::decide::{Effect, Millis, Phase, Power, Step, Time, Why, Word};
use crate::devices::Devices;
use crate::events::{Events, Kind};
use crate::marks;
use crate::observe::{Device, Memories, Scene};
use crate::release::{self, Release, Undeleted};
use crate::status::{self, Standing};
use crate::story::{self, About, Told};

/// How long a power command may take: it reads the system, its reset action, then posts; a BMC under load takes 1 to 3 s
/// for each. At the deadline the connection is aborted, never drained.
const COMMAND: Duration = Duration::from_secs(10);
/// The same for a script: it logs in (5 s, upstream's login_timeout), sends, and waits for the power to go itself (20 s, its
/// power_timeout).
const SCRIPT_COMMAND: Duration = Duration::from_secs(30);

/// The longest that an API server works at a request that it has accepted (kube-apiserver, --request-timeout).
const REQUEST: Millis = 60_000;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something was done, or had changed meanwhile: look again at once.
    Went,
    /// Nothing is to be done for this long.
    Wait(Duration),
    /// The remediation is over.
    Over,
}

/// Carries out decisions.
pub struct Actor<'a> {
    /// To the API server.
    pub client: &'a Client,
    /// The clocks.
    pub clock: &'a Clock,
    /// Where events go.
    pub events: &'a Events,
    /// What this process remembers between looks.
    pub memories: &'a Memories,
    /// What it remembers of devices.
    pub devices: &'a Devices,
    /// Counts the remediations that begin.
    pub breaker: &'a Breaker,
}

impl Actor<'_> {
    /// Carries out one step.
    ///
    /// # Errors
    /// The API server's; whatever was to be done is decided again.
    pub async fn act(&self, scene: Scene, step: Step) -> Result<Outcome, cluster::Error> {
        match step {
            Step::Enter(phase) => self.enter(&scene, phase).await,
            Step::Do(effect) => self.effect(&scene, effect).await,
            Step::Send { power, answered, silent } => {
                let heard = self.send(&scene, power).await;
                self.enter(&scene, if heard { answered } else { silent }).await
            }
            Step::Wait(pause) => self.wait(&scene, pause).await,
            Step::Finished => {
                let others: Vec<_> =
                    scene.far.finalizers().iter().map(String::as_str).filter(|f| *f != FINALIZER).collect();
                self.set_finalizers(&scene.far, &others).await?;
                self.say(
                    &scene.far,
                    None,
                    About::Remediation,
                    Kind::Normal,
                    "RemoveFinalizer",
                    "Finalizer was removed",
                );
                self.memories.forget(&scene.far.uid().unwrap_or_default());
                Ok(Outcome::Over)
            }
        }
    }

    /// Writes a phase by compare-and-swap, with everything that people and NHC read of it.
    async fn enter(&self, scene: &Scene, phase: Phase) -> Result<Outcome, cluster::Error> {
        let mut far = scene.far.clone();
        let uid = far.uid().unwrap_or_default();
        let now = self.clock.timestamp();
        let generation = far.metadata.generation;
        let rests = rests(scene.case.phase, phase);
        let (answer, moment) = (self.memories.answer(&uid), self.clock.now());
        let told = story::tell(scene, phase, answer.as_deref(), moment);
        let status = far.status.get_or_insert_default();
        status::enter(status, phase, now);
        if !rests {
            record::record(&mut far, scene, phase, answer.as_deref(), moment);
            let status = far.status.get_or_insert_default();
            status::tell(status, &told.message, scene.blocking.clone(), now);
            let standing = Standing {
                phase,
                released: story::is_release(scene, phase),
                restored: scene.case.policy.restore && was_off(scene.case.phase),
                code: told.code,
                message: &told.message,
                proof: story::proof(scene),
                asked: scene.case.word != Word::Void,
                generation,
            };
            status::conditions(&mut status.conditions, standing, now);
        }
        self.write_status(&far).await?;
        if !rests {
            tracing::info!(phase = status::name(phase), code = told.code, "{}", told.message);
            for (about, kind, reason, note) in story::events(scene, phase, &told) {
                self.say(&scene.far, scene.node.as_ref(), about, kind, reason, &note);
            }
        }
        Ok(Outcome::Went)
    }

    /// Sends a command to all devices of the level at once; true if each accepted it.
    async fn send(&self, scene: &Scene, power: Power) -> bool {
        let uid = scene.far.uid().unwrap_or_default();
        self.memories.commanded(&uid);
        let sent = scene.devices.iter().map(|device| self.command(scene, device, power));
        let answers = join_all(sent).await;
        let said: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).map(String::as_str).collect();
        self.memories.answered(&uid, Some(said.join("; ")).filter(|said| !said.is_empty()));
        !answers.is_empty() && said.is_empty()
    }

    /// Sends a command to one device.
    async fn command(&self, scene: &Scene, device: &Device, power: Power) -> Result<(), String> {
        let order = &device.order;
        // S2: what is left of `timeout` after the deadline is the device's own lateness.
        let longest = match order.driver {
            // Nothing is sent: what is entered next asks the person.
            Driver::Person => return Ok(()),
            Driver::Script => SCRIPT_COMMAND,
            Driver::Native => COMMAND,
        };
        let Some(isolator) = &device.isolator else {
            return Err("spec and Secrets give no way to reach the device".to_owned());
        };
        // Counted from when the remediation was read: this process, or the API server, may have stood still since.
        let by = scene.asked + longest.min(Duration::from_millis(scene.case.policy.patience / 2));
        if by <= Instant::now() {
            return Err("not sent: what it was decided on had become too old".to_owned());
        }
        let command = match power {
            Power::Off => isolator.isolate(by),
            Power::On => isolator.restore(by),
        };
        // The device keeps its own deadline; this one holds whatever it does.
        let answer = self.devices.urgent(order, by, command).await;
        let answer = answer.unwrap_or(Err(agents::Error::Deadline { doing: "sending the command" }));
        match answer {
            Ok(()) => {
                tracing::info!(?power, address = order.address, plug = order.plug, "the command was accepted");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(?power, code = error.label(), "the command was not accepted: {error}");
                Err(error.to_string())
            }
        }
    }

    async fn effect(&self, scene: &Scene, effect: Effect) -> Result<Outcome, cluster::Error> {
        let Some(node) = &scene.node else { return Ok(Outcome::Went) };
        let uid = scene.far.uid().unwrap_or_default();
        let entry = scene.far.status.as_ref().and_then(|s| s.operation.as_ref()).map_or(0, |op| op.entry);
        let now = self.clock.timestamp();
        let release = Release { client: self.client, clock: self.clock };
        let out_of_service = story::out_of_service(scene);
        let saying = story::effect(scene, &effect);
        let done = match effect {
            Effect::Claim => self.patch(node, marks::claim(node, &uid, now)).await.map_err(Into::into),
            Effect::Admit => self.admit(scene, node).await.map_err(Into::into),
            Effect::Judge => self.judge(scene).await.map_err(Into::into),
            Effect::Bar(proof) => release.bar(node, marks::bar(node, out_of_service, now), proof).await,
            Effect::Delete(proof) => {
                let (undeleted, done) = release.delete(&self.memories.in_order(&uid, &scene.pods), proof).await;
                for Undeleted { uid: pod, why, refused } in undeleted {
                    self.memories.undeleted(&uid, pod, why, refused);
                }
                done
            }
            Effect::Detach(proof) => release.detach(node, proof).await,
            Effect::Retract => self.retract(scene, node, &uid, entry).await.map_err(Into::into),
            Effect::Seal => self.seal(scene, node, &uid, entry).await.map_err(Into::into),
            Effect::HandOver => match &scene.heir {
                Some(heir) => self.patch(node, marks::hand_over(node, heir)).await.map_err(Into::into),
                None => Ok(()),
            },
            Effect::Unclaim => self.patch(node, marks::unclaim(node, &uid, entry)).await.map_err(Into::into),
        };
        match done {
            Ok(()) => {
                if let Some((about, kind, reason, note)) = saying {
                    self.say(&scene.far, Some(node), about, kind, reason, &note);
                }
                Ok(Outcome::Went)
            }
            // Somebody was faster, or the proof is too old: nothing was done, and looking again is all there is to do.
            Err(release::Error::Expired) => Ok(Outcome::Went),
            Err(release::Error::Cluster(error)) => Err(error),
        }
    }

    /// Writes the verdicts where people have spoken, before any of them counts.
    async fn judge(&self, scene: &Scene) -> Result<(), cluster::Error> {
        for (judgement, word) in &scene.said.judged {
            confirm::write_verdict(self.client, word, judgement, self.clock.now().wall).await?;
            let kind = match judgement {
                Judgement::Accepted | Judgement::Denied => Kind::Normal,
                Judgement::Refused(_) => Kind::Warning,
            };
            let note = format!("the confirmation {} of {}: {}", word.name_any(), word.spec.by, judgement.message());
            tracing::info!(code = judgement.reason(), "{note}");
            self.say(&scene.far, None, About::Remediation, kind, judgement.reason(), &note);
        }
        Ok(())
    }

    async fn admit(&self, scene: &Scene, node: &Node) -> Result<(), cluster::Error> {
        if self.breaker.admit(self.client, &scene.far, node, self.clock.now().wall).await? {
            let note = format!(
                "the breaker opened: too many nodes were fenced in a short time; no other is until it is closed, which deleting ConfigMap {}/{} does",
                self.breaker.namespace,
                breaker::NAME,
            );
            tracing::warn!("{note}");
            self.say(&scene.far, None, About::Remediation, Kind::Warning, "BreakerOpened", &note);
        }
        Ok(())
    }

    /// Nothing is to be done; but what is waited for may have changed, and people read it.
    async fn wait(&self, scene: &Scene, pause: Duration) -> Result<Outcome, cluster::Error> {
        let Some(status) = &scene.far.status else { return Ok(Outcome::Wait(pause)) };
        match scene.case.phase {
            Phase::Releasing { .. } if status.blocking != scene.blocking => {
                let mut far = scene.far.clone();
                let status = far.status.get_or_insert_default();
                status::tell(status, &story::releasing(scene), scene.blocking.clone(), self.clock.timestamp());
                self.write_status(&far).await?;
            }
            // It waits for something else now: one cause was put right, and the next one shows.
            phase @ Phase::Halted { why: Why::Unresolved | Why::Busy | Why::Held(_) | Why::Unconfirmed, .. } => {
                let told = story::tell(scene, phase, None, self.clock.now());
                if status.message.as_deref() != Some(&told.message) {
                    self.tell_again(scene, phase, &told).await?;
                }
            }
            Phase::Accepted | Phase::Isolating { .. } | Phase::Proving { .. } | Phase::Releasing { .. } => {}
            Phase::Restoring { .. } | Phase::Done { .. } | Phase::Halted { .. } => {}
        }
        Ok(Outcome::Wait(pause))
    }

    /// Says anew why it halted; the phase stays.
    async fn tell_again(&self, scene: &Scene, phase: Phase, told: &Told) -> Result<(), cluster::Error> {
        let mut far = scene.far.clone();
        let (now, generation) = (self.clock.timestamp(), far.metadata.generation);
        let status = far.status.get_or_insert_default();
        status::tell(status, &told.message, scene.blocking.clone(), now);
        let (code, message) = (told.code, told.message.as_str());
        let (proof, asked) = (story::proof(scene), scene.case.word != Word::Void);
        let standing = Standing { phase, released: false, restored: false, code, message, proof, asked, generation };
        status::conditions(&mut status.conditions, standing, now);
        self.write_status(&far).await?;
        self.say(&scene.far, None, About::Remediation, Kind::Warning, told.code, &told.message);
        Ok(())
    }

    /// Takes the barrier down. With it, whatever is still on its way to a pod of the set: one that tolerates the barrier may run by
    /// the time it arrives (S2). Where that fails the barrier comes down all the same, and a seal follows with the next phase.
    async fn retract(&self, scene: &Scene, node: &Node, uid: &str, entry: i64) -> Result<(), cluster::Error> {
        let (retracted, sealed) = join(self.patch(node, marks::retract(node)), self.seal_pods(scene, uid, entry)).await;
        if let Err(error) = sealed {
            tracing::warn!("the pods of a node that lives could not be sealed: {}", error.story());
        }
        retracted
    }

    /// A real write to each pod left of the set, then to the Node, so that whatever was decided before fails (S2).
    async fn seal(&self, scene: &Scene, node: &Node, uid: &str, entry: i64) -> Result<(), cluster::Error> {
        self.seal_pods(scene, uid, entry).await?;
        self.patch(node, marks::seal(node, uid, entry)).await
    }

    async fn seal_pods(&self, scene: &Scene, uid: &str, entry: i64) -> Result<(), cluster::Error> {
        let seal = format!("{uid}/{entry}");
        let op = scene.far.status.as_ref().and_then(|status| status.operation.as_ref());
        let since = op.and_then(|op| op.phase_since.as_ref()).map_or(0, |since| millis(since.0));
        let arrived = since.saturating_add(scene.case.policy.patience);
        let pods: Vec<_> = scene.pods.iter().map(|pod| self.seal_pod(pod, &seal, arrived)).collect();
        try_join_all(pods).await.map(drop)
    }

    /// The UID keeps a replacement of the same name out of it. A pod that may not be written at all is left to time: when
    /// whatever was on its way to it has `arrived`. One that can't be written now, for whatever reason, gets an API server's
    /// longest request more: what such a server has still in hand may be ours. (A webhook for it may run on this very node,
    /// which is switched on only then.)
    async fn seal_pod(&self, pod: &Pod, seal: &str, arrived: Time) -> Result<(), cluster::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let mark = json!({ "metadata": { "uid": pod.uid(), "annotations": { marks::SEAL: seal } } });
        let patch = Patch::Merge(mark);
        let now = self.clock.now().wall;
        match call("sealing a pod", api.patch(&pod.name_any(), &PatchParams::default(), &patch)).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) if now > if error.is_refused() { arrived } else { arrived.saturating_add(REQUEST) } => {
                tracing::warn!(
                    pod = pod.name_any(),
                    error = error.story(),
                    "this pod can't be sealed: going on without"
                );
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn patch(&self, node: &Node, patch: Value) -> Result<(), cluster::Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        call("writing the Node", api.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(patch))).await?;
        Ok(())
    }

    async fn write_status(&self, far: &FenceAgentsRemediation) -> Result<(), cluster::Error> {
        let api = self.remediations(far);
        call("writing the status", api.replace_status(&far.name_any(), &PostParams::default(), far)).await?;
        Ok(())
    }

    async fn set_finalizers(&self, far: &FenceAgentsRemediation, all: &[&str]) -> Result<(), cluster::Error> {
        let metadata = json!({ "resourceVersion": far.resource_version(), "finalizers": all });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let api = self.remediations(far);
        call("writing the finalizers", api.patch(&far.name_any(), &PatchParams::default(), &patch)).await?;
        Ok(())
    }

    fn remediations(&self, far: &FenceAgentsRemediation) -> Api<FenceAgentsRemediation> {
        Api::namespaced(self.client.clone(), &far.namespace().unwrap_or_default())
    }

    fn say(
        &self,
        far: &FenceAgentsRemediation,
        node: Option<&Node>,
        about: About,
        kind: Kind,
        reason: &str,
        note: &str,
    ) {
        let about = match (about, node) {
            // Events on Nodes carry the name as UID: the kubelet's custom, and what `kubectl describe node` looks for.
            (About::Node, Some(node)) => ObjectReference { uid: node.metadata.name.clone(), ..node.object_ref(&()) },
            (About::Node, None) | (About::Remediation, _) => far.object_ref(&()),
        };
        self.events.publish(&about, kind, reason, note);
    }
}

/// Tells whether the machine may have been off in this phase.
fn was_off(phase: Phase) -> bool {
    match phase {
        Phase::Restoring { .. } | Phase::Halted { why: Why::NotRestored, .. } => true,
        Phase::Accepted | Phase::Isolating { .. } | Phase::Proving { .. } | Phase::Releasing { .. } => false,
        Phase::Done { .. } | Phase::Halted { .. } => false,
    }
}

/// Tells whether only the rest of Done or Halted is noted: no news for anybody, and nothing of what it halted over is
/// overwritten.
fn rests(from: Phase, to: Phase) -> bool {
    match (from, to) {
        (Phase::Done { .. }, Phase::Done { .. }) => true,
        (Phase::Halted { why: before, .. }, Phase::Halted { why: after, rest, .. }) => {
            before == after && rest.quiet.is_some_and(|quiet| quiet > 0)
        }
        _ => false,
    }
}

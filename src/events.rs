//! Kubernetes events: published in the background, so that a slow API server delays no fencing.

use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::cluster::call;

/// Waiting events; one remediation makes about twelve. What is over is dropped, and logged.
const QUEUE: usize = 1024;
/// FAR's, and what its users filter for.
const PREFIX: &str = "[remediation] ";
const CONTROLLER: &str = "fence-agents-remediation.medik8s.io/ringfence";
/// The API server's limit for a note, in bytes.
const NOTE_MAX: usize = 1024;

/// Whether somebody may have to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody.
    Normal,
    /// Somebody.
    Warning,
}

/// Takes events to publish.
#[derive(Clone, Debug)]
pub struct Events {
    clock: Clock,
    instance: String,
    queue: mpsc::Sender<Event>,
}

/// Publishes what [`Events`] takes; see [`Publisher::run`].
#[derive(Debug)]
pub struct Publisher(mpsc::Receiver<Event>);

impl Events {
    /// Makes both ends. `instance` names this process.
    pub fn new(clock: Clock, instance: String) -> (Self, Publisher) {
        let (queue, published) = mpsc::channel(QUEUE);
        (Self { clock, instance, queue }, Publisher(published))
    }

    /// Queues an event about an object.
    pub fn publish(&self, about: &ObjectReference, kind: Kind, reason: &str, note: &str) {
        let now = self.clock.timestamp();
        // Events of cluster-scoped objects live in `default`.
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = format!("{}.{:x}", about.name.as_deref().unwrap_or("ringfence"), now.as_nanosecond());
        let mut note = format!("{PREFIX}{note}");
        note.truncate(note.floor_char_boundary(NOTE_MAX));
        let event = Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            action: Some(reason.to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(note),
            reason: Some(reason.to_owned()),
            regarding: Some(about.clone()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(match kind {
                Kind::Normal => "Normal".to_owned(),
                Kind::Warning => "Warning".to_owned(),
            }),
            ..Event::default()
        };
        if self.queue.try_send(event).is_err() {
            tracing::warn!(reason, "too many events: one was dropped");
        }
    }
}

impl Publisher {
    /// Publishes for ever. An event that can't be published is logged and dropped: nothing waits for it.
    pub async fn run(self, client: Client) {
        let queue =
            futures::stream::unfold(self.0, |mut queue| async { queue.recv().await.map(|event| (event, queue)) });
        let publish = |event: Event| {
            let api: Api<Event> =
                Api::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or("default"));
            async move {
                if let Err(error) = call("publishing an event", api.create(&PostParams::default(), &event)).await {
                    tracing::warn!(reason = event.reason, error = error.story(), "an event was lost");
                }
            }
        };
        queue.for_each_concurrent(4, publish).await;
    }
}

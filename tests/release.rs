//! The three effects of a release, down to the requests that they send: each licensed by a proof that still holds, each
//! conditional on what was read before it. The API server is a tower service of ours under tokio's paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::client::Body;
use ringfence::clock::Clock;
use ringfence::decide::{
    Case, Claim, Effect, FIRST, Identity, Leave, Levels, Now, Off, Order, Phase, Pods, Policy, Proof, Reading, Step,
    Volumes, Word, decide,
};
use ringfence::marks;
use ringfence::release::{Error, Release};
use serde_json::{Value, json};

/// P4: with a proof that has expired, nothing at all is sent.
#[tokio::test(start_paused = true)]
async fn an_expired_proof_licenses_nothing() {
    let stage = Stage::new(|_, _| (200, json!({})));
    let (bar, delete, detach) = (stage.proof(Want::Bar), stage.proof(Want::Delete), stage.proof(Want::Detach));
    tokio::time::advance(Duration::from_millis(2_001)).await;
    let release = stage.release();
    let node = node();
    assert!(matches!(release.bar(&node, marks::bar(&node, true, now()), bar).await, Err(Error::Expired)));
    assert!(matches!(release.delete(&[pod("a")], delete).await.1, Err(Error::Expired)));
    assert!(matches!(release.detach(&node, detach).await, Err(Error::Expired)));
    assert_eq!(stage.sent(), []);
}

/// P4: it is asked again before each write: one that expires between the two writes of a pod licenses only the first.
#[tokio::test(start_paused = true)]
async fn a_proof_is_asked_before_each_write() {
    let stage = Stage::new(|_, _| (200, json!({"metadata": {"name": "a", "resourceVersion": "8"}})));
    let proof = stage.proof(Want::Delete);
    stage.slow_by(Duration::from_millis(2_001));
    assert!(matches!(stage.release().delete(&[pod("a")], proof).await.1, Err(Error::Expired)));
    let sent: Vec<_> = stage.sent().into_iter().map(|request| request.0).collect();
    assert_eq!(sent, [Method::PATCH], "marked Failed, and not deleted");
}

/// R3, S2: marked Failed and deleted with grace 0, both only if the pod is the one that was read.
#[tokio::test(start_paused = true)]
async fn a_pod_is_deleted_as_it_was_read() {
    let stage = Stage::new(|_, _| (200, json!({"metadata": {"name": "a", "resourceVersion": "8"}})));
    let (undeleted, done) = stage.release().delete(&[pod("a")], stage.proof(Want::Delete)).await;
    done.expect("accepted");
    assert!(undeleted.is_empty(), "{undeleted:?}");
    let [(patch, path, failed), (delete, at, options)] = &stage.sent()[..] else { panic!("{:?}", stage.sent()) };
    assert_eq!((patch, path.as_str()), (&Method::PATCH, "/api/v1/namespaces/ns/pods/a/status"));
    assert_eq!(failed["metadata"], json!({"uid": "uid-a", "resourceVersion": "7"}));
    assert_eq!(failed["status"]["phase"], "Failed");
    assert_eq!(failed["status"]["conditions"][0]["type"], "DisruptionTarget");
    assert_eq!((delete, at.as_str()), (&Method::DELETE, "/api/v1/namespaces/ns/pods/a"));
    assert_eq!(options["gracePeriodSeconds"], 0);
    assert_eq!(
        options["preconditions"],
        json!({"uid": "uid-a", "resourceVersion": "8"}),
        "as it is after the first write"
    );
}

/// R3: a pod that somebody else was faster with, and one that may not be touched, hold up no other.
#[tokio::test(start_paused = true)]
async fn one_pod_holds_up_no_other() {
    let stage = Stage::new(|_, path| {
        let status = |code: u16, reason: &str| {
            (code, json!({"kind": "Status", "code": code, "reason": reason, "message": reason}))
        };
        match path {
            path if path.contains("/conflict") => status(409, "Conflict"),
            path if path.contains("/gone") => status(404, "NotFound"),
            path if path.contains("/denied") => status(403, "Forbidden"),
            path if path.contains("/down") => status(500, "InternalError"),
            _ => (200, json!({"metadata": {"name": "a", "resourceVersion": "8"}})),
        }
    });
    let pods = ["conflict", "gone", "down", "denied", "free"].map(pod);
    let (undeleted, done) = stage.release().delete(&pods, stage.proof(Want::Delete)).await;
    assert!(matches!(done, Err(Error::Cluster(_))), "{done:?}");
    let mut held: Vec<_> = undeleted.iter().map(|pod| (pod.uid.as_str(), pod.refused)).collect();
    held.sort_unstable();
    assert_eq!(held, [("uid-denied", true), ("uid-down", false)]);
    assert!(stage.sent().iter().any(|(method, path, _)| method == Method::DELETE && path.ends_with("/free")));
}

/// R1, R4, S2: barrier and detach carry the resourceVersion that was read before the proof.
#[tokio::test(start_paused = true)]
async fn node_writes_are_conditional() {
    let stage = Stage::new(|_, _| (200, json!({"metadata": {"name": "node"}})));
    let node = node();
    let release = stage.release();
    release.bar(&node, marks::bar(&node, false, now()), stage.proof(Want::Bar)).await.expect("accepted");
    release.detach(&node, stage.proof(Want::Detach)).await.expect("accepted");
    let [(_, bar, barred), (_, detach, detached)] = &stage.sent()[..] else { panic!("{:?}", stage.sent()) };
    assert_eq!((bar.as_str(), detach.as_str()), ("/api/v1/nodes/node", "/api/v1/nodes/node/status"));
    assert_eq!(barred["metadata"]["resourceVersion"], "7");
    assert_eq!(detached, &json!({"metadata": {"resourceVersion": "7"}, "status": {"volumesInUse": null}}));
}

/// A request that arrived: method, path, body.
type Sent = (Method, String, Value);

/// An API server that answers as it is told, and a clock.
struct Stage {
    client: Client,
    clock: Clock,
    sent: Arc<Mutex<Vec<Sent>>>,
    delay: Arc<Mutex<Duration>>,
}

/// Which proof.
#[derive(Clone, Copy)]
enum Want {
    Bar,
    Delete,
    Detach,
}

impl Stage {
    fn new(answer: impl Fn(&Method, &str) -> (u16, Value) + Clone + Send + 'static) -> Self {
        let (sent, delay) = (Arc::<Mutex<Vec<Sent>>>::default(), Arc::<Mutex<Duration>>::default());
        let (log, slow) = (sent.clone(), delay.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (answer, log, slow) = (answer.clone(), log.clone(), slow.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let path = parts.uri.path().to_owned();
                let (code, reply) = answer(&parts.method, &path);
                log.lock().expect("not poisoned").push((
                    parts.method,
                    path,
                    serde_json::from_slice(&body).unwrap_or_default(),
                ));
                let delay = *slow.lock().expect("not poisoned");
                tokio::time::sleep(delay).await;
                let status = StatusCode::from_u16(code).expect("a status code");
                let reply = Body::from(serde_json::to_vec(&reply).expect("plain data"));
                Ok::<_, kube::Error>(Response::builder().status(status).body(reply).expect("a response"))
            }
        });
        Self { client: Client::new(service, "default"), clock: Clock::simulated(now()), sent, delay }
    }

    fn release(&self) -> Release<'_> {
        Release { client: &self.client, clock: &self.clock }
    }

    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().expect("not poisoned").clone()
    }

    /// Lets each answer take that long.
    fn slow_by(&self, delay: Duration) {
        *self.delay.lock().expect("not poisoned") = delay;
    }

    /// A proof as only `decide` makes one: from an Off of this very moment.
    fn proof(&self, want: Want) -> Proof {
        let at = self.clock.now();
        let (barrier, pods) = match want {
            Want::Bar => (false, Pods::Untouched),
            Want::Delete => (true, Pods::Untouched),
            Want::Detach => (true, Pods::Gone),
        };
        match decide(&proven(barrier, pods, at), at) {
            Step::Do(Effect::Bar(proof) | Effect::Delete(proof) | Effect::Detach(proof)) => proof,
            other => panic!("no proof: {other:?}"),
        }
    }
}

/// A machine that was switched off by us, read On before, and Off since; the right one.
fn proven(barrier: bool, pods: Pods, at: Now) -> Case {
    let off = Off { at: at.wall, answered: true, seen_on: true, level: FIRST };
    Case {
        policy: Policy {
            attempts: 5,
            patience: 60_000,
            gap: 5_000,
            release_timeout: 60_000,
            settle: 0,
            max_age: 2_000,
            renewal: 15_000,
            restore: true,
        },
        phase: Phase::Releasing { attempt: 1, off, since: at.wall },
        leave: Leave::No,
        order: Order::Same,
        edited: false,
        reading: Reading::Isolated { first: at.mono, last: at.mono },
        partly: false,
        nobody: false,
        identity: Identity::Same,
        word: Word::NotAsked,
        levels: Levels { now: FIRST, top: Some(FIRST), ..Levels::default() },
        other_on: false,
        life: 0,
        hold: None,
        admitted: true,
        witnessed: false,
        claim: Claim::Ours,
        heir: false,
        barrier,
        sealed: false,
        pods,
        volumes: Volumes::InUse,
    }
}

fn node() -> Node {
    serde_json::from_value(json!({"metadata": {"name": "node", "resourceVersion": "7"}})).expect("a Node")
}

fn pod(name: &str) -> Pod {
    let metadata = json!({"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "resourceVersion": "7"});
    serde_json::from_value(json!({"metadata": metadata, "status": {"phase": "Running"}})).expect("a Pod")
}

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("in range")
}

//! The API server as a client meets it: a tower service with latency, faults and lag.

use std::time::Duration;

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tower::BoxError;

use super::aim::Call;
use super::broken::Broken;
use super::cluster::Write;
use super::store::{Key, Part, Refusal, key};
use super::tally::{count, note};
use super::world::{Shared, World, text};

/// Longer than a caller waits.
const NEVER: u64 = 30_000;

/// Makes the client of a replica.
pub fn client(shared: &Shared, replica: usize) -> Client {
    let shared = shared.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let shared = shared.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let asked = Asked::new(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default(), &body);
            let (answer, answered) = oneshot::channel();
            // Once it is in the socket, it arrives, whatever becomes of the caller.
            tokio::spawn(serve(shared, replica, asked, answer));
            match answered.await {
                Ok((code, body)) => Ok::<_, BoxError>(response(code, &body)?),
                Err(_) => Err("connection reset".into()),
            }
        }
    });
    Client::new(service, super::world::NAMESPACE)
}

struct Asked {
    method: Method,
    key: Key,
    part: Part,
    query: String,
    body: Value,
}

/// What becomes of a call.
struct Fate {
    arrives: u64,
    answers: u64,
    /// Refused on arrival, with this status.
    error: Option<u16>,
    /// Nobody will hear of it.
    lost: bool,
    /// It arrives even if its sender has gone.
    surely: bool,
}

async fn serve(shared: Shared, replica: usize, asked: Asked, answer: oneshot::Sender<(u16, Value)>) {
    let (fate, sent) = {
        let mut world = shared.enter();
        (world.fate(replica, &asked), world.now)
    };
    sleep(Duration::from_millis(fate.arrives)).await;
    if answer.is_closed() && !fate.surely && shared.enter().chance.percent(50) {
        return;
    }
    let done = {
        let mut world = shared.enter();
        match fate.error {
            Some(code) => (code, refused(code)),
            None => {
                world.asked = sent;
                world.answer(replica, &asked)
            }
        }
    };
    if done.0 >= 400 {
        count("api", &format!("{} {}", asked.method, done.0));
    }
    note(|| {
        let lost = if fate.lost { ", nobody hears of it" } else { "" };
        format!(
            "  replica {replica}: {} {} {} {:?} -> {}{lost}",
            asked.method, asked.key.0, asked.key.2, asked.part, done.0
        )
    });
    sleep(Duration::from_millis(if fate.lost && fate.answers > 0 { NEVER } else { fate.answers })).await;
    if !fate.lost {
        let _ = answer.send(done);
    }
}

impl World {
    fn fate(&mut self, replica: usize, asked: &Asked) -> Fate {
        let writes = asked.method != Method::GET;
        let cut_off = self.now < self.replicas[replica].cut_off_until;
        let (chance, mix) = (&mut self.chance, &self.mix);
        let (arrives, answers) = (chance.within(0, 3), chance.within(0, 2));
        let mut fate = Fate { arrives, answers, error: None, lost: false, surely: false };
        if chance.permille(mix.slow) {
            (fate.arrives, fate.answers) = (chance.within(0, 2_500), chance.within(0, 2_500));
        }
        if writes && chance.permille(mix.late) {
            let longest = if chance.percent(20) { 150_000 } else { 40_000 };
            fate.arrives = chance.within(4_000, longest);
        }
        let stands = self.replicas[replica].stands_until;
        if self.now < stands && chance.percent(50) {
            (fate.arrives, fate.surely) = (stands - self.now, chance.percent(70));
        }
        if chance.permille(mix.errors) {
            let codes: &[u16] = if writes { &[409, 429, 500, 503] } else { &[410, 429, 500, 503] };
            fate.error = Some(chance.of(codes));
        }
        if cut_off || chance.permille(mix.lost) {
            fate.lost = true;
            // Either the connection breaks, or nothing is ever heard.
            fate.answers = chance.within(0, 1);
        }
        if cut_off {
            fate.error = Some(503);
        }
        let struck = self.named(&asked.method, &asked.key, asked.part, &asked.body);
        if let Some(later) = struck.and_then(|call| self.strike(replica, call)) {
            (fate.arrives, fate.error, fate.surely) = (later, None, true);
        }
        fate
    }

    fn answer(&mut self, replica: usize, asked: &Asked) -> (u16, Value) {
        if let Some(call @ (Call::Bar | Call::Free | Call::FailPod | Call::DeletePod)) =
            self.named(&asked.method, &asked.key, asked.part, &asked.body)
        {
            self.judge_release(replica, call);
        }
        let lag = if self.mix.lag > 0 { self.chance.within(0, self.mix.lag) } else { 0 };
        let at = self.now.saturating_sub(lag);
        let Asked { method, key, part, query, body } = asked;
        let guarded = self.mix.broken.map(|broken| broken.guards(key, *part, body));
        let body = guarded.as_ref().unwrap_or(body);
        let done = match *method {
            Method::GET if key.0 == "apis" => return (200, self.groups(&key.2)),
            Method::GET if key.2.is_empty() => return (200, self.list(key, query, at)),
            Method::GET => {
                let found =
                    self.store.get(key, at).map_or_else(|| (404, refused(404)), |found| (200, (*found).clone()));
                return if self.mix.broken.is_some() { self.told(replica, asked, found) } else { found };
            }
            Method::POST if key.0 == "events" => return (201, body.clone()),
            Method::POST => self.write(key, Write::Create(body)),
            Method::PUT => self.write(key, Write::Replace(body, *part)),
            Method::PATCH => self.write(key, Write::Patch(body, *part)),
            Method::DELETE => self.write(key, Write::Delete(&body["preconditions"])),
            _ => Err(Refusal(405)),
        };
        match done {
            Ok(object) => (200, (*object).clone()),
            Err(Refusal(code)) => (code, refused(code)),
        }
    }

    /// What a broken API server answers instead.
    fn told(&mut self, replica: usize, asked: &Asked, found: (u16, Value)) -> (u16, Value) {
        let (reread, pulse) = (self.is_broken(Broken::Reread), self.is_broken(Broken::Pulse));
        let call = self.named(&asked.method, &asked.key, asked.part, &asked.body);
        let governor = &mut self.replicas[replica];
        match call {
            Some(Call::ReadPulse) => {
                governor.felt = true;
                match found {
                    (200, mut lease) if pulse => {
                        lease["metadata"]["resourceVersion"] = json!("1");
                        (200, lease)
                    }
                    found => found,
                }
            }
            Some(Call::ReadRemediation) if std::mem::take(&mut governor.felt) && reread => governor
                .told
                .clone()
                .filter(|far| far["metadata"]["name"] == asked.key.2)
                .map_or(found, |far| (200, far)),
            Some(Call::ReadRemediation) if found.0 == 200 => {
                governor.told = Some(found.1.clone());
                found
            }
            _ => found,
        }
    }

    fn list(&self, key: &Key, query: &str, at: u64) -> Value {
        let namespace = Some(key.1.as_str()).filter(|namespace| !namespace.is_empty());
        let wanted = query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector=")).unwrap_or_default();
        let wanted = wanted.replace("%3D", "=");
        let fits = |object: &Value| match wanted.split_once('=') {
            Some(("spec.nodeName", node)) => object["spec"]["nodeName"] == node,
            Some(("metadata.name", name)) => object["metadata"]["name"] == name,
            Some(_) | None => true,
        };
        let items: Vec<_> = self.store.list(&key.0, namespace, at).into_iter().filter(|object| fits(object)).collect();
        let items: Vec<&Value> = items.iter().map(|object| &**object).collect();
        json!({ "metadata": { "resourceVersion": self.store.version().to_string() }, "items": items })
    }

    /// Discovery, as far as it is asked for.
    fn groups(&self, group: &str) -> Value {
        let version = json!({ "groupVersion": "self-node-remediation.medik8s.io/v1alpha1", "version": "v1alpha1" });
        match group {
            "" if self.foreign => json!({ "groups": [{
                "name": "self-node-remediation.medik8s.io",
                "versions": [version],
                "preferredVersion": version,
            }] }),
            "" => json!({ "groups": [] }),
            _ => json!({ "groupVersion": text(&version["groupVersion"]), "resources": [{
                "name": "selfnoderemediations",
                "kind": "SelfNodeRemediation",
                "namespaced": true,
                "singularName": "",
                "verbs": ["list"],
            }] }),
        }
    }
}

impl Asked {
    fn new(method: &Method, path: &str, query: &str, body: &[u8]) -> Self {
        let mut segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let asked =
            |key, part| Asked { method: method.clone(), key, part, query: query.to_owned(), body: body.clone() };
        if segments.first() == Some(&"apis") && segments.len() <= 3 {
            return asked(key("apis", "", segments.get(1).unwrap_or(&"")), Part::Main);
        }
        segments.drain(..if segments[0] == "api" { 2 } else { 3 });
        let namespace = match segments.as_slice() {
            ["namespaces", namespace, _, ..] => {
                let namespace = (*namespace).to_owned();
                segments.drain(..2);
                namespace
            }
            _ => String::new(),
        };
        let part = if segments.get(2) == Some(&"status") { Part::Status } else { Part::Main };
        let name = match (method, segments.get(1)) {
            (_, Some(name)) => (*name).to_owned(),
            (&Method::POST, None) => text(&body["metadata"]["name"]).to_owned(),
            (_, None) => String::new(),
        };
        asked(key(segments[0], &namespace, &name), part)
    }
}

fn refused(code: u16) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code })
}

fn response(code: u16, body: &Value) -> Result<Response<Body>, BoxError> {
    Ok(Response::builder().status(code).body(Body::from(serde_json::to_vec(body)?))?)
}

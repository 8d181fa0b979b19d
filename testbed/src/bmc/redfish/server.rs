//! The wire of a face: TLS, HTTP, and the faults that happen there.

use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use http::{Method, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::door::Port;
use super::fault::Fault;
use super::request::{Request, What};
use super::unit::{Unit, Verdict};
use super::{Shared, tree};

/// A client on loopback shakes hands in milliseconds; one that was stopped shall not keep a connection for ever.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bodies of requests: a Reset is some 30 bytes.
const MAX_BODY: usize = 16 << 10;

type Answer = Response<Full<Bytes>>;

/// The connection ends without an answer.
#[derive(Debug)]
struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closing without an answer")
    }
}

impl std::error::Error for Dropped {}

/// Serves for ever, or until its port is lost.
pub(super) async fn run(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) -> Result<()> {
    let address = listener.local_addr().context("reading the port of the Redfish face")?;
    let (mut port, mut wanted) = (Port::Open(listener), shared.wanted.subscribe());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            // Never an error: `shared` keeps the sender.
            _ = wanted.changed() => {
                let door = *wanted.borrow_and_update();
                connections.shutdown().await;
                drop(port);
                port = Port::new(address, door).await?;
                shared.door.send_replace(door);
            }
            accepted = port.accept() => if let Ok(stream) = accepted {
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                // As web servers do: else an answer waits for the acknowledgement of what came before it, some 40 ms.
                let _ = stream.set_nodelay(true);
                let open = Open::new(&shared.connections);
                connections.spawn(serve(stream, tls.clone(), shared.clone(), open));
            }
        }
    }
}

/// Counts a connection while it lives.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|open| *open += 1);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// Counts a request while it is answered: whoever asks has its answer later than that.
struct Answering<'a>(&'a Shared);

impl<'a> Answering<'a> {
    fn new(shared: &'a Shared) -> Self {
        let now = shared.answering.fetch_add(1, Ordering::Relaxed) + 1;
        shared.most.fetch_max(now, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(mut stream: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>, _open: Open) {
    if !shared.units.is_empty() && shared.units.values().all(|unit| unit.is_dead()) {
        return swallow(&mut stream).await;
    }
    let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await else { return };
    let asked = AtomicUsize::new(0);
    let service = service_fn(|request| answer(request, &shared, asked.fetch_add(1, Ordering::Relaxed)));
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection of the Redfish face ended");
    }
}

/// Keeps silent until the peer hangs up.
async fn swallow(stream: &mut TcpStream) {
    let mut buffer = [0; 1024];
    while matches!(stream.read(&mut buffer).await, Ok(read) if read > 0) {}
}

/// Answers a request; `before` is how many came before it on this connection.
async fn answer(request: http::Request<Incoming>, shared: &Arc<Shared>, before: usize) -> Result<Answer, Dropped> {
    let _answering = Answering::new(shared);
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| Dropped)?.to_bytes();
    let path = head.uri.path();
    let what = What::of(&head.method, path, &body);
    let unit = shared.unit_of(path).cloned();
    let machine = unit.as_ref().map(|unit| unit.machine.name().to_owned());
    shared.log.send_modify(|log| log.push(Request { at: Timestamp::now(), machine, what }));

    let credentials = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let may_enter = what == What::Root || shared.authorised(credentials);
    let Some(unit) = unit else {
        return Ok(if may_enter { collection(what, shared) } else { unauthorized() });
    };
    let closes = |fault: &Fault| matches!(fault, Fault::ClosesAfter(answers) if before >= *answers);
    if unit.faults().iter().any(closes) {
        return Err(Dropped);
    }
    let mut answer = match interference(&unit, what, path).await? {
        Some(answer) => answer,
        None if !may_enter => unauthorized(),
        None if head.method == Method::POST => command(&unit, what, shared).await?,
        None => {
            // A sleep of no time takes tokio's next tick, a millisecond.
            let delay = unit.delay();
            if !delay.is_zero() {
                sleep(delay).await;
            }
            unit.released(what).await;
            resource(&unit, what, shared)
        }
    };
    if unit.faults().contains(&Fault::SaysClose) {
        answer.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    Ok(answer)
}

/// What comes between a request and its answer.
async fn interference(unit: &Arc<Unit>, what: What, path: &str) -> Result<Option<Answer>, Dropped> {
    if unit.is_dead() {
        return std::future::pending().await;
    }
    let is_get = !matches!(what, What::Reset(_));
    for fault in unit.faults() {
        let answer = match fault {
            Fault::Drop => return Err(Dropped),
            Fault::Hang => return std::future::pending().await,
            Fault::Unauthorized if what != What::Root => unauthorized(),
            Fault::Unavailable { retry_after } => unavailable(retry_after),
            Fault::Fails(code) => status(code),
            Fault::Redirect(code) if !path.ends_with('/') => redirect(code, &format!("{path}/")),
            Fault::RedirectElsewhere => redirect(307, &format!("https://192.0.2.1{path}")),
            Fault::Garbage if is_get => document(200, "<html>Please wait</html>".into()),
            Fault::Huge if is_get => document(200, vec![b' '; 2 << 20].into()),
            Fault::Answers { what: which, status, location, body } if which == what => {
                let mut answer = document(status, body.into());
                if let Some(Ok(location)) = location.map(header::HeaderValue::try_from) {
                    answer.headers_mut().insert(header::LOCATION, location);
                }
                answer
            }
            Fault::Unauthorized | Fault::Redirect(_) | Fault::Garbage | Fault::Huge | Fault::Answers { .. } => continue,
            // Those of the connection were met above, the others are the unit's and the tree's.
            Fault::SaysClose
            | Fault::ClosesAfter(_)
            | Fault::Slow(_)
            | Fault::LieOff
            | Fault::HearsayOff
            | Fault::LoseAnswer
            | Fault::Dead
            | Fault::DiesWithNode
            | Fault::Refuse { .. }
            | Fault::Conflict
            | Fault::AlreadyOffRefusal
            | Fault::WrongIdentity(_)
            | Fault::NoIdentity
            | Fault::PoweringOff(_)
            | Fault::Late(_)
            | Fault::PowerOwner(_)
            | Fault::OpenBmc
            | Fault::Offers(_)
            | Fault::OffersInActionInfo(_)
            | Fault::NoReset
            | Fault::NoPowerState
            | Fault::ForeignTarget => continue,
        };
        return Ok(Some(answer));
    }
    Ok(None)
}

/// Carries out a command in a task of its own: what was received is done, also when the sender hangs up.
async fn command(unit: &Arc<Unit>, what: What, shared: &Arc<Shared>) -> Result<Answer, Dropped> {
    let Some(command) = what.command() else {
        return Ok(json(400, &tree::error("Base.1.18.ActionParameterNotSupported", "No such action or parameter.")));
    };
    let (tell, told) = oneshot::channel();
    let (delay, unit_told, tasks) = (unit.delay(), unit.clone(), shared.clone());
    let carry_out = move || {
        // An error means that there is nobody to tell: the connection is gone.
        let _ = tell.send(unit_told.command(command, &tasks));
    };
    if delay.is_zero() {
        carry_out();
    } else {
        shared.spawn(async move {
            sleep(delay).await;
            carry_out();
        });
    }
    let verdict = told.await.map_err(|_| Dropped)?;
    unit.released(what).await;
    if unit.faults().contains(&Fault::LoseAnswer) {
        return Err(Dropped);
    }
    Ok(match verdict {
        Verdict::Accepted => status(204),
        Verdict::Refused(code, id, message) => json(code, &tree::error(id, message)),
    })
}

fn resource(unit: &Unit, what: What, shared: &Shared) -> Answer {
    let (name, faults) = (unit.machine.name(), unit.faults());
    match what {
        What::Root | What::Systems => collection(what, shared),
        What::System => json(200, &tree::system(name, &unit.belief(), &faults)),
        What::ActionInfo => json(200, &tree::action_info(name, &faults)),
        What::Chassis => json(200, &tree::chassis(name, unit.machine.state().on, &faults)),
        What::Manager => json(200, &tree::manager(name, &faults)),
        What::Reset(_) | What::Other => not_found(),
    }
}

fn collection(what: What, shared: &Shared) -> Answer {
    match what {
        What::Root => json(200, &tree::root()),
        What::Systems => json(200, &tree::systems(shared.units.keys().map(String::as_str))),
        What::System | What::ActionInfo | What::Chassis | What::Manager | What::Reset(_) | What::Other => not_found(),
    }
}

fn json(code: u16, value: &Value) -> Answer {
    document(code, value.to_string().into())
}

fn document(code: u16, body: Bytes) -> Answer {
    let mut answer = status(code);
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    *answer.body_mut() = Full::new(body);
    answer
}

fn status(code: u16) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

fn unauthorized() -> Answer {
    json(401, &tree::error("Base.1.18.NoValidSession", "There is no valid session."))
}

fn not_found() -> Answer {
    json(404, &tree::error("Base.1.18.ResourceMissingAtURI", "The resource was not found."))
}

fn unavailable(retry_after: Option<Duration>) -> Answer {
    let mut answer = json(503, &tree::error("Base.1.18.ServiceTemporarilyUnavailable", "Busy."));
    if let Some(pause) = retry_after {
        answer.headers_mut().insert(header::RETRY_AFTER, pause.as_secs().into());
    }
    answer
}

fn redirect(code: u16, location: &str) -> Answer {
    let mut answer = status(code);
    if let Ok(location) = header::HeaderValue::try_from(location) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

/// A server that speaks no TLS newer than 1.1: it answers any hello with a fatal alert, as an old BMC does.
pub struct OldTls {
    address: SocketAddr,
    _server: JoinSet<Infallible>,
}

impl OldTls {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> Result<Self> {
        // A TLS record of version 1.1: alert, fatal, protocol_version (RFC 5246, section 7.2).
        const ALERT: [u8; 7] = [21, 3, 2, 0, 2, 2, 70];
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("binding the old server")?;
        let address = listener.local_addr().context("reading the old server's port")?;
        let mut server = JoinSet::new();
        server.spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { continue };
                // The hello fits into one segment; a peer that has gone needs no answer.
                let mut hello = [0; 4096];
                let _ = stream.read(&mut hello).await;
                let _ = stream.write_all(&ALERT).await;
                let _ = timeout(HANDSHAKE, swallow(&mut stream)).await;
            }
        });
        Ok(Self { address, _server: server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

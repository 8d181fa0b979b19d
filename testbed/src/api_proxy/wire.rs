//! The wire of the proxy: connections, streams, and where each request waits.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::stream;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::catch::{Answer, Armed, Go, Point};
use super::{Request, Shared, Traffic, Way};

/// A client on loopback shakes hands in milliseconds; one that was stopped shall not keep a connection for ever.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What the API server takes at most, and half a thousand Nodes in one list.
const MAX_BODY: usize = 16 << 20;
/// What holds for one connection only, or is set anew for the other one.
const OF_ONE_CONNECTION: [header::HeaderName; 4] =
    [header::CONNECTION, header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

type Body = UnsyncBoxBody<Bytes, Broken>;

/// The connection ends without an answer, or in the middle of one.
#[derive(Debug, thiserror::Error)]
#[error("broken off")]
struct Broken;

/// Makes a client that trusts one authority, follows nothing and repeats nothing.
pub(super) fn client(ca_pem: &str) -> Result<reqwest::Client> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).context("reading the server's authority")?)?;
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .build();
    client.context("making an HTTP client")
}

/// Serves for ever.
pub(super) async fn run(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                // Else an answer waits for the acknowledgement of what came before it, some 40 ms.
                let _ = stream.set_nodelay(true);
                connections.spawn(serve(stream, tls.clone(), shared.clone()));
            }
        }
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    let mut way = shared.way.subscribe();
    let since = way.borrow().since;
    let broken = way.wait_for(|way| way.traffic == Traffic::Cut || way.since != since);
    let served = async {
        flows(&shared).await;
        let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await else { return };
        let service = service_fn(|request| answer(request, &shared));
        if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "a connection of the proxy ended");
        }
    };
    tokio::select! {
        biased;
        _ = broken => {}
        () = served => {}
    }
}

async fn answer(request: http::Request<Incoming>, shared: &Arc<Shared>) -> Result<Response<Body>, Broken> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| Broken)?.to_bytes();
    flows(shared).await;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let (request, armed) = shared.arrives(head.method.clone(), path, body);
    let (pass_on, passed) = oneshot::channel();
    // A task of its own: it goes on when the client does not.
    shared.spawn(forward(shared.clone(), head, request, armed, pass_on));
    let answer = passed.await.map_err(|_| Broken)?;
    flows(shared).await;
    Ok(answer)
}

/// Forwards a request and passes the answer on; nothing is passed on if there is none.
async fn forward(
    shared: Arc<Shared>,
    head: Parts,
    request: Request,
    armed: Option<Armed>,
    pass_on: oneshot::Sender<Response<Body>>,
) {
    let upstream = |head| ask(&shared, head, &request);
    let answer = match armed {
        None => upstream(head).await.ok().map(|answer| stream_on(answer, shared.way.subscribe())),
        Some(armed) if armed.point == Point::Before => match armed.hold(request.clone(), None).await {
            None => return,
            Some(Go::Refuse(status)) => Some(refusal(status)),
            Some(Go::On(wants)) => {
                let Some((answer, whole)) = caught(upstream(head).await.ok(), &request, &shared).await else { return };
                // Who let it go may be gone.
                let _ = wants.send(whole);
                Some(answer)
            }
        },
        Some(armed) => {
            let Some((answer, whole)) = caught(upstream(head).await.ok(), &request, &shared).await else { return };
            match armed.hold(request.clone(), Some(whole.clone())).await {
                None => return,
                Some(Go::Refuse(status)) => Some(refusal(status)),
                Some(Go::On(wants)) => {
                    let _ = wants.send(whole);
                    Some(answer)
                }
            }
        }
    };
    if let Some(answer) = answer {
        // The client may be gone.
        let _ = pass_on.send(answer);
    }
}

/// Sends a request to the server that it is for now.
async fn ask(shared: &Shared, head: Parts, request: &Request) -> reqwest::Result<reqwest::Response> {
    let url = format!("{}{}", shared.way.borrow().upstream, request.path);
    let mut headers = head.headers;
    keep_end_to_end(&mut headers);
    shared.http.request(head.method, url).headers(headers).body(request.body.clone()).send().await
}

/// The answer to a caught request: to be passed on, and whole, to be looked at.
async fn caught(
    answer: Option<reqwest::Response>,
    request: &Request,
    shared: &Shared,
) -> Option<(Response<Body>, Answer)> {
    let answer = answer?;
    let status = answer.status();
    if request.is_watch() {
        return Some((stream_on(answer, shared.way.subscribe()), Answer { status, body: Bytes::new() }));
    }
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    keep_end_to_end(&mut headers);
    let body = answer.bytes().await.ok()?;
    Some((respond(status, headers, whole(body.clone())), Answer { status, body }))
}

/// Passes an answer on as it comes; a stall holds back what comes in the meantime.
fn stream_on(answer: reqwest::Response, way: watch::Receiver<Way>) -> Response<Body> {
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    keep_end_to_end(&mut headers);
    let chunks = stream::unfold(Some((answer, way)), |state| async {
        let (mut answer, mut way) = state?;
        let chunk = answer.chunk().await;
        // An error means that the proxy is going.
        let _ = way.wait_for(|way| way.traffic != Traffic::Stalled).await;
        match chunk {
            Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), Some((answer, way)))),
            Ok(None) => None,
            Err(_) => Some((Err(Broken), None)),
        }
    });
    respond(status, headers, StreamBody::new(chunks).boxed_unsync())
}

/// As the API server words its own.
fn refusal(status: StatusCode) -> Response<Body> {
    let text = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": status.as_u16(),
        "message": "the testbed's proxy refuses it",
    });
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    respond(status, headers, whole(text.to_string().into()))
}

fn whole(body: Bytes) -> Body {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn respond(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn keep_end_to_end(headers: &mut HeaderMap) {
    for name in OF_ONE_CONNECTION {
        headers.remove(name);
    }
}

/// Waits while nothing is to get through.
async fn flows(shared: &Shared) {
    // An error means that the proxy is going.
    let _ = shared.way.subscribe().wait_for(|way| way.traffic != Traffic::Stalled).await;
}

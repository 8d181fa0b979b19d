//! One HTTP exchange with one BMC: a connection of its own, Basic authentication, capped answers, no way off the origin.
//!
//! hyper without a pool or a spawned task: the future of a call owns its socket, so that dropping the one closes the
//! other. (A pooling client keeps connections alive in tasks, and iLO resets connections that are used again.)

use std::error::Error as StdError;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::schema::{self, Resource};
use super::tls;
use crate::error::clean;
use crate::{Credentials, Error, Tls};

/// A BMC is one switch away: a SYN that is not answered within two retransmissions (1 s and 3 s after the first) will
/// not be.
const CONNECT: Duration = Duration::from_secs(3);

/// The largest answer read, in bytes. A ComputerSystem is some 20 KiB, with vendors' extensions up to 100.
const MAX_BODY: usize = 1 << 20;

/// Redirects followed for a GET: one for a trailing slash, one for an alias.
const MAX_GET_REDIRECTS: usize = 2;

/// Redirects followed for a POST: one for a trailing slash. (Older Supermicro, iLO4 and Lenovo answer so; a client that
/// turns the POST into a GET then loses the command.)
const MAX_POST_REDIRECTS: usize = 1;

/// The longest link followed, in bytes. URIs of systems are some 50 long; an order, a status and an error quote them.
const MAX_LINK: usize = 256;

/// The way to one BMC.
pub(super) struct Channel {
    origin: Url,
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
    authorization: HeaderValue,
}

/// A resource, and where it was in the end.
pub(super) struct Found<T> {
    pub(super) url: Url,
    pub(super) resource: T,
}

/// A whole answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Channel {
    /// Prepares the way; nothing is sent yet.
    ///
    /// Errors: [`Error::Config`].
    pub(super) fn new(origin: &Url, credentials: &Credentials, tls: &Tls) -> Result<Self, Error> {
        let config = |reason: &str| Error::Config(reason.to_owned());
        if origin.scheme() != "https" {
            return Err(config("a BMC is spoken to by https only"));
        }
        if !origin.username().is_empty() || origin.password().is_some() {
            return Err(config("credentials belong in a Secret, not in the URL of the BMC"));
        }
        let (host, name) = match origin.host() {
            Some(Host::Domain(name)) => {
                let server = ServerName::try_from(name.to_owned());
                (name.to_owned(), server.map_err(|_| config("the BMC's host name is not a DNS name"))?)
            }
            Some(Host::Ipv4(ip)) => (ip.to_string(), ServerName::IpAddress(std::net::IpAddr::V4(ip).into())),
            Some(Host::Ipv6(ip)) => (ip.to_string(), ServerName::IpAddress(std::net::IpAddr::V6(ip).into())),
            None => return Err(config("the URL of the BMC has no host")),
        };
        Ok(Self {
            host,
            port: origin.port_or_known_default().unwrap_or(443),
            name,
            tls: TlsConnector::from(Arc::new(tls::config(tls)?)),
            authorization: basic(credentials)?,
            origin: origin.clone(),
        })
    }

    /// Resolves a link that the BMC gave us.
    ///
    /// Errors: [`Error::ForeignLink`] if it leads to another host, port, scheme or account; [`Error::Protocol`] if it is
    /// too long.
    pub(super) fn resolve(&self, from: &Url, link: &str, doing: &'static str) -> Result<Url, Error> {
        if link.len() > MAX_LINK {
            return Err(Error::Protocol { doing, reason: format!("a link of more than {MAX_LINK} bytes") });
        }
        match from.join(link) {
            Ok(url)
                if url.origin() != self.origin.origin() || !url.username().is_empty() || url.password().is_some() =>
            {
                Err(Error::ForeignLink { doing, link: clean(&without_account(url), 200) })
            }
            Ok(url) => Ok(url),
            Err(_) => Err(Error::ForeignLink { doing, link: "no URL at all".into() }),
        }
    }

    /// Reads a resource: a 200 with a whole resource of that kind.
    pub(super) async fn get<T: Resource>(
        &self,
        url: &Url,
        doing: &'static str,
        by: Instant,
    ) -> Result<Found<T>, Error> {
        let got = in_time(by, self.follow(Method::GET, url, &Bytes::new(), MAX_GET_REDIRECTS, doing)).await;
        let (url, answer) = got.ok_or(Error::Deadline { doing })??;
        answer.judge(doing)?;
        let nonsense = |reason: String| Error::Protocol { doing, reason: clean(&reason, 200) };
        // A 202 answers with a task, a 206 with a part of something.
        if answer.status != StatusCode::OK {
            return Err(nonsense(format!("HTTP {} instead of the resource", answer.status)));
        }
        let resource = schema::read(&answer.body).map_err(nonsense)?;
        Ok(Found { url, resource })
    }

    /// Sends a JSON document; `Ok` only if the answer was a 2xx that reports no error.
    pub(super) async fn post(&self, url: &Url, document: Bytes, doing: &'static str, by: Instant) -> Result<(), Error> {
        let sent = in_time(by, self.follow(Method::POST, url, &document, MAX_POST_REDIRECTS, doing)).await;
        let (_, answer) = sent.ok_or(Error::Deadline { doing })??;
        answer.judge(doing)?;
        if schema::is_refusal(&answer.body) { Err(answer.refused(doing)) } else { Ok(()) }
    }

    async fn follow(
        &self,
        method: Method,
        url: &Url,
        document: &Bytes,
        redirects: usize,
        doing: &'static str,
    ) -> Result<(Url, Answer), Error> {
        let mut url = url.clone();
        for _ in 0..=redirects {
            let answer = self.exchange(method.clone(), &url, document.clone(), doing).await?;
            if !answer.asks_to_repeat(&method) {
                return Ok((url, answer));
            }
            let location = answer.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
            let Some(location) = location else {
                return Err(Error::Protocol { doing, reason: format!("HTTP {} without a location", answer.status) });
            };
            let next = self.resolve(&url, location, doing)?;
            // The same place with a slash more or less. Anywhere else may be another machine; the very same, sent twice.
            if method == Method::POST && (next == url || !same_path(&next, &url)) {
                return Err(Error::Protocol { doing, reason: format!("a redirect to {}", clean(next.path(), 100)) });
            }
            url = next;
        }
        Err(Error::Protocol { doing, reason: "too many redirects".into() })
    }

    /// Sends one request on a connection of its own and reads the whole answer.
    async fn exchange(&self, method: Method, url: &Url, document: Bytes, doing: &'static str) -> Result<Answer, Error> {
        let request = self.request(method, url, document)?;
        let tcp = self.connect().await?;
        let connected = self.tls.connect(self.name.clone(), tcp).await;
        let stream = connected.map_err(|error| tls::handshake_error(&self.address(), &error))?;
        let (mut sender, mut connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error, doing))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| lost(&error, doing))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| cut_short(&*error, doing))?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        let mut answer = pin!(answer);
        let answer: Result<Answer, Error> = tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        };
        // The exchange is over: an orderly end. On every other way out the socket is reset (see `connect`), also after an
        // error: the kernel may still hold the request then, and would go on sending it for minutes.
        if answer.is_ok() {
            let stream = connection.into_parts().io.into_inner();
            #[expect(deprecated, reason = "lingering blocks; this ends it")]
            let _ = stream.get_ref().0.set_linger(None);
        }
        answer
    }

    async fn connect(&self) -> Result<TcpStream, Error> {
        let unreachable = |reason: String| Error::Unreachable { address: self.address(), reason };
        let tcp = timeout(CONNECT, TcpStream::connect((self.host.as_str(), self.port)))
            .await
            .map_err(|_| unreachable(format!("no connection within {} s", CONNECT.as_secs())))?
            .map_err(|error| unreachable(clean(&error.to_string(), 200)))?;
        // Best effort both: they only make it quicker and the drop sharper. With no lingering, a dropped socket is reset
        // and what the kernel still holds is thrown away, so that a cancelled command is not sent after all.
        let _ = tcp.set_nodelay(true);
        let _ = tcp.set_zero_linger();
        Ok(tcp)
    }

    fn request(&self, method: Method, url: &Url, document: Bytes) -> Result<Request<Full<Bytes>>, Error> {
        let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.authority())
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "ringfence")
            .header(header::CACHE_CONTROL, "no-cache")
            .header(header::CONNECTION, "close")
            // Without it some BMCs answer 406 (fence-agents#265).
            .header("OData-Version", "4.0");
        if !document.is_empty() {
            // Without a charset: some BMCs refuse one (MAAS LP#2028000).
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(document)).map_err(|error| Error::Config(format!("the URL of the BMC: {error}")))
    }

    /// Host and port, for people.
    fn address(&self) -> String {
        format!("{}:{}", self.origin.host_str().unwrap_or_default(), self.port)
    }

    /// Host and port, for the Host header.
    fn authority(&self) -> String {
        let host = self.origin.host_str().unwrap_or_default();
        self.origin.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

impl Answer {
    /// Tells whether the request is to be repeated elsewhere. A 303 to a POST is not: it was taken.
    fn asks_to_repeat(&self, method: &Method) -> bool {
        match self.status {
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => true,
            StatusCode::SEE_OTHER => method == Method::GET,
            _ => false,
        }
    }

    /// Tells what anything but a 2xx means.
    fn judge(&self, doing: &'static str) -> Result<(), Error> {
        let status = self.status.as_u16();
        match status {
            200..=299 => Ok(()),
            401 | 403 => Err(Error::Auth { doing, status }),
            429 | 503 => Err(Error::Busy { doing, retry_after: self.retry_after() }),
            400..=499 => Err(self.refused(doing)),
            500..=599 => Err(Error::Server { doing, status }),
            _ => Err(Error::Protocol { doing, reason: format!("HTTP {status}") }),
        }
    }

    /// A refusal, in the vendor's words.
    fn refused(&self, doing: &'static str) -> Error {
        let (code, message) = schema::error_words(&self.body);
        let status = self.status.as_u16();
        Error::Refused { doing, status, code: clean(&code, 100), message: clean(&message, 300) }
    }

    /// Retry-After in seconds. As a date it would have to be read by the BMC's clock; those are often wrong.
    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }
}

/// Runs a call until the deadline, and not one step further. tokio's own time-out takes that step: it polls the call
/// before it looks at the clock, so a process that was stopped in between would still send its command.
async fn in_time<T>(by: Instant, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let checked = poll_fn(|cx| if Instant::now() >= by { Poll::Ready(None) } else { call.as_mut().poll(cx).map(Some) });
    timeout_at(by, checked).await.ok().flatten()
}

/// Tells whether two URLs of one origin have the same path; a slash at the end and the case make no difference.
pub(super) fn same_path(one: &Url, other: &Url) -> bool {
    let path = |url: &Url| url.path().trim_end_matches('/').to_ascii_lowercase();
    path(one) == path(other)
}

fn without_account(mut url: Url) -> String {
    // An error means that the URL can have no account.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

fn basic(credentials: &Credentials) -> Result<HeaderValue, Error> {
    if credentials.username.contains(':') {
        return Err(Error::Config("a colon in the username can't be sent (RFC 7617)".into()));
    }
    let pair = format!("{}:{}", credentials.username, credentials.password.expose_secret());
    let mut value =
        HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).expect("base64 has no control characters");
    value.set_sensitive(true);
    Ok(value)
}

fn lost(error: &hyper::Error, doing: &'static str) -> Error {
    let reason = causes(error);
    if error.is_parse() { Error::Protocol { doing, reason } } else { Error::NoAnswer { doing, reason } }
}

fn cut_short(error: &(dyn StdError + Send + Sync + 'static), doing: &'static str) -> Error {
    if error.is::<LengthLimitError>() {
        return Error::Protocol { doing, reason: format!("an answer of more than {MAX_BODY} bytes") };
    }
    Error::NoAnswer { doing, reason: causes(error) }
}

/// An error and its sources, in one line.
fn causes(error: &dyn StdError) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    clean(&words, 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Result<(), Error> {
        let headers = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
        let status = StatusCode::from_u16(status).expect("a status");
        Answer { status, headers: headers.collect(), body: Bytes::from_static(body.as_bytes()) }.judge("testing")
    }

    #[test]
    fn each_status_has_one_meaning() {
        for (status, label) in [
            (302, "BMCProtocolError"),
            (400, "BMCRefused"),
            (401, "BMCAuthFailed"),
            (403, "BMCAuthFailed"),
            (404, "BMCRefused"),
            (409, "BMCRefused"),
            (429, "BMCBusy"),
            (500, "BMCServerError"),
            (503, "BMCBusy"),
        ] {
            assert_eq!(judge(status, &[], "").expect_err("not a 2xx").label(), label, "{status}");
        }
        for status in [200, 202, 204] {
            assert_eq!(judge(status, &[], "{}"), Ok(()));
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds_only() {
        let after = |value| match judge(503, &[("retry-after", value)], "") {
            Err(Error::Busy { retry_after, .. }) => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }

    #[test]
    fn a_refusal_carries_the_vendors_words_cleaned() {
        let body = r#"{"error":{"code":"A.1","message":"is\u0007\noff"}}"#;
        let error = judge(400, &[], body).expect_err("refused");
        assert_eq!(error.to_string(), "the BMC refused while testing (HTTP 400): A.1: is off");
    }

    #[tokio::test]
    async fn nothing_is_begun_at_the_deadline() {
        let mut begun = false;
        assert_eq!(in_time(Instant::now(), async { begun = true }).await, None);
        assert!(!begun);
        assert_eq!(in_time(Instant::now() + Duration::from_secs(60), async { 7 }).await, Some(7));
    }

    #[test]
    fn the_password_is_not_in_the_debug_of_the_header() {
        let credentials = Credentials { username: "admin".into(), password: "s3cr3t".to_owned().into() };
        let header = basic(&credentials).expect("a header");
        assert_eq!(header.to_str().expect("text"), "Basic YWRtaW46czNjcjN0");
        assert_eq!(format!("{header:?}"), "Sensitive");
        assert!(!format!("{credentials:?}").contains("s3cr3t"));
        let colon = Credentials { username: "ad:min".into(), ..credentials };
        assert_eq!(basic(&colon).expect_err("no colon").label(), "BMCConfigInvalid");
    }
}

//! The HTTP of one BMC: Basic authentication, capped answers, no way off the origin, one connection for each call.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::answer::Answer;
use super::line::{Line, Lost};
use super::schema::{self, Resource};
use super::tls;
use crate::error::clean;
use crate::{Credentials, Error, Tls};

/// A BMC is one switch away: a SYN that is not answered within two retransmissions (1 s and 3 s after the first) will
/// not be.
const CONNECT: Duration = Duration::from_secs(3);

/// What a service root may take; it is a few lines that need no account. One that takes longer costs more than the new
/// connection that it would save.
const PROBE: Duration = Duration::from_secs(1);

/// Answers after which a connection is known to take more than one request.
const USED_AGAIN: usize = 2;

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

/// One call: some requests until one deadline, on one connection if the BMC lets us.
///
/// The connection is nobody else's. Dropped while a request is under way, it is reset; else it is closed.
pub(super) struct Call<'a> {
    channel: &'a Channel,
    by: Instant,
    /// The connection of the last answer. Nothing is under way on it.
    line: Option<Line>,
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

    /// Begins a call that ends by this deadline; nothing is sent yet.
    pub(super) fn call(&self, by: Instant) -> Call<'_> {
        Call { channel: self, by, line: None }
    }

    async fn dial(&self, doing: &'static str) -> Result<Line, Error> {
        let tcp = self.connect().await?;
        let connected = self.tls.connect(self.name.clone(), tcp).await;
        let stream = connected.map_err(|error| tls::handshake_error(&self.address(), &error))?;
        Line::open(stream, doing).await
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

impl Call<'_> {
    /// Reads a resource: a 200 with a whole resource of that kind.
    pub(super) async fn get<T: Resource>(&mut self, url: &Url, doing: &'static str) -> Result<Found<T>, Error> {
        let got = in_time(self.by, self.follow(Method::GET, url, &Bytes::new(), MAX_GET_REDIRECTS, doing)).await;
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
    pub(super) async fn post(&mut self, url: &Url, document: Bytes, doing: &'static str) -> Result<(), Error> {
        let sent = in_time(self.by, self.follow(Method::POST, url, &document, MAX_POST_REDIRECTS, doing)).await;
        let (_, answer) = sent.ok_or(Error::Deadline { doing })??;
        answer.judge(doing)?;
        if schema::is_refusal(&answer.body) { Err(answer.refused(doing)) } else { Ok(()) }
    }

    async fn follow(
        &mut self,
        method: Method,
        url: &Url,
        document: &Bytes,
        redirects: usize,
        doing: &'static str,
    ) -> Result<(Url, Answer), Error> {
        let mut url = url.clone();
        for _ in 0..=redirects {
            let answer = self.exchange(&method, &url, document, doing).await?;
            if !answer.asks_to_repeat(&method) {
                return Ok((url, answer));
            }
            let location = answer.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
            let Some(location) = location else {
                return Err(Error::Protocol { doing, reason: format!("HTTP {} without a location", answer.status) });
            };
            let next = self.channel.resolve(&url, location, doing)?;
            // The same place with a slash more or less. Anywhere else may be another machine; the very same, sent twice.
            if method == Method::POST && (next == url || !same_path(&next, &url)) {
                return Err(Error::Protocol { doing, reason: format!("a redirect to {}", clean(next.path(), 100)) });
            }
            url = next;
        }
        Err(Error::Protocol { doing, reason: "too many redirects".into() })
    }

    /// Sends one request and reads the whole answer. A GET is sent again if a connection that was kept ends in silence;
    /// anything else never is.
    async fn exchange(
        &mut self,
        method: &Method,
        url: &Url,
        document: &Bytes,
        doing: &'static str,
    ) -> Result<Answer, Error> {
        if let Some(line) = self.kept(method, doing).await? {
            let request = self.channel.request(method.clone(), url, document.clone())?;
            match self.carry(line, request, doing).await {
                Err(Lost::Silent(_)) if method == Method::GET => {}
                done => return done.map_err(Error::from),
            }
        }
        let request = self.channel.request(method.clone(), url, document.clone())?;
        let line = self.channel.dial(doing).await?;
        self.carry(line, request, doing).await.map_err(Error::from)
    }

    /// Has one exchange on a connection, and keeps that if it went well.
    async fn carry(&mut self, line: Line, request: Request<Full<Bytes>>, doing: &'static str) -> Result<Answer, Lost> {
        let (line, answer) = line.exchange(request, doing).await?;
        self.line = Some(line);
        Ok(answer)
    }

    /// Returns the connection of the last answer, if it takes another request.
    ///
    /// A command must not meet a BMC that closes after every answer without saying so: it would be lost each time. So it
    /// goes over a connection that has been used again; if need be, for the service root.
    async fn kept(&mut self, method: &Method, doing: &'static str) -> Result<Option<Line>, Error> {
        let Some(mut line) = self.line.take() else { return Ok(None) };
        if method == Method::POST && line.answers() < USED_AGAIN && line.is_ready().await {
            let mut probe = self.channel.request(Method::GET, &self.channel.origin, Bytes::new())?;
            probe.headers_mut().remove(header::AUTHORIZATION);
            match timeout(PROBE, line.exchange(probe, doing)).await {
                Ok(Ok((used_again, _))) => line = used_again,
                Ok(Err(_)) | Err(_) => return Ok(None),
            }
        }
        if line.is_ready().await {
            return Ok(Some(line));
        }
        line.hang_up();
        Ok(None)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            line.hang_up();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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

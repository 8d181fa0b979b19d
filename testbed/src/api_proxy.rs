//! A proxy between one client and one server, both on loopback: the operator and the API server, or the operator and a BMC.
//! It cuts and stalls the way, moves it to another server, and catches single requests, to be delivered later or never.
//!
//! It speaks HTTP/1.1 over TLS on both sides, as the operator's clients do, and passes the caller's own credentials on.
//!
//! # Guarantees
//! A request that was forwarded is carried out whether its client waits or not, as one is that lies in a socket. Nothing is
//! sent twice. What streams (a watch) streams.
//!
//! # Example
//! The leader's next write of the node is held back until it is nobody's wish any more:
//!
//! ```ignore
//! let proxy = Proxy::before_api_server(&plane).await?;
//! settings.kubeconfig = proxy.kubeconfig(&settings.kubeconfig)?;
//! let mut late = proxy.catch(Point::Before, |request| request.writes("/api/v1/nodes/"));
//! late.caught(SOON).await?;
//! operator.kill().await?;
//! assert_eq!(late.deliver(SOON).await?.status, 409);
//! ```

mod catch;
mod wire;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use hyper::body::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use self::catch::Armed;
pub use self::catch::{Answer, Catch, Point};
use crate::controlplane::ControlPlane;
use crate::pki::{Authority, write_private};

/// A proxy; with it end all its connections, and what it still holds is never delivered.
pub struct Proxy {
    address: SocketAddr,
    ca_pem: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its place among all that arrived, from 1.
    pub number: usize,
    /// When its last byte arrived.
    pub at: Timestamp,
    /// Its method.
    pub method: http::Method,
    /// Its path, with the query.
    pub path: String,
    /// Its body.
    pub body: Bytes,
}

impl Request {
    /// Says whether it changes something below this path.
    pub fn writes(&self, path: &str) -> bool {
        self.method != http::Method::GET && self.path.starts_with(path)
    }

    /// Says whether it asks for a stream of changes.
    pub fn is_watch(&self) -> bool {
        self.path.split_once('?').is_some_and(|(_, query)| query.split('&').any(|pair| pair == "watch=true"))
    }

    /// Its body; null if it has none, or it is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What the proxy's connections share.
struct Shared {
    way: watch::Sender<Way>,
    http: reqwest::Client,
    log: watch::Sender<Vec<Request>>,
    armed: Mutex<Vec<Armed>>,
    /// What goes on without a connection.
    work: Mutex<JoinSet<()>>,
}

/// Where requests go now, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Way {
    upstream: String,
    traffic: Traffic,
    /// Connections of an earlier time than this are to end.
    since: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    Flows,
    Stalled,
    Cut,
}

impl Proxy {
    /// Starts one before the API server of a control plane.
    ///
    /// # Errors
    /// When no port can be bound, as for [`before`](Self::before).
    pub async fn before_api_server(plane: &ControlPlane) -> Result<Self> {
        Self::before(&plane.url(), plane.ca_pem()).await
    }

    /// Starts one before the server at `url` (scheme and authority alone), whose certificate's authority is `ca_pem`.
    ///
    /// # Errors
    /// When no port can be bound, or the authority can't be read.
    pub async fn before(url: &str, ca_pem: &str) -> Result<Self> {
        let authority = Authority::new("testbed proxy")?;
        let tls = authority.issue(&["127.0.0.1"])?.acceptor()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("binding the proxy")?;
        let address = listener.local_addr().context("reading the proxy's port")?;
        let shared = Arc::new(Shared {
            way: watch::Sender::new(Way { upstream: url.to_owned(), traffic: Traffic::Flows, since: 0 }),
            http: wire::client(ca_pem)?,
            log: watch::Sender::default(),
            armed: Mutex::default(),
            work: Mutex::default(),
        });
        let mut server = JoinSet::new();
        server.spawn(wire::run(listener, tls, shared.clone()));
        Ok(Self { address, ca_pem: authority.pem().to_owned(), shared, _server: server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The authority of its own certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Writes a kubeconfig for the same user as `of`, through this proxy, into the same directory.
    ///
    /// # Errors
    /// When `of` is none of the testbed's, or the directory can't be written.
    pub fn kubeconfig(&self, of: &Path) -> Result<PathBuf> {
        let text = fs::read_to_string(of).with_context(|| format!("reading {}", of.display()))?;
        let mut config: Value = serde_json::from_str(&text).context("a kubeconfig that the testbed did not write")?;
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.ca_pem);
        config["clusters"][0]["cluster"] =
            json!({"server": format!("https://{}", self.address), "certificate-authority-data": ca});
        let path = of.with_file_name(format!("proxied-{}.kubeconfig", Uuid::new_v4().simple()));
        write_private(&path, &config.to_string().into())?;
        Ok(path)
    }

    /// Breaks every connection, and every new one at once, until [`mend`](Self::mend).
    pub fn cut(&self) {
        self.change(Traffic::Cut);
    }

    /// Takes connections and requests, and lets nothing through in either direction, until [`mend`](Self::mend): then all
    /// goes on whose client still waits.
    pub fn stall(&self) {
        self.change(Traffic::Stalled);
    }

    /// Ends a cut or a stall.
    pub fn mend(&self) {
        self.change(Traffic::Flows);
    }

    /// Sends what comes from now on to another server, under the same authority. All connections break, as they do when a
    /// balancer takes another backend.
    pub fn point_at(&self, url: &str) {
        self.shared.way.send_modify(|way| {
            url.clone_into(&mut way.upstream);
            way.since += 1;
        });
    }

    /// Catches the next request that is as `which` says, before it is forwarded or before its answer is passed on.
    ///
    /// `which` is asked about each request in the order of their arrival, until it says yes for the first time; so it may
    /// count. A request is caught once: of several that want it, by the oldest.
    pub fn catch(&self, point: Point, which: impl FnMut(&Request) -> bool + Send + 'static) -> Catch {
        let (armed, catch) = catch::arm(point, which);
        self.shared.armed.lock().expect("no panic while held").push(armed);
        catch
    }

    /// All requests so far, in the order of their arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.log.borrow().clone()
    }

    /// How many requests were as `which` says.
    pub fn count(&self, which: impl Fn(&Request) -> bool) -> usize {
        self.shared.log.borrow().iter().filter(|request| which(request)).count()
    }

    /// Waits until `times` requests have been as `which` says, ever.
    ///
    /// # Errors
    /// When that takes longer than `within`.
    pub async fn wait_for(&self, times: usize, within: Duration, which: impl Fn(&Request) -> bool) -> Result<()> {
        let mut log = self.shared.log.subscribe();
        let arrived = log.wait_for(|log| log.iter().filter(|request| which(request)).count() >= times);
        match timeout_at(Instant::now() + within, arrived).await {
            Ok(_) => Ok(()),
            Err(_) => bail!("waited {within:?} in vain for request {times}; {} came", self.count(&which)),
        }
    }

    fn change(&self, traffic: Traffic) {
        self.shared.way.send_modify(|way| {
            way.traffic = traffic;
            way.since += u64::from(traffic == Traffic::Cut);
        });
    }
}

impl Shared {
    /// Numbers and notes a request, and says who wants to catch it.
    fn arrives(&self, method: http::Method, path: String, body: Bytes) -> (Request, Option<Armed>) {
        // Held throughout: `which` is asked in the order of the numbers.
        let mut armed = self.armed.lock().expect("no panic while held");
        let mut request = Request { number: 0, at: Timestamp::now(), method, path, body };
        self.log.send_modify(|log| {
            request.number = log.len() + 1;
            log.push(request.clone());
        });
        armed.retain(Armed::is_wanted);
        let taken = armed.iter_mut().position(|armed| armed.wants(&request));
        (request, taken.map(|index| armed.remove(index)))
    }

    /// Goes on with something, also when the connection that asked for it is gone.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.work.lock().expect("no panic while held");
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }
}

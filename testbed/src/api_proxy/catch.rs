//! A request that is held back, and what becomes of it.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use http::StatusCode;
use hyper::body::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Request;

/// Where a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// It has arrived, and is not forwarded.
    Before,
    /// The server has answered, and the answer is not passed on.
    After,
}

/// What the server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The whole body; nothing of a watch's.
    pub body: Bytes,
}

/// Catches one request. Dropped before, it catches none; dropped afterwards, the client's connection ends without an answer,
/// and what was held [before](Point::Before) the server is never forwarded.
pub struct Catch {
    arrives: oneshot::Receiver<Held>,
    held: Option<Held>,
}

impl Catch {
    /// Waits until the request is there and held.
    ///
    /// # Errors
    /// When none comes within `within`, or the server did not answer what was to be held after its answer.
    pub async fn caught(&mut self, within: Duration) -> Result<&Request> {
        if self.held.is_none() {
            let arrived = timeout(within, &mut self.arrives).await;
            let arrived = arrived.map_err(|_| anyhow!("waited {within:?} in vain for a request to catch"))?;
            self.held = Some(arrived.context("the proxy is gone, or the server did not answer")?);
        }
        Ok(&self.held.as_ref().context("nothing is held")?.request)
    }

    /// What the server answered, of a request that is held [after](Point::After) that.
    pub fn answer(&self) -> Option<&Answer> {
        self.held.as_ref()?.answer.as_ref()
    }

    /// Lets it go on: forwards the request if that is still to be done, passes the answer on if the client still waits,
    /// and returns it.
    ///
    /// # Errors
    /// When nothing is held, or the server does not answer within `within`.
    pub async fn deliver(mut self, within: Duration) -> Result<Answer> {
        let Some(held) = self.held.take() else { bail!("nothing was caught") };
        let (tell, told) = oneshot::channel();
        held.go.send(Go::On(tell)).map_err(|_| anyhow!("the proxy is gone"))?;
        let told = timeout(within, told).await.with_context(|| format!("no answer within {within:?}"))?;
        told.context("the server did not answer")
    }

    /// Answers the client with this status, in the server's place; the server has been asked or not, as the point says.
    ///
    /// # Errors
    /// When nothing is held.
    pub fn refuse(mut self, status: StatusCode) -> Result<()> {
        let Some(held) = self.held.take() else { bail!("nothing was caught") };
        held.go.send(Go::Refuse(status)).map_err(|_| anyhow!("the proxy is gone"))
    }
}

/// What waits for a request.
pub(super) struct Armed {
    pub point: Point,
    which: Box<dyn FnMut(&Request) -> bool + Send>,
    to: oneshot::Sender<Held>,
}

/// A request that waits.
struct Held {
    request: Request,
    answer: Option<Answer>,
    go: oneshot::Sender<Go>,
}

/// How a request that waits goes on.
pub(super) enum Go {
    /// As it was to; who lets it go wants to know the answer.
    On(oneshot::Sender<Answer>),
    /// With an answer that is not the server's.
    Refuse(StatusCode),
}

pub(super) fn arm(point: Point, which: impl FnMut(&Request) -> bool + Send + 'static) -> (Armed, Catch) {
    let (to, arrives) = oneshot::channel();
    (Armed { point, which: Box::new(which), to }, Catch { arrives, held: None })
}

impl Armed {
    pub fn is_wanted(&self) -> bool {
        !self.to.is_closed()
    }

    pub fn wants(&mut self, request: &Request) -> bool {
        (self.which)(request)
    }

    /// Waits until it may go on; `None` if it may not.
    pub async fn hold(self, request: Request, answer: Option<Answer>) -> Option<Go> {
        let (go, gone) = oneshot::channel();
        self.to.send(Held { request, answer, go }).ok()?;
        gone.await.ok()
    }
}

//! One connection to a BMC, and the exchanges on it, one after the other.
//!
//! hyper without a pool or a spawned task: whoever holds the line holds its socket, so that dropping the one closes the
//! other. Knows HTTP messages; must not know what they are about, nor when one may be sent again.

use std::error::Error as StdError;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use http::Request;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio_rustls::client::TlsStream;

use super::answer::Answer;
use crate::Error;
use crate::error::clean;

/// The largest answer read, in bytes. A ComputerSystem is some 20 KiB, with vendors' extensions up to 100.
const MAX_BODY: usize = 1 << 20;

/// An open connection. Dropped, it is reset, and what was not yet sent never is.
pub(super) struct Line {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: http1::Connection<TokioIo<TlsStream<TcpStream>>, Full<Bytes>>,
    /// The connection has ended, and must not be polled again.
    over: bool,
    answers: usize,
}

/// Why there is no whole answer.
pub(super) enum Lost {
    /// The connection ended before the first byte of one. The request may have arrived all the same.
    Silent(Error),
    /// Some of it came, or something that is none.
    Midway(Error),
}

impl Line {
    /// Speaks HTTP over this connection.
    ///
    /// Assumptions: the socket lingers for no time, so that closing it is a reset. What the kernel still holds is then
    /// thrown away, and a cancelled command is not sent after all.
    pub(super) async fn open(stream: TlsStream<TcpStream>, doing: &'static str) -> Result<Self, Error> {
        let opened = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = opened.map_err(|error| lost(&error, doing))?;
        Ok(Self { sender, connection, over: false, answers: 0 })
    }

    /// Sends one request and reads the whole answer. A line on which that failed is gone: after an error, too, the kernel
    /// may still hold the request, and would go on sending it for minutes.
    pub(super) async fn exchange(
        mut self,
        request: Request<Full<Bytes>>,
        doing: &'static str,
    ) -> Result<(Self, Answer), Lost> {
        let Self { sender, connection, over, .. } = &mut self;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| match error.is_parse() {
                true => Lost::Midway(lost(&error, doing)),
                false => Lost::Silent(lost(&error, doing)),
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await;
            let body = body.map_err(|error| Lost::Midway(cut_short(&*error, doing)))?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        let answer = {
            let mut answer = pin!(answer);
            tokio::select! {
                biased;
                answer = &mut answer => answer,
                _ = &mut *connection => {
                    *over = true;
                    answer.await
                }
            }
        };
        match answer {
            Ok(answer) => {
                self.answers += 1;
                Ok((self, answer))
            }
            Err(Lost::Silent(error)) if !self.connection.into_parts().read_buf.is_empty() => Err(Lost::Midway(error)),
            Err(lost) => Err(lost),
        }
    }

    /// How many requests were answered on it.
    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    /// Tells whether it takes another request: not if the BMC has closed it, or has said that it will.
    pub(super) async fn is_ready(&mut self) -> bool {
        if self.over {
            return false;
        }
        // Lets the event loop look at the socket first: an end may have come since the answer.
        yield_now().await;
        poll_fn(|cx| {
            self.over = Pin::new(&mut self.connection).poll(cx).is_ready();
            Poll::Ready(!self.over && matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(()))))
        })
        .await
    }

    /// Closes it in an orderly way: nothing is under way.
    pub(super) fn hang_up(self) {
        let stream = self.connection.into_parts().io.into_inner();
        #[expect(deprecated, reason = "lingering blocks; this ends it")]
        let _ = stream.get_ref().0.set_linger(None);
    }
}

impl From<Lost> for Error {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Silent(error) | Lost::Midway(error) => error,
        }
    }
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

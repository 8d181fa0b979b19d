//! What a port does with whoever knocks: takes connections, refuses them, or lets them wait for ever.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// What a face's port does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// Takes connections.
    #[default]
    Open,
    /// Refuses connections: the host is there, and nobody listens.
    Closed,
    /// Doesn't answer at all, as behind a firewall, or where the host is gone: a connection is neither made nor refused.
    BlackHole,
}

/// A connection on loopback is made in microseconds; one that takes this long is not answered.
const UNANSWERED: Duration = Duration::from_millis(200);
/// What the kernel queues for a listener that wants none: one; more would be a kernel of another kind.
const MOST_QUEUED: usize = 16;
const BACKLOG: u32 = 1024;

/// A port, held by this process whatever it does: nobody else can take it meanwhile.
pub(super) enum Port {
    Open(TcpListener),
    Closed(#[expect(dead_code, reason = "holds the port")] TcpSocket),
    /// The listener's queue is full of these, so that the kernel drops whatever knocks.
    BlackHole(
        #[expect(dead_code, reason = "holds the port")] TcpListener,
        #[expect(dead_code, reason = "fill the queue")] Vec<TcpStream>,
    ),
}

impl Port {
    /// Takes a port for which nothing listens.
    pub(super) async fn new(address: SocketAddr, door: Door) -> Result<Self> {
        let socket = TcpSocket::new_v4().context("making a socket")?;
        // Connections that it has had may not be forgotten yet.
        socket.set_reuseaddr(true).context("making a socket")?;
        socket.bind(address).with_context(|| format!("binding {address} again"))?;
        Ok(match door {
            Door::Open => Self::Open(socket.listen(BACKLOG).context("listening again")?),
            Door::Closed => Self::Closed(socket),
            Door::BlackHole => {
                let listener = socket.listen(0).context("listening again")?;
                let mut queued = Vec::new();
                while let Ok(stream) = timeout(UNANSWERED, TcpStream::connect(address)).await {
                    queued.push(stream.context("filling the queue")?);
                    if queued.len() > MOST_QUEUED {
                        bail!("the queue of a listener that wants none has no end");
                    }
                }
                Self::BlackHole(listener, queued)
            }
        })
    }

    /// Waits for a connection; for ever, if it takes none.
    pub(super) async fn accept(&self) -> std::io::Result<TcpStream> {
        match self {
            Self::Open(listener) => listener.accept().await.map(|(stream, _)| stream),
            Self::Closed(_) | Self::BlackHole(..) => std::future::pending().await,
        }
    }
}

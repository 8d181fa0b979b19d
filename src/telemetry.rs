//! Logs and health.

use std::net::SocketAddr;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Router, extract::State};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::lease::Standing;

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
}

/// Starts logging to standard error; `RUST_LOG` overrides the level.
pub fn logs(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_runtime=warn"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => subscriber.with_ansi(false).init(),
        LogFormat::Json => subscriber.json().init(),
    }
}

/// Serves `/healthz` (this process turns) and `/readyz` (it takes part in the election, and no foreign operator keeps it
/// out) for ever.
///
/// # Errors
/// When the address can't be bound.
pub async fn health(address: SocketAddr, standing: watch::Receiver<Standing>) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let ready = |State(standing): State<watch::Receiver<Standing>>| async move {
        match &*standing.borrow() {
            Standing::Leads => (StatusCode::OK, "leads".to_owned()),
            Standing::Follows => (StatusCode::OK, "follows".to_owned()),
            Standing::Foreign(namespace) => {
                (StatusCode::SERVICE_UNAVAILABLE, format!("another operator leads in namespace {namespace}"))
            }
        }
    };
    let router = Router::new().route("/healthz", get(|| async { "ok" })).route("/readyz", get(ready));
    axum::serve(listener, router.with_state(standing)).await
}

//! Calls to the API server: each has a deadline, and an error that says what we were doing.

use std::future::Future;
use std::time::Duration;

use kube::{Client, Config};

/// How long one call may take. An API server that is alive answers in milliseconds; its own request time-out is 60 s,
/// and a caller that old would act on a world long gone.
const CALL: Duration = Duration::from_secs(5);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server answered with an error, or not at all.
    #[error("{doing} failed")]
    Api {
        /// What we were doing.
        doing: &'static str,
        /// What came back.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time. A write may have been made.
    #[error("{doing}: no answer from the API server within {} s", CALL.as_secs())]
    Deadline {
        /// What we were doing.
        doing: &'static str,
    },
}

impl Error {
    /// Tells whether something had changed since it was read: look again.
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// Tells whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Tells whether the API server, or an admission webhook, said no: trying the same again is no use.
    pub fn is_refused(&self) -> bool {
        matches!(self.status(), Some(400 | 403 | 422))
    }

    fn status(&self) -> Option<u16> {
        match self {
            Error::Api { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Error::Deadline { .. } => None,
        }
    }

    /// Returns the whole story in one line, for logs and events.
    pub fn story(&self) -> String {
        match self {
            Error::Api { source, .. } => match &**source {
                // What could not be read may be quoted in there, and be a secret.
                kube::Error::SerdeError(_) => format!("{self}: the answer could not be read"),
                source => format!("{self}: {source}"),
            },
            Error::Deadline { .. } => self.to_string(),
        }
    }
}

/// Makes a call with its deadline.
///
/// # Errors
/// As the call's own, or when the deadline passes.
pub async fn call<T>(doing: &'static str, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(Error::Api { doing, source: Box::new(source) }),
        Err(_) => Err(Error::Deadline { doing }),
    }
}

/// Makes a client that never repeats a request by itself: whether to ask again is for the caller to decide (kube's
/// default repeats every request up to 15 times on 429, 503 and 504, writes included).
///
/// # Errors
/// When the configuration makes no client.
pub fn client(mut config: Config) -> kube::Result<Client> {
    config.default_retry = false;
    Client::try_from(config)
}

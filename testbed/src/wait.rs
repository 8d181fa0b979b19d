//! Waiting for a state of the world: level-triggered, with a deadline, and an error that says what never came.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How often the world is looked at: short against what a test measures (hundreds of milliseconds), long against the
/// cost of a look (a few).
const PERIOD: Duration = Duration::from_millis(25);

/// Looks until `probe` gives something, and returns that.
///
/// # Errors
/// After `within`: what was waited for, and the last error of `probe` if it had one. An error of `probe` alone is not
/// the end: an API server may be away for a moment.
pub async fn until<T, F>(what: &str, within: Duration, probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    until_every(PERIOD, what, within, probe).await
}

/// The same, with another pause between two looks: for many who wait at once, and measure nothing.
///
/// # Errors
/// As [`until`].
pub async fn until_every<T, F>(
    period: Duration,
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + within;
    let mut last = None;
    loop {
        match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => last = None,
            Ok(Err(error)) => last = Some(error),
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            match last {
                Some(error) => return Err(error.context(format!("waited {within:?} in vain for: {what}"))),
                None => bail!("waited {within:?} in vain for: {what}"),
            }
        }
        sleep(period).await;
    }
}

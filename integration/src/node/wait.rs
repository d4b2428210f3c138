//! Waiting for what sends no event.

use std::{future::Future, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How long anything may take before a test gives up. Only failures take so long.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Asks `probe` again and again, at growing intervals, until it gives a value. At the [`DEADLINE`]
/// the error says `what` was awaited, and the reason that the last probe gave.
///
/// # Errors
/// At the deadline.
pub async fn until<T, P>(what: &str, mut probe: impl FnMut() -> P) -> Result<T>
where
    P: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + DEADLINE;
    let mut pause = Duration::from_millis(2);
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(reason) if Instant::now() >= end => {
                bail!("waited {} s for {what}: {reason}", DEADLINE.as_secs())
            }
            Err(_) => sleep(pause).await,
        }
        pause = (pause * 3 / 2).min(Duration::from_millis(200));
    }
}

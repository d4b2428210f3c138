//! Waiting for what sends no event.

use std::{future::Future, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

use crate::patience::patience;

/// How long anything may take on a fast machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long anything may take before a test gives up. Only failures take so long.
pub fn deadline() -> Duration {
    patience(DEADLINE)
}

/// Asks `probe` again and again, at growing intervals, until it gives a value. At the [`deadline`]
/// the error says `what` was awaited, and the reason that the last probe gave.
///
/// # Errors
/// At the deadline.
pub async fn until<T, P>(what: &str, mut probe: impl FnMut() -> P) -> Result<T>
where
    P: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + deadline();
    let mut pause = Duration::from_millis(2);
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(reason) if Instant::now() >= end => {
                bail!("waited {} s for {what}: {reason}", deadline().as_secs())
            }
            Err(_) => sleep(pause).await,
        }
        pause = (pause * 3 / 2).min(Duration::from_millis(200));
    }
}

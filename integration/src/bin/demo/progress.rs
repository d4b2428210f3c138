//! Steps in sight of the user.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often a long step says that it is still at work.
const STILL: Duration = Duration::from_secs(5);

/// Announces a step, says from time to time that it goes on, and how long it took.
pub(crate) async fn step<T, E>(
    what: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    println!("    - {what}");
    let start = Instant::now();
    let mut still = interval_at(start + STILL, STILL);
    still.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => {
                let state = if done.is_ok() { "done" } else { "failed" };
                println!("      {state} in {:.2} s", start.elapsed().as_secs_f64());
                return done;
            }
            _ = still.tick() => println!("      … {} s", start.elapsed().as_secs()),
        }
    }
}

//! When something last went over a connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Ends a session in which nothing happens.
#[derive(Debug)]
pub(crate) struct IdleClock {
    start: Instant,
    timeout: Duration,
    /// Milliseconds since the start.
    last: AtomicU64,
}

impl IdleClock {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            start: Instant::now(),
            timeout,
            last: AtomicU64::new(0),
        }
    }

    /// Something came, or went.
    pub(crate) fn touch(&self) {
        let now = self.start.elapsed().as_millis();
        self.last
            .store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Waits until nothing happened for the timeout.
    pub(crate) async fn expired(&self) {
        loop {
            let last = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed));
            let end = last + self.timeout;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_expires_after_the_last_touch() {
        let timeout = Duration::from_millis(100);
        let clock = IdleClock::new(timeout);
        let start = Instant::now();
        let touching = async {
            let mut ticks = tokio::time::interval(timeout / 2);
            for _ in 0..5 {
                ticks.tick().await;
                clock.touch();
            }
        };
        tokio::join!(clock.expired(), touching);
        assert!(start.elapsed() >= timeout * 3, "{:?}", start.elapsed());
    }
}

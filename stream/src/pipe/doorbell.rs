//! Which streams of a connection have something for its driver.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// What the driver of a connection waits on.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    /// Streams that rang. Each is in it once, so it is no longer than there are streams.
    rung: Mutex<VecDeque<u32>>,
    driver: Notify,
}

impl Doorbell {
    /// Wakes the driver for something that is not a stream's.
    pub(crate) fn wake(&self) {
        self.driver.notify_one();
    }

    /// Waits for the next ring or wake; one that came since the last wait counts.
    pub(crate) async fn wait(&self) {
        self.driver.notified().await;
    }

    /// Appends the streams that rang.
    pub(crate) fn take(&self, into: &mut VecDeque<u32>) {
        into.append(&mut self.rung.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// One stream's button of the doorbell.
#[derive(Clone, Debug)]
pub(crate) struct Bell {
    doorbell: Arc<Doorbell>,
    stream: u32,
    /// It rang, and the driver has not looked yet.
    rung: Arc<AtomicBool>,
}

impl Bell {
    pub(crate) fn new(doorbell: &Arc<Doorbell>, stream: u32) -> Self {
        Self {
            doorbell: doorbell.clone(),
            stream,
            rung: Arc::default(),
        }
    }

    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.doorbell
                .rung
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_back(self.stream);
            self.doorbell.driver.notify_one();
        }
    }

    /// The driver looks at the stream: what comes from now on rings again. Called before looking.
    pub(crate) fn answer(&self) {
        self.rung.store(false, Ordering::Release);
    }
}

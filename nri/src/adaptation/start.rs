//! From a configuration to plugins at work, and back.

use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::{Host, Nri, Shared};
use crate::config::{Config, ExternalPlugins};
use crate::error::StartError;
use crate::{external, preinstalled};

impl Nri {
    /// Starts the pre-installed plugins, waits until each takes part or has failed, and lets others connect.
    ///
    /// # Errors
    /// When the socket for other plugins cannot be made. The pre-installed ones are at work then, and stay so.
    pub async fn start(&self, host: Arc<dyn Host>) -> Result<(), StartError> {
        let Some(config) = &self.shared.config else {
            return Ok(());
        };
        // An error says that it was started before.
        let _ = self.shared.host.set(host);
        let mut settled = Vec::new();
        for program in preinstalled::discover(config) {
            let (joined, wait) = oneshot::channel();
            settled.push(wait);
            let shared = Arc::clone(&self.shared);
            self.shared
                .spawn(preinstalled::supervise(shared, program, joined));
        }
        for wait in settled {
            // Told or dropped: it is settled. Every step that it waits for has a deadline.
            let _ = wait.await;
        }
        self.listen(config)
    }

    fn listen(&self, config: &Config) -> Result<(), StartError> {
        if config.external == ExternalPlugins::Refused {
            return Ok(());
        }
        let listener = external::bind(&config.socket)?;
        tracing::info!(socket = %config.socket.display(), "NRI plugins may connect");
        let shared = Arc::clone(&self.shared);
        self.shared.spawn(external::accept(shared, listener));
        Ok(())
    }

    /// Ends the pre-installed plugins, disconnects the others and removes the socket.
    pub async fn stop(&self) {
        let mut tasks = {
            let mut tasks = self.shared.tasks();
            std::mem::take(&mut *tasks)
        };
        tasks.shutdown().await;
    }
}

impl Shared {
    /// Runs a task as long as the interface is at work.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        // What has ended is forgotten here, so that the set stays small.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among the connections, if one is free.
    pub(crate) fn place(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }
}

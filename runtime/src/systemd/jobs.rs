//! Who waits for the end of which unit's job.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Guards the map alone. None when the connection has broken: nobody will be told any more.
#[derive(Debug)]
pub(super) struct Jobs(Mutex<Option<HashMap<String, oneshot::Sender<String>>>>);

impl Default for Jobs {
    fn default() -> Self {
        Self(Mutex::new(Some(HashMap::new())))
    }
}

impl Jobs {
    /// To be told the result of the unit's next job: register before asking for the job, whose end may come before the answer.
    /// The receiver fails when the connection breaks.
    pub(super) fn expect(&self, unit: &str) -> oneshot::Receiver<String> {
        let (told, result) = oneshot::channel();
        if let Some(waiting) = &mut *self.lock() {
            waiting.insert(unit.to_owned(), told);
        }
        result
    }

    /// Nobody waits for it any more.
    pub(super) fn forget(&self, unit: &str) {
        if let Some(waiting) = &mut *self.lock() {
            waiting.remove(unit);
        }
    }

    /// A job of the unit has ended; most are other programs' units.
    pub(super) fn ended(&self, unit: &str, result: &str) {
        let waiting = self
            .lock()
            .as_mut()
            .and_then(|waiting| waiting.remove(unit));
        if let Some(told) = waiting {
            // Who has given up meanwhile does not listen.
            let _ = told.send(result.to_owned());
        }
    }

    /// The connection has broken.
    pub(super) fn close(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<String, oneshot::Sender<String>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_told_its_own_result_once() {
        let jobs = Jobs::default();
        let (mut a, mut b) = (jobs.expect("a"), jobs.expect("b"));
        jobs.ended("other", "done");
        jobs.ended("a", "done");
        jobs.ended("a", "failed");
        assert_eq!(a.try_recv().unwrap(), "done");
        assert!(b.try_recv().is_err());
        jobs.forget("b");
        jobs.ended("b", "done");
        assert!(b.try_recv().is_err());
    }

    #[test]
    fn nobody_waits_on_a_broken_connection() {
        let jobs = Jobs::default();
        let before = jobs.expect("a");
        jobs.close();
        let after = jobs.expect("b");
        assert!(before.blocking_recv().is_err());
        assert!(after.blocking_recv().is_err());
    }
}

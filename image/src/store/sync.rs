//! syncfs(2), shared: layers that finish while one runs wait for one more together.

use std::os::fd::BorrowedFd;
use std::sync::{Condvar, Mutex, PoisonError};

use rustix::io::Errno;

/// Runs of syncfs are counted: what was written before run n began is on disk when it has ended.
#[derive(Default)]
struct Runs {
    begun: u64,
    ended: u64,
    /// The outcome of the last run that failed, for those who waited for it.
    failed: Option<(u64, Errno)>,
}

/// Makes one layer's files durable, together with its neighbours'.
#[derive(Default)]
pub(super) struct Syncer {
    runs: Mutex<Runs>,
    ended: Condvar,
}

impl Syncer {
    /// Returns when everything written to `filesystem`'s file system before the call is on disk.
    pub(super) fn sync(&self, filesystem: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        // A run under way may have passed our files already: only one that begins from now on counts.
        let needed = runs.begun + 1;
        loop {
            if runs.ended >= needed {
                return match runs.failed {
                    Some((run, errno)) if run >= needed => Err(errno),
                    _ => Ok(()),
                };
            }
            if runs.begun == runs.ended {
                runs.begun += 1;
                drop(runs);
                let result = rustix::fs::syncfs(filesystem);
                runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
                runs.ended = runs.begun;
                if let Err(errno) = result {
                    runs.failed = Some((runs.ended, errno));
                }
                self.ended.notify_all();
            } else {
                runs = self
                    .ended
                    .wait(runs)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

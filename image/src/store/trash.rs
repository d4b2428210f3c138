//! What is to be deleted is first moved away, which is quick and needs no space, and then deleted in
//! the background. What a crash leaves here goes on at the next start.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Directories deeper than this are moved up to the trash first, so that a layer of any depth is deleted
/// with a bounded number of descriptors.
const MAX_DEPTH: usize = 32;

/// A name in the trash or in staging that no other has.
pub(crate) fn trash_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!(
        "{:x}-{:x}-{:x}",
        std::process::id(),
        now.as_nanos(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Idle,
    Wanted,
    UnderWay,
    Closed,
}

struct Shared {
    directory: OwnedFd,
    /// Guards whether the deleting thread has something to do.
    work: Mutex<Work>,
    changed: Condvar,
    after: Box<dyn Fn() + Send + Sync>,
}

/// The trash directory and the thread that empties it.
pub(super) struct Trash {
    shared: Arc<Shared>,
}

impl Trash {
    /// Starts emptying; `after` is called each time the trash is empty again.
    pub(super) fn start(
        directory: OwnedFd,
        after: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Trash> {
        let shared = Arc::new(Shared {
            directory,
            work: Mutex::new(Work::Wanted),
            changed: Condvar::new(),
            after: Box::new(after),
        });
        let thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("image-trash".to_owned())
            .spawn(move || thread.run())?;
        Ok(Trash { shared })
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.shared.directory.as_fd()
    }

    /// Moves something here and lets it be deleted.
    pub(super) fn discard(&self, parent: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
        rustix::fs::renameat(parent, name, &self.shared.directory, trash_name())?;
        self.wake();
        Ok(())
    }

    pub(super) fn wake(&self) {
        let mut work = self
            .shared
            .work
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *work = Work::Wanted;
        self.shared.changed.notify_all();
    }

    #[cfg(test)]
    pub(super) fn wait_until_empty(&self) {
        self.wake();
        let work = self
            .shared
            .work
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let timeout = std::time::Duration::from_secs(30);
        let waited = self
            .shared
            .changed
            .wait_timeout_while(work, timeout, |work| *work != Work::Idle);
        assert!(
            !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out(),
            "the trash was not emptied"
        );
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        *self
            .shared
            .work
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Work::Closed;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
            while *work == Work::Idle {
                work = self
                    .changed
                    .wait(work)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if *work == Work::Closed {
                return;
            }
            *work = Work::UnderWay;
            drop(work);
            self.empty();
            (self.after)();
            let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
            if *work == Work::UnderWay {
                *work = Work::Idle;
                self.changed.notify_all();
            }
        }
    }

    fn is_closed(&self) -> bool {
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) == Work::Closed
    }

    /// Deletes all that is here, also what deep directories add meanwhile.
    fn empty(&self) {
        loop {
            let names = match children(self.directory.as_fd()) {
                Ok(names) => names,
                Err(error) => {
                    tracing::warn!(%error, "the image store's trash cannot be read");
                    return;
                }
            };
            let mut deleted = false;
            for (name, _) in &names {
                if self.is_closed() {
                    return;
                }
                match self.delete(self.directory.as_fd(), name, 0) {
                    Ok(()) => deleted = true,
                    Err(error) => {
                        tracing::warn!(%error, name = %name.to_string_lossy(), "something in the image store's trash cannot be deleted; the next start tries again");
                    }
                }
            }
            if !deleted {
                return;
            }
        }
    }

    fn delete(&self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            // EPERM is POSIX' answer for a directory, EISDIR Linux'.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(Errno::NOENT) => return Ok(()),
            result => return result,
        }
        if depth >= MAX_DEPTH {
            return rustix::fs::renameat(parent, name, &self.directory, trash_name());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        for (child, kind) in children(directory.as_fd())? {
            if kind == FileType::Directory {
                self.delete(directory.as_fd(), &child, depth + 1)?;
            } else {
                rustix::fs::unlinkat(&directory, &child, AtFlags::empty())?;
            }
        }
        rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
    }
}

/// Names and types of what is in a directory.
pub(super) fn children(directory: BorrowedFd<'_>) -> Result<Vec<(CString, FileType)>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

//! The reclaim queue: what the kernel or the disk takes time for, off the caller's path.
//!
//! Nothing in the queue is lost with the daemon: cgroups and directories that are left are found and reclaimed at the
//! next start, by their names.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use crate::cgroup::Cgroup;
use crate::error::chain;
use crate::memory;

/// How often a cgroup that is still busy is tried, with twice the pause each time: two minutes in all.
const ATTEMPTS: u32 = 16;
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// With nothing to reclaim for so long, the daemon's start is over.
const REST: Duration = Duration::from_secs(1);

/// What is given up waits until nothing more has come for so long: the end of a memory cgroup keeps `cgroup_mutex` while the kernel
/// looks at the lists of all file systems, and whoever removes pods one after the other would wait for that at each of them.
const CALM: Duration = Duration::from_millis(20);
/// It waits no longer than this, so that a node that is never calm holds the cgroups of a second.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

enum Job {
    Cgroup(Cgroup),
    Directory(PathBuf),
}

enum Message {
    Job(Job),
    /// What waits is to be done at once, and this be told when it is gone.
    Flush(oneshot::Sender<()>),
}

/// The queue's entrance.
pub(crate) struct Reclaim {
    messages: mpsc::UnboundedSender<Message>,
    trash: PathBuf,
}

impl Reclaim {
    /// Starts the queue; directories are moved to `trash` first, which is on their file system.
    pub(crate) fn start(trash: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&trash)?;
        let (messages, queue) = mpsc::unbounded_channel();
        for left in std::fs::read_dir(&trash)? {
            // The receiver is right here.
            let _ = messages.send(Message::Job(Job::Directory(left?.path())));
        }
        tokio::spawn(work(queue));
        Ok(Self { messages, trash })
    }

    /// Removes a cgroup with all below it, once its processes are gone.
    pub(crate) fn cgroup(&self, cgroup: Cgroup) {
        self.push(Job::Cgroup(cgroup));
    }

    fn push(&self, job: Job) {
        // The queue ends only with the daemon.
        let _ = self.messages.send(Message::Job(job));
    }

    /// Does what waits at once, and returns when that is gone: a daemon that ends leaves no work to the next one, which there may never be.
    /// A group whose processes live on is waited for as long as anybody would try to remove it.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let _ = self.messages.send(Message::Flush(done));
        // It fails when the queue has ended, which then has nothing.
        let _ = flushed.await;
    }

    /// Removes a directory. It is gone from its place when this returns, so that a crash cannot bring it back half removed.
    pub(crate) fn directory(&self, path: PathBuf) {
        let moved = path.file_name().map(|name| self.trash.join(name));
        let path = match moved {
            Some(moved) => match std::fs::rename(&path, &moved) {
                Ok(()) => moved,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot move to the trash; removing in place");
                    path
                }
            },
            None => path,
        };
        self.push(Job::Directory(path));
    }
}

/// Jobs whose time has not come, in the order in which they came.
#[derive(Default)]
struct Waiting {
    jobs: VecDeque<(Instant, Job)>,
}

impl Waiting {
    fn push(&mut self, job: Job, now: Instant) {
        self.jobs.push_back((now, job));
    }

    /// When the first one's time comes; none when there is none.
    fn due(&self) -> Option<Instant> {
        let (oldest, _) = self.jobs.front()?;
        let (newest, _) = self.jobs.back()?;
        Some((*newest + CALM).min(*oldest + LONGEST_WAIT))
    }

    fn pop(&mut self) -> Option<Job> {
        self.jobs.pop_front().map(|(_, job)| job)
    }
}

async fn work(mut queue: mpsc::UnboundedReceiver<Message>) {
    let busy = TaskTracker::new();
    loop {
        match tokio::time::timeout(REST, queue.recv()).await {
            Ok(Some(Message::Job(job))) => run(job, &busy).await,
            Ok(Some(Message::Flush(done))) => tell_when_gone(&busy, done),
            Ok(None) => return,
            // The daemon has started, and what earlier ones have left is gone.
            Err(_) => break,
        }
    }
    memory::forget_start();
    let mut waiting = Waiting::default();
    loop {
        let come = match waiting.due() {
            None => Some(queue.recv().await),
            // Out of time only after everything that has come is counted.
            Some(due) => timeout_at(due, queue.recv()).await.ok(),
        };
        match come {
            Some(Some(Message::Job(job))) => waiting.push(job, Instant::now()),
            Some(Some(Message::Flush(done))) => {
                while let Some(job) = waiting.pop() {
                    run(job, &busy).await;
                }
                tell_when_gone(&busy, done);
            }
            Some(None) => return,
            None => {
                if let Some(job) = waiting.pop() {
                    run(job, &busy).await;
                }
            }
        }
    }
}

/// Tells once what was busy is gone too; what comes meanwhile does not wait for that.
fn tell_when_gone(busy: &TaskTracker, done: oneshot::Sender<()>) {
    let busy = busy.clone();
    tokio::spawn(async move {
        busy.close();
        busy.wait().await;
        // Whoever has asked may have stopped waiting.
        let _ = done.send(());
    });
}

async fn run(job: Job, busy: &TaskTracker) {
    match job {
        Job::Cgroup(cgroup) => {
            if !try_remove(&cgroup) {
                // Its processes are dying; others in the queue need not wait for that.
                busy.spawn(keep_trying(cgroup));
            }
        }
        Job::Directory(path) => {
            let removed = tokio::task::spawn_blocking(move || remove_directory(&path)).await;
            if let Ok(Err((path, error))) = removed {
                tracing::error!(path = %path.display(), %error, "cannot remove the directory; the next start tries again");
            }
        }
    }
}

fn remove_directory(path: &Path) -> Result<(), (PathBuf, io::Error)> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err((path.to_owned(), error)),
        _ => Ok(()),
    }
}

/// Whether it is gone, or never will be.
fn try_remove(cgroup: &Cgroup) -> bool {
    match cgroup.remove() {
        Ok(()) => true,
        Err(error) if error.is_busy() => {
            // What is still there has outlived its container's first process: in a PID namespace that it shares, or
            // because it is dying just now.
            if let Err(error) = cgroup.signal_all(Signal::SIGKILL) {
                tracing::warn!(cgroup = %cgroup.path(), error = %chain(&error), "cannot kill what is left in the cgroup");
            }
            false
        }
        Err(error) => {
            tracing::error!(cgroup = %cgroup.path(), error = %chain(&error), "cannot remove the cgroup; the next start tries again");
            true
        }
    }
}

async fn keep_trying(cgroup: Cgroup) {
    let mut pause = FIRST_PAUSE;
    for _ in 0..ATTEMPTS {
        // cgroup v1 tells nobody when a cgroup has become empty, so look again; nobody waits for this.
        tokio::time::sleep(pause).await;
        if try_remove(&cgroup) {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    tracing::error!(cgroup = %cgroup.path(), "the cgroup is still busy; the next start tries again");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_wait_for_a_calm_moment_but_not_for_ever() {
        let start = Instant::now();
        let mut waiting = Waiting::default();
        assert!(waiting.due().is_none());
        waiting.push(Job::Directory("0".into()), start);
        assert_eq!(waiting.due(), Some(start + CALM));
        // One every half of a calm moment, for longer than any may wait.
        let step = CALM / 2;
        let mut last = start;
        while last < start + 2 * LONGEST_WAIT {
            last += step;
            waiting.push(Job::Directory("1".into()), last);
        }
        assert_eq!(waiting.due(), Some(start + LONGEST_WAIT));
        waiting.pop();
        assert_eq!(waiting.due(), Some(start + step + LONGEST_WAIT));
        // The last ones need not wait for so long.
        while waiting.jobs.len() > 1 {
            waiting.pop();
        }
        assert_eq!(waiting.due(), Some(last + CALM));
    }
}

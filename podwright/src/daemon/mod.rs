//! `podwright runtime`: from a configuration to a serving socket, and back on SIGTERM.
//!
//! Everything up to the socket happens in one thread, before tokio starts: the umask, the limits and the
//! environment are the process's, and other threads would see them change.

mod activation;
mod directories;
mod lock;
mod logging;
mod notify;
mod socket;

use std::io;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use podwright_runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::config;
use lock::DirectoryLock;

/// More worker threads than this gain nothing: calls wait for the kernel, they do not compute.
const MAX_WORKERS: usize = 4;

/// How long an idle thread for blocking calls stays; each holds a stack.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Why the daemon did not start, or ended. Parts that only this program has say their whole message themselves.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error(transparent)]
    Directory(#[from] directories::DirectoryError),
    #[error(transparent)]
    Lock(#[from] lock::LockError),
    #[error(transparent)]
    Socket(#[from] socket::SocketError),
    #[error(transparent)]
    Activation(#[from] activation::ActivationError),
    #[error("cannot start the async runtime")]
    Tokio(#[source] io::Error),
    #[error("cannot start the runtime")]
    Open(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot serve")]
    Serve(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Runs the daemon until SIGTERM or SIGINT.
pub(crate) fn run(config: config::Daemon) -> Result<(), DaemonError> {
    logging::start(&config.log_level, config.log_format);
    umask(Mode::from_bits_truncate(0o022));
    raise_descriptor_limit();
    // Before anything is opened: were descriptor 3 not passed in truth, a file of ours would get that number.
    let passed = activation::listener()?;

    let settings = &config.runtime;
    directories::prepare(&settings.state_dir)?;
    directories::prepare(&settings.run_dir)?;
    let _run_lock = DirectoryLock::take(&settings.run_dir)?;
    let _state_lock = DirectoryLock::take(&settings.state_dir)?;
    let (listener, socket) = match passed {
        Some(listener) => (listener, None),
        None => {
            let (listener, file) = socket::bind(&settings.socket)?;
            (listener, Some(file))
        }
    };

    let workers =
        std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_WORKERS));
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .enable_all()
        .build()
        .map_err(DaemonError::Tokio)?;
    let served = tokio.block_on(serve(config.runtime, listener));
    drop(socket);
    // A blocking call that hangs (a dead network filesystem) must not keep the daemon from ending.
    tokio.shutdown_background();
    served
}

async fn serve(
    config: podwright_runtime::config::Config,
    listener: UnixListener,
) -> Result<(), DaemonError> {
    // Signals are caught before anything slow, so that one during recovery ends the daemon in order, too.
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Tokio)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Tokio)?;
    let stop = async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "stopping; pods go on running");
        notify::send("STOPPING=1");
    };
    tokio::pin!(stop);

    listener.set_nonblocking(true).map_err(DaemonError::Tokio)?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(DaemonError::Tokio)?;
    let socket = config.socket.clone();
    let runtime = tokio::select! {
        opened = Runtime::open(config) => opened.map_err(|e| DaemonError::Open(Box::new(e)))?,
        () = &mut stop => return Ok(()),
    };
    tracing::info!(socket = %socket.display(), version = env!("CARGO_PKG_VERSION"), "serving CRI v1");
    notify::send(&format!(
        "READY=1\nMAINPID={}\nSTATUS=Serving CRI v1",
        std::process::id()
    ));

    let served = runtime.serve(listener, stop).await;
    served.map_err(|e| DaemonError::Serve(Box::new(e)))
}

/// Raises the soft limit of open descriptors to the hard one: the daemon holds several for each pod.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        tracing::warn!(%errno, "cannot raise the limit of open files to its hard limit; many pods may not fit");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test fails by panicking
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::time::{Duration, Instant};

    /// The linker would take jemalloc's own options without a word.
    #[test]
    fn the_heap_has_the_options_of_the_daemon() {
        assert_eq!(podwright_runtime::memory::arenas(), 1);
    }

    /// Pages of this process in memory, by proc(5); allocates nothing.
    fn resident() -> usize {
        let mut text = [0; 128];
        let mut file = File::open("/proc/self/statm").unwrap();
        let length = file.read(&mut text).unwrap();
        let text = str::from_utf8(&text[..length]).unwrap();
        text.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }

    /// 26 MiB of sessions that had ended stayed in a daemon that nobody called any more.
    #[test]
    fn memory_is_given_back_though_nobody_allocates() {
        const BLOCK: usize = 16 << 10;
        const BLOCKS: usize = (64 << 20) / BLOCK;
        let before = resident();
        let blocks: Vec<_> = (0..BLOCKS).map(|_| vec![1_u8; BLOCK]).collect();
        let grown = resident() - before;
        drop(blocks);
        let deadline = Instant::now() + Duration::from_secs(60);
        while resident() > before + grown / 4 {
            assert!(Instant::now() < deadline, "{grown} pages are held");
            std::thread::sleep(Duration::from_millis(10)); // /proc tells nobody of a change
        }
    }
}

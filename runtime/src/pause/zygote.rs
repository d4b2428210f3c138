//! The daemon's zygote: the pause from which the pods' are born.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use podwright_pause::birth::Birth;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, oneshot};

use super::activity::Activity;
use super::connection::PROMPT;
use super::error::PauseError;
use super::program::Program;
use super::{reaping, socket};
use crate::ids::SandboxId;

/// Where pauses are ordered. The zygote is executed with the first order, and again when it was killed.
#[derive(Default)]
pub(crate) struct Zygote {
    /// Guards the value alone, and the start of a process, which is rare.
    running: Mutex<Option<Arc<Running>>>,
}

/// Hears how an order went.
type Asker = oneshot::Sender<Result<u32, io::Error>>;

/// A zygote's process.
struct Running {
    socket: AsyncFd<OwnedFd>,
    orders: Mutex<Orders>,
    /// Told that it is of no use.
    given_up: Notify,
    pid: u32,
}

/// Who waits. Answers come in the order of the orders, so sending one and queueing up for its answer are one step.
#[derive(Default)]
struct Orders {
    waiting: VecDeque<Asker>,
    has_ended: bool,
}

/// What became of an order.
enum Outcome {
    /// The pause's process id.
    Born(u32),
    /// There was none to order it from: it has ended.
    Ended,
}

impl std::fmt::Debug for Zygote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Zygote")
    }
}

impl Zygote {
    /// Executes it now, so that the first pod does not wait for that.
    pub(crate) fn warm_up(&self, program: &Program) -> Result<(), PauseError> {
        self.running(program).map(drop)
    }

    /// Has a pause born for a pod, which listens on `listener`; in `group`, if that is of the unified hierarchy. It is a child of
    /// this process, to be reaped.
    pub(super) async fn bear(
        &self,
        program: &Program,
        id: &SandboxId,
        listener: &OwnedFd,
        group: Option<&OwnedFd>,
    ) -> Result<u32, PauseError> {
        // Somebody may have killed it since it was last needed; a second one that ends at once has a reason.
        for _ in 0..2 {
            let running = self.running(program)?;
            let order = running.order(id, listener, group);
            let outcome = tokio::time::timeout(PROMPT, order).await;
            match outcome {
                Ok(Ok(Outcome::Born(pid))) => return Ok(pid),
                Ok(Ok(Outcome::Ended)) => {}
                Ok(Err(source)) => return Err(PauseError::Birth { source }),
                Err(_) => {
                    let doing = Activity::of(Some(running.pid));
                    self.give_up(&running);
                    let request = "the order of a pause process";
                    return Err(PauseError::Deadline {
                        request,
                        seconds: PROMPT.as_secs(),
                        doing: Box::new(doing),
                    });
                }
            }
        }
        Err(PauseError::Gone)
    }

    fn running(&self, program: &Program) -> Result<Arc<Running>, PauseError> {
        let mut running = self.current();
        if let Some(running) = &*running
            && !running.orders().has_ended
        {
            return Ok(Arc::clone(running));
        }
        let started = Running::start(program)?;
        *running = Some(Arc::clone(&started));
        Ok(started)
    }

    /// One that does not answer ends; the next order is another's.
    fn give_up(&self, frozen: &Arc<Running>) {
        frozen.given_up.notify_one();
        let mut running = self.current();
        if running
            .as_ref()
            .is_some_and(|running| Arc::ptr_eq(running, frozen))
        {
            *running = None;
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn start(program: &Program) -> Result<Arc<Self>, PauseError> {
        let failed = |source| PauseError::Socket {
            action: "make a socket for",
            source,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (own, its) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .map_err(|errno| failed(errno.into()))?;
        let socket = socket::watch(own).map_err(failed)?;
        let child = program.start(its).map_err(PauseError::Start)?;
        let running = Arc::new(Self {
            socket,
            orders: Mutex::default(),
            given_up: Notify::new(),
            pid: child.id(),
        });
        tokio::spawn(Arc::clone(&running).read(child));
        Ok(running)
    }

    async fn order(
        &self,
        id: &SandboxId,
        listener: &OwnedFd,
        group: Option<&OwnedFd>,
    ) -> io::Result<Outcome> {
        let descriptors: Vec<_> = [Some(listener), group].into_iter().flatten().collect();
        let descriptors: Vec<_> = descriptors.into_iter().map(AsFd::as_fd).collect();
        let answer = loop {
            let mut ready = self.socket.writable().await?;
            match ready.try_io(|_| self.send(id, &descriptors)) {
                Ok(Ok(Some(answer))) => break answer,
                Ok(Ok(None)) => return Ok(Outcome::Ended),
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        };
        match answer.await {
            Ok(born) => born.map(Outcome::Born),
            Err(_ended) => Ok(Outcome::Ended),
        }
    }

    /// Sends an order now, and queues up for its answer; none when the zygote has ended.
    fn send(
        &self,
        id: &SandboxId,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<Option<oneshot::Receiver<Result<u32, io::Error>>>> {
        let mut orders = self.orders();
        if orders.has_ended {
            return Ok(None);
        }
        match socket::send(self.socket.get_ref(), id.as_str().as_bytes(), descriptors) {
            Ok(()) => {}
            // Its reader may not have seen that yet, and the next order must not find it again.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::NotConnected
                ) =>
            {
                orders.has_ended = true;
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let (asker, answer) = oneshot::channel();
        orders.waiting.push_back(asker);
        Ok(Some(answer))
    }

    /// Hands out answers until the zygote ends, and reaps it.
    async fn read(self: Arc<Self>, mut child: Child) {
        loop {
            let answer = tokio::select! {
                answer = self.answer() => answer,
                () = self.given_up.notified() => {
                    // What it has answered until then is read to its end. An error means that it has ended by itself.
                    let _ = child.kill();
                    continue;
                }
            };
            let Ok(Some(birth)) = answer else { break };
            let asker = self.orders().waiting.pop_front();
            let told = match birth {
                Birth::Born { pid } => Ok(pid),
                Birth::Failed { errno } => Err(io::Error::from_raw_os_error(errno)),
            };
            let untold = match asker {
                Some(asker) => asker.send(told).err(),
                None => Some(told),
            };
            // Who ordered it has given up: nobody else knows of it.
            if let Some(Ok(pid)) = untold {
                tokio::spawn(reaping::kill_and_reap(pid));
            }
        }
        self.close();
        reaping::end(child).await;
    }

    fn close(&self) {
        let mut orders = self.orders();
        orders.has_ended = true;
        // Dropping the senders tells everybody who waits.
        orders.waiting.clear();
    }

    /// The next answer; none when the zygote has ended, or says what is no answer.
    async fn answer(&self) -> io::Result<Option<Birth>> {
        let mut buffer = [0; Birth::LENGTH];
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| socket::receive(socket.get_ref(), &mut buffer)) {
                Ok(Ok(Some(packet))) => return Ok(Birth::from_bytes(&buffer[..packet.length])),
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

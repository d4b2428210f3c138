//! A conversation with one pod's pause: requests with deadlines, and what it tells by itself.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use podwright_pause::plan::LaunchPlan;
use podwright_pause::protocol::{
    Answer, ContainerEntry, Exit, MAX_PACKET, MAX_PLAN, Message, PlanBytes, Request, RequestId,
    SandboxState, Target, VERSION,
};
use podwright_pause::wire::{Bytes, Wire};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::error::PauseError;
use super::program::Program;
use super::reaping::{kill_and_reap, reap_at_end};
use super::socket;
use super::transport::{receive, send};
use crate::cgroup::Cgroup;
use crate::ids::{ContainerId, SandboxId};
use crate::sys;

/// How long pause may take for what it does at once. A pause that is frozen or starved makes its own pod slow, and no other.
pub(super) const PROMPT: Duration = Duration::from_secs(10);

/// How long a pause that is found at start may take for its first answer before the start goes on without it.
const AWAKE: Duration = Duration::from_secs(1);

/// How long a launch may take: its mounts may wait for a remote file system.
const LAUNCH: Duration = Duration::from_secs(120);

/// Plans up to this size travel in the packet.
const INLINE_PLAN: usize = MAX_PACKET - 1024;

/// What pause tells by itself.
#[derive(Debug)]
pub(crate) enum Event {
    /// A container has ended.
    Exited {
        sandbox: SandboxId,
        container: ContainerId,
        exit: Exit,
    },
    /// The connection has closed: pause has ended.
    Closed { sandbox: SandboxId },
}

type Reply = (Answer, Vec<OwnedFd>);

/// Who waits for what. Guards only the maps: never held across a system call or an await.
#[derive(Default)]
pub(super) struct Waiting {
    requests: HashMap<RequestId, oneshot::Sender<Reply>>,
    execs: HashMap<u64, oneshot::Sender<Exit>>,
    /// Attached clients, to be told that pause has dropped them.
    pub(super) clients: HashMap<u64, oneshot::Sender<()>>,
    closed: bool,
}

/// A pod's pause process, spoken to by its socket.
pub(crate) struct Pause {
    sandbox: SandboxId,
    /// Told with the answer to the greeting.
    pid: OnceLock<u32>,
    socket: AsyncFd<OwnedFd>,
    pub(super) numbers: AtomicU64,
    waiting: Mutex<Waiting>,
    ended: CancellationToken,
}

/// What [`Pause::connect`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// The pod's sandbox is made.
    Made,
    /// The daemon that started it died before the sandbox was made.
    Unfinished,
    /// No answer yet.
    Late,
}

/// What [`Pause::init`] made.
pub(crate) struct Made {
    /// The network namespace and a NETLINK_ROUTE socket inside, unless the pod has the host's.
    pub(crate) network: Option<(OwnedFd, OwnedFd)>,
}

impl Pause {
    /// Starts a pause for a new pod, in `group` as far as that is of the unified hierarchy. `events` hears of exits until the connection closes.
    pub(crate) async fn start(
        program: &Program,
        sandbox: &SandboxId,
        group: Option<&Cgroup>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Arc<Self>, PauseError> {
        let name = Program::socket_name(sandbox);
        let listener =
            socket::listener(program.sockets(), &name).map_err(|source| PauseError::Socket {
                action: "listen for",
                source,
            })?;
        let child = program
            .start(sandbox, listener, group.and_then(|group| group.dir().ok()))
            .map_err(PauseError::Start)?;
        match Self::greeted(program, sandbox, events).await {
            Ok((pause, ended)) => {
                tokio::spawn(reap_at_end(child, pause.pid(), ended));
                Ok(pause)
            }
            Err(error) => {
                // It is ours and of no use.
                kill_and_reap(child, group).await;
                Err(error)
            }
        }
    }

    async fn greeted(
        program: &Program,
        sandbox: &SandboxId,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<(Arc<Self>, oneshot::Receiver<()>), PauseError> {
        let (pause, ended) = Self::open(program, sandbox, events)?;
        pause.greet(PROMPT).await?;
        Ok((pause, ended))
    }

    /// Finds the pause of a pod that an earlier daemon started. A pause that has the socket open but does not answer is
    /// frozen or starved, not gone: its pod lives.
    pub(crate) async fn connect(
        program: &Program,
        sandbox: &SandboxId,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<(Arc<Self>, Greeting), PauseError> {
        let (pause, _) = Self::open(program, sandbox, events)?;
        match pause.greet(AWAKE).await {
            Ok(SandboxState::Made) => Ok((pause, Greeting::Made)),
            Ok(SandboxState::New) => Ok((pause, Greeting::Unfinished)),
            Err(PauseError::Deadline { .. }) => Ok((pause, Greeting::Late)),
            Err(error) => Err(error),
        }
    }

    /// Connects, and starts to read. The receiver ends with the connection.
    fn open(
        program: &Program,
        sandbox: &SandboxId,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<(Arc<Self>, oneshot::Receiver<()>), PauseError> {
        let error = |action| move |source| PauseError::Socket { action, source };
        let connection = socket::connection(program.sockets(), &Program::socket_name(sandbox))
            .map_err(error("reach"))?;
        let pause = Arc::new(Self {
            sandbox: sandbox.clone(),
            pid: OnceLock::new(),
            socket: socket::watch(connection).map_err(error("watch"))?,
            numbers: AtomicU64::new(1),
            waiting: Mutex::default(),
            ended: CancellationToken::new(),
        });
        let (alive, ended) = oneshot::channel::<()>();
        let reader = Arc::clone(&pause);
        tokio::spawn(async move {
            reader.read(&events).await;
            drop(alive);
        });
        Ok((pause, ended))
    }

    async fn greet(&self, deadline: Duration) -> Result<SandboxState, PauseError> {
        let hello = Request::Hello { version: VERSION };
        match self.request("Hello", deadline, hello, &[]).await? {
            (Answer::Hello { sandbox, .. }, _) => Ok(sandbox),
            _ => Err(PauseError::Protocol { request: "Hello" }),
        }
    }

    /// Its process id; none before it has answered for the first time.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid.get().copied()
    }

    /// Whether it has ever answered this daemon.
    pub(crate) fn has_answered(&self) -> bool {
        self.pid.get().is_some()
    }

    /// Waits until the connection has closed: the pod has ended.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Makes the sandbox.
    pub(crate) async fn init(
        &self,
        sandbox: podwright_pause::protocol::SandboxPlan,
    ) -> Result<Made, PauseError> {
        match self
            .request("Init", PROMPT, Request::Init { sandbox }, &[])
            .await?
        {
            (Answer::Ready { .. }, descriptors) => {
                let mut descriptors = descriptors.into_iter();
                Ok(Made {
                    network: descriptors.next().zip(descriptors.next()),
                })
            }
            _ => Err(PauseError::Protocol { request: "Init" }),
        }
    }

    /// Starts a container; its process id and start time.
    pub(crate) async fn launch(
        &self,
        container: &ContainerId,
        plan: &LaunchPlan,
        log: BorrowedFd<'_>,
    ) -> Result<(u32, i64), PauseError> {
        let (plan, memfd) = carry(plan)?;
        let descriptors: Vec<_> = memfd.iter().map(AsFd::as_fd).chain([log]).collect();
        let request = Request::Launch {
            container: container.wire(),
            plan,
        };
        match self
            .request("Launch", LAUNCH, request, &descriptors)
            .await?
        {
            (Answer::Launched { pid, at }, _) => Ok((pid, at)),
            _ => Err(PauseError::Protocol { request: "Launch" }),
        }
    }

    /// Starts a process in a container: its number and coming end. `streams` are its 0, 1 and 2, unless its plan gives it a
    /// terminal.
    pub(crate) async fn exec(
        &self,
        container: &ContainerId,
        plan: &LaunchPlan,
        streams: &[BorrowedFd<'_>],
    ) -> Result<Exec, PauseError> {
        let (plan, memfd) = carry(plan)?;
        let descriptors: Vec<_> = memfd
            .iter()
            .map(AsFd::as_fd)
            .chain(streams.iter().copied())
            .collect();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (ended, end) = oneshot::channel();
        self.waiting().execs.insert(number, ended);
        let request = Request::Exec {
            exec: number,
            container: container.wire(),
            plan,
        };
        match self.request("Exec", LAUNCH, request, &descriptors).await {
            Ok((Answer::Launched { .. }, descriptors)) => Ok(Exec {
                number,
                end,
                terminal: descriptors.into_iter().next(),
            }),
            other => {
                self.waiting().execs.remove(&number);
                Err(other
                    .err()
                    .unwrap_or(PauseError::Protocol { request: "Exec" }))
            }
        }
    }

    /// Sends a signal.
    pub(crate) async fn signal(&self, target: Target, signal: i32) -> Result<(), PauseError> {
        self.done("Signal", Request::Signal { target, signal }, &[])
            .await
    }

    /// Goes on with the log in another file.
    pub(crate) async fn reopen_log(
        &self,
        container: &ContainerId,
        log: BorrowedFd<'_>,
    ) -> Result<(), PauseError> {
        self.done(
            "ReopenLog",
            Request::ReopenLog {
                container: container.wire(),
            },
            &[log],
        )
        .await
    }

    /// Drops the record of an exited container.
    pub(crate) async fn forget(&self, container: &ContainerId) -> Result<(), PauseError> {
        self.done(
            "Forget",
            Request::Forget {
                container: container.wire(),
            },
            &[],
        )
        .await
    }

    /// As [`Self::list`], however long it takes: for a pause that answers late.
    pub(crate) async fn list_late(&self) -> Result<Vec<ContainerEntry>, PauseError> {
        self.list_within(Duration::MAX).await
    }

    /// All containers that it has not forgotten.
    pub(crate) async fn list(&self) -> Result<Vec<ContainerEntry>, PauseError> {
        self.list_within(PROMPT).await
    }

    async fn list_within(&self, deadline: Duration) -> Result<Vec<ContainerEntry>, PauseError> {
        match self.request("List", deadline, Request::List, &[]).await? {
            (Answer::Containers { containers }, _) => Ok(containers),
            _ => Err(PauseError::Protocol { request: "List" }),
        }
    }

    /// Ends pause and everything that it started; returns when it is gone.
    pub(crate) async fn shut_down(&self) -> Result<(), PauseError> {
        match self
            .request("Shutdown", PROMPT, Request::Shutdown, &[])
            .await
        {
            Err(PauseError::Gone) => Ok(()),
            Err(PauseError::Socket { .. }) if self.waiting().closed => Ok(()),
            Ok(_) => Err(PauseError::Protocol {
                request: "Shutdown",
            }),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn done(
        &self,
        name: &'static str,
        request: Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), PauseError> {
        match self.request(name, PROMPT, request, descriptors).await? {
            (Answer::Done, _) => Ok(()),
            _ => Err(PauseError::Protocol { request: name }),
        }
    }

    pub(super) async fn request(
        &self,
        name: &'static str,
        deadline: Duration,
        body: Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Reply, PauseError> {
        let id = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.closed {
                return Err(PauseError::Gone);
            }
            waiting.requests.insert(id, sender);
        }
        let exchange = async {
            send(&self.socket, &Message { id, body }, descriptors).await?;
            answer.await.map_err(|_| PauseError::Gone)
        };
        let result = tokio::time::timeout(deadline, exchange).await;
        self.waiting().requests.remove(&id);
        match result.map_err(|_| PauseError::Deadline {
            request: name,
            seconds: deadline.as_secs(),
        })?? {
            (Answer::Failed { failure }, _) => Err(PauseError::Failed(failure)),
            reply => Ok(reply),
        }
    }

    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out what comes until the connection closes.
    async fn read(&self, events: &mpsc::UnboundedSender<Event>) {
        loop {
            match receive(&self.socket).await {
                Ok(Some((message, descriptors))) => self.dispatch(message, descriptors, events),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(sandbox = %self.sandbox, error = %crate::error::chain(&error), "giving up the pod's pause process");
                    break;
                }
            }
        }
        let mut waiting = self.waiting();
        waiting.closed = true;
        // Dropping the senders tells everybody who waits.
        waiting.requests.clear();
        waiting.execs.clear();
        waiting.clients.clear();
        drop(waiting);
        self.ended.cancel();
        // The receiver is gone only when the daemon ends.
        let _ = events.send(Event::Closed {
            sandbox: self.sandbox.clone(),
        });
    }

    fn dispatch(
        &self,
        message: Message<Answer>,
        descriptors: Vec<OwnedFd>,
        events: &mpsc::UnboundedSender<Event>,
    ) {
        match message.body {
            Answer::Exited {
                target: Target::Exec { exec },
                exit,
            } => {
                let waiter = self.waiting().execs.remove(&exec);
                // Nobody waits for an exec that was given up.
                let _ = waiter.map(|waiter| waiter.send(exit));
            }
            Answer::Exited {
                target: Target::Container { id },
                exit,
            } => {
                let id = str::from_utf8(&id.0)
                    .ok()
                    .and_then(|text| ContainerId::parse(text).ok());
                let Some(container) = id else {
                    tracing::error!(sandbox = %self.sandbox, "pause told the exit of something that is no container");
                    return;
                };
                let _ = events.send(Event::Exited {
                    sandbox: self.sandbox.clone(),
                    container,
                    exit,
                });
            }
            Answer::Dropped { client } => {
                let client = self.waiting().clients.remove(&client);
                // Nobody waits for a client that is going.
                let _ = client.map(|client| client.send(()));
            }
            answer => {
                if let Answer::Hello { pid, .. } = &answer {
                    self.pid.get_or_init(|| *pid);
                }
                let waiter = self.waiting().requests.remove(&message.id);
                // Nobody waits for a request whose deadline has passed.
                let _ = waiter.map(|waiter| waiter.send((answer, descriptors)));
            }
        }
    }
}

/// A process that runs in a container.
pub(crate) struct Exec {
    /// For signals.
    pub(crate) number: u64,
    /// Comes when it ends; an error when pause ends first.
    pub(crate) end: oneshot::Receiver<Exit>,
    /// Its terminal's master, if its plan gives it one.
    pub(crate) terminal: Option<OwnedFd>,
}

fn carry(plan: &LaunchPlan) -> Result<(PlanBytes, Option<OwnedFd>), PauseError> {
    let bytes = plan.to_bytes();
    match bytes.len() {
        length if length > MAX_PLAN => Err(PauseError::PlanTooLong { length }),
        length if length > INLINE_PLAN => {
            let memfd = sys::sealed_memfd("podwright-plan", &bytes).map_err(|source| {
                PauseError::Socket {
                    action: "write a plan for",
                    source,
                }
            })?;
            let length = u32::try_from(length).map_err(|_| PauseError::PlanTooLong { length })?;
            Ok((PlanBytes::Memfd { length }, Some(memfd)))
        }
        _ => Ok((PlanBytes::Inline { plan: Bytes(bytes) }, None)),
    }
}

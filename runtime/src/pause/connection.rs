//! A conversation with one pod's pause: its beginning, requests with deadlines, and what it tells by itself.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use podwright_pause::protocol::{
    Answer, Exit, Failure, LogState, Message, REFUSED_VERSION, Request, RequestId, SandboxState,
    Stage, Target,
};
use podwright_pause::version::{Version, Versions};
use podwright_pause::wire::DecodeError;
use tokio::io::unix::AsyncFd;
use tokio::sync::{SetOnce, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use super::error::PauseError;
use super::program::Program;
use super::reaping::{kill_and_reap, reap_at_end};
use super::socket;
use super::transport::{Received, receive, send};
use crate::cgroup::Leaf;
use crate::ids::{ContainerId, SandboxId};

/// How long pause may take for what it does at once. A pause that is frozen or starved makes its own pod slow, and no other.
pub(super) const PROMPT: Duration = Duration::from_secs(10);

/// How long it may take to make a pod's namespaces. The kernel makes a caller wait there while it takes others apart or loads a module
/// (`pernet_ops_rwsem`, net/core/net_namespace.c), and a busy node does both: a kubelet waits for two minutes.
pub(super) const NAMESPACES: Duration = Duration::from_secs(60);

/// How long a pause that is found at start may take for its first answer before the start goes on without it.
const AWAKE: Duration = Duration::from_secs(1);

/// Numbers of requests, commands and clients begin with the time in nanoseconds: pause tells of commands and clients by their numbers alone,
/// and those of an earlier connection may still be ending, of an earlier daemon too.
static NUMBERS: LazyLock<AtomicU64> =
    LazyLock::new(|| AtomicU64::new(crate::clock::now().unsigned_abs()));

/// One that no other connection has had.
pub(super) fn next_number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// What pause tells by itself.
#[derive(Debug)]
pub(crate) enum Event {
    /// A container has ended.
    Exited {
        sandbox: SandboxId,
        container: ContainerId,
        exit: Exit,
    },
    /// A connection has closed: pause has ended, as a rule.
    Closed {
        sandbox: SandboxId,
        connection: ConnectionId,
    },
}

/// Which connection to a pause it is; no two have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionId(u64);

pub(super) type Reply = (Answer, Vec<OwnedFd>);

/// Who waits for what. Guards only the maps: never held across a system call or an await.
#[derive(Default)]
pub(super) struct Waiting {
    requests: HashMap<RequestId, oneshot::Sender<Result<Reply, PauseError>>>,
    pub(super) execs: HashMap<u64, oneshot::Sender<Exit>>,
    /// Attached clients, to be told that pause has dropped them.
    pub(super) clients: HashMap<u64, oneshot::Sender<()>>,
    pub(super) closed: bool,
}

/// A pod's pause process, spoken to by its socket.
pub(crate) struct Pause {
    sandbox: SandboxId,
    id: ConnectionId,
    /// Told with the answer to the greeting; nothing but a greeting or a good-bye is sent before.
    greeted: SetOnce<Greeted>,
    /// None where it could not be reached, or is not held any longer.
    socket: Option<AsyncFd<OwnedFd>>,
    waiting: Mutex<Waiting>,
    ended: CancellationToken,
    since: Instant,
}

/// What the answer to the greeting told.
#[derive(Clone)]
struct Greeted {
    /// None when it has only refused to speak.
    pid: Option<u32>,
    /// The version that is spoken, if there is one; else those that pause speaks.
    speaks: Result<Version, String>,
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
    /// It speaks none of the versions that this daemon speaks: its pod lives, and can be stopped and removed.
    Foreign,
}

impl Pause {
    /// Starts a pause for a new pod, in `group` as far as that is of the unified hierarchy. `events` hears of exits until the connection closes.
    pub(crate) async fn start(
        program: &Program,
        sandbox: &SandboxId,
        group: Option<&Leaf>,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Arc<Self>, PauseError> {
        let name = Program::socket_name(sandbox);
        let listener =
            socket::listener(program.sockets(), &name).map_err(|source| PauseError::Socket {
                action: "listen for",
                source,
            })?;
        let group = group.and_then(|group| group.dir().ok());
        let zygote = program.zygote();
        let pid = zygote
            .bear(program, sandbox, &listener, group.as_ref())
            .await?;
        // Closed here, so that its end is the connection's.
        drop(listener);
        match Self::introduced(program, sandbox, pid, events).await {
            Ok((pause, ended)) => {
                tokio::spawn(reap_at_end(pid, ended));
                Ok(pause)
            }
            Err(error) => {
                // It is ours and of no use.
                kill_and_reap(pid).await;
                Err(error)
            }
        }
    }

    /// Begins to speak to a pause that was born just now. It is of this program, so that its answer to the greeting is known, and
    /// need not be waited for.
    async fn introduced(
        program: &Program,
        sandbox: &SandboxId,
        pid: u32,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<(Arc<Self>, oneshot::Receiver<()>), PauseError> {
        let (pause, ended) = Self::open(program, sandbox, events)?;
        if cfg!(feature = "next-protocol") {
            // Whose pauses may be of another version.
            pause.greet(PROMPT).await?;
            return Ok((pause, ended));
        }
        let version = Versions::spoken().newest;
        let known = Greeted {
            pid: Some(pid),
            speaks: Ok(version),
        };
        // It has not answered yet: nothing else has set this.
        let _ = pause.greeted.set(known);
        let id = next_number();
        let body = Request::Hello { version };
        let hello = Message { id, body };
        let sent = pause.send(&hello, Version::FIRST, &[]);
        pause.within("Hello", PROMPT, sent).await??;
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
            Err(error @ PauseError::Version { .. }) => {
                tracing::error!(sandbox = %pause.sandbox, error = %crate::error::chain(&error), "the pod runs on, and can only be stopped and removed");
                Ok((pause, Greeting::Foreign))
            }
            Err(error) => {
                pause.hang_up();
                Err(error)
            }
        }
    }

    /// One that lives and cannot be reached now: it is as one whose connection has closed.
    pub(crate) fn unreached(sandbox: &SandboxId) -> Arc<Self> {
        let id = ConnectionId(next_number());
        Self::closed(sandbox, id, SetOnce::new(), Instant::now())
    }

    /// A connection that has closed, without its descriptor.
    pub(crate) fn without_socket(&self) -> Arc<Self> {
        let greeted = SetOnce::new_with(self.greeted.get().cloned());
        Self::closed(&self.sandbox, self.id, greeted, self.since)
    }

    fn closed(
        sandbox: &SandboxId,
        id: ConnectionId,
        greeted: SetOnce<Greeted>,
        since: Instant,
    ) -> Arc<Self> {
        let ended = CancellationToken::new();
        ended.cancel();
        Arc::new(Self {
            sandbox: sandbox.clone(),
            id,
            greeted,
            socket: None,
            waiting: Mutex::new(Waiting {
                closed: true,
                ..Waiting::default()
            }),
            ended,
            since,
        })
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
            id: ConnectionId(next_number()),
            greeted: SetOnce::new(),
            socket: Some(socket::watch(connection).map_err(error("watch"))?),
            waiting: Mutex::default(),
            ended: CancellationToken::new(),
            since: Instant::now(),
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
        let hello = Request::Hello {
            version: Versions::spoken().newest,
        };
        match self.request("Hello", deadline, hello, &[]).await {
            Ok((Answer::Hello { sandbox, .. }, _)) => {
                let version = self.version("Hello", deadline).await?;
                #[cfg(feature = "next-protocol")]
                super::rehearsal::rehearse(self, version).await?;
                tracing::debug!(sandbox = %self.sandbox, %version, "speaking to the pod's pause process");
                Ok(sandbox)
            }
            Ok(_) => Err(PauseError::Protocol { request: "Hello" }),
            // The answer was no greeting, and is kept as what it is: that there is no version for both.
            Err(PauseError::Failed(failure)) if is_refusal(&failure) => {
                self.version("Hello", deadline).await?;
                Err(PauseError::Protocol { request: "Hello" })
            }
            Err(error) => Err(error),
        }
    }

    /// The version that is spoken with it: known once it has answered the greeting.
    pub(super) async fn version(
        &self,
        request: &'static str,
        deadline: Duration,
    ) -> Result<Version, PauseError> {
        let greeted = async {
            tokio::select! {
                greeted = self.greeted.wait() => Ok(greeted.speaks.clone()),
                () = self.ended.cancelled() => Err(PauseError::Gone),
            }
        };
        let speaks = self.within(request, deadline, greeted).await??;
        speaks.map_err(|theirs| PauseError::Version {
            theirs,
            ours: Versions::spoken(),
        })
    }

    /// Its process id; none before it has answered for the first time.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.greeted.get()?.pid
    }

    pub(crate) fn id(&self) -> ConnectionId {
        self.id
    }

    /// How long ago the connection was made.
    pub(crate) fn lasted(&self) -> Duration {
        self.since.elapsed()
    }

    /// Closes the connection.
    pub(crate) fn hang_up(&self) {
        if let Some(socket) = &self.socket {
            socket::shut(socket.get_ref());
        }
    }

    /// Whether the connection has closed.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until the connection has closed: the pod has ended, as a rule.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
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
        let id = next_number();
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.closed {
                return Err(PauseError::Gone);
            }
            waiting.requests.insert(id, sender);
        }
        let exchange = async {
            let version = match body {
                // The same in all versions, so that any daemon can end any pod.
                Request::Hello { .. } | Request::Shutdown => Version::FIRST,
                _ => self.version(name, Duration::MAX).await?,
            };
            self.send(&Message { id, body }, version, descriptors)
                .await?;
            answer.await.map_err(|_| PauseError::Gone)?
        };
        let result = self.within(name, deadline, exchange).await;
        self.waiting().requests.remove(&id);
        match result?? {
            (Answer::Failed { failure }, _) => Err(PauseError::Failed(failure)),
            reply => Ok(reply),
        }
    }

    async fn send(
        &self,
        message: &Message<Request>,
        version: Version,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), PauseError> {
        let socket = self.socket.as_ref().ok_or(PauseError::Gone)?;
        send(socket, message, version, descriptors).await
    }

    /// Waits for the answer to a request.
    async fn within<T>(
        &self,
        request: &'static str,
        deadline: Duration,
        answer: impl Future<Output = T>,
    ) -> Result<T, PauseError> {
        let answered = tokio::time::timeout(deadline, answer).await;
        answered.map_err(|_| PauseError::Deadline {
            request,
            seconds: deadline.as_secs(),
            doing: Box::new(Activity::of(self.pid())),
        })
    }

    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out what comes until the connection closes.
    async fn read(&self, events: &mpsc::UnboundedSender<Event>) {
        while let Some(socket) = &self.socket {
            let version = self
                .greeted
                .get()
                .and_then(|greeted| greeted.speaks.as_ref().ok().copied())
                .unwrap_or(Version::FIRST);
            match receive(socket, version).await {
                Ok(Some(Received::Message(message, descriptors))) => {
                    self.dispatch(message, descriptors, events)
                }
                Ok(Some(Received::Broken(request, error))) => self.not_understood(request, error),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(sandbox = %self.sandbox, error = %crate::error::chain(&error), "giving up the pod's pause process");
                    break;
                }
            }
        }
        // What is given up on this side is closed on the other one too, whoever still holds it here: pause ends what nobody can be told of.
        self.hang_up();
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
            connection: self.id,
        });
    }

    /// What it says cannot be read. Packets keep their bounds, so the next one can be; who asked is told.
    fn not_understood(&self, request: RequestId, error: DecodeError) {
        let error = PauseError::Decode(error);
        tracing::error!(sandbox = %self.sandbox, request, error = %crate::error::chain(&error), "a message of the pod's pause process is passed over");
        let waiter = self.waiting().requests.remove(&request);
        // Nobody waits for a request whose deadline has passed.
        let _ = waiter.map(|waiter| waiter.send(Err(error)));
    }

    /// Takes in that a container's log began to fail, or works again.
    pub(super) fn log_changed(&self, container: &str, state: &LogState) {
        match state {
            LogState::Failing { errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                tracing::warn!(sandbox = %self.sandbox, container, %error, "the container's log cannot be written: what it says is lost");
            }
            LogState::Resumed { lost } => {
                tracing::warn!(sandbox = %self.sandbox, container, lost, "the container's log is written again; bytes were lost");
            }
        }
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
            Answer::Log { container, state } => {
                self.log_changed(&String::from_utf8_lossy(&container.0), &state);
            }
            answer => {
                if let Some(greeted) = greeted(&answer) {
                    // A second answer tells nothing new.
                    let _ = self.greeted.set(greeted);
                }
                let waiter = self.waiting().requests.remove(&message.id);
                // Nobody waits for a request whose deadline has passed.
                let _ = waiter.map(|waiter| waiter.send(Ok((answer, descriptors))));
            }
        }
    }
}

/// What an answer tells of pause itself, if it is one to a greeting.
fn greeted(answer: &Answer) -> Option<Greeted> {
    match answer {
        Answer::Hello { pid, version, .. } => Some(Greeted {
            pid: Some(*pid),
            speaks: Versions::spoken()
                .with(*version)
                .ok_or_else(|| version.to_string()),
        }),
        Answer::Failed { failure } if is_refusal(failure) => Some(Greeted {
            pid: None,
            speaks: Err(String::from_utf8_lossy(&failure.subject.0).into_owned()),
        }),
        _ => None,
    }
}

/// Whether pause speaks no version that is as old as this daemon's newest.
fn is_refusal(failure: &Failure) -> bool {
    failure.stage == Stage::Request
        && failure.errno == libc::EPROTONOSUPPORT
        && failure.call == REFUSED_VERSION.into()
}

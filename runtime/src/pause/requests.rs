//! What the daemon asks of a pod's pause: one function for each request of a pod's life.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use podwright_netns::Namespace;
use podwright_pause::plan::LaunchPlan;
use podwright_pause::protocol::{
    Answer, ContainerEntry, Exit, LogState, MAX_PACKET, MAX_PLAN, PlanBytes, Request, SandboxPlan,
    Target,
};
use podwright_pause::version::Version;
use podwright_pause::wire::{Bytes, Wire};
use tokio::sync::oneshot;

use super::connection::{NAMESPACES, PROMPT, Pause, next_number};
use super::error::PauseError;
use crate::ids::ContainerId;
use crate::sys;

/// How long a launch may take: its mounts may wait for a remote file system.
const LAUNCH: Duration = Duration::from_secs(120);

/// Plans up to this size travel in the packet.
const INLINE_PLAN: usize = MAX_PACKET - 1024;

/// What [`Pause::init`] made.
pub(crate) struct Made {
    /// The pod's own network namespace, unless it was there already.
    pub(crate) network: Option<Namespace>,
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

impl Pause {
    /// Makes the sandbox, in a network namespace of its own that is there already, if there is one.
    pub(crate) async fn init(
        &self,
        sandbox: SandboxPlan,
        network: Option<BorrowedFd<'_>>,
    ) -> Result<Made, PauseError> {
        let request = Request::Init { sandbox };
        match self
            .request("Init", NAMESPACES, request, network.as_slice())
            .await?
        {
            (Answer::Ready { .. }, descriptors) => {
                let mut descriptors = descriptors.into_iter();
                let network = descriptors.next().zip(descriptors.next());
                Ok(Made {
                    network: network.map(|(file, netlink)| Namespace { file, netlink }),
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
        root: Option<OwnedFd>,
    ) -> Result<(u32, i64), PauseError> {
        let version = self.version("Launch", LAUNCH).await?;
        let (plan, memfd) = carry(plan, version)?;
        let memfd = memfd.iter().map(AsFd::as_fd);
        let root = root.iter().map(AsFd::as_fd);
        let descriptors: Vec<_> = memfd.chain([log]).chain(root).collect();
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
        let version = self.version("Exec", LAUNCH).await?;
        let (plan, memfd) = carry(plan, version)?;
        let descriptors: Vec<_> = memfd
            .iter()
            .map(AsFd::as_fd)
            .chain(streams.iter().copied())
            .collect();
        let number = next_number();
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
            (Answer::Containers { containers }, _) => {
                #[cfg(feature = "next-protocol")]
                super::rehearsal::check(&containers, self.version("List", PROMPT).await?)?;
                for entry in &containers {
                    if let Some(state @ LogState::Failing { .. }) = &entry.log {
                        self.log_changed(&String::from_utf8_lossy(&entry.id.0), state);
                    }
                }
                Ok(containers)
            }
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
}

/// A plan in its message or beside it, in the version that pause speaks.
fn carry(plan: &LaunchPlan, version: Version) -> Result<(PlanBytes, Option<OwnedFd>), PauseError> {
    #[cfg(feature = "next-protocol")]
    let plan = &super::rehearsal::fill_in(plan, version);
    let bytes = plan
        .to_bytes_of(version)
        .map_err(|newer| PauseError::older(newer, version))?;
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

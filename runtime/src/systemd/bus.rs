//! org.freedesktop.systemd1(5), spoken over the system bus, or with systemd directly where no bus runs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;
use tokio::time::timeout;
use zbus::connection::Builder;
use zbus::message::{Message, Type};
use zbus::zvariant::{DynamicType, OwnedObjectPath, Type as Signature, Value};
use zbus::{Connection, MatchRule, MessageStream};

use super::error::{SystemdError, is_away};
use super::jobs::Jobs;
use super::scope::{self, Scope};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// Where dbus-daemon and dbus-broker listen.
const BUS: &str = "unix:path=/run/dbus/system_bus_socket";
const BUS_SOCKET: &str = "/run/dbus/system_bus_socket";
/// systemd's own socket, for root; systemctl(1) speaks through it too.
const PRIVATE: &str = "unix:path=/run/systemd/private";

/// How long systemd may take to answer. It answers nobody while it reloads, which takes seconds with thousands of units.
const CALL: Duration = Duration::from_secs(20);
/// How long a scope may take to start once its job is queued: behind a reload, say.
const JOB: Duration = Duration::from_secs(20);
/// How long the end of the job may go untold before the unit's state is asked for.
const SILENCE: Duration = Duration::from_secs(2);
/// How long systemd may be away from the bus, and how often it is looked for.
const AWAY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// Signals that wait to be looked at. Who starts many units at once fills it, and waits.
const SIGNALS: usize = 64;
/// Units that `scopes` looks at: more than any machine has pods.
const MOST_SCOPES: usize = 65_536;

/// ListUnitsByPatterns: name, description, load, active and sub state, followed unit, path, job's id, type and path.
type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// A connection to systemd's manager. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bus {
    connection: Connection,
    jobs: Arc<Jobs>,
}

impl Bus {
    /// Connects, and subscribes to the ends of jobs. systemd may be away for a moment, in a daemon-reexec.
    pub(super) async fn connect() -> Result<Self, SystemdError> {
        let has_bus = Path::new(BUS_SOCKET).exists();
        let address = if has_bus { BUS } else { PRIVATE };
        let end = Instant::now() + AWAY;
        loop {
            match timeout(CALL, Self::open(address)).await {
                Ok(Ok(bus)) => return Ok(bus),
                Ok(Err(source)) if is_away(&source) && Instant::now() < end => {
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(Err(source)) => {
                    return Err(SystemdError::Connect {
                        address,
                        source: Box::new(source),
                    });
                }
                Err(_) => {
                    return Err(SystemdError::Deadline {
                        call: "Subscribe",
                        unit: address.to_owned(),
                        waited: CALL,
                    });
                }
            }
        }
    }

    async fn open(address: &'static str) -> zbus::Result<Self> {
        let builder = Builder::address(address)?;
        let builder = if address == BUS {
            builder
        } else {
            builder.p2p()
        };
        let connection = builder.build().await?;
        // The bus passes on what systemd itself has sent, nobody else's signals.
        let ends = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SYSTEMD)?
            .path(MANAGER_PATH)?
            .interface(MANAGER)?
            .member("JobRemoved")?
            .build();
        let ends = MessageStream::for_match_rule(ends, &connection, Some(SIGNALS)).await?;
        connection
            .call_method(Some(SYSTEMD), MANAGER_PATH, Some(MANAGER), "Subscribe", &())
            .await?;
        let jobs = Arc::new(Jobs::default());
        tokio::spawn(follow(ends, Arc::clone(&jobs)));
        Ok(Self { connection, jobs })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.jobs, &other.jobs)
    }

    /// Starts the scope, and returns when its process is in it.
    pub(super) async fn start(&self, scope: &Scope) -> Result<(), SystemdError> {
        let ended = self.jobs.expect(scope.name());
        let started = match self.ask_for(scope).await {
            Ok(()) => self.wait_started(scope, ended).await,
            Err(error) => Err(error),
        };
        self.jobs.forget(scope.name());
        started
    }

    async fn wait_started(
        &self,
        scope: &Scope,
        mut ended: oneshot::Receiver<String>,
    ) -> Result<(), SystemdError> {
        let unit = || scope.name().to_owned();
        let end = Instant::now() + JOB;
        while Instant::now() < end {
            match timeout(SILENCE, &mut ended).await {
                Ok(Ok(result)) if result == "done" => return Ok(()),
                Ok(Ok(result)) => {
                    return Err(SystemdError::Job {
                        unit: unit(),
                        result,
                    });
                }
                Ok(Err(_)) => return Err(SystemdError::Disconnected { unit: unit() }),
                // Signals can be lost where systemd forgets its subscribers, in a reexec; the unit's state is what counts.
                Err(_) if self.is_active(scope).await? => {
                    tracing::warn!(
                        unit = scope.name(),
                        "systemd did not say that it has started the unit"
                    );
                    self.subscribe_again().await;
                    return Ok(());
                }
                Err(_) => {}
            }
        }
        Err(SystemdError::Deadline {
            call: "the start",
            unit: unit(),
            waited: JOB,
        })
    }

    async fn subscribe_again(&self) {
        if let Err(error) = self.manager("Subscribe", "its signals", &()).await {
            // It has us among its subscribers, say.
            tracing::debug!(error = %crate::error::chain(&error), "not subscribed again");
        }
    }

    /// As [`start`](Self::start) after a connection that broke: the scope may have been started over that.
    pub(super) async fn resume(&self, scope: &Scope) -> Result<(), SystemdError> {
        match self.start(scope).await {
            Err(error) if error.is_existing_unit() => match self.is_active(scope).await? {
                true => Ok(()),
                false => Err(error),
            },
            started => started,
        }
    }

    async fn ask_for(&self, scope: &Scope) -> Result<(), SystemdError> {
        let auxiliary: [(&str, Vec<(&str, Value<'_>)>); 0] = [];
        let arguments = (scope.name(), "fail", scope.properties(), &auxiliary[..]);
        self.manager("StartTransientUnit", scope.name(), &arguments)
            .await
            .map(drop)
    }

    async fn is_active(&self, scope: &Scope) -> Result<bool, SystemdError> {
        let name = scope.name();
        let path = self.manager("GetUnit", name, &(name,)).await?;
        let path: OwnedObjectPath = body("GetUnit", name, &path)?;
        let arguments = (UNIT, "ActiveState");
        let call = self.connection.call_method(
            Some(SYSTEMD),
            path.as_str(),
            Some("org.freedesktop.DBus.Properties"),
            "Get",
            &arguments,
        );
        let answer = answered("Get", name, call).await?;
        let state: zbus::zvariant::OwnedValue = body("Get", name, &answer)?;
        Ok(String::try_from(state).is_ok_and(|state| state == "active"))
    }

    /// The names and descriptions of all scopes that are named as Podwright's.
    pub(super) async fn scopes(&self) -> Result<Vec<(String, String)>, SystemdError> {
        let call = "ListUnitsByPatterns";
        let pattern = scope::pattern();
        let states: [&str; 0] = [];
        let answer = self
            .manager(call, &pattern, &(&states[..], &[pattern.as_str()][..]))
            .await?;
        let listed: Vec<Listed> = body(call, &pattern, &answer)?;
        let listed = listed.into_iter().take(MOST_SCOPES);
        Ok(listed.map(|unit| (unit.0, unit.1)).collect())
    }

    /// Ends the unit with what is left in it; one that has ended is no error. Does not wait until that is done.
    pub(super) async fn stop(&self, unit: &str) -> Result<(), SystemdError> {
        match self.manager("StopUnit", unit, &(unit, "replace")).await {
            Err(error) if error.is_unknown_unit() => Ok(()),
            stopped => stopped.map(drop),
        }
    }

    /// Sends SIGKILL to all processes of the unit.
    pub(super) async fn kill(&self, unit: &str) -> Result<(), SystemdError> {
        self.manager("KillUnit", unit, &(unit, "all", libc::SIGKILL))
            .await
            .map(drop)
    }

    async fn manager<B>(
        &self,
        call: &'static str,
        unit: &str,
        arguments: &B,
    ) -> Result<Message, SystemdError>
    where
        B: Serialize + DynamicType,
    {
        let sent = self.connection.call_method(
            Some(SYSTEMD),
            MANAGER_PATH,
            Some(MANAGER),
            call,
            arguments,
        );
        answered(call, unit, sent).await
    }
}

async fn answered(
    call: &'static str,
    unit: &str,
    sent: impl Future<Output = zbus::Result<Message>>,
) -> Result<Message, SystemdError> {
    let elapsed = |_| SystemdError::Deadline {
        call,
        unit: unit.to_owned(),
        waited: CALL,
    };
    let answer = timeout(CALL, sent).await.map_err(elapsed)?;
    answer.map_err(SystemdError::call(call, unit))
}

fn body<T: DeserializeOwned + Signature>(
    call: &'static str,
    unit: &str,
    answer: &Message,
) -> Result<T, SystemdError> {
    let body = answer.body();
    body.deserialize().map_err(SystemdError::call(call, unit))
}

/// Tells the ends of jobs until the connection breaks.
async fn follow(mut ends: MessageStream, jobs: Arc<Jobs>) {
    while let Some(Ok(signal)) = ends.next().await {
        let body = signal.body();
        match body.deserialize::<(u32, OwnedObjectPath, &str, &str)>() {
            Ok((_, _, unit, result)) => jobs.ended(unit, result),
            Err(error) => tracing::warn!(%error, "systemd sent a JobRemoved that is none"),
        }
    }
    jobs.close();
}

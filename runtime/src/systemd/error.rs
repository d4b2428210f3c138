//! What can go wrong between the daemon and systemd.

use std::time::Duration;

/// systemd was not reached, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// Nobody answers.
    #[error(
        "cannot reach systemd at {address}; its cgroup driver needs systemd as the machine's first process: where it is not, set cgroup.driver = \"cgroupfs\""
    )]
    Connect {
        /// The D-Bus address that was tried.
        address: &'static str,
        /// What the bus said.
        #[source]
        source: Box<zbus::Error>,
    },
    /// A call failed.
    #[error("systemd refuses {call} for {unit}")]
    Call {
        /// The method of org.freedesktop.systemd1.Manager.
        call: &'static str,
        /// The unit in question.
        unit: String,
        /// What systemd said.
        #[source]
        source: Box<zbus::Error>,
    },
    /// No answer in time.
    #[error("systemd has not answered {call} for {unit} within {} s", waited.as_secs())]
    Deadline {
        /// The method, or the job that it queued.
        call: &'static str,
        /// The unit in question.
        unit: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The scope was not started.
    #[error(
        "systemd's job to start {unit} ended with {result:?}; `systemctl status {unit}` and the journal may say why"
    )]
    Job {
        /// The scope.
        unit: String,
        /// As in the signal JobRemoved: canceled, timeout, failed, dependency, skipped.
        result: String,
    },
    /// The connection broke before the job had ended.
    #[error("the connection to systemd broke while it started {unit}")]
    Disconnected {
        /// The scope.
        unit: String,
    },
}

impl SystemdError {
    pub(super) fn call(call: &'static str, unit: &str) -> impl FnOnce(zbus::Error) -> Self {
        move |source| Self::Call {
            call,
            unit: unit.to_owned(),
            source: Box::new(source),
        }
    }

    /// Whether the same may work over another connection: the bus or systemd was started anew meanwhile.
    pub(super) fn is_disconnect(&self) -> bool {
        match self {
            Self::Disconnected { .. } => true,
            Self::Call { source, .. } => {
                matches!(**source, zbus::Error::InputOutput(_)) || is_away(source)
            }
            _ => false,
        }
    }

    /// Whether systemd has the unit already.
    pub(super) fn is_existing_unit(&self) -> bool {
        self.is_answer("org.freedesktop.systemd1.UnitExists")
    }

    /// Whether systemd does not have the unit, or not any more.
    pub(super) fn is_unknown_unit(&self) -> bool {
        self.is_answer("org.freedesktop.systemd1.NoSuchUnit")
    }

    fn is_answer(&self, error: &str) -> bool {
        matches!(self, Self::Call { source, .. } if matches!(&**source,
            zbus::Error::MethodError(name, ..) if name.as_str() == error))
    }
}

/// Whether the bus has answered in systemd's place, which is away: in a daemon-reexec, say.
pub(super) fn is_away(error: &zbus::Error) -> bool {
    const ANSWERS: [&str; 5] = [
        "org.freedesktop.DBus.Error.Disconnected",
        "org.freedesktop.DBus.Error.NameHasNoOwner",
        "org.freedesktop.DBus.Error.NoReply",
        "org.freedesktop.DBus.Error.ServiceUnknown",
        // The bus tries to start it, by a program that does nothing.
        "org.freedesktop.DBus.Error.Spawn.ChildExited",
    ];
    matches!(error, zbus::Error::MethodError(name, ..) if ANSWERS.contains(&name.as_str()))
}

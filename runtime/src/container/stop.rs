//! StopContainer.

use std::sync::Arc;
use std::time::Duration;

use podwright_cri_api::v1::Signal;
use podwright_pause::protocol::Target;
use tokio::time::{Instant, timeout_at};

use super::{Container, State};
use crate::error::{CallError, Context, Kind, chain};
use crate::node::Node;
use crate::pause::{Pause, PauseError};

/// How long a killed container may take to be gone before the call fails.
const KILLED: Duration = Duration::from_secs(30);

/// How often a stop signal is tried while the connection to pause is made again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Stops a container: its stop signal, and SIGKILL after `timeout` seconds. One that does not run, or is unknown, is no
/// error.
pub(crate) async fn stop(node: &Arc<Node>, id: &str, timeout: i64) -> Result<(), CallError> {
    let Some(container) = node.containers.find(id)? else {
        return Ok(());
    };
    if container.state() == State::Created {
        // A start may be at work: what it starts is to be stopped as well. A running container is stopped without the lock, so
        // that a second call with a shorter timeout need not wait for the first one's.
        drop(container.operation.lock().await);
    }
    stop_container(&container, u64::try_from(timeout).unwrap_or(0)).await?;
    if matches!(container.state(), State::Exited { .. }) {
        crate::nri::stopped(node, &container).await;
    }
    Ok(())
}

pub(super) async fn stop_container(
    container: &Arc<Container>,
    seconds: u64,
) -> Result<(), CallError> {
    if !container.is_running() {
        return Ok(());
    }
    let Some(pause) = container.sandbox.pause() else {
        return Ok(());
    };
    if seconds > 0 {
        let signal = stop_signal(container)?;
        // A century is no limit, and fits what timers can count.
        let grace = Duration::from_secs(seconds.min(100 * 365 * 86_400));
        let end = ask(container, &pause, signal, grace).await;
        if timeout_at(end, container.ended()).await.is_ok() {
            return Ok(());
        }
    }
    let target = Target::Container {
        id: container.id.wire(),
    };
    // By a connection that may be another one since.
    let pause = container.sandbox.pause().unwrap_or(pause);
    let told = pause.signal(target, libc::SIGKILL).await;
    if let Err(error) = &told {
        tracing::debug!(container = %container.id, error = %chain(error), "SIGKILL did not arrive");
    }
    let is_silent = told.is_err_and(|error| error.is_silence());
    if !is_silent
        && tokio::time::timeout(KILLED, container.ended())
            .await
            .is_ok()
    {
        return Ok(());
    }
    let cgroup = container.cgroup.clone();
    let killed = tokio::task::spawn_blocking(move || cgroup.kill_all(KILLED)).await;
    killed
        .internal(|| "cannot kill the container's processes".into())?
        .internal(|| {
            format!(
                "cannot kill the processes of the container {}",
                container.id
            )
        })?;
    if tokio::time::timeout(KILLED, container.ended())
        .await
        .is_ok()
    {
        return Ok(());
    }
    let what = format!(
        "the container {} is killed but its end was not seen within {} s; try again",
        container.id,
        KILLED.as_secs()
    );
    Err(CallError::new(Kind::DeadlineExceeded, what))
}

/// Sends the stop signal, by the next connection to pause where this one has closed, and gives the end of the grace period.
async fn ask(container: &Container, pause: &Arc<Pause>, signal: i32, grace: Duration) -> Instant {
    let mut pause = Arc::clone(pause);
    let end = Instant::now() + grace;
    loop {
        let target = Target::Container {
            id: container.id.wire(),
        };
        let Err(error) = pause.signal(target, signal).await else {
            return Instant::now() + grace;
        };
        tracing::debug!(container = %container.id, error = %chain(&error), "the stop signal did not arrive");
        if !matches!(error, PauseError::Gone | PauseError::Socket { .. }) {
            return Instant::now() + grace;
        }
        if timeout_at(end, tokio::time::sleep(ASK_AGAIN))
            .await
            .is_err()
        {
            return end;
        }
        match container.sandbox.pause() {
            Some(next) => pause = next,
            None => return end,
        }
    }
}

/// The last value of CRI's enumeration.
const LAST_SIGNAL: i32 = 65;

/// The signal that asks the container to end: the request's, the image's, or SIGTERM.
pub(super) fn stop_signal(container: &Container) -> Result<i32, CallError> {
    let asked = Signal::try_from(container.config.stop_signal).unwrap_or(Signal::RuntimeDefault);
    if asked != Signal::RuntimeDefault {
        return signal_number(asked.as_str_name().trim_start_matches("SIGNAL_"));
    }
    match container
        .image
        .config()
        .as_ref()
        .and_then(|config| config.stop_signal().clone())
    {
        Some(name) if !name.is_empty() => signal_number(&name),
        _ => Ok(libc::SIGTERM),
    }
}

/// The same as CRI names it; SIGTERM where the image's is none.
pub(super) fn told(container: &Container) -> Signal {
    match Signal::try_from(container.config.stop_signal) {
        Ok(Signal::RuntimeDefault) | Err(_) => {}
        Ok(asked) => return asked,
    }
    let number = stop_signal(container).unwrap_or(libc::SIGTERM);
    named(number).unwrap_or(Signal::Sigterm)
}

fn named(number: i32) -> Option<Signal> {
    let all = (1..=LAST_SIGNAL).filter_map(|value| Signal::try_from(value).ok());
    let mut all = all.filter(|signal| *signal != Signal::RuntimeDefault);
    all.find(|signal| {
        let name = signal.as_str_name().trim_start_matches("SIGNAL_");
        signal_number(name).is_ok_and(|its| its == number)
    })
}

/// A signal by its name or number, as CRI and images write it: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, `SIGRTMAXMINUS2`.
fn signal_number(name: &str) -> Result<i32, CallError> {
    let unknown = || CallError::invalid(format!("'{}' is no signal", crate::index::shown(name)));
    if let Ok(number) = name.parse::<i32>() {
        return Some(number)
            .filter(|number| (1..=libc::SIGRTMAX()).contains(number))
            .ok_or_else(unknown);
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    // Real-time signals count from the kernel's 34 and 64, as kill(1) shows them, not from libc's own.
    let real_time = |rest: &str, signs: [&str; 2]| match rest {
        "" => Some(0),
        rest => signs
            .iter()
            .find_map(|sign| rest.strip_prefix(sign)?.parse::<i32>().ok())
            .filter(|offset| (0..=30).contains(offset)),
    };
    if let Some(rest) = short.strip_prefix("RTMIN") {
        return real_time(rest, ["+", "PLUS"])
            .map(|offset| 34 + offset)
            .ok_or_else(unknown);
    }
    if let Some(rest) = short.strip_prefix("RTMAX") {
        return real_time(rest, ["-", "MINUS"])
            .map(|offset| 64 - offset)
            .ok_or_else(unknown);
    }
    let plain = match short {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        other => other,
    };
    format!("SIG{plain}")
        .parse::<nix::sys::signal::Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_all_their_names() {
        let cases = [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMINPLUS3", 37),
            ("SIGRTMAX", 64),
            ("SIGRTMAXMINUS14", 50),
            ("SIGRTMAX-14", 50),
            ("SIGCLD", 17),
            ("SIGIOT", 6),
            ("SIGPOLL", 29),
            ("SIGPWR", 30),
            ("SIGSTKFLT", 16),
        ];
        for (name, number) in cases {
            assert_eq!(signal_number(name).unwrap(), number, "{name}");
        }
        for bad in ["", "0", "65", "-1", "SIGFOO", "SIGRTMIN+99", "RTMAX+1"] {
            assert!(signal_number(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_told_as_cri_names_them() {
        for (number, name) in [
            (15, "SIGTERM"),
            (9, "SIGKILL"),
            (34, "SIGRTMIN"),
            (37, "SIGRTMINPLUS3"),
            (64, "SIGRTMAX"),
        ] {
            assert_eq!(
                named(number)
                    .unwrap()
                    .as_str_name()
                    .trim_start_matches("SIGNAL_"),
                name
            );
        }
        assert_eq!(named(0), None);
    }

    #[test]
    fn every_signal_of_cri_has_a_number() {
        let named = (1..=65).map(|value| Signal::try_from(value).unwrap());
        for signal in named {
            let name = signal.as_str_name();
            assert!(
                signal_number(name.trim_start_matches("SIGNAL_")).is_ok(),
                "{name}"
            );
        }
    }
}

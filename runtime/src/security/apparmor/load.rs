//! Loading the default profile into the kernel: at the daemon's start, by AppArmor's own compiler.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::profile::DefaultProfile;

/// Where distributions put it. A daemon's PATH is its starter's affair.
const PARSERS: [&str; 3] = [
    "/usr/sbin/apparmor_parser",
    "/sbin/apparmor_parser",
    "/usr/bin/apparmor_parser",
];

/// It takes milliseconds. A node whose parser hangs must come up all the same.
const PATIENCE: Duration = Duration::from_secs(30);

/// More of the parser's words is of no use in an error.
const LONGEST_COMPLAINT: usize = 1024;

/// The default profile cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not installed.
    #[error("apparmor_parser(8) is not installed; install the package apparmor")]
    NoParser,
    /// The system does not run it.
    #[error("cannot run {parser}")]
    Run {
        /// Where it is.
        parser: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It does not end.
    #[error("{parser} did not end within {} s", PATIENCE.as_secs())]
    Hangs {
        /// Where it is.
        parser: PathBuf,
    },
    /// It refused the profile, or the kernel did: a daemon without CAP_MAC_ADMIN, or a securityfs that is mounted read-only.
    #[error("{parser} could not load the profile {name} ({status}): {complaint}")]
    Refused {
        /// Where it is.
        parser: PathBuf,
        /// The profile's.
        name: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        complaint: String,
    },
}

/// The first parser that is there.
pub(super) fn parser() -> Result<&'static Path, LoadError> {
    let mut parsers = PARSERS.into_iter().map(Path::new);
    let found = parsers.find(|path| fs::metadata(path).is_ok_and(|file| file.is_file()));
    found.ok_or(LoadError::NoParser)
}

/// Compiles and loads the profile.
pub(super) async fn load(profile: &DefaultProfile) -> Result<(), LoadError> {
    let parser = parser()?;
    let ran = timeout(PATIENCE, run(parser, &profile.text)).await;
    let ran = ran.map_err(|_| LoadError::Hangs {
        parser: parser.to_owned(),
    })?;
    let output = ran.map_err(|source| LoadError::Run {
        parser: parser.to_owned(),
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(LoadError::Refused {
        parser: parser.to_owned(),
        name: profile.name.clone(),
        status: output.status,
        complaint: complaint.chars().take(LONGEST_COMPLAINT).collect(),
    })
}

/// Its caches are for the distribution's profiles. A profile that another daemon has just loaded is the same one.
async fn run(parser: &Path, text: &str) -> io::Result<Output> {
    let mut child = Command::new(parser)
        .args(["--replace", "--skip-cache", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended says why; that is more than a broken pipe.
        let _ = stdin.write_all(text.as_bytes()).await;
    }
    child.wait_with_output().await
}

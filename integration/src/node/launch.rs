//! Starts the program under test.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    net::UnixDatagram,
    process::{Child, Command},
    time::timeout,
};

use super::{Build, deadline};

/// What a daemon is started with.
#[derive(Clone, Debug)]
pub struct Files {
    /// Its configuration.
    pub configuration: PathBuf,
    /// What it says is added to this file.
    pub log: PathBuf,
    /// The socket on which it says that it is ready; made anew.
    pub notify: PathBuf,
}

/// Starts `podwright runtime`, and waits until it says that it is ready.
///
/// # Errors
/// When the program is not built, or ends or hangs before it is ready; with its log.
pub async fn launch(files: &Files) -> Result<Child> {
    launch_under(&[], files, Build::Tested).await
}

/// The same of a build, by a program that becomes what its further arguments name, such as `aa-exec -p PROFILE --`.
///
/// # Errors
/// As for [`launch`].
pub(super) async fn launch_under(wrapper: &[&str], files: &Files, build: Build) -> Result<Child> {
    let notify = &files.notify;
    let _ = fs::remove_file(notify);
    let ready =
        UnixDatagram::bind(notify).with_context(|| format!("binding {}", notify.display()))?;
    let stderr = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&files.log)?;
    let program = build.program()?;
    let mut words: Vec<OsString> = wrapper.iter().map(OsString::from).collect();
    words.push(program.clone().into());
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .args(["runtime", "--config"])
        .arg(&files.configuration)
        .env("NOTIFY_SOCKET", notify)
        .envs(build.environment())
        .stdin(Stdio::null())
        .stdout(stderr.try_clone()?)
        .stderr(stderr)
        // A terminal's Ctrl-C is for the program in the foreground, which then ends the daemon in order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let said_ready = timeout(deadline(), async {
        tokio::select! {
            received = wait_ready(&ready) => received,
            status = child.wait() => {
                let status = status?;
                bail!("it ended with {status} (signal {:?})", status.signal())
            }
        }
    });
    let outcome = said_ready.await.context("it hangs").flatten();
    if let Err(error) = outcome {
        let _ = child.kill().await;
        let log = fs::read_to_string(&files.log).unwrap_or_else(|error| format!("no log: {error}"));
        return Err(error.context(format!("the daemon does not get ready\n{log}")));
    }
    Ok(child)
}

/// See sd_notify(3): a datagram holds lines of `NAME=value`.
async fn wait_ready(socket: &UnixDatagram) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if buffer[..length]
            .split(|byte| *byte == b'\n')
            .any(|line| line == b"READY=1")
        {
            return Ok(());
        }
    }
}

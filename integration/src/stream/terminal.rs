//! A terminal with a program in it, as a person has.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::node::deadline;

/// A program with a terminal of ours as its standard streams; killed when dropped.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    child: Child,
    said: String,
}

impl Terminal {
    /// Starts `command` in a terminal of this many rows and columns. `setsid` makes it the controlling one.
    ///
    /// # Errors
    /// When there is no terminal or the program does not start.
    pub fn start(command: &Command, rows: u16, columns: u16) -> Result<Self> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let terminal = openpty(&size, None)?;
        let slave = || -> Result<Stdio> { Ok(Stdio::from(terminal.slave.try_clone()?)) };
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg("--wait")
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(slave()?)
            .stdout(slave()?)
            .stderr(slave()?)
            .spawn()
            .context("starting a program in a terminal")?;
        Ok(Self {
            master: File::from(terminal.master),
            child,
            said: String::new(),
        })
    }

    /// Types.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn type_in(&mut self, text: &str) -> Result<()> {
        Ok(self.master.write_all(text.as_bytes())?)
    }

    /// Changes its size; the program is told by SIGWINCH.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let status = Command::new("stty")
            .args(["rows", &rows.to_string(), "cols", &columns.to_string()])
            .stdin(Stdio::from(OwnedFd::from(self.master.try_clone()?)))
            .status()
            .context("starting stty")?;
        ensure!(status.success(), "stty ended with {status}");
        Ok(())
    }

    /// Waits until the screen shows `wanted` after what was awaited before; all since then.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn await_text(&mut self, wanted: &str) -> Result<String> {
        let end = Instant::now() + deadline();
        loop {
            if let Some(at) = self.said.find(wanted) {
                let rest = self.said.split_off(at + wanted.len());
                return Ok(std::mem::replace(&mut self.said, rest));
            }
            let mut buffer = [0; 4096];
            let length = match readable(self.master.as_fd(), end)? {
                Readable::No => 0,
                // EIO: the program has closed the terminal.
                Readable::Yes => self.master.read(&mut buffer).unwrap_or(0),
            };
            if length == 0 {
                bail!("no {wanted:?} on the screen, but {:?}", self.said);
            }
            self.said
                .push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    /// Waits for the program's end; its exit code.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn exit_code(&mut self) -> Result<Option<i32>> {
        // A descriptor of a process is readable when it has ended, pidfd_open(2); ours is not reaped before.
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())
            .context("opening the program's process")?;
        match readable(process.as_fd(), Instant::now() + deadline())? {
            Readable::Yes => Ok(self.child.wait()?.code()),
            Readable::No => bail!("the program does not end; the screen: {:?}", self.said),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readable {
    Yes,
    /// Not in time.
    No,
}

/// Waits until `end` for something to read, or for the end of what can be read.
fn readable(file: BorrowedFd<'_>, end: Instant) -> Result<Readable> {
    let left = end.saturating_duration_since(Instant::now());
    let mut waited = [PollFd::new(file, PollFlags::POLLIN)];
    Ok(match poll(&mut waited, PollTimeout::try_from(left)?)? {
        0 => Readable::No,
        _ => Readable::Yes,
    })
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

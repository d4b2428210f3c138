//! A crictl on a terminal, as somebody at a keyboard sees it.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
    process::{ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    pty::{Winsize, openpty},
    sys::signal::Signal,
};
use podwright_integration::node::deadline;
use rustix::termios::tcsetwinsize;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::process::{Printed, signal};

/// Rows and columns.
#[derive(Clone, Copy)]
pub(super) struct Size(pub(super) u16, pub(super) u16);

impl Size {
    fn window(self) -> Winsize {
        Winsize {
            ws_row: self.0,
            ws_col: self.1,
            ws_xpixel: 0,
            ws_ypixel: 0,
        }
    }
}

/// The keyboard's side of a terminal, and the program on the other.
pub(super) struct Terminal {
    keyboard: File,
    child: Child,
    pub(super) screen: Printed,
}

impl Terminal {
    /// Starts `command` with a new terminal as its standard input, output and error.
    pub(super) fn start(mut command: Command, size: Size) -> Result<Self> {
        let pair = openpty(Some(&size.window()), None).context("opening a terminal")?;
        let stdio = || Ok::<_, std::io::Error>(Stdio::from(pair.slave.try_clone()?));
        command.stdin(stdio()?).stdout(stdio()?).stderr(stdio()?);
        let child = command.spawn().context("starting crictl")?;
        // The command holds copies of the program's side, and the screen ends when the last is closed.
        drop((command, pair.slave));
        let keyboard = File::from(pair.master);
        let mut from = keyboard.try_clone()?;
        let screen = Printed::default();
        let to = screen.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO once nobody has the other side open.
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                to.add(&buffer[..count]);
            }
        });
        Ok(Self {
            keyboard,
            child,
            screen,
        })
    }

    /// Types.
    pub(super) fn write(&mut self, text: &str) -> Result<()> {
        Ok(self.keyboard.write_all(text.as_bytes())?)
    }

    /// Changes the window's size, and tells the program as the kernel tells a session's foreground process group.
    pub(super) fn resize(&self, Size(ws_row, ws_col): Size) -> Result<()> {
        let size = rustix::termios::Winsize {
            ws_row,
            ws_col,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(self.keyboard.as_fd(), size).context("resizing the terminal")?;
        signal(&self.child, Signal::SIGWINCH)
    }

    /// Waits for the program's end.
    pub(super) async fn end(&mut self) -> Result<ExitStatus> {
        let status = timeout(deadline(), self.child.wait()).await;
        let shown = || format!("it does not end; the screen shows {:?}", self.screen.text());
        Ok(status.with_context(shown)??)
    }
}

//! What epoll watches.

use crate::log::StreamName;

/// A watched descriptor's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Listener,
    Signals,
    Connection(u32),
    Birth(u32),
    Log(u32, StreamName),
    Sink(u32),
}

impl Source {
    /// The number that epoll carries: the serial above a byte for the kind.
    pub(super) fn token(self) -> u64 {
        let (kind, serial) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (1, 0),
            Self::Connection(serial) => (2, serial),
            Self::Birth(serial) => (3, serial),
            Self::Log(serial, StreamName::Stdout) => (4, serial),
            Self::Log(serial, StreamName::Stderr) => (5, serial),
            Self::Sink(serial) => (6, serial),
        };
        u64::from(serial) << 8 | kind
    }

    pub(super) fn from_token(token: u64) -> Self {
        let serial = (token >> 8) as u32;
        match token & 0xff {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Connection(serial),
            3 => Self::Birth(serial),
            4 => Self::Log(serial, StreamName::Stdout),
            5 => Self::Log(serial, StreamName::Stderr),
            _ => Self::Sink(serial),
        }
    }
}

/// Gives every source a number of its own: an event for one that is gone finds nobody.
#[derive(Default)]
pub(super) struct Serial(u32);

impl Serial {
    pub(super) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(1);
        self.0
    }
}

//! The daemon's side of pause: laying out the program, starting one per pod, and talking to it.

mod connection;
mod error;
mod program;
mod reaping;
mod socket;
mod streams;
mod transport;

pub(crate) use connection::{Event, Exec, Greeting, Made, Pause};
pub(crate) use error::PauseError;
pub(crate) use program::{Program, ProgramError};
pub(crate) use streams::{Client, ClientStreams, Left};

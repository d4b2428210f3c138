//! The daemon's side of pause: laying out the program, starting one per pod, and talking to it.

mod activity;
mod connection;
mod error;
mod program;
mod reaping;
#[cfg(feature = "next-protocol")]
mod rehearsal;
mod requests;
mod socket;
mod streams;
mod transport;
mod zygote;

pub(crate) use connection::{ConnectionId, Event, Greeting, Pause};
pub(crate) use error::PauseError;
pub(crate) use program::{Program, ProgramError};
pub(crate) use requests::{Exec, Made};
pub(crate) use streams::{Client, ClientStreams, Left};

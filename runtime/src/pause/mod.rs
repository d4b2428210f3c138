//! The daemon's side of pause: laying out the program, starting one per pod, and talking to it.

mod connection;
mod program;
mod socket;

pub(crate) use connection::{Event, Exec, Greeting, Made, Pause};
pub(crate) use program::{Program, ProgramError};

//! Containers' logs: what their standard streams say becomes records of the CRI log format in their log files.
//!
//! A record is `TIME STREAM TAG TEXT\n`; TIME is RFC 3339 with nanoseconds, STREAM `stdout` or `stderr`, TAG `F` for a text
//! that ended with a newline and `P` for one whose line goes on in the next record.

mod buffers;
mod file;
mod line;
mod stamp;
mod stream;

pub(crate) use buffers::{Buffers, INPUT};
pub(crate) use file::LogFile;
pub(crate) use line::StreamName;
pub(crate) use stream::{DRAIN_LIMIT, Progress, Stream};

//! What a machine needs, checked and, where that is possible, installed.

mod apt;
mod go;
mod rust;
mod tools;

use anyhow::Result;

pub(crate) use tools::cargo_deny;

/// How much of it a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// To compile and run Podwright.
    Build,
    /// Also to run the tests: images of Debian's packages, crictl and critest.
    Everything,
    /// Also to see where time goes.
    Profiling,
}

/// Installs what is missing. Nothing is done, and little time spent, on a machine that has everything.
pub(crate) fn run(need: Need) -> Result<()> {
    apt::install(need)?;
    rust::install()?;
    if need >= Need::Everything {
        go::check()?;
    }
    Ok(())
}

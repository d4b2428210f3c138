//! Which build of the program is started.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// A build of `podwright`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// `podwright`, the one that is tested.
    Tested,
    /// `podwright-next`: the same with a version of the protocol with pause more. It speaks these, `OLDEST-NEWEST`, so that
    /// it is an older or a newer version of the program.
    Speaking(&'static str),
}

impl Build {
    /// The program's name, and the environment variable that names another file.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Tested => ("podwright", "PODWRIGHT_BINARY"),
            Self::Speaking(_) => ("podwright-next", "PODWRIGHT_NEXT_BINARY"),
        }
    }

    /// What its environment says.
    pub(super) fn environment(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Tested => None,
            Self::Speaking(versions) => Some(("PODWRIGHT_TEST_PROTOCOL", versions)),
        }
    }

    /// The program that the environment names, or that cargo put beside this one.
    ///
    /// # Errors
    /// When there is none.
    pub fn program(self) -> Result<PathBuf> {
        let (name, variable) = self.names();
        if let Some(path) = std::env::var_os(variable) {
            return Ok(path.into());
        }
        let own = std::env::current_exe().context("finding the directory of this program")?;
        let near = own
            .ancestors()
            .skip(1)
            .take(2)
            .map(|directory| directory.join(name));
        near.into_iter()
            .find(|path| path.is_file())
            .with_context(|| {
                format!(
                    "no {name} beside {}: docs/testing.md says how it is built; or set {variable}",
                    own.display()
                )
            })
    }
}

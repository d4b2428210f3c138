//! The Go programs that drive a CRI socket: crictl, and critest through the integration crate.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{programs, workspace};

/// The oldest Go that can compile `integration/tools`: older ones since 1.21 fetch the one that go.mod names.
const OLDEST: (u32, u32) = (1, 21);

/// Checks that Go is there and new enough.
pub(super) fn check() -> Result<()> {
    let version = programs::output(Command::new("go").arg("version")).context("Go builds crictl and critest")?;
    match parse_version(&version) {
        Some(found) if found >= OLDEST => Ok(()),
        _ => bail!("{} is too old to build crictl and critest: Go {}.{} or later is needed", version.trim(), OLDEST.0, OLDEST.1),
    }
}

/// crictl on PATH, or built from the versions pinned in `integration/tools`.
///
/// # Errors
/// When there is none and no Go that can build it.
pub(crate) fn crictl() -> Result<PathBuf> {
    if let Some(installed) = programs::find("crictl") {
        return Ok(installed);
    }
    let built = workspace::tools().join("crictl");
    if !built.exists() {
        check()?;
        println!("building crictl");
        let mut go = Command::new("go");
        go.current_dir(workspace::root().join("integration/tools"));
        go.args(["build", "-trimpath", "-o"]).arg(&built).arg("sigs.k8s.io/cri-tools/cmd/crictl");
        programs::run(&mut go)?;
    }
    Ok(built)
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("go1."))?;
    let minor: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((1, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse_version("go version go1.26.8 linux/amd64\n"), Some((1, 26)));
        assert_eq!(parse_version("go version go1.9 linux/amd64"), Some((1, 9)));
        assert_eq!(parse_version("go version devel +abc"), None);
        assert!(parse_version("go version go1.9 x") < Some(OLDEST));
    }
}

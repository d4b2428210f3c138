//! Go, which compiles the programs that drive a CRI socket from outside: crictl and critest.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::programs;

/// The oldest Go that can compile `integration/tools`: older ones since 1.21 fetch the one that go.mod names.
const OLDEST: (u32, u32) = (1, 21);

/// Checks that Go is there and new enough.
pub(super) fn check() -> Result<()> {
    let version = programs::output(Command::new("go").arg("version"))
        .context("Go builds crictl and critest")?;
    match parse_version(&version) {
        Some(found) if found >= OLDEST => Ok(()),
        _ => bail!(
            "{} is too old to build crictl and critest: Go {}.{} or later is needed",
            version.trim(),
            OLDEST.0,
            OLDEST.1
        ),
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let version = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("go1."))?;
    let minor: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((1, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(
            parse_version("go version go1.26.8 linux/amd64\n"),
            Some((1, 26))
        );
        assert_eq!(parse_version("go version go1.9 linux/amd64"), Some((1, 9)));
        assert_eq!(parse_version("go version devel +abc"), None);
        assert!(parse_version("go version go1.9 x") < Some(OLDEST));
    }
}

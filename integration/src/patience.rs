//! How long to wait on a machine that is slower than others.

use std::{env, sync::LazyLock, time::Duration};

/// The environment variable with the factor by which every deadline is longer, every judged duration may be, and amounts of work are less. An
/// emulated machine sets it.
pub const VARIABLE: &str = "PODWRIGHT_TEST_PATIENCE";

static FACTOR: LazyLock<u32> = LazyLock::new(|| factor(env::var(VARIABLE).ok().as_deref()));

/// `duration` as this machine needs it.
pub fn patience(duration: Duration) -> Duration {
    duration * *FACTOR
}

/// How much of something to do that shows the more, the more there is of it: so many bytes, connections, lives. All of it, and
/// less on a slower machine, where it would take as much longer.
pub fn amount(whole: usize) -> usize {
    whole.div_ceil(*FACTOR as usize)
}

/// # Panics
/// When it is no factor: every deadline would be wrong.
fn factor(value: Option<&str>) -> u32 {
    let Some(value) = value else { return 1 };
    match value.parse() {
        Ok(factor @ 1..=1000) => factor,
        _ => panic!("{VARIABLE}={value}: it takes a number from 1 to 1000"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_factor_changes_nothing() {
        assert_eq!(factor(None), 1);
        assert_eq!(factor(Some("10")), 10);
    }

    #[test]
    fn a_wrong_factor_is_no_factor() {
        for value in ["", "0", "-1", "1.5", "1001", "ten"] {
            assert!(
                std::panic::catch_unwind(|| factor(Some(value))).is_err(),
                "{value:?}"
            );
        }
    }
}

//! Which versions of the protocol there are, and how two sides agree on one.
//!
//! # Guarantees
//! - [`Version::FIRST`]'s `Hello` and `Shutdown`, and the answers `Hello` and `Failed`, are as they are in every version:
//!   a daemon can greet any pause and end it.
//! - What a version has, no later one changes: a tag means what it meant, and fields stay where they were. A later version
//!   adds: messages, variants and fields that say since when they are there. `tests/versions.rs` keeps it so.
//! - Nothing is sent that the peer's version does not have ([`crate::wire::Writer`]).

use crate::wire::{DecodeError, Reader, Schema, Wire, Writer};

/// A version of the protocol and of launch plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16);

impl Version {
    /// What is spoken until both sides have agreed.
    pub const FIRST: Self = Self(1);

    /// The newest that this build knows.
    ///
    /// | version | adds |
    /// | --- | --- |
    /// | 2 | that a container's log cannot be written, and can be written again: `Answer::Log`, `ContainerEntry::log` |
    pub const NEWEST: Self = Self(if cfg!(feature = "next-protocol") {
        3
    } else {
        2
    });
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Wire for Version {
    fn put(&self, out: &mut Writer) {
        self.0.put(out);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        u16::get(from).map(Self)
    }
    fn describe(schema: &mut Schema) -> String {
        u16::describe(schema)
    }
}

/// All versions from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The first of them.
    pub oldest: Version,
    /// The last of them.
    pub newest: Version,
}

impl Versions {
    /// Those that this build speaks.
    #[cfg(not(feature = "next-protocol"))]
    pub fn spoken() -> Self {
        Self {
            oldest: Version::FIRST,
            newest: Version::NEWEST,
        }
    }

    /// Those that a build for tests speaks: [`TEST_VARIABLE`] says it, so that one build is an older one, a newer one, and
    /// one that has forgotten all versions of before.
    #[cfg(feature = "next-protocol")]
    pub fn spoken() -> Self {
        let asked = std::env::var(TEST_VARIABLE).unwrap_or_default();
        let range = asked.split_once('-').and_then(|(oldest, newest)| {
            Some(Self {
                oldest: Version(oldest.parse().ok()?),
                newest: Version(newest.parse().ok()?),
            })
        });
        range.unwrap_or(Self {
            oldest: Version::FIRST,
            newest: Version::NEWEST,
        })
    }

    /// The version to speak with a peer whose newest one is `theirs`; none when that is older than all of these.
    pub fn with(self, theirs: Version) -> Option<Version> {
        let common = self.newest.min(theirs);
        (common >= self.oldest).then_some(common)
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.oldest == self.newest {
            self.oldest.fmt(f)
        } else {
            write!(f, "{} to {}", self.oldest, self.newest)
        }
    }
}

/// `OLDEST-NEWEST`: what a build for tests speaks, daemon and pause.
#[cfg(feature = "next-protocol")]
pub const TEST_VARIABLE: &str = "PODWRIGHT_TEST_PROTOCOL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sides_speak_the_newest_that_both_know() {
        let range = |oldest, newest| Versions {
            oldest: Version(oldest),
            newest: Version(newest),
        };
        for (ours, theirs, common) in [
            (range(1, 2), 2, Some(2)),
            (range(1, 2), 1, Some(1)),
            (range(1, 2), 7, Some(2)),
            (range(3, 4), 3, Some(3)),
            (range(3, 4), 2, None),
            (range(1, 1), 0, None),
        ] {
            assert_eq!(
                ours.with(Version(theirs)),
                common.map(Version),
                "{ours} with {theirs}"
            );
        }
    }
}

//! `oom_score_adj` (proc(5)): which value a container may have.

use std::path::Path;

use super::capabilities::{self, Capability, CapabilitySet};

const FILE: &str = "/proc/self/oom_score_adj";

/// A score that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum OomScoreError {
    /// Not between the kernel's bounds.
    #[error("oom_score_adj {value} is not between -1000 and 1000")]
    Range {
        /// The refused value.
        value: i64,
    },
    /// The daemon's own score cannot be read.
    #[error("cannot read {FILE}")]
    Read(#[source] std::io::Error),
    /// The daemon's own score is not a number.
    #[error("{FILE} reads {text:?}, expected a number")]
    Parse {
        /// What it reads.
        text: String,
    },
    /// The daemon's capabilities cannot be read.
    #[error("cannot tell whether oom_score_adj may be lowered")]
    Capabilities(#[source] capabilities::CapabilityError),
}

/// The scores this daemon can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomScoreRange {
    floor: i32,
}

impl OomScoreRange {
    /// Reads the daemon's own score: without `CAP_SYS_RESOURCE` no process may go below it.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn of_this_process() -> Result<Self, OomScoreError> {
        let effective = capabilities::effective().map_err(OomScoreError::Capabilities)?;
        let text = std::fs::read_to_string(Path::new(FILE)).map_err(OomScoreError::Read)?;
        let own = text.trim().parse().map_err(|_| OomScoreError::Parse {
            text: text.chars().take(40).collect(),
        })?;
        Ok(Self::new(own, effective))
    }

    fn new(own: i32, effective: CapabilitySet) -> Self {
        Self {
            floor: if effective.contains(Capability::SysResource) {
                -1000
            } else {
                own
            },
        }
    }

    /// `requested`, raised to the floor when it is below.
    ///
    /// # Errors
    /// [`OomScoreError::Range`] when the kernel knows no such score.
    pub fn clamp(&self, requested: i64) -> Result<i32, OomScoreError> {
        match i32::try_from(requested) {
            Ok(value) if (-1000..=1000).contains(&value) => Ok(value.max(self.floor)),
            _ => Err(OomScoreError::Range { value: requested }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn clamps_to_the_floor() {
        let may = CapabilitySet::EMPTY.with(Capability::SysResource);
        for (own, effective, requested, given) in [
            (0, CapabilitySet::EMPTY, -998, 0),
            (-500, CapabilitySet::EMPTY, -998, -500),
            (-500, CapabilitySet::EMPTY, -100, -100),
            (0, may, -998, -998),
            (0, CapabilitySet::EMPTY, 1000, 1000),
        ] {
            assert_eq!(
                OomScoreRange::new(own, effective).clamp(requested).unwrap(),
                given
            );
        }
        for bad in [-1001, 1001, i64::MAX, i64::MIN, 1 << 32] {
            assert!(OomScoreRange::new(0, may).clamp(bad).is_err(), "{bad}");
        }
        OomScoreRange::of_this_process().unwrap().clamp(0).unwrap();
    }
}

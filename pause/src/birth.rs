//! What the daemon and its zygote say to each other. Both are of one build, so that this has no versions.
//!
//! The zygote is pause before it has a pod. The daemon sends an order for each new pod: the pod's id, with the pod's listening
//! socket and, where there is one, the directory of pause's group in the unified cgroup hierarchy. The answers come in the order
//! of the orders.

/// The most bytes of an order.
pub const MAX_ORDER: usize = 256;

/// How a birth went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Birth {
    /// The new pause, a child of the daemon.
    Born {
        /// Its process id.
        pid: u32,
    },
    /// There is none.
    Failed {
        /// What clone3(2) said.
        errno: i32,
    },
}

impl Birth {
    /// Bytes of an answer.
    pub const LENGTH: usize = 8;

    /// As it is sent: the process id, or the errno negated.
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let number = match self {
            Self::Born { pid } => i64::from(pid),
            Self::Failed { errno } => -i64::from(errno),
        };
        number.to_le_bytes()
    }

    /// None when it is no answer.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match i64::from_le_bytes(bytes.try_into().ok()?) {
            0 => None,
            number @ 1.. => Some(Self::Born {
                pid: number.try_into().ok()?,
            }),
            number => Some(Self::Failed {
                errno: number.checked_neg()?.try_into().ok()?,
            }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        for birth in [
            Birth::Born { pid: 1 },
            Birth::Born { pid: 4_194_304 },
            Birth::Failed { errno: 11 },
        ] {
            assert_eq!(Birth::from_bytes(&birth.to_bytes()), Some(birth));
        }
    }

    #[test]
    fn what_is_no_answer_is_none() {
        for number in [0, i64::MIN, i64::MAX, -i64::from(i32::MAX) - 1] {
            assert_eq!(Birth::from_bytes(&number.to_le_bytes()), None, "{number}");
        }
        assert_eq!(Birth::from_bytes(b"short"), None);
        assert_eq!(Birth::from_bytes(b"much too long"), None);
    }
}

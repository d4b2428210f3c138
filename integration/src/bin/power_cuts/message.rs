//! What the two sides tell each other: an order on the way in, a line of JSON for each event on the way out.

use serde::{Deserialize, Serialize};

/// The environment variable that holds the [`Order`].
pub(crate) const ORDER: &str = "POWER_CUTS_ORDER";

/// How a boot ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// The power is cut from outside, at any time.
    Cut,
    /// Work for a while, and an orderly reboot under running pods.
    Reboot,
    /// Nothing more is done after the check.
    Last,
}

/// What the node is to do in this boot, and what it has to find.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Decides what the node does.
    pub(crate) seed: u64,
    /// Counts boots: names of pods have it.
    pub(crate) boot: u32,
    /// Records to damage before the daemon is started.
    pub(crate) damages: usize,
    /// Images that must be listed, and those that must not.
    pub(crate) present: Vec<usize>,
    pub(crate) absent: Vec<usize>,
    /// What an orderly reboot has left, all of which must be listed.
    pub(crate) left: Vec<LeftPod>,
    pub(crate) ending: Ending,
}

/// A pod at an orderly reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftPod {
    pub(crate) id: String,
    pub(crate) containers: Vec<LeftContainer>,
}

/// A container at an orderly reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftContainer {
    pub(crate) id: String,
    /// Of one that had ended before.
    pub(crate) exit_code: Option<i32>,
    /// Where its log was, and how many lines it had.
    pub(crate) log: String,
    pub(crate) lines: usize,
}

/// What a check has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Until the daemon was ready.
    pub(crate) start_ms: u128,
    pub(crate) images: usize,
    /// Files and directories of their layers, each of which was compared.
    pub(crate) files: usize,
    /// Records that were damaged by the cut, and on purpose.
    pub(crate) torn: usize,
    pub(crate) damaged: usize,
    /// Pods and containers that were listed.
    pub(crate) pods: usize,
    pub(crate) containers: usize,
    /// Until a new pod's container had run.
    pub(crate) pod_ms: u128,
}

/// What the node tells. An image is told before and after it is changed, so that what was under way at a cut is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    Launching,
    Pulling(usize),
    Pulled(usize),
    Removing(usize),
    Removed(usize),
    /// Images that are listed, after all checks.
    Checked(Vec<usize>, Figures),
    Left(Vec<LeftPod>),
}

impl Event {
    /// Tells it. A line that is written here is outside, whatever happens to the machine next.
    pub(crate) fn tell(&self) {
        println!("{}", serde_json::json!(self));
    }

    /// An event, if the line is one; the others are for people.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

//! What a child tells pause before it executes its program.
#![allow(unreachable_pub)] // the macro declares for a library's use

use podwright_pause::protocol::Failure;
use podwright_pause::wire_enum;

wire_enum! {
    /// One packet on the socket between child and pause. Its end is the child's execve or death.
    Report {
        /// The terminal's master comes with this.
        1 => Terminal,
        /// Only execve is left to do.
        2 => Executing,
        /// The child ends.
        3 => Failed {
            /// Why.
            failure: Failure,
        },
        /// The plan goes on in another process, whose pidfd comes with this; this one ends.
        4 => HandedOver {
            /// Its process id in pause's PID namespace.
            pid: u32,
        },
    }
}

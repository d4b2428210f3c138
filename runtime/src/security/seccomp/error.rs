//! Why a profile does not become a program.

/// A seccomp profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// Not a profile.
    #[error("the seccomp profile is not valid JSON of the OCI or docker form")]
    Json(#[source] serde_json::Error),
    /// A profile larger than any real one.
    #[error("the seccomp profile has {size} bytes, more than {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The bound.
        limit: usize,
    },
    /// A field whose value cannot be used.
    #[error("seccomp profile: {field} {value:?} {reason}")]
    Field {
        /// Where.
        field: &'static str,
        /// What.
        value: String,
        /// Why not.
        reason: &'static str,
    },
    /// User notification is not built.
    #[error(
        "seccomp profile: SCMP_ACT_NOTIFY and listenerPath are not supported; use another action"
    )]
    Notify,
    /// None of the profile's architectures is one this program knows.
    #[error("seccomp profile: none of the architectures {architectures:?} is supported")]
    Architecture {
        /// As in the profile.
        architectures: Vec<String>,
    },
    /// The same condition with two actions.
    #[error(
        "seccomp profile: two rules for {syscall} have the same arguments and different actions ({first} and {second}); remove one"
    )]
    Contradiction {
        /// The call.
        syscall: String,
        /// The action listed first.
        first: String,
        /// The action listed later.
        second: String,
    },
    /// The kernel takes 4096 instructions.
    #[error(
        "the seccomp profile compiles to {instructions} instructions, the kernel takes 4096; use fewer rules with arguments"
    )]
    TooComplex {
        /// How many it would be.
        instructions: usize,
    },
}

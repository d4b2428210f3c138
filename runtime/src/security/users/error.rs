//! Why a user cannot be resolved.

use super::{MAX_DATABASE, MAX_GROUPS};

/// A user cannot be resolved.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// A number that is no id.
    #[error("{field} {value:?} is not an id between 0 and 4294967294")]
    Range {
        /// The field of the request or image.
        field: &'static str,
        /// The refused value.
        value: String,
    },
    /// A name that is not in the image.
    #[error("no {kind} {name:?} in the image's {file}")]
    Unknown {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The file that was searched.
        file: &'static str,
    },
    /// The file that should hold a name is not there.
    #[error("cannot look up {kind} {name:?}: the image has no {file}; use a numeric id")]
    NoFile {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The absent file.
        file: &'static str,
    },
    /// CRI demands this error.
    #[error("run_as_group {gid} is given without run_as_user or run_as_username")]
    GroupWithoutUser {
        /// The group.
        gid: i64,
    },
    /// Not `user`, `uid`, `user:group` or the like.
    #[error("user {user:?} is not of the form user[:group]")]
    Form {
        /// The refused text.
        user: String,
    },
    /// A file larger than any real one.
    #[error("the image's {file} has {size} bytes, more than {MAX_DATABASE}")]
    TooLarge {
        /// The file.
        file: &'static str,
        /// Its size.
        size: usize,
    },
    /// More groups than the kernel takes.
    #[error("{count} supplementary groups, the kernel takes {MAX_GROUPS}")]
    TooManyGroups {
        /// How many.
        count: usize,
    },
}

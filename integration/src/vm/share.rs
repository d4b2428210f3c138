//! Directories of this machine that the virtual one sees.

use std::path::{Path, PathBuf};

/// What the virtual machine may do with a shared directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read files, and run them.
    ReadOnly,
    /// Also write, at once visible outside.
    Writable,
}

impl Access {
    /// The option of mount(8).
    pub(super) const fn mount_option(self) -> &'static str {
        match self {
            Self::ReadOnly => "ro",
            Self::Writable => "rw",
        }
    }

    /// The value of QEMU's option `readonly`.
    pub(super) const fn readonly(self) -> &'static str {
        match self {
            Self::ReadOnly => "on",
            Self::Writable => "off",
        }
    }
}

/// A directory outside and the path inside at which it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Outside.
    pub outside: PathBuf,
    /// Inside, made when it is not there. White space in it is not possible.
    pub inside: PathBuf,
    /// Who may write.
    pub access: Access,
}

impl Share {
    /// `path`, to be read, at the same path inside.
    pub fn same_path(path: &Path) -> Self {
        Self {
            outside: path.to_owned(),
            inside: path.to_owned(),
            access: Access::ReadOnly,
        }
    }

    /// `outside`, to be written too, at `inside`.
    pub fn writable(outside: &Path, inside: &Path) -> Self {
        Self {
            outside: outside.to_owned(),
            inside: inside.to_owned(),
            access: Access::Writable,
        }
    }
}

/// The name by which the machine mounts the share of this index.
pub(super) fn tag(index: usize) -> String {
    format!("share{index}")
}

/// What `boot.sh` mounts: a line of tag, access and path for each share.
pub(super) fn table(shares: &[Share]) -> String {
    let line = |(index, share): (usize, &Share)| {
        let (tag, access) = (tag(index), share.access.mount_option());
        format!("{tag} {access} {}\n", share.inside.display())
    };
    shares.iter().enumerate().map(line).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn each_share_is_a_line() {
        let shares = [
            Share::same_path(Path::new("/a/target")),
            Share::writable(Path::new("/b"), Path::new("/out")),
        ];
        assert_eq!(table(&shares), "share0 ro /a/target\nshare1 rw /out\n");
    }
}

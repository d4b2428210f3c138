//! The validated name of a control group.

use std::fmt;
use std::str::FromStr;

use super::CgroupError;

/// NAME_MAX: the longest directory name.
const MAX_COMPONENT: usize = 255;
/// Leaves room below PATH_MAX for the mount and the file name.
const MAX_PATH: usize = 3072;

/// An absolute path below every cgroup mount, such as `/podwright/pod1/ctr2`; never the root itself.
///
/// Guarantees: starts with one `/`, no empty, `.` or `..` component, no control characters, components of at most
/// 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupPath(String);

impl CgroupPath {
    /// Checks `path`; a missing leading slash is added.
    ///
    /// # Errors
    /// [`CgroupError::InvalidPath`] names the broken rule.
    pub fn new(path: &str) -> Result<Self, CgroupError> {
        let refuse = |reason| {
            Err(CgroupError::InvalidPath {
                path: path.chars().take(256).collect(),
                reason,
            })
        };
        let relative = path.strip_prefix('/').unwrap_or(path);
        if relative.is_empty() {
            return refuse("names the root");
        }
        if relative.len() > MAX_PATH {
            return refuse("is too long");
        }
        for component in relative.split('/') {
            match component {
                "" => return refuse("has an empty component"),
                "." | ".." => return refuse("has a '.' or '..' component"),
                long if long.len() > MAX_COMPONENT => {
                    return refuse("has a component of more than 255 bytes");
                }
                _ => {}
            }
        }
        if relative.chars().any(char::is_control) {
            return refuse("has a control character");
        }
        Ok(Self(format!("/{relative}")))
    }

    /// The child named `child`, a single component.
    ///
    /// # Errors
    /// As [`CgroupPath::new`]; also when `child` has a slash.
    pub fn join(&self, child: &str) -> Result<Self, CgroupError> {
        if child.contains('/') {
            return Err(CgroupError::InvalidPath {
                path: child.chars().take(256).collect(),
                reason: "is not a single component",
            });
        }
        Self::new(&format!("{}/{child}", self.0))
    }

    /// The whole path with its leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The path without its last component; nothing when that is the root.
    pub fn parent(&self) -> Option<Self> {
        let (parent, _) = self.0.rsplit_once('/')?;
        (!parent.is_empty()).then(|| Self(parent.to_owned()))
    }

    /// The path as `openat(2)` takes it below a mount.
    pub(super) fn relative(&self) -> &str {
        &self.0[1..]
    }

    /// The relative paths of all ancestors and the path itself, top first: `a`, `a/b`, `a/b/c`.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = &str> {
        let relative = self.relative();
        let cuts = relative.match_indices('/').map(|(at, _)| at);
        cuts.chain([relative.len()]).map(|end| &relative[..end])
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CgroupPath {
    type Err = CgroupError;

    fn from_str(path: &str) -> Result<Self, CgroupError> {
        Self::new(path)
    }
}

impl TryFrom<&str> for CgroupPath {
    type Error = CgroupError;

    fn try_from(path: &str) -> Result<Self, CgroupError> {
        Self::new(path)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_normalises() {
        for (given, kept) in [
            ("/a", "/a"),
            ("a/b", "/a/b"),
            ("/podwright/pod1/ctr-2.x", "/podwright/pod1/ctr-2.x"),
            ("/..a/b..", "/..a/b.."),
        ] {
            assert_eq!(CgroupPath::new(given).unwrap().as_str(), kept);
        }
    }

    #[test]
    fn refuses() {
        let long = "x".repeat(256);
        let deep = "/x".repeat(2000);
        for bad in [
            "",
            "/",
            "//a",
            "/a/",
            "/a//b",
            "/../a",
            "/a/..",
            "/a/./b",
            "/a\nb",
            "/a\0b",
            long.as_str(),
            deep.as_str(),
        ] {
            let error = CgroupPath::new(bad).unwrap_err();
            assert!(error.is_invalid_input(), "{bad:?}: {error}");
        }
        assert!(CgroupPath::new("/a").unwrap().join("b/c").is_err());
        assert!(CgroupPath::new("/a").unwrap().join("..").is_err());
    }

    #[test]
    fn takes_apart() {
        let path = CgroupPath::new("/a/b/c").unwrap();
        assert_eq!(path.prefixes().collect::<Vec<_>>(), ["a", "a/b", "a/b/c"]);
        assert_eq!(path.name(), "c");
        assert_eq!(path.parent().unwrap().as_str(), "/a/b");
        assert_eq!(CgroupPath::new("/a").unwrap().parent(), None);
    }
}

//! Names of slices, and where systemd puts them; see systemd.slice(5).

use std::fmt;
use std::str::FromStr;

use crate::cgroup::CgroupPath;

const SUFFIX: &str = ".slice";
/// UNIT_NAME_MAX of systemd, without the end.
const LONGEST: usize = 255;
/// A unit whose name would be met as an interface file has `_` before it in the file system (cg_escape() of systemd).
const CONTROLLERS: [&str; 16] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "io",
    "blkio",
    "memory",
    "devices",
    "pids",
    "hugetlb",
    "rdma",
    "misc",
    "bpf-firewall",
    "bpf-devices",
    "bpf-foreign",
    "bpf-socket-bind",
    "bpf-restrict-network-interfaces",
];

/// A slice by its name, such as `kubepods-burstable.slice`; never the root.
///
/// Guarantees: a name that systemd takes, whose parts between dashes are not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice(String);

/// A name that no slice has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} {reason}; a slice is named as in kubepods-burstable.slice, which lies in kubepods.slice"
)]
pub struct InvalidSlice {
    given: String,
    reason: &'static str,
}

impl Slice {
    /// Its unit's name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Where systemd has it: each dash leads one slice further down.
    pub fn path(&self) -> CgroupPath {
        #[expect(
            clippy::expect_used,
            reason = "a checked name has no part that a path may not have"
        )]
        CgroupPath::new(&self.location()).expect("valid")
    }

    fn location(&self) -> String {
        let names = self.stems().map(|stem| format!("/{}", escaped(stem)));
        names.collect()
    }

    /// As clients that know nothing of escapes write it, kubelets among them.
    fn plain_location(&self) -> String {
        let names = self.stems().map(|stem| format!("/{stem}{SUFFIX}"));
        names.collect()
    }

    /// Of all slices on the way, top first, its own last.
    fn stems(&self) -> impl Iterator<Item = &str> {
        let stem = self.0.trim_end_matches(SUFFIX);
        let cuts = stem.match_indices('-').map(|(at, _)| at);
        cuts.chain([stem.len()]).map(move |end| &stem[..end])
    }
}

/// As the directory of the slice with this stem is called.
fn escaped(stem: &str) -> String {
    let first = stem.split('.').next().unwrap_or(stem);
    let is_file = first == "cgroup" || CONTROLLERS.contains(&first);
    let mark = if is_file || stem.starts_with(['_', '.']) {
        "_"
    } else {
        ""
    };
    format!("{mark}{stem}{SUFFIX}")
}

impl FromStr for Slice {
    type Err = InvalidSlice;

    /// Takes a name, or the path that it leads to; kubelets send the path.
    fn from_str(text: &str) -> Result<Self, InvalidSlice> {
        let refuse = |reason| {
            Err(InvalidSlice {
                given: text.chars().take(LONGEST).collect(),
                reason,
            })
        };
        let given = text.trim_matches('/');
        let name = given.rsplit('/').next().unwrap_or(given);
        let Some(stem) = name.strip_suffix(SUFFIX) else {
            return refuse("is no slice");
        };
        if name.len() > LONGEST {
            return refuse("is longer than 255 bytes");
        }
        if stem.is_empty() || stem == "-" {
            return refuse("names the root");
        }
        if stem.split('-').any(str::is_empty) {
            return refuse("has a dash with nothing before or after it");
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\".contains(&byte);
        if !stem.bytes().all(is_plain) {
            return refuse("has a character that unit names do not have");
        }
        let slice = Self(name.to_owned());
        if text == name {
            return Ok(slice);
        }
        let path = format!("/{given}");
        if path == slice.location() {
            return Ok(slice);
        }
        // A directory with the mark of an escape is that of the slice without it.
        let marked = name.strip_prefix('_').map(|name| Self(name.to_owned()));
        match marked {
            Some(marked) if path == marked.location() => Ok(marked),
            _ if given == name || path == slice.plain_location() => Ok(slice),
            _ => refuse("is not the path at which systemd has this slice"),
        }
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slice_lies_in_those_whose_names_it_begins_with() {
        let pod = "kubepods-burstable-pod2fc932ce_fdcc_454b_97bd_aadfdeb4c340.slice";
        let path = format!("/kubepods.slice/kubepods-burstable.slice/{pod}");
        for (given, expected) in [
            ("test.slice", "/test.slice"),
            // As critest and kubelets send them.
            ("/test.slice", "/test.slice"),
            (path.as_str(), path.as_str()),
            (pod, path.as_str()),
            ("a-b.slice/", "/a.slice/a-b.slice"),
            ("/a-b.slice", "/a.slice/a-b.slice"),
            ("a.b-c.slice", "/a.b.slice/a.b-c.slice"),
            // As systemd escapes what would look like an interface file.
            ("memory.slice", "/_memory.slice"),
            ("cgroup-x.slice", "/_cgroup.slice/cgroup-x.slice"),
            ("_x.slice", "/__x.slice"),
            ("/_memory.slice", "/_memory.slice"),
            (
                "/memory.slice/memory-x.slice",
                "/_memory.slice/memory-x.slice",
            ),
            ("memory.x-y.slice", "/_memory.x.slice/_memory.x-y.slice"),
        ] {
            assert_eq!(given.parse::<Slice>().unwrap().path().as_str(), expected);
        }
    }

    #[test]
    fn what_is_no_slice_is_refused() {
        let long = format!("{}.slice", "x".repeat(250));
        for given in [
            "",
            "/",
            ".slice",
            "-.slice",
            "/kubepods/burstable/pod1",
            "a--b.slice",
            "-a.slice",
            "a-.slice",
            "a b.slice",
            "ä.slice",
            "a@b.slice",
            "a.slice/b",
            "a.service",
            "/x/a.slice",
            "/a-b.slice/x.slice",
            "../a.slice",
            "a\n.slice",
            long.as_str(),
        ] {
            assert!(given.parse::<Slice>().is_err(), "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn a_path_leads_to_its_slice(text in "[-/_.a-c]{0,12}(\\.slice)?") {
            if let Ok(slice) = text.parse::<Slice>() {
                prop_assert_eq!(slice.path().as_str().parse::<Slice>().unwrap(), slice);
            }
        }
    }
}

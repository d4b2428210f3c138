//! `/proc/self/mountinfo` (proc(5)) reduced to its cgroup mounts. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One cgroup mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CgroupMount {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

/// What a mount holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// v1: the controllers mounted there, several when co-mounted.
    Controllers(Vec<String>),
    /// v1 without controllers: `name=systemd`.
    Named(String),
    /// cgroup2.
    Unified,
}

/// The cgroup mounts in order, each hierarchy once. A mount of a whole hierarchy goes before one of a part of it.
/// Lines that do not parse are passed over.
pub(super) fn parse(text: &str) -> Vec<CgroupMount> {
    let mut whole: Vec<CgroupMount> = Vec::new();
    let mut parts: Vec<CgroupMount> = Vec::new();
    for (mount, root) in text.lines().filter_map(line) {
        if root == "/" { &mut whole } else { &mut parts }.push(mount);
    }
    let mut found: Vec<CgroupMount> = Vec::new();
    for mount in whole.into_iter().chain(parts) {
        if !found.iter().any(|known| known.kind == mount.kind) {
            found.push(mount);
        }
    }
    found
}

/// `id parent major:minor root path options optional… - type source super-options`
fn line(text: &str) -> Option<(CgroupMount, &str)> {
    let (left, right) = text.split_once(" - ")?;
    let mut left = left.split(' ');
    let root = left.nth(3)?;
    let path = left.next()?;
    let mut right = right.split(' ');
    let kind = right.next()?;
    let options = right.nth(1)?;
    let kind = match kind {
        "cgroup2" => Kind::Unified,
        "cgroup" => controllers(options)?,
        _ => return None,
    };
    let path = PathBuf::from(OsString::from_vec(unescape(path)));
    path.is_absolute()
        .then_some((CgroupMount { path, kind }, root))
}

/// What a v1 mount's super-block options say it holds.
fn controllers(options: &str) -> Option<Kind> {
    const FLAGS: [&str; 9] = [
        "rw",
        "ro",
        "none",
        "noprefix",
        "clone_children",
        "cpuset_v2_mode",
        "xattr",
        "all",
        "",
    ];
    let mut names = Vec::new();
    let mut named = None;
    for option in options.split(',') {
        match option.split_once('=') {
            Some(("name", name)) => named = Some(name.to_owned()),
            Some(_) => {}
            None if FLAGS.contains(&option) => {}
            None => names.push(option.to_owned()),
        }
    }
    if names.is_empty() {
        named.map(Kind::Named)
    } else {
        Some(Kind::Controllers(names))
    }
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|digits| {
            bytes[at] == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
        });
        if let Some(digits) = octal {
            out.push(digits.iter().fold(0u8, |value, digit| {
                value.wrapping_mul(8).wrapping_add(digit - b'0')
            }));
            at += 4;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HYBRID: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
odd line
42 31 0:38 / /other rw - cgroup2
";

    #[test]
    fn reads_hybrid() {
        let mount = |path: &str, kind| CgroupMount {
            path: path.into(),
            kind,
        };
        assert_eq!(
            parse(HYBRID),
            [
                mount(
                    "/sys/fs/cgroup/cpu,cpuacct",
                    Kind::Controllers(vec!["cpu".into(), "cpuacct".into()])
                ),
                mount("/sys/fs/cgroup/systemd", Kind::Named("systemd".into())),
                mount("/sys/fs/cgroup/unified", Kind::Unified),
            ]
        );
    }

    #[test]
    fn prefers_whole_hierarchies_and_unescapes() {
        let text = "1 1 0:1 /docker/1 /part rw - cgroup2 c rw\n2 1 0:1 / /with\\040space\\134 rw - cgroup2 c rw\n";
        assert_eq!(
            parse(text),
            [CgroupMount {
                path: "/with space\\".into(),
                kind: Kind::Unified
            }]
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~\\n]{0,300}") {
            parse(&text);
        }

        #[test]
        fn odd_lines_hide_nothing(junk in "[ -~]{0,80}") {
            let with = format!("{junk}\n{HYBRID}");
            prop_assume!(line(&junk).is_none());
            prop_assert_eq!(parse(&with), parse(HYBRID));
        }
    }
}

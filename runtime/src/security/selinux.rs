//! SELinux: the label of a container's processes and of what is mounted for them (selinux(8)).
//!
//! A label is `user:role:type:level`. The policy says which one containers have (`contexts/lxc_contexts`); a request
//! replaces parts of it. Pods that ask for no level get one of their own, so that one pod's processes cannot use
//! another's files: two categories that follow from the pod's id, the same after every restart.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Categories of the policies in use (`c0` to `c1023`).
const CATEGORIES: u32 = 1024;

/// The policy's answer to what containers are labelled is a few lines.
const LONGEST_FILE: u64 = 64 * 1024;

/// A label, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    user: String,
    role: String,
    kind: String,
    level: String,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}:{}",
            self.user, self.role, self.kind, self.level
        )
    }
}

impl Label {
    /// The level has colons of its own.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        Some(Self {
            user: parts.next()?,
            role: parts.next()?,
            kind: parts.next()?,
            level: parts.next()?,
        })
    }
}

/// The parts that a request replaces; empty ones stay the policy's.
#[derive(Clone, Copy, Debug, Default)]
pub struct LabelRequest<'a> {
    /// `user`.
    pub user: &'a str,
    /// `role`.
    pub role: &'a str,
    /// `type`.
    pub kind: &'a str,
    /// `level`.
    pub level: &'a str,
}

/// What a container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// For its processes.
    pub process: String,
    /// For its root, /dev/shm and volumes.
    pub mount: String,
}

/// Labels cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SelinuxError {
    /// Not a part of a label.
    #[error("SELinux {part} {value:?} is not one")]
    Part {
        /// Which part.
        part: &'static str,
        /// As requested.
        value: String,
    },
    /// The policy does not say.
    #[error("the SELinux policy names no label for containers in {path}")]
    Policy {
        /// Where it should.
        path: PathBuf,
    },
    /// The policy's file.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// SELinux on this machine.
#[derive(Debug)]
pub struct Selinux {
    /// Labels of processes and files by the policy; none when SELinux is off.
    policy: Option<(Label, Label)>,
}

impl Selinux {
    /// Looks at this machine.
    ///
    /// # Errors
    /// When SELinux is on, and its policy cannot be read.
    pub fn of_this_machine() -> Result<Self, SelinuxError> {
        Self::at(
            Path::new("/sys/fs/selinux/enforce"),
            Path::new("/etc/selinux"),
        )
    }

    fn at(enforce: &Path, configuration: &Path) -> Result<Self, SelinuxError> {
        if !enforce.exists() {
            return Ok(Self { policy: None });
        }
        let config = read(&configuration.join("config"))?;
        let name = setting(&config, "SELINUXTYPE").unwrap_or("targeted");
        let path = configuration.join(name).join("contexts/lxc_contexts");
        let contexts = read(&path)?;
        let label = |key| setting(&contexts, key).and_then(Label::parse);
        match (label("process"), label("file")) {
            (Some(process), Some(file)) => Ok(Self {
                policy: Some((process, file)),
            }),
            _ => Err(SelinuxError::Policy { path }),
        }
    }

    /// The labels of a container in the pod with this id; none when SELinux is off.
    ///
    /// # Errors
    /// When the request holds no label's parts, whether SELinux is on or not.
    pub fn labels(
        &self,
        request: &LabelRequest<'_>,
        pod: &str,
    ) -> Result<Option<Labels>, SelinuxError> {
        check(request)?;
        let Some((process, file)) = &self.policy else {
            return Ok(None);
        };
        let or = |asked: &str, own: &str| if asked.is_empty() { own } else { asked }.to_owned();
        let level = match request.level {
            "" => own_level(&process.level, pod),
            level => level.to_owned(),
        };
        let process = Label {
            user: or(request.user, &process.user),
            role: or(request.role, &process.role),
            kind: or(request.kind, &process.kind),
            level: level.clone(),
        };
        let mount = Label {
            user: or(request.user, &file.user),
            level,
            ..file.clone()
        };
        Ok(Some(Labels {
            process: process.to_string(),
            mount: mount.to_string(),
        }))
    }
}

fn read(path: &Path) -> Result<String, SelinuxError> {
    use io::Read;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LONGEST_FILE).read_to_string(&mut text))
        .map_err(|source| SelinuxError::Read {
            path: path.to_owned(),
            source,
        })?;
    Ok(text)
}

/// The value of `key = value`, without quotes.
fn setting<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches('"'))
    })
}

fn check(request: &LabelRequest<'_>) -> Result<(), SelinuxError> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    // A level is sensitivities and categories: `s0`, `s0-s0:c0.c1023`, `s0:c1,c2`.
    let level =
        |byte: u8| byte.is_ascii_digit() || matches!(byte, b's' | b'c' | b'-' | b':' | b'.' | b',');
    for (part, value, allowed) in [
        ("user", request.user, &word as &dyn Fn(u8) -> bool),
        ("role", request.role, &word),
        ("type", request.kind, &word),
        ("level", request.level, &level),
    ] {
        if value.len() > 256 || !value.bytes().all(allowed) {
            let value = value.chars().take(64).collect();
            return Err(SelinuxError::Part { part, value });
        }
    }
    Ok(())
}

/// The policy's sensitivity with two categories of the pod's own.
fn own_level(policy: &str, pod: &str) -> String {
    let sensitivity = policy.split([':', '-']).next().unwrap_or("s0");
    let hash = crc32fast::hash(pod.as_bytes());
    let first = hash % CATEGORIES;
    // Another one: a step of 1 to 1023 around the circle.
    let second = (first + 1 + (hash / CATEGORIES) % (CATEGORIES - 1)) % CATEGORIES;
    let (low, high) = (first.min(second), first.max(second));
    format!("{sensitivity}:c{low},c{high}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn machine() -> (tempfile::TempDir, Selinux) {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(path("strict/contexts")).unwrap();
        std::fs::write(path("enforce"), "1").unwrap();
        std::fs::write(
            path("config"),
            "# comment\nSELINUX=enforcing\nSELINUXTYPE=strict\n",
        )
        .unwrap();
        let contexts = "process = \"system_u:system_r:container_t:s0\"\nfile = \"system_u:object_r:container_file_t:s0\"\n";
        std::fs::write(path("strict/contexts/lxc_contexts"), contexts).unwrap();
        let selinux = Selinux::at(&path("enforce"), directory.path()).unwrap();
        (directory, selinux)
    }

    #[test]
    fn a_request_replaces_parts_of_the_policy_s_label() {
        let (_directory, selinux) = machine();
        let request = LabelRequest {
            kind: "spc_t",
            level: "s0:c1,c2",
            ..LabelRequest::default()
        };
        let labels = selinux.labels(&request, "pod").unwrap().unwrap();
        assert_eq!(labels.process, "system_u:system_r:spc_t:s0:c1,c2");
        assert_eq!(labels.mount, "system_u:object_r:container_file_t:s0:c1,c2");
    }

    #[test]
    fn pods_have_levels_of_their_own_that_stay() {
        let (_directory, selinux) = machine();
        let label = |pod: &str| {
            let labels = selinux.labels(&LabelRequest::default(), pod);
            labels.unwrap().unwrap().process
        };
        assert_eq!(label("one"), label("one"));
        assert_ne!(label("one"), label("two"));
        for number in 0..2000 {
            let level = own_level("s0-s0:c0.c1023", &number.to_string());
            let (low, high) = level
                .strip_prefix("s0:c")
                .unwrap()
                .split_once(",c")
                .unwrap();
            let (low, high): (u32, u32) = (low.parse().unwrap(), high.parse().unwrap());
            assert!(low < high && high < CATEGORIES, "{level}");
        }
    }

    #[test]
    fn what_is_no_part_of_a_label_is_refused() {
        let off = Selinux { policy: None };
        for (request, part) in [
            (
                LabelRequest {
                    user: "a:b",
                    ..Default::default()
                },
                "user",
            ),
            (
                LabelRequest {
                    kind: "a b",
                    ..Default::default()
                },
                "type",
            ),
            (
                LabelRequest {
                    level: "s0\",x=\"",
                    ..Default::default()
                },
                "level",
            ),
            (
                LabelRequest {
                    role: "a\n",
                    ..Default::default()
                },
                "role",
            ),
        ] {
            let error = off.labels(&request, "pod").unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        let plain = LabelRequest {
            kind: "spc_t",
            ..Default::default()
        };
        assert_eq!(off.labels(&plain, "pod").unwrap(), None, "off is no error");
    }

    #[test]
    fn a_policy_without_containers_is_told() {
        let (directory, _) = machine();
        let contexts = directory.path().join("strict/contexts/lxc_contexts");
        std::fs::write(&contexts, "process = \"x\"\n").unwrap();
        let error = Selinux::at(&directory.path().join("enforce"), directory.path()).unwrap_err();
        assert!(error.to_string().contains("lxc_contexts"), "{error}");
    }
}

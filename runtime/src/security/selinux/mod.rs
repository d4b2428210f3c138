//! SELinux: the label of a container's processes and of what is mounted for them (selinux(8)).
//!
//! A label is `user:role:type:level`. The policy says which one containers have (`contexts/lxc_contexts`); a request
//! replaces parts of it. Pods that ask for no level get one of their own, so that one pod's processes cannot use
//! another's files.

mod levels;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Privilege;
use crate::error::chain;
use levels::Levels;

/// The policy's answer to what containers are labelled is a few lines.
const LONGEST_FILE: u64 = 64 * 1024;

/// What the peers call a process of the host's in a container: a super privileged container.
const PRIVILEGED: &str = "spc_t";

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

impl LabelRequest<'_> {
    fn is_empty(&self) -> bool {
        [self.user, self.role, self.kind, self.level]
            .iter()
            .all(|part| part.is_empty())
    }
}

/// What a container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// For its processes; empty for the daemon's.
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
    /// The policy does not know what it names, or what a request names.
    #[error("the SELinux policy that is loaded has no label {label}")]
    Unknown {
        /// The whole label.
        label: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The policy is not made for containers.
    #[error(
        "containers cannot be labelled on this node: {why}; install the SELinux policy's module for containers, and restart the daemon"
    )]
    Unusable {
        /// What was found at start.
        why: String,
    },
    /// As many pods as there are levels.
    #[error("all SELinux levels are in use")]
    NoLevel,
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
    state: State,
    levels: Levels,
}

#[derive(Debug)]
enum State {
    /// Not in the kernel, or without a policy.
    Off,
    /// On, with a policy that says nothing usable of containers.
    Unusable(String),
    /// On.
    On(Box<Policy>),
}

/// What the policy says of containers.
#[derive(Debug)]
struct Policy {
    process: Label,
    file: Label,
    /// Of what all containers may read: images' layers.
    layers: String,
    /// Of privileged containers; none where the policy has no such type, and they run as the daemon does.
    privileged: Option<Label>,
    /// The kernel says whether the policy has a label that is written here.
    checker: PathBuf,
}

impl Selinux {
    /// Looks at this machine. What is missing is logged, and told to who asks for labels.
    pub fn of_this_machine() -> Self {
        let selinux = Self::at(Path::new("/sys/fs/selinux"), Path::new("/etc/selinux"));
        if let State::Unusable(why) = &selinux.state {
            tracing::warn!(%why, "SELinux is on, and the policy that is loaded has no labels for containers: they run under the daemon's own, and those that ask for labels are refused");
        }
        selinux
    }

    fn at(file_system: &Path, configuration: &Path) -> Self {
        let state = match file_system.join("enforce").exists() {
            false => State::Off,
            true => match Policy::read(file_system, configuration) {
                Ok(policy) => State::On(Box::new(policy)),
                Err(error) => State::Unusable(chain(&error)),
            },
        };
        Self {
            state,
            levels: Levels::default(),
        }
    }

    /// Why containers cannot be labelled although SELinux is on.
    pub fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Unusable(why) => Some(why),
            State::Off | State::On(_) => None,
        }
    }

    /// The label of containers' processes without their level; none where they have none.
    pub fn process_label(&self) -> Option<String> {
        match &self.state {
            State::On(policy) => Some(policy.process.to_string()),
            State::Off | State::Unusable(_) => None,
        }
    }

    /// The label of images' layers; none where containers have no labels.
    pub fn layer_label(&self) -> Option<&str> {
        match &self.state {
            State::On(policy) => Some(&policy.layers),
            State::Off | State::Unusable(_) => None,
        }
    }

    /// A level that no other pod has; none where containers have no labels.
    ///
    /// # Errors
    /// When all are taken.
    pub fn reserve_level(&self, pod: &str) -> Result<Option<String>, SelinuxError> {
        let State::On(policy) = &self.state else {
            return Ok(None);
        };
        let sensitivity = policy.process.level.split([':', '-']).next();
        let sensitivity = sensitivity.unwrap_or("s0");
        let categories = self.levels.reserve(pod).ok_or(SelinuxError::NoLevel)?;
        Ok(Some(format!("{sensitivity}:{categories}")))
    }

    /// Keeps a pod's level from others, as found in its record or its request.
    pub fn take_level(&self, level: &str) {
        self.levels.take(level);
    }

    /// Gives a pod's own level back.
    pub fn release_level(&self, level: &str) {
        self.levels.release(level);
    }

    /// The labels of a container, whose pod has a `level`; none where containers have none.
    ///
    /// # Errors
    /// When the request holds no label's parts, whether SELinux is on or not, or the policy does not have the label.
    pub fn labels(
        &self,
        request: &LabelRequest<'_>,
        level: &str,
        privilege: Privilege,
    ) -> Result<Option<Labels>, SelinuxError> {
        check(request)?;
        match &self.state {
            State::Off => Ok(None),
            State::Unusable(_) if request.is_empty() => Ok(None),
            State::Unusable(why) => Err(SelinuxError::Unusable { why: why.clone() }),
            State::On(policy) => policy.labels(request, level, privilege).map(Some),
        }
    }
}

impl Policy {
    fn read(file_system: &Path, configuration: &Path) -> Result<Self, SelinuxError> {
        let config = read(&configuration.join("config"))?;
        let name = setting(&config, "SELINUXTYPE").unwrap_or("targeted");
        let path = configuration.join(name).join("contexts/lxc_contexts");
        let contexts = read(&path)?;
        let label = |key| setting(&contexts, key).and_then(Label::parse);
        let (Some(process), Some(file)) = (label("process"), label("file")) else {
            return Err(SelinuxError::Policy { path });
        };
        // An older policy has none.
        let layers = label("ro_file").unwrap_or_else(|| file.clone());
        let privileged = Label {
            kind: PRIVILEGED.to_owned(),
            ..process.clone()
        };
        let mut policy = Self {
            process,
            file,
            layers: layers.to_string(),
            privileged: None,
            checker: file_system.join("context"),
        };
        policy.require(&policy.process)?;
        policy.require(&policy.file)?;
        policy.require(&layers)?;
        policy.privileged = policy.require(&privileged).is_ok().then_some(privileged);
        Ok(policy)
    }

    /// An error when the policy that is loaded does not have the label.
    fn require(&self, label: &Label) -> Result<(), SelinuxError> {
        let label = label.to_string();
        let file = std::fs::File::options().write(true).open(&self.checker);
        file.and_then(|mut file| file.write_all(label.as_bytes()))
            .map_err(|source| SelinuxError::Unknown { label, source })
    }

    fn labels(
        &self,
        request: &LabelRequest<'_>,
        level: &str,
        privilege: Privilege,
    ) -> Result<Labels, SelinuxError> {
        let or = |asked: &str, own: &str| if asked.is_empty() { own } else { asked }.to_owned();
        let level = or(request.level, level);
        // Only who asks for nothing gets what the policy has been asked about already.
        let asked = |own: &Label, level: &str| -> Result<String, SelinuxError> {
            let label = Label {
                user: or(request.user, &own.user),
                role: or(request.role, &own.role),
                kind: or(request.kind, &own.kind),
                level: or(request.level, level),
            };
            if !request.is_empty() {
                self.require(&label)?;
            }
            Ok(label.to_string())
        };
        let process = match (privilege, &self.privileged) {
            (Privilege::Confined, _) => asked(&self.process, &level)?,
            // Unconfined types are not kept from any level.
            (Privilege::Privileged, Some(own)) => asked(own, &own.level)?,
            (Privilege::Privileged, None) if request.is_empty() => String::new(),
            (Privilege::Privileged, None) => asked(&self.process, &level)?,
        };
        let mount = Label {
            user: or(request.user, &self.file.user),
            level,
            ..self.file.clone()
        };
        Ok(Labels {
            process,
            mount: mount.to_string(),
        })
    }
}

fn read(path: &Path) -> Result<String, SelinuxError> {
    use io::Read as _;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn machine() -> (tempfile::TempDir, Selinux) {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(path("strict/contexts")).unwrap();
        for (file, text) in [
            ("enforce", "1"),
            // A kernel's would refuse what the policy does not have; this one takes everything.
            ("context", ""),
            (
                "config",
                "# comment\nSELINUX=enforcing\nSELINUXTYPE=strict\n",
            ),
            (
                "strict/contexts/lxc_contexts",
                "process = \"system_u:system_r:container_t:s0\"\nfile = \"system_u:object_r:container_file_t:s0\"\n",
            ),
        ] {
            std::fs::write(path(file), text).unwrap();
        }
        let selinux = Selinux::at(directory.path(), directory.path());
        (directory, selinux)
    }

    fn labels(selinux: &Selinux, request: LabelRequest<'_>, privilege: Privilege) -> Labels {
        selinux
            .labels(&request, "s0:c7,c9", privilege)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn a_request_replaces_parts_of_the_policy_s_label() {
        let (_directory, selinux) = machine();
        let plain = labels(&selinux, LabelRequest::default(), Privilege::Confined);
        assert_eq!(plain.process, "system_u:system_r:container_t:s0:c7,c9");
        assert_eq!(plain.mount, "system_u:object_r:container_file_t:s0:c7,c9");
        let request = LabelRequest {
            kind: "web_t",
            level: "s0:c1,c2",
            ..LabelRequest::default()
        };
        let asked = labels(&selinux, request, Privilege::Confined);
        assert_eq!(asked.process, "system_u:system_r:web_t:s0:c1,c2");
        assert_eq!(asked.mount, "system_u:object_r:container_file_t:s0:c1,c2");
    }

    #[test]
    fn a_privileged_container_keeps_its_files_to_its_pod() {
        let (_directory, selinux) = machine();
        let plain = labels(&selinux, LabelRequest::default(), Privilege::Privileged);
        assert_eq!(plain.process, "system_u:system_r:spc_t:s0");
        assert_eq!(plain.mount, "system_u:object_r:container_file_t:s0:c7,c9");
    }

    #[test]
    fn levels_are_of_the_policy_s_sensitivity() {
        let (_directory, selinux) = machine();
        let level = selinux.reserve_level("pod").unwrap().unwrap();
        assert!(level.starts_with("s0:c"), "{level}");
        assert_ne!(selinux.reserve_level("pod").unwrap().unwrap(), level);
        let off = Selinux::at(Path::new("/nonexistent"), Path::new("/nonexistent"));
        assert_eq!(off.reserve_level("pod").unwrap(), None);
    }

    #[test]
    fn what_is_no_part_of_a_label_is_refused() {
        let off = Selinux::at(Path::new("/nonexistent"), Path::new("/nonexistent"));
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
            let error = off.labels(&request, "", Privilege::Confined).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        let plain = LabelRequest {
            kind: "spc_t",
            ..Default::default()
        };
        let labels = off.labels(&plain, "", Privilege::Confined);
        assert_eq!(labels.unwrap(), None, "off is no error");
    }

    #[test]
    fn a_policy_without_containers_refuses_only_who_asks_for_labels() {
        let (directory, _) = machine();
        let contexts = directory.path().join("strict/contexts/lxc_contexts");
        std::fs::write(&contexts, "process = \"x\"\n").unwrap();
        let selinux = Selinux::at(directory.path(), directory.path());
        assert!(selinux.failure().unwrap().contains("lxc_contexts"));
        let labels = |request| selinux.labels(&request, "", Privilege::Confined);
        assert_eq!(labels(LabelRequest::default()).unwrap(), None);
        let asked = LabelRequest {
            level: "s0",
            ..LabelRequest::default()
        };
        let error = labels(asked).unwrap_err();
        assert!(
            error.to_string().contains("module for containers"),
            "{error}"
        );
    }

    #[test]
    fn what_the_kernel_refuses_is_no_label() {
        let (directory, _) = machine();
        let checker = directory.path().join("context");
        std::fs::remove_file(&checker).unwrap();
        // As a checker that takes nothing.
        std::fs::create_dir(&checker).unwrap();
        let selinux = Selinux::at(directory.path(), directory.path());
        let why = selinux.failure().unwrap();
        assert!(
            why.contains("no label system_u:system_r:container_t:s0"),
            "{why}"
        );
    }
}

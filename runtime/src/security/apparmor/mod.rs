//! AppArmor: which profile a container's process runs under (apparmor(7)).

mod load;
mod profile;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub use load::LoadError;

use super::Privilege;
use crate::error::chain;
use profile::{DefaultProfile, FAMILY};

/// Profiles' names are far shorter; it is a bound for what the kernel is asked to look up.
const LONGEST_NAME: usize = 1024;

/// The list of all loaded profiles is far shorter.
const LONGEST_LIST: u64 = 16 << 20;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfileRequest<'a> {
    /// Nothing.
    Unset,
    /// The runtime's own profile.
    RuntimeDefault,
    /// None.
    Unconfined,
    /// One that is loaded on the node, by name.
    Localhost(&'a str),
}

impl<'a> ProfileRequest<'a> {
    /// From the text that older kubelets send: the annotation's value.
    ///
    /// # Errors
    /// [`AppArmorError::Text`].
    pub fn from_text(text: &'a str) -> Result<Self, AppArmorError> {
        match text {
            "" => Ok(Self::Unset),
            "runtime/default" | "docker/default" => Ok(Self::RuntimeDefault),
            "unconfined" => Ok(Self::Unconfined),
            _ => text
                .strip_prefix("localhost/")
                .map(Self::Localhost)
                .ok_or_else(|| AppArmorError::Text { text: shown(text) }),
        }
    }
}

/// A profile cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AppArmorError {
    /// Not a profile's form.
    #[error("{text:?} is no AppArmor profile: use runtime/default, unconfined or localhost/NAME")]
    Text {
        /// As requested.
        text: String,
    },
    /// A name that the kernel would not take as one.
    #[error("{name:?} is no name of an AppArmor profile")]
    Name {
        /// As requested.
        name: String,
    },
    /// The kernel has no AppArmor.
    #[error("the AppArmor profile {name:?} is asked for, but AppArmor is not enabled on this node")]
    Disabled {
        /// As requested.
        name: String,
    },
    /// AppArmor is on, and the daemon does not see it.
    #[error(
        "the AppArmor profile {name:?} is asked for, but the daemon cannot see which are loaded: {path} is not there; mount securityfs on /sys/kernel/security"
    )]
    Unseen {
        /// As requested.
        name: String,
        /// The list.
        path: PathBuf,
    },
    /// Nobody has loaded it.
    #[error(
        "the AppArmor profile {name:?} is not loaded on this node; load it with apparmor_parser(8)"
    )]
    NotLoaded {
        /// As requested.
        name: String,
    },
    /// The daemon could not load it.
    #[error("the default AppArmor profile {name:?} is not loaded on this node: {why}")]
    NoDefault {
        /// Its name.
        name: String,
        /// What went wrong when it was to be loaded.
        why: String,
    },
    /// The kernel's list.
    #[error("cannot read the loaded AppArmor profiles in {path}")]
    List {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// AppArmor in this kernel.
#[derive(Debug)]
enum Kernel {
    /// Off, or not there.
    Disabled,
    /// On, without the list of its profiles that would be at this path.
    Unseen(PathBuf),
    /// On, with the list of loaded profiles at this path.
    Enabled(PathBuf),
}

/// What has become of the default profile.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Default {
    /// It was found or loaded.
    Loaded,
    /// It was not, for this reason. Only the daemon's next start tries again.
    Failed(String),
}

/// AppArmor on this machine.
#[derive(Debug)]
pub struct AppArmor {
    kernel: Kernel,
    profile: DefaultProfile,
    /// Guards the value alone.
    default: Mutex<Default>,
    /// Held while the parser runs.
    loading: tokio::sync::Mutex<()>,
}

impl AppArmor {
    /// Looks at this machine, and loads the default profile where it is not loaded.
    pub async fn of_this_machine() -> Self {
        let apparmor = Self::seen();
        apparmor.load_default().await;
        apparmor
    }

    /// Looks at this machine, and changes nothing.
    pub fn seen() -> Self {
        Self::at(
            Path::new("/sys/module/apparmor/parameters/enabled"),
            Path::new("/sys/kernel/security/apparmor/profiles"),
            DefaultProfile::new(Path::new("/etc/apparmor.d")),
        )
    }

    /// What the daemon would load its default profile with.
    pub fn parser() -> Option<&'static Path> {
        load::parser().ok()
    }

    fn at(enabled: &Path, profiles: &Path, profile: DefaultProfile) -> Self {
        let on = std::fs::read_to_string(enabled).is_ok_and(|text| text.starts_with('Y'));
        let kernel = match (on, profiles.exists()) {
            (false, _) => Kernel::Disabled,
            (true, false) => Kernel::Unseen(profiles.to_owned()),
            (true, true) => Kernel::Enabled(profiles.to_owned()),
        };
        Self {
            kernel,
            profile,
            default: Mutex::new(Default::Loaded),
            loading: tokio::sync::Mutex::default(),
        }
    }

    /// Loads the default profile, unless it is there or could not be loaded before.
    ///
    /// It is for the daemon's start, and for the case that somebody has removed the profile since (aa-remove-unknown(8)
    /// removes all that have no file in /etc/apparmor.d).
    pub async fn load_default(&self) {
        let _loading = self.loading.lock().await;
        if self.failure().is_some() || !matches!(self.find_default(), Ok(None)) {
            return;
        }
        let name = &self.profile.name;
        match load::load(&self.profile).await {
            Ok(()) => tracing::info!(%name, "loaded the default AppArmor profile"),
            Err(error) => {
                let why = chain(&error);
                tracing::warn!(%name, %why, "cannot load the default AppArmor profile: containers that ask for RuntimeDefault are refused, and those that ask for nothing run unconfined");
                *self.default.lock().unwrap_or_else(PoisonError::into_inner) = Default::Failed(why);
            }
        }
    }

    fn failure(&self) -> Option<String> {
        match &*self.default.lock().unwrap_or_else(PoisonError::into_inner) {
            Default::Loaded => None,
            Default::Failed(why) => Some(why.clone()),
        }
    }

    /// The name of the default profile where it is loaded: the daemon's own, or one that the operator has loaded as
    /// `podwright-default` because the daemon cannot.
    fn find_default(&self) -> Result<Option<&str>, AppArmorError> {
        let name = self.profile.name.as_str();
        Ok(if self.is_loaded(name)? {
            Some(name)
        } else if self.failure().is_some() && self.is_loaded(FAMILY)? {
            Some(FAMILY)
        } else {
            None
        })
    }

    /// Whether AppArmor is on, as the daemon sees it, and which default profile is in use.
    pub fn default_profile(&self) -> Result<Option<&str>, AppArmorError> {
        match self.kernel {
            Kernel::Disabled => Ok(None),
            Kernel::Unseen(_) | Kernel::Enabled(_) => match self.find_default()? {
                Some(name) => Ok(Some(name)),
                None => Err(self.no_default()),
            },
        }
    }

    fn no_default(&self) -> AppArmorError {
        AppArmorError::NoDefault {
            name: self.profile.name.clone(),
            why: self
                .failure()
                .unwrap_or_else(|| "somebody has removed it".to_owned()),
        }
    }

    /// The profile for execve(2) to change to; none leaves the process unconfined.
    ///
    /// What is not asked for is the default profile as with the peers, but only where that can be had: a node without it
    /// runs its pods all the same. What is asked for and cannot be had is an error.
    ///
    /// # Errors
    /// When the profile does not exist here. After [`AppArmorError::NoDefault`], [`load_default`](Self::load_default) may help.
    pub fn profile(
        &self,
        request: &ProfileRequest<'_>,
        privilege: Privilege,
    ) -> Result<Option<String>, AppArmorError> {
        let default = match (request, privilege) {
            (ProfileRequest::Unconfined, _) => return Ok(None),
            (ProfileRequest::Localhost(name), _) => return self.localhost(name).map(Some),
            (_, Privilege::Privileged) => return Ok(None),
            (ProfileRequest::RuntimeDefault | ProfileRequest::Unset, Privilege::Confined) => {
                self.find_default()
            }
        };
        match (default, request) {
            (Ok(Some(name)), _) => Ok(Some(name.to_owned())),
            (Ok(None), ProfileRequest::Unset) if self.failure().is_some() => Ok(None),
            (
                Err(AppArmorError::Disabled { .. } | AppArmorError::Unseen { .. }),
                ProfileRequest::Unset,
            ) => Ok(None),
            (Ok(None), _) => Err(self.no_default()),
            (Err(error), _) => Err(error),
        }
    }

    fn localhost(&self, name: &str) -> Result<String, AppArmorError> {
        let name = checked(name)?;
        match self.is_loaded(name)? {
            true => Ok(name.to_owned()),
            false => Err(AppArmorError::NotLoaded { name: shown(name) }),
        }
    }

    /// Whether the kernel has the profile.
    fn is_loaded(&self, name: &str) -> Result<bool, AppArmorError> {
        match &self.kernel {
            Kernel::Disabled => Err(AppArmorError::Disabled { name: shown(name) }),
            Kernel::Unseen(path) => Err(AppArmorError::Unseen {
                name: shown(name),
                path: path.clone(),
            }),
            Kernel::Enabled(path) => is_listed(path, name).map_err(|source| AppArmorError::List {
                path: path.clone(),
                source,
            }),
        }
    }
}

/// The name is written to /proc/self/attr behind `exec `, so it must be one line.
fn checked(name: &str) -> Result<&str, AppArmorError> {
    // Kubelets send the name alone in the field, and with its prefix in the annotation.
    let name = name.strip_prefix("localhost/").unwrap_or(name);
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(AppArmorError::Name { name: shown(name) });
    }
    Ok(name)
}

/// Whether the list has a line `NAME (mode)`.
fn is_listed(profiles: &Path, name: &str) -> io::Result<bool> {
    let list = BufReader::new(File::open(profiles)?.take(LONGEST_LIST));
    for line in list.split(b'\n') {
        let line = line?;
        let mode = line.strip_prefix(name.as_bytes());
        if mode.is_some_and(|mode| mode.starts_with(b" (")) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn machine(enabled: &str, profiles: &str) -> (tempfile::TempDir, AppArmor) {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("enabled"), enabled).unwrap();
        std::fs::write(path("profiles"), profiles).unwrap();
        let profile = DefaultProfile {
            name: DEFAULT.to_owned(),
            text: String::new(),
        };
        let apparmor = AppArmor::at(&path("enabled"), &path("profiles"), profile);
        (directory, apparmor)
    }

    const DEFAULT: &str = "podwright-default-0123";
    const LOADED: &str = "web (enforce)\nweb-worker (complain)\npodwright-default-0123 (enforce)\n";

    #[test]
    fn profiles_that_are_loaded_are_used() {
        let (_directory, apparmor) = machine("Y\n", LOADED);
        let profile = |request| apparmor.profile(&request, Privilege::Confined).unwrap();
        assert_eq!(
            profile(ProfileRequest::Localhost("web")),
            Some("web".into())
        );
        assert_eq!(
            profile(ProfileRequest::Localhost("localhost/web-worker")),
            Some("web-worker".into())
        );
        for default in [ProfileRequest::Unset, ProfileRequest::RuntimeDefault] {
            assert_eq!(profile(default), Some(DEFAULT.into()));
        }
        assert_eq!(profile(ProfileRequest::Unconfined), None);
    }

    #[test]
    fn a_privileged_container_has_only_what_it_names() {
        let (_directory, apparmor) = machine("Y\n", LOADED);
        let profile = |request| apparmor.profile(&request, Privilege::Privileged).unwrap();
        assert_eq!(profile(ProfileRequest::Unset), None);
        assert_eq!(profile(ProfileRequest::RuntimeDefault), None);
        assert_eq!(
            profile(ProfileRequest::Localhost("web")),
            Some("web".into())
        );
    }

    #[test]
    fn missing_profiles_are_named() {
        let (_directory, apparmor) = machine("Y\n", "web-worker (enforce)\n");
        let profile = |request| apparmor.profile(&request, Privilege::Confined);
        let error = profile(ProfileRequest::Localhost("web")).unwrap_err();
        assert!(
            error.to_string().contains("\"web\" is not loaded"),
            "{error}"
        );
        let error = profile(ProfileRequest::RuntimeDefault).unwrap_err();
        assert!(error.to_string().contains(DEFAULT), "{error}");
        assert!(
            profile(ProfileRequest::Unset).is_err(),
            "it can be loaded again"
        );
        for bad in ["", "localhost/", "a\nb", &"x".repeat(2000)] {
            let error = profile(ProfileRequest::Localhost(bad)).unwrap_err();
            assert!(matches!(error, AppArmorError::Name { .. }), "{error}");
        }
    }

    #[test]
    fn without_apparmor_only_a_named_profile_fails() {
        for (enabled, profiles) in [("N\n", LOADED), ("", LOADED)] {
            let (_directory, apparmor) = machine(enabled, profiles);
            let profile = |request| apparmor.profile(&request, Privilege::Confined);
            assert_eq!(profile(ProfileRequest::Unset).unwrap(), None);
            assert_eq!(profile(ProfileRequest::Unconfined).unwrap(), None);
            for named in [
                ProfileRequest::RuntimeDefault,
                ProfileRequest::Localhost("web"),
            ] {
                let error = profile(named).unwrap_err();
                assert!(error.to_string().contains("not enabled"), "{error}");
            }
            assert_eq!(apparmor.default_profile().unwrap(), None);
        }
    }

    #[test]
    fn a_list_that_is_not_there_is_told() {
        let (directory, _) = machine("Y\n", LOADED);
        let path = |name: &str| directory.path().join(name);
        let profile = DefaultProfile::new(directory.path());
        let apparmor = AppArmor::at(&path("enabled"), &path("absent"), profile);
        let profile = |request| apparmor.profile(&request, Privilege::Confined);
        assert_eq!(profile(ProfileRequest::Unset).unwrap(), None);
        for error in [
            profile(ProfileRequest::RuntimeDefault).unwrap_err(),
            profile(ProfileRequest::Localhost("web")).unwrap_err(),
            apparmor.default_profile().unwrap_err(),
        ] {
            assert!(error.to_string().contains("mount securityfs"), "{error}");
        }
    }

    #[test]
    fn the_operator_s_profile_takes_the_place_of_one_that_cannot_be_loaded() {
        let (_directory, apparmor) = machine("Y\n", "podwright-default (enforce)\n");
        let profile = |request| apparmor.profile(&request, Privilege::Confined);
        assert!(profile(ProfileRequest::RuntimeDefault).is_err());
        *apparmor.default.lock().unwrap() = Default::Failed("no parser".to_owned());
        let found = profile(ProfileRequest::RuntimeDefault).unwrap();
        assert_eq!(found.as_deref(), Some(FAMILY));
        assert_eq!(apparmor.default_profile().unwrap(), Some(FAMILY));
    }

    #[test]
    fn why_the_default_is_missing_is_told() {
        let (_directory, apparmor) = machine("Y\n", "");
        *apparmor.default.lock().unwrap() = Default::Failed("no parser".to_owned());
        let unset = apparmor.profile(&ProfileRequest::Unset, Privilege::Confined);
        assert_eq!(unset.unwrap(), None);
        let refused = apparmor.profile(&ProfileRequest::RuntimeDefault, Privilege::Confined);
        for error in [
            refused.unwrap_err(),
            apparmor.default_profile().unwrap_err(),
        ] {
            assert!(error.to_string().ends_with("no parser"), "{error}");
        }
    }

    #[test]
    fn the_old_text_says_the_same() {
        for (text, expected) in [
            ("", ProfileRequest::Unset),
            ("runtime/default", ProfileRequest::RuntimeDefault),
            ("unconfined", ProfileRequest::Unconfined),
            ("localhost/a b", ProfileRequest::Localhost("a b")),
        ] {
            assert_eq!(ProfileRequest::from_text(text).unwrap(), expected);
        }
        assert!(ProfileRequest::from_text("web").is_err());
    }
}

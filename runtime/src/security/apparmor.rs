//! AppArmor: which profile a container's process runs under (apparmor(7)).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::Privilege;

/// The profile that the runtime calls its default one. The operator loads it (contrib/apparmor); the daemon runs no parser.
pub const DEFAULT_PROFILE: &str = "podwright-default";

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
    /// Nobody has loaded it.
    #[error(
        "the AppArmor profile {name:?} is not loaded on this node; load it with apparmor_parser(8)"
    )]
    NotLoaded {
        /// As requested.
        name: String,
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

/// AppArmor on this machine.
#[derive(Debug)]
pub struct AppArmor {
    /// The loaded profiles; none when AppArmor is off.
    profiles: Option<PathBuf>,
}

impl AppArmor {
    /// Looks at this machine.
    pub fn of_this_machine() -> Self {
        Self::at(
            Path::new("/sys/module/apparmor/parameters/enabled"),
            Path::new("/sys/kernel/security/apparmor/profiles"),
        )
    }

    fn at(enabled: &Path, profiles: &Path) -> Self {
        let on = std::fs::read_to_string(enabled).is_ok_and(|text| text.starts_with('Y'));
        Self {
            profiles: (on && profiles.exists()).then(|| profiles.to_owned()),
        }
    }

    /// The profile for execve(2) to change to; none leaves the process unconfined.
    ///
    /// What is not asked for is the default profile as with the peers, but only where that is loaded: a node whose operator
    /// has not loaded it runs its pods all the same.
    ///
    /// # Errors
    /// When the profile does not exist here.
    pub fn profile(
        &self,
        request: &ProfileRequest<'_>,
        privilege: Privilege,
    ) -> Result<Option<String>, AppArmorError> {
        let name = match request {
            ProfileRequest::Unconfined => return Ok(None),
            ProfileRequest::Localhost(name) => checked(name)?,
            ProfileRequest::RuntimeDefault | ProfileRequest::Unset
                if self.profiles.is_none() || privilege == Privilege::Privileged =>
            {
                return Ok(None);
            }
            ProfileRequest::RuntimeDefault | ProfileRequest::Unset => DEFAULT_PROFILE,
        };
        let Some(profiles) = &self.profiles else {
            return Err(AppArmorError::Disabled { name: shown(name) });
        };
        let loaded = is_loaded(profiles, name).map_err(|source| AppArmorError::List {
            path: profiles.clone(),
            source,
        })?;
        match (loaded, request) {
            (true, _) => Ok(Some(name.to_owned())),
            (false, ProfileRequest::Unset) => Ok(None),
            (false, _) => Err(AppArmorError::NotLoaded { name: shown(name) }),
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
fn is_loaded(profiles: &Path, name: &str) -> io::Result<bool> {
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
        let apparmor = AppArmor::at(&path("enabled"), &path("profiles"));
        (directory, apparmor)
    }

    const LOADED: &str = "web (enforce)\nweb-worker (complain)\npodwright-default (enforce)\n";

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
            assert_eq!(profile(default), Some(DEFAULT_PROFILE.into()));
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
        assert!(error.to_string().contains(DEFAULT_PROFILE), "{error}");
        assert_eq!(profile(ProfileRequest::Unset).unwrap(), None);
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
            assert_eq!(profile(ProfileRequest::RuntimeDefault).unwrap(), None);
            assert_eq!(profile(ProfileRequest::Unconfined).unwrap(), None);
            let error = profile(ProfileRequest::Localhost("web")).unwrap_err();
            assert!(error.to_string().contains("not enabled"), "{error}");
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

//! The default profile: its text on this machine, and the name that follows from the text.

use std::path::Path;

use sha2::{Digest, Sha256};

const TEMPLATE: &str = include_str!("default.profile");

/// How the names of all versions of the default profile begin.
pub(super) const FAMILY: &str = "podwright-default";

/// The features that the profile is written for: AppArmor 3's. A parser before that knows no such line. Without one,
/// AppArmor 4 would also deny the container user namespaces and io_uring, of which the profile says nothing.
const ABI: &str = "abi/3.0";

/// How much of the digest is in the name, in bytes.
const DIGEST: usize = 8;

/// The default profile as it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DefaultProfile {
    /// With a digest of the text: what is loaded under it is current, and an upgrade is another profile beside it, so that
    /// containers live on under the one that they were made with.
    pub(super) name: String,
    /// For apparmor_parser(8).
    pub(super) text: String,
}

impl DefaultProfile {
    /// The profile for a machine with AppArmor's own files in `configuration`.
    pub(super) fn new(configuration: &Path) -> Self {
        let mut text = String::new();
        if configuration.join(ABI).exists() {
            text.push_str(&format!("abi <{ABI}>,\n"));
        }
        text.push_str(TEMPLATE);
        let text = text.replace("@FAMILY@", FAMILY);
        let digest = Sha256::digest(text.as_bytes());
        let digest: String = digest[..DIGEST]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let name = format!("{FAMILY}-{digest}");
        let text = text.replace("@NAME@", &name);
        Self { name, text }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_name_follows_from_the_text() {
        let configuration = tempfile::tempdir().unwrap();
        std::fs::create_dir(configuration.path().join("abi")).unwrap();
        std::fs::write(configuration.path().join(ABI), "").unwrap();
        let with = DefaultProfile::new(configuration.path());
        let without = DefaultProfile::new(Path::new("/nonexistent"));
        assert!(with.text.starts_with("abi <abi/3.0>,\n"), "{}", with.text);
        assert!(!without.text.contains("abi <"));
        assert_ne!(with.name, without.name);
        for DefaultProfile { name, text } in [with, without] {
            let digits = name.strip_prefix("podwright-default-").unwrap();
            assert!(digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
            assert!(text.contains(&format!("\nprofile {name} flags=")), "{text}");
            assert!(text.contains("peer=\"podwright-default*\"") && !text.contains("@NAME@"));
        }
    }
}

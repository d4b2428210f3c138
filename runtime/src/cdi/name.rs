//! Names: `vendor/class=device`.

use std::collections::BTreeMap;

use podwright_cri_api::v1::ContainerConfig;

use crate::error::CallError;
use crate::index::shown;

/// What the keys of annotations that name devices begin with.
const ANNOTATION: &str = "cdi.k8s.io/";

/// A container may have this many devices.
const MOST_DEVICES: usize = 1024;

/// The devices of a container, each once: those that its request names in its field, and in the annotations of older
/// kubelets, and `more`.
pub(crate) fn wanted<'a>(
    config: &'a ContainerConfig,
    more: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<String>, CallError> {
    let of_field = config.cdi_devices.iter().map(|device| device.name.as_str());
    let requested = of_field.chain(annotated(&config.annotations));
    let mut names: Vec<String> = Vec::new();
    for name in requested.chain(more) {
        if !is_qualified(name) {
            return Err(CallError::invalid(format!(
                "'{}' is no name of a CDI device: vendor/class=name is",
                shown(name)
            )));
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    if names.len() > MOST_DEVICES {
        return Err(CallError::invalid(format!(
            "the container has {} CDI devices, the limit is {MOST_DEVICES}",
            names.len()
        )));
    }
    Ok(names)
}

fn annotated(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    let ours = annotations
        .iter()
        .filter(|(key, _)| key.starts_with(ANNOTATION));
    ours.flat_map(|(_, value)| value.split(','))
}

fn is_qualified(name: &str) -> bool {
    let parts = name
        .split_once('=')
        .and_then(|(kind, device)| Some((kind.split_once('/')?, device)));
    parts.is_some_and(|((vendor, class), device)| {
        is_kind_part(vendor) && is_kind_part(class) && is_device(device)
    })
}

/// A vendor or a class: letters, digits, `_`, `-` and `.`, from a letter to a letter or digit.
pub(super) fn is_kind_part(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && has_shape(text, "_-.")
}

/// A device: as a vendor, and `:`; it may begin with a digit.
pub(super) fn is_device(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric()) && has_shape(text, "_-.:")
}

fn has_shape(text: &str, signs: &str) -> bool {
    text.ends_with(|last: char| last.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || signs.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use podwright_cri_api::v1::CdiDevice;

    #[test]
    fn names_are_qualified() {
        for (name, qualified) in [
            ("vendor.com/class=device", true),
            ("v/c=0", true),
            ("nvidia.com/gpu=GPU-1:2.3_4", true),
            ("vendor.com/net.rdma=dev1", true),
            ("device", false),
            ("vendor=device", false),
            ("vendor/class", false),
            ("vendor/class=", false),
            ("1vendor/class=device", false),
            ("vendor/class=-device", false),
            ("vendor/class=device-", false),
            ("vendor/cl ass=device", false),
            ("/class=device", false),
        ] {
            assert_eq!(is_qualified(name), qualified, "{name}");
        }
    }

    #[test]
    fn field_and_annotations_name_each_device_once() {
        let device = |name: &str| CdiDevice { name: name.into() };
        let mut config = ContainerConfig {
            cdi_devices: vec![device("v/c=a"), device("v/c=b")],
            annotations: [
                ("cdi.k8s.io/plugin".to_owned(), "v/c=b,v/c=d".to_owned()),
                ("other".to_owned(), "v/c=x".to_owned()),
            ]
            .into(),
            ..Default::default()
        };
        assert_eq!(wanted(&config, []).unwrap(), ["v/c=a", "v/c=b", "v/c=d"]);
        let more = wanted(&config, ["v/c=e", "v/c=a"]).unwrap();
        assert_eq!(more, ["v/c=a", "v/c=b", "v/c=d", "v/c=e"]);
        assert!(wanted(&config, ["e"]).is_err());
        config.cdi_devices.push(device("c"));
        assert!(wanted(&config, []).is_err());
    }
}

//! The rules of the node's own: required plugins, and what no plugin may set.
//!
//! They are the reference's default validator (`plugins/default-validator`), but that a plugin which was connected and did not
//! answer counts as absent, and that the annotation which demands plugins always counts.

use std::collections::BTreeMap;

use crate::api::security_profile::ProfileType;
use crate::api::{Container, Field, PodSandbox};
use crate::config::{Config, Rejection};
use crate::error::{NriError, shown};
use crate::identity::PluginName;
use crate::merge::CreationMerge;

/// A pod's annotation that demands plugins, for all its containers or, with `/container.NAME` after it, for one.
const REQUIRED: &str = "required-plugins.noderesource.dev";

/// Which plugins a new container was shown to.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) by: Vec<PluginName>,
    /// And which did not answer, with the reason.
    pub(crate) missed: Vec<(PluginName, String)>,
}

/// Whether a pod demands plugins.
pub(crate) fn is_demanding(annotations: &BTreeMap<String, String>) -> bool {
    annotations
        .range(REQUIRED.to_owned()..)
        .next()
        .is_some_and(|(key, _)| key.starts_with(REQUIRED))
}

/// Checks what the plugins make of a new container.
pub(crate) fn check(
    config: &Config,
    pod: &PodSandbox,
    container: &Container,
    merge: &CreationMerge,
    seen: &Seen,
) -> Result<(), NriError> {
    for rejection in &config.rejected {
        if let Some((plugin, what)) = offence(*rejection, container, merge) {
            return Err(NriError::Rejected { plugin, what });
        }
    }
    for required in required(config, pod, &container.name)? {
        if seen.by.iter().any(|plugin| plugin.is_called(&required)) {
            continue;
        }
        let missed = seen
            .missed
            .iter()
            .find(|(plugin, _)| plugin.is_called(&required));
        let why = match missed {
            Some((_, why)) => format!("has not seen the container ({why})"),
            None => "is not connected".to_owned(),
        };
        return Err(NriError::RequiredMissing {
            plugin: shown(&required),
            why,
        });
    }
    Ok(())
}

/// Who has set what is rejected.
fn offence(
    rejection: Rejection,
    container: &Container,
    merge: &CreationMerge,
) -> Option<(String, &'static str)> {
    let (id, owners) = (&container.id, merge.owners());
    let profile = container
        .linux
        .as_ref()
        .and_then(|linux| linux.seccomp_profile.as_ref())
        .map_or(ProfileType::Unconfined, |profile| profile.profile_type());
    let seccomp = |of: ProfileType, what: &'static str| {
        let owner = owners.owner(id, Field::SeccompPolicy)?;
        (profile == of).then(|| (owner.to_owned(), what))
    };
    match rejection {
        Rejection::OciHooks => owners
            .owner(id, Field::OciHooks)
            .map(|owner| (owner.to_owned(), "OCI hooks")),
        Rejection::RuntimeDefaultSeccomp => seccomp(
            ProfileType::RuntimeDefault,
            "a seccomp policy in place of the runtime's default",
        ),
        Rejection::UnconfinedSeccomp => seccomp(
            ProfileType::Unconfined,
            "a seccomp policy of a container that has none",
        ),
        Rejection::CustomSeccomp => seccomp(
            ProfileType::Localhost,
            "a seccomp policy in place of a profile of the node",
        ),
        Rejection::Namespaces => owners
            .entry_owners(id, Field::Namespace)
            .map(|owners| (owners, "namespaces")),
        Rejection::Sysctls => owners
            .entry_owners(id, Field::Sysctl)
            .map(|owners| (owners, "sysctls")),
    }
}

/// The plugins that the node and the pod demand.
fn required(config: &Config, pod: &PodSandbox, container: &str) -> Result<Vec<String>, NriError> {
    if let Some(key) = &config.waiver_annotation
        && let Some(value) = annotation(pod, key, container)
    {
        match value.as_str() {
            "true" | "True" | "TRUE" | "t" | "T" | "1" => return Ok(Vec::new()),
            "false" | "False" | "FALSE" | "f" | "F" | "0" => {}
            _ => return Err(misunderstood(key, value, "neither true nor false")),
        }
    }
    let mut required = config.required_plugins.clone();
    if let Some(value) = annotation(pod, REQUIRED, container) {
        let names = yaml_list(value)
            .ok_or_else(|| misunderstood(REQUIRED, value, "no list, as [ a, b ]"))?;
        required.extend(names);
    }
    Ok(required)
}

fn misunderstood(key: &str, value: &str, expected: &'static str) -> NriError {
    NriError::Annotation {
        key: key.to_owned(),
        value: shown(value),
        expected,
    }
}

/// The container's own annotation, or the pod's.
fn annotation<'a>(pod: &'a PodSandbox, key: &str, container: &str) -> Option<&'a String> {
    [
        format!("{key}/container.{container}"),
        format!("{key}/pod"),
        key.to_owned(),
    ]
    .iter()
    .find_map(|key| pod.annotations.get(key))
}

/// A YAML list of plain or quoted texts, as annotations hold it: `[ a, "b" ]`, or a line `- a` for each. None for all else.
fn yaml_list(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    let items: Vec<&str> = match text.strip_prefix('[') {
        Some(rest) => {
            let inner = rest.strip_suffix(']')?.trim();
            let last = inner.strip_suffix(',');
            let inner = last.filter(|rest| !rest.is_empty()).unwrap_or(inner);
            match inner.is_empty() {
                true => Vec::new(),
                false => inner.split(',').collect(),
            }
        }
        None => text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| line.trim_start().strip_prefix("- "))
            .collect::<Option<_>>()?,
    };
    items.into_iter().map(scalar).collect()
}

fn scalar(item: &str) -> Option<String> {
    let item = item.trim();
    let quoted = |quote: char| item.strip_prefix(quote)?.strip_suffix(quote);
    let text = quoted('"').or_else(|| quoted('\'')).unwrap_or(item);
    // A plugin's name has none of what YAML reads in other ways.
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte));
    (plain && !text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotations: &[(&str, &str)]) -> PodSandbox {
        PodSandbox {
            annotations: annotations
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            ..PodSandbox::default()
        }
    }

    fn verdict(config: &Config, pod: &PodSandbox, seen: &[&str]) -> Result<(), NriError> {
        let container = Container {
            id: "id".into(),
            name: "c".into(),
            ..Container::default()
        };
        let merge = CreationMerge::new(container.clone());
        let by = seen
            .iter()
            .map(|name| PluginName::of_file(name).unwrap())
            .collect();
        let seen = Seen {
            by,
            missed: vec![(PluginName::of_file("50-slow").unwrap(), "too late".into())],
        };
        check(config, pod, &container, &merge, &seen)
    }

    #[test]
    fn lists_are_read_in_both_forms() {
        let list = |text| yaml_list(text).map(|names| names.join(" "));
        assert_eq!(list("[ a, \"b\", 'c' ]").unwrap(), "a b c");
        assert_eq!(list("- a\n- 10-b\n").unwrap(), "a 10-b");
        assert_eq!(list("[]").unwrap(), "");
        for bad in ["a", "[a", "[a, {b: c}]", "- a\nb", "[a b]", "{}", "[,]"] {
            assert!(yaml_list(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn required_plugins_fail_closed() {
        let node = Config {
            required_plugins: vec!["a".into()],
            waiver_annotation: Some("waive".into()),
            ..Config::default()
        };
        let none = pod(&[]);
        assert!(verdict(&node, &none, &["10-a"]).is_ok());
        assert!(matches!(
            verdict(&node, &none, &["10-b"]),
            Err(NriError::RequiredMissing { .. })
        ));
        assert!(verdict(&node, &pod(&[("waive", "true")]), &[]).is_ok());
        assert!(verdict(&node, &pod(&[("waive", "false")]), &[]).is_err());
        assert!(matches!(
            verdict(&node, &pod(&[("waive", "maybe")]), &["10-a"]),
            Err(NriError::Annotation { .. })
        ));
    }

    #[test]
    fn pods_demand_plugins_for_one_container_or_all() {
        let free = Config::default();
        for (key, demanded) in [
            ("required-plugins.noderesource.dev", true),
            ("required-plugins.noderesource.dev/pod", true),
            ("required-plugins.noderesource.dev/container.c", true),
            ("required-plugins.noderesource.dev/container.other", false),
        ] {
            let pod = pod(&[(key, "[ x ]")]);
            assert!(is_demanding(&pod.annotations));
            assert_eq!(verdict(&free, &pod, &[]).is_err(), demanded, "{key}");
            assert!(verdict(&free, &pod, &["01-x"]).is_ok(), "{key}");
        }
        assert!(!is_demanding(
            &pod(&[("requires", "x"), ("s", "")]).annotations
        ));
        let broken = pod(&[("required-plugins.noderesource.dev", "{")]);
        assert!(verdict(&free, &broken, &["01-x"]).is_err());
    }

    #[test]
    fn a_plugin_that_did_not_answer_counts_as_absent_and_says_why() {
        let node = Config {
            required_plugins: vec!["slow".into()],
            ..Config::default()
        };
        let error = verdict(&node, &pod(&[]), &["10-a"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("slow") && error.contains("too late"),
            "{error}"
        );
    }
}

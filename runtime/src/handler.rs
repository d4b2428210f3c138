//! Runtime handlers: the ways to run pods that a RuntimeClass can choose.
//!
//! All of them are this runtime; they differ in what its operator decided. A pod keeps its handler's name for life. When the
//! configuration no longer has it, the pod goes on with the default's settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use podwright_cri_api::v1::{self as cri, NamespaceMode, PodSandboxConfig};

use crate::cgroup::CgroupPath;
use crate::config::{self, Config, UserNamespaces};
use crate::error::{CallError, Kind};
use crate::index::shown;
use crate::kernel::KernelFeatures;

/// The handler of pods whose request names none.
const DEFAULT: &str = "";

/// One handler.
#[derive(Debug)]
pub(crate) struct Handler {
    /// Empty for the default.
    name: String,
    settings: config::Handler,
}

/// All handlers of the configuration.
#[derive(Debug)]
pub(crate) struct Handlers {
    default: Arc<Handler>,
    named: BTreeMap<String, Arc<Handler>>,
}

impl Handlers {
    pub(crate) fn new(config: &Config) -> Self {
        let handler = |name: &str, settings: config::Handler| {
            Arc::new(Handler {
                name: name.to_owned(),
                settings,
            })
        };
        let default = config::Handler {
            pods: config.pods.clone(),
            cgroup_root: config.cgroup_root.clone(),
        };
        let named = config.handlers.iter();
        Self {
            default: handler(DEFAULT, default),
            named: named
                .map(|(name, settings)| (name.clone(), handler(name, settings.clone())))
                .collect(),
        }
    }

    /// The handler that a request names.
    pub(crate) fn require(&self, name: &str) -> Result<Arc<Handler>, CallError> {
        let found = match name {
            DEFAULT => Some(&self.default),
            name => self.named.get(name),
        };
        found.cloned().ok_or_else(|| {
            let known: Vec<&str> = self.named.keys().map(String::as_str).collect();
            let known = match known.is_empty() {
                true => "the configuration has no [handlers]".to_owned(),
                false => format!("the configuration has {}", known.join(", ")),
            };
            let what = format!("no runtime for \"{}\" is configured: {known}", shown(name));
            CallError::new(Kind::NotFound, what)
        })
    }

    /// The handler of a pod that exists.
    pub(crate) fn of_pod(&self, pod: &str, name: &str) -> Arc<Handler> {
        self.require(name).unwrap_or_else(|_| {
            tracing::warn!(
                sandbox = pod,
                handler = name,
                "the configuration no longer has the pod's runtime handler; the pod goes on with the default's settings"
            );
            Arc::clone(&self.default)
        })
    }

    /// The cgroups below which pods are made, each once.
    pub(crate) fn cgroup_roots(&self) -> Vec<&CgroupPath> {
        let mut roots: Vec<_> = self.all().map(|handler| handler.cgroup_root()).collect();
        roots.sort_unstable_by_key(|root| root.as_str());
        roots.dedup();
        roots
    }

    /// As Status tells them, the default first.
    pub(crate) fn cri(&self, kernel: &KernelFeatures) -> Vec<cri::RuntimeHandler> {
        self.all().map(|handler| handler.cri(kernel)).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Handler> {
        std::iter::once(&self.default)
            .chain(self.named.values())
            .map(|handler| &**handler)
    }
}

impl Handler {
    /// As requests name it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What its pods get.
    pub(crate) fn pods(&self) -> &config::Pods {
        &self.settings.pods
    }

    /// Where pods without a cgroup parent are made.
    pub(crate) fn cgroup_root(&self) -> &CgroupPath {
        &self.settings.cgroup_root
    }

    /// Refuses pods that the operator does not want with this handler.
    pub(crate) fn admit(&self, config: &PodSandboxConfig) -> Result<(), CallError> {
        let context = config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.as_ref());
        let options = context
            .and_then(|context| context.namespace_options.as_ref())
            .and_then(|options| options.userns_options.as_ref());
        let asked = options.is_some_and(|options| options.mode() == NamespaceMode::Pod);
        let refused = match (self.settings.pods.user_namespaces, asked) {
            (UserNamespaces::Refused, true) => {
                "refuses pods with a user namespace (user_namespaces = \"refused\"): set hostUsers: true"
            }
            (UserNamespaces::Required, false) => {
                "takes only pods with a user namespace (user_namespaces = \"required\"): set hostUsers: false"
            }
            _ => return Ok(()),
        };
        Err(CallError::state(format!(
            "cannot run the pod sandbox: {} {refused}",
            self.shown()
        )))
    }

    fn shown(&self) -> String {
        match self.name.as_str() {
            DEFAULT => "the default runtime handler".to_owned(),
            name => format!("the runtime handler '{name}'"),
        }
    }

    fn cri(&self, kernel: &KernelFeatures) -> cri::RuntimeHandler {
        cri::RuntimeHandler {
            name: self.name.clone(),
            features: Some(cri::RuntimeHandlerFeatures {
                recursive_read_only_mounts: kernel.recursive_read_only_mounts,
                user_namespaces: kernel.user_namespaces
                    && self.settings.pods.user_namespaces != UserNamespaces::Refused,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Pods;
    use podwright_cri_api::v1::{
        LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption, UserNamespace,
    };

    fn handlers(policies: &[(&str, UserNamespaces)]) -> Handlers {
        let handler = |policy| config::Handler {
            pods: Pods {
                user_namespaces: policy,
                ..Pods::default()
            },
            cgroup_root: CgroupPath::new("/other").unwrap(),
        };
        let named = policies.iter();
        Handlers::new(&Config {
            handlers: named
                .map(|(name, policy)| ((*name).to_owned(), handler(*policy)))
                .collect(),
            ..Config::default()
        })
    }

    fn pod(mode: Option<NamespaceMode>) -> PodSandboxConfig {
        let options = NamespaceOption {
            userns_options: mode.map(|mode| UserNamespace {
                mode: mode.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let context = LinuxSandboxSecurityContext {
            namespace_options: Some(options),
            ..Default::default()
        };
        PodSandboxConfig {
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(context),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn an_unknown_handler_is_refused_with_those_that_there_are() {
        let handlers = handlers(&[
            ("a", UserNamespaces::Allowed),
            ("b", UserNamespaces::Allowed),
        ]);
        assert_eq!(handlers.require("b").unwrap().name, "b");
        assert_eq!(handlers.require("").unwrap().name, "");
        let error = handlers.require("runc").unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
        assert_eq!(
            error.to_string(),
            "no runtime for \"runc\" is configured: the configuration has a, b"
        );
    }

    #[test]
    fn user_namespaces_are_as_the_handler_says() {
        let handlers = handlers(&[
            ("allowed", UserNamespaces::Allowed),
            ("refused", UserNamespaces::Refused),
            ("required", UserNamespaces::Required),
        ]);
        for (name, mode, admitted) in [
            ("", None, true),
            ("allowed", Some(NamespaceMode::Pod), true),
            ("allowed", None, true),
            ("refused", Some(NamespaceMode::Pod), false),
            ("refused", Some(NamespaceMode::Node), true),
            ("required", Some(NamespaceMode::Pod), true),
            ("required", Some(NamespaceMode::Node), false),
            ("required", None, false),
        ] {
            let handler = handlers.require(name).unwrap();
            assert_eq!(
                handler.admit(&pod(mode)).is_ok(),
                admitted,
                "{name} {mode:?}"
            );
        }
        let kernel = KernelFeatures {
            recursive_read_only_mounts: true,
            user_namespaces: true,
        };
        let told: Vec<_> = handlers
            .cri(&kernel)
            .iter()
            .map(|handler| {
                (
                    handler.name.clone(),
                    handler.features.unwrap().user_namespaces,
                )
            })
            .collect();
        let expected = [
            ("", true),
            ("allowed", true),
            ("refused", false),
            ("required", true),
        ];
        assert_eq!(told, expected.map(|(name, has)| (name.to_owned(), has)));
    }

    #[test]
    fn each_cgroup_root_is_looked_at_once() {
        let handlers = handlers(&[
            ("a", UserNamespaces::Allowed),
            ("b", UserNamespaces::Allowed),
        ]);
        let roots: Vec<_> = handlers
            .cgroup_roots()
            .iter()
            .map(|root| root.as_str())
            .collect();
        assert_eq!(roots, ["/other", "/podwright"]);
    }
}

//! Pods and containers as tests describe them: what is not said has a sensible default.

use std::sync::atomic::{AtomicU32, Ordering};

use podwright_cri_api::v1::{
    ContainerConfig, ContainerMetadata, IdMapping, ImageSpec, Int64Value, KeyValue,
    LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol, UserNamespace,
    security_profile::ProfileType,
};

use crate::images::BUSYBOX;

/// A pod to make.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSpec {
    /// The request's content.
    pub config: PodSandboxConfig,
}

impl PodSpec {
    /// A pod with its own network, IPC and UTS namespaces; its uid is unique in this process.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let uid = format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let metadata = PodSandboxMetadata {
            name: name.to_owned(),
            uid,
            namespace: "test".to_owned(),
            attempt: 0,
        };
        let options = NamespaceOption {
            pid: NamespaceMode::Container.into(),
            ..NamespaceOption::default()
        };
        let security_context = LinuxSandboxSecurityContext {
            namespace_options: Some(options),
            ..LinuxSandboxSecurityContext::default()
        };
        let linux = LinuxPodSandboxConfig {
            security_context: Some(security_context),
            ..LinuxPodSandboxConfig::default()
        };
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            hostname: name.to_owned(),
            linux: Some(linux),
            ..PodSandboxConfig::default()
        };
        Self { config }
    }

    /// The uid of its metadata.
    pub fn uid(&self) -> &str {
        self.config
            .metadata
            .as_ref()
            .map_or("", |metadata| &metadata.uid)
    }

    /// The part that only Linux has.
    pub fn linux(&mut self) -> &mut LinuxPodSandboxConfig {
        self.config.linux.get_or_insert_default()
    }

    /// The namespaces.
    pub fn namespaces(&mut self) -> &mut NamespaceOption {
        let context = self.linux().security_context.get_or_insert_default();
        context.namespace_options.get_or_insert_default()
    }

    /// Uses the host's network.
    pub fn host_network(mut self) -> Self {
        self.namespaces().network = NamespaceMode::Node.into();
        self
    }

    /// All containers share one PID namespace.
    pub fn shared_pid(mut self) -> Self {
        self.namespaces().pid = NamespaceMode::Pod.into();
        self
    }

    /// Gives it a user namespace that maps ids as told.
    pub fn user_namespace(mut self, mapping: IdMapping) -> Self {
        self.namespaces().userns_options = Some(user_namespace(mapping));
        self
    }

    /// Maps a TCP port of the host.
    pub fn port(mut self, container_port: i32, host_port: i32) -> Self {
        self.config.port_mappings.push(PortMapping {
            protocol: Protocol::Tcp.into(),
            container_port,
            host_port,
            host_ip: String::new(),
        });
        self
    }

    /// Adds a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.config.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Puts its cgroups below `parent`.
    pub fn cgroup_parent(mut self, parent: &str) -> Self {
        self.linux().cgroup_parent = parent.to_owned();
        self
    }

    /// Sets a namespaced kernel parameter.
    pub fn sysctl(mut self, key: &str, value: &str) -> Self {
        self.linux()
            .sysctls
            .insert(key.to_owned(), value.to_owned());
        self
    }
}

fn user_namespace(mapping: IdMapping) -> UserNamespace {
    UserNamespace {
        mode: NamespaceMode::Pod.into(),
        uids: vec![mapping],
        gids: vec![mapping],
    }
}

/// A container to make.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerSpec {
    /// The request's content.
    pub config: ContainerConfig,
}

impl ContainerSpec {
    /// A container of [`BUSYBOX`] that sleeps, and logs to `name.log`.
    pub fn new(name: &str) -> Self {
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: BUSYBOX.to_owned(),
                ..ImageSpec::default()
            }),
            command: vec!["sleep".to_owned(), "1000".to_owned()],
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig::default()),
            ..ContainerConfig::default()
        };
        let spec = Self { config };
        spec.with_security(|security| {
            let options = security.namespace_options.get_or_insert_default();
            options.pid = NamespaceMode::Container.into();
        })
    }

    /// Another image, with its own entry point.
    pub fn image(mut self, image: &str) -> Self {
        self.config.image = Some(ImageSpec {
            image: image.to_owned(),
            ..ImageSpec::default()
        });
        self.config.command.clear();
        self
    }

    /// The program and its arguments.
    pub fn command(mut self, command: &[&str]) -> Self {
        self.config.command = command.iter().map(ToString::to_string).collect();
        self
    }

    /// A shell script as the program.
    pub fn shell(self, script: &str) -> Self {
        self.command(&["sh", "-c", script])
    }

    /// AppArmor, where there is one, allows it everything.
    pub fn unconfined(self) -> Self {
        self.with_security(|security| {
            let profile = security.apparmor.get_or_insert_default();
            profile.set_profile_type(ProfileType::Unconfined);
        })
    }

    /// Adds an environment variable.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.config.envs.push(KeyValue {
            key: key.to_owned(),
            value: value.into(),
        });
        self
    }

    /// Adds a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.config.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Counts the tries.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.config.metadata.get_or_insert_default().attempt = attempt;
        self
    }

    /// Mounts a path of the host, writable.
    pub fn mount(mut self, host_path: &str, container_path: &str) -> Self {
        self.config.mounts.push(Mount {
            host_path: host_path.to_owned(),
            container_path: container_path.to_owned(),
            ..Mount::default()
        });
        self
    }

    /// Mounts a path of the host, writable, with its files' owners mapped.
    pub fn mapped_mount(
        mut self,
        host_path: &str,
        container_path: &str,
        mapping: IdMapping,
    ) -> Self {
        self.config.mounts.push(Mount {
            host_path: host_path.to_owned(),
            container_path: container_path.to_owned(),
            uid_mappings: vec![mapping],
            gid_mappings: vec![mapping],
            ..Mount::default()
        });
        self
    }

    /// Says which user namespace its pod has.
    pub fn user_namespace(self, mapping: IdMapping) -> Self {
        self.with_security(|security| {
            let options = security.namespace_options.get_or_insert_default();
            options.userns_options = Some(user_namespace(mapping));
        })
    }

    /// May use these capabilities too.
    pub fn capabilities(self, add: &[&str]) -> Self {
        self.with_security(|security| {
            let capabilities = security.capabilities.get_or_insert_default();
            capabilities.add_capabilities = add.iter().map(ToString::to_string).collect();
        })
    }

    /// Runs as this user.
    pub fn user(self, uid: i64) -> Self {
        self.with_security(|security| security.run_as_user = Some(Int64Value { value: uid }))
    }

    /// Limits it as a kubelet limits a pod of the class Burstable.
    pub fn limited(self) -> Self {
        self.with_resources(|limits| {
            limits.cpu_period = 100_000;
            limits.cpu_quota = 100_000;
            limits.cpu_shares = 512;
            limits.memory_limit_in_bytes = 256 << 20;
        })
    }

    /// Changes the limits.
    pub fn with_resources(mut self, change: impl FnOnce(&mut LinuxContainerResources)) -> Self {
        let linux = self.config.linux.get_or_insert_default();
        change(linux.resources.get_or_insert_default());
        self
    }

    /// Changes the security context.
    pub fn with_security(
        mut self,
        change: impl FnOnce(&mut LinuxContainerSecurityContext),
    ) -> Self {
        let linux = self.config.linux.get_or_insert_default();
        change(linux.security_context.get_or_insert_default());
        self
    }
}

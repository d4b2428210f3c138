//! The whole way of a request to what pause executes, as its instructions are counted.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::path::Path;

use oci_spec::image::{Config as ImageConfig, ConfigBuilder};
use oci_spec::runtime::Spec;
use podwright_cri_api::v1 as cri;
use podwright_instructions::counted;
use podwright_pause::plan::{LaunchPlan, Stdin};
use podwright_pause::protocol::{Answer, Message, PlanBytes, Request};
use podwright_pause::wire::{Bytes, Wire};

use super::*;
use crate::cgroup::{CgroupPath, Version};
use crate::config::Config;
use crate::handler::Handlers;
use crate::ids::{ContainerId, SandboxId};
use crate::records::{ConfinementRecord, SandboxRecord, UserRecord};
use crate::sandbox::{Directories, Sandbox, Settings, State};
use crate::security::capabilities::CapabilitySet;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// What root has on a machine of today, so that the counts do not depend on this one.
const ALL: CapabilitySet = CapabilitySet::from_bits((1 << 41) - 1);

fn sandbox() -> Sandbox {
    let metadata = cri::PodSandboxMetadata {
        name: "web".into(),
        uid: "f3b7".into(),
        namespace: "default".into(),
        attempt: 0,
    };
    let config = cri::PodSandboxConfig {
        metadata: Some(metadata),
        hostname: "web".into(),
        ..Default::default()
    };
    let record = SandboxRecord {
        config: Some(config.clone()),
        ..Default::default()
    };
    let id = SandboxId::parse(ID).unwrap();
    let settings = Settings::check(&config).unwrap();
    let directories = Directories::of(&Config::default(), &id, &settings);
    Sandbox::new(
        &record,
        id,
        settings,
        Handlers::new(&Config::default()).require("").unwrap(),
        CgroupPath::new("/kubepods/burstable/podf3b7").unwrap(),
        directories,
        State::NotReady,
    )
}

/// As a kubelet asks for a container: a service's variables, a token, its own hosts file and termination log.
fn request() -> cri::ContainerConfig {
    let volume = |container_path: &str, host_path: &str, readonly| cri::Mount {
        container_path: container_path.into(),
        host_path: host_path.into(),
        readonly,
        ..Default::default()
    };
    let context = cri::LinuxContainerSecurityContext {
        masked_paths: ["/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"]
            .map(Into::into)
            .into(),
        readonly_paths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"]
            .map(Into::into)
            .into(),
        no_new_privs: true,
        ..Default::default()
    };
    let resources = cri::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 256 << 20,
        ..Default::default()
    };
    let variable = |number: u32| cri::KeyValue {
        key: format!("SERVICE_{number}_PORT_443_TCP_ADDR"),
        value: b"10.96.0.1".to_vec(),
    };
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: "server".into(),
            attempt: 0,
        }),
        args: vec!["--listen".into(), ":8080".into()],
        envs: (0..20).map(variable).collect(),
        mounts: vec![
            volume("/var/run/secrets/token", "/var/lib/kubelet/token", true),
            volume("/etc/hosts", "/var/lib/kubelet/etc-hosts", false),
            volume("/dev/termination-log", "/var/lib/kubelet/log", false),
        ],
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources),
            security_context: Some(context),
        }),
        ..Default::default()
    }
}

fn image() -> ImageConfig {
    ConfigBuilder::default()
        .entrypoint(vec!["/server".to_owned()])
        .env(vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned()])
        .build()
        .unwrap()
}

/// The group that a container would have.
fn cgroup(sandbox: &Sandbox) -> CgroupPath {
    sandbox.cgroup.join(ID).unwrap()
}

fn spec(sandbox: &Sandbox, request: &cri::ContainerConfig, image: &ImageConfig) -> Spec {
    container_spec(&SpecInputs {
        sandbox,
        config: request,
        image: Some(image),
        user: &UserRecord::default(),
        cgroup: &cgroup(sandbox),
        cgroup_version: Version::V2,
        available: ALL,
        oom_score_adj: 0,
        confinement: &ConfinementRecord::default(),
    })
    .unwrap()
}

fn plan(sandbox: &Sandbox, request: &cri::ContainerConfig, spec: &Spec) -> LaunchPlan {
    let context = request.linux.clone().unwrap().security_context.unwrap();
    launch_plan(&LaunchInputs {
        spec,
        id: &ContainerId::parse(ID).unwrap(),
        capabilities: &capability_sets(&context, ALL).unwrap(),
        layers_root: Path::new("/var/lib/podwright/images/layers"),
        layers: &[1, 2, 3, 4, 5].map(|number| format!("{number:064x}")),
        mount_points: Some(Path::new("/var/lib/podwright/mount-points")),
        directory: &Path::new("/var/lib/podwright/containers").join(ID),
        mount_point: Path::new("/run/podwright/root"),
        empty: Path::new("/run/podwright/empty"),
        volume_images: &[],
        image_volumes: Vec::new(),
        cgroup_version: Version::V2,
        cgroup_places: None,
        join_files: vec![Path::new("/sys/fs/cgroup/kubepods").join(ID)],
        cgroup: cgroup(sandbox).as_str(),
        pid_namespace: None,
        seccomp: Some(&[6; 4000]),
        stdin: Stdin::Null,
    })
    .unwrap()
}

#[test]
fn instructions_of_a_spec() {
    let (sandbox, request, image) = (sandbox(), request(), image());
    let spec = counted(|| spec(&sandbox, &request, &image));
    let process = spec.process().clone().unwrap();
    assert_eq!(
        process.args().clone().unwrap(),
        ["/server", "--listen", ":8080"]
    );
    assert!(spec.mounts().clone().unwrap().len() > request.mounts.len());
}

#[test]
fn instructions_of_a_launch_plan() {
    let (sandbox, request) = (sandbox(), request());
    let spec = spec(&sandbox, &request, &image());
    let plan = counted(|| plan(&sandbox, &request, &spec));
    assert_eq!(plan.process.argv.len(), 3);
    assert!(plan.steps.len() > request.mounts.len());
}

#[test]
fn instructions_of_a_launch_plan_s_way_to_pause() {
    let (sandbox, request) = (sandbox(), request());
    let spec = spec(&sandbox, &request, &image());
    let plan = plan(&sandbox, &request, &spec);
    let decoded = counted(|| LaunchPlan::from_bytes(&plan.to_bytes()));
    assert_eq!(decoded, Ok(plan));
}

#[test]
fn instructions_of_a_request_and_its_answer() {
    let request = Message {
        id: 7,
        body: Request::Launch {
            container: ID.into(),
            plan: PlanBytes::Inline {
                plan: Bytes(vec![1; 6000]),
            },
        },
    };
    let answer = Message {
        id: 7,
        body: Answer::Launched { pid: 1234, at: 5 },
    };
    let (asked, answered) = counted(|| {
        (
            Message::<Request>::from_bytes(&request.to_bytes()),
            Message::<Answer>::from_bytes(&answer.to_bytes()),
        )
    });
    assert_eq!((asked, answered), (Ok(request), Ok(answer)));
}

use super::*;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, LinuxResources};
use podwright_nri::api::{KeyValue, LinuxNamespace as WishedNamespace};

fn spec() -> Spec {
    let mut spec = Spec::default();
    let mut process = Process::default();
    process.set_env(Some(vec!["PATH=/bin".into(), "A=1".into()]));
    process.set_args(Some(vec!["sleep".into()]));
    let mut dev = Mount::default();
    dev.set_destination("/dev".into())
        .set_typ(Some("tmpfs".into()));
    let mut data = Mount::default();
    data.set_destination("/data".into())
        .set_typ(Some("bind".into()));
    let mut limits = LinuxResources::default();
    limits.set_devices(Some(Vec::new()));
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(LinuxNamespaceType::Ipc);
    let mut linux = Linux::default();
    linux
        .set_resources(Some(limits))
        .set_namespaces(Some(vec![namespace]))
        .set_devices(None)
        .set_cgroups_path(Some("/pods/c".into()));
    spec.set_process(Some(process))
        .set_mounts(Some(vec![dev, data]))
        .set_linux(Some(linux))
        .set_annotations(Some([("a".to_owned(), "1".to_owned())].into()));
    spec
}

fn adjusted(change: impl FnOnce(&mut ContainerAdjustment)) -> Result<Spec, CallError> {
    let mut wishes = ContainerAdjustment::default();
    change(&mut wishes);
    let mut spec = spec();
    let scores = OomScoreRange::of_this_process().unwrap();
    adjust(&mut spec, &wishes, scores).map(|()| spec)
}

fn linux(change: impl FnOnce(&mut LinuxContainerAdjustment)) -> Result<Spec, CallError> {
    adjusted(|wishes| change(wishes.linux.get_or_insert_default()))
}

fn variable(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.into(),
    }
}

#[test]
fn the_environment_is_changed_in_place_and_at_the_end() {
    let spec = adjusted(|wishes| {
        wishes.env = vec![
            variable("A", "2"),
            variable("B", "3"),
            variable("-PATH", ""),
        ];
        wishes.args = vec!["echo".into()];
    })
    .unwrap();
    let process = spec.process().clone().unwrap();
    assert_eq!(process.env().clone().unwrap(), ["A=2", "B=3"]);
    assert_eq!(process.args().clone().unwrap(), ["echo"]);
}

#[test]
fn mounts_are_replaced_removed_and_ordered() {
    let bind = |destination: &str, source: &str| api::Mount {
        destination: destination.into(),
        r#type: "bind".into(),
        source: source.into(),
        options: vec!["ro".into()],
    };
    let spec = adjusted(|wishes| {
        wishes.mounts = vec![bind("/x/y", "/srv"), bind("/x", "/srv"), bind("-/data", "")];
    })
    .unwrap();
    let mounts = spec.mounts().clone().unwrap();
    let shown: Vec<_> = mounts
        .iter()
        .map(|mount| mount.destination().display().to_string())
        .collect();
    assert_eq!(shown, ["/dev", "/x", "/x/y"]);
    assert_eq!(mounts[1].options().clone().unwrap(), ["bind", "ro"]);
    for (destination, source) in [
        ("/", "/srv"),
        ("/a/../b", "/srv"),
        ("/a", "srv"),
        ("", "/srv"),
        ("/proc/sys", "/srv"),
        ("-/proc", ""),
    ] {
        let refused = adjusted(|wishes| wishes.mounts = vec![bind(destination, source)]);
        assert!(refused.is_err(), "{source} on {destination}");
    }
}

#[test]
fn devices_come_with_their_rules() {
    let device = |path: &str, kind: &str, major| api::LinuxDevice {
        path: path.into(),
        r#type: kind.into(),
        major,
        minor: 3,
        ..api::LinuxDevice::default()
    };
    let spec = linux(|linux| linux.devices = vec![device("/dev/mine", "c", 1)]).unwrap();
    let linux_part = spec.linux().clone().unwrap();
    assert_eq!(
        linux_part.devices().clone().unwrap()[0].path(),
        Path::new("/dev/mine")
    );
    let rules = linux_part
        .resources()
        .clone()
        .unwrap()
        .devices()
        .clone()
        .unwrap();
    assert_eq!(rules[0].to_string(), "c 1:3 rw");
    for (kind, major) in [("x", 1), ("", 1), ("c", -1), ("b", 1 << 40)] {
        let refused = linux(|linux| linux.devices = vec![device("/dev/mine", kind, major)]);
        assert!(refused.is_err(), "{kind} {major}");
    }
}

#[test]
fn limits_of_processes_are_replaced_and_checked() {
    let limit = |kind: &str, soft, hard| api::PosixRlimit {
        r#type: kind.into(),
        soft,
        hard,
    };
    let spec = adjusted(|wishes| {
        wishes.rlimits = vec![limit("RLIMIT_CORE", 1, 2), limit("RLIMIT_CORE", 3, 4)];
    })
    .unwrap();
    let mut limits = spec.process().clone().unwrap().rlimits().clone().unwrap();
    limits.retain(|limit| limit.typ() == PosixRlimitType::RlimitCore);
    assert_eq!(
        (limits.len(), limits[0].soft(), limits[0].hard()),
        (1, 3, 4)
    );
    assert!(adjusted(|wishes| wishes.rlimits = vec![limit("RLIMIT_FUN", 1, 2)]).is_err());
    assert!(adjusted(|wishes| wishes.rlimits = vec![limit("RLIMIT_CORE", 2, 1)]).is_err());
}

#[test]
fn annotations_are_set_and_taken_away() {
    let spec = adjusted(|wishes| {
        wishes.annotations = [("-a", ""), ("b", "2")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
    })
    .unwrap();
    let expected = HashMap::from([("b".to_owned(), "2".to_owned())]);
    assert_eq!(spec.annotations().clone().unwrap(), expected);
}

#[test]
fn what_is_not_offered_is_refused_by_name() {
    let namespace = |kind: &str, path: &str| WishedNamespace {
        r#type: kind.into(),
        path: path.into(),
    };
    let cases = [
        (
            adjusted(|wishes| {
                let hooks = wishes.hooks.get_or_insert_default();
                hooks.poststart.push(api::Hook::default());
            }),
            "poststart hook",
        ),
        (
            linux(|linux| linux.cgroups_path = "/elsewhere".into()),
            "cgroup",
        ),
        (
            linux(|linux| drop(linux.sysctl.insert("net.x".into(), "1".into()))),
            "sysctls",
        ),
        (
            linux(|linux| {
                let priority = linux.io_priority.get_or_insert_default();
                priority.class = api::IoPrioClass::IoprioClassIdle.into();
            }),
            "I/O priority",
        ),
        (
            linux(|linux| linux.memory_policy = Some(api::LinuxMemoryPolicy::default())),
            "memory policy",
        ),
        (
            linux(|linux| linux.rdt = Some(api::LinuxRdt::default())),
            "RDT",
        ),
        (
            linux(|linux| linux.namespaces = vec![namespace("user", "")]),
            "user namespace",
        ),
        (
            linux(|linux| linux.namespaces = vec![namespace("ipc", "/x")]),
            "ipc namespace",
        ),
        (
            linux(|linux| linux.namespaces = vec![namespace("-ipc", "")]),
            "ipc namespace",
        ),
    ];
    for (result, what) in cases {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn what_is_as_it_is_asked_for_is_no_change() {
    let same = linux(|linux| {
        linux.cgroups_path = "/pods/c".into();
        linux.namespaces = vec![
            WishedNamespace {
                r#type: "ipc".into(),
                path: String::new(),
            },
            WishedNamespace {
                r#type: "-user".into(),
                path: String::new(),
            },
        ];
        linux.io_priority = Some(api::LinuxIoPriority::default());
    });
    assert!(same.is_ok());
}

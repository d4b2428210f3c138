//! Seccomp profiles of requests: what they allow, and what hostile ones cost.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use podwright_cri_api::v1::{SecurityProfile, security_profile::ProfileType};
use podwright_integration::{
    cri::Pod,
    node::Node,
    patience::patience,
    pod::{ContainerSpec, PodSpec},
};
use serde_json::{Value, json};
use tonic::{Code, Status};

/// A profile that cannot be used must be refused long before a client loses patience.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

fn with_profile(name: &str, profile_type: ProfileType, path: &str) -> ContainerSpec {
    let profile = SecurityProfile {
        profile_type: profile_type.into(),
        localhost_ref: path.to_owned(),
    };
    ContainerSpec::new(name).with_security(|security| security.seccomp = Some(profile))
}

async fn with_file(
    node: &Node,
    pod: &Pod,
    name: &str,
    text: &[u8],
) -> Result<Result<String, Status>> {
    let path = node.daemon.slot().path(&format!("{name}.json"));
    fs::write(&path, text)?;
    let spec = with_profile(name, ProfileType::Localhost, &path.to_string_lossy());
    Ok(node.cri.run(pod, spec).await)
}

fn profile(calls: Value) -> Vec<u8> {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls })
        .to_string()
        .into_bytes()
}

#[tokio::test]
async fn profiles_of_the_node_are_used_and_the_default_confines() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let no_mkdir = profile(
        json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }]),
    );
    let id = with_file(&node, &pod, "own", &no_mkdir).await??;
    let done = node.cri.exec(&id, &["mkdir", "/x"], 5).await?;
    assert_ne!(done.exit_code, 0);
    let words = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        words.contains("not supported"),
        "the errno of the rule: {words}"
    );
    let default = node
        .cri
        .run(
            &pod,
            with_profile("default", ProfileType::RuntimeDefault, ""),
        )
        .await?;
    assert_eq!(
        node.cri
            .shell(&default, "grep ^Seccomp: /proc/self/status")
            .await?,
        "Seccomp:\t2\n"
    );
    let done = node
        .cri
        .exec(&default, &["unshare", "-U", "true"], 5)
        .await?;
    assert_ne!(done.exit_code, 0, "a user namespace was made");
    let free = node
        .cri
        .run(&pod, with_profile("free", ProfileType::Unconfined, ""))
        .await?;
    assert_eq!(
        node.cri
            .shell(&free, "grep ^Seccomp: /proc/self/status")
            .await?,
        "Seccomp:\t0\n"
    );
    node.finish().await
}

#[tokio::test]
async fn hostile_profiles_are_refused_in_bounded_time_and_memory() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let contradictions: Vec<Value> = (0..1000)
        .map(|number| {
            let action = if number % 2 == 0 {
                "SCMP_ACT_ERRNO"
            } else {
                "SCMP_ACT_TRAP"
            };
            let args = json!([{ "index": 1, "value": number / 2, "op": "SCMP_CMP_EQ" }]);
            json!({ "names": ["read", "write", "openat"], "action": action, "args": args })
        })
        .collect();
    let different: Vec<Value> = (0..5000)
        .map(|number| {
            let args = json!([{ "index": number % 6, "value": number, "op": "SCMP_CMP_NE" }]);
            json!({ "names": ["ioctl", "fcntl"], "action": "SCMP_ACT_ERRNO", "args": args })
        })
        .collect();
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    let refusals: [(&str, Vec<u8>, &str); 9] = [
        (
            "contradictions",
            profile(contradictions.into()),
            "different actions",
        ),
        ("different", profile(different.into()), "instructions"),
        ("large", vec![b' '; 2 << 20], "more than 1048576"),
        ("deep", deep, "JSON"),
        ("empty", Vec::new(), "JSON"),
        (
            "action",
            profile(json!([{ "names": ["read"], "action": "SCMP_ACT_PANIC" }])),
            "JSON",
        ),
        (
            "argument",
            profile(
                json!([{ "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 9, "value": 0, "op": "SCMP_CMP_EQ" }] }]),
            ),
            "index",
        ),
        (
            "architecture",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X"] })
                .to_string()
                .into_bytes(),
            "SCMP_ARCH_S390X",
        ),
        (
            "notify",
            profile(json!([{ "names": ["read"], "action": "SCMP_ACT_NOTIFY" }])),
            "NOTIFY",
        ),
    ];
    for (name, text, expected) in refusals {
        let begun = Instant::now();
        let status = with_file(&node, &pod, name, &text).await?.expect_err(name);
        assert!(
            begun.elapsed() < patience(REFUSED_WITHIN),
            "{name} took {:?}",
            begun.elapsed()
        );
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
        assert!(status.message().contains(expected), "{name}: {status:?}");
        assert!(
            status.message().len() < 2000,
            "{name}: {} bytes",
            status.message().len()
        );
    }
    for (path, expected) in [
        ("relative", "absolute"),
        ("/dev/zero", "regular file"),
        ("/nowhere/profile.json", "/nowhere/profile.json"),
    ] {
        let name = Path::new(path)
            .file_name()
            .map_or("", |name| name.to_str().unwrap_or(""));
        let spec = with_profile(name, ProfileType::Localhost, path);
        let status = node.cri.create(&pod, spec).await.expect_err(path);
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(expected), "{status:?}");
    }
    node.finish().await
}

/// Names that no kernel has mean nothing, as in the peers: profiles name calls of kernels to come.
#[tokio::test]
async fn unknown_calls_mean_nothing() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let names: Vec<String> = (0..1000)
        .map(|number| format!("call_of_the_future_{number}"))
        .collect();
    let text = profile(
        json!([{ "names": names, "action": "SCMP_ACT_ERRNO" }, { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]),
    );
    let id = with_file(&node, &pod, "future", &text).await??;
    assert_ne!(node.cri.exec(&id, &["mkdir", "/x"], 5).await?.exit_code, 0);
    node.finish().await
}

/// Whether the kernel has AppArmor or not; what it keeps containers from is in `apparmor.rs`.
#[tokio::test]
async fn a_named_apparmor_profile_needs_apparmor() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let asking = |name: &str, profile_type: ProfileType, of: &str| {
        let profile = SecurityProfile {
            profile_type: profile_type.into(),
            localhost_ref: of.to_owned(),
        };
        ContainerSpec::new(name).with_security(|security| security.apparmor = Some(profile))
    };
    let status = node
        .cri
        .create(
            &pod,
            asking("named", ProfileType::Localhost, "no-such-profile"),
        )
        .await
        .expect_err("there is none");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("no-such-profile"), "{status:?}");
    let named = asking("wrong", ProfileType::RuntimeDefault, "name");
    assert!(node.cri.create(&pod, named).await.is_err());
    #[expect(deprecated, reason = "older kubelets send the profile in this field")]
    let old = ContainerSpec::new("old").with_security(|security| {
        security.apparmor_profile = "localhost/no-such-profile".to_owned()
    });
    assert!(node.cri.create(&pod, old).await.is_err());
    node.cri
        .run(&pod, asking("free", ProfileType::Unconfined, ""))
        .await?;
    node.finish().await
}

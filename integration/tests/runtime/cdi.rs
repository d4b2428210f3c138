//! Devices: of the Container Device Interface, and plain ones.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::Result;
use podwright_cri_api::v1::{CdiDevice, ContainerState, Device};
use podwright_integration::{
    node::{Node, deadline, until},
    pod::{ContainerSpec, PodSpec},
};
use tonic::Code;

/// A node whose specification files are in a directory of its slot.
async fn node() -> Result<(Node, PathBuf)> {
    let mut node = Node::start().await?;
    let directory = node.daemon.slot().path("cdi");
    fs::create_dir_all(&directory)?;
    node.daemon.terminate().await?;
    let low = node.daemon.slot().path("cdi-low");
    node.daemon
        .configure(&format!("[cdi]\nspec_dirs = [{low:?}, {directory:?}]\n"))?;
    node.daemon.restart().await?;
    Ok((node, directory))
}

fn with_devices(name: &str, devices: &[&str]) -> ContainerSpec {
    let mut spec = ContainerSpec::new(name);
    let devices = devices.iter();
    spec.config.cdi_devices = devices
        .map(|name| CdiDevice {
            name: (*name).to_owned(),
        })
        .collect();
    spec
}

/// A program of the host that a hook runs.
fn script(directory: &std::path::Path, name: &str, text: &str) -> Result<String> {
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

#[tokio::test]
async fn a_device_brings_all_that_its_file_says() -> Result<()> {
    let (mut node, directory) = node().await?;
    let host = directory.join("library");
    fs::create_dir_all(&host)?;
    fs::write(host.join("lib.so"), "library")?;
    let json = format!(
        r#"{{"cdiVersion":"1.0.0","kind":"vendor.com/gpu",
            "containerEdits":{{"env":["GPUS=some"],"additionalGids":[4242],
              "mounts":[{{"hostPath":{host:?},"containerPath":"/opt/gpu","options":["ro","nosuid"]}}]}},
            "devices":[{{"name":"0","containerEdits":{{"deviceNodes":[
              {{"path":"/dev/gpu0","hostPath":"/dev/zero","permissions":"rw","fileMode":432,"uid":7}}]}}}}]}}"#
    );
    fs::write(directory.join("gpu.json"), json)?;
    let yaml = "cdiVersion: 0.6.0\nkind: vendor.com/net\ndevices:\n- name: eth\n  containerEdits:\n    env: [\"NET=eth\"]\n";
    fs::write(directory.join("net.yaml"), yaml)?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let mut spec = with_devices("c", &["vendor.com/gpu=0"]);
    spec.config.annotations.insert(
        "cdi.k8s.io/plugin_1".to_owned(),
        "vendor.com/net=eth,vendor.com/gpu=0".to_owned(),
    );
    let id = node.cri.run(&pod, spec).await?;
    let script = "echo $GPUS $NET; cat /opt/gpu/lib.so; echo; stat -c '%a %u %t:%T' /dev/gpu0; \
                  head -c 3 /dev/gpu0 | od -An -tx1; touch /opt/gpu/x 2>&1; id -G";
    let seen = node.cri.shell(&id, &format!("{script}; true")).await?;
    let seen: Vec<&str> = seen.lines().map(str::trim).collect();
    let expected = ["some eth", "library", "660 7 1:5", "00 00 00"];
    assert_eq!(seen[..4], expected, "{seen:?}");
    assert!(seen[4].contains("Read-only"), "{seen:?}");
    assert!(seen[5].split(' ').any(|group| group == "4242"), "{seen:?}");

    // What was resolved is the container's for life, whatever becomes of the files.
    fs::remove_file(directory.join("gpu.json"))?;
    node.daemon.kill9().await?;
    node.daemon.restart().await?;
    assert_eq!(node.cri.shell(&id, "echo $GPUS").await?, "some\n");
    node.finish().await
}

#[tokio::test]
async fn a_device_that_is_none_is_refused_with_what_was_read() -> Result<()> {
    let (node, directory) = node().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    fs::write(directory.join("broken.json"), "{\"cdiVersion\": ")?;
    fs::write(
        directory.join("old.json"),
        r#"{"cdiVersion":"9.0.0","kind":"v/c","devices":[]}"#,
    )?;
    let good = r#"{"cdiVersion":"1.0.0","kind":"v/c","devices":[{"name":"x","containerEdits":{"deviceNodes":[{"path":"/dev/absent-device"}]}}]}"#;
    fs::write(directory.join("good.json"), good)?;
    let wanted = with_devices("c", &["v/c=y"]);
    let refused = node.cri.create(&pod, wanted).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for part in [
        "v/c=y",
        "broken.json cannot be used",
        "cdiVersion '9.0.0'",
        "good.json has v/c=x",
    ] {
        assert!(refused.message().contains(part), "{refused}");
    }
    let refused = node
        .cri
        .create(&pod, with_devices("c", &["v/c=x"]))
        .await
        .unwrap_err();
    assert!(
        refused.message().contains("/dev/absent-device"),
        "{refused}"
    );
    let refused = node
        .cri
        .create(&pod, with_devices("c", &["gpu"]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    // A file that changes in place is read again.
    fs::write(
        directory.join("good.json"),
        good.replace("absent-device", "null"),
    )?;
    node.cri.create(&pod, with_devices("c", &["v/c=x"])).await?;
    node.finish().await
}

#[tokio::test]
async fn hooks_run_in_the_containers_namespaces() -> Result<()> {
    let (node, directory) = node().await?;
    let state = directory.join("state.json");
    // As vendors' hooks do: the root is where the bundle's config says.
    let program = script(
        &directory,
        "create",
        &format!(
            "state=$(cat); echo \"$state\" > {state:?}\n\
             bundle=$(echo \"$state\" | sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/')\n\
             root=$(sed 's/.*\"root\":{{[^}}]*\"path\":\"\\([^\"]*\\)\".*/\\1/' $bundle/config.json)\n\
             echo \"$1 $WORD\" > $root/etc/from-hook"
        ),
    )?;
    let json = format!(
        r#"{{"cdiVersion":"1.0.0","kind":"v/hook","devices":[{{"name":"x","containerEdits":{{"hooks":[
            {{"hookName":"createContainer","path":{program:?},"args":["create","argument"],"env":["WORD=word","PATH=/usr/bin:/bin"]}},
            {{"hookName":"startContainer","path":"/bin/sh","args":["sh","-c","cp /etc/from-hook /etc/started"]}}]}}}}]}}"#
    );
    fs::write(directory.join("hook.json"), json)?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node.cri.run(&pod, with_devices("c", &["v/hook=x"])).await?;
    assert_eq!(
        node.cri.shell(&id, "cat /etc/started").await?,
        "argument word\n"
    );
    let state = fs::read_to_string(&state)?;
    for part in [id.as_str(), "creating", "ociVersion"] {
        assert!(state.contains(part), "{state}");
    }
    // An exec is no start.
    node.cri.shell(&id, "rm /etc/started").await?;
    node.cri
        .exec(&id, &["test", "!", "-e", "/etc/started"], 20)
        .await?;
    node.finish().await
}

/// A start that is not answered has not happened, and can be asked for again.
#[tokio::test]
async fn a_start_whose_daemon_is_killed_in_a_hook_is_none() -> Result<()> {
    let (mut node, directory) = node().await?;
    let volume = directory.join("volume");
    fs::create_dir_all(&volume)?;
    let script =
        "echo once >> /etc/started; [ -e /volume/began ] || { touch /volume/began; sleep 1000; }";
    let json = format!(
        r#"{{"cdiVersion":"1.0.0","kind":"v/hook","devices":[{{"name":"x","containerEdits":{{
            "mounts":[{{"hostPath":{volume:?},"containerPath":"/volume","options":["bind","rw"]}}],
            "hooks":[{{"hookName":"startContainer","path":"/bin/sh","args":["sh","-c",{script:?}],"env":["PATH=/bin"]}}]}}}}]}}"#
    );
    fs::write(directory.join("hook.json"), json)?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let spec = with_devices("c", &["v/hook=x"]);
    let id = node.cri.create(&pod, spec).await?;
    let (cri, container) = (node.cri.clone(), id.clone());
    let start = tokio::spawn(async move { cri.start_container(&container).await });
    until("the hook to run", || async {
        let began = volume.join("began").exists();
        began.then_some(()).ok_or("it has not begun".to_owned())
    })
    .await?;
    node.daemon.kill9().await?;
    assert!(start.await?.is_err());
    node.daemon.restart().await?;
    let state = node.cri.status(&id).await?.state();
    assert_eq!(state, ContainerState::ContainerCreated);
    node.cri.start_container(&id).await?;
    let seen = node.cri.shell(&id, "cat /etc/started; echo x > /x").await?;
    assert_eq!(seen, "once\nonce\n");
    node.finish().await
}

#[tokio::test]
async fn a_hook_that_fails_fails_the_start_in_its_own_words() -> Result<()> {
    let (node, directory) = node().await?;
    let failing = script(
        &directory,
        "failing",
        "echo some output; echo no driver >&2; exit 3",
    )?;
    let endless = script(&directory, "endless", "sleep 1000 & sleep 1000")?;
    let device = |name: &str, hook: &str, path: &str, timeout: u64| {
        format!(
            r#"{{"name":"{name}","containerEdits":{{"hooks":[{{"hookName":"{hook}","path":{path:?},"timeout":{timeout}}}]}}}}"#
        )
    };
    let enough = deadline().as_secs();
    let devices = [
        device("failing", "createContainer", &failing, enough),
        device("endless", "createContainer", &endless, 1),
        device("absent", "startContainer", "/absent-hook", enough),
        device("late", "poststop", &failing, enough),
    ];
    let json = format!(
        r#"{{"cdiVersion":"1.0.0","kind":"v/hook","devices":[{}]}}"#,
        devices.join(",")
    );
    fs::write(directory.join("hook.json"), json)?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    for (name, words) in [
        ("failing", ["ended with 3", "no driver"]),
        ("endless", ["did not end within 1 s", "endless"]),
        ("absent", ["/absent-hook", "No such file"]),
    ] {
        let id = node
            .cri
            .create(&pod, with_devices(name, &[&format!("v/hook={name}")]))
            .await?;
        let refused = node.cri.start_container(&id).await.unwrap_err();
        let status = node.cri.status(&id).await?;
        assert_eq!(status.state(), ContainerState::ContainerExited);
        assert_eq!(
            (status.exit_code, status.reason.as_str()),
            (128, "StartError")
        );
        for word in words {
            assert!(refused.message().contains(word), "{refused}");
            assert!(status.message.contains(word), "{}", status.message);
        }
    }
    let refused = node
        .cri
        .create(&pod, with_devices("late", &["v/hook=late"]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("poststop hook"), "{refused}");
    node.finish().await
}

fn plain(host_path: &str, container_path: &str, permissions: &str) -> ContainerSpec {
    let mut spec = ContainerSpec::new("c");
    spec.config.devices.push(Device {
        container_path: container_path.to_owned(),
        host_path: host_path.to_owned(),
        permissions: permissions.to_owned(),
    });
    spec
}

#[tokio::test]
async fn plain_devices_are_single_ones_or_a_directorys() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node
        .cri
        .run(&pod, plain("/dev/zero", "/dev/deep/mine", "r"))
        .await?;
    let bytes = node
        .cri
        .shell(&id, "head -c 2 /dev/deep/mine | od -An -tx1")
        .await?;
    assert_eq!(bytes.trim(), "00 00");
    node.cri.remove(&id).await?;

    // A directory of devices, with one that is none.
    let directory = node.daemon.slot().path("devices");
    fs::create_dir_all(directory.join("sub"))?;
    let [one, two] = ["one", "sub/two"].map(|name| directory.join(name));
    for (path, minor) in [(&one, 3), (&two, 5)] {
        let device = nix::sys::stat::makedev(1, minor);
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
        nix::sys::stat::mknod(path, nix::sys::stat::SFlag::S_IFCHR, mode, device)?;
    }
    fs::write(directory.join("note"), "none")?;
    let path = directory.display().to_string();
    let id = node.cri.run(&pod, plain(&path, "/dev/many", "rwm")).await?;
    let seen = node
        .cri
        .shell(&id, "cd /dev/many; stat -c '%n %t:%T' one sub/two; ls")
        .await?;
    assert_eq!(seen, "one 1:3\nsub/two 1:5\none\nsub\n");
    node.cri.remove(&id).await?;

    for (host, container, permissions, word) in [
        ("/dev/absent", "/dev/x", "r", "/dev/absent"),
        ("/etc/passwd", "/dev/x", "r", "no device"),
        ("/dev/null", "/dev/../x", "r", "'..'"),
        ("/dev/null", "/dev/x", "rx", "permissions"),
    ] {
        let refused = node
            .cri
            .create(&pod, plain(host, container, permissions))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(word), "{refused}");
    }
    node.finish().await
}

//! AppArmor: which profile containers are bound by, and what that keeps them from.
//!
//! These tests need a kernel with AppArmor and fail without one; `cargo xtask vm -- runtime apparmor::` has it.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use podwright_cri_api::v1::{
    LinuxContainerSecurityContext, SecurityProfile, StatusRequest, security_profile::ProfileType,
};
use podwright_integration::{
    node::Node,
    pod::{ContainerSpec, PodSpec},
};
use tonic::Code;

const LABEL: &str = "cat /proc/self/attr/current";
const DEFAULT: &str = "podwright-default-";
/// Allows everything, except to write one file.
const GUARDED: &str = "file, network, capability, mount, umount, signal, ptrace, deny /guarded w,";
/// Allows everything, as an operator may confine the daemon.
const DAEMON: &str = "file, network, unix, capability, mount, umount, pivot_root, signal, ptrace, dbus, change_profile -> **,";

fn require_apparmor() -> Result<()> {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    ensure!(
        enabled.is_ok_and(|text| text.starts_with('Y')),
        "this kernel has no AppArmor: run `cargo xtask vm -- runtime apparmor::`"
    );
    Ok(())
}

/// A profile of the test's own, or one that a daemon has loaded, removed from the kernel in the end.
#[derive(Debug)]
struct Profile(String);

impl Profile {
    fn load(name: &str, rules: &str) -> Result<Self> {
        let text = format!("profile {name} flags=(attach_disconnected) {{ {rules} }}\n");
        parse("--replace", &text)?;
        Ok(Self(name.to_owned()))
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        if let Err(error) = parse("--remove", &format!("profile {} {{ }}\n", self.0)) {
            eprintln!("removing the profile {}: {error:#}", self.0);
        }
    }
}

fn parse(action: &str, text: &str) -> Result<()> {
    let mut parser = Command::new("apparmor_parser")
        .args([action, "--skip-cache", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .context("starting apparmor_parser")?;
    let stdin = parser.stdin.take().context("stdin is piped")?;
    (&stdin).write_all(text.as_bytes())?;
    drop(stdin);
    ensure!(parser.wait()?.success(), "apparmor_parser {action} fails");
    Ok(())
}

fn is_loaded(name: &str) -> Result<bool> {
    let list = fs::read_to_string("/sys/kernel/security/apparmor/profiles")?;
    Ok(list.lines().any(|line| line == format!("{name} (enforce)")))
}

fn asks(profile_type: ProfileType, name: &str) -> impl FnOnce(&mut LinuxContainerSecurityContext) {
    let profile = SecurityProfile {
        profile_type: profile_type.into(),
        localhost_ref: name.to_owned(),
    };
    |security| security.apparmor = Some(profile)
}

/// The name in what LABEL prints.
fn name(label: &str) -> &str {
    label.trim_end().trim_end_matches(" (enforce)")
}

/// What each of these shell scripts does to the whole machine is denied to a container with the default profile; one without
/// a profile may do it, so it is the profile that denies it. Both have the capabilities, and nothing is masked.
#[tokio::test]
async fn the_default_profile_keeps_the_machine_from_containers() -> Result<()> {
    require_apparmor()?;
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let spec = |name: &str| ContainerSpec::new(name).capabilities(&["SYS_ADMIN"]);
    let unset = node.cri.run(&pod, spec("unset")).await?;
    let default = spec("default").with_security(asks(ProfileType::RuntimeDefault, ""));
    let default = node.cri.run(&pod, default).await?;
    let free = spec("free").with_security(asks(ProfileType::Unconfined, ""));
    let free = node.cri.run(&pod, free).await?;

    let label = node.cri.shell(&default, LABEL).await?;
    assert!(
        label.starts_with(DEFAULT) && label.ends_with(" (enforce)\n"),
        "{label}"
    );
    assert_eq!(node.cri.shell(&unset, LABEL).await?, label);
    assert_eq!(
        node.cri.shell(&default, "cat /proc/1/attr/current").await?,
        label
    );
    assert_eq!(node.cri.shell(&free, LABEL).await?, "unconfined\n");
    let request = StatusRequest { verbose: true };
    let status = node
        .cri
        .client()
        .runtime
        .status(request)
        .await?
        .into_inner();
    let conditions = status.status.unwrap_or_default().conditions;
    assert!(
        conditions.iter().all(|condition| condition.status),
        "{conditions:?}"
    );
    let told = format!("\"appArmorProfile\":\"{}\"", name(&label));
    assert!(
        status.info["config"].contains(&told),
        "{}",
        status.info["config"]
    );

    for script in [
        // A key that it has no command for: it prints its help to the kernel's log.
        "echo '?' > /proc/sysrq-trigger",
        "echo 3 > /proc/sys/vm/drop_caches",
        "cp /proc/sys/kernel/core_pattern /tmp/p && cat /tmp/p > /proc/sys/kernel/core_pattern",
        "mkdir -p /m && mount -t tmpfs none /m && umount /m",
        "mkdir -p /b && mount -o bind /tmp /b && umount /b",
        "cat /sys/firmware/memmap/0/type",
    ] {
        let done = node.cri.exec(&free, &["sh", "-c", script], 20).await?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.exit_code, 0, "{script} without a profile: {said}");
        let done = node.cri.exec(&default, &["sh", "-c", script], 20).await?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_ne!(done.exit_code, 0, "{script} was possible");
        assert!(
            said.to_lowercase().contains("permission denied"),
            "{script}: {said}"
        );
    }
    node.finish().await
}

/// Signals and ptrace go on among a pod's processes, and the runtime's signals reach them.
#[tokio::test]
async fn processes_of_a_pod_reach_each_other_and_the_runtime_reaches_them() -> Result<()> {
    require_apparmor()?;
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod").shared_pid()).await?;
    let shared = |name: &str| {
        let mut spec = ContainerSpec::new(name).capabilities(&["SYS_PTRACE"]);
        spec.config.command = vec!["sleep".to_owned(), "4321".to_owned()];
        spec.with_security(|security| security.namespace_options = None)
    };
    let one = node.cri.run(&pod, shared("one")).await?;
    let term = shared("term").shell("trap 'exit 7' TERM; while :; do sleep 0.1; done");
    let term = node.cri.run(&pod, term).await?;
    // To read another process's environment is ptrace(2)'s business.
    let look = "for p in /proc/[0-9]*; do grep -q 4321 $p/cmdline && tr '\\0' '\\n' < $p/environ | grep ^PATH= && exit 0; done; exit 1";
    node.cri.shell(&term, look).await?;
    node.cri
        .shell(&one, "sleep 100 & kill -9 $!; wait $!; test $? = 137")
        .await?;
    node.cri.stop(&term, 60).await?;
    assert_eq!(
        node.cri.status(&term).await?.exit_code,
        7,
        "its SIGTERM came"
    );
    let kill = shared("kill").shell("for p in /proc/[0-9]*; do grep -q '^sleep.4321' $p/cmdline && kill -9 ${p#/proc/}; done; sleep 1000");
    node.cri.run(&pod, kill).await?;
    assert_eq!(node.cri.wait_exit(&one).await?.exit_code, 137);
    node.finish().await
}

#[tokio::test]
async fn profiles_are_had_by_field_old_field_and_annotation() -> Result<()> {
    require_apparmor()?;
    let node = Node::start().await?;
    let guarded = format!("pwt-guarded-{}", std::process::id());
    let _profile = Profile::load(&guarded, GUARDED)?;
    let mut spec = PodSpec::new("pod");
    spec.config.annotations.insert(
        "container.apparmor.security.beta.kubernetes.io/annotated".to_owned(),
        format!("localhost/{guarded}"),
    );
    spec.linux()
        .security_context
        .get_or_insert_default()
        .privileged = true;
    let pod = node.cri.run_pod(spec).await?;
    let spec = |name: &str| ContainerSpec::new(name);
    let field = spec("field").with_security(asks(ProfileType::Localhost, &guarded));
    let field = node.cri.run(&pod, field).await?;
    #[expect(deprecated, reason = "older kubelets send the profile in this field")]
    let old = spec("old").with_security(|security| {
        security.apparmor_profile = format!("localhost/{guarded}");
    });
    let old = node.cri.run(&pod, old).await?;
    let annotated = node.cri.run(&pod, spec("annotated")).await?;
    for id in [&field, &old, &annotated] {
        let label = node.cri.shell(id, LABEL).await?;
        assert_eq!(name(&label), guarded);
    }
    node.cri.shell(&field, "echo > /open").await?;
    let done = node
        .cri
        .exec(&field, &["sh", "-c", "echo > /guarded"], 20)
        .await?;
    assert_ne!(done.exit_code, 0, "the profile's rule does not hold");

    for (name, ask) in [
        ("privileged", ProfileType::RuntimeDefault),
        ("named", ProfileType::Localhost),
    ] {
        let wanted = if ask == ProfileType::Localhost {
            guarded.as_str()
        } else {
            ""
        };
        let spec = spec(name)
            .with_security(asks(ask, wanted))
            .with_security(|security| security.privileged = true);
        let id = node.cri.run(&pod, spec).await?;
        let label = node.cri.shell(&id, LABEL).await?;
        let expected = if wanted.is_empty() {
            "unconfined"
        } else {
            wanted
        };
        assert_eq!(self::name(&label), expected, "{name}");
    }

    let absent = spec("absent").with_security(asks(ProfileType::Localhost, "no-such-profile"));
    let status = node
        .cri
        .create(&pod, absent)
        .await
        .expect_err("it was created");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status
            .message()
            .contains("\"no-such-profile\" is not loaded"),
        "{status}"
    );
    node.finish().await
}

/// A daemon with another text for the default profile loads that beside the first one, under which what runs goes on, and puts
/// it back when somebody removes it. This one is also confined itself, and so are the pauses that it starts.
#[tokio::test]
async fn the_default_profile_is_kept_current() -> Result<()> {
    require_apparmor()?;
    let mut node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let trap = |name: &str| {
        ContainerSpec::new(name).shell("trap 'exit 7' TERM; while :; do sleep 0.1; done")
    };
    let before = node.cri.run(&pod, trap("before")).await?;
    let first = node.cri.shell(&before, LABEL).await?;

    let confined = format!("pwt-daemon-{}", std::process::id());
    let confined = Profile::load(&confined, DAEMON)?;
    node.daemon.terminate().await?;
    // It does not see which features the parser knows, and leaves the line out that names them.
    let blind = "mount -t tmpfs none /etc/apparmor.d/abi && exec \"$@\"";
    let wrapper = [
        "aa-exec",
        "-p",
        &confined.0,
        "--",
        "unshare",
        "-m",
        "sh",
        "-c",
        blind,
        "sh",
    ];
    node.daemon.restart_under(&wrapper).await?;
    let pid = node.daemon.pid().context("the daemon runs")?;
    let current = fs::read_to_string(
        Path::new("/proc")
            .join(pid.to_string())
            .join("attr/current"),
    )?;
    assert_eq!(name(&current), confined.0);

    let second = node.cri.run(&pod, trap("second")).await?;
    let current = node.cri.shell(&second, LABEL).await?;
    assert!(current.starts_with(DEFAULT), "{current}");
    assert_ne!(current, first, "the text is another");
    let current = Profile(name(&current).to_owned());
    assert!(is_loaded(name(&first))? && is_loaded(&current.0)?);
    assert_eq!(
        node.cri.shell(&before, LABEL).await?,
        first,
        "an exec is bound as its container"
    );

    // A pod whose pause is confined as the daemon is.
    let other = node.cri.run_pod(PodSpec::new("other")).await?;
    drop(Profile(current.0.clone()));
    assert!(!is_loaded(&current.0)?);
    let third = node.cri.run(&other, trap("third")).await?;
    assert_eq!(name(&node.cri.shell(&third, LABEL).await?), current.0);
    for id in [&before, &second, &third] {
        node.cri.stop(id, 60).await?;
        assert_eq!(node.cri.status(id).await?.exit_code, 7, "its SIGTERM came");
    }
    node.finish().await
}

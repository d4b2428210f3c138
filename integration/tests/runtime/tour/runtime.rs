//! The runtime itself, and crictl's own settings.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};
use podwright_cri_api::v1::{RuntimeConfigRequest, StatusRequest, VersionRequest};
use serde_json::Value;

use super::crictl::{Crictl, finished, succeeded};

pub(super) const COMMANDS: &[&str] = &[
    "version",
    "info",
    "runtime-config",
    "update-runtime-config",
    "config",
    "completion",
    "help",
];

#[tokio::test]
async fn the_runtime() -> Result<()> {
    let crictl = Crictl::start(COMMANDS).await?;
    version(&crictl).await?;
    info(&crictl).await?;
    runtime_config(&crictl).await?;
    settings(&crictl).await?;
    completion_and_help(&crictl).await?;
    crictl.finish().await
}

async fn version(crictl: &Crictl) -> Result<()> {
    let mut runtime = crictl.node.cri.client().runtime;
    let answer = runtime.version(VersionRequest::default());
    let answer = answer.await?.into_inner();
    let lines = crictl.lines(&["version"]).await?;
    let pairs = lines.iter().filter_map(|line| line.split_once(':'));
    let shown: BTreeMap<_, _> = pairs.map(|(name, value)| (name, value.trim())).collect();
    let expected = BTreeMap::from([
        ("Version", answer.version.as_str()),
        ("RuntimeName", "podwright"),
        ("RuntimeVersion", answer.runtime_version.as_str()),
        ("RuntimeApiVersion", "v1"),
    ]);
    assert_eq!(shown, expected);
    Ok(())
}

async fn info(crictl: &Crictl) -> Result<()> {
    let mut runtime = crictl.node.cri.client().runtime;
    let answer = runtime.status(StatusRequest { verbose: true });
    let answer = answer.await?.into_inner();
    let status = answer.status.context("no status")?;

    let shown = crictl.json(&["info"]).await?;
    let conditions = shown["status"]["conditions"].as_array();
    let conditions: Vec<_> = conditions
        .into_iter()
        .flatten()
        .map(|condition| (condition["type"].as_str(), condition["status"].as_bool()))
        .collect();
    let expected = status.conditions.iter();
    let expected: Vec<_> = expected
        .map(|condition| (Some(condition.r#type.as_str()), Some(condition.status)))
        .collect();
    assert_eq!(conditions, expected);
    assert!(conditions.contains(&(Some("RuntimeReady"), Some(true))));
    assert!(conditions.contains(&(Some("NetworkReady"), Some(true))));

    // Go leaves out what is false or empty.
    let handlers = shown["runtimeHandlers"].as_array();
    let handlers: Vec<_> = handlers.into_iter().flatten().collect();
    assert_eq!(handlers.len(), answer.runtime_handlers.len());
    for (shown, handler) in handlers.iter().zip(&answer.runtime_handlers) {
        assert_eq!(shown["name"].as_str().unwrap_or_default(), handler.name);
        let features = handler.features.unwrap_or_default();
        for (name, has) in [
            (
                "recursive_read_only_mounts",
                features.recursive_read_only_mounts,
            ),
            ("user_namespaces", features.user_namespaces),
        ] {
            let shown = shown["features"][name].as_bool().unwrap_or_default();
            assert_eq!(shown, has, "{name}");
        }
    }
    for key in answer.info.keys() {
        assert!(!shown[key].is_null(), "no {key} in {shown}");
    }

    let quiet = crictl.json(&["info", "-q"]).await?;
    for key in answer.info.keys() {
        assert!(quiet[key].is_null(), "{key} in {quiet}");
    }
    let yaml = crictl.run(&["info", "-o", "yaml"]).await?;
    assert!(yaml.contains("type: RuntimeReady"), "{yaml}");
    let template = "{{range .status.conditions}}{{.type}}={{.status}};{{end}}";
    let text = crictl
        .run(&["info", "-o", "go-template", "--template", template])
        .await?;
    assert_eq!(text, "RuntimeReady=true;NetworkReady=true;");
    Ok(())
}

async fn runtime_config(crictl: &Crictl) -> Result<()> {
    let mut runtime = crictl.node.cri.client().runtime;
    let answer = runtime.runtime_config(RuntimeConfigRequest::default());
    let linux = answer.await?.into_inner().linux.context("no Linux")?;
    let shown = crictl.run(&["runtime-config"]).await?;
    let words: Vec<_> = shown.split_whitespace().collect();
    assert_eq!(
        words,
        ["cgroup", "driver:", linux.cgroup_driver().as_str_name()]
    );

    // The cluster's ranges; none is what a kubelet sends that was given none.
    let both = crictl.node.daemon.slot().subnets();
    for (ranges, expected) in [
        (both[0].clone(), &both[..1]),
        (String::new(), &both[..1]),
        (both.join(","), &both[..]),
    ] {
        let update = ["update-runtime-config", "--pod-cidr", &ranges];
        crictl.run(&update).await?;
        let shown = crictl.json(&["info"]).await?;
        let expected = expected.iter().map(|range| canonical(range));
        let expected = expected.collect::<Option<Vec<_>>>();
        assert_eq!(shown["config"]["subnets"], Value::from(expected));
    }
    let refused = crictl.refused(&["update-runtime-config", "--pod-cidr", "ten"]);
    let refused = refused.await?;
    assert!(refused.contains("InvalidArgument"), "{refused}");
    assert!(refused.contains("ten"), "{refused}");
    Ok(())
}

/// A range as the runtime writes it: a group of zeros is left out.
fn canonical(range: &str) -> Option<String> {
    let (address, prefix) = range.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    Some(format!("{address}/{prefix}"))
}

/// crictl's configuration file, with which it then finds the daemon.
async fn settings(crictl: &Crictl) -> Result<()> {
    let path = crictl.path("crictl.yaml");
    fs::write(&path, "")?;
    let with_file = |arguments: &[&str]| {
        let mut command = crictl.bare();
        command.args(["--config", &path]).args(arguments);
        command
    };
    // Noted as used; the file that it writes is the one below.
    let _ = crictl.command(&["config"]);
    let endpoint = format!("unix://{}", crictl.node.daemon.socket().display());
    let set = format!("runtime-endpoint={endpoint},timeout=7");
    for arguments in [
        &["config", "--set", &set][..],
        &["config", "pull-image-on-create", "true"],
    ] {
        let output = finished(with_file(arguments)).await?;
        succeeded(&arguments.join(" "), &output)?;
    }
    for (key, value) in [
        ("runtime-endpoint", endpoint.as_str()),
        ("timeout", "7"),
        ("pull-image-on-create", "true"),
        ("debug", "false"),
    ] {
        let output = finished(with_file(&["config", "--get", key])).await?;
        assert_eq!(succeeded(key, &output)?, value, "{key}");
    }
    let list = finished(with_file(&["config", "--list"])).await?;
    assert!(succeeded("config --list", &list)?.contains(&endpoint));
    let version = finished(with_file(&["version"])).await?;
    assert!(succeeded("version", &version)?.contains("podwright"));
    Ok(())
}

async fn completion_and_help(crictl: &Crictl) -> Result<()> {
    for shell in ["bash", "zsh", "fish"] {
        let code = crictl.run(&["completion", shell]).await?;
        for commands in super::CHAPTERS {
            for command in commands.iter().filter(|command| **command != "help") {
                assert!(code.contains(command), "{shell}: no {command}");
            }
        }
    }
    crictl.refused(&["completion", "tcsh"]).await?;
    let help = crictl.run(&["help", "exec"]).await?;
    assert!(help.contains("--transport"), "{help}");
    Ok(())
}

/// What crictl prints of a value that the CRI has as a 64-bit number: JSON text.
pub(super) fn number(value: &Value) -> Option<i64> {
    value.as_str()?.parse().ok()
}

//! `podwright doctor`: what it says of this machine, and that it leaves it as it was.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use podwright_cri_api::v1::StatusRequest;
use podwright_integration::node::{Build, Node};
use serde_json::Value;

/// No line is longer: what terminals show.
const WIDTH: usize = 100;

fn doctor(arguments: &[&str], configuration: &Path) -> Result<Output> {
    let output = Command::new(Build::Tested.program()?)
        .args(["doctor", "--config"])
        .arg(configuration)
        .args(arguments)
        .output()?;
    Ok(output)
}

fn findings(output: &Output) -> Result<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}

fn finding<'a>(whole: &'a Value, name: &str) -> Result<&'a Value> {
    let all = whole["findings"].as_array().context("no findings")?;
    all.iter()
        .find(|finding| finding["name"] == name)
        .with_context(|| format!("nothing is said of {name}"))
}

/// A configuration file in a directory of its own, which it also names.
fn configured(more: &str) -> Result<(tempfile::TempDir, std::path::PathBuf)> {
    let scratch = tempfile::tempdir()?;
    let path = scratch.path().join("podwright.toml");
    let below = |name: &str| scratch.path().join(name).display().to_string();
    let text = format!(
        "[paths]\nstate = {:?}\nrun = {:?}\n{more}",
        below("state"),
        below("run")
    );
    fs::write(&path, text)?;
    Ok((scratch, path))
}

fn entries(directory: &Path) -> Result<Vec<String>> {
    let names = fs::read_dir(directory)?.flatten();
    let mut names: Vec<String> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

#[test]
fn it_finds_a_machine_on_which_the_tests_run_fit_and_leaves_it_as_it_was() -> Result<()> {
    let (scratch, path) = configured("")?;
    let mounts = || fs::read_to_string("/proc/self/mountinfo");
    let before = (entries(scratch.path())?, mounts()?);
    let output = doctor(&[], &path)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}: {text}", output.status);
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "{line:?}");
    }
    for part in ["Control groups", "cgroup mounts", "Podwright works here"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert_eq!((entries(scratch.path())?, mounts()?), before);
    let trials = entries(&std::env::temp_dir())?;
    let own = format!(".podwright-doctor-{}", std::process::id());
    assert!(!trials.contains(&own));
    Ok(())
}

/// Both look at the machine with the same code.
#[tokio::test]
async fn it_says_what_the_daemon_says() -> Result<()> {
    let node = Node::start().await?;
    let output = doctor(&["--json"], &node.daemon.slot().path("podwright.toml"))?;
    let whole = findings(&output)?;
    assert_eq!(whole["ready"], true, "{whole:#}");
    let there = |name: &str| -> Result<bool> { Ok(finding(&whole, name)?["verdict"] == "there") };
    let mut client = node.cri.client().runtime;
    let status = client.status(StatusRequest::default()).await?;
    let handlers = status.into_inner().runtime_handlers;
    let features = handlers[0].features.context("no features")?;
    assert_eq!(
        there("user namespaces with idmapped layers")?,
        features.user_namespaces
    );
    assert_eq!(there("mount_setattr")?, features.recursive_read_only_mounts);
    assert!(there("daemon")?, "{whole:#}");
    assert!(there("state directory")?, "{whole:#}");
    for finding in whole["findings"].as_array().context("no findings")? {
        for key in ["area", "name", "need", "tried", "said", "without", "remedy"] {
            let text = finding[key].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{key} is empty: {finding:#}");
        }
    }
    node.finish().await
}

#[test]
fn what_keeps_the_daemon_from_starting_is_an_exit_code() -> Result<()> {
    let (_scratch, path) = configured("[network]\nmtu = 9\n")?;
    let output = doctor(&["--json"], &path)?;
    assert_eq!(output.status.code(), Some(1));
    let whole = findings(&output)?;
    assert_eq!(whole["ready"], false);
    let refused = finding(&whole, "configuration")?;
    assert_eq!(refused["verdict"], "missing");
    let said = refused["said"].as_str().unwrap_or_default();
    assert!(said.contains("podwright.toml:5:"), "{said}");

    let (scratch, path) = configured("")?;
    fs::write(scratch.path().join("state"), "no directory")?;
    let output = doctor(&["--json"], &path)?;
    assert_eq!(output.status.code(), Some(1));
    let whole = findings(&output)?;
    assert_eq!(finding(&whole, "state directory")?["verdict"], "missing");
    assert_eq!(finding(&whole, "daemon")?["verdict"], "missing");
    Ok(())
}

#[test]
fn a_state_directory_that_carries_no_overlay_is_found_out() -> Result<()> {
    let (_scratch, path) = configured("")?;
    // Nobody can make a directory in /proc.
    let text = fs::read_to_string(&path)?;
    let state = text.lines().find(|line| line.starts_with("state"));
    let text = text.replace(state.context("no state")?, "state = \"/proc/podwright\"");
    fs::write(&path, text)?;
    let output = doctor(&["--json"], &path)?;
    assert_eq!(output.status.code(), Some(1));
    let whole = findings(&output)?;
    let overlay = finding(&whole, "overlayfs on the state directory")?;
    assert_ne!(overlay["verdict"], "there", "{overlay:#}");
    Ok(())
}

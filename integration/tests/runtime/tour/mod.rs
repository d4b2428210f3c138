//! A tour of crictl: every command that it has runs against a daemon, and what it prints is compared with what the
//! CRI answers. Each chapter names its commands, and has to use them all; together they are the list of `--help`.

mod containers;
mod crictl;
mod images;
mod numbers;
mod pods;
mod process;
mod runtime;
mod streaming;
mod table;
mod terminal;

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, Result};
use podwright_integration::tools::Tools;

const CHAPTERS: &[&[&str]] = &[
    runtime::COMMANDS,
    images::COMMANDS,
    pods::COMMANDS,
    containers::COMMANDS,
    streaming::COMMANDS,
    numbers::COMMANDS,
];

#[tokio::test]
async fn every_command_is_visited() -> Result<()> {
    let tools = tokio::task::spawn_blocking(Tools::open).await??;
    let mut crictl = Command::new(tools.crictl());
    let help = crictl.args(["--config", "/dev/null", "--help"]).output()?;
    let help = String::from_utf8(help.stdout)?;
    let visited: BTreeSet<&str> = CHAPTERS.iter().copied().flatten().copied().collect();
    assert_eq!(commands(&help).context("no commands in --help")?, visited);
    Ok(())
}

/// The first name of each line of the list.
fn commands(help: &str) -> Option<BTreeSet<&str>> {
    let (_, list) = help.split_once("\nCOMMANDS:\n")?;
    let (list, _) = list.split_once("\n\n")?;
    list.lines()
        .map(|line| line.trim_start().split([',', ' ']).next())
        .collect()
}

//! `podwright doctor`: what this machine has of what Podwright needs and makes use of, and whether this node can work.

mod node;
mod print;

use std::process::ExitCode;

use podwright_runtime::doctor::{self, Finding};

use crate::cli;
use crate::config::{self, Daemon};

/// Looks at everything, prints it, and fails if something is missing without which there are no pods.
pub(crate) fn run(arguments: &cli::Doctor) -> ExitCode {
    let loaded = config::load(arguments.config.as_deref(), config::Settings::default());
    let configuration = node::configuration(arguments.config.as_deref(), &loaded);
    // A configuration that is refused says nothing about the machine: that is looked at with the defaults.
    let config = loaded.unwrap_or_else(|_| Daemon::default()).runtime;
    let mut findings = doctor::examine(&config);
    findings.push(configuration);
    findings.extend(node::examine(&config));
    let printed = match arguments.json {
        true => print::json(&findings),
        false => print::text(&findings),
    };
    if crate::print(&printed) != ExitCode::SUCCESS || findings.iter().any(Finding::is_fatal) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

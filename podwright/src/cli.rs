//! The command line.

use std::path::PathBuf;

use crate::config::Settings;

/// A Kubernetes node in one program
#[derive(Debug, clap::Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Serve the Kubernetes Container Runtime Interface (CRI v1) on a Unix socket, until SIGTERM; pods go on running
    Runtime(Box<Runtime>),
    /// Look at this machine: what it has of what Podwright needs and makes use of, and what to do about the rest
    Doctor(Doctor),
    /// Print or check a configuration file
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the version
    Version,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Runtime {
    /// The configuration file [default: /etc/podwright/podwright.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// The configuration file [default: /etc/podwright/podwright.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print a commented file with every key at its default
    Default,
    /// Check a file: unknown keys and wrong values are reported with their line
    Check {
        /// The configuration file
        file: PathBuf,
    },
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_runtime_is_documented() {
        let documentation = include_str!("../../docs/configuration.md");
        let command = Cli::command();
        let runtime = command.find_subcommand("runtime").unwrap();
        for flag in runtime
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .filter(|&flag| flag != "help")
        {
            assert!(
                documentation.contains(&format!("`--{flag}`")),
                "--{flag} is missing in docs/configuration.md"
            );
        }
    }

    #[test]
    fn flags_take_lists_and_refuse_wrong_values() {
        let parse =
            |flags: &[&str]| Cli::try_parse_from(["podwright", "runtime"].iter().chain(flags));
        assert!(
            parse(&[
                "--subnets",
                "10.1.0.0/16,fd00::/64",
                "--masquerade",
                "false",
                "--mtu",
                "1400"
            ])
            .is_ok()
        );
        assert!(parse(&["--registry-config-dirs", "/a,/b", "--pinned-images", "a,b"]).is_ok());
        for wrong in [
            ["--mtu", "9"],
            ["--bridge", "a b"],
            ["--state-dir", "relative"],
            ["--subnets", "10.1.0.0"],
            ["--frobnicate", "1"],
        ] {
            assert_eq!(parse(&wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}

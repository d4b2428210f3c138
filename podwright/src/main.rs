//! Podwright: a Kubernetes node in one program. This crate is the command line, the configuration file and the
//! wiring; the work is done by the library crates beside it.

mod cli;
mod config;
mod daemon;
mod doctor;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, ConfigCommand};

/// A bad command line or configuration; clap uses the same code.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Runtime(arguments) => runtime(*arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Config {
            command: ConfigCommand::Default,
        } => print(config::DEFAULT_TEXT),
        Command::Config {
            command: ConfigCommand::Check { file },
        } => match config::check(&file) {
            Ok(()) => print(&format!("{} is valid\n", file.display())),
            Err(error) => fail(&error, EXIT_USAGE),
        },
        Command::Version => print(&format!(
            "podwright {} (CRI v1)\n",
            env!("CARGO_PKG_VERSION")
        )),
    }
}

fn runtime(arguments: cli::Runtime) -> ExitCode {
    let config = match config::load(arguments.config.as_deref(), arguments.settings) {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    match daemon::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

/// Prints an error with its causes, on one line.
fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    eprintln!("podwright: {text}");
    ExitCode::from(code)
}

/// Prints to standard output, whose reader may have gone (`podwright config default | head`).
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

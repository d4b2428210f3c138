//! `cargo xtask vm`: a command in a virtual machine with pure cgroup v2, AppArmor and a disk of its own.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, anyhow};

use crate::workspace::{self, Profile};
use crate::{programs, setup};

/// What the machine is like, and what it runs. The rest is the `vm` program's: `cargo xtask vm -- --help` prints it.
#[derive(Debug, clap::Args)]
pub(crate) struct Vm {
    /// Options of the machine, and the command with its arguments: `podwright --version`, or a test program and the names of
    /// tests, such as `runtime cgroup:: --test-threads 1`
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "COMMAND"
    )]
    arguments: Vec<OsString>,
}

impl Vm {
    /// Builds everything, then leaves the rest to the program that knows the machine.
    pub(crate) fn run(self) -> Result<()> {
        setup::run(setup::Need::Everything)?;
        programs::run(&mut workspace::build_all())?;
        let mut vm = Command::new(workspace::program(Profile::Dev, "vm"));
        for (name, path) in test_programs()? {
            vm.arg("--program").arg(format!("{name}={path}"));
        }
        vm.args(self.arguments);
        // In place of this process, so that Ctrl-C and signals reach the one that switches the machine off.
        let error = vm.exec();
        Err(anyhow!(error).context(format!("cannot run {}", programs::line(&vm))))
    }
}

/// The names and paths of the workspace's test programs, which cargo tells and nobody else.
fn test_programs() -> Result<Vec<(String, String)>> {
    let mut cargo = workspace::cargo([
        "test",
        "--locked",
        "--workspace",
        "--test",
        "*",
        "--no-run",
        "--quiet",
        "--message-format=json",
    ]);
    let messages = programs::output(&mut cargo)?;
    Ok(messages.lines().filter_map(test_program).collect())
}

/// The name and path in one of cargo's messages, if it is about a test program. A line is an object; the fields that are
/// read hold no escapes. Programs of the integration tests keep their names; the others get their package's before it, as
/// several have tests of one name.
fn test_program(message: &str) -> Option<(String, String)> {
    let (before, target) = message.split_once(r#""target":{"kind":["test"]"#)?;
    let field = |key: &str| {
        let value = target.split_once(&format!("\"{key}\":\""))?.1;
        Some(value.split_once('"')?.0.to_owned())
    };
    let (name, path) = (field("name")?, field("executable")?);
    let package = before
        .split_once("#podwright-")
        .and_then(|(_, rest)| rest.split_once('@'));
    let name = match package {
        Some((package, _)) if package != "integration" => format!("{package}-{name}"),
        _ => name,
    };
    Some((name, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_in_cargos_messages() {
        let message = |package: &str, kind: &str, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///p#podwright-{package}@0.1.0","target":{{"kind":["{kind}"],"crate_types":["bin"],"name":"runtime","src_path":"/p/tests/main.rs"}},"profile":{{"test":true}},"executable":{executable},"fresh":true}}"#
            )
        };
        let found = Some(("runtime".to_owned(), "/t/deps/runtime-1".to_owned()));
        assert_eq!(
            test_program(&message("integration", "test", "\"/t/deps/runtime-1\"")),
            found
        );
        let of_pause = test_program(&message("pause", "test", "\"/t/deps/runtime-1\""));
        assert_eq!(
            of_pause.map(|(name, _)| name).as_deref(),
            Some("pause-runtime")
        );
        assert_eq!(
            test_program(&message("integration", "bin", "\"/t/deps/runtime-1\"")),
            None
        );
        assert_eq!(test_program(&message("integration", "test", "null")), None);
        assert_eq!(
            test_program(r#"{"reason":"build-finished","success":true}"#),
            None
        );
    }
}

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
        let mut vm = machine(&test_programs()?);
        vm.args(self.arguments);
        // In place of this process, so that Ctrl-C and signals reach the one that switches the machine off.
        let error = vm.exec();
        Err(anyhow!(error).context(format!("cannot run {}", programs::line(&vm))))
    }
}

/// A built test program of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestProgram {
    /// As the machine names it.
    pub(crate) name: String,
    path: String,
}

impl TestProgram {
    pub(crate) fn new(name: &str, path: &str) -> Self {
        Self {
            name: name.to_owned(),
            path: path.to_owned(),
        }
    }

    /// The names of its tests, as it lists them: `name: test` a line.
    pub(crate) fn tests(&self) -> Result<Vec<String>> {
        let listed = programs::output(Command::new(&self.path).args(["--list", "--format=terse"]))?;
        let names = listed
            .lines()
            .filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(str::to_owned).collect())
    }
}

/// The program that runs a machine, with the test programs on its PATH; the command is to be added.
pub(crate) fn machine(test_programs: &[TestProgram]) -> Command {
    let mut vm = Command::new(workspace::program(Profile::Dev, "vm"));
    for TestProgram { name, path } in test_programs {
        vm.arg("--program").arg(format!("{name}={path}"));
    }
    vm
}

/// The workspace's test programs, whose paths cargo tells and nobody else.
pub(crate) fn test_programs() -> Result<Vec<TestProgram>> {
    let mut cargo = workspace::cargo([
        "test",
        "--locked",
        "--workspace",
        "--lib",
        "--bins",
        "--test",
        "*",
        "--no-run",
        "--quiet",
        "--message-format=json",
    ]);
    let messages = programs::output(&mut cargo)?;
    Ok(messages.lines().filter_map(test_program).collect())
}

/// The program in one of cargo's messages, if it is one of tests. A line is an object; the fields that are read hold no
/// escapes. Programs of the integration tests keep their names; the others get their package's before it, as several have
/// tests of one name, and those of unit tests a `unit` behind it: `runtime`, `pause-exec`, `runtime-unit`, `pause-pause-unit`.
fn test_program(message: &str) -> Option<TestProgram> {
    let (before, target) = message.split_once(r#""target":{"kind":[""#)?;
    let (kind, target) = target.split_once(r#""]"#)?;
    let (target, built) = target.split_once(r#""profile":{"#)?;
    let (profile, built) = built.split_once('}')?;
    if !profile.contains(r#""test":true"#) {
        return None;
    }
    let (_, package) = before.split_once("#podwright-")?;
    let (package, _) = package.split_once('@')?;
    let target = field(target, "name")?;
    let name = match kind {
        "test" if package == "integration" => target,
        "test" => format!("{package}-{target}"),
        "lib" => format!("{package}-unit"),
        "bin" => format!("{package}-{target}-unit"),
        _ => return None,
    };
    Some(TestProgram::new(&name, &field(built, "executable")?))
}

/// The value of a text field.
fn field(object: &str, key: &str) -> Option<String> {
    let value = object.split_once(&format!("\"{key}\":\""))?.1;
    Some(value.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_in_cargos_messages() {
        let message = |package: &str, kind: &str, test: &str, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///p#podwright-{package}@0.1.0","target":{{"kind":["{kind}"],"crate_types":["bin"],"name":"runtime","src_path":"/p/tests/main.rs","test":true}},"profile":{{"opt_level":"0","test":{test}}},"executable":{executable},"fresh":true}}"#
            )
        };
        let path = "\"/t/deps/runtime-1\"";
        for (package, kind, expected) in [
            ("integration", "test", Some("runtime")),
            ("pause", "test", Some("pause-runtime")),
            ("pause", "lib", Some("pause-unit")),
            ("pause", "bin", Some("pause-runtime-unit")),
            ("pause", "example", None),
        ] {
            let found = test_program(&message(package, kind, "true", path));
            let expected = expected.map(|name| TestProgram::new(name, "/t/deps/runtime-1"));
            assert_eq!(found, expected, "{package} {kind}");
        }
        for other in [
            message("pause", "bin", "false", path),
            message("pause", "lib", "true", "null"),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ] {
            assert_eq!(test_program(&other), None, "{other}");
        }
    }
}

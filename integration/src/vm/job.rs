//! What a machine does: a command with its environment, disks and shares.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{Disk, Share, kernel::DEFAULT_KERNEL, selinux, share};

const BOOT: &str = include_str!("boot.sh");
const RUN: &str = include_str!("run.sh");
const SYSTEMD: &str = include_str!("systemd.sh");
const UNIT: &str = include_str!("job.service");
const SELINUX: &str = include_str!("selinux.sh");
/// Where the first disk is mounted; /tmp and /var/lib/podwright are on it.
const FIRST_DISK: &str = "/disk";

/// What the machine's first process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Init {
    /// A shell script: the machine is up in no time, and nothing runs beside the job.
    #[default]
    Script,
    /// Debian's systemd with the system bus; the job is a unit.
    Systemd,
}

/// What confines processes beyond their users; a kernel has one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecurityModule {
    /// As on Debian's and Ubuntu's nodes.
    #[default]
    AppArmor,
    /// With Debian's policy, which is enforced for containers. Other processes may do what they like, so that a root without
    /// labels will do.
    Selinux,
}

impl SecurityModule {
    pub(super) const fn kernel_parameters(self) -> &'static str {
        match self {
            Self::AppArmor => "apparmor=1 security=apparmor",
            Self::Selinux => "selinux=1 security=selinux",
        }
    }
}

/// A machine to start and the command that it runs; when that ends, the machine does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The program, looked up in PATH, and its arguments.
    pub command: Vec<String>,
    /// Added to the command's environment.
    pub environment: Vec<(String, String)>,
    /// The first is mounted on /disk and holds /tmp and /var/lib/podwright; the others follow on /disk1,
    /// /disk2 and so on. With none, those directories are in memory and go with the machine.
    pub disks: Vec<Disk>,
    /// Directories of this machine.
    pub shares: Vec<Share>,
    /// The Debian package of the kernel.
    pub kernel: String,
    /// What confines processes.
    pub security: SecurityModule,
    /// Added to the kernel's command line; the last of two that contradict each other counts.
    pub kernel_parameters: Vec<String>,
    /// What the machine's first process is.
    pub init: Init,
    /// The machine's memory.
    pub memory_mib: u32,
}

impl Job {
    /// A job on [`DEFAULT_KERNEL`] that sees nothing of this machine and keeps nothing.
    pub fn new(command: &[&str]) -> Self {
        Self {
            command: command.iter().map(ToString::to_string).collect(),
            environment: Vec::new(),
            disks: Vec::new(),
            shares: Vec::new(),
            kernel: DEFAULT_KERNEL.to_owned(),
            security: SecurityModule::default(),
            kernel_parameters: Vec::new(),
            init: Init::default(),
            memory_mib: 2048,
        }
    }

    /// Fills the directory that the machine sees as /job.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        let points: String = self
            .mount_points()
            .map(|point| format!("{}\n", point.display()))
            .collect();
        let mut files = vec![
            ("boot", BOOT.to_owned()),
            ("run", RUN.to_owned()),
            ("command", self.script()),
            ("disks", points),
            ("shares", share::table(&self.all_shares()?)),
        ];
        if self.security == SecurityModule::Selinux {
            files.push(("selinux.sh", SELINUX.to_owned()));
        }
        if self.init == Init::Systemd {
            files.extend([
                ("systemd.sh", SYSTEMD.to_owned()),
                ("job.service", UNIT.to_owned()),
            ]);
        }
        for (name, content) in files {
            let path = directory.join(name);
            fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    /// The job's own, and what the machine needs.
    ///
    /// # Errors
    /// When the SELinux policy cannot be made.
    pub(super) fn all_shares(&self) -> Result<Vec<Share>> {
        let mut shares = self.shares.clone();
        if self.security == SecurityModule::Selinux {
            shares.push(Share {
                outside: selinux::policy()?,
                ..Share::same_path(Path::new("/etc/selinux"))
            });
        }
        Ok(shares)
    }

    fn mount_points(&self) -> impl Iterator<Item = PathBuf> {
        let point = |index| match index {
            0 => PathBuf::from(FIRST_DISK),
            index => PathBuf::from(format!("{FIRST_DISK}{index}")),
        };
        (0..self.disks.len()).map(point)
    }

    /// A shell script that becomes the command.
    fn script(&self) -> String {
        let mut script = String::from("export HOME=/root\n");
        for (name, value) in &self.environment {
            script.push_str(&format!("export {name}={}\n", quote(value)));
        }
        let words: Vec<_> = self.command.iter().map(|word| quote(word)).collect();
        script + "cd /root\nexec " + &words.join(" ") + "\n"
    }
}

/// A word as the shell reads it back unchanged.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_shell_reads_words_unchanged() {
        let mut job = Job::new(&["printf", "%s|", "it's", "a b", "$HOME", "\"\n\\", ""]);
        job.environment.push(("A".to_owned(), "x'y z".to_owned()));
        job.command.push("end".to_owned());
        let script = job.script().replace("cd /root\n", "echo \"$A\"\n");
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "x'y z\nit's|a b|$HOME|\"\n\\||end|"
        );
    }

    #[test]
    fn disks_are_mounted_in_their_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let disk = Disk::open(file.path()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut job = Job::new(&["true"]);
        job.disks = vec![disk.clone(), disk];
        job.write(directory.path()).unwrap();
        let points = fs::read_to_string(directory.path().join("disks")).unwrap();
        assert_eq!(points, "/disk\n/disk1\n");
    }
}

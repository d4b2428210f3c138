//! What `cargo xtask vm` runs: a command in a virtual machine, against the programs that were built here.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use podwright_integration::{
    cache, images,
    tools::Tools,
    vm::{
        Accelerator, DEFAULT_KERNEL, Disk, FileSystem, Init, Job, Machine, SecurityModule, Share,
    },
};

/// The environment variable that names the program under test.
const BINARY: &str = "PODWRIGHT_BINARY";
/// A disk is a sparse file, so most of this takes no room.
const DISK_SIZE: u64 = 16 << 30;

/// Runs a command in a virtual machine with cgroup v2 and AppArmor
#[derive(Clone, Debug, Parser)]
struct Cli {
    /// A program that the command can name: NAME=PATH; may be repeated
    #[arg(long = "program", value_name = "NAME=PATH")]
    programs: Vec<String>,
    /// An environment variable for the command: NAME=VALUE; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE")]
    environment: Vec<String>,
    /// The directory that the command sees as /out, for files to bring back
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// The disk for /var/lib/podwright and /tmp, made when it is not there, kept for the next machine [default: one
    /// that goes with the machine]
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
    /// The file system of a new disk
    #[arg(long, value_name = "NAME", default_value = "ext4")]
    filesystem: FileSystem,
    /// The Debian package of the kernel; linux-image-6.12-amd64 is a newer one
    #[arg(long, value_name = "PACKAGE", default_value = DEFAULT_KERNEL)]
    kernel: String,
    /// A parameter for the kernel's command line; may be repeated
    #[arg(long = "kernel-parameter", value_name = "NAME=VALUE")]
    kernel_parameters: Vec<String>,
    /// Boot with Debian's systemd as the first process, and run the command in a unit
    #[arg(long)]
    systemd: bool,
    /// With SELinux in place of AppArmor; the policy binds containers alone
    #[arg(long, conflicts_with = "systemd")]
    selinux: bool,
    /// The machine's memory
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u32,
    /// How long the machine may run
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// The command: a program of Podwright's, a test program, or one of the machine's
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match twice(Cli::parse()).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("vm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How a machine ended.
enum End {
    /// The command's exit code.
    Command(u8),
    /// Its kernel locked up.
    LockedUp(anyhow::Error),
}

/// The command's exit code. A machine whose kernel locks up says nothing of what it ran: it is told of, and there is one more.
async fn twice(cli: Cli) -> Result<u8> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "making the machine's root file system takes root: run `sudo -E env PATH=\"$PATH\" cargo xtask vm`"
    );
    match run(cli.clone()).await? {
        End::Command(code) => return Ok(code),
        End::LockedUp(error) => {
            eprintln!("vm: the machine's kernel has locked up; once more: {error:#}");
        }
    }
    match run(cli).await? {
        End::Command(code) => Ok(code),
        End::LockedUp(error) => Err(error.context("the machine's kernel has locked up again")),
    }
}

async fn run(cli: Cli) -> Result<End> {
    let scratch = tempfile::Builder::new().prefix("podwright-vm-").tempdir()?;
    eprintln!(
        "vm: opening the machine, critest and the test images; making them takes minutes, once"
    );
    let limit = Duration::from_secs(cli.timeout);
    let job = job(cli, scratch.path()).await?;
    let accelerator = Accelerator::choose(&job.kernel).await?;
    eprintln!("vm: booting {} by {}", job.kernel, accelerator.name());
    let mut machine = Machine::start_with(&job, accelerator).await?;
    let mut output = std::io::stdout();
    let ended = async {
        machine.up().await?;
        machine.wait(&mut output).await
    };
    match tokio::time::timeout(limit, ended).await {
        Ok(Ok(code)) => Ok(End::Command(code)),
        Ok(Err(error)) if machine.has_locked_up() => Ok(End::LockedUp(error)),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let console = machine.console();
            machine.kill().await?;
            anyhow::bail!(
                "the command did not end in {} s; the console:\n{console}",
                limit.as_secs()
            )
        }
    }
}

async fn job(cli: Cli, scratch: &Path) -> Result<Job> {
    let (disk, file_system) = (cli.disk, cli.filesystem);
    let new = scratch.join("disk");
    let disk = tokio::task::spawn_blocking(move || {
        // The machine cannot write to the cache, so what its tests need has to be there.
        images::Store::open()?;
        Tools::open()?;
        match disk {
            Some(path) if path.exists() => Disk::open(&path),
            path => Disk::create(&path.unwrap_or(new), file_system, DISK_SIZE),
        }
    });
    let own = env::current_exe().context("finding the directory of this program")?;
    let built = own.parent().context("this program has no directory")?;
    let mut shares = vec![
        Share::same_path(built),
        Share::same_path(&cache::directory()),
    ];
    if let Some(output) = &cli.output {
        std::fs::create_dir_all(output)
            .with_context(|| format!("creating {}", output.display()))?;
        let output = std::fs::canonicalize(output)?;
        shares.push(Share::writable(&output, Path::new("/out")));
    }
    let programs = links(&cli.programs, &scratch.join("programs"))?;
    shares.push(Share {
        outside: programs,
        ..Share::same_path(Path::new("/programs"))
    });

    let path = format!(
        "/programs:{}:/usr/sbin:/usr/bin:/sbin:/bin",
        built.display()
    );
    let mut environment = vec![
        ("PATH".to_owned(), path),
        (
            BINARY.to_owned(),
            built.join("podwright").display().to_string(),
        ),
        (
            cache::VARIABLE.to_owned(),
            cache::directory().display().to_string(),
        ),
    ];
    if cli.systemd {
        // What else is a machine with systemd for?
        environment.push(("PODWRIGHT_CGROUP_DRIVER".to_owned(), "systemd".to_owned()));
    }
    for variable in &cli.environment {
        let (name, value) = variable
            .split_once('=')
            .with_context(|| format!("{variable} is not NAME=VALUE"))?;
        environment.push((name.to_owned(), value.to_owned()));
    }
    Ok(Job {
        command: cli.command,
        environment,
        disks: vec![disk.await??],
        shares,
        kernel: cli.kernel,
        security: match cli.selinux {
            true => SecurityModule::Selinux,
            false => SecurityModule::AppArmor,
        },
        kernel_parameters: cli.kernel_parameters,
        init: if cli.systemd {
            Init::Systemd
        } else {
            Init::Script
        },
        memory_mib: cli.memory,
    })
}

/// Makes a directory of links, named as the command names the programs. They lead below directories that are
/// shared at the same path.
fn links(programs: &[String], directory: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(directory)?;
    for program in programs {
        let (name, path) = program
            .split_once('=')
            .with_context(|| format!("{program} is not NAME=PATH"))?;
        let link = directory.join(name);
        std::os::unix::fs::symlink(path, &link)
            .with_context(|| format!("linking {}", link.display()))?;
    }
    Ok(directory.to_owned())
}

//! QEMU's command line; see qemu-system-x86_64(1).

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    Disk, Job,
    accelerator::Accelerator,
    disk::Source,
    share::{self, Access, Share},
};

/// As many as a small node has.
const PROCESSORS: &str = "2";
/// No output on the console but the kernel's warnings; pressure stall information. An oops is an end, and so is a panic, and a processor that
/// the kernel has kept to itself for two minutes, with the stacks of all (an emulated one takes some seconds under load).
/// Without `no_timer_check` the kernel counts the ticks of its first moments, and panics when the host has kept the machine
/// waiting in them.
const KERNEL_PARAMETERS: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic watchdog_thresh=60 softlockup_panic=1 \
    softlockup_all_cpu_backtrace=1 no_timer_check psi=1";

/// The files of a machine.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    pub(super) root: PathBuf,
    pub(super) modules: PathBuf,
    /// What the machine sees as /job.
    pub(super) job: PathBuf,
    /// What the machine mounts, in the order in which it does.
    pub(super) shares: Vec<Share>,
    /// What the machine writes to its serial console is written here.
    pub(super) console: PathBuf,
    /// Unix sockets that listen already.
    pub(super) output: PathBuf,
    pub(super) status: PathBuf,
}

/// All arguments but the one that names the firmware.
pub(super) fn arguments(job: &Job, accelerator: Accelerator, files: &Files) -> Vec<OsString> {
    let mut arguments = Arguments::default();
    arguments.add(&[
        "-machine",
        "pc",
        "-smp",
        PROCESSORS,
        "-m",
        &job.memory_mib.to_string(),
    ]);
    arguments.add(accelerator.arguments());
    // No device that is not named here, no window, and a reboot is an end.
    arguments.add(&[
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    // Entropy, so that no program waits for it.
    arguments.add(&["-device", "virtio-rng-pci"]);
    arguments.option("-serial", "file:", &files.console, "");
    arguments.option("-kernel", "", &files.kernel, "");
    arguments.option("-initrd", "", &files.initramfs, "");
    let parameters = [
        KERNEL_PARAMETERS.to_owned(),
        job.security.kernel_parameters().to_owned(),
        accelerator.kernel_parameters().to_owned(),
        job.kernel_parameters.join(" "),
    ];
    arguments.add(&["-append", parameters.join(" ").trim()]);

    arguments.add(&["-device", "virtio-serial-pci"]);
    for (name, socket) in [("output", &files.output), ("status", &files.status)] {
        arguments.option("-chardev", &format!("socket,id={name},path="), socket, "");
        arguments.add(&[
            "-device",
            &format!("virtserialport,chardev={name},name={name}"),
        ]);
    }
    for image in [&files.root, &files.modules] {
        arguments.option(
            "-drive",
            "if=virtio,format=raw,readonly=on,file=",
            image,
            "",
        );
    }
    for disk in &job.disks {
        arguments.disk(disk);
    }
    arguments.share("job", &files.job, Access::ReadOnly);
    for (index, shared) in files.shares.iter().enumerate() {
        arguments.share(&share::tag(index), &shared.outside, shared.access);
    }
    arguments.list
}

#[derive(Debug, Default)]
struct Arguments {
    list: Vec<OsString>,
}

impl Arguments {
    fn add(&mut self, arguments: &[&str]) {
        self.list.extend(arguments.iter().map(OsString::from));
    }

    /// An option whose value has a path in it, where QEMU reads `,,` as one comma and `,` as an end.
    fn option(&mut self, name: &str, before: &str, path: &Path, after: &str) {
        let mut value = path.display().to_string();
        // The plain options take their value as it is.
        if !before.is_empty() {
            value = value.replace(',', ",,");
        }
        self.add(&[name, &format!("{before}{value}{after}")]);
    }

    fn disk(&mut self, disk: &Disk) {
        let drive = "if=virtio,format=raw";
        match disk.source() {
            // The host's page cache outlives QEMU, so killing QEMU loses what the machine has not sent to its disk, and
            // no more: a flush needs no fsync here.
            Source::File(path) => {
                let drive = format!("{drive},cache=unsafe,discard=unmap,file=");
                self.option("-drive", &drive, path, "");
            }
            // Flushes are passed on; the machine is told that the disk has a cache.
            Source::Server(socket) => {
                let drive = format!(
                    "{drive},cache=writeback,file.driver=nbd,file.server.type=unix,file.server.path="
                );
                self.option("-drive", &drive, socket, "");
            }
        }
    }

    fn share(&mut self, tag: &str, path: &Path, access: Access) {
        let after = format!(
            ",mount_tag={tag},security_model=none,multidevs=remap,readonly={}",
            access.readonly()
        );
        self.option("-virtfs", "local,path=", path, &after);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::vm::Disk;

    #[test]
    fn disks_and_shares_are_in_the_order_in_which_the_machine_mounts_them() {
        let path = |name: &str| PathBuf::from("/m").join(name);
        let files = Files {
            kernel: path("vmlinuz,1"),
            initramfs: path("initramfs"),
            root: path("root"),
            modules: path("modules"),
            job: path("job,2"),
            shares: vec![Share::same_path(Path::new("/target"))],
            console: path("console"),
            output: path("output"),
            status: path("status"),
        };
        let disk = tempfile::NamedTempFile::new().unwrap();
        let mut job = Job::new(&["true"]);
        job.disks.push(Disk::open(disk.path()).unwrap());
        job.kernel_parameters.push("psi=0".to_owned());
        let arguments = arguments(&job, Accelerator::Emulation, &files);
        let values = |option: &str| -> Vec<_> {
            let pairs = arguments.windows(2).filter(|pair| pair[0] == *option);
            pairs
                .map(|pair| pair[1].to_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(values("-kernel"), ["/m/vmlinuz,1"]);
        let drives = values("-drive");
        assert_eq!(drives.len(), 3);
        assert!(
            drives[0].ends_with("readonly=on,file=/m/root"),
            "{drives:?}"
        );
        assert!(
            drives[1].ends_with("readonly=on,file=/m/modules"),
            "{drives:?}"
        );
        assert!(!drives[2].contains("readonly"), "{drives:?}");
        let shares = values("-virtfs");
        assert!(
            shares[0].starts_with("local,path=/m/job,,2,mount_tag=job,"),
            "{shares:?}"
        );
        assert!(
            shares[1].starts_with("local,path=/target,mount_tag=share0,"),
            "{shares:?}"
        );
        assert!(shares[1].ends_with("readonly=on"), "{shares:?}");
        assert!(values("-append")[0].ends_with(" psi=0"));
    }
}

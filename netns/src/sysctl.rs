//! Kernel settings (ip-sysctl.rst), of the host and of pods.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::config::LinkName;
use crate::error::NetworkError;
use crate::rtnetlink::link::Protocols;

/// Settings of pods with IPv6, by their paths below `/proc/sys`: routers are not believed (CVE-2020-10749), and addresses are usable at once, because the allocator
/// makes them unique.
pub(crate) const OF_PODS: &[(&str, &str)] = &[
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
];

/// Lets the host forward IPv4.
pub(crate) fn forward_ipv4() -> Result<(), NetworkError> {
    ensure(Path::new("net/ipv4/ip_forward"), "1")
}

/// Lets the host forward IPv6. A host that forwards no longer hears router advertisements by default and would lose
/// its own default route: the links that heard them until now are told to go on (`accept_ra=2`).
pub(crate) fn forward_ipv6() -> Result<(), NetworkError> {
    let forwarding = Path::new("net/ipv6/conf/all/forwarding");
    if read(forwarding)? == "1" {
        return Ok(());
    }
    let links = root().join("net/ipv6/conf");
    let entries = fs::read_dir(&links).map_err(error("list", &links))?;
    for entry in entries {
        let name = entry.map_err(error("list", &links))?.file_name();
        if name == "all" || name == "default" || name == "lo" {
            continue;
        }
        let setting = Path::new("net/ipv6/conf").join(name).join("accept_ra");
        if read(&setting)? == "1" {
            write(&setting, "2")?;
        }
    }
    write(forwarding, "1")
}

/// Settings of the bridge: host ports on 127.0.0.1 need `route_localnet`; pods are no routers for the host.
pub(crate) fn configure_bridge(bridge: &LinkName, has_ipv6: bool) -> Result<(), NetworkError> {
    ensure(
        &Path::new("net/ipv4/conf")
            .join(bridge.as_str())
            .join("route_localnet"),
        "1",
    )?;
    refuse_router_advertisements(bridge)?;
    if has_ipv6 {
        ensure(
            &Path::new("net/ipv6/conf")
                .join(bridge.as_str())
                .join("accept_dad"),
            "0",
        )?;
    }
    Ok(())
}

/// What this kernel knows of.
pub(crate) fn protocols() -> Protocols {
    if root().join("net/ipv6").exists() {
        Protocols::Both
    } else {
        Protocols::Ipv4
    }
}

/// Makes the host deaf to router advertisements on this link.
fn refuse_router_advertisements(link: &LinkName) -> Result<(), NetworkError> {
    let setting = Path::new("net/ipv6/conf")
        .join(link.as_str())
        .join("accept_ra");
    match write(&setting, "0") {
        // The kernel has no IPv6.
        Err(NetworkError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        result => result,
    }
}

fn root() -> PathBuf {
    PathBuf::from("/proc/sys")
}

fn error(action: impl Into<String>, path: &Path) -> impl FnOnce(io::Error) -> NetworkError {
    let (action, path) = (action.into(), path.to_owned());
    move |source| NetworkError::Sysctl {
        action,
        path,
        source,
    }
}

/// Writes only what differs: some settings have effects even when they are written as they are.
fn ensure(setting: &Path, value: &str) -> Result<(), NetworkError> {
    if read(setting)? == value {
        return Ok(());
    }
    write(setting, value)
}

fn read(setting: &Path) -> Result<String, NetworkError> {
    let path = root().join(setting);
    let text = fs::read_to_string(&path).map_err(error("read", &path))?;
    Ok(text.trim_end().to_owned())
}

fn write(setting: &Path, value: &str) -> Result<(), NetworkError> {
    let path = root().join(setting);
    let action = || format!("write {value:?} to");
    let mut file = OpenOptions::new()
        .write(true)
        .open(&path)
        .map_err(error(action(), &path))?;
    let filesystem = fstatfs(&file)
        .map_err(io::Error::from)
        .map_err(error(action(), &path))?;
    if filesystem.filesystem_type() != PROC_SUPER_MAGIC {
        let problem = io::Error::other("this is no file of procfs");
        return Err(error(action(), &path)(problem));
    }
    file.write_all(value.as_bytes())
        .map_err(error(action(), &path))
}

//! The files that the runtime makes for a pod: resolv.conf, hosts, hostname.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use podwright_cri_api::v1::DnsConfig;

use super::settings::NetworkMode;
use super::{HOSTNAME, HOSTS, RESOLV_CONF};
use crate::error::{CallError, Context};
use crate::ids::SandboxId;

/// Where the directories of all pods are: in memory, as what is below the run directory.
pub(super) fn parent(run_dir: &Path) -> PathBuf {
    run_dir.join("files")
}

/// Makes the directory, if it is not there for its records, and in it resolv.conf and hostname; hosts follows when the addresses are known.
pub(super) fn write_early(
    directory: &Path,
    dns: Option<&DnsConfig>,
    hostname: &str,
) -> Result<(), CallError> {
    let resolv = match dns {
        Some(dns)
            if !(dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty()) =>
        {
            resolv_conf(dns)?
        }
        _ => host_file(Path::new("/etc/resolv.conf"))?,
    };
    fs::create_dir_all(directory)
        .internal(|| format!("cannot make the directory {}", directory.display()))?;
    write(directory, RESOLV_CONF, &resolv)?;
    write(directory, HOSTNAME, format!("{hostname}\n").as_bytes())
}

/// Writes hosts.
pub(super) fn write_hosts(
    directory: &Path,
    network: NetworkMode,
    hostname: &str,
    addresses: &[IpAddr],
) -> Result<(), CallError> {
    let text = match network {
        NetworkMode::Host => host_file(Path::new("/etc/hosts"))?,
        NetworkMode::Pod => hosts(hostname, addresses).into_bytes(),
    };
    write(directory, HOSTS, &text)
}

/// Removes the files of a pod whose containers have ended.
pub(crate) fn remove(run_dir: &Path, id: &SandboxId) {
    let directory = parent(run_dir).join(id.as_str());
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %directory.display(), %error, "cannot remove the pod's files; the next start tries again");
        }
        _ => {}
    }
}

/// The pods that have files.
pub(crate) fn owners(run_dir: &Path) -> io::Result<Vec<SandboxId>> {
    let names = fs::read_dir(parent(run_dir))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names
        .filter_map(|name| SandboxId::parse(&name).ok())
        .collect())
}

/// The host's own name (gethostname(2)).
pub(super) fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim_end().to_owned())
        .unwrap_or_default()
}

fn write(directory: &Path, name: &str, contents: &[u8]) -> Result<(), CallError> {
    let path = directory.join(name);
    fs::write(&path, contents).internal(|| format!("cannot write {}", path.display()))
}

fn host_file(path: &Path) -> Result<Vec<u8>, CallError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.internal(|| format!("cannot read the host's {}", path.display())),
    }
}

fn resolv_conf(dns: &DnsConfig) -> Result<Vec<u8>, CallError> {
    let all = dns.servers.iter().chain(&dns.searches).chain(&dns.options);
    for entry in all {
        // A newline would add directives that nobody asked for.
        if entry.chars().any(char::is_control) {
            return Err(CallError::invalid(format!(
                "the DNS configuration holds a control character: {entry:?}"
            )));
        }
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    Ok(text.into_bytes())
}

fn hosts(hostname: &str, addresses: &[IpAddr]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for address in addresses.iter().filter(|_| !hostname.is_empty()) {
        text.push_str(&format!("{address}\t{hostname}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_has_what_was_asked_for_in_the_resolver_s_order() {
        let dns = DnsConfig {
            servers: vec!["10.0.0.10".into(), "fd00::a".into()],
            searches: vec!["a.b".into(), "c".into()],
            options: vec!["ndots:5".into()],
        };
        let text = String::from_utf8(resolv_conf(&dns).unwrap()).unwrap();
        assert_eq!(
            text,
            "search a.b c\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5\n"
        );
    }

    #[test]
    fn a_newline_adds_no_directive() {
        let dns = DnsConfig {
            servers: vec!["10.0.0.10\nnameserver 6.6.6.6".into()],
            ..Default::default()
        };
        assert!(resolv_conf(&dns).is_err());
    }

    #[test]
    fn hosts_names_the_pod_by_each_address() {
        let text = hosts(
            "web",
            &["10.1.2.3".parse().unwrap(), "fd00::3".parse().unwrap()],
        );
        assert!(
            text.starts_with("127.0.0.1\tlocalhost\n")
                && text.ends_with("10.1.2.3\tweb\nfd00::3\tweb\n"),
            "{text}"
        );
    }
}

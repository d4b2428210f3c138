//! Attaching a pod: reserve, record, then tell the kernel; on failure the same backwards.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::open::LINK_PREFIX;
use super::{Network, Protocols, State};
use crate::address::{MacAddress, Subnet};
use crate::attachment::Attachment;
use crate::config::LinkName;
use crate::error::NetworkError;
use crate::namespace::Namespace;
use crate::netlink::{self, LinkNotices, NetlinkError, exchange};
use crate::nft;
use crate::port::PortMapping;
use crate::procfs;
use crate::record::is_pod_id;
use crate::rtnetlink::link::{self, Link, Veth};
use crate::rtnetlink::{address, route};

/// Hexadecimal digits of the pod's id in the name of its link: with the prefix, 15 bytes.
const LINK_DIGITS: usize = 13;
/// How long the kernel's link watch may take; it usually needs a few milliseconds, and a second when it is throttled.
const LINK_WATCH_DEADLINE: Duration = Duration::from_millis(1500);

impl Network {
    /// Takes addresses and ports for a pod, and opens the host for them: all that can be done before its namespace is there.
    ///
    /// - `pod`: its id, 64 hexadecimal digits.
    ///
    /// When it fails, nothing of it stays; [`Network::connect`] follows, or [`Network::detach`].
    pub fn allocate(&self, pod: &str, ports: &[PortMapping]) -> Result<Attachment, NetworkError> {
        if !is_pod_id(pod) {
            return Err(NetworkError::PodId {
                pod: pod.to_owned(),
            });
        }
        let attachment = self.reserve(pod, ports)?;
        let opened = self
            .records
            .write(pod, &attachment)
            .and_then(|()| self.install_elements(pod, &attachment));
        match opened {
            Ok(()) => Ok(attachment),
            Err(error) => Err(self.undone(pod, &attachment, error)),
        }
    }

    /// Writes the kernel settings that a new pod's namespace needs, but those that `is_set` says the pod sets itself, by their
    /// paths below `/proc/sys`. A kernel without IPv6 does not have them; that is no error.
    ///
    /// # Errors
    /// [`NetworkError::Sysctl`], [`NetworkError::Namespace`].
    pub fn settle(
        &self,
        namespace: &Namespace,
        is_set: impl Fn(&str) -> bool,
    ) -> Result<(), NetworkError> {
        let sysctls = self.pod_sysctls().iter();
        let sysctls: Vec<_> = sysctls.filter(|(path, _)| !is_set(path)).collect();
        if sysctls.is_empty() {
            return Ok(());
        }
        let failed = |path: &str, source| NetworkError::Sysctl {
            action: "write the pod's".to_owned(),
            path: path.into(),
            source,
        };
        let procfs = self.procfs.instance();
        let procfs = procfs.map_err(|error| failed("/proc", error))?;
        namespace.within(|| {
            for (path, value) in sysctls {
                match procfs::write(&procfs, path, value) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    result => result.map_err(|error| failed(path, error))?,
                }
            }
            Ok(())
        })
    }

    /// [`Network::link`] and [`Network::configure`].
    pub fn connect(
        &self,
        pod: &str,
        attachment: &Attachment,
        namespace: &Namespace,
    ) -> Result<(), NetworkError> {
        self.link(pod, attachment, namespace)?;
        self.configure(pod, attachment, namespace)
    }

    /// Makes a pod's link to the bridge.
    ///
    /// - `namespace`: its network namespace, after [`Network::settle`].
    ///
    /// When it fails, nothing of the pod stays, the allocation neither.
    pub fn link(
        &self,
        pod: &str,
        attachment: &Attachment,
        namespace: &Namespace,
    ) -> Result<(), NetworkError> {
        self.make_link(pod, attachment, namespace)
            .map_err(|error| self.undone(pod, attachment, error))
    }

    /// Brings a pod's end of its link up, and `lo`, with the addresses that were allocated and default routes, and waits until
    /// they are of use.
    ///
    /// When it fails, nothing of the pod stays, the allocation neither.
    pub fn configure(
        &self,
        pod: &str,
        attachment: &Attachment,
        namespace: &Namespace,
    ) -> Result<(), NetworkError> {
        self.configure_inside(attachment, namespace.netlink.as_fd())
            .and_then(|()| self.await_link(&attachment.host_link))
            .map_err(NetworkError::kernel(format!(
                "configure the network inside pod {pod}"
            )))
            .map_err(|error| self.undone(pod, attachment, error))
    }

    /// Takes everything back; the error that is returned says why.
    fn undone(&self, pod: &str, attachment: &Attachment, error: NetworkError) -> NetworkError {
        // The first error says what went wrong; what cannot be undone is found by `recover`.
        if let Err(undo) = self.abandon(pod, attachment) {
            tracing::warn!(pod, error = %undo, "could not undo a failed attachment");
        }
        error
    }

    /// Takes addresses and ports.
    fn reserve(&self, pod: &str, ports: &[PortMapping]) -> Result<Attachment, NetworkError> {
        let mut held = Vec::new();
        let attachment = {
            let mut state = self.state();
            if state.attachments.contains_key(pod) {
                return Err(NetworkError::AlreadyAttached {
                    pod: pod.to_owned(),
                });
            }
            state
                .ports
                .take(pod, ports)
                .map_err(|taken| NetworkError::PortTaken {
                    port: taken.port,
                    holder: taken.holder,
                })?;
            let addresses = match self.take_addresses(&mut state, &mut held) {
                Ok(addresses) => addresses,
                Err(error) => {
                    state.ports.free(pod, ports);
                    return Err(error);
                }
            };
            let mac = MacAddress::of(addresses[0].address);
            let attachment = Attachment {
                addresses,
                host_link: link_name(pod),
                mac,
                ports: ports.to_vec(),
            };
            state.attachments.insert(pod.to_owned(), attachment.clone());
            attachment
        };
        for link in held {
            if let Err(error) = self.delete_link(&link) {
                self.release(pod, &attachment, None);
                return Err(error);
            }
        }
        Ok(attachment)
    }

    /// One address of each subnet. `held` gets the links of last holders that must be deleted first.
    fn take_addresses(
        &self,
        state: &mut State,
        held: &mut Vec<LinkName>,
    ) -> Result<Vec<crate::address::IpNet>, NetworkError> {
        let mut addresses: Vec<crate::address::IpNet> = Vec::with_capacity(state.pools.len());
        for place in 0..state.pools.len() {
            // When the kernel does not say that a link has gone, it is taken to be there.
            let is_gone = |name: &LinkName| matches!(link::exists(name), Ok(false));
            match state.pools[place].give(is_gone) {
                Ok((address, holder)) => {
                    addresses.push(address);
                    held.extend(holder);
                    self.records
                        .set_cursor(place, state.pools[place].cursor())?;
                }
                Err(exhausted) => {
                    for (pool, given) in state.pools.iter_mut().zip(&addresses) {
                        pool.free(given.address, None);
                    }
                    return Err(NetworkError::Exhausted {
                        subnet: exhausted.subnet,
                        in_use: exhausted.in_use,
                    });
                }
            }
        }
        Ok(addresses)
    }

    /// Adds the pod's elements to the tables; makes the tables anew when somebody flushed them.
    fn install_elements(&self, pod: &str, attachment: &Attachment) -> Result<(), NetworkError> {
        let elements = self.installable(nft::pod_elements(attachment));
        match self.nft_transaction(nft::add(&self.config.table, &elements)) {
            Err(error) if error.is(Errno::ENOENT) => self.reinstall(),
            result => result.map_err(NetworkError::kernel(format!(
                "open the network for pod {pod}"
            ))),
        }
    }

    fn make_link(
        &self,
        pod: &str,
        attachment: &Attachment,
        namespace: &Namespace,
    ) -> Result<(), NetworkError> {
        let veth = Veth {
            host: &attachment.host_link,
            bridge: self.bridge,
            namespace: namespace.file.as_fd(),
            mac: attachment.mac,
            mtu: self.config.mtu,
        };
        let outside = [veth.create(), veth.configure_port(self.protocols)];
        let action = || {
            NetworkError::kernel(format!(
                "connect pod {pod} to the bridge {}",
                self.config.bridge
            ))
        };
        match self.route_exchange(&outside) {
            // A link of this name without a record: its pod's daemon was killed, or the kernel is still deleting it.
            Err(error) if error.is(Errno::EEXIST) => {
                self.delete_link(&attachment.host_link)?;
                self.route_exchange(&outside).map(drop).map_err(action())
            }
            result => result.map(drop).map_err(action()),
        }
    }

    /// Waits until the link and the bridge send what they are given.
    ///
    /// A link that was set up before its peer drops everything until the kernel's link watch has seen the carrier, in
    /// a work queue of its own: a first SYN or ARP request would be lost, and repeated after a second. Asking for the
    /// link makes the kernel look at once (Linux 6.8, `linkwatch_sync_dev`); older ones tell when they did.
    fn await_link(&self, host_link: &LinkName) -> Result<(), NetlinkError> {
        let look = [
            link::get(host_link.as_str()),
            link::get(self.config.bridge.as_str()),
        ];
        let is_ready = || -> Result<bool, NetlinkError> {
            let replies = self.route_exchange(&look)?;
            Ok(replies
                .iter()
                .filter_map(Link::read)
                .all(|link| link.is_operational))
        };
        if is_ready()? {
            return Ok(());
        }
        let notices = LinkNotices::subscribe()?;
        let deadline = Instant::now() + LINK_WATCH_DEADLINE;
        while !is_ready()? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !notices.wait(left)? {
                tracing::warn!(link = %host_link, "the kernel has not seen the pod's carrier yet");
                return Ok(());
            }
        }
        Ok(())
    }

    fn configure_inside(
        &self,
        attachment: &Attachment,
        inside: BorrowedFd<'_>,
    ) -> Result<(), NetlinkError> {
        netlink::prepare(inside)?;
        let replies = exchange(inside, &[link::loopback_up(), link::get("eth0")])?;
        let missing = || NetlinkError::Answer {
            what: "look up the link eth0".to_owned(),
            problem: "no link in it",
        };
        let eth0 = replies
            .iter()
            .find_map(Link::read)
            .ok_or_else(missing)?
            .index;
        let mut messages = Vec::new();
        let has_ipv6 = attachment.has_ipv6();
        if !has_ipv6 && self.protocols == Protocols::Both {
            // Nobody would be reached by the address that the kernel makes up, and all other pods hear of it.
            messages.push(link::generate_no_addresses(eth0));
        }
        messages.push(link::up(eth0));
        messages.extend(
            attachment
                .addresses
                .iter()
                .map(|net| address::add(eth0, *net)),
        );
        let mut has_route = [false; 2];
        for net in &attachment.addresses {
            // The first subnet of each IP version gives its default route.
            if !std::mem::replace(&mut has_route[usize::from(net.address.is_ipv6())], true) {
                let gateway = Subnet::of(*net).gateway().address;
                messages.push(route::default_by(gateway, eth0));
            }
        }
        if !has_ipv6 {
            return exchange(inside, &messages).map(drop);
        }
        netlink::join_ipv6_routes(inside)?;
        exchange(inside, &messages)?;
        for net in &attachment.addresses {
            if let IpAddr::V6(address) = net.address {
                await_ipv6(inside, address)?;
            }
        }
        netlink::leave_ipv6_routes(inside)
    }
}

/// The name of the host's end of a pod's link.
fn link_name(pod: &str) -> LinkName {
    let name = format!("{LINK_PREFIX}{}", &pod[..LINK_DIGITS]);
    #[allow(clippy::expect_used)] // fifteen lower-case letters and digits are a link name
    name.parse().expect("a pod id makes a link name")
}

/// Waits until the pod hears what is sent to its IPv6 address. The kernel makes that so (it inserts the local route) in a
/// work queue, after the request is answered; the first neighbour advertisement would be lost, and asked for again after
/// a second.
fn await_ipv6(inside: BorrowedFd<'_>, address: Ipv6Addr) -> Result<(), NetlinkError> {
    let deadline = Instant::now() + LINK_WATCH_DEADLINE;
    loop {
        // The notice of the route's insertion is read by the next exchange, which sees the route.
        match exchange(inside, &[route::to_ipv6(address)]) {
            Ok(replies) if replies.iter().any(route::is_local) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.is(Errno::ENETUNREACH) => {}
            Err(error) => return Err(error),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !netlink::await_notice(inside, left)? {
            tracing::warn!(%address, "the pod's IPv6 address is not in use yet");
            return Ok(());
        }
    }
}

//! Machines made of network namespaces: each namespace is a thread that has one of its own. An `outside` namespace has
//! the `host` as its only pod, and the host has the pods under test; nothing of the real machine is touched.
#![allow(dead_code, unreachable_pub)] // each test program uses its own part of this

pub mod frame;

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockProtocol, SockType, shutdown, socket,
};
use podwright_netns::{
    Attachment, Masquerade, Network, NetworkConfig, NetworkError, PortMapping, Protocol,
};
use tempfile::TempDir;

/// How long anything may take before it counts as failed.
pub const DEADLINE: Duration = Duration::from_secs(3);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, alive as long as this value and the sockets made in it.
pub struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    pub made: Option<podwright_netns::Namespace>,
}

impl Namespace {
    pub fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET)
                .expect("these tests need root: unshare(CLONE_NEWNET)");
            queue.into_iter().for_each(|job| job());
        });
        let mut namespace = Self {
            jobs: Some(jobs),
            thread: Some(thread),
            made: None,
        };
        namespace.made = Some(namespace.run(|| {
            let descriptor =
                std::fs::File::open("/proc/thread-self/ns/net").expect("open the namespace");
            let flags = SockFlag::SOCK_CLOEXEC;
            let inside = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                flags,
                SockProtocol::NetlinkRoute,
            );
            podwright_netns::Namespace {
                file: descriptor.into(),
                netlink: inside.expect("netlink socket"),
            }
        }));
        namespace
    }

    /// Runs the closure in the namespace.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        let job: Job = Box::new(move || drop(sender.send(job())));
        self.jobs
            .as_ref()
            .expect("open")
            .send(job)
            .expect("the namespace's thread lives");
        receiver.recv().expect("the job did not panic")
    }

    /// The lines of a file of `/proc/net` that hold the text.
    pub fn lines_with(&self, file: &str, text: &'static str) -> Vec<String> {
        let path = Path::new("/proc/thread-self/net").join(file);
        self.run(move || {
            let lines = std::fs::read_to_string(&path).expect("read a file of /proc/net");
            let lines = lines.lines().filter(|line| line.contains(text));
            lines.map(str::to_owned).collect()
        })
    }

    pub fn attach(
        &self,
        network: &Network,
        pod: &str,
        ports: &[PortMapping],
    ) -> Result<Attachment, NetworkError> {
        let attachment = network.allocate(pod, ports)?;
        let made = self.made.as_ref().expect("open");
        network.settle(made, |_| false)?;
        network.connect(pod, &attachment, made)?;
        Ok(attachment)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An id that no other pod of any test has.
pub fn pod_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    format!("{:08x}{:05x}{}", process, number, "0".repeat(51))
}

pub fn config(state: &Path, bridge: &str, subnets: &[&str]) -> NetworkConfig {
    NetworkConfig {
        bridge: bridge.parse().expect("bridge"),
        subnets: subnets
            .iter()
            .map(|subnet| subnet.parse().expect("subnet"))
            .collect(),
        mtu: None,
        masquerade: Masquerade::OutsideOf(Vec::new()),
        state_dir: state.to_owned(),
        table: "podwright-test".parse().expect("table"),
    }
}

/// A host with an uplink to the outside. The host is 10.232.0.2 / fd32::2, the outside 10.232.0.1 / fd32::1.
pub struct Machine {
    pub network: Option<Network>,
    pub host: Namespace,
    pub outside: Namespace,
    outside_network: Network,
    outside_state: TempDir,
    pub state: TempDir,
    subnets: Vec<String>,
}

pub const HOST_V4: &str = "10.232.0.2";
pub const HOST_V6: &str = "fd32::2";
pub const OUTSIDE_V4: &str = "10.232.0.1";
pub const OUTSIDE_V6: &str = "fd32::1";

impl Machine {
    pub fn new() -> Self {
        Self::with_subnets(&["10.231.1.0/24", "fd31:1::/64"])
    }

    pub fn with_subnets(subnets: &[&str]) -> Self {
        let (outside, host) = (Namespace::new(), Namespace::new());
        let (outside_state, state) = (
            TempDir::new().expect("directory"),
            TempDir::new().expect("directory"),
        );
        let settings = config(
            outside_state.path(),
            "uplink0",
            &["10.232.0.0/24", "fd32::/64"],
        );
        let outside_network = outside
            .run(move || Network::open(settings))
            .expect("open the outside's network");
        let made = host.made.as_ref().expect("open");
        let made = podwright_netns::Namespace {
            file: made.file.try_clone().expect("clone"),
            netlink: made.netlink.try_clone().expect("clone"),
        };
        let outside_network = outside.run(move || {
            let id = pod_id();
            let attachment = outside_network.allocate(&id, &[]).expect("addresses");
            outside_network
                .settle(&made, |_| false)
                .expect("set the host's settings");
            outside_network
                .connect(&id, &attachment, &made)
                .expect("connect the host to the outside");
            outside_network
        });
        let subnets = subnets.iter().map(|subnet| (*subnet).to_owned()).collect();
        let mut machine = Self {
            network: None,
            host,
            outside,
            outside_network,
            outside_state,
            state,
            subnets,
        };
        machine.open();
        machine
    }

    /// Opens the host's network, again if it was open.
    pub fn open(&mut self) {
        self.network = None;
        let subnets: Vec<&str> = self.subnets.iter().map(String::as_str).collect();
        let settings = config(self.state.path(), "pwtest0", &subnets);
        self.network = Some(
            self.host
                .run(move || Network::open(settings))
                .expect("open the network"),
        );
    }

    /// Runs the closure with the network on the host.
    pub fn with<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&Network) -> T + Send + 'static,
    ) -> T {
        let network = self.network.take().expect("open");
        let (network, result) = self.host.run(move || {
            let result = job(&network);
            (network, result)
        });
        self.network = Some(network);
        result
    }

    pub fn try_pod(&mut self, ports: &[PortMapping]) -> Result<Pod, NetworkError> {
        let (namespace, id, ports) = (Namespace::new(), pod_id(), ports.to_vec());
        self.with(move |network| {
            let attachment = namespace.attach(network, &id, &ports)?;
            Ok(Pod {
                namespace,
                id,
                attachment,
            })
        })
    }

    pub fn pod(&mut self, ports: &[PortMapping]) -> Pod {
        self.try_pod(ports).expect("attach a pod")
    }

    pub fn detach(&mut self, pod: &str) {
        let pod = pod.to_owned();
        self.with(move |network| network.detach(&pod))
            .expect("detach");
    }
}

pub struct Pod {
    pub namespace: Namespace,
    pub id: String,
    pub attachment: Attachment,
}

impl Pod {
    pub fn v4(&self) -> IpAddr {
        self.attachment.addresses[0].address
    }

    pub fn v6(&self) -> IpAddr {
        self.attachment.addresses[1].address
    }
}

pub fn port(
    protocol: Protocol,
    host_port: u16,
    container_port: u16,
    host_ip: Option<&str>,
) -> PortMapping {
    PortMapping {
        protocol,
        container_port: NonZeroU16::new(container_port).expect("port"),
        host_port: NonZeroU16::new(host_port).expect("port"),
        host_ip: host_ip.map(|address| address.parse().expect("address")),
    }
}

/// A TCP server that tells each client which address it sees, until dropped.
pub struct TcpServer {
    listener: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl TcpServer {
    pub fn start(namespace: &Namespace, address: &str) -> Self {
        let address = address.to_owned();
        let listener = namespace
            .run(move || TcpListener::bind(address))
            .expect("listen");
        let copy = OwnedFd::from(listener.try_clone().expect("clone"));
        let serve = move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let _ = write!(stream, "{}", plain(peer.ip()));
            }
        };
        Self {
            listener: copy,
            thread: Some(std::thread::spawn(serve)),
        }
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        use std::os::fd::AsRawFd;
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Connects, and returns the address that the server sees.
pub fn ask(from: &Namespace, address: IpAddr, port: u16) -> io::Result<IpAddr> {
    from.run(move || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        text.parse()
            .map_err(|_| io::Error::other(format!("answer {text:?}")))
    })
}

/// A UDP socket that waits for datagrams up to the deadline.
pub fn udp(namespace: &Namespace, address: &str) -> UdpSocket {
    let address = address.to_owned();
    let socket = namespace
        .run(move || UdpSocket::bind(address))
        .expect("bind");
    socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
    socket
}

/// The next datagram's text.
pub fn next_datagram(socket: &UdpSocket) -> io::Result<(String, SocketAddr)> {
    let mut buffer = [0; 256];
    let (length, peer) = socket.recv_from(&mut buffer)?;
    Ok((
        String::from_utf8_lossy(&buffer[..length]).into_owned(),
        peer,
    ))
}

pub fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

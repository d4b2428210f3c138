//! Addresses, records and links over attach, detach, restart and recovery. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::HashSet;
use std::error::Error;
use std::time::{Duration, Instant};

use podwright_netns::Protocol::Tcp;
use podwright_netns::{Installed, NetworkError};
use support::*;

const NOTHING: Installed = Installed {
    links: 0,
    elements: 0,
    records: 0,
};

fn installed(machine: &mut Machine) -> Installed {
    machine.with(|network| network.installed()).unwrap()
}

fn recover(machine: &mut Machine, live: &[&Pod]) -> Vec<String> {
    let live: HashSet<String> = live.iter().map(|pod| pod.id.clone()).collect();
    machine.with(move |network| network.recover(&live)).unwrap()
}

#[test]
fn attachments_survive_a_restart_and_dead_ones_are_reclaimed() {
    let mut machine = Machine::new();
    let live = machine.pod(&[port(Tcp, 8080, 80, None)]);
    let dead = machine.pod(&[port(Tcp, 8081, 80, None)]);
    let _server = TcpServer::start(&live.namespace, "[::]:80");
    machine.open();
    // Open already before recovery: ports work, records are there.
    ask(&machine.outside, address(HOST_V4), 8080).unwrap();
    let id = live.id.clone();
    assert_eq!(
        machine.with(move |network| network.attachment(&id)),
        Some(live.attachment.clone())
    );
    assert_eq!(recover(&mut machine, &[&live]), [dead.id.as_str()]);
    assert_eq!(installed(&mut machine).links, 1);
    assert_eq!(installed(&mut machine).records, 1);
    assert_eq!(recover(&mut machine, &[&live]), [""; 0]);
    // Neither the living pod's addresses nor the last given ones come again.
    let next = machine.pod(&[port(Tcp, 8081, 80, None)]);
    assert_eq!(next.v4().to_string(), "10.231.1.4");
    ask(&machine.outside, address(HOST_V4), 8080).unwrap();
}

#[test]
fn links_without_a_record_are_reclaimed() {
    let mut machine = Machine::new();
    let pod = machine.pod(&[]);
    std::fs::remove_file(machine.state.path().join("pods").join(&pod.id)).unwrap();
    machine.open();
    assert_eq!(
        recover(&mut machine, &[]),
        [pod.attachment.host_link.to_string()]
    );
    assert_eq!(installed(&mut machine), NOTHING);
}

#[test]
fn an_exhausted_range_and_a_taken_port_say_so() {
    let mut machine = Machine::with_subnets(&["10.231.1.0/29"]);
    let mut pods: Vec<Pod> = (0..5)
        .map(|number| machine.pod(&[port(Tcp, 8000 + number, 80, None)]))
        .collect();
    let error = machine.try_pod(&[]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "no free address in the pod subnet 10.231.1.0/29: all 5 are in use; remove pods or configure a larger subnet"
    );
    let pod = pods.pop().unwrap();
    let old = pod.attachment.addresses.clone();
    machine.detach(&pod.id);
    let error = machine.try_pod(&[port(Tcp, 8000, 80, None)]).err().unwrap();
    let wanted = format!(
        "host port 8000/tcp is taken by pod {}; choose another port or remove that pod",
        pods[0].id
    );
    assert_eq!(error.to_string(), wanted);
    // The only free address still has a link, for the namespace lives: the link is deleted before it is given again.
    let next = machine.pod(&[port(Tcp, 8004, 80, None)]);
    assert_eq!(next.attachment.addresses, old);
    assert_eq!(installed(&mut machine).links, 5);
}

#[test]
fn a_failed_attachment_leaves_nothing() {
    let mut machine = Machine::new();
    let pod = machine.pod(&[]);
    // The namespace has an eth0 already.
    let (second, namespace) = (pod_id(), pod.namespace);
    let error = machine.with(move |network| namespace.attach(network, &second, &[]).unwrap_err());
    assert!(matches!(error, NetworkError::Kernel { .. }));
    assert!(
        error.source().unwrap().to_string().contains("eth0"),
        "{error:?}"
    );
    machine.detach(&pod.id);
    recover(&mut machine, &[]);
    assert_eq!(installed(&mut machine).records, 0);
    assert_eq!(installed(&mut machine).elements, 0);
    let bad = Namespace::new();
    let error = machine.with(move |network| bad.attach(network, "../etc", &[]).unwrap_err());
    assert!(matches!(error, NetworkError::PodId { .. }));
}

#[test]
fn attaching_twice_is_refused_and_detaching_twice_is_not() {
    let mut machine = Machine::new();
    let pod = machine.pod(&[]);
    let (id, namespace) = (pod.id.clone(), Namespace::new());
    let error = machine.with(move |network| namespace.attach(network, &id, &[]).unwrap_err());
    assert!(matches!(error, NetworkError::AlreadyAttached { .. }));
    machine.detach(&pod.id);
    machine.detach(&pod.id);
    machine.detach(&pod_id());
}

#[test]
fn two_hundred_pods_leave_nothing_and_are_quick() {
    let mut machine = Machine::new();
    let (mut attach_times, mut detach_times) = (Vec::new(), Vec::new());
    let mut given = HashSet::new();
    for number in 0..200u16 {
        let (namespace, id) = (Namespace::new(), pod_id());
        let (addresses, attach_time, detach_time) = machine.with(move |network| {
            let begin = Instant::now();
            let attachment = namespace
                .attach(network, &id, &[port(Tcp, 10_000 + number, 80, None)])
                .unwrap();
            let attach_time = begin.elapsed();
            drop(namespace);
            let begin = Instant::now();
            network.detach(&id).unwrap();
            (attachment.addresses, attach_time, begin.elapsed())
        });
        assert!(given.insert(addresses), "an address came again early");
        attach_times.push(attach_time);
        detach_times.push(detach_time);
    }
    println!("attach {}", percentiles(attach_times));
    println!("detach {}", percentiles(detach_times));
    await_nothing(&mut machine);
    let network = machine.network.take().unwrap();
    machine.host.run(move || network.destroy()).unwrap();
    assert!(!machine.state.path().exists());
    // /proc/net is the namespace of the process's first thread: the machine's own, where others make links.
    let links = machine
        .host
        .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))
        .unwrap();
    assert!(!links.contains("pw"), "{links}");
}

#[test]
fn a_network_with_pods_is_not_destroyed() {
    let mut machine = Machine::new();
    let _pod = machine.pod(&[]);
    let network = machine.network.take().unwrap();
    let error = machine.host.run(move || network.destroy()).unwrap_err();
    assert!(matches!(error, NetworkError::HasPods { pods: 1 }));
}

#[test]
fn a_state_directory_and_a_bridge_name_of_others_are_refused() {
    let machine = Machine::new();
    let settings = config(machine.state.path(), "pwtest1", &["10.231.9.0/24"]);
    let error = machine
        .host
        .run(move || podwright_netns::Network::open(settings))
        .unwrap_err();
    assert!(matches!(error, NetworkError::StateInUse { .. }));
    let state = tempfile::tempdir().unwrap();
    let settings = config(state.path(), "eth0", &["10.231.9.0/24"]);
    let error = machine
        .host
        .run(move || podwright_netns::Network::open(settings))
        .unwrap_err();
    assert!(matches!(error, NetworkError::NotABridge { .. }), "{error}");
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    format!(
        "p50 {:?}, p90 {:?}, p99 {:?}, max {:?}",
        at(50),
        at(90),
        at(99),
        at(100)
    )
}

/// Waits until the kernel has deleted the links of dead namespaces, which it does in the background.
fn await_nothing(machine: &mut Machine) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while installed(machine) != NOTHING {
        assert!(
            Instant::now() < deadline,
            "left behind: {:?}",
            installed(machine)
        );
        // Each round asks the kernel for a namespace, which waits for the clean-up of dead ones in part.
        drop(Namespace::new());
        machine
            .with(|network| network.recover(&HashSet::new()))
            .unwrap();
    }
}

/// How many of the rounds below may be late: on an emulated machine, the processor itself is away for a second now and then.
fn late_rounds_allowed() -> usize {
    match std::env::var_os("PODWRIGHT_TEST_PATIENCE") {
        Some(_) => 2,
        None => 0,
    }
}

#[test]
fn the_first_packet_is_not_lost() {
    let mut machine = Machine::new();
    let _server = TcpServer::start(&machine.host, "[::]:80");
    // While the bridge has a pod it has a carrier; else it loses that when the kernel deletes the last pod's link.
    let _other = machine.pod(&[]);
    let mut late = Vec::new();
    for _ in 0..50 {
        let pod = machine.pod(&[]);
        let begin = Instant::now();
        ask(&pod.namespace, address("10.231.1.1"), 80).unwrap();
        ask(&pod.namespace, address("fd31:1::1"), 80).unwrap();
        // A lost SYN, ARP request or neighbour advertisement is repeated after a second.
        late.extend(Some(begin.elapsed()).filter(|took| *took >= Duration::from_millis(900)));
        machine.detach(&pod.id);
    }
    assert!(late.len() <= late_rounds_allowed(), "{late:?}");
}

#[test]
fn flushed_tables_are_made_anew() {
    let mut machine = Machine::new();
    let first = machine.pod(&[port(Tcp, 8080, 80, None)]);
    let _server = TcpServer::start(&first.namespace, "[::]:80");
    // Another network of the same table name, closed for good, takes the tables with it.
    machine.host.run(|| {
        let state = tempfile::tempdir().unwrap();
        let settings = config(state.path(), "pwtest1", &["10.231.9.0/24"]);
        podwright_netns::Network::open(settings)
            .unwrap()
            .destroy()
            .unwrap();
    });
    ask(&machine.host, address(HOST_V4), 8080).unwrap_err();
    let second = machine.pod(&[]);
    ask(&second.namespace, address(HOST_V4), 8080).unwrap();
    machine.detach(&first.id);
    machine.detach(&second.id);
}

#[test]
fn pods_are_attached_side_by_side() {
    let mut machine = Machine::new();
    let addresses = machine.with(|network| {
        let host = &std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        std::thread::scope(|scope| {
            let attach = move || {
                nix::sched::setns(host, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                let attach_one = |_| {
                    Namespace::new()
                        .attach(network, &pod_id(), &[])
                        .unwrap()
                        .addresses
                };
                (0..20).map(attach_one).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(attach)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        })
    });
    assert_eq!(addresses.iter().collect::<HashSet<_>>().len(), 80);
    assert_eq!(installed(&mut machine).records, 80);
    assert_eq!(recover(&mut machine, &[]).len(), 80);
    await_nothing(&mut machine);
}

/// The subnets of new pods.
fn subnets_of(machine: &mut Machine) -> Vec<String> {
    let listed = machine.with(|network| network.subnets());
    listed.iter().map(ToString::to_string).collect()
}

#[test]
fn other_subnets_are_for_new_pods_and_hold_over_a_restart() {
    let mut machine = Machine::with_subnets(&["10.231.1.0/24"]);
    let old = machine.pod(&[port(Tcp, 8080, 80, None)]);
    let _server = TcpServer::start(&old.namespace, "[::]:80");
    machine
        .with(|network| network.set_subnets(&["10.231.7.0/24".parse().unwrap()]))
        .unwrap();
    let new = machine.pod(&[]);
    assert_eq!(new.v4().to_string(), "10.231.7.2");
    // The old pod is reached by its port and by the new one; the new one reaches the outside.
    ask(&machine.outside, address(HOST_V4), 8080).unwrap();
    ask(&new.namespace, old.v4(), 80).unwrap();
    machine.open();
    recover(&mut machine, &[&old, &new]);
    assert_eq!(subnets_of(&mut machine), ["10.231.7.0/24"]);
    ask(&new.namespace, old.v4(), 80).unwrap();
    let overlapping = machine
        .with(|network| network.set_subnets(&["10.231.0.0/16".parse().unwrap()]))
        .unwrap_err();
    assert!(
        matches!(overlapping, NetworkError::SubnetInUse { .. }),
        "{overlapping}"
    );
    machine.detach(&new.id);
    machine.detach(&old.id);
    recover(&mut machine, &[]);
    // Nobody is in the old subnet any more: it may overlap now, and come back.
    for subnet in ["10.231.0.0/16", "10.231.1.0/24"] {
        machine
            .with(move |network| network.set_subnets(&[subnet.parse().unwrap()]))
            .unwrap();
    }
    let again = machine.pod(&[]);
    assert_eq!(again.v4().to_string(), "10.231.1.2");
}

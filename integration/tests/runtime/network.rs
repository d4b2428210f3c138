//! Pod networks: localhost, addresses, host ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use podwright_integration::{
    cri::Pod,
    images::HTTPD,
    node::{Node, until},
    pod::{ContainerSpec, PodSpec},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::Code;

const PAGE: &str = "It works!";

/// A pod with a web server on port 80.
async fn server(node: &mut Node, spec: PodSpec) -> Result<Pod> {
    node.cri.pull(HTTPD).await?;
    node.settle()?;
    let pod = node.cri.run_pod(spec).await?;
    node.cri
        .run(&pod, ContainerSpec::new("web").image(HTTPD))
        .await?;
    Ok(pod)
}

/// Waits for the page, because a server that has started does not yet listen.
async fn page(address: SocketAddr) -> Result<()> {
    until(&format!("the page at {address}"), || async {
        let answer = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = answer.await.map_err(|error| error.to_string())?;
        if answer.contains(PAGE) {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await
}

async fn addresses(node: &Node, pod: &Pod) -> Result<Vec<IpAddr>> {
    let network = node
        .cri
        .pod_status(&pod.id)
        .await?
        .network
        .context("no network status")?;
    let more = network.additional_ips.into_iter().map(|more| more.ip);
    let all = [network.ip].into_iter().chain(more);
    all.map(|ip| ip.parse().with_context(|| format!("{ip:?} is no address")))
        .collect()
}

#[tokio::test]
async fn containers_of_a_pod_share_localhost() -> Result<()> {
    let mut node = Node::start().await?;
    let pod = server(&mut node, PodSpec::new("pod")).await?;
    let client = node.cri.run(&pod, ContainerSpec::new("client")).await?;
    until("the page on localhost", || async {
        node.cri
            .shell(&client, "wget -q -O - http://127.0.0.1/")
            .await
            .map_err(|e| e.to_string())
    })
    .await?;
    node.finish().await
}

/// The network sets its pods' links; what a pod asks for goes before, and holds for its link too.
#[tokio::test]
async fn what_a_pod_asks_of_its_link_wins() -> Result<()> {
    let node = Node::start().await?;
    let asking = |name| PodSpec::new(name).sysctl("net.ipv6.conf.default.accept_ra", "2");
    for (spec, expected) in [
        (PodSpec::new("plain"), "0\n0\n"),
        (asking("asking"), "2\n0\n"),
    ] {
        let pod = node.cri.run_pod(spec).await?;
        let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
        let script = "cd /proc/sys/net/ipv6/conf/eth0; cat accept_ra accept_dad";
        assert_eq!(node.cri.shell(&id, script).await?, expected);
    }
    node.finish().await
}

#[tokio::test]
async fn a_pod_answers_at_both_its_addresses() -> Result<()> {
    let mut node = Node::start().await?;
    let pod = server(&mut node, PodSpec::new("pod")).await?;
    let addresses = addresses(&node, &pod).await?;
    assert!(addresses.iter().any(IpAddr::is_ipv4) && addresses.iter().any(IpAddr::is_ipv6));
    for address in addresses {
        assert!(
            node.daemon.slot().owns(address),
            "{address} is not of this node's ranges"
        );
        page(SocketAddr::new(address, 80)).await?;
    }
    node.finish().await
}

#[tokio::test]
async fn pods_reach_each_other() -> Result<()> {
    let mut node = Node::start().await?;
    let pod = server(&mut node, PodSpec::new("web")).await?;
    let other = node.cri.run_pod(PodSpec::new("client")).await?;
    let client = node.cri.run(&other, ContainerSpec::new("client")).await?;
    for address in addresses(&node, &pod).await? {
        let url = format!("http://{}/", SocketAddr::new(address, 80));
        until(&url, || async {
            let script = format!("wget -q -O - '{url}'");
            node.cri
                .shell(&client, &script)
                .await
                .map_err(|error| error.to_string())
        })
        .await?;
    }
    node.finish().await
}

#[tokio::test]
async fn a_host_port_leads_to_the_pod() -> Result<()> {
    let mut node = Node::start().await?;
    let port = node.daemon.slot().host_port(0);
    let pod = server(&mut node, PodSpec::new("pod").port(80, port)).await?;
    let port = u16::try_from(port)?;
    page(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)).await?;
    node.cri.stop_pod(&pod.id).await?;
    let closed = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    assert!(closed.is_err(), "the port is open after the pod's stop");
    node.finish().await
}

#[tokio::test]
async fn a_pod_with_the_hosts_network_has_its_links() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod").host_network()).await?;
    let id = node.cri.run(&pod, ContainerSpec::new("c")).await?;
    let links = node.cri.shell(&id, "ls /sys/class/net").await?;
    assert!(
        links
            .lines()
            .any(|link| link == node.daemon.slot().bridge()),
        "{links}"
    );
    node.finish().await
}

#[tokio::test]
async fn addresses_are_given_back() -> Result<()> {
    let node = Node::start().await?;
    let [v4, v6] = node.daemon.slot().subnets();
    let range = v4.replace(".0/24", ".0/27");
    node.cri.give_pod_cidr(&format!("{range},{v6}")).await?;
    // More pods than a /27 has addresses.
    for _ in 0..3 {
        let pods = (0..15).map(|_| node.cri.run_pod(PodSpec::new("pod")));
        let pods = futures_util::future::join_all(pods).await;
        let pods = pods.into_iter().collect::<Result<Vec<_>, _>>()?;
        let removed = pods.iter().map(|pod| async {
            node.cri.stop_pod(&pod.id).await?;
            node.cri.remove_pod(&pod.id).await
        });
        futures_util::future::try_join_all(removed).await?;
    }
    node.finish().await
}

/// The two halves of a slot's own subnets, so that no other test's are touched.
fn halves(node: &Node) -> [String; 2] {
    let [v4, v6] = node.daemon.slot().subnets();
    let v6 = v6.replace("::/64", ":");
    let low = v4.replace(".0/24", ".0/25");
    let high = v4.replace(".0/24", ".128/25");
    [format!("{low},{v6}:/65"), format!("{high},{v6}8000::/65")]
}

#[tokio::test]
async fn the_cluster_gives_the_pods_addresses() -> Result<()> {
    let mut node = Node::start().await?;
    let [low, high] = halves(&node);
    node.cri.give_pod_cidr(&low).await?;
    let pod = server(&mut node, PodSpec::new("old")).await?;
    node.cri.give_pod_cidr(&low).await?;
    let old = addresses(&node, &pod).await?;
    node.cri.give_pod_cidr(&high).await?;
    node.daemon.kill9().await?;
    node.daemon.restart().await?;
    assert_eq!(
        addresses(&node, &pod).await?,
        old,
        "a pod keeps its addresses"
    );
    for address in &old {
        page(SocketAddr::new(*address, 80)).await?;
    }
    let new = node.cri.run_pod(PodSpec::new("new")).await?;
    let client = node.cri.run(&new, ContainerSpec::new("client")).await?;
    let given = addresses(&node, &new).await?;
    let IpAddr::V4(first) = given[0] else {
        anyhow::bail!("{given:?} begins with no IPv4 address");
    };
    assert!(first.octets()[3] > 128, "{given:?} is of the old range");
    // Pods of both ranges reach each other.
    let fetched = node
        .cri
        .shell(&client, &format!("wget -q -O - http://{}/", old[0]))
        .await?;
    assert!(fetched.contains(PAGE), "{fetched}");
    node.cri.remove_all_pods().await?;
    // With nobody left in them, the slot's own ranges can come back as they were.
    node.cri
        .give_pod_cidr(&node.daemon.slot().subnets().join(","))
        .await?;
    node.finish().await
}

#[tokio::test]
async fn a_pod_cidr_that_is_none_changes_nothing() -> Result<()> {
    let node = Node::start().await?;
    node.cri.give_pod_cidr("").await?;
    let long = "1".repeat(100_000);
    for bad in [
        "10.0.0.1/24",
        "10.0.0.0/33",
        "here",
        "10.1.0.0/24,10.2.0.0/24",
        "10.1.0.0/31",
        &long,
    ] {
        let refused = node.cri.give_pod_cidr(bad).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().len() < 500, "{refused}");
    }
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let all = addresses(&node, &pod).await?;
    assert!(all.iter().all(|address| node.daemon.slot().owns(*address)));
    // A range around one of which pods have addresses would have two gateways.
    let wide = "10.0.0.0/8";
    let refused = node.cri.give_pod_cidr(wide).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    node.finish().await
}

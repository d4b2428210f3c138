//! Every call of the CRI is there: each answers an empty request and a sensible one. The list of calls is
//! the compiled descriptor's, so none can be forgotten.

mod raw;
mod requests;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use podwright_cri_api::{FILE_DESCRIPTOR_SET, client};
use podwright_integration::{
    node::Node,
    pod::{ContainerSpec, PodSpec},
};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status};

use raw::Calls;
use requests::{Expected, World};

/// The paths of all calls, in the descriptor's order: `runtime.v1.RuntimeService/Version`.
fn calls() -> Result<Vec<String>> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)?;
    let mut calls = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let service_name = format!("{}.{}", file.package(), service.name());
            let methods = service.method.iter();
            calls.extend(methods.map(|method| format!("{service_name}/{}", method.name())));
        }
    }
    ensure!(calls.len() == 43, "the CRI has 43 calls: {calls:?}");
    Ok(calls)
}

async fn connect(socket: &Path) -> Result<Calls> {
    let channel = client::channel(socket);
    Ok(Calls::new(channel.await.context("connecting")?))
}

#[tokio::test]
async fn every_call_answers_an_empty_request() -> Result<()> {
    let node = Node::start().await?;
    let mut daemon = connect(&node.daemon.socket()).await?;
    let expected = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::FailedPrecondition,
    ];
    let mut problems = Vec::new();
    for call in calls()? {
        match daemon.call(&call, Bytes::new()).await {
            Err(status) if !expected.contains(&status.code()) => {
                problems.push(format!("{call}: {:?}", status.code()));
            }
            _ => {}
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    node.finish().await
}

#[tokio::test]
async fn every_call_answers_a_sensible_request() -> Result<()> {
    let node = Node::start().await?;
    let world = world(&node).await?;
    let mut daemon = connect(&node.daemon.socket()).await?;
    let mut problems = Vec::new();
    for call in calls()? {
        let name = call.rsplit('/').next().unwrap_or_default();
        let (request, expected) =
            requests::of(name, &world).with_context(|| format!("no request for {call}"))?;
        let answer = daemon.call(&call, request).await;
        problems.extend(problem(&answer, expected).map(|why| format!("{call}: {why}")));
    }
    assert!(problems.is_empty(), "{problems:#?}");
    node.finish().await
}

/// Why an answer is not as expected.
fn problem(answer: &Result<Bytes, Status>, expected: Expected) -> Option<String> {
    match (answer, expected) {
        (Ok(_), _) => None,
        (Err(status), Expected::DoneOrLacking(what))
            if status.code() == Code::FailedPrecondition =>
        {
            let named = status.message().to_lowercase().contains(what);
            (!named).then(|| format!("{:?} does not name {what}", status.message()))
        }
        (Err(status), _) => Some(format!("{:?}: {}", status.code(), status.message())),
    }
}

async fn world(node: &Node) -> Result<World> {
    let cri = &node.cri;
    let pod = cri.run_pod(PodSpec::new("calls")).await?;
    let doomed_pod = cri.run_pod(PodSpec::new("doomed")).await?;
    Ok(World {
        container: cri.run(&pod, ContainerSpec::new("runs")).await?,
        created: cri.create(&pod, ContainerSpec::new("created")).await?,
        doomed: cri.run(&pod, ContainerSpec::new("doomed")).await?,
        doomed_pod: doomed_pod.id,
        pod,
        logs: node.daemon.slot().path("logs"),
        scratch: tempfile::tempdir()?,
    })
}

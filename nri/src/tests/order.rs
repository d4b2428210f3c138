//! Plugins that do as they should: who is asked when, and what comes of their answers.

use std::sync::Arc;

use prost::Message as _;

use super::peer::{PATIENCE, Peer, new_container, nri, until};
use crate::api::*;
use crate::ttrpc::Request;
use crate::{Inventory, NriError};

fn request<T: prost::Message + Default>(read: &super::peer::Read) -> T {
    let request = Request::decode(&*read.body).unwrap();
    assert!(
        request.timeout_nano > 0,
        "a plugin is told how long it may take"
    );
    T::decode(&*request.payload).unwrap()
}

#[tokio::test]
async fn plugins_are_asked_in_the_order_of_their_indices_and_see_what_the_earlier_ones_want() {
    let (nri, _) = nri(PATIENCE, |_| {}).await;
    let events = EventSet::EMPTY.with(Event::CreateContainer);
    let mut second = Peer::join(&nri, "20", "a", events).await;
    let mut first = Peer::join(&nri, "10", "b", events).await;
    let mut uninterested =
        Peer::join(&nri, "15", "c", EventSet::EMPTY.with(Event::StopContainer)).await;
    until("all to be there", || {
        nri.plugins() == ["10-b", "15-c", "20-a"]
    })
    .await;
    let asked = {
        let nri = nri.clone();
        let (pod, container) = new_container();
        tokio::spawn(async move { nri.create_container(pod, container).await })
    };
    let to_first = first.expect("CreateContainer").await;
    let mut answer = CreateContainerResponse::default();
    let adjustment = answer.adjust.get_or_insert_default();
    adjustment.env.push(KeyValue {
        key: "A".into(),
        value: "1".into(),
    });
    first.answer(&to_first, &answer).await;
    let to_second = second.expect("CreateContainer").await;
    let seen: CreateContainerRequest = request(&to_second);
    assert_eq!(seen.container.unwrap().env, ["A=1"]);
    second.answer(&to_second, &answer).await;
    let error = asked.await.unwrap().unwrap_err();
    assert!(matches!(&error, NriError::Conflict { .. }));
    let text = error.to_string();
    assert!(
        text.contains("10-b") && text.contains("20-a") && text.contains("Env"),
        "{text}"
    );
    // Nothing but what it asked for has come to the third.
    let (pod, container) = new_container();
    let stopped = tokio::spawn(async move { nri.stop_container(pod, container).await });
    let to_third = uninterested.expect("StopContainer").await;
    uninterested
        .answer(&to_third, &StopContainerResponse::default())
        .await;
    assert!(stopped.await.unwrap().is_ok());
}

#[tokio::test]
async fn what_happens_while_a_plugin_is_synchronized_comes_after_it() {
    let (nri, host) = nri(PATIENCE, |_| {}).await;
    let many = Inventory {
        pods: (0..3000)
            .map(|id| PodSandbox {
                id: id.to_string(),
                name: "p".repeat(4000),
                ..PodSandbox::default()
            })
            .collect(),
        containers: Vec::new(),
    };
    *host.inventory.lock().unwrap() = many;
    let mut peer = Peer::connect(&nri);
    peer.register("10", "p").await;
    peer.configure(EventSet::ALL).await;
    let mut read = peer.expect("Synchronize").await;
    let (pod, _) = new_container();
    let told = tokio::spawn(async move { nri.pod_event(Event::RunPodSandbox, pod).await });
    let mut pods = 0;
    loop {
        let list: SynchronizeRequest = request(&read);
        pods += list.pods.len();
        let answer = SynchronizeResponse {
            more: list.more,
            ..SynchronizeResponse::default()
        };
        peer.answer(&read, &answer).await;
        if !list.more {
            break;
        }
        read = peer.expect("Synchronize").await;
    }
    assert_eq!(pods, 3000);
    let event = peer.expect("RunPodSandbox").await;
    let event: RunPodSandboxRequest = request(&event);
    assert_eq!(event.pod.unwrap().id, "pod");
    drop(peer);
    assert!(
        told.await.unwrap().is_ok(),
        "a plugin that leaves refuses nothing"
    );
}

#[tokio::test]
async fn a_plugin_that_takes_no_split_lists_is_sent_away() {
    let (nri, host) = nri(PATIENCE, |_| {}).await;
    let pod = PodSandbox {
        name: "p".repeat(3 << 20),
        ..PodSandbox::default()
    };
    host.inventory.lock().unwrap().pods = vec![pod.clone(), pod];
    let mut peer = Peer::join(&nri, "10", "old", EventSet::ALL).await;
    peer.ended().await;
}

#[tokio::test]
async fn an_old_plugin_is_told_by_state_changes() {
    let (nri, _) = nri(PATIENCE, |_| {}).await;
    let mut old = Peer::join(&nri, "10", "old", EventSet::ALL).await;
    for round in 0..2 {
        let told = {
            let nri = nri.clone();
            let (pod, container) = new_container();
            tokio::spawn(async move {
                nri.container_event(Event::StartContainer, pod, container)
                    .await
            })
        };
        if round == 0 {
            let unknown = old.expect("StartContainer").await;
            old.refuse(&unknown, 12, "unknown method").await;
        }
        let change = old.expect("StateChange").await;
        let event: StateChangeEvent = request(&change);
        assert_eq!(event.event(), Event::StartContainer);
        assert_eq!(event.container.unwrap().id, "new");
        old.answer(&change, &Empty {}).await;
        told.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_refusal_fails_the_call_in_the_plugins_words() {
    let (nri, _) = nri(PATIENCE, |_| {}).await;
    let mut strict = Peer::join(&nri, "10", "strict", EventSet::ALL).await;
    let told = {
        let nri = nri.clone();
        let (pod, _) = new_container();
        tokio::spawn(async move { nri.pod_event(Event::RunPodSandbox, pod).await })
    };
    let asked = strict.expect("RunPodSandbox").await;
    strict.refuse(&asked, 2, "not on my node").await;
    let error = told.await.unwrap().unwrap_err().to_string();
    assert!(
        error.contains("10-strict") && error.contains("not on my node"),
        "{error}"
    );
    assert_eq!(nri.plugins(), ["10-strict"], "it may say no again");
}

#[tokio::test]
async fn plugins_update_containers_whenever_they_like() {
    let (nri, host) = nri(PATIENCE, |_| {}).await;
    let mut peer = Peer::join(&nri, "10", "p", EventSet::ALL).await;
    let update = |id: &str, ignore_failure| ContainerUpdate {
        container_id: id.into(),
        linux: None,
        ignore_failure,
    };
    let updates = UpdateContainersRequest {
        update: vec![
            update("a", false),
            update("unknown", false),
            update("unknown", true),
        ],
        evict: Vec::new(),
    };
    peer.call(3, "UpdateContainers", &updates).await;
    let answer = peer.read().await.unwrap();
    let answer = crate::ttrpc::Response::decode(&*answer.body).unwrap();
    let answer = UpdateContainersResponse::decode(&*answer.payload).unwrap();
    assert_eq!(answer.failed, [update("unknown", false)]);
    assert_eq!(host.updates.lock().unwrap().len(), 3);
    peer.call(5, "Nonsense", &Empty {}).await;
    let answer = peer.read().await.unwrap();
    let answer = crate::ttrpc::Response::decode(&*answer.body).unwrap();
    assert_eq!(answer.status.unwrap().code, 12);
}

#[tokio::test]
async fn no_plugin_takes_part_in_the_middle_of_a_creation() {
    let (nri, host) = nri(PATIENCE, |_| {}).await;
    let gate = nri.hold().await;
    let mut peer = Peer::connect(&nri);
    peer.register("10", "p").await;
    peer.configure(EventSet::ALL).await;
    // What is made now is listed before the gate opens.
    host.inventory
        .lock()
        .unwrap()
        .pods
        .push(PodSandbox::default());
    assert!(nri.plugins().is_empty());
    drop(gate);
    let list: SynchronizeRequest = request(&peer.expect("Synchronize").await);
    assert_eq!(list.pods.len(), 1);
    assert_eq!(nri.plugins(), ["10-p"]);
    drop(Arc::clone(&host));
}

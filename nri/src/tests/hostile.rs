//! Plugins that hang, die, lie or flood: each is got rid of, and nobody else notices.

use std::time::{Duration, Instant};

use super::peer::{PATIENCE, Peer, new_container, nri, until};
use crate::NriError;
use crate::api::*;
use crate::plugin::MAX_MISSES;
use crate::ttrpc::{MAX_BODY, Response};
use prost::Message as _;

/// How long a plugin may take that will not answer.
const SHORT: Duration = Duration::from_millis(300);

fn creation() -> EventSet {
    EventSet::EMPTY.with(Event::CreateContainer)
}

#[tokio::test]
async fn a_hanging_plugin_costs_a_bounded_time_and_is_disconnected() {
    let (nri, _) = nri(SHORT, |_| {}).await;
    let mut hanging = Peer::join(&nri, "10", "hang", creation()).await;
    let start = Instant::now();
    for _ in 0..MAX_MISSES {
        let (pod, container) = new_container();
        assert!(nri.create_container(pod, container).await.is_ok());
    }
    assert!(start.elapsed() < PATIENCE);
    hanging.ended().await;
    until("the plugin to be forgotten", || nri.plugins().is_empty()).await;
    assert!(!nri.wants(Event::CreateContainer));
}

#[tokio::test]
async fn a_slow_moment_is_forgiven_and_the_late_answer_forgotten() {
    let (nri, _) = nri(SHORT, |_| {}).await;
    let mut slow = Peer::join(&nri, "10", "slow", creation()).await;
    let create = || {
        let nri = nri.clone();
        let (pod, container) = new_container();
        tokio::spawn(async move { nri.create_container(pod, container).await })
    };
    let missed = create();
    let late = slow.expect("CreateContainer").await;
    assert_eq!(
        missed.await.unwrap().unwrap().adjustment,
        ContainerAdjustment::default()
    );
    let mut answer = CreateContainerResponse::default();
    answer.adjust.get_or_insert_default().args = vec!["late".into()];
    slow.answer(&late, &answer).await;
    for _ in 0..=MAX_MISSES {
        let asked = create();
        let request = slow.expect("CreateContainer").await;
        answer.adjust.get_or_insert_default().args = vec!["in time".into()];
        slow.answer(&request, &answer).await;
        assert_eq!(asked.await.unwrap().unwrap().adjustment.args, ["in time"]);
    }
    assert_eq!(nri.plugins(), ["10-slow"]);
}

#[tokio::test]
async fn a_dying_plugin_fails_no_creation_but_where_it_is_required() {
    for (required, created) in [(false, true), (true, false)] {
        let (nri, _) = nri(PATIENCE, |config| {
            if required {
                config.required_plugins = vec!["dies".into()];
            }
        })
        .await;
        let mut dying = Peer::join(&nri, "10", "dies", creation()).await;
        let asked = {
            let nri = nri.clone();
            let (pod, container) = new_container();
            tokio::spawn(async move { nri.create_container(pod, container).await })
        };
        dying.expect("CreateContainer").await;
        drop(dying);
        let result = asked.await.unwrap();
        assert_eq!(result.is_ok(), created, "{result:?}");
        until("the plugin to be forgotten", || nri.plugins().is_empty()).await;
        let (pod, container) = new_container();
        let later = nri.create_container(pod, container).await;
        assert_eq!(later.is_ok(), created);
        if let Err(error) = later {
            assert!(matches!(error, NriError::RequiredMissing { .. }) && error.is_transient());
        }
    }
}

#[tokio::test]
async fn rubbish_for_an_answer_ends_the_plugin() {
    let (nri, _) = nri(PATIENCE, |_| {}).await;
    let mut liar = Peer::join(&nri, "10", "liar", creation()).await;
    let mut honest = Peer::join(&nri, "20", "honest", creation()).await;
    let asked = {
        let nri = nri.clone();
        let (pod, container) = new_container();
        tokio::spawn(async move { nri.create_container(pod, container).await })
    };
    let request = liar.expect("CreateContainer").await;
    let rubbish = Response {
        status: None,
        payload: vec![0xff; 100],
    };
    liar.message(1, request.stream, 2, &rubbish.encode_to_vec())
        .await
        .unwrap();
    let request = honest.expect("CreateContainer").await;
    let mut answer = CreateContainerResponse::default();
    answer.adjust.get_or_insert_default().args = vec!["sh".into()];
    honest.answer(&request, &answer).await;
    assert_eq!(asked.await.unwrap().unwrap().adjustment.args, ["sh"]);
    liar.ended().await;
    until("one to be left", || nri.plugins() == ["20-honest"]).await;
}

#[tokio::test]
async fn every_breach_of_the_protocol_ends_the_connection() {
    let header = |channel: u32, length: u32| [channel.to_be_bytes(), length.to_be_bytes()].concat();
    let message = |channel: u32, stream: u32, kind: u8, length: usize| {
        let mut bytes = header(channel, 10);
        bytes.extend_from_slice(&(length as u32).to_be_bytes());
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&[kind, 0]);
        bytes
    };
    let breaches = [
        ("a giant frame", header(1, u32::MAX)),
        (
            "a frame that is a little too large",
            header(2, (MAX_BODY + 11) as u32),
        ),
        ("a giant message", message(1, 1, 2, MAX_BODY + 1)),
        ("an answer to no call", message(1, 999, 2, 0)),
        ("an answer of an even number", message(1, 2, 2, 0)),
        ("a request where answers are", message(1, 1, 1, 0)),
        ("stream data", message(2, 101, 3, 0)),
        ("an answer where requests are", message(2, 101, 2, 0)),
        ("a call of an even number", message(2, 102, 1, 0)),
        ("a call with an old number", message(2, 1, 1, 0)),
        ("text", b"GET / HTTP/1.1\r\n\r\n".repeat(4)),
    ];
    let (nri, _) = nri(PATIENCE, |_| {}).await;
    for (what, bytes) in breaches {
        let mut peer = Peer::join(&nri, "10", "breaker", EventSet::ALL).await;
        peer.raw(&bytes).await.unwrap();
        tokio::time::timeout(PATIENCE, peer.ended())
            .await
            .expect(what);
        until(what, || nri.plugins().is_empty()).await;
    }
}

#[tokio::test]
async fn frames_of_other_connections_are_passed_over() {
    let (nri, _) = nri(PATIENCE, |_| {}).await;
    let mut peer = Peer::connect(&nri);
    peer.frame(7, &[1; 100_000]).await.unwrap();
    peer.register("10", "odd").await;
    peer.configure(EventSet::ALL).await;
    peer.expect("Synchronize").await;
}

#[tokio::test]
async fn a_plugin_that_does_not_read_is_disconnected_and_memory_is_bounded() {
    let (nri, _) = nri(PATIENCE, |_| {}).await;
    let mut flood = Peer::join(&nri, "10", "flood", creation()).await;
    let mut stream = 3;
    // Each call has an answer, which nobody reads: at some time it is enough.
    let flooding = async {
        loop {
            let request = crate::ttrpc::Request {
                service: "x".repeat(1000),
                method: "y".into(),
                ..Default::default()
            };
            if flood
                .message(2, stream, 1, &request.encode_to_vec())
                .await
                .is_err()
            {
                return;
            }
            stream += 2;
        }
    };
    tokio::time::timeout(PATIENCE, flooding)
        .await
        .expect("the flood to be cut off");
    until("the plugin to be forgotten", || nri.plugins().is_empty()).await;
}

#[tokio::test]
async fn answers_that_nobody_waits_for_are_counted() {
    let (nri, _) = nri(PATIENCE, |_| {}).await;
    let mut peer = Peer::join(&nri, "10", "echo", creation()).await;
    let flooding = async {
        // Call 1 was Configure.
        while peer.message(1, 1, 2, &[]).await.is_ok() {}
    };
    tokio::time::timeout(PATIENCE, flooding)
        .await
        .expect("the flood to be cut off");
}

#[tokio::test]
async fn who_does_not_register_properly_is_sent_away() {
    let (nri, _) = nri(SHORT, |_| {}).await;
    let mut silent = Peer::connect(&nri);
    silent.ended().await;
    for (index, name) in [("1", "a"), ("xx", "a"), ("10", ""), ("10", "a/b")] {
        let mut nameless = Peer::connect(&nri);
        nameless.register(index, name).await;
        nameless.ended().await;
    }
    let mut greedy = Peer::connect(&nri);
    greedy.register("10", "greedy").await;
    greedy.configure(EventSet::from_bits(1 << 20)).await;
    greedy.ended().await;
    let mut deaf = Peer::connect(&nri);
    deaf.register("10", "deaf").await;
    deaf.configure(EventSet::ALL).await;
    deaf.ended().await;
    until("nobody to be left", || nri.plugins().is_empty()).await;
}

#[tokio::test]
async fn validating_plugins_that_do_not_answer_let_nothing_pass() {
    let (nri, _) = nri(SHORT, |_| {}).await;
    let events = EventSet::EMPTY.with(Event::ValidateContainerAdjustment);
    let _silent = Peer::join(&nri, "10", "judge", events).await;
    let (pod, container) = new_container();
    let verdict = nri.create_container(pod, container).await;
    assert!(
        matches!(verdict, Err(NriError::NotValidated { .. })),
        "{verdict:?}"
    );
}

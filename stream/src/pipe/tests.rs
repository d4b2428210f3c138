//! Both ends of the queues, without a socket.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

fn bell() -> Bell {
    Bell::new(&Arc::default(), 1)
}

async fn room(feed: &Feed) -> usize {
    std::future::poll_fn(|cx| feed.poll_room(cx)).await
}

#[tokio::test]
async fn data_and_the_end_of_file_arrive() {
    let (feed, mut incoming) = incoming(bell());
    feed.push(Bytes::from_static(b"hello "));
    feed.push(Bytes::from_static(b"world"));
    feed.finish();
    let mut text = String::new();
    incoming.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello world");
    assert_eq!(feed.take_consumed(), 11);
}

#[tokio::test]
async fn a_feed_that_breaks_off_is_an_error() {
    let (feed, mut incoming) = incoming(bell());
    feed.push(Bytes::from_static(b"lost"));
    drop(feed);
    let error = incoming.chunk().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_full_queue_has_no_room_until_it_is_read() {
    let (feed, mut incoming) = incoming(bell());
    feed.push(vec![1; CAPACITY].into());
    assert!(room(&feed).now_or_never().is_none());
    let mut half = vec![0; CAPACITY / 2];
    incoming.read_exact(&mut half).await.unwrap();
    assert_eq!(room(&feed).await, CAPACITY / 2);
}

#[tokio::test]
async fn what_nobody_reads_is_discarded_and_counts_as_consumed() {
    let (feed, incoming) = incoming(bell());
    feed.push(vec![1; 1_000].into());
    drop(incoming);
    for _ in 0..100 {
        assert_eq!(room(&feed).now_or_never(), Some(CAPACITY));
        feed.push(vec![1; CHUNK].into());
    }
    assert_eq!(feed.take_consumed(), 1_000 + 100 * CHUNK);
}

#[tokio::test]
async fn writing_waits_when_nobody_drains() {
    let (drain, mut outgoing) = outgoing(bell());
    let data = vec![7; CAPACITY + 1];
    assert!(outgoing.write_all(&data).now_or_never().is_none());
    assert_eq!(drain.level(), Level::Some);
    let mut drained = 0;
    while let Some(chunk) = drain.pop(CHUNK) {
        drained += chunk.len();
    }
    assert_eq!(drained, CAPACITY);
    assert_eq!(drain.level(), Level::Empty);
    outgoing.write_all(b"x").now_or_never().unwrap().unwrap();
    outgoing.shutdown().await.unwrap();
    assert_eq!(drain.level(), Level::Some);
    assert_eq!(drain.pop(CHUNK).unwrap(), "x");
    assert_eq!(drain.level(), Level::Finished);
    assert!(outgoing.write_all(b"y").await.is_err());
}

#[tokio::test]
async fn a_writer_that_waits_learns_of_the_end() {
    let (drain, mut outgoing) = outgoing(bell());
    let writer = tokio::spawn(async move { outgoing.send(vec![7; 2 * CAPACITY].into()).await });
    tokio::task::yield_now().await;
    drop(drain);
    let error = writer.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn each_stream_rings_once_until_it_is_answered() {
    let doorbell: Arc<Doorbell> = Arc::default();
    let (one, two) = (Bell::new(&doorbell, 1), Bell::new(&doorbell, 2));
    one.ring();
    one.ring();
    two.ring();
    doorbell.wait().await;
    let mut rung = Default::default();
    doorbell.take(&mut rung);
    assert_eq!(rung, [1, 2]);
    one.answer();
    one.ring();
    two.ring();
    rung.clear();
    doorbell.take(&mut rung);
    assert_eq!(rung, [1]);
}

#[tokio::test]
async fn what_is_written_after_all_was_taken_comes_apart() {
    let (drain, mut outgoing) = outgoing(bell());
    outgoing.taken().await.unwrap();
    outgoing.write_all(b"name").await.unwrap();
    assert!(outgoing.taken().now_or_never().is_none());
    let writing = async {
        outgoing.taken().await.unwrap();
        outgoing.write_all(b"error").await.unwrap();
    };
    let taking = async { drain.pop(CHUNK) };
    let ((), first) = tokio::join!(writing, taking);
    assert_eq!(first.unwrap(), "name");
    assert_eq!(drain.pop(CHUNK).unwrap(), "error");
    outgoing.write_all(b"lost").await.unwrap();
    drop(drain);
    let error = outgoing.taken().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

//! Log files: their format, long lines, both streams, rotation.

use std::fs;

use anyhow::Result;
use podwright_integration::{
    log::{self, Stream, Tag},
    node::{Node, until},
    pod::{ContainerSpec, PodSpec},
};
use tonic::Code;

#[tokio::test]
async fn both_streams_are_recorded_in_order() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let script = "for i in 1 2 3; do echo out $i; done; echo err >&2; printf 'no newline'";
    let id = node
        .cri
        .run(&pod, ContainerSpec::new("c").shell(script))
        .await?;
    node.cri.wait_exit(&id).await?;
    let lines = node.cri.logs(&id).await?;
    let of = |stream: Stream| -> Vec<_> {
        let lines = lines.iter().filter(|line| line.stream == stream);
        lines.map(|line| (line.tag, line.text.as_str())).collect()
    };
    let out = of(Stream::Stdout);
    assert_eq!(
        out[..3],
        [
            (Tag::Full, "out 1"),
            (Tag::Full, "out 2"),
            (Tag::Full, "out 3")
        ]
    );
    assert_eq!(
        out[3].1, "no newline",
        "a last line without its newline is not lost"
    );
    assert_eq!(of(Stream::Stderr), [(Tag::Full, "err")]);
    assert!(
        lines.is_sorted_by_key(|line| line.time.clone()),
        "{lines:?}"
    );
    node.finish().await
}

#[tokio::test]
async fn lines_over_16_kib_are_split_and_join_again() -> Result<()> {
    const LIMIT: usize = 16 * 1024;
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let lengths = [LIMIT - 1, LIMIT, LIMIT + 1, 3 * LIMIT + 7];
    let script: String = lengths
        .iter()
        .map(|length| format!("head -c {length} /dev/zero | tr '\\0' x; echo;"))
        .collect();
    let id = node
        .cri
        .run(&pod, ContainerSpec::new("c").shell(&script))
        .await?;
    node.cri.wait_exit(&id).await?;
    let mut joined = vec![0];
    for line in node.cri.logs(&id).await? {
        assert!(
            line.text.len() <= LIMIT,
            "a record of {} bytes",
            line.text.len()
        );
        *joined.last_mut().unwrap() += line.text.len();
        if line.tag == Tag::Full {
            joined.push(0);
        }
    }
    assert_eq!(joined[..joined.len() - 1], lengths);
    node.finish().await
}

#[tokio::test]
async fn a_reopened_log_goes_on_in_the_new_file() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let script = "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); [ $((i % 30)) = 0 ] && sleep 0.01; done";
    let id = node
        .cri
        .run(&pod, ContainerSpec::new("c").shell(script))
        .await?;
    let path = node.cri.log_path(&id).await?;
    let mut rotated = Vec::new();
    for rotation in 0..4 {
        until("more output", || async {
            let length = fs::metadata(&path)
                .map_err(|error| error.to_string())?
                .len();
            if length > 0 {
                Ok(())
            } else {
                Err("the log is empty".to_owned())
            }
        })
        .await?;
        let old = path.with_extension(format!("log.{rotation}"));
        fs::rename(&path, &old)?;
        node.cri.reopen_log(&id).await?;
        rotated.push(old);
    }
    node.cri.wait_exit(&id).await?;
    rotated.push(path);
    let mut numbers = Vec::new();
    for file in &rotated {
        numbers.extend(log::read(file)?.into_iter().map(|line| line.text));
    }
    let expected: Vec<_> = (0..3000).map(|number| number.to_string()).collect();
    assert_eq!(
        numbers, expected,
        "no record is lost, doubled or torn by rotation"
    );
    node.finish().await
}

#[tokio::test]
async fn only_a_running_containers_log_reopens() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node
        .cri
        .run(&pod, ContainerSpec::new("c").shell("exit 0"))
        .await?;
    node.cri.wait_exit(&id).await?;
    let refused = node.cri.reopen_log(&id).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    node.finish().await
}

#[tokio::test]
async fn a_log_stays_when_its_container_goes() -> Result<()> {
    let node = Node::start().await?;
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    let id = node
        .cri
        .run(&pod, ContainerSpec::new("c").shell("echo here"))
        .await?;
    node.cri.wait_exit(&id).await?;
    let path = node.cri.log_path(&id).await?;
    node.cri.remove(&id).await?;
    assert_eq!(log::read(&path)?[0].text, "here");
    node.finish().await
}

//! Clients at containers' main processes.

use std::time::{Duration, Instant};

use anyhow::Result;
use podwright_cri_api::v1::ContainerState;
use podwright_integration::{
    node::until,
    patience::patience,
    pod::ContainerSpec,
    stream::{ALL, IN_OUT, OUT, Part, RESIZE, Running, STDIN, Session, TTY, Terminal, Transport},
};
use tonic::Code;

use super::{SHELL, crictl, ensure_contains, reading, sleeping, with};

#[tokio::test]
async fn clients_and_the_log_get_the_same() -> Result<()> {
    let script = r#"while read x && [ "$x" != go ]; do echo "got $x"; done; echo out; echo err >&2; printf tail"#;
    let (node, _, id) = with(reading(script)).await?;
    let mut first = node.cri.attach(&id, ALL).await?;
    let mut second = node.cri.attach(&id, OUT).await?;
    type_until_seen(&mut first, "it", &mut second).await?;
    first.send(STDIN, b"go\n").await?;
    for (session, stderr) in [(first, &b"err\n"[..]), (second, &b""[..])] {
        let done = session.finish().await?;
        assert_eq!(done.text().replace("got it\n", ""), "out\ntail");
        assert_eq!(done.stderr, stderr);
        assert_eq!(done.status["status"], "Success", "{}", done.status);
    }
    node.cri.wait_exit(&id).await?;
    let log = node.cri.logs(&id).await?;
    let mut texts: Vec<_> = log.iter().map(|line| line.text.as_str()).collect();
    texts.retain(|text| *text != "got it");
    texts.sort_unstable();
    assert_eq!(texts, ["err", "out", "tail"]);
    node.finish().await
}

#[tokio::test]
async fn input_that_is_open_once_ends_with_its_client() -> Result<()> {
    for how in ["half-closed", "gone"] {
        let mut container = reading("cat; echo end");
        container.config.stdin_once = true;
        let (node, _, id) = with(container).await?;
        let mut session = node.cri.attach(&id, IN_OUT).await?;
        session.send(STDIN, b"said\n").await?;
        session.until_stdout("said\n").await?;
        if how == "half-closed" {
            session.close_stdin().await?;
            // The output goes on to the end.
            assert_eq!(session.finish().await?.text(), "end\n");
        } else {
            drop(session);
        }
        let status = node.cri.wait_exit(&id).await?;
        assert_eq!(status.exit_code, 0, "{how}");
        node.finish().await?;
    }
    Ok(())
}

#[tokio::test]
async fn input_that_stays_open_outlives_clients_and_the_daemon() -> Result<()> {
    let (mut node, _, id) = with(reading("cat")).await?;
    for how in ["half-closed", "gone", "killed"] {
        let mut session = node.cri.attach(&id, IN_OUT).await?;
        session.send(STDIN, b"said\n").await?;
        session.until_stdout("said\n").await?;
        match how {
            "half-closed" => session.close_stdin().await?,
            "gone" => drop(session),
            _ => {
                node.daemon.kill9().await?;
                // The session ends with the daemon; the container does not.
                assert!(session.finish().await.is_err());
                node.daemon.restart().await?;
            }
        }
    }
    let mut session = node.cri.attach(&id, IN_OUT).await?;
    session.send(STDIN, b"again\n").await?;
    session.until_stdout("again\n").await?;
    let status = node.cri.status(&id).await?;
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    node.finish().await
}

/// More than a connection holds.
const LINES: usize = 220_000;

/// Without its end.
const LINE: usize = 100;

#[tokio::test]
async fn a_client_that_reads_nothing_is_dropped_and_the_log_is_whole() -> Result<()> {
    let lines = format!("for (i = 1; i <= {LINES}; i++) printf \"%0{LINE}d\\n\", i");
    let script = format!("read x; awk 'BEGIN {{ {lines} }}'; echo end");
    let (node, _, id) = with(reading(&script)).await?;
    let mut sleeper = node.cri.attach(&id, IN_OUT).await?;
    sleeper.send(STDIN, b"go\n").await?;
    let started = Instant::now();
    let mut reader = node.cri.attach(&id, OUT).await?;
    let read = tokio::spawn(async move {
        let (mut length, mut last) = (0, Vec::new());
        while let Some((_, data)) = reader.receive().await? {
            length += data.len();
            last = data.to_vec();
        }
        anyhow::Ok((length, String::from_utf8_lossy(&last).into_owned()))
    });
    node.cri.wait_exit(&id).await?;
    let took = started.elapsed();
    assert!(took > Duration::from_secs(4), "nobody waited: {took:?}");
    let done = sleeper.finish().await?;
    ensure_contains(&done.status.to_string(), "took nothing")?;
    assert_eq!(done.status["status"], "Failure");
    let whole = LINES * (LINE + 1);
    // The reader came a moment later, and then got all.
    let (length, last) = read.await??;
    assert!(length <= whole + 4 + 200 && length > whole / 2, "{length}");
    ensure_contains(&last, "Success")?;
    let log = node.cri.logs(&id).await?;
    assert_eq!(log.len(), LINES + 1);
    assert!(log[LINES - 1].text.ends_with(&format!("0{LINES}")));
    node.finish().await
}

#[tokio::test]
async fn a_terminal_is_shared_and_resized() -> Result<()> {
    let mut container = reading("trap 'stty size' WINCH; while :; do read x && echo got $x; done");
    container.config.tty = true;
    let (node, _, id) = with(container).await?;
    let mut one = node.cri.attach(&id, TTY).await?;
    let mut two = node.cri.attach(&id, TTY).await?;
    type_until_seen(&mut one, "one", &mut two).await?;
    type_until_seen(&mut two, "two", &mut one).await?;
    one.send(RESIZE, br#"{"Width":99,"Height":44}"#).await?;
    two.until_stdout("44 99").await?;
    // A client without a terminal of its own sees what the terminal shows.
    let mut watching = node.cri.attach(&id, &[Part::Stdout, Part::Stderr]).await?;
    type_until_seen(&mut one, "three", &mut watching).await?;
    node.finish().await
}

/// Has one client type a word and another one see the answer; again, as long as the other one's connection is there and what the
/// container says does not go to it yet.
async fn type_until_seen(typist: &mut Session, word: &str, reader: &mut Session) -> Result<()> {
    let answer = format!("got {word}");
    let end = Instant::now() + patience(Duration::from_secs(30));
    loop {
        typist.send(STDIN, format!("{word}\n").as_bytes()).await?;
        let seen = reader.until_stdout(&answer);
        match tokio::time::timeout(patience(Duration::from_millis(200)), seen).await {
            Ok(seen) => return seen.map(drop),
            Err(_) => anyhow::ensure!(Instant::now() < end, "nobody sees {answer:?}"),
        }
    }
}

#[tokio::test]
async fn requests_that_cannot_succeed_are_refused_at_once() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    for (container, streams, code) in [
        ("", OUT, Code::InvalidArgument),
        ("nosuch", OUT, Code::NotFound),
        (&id, IN_OUT, Code::InvalidArgument),
        (&id, &[Part::Stdout, Part::Tty], Code::InvalidArgument),
        (&id, &[], Code::InvalidArgument),
    ] {
        let refused = node.cri.attach_url(container, streams).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    node.cri.stop(&id, 0).await?;
    let refused = node.cri.attach_url(&id, OUT).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    node.finish().await
}

#[tokio::test]
async fn clients_are_bounded_and_make_room_when_they_go() -> Result<()> {
    let (node, _, id) = with(ContainerSpec::new("c").shell("echo up; sleep 1000")).await?;
    let mut sessions = Vec::new();
    for _ in 0..16 {
        sessions.push(node.cri.attach(&id, OUT).await?);
    }
    let refused = until("a client to be refused", || async {
        let session = node.cri.attach(&id, OUT).await.map_err(|e| e.to_string())?;
        // A client that is attached hears nothing.
        let done =
            tokio::time::timeout(patience(Duration::from_millis(500)), session.finish()).await;
        done.map_err(|_| "it is attached".to_owned())?
            .map_err(|error| error.to_string())
    })
    .await?;
    ensure_contains(&refused.status.to_string(), "as many clients")?;
    sessions.clear();
    until("a client to be attached", || async {
        let session = node.cri.attach(&id, OUT).await.map_err(|e| e.to_string())?;
        match tokio::time::timeout(patience(Duration::from_millis(500)), session.finish()).await {
            Err(_) => Ok(()),
            Ok(ended) => Err(format!("{ended:?}")),
        }
    })
    .await?;
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crictl_attaches_with_pipes_and_in_a_terminal() -> Result<()> {
    for transport in Transport::ALL {
        let mut once = reading("cat; echo end");
        once.config.stdin_once = true;
        let (node, pod, id) = with(once).await?;
        let mut running = Running::start(crictl(&node, transport, "attach", &["-i", &id]).await?)?;
        running.write(b"said\n").await?;
        running.until_stdout("said\n").await?;
        running.close_stdin();
        let (said, _) = running.finish().await?;
        assert_eq!(String::from_utf8_lossy(&said), "end\n", "{transport:?}");

        let mut shell = ContainerSpec::new("shell").shell(SHELL);
        (shell.config.stdin, shell.config.tty) = (true, true);
        let shell = node.cri.run(&pod, shell).await?;
        let command = crictl(&node, transport, "attach", &["-i", "-t", &shell]).await?;
        tokio::task::spawn_blocking(move || -> Result<()> {
            let mut terminal = Terminal::start(&command, 30, 90)?;
            terminal.type_in(
                "echo $((6*7)); until [ \"$(stty size)\" = '30 90' ]; do :; done; echo si''zed\n",
            )?;
            terminal.await_text("42\r\n")?;
            terminal.await_text("sized")?;
            terminal.type_in("exit 3\n")?;
            assert_eq!(terminal.exit_code()?, Some(0), "the attach has ended well");
            Ok(())
        })
        .await??;
        assert_eq!(node.cri.wait_exit(&shell).await?.exit_code, 3);
        node.finish().await?;
    }
    Ok(())
}

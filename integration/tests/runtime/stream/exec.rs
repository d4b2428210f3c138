//! Commands with streams.

use std::time::{Duration, Instant};

use anyhow::Result;
use podwright_integration::patience::{amount, patience};
use podwright_integration::stream::{
    ALL, IN_OUT, OUT, Part, RESIZE, Running, STDERR, STDIN, STDOUT, TTY, Terminal, Transport,
};
use sha2::{Digest as _, Sha256};
use tonic::Code;

use super::{SHELL, crictl, ensure_contains, send_pattern, sleeping, wait_gone};

#[tokio::test]
async fn streams_are_apart_and_the_exit_code_comes_back() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let command = ["sh", "-c", "cat; echo err >&2; exit 42"];
    let mut session = node.cri.exec_streamed(&id, &command, ALL).await?;
    session.send(STDIN, b"in, and out\n").await?;
    assert_eq!(session.until_stdout("out\n").await?, "in, and out\n");
    session.send(STDIN, b"more").await?;
    session.close_stdin().await?;
    let done = session.finish().await?;
    assert_eq!(done.text(), "more", "half-closed after all that was sent");
    assert_eq!(done.stderr, b"err\n");
    assert_eq!(done.exit_code()?, 42);

    for (script, code) in [("exit 0", 0), ("kill -9 $$", 137)] {
        let command = ["sh", "-c", script];
        let session = node.cri.exec_streamed(&id, &command, OUT).await?;
        assert_eq!(session.finish().await?.exit_code()?, code, "{script}");
    }
    node.finish().await
}

#[tokio::test]
async fn streams_that_nobody_asked_for_are_empty() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let command = ["sh", "-c", "cat; echo out; echo err >&2"];
    let done = node.cri.exec_streamed(&id, &command, OUT).await?;
    let done = done.finish().await?;
    assert_eq!(
        (done.text().as_str(), &done.stderr[..]),
        ("out\n", &b""[..])
    );
    let command = ["sh", "-c", "read x; echo $x; test $x = 7"];
    let mut session = node
        .cri
        .exec_streamed(&id, &command, &[Part::Stdin])
        .await?;
    session.send(STDIN, b"7\n").await?;
    let done = session.finish().await?;
    assert_eq!((done.stdout.len(), done.exit_code()?), (0, 0));
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarter_of_a_gibibyte_arrives_whole_both_ways() -> Result<()> {
    let blocks = amount(4096);
    let (node, _, id) = sleeping().await?;
    let session = node.cri.exec_streamed(&id, &["cat"], IN_OUT).await?;
    let (mut sending, mut receiving) = session.split();
    let sent = tokio::spawn(async move {
        let hash = send_pattern(&mut sending, STDIN, blocks).await?;
        sending.close_stdin().await?;
        // Kept: dropping it would end the session.
        anyhow::Ok((hash, sending))
    });
    let (mut hash, mut length) = (Sha256::new(), 0);
    while let Some((channel, data)) = receiving.receive().await? {
        if channel == STDOUT {
            hash.update(&data);
            length += data.len();
        }
    }
    let (expected, _sending) = sent.await??;
    assert_eq!(length, blocks * 65536);
    assert_eq!(<[u8; 32]>::from(hash.finalize()), expected);
    node.finish().await
}

/// A command's last words are told though a child of it holds its pipes, and even though that writes without end.
#[tokio::test]
async fn what_a_command_leaves_behind_does_not_hold_the_session() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    for script in ["echo done; sleep 4242 &", "echo done; yes &"] {
        let started = Instant::now();
        let command = ["sh", "-c", script];
        let session = node.cri.exec_streamed(&id, &command, ALL).await?;
        let done = session.finish().await?;
        assert!(done.text().starts_with("done\n"), "{script}");
        assert_eq!(done.exit_code()?, 0, "{script}");
        let took = started.elapsed();
        assert!(
            took < patience(Duration::from_secs(10)),
            "{script}: after {took:?}"
        );
    }
    node.cri.shell(&id, "pkill sleep; pkill yes; true").await?;
    node.finish().await
}

#[tokio::test]
async fn the_last_byte_of_much_output_is_told() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    for _ in 0..20 {
        let command = ["sh", "-c", "head -c 3000000 /dev/zero; echo end"];
        let session = node.cri.exec_streamed(&id, &command, OUT).await?;
        let done = session.finish().await?;
        assert_eq!(done.stdout.len(), 3_000_004);
        assert!(done.stdout.ends_with(b"end\n"));
    }
    node.finish().await
}

#[tokio::test]
async fn input_that_nobody_reads_holds_nothing() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let command = ["sh", "-c", "read x; exec 0<&-; echo $x; exit 3"];
    let session = node.cri.exec_streamed(&id, &command, IN_OUT).await?;
    let (mut sending, receiving) = session.split();
    let flood = tokio::spawn(async move {
        sending.send(STDIN, b"first\n").await?;
        // Ends with the session.
        while sending.send(STDIN, &[b'x'; 65536]).await.is_ok() {}
        anyhow::Ok(())
    });
    let done = receiving.finish().await?;
    assert_eq!((done.text().as_str(), done.exit_code()?), ("first\n", 3));
    flood.await??;
    node.finish().await
}

#[tokio::test]
async fn a_command_that_cannot_run_says_why() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let session = node.cri.exec_streamed(&id, &["/no/such"], OUT).await?;
    let done = session.finish().await?;
    assert_eq!(done.status["status"], "Failure", "{}", done.status);
    let message = done.status["message"].as_str().unwrap_or_default();
    ensure_contains(message, "/no/such")?;
    ensure_contains(message, "not found")?;
    node.finish().await
}

#[tokio::test]
async fn requests_that_cannot_succeed_are_refused_at_once() -> Result<()> {
    let (node, pod, id) = sleeping().await?;
    let tty_and_stderr = &[Part::Tty, Part::Stdout, Part::Stderr];
    let long = "x".repeat(300 * 1024);
    for (container, command, streams, code) in [
        ("", &["ls"][..], OUT, Code::InvalidArgument),
        ("nosuch", &["ls"], OUT, Code::NotFound),
        (&id, &[], OUT, Code::InvalidArgument),
        (&id, &[""], OUT, Code::InvalidArgument),
        (&id, &["a\0b"], OUT, Code::InvalidArgument),
        (&id, &[&long], OUT, Code::InvalidArgument),
        (&id, &["ls"], &[], Code::InvalidArgument),
        (&id, &["ls"], tty_and_stderr, Code::InvalidArgument),
    ] {
        let refused = node.cri.exec_url(container, command, streams).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().len() < 300, "{refused}");
    }
    let url = node.cri.exec_url(&id, &["ls"], OUT).await?;
    node.cri.stop(&id, 0).await?;
    let refused = node.cri.exec_url(&id, &["ls"], OUT).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    // A container that has stopped between the call and the client.
    let protocol = podwright_integration::stream::REMOTE_COMMAND;
    let session = podwright_integration::stream::Session::open(&url, protocol).await?;
    let done = session.finish().await?;
    ensure_contains(&done.status.to_string(), "not running")?;
    node.cri.stop_pod(&pod.id).await?;
    node.finish().await
}

#[tokio::test]
async fn a_client_that_goes_takes_all_that_it_started_with_it() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    for streams in [ALL, TTY] {
        let script = "trap '' HUP TERM; setsid sleep 4242 & sleep 4242 & echo up; sleep 4242";
        let command = ["sh", "-c", script];
        let mut session = node.cri.exec_streamed(&id, &command, streams).await?;
        session.until_stdout("up").await?;
        drop(session);
        wait_gone(&node, &id, "sleep 4242").await?;
    }
    node.finish().await
}

#[tokio::test]
async fn a_daemon_that_ends_takes_its_commands_with_it() -> Result<()> {
    let (mut node, _, id) = sleeping().await?;
    for how in ["in order", "by SIGKILL"] {
        let command = ["sh", "-c", "setsid sleep 4343 & echo up; sleep 4343"];
        let mut session = node.cri.exec_streamed(&id, &command, ALL).await?;
        session.until_stdout("up").await?;
        match how {
            "in order" => node.daemon.terminate().await?,
            _ => node.daemon.kill9().await?,
        }
        // However the session ends: in words or without.
        let _ = session.finish().await;
        node.daemon.restart().await?;
        wait_gone(&node, &id, "sleep 4343").await?;
    }
    node.finish().await
}

#[tokio::test]
async fn a_terminal_has_a_size_and_is_read_to_its_end() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let script = "trap 'stty size' WINCH; echo $TERM; tty; while :; do read line && break; done; \
        echo got $line; seq 1 20000; exit 5";
    let mut session = node
        .cri
        .exec_streamed(&id, &["sh", "-c", script], TTY)
        .await?;
    let start = session.until_stdout("/dev/pts/").await?;
    ensure_contains(&start, "xterm")?;
    session
        .send(RESIZE, br#"{"Width":123,"Height":45}"#)
        .await?;
    session.until_stdout("45 123").await?;
    session.send(STDIN, b"typed\n").await?;
    let said = session.until_stdout("got typed\r\n").await?;
    ensure_contains(&said, "typed\r\n")?;
    let done = session.finish().await?;
    assert_eq!(done.exit_code()?, 5);
    assert!(!done.text().contains("20001") && done.text().ends_with("\r\n20000\r\n"));
    node.finish().await
}

#[tokio::test]
async fn stderr_goes_on_after_stdout_is_closed() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    let command = ["sh", "-c", "exec 1>&-; read x; echo $x >&2"];
    let mut session = node.cri.exec_streamed(&id, &command, ALL).await?;
    session.send(STDIN, b"late\n").await?;
    let mut stderr = Vec::new();
    while let Some((channel, data)) = session.receive().await? {
        if channel == STDERR {
            stderr.extend_from_slice(&data);
        }
    }
    assert_eq!(stderr, b"late\n");
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crictl_pipes_into_a_command() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    for transport in Transport::ALL {
        let script = "cat; echo; echo end; exit 7";
        let command = crictl(&node, transport, "exec", &["-i", &id, "sh", "-c", script]).await?;
        let mut running = Running::start(command)?;
        running.write(b"one\n").await?;
        running.until_stdout("one\n").await?;
        let big = vec![b'y'; 3_000_000];
        running.write(&big).await?;
        running.close_stdin();
        let (said, code) = running.finish().await?;
        assert_eq!(said.len(), big.len() + "\nend\n".len(), "{transport:?}");
        assert!(said.ends_with(b"y\nend\n"), "{transport:?}");
        // crictl has its own exit code for a command that failed, and tells the command's.
        assert_ne!(code, Some(0), "{transport:?}");
    }
    node.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crictl_gives_a_person_a_shell() -> Result<()> {
    let (node, _, id) = sleeping().await?;
    for transport in Transport::ALL {
        let arguments = ["-it", &id, "sh", "-c", SHELL];
        let command = crictl(&node, transport, "exec", &arguments).await?;
        tokio::task::spawn_blocking(move || -> Result<()> {
            let mut terminal = Terminal::start(&command, 33, 99)?;
            terminal.type_in("tty; stty size; echo $((6*7))\n")?;
            ensure_contains(&terminal.await_text("42\r\n")?, "/dev/pts/")?;
            // The size follows the terminal's, which it is told of a moment later.
            terminal.type_in("until [ \"$(stty size)\" = '33 99' ]; do :; done; echo si''zed\n")?;
            terminal.await_text("sized")?;
            terminal.resize(20, 60)?;
            terminal
                .type_in("until [ \"$(stty size)\" = '20 60' ]; do :; done; echo re''sized\n")?;
            terminal.await_text("resized")?;
            terminal.type_in("exit\n")?;
            assert_eq!(terminal.exit_code()?, Some(0));
            Ok(())
        })
        .await??;
    }
    node.finish().await
}

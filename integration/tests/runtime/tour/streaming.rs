//! Exec, attach and port-forward, each over SPDY and over WebSocket.

use anyhow::{Context as _, Result, ensure};
use podwright_integration::{cri::Pod, pod::ContainerSpec};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    crictl::{Crictl, finished},
    terminal::{Size, Terminal},
};

pub(super) const COMMANDS: &[&str] = &["exec", "attach", "port-forward"];

const TRANSPORTS: &[&str] = &["spdy", "websocket"];

#[tokio::test]
async fn streaming() -> Result<()> {
    let crictl = Crictl::start(COMMANDS).await?;
    let pod = crictl.pod("streaming").await?;
    let shell = crictl.node.cri.run(&pod, ContainerSpec::new("shell"));
    let shell = shell.await?;
    exec(&crictl, &shell).await?;
    exec_by_filter(&crictl, &pod, &shell).await?;
    for transport in TRANSPORTS {
        exec_with_input(&crictl, transport, &shell).await?;
        exec_on_terminal(&crictl, transport, &shell).await?;
        attach(&crictl, transport, &pod).await?;
        attach_on_terminal(&crictl, transport, &pod).await?;
        port_forward(&crictl, transport, &pod).await?;
    }
    crictl.finish().await
}

async fn exec(crictl: &Crictl, id: &str) -> Result<()> {
    assert_eq!(
        crictl.run(&["exec", "-s", id, "hostname"]).await?,
        "streaming"
    );
    let slow = ["exec", "-s", "--timeout", "1", id, "sleep", "100"];
    let refused = crictl.refused(&slow).await?;
    assert!(refused.contains("DeadlineExceeded"), "{refused}");
    for transport in TRANSPORTS {
        let exec = ["exec", "-r", transport, id, "sh", "-c"];
        let script = "echo out; echo wrong >&2; exit 7";
        let output = finished(crictl.command(&[&exec[..], &[script]].concat())).await?;
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.starts_with("wrong\n"), "{stderr}");
        assert!(stderr.contains("exit code 7"), "{stderr}");
    }
    for (arguments, reason) in [
        (&["exec", "absent", "true"][..], "NotFound"),
        (&["exec", id, "/absent"], "/absent"),
        (&["exec", "-t", id, "sh"], "interactive"),
    ] {
        let refused = crictl.refused(arguments).await?;
        assert!(refused.contains(reason), "{arguments:?}: {refused}");
    }
    Ok(())
}

async fn exec_by_filter(crictl: &Crictl, pod: &Pod, id: &str) -> Result<()> {
    let other = crictl
        .node
        .cri
        .run(pod, ContainerSpec::new("other"))
        .await?;
    let named = ["exec", "--name", "^shell$", "echo", "here"];
    assert_eq!(crictl.lines(&named).await?, [&format!("{id}:"), "here"]);
    let of_pod = ["exec", "-x", "--pod", &pod.id, "echo", "here"];
    assert_eq!(crictl.lines(&of_pod).await?, ["here", "here"]);
    crictl.node.cri.stop(&other, 0).await?;
    Ok(crictl.node.cri.remove(&other).await?)
}

async fn exec_with_input(crictl: &Crictl, transport: &str, id: &str) -> Result<()> {
    let exec = ["exec", "-i", "-r", transport, id, "sh", "-c"];
    let script = "while read line; do echo got $line; done; echo end";
    let mut shell = crictl.background(&[&exec[..], &[script]].concat())?;
    shell.write("first\n").await?;
    shell.stdout.wait("got first\n").await?;
    shell.write("second\n").await?;
    shell.stdout.wait("got second\n").await?;
    // Half-closed: the rest still arrives. Over WebSocket, too, since its fifth version.
    shell.close();
    ensure!(shell.end().await?.success(), "{}", shell.stderr.text());
    shell.stdout.wait("got second\nend\n").await
}

async fn exec_on_terminal(crictl: &Crictl, transport: &str, id: &str) -> Result<()> {
    let exec = crictl.command(&["exec", "-it", "-r", transport, id, "sh"]);
    let mut shell = Terminal::start(exec, Size(30, 90))?;
    // Typed text is echoed; only the shell does sums.
    shell.write("echo sum-$((40 + 2))\n")?;
    shell.screen.wait("sum-42").await?;
    wait_size(&mut shell, Size(30, 90), "first").await?;
    shell.resize(Size(41, 123))?;
    wait_size(&mut shell, Size(41, 123), "second").await?;
    // Ctrl-C ends what runs in the shell, and not the shell.
    shell.write("sh -c 'echo begun-$((3 + 3)); exec sleep 1000'\n")?;
    shell.screen.wait("begun-6").await?;
    shell.write("\u{3}")?;
    shell.write("echo left-$((1 + 1))\n")?;
    shell.screen.wait("left-2").await?;
    shell.write("exit 3\n")?;
    let status = shell.end().await?;
    assert_eq!(status.code(), Some(1));
    shell.screen.wait("exit code 3").await
}

/// Waits until the shell's terminal has this size, which travels beside what is typed.
async fn wait_size(shell: &mut Terminal, Size(rows, columns): Size, mark: &str) -> Result<()> {
    let script = format!(
        "until [ \"$(stty size)\" = \"{rows} {columns}\" ]; do :; done; echo {mark}-$((rows + 1))\n"
    );
    shell.write(&script)?;
    shell.screen.wait(&format!("{mark}-1")).await
}

async fn attach(crictl: &Crictl, transport: &str, pod: &Pod) -> Result<()> {
    let script = "while read line; do echo got $line; echo wrong $line >&2; done; exit 4";
    let mut spec = ContainerSpec::new(&format!("attached-{transport}")).shell(script);
    spec.config.stdin = true;
    spec.config.stdin_once = true;
    let id = crictl.node.cri.run(pod, spec).await?;
    let mut shell = crictl.background(&["attach", "-i", "-r", transport, &id])?;
    shell.write("first\n").await?;
    shell.stdout.wait("got first\n").await?;
    shell.stderr.wait("wrong first\n").await?;
    shell.close();
    ensure!(shell.end().await?.success(), "{}", shell.stderr.text());
    // Its input was open once: the container has seen the end of it.
    let status = crictl.node.cri.wait_exit(&id).await?;
    assert_eq!(status.exit_code, 4);
    let log = crictl.node.cri.logs(&id).await?;
    assert_eq!(log.len(), 2, "{log:?}");
    let refused = crictl.refused(&["attach", &id]).await?;
    assert!(refused.contains("FailedPrecondition"), "{refused}");
    Ok(())
}

async fn attach_on_terminal(crictl: &Crictl, transport: &str, pod: &Pod) -> Result<()> {
    let name = format!("terminal-{transport}");
    let mut spec = ContainerSpec::new(&name).command(&["sh"]);
    (spec.config.stdin, spec.config.tty) = (true, true);
    let id = crictl.node.cri.run(pod, spec).await?;
    let attach = crictl.command(&["attach", "-it", "-r", transport, &id]);
    let mut shell = Terminal::start(attach, Size(50, 150))?;
    wait_size(&mut shell, Size(50, 150), "size").await?;
    shell.write("exit\n")?;
    ensure!(shell.end().await?.success(), "{}", shell.screen.text());
    crictl.node.cri.wait_exit(&id).await?;
    Ok(())
}

async fn port_forward(crictl: &Crictl, transport: &str, pod: &Pod) -> Result<()> {
    let name = format!("server-{transport}");
    let script = "mkdir /srv; echo page > /srv/index.html; exec httpd -f -p 8080 -h /srv";
    let server = ContainerSpec::new(&name).shell(script);
    let server = crictl.node.cri.run(pod, server).await?;
    let listens = "until grep -q :1F90 /proc/net/tcp*; do :; done";
    crictl.node.cri.shell(&server, listens).await?;

    let mut forward = crictl.background(&["port-forward", "-r", transport, &pod.id, ":8080"])?;
    forward.stdout.wait("-> 8080\n").await?;
    let address = forward.stdout.text();
    let address = address.strip_prefix("Forwarding from ");
    let (address, _) = address
        .and_then(|rest| rest.split_once(" -> "))
        .with_context(|| format!("no address in {:?}", forward.stdout.text()))?;
    for _ in 0..3 {
        let page = timeout(podwright_integration::node::deadline(), fetch(address)).await??;
        ensure!(page.ends_with("\npage\n"), "{page}");
    }
    forward.interrupt()?;
    ensure!(forward.end().await?.success(), "{}", forward.stderr.text());
    crictl.node.cri.stop(&server, 0).await?;
    let refused = crictl.refused(&["port-forward", "absent", ":80"]).await?;
    assert!(refused.contains("NotFound"), "{refused}");
    Ok(())
}

/// The answer to a plain request, with its header.
async fn fetch(address: &str) -> Result<String> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut page = String::new();
    connection.read_to_string(&mut page).await?;
    Ok(page)
}

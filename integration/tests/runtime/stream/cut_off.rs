//! Clients that vanish in the middle of anything.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::stream::{self, StreamExt as _};
use podwright_integration::{
    node::{Node, Usage, until},
    patience::amount,
    stream::{ALL, IN_OUT, OUT, STDIN, Session, TTY},
};

use super::{reading, with};

const SESSIONS: usize = 1000;
const AT_ONCE: usize = 20;

/// A different number for each session, the same in each run (splitmix64).
fn random(session: u64) -> u64 {
    let mut z = session.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// One session, dropped after a random time in a random state.
async fn cut_off(node: &Node, id: &str, number: u64) -> Result<()> {
    let chance = random(number);
    let url = match chance % 8 {
        0 | 1 => node.cri.attach_url(id, IN_OUT).await?,
        2 => node.cri.attach_url(id, OUT).await?,
        3 => {
            let command = ["sh", "-c", "setsid sleep 4242 & cat"];
            node.cri.exec_url(id, &command, IN_OUT).await?
        }
        4 => node.cri.exec_url(id, &["sh"], TTY).await?,
        5 => node.cri.exec_url(id, &["yes"], OUT).await?,
        6 => node.cri.exec_url(id, &["cat"], ALL).await?,
        _ => node.cri.exec_url(id, &["sleep", "4242"], ALL).await?,
    };
    let lifetime = Duration::from_micros(chance >> 16 & 0x7fff);
    let session = async {
        let protocol = podwright_integration::stream::REMOTE_COMMAND;
        let mut session = Session::open(&url, protocol).await?;
        loop {
            // Refused where stdin was not asked for: that is an end as well.
            session.send(STDIN, b"echo something\n").await?;
            if session.receive().await?.is_none() {
                return anyhow::Ok(());
            }
        }
    };
    // However far it came.
    let _ = tokio::time::timeout(lifetime, session).await;
    Ok(())
}

/// Empty groups that may be kept for a container's next commands.
const KEPT_GROUPS: usize = 4;

/// Whether no more is left than an empty group for a next command or two.
fn are_kept(groups: &[PathBuf]) -> bool {
    let is_empty = |group: &PathBuf| {
        // One that is gone meanwhile is empty.
        let members = std::fs::read_to_string(group.join("cgroup.procs"));
        members.map_or(true, |members| members.is_empty())
    };
    groups.len() <= KEPT_GROUPS && groups.iter().all(is_empty)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sessions_that_are_cut_off_leave_nothing() -> Result<()> {
    let (node, pod, id) = with(reading("cat; true")).await?;
    let daemon = node.daemon.pid().context("the daemon has ended")?;
    let pause = parent_of(node.cri.container_pid(&id).await?)?;
    // What is kept from the first command on.
    node.cri.shell(&id, "true").await?;
    let (before, pause_before) = (Usage::of(daemon)?, Usage::of(pause)?);
    stream::iter(1..=amount(SESSIONS) as u64)
        .map(|number| cut_off(&node, &id, number))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    until("the sessions to leave nothing", || async {
        let error = |error: anyhow::Error| format!("{error:#}");
        let (now, pause_now) = (
            Usage::of(daemon).map_err(error)?,
            Usage::of(pause).map_err(error)?,
        );
        // Before the command below, whose own group may be among them.
        let groups = node.daemon.slot().exec_groups().map_err(error)?;
        let left = node.cri.shell(&id, "pgrep -c . || true").await;
        // The container's shell, which reaps the others, its cat, and this command's shell and pgrep.
        let left = left.map_err(error)?;
        let (more, pause_more) = (now.more_than(&before), pause_now.more_than(&pause_before));
        let clean = more.is_empty()
            && pause_more.is_empty()
            && are_kept(&groups)
            && matches!(left.trim(), "1" | "2" | "3" | "4");
        match clean {
            true => Ok(()),
            false => Err(format!(
                "the daemon has more of {more:?}, pause of {pause_more:?}; {groups:?}; {left} processes"
            )),
        }
    })
    .await?;
    // It is as it was: a session works, and the log has what was written.
    let mut session = node.cri.attach(&id, IN_OUT).await?;
    session.send(STDIN, b"still here\n").await?;
    session.until_stdout("still here\n").await?;
    node.cri.stop_pod(&pod.id).await?;
    node.finish().await
}

/// The process id of a process's parent (proc_pid_stat(5)).
fn parent_of(pid: u32) -> Result<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit(") ").next().context("no name in it")?;
    let parent = after_name.split(' ').nth(1).context("no parent in it")?;
    Ok(parent.parse()?)
}

//! Exec probes of many containers, as kubelets send them: each at its time, whether or not those before it are answered.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use podwright_integration::{
    cri::Cri,
    proc::{self, Processors},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{Figure, Measured, Target};

const PODS: usize = 100;
/// Ten a second in each container.
const INTERVAL: Duration = Duration::from_millis(1);
const TIME: Duration = Duration::from_secs(30);
/// Of the machine without probes.
const IDLE: Duration = Duration::from_secs(10);
/// A machine that uses more of a processor than that meanwhile has others to serve: they would lose to the probes what is then
/// taken for idle, and the probes' CPU would come out too small.
const MOST_IDLE: f64 = 0.2;
/// So many at once, five seconds' worth, are a runtime that cannot keep up.
const MOST_AT_ONCE: u32 = 5_000;

/// How late the answers are, and what the machine does for them.
pub(crate) async fn measure(target: &Target, measured: &mut Measured) -> Result<()> {
    let sleepers = target.crowd(PODS).await?;
    let containers: Vec<_> = sleepers
        .iter()
        .map(|sleeper| sleeper.container.clone())
        .collect();
    // The first ones warm caches up and do not count.
    for container in &containers {
        let now = Instant::now();
        probe(target.cri.clone(), container.clone(), now).await?;
    }
    target.long_rest().await?;

    let processors = Processors::now()?;
    sleep(IDLE).await;
    let idle = processors.busy()?;
    ensure!(
        idle < MOST_IDLE,
        "the machine is not idle without probes: {idle:.2} of a processor are used"
    );

    let client = [std::process::id()];
    let own = proc::cpu(&client);
    let (processors, start) = (Processors::now()?, Instant::now());
    let mut late = probe_all(&target.cri, &containers).await?;
    // What was put off belongs to it.
    target.rest().await;
    let used = processors.used()?.as_secs_f64() - idle * start.elapsed().as_secs_f64();
    let own = proc::cpu(&client).saturating_sub(own).as_secs_f64();

    // The client stands for a kubelet, and is not what is measured; the probes' commands are.
    let time = TIME.as_secs_f64();
    measured.add(Figure::ProbesCpu, (used - own) / time);
    measured.add(Figure::ProbesClientCpu, own / time);
    measured.add_percentile(Figure::ProbesLast, &mut late, 100);
    measured.add_percentile(Figure::Probes99, &mut late, 99);
    target.dismiss(sleepers).await
}

/// Probes the containers in turn; how long after its due time each was answered.
async fn probe_all(cri: &Cri, containers: &[String]) -> Result<Vec<Duration>> {
    let running = Arc::new(AtomicU32::new(0));
    let mut probes = JoinSet::new();
    let mut due = Instant::now();
    let end = due + TIME;
    for container in containers.iter().cycle() {
        due += INTERVAL;
        if due > end {
            break;
        }
        sleep_until(due).await;
        let unanswered = running.fetch_add(1, Ordering::Relaxed);
        ensure!(
            unanswered < MOST_AT_ONCE,
            "{MOST_AT_ONCE} probes are unanswered: the runtime does not keep up with one each {INTERVAL:?}"
        );
        let (cri, container) = (cri.clone(), container.clone());
        let running = Arc::clone(&running);
        probes.spawn(async move {
            let answered = probe(cri, container, due).await;
            running.fetch_sub(1, Ordering::Relaxed);
            answered
        });
    }
    let answers = probes.join_all().await;
    answers.into_iter().collect()
}

/// How long after `due` it was answered.
async fn probe(cri: Cri, container: String, due: Instant) -> Result<Duration> {
    let done = cri
        .exec(&container, &["probe"], 10)
        .await
        .with_context(|| format!("a probe in container {container}"))?;
    ensure!(
        done.exit_code == 0,
        "a probe in container {container} ended with {}",
        done.exit_code
    );
    Ok(due.elapsed())
}

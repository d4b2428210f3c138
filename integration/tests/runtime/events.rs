//! GetContainerEvents: every step of every life, in order, and what holds when a stream ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use podwright_cri_api::{
    client::Client,
    v1::{
        ContainerEventResponse, ContainerEventType, ContainerState, GetEventsRequest,
        ListContainersRequest, ListPodSandboxRequest, PodSandboxState,
    },
};
use podwright_integration::{
    cri::Pod,
    node::{Node, deadline, until},
    patience::amount,
    pod::{ContainerSpec, PodSpec},
};
use tokio::task::JoinHandle;
use tonic::{Code, Status, Streaming};

use ContainerEventType::{
    ContainerCreatedEvent as Created, ContainerDeletedEvent as Deleted,
    ContainerStartedEvent as Started, ContainerStoppedEvent as Stopped,
};

/// Lives at the same time.
const AT_ONCE: usize = 12;

async fn subscribe(client: &Client) -> Result<Streaming<ContainerEventResponse>, Status> {
    let mut runtime = client.runtime.clone();
    let answer = runtime.get_container_events(GetEventsRequest {}).await;
    answer.map(tonic::Response::into_inner)
}

/// Reads a stream to its end, and keeps what it heard.
struct Listener {
    heard: Arc<Mutex<Vec<ContainerEventResponse>>>,
    task: JoinHandle<Option<Status>>,
}

impl Listener {
    async fn open(node: &Node) -> Result<Self> {
        let mut stream = subscribe(&node.cri.client()).await?;
        let heard: Arc<Mutex<Vec<_>>> = Arc::default();
        let keep = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            loop {
                match stream.message().await {
                    Ok(Some(event)) => keep.lock().unwrap().push(event),
                    Ok(None) => return None,
                    Err(status) => return Some(status),
                }
            }
        });
        Ok(Self { heard, task })
    }

    /// Ends the stream; calls after it come after its end for the daemon, too.
    async fn close(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    fn heard(&self) -> Vec<ContainerEventResponse> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until it has heard what `found` looks for.
    async fn wait(
        &self,
        what: &str,
        found: impl Fn(&[ContainerEventResponse]) -> bool,
    ) -> Result<()> {
        until(what, || async {
            let heard = self.heard();
            found(&heard)
                .then_some(())
                .ok_or_else(|| format!("heard {:?}", kinds_by_id(&heard)))
        })
        .await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn kinds_by_id(heard: &[ContainerEventResponse]) -> BTreeMap<String, Vec<ContainerEventType>> {
    let mut kinds: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in heard {
        let of_one = kinds.entry(event.container_id.clone()).or_default();
        of_one.push(event.container_event_type());
    }
    kinds
}

/// How far a container has come.
fn rank(state: ContainerState) -> u8 {
    match state {
        ContainerState::ContainerCreated => 0,
        ContainerState::ContainerRunning => 1,
        _ => 2,
    }
}

/// What holds for each event of a stream beside those before it: times count up, the statuses show what the event tells, and
/// nothing that an earlier event showed is taken back.
fn check_order(heard: &[ContainerEventResponse]) -> Result<()> {
    let mut last = 0;
    let mut ranks: BTreeMap<String, u8> = BTreeMap::new();
    let mut gone = BTreeSet::new();
    for event in heard {
        let (id, kind) = (&event.container_id, event.container_event_type());
        ensure!(event.created_at > last, "{kind:?} of {id} is from before");
        last = event.created_at;
        let pod = event.pod_sandbox_status.as_ref().context("no pod status")?;
        let metadata = pod.metadata.as_ref().context("no metadata")?;
        ensure!(!metadata.uid.is_empty(), "a pod without a uid");
        for status in &event.containers_statuses {
            let rank = rank(status.state());
            let before = ranks.insert(status.id.clone(), rank);
            ensure!(before <= Some(rank), "{} went back: {event:?}", status.id);
            ensure!(!gone.contains(&status.id), "{} came back", status.id);
        }
        let shown = if *id == pod.id {
            match (kind, pod.state()) {
                (Created | Started, _) => true,
                (_, state) => state == PodSandboxState::SandboxNotready,
            }
        } else {
            let mut statuses = event.containers_statuses.iter();
            let own = statuses.find(|status| status.id == *id);
            match (kind, own.map(|status| rank(status.state()))) {
                // What it tells may be followed by its removal before the statuses are looked at.
                (_, None) | (Created, _) => true,
                (Started, rank) => rank >= Some(1),
                (Stopped, rank) => rank == Some(2),
                (Deleted, Some(_)) => false,
            }
        };
        ensure!(shown, "the statuses do not show it: {event:?}");
        if kind == Deleted {
            gone.insert(id.clone());
        }
    }
    Ok(())
}

/// Numbers that look random, the same for the same seed.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    /// One below `sides`: splitmix64.
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// One container's life; what is to be told of it.
async fn live(node: &Node, pod: &Pod, number: u64) -> Result<(String, Vec<ContainerEventType>)> {
    let mut dice = Dice(number);
    let spec = ContainerSpec::new(&format!("c{number}"));
    let spec = match dice.throw(3) {
        0 => spec.command(&["true"]),
        1 => spec.shell("sleep 0.02; exit 7"),
        _ => spec,
    };
    let ends = spec.config.command != ["sleep", "1000"];
    let way = dice.throw(8);
    let cri = &node.cri;
    if way == 0 {
        let id = cri
            .create(
                pod,
                ContainerSpec::new(&format!("c{number}")).command(&["/absent"]),
            )
            .await?;
        ensure!(cri.start_container(&id).await.is_err(), "started /absent");
        return Ok((id, vec![Created, Stopped]));
    }
    let id = cri.create(pod, spec).await?;
    if way == 1 {
        cri.remove(&id).await?;
        return Ok((id, vec![Created, Deleted]));
    }
    cri.start_container(&id).await?;
    match way {
        _ if ends => drop(cri.wait_exit(&id).await?),
        2 => return Ok((id, vec![Created, Started])),
        3 => {
            let pid = i32::try_from(cri.container_pid(&id).await?)?;
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
            cri.wait_exit(&id).await?;
        }
        4 => {
            cri.remove(&id).await?;
            return Ok((id, vec![Created, Started, Stopped, Deleted]));
        }
        _ => cri.stop(&id, 0).await?,
    }
    if dice.throw(2) == 0 {
        return Ok((id, vec![Created, Started, Stopped]));
    }
    cri.remove(&id).await?;
    Ok((id, vec![Created, Started, Stopped, Deleted]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_tells_every_step_of_every_life() -> Result<()> {
    const PODS: usize = 20;
    let lives = amount(30) as u64;
    let node = Node::start().await?;
    let listener = Listener::open(&node).await?;
    let pods = (0..PODS).map(|number| node.cri.run_pod(PodSpec::new(&format!("pod-{number}"))));
    let pods: Vec<Pod> = stream::iter(pods).buffered(4).try_collect().await?;
    let lives = (0..PODS as u64 * lives).map(|number| {
        let pod = &pods[usize::try_from(number).unwrap() % PODS];
        live(&node, pod, number)
    });
    let lives: Vec<_> = stream::iter(lives)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let mut expected: BTreeMap<_, _> = lives.into_iter().collect();

    // What still runs or is still there ends with its pod: half of them are removed, the others stopped.
    for (number, pod) in pods.iter().enumerate() {
        let list = node.cri.client().runtime.clone();
        let own = containers(list).await?;
        let own = own.iter().filter(|(_, (sandbox, _))| *sandbox == pod.id);
        for (id, (_, state)) in own {
            let kinds = expected.get_mut(id).context("not made here")?;
            if *state == ContainerState::ContainerRunning {
                kinds.push(Stopped);
            }
            if number % 2 == 0 {
                kinds.push(Deleted);
            }
        }
        let mut kinds = vec![Created, Started, Stopped];
        if number % 2 == 0 {
            node.cri.remove_pod(&pod.id).await?;
            kinds.push(Deleted);
        } else {
            node.cri.stop_pod(&pod.id).await?;
        }
        expected.insert(pod.id.clone(), kinds);
    }
    listener
        .wait("everything to be told", |heard| {
            kinds_by_id(heard) == expected
        })
        .await?;
    check_order(&listener.heard())?;
    check_pods_end_last(&listener.heard(), &pods)?;
    node.finish().await
}

/// A pod's first event is its own, and so is its last.
fn check_pods_end_last(heard: &[ContainerEventResponse], pods: &[Pod]) -> Result<()> {
    for pod in pods {
        let own: Vec<_> = heard
            .iter()
            .filter(|event| {
                let status = event.pod_sandbox_status.as_ref();
                status.is_some_and(|status| status.id == pod.id)
            })
            .map(|event| &event.container_id)
            .collect();
        ensure!(own.first() == Some(&&pod.id), "{} began late", pod.id);
        ensure!(own.last() == Some(&&pod.id), "{} ended early", pod.id);
    }
    Ok(())
}

type Containers = BTreeMap<String, (String, ContainerState)>;

async fn containers(
    mut runtime: podwright_cri_api::v1::runtime_service_client::RuntimeServiceClient<
        tonic::transport::Channel,
    >,
) -> Result<Containers> {
    let list = runtime.list_containers(ListContainersRequest::default());
    let containers = list.await?.into_inner().containers;
    Ok(containers
        .into_iter()
        .map(|container| {
            let state = container.state();
            (container.id, (container.pod_sandbox_id, state))
        })
        .collect())
}

/// What a kubelet's cache of pods holds: each as it was at a time, by a list or by an event.
#[derive(Default, Debug)]
struct View {
    pods: BTreeMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    at: i64,
    state: PodSandboxState,
    containers: BTreeMap<String, ContainerState>,
}

fn now() -> Result<i64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_nanos())?)
}

impl View {
    async fn listed(node: &Node) -> Result<Self> {
        let at = now()?;
        let client = node.daemon.client();
        let mut runtime = client.runtime.clone();
        let list = runtime.list_pod_sandbox(ListPodSandboxRequest::default());
        let mut pods: BTreeMap<_, _> = list
            .await?
            .into_inner()
            .items
            .into_iter()
            .map(|pod| {
                let state = pod.state();
                let seen = Seen {
                    at,
                    state,
                    containers: BTreeMap::new(),
                };
                (pod.id, seen)
            })
            .collect();
        for (id, (pod, state)) in containers(client.runtime).await? {
            if let Some(seen) = pods.get_mut(&pod) {
                seen.containers.insert(id, state);
            }
        }
        Ok(Self { pods })
    }

    /// As the kubelet does: what is older than what is known is passed over.
    fn hear(&mut self, event: &ContainerEventResponse) {
        let Some(pod) = &event.pod_sandbox_status else {
            return;
        };
        let known = self.pods.get(&pod.id);
        if known.is_some_and(|seen| seen.at > event.created_at) {
            return;
        }
        if event.container_event_type() == Deleted && event.container_id == pod.id {
            self.pods.remove(&pod.id);
            return;
        }
        let statuses = event.containers_statuses.iter();
        let seen = Seen {
            at: event.created_at,
            state: pod.state(),
            containers: statuses
                .map(|status| (status.id.clone(), status.state()))
                .collect(),
        };
        self.pods.insert(pod.id.clone(), seen);
    }

    fn states(&self) -> BTreeMap<&str, (PodSandboxState, &BTreeMap<String, ContainerState>)> {
        let pods = self.pods.iter();
        pods.map(|(id, seen)| (id.as_str(), (seen.state, &seen.containers)))
            .collect()
    }
}

/// Lives while streams break and the daemon is killed: who lists after a break, and subscribes, reaches the true state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_reaches_the_true_state() -> Result<()> {
    const PODS: usize = 8;
    const ROUNDS: u64 = 8;
    let lives = amount(50) as u64;
    let mut node = Node::start().await?;
    let mut pods = Vec::new();
    let mut listener = Listener::open(&node).await?;
    let mut view = View::default();
    for round in 0..ROUNDS {
        for number in 0..PODS {
            let spec = PodSpec::new(&format!("pod-{round}-{number}"));
            pods.push(node.cri.run_pod(spec).await?);
        }
        let newest = &pods[pods.len() - PODS..];
        let killed = round % 2 == 1;
        // A daemon that is killed is so somewhere in the middle.
        let middle = if killed { lives / 2 } else { lives };
        run_lives(&node, newest, round * lives..round * lives + middle).await?;
        if killed {
            let more = run_lives(&node, newest, round * lives + middle..(round + 1) * lives);
            let moment = std::time::Duration::from_millis(20 * round);
            let _ = tokio::time::timeout(moment, more).await;
            node.daemon.kill9().await?;
            node.daemon.restart().await?;
        }
        // What was heard until the break counts; what was on its way is in the list.
        let heard = listener.heard();
        check_order(&heard)?;
        listener.close().await;
        view = View::listed(&node).await?;
        // Between the list and the new stream things go on.
        node.cri.stop_pod(&pods[pods.len() - 1].id).await?;
        let number = 100_000 + round;
        run_lives(&node, &pods[pods.len() - 2..][..1], number..number + 3).await?;
        listener = Listener::open(&node).await?;
    }
    for pod in pods.iter().step_by(3) {
        node.cri.remove_pod(&pod.id).await?;
    }
    let truth = View::listed(&node).await?;
    until("the events to tell the true state", || async {
        let mut told = View {
            pods: BTreeMap::new(),
        };
        for (id, seen) in &view.pods {
            let seen = Seen {
                containers: seen.containers.clone(),
                ..*seen
            };
            told.pods.insert(id.clone(), seen);
        }
        listener.heard().iter().for_each(|event| told.hear(event));
        if told.states() == truth.states() {
            return Ok(());
        }
        Err(format!("told {told:?}, true {truth:?}"))
    })
    .await?;
    check_order(&listener.heard())?;
    node.finish().await
}

async fn run_lives(node: &Node, pods: &[Pod], numbers: std::ops::Range<u64>) -> Result<()> {
    let lives = numbers.map(|number| {
        let pod = &pods[usize::try_from(number).unwrap() % pods.len()];
        live(node, pod, number)
    });
    let all = stream::iter(lives).buffer_unordered(AT_ONCE);
    all.try_for_each(|_| async { Ok(()) }).await
}

/// What happened while no daemon was there is told to the first who listens.
#[tokio::test]
async fn ends_while_the_daemon_was_away_are_told() -> Result<()> {
    let mut node = Node::start().await?;
    let lives = node.cri.run_pod(PodSpec::new("lives")).await?;
    let dies = node.cri.run_pod(PodSpec::new("dies")).await?;
    let ends = node.cri.run(&lives, ContainerSpec::new("c")).await?;
    let stays = node.cri.run(&lives, ContainerSpec::new("d")).await?;
    let lost = node.cri.run(&dies, ContainerSpec::new("c")).await?;
    let pid = |pid: u32| i32::try_from(pid).map(Pid::from_raw);
    let ending = pid(node.cri.container_pid(&ends).await?)?;
    let pause = pid(parent(node.cri.container_pid(&lost).await?)?)?;
    node.daemon.kill9().await?;
    kill(ending, Signal::SIGKILL)?;
    kill(pause, Signal::SIGKILL)?;
    until("both to be gone", || async {
        let alive = [ending, pause].map(|pid| is_running(pid.as_raw()));
        if alive == [false, false] {
            return Ok(());
        }
        Err(format!("{alive:?}"))
    })
    .await?;
    node.daemon.restart().await?;
    let listener = Listener::open(&node).await?;
    let told = |heard: &[ContainerEventResponse]| heard.len() >= 3;
    listener.wait("three ends", told).await?;
    let heard = listener.heard();
    check_order(&heard)?;
    let kinds = kinds_by_id(&heard);
    for id in [&ends, &lost, &dies.id] {
        assert_eq!(kinds.get(id), Some(&vec![Stopped]), "{kinds:?}");
    }
    assert!(!kinds.contains_key(&stays) && !kinds.contains_key(&lives.id));
    let place = |id: &str| heard.iter().position(|event| event.container_id == id);
    assert!(
        place(&lost) < place(&dies.id),
        "a pod ends after its containers"
    );
    let event = &heard[place(&ends).context("told")?];
    let status = event
        .containers_statuses
        .iter()
        .find(|status| status.id == ends);
    assert_eq!(status.context("its status")?.exit_code, 137);
    // As containerd and CRI-O tell an end that nobody saw.
    let unseen = node.cri.status(&lost).await?;
    assert_eq!((unseen.exit_code, unseen.reason.as_str()), (255, "Unknown"));
    node.finish().await
}

/// The process that a container's first process is a child of.
fn parent(pid: u32) -> Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    Ok(parent.context("no PPid")?.trim().parse()?)
}

/// A zombie has ended; its parent has not reaped it yet.
fn is_running(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut lines = status.lines();
    lines.any(|line| line.starts_with("State:") && !line.contains('Z'))
}

/// More than is kept for it: it is told so, and others are not held up.
#[tokio::test]
async fn a_slow_reader_is_told_that_events_are_lost() -> Result<()> {
    const LIVES: usize = 20;
    let node = Node::start().await?;
    let listener = Listener::open(&node).await?;
    // With a connection of its own: what it does not read would be in the way of other answers.
    let slow = podwright_cri_api::client::connect(node.daemon.socket()).await?;
    let mut slow = subscribe(&slow).await?;
    let mut spec = PodSpec::new("pod");
    let note = "x".repeat(600 << 10);
    spec.config.annotations.insert("note".to_owned(), note);
    let pod = node.cri.run_pod(spec).await?;
    for number in 0..LIVES {
        let name = format!("c{number}");
        let id = node.cri.create(&pod, ContainerSpec::new(&name)).await?;
        node.cri.remove(&id).await?;
        // Or on a slow machine it would be a slow reader too.
        let all = |heard: &[ContainerEventResponse]| heard.len() == 2 + 2 * (number + 1);
        listener.wait("the other reader to hear all", all).await?;
    }

    let mut heard = Vec::new();
    let status = loop {
        match tokio::time::timeout(deadline(), slow.message()).await? {
            Ok(Some(event)) => heard.push(event),
            Ok(None) => bail!(
                "the stream ended as if all was told: {} events",
                heard.len()
            ),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    assert!(
        status.message().contains("subscribe again and list"),
        "{status}"
    );
    check_order(&heard)?;
    let first = listener.heard();
    assert!(heard.len() < first.len());
    assert!(
        heard == first[..heard.len()],
        "what it heard is not what came first"
    );

    // Who subscribes again hears what comes from then on.
    let again = Listener::open(&node).await?;
    node.cri.stop_pod(&pod.id).await?;
    let told = |heard: &[ContainerEventResponse]| {
        heard
            .iter()
            .any(|event| event.container_event_type() == Stopped)
    };
    again.wait("the pod's end", told).await?;
    node.finish().await
}

/// Streams do not keep a daemon from ending, and there is an end to how many there are.
#[tokio::test]
async fn streams_are_bounded_and_end_with_the_daemon() -> Result<()> {
    let mut node = Node::start().await?;
    let mut streams = Vec::new();
    let refused = loop {
        match subscribe(&node.cri.client()).await {
            Ok(stream) => streams.push(stream),
            Err(status) => break status,
        }
        ensure!(streams.len() < 1000, "as many streams as anybody likes");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(streams.len() > 100, "{}", streams.len());
    let mut last = streams.pop().context("some")?;
    drop(streams);
    let pod = node.cri.run_pod(PodSpec::new("pod")).await?;
    for kind in [Created, Started] {
        let event = tokio::time::timeout(deadline(), last.message()).await??;
        let event = event.context("the stream ended")?;
        assert_eq!(
            (event.container_id.as_str(), event.container_event_type()),
            (pod.id.as_str(), kind)
        );
    }
    node.daemon.terminate().await?;
    let end = tokio::time::timeout(deadline(), last.message()).await?;
    assert_eq!(end.unwrap_err().code(), Code::Unavailable);
    assert!(
        !node.daemon.log().contains("still at work"),
        "it waited for the stream"
    );
    node.daemon.restart().await?;
    node.finish().await
}

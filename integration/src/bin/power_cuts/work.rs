//! What a node does all day: pulls and removes images, makes pods and removes them.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use podwright_cri_api::v1::{ContainerState, ImageSpec, RemoveImageRequest};
use podwright_integration::{
    cri::Pod,
    log,
    pod::{ContainerSpec, PodSpec},
    random::Random,
};
use tokio::sync::Mutex;

use crate::{
    images::POD_IMAGE,
    message::{Event, LeftContainer, LeftPod},
    node::Node,
};

/// Tasks of each kind that work at the same time.
const TASKS: usize = 2;
/// Pods that one task has at the same time.
const MOST_PODS: usize = 3;

/// A pod, and the containers that it has.
type MadePod = (Pod, Vec<String>);

/// The work of one boot.
pub(crate) struct Work<'a> {
    node: &'a Node,
    random: Random,
    /// One task at a time changes an image, so that what was told of it has an order.
    images: Vec<Mutex<()>>,
    /// Those that each task has made, the oldest first.
    pods: [Mutex<Vec<MadePod>>; TASKS],
    names: AtomicU32,
}

impl<'a> Work<'a> {
    pub(crate) fn new(node: &'a Node, random: Random) -> Self {
        Self {
            node,
            random,
            images: node.images.iter().map(|_| Mutex::new(())).collect(),
            pods: Default::default(),
            names: AtomicU32::new(0),
        }
    }

    /// Works until the power fails, or something else does.
    pub(crate) async fn until_the_end(mut self) -> Result<()> {
        let mut random = [(); 2 * TASKS].map(|()| self.random.fork());
        let [one, two, three, four] = &mut random;
        let ended = tokio::try_join!(
            self.change_images(one),
            self.change_images(two),
            self.change_pods(three, 0),
            self.change_pods(four, 1),
        );
        ended.map(drop)
    }

    /// Works so long; returned is what is there then.
    pub(crate) async fn for_a_while(mut self, time: Duration) -> Result<Vec<LeftPod>> {
        let mut random = [(); 2].map(|()| self.random.fork());
        let [one, two] = &mut random;
        let end = tokio::time::Instant::now() + time;
        // A call is not cut off in the middle: what is there is to be known.
        while tokio::time::Instant::now() < end {
            tokio::try_join!(self.change_pod(one, 0), self.change_pod(two, 1))?;
        }
        let mut left = Vec::new();
        for pods in &self.pods {
            for (pod, containers) in pods.lock().await.iter() {
                left.push(self.left(pod, containers).await?);
            }
        }
        Ok(left)
    }

    async fn left(&self, pod: &Pod, containers: &[String]) -> Result<LeftPod> {
        let mut left = Vec::new();
        for id in containers {
            let mut status = self.node.cri.status(id).await?;
            // One that ends by itself may do so after it was looked at, and then how is not foretold.
            if status
                .metadata
                .as_ref()
                .is_some_and(|own| own.name != ENDLESS)
            {
                status = self.node.cri.wait_exit(id).await?;
            }
            let has_ended = status.state() == ContainerState::ContainerExited;
            left.push(LeftContainer {
                id: id.clone(),
                exit_code: has_ended.then_some(status.exit_code),
                lines: log::read(status.log_path.as_ref())?.len(),
                log: status.log_path,
            });
        }
        Ok(LeftPod {
            id: pod.id.clone(),
            containers: left,
        })
    }

    async fn change_images(&self, random: &mut Random) -> Result<()> {
        loop {
            let number = random.index(self.images.len());
            let Ok(_turn) = self.images[number].try_lock() else {
                tokio::task::yield_now().await;
                continue;
            };
            let reference = &self.node.images[number].reference;
            if number != POD_IMAGE && random.chance(1, 2) {
                Event::Removing(number).tell();
                let request = RemoveImageRequest {
                    image: Some(ImageSpec {
                        image: reference.clone(),
                        ..ImageSpec::default()
                    }),
                };
                let removed = self.node.cri.client().image.remove_image(request).await;
                removed.with_context(|| format!("removing {reference}"))?;
                Event::Removed(number).tell();
            } else {
                Event::Pulling(number).tell();
                let pulled = self.node.cri.pull(reference).await;
                pulled.with_context(|| format!("pulling {reference}"))?;
                Event::Pulled(number).tell();
            }
        }
    }

    async fn change_pods(&self, random: &mut Random, task: usize) -> Result<()> {
        loop {
            self.change_pod(random, task).await?;
        }
    }

    /// Makes a pod, or does something to the oldest one.
    async fn change_pod(&self, random: &mut Random, task: usize) -> Result<()> {
        let cri = &self.node.cri;
        let Some(mutex) = self.pods.get(task) else {
            bail!("there is no task {task}");
        };
        let mut pods = mutex.lock().await;
        if pods.len() < MOST_PODS {
            let number = self.names.fetch_add(1, Ordering::Relaxed);
            let name = format!("work-{}-{number}", self.node.order.boot);
            let pod = cri.run_pod(PodSpec::new(&name)).await.context("a pod")?;
            let mut containers = Vec::new();
            for (name, script) in SCRIPTS.iter().take(1 + random.index(SCRIPTS.len())) {
                let spec = ContainerSpec::new(name).shell(script);
                containers.push(cri.run(&pod, spec).await.context("a container")?);
            }
            pods.push((pod, containers));
            return Ok(());
        }
        let (pod, containers) = &mut pods[0];
        match random.index(3) {
            0 if !containers.is_empty() => {
                let id = containers.remove(0);
                cri.stop(&id, 0).await.context("stopping a container")?;
                cri.remove(&id).await.context("removing a container")?;
            }
            1 => {
                cri.stop_pod(&pod.id).await.context("stopping a pod")?;
                pods.rotate_left(1);
            }
            _ => {
                cri.stop_pod(&pod.id).await.context("stopping a pod")?;
                cri.remove_pod(&pod.id).await.context("removing a pod")?;
                pods.remove(0);
            }
        }
        Ok(())
    }
}

/// The name of the container that goes on.
const ENDLESS: &str = "runs";

/// Containers by name: one that ends well, one that fails, one that goes on.
const SCRIPTS: [(&str, &str); 3] = [
    (
        "ends",
        "i=0; while [ $i -lt 50 ]; do echo line $i; i=$((i+1)); done",
    ),
    ("fails", "echo fails; exit 7"),
    (ENDLESS, "while true; do echo runs; sleep 0.2; done"),
];

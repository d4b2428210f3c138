//! What must hold when the power is back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use podwright_cri_api::v1::{
    Container, ContainerState, ListContainersRequest, ListImagesRequest, ListPodSandboxRequest,
    PodSandbox, PodSandboxState,
};
use podwright_integration::{
    log,
    node::until,
    pod::{ContainerSpec, PodSpec},
};

use crate::{
    images::POD_IMAGE,
    layer,
    message::{Event, Figures},
    node::Node,
    records::{self, Kind, Record},
};

/// Exit codes that the work's containers have by themselves, when they are killed with their pod, when nobody saw their end,
/// and when they were not started.
const EXIT_CODES: [i32; 5] = [0, 7, 137, 255, 128];
/// For who lost a container with its machine.
const UNSEEN: [i32; 2] = [137, 255];

/// A check of one boot, and what it has found so far.
pub(crate) struct Check<'a> {
    node: &'a Node,
    /// The records as the daemon found them.
    before: BTreeSet<Record>,
    figures: Figures,
}

impl<'a> Check<'a> {
    pub(crate) fn new(node: &'a Node, before: BTreeSet<Record>, figures: Figures) -> Self {
        Self {
            node,
            before,
            figures,
        }
    }

    /// Everything; returned are the images that are listed, and the figures.
    pub(crate) async fn run(mut self) -> Result<(Vec<usize>, Figures)> {
        let (pods, containers) = self.listed().await?;
        println!("records");
        self.records(&pods, &containers)?;
        self.pods(&pods, &containers)?;
        self.left_by_reboot(&pods, &containers).await?;
        println!("images");
        let listed = self.images().await?;
        self.network()?;
        println!("a new pod");
        self.new_pod(&listed).await?;
        println!("removing the dead pods");
        self.remove(&pods).await?;
        // The pods' image may have been pulled just now.
        let listed = self.image_list().await?;
        println!("leftovers");
        self.no_leftovers(&listed).await?;
        Ok((listed, self.figures))
    }

    async fn listed(&mut self) -> Result<(Vec<PodSandbox>, Vec<Container>)> {
        let mut runtime = self.node.cri.client().runtime;
        let pods = runtime.list_pod_sandbox(ListPodSandboxRequest::default());
        let pods = pods.await.context("listing pods")?.into_inner().items;
        let containers = runtime.list_containers(ListContainersRequest::default());
        let containers = containers.await.context("listing containers")?;
        let containers = containers.into_inner().containers;
        self.figures.pods = pods.len();
        self.figures.containers = containers.len();
        Ok((pods, containers))
    }

    /// Torn records are gone, each with a line in the log; whole ones are honoured.
    fn records(&self, pods: &[PodSandbox], containers: &[Container]) -> Result<()> {
        let log = fs::read_to_string(&self.node.log).context("reading the daemon's log")?;
        for record in records::all(&self.node.state)? {
            ensure!(
                !record.torn,
                "the record {} is torn, and still there",
                record.path.display()
            );
        }
        for record in self.before.iter().filter(|record| record.torn) {
            let said = [record.path.display().to_string(), record.id.clone()];
            ensure!(
                said.iter().any(|name| log.contains(name)),
                "the record {} was torn, and nothing is said of it",
                record.path.display()
            );
        }
        let pods: BTreeSet<&str> = pods.iter().map(|pod| pod.id.as_str()).collect();
        let containers: BTreeSet<&str> = containers
            .iter()
            .map(|container| container.id.as_str())
            .collect();
        let has = |kind, id: &str, fact: &str| {
            self.before
                .iter()
                .any(|record| (record.kind, &*record.id, &*record.fact) == (kind, id, fact))
        };
        for record in self.before.iter().filter(|record| record.fact == "record") {
            let id = record.id.as_str();
            let (listed, expected) = match record.kind {
                // One that was never told is dropped.
                Kind::Pod => (
                    pods.contains(id),
                    !record.torn && has(Kind::Pod, id, "ready"),
                ),
                // It goes with its pod.
                Kind::Container => (
                    containers.contains(id),
                    !record.torn && pods.iter().any(|pod| record.names(pod)),
                ),
                Kind::Network => continue,
            };
            ensure!(
                listed == expected,
                "{} is listed: {listed}",
                record.path.display()
            );
        }
        Ok(())
    }

    /// No pod outlives a machine.
    fn pods(&self, pods: &[PodSandbox], containers: &[Container]) -> Result<()> {
        for pod in pods {
            ensure!(
                pod.state() == PodSandboxState::SandboxNotready,
                "pod {} is {:?}",
                pod.id,
                pod.state()
            );
        }
        for container in containers {
            ensure!(
                container.state() == ContainerState::ContainerExited,
                "container {} is {:?}",
                container.id,
                container.state()
            );
            let has_pod = pods.iter().any(|pod| pod.id == container.pod_sandbox_id);
            ensure!(has_pod, "container {} has no pod", container.id);
        }
        Ok(())
    }

    /// After an orderly reboot nothing is missing.
    async fn left_by_reboot(&self, pods: &[PodSandbox], containers: &[Container]) -> Result<()> {
        for container in containers {
            let status = self.node.cri.status(&container.id).await?;
            ensure!(
                EXIT_CODES.contains(&status.exit_code) && status.finished_at > 0,
                "container {} ended with {} at {}",
                container.id,
                status.exit_code,
                status.finished_at
            );
        }
        for pod in &self.node.order.left {
            let is_there = pods.iter().any(|there| there.id == pod.id);
            ensure!(is_there, "pod {} was lost in an orderly reboot", pod.id);
            for container in &pod.containers {
                let status = self.node.cri.status(&container.id).await;
                let status = status.context("a container was lost in an orderly reboot")?;
                let code = status.exit_code;
                let is_right = match container.exit_code {
                    Some(before) => code == before,
                    None => UNSEEN.contains(&code),
                };
                ensure!(
                    is_right,
                    "container {} ended with {code} instead of {:?}",
                    container.id,
                    container.exit_code
                );
                let lines = log::read(status.log_path.as_ref())?.len();
                ensure!(
                    status.log_path == container.log && lines >= container.lines,
                    "{} of {} lines are left in {}",
                    lines,
                    container.lines,
                    container.log
                );
            }
        }
        Ok(())
    }

    async fn image_list(&self) -> Result<Vec<usize>> {
        let mut client = self.node.cri.client().image;
        let images = client.list_images(ListImagesRequest::default());
        let images = images.await.context("listing images")?.into_inner().images;
        let mut listed = Vec::new();
        for image in images {
            let of_ours = self
                .node
                .images
                .iter()
                .position(|ours| image.repo_tags.contains(&ours.reference));
            listed.push(of_ours.with_context(|| format!("nobody pulled {image:?}"))?);
        }
        listed.sort_unstable();
        Ok(listed)
    }

    /// What was pulled is there, what was removed is not, and all that is listed is whole.
    async fn images(&mut self) -> Result<Vec<usize>> {
        let listed = self.image_list().await?;
        let order = &self.node.order;
        for image in &order.present {
            ensure!(
                listed.contains(image),
                "image {image} was pulled, and is not listed"
            );
        }
        for image in &order.absent {
            ensure!(
                !listed.contains(image),
                "image {image} was removed, and is listed"
            );
        }
        let layers: BTreeMap<_, _> = listed
            .iter()
            .flat_map(|image| &self.node.images[*image].layers)
            .map(|(directory, layer)| (directory, layer))
            .collect();
        for (directory, layer) in layers {
            let root = self.node.state.join("images/layers").join(directory);
            self.figures.files += layer::compare(&root, layer)?;
        }
        self.figures.images = listed.len();
        Ok(listed)
    }

    /// Nobody has an address or a port.
    fn network(&self) -> Result<()> {
        let left = records::entries(&self.node.state.join("network/pods"))?;
        ensure!(left.is_empty(), "addresses of dead pods: {left:?}");
        Ok(())
    }

    /// A new pod runs at once.
    async fn new_pod(&mut self, listed: &[usize]) -> Result<()> {
        let cri = &self.node.cri;
        if !listed.contains(&POD_IMAGE) {
            Event::Pulling(POD_IMAGE).tell();
            cri.pull(&self.node.images[POD_IMAGE].reference).await?;
            Event::Pulled(POD_IMAGE).tell();
        }
        let begun = Instant::now();
        let pod = PodSpec::new(&format!("check-{}", self.node.order.boot));
        let pod = cri.run_pod(pod).await.context("running a new pod")?;
        let spec = ContainerSpec::new("check").shell("echo runs");
        let id = cri.run(&pod, spec).await.context("a container of it")?;
        let status = cri.wait_exit(&id).await?;
        self.figures.pod_ms = begun.elapsed().as_millis();
        let lines = cri.logs(&id).await?;
        ensure!(
            status.exit_code == 0 && lines.len() == 1 && lines[0].text == "runs",
            "the new pod's container ended with {} and said {lines:?}",
            status.exit_code
        );
        cri.stop_pod(&pod.id).await?;
        cri.remove_pod(&pod.id).await?;
        Ok(())
    }

    async fn remove(&self, pods: &[PodSandbox]) -> Result<()> {
        for pod in pods {
            let stopped = self.node.cri.stop_pod(&pod.id).await;
            stopped.with_context(|| format!("stopping the dead pod {}", pod.id))?;
            let removed = self.node.cri.remove_pod(&pod.id).await;
            removed.with_context(|| format!("removing the dead pod {}", pod.id))?;
        }
        Ok(())
    }

    /// With the dead pods removed, only images are left.
    async fn no_leftovers(&self, listed: &[usize]) -> Result<()> {
        let of_images = listed
            .iter()
            .flat_map(|image| &self.node.images[*image].layers);
        let layers = self.node.state.join("images/layers");
        let expected: BTreeSet<_> = of_images
            .map(|(directory, _)| layers.join(directory))
            .collect();
        until("only listed images' layers to be left", || async {
            let found = records::entries(&layers).map_err(|error| format!("{error:#}"))?;
            let found: BTreeSet<_> = found.into_iter().collect();
            match found == expected {
                true => Ok(()),
                false => Err(format!("{found:?} instead of {expected:?}")),
            }
        })
        .await?;
        for part in [
            "images/staging",
            "images/trash",
            "pods",
            "containers",
            "trash",
            "network/pods",
        ] {
            let directory = self.node.state.join(part);
            until(&format!("{part} to be empty"), || async {
                let found = records::entries(&directory).map_err(|error| format!("{error:#}"))?;
                match found.is_empty() {
                    true => Ok(()),
                    false => Err(format!("{found:?}")),
                }
            })
            .await?;
        }
        if self.node.state.join("images/images.redb.damaged").exists() {
            bail!("the image database was damaged");
        }
        Ok(())
    }
}

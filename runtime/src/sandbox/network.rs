//! A new pod's network, which a thread of its own makes beside the pod's cgroups and its pause.
//!
//! What the kernel does for it waits for nothing that those do, and takes the longer the more pods a node has: the link's end on
//! the host joins the bridge in a millisecond among a thousand.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use podwright_netns::{Attachment, Namespace, NetworkError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::settings::{NetworkMode, Settings};
use crate::beside::beside;
use crate::error::{CallError, Context, Kind};
use crate::ids::SandboxId;
use crate::node::Node;
use crate::pause::Made;

/// See the module. A pod on the host's network has none.
pub(super) struct PodNetwork {
    pod: Arc<Pod>,
    attachment: Attachment,
    /// Comes when pause can join the namespace; none when pause makes it, which must belong to the pod's user namespace.
    announced: Option<oneshot::Receiver<Result<OwnedFd, CallError>>>,
    /// None when pause makes the namespace.
    work: Option<JoinHandle<Result<Progress, CallError>>>,
}

/// How far it came without pause.
enum Progress {
    /// pause has to set the pod's sysctls first: some hold for links that are made later.
    Namespace(Namespace),
    Connected,
}

/// Who gets the network.
struct Pod {
    node: Arc<Node>,
    id: SandboxId,
    /// Settings below `/proc/sys` that pause writes, which win.
    asked: Vec<String>,
}

impl PodNetwork {
    /// Begins to make it. The pod's addresses and ports are its own from now on, until it is detached.
    ///
    /// # Errors
    /// When it has no addresses and ports: nothing is to be undone.
    pub(super) fn begin(
        node: &Arc<Node>,
        id: &SandboxId,
        settings: &Settings,
    ) -> Result<Option<Self>, CallError> {
        if settings.network == NetworkMode::Host {
            return Ok(None);
        }
        let asked = settings.sysctls.iter();
        let pod = Arc::new(Pod {
            node: Arc::clone(node),
            id: id.clone(),
            asked: asked.map(|sysctl| sysctl.proc_path().to_owned()).collect(),
        });
        let allocate = || {
            let allocated = node.network.allocate(id.as_str(), &settings.ports);
            allocated.map_err(not_connected)
        };
        if settings.user_namespace.is_some() {
            return Ok(Some(Self {
                pod,
                attachment: allocate()?,
                announced: None,
                work: None,
            }));
        }
        let (announce, announced) = oneshot::channel();
        let (give, given) = oneshot::channel();
        let linking = Arc::clone(&pod);
        let linked = beside("pod-network", move || {
            linking.link_when_given(announce, given)
        })
        .internal(|| "cannot start the thread that makes the pod's network".into())?;
        // Meanwhile; without them the thread ends.
        let attachment = allocate()?;
        // It has ended when it could not make the namespace.
        let _ = give.send(attachment.clone());
        let (configuring, given) = (Arc::clone(&pod), attachment.clone());
        // By a thread of tokio's: pause often waits for the processor that the other one had.
        let work = tokio::spawn(async move {
            let namespace = linked.await.map_err(|_| not_made())??;
            if !configuring.asked.is_empty() {
                return Ok(Progress::Namespace(namespace));
            }
            configuring.configure(&given, &namespace)?;
            Ok(Progress::Connected)
        });
        Ok(Some(Self {
            pod,
            attachment,
            announced: Some(announced),
            work: Some(work),
        }))
    }

    /// The namespace that pause has to join; none when it has to make it.
    pub(super) async fn namespace(&mut self) -> Result<Option<OwnedFd>, CallError> {
        match self.announced.take() {
            None => Ok(None),
            Some(announced) => announced.await.map_err(|_| not_made())?.map(Some),
        }
    }

    /// Waits until the pod, which pause has made, is connected; its addresses.
    pub(super) async fn connected(&mut self, made: Made) -> Result<Vec<IpAddr>, CallError> {
        let namespace = match self.work.take() {
            None => Some(made.network.ok_or_else(not_made)?),
            Some(work) => match work.await.map_err(|_| not_made())?? {
                Progress::Namespace(namespace) => Some(namespace),
                Progress::Connected => None,
            },
        };
        if let Some(namespace) = namespace {
            self.pod.link(&self.attachment, &namespace)?;
            self.pod.configure(&self.attachment, &namespace)?;
        }
        let addresses = self.attachment.addresses.iter();
        Ok(addresses.map(|net| net.address).collect())
    }

    /// Waits until nothing is made any more.
    pub(super) async fn give_up(self) {
        if let Some(work) = self.work {
            let _ = work.await;
        }
    }
}

impl Pod {
    /// Makes the namespace, gives pause its descriptor, or the error, and makes the link, if that does not have to wait.
    fn link_when_given(
        &self,
        announce: oneshot::Sender<Result<OwnedFd, CallError>>,
        given: oneshot::Receiver<Attachment>,
    ) -> Result<Namespace, CallError> {
        // Nobody hears of it when the pod was given up: what follows is undone.
        let namespace = match make() {
            Ok((namespace, copy)) => {
                let _ = announce.send(Ok(copy));
                namespace
            }
            Err(error) => {
                let _ = announce.send(Err(error));
                return Err(not_made());
            }
        };
        if self.asked.is_empty() {
            let attachment = given.blocking_recv().map_err(|_| not_made())?;
            self.link(&attachment, &namespace)?;
        }
        Ok(namespace)
    }

    fn link(&self, attachment: &Attachment, namespace: &Namespace) -> Result<(), CallError> {
        let network = &self.node.network;
        let is_asked = |path: &str| self.asked.iter().any(|asked| asked == path);
        let settled = network.settle(namespace, is_asked);
        settled
            .and_then(|()| network.link(self.id.as_str(), attachment, namespace))
            .map_err(not_connected)
    }

    fn configure(&self, attachment: &Attachment, namespace: &Namespace) -> Result<(), CallError> {
        let network = &self.node.network;
        let configured = network.configure(self.id.as_str(), attachment, namespace);
        configured.map_err(not_connected)
    }
}

/// A namespace, and a copy of its descriptor.
fn make() -> Result<(Namespace, OwnedFd), CallError> {
    let namespace = Namespace::make().map_err(not_connected)?;
    let copy = namespace.file.try_clone();
    let copy = copy.internal(|| "cannot copy the descriptor of the pod's network".into())?;
    Ok((namespace, copy))
}

fn not_made() -> CallError {
    CallError::new(Kind::Internal, "the pod's network was not made")
}

fn not_connected(error: NetworkError) -> CallError {
    let kind = crate::network_kind(&error);
    CallError::caused(kind, "cannot connect the pod to the network", error)
}

//! The other end: a plugin that is written down frame by frame, so that it can break every rule.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::adaptation::{Origin, serve};
use crate::api::*;
use crate::ttrpc::{Request, Response, Status};
use crate::{Config, ExternalPlugins, Host, HostFuture, Inventory, Nri};

/// Long enough for a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A runtime with one pod, that writes down what it is asked.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) inventory: Mutex<Inventory>,
    pub(super) updates: Mutex<Vec<ContainerUpdate>>,
}

impl Host for Recorder {
    fn inventory(&self) -> Inventory {
        self.inventory.lock().unwrap().clone()
    }

    fn update(&self, update: ContainerUpdate) -> HostFuture<'_, Result<(), String>> {
        let known = update.container_id != "unknown";
        self.updates.lock().unwrap().push(update);
        Box::pin(async move {
            known
                .then_some(())
                .ok_or_else(|| "there is none".to_owned())
        })
    }

    fn evict(&self, _: ContainerEviction) -> HostFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// An interface that waits for answers as long as told.
pub(super) async fn nri(limit: Duration, change: impl FnOnce(&mut Config)) -> (Nri, Arc<Recorder>) {
    let mut config = Config {
        external: ExternalPlugins::Refused,
        plugin_dir: "/nonexistent".into(),
        registration_timeout: limit,
        request_timeout: limit,
        ..Config::default()
    };
    change(&mut config);
    let nri = Nri::new(Some(config));
    let host = Arc::new(Recorder::default());
    nri.start(Arc::clone(&host) as Arc<dyn Host>).await.unwrap();
    (nri, host)
}

/// A message as it was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) channel: u32,
    pub(super) stream: u32,
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
}

pub(super) struct Peer {
    stream: UnixStream,
    pending: [Vec<u8>; 3],
}

impl Peer {
    /// Connects, and does nothing more.
    pub(super) fn connect(nri: &Nri) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let shared = Arc::clone(&nri.shared);
        tokio::spawn(async move {
            let config = shared.config.clone().unwrap();
            serve(shared, &config, theirs, &Origin::External, None).await;
        });
        Self {
            stream: ours,
            pending: Default::default(),
        }
    }

    /// Connects and does all that is asked of a plugin until it takes part.
    pub(super) async fn join(nri: &Nri, index: &str, name: &str, events: EventSet) -> Self {
        let mut peer = Self::connect(nri);
        peer.register(index, name).await;
        peer.configure(events).await;
        let synchronize = peer.expect("Synchronize").await;
        peer.answer(&synchronize, &SynchronizeResponse::default())
            .await;
        // It takes part before it is told what lives: nothing more is to be waited for.
        peer
    }

    pub(super) async fn register(&mut self, index: &str, name: &str) {
        let request = RegisterPluginRequest {
            plugin_name: name.into(),
            plugin_idx: index.into(),
            nri_version: "test".into(),
        };
        self.call(1, "RegisterPlugin", &request).await;
        let answer = self.read().await.unwrap();
        assert_eq!((answer.channel, answer.kind), (2, 2));
    }

    pub(super) async fn configure(&mut self, events: EventSet) {
        let configure = self.expect("Configure").await;
        let answer = ConfigureResponse {
            events: events.bits().cast_signed(),
        };
        self.answer(&configure, &answer).await;
    }

    pub(super) async fn call(&mut self, stream: u32, method: &str, request: &impl prost::Message) {
        let request = Request {
            service: "nri.pkg.api.v1alpha1.Runtime".into(),
            method: method.into(),
            payload: request.encode_to_vec(),
            timeout_nano: 0,
        };
        self.message(2, stream, 1, &request.encode_to_vec())
            .await
            .unwrap();
    }

    /// The next request of the runtime, which has to be `method`.
    pub(super) async fn expect(&mut self, method: &str) -> Read {
        let read = self.read().await.unwrap();
        assert_eq!((read.channel, read.kind), (1, 1));
        assert_eq!(Request::decode(&*read.body).unwrap().method, method);
        read
    }

    pub(super) async fn answer(&mut self, to: &Read, answer: &impl prost::Message) {
        let response = Response {
            status: None,
            payload: answer.encode_to_vec(),
        };
        let body = response.encode_to_vec();
        self.message(1, to.stream, 2, &body).await.unwrap();
    }

    pub(super) async fn refuse(&mut self, to: &Read, code: i32, message: &str) {
        let response = Response {
            status: Some(Status {
                code,
                message: message.into(),
            }),
            payload: Vec::new(),
        };
        let body = response.encode_to_vec();
        self.message(1, to.stream, 2, &body).await.unwrap();
    }

    /// A ttrpc message in one frame.
    pub(super) async fn message(
        &mut self,
        channel: u32,
        stream: u32,
        kind: u8,
        body: &[u8],
    ) -> std::io::Result<()> {
        let mut message = (body.len() as u32).to_be_bytes().to_vec();
        message.extend_from_slice(&stream.to_be_bytes());
        message.extend_from_slice(&[kind, 0]);
        message.extend_from_slice(body);
        self.frame(channel, &message).await
    }

    pub(super) async fn frame(&mut self, channel: u32, payload: &[u8]) -> std::io::Result<()> {
        let mut frame = channel.to_be_bytes().to_vec();
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        self.raw(&frame).await
    }

    pub(super) async fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next message; an error at the end of the connection.
    pub(super) async fn read(&mut self) -> std::io::Result<Read> {
        tokio::time::timeout(PATIENCE, self.read_message())
            .await
            .expect("nothing comes")
    }

    async fn read_message(&mut self) -> std::io::Result<Read> {
        loop {
            for channel in [1, 2] {
                let pending = &mut self.pending[channel];
                let Some(header) = pending.first_chunk::<10>().copied() else {
                    continue;
                };
                let length = u32::from_be_bytes(header[..4].try_into().unwrap()) as usize;
                if pending.len() >= 10 + length {
                    let body = pending[10..10 + length].to_vec();
                    pending.drain(..10 + length);
                    return Ok(Read {
                        channel: channel as u32,
                        stream: u32::from_be_bytes(header[4..8].try_into().unwrap()),
                        kind: header[8],
                        body,
                    });
                }
            }
            let channel = self.stream.read_u32().await? as usize;
            let length = self.stream.read_u32().await? as usize;
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await?;
            self.pending[channel].extend_from_slice(&payload);
        }
    }

    /// Reads until the runtime ends the connection.
    pub(super) async fn ended(&mut self) {
        while self.read().await.is_ok() {}
    }
}

/// A container to be made.
pub(super) fn new_container() -> (PodSandbox, Container) {
    let pod = PodSandbox {
        id: "pod".into(),
        ..PodSandbox::default()
    };
    let container = Container {
        id: "new".into(),
        pod_sandbox_id: "pod".into(),
        name: "c".into(),
        ..Container::default()
    };
    (pod, container)
}

/// Waits for what comes about by itself.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect(what);
}

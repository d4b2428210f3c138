//! One plugin's life: it registers, is configured, told what lives, then asked and listened to until its connection ends.

use std::sync::Arc;

use prost::Message as _;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::{Inventory, Shared};
use crate::api::{
    ConfigureRequest, ConfigureResponse, ContainerEviction, ContainerUpdate, Empty, EventSet,
    NRI_VERSION, RegisterPluginRequest, SynchronizeRequest, SynchronizeResponse,
    UpdateContainersRequest, UpdateContainersResponse,
};
use crate::config::Config;
use crate::connection::{Closed, ClosesOnDrop, Connection, Incoming};
use crate::error::shown;
use crate::identity::PluginName;
use crate::plugin::{Asked, Plugin};
use crate::ttrpc::{Code, MAX_BODY, Status, decode};

/// Room in a message for what is around its lists.
const MESSAGE_MARGIN: usize = 4096;

/// Where a plugin comes from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// It has connected by itself, and says what it is called.
    External,
    /// It was started here, under this name and with this configuration.
    PreInstalled { name: PluginName, config: String },
}

/// Serves a connection until it ends. `joined` is told, or dropped, when it is clear whether the plugin takes part.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    config: &Config,
    stream: UnixStream,
    origin: &Origin,
    joined: Option<oneshot::Sender<()>>,
) {
    let (connection, mut requests) = Connection::open(stream);
    let _closes = ClosesOnDrop(connection.clone());
    let plugin = match enlist(config, &connection, &mut requests, origin).await {
        Ok(plugin) => plugin,
        Err(why) => {
            connection.close(Closed::Dismissed(why.clone()));
            tracing::warn!(?origin, why, "a NRI plugin does not take part");
            return;
        }
    };
    tokio::select! {
        () = answer(&shared, config, &plugin, requests) => {}
        why = take_part(&shared, &plugin, joined) => {
            connection.close(Closed::Dismissed(why));
        }
    }
    let why = connection.closed().await;
    shared.remove(&plugin);
    let cause = std::error::Error::source(&*why).map(ToString::to_string);
    match *why {
        Closed::Ended => tracing::info!(plugin = %plugin.name, "the NRI plugin has left"),
        _ => {
            tracing::error!(plugin = %plugin.name, why = %why, cause, "the NRI plugin is disconnected")
        }
    }
}

/// Registers and configures a plugin.
async fn enlist(
    config: &Config,
    connection: &Connection,
    requests: &mut mpsc::Receiver<Incoming>,
    origin: &Origin,
) -> Result<Arc<Plugin>, String> {
    let limit = config.registration_timeout;
    let registered = tokio::time::timeout(limit, register(connection, requests, origin)).await;
    let name = registered
        .map_err(|_| format!("it did not register within {} ms", limit.as_millis()))??;
    let millis = |limit: std::time::Duration| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
    let request = ConfigureRequest {
        config: match origin {
            Origin::External => String::new(),
            Origin::PreInstalled { config, .. } => config.clone(),
        },
        runtime_name: config.runtime_name.clone(),
        runtime_version: config.runtime_version.clone(),
        registration_timeout: millis(config.registration_timeout),
        request_timeout: millis(config.request_timeout),
        nri_version: NRI_VERSION.into(),
    };
    let answer: ConfigureResponse = connection
        .call("Configure", request.encode_to_vec(), config.request_timeout)
        .await
        .map_err(|failure| format!("'{name}' is not configured: {failure}"))?;
    let events = EventSet::subscribed(answer.events)
        .map_err(|bits| format!("'{name}' subscribes to events that do not exist ({bits:#x})"))?;
    Ok(Plugin::new(
        name,
        events,
        connection.clone(),
        config.request_timeout,
    ))
}

async fn register(
    connection: &Connection,
    requests: &mut mpsc::Receiver<Incoming>,
    origin: &Origin,
) -> Result<PluginName, String> {
    while let Some(incoming) = requests.recv().await {
        if incoming.method != "RegisterPlugin" {
            let status = Status::new(Code::FailedPrecondition, "register the plugin first");
            connection.answer(&incoming, Err(status));
            continue;
        }
        let request = decode::<RegisterPluginRequest>(&incoming.payload)
            .map_err(|error| format!("its registration is no message: {error}"))?;
        let name = match origin {
            Origin::PreInstalled { name, .. } => Ok(name.clone()),
            Origin::External => PluginName::new(&request.plugin_idx, &request.plugin_name),
        };
        return match name {
            Ok(name) => {
                tracing::info!(plugin = %name, version = shown(&request.nri_version), "a NRI plugin registers");
                connection.answer(&incoming, Ok(Empty {}.encode_to_vec()));
                Ok(name)
            }
            Err(error) => {
                let status = Status::new(Code::InvalidArgument, error.to_string());
                connection.answer(&incoming, Err(status));
                Err(error.to_string())
            }
        };
    }
    Err(connection.closed().await.to_string())
}

/// Makes the plugin one that is asked, tells it what lives, and goes on until it must go: then says why.
async fn take_part(
    shared: &Arc<Shared>,
    plugin: &Arc<Plugin>,
    joined: Option<oneshot::Sender<()>>,
) -> String {
    let mut turn = plugin.turn().await;
    let inventory = {
        // No object comes or goes between the list and the first event: whoever makes one holds the gate until it is listed.
        let _alone = shared.gate.write().await;
        shared.add(plugin);
        let inventory = shared.host.get().map(|host| host.inventory());
        inventory.unwrap_or_default()
    };
    let messages = match split(inventory) {
        Ok(messages) => messages,
        Err(why) => return why,
    };
    let mut updates = Vec::new();
    for message in messages {
        // Events that happen meanwhile wait for the turn.
        let asked = plugin.ask_in(&mut turn, "Synchronize", message.encode_to_vec());
        let answer: SynchronizeResponse = match asked.await {
            Asked::Answered(answer) => answer,
            Asked::Refused(why) | Asked::Missed(why) => {
                return format!("it is not synchronized: {why}");
            }
        };
        if message.more && (!answer.more || !answer.update.is_empty()) {
            return "it does not take the list of pods and containers in several messages".into();
        }
        updates = answer.update;
    }
    drop(turn);
    tracing::info!(plugin = %plugin.name, "the NRI plugin is connected and synchronized");
    if let Some(joined) = joined {
        // Nobody waits for it: as well.
        let _ = joined.send(());
    }
    for failed in update(shared, updates).await {
        tracing::warn!(plugin = %plugin.name, container = failed.container_id, "an update that the plugin asked for failed");
    }
    std::future::pending().await
}

/// Answers what the plugin asks, until its connection ends.
async fn answer(
    shared: &Shared,
    config: &Config,
    plugin: &Plugin,
    mut requests: mpsc::Receiver<Incoming>,
) {
    while let Some(incoming) = requests.recv().await {
        let answer = match incoming.method.as_str() {
            "UpdateContainers" => {
                let limit = config.request_timeout;
                let work = update_containers(shared, plugin, &incoming.payload);
                tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                    let what = format!("the updates took more than {} ms", limit.as_millis());
                    Err(Status::new(Code::DeadlineExceeded, what))
                })
            }
            "RegisterPlugin" => {
                let what = "the plugin is registered already";
                Err(Status::new(Code::FailedPrecondition, what))
            }
            other => {
                let what = format!("the runtime has no method '{}'", shown(other));
                Err(Status::new(Code::Unimplemented, what))
            }
        };
        plugin.connection.answer(&incoming, answer);
    }
}

async fn update_containers(
    shared: &Shared,
    plugin: &Plugin,
    payload: &[u8],
) -> Result<Vec<u8>, Status> {
    let request = decode::<UpdateContainersRequest>(payload)
        .map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
    tracing::info!(plugin = %plugin.name, updates = request.update.len(), evictions = request.evict.len(), "the NRI plugin asks for updates");
    let failed = update(shared, request.update).await;
    evict(shared, request.evict)
        .await
        .map_err(|why| Status::new(Code::Unknown, why))?;
    Ok(UpdateContainersResponse { failed }.encode_to_vec())
}

/// Makes the updates; returns those that failed and were to be told of.
async fn update(shared: &Shared, updates: Vec<ContainerUpdate>) -> Vec<ContainerUpdate> {
    let mut failed = Vec::new();
    let Some(host) = shared.host.get() else {
        return updates;
    };
    for update in updates {
        if let Err(why) = host.update(update.clone()).await {
            tracing::warn!(
                container = shown(&update.container_id),
                why,
                "cannot update as a NRI plugin asks"
            );
            if !update.ignore_failure {
                failed.push(update);
            }
        }
    }
    failed
}

async fn evict(shared: &Shared, evictions: Vec<ContainerEviction>) -> Result<(), String> {
    for eviction in evictions {
        if let Some(host) = shared.host.get() {
            host.evict(eviction).await?;
        }
    }
    Ok(())
}

/// The list in as many messages as it needs.
fn split(inventory: Inventory) -> Result<Vec<SynchronizeRequest>, String> {
    const ROOM: usize = MAX_BODY - MESSAGE_MARGIN;
    let mut messages = vec![SynchronizeRequest::default()];
    let mut left = ROOM;
    let mut place = |size: usize, messages: &mut Vec<SynchronizeRequest>| {
        // The tag and the length before it.
        let size = size + 10;
        if size > ROOM {
            return Err(format!(
                "an object of {size} bytes does not fit into a message"
            ));
        }
        if size > left {
            messages.push(SynchronizeRequest::default());
            left = ROOM;
        }
        left -= size;
        Ok(())
    };
    for pod in inventory.pods {
        place(pod.encoded_len(), &mut messages)?;
        if let Some(last) = messages.last_mut() {
            last.pods.push(pod);
        }
    }
    for container in inventory.containers {
        place(container.encoded_len(), &mut messages)?;
        if let Some(last) = messages.last_mut() {
            last.containers.push(container);
        }
    }
    if let Some((_last, earlier)) = messages.split_last_mut() {
        earlier.iter_mut().for_each(|message| message.more = true);
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Container, PodSandbox};

    #[test]
    fn lists_are_split_so_that_each_message_fits_and_nothing_is_lost() {
        let inventory = Inventory {
            pods: (0..5)
                .map(|id| PodSandbox {
                    id: id.to_string(),
                    name: "p".repeat(1 << 20),
                    ..PodSandbox::default()
                })
                .collect(),
            containers: (0..5000)
                .map(|id| Container {
                    id: id.to_string(),
                    name: "c".repeat(2000),
                    ..Container::default()
                })
                .collect(),
        };
        let messages = split(inventory).unwrap();
        assert!(messages.len() > 3);
        assert!(
            messages
                .iter()
                .all(|message| message.encoded_len() <= MAX_BODY)
        );
        let more: Vec<bool> = messages.iter().map(|message| message.more).collect();
        assert_eq!(more.iter().filter(|more| !**more).count(), 1);
        assert!(!more[more.len() - 1]);
        let pods: usize = messages.iter().map(|message| message.pods.len()).sum();
        let containers: Vec<String> = messages
            .iter()
            .flat_map(|message| &message.containers)
            .map(|container| container.id.clone())
            .collect();
        assert_eq!((pods, containers.len()), (5, 5000));
        assert_eq!(containers[4999], "4999");
    }

    #[test]
    fn an_empty_node_is_one_message() {
        let messages = split(Inventory::default()).unwrap();
        assert_eq!(messages, [SynchronizeRequest::default()]);
    }
}

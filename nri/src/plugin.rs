//! A registered plugin: what it wants to hear, and its turn.
//!
//! A plugin is asked one thing at a time, in the order of the asking: plugins are written for that. A plugin that does not
//! answer in time has missed a turn, and the runtime goes on without its answer. One that misses [`MAX_MISSES`] turns in a row,
//! or leaves as many requests without any answer, is disconnected. So a slow moment costs a plugin nothing but the answers that
//! came too late, and one that hangs, wholly or in one of its calls, costs all callers together no more than that many timeouts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use crate::api::{Empty, Event, EventSet};
use crate::connection::{CallFailure, Closed, Connection};
use crate::error::shown;
use crate::identity::PluginName;
use crate::ttrpc::Code;

/// Turns that a plugin may miss in a row, and requests that it may leave unanswered at a time, before it is disconnected.
pub(crate) const MAX_MISSES: usize = 3;

/// A registered plugin.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) name: PluginName,
    pub(crate) events: EventSet,
    pub(crate) connection: Connection,
    limit: Duration,
    /// Held while it is asked; whoever waits for it is served in order.
    turn: Mutex<Turn>,
}

/// What is known of a plugin from its earlier answers.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    misses: usize,
    /// Events that it takes as state changes only, as plugins did before 0.9.
    as_state_change: EventSet,
}

/// What came of asking a plugin.
#[derive(Debug)]
pub(crate) enum Asked<T> {
    /// Its answer.
    Answered(T),
    /// It answered with an error, in its own words.
    Refused(String),
    /// It gave no answer, for the reason given; the runtime goes on without.
    Missed(String),
}

impl Plugin {
    pub(crate) fn new(
        name: PluginName,
        events: EventSet,
        connection: Connection,
        limit: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            events,
            connection,
            limit,
            turn: Mutex::default(),
        })
    }

    /// Its turn, for who has more than one thing to ask.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().await
    }

    /// Asks it something that has an answer.
    pub(crate) async fn ask<T: prost::Message + Default>(
        &self,
        event: Event,
        request: &impl prost::Message,
    ) -> Asked<T> {
        let mut turn = self.turn().await;
        self.ask_in(&mut turn, method(event), request.encode_to_vec())
            .await
    }

    /// Tells it of something; `state_change` is the same for plugins that know no other way.
    pub(crate) async fn tell(
        &self,
        event: Event,
        request: &[u8],
        state_change: Option<&[u8]>,
    ) -> Asked<Empty> {
        let mut turn = self.turn().await;
        if !turn.as_state_change.contains(event) {
            let failure = match self.call(method(event), request.to_vec()).await {
                Err(CallFailure::Refused(status))
                    if status.is(Code::Unimplemented) && state_change.is_some() =>
                {
                    turn.as_state_change = turn.as_state_change.with(event);
                    tracing::info!(plugin = %self.name, event = method(event), "the plugin takes this as a state change");
                    None
                }
                outcome => Some(outcome),
            };
            if let Some(outcome) = failure {
                return self.judge(&mut turn, method(event), outcome);
            }
        }
        let request = state_change.unwrap_or_default().to_vec();
        self.ask_in(&mut turn, "StateChange", request).await
    }

    /// Asks it something in the turn that the caller holds.
    pub(crate) async fn ask_in<T: prost::Message + Default>(
        &self,
        turn: &mut Turn,
        method: &'static str,
        request: Vec<u8>,
    ) -> Asked<T> {
        let outcome = self.call(method, request).await;
        self.judge(turn, method, outcome)
    }

    async fn call<T: prost::Message + Default>(
        &self,
        method: &'static str,
        request: Vec<u8>,
    ) -> Result<T, CallFailure> {
        if let Some(why) = self.connection.end() {
            return Err(CallFailure::Closed(why));
        }
        self.connection.call(method, request, self.limit).await
    }

    /// What an outcome means, for the caller and for the plugin.
    fn judge<T>(
        &self,
        turn: &mut Turn,
        method: &'static str,
        outcome: Result<T, CallFailure>,
    ) -> Asked<T> {
        let failure = match outcome {
            Ok(answer) => {
                turn.misses = 0;
                return Asked::Answered(answer);
            }
            Err(failure) => failure,
        };
        match &failure {
            // A plugin that heeds the deadline it was given says so itself.
            CallFailure::Refused(status) if !status.is(Code::DeadlineExceeded) => {
                turn.misses = 0;
                return Asked::Refused(shown(&status.message));
            }
            CallFailure::TooLarge(_) => return Asked::Refused(failure.to_string()),
            CallFailure::Closed(_) => return Asked::Missed(failure.to_string()),
            CallFailure::Late(_) | CallFailure::Refused(_) => {}
        }
        turn.misses += 1;
        tracing::warn!(plugin = %self.name, method, misses = turn.misses, limit_ms = self.limit.as_millis(),
            "the NRI plugin did not answer in time; going on without its answer");
        if turn.misses.max(self.connection.unanswered()) >= MAX_MISSES {
            let limit = self.limit.as_millis();
            let why = format!("it did not answer {MAX_MISSES} requests within {limit} ms each");
            self.connection.close(Closed::Dismissed(why));
        }
        Asked::Missed(failure.to_string())
    }
}

/// The call that tells of an event.
pub(crate) fn method(event: Event) -> &'static str {
    match event {
        Event::RunPodSandbox => "RunPodSandbox",
        Event::UpdatePodSandbox => "UpdatePodSandbox",
        Event::PostUpdatePodSandbox => "PostUpdatePodSandbox",
        Event::StopPodSandbox => "StopPodSandbox",
        Event::RemovePodSandbox => "RemovePodSandbox",
        Event::CreateContainer => "CreateContainer",
        Event::PostCreateContainer => "PostCreateContainer",
        Event::StartContainer => "StartContainer",
        Event::PostStartContainer => "PostStartContainer",
        Event::UpdateContainer => "UpdateContainer",
        Event::PostUpdateContainer => "PostUpdateContainer",
        Event::StopContainer => "StopContainer",
        Event::RemoveContainer => "RemoveContainer",
        Event::ValidateContainerAdjustment => "ValidateContainerAdjustment",
        Event::Unknown | Event::Last => "StateChange",
    }
}

//! One client's stream of events.

use std::sync::Arc;
use std::time::Instant;

use futures_util::Stream;
use podwright_cri_api::v1::ContainerEventResponse;
use prost::Message as _;
use tokio::sync::watch;
use tonic::Status;

use super::log::{Next, Reader};
use super::{BOUNDS, Serving, Shared};

/// A reader of the log. What comes after it is dropped is kept for the next one, for a while.
pub(crate) struct Subscription {
    shared: Arc<Shared>,
    reader: Reader,
    news: watch::Receiver<Serving>,
}

impl Subscription {
    pub(super) fn open(shared: &Arc<Shared>) -> Option<Self> {
        let reader = shared.log().open(Instant::now())?;
        Some(Self {
            shared: Arc::clone(shared),
            reader,
            news: shared.news.subscribe(),
        })
    }

    /// The next event, or why there is none any more.
    async fn next(&mut self) -> Result<ContainerEventResponse, Status> {
        loop {
            // Before the look at the log: what is appended after it wakes us.
            let serving = *self.news.borrow_and_update();
            match self.shared.log().next(self.reader) {
                Next::Entry(event) => {
                    let event = ContainerEventResponse::decode(&*event);
                    // Encoded by this very program.
                    return event.map_err(|error| {
                        Status::internal(format!("cannot read back a kept event: {error}"))
                    });
                }
                Next::Lost => {
                    return Err(Status::data_loss(format!(
                        "events were lost: this stream was more than {} events or {} MiB behind; subscribe again and list pods and containers",
                        BOUNDS.entries,
                        BOUNDS.bytes >> 20
                    )));
                }
                Next::Nothing if serving == Serving::Ending => {
                    return Err(Status::unavailable(
                        "the runtime is ending; subscribe again when it is back, and list pods and containers",
                    ));
                }
                Next::Nothing => {}
            }
            // The sender lives in what this holds.
            let _ = self.news.changed().await;
        }
    }

    /// As gRPC sends it: the events, and at last an error.
    pub(crate) fn into_stream(
        self,
    ) -> impl Stream<Item = Result<ContainerEventResponse, Status>> + Send {
        futures_util::stream::unfold(Some(self), |subscription| async {
            let mut subscription = subscription?;
            match subscription.next().await {
                Ok(event) => Some((Ok(event), Some(subscription))),
                Err(status) => Some((Err(status), None)),
            }
        })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.log().close(self.reader, Instant::now());
    }
}

//! How many commands begin at once.
//!
//! On a machine that cannot keep up with its probes, all that wait would otherwise run against each other: for the kernel's
//! `cgroup_mutex`, for the group that commands of a container take one after the other, for the processors. Each then costs more than
//! on a quiet machine, which keeps up even less. Those that wait for their turn cost nothing.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// A birth sleeps for moments, which another one uses.
const FOR_EACH_PROCESSOR: usize = 2;

/// A turn is over after this, though the command has not begun: its container may be frozen, or its working directory on a server
/// that does not answer, and others have nothing to do with that. Most begin within a few milliseconds.
const LONGEST: Duration = Duration::from_millis(50);

/// Gives commands their turns to begin, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Turns {
    places: Arc<Semaphore>,
    longest: Duration,
}

/// Whether the last command of a container outlasted its turn. The next ones begin without one: what hangs costs the others one turn, not
/// one for each probe.
#[derive(Debug, Default)]
pub(crate) struct Late(AtomicBool);

/// Its holder may begin a command.
#[derive(Debug)]
pub(super) struct Turn {
    place: Option<OwnedSemaphorePermit>,
    longest: Duration,
}

impl Turns {
    pub(crate) fn new() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self::of(processors * FOR_EACH_PROCESSOR, LONGEST)
    }

    fn of(places: usize, longest: Duration) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            longest,
        }
    }

    /// Waits for a turn, of a container that is `late` or not.
    pub(super) async fn next(&self, late: &Late) -> Turn {
        let is_late = || late.0.load(Ordering::Relaxed);
        let place = if is_late() {
            None
        } else {
            // It fails when the semaphore is closed, which nobody does.
            let place = Arc::clone(&self.places).acquire_owned().await.ok();
            // One before it in the row may have hung meanwhile.
            place.filter(|_| !is_late())
        };
        Turn {
            place,
            longest: self.longest,
        }
    }
}

impl Turn {
    /// Does what the turn is for, to its end. The turn is over then, or before when it takes long.
    pub(super) async fn spend<F: Future>(self, late: &Late, work: F) -> F::Output {
        let mut work = pin!(work);
        let done = timeout(self.longest, work.as_mut()).await;
        late.0.store(done.is_err(), Ordering::Relaxed);
        drop(self.place);
        match done {
            Ok(done) => done,
            Err(_) => work.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::task::{Context, Waker};

    use super::*;

    fn waits(work: std::pin::Pin<&mut impl Future>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        work.poll(&mut context).is_pending()
    }

    #[tokio::test]
    async fn the_next_one_waits_until_one_has_begun() {
        let turns = Turns::of(1, Duration::from_secs(60));
        let container = Late::default();
        let turn = turns.next(&container).await;
        let mut next = pin!(turns.next(&container));
        assert!(waits(next.as_mut()), "two turns at once");
        assert_eq!(turn.spend(&container, ready(7)).await, 7);
        next.await;
    }

    #[tokio::test]
    async fn a_client_that_goes_away_gives_its_place_in_the_row_up() {
        let turns = Turns::of(1, Duration::from_secs(60));
        let container = Late::default();
        let turn = turns.next(&container).await;
        {
            let mut gone = pin!(turns.next(&container));
            assert!(waits(gone.as_mut()));
        }
        turn.spend(&container, ready(())).await;
        turns.next(&container).await;
    }

    #[tokio::test]
    async fn what_hangs_costs_the_others_one_turn() {
        let turns = Turns::of(1, Duration::from_millis(1));
        let (hanging, other) = (Late::default(), Late::default());
        let turn = turns.next(&hanging).await;
        let mut hung = pin!(turn.spend(&hanging, pending::<()>()));
        tokio::select! {
            () = hung.as_mut() => unreachable!(),
            held = turns.next(&other) => {
                assert!(!waits(pin!(turns.next(&hanging))), "it is known to be late");
                assert!(waits(pin!(turns.next(&other))));
                held.spend(&other, ready(())).await;
            }
        }
        // Nor do those that waited already when the first one hung.
        let waiting = Late::default();
        let held = turns.next(&other).await;
        let mut next = pin!(turns.next(&waiting));
        assert!(waits(next.as_mut()));
        waiting.0.store(true, Ordering::Relaxed);
        held.spend(&other, ready(())).await;
        assert!(next.await.place.is_none());
        // One that begins in time waits for its turn again.
        turns.next(&hanging).await.spend(&hanging, ready(())).await;
        let _held = turns.next(&other).await;
        assert!(waits(pin!(turns.next(&hanging))));
    }
}

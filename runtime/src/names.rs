//! Reserved names: a pod's or container's name belongs to one object from the first call that makes it on.
//!
//! A retried call while the first is at work waits for it and then finds its result, so that a client whose deadline
//! passed never makes a second one and never meets a name that belongs to nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Names of one kind of object, each with the id that has it.
pub(crate) struct Names<N, I> {
    /// Guards the map alone; never held across an await.
    map: Mutex<HashMap<N, Entry<I>>>,
}

#[derive(Clone)]
enum Entry<I> {
    /// The first call is at work; the channel closes when it has ended.
    Pending(watch::Receiver<()>),
    /// It belongs to this object.
    Owned(I),
}

/// What [`Names::reserve`] found.
pub(crate) enum Claim<N: Clone + Eq + Hash, I: Clone> {
    /// The name is the caller's to give.
    Free(Reservation<N, I>),
    /// It belongs to this object.
    Taken(I),
}

impl<N: Clone + Eq + Hash, I: Clone> Names<N, I> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            map: Mutex::new(HashMap::new()),
        })
    }

    fn map(&self) -> MutexGuard<'_, HashMap<N, Entry<I>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a name, after any call that is at work on it.
    pub(crate) async fn reserve(self: &Arc<Self>, name: N) -> Claim<N, I> {
        loop {
            let mut pending = {
                let mut map = self.map();
                match map.get(&name) {
                    Some(Entry::Owned(id)) => return Claim::Taken(id.clone()),
                    Some(Entry::Pending(pending)) => pending.clone(),
                    None => {
                        let (done, pending) = watch::channel(());
                        map.insert(name.clone(), Entry::Pending(pending));
                        return Claim::Free(Reservation {
                            names: Arc::clone(self),
                            name,
                            _done: done,
                        });
                    }
                }
            };
            // An error says that the first call has ended: look again.
            let _ = pending.changed().await;
        }
    }

    /// Gives a name to an object that was there before this daemon.
    pub(crate) fn restore(&self, name: N, id: I) {
        self.map().insert(name, Entry::Owned(id));
    }

    /// Frees the name of an object that is gone.
    pub(crate) fn release(&self, name: &N) {
        self.map().remove(name);
    }
}

/// A name that nobody else gets until this ends.
pub(crate) struct Reservation<N: Clone + Eq + Hash, I: Clone> {
    names: Arc<Names<N, I>>,
    name: N,
    _done: watch::Sender<()>,
}

impl<N: Clone + Eq + Hash, I: Clone> Reservation<N, I> {
    /// The name belongs to the object from now on.
    pub(crate) fn keep(self, id: I) {
        self.names.restore(self.name.clone(), id);
    }
}

impl<N: Clone + Eq + Hash, I: Clone> Drop for Reservation<N, I> {
    fn drop(&mut self) {
        let mut map = self.names.map();
        if matches!(map.get(&self.name), Some(Entry::Pending(_))) {
            map.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_call_waits_and_finds_the_first_ones_result() {
        let names: Arc<Names<&str, u32>> = Names::new();
        let Claim::Free(first) = names.reserve("a").await else {
            panic!("free")
        };
        let second = tokio::spawn({
            let names = Arc::clone(&names);
            async move { matches!(names.reserve("a").await, Claim::Taken(7)) }
        });
        assert!(
            matches!(names.reserve("b").await, Claim::Free(_)),
            "other names do not wait"
        );
        first.keep(7);
        assert!(second.await.unwrap());
    }

    #[tokio::test]
    async fn a_failed_call_frees_the_name() {
        let names: Arc<Names<&str, u32>> = Names::new();
        drop(names.reserve("a").await);
        assert!(matches!(names.reserve("a").await, Claim::Free(_)));
    }

    #[tokio::test]
    async fn a_released_name_is_free() {
        let names: Arc<Names<&str, u32>> = Names::new();
        names.restore("a", 1);
        assert!(matches!(names.reserve("a").await, Claim::Taken(1)));
        names.release(&"a");
        assert!(matches!(names.reserve("a").await, Claim::Free(_)));
    }
}

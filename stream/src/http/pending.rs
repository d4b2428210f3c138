//! Connections whose request is not complete. They have shown no token, so all of them together cost no more than a
//! bounded number do: a newcomer takes the place of the one that has been silent longest.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

/// The connections that are still to show what they want.
#[derive(Debug)]
pub(crate) struct PendingHeads {
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// By age. Dropping a sender ends the connection.
    connections: BTreeMap<u64, oneshot::Sender<()>>,
}

impl PendingHeads {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            table: Mutex::default(),
        }
    }

    /// Makes room for a connection, which is at most as long pending as the ticket lives.
    pub(crate) fn enter(&self) -> Ticket<'_> {
        let (sender, evicted) = oneshot::channel();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        while table.connections.len() >= self.limit.max(1) {
            table.connections.pop_first();
        }
        let number = table.next;
        table.next += 1;
        table.connections.insert(number, sender);
        Ticket {
            heads: self,
            number,
            evicted,
        }
    }
}

/// A place among the pending connections.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    heads: &'a PendingHeads,
    number: u64,
    evicted: oneshot::Receiver<()>,
}

impl Ticket<'_> {
    /// Waits until the place is taken away.
    pub(crate) async fn evicted(&mut self) {
        let _ = (&mut self.evicted).await;
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut table = self
            .heads
            .table
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        table.connections.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_newcomer_takes_the_place_of_the_oldest() {
        let heads = PendingHeads::new(2);
        let mut first = heads.enter();
        let mut second = heads.enter();
        assert!(first.evicted().now_or_never().is_none());
        let mut third = heads.enter();
        assert!(first.evicted().now_or_never().is_some());
        assert!(second.evicted().now_or_never().is_none());
        drop((first, second));
        let _fourth = heads.enter();
        assert!(third.evicted().now_or_never().is_none());
    }
}

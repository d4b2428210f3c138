//! Leases keep layers on disk.

use std::sync::Arc;

use super::Inner;
use crate::digest::ChainId;

/// The layers named here stay on disk while this lives.
pub struct Lease {
    inner: Arc<Inner>,
    chains: Vec<ChainId>,
}

impl Lease {
    /// For layers that are pinned already.
    pub(super) fn new(inner: Arc<Inner>, chains: Vec<ChainId>) -> Lease {
        Lease { inner, chains }
    }

    /// The layers, in the order given.
    pub fn chains(&self) -> &[ChainId] {
        &self.chains
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let idle = self.inner.catalog().unpin(&self.chains);
        if idle {
            let inner = Arc::clone(&self.inner);
            // Deleting takes time, and a lease may be dropped anywhere.
            self.inner.runtime.spawn_blocking(move || inner.reclaim());
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("chains", &self.chains)
            .finish_non_exhaustive()
    }
}

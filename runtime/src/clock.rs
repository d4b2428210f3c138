//! Time as the CRI tells it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // 292 years of nanoseconds fit.
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

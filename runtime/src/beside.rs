//! Work that is done beside a call.

use std::io;

use tokio::sync::oneshot;

/// Has a new thread do something; what comes of it. Who drops that hears nothing, and the work is done all the same.
///
/// Not a thread of tokio's: the kernel begins a new one on an idle processor, while one that is woken often waits behind its waker,
/// or the waker behind it. That costs 0.04 ms.
///
/// # Errors
/// Those of clone(2): no thread can be made.
pub(crate) fn beside<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (tell, told) = oneshot::channel();
    let span = tracing::Span::current();
    let run = move || drop(tell.send(span.in_scope(work)));
    std::thread::Builder::new().name(name.into()).spawn(run)?;
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_came_of_it() {
        let told = beside("seven", || {
            assert_eq!(std::thread::current().name(), Some("seven"));
            7
        });
        assert_eq!(told.unwrap().blocking_recv(), Ok(7));
    }

    #[test]
    fn a_panic_is_an_error() {
        let told = beside("panics", || panic!("a test's"));
        assert!(told.unwrap().blocking_recv().is_err());
    }
}

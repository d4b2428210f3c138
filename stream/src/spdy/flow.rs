//! Flow-control windows, for peers that have them and for those that do not: SPDY/3.1, section 2.6.8.
//!
//! Kubernetes' clients speak SPDY through moby/spdystream, which sends as much as it likes and never a WINDOW_UPDATE.
//! Nothing in the handshake tells it from a peer that keeps to the specification, so it is found out:
//!
//! ```text
//! Unknown ── it sent a WINDOW_UPDATE, or set a window ──→ Honours
//!    │
//!    └───── it sent more than its window ───────────────→ Ignores
//! ```
//!
//! While it is unknown, we keep to its windows until one is used up; then it is asked by a PING, which it answers after
//! any WINDOW_UPDATE that it had to send, and when there was none, it has no windows. The other way, it gets no
//! WINDOW_UPDATE for a moment when half of its first window is used up. One that has no windows goes on sending, which
//! tells it, and is then spared frames that it only has to throw away.

use std::time::Duration;

use tokio::time::Instant;

/// What windows begin with; section 2.6.8.
const INITIAL_WINDOW: i64 = 64 * 1024;
/// No window may be larger.
const MAX_WINDOW: i64 = i32::MAX as i64;
/// What the connection's window is raised to, so that one slow stream does not hold up the others.
const SESSION_WINDOW: i64 = 1024 * 1024;
/// A peer is granted more when it has used so much.
const GRANT_STEP: i64 = INITIAL_WINDOW / 2;

/// How long we wait for the answer to our PING.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the first WINDOW_UPDATE is held back.
const HOLD: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Unknown,
    Honours,
    Ignores,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    NotBegun,
    Until(Instant),
    Over,
}

/// A window that the peer gives us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendWindow(i64);

/// A window that we give the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReceiveWindow {
    /// What came, less what was granted anew.
    used: i64,
    /// What was read by the backend and not granted anew.
    consumed: i64,
}

/// The peer made a window larger than may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overflow;

/// What is to be done when a window is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exhausted {
    /// Send a PING; [`FlowControl::probed`] is to be called for its answer.
    Probe,
    /// Wait.
    Wait,
}

/// The windows of a connection, and what is known of the peer.
#[derive(Debug)]
pub(super) struct FlowControl {
    peer: Peer,
    probe: Wait,
    hold: Wait,
    initial_send: i64,
    send: SendWindow,
    receive: ReceiveWindow,
    receive_limit: i64,
}

impl Default for FlowControl {
    fn default() -> Self {
        Self {
            peer: Peer::Unknown,
            probe: Wait::NotBegun,
            hold: Wait::NotBegun,
            initial_send: INITIAL_WINDOW,
            send: SendWindow(INITIAL_WINDOW),
            receive: ReceiveWindow::default(),
            receive_limit: INITIAL_WINDOW,
        }
    }
}

/// Sending.
impl FlowControl {
    /// The window of a new stream.
    pub(super) fn stream_window(&self) -> SendWindow {
        SendWindow(self.initial_send)
    }

    /// How much may be sent on a stream now; `None` for as much as you like.
    pub(super) fn allowance(&self, stream: SendWindow) -> Option<usize> {
        if self.peer == Peer::Ignores || (self.peer == Peer::Unknown && self.probe == Wait::Over) {
            return None;
        }
        Some(usize::try_from(self.send.0.min(stream.0)).unwrap_or(0))
    }

    /// A stream has something to send, and no window for it.
    pub(super) fn exhausted(&mut self, now: Instant) -> Exhausted {
        if self.peer == Peer::Unknown && self.probe == Wait::NotBegun {
            self.probe = Wait::Until(now + PROBE_TIMEOUT);
            return Exhausted::Probe;
        }
        Exhausted::Wait
    }

    /// The answer to our PING has come.
    pub(super) fn probed(&mut self) {
        self.probe = Wait::Over;
    }

    pub(super) fn sent(&mut self, stream: &mut SendWindow, length: usize) {
        stream.0 -= length as i64;
        self.send.0 -= length as i64;
    }

    /// A WINDOW_UPDATE for the connection.
    pub(super) fn session_update(&mut self, delta: u32) -> Result<(), Overflow> {
        self.peer = Peer::Honours;
        self.send.add(delta)
    }

    /// A WINDOW_UPDATE for a stream.
    pub(super) fn stream_update(
        &mut self,
        stream: &mut SendWindow,
        delta: u32,
    ) -> Result<(), Overflow> {
        self.peer = Peer::Honours;
        stream.add(delta)
    }

    /// SETTINGS with an initial window: what is to be added to every open stream's, which may be negative.
    pub(super) fn set_initial(&mut self, window: u32) -> i64 {
        self.peer = Peer::Honours;
        let delta = i64::from(window) - self.initial_send;
        self.initial_send = i64::from(window);
        delta
    }
}

impl SendWindow {
    fn add(&mut self, delta: u32) -> Result<(), Overflow> {
        self.0 += i64::from(delta);
        if self.0 > MAX_WINDOW {
            Err(Overflow)
        } else {
            Ok(())
        }
    }

    /// After SETTINGS changed what windows begin with.
    pub(super) fn shift(&mut self, delta: i64) {
        self.0 += delta;
    }
}

/// Receiving.
impl FlowControl {
    /// Data has come on a stream.
    pub(super) fn received(&mut self, stream: &mut ReceiveWindow, length: usize) {
        self.session_received(length);
        stream.used += length as i64;
        if stream.used > INITIAL_WINDOW {
            self.overrun();
        }
    }

    fn session_received(&mut self, length: usize) {
        self.receive.used += length as i64;
        if self.receive.used > self.receive_limit {
            self.overrun();
        }
    }

    fn overrun(&mut self) {
        self.peer = Peer::Ignores;
    }

    /// The backend has read data of a stream: what to grant it anew.
    pub(super) fn consumed(
        &mut self,
        stream: &mut ReceiveWindow,
        length: usize,
        now: Instant,
    ) -> Option<u32> {
        self.receive.consumed += length as i64;
        stream.consumed += length as i64;
        if stream.consumed >= GRANT_STEP || self.receive.consumed >= GRANT_STEP {
            self.begin_hold(now);
        }
        self.grants().then(|| stream.grant(GRANT_STEP)).flatten()
    }

    /// A stream is gone: what was not read of it never will be.
    pub(super) fn closed(&mut self, stream: ReceiveWindow) {
        self.receive.consumed += stream.used - stream.consumed;
    }

    /// Data of a stream that nobody has came and was thrown away.
    pub(super) fn discarded(&mut self, length: usize, now: Instant) {
        self.session_received(length);
        self.receive.consumed += length as i64;
        if self.receive.consumed >= GRANT_STEP {
            self.begin_hold(now);
        }
    }

    /// What to grant the connection anew. The first time it is more than was used.
    pub(super) fn session_grant(&mut self) -> Option<u32> {
        if !self.grants() {
            return None;
        }
        let raise = SESSION_WINDOW - self.receive_limit;
        if raise > 0 {
            self.receive_limit = SESSION_WINDOW;
            let anew = self.receive.grant(0).unwrap_or(0);
            return u32::try_from(raise).ok().map(|raise| raise + anew);
        }
        self.receive.grant(SESSION_WINDOW / 2)
    }

    fn begin_hold(&mut self, now: Instant) {
        if self.peer == Peer::Unknown && self.hold == Wait::NotBegun {
            self.hold = Wait::Until(now + HOLD);
        }
    }

    /// Whether the peer is sent WINDOW_UPDATEs.
    fn grants(&self) -> bool {
        self.peer == Peer::Honours || (self.peer == Peer::Unknown && self.hold == Wait::Over)
    }
}

impl ReceiveWindow {
    fn grant(&mut self, step: i64) -> Option<u32> {
        if self.consumed == 0 || self.consumed < step {
            return None;
        }
        self.used -= self.consumed;
        u32::try_from(std::mem::take(&mut self.consumed)).ok()
    }
}

/// Time.
impl FlowControl {
    /// When [`FlowControl::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let until = |wait| match wait {
            Wait::Until(end) => Some(end),
            Wait::NotBegun | Wait::Over => None,
        };
        match (until(self.probe), until(self.hold)) {
            (Some(probe), Some(hold)) => Some(probe.min(hold)),
            (probe, hold) => probe.or(hold),
        }
    }

    /// Ends the waits whose time is over. All streams are to be looked at again.
    pub(super) fn expire(&mut self, now: Instant) {
        for wait in [&mut self.probe, &mut self.hold] {
            if matches!(*wait, Wait::Until(end) if end <= now) {
                *wait = Wait::Over;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_peer_that_never_updates_its_windows_is_asked_once_and_then_sent_all() {
        let mut flow = FlowControl::default();
        let mut stream = flow.stream_window();
        assert_eq!(flow.allowance(stream), Some(64 * 1024));
        flow.sent(&mut stream, 64 * 1024);
        assert_eq!(flow.allowance(stream), Some(0));
        assert_eq!(flow.exhausted(now()), Exhausted::Probe);
        assert_eq!(flow.exhausted(now()), Exhausted::Wait);
        flow.probed();
        assert_eq!(flow.allowance(stream), None);
    }

    #[test]
    fn a_peer_that_does_not_answer_either_is_sent_all_after_a_while() {
        let mut flow = FlowControl::default();
        let mut stream = flow.stream_window();
        flow.sent(&mut stream, 64 * 1024);
        flow.exhausted(now());
        let deadline = flow.deadline().unwrap();
        flow.expire(deadline - Duration::from_millis(1));
        assert_eq!(flow.allowance(stream), Some(0));
        flow.expire(deadline);
        assert_eq!(flow.allowance(stream), None);
        assert_eq!(flow.deadline(), None);
    }

    #[test]
    fn windows_that_are_updated_are_kept_to() {
        let mut flow = FlowControl::default();
        let mut stream = flow.stream_window();
        flow.sent(&mut stream, 64 * 1024);
        flow.stream_update(&mut stream, 1_000).unwrap();
        assert_eq!(
            flow.allowance(stream),
            Some(0),
            "the connection's is used up"
        );
        flow.session_update(10_000).unwrap();
        assert_eq!(flow.allowance(stream), Some(1_000));
        assert_eq!(flow.exhausted(now()), Exhausted::Wait);
        // An answer to a PING changes nothing any more.
        flow.probed();
        assert_eq!(flow.allowance(stream), Some(1_000));
        assert_eq!(flow.set_initial(0), -64 * 1024);
        stream.shift(-64 * 1024);
        assert_eq!(flow.allowance(stream), Some(0));
    }

    #[test]
    fn windows_do_not_overflow() {
        let mut flow = FlowControl::default();
        let mut stream = flow.stream_window();
        let most = i32::MAX as u32;
        assert_eq!(flow.stream_update(&mut stream, most), Err(Overflow));
        assert_eq!(flow.session_update(most), Err(Overflow));
    }

    #[test]
    fn a_peer_that_overruns_its_window_gets_no_updates() {
        let mut flow = FlowControl::default();
        let mut stream = ReceiveWindow::default();
        flow.received(&mut stream, 40 * 1024);
        assert_eq!(flow.consumed(&mut stream, 40 * 1024, now()), None);
        flow.received(&mut stream, 40 * 1024);
        assert_eq!(flow.consumed(&mut stream, 40 * 1024, now()), None);
        flow.expire(now() + HOLD);
        assert_eq!(flow.session_grant(), None);
        // And it is not asked whether it has windows the other way.
        assert_eq!(flow.allowance(SendWindow(0)), None);
    }

    #[test]
    fn a_peer_that_stops_at_its_window_gets_updates_after_the_hold() {
        let mut flow = FlowControl::default();
        let mut stream = ReceiveWindow::default();
        flow.received(&mut stream, 64 * 1024);
        assert_eq!(flow.consumed(&mut stream, 64 * 1024, now()), None);
        let deadline = flow.deadline().unwrap();
        flow.expire(deadline);
        assert_eq!(flow.consumed(&mut stream, 0, now()), Some(64 * 1024));
        let raise = (SESSION_WINDOW - INITIAL_WINDOW) as u32;
        assert_eq!(flow.session_grant(), Some(raise + 64 * 1024));
        // From now on at once, in steps.
        flow.received(&mut stream, 64 * 1024);
        assert_eq!(flow.consumed(&mut stream, 20 * 1024, now()), None);
        assert_eq!(
            flow.consumed(&mut stream, 20 * 1024, now()),
            Some(40 * 1024)
        );
        assert_eq!(flow.session_grant(), None);
    }
}

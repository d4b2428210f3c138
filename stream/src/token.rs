//! URLs' tokens: each stands for one session, once, for a short time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::error::StreamError;
use crate::session::Session;

/// 256 bits: not to be guessed, nor to be met by chance.
const TOKEN_BYTES: usize = 32;

/// The sessions that wait for their clients.
#[derive(Debug)]
pub(crate) struct Tokens {
    lifetime: Duration,
    limit: usize,
    random: SystemRandom,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    sessions: HashMap<String, Session>,
    /// In the order in which they expire, which is that of their making. Used ones stay until then.
    expiries: VecDeque<(Instant, String)>,
}

impl Waiting {
    fn expire(&mut self, now: Instant) {
        while self.expiries.front().is_some_and(|(end, _)| *end <= now) {
            if let Some((_, token)) = self.expiries.pop_front() {
                self.sessions.remove(&token);
            }
        }
        // Used ones must not pile up in front of one that waits: as many sessions an hour as you like.
        if self.expiries.len() > 2 * self.sessions.len() + 16 {
            let sessions = &self.sessions;
            self.expiries
                .retain(|(_, token)| sessions.contains_key(token));
        }
    }
}

impl Tokens {
    pub(crate) fn new(lifetime: Duration, limit: usize) -> Self {
        Self {
            lifetime,
            limit,
            random: SystemRandom::new(),
            waiting: Mutex::default(),
        }
    }

    /// A token for the session.
    pub(crate) fn insert(&self, session: Session, now: Instant) -> Result<String, StreamError> {
        let mut bytes = [0; TOKEN_BYTES];
        self.random
            .fill(&mut bytes)
            .map_err(|_| StreamError::NoRandom)?;
        let token = URL_SAFE_NO_PAD.encode(bytes);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.expire(now);
        if waiting.sessions.len() >= self.limit {
            return Err(StreamError::TooManyUnused { limit: self.limit });
        }
        waiting.sessions.insert(token.clone(), session);
        waiting
            .expiries
            .push_back((now + self.lifetime, token.clone()));
        Ok(token)
    }

    /// The token's session, once. A token that is shown for something else than it was made for is void too.
    pub(crate) fn take(&self, verb: &str, token: &str, now: Instant) -> Option<Session> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.expire(now);
        let session = waiting.sessions.remove(token)?;
        (session.verb() == verb).then_some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::PortForwardSession;

    const LIFETIME: Duration = Duration::from_secs(60);

    fn session() -> Session {
        Session::PortForward(PortForwardSession {
            sandbox: "s".into(),
            ports: Vec::new(),
        })
    }

    #[test]
    fn a_token_is_good_once() {
        let tokens = Tokens::new(LIFETIME, 10);
        let now = Instant::now();
        let token = tokens.insert(session(), now).unwrap();
        assert_eq!(token.len(), 43);
        assert!(tokens.take("portforward", "wrong", now).is_none());
        assert!(tokens.take("portforward", &token, now).is_some());
        assert!(tokens.take("portforward", &token, now).is_none());
    }

    #[test]
    fn a_token_shown_for_something_else_is_void() {
        let tokens = Tokens::new(LIFETIME, 10);
        let now = Instant::now();
        let token = tokens.insert(session(), now).unwrap();
        assert!(tokens.take("exec", &token, now).is_none());
        assert!(tokens.take("portforward", &token, now).is_none());
    }

    #[test]
    fn a_token_expires_and_makes_room() {
        let tokens = Tokens::new(LIFETIME, 1);
        let now = Instant::now();
        let token = tokens.insert(session(), now).unwrap();
        assert!(matches!(
            tokens.insert(session(), now),
            Err(StreamError::TooManyUnused { limit: 1 })
        ));
        let later = now + LIFETIME;
        assert!(tokens.take("portforward", &token, later).is_none());
        assert!(tokens.insert(session(), later).is_ok());
    }

    #[test]
    fn used_tokens_leave_no_trace() {
        let tokens = Tokens::new(LIFETIME, 4);
        let now = Instant::now();
        let kept = tokens.insert(session(), now).unwrap();
        for _ in 0..10_000 {
            let token = tokens.insert(session(), now).unwrap();
            assert!(tokens.take("portforward", &token, now).is_some());
        }
        let waiting = tokens.waiting.lock().unwrap();
        assert!(waiting.expiries.len() < 32, "{}", waiting.expiries.len());
        assert!(waiting.sessions.contains_key(&kept));
    }
}

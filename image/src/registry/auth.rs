//! Who we are, to a registry: basic, or a bearer token from its token server
//! (distribution docs, "Token Authentication Specification" and "OAuth2").

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Deserialize;

use super::challenge::Challenge;
use super::error::HostError;
use super::transport::{Transport, authorization, authorize};
use super::url::{Scheme, Url, is_loopback};
use crate::credentials::Secret;

/// Largest answer of a token server, bytes.
const MAX_TOKEN: u64 = 1 << 20;
/// The specification's default, and a token is not used in its last seconds.
const DEFAULT_LIFETIME: u64 = 60;
const SAFETY_MARGIN: Duration = Duration::from_secs(5);
/// Tokens held at once.
const MAX_CACHED: usize = 1024;

/// Whose token: the registry's origin, the repository, and who asks.
type Key = (String, String, Option<Secret>);

/// Authorization headers that were good.
#[derive(Default)]
pub(super) struct Tokens {
    /// Guards the map; never held across a request.
    cached: Mutex<HashMap<Key, (HeaderValue, Instant)>>,
}

impl Tokens {
    pub(super) fn get(&self, key: &Key) -> Option<HeaderValue> {
        let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached
            .get(key)
            .filter(|(_, until)| *until > Instant::now())
            .map(|(value, _)| value.clone())
    }

    pub(super) fn forget(&self, key: &Key) {
        self.cached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    fn put(&self, key: Key, value: HeaderValue, lifetime: Duration) {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.len() >= MAX_CACHED {
            let now = Instant::now();
            cached.retain(|_, (_, until)| *until > now);
            if cached.len() >= MAX_CACHED {
                cached.clear();
            }
        }
        cached.insert(
            key,
            (
                value,
                Instant::now() + lifetime.saturating_sub(SAFETY_MARGIN),
            ),
        );
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// What answering a challenge needs.
pub(super) struct Asker<'a> {
    pub(super) transport: &'a Transport,
    pub(super) tokens: &'a Tokens,
    /// The registry's own URL.
    pub(super) registry: &'a Url,
    pub(super) repository: &'a str,
    pub(super) secret: Option<&'a Secret>,
}

impl Asker<'_> {
    pub(super) fn key(&self) -> Key {
        (
            self.registry.to_string(),
            self.repository.to_owned(),
            self.secret.cloned(),
        )
    }

    /// The header that answers one of the challenges; `None` when they want credentials and we have none.
    pub(super) async fn answer(
        &self,
        challenges: &[Challenge],
    ) -> Result<Option<HeaderValue>, HostError> {
        if let Some(Secret::RegistryToken(token)) = self.secret {
            return Ok(self.keep(&format!("Bearer {token}"), DEFAULT_LIFETIME));
        }
        for challenge in challenges {
            if let Challenge::Bearer {
                realm,
                service,
                scope,
            } = challenge
            {
                let (token, lifetime) = self
                    .token(realm, service.as_deref(), scope.as_deref())
                    .await?;
                return Ok(self.keep(&format!("Bearer {token}"), lifetime));
            }
        }
        match self.secret {
            Some(Secret::Basic { username, password })
                if challenges.contains(&Challenge::Basic) =>
            {
                Ok(self.keep(&basic(username, password), 3600))
            }
            _ => Ok(None),
        }
    }

    fn keep(&self, header: &str, lifetime: u64) -> Option<HeaderValue> {
        let value = authorization(header)?;
        self.tokens.put(
            self.key(),
            value.clone(),
            Duration::from_secs(lifetime.min(24 * 3600)),
        );
        Some(value)
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<(String, u64), HostError> {
        let shown = || realm.chars().take(200).collect::<String>();
        let failed = |problem: String| HostError::Token {
            realm: shown(),
            problem,
        };
        let url = Url::parse(realm, None)
            .ok_or_else(|| failed("its address is no http or https URL".to_owned()))?;
        // A secret goes in the clear only where the registry itself is spoken to in the clear.
        if url.scheme() == Scheme::Http
            && self.registry.scheme() == Scheme::Https
            && !is_loopback(url.authority())
        {
            return Err(failed(
                "its address is plain http, but the registry's is https".to_owned(),
            ));
        }
        let own_scope = format!("repository:{}:pull", self.repository);
        let scope = scope.unwrap_or(&own_scope);
        let response = match self.secret {
            Some(Secret::IdentityToken(token)) => {
                let form = Url::parse("http://form", None)
                    .map(|url| {
                        url.with_parameters(&[
                            ("grant_type", "refresh_token"),
                            ("service", service.unwrap_or_default()),
                            ("client_id", "podwright"),
                            ("scope", scope),
                            ("refresh_token", token),
                        ])
                    })
                    .map(|url| {
                        url.to_string()
                            .split_once('?')
                            .map(|(_, form)| form.to_owned())
                            .unwrap_or_default()
                    });
                self.transport
                    .post_form(&url, form.unwrap_or_default())
                    .await?
            }
            secret => {
                let mut parameters = vec![("scope", scope)];
                parameters.extend(service.map(|service| ("service", service)));
                let mut headers = http::HeaderMap::new();
                if let Some(Secret::Basic { username, password }) = secret {
                    authorize(
                        &mut headers,
                        authorization(&basic(username, password)).as_ref(),
                    );
                }
                self.transport
                    .get(&url.with_parameters(&parameters), &headers)
                    .await?
                    .response
            }
        };
        let status = response.status();
        if !status.is_success() {
            let message = self.transport.message(response.into_body()).await;
            return Err(failed(format!("it answered {status} {message}")));
        }
        let body = self.transport.body(response.into_body(), MAX_TOKEN).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|error| failed(format!("malformed answer: {error}")))?;
        let token = answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| failed("its answer has no token".to_owned()))?;
        Ok((token, answer.expires_in.unwrap_or(DEFAULT_LIFETIME)))
    }
}

fn basic(username: &str, password: &str) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    )
}

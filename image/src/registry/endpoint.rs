//! One host of a registry, for one repository.

use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, RANGE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use hyper::body::Incoming;

use super::auth::{Asker, Tokens};
use super::challenge;
use super::error::HostError;
use super::hosts::Host;
use super::transport::{Transport, authorize};
use crate::credentials::Secret;

/// A host, and what is needed to ask it for content of one repository.
pub(super) struct Endpoint {
    pub(super) host: Host,
    /// The registry meant, when this host is another one (`?ns=`).
    pub(super) namespace: Option<String>,
    pub(super) secret: Option<Secret>,
    pub(super) transport: Arc<Transport>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) repository: String,
}

impl Endpoint {
    /// GET of `/<repository>/<path>`; answers challenges once. The answer is a success (2xx).
    pub(super) async fn get(
        &self,
        path: &str,
        accept: &'static str,
        offset: u64,
    ) -> Result<Response<Incoming>, HostError> {
        let url = self.host.base.child(
            &format!("/{}/{path}", self.repository),
            self.namespace.as_deref().map(|namespace| ("ns", namespace)),
        );
        let asker = Asker {
            transport: &self.transport,
            tokens: &self.tokens,
            registry: &self.host.base,
            repository: &self.repository,
            secret: self.secret.as_ref(),
        };
        let key = asker.key();
        let mut credentials = self.tokens.get(&key);
        // A token from the cache may have expired; a fresh one that is refused is the end.
        let mut fresh = false;
        loop {
            let headers = self.headers(accept, offset, credentials.as_ref());
            let answer = self.transport.get(&url, &headers).await?;
            let status = answer.response.status();
            if status.is_success() {
                return Ok(answer.response);
            }
            // Who we were redirected to gets no credentials, whatever it asks for.
            let challenged = status == StatusCode::UNAUTHORIZED && answer.from.same_origin(&url);
            if !challenged || fresh {
                let sent = credentials.is_some();
                return Err(self.failure(answer.response, sent).await);
            }
            self.tokens.forget(&key);
            let challenges: Vec<String> = answer
                .response
                .headers()
                .get_all(WWW_AUTHENTICATE)
                .iter()
                .filter_map(|value| value.to_str().ok().map(str::to_owned))
                .collect();
            let parsed: Vec<_> = challenges
                .iter()
                .flat_map(|header| challenge::parse(header))
                .collect();
            if parsed.is_empty() && !challenges.is_empty() {
                let challenge = challenges.join(", ").chars().take(200).collect();
                return Err(HostError::Challenge { challenge });
            }
            credentials = asker.answer(&parsed).await?;
            if credentials.is_none() {
                return Err(self.failure(answer.response, false).await);
            }
            fresh = true;
        }
    }

    fn headers(
        &self,
        accept: &'static str,
        offset: u64,
        credentials: Option<&HeaderValue>,
    ) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.host.headers {
            // They were checked when the file was read.
            if let (Ok(name), Ok(value)) = (
                http::HeaderName::try_from(name),
                HeaderValue::from_str(value),
            ) {
                headers.append(name, value);
            }
        }
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if offset > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={offset}-"))
        {
            headers.insert(RANGE, range);
        }
        authorize(&mut headers, credentials);
        headers
    }

    async fn failure(&self, response: Response<Incoming>, sent: bool) -> HostError {
        let status = response.status();
        let message = self.transport.message(response.into_body()).await;
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let hint = if sent {
                "the credentials do not allow it"
            } else {
                "no credentials for this host were given"
            };
            return HostError::Unauthorized {
                status,
                message,
                hint,
            };
        }
        HostError::Status { status, message }
    }

    /// The host for messages.
    pub(super) fn name(&self) -> String {
        self.host.base.to_string()
    }
}

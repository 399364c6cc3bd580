//! Access tokens from refresh tokens: one refresh at a time, early enough, never printed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::Mutex;
use tracklayer_destination::{HttpRequest, OAuthSettings};
use tracklayer_ids::{ConnectionId, Secret};

use crate::http::{SendError, Sender};

/// A token is renewed this long before it ends.
const EARLY: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no access token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Somebody must act: the grant is gone or the client is wrong.
    #[error("the authorisation server refused: {code}")]
    Refused {
        /// Its code (`invalid_grant`).
        code: String,
    },
    /// Later again.
    #[error("the authorisation server could not answer: {why}")]
    Unavailable {
        /// What happened.
        why: String,
    },
}

#[derive(Clone)]
struct Token {
    value: Secret<String>,
    until: Instant,
}

type Slot = Arc<Mutex<Option<Token>>>;

/// Tokens of all connections. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    sender: Sender,
    slots: Arc<Mutex<HashMap<(ConnectionId, u64), Slot>>>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Deserialize)]
struct RefusedBody {
    error: String,
}

impl Tokens {
    /// Without tokens yet.
    #[must_use]
    pub fn new(sender: Sender) -> Self {
        Self { sender, slots: Arc::default() }
    }

    /// A token that is good for a while. Lanes of one connection share it; only one of them refreshes.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn get(
        &self,
        connection: ConnectionId,
        revision: u64,
        settings: &OAuthSettings,
    ) -> Result<Secret<String>, TokenError> {
        let slot = Arc::clone(self.slots.lock().await.entry((connection, revision)).or_default());
        let mut slot = slot.lock().await;
        if let Some(token) = slot.as_ref().filter(|token| token.until > Instant::now()) {
            return Ok(token.value.clone());
        }
        let token = self.refresh(settings).await?;
        let value = token.value.clone();
        *slot = Some(token);
        Ok(value)
    }

    /// Forgets a token that the platform refused, if it is still the one that was used.
    pub async fn forget(&self, connection: ConnectionId, revision: u64, used: &Secret<String>) {
        let slot = Arc::clone(self.slots.lock().await.entry((connection, revision)).or_default());
        let mut slot = slot.lock().await;
        if slot.as_ref().is_some_and(|token| token.value == *used) {
            *slot = None;
        }
    }

    async fn refresh(&self, settings: &OAuthSettings) -> Result<Token, TokenError> {
        let before = Instant::now();
        let fields = [
            ("client_id", settings.client_id.as_str()),
            ("client_secret", settings.client_secret.expose()),
            ("refresh_token", settings.refresh_token.expose()),
            ("grant_type", "refresh_token"),
        ];
        let request = HttpRequest::post_secret_form(settings.token_url.clone(), &fields);
        let answer = self.sender.send(&request, TIMEOUT).await.map_err(|error| match error {
            SendError::NotSent(why) | SendError::Unknown(why) => TokenError::Unavailable { why },
        })?;
        if answer.status == 200 {
            let granted: Granted = serde_json::from_slice(&answer.body)
                .map_err(|_| TokenError::Unavailable { why: "its answer is no token".to_owned() })?;
            let lives = Duration::from_secs(granted.expires_in).saturating_sub(EARLY);
            return Ok(Token { value: Secret::new(granted.access_token), until: before + lives });
        }
        let code =
            serde_json::from_slice::<RefusedBody>(&answer.body).map(|body| body.error).unwrap_or_default();
        let transient =
            answer.status == 429 || answer.status >= 500 || code == "internal_failure" || code.is_empty();
        if transient {
            return Err(TokenError::Unavailable { why: format!("status {}", answer.status) });
        }
        Err(TokenError::Refused { code })
    }
}

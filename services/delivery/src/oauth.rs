//! Access tokens from refresh tokens: one refresh at a time, early enough, never printed. What is asked, and what an answer means,
//! stands with the destinations: [`tracklayer_destination::google::oauth`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tracklayer_destination::google::oauth::{TokenOutcome, read_token, token_request};
use tracklayer_destination::{HoldKind, OAuthSettings};
use tracklayer_ids::{ConnectionId, Secret};

use crate::http::{SendError, Sender};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no access token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The authorisation server answered, and gave none.
    #[error("the authorisation server gives no token: {said}")]
    Refused {
        /// Auth (the grant is gone or the client is wrong), configuration, throttled or transient.
        kind: HoldKind,
        /// Not before.
        after: Option<Duration>,
        /// Its code (`invalid_grant`), and what it says of it.
        said: String,
    },
    /// There was no answer. Later again.
    #[error("the authorisation server could not answer: {why}")]
    Unavailable {
        /// What happened.
        why: String,
    },
}

impl TokenError {
    /// What a lane holds for.
    #[must_use]
    pub const fn kind(&self) -> HoldKind {
        match self {
            Self::Refused { kind, .. } => *kind,
            Self::Unavailable { .. } => HoldKind::Transient,
        }
    }

    /// How long the authorisation server asks to wait.
    #[must_use]
    pub const fn after(&self) -> Option<Duration> {
        match self {
            Self::Refused { after, .. } => *after,
            Self::Unavailable { .. } => None,
        }
    }
}

struct Token {
    value: Secret<String>,
    until: Instant,
}

/// The token of a connection, of the revision that asked last: another one may have another grant.
#[derive(Default)]
struct Held {
    revision: u64,
    token: Option<Token>,
}

impl Held {
    fn good(&self) -> Option<&Token> {
        self.token.as_ref().filter(|token| token.until > Instant::now())
    }
}

type Slot = Arc<Mutex<Held>>;

/// Tokens of all connections. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    sender: Sender,
    slots: Arc<Mutex<HashMap<ConnectionId, Slot>>>,
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
        let slot = self.slot(connection).await;
        let mut held = slot.lock().await;
        if held.revision != revision {
            *held = Held { revision, token: None };
        }
        if let Some(token) = held.good() {
            return Ok(token.value.clone());
        }
        let token = self.refresh(settings).await?;
        let value = token.value.clone();
        held.token = Some(token);
        Ok(value)
    }

    /// Forgets a token that the platform refused, if it is still the one that was used.
    pub async fn forget(&self, connection: ConnectionId, revision: u64, used: &Secret<String>) {
        let slot = self.slot(connection).await;
        let mut held = slot.lock().await;
        if held.revision == revision && held.token.as_ref().is_some_and(|token| token.value == *used) {
            held.token = None;
        }
    }

    async fn slot(&self, connection: ConnectionId) -> Slot {
        let mut slots = self.slots.lock().await;
        if !slots.contains_key(&connection) && slots.len() == slots.capacity() {
            // Before it grows: connections that are gone have no token any more that is good, and nobody asks for one.
            slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|held| held.good().is_some())
            });
        }
        Arc::clone(slots.entry(connection).or_default())
    }

    async fn refresh(&self, settings: &OAuthSettings) -> Result<Token, TokenError> {
        let before = Instant::now();
        let request = token_request(settings);
        let answer = self.sender.send(&request, TIMEOUT).await.map_err(|error| match error {
            SendError::NotSent(why) | SendError::Unknown(why) => TokenError::Unavailable { why },
        })?;
        match read_token(&answer) {
            TokenOutcome::Token { access_token, expires_in } => {
                Ok(Token { value: access_token, until: before + expires_in })
            }
            TokenOutcome::Failed { kind, after, code, detail } => {
                let said = if detail.is_empty() { code } else { format!("{code}: {detail}") };
                Err(TokenError::Refused { kind, after, said })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// An answer as it goes over the wire.
    fn answer(head: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
    }

    /// One with a token.
    fn granted(seconds: u64) -> String {
        answer("200 OK", &format!(r#"{{"access_token":"ya29.x","expires_in":{seconds}}}"#))
    }

    /// A token endpoint that always answers this, and how often it was asked.
    async fn endpoint(answer: String) -> (OAuthSettings, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let token_url = format!("http://{}/token", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"grant_type=refresh_token") {
                    assert!(connection.read_buf(&mut request).await.unwrap() > 0, "it asks otherwise");
                }
                count.fetch_add(1, Ordering::Relaxed);
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let secret = |text: &str| Secret::new(text.to_owned());
        let settings = OAuthSettings {
            token_url,
            client_id: "client".to_owned(),
            client_secret: secret("s3cret-client"),
            refresh_token: secret("s3cret-refresh"),
            scope: "scope",
        };
        (settings, asked)
    }

    #[tokio::test]
    async fn a_refusal_says_what_the_lane_holds_for_and_for_how_long() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let invalid = r#"{"error":"invalid_request"}"#;
        for (head, body, kind, after, said) in [
            ("429 Too Many\r\nretry-after: 7", "", HoldKind::Throttled, seconds(7), "HTTP_429"),
            ("503 Unavailable\r\nretry-after: 3", "", HoldKind::Transient, seconds(3), "HTTP_503"),
            ("401 Unauthorized", "", HoldKind::Auth, None, "HTTP_401"),
            ("400 Bad Request", invalid, HoldKind::Configuration, None, "invalid_request"),
        ] {
            let (settings, _) = endpoint(answer(head, body)).await;
            let tokens = Tokens::new(Sender::new(true).unwrap());
            let error = tokens.get(ConnectionId(7), 1, &settings).await.unwrap_err();
            assert_eq!((error.kind(), error.after()), (kind, after), "{error}");
            assert!(error.to_string().ends_with(said), "{error}");
        }
    }

    #[tokio::test]
    async fn a_connection_has_one_token_whatever_its_revision() {
        let (settings, asked) = endpoint(granted(120)).await;
        let tokens = Tokens::new(Sender::new(true).unwrap());
        for (revision, questions) in [(1, 1), (1, 1), (2, 2), (2, 2), (3, 3)] {
            let token = tokens.get(ConnectionId(7), revision, &settings).await.unwrap();
            assert_eq!((token.expose().as_str(), asked.load(Ordering::Relaxed)), ("ya29.x", questions));
        }
        assert_eq!(tokens.slots.lock().await.len(), 1);
        // Of an older revision nothing is forgotten.
        tokens.forget(ConnectionId(7), 2, &Secret::new("ya29.x".to_owned())).await;
        tokens.get(ConnectionId(7), 3, &settings).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        tokens.forget(ConnectionId(7), 3, &Secret::new("ya29.x".to_owned())).await;
        tokens.get(ConnectionId(7), 3, &settings).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn tokens_of_connections_that_are_gone_are_dropped() {
        // It is renewed a minute before its end: one that lives a minute is never good.
        let (settings, _) = endpoint(granted(60)).await;
        let tokens = Tokens::new(Sender::new(true).unwrap());
        for connection in 0..100 {
            tokens.get(ConnectionId(connection), 1, &settings).await.unwrap();
        }
        assert!(tokens.slots.lock().await.len() < 10, "each growth drops what nobody can use");
    }
}

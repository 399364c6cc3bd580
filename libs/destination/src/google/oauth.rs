//! OAuth 2.0 refresh tokens. Source: developers.google.com/identity/protocols/oauth2; 2026-11.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tracklayer_ids::Secret;

use crate::destination::OAuthSettings;
use crate::document::secret_schema;
use crate::outcome::{Answer, HoldKind};
use crate::request::HttpRequest;

/// Scope of the Google Ads API.
pub const ADWORDS: &str = "https://www.googleapis.com/auth/adwords";
/// Scope of the Data Manager API; a token for Ads fails there.
pub const DATA_MANAGER: &str = "https://www.googleapis.com/auth/datamanager";

/// The part of the settings that leads to access tokens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuthPart {
    /// Id of the OAuth client.
    #[schemars(length(min = 1))]
    pub client_id: String,
    /// Its secret.
    #[schemars(schema_with = "secret_schema")]
    pub client_secret: Secret<String>,
    /// The user's grant.
    #[schemars(schema_with = "secret_schema")]
    pub refresh_token: Secret<String>,
    /// Where tokens come from. Differs only for the sandbox.
    #[serde(default = "default_token_url")]
    #[schemars(regex(pattern = r"^https?://[^/?#]+(/[^?#]*)?$"))]
    pub token_url: String,
}

impl OAuthPart {
    /// With the scope that the API needs.
    #[must_use]
    pub fn settings(&self, scope: &'static str) -> OAuthSettings {
        OAuthSettings {
            token_url: self.token_url.clone(),
            client_id: self.client_id.clone(),
            client_secret: self.client_secret.clone(),
            refresh_token: self.refresh_token.clone(),
            scope,
        }
    }
}

fn default_token_url() -> String {
    "https://oauth2.googleapis.com/token".to_owned()
}

/// The request for an access token.
#[must_use]
pub fn token_request(oauth: &OAuthSettings) -> HttpRequest {
    HttpRequest::post_secret_form(
        oauth.token_url.clone(),
        &[
            ("client_id", &oauth.client_id),
            ("client_secret", oauth.client_secret.expose()),
            ("refresh_token", oauth.refresh_token.expose()),
            ("grant_type", "refresh_token"),
        ],
    )
}

/// What the token endpoint said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenOutcome {
    /// A token.
    Token {
        /// It.
        access_token: Secret<String>,
        /// How long it is good for, a minute subtracted.
        expires_in: Duration,
    },
    /// No token: the lane holds.
    Failed {
        /// Auth (somebody must act), configuration, or transient.
        kind: HoldKind,
        /// Not before.
        after: Option<Duration>,
        /// OAuth's code, `invalid_grant`.
        code: String,
        /// For people.
        detail: String,
    },
}

/// Reads the token endpoint's answer.
#[must_use]
pub fn read_token(answer: &Answer) -> TokenOutcome {
    let json = answer.json().unwrap_or_default();
    let text = |key: &str| json.get(key).and_then(serde_json::Value::as_str);
    if let (200, Some(token)) = (answer.status, text("access_token").filter(|t| !t.is_empty())) {
        let seconds = json.get("expires_in").and_then(serde_json::Value::as_u64).unwrap_or(3_600);
        return TokenOutcome::Token {
            access_token: Secret::new(token.to_owned()),
            expires_in: Duration::from_secs(seconds.saturating_sub(60)),
        };
    }
    let code = text("error").map_or_else(|| format!("HTTP_{}", answer.status), str::to_owned);
    let kind = match (code.as_str(), answer.status) {
        ("invalid_grant" | "invalid_client" | "unauthorized_client" | "invalid_scope", _) => HoldKind::Auth,
        ("invalid_request" | "unsupported_grant_type", _) => HoldKind::Configuration,
        (_, 429) => HoldKind::Throttled,
        (_, 401 | 403) => HoldKind::Auth,
        _ => HoldKind::Transient,
    };
    let detail = text("error_description").unwrap_or_default().chars().take(200).collect();
    TokenOutcome::Failed { kind, after: answer.retry_after(), code, detail }
}

//! OAuth 2.0 refresh tokens. Source: developers.google.com/identity/protocols/oauth2; 2026-11.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tracklayer_ids::Secret;

use crate::destination::OAuthSettings;
use crate::document::secret_schema;
use crate::outcome::{Answer, HoldKind, told};
use crate::quota_key::QuotaKey;
use crate::request::HttpRequest;

/// A token is renewed this long before it ends, and after this long whatever it says of itself.
const EARLY: Duration = Duration::from_secs(60);
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3_600);

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
    /// For whom Google counts requests to an API: the Cloud project, whose number stands before the first hyphen of its clients' ids; an
    /// id without one stands for itself. With the addresses, so that whoever shares the key has shown Google's token endpoint that the
    /// client is theirs: nothing is counted before there is an access token. Sources: Google Ads API, "Access levels"; Data Manager
    /// API, "Limits" (per project); 2026-11.
    #[must_use]
    pub fn quota_key(&self, api: &'static str, base_url: &str) -> QuotaKey {
        let project = match self.client_id.split_once('-') {
            Some((number, _)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => number,
            _ => self.client_id.as_str(),
        };
        QuotaKey::of(&["google", api, base_url.trim_end_matches('/'), &self.token_url, project])
    }

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
        &[oauth.client_secret.clone(), oauth.refresh_token.clone()],
    )
}

/// What the token endpoint said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenOutcome {
    /// A token.
    Token {
        /// It.
        access_token: Secret<String>,
        /// How long it is to be used: a minute less than it is good for, and no longer than a day.
        expires_in: Duration,
    },
    /// No token: the lane holds.
    Failed {
        /// Auth (somebody must act), configuration, throttled or transient.
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
            expires_in: Duration::from_secs(seconds).min(LONGEST_LIFE).saturating_sub(EARLY),
        };
    }
    let error = text("error").unwrap_or_default();
    let kind = match (error, answer.status) {
        (_, 429) => HoldKind::Throttled,
        (_, 500..) | ("internal_failure" | "server_error" | "temporarily_unavailable", _) => {
            HoldKind::Transient
        }
        ("invalid_request" | "unsupported_grant_type", _) => HoldKind::Configuration,
        // Nobody gives tokens there.
        ("", 300..=399 | 404 | 405) => HoldKind::Configuration,
        ("", 401 | 403) => HoldKind::Auth,
        ("", _) => HoldKind::Transient,
        // `invalid_grant`, `invalid_client`, or one of Google's own (`admin_policy_enforced`): somebody has to act.
        (_, _) => HoldKind::Auth,
    };
    let code = if error.is_empty() { format!("HTTP_{}", answer.status) } else { told(error) };
    let detail = told(text("error_description").unwrap_or_default());
    TokenOutcome::Failed { kind, after: answer.retry_after(), code, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(status: u16, body: &str) -> (HoldKind, String) {
        match read_token(&Answer::new(status, body)) {
            TokenOutcome::Failed { kind, code, .. } => (kind, code),
            token @ TokenOutcome::Token { .. } => panic!("{token:?}"),
        }
    }

    #[test]
    fn a_refusal_is_of_the_grant_the_settings_or_the_moment() {
        for (status, body, kind, code) in [
            (400, r#"{"error":"invalid_grant"}"#, HoldKind::Auth, "invalid_grant"),
            (400, r#"{"error":"admin_policy_enforced"}"#, HoldKind::Auth, "admin_policy_enforced"),
            (401, r#"{"error":"invalid_client"}"#, HoldKind::Auth, "invalid_client"),
            (401, "", HoldKind::Auth, "HTTP_401"),
            (403, "{}", HoldKind::Auth, "HTTP_403"),
            (400, r#"{"error":"invalid_request"}"#, HoldKind::Configuration, "invalid_request"),
            (404, "<html>", HoldKind::Configuration, "HTTP_404"),
            (302, "", HoldKind::Configuration, "HTTP_302"),
            (429, r#"{"error":"rate_limit_exceeded"}"#, HoldKind::Throttled, "rate_limit_exceeded"),
            (400, r#"{"error":"internal_failure"}"#, HoldKind::Transient, "internal_failure"),
            (503, r#"{"error":"invalid_client"}"#, HoldKind::Transient, "invalid_client"),
            (400, "", HoldKind::Transient, "HTTP_400"),
            (200, "<html>", HoldKind::Transient, "HTTP_200"),
            (200, r#"{"access_token":""}"#, HoldKind::Transient, "HTTP_200"),
        ] {
            assert_eq!(failed(status, body), (kind, code.to_owned()), "{status} {body}");
        }
    }

    #[test]
    fn a_token_is_given_up_a_minute_early_and_after_a_day_at_most() {
        for (lives, seconds) in
            [("", 3_540), (r#","expires_in":120"#, 60), (r#","expires_in":18446744073709551615"#, 86_340)]
        {
            let answer = Answer::new(200, format!(r#"{{"access_token":"ya29.x"{lives}}}"#));
            let token = TokenOutcome::Token {
                access_token: Secret::new("ya29.x".to_owned()),
                expires_in: Duration::from_secs(seconds),
            };
            assert_eq!(read_token(&answer), token, "{lives}");
        }
    }
}

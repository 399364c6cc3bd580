//! The token endpoint, `POST /token`, and the access tokens that it gave out.
//!
//! Source: Google, "Using OAuth 2.0 for Web Server Applications", "Refreshing an access token"; 2026-11.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use http::Method;
use jiff::Timestamp;
use serde_json::json;

use crate::answer::Answer;
use crate::exchange::{Inbound, World};
use crate::options::GoogleOptions;

/// Above this many tokens the expired ones are forgotten.
const MANY: usize = 10_000;

/// Access tokens.
pub(crate) struct Tokens {
    fixed: HashMap<String, Vec<String>>,
    issued: Mutex<HashMap<String, Issued>>,
}

struct Issued {
    scopes: Vec<String>,
    expires: Timestamp,
}

/// What a token is good for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    Unknown,
    Expired,
    OtherScope,
}

impl Tokens {
    pub(super) fn new(options: &GoogleOptions) -> Self {
        let fixed =
            options.access_tokens.iter().map(|(token, scopes)| (token.clone(), scopes.clone())).collect();
        Self { fixed, issued: Mutex::default() }
    }

    pub(super) fn standing(&self, token: &str, scope: &str, now: Timestamp) -> Standing {
        let by_scopes = |scopes: &[String]| {
            if scopes.iter().any(|granted| granted == scope) { Standing::Good } else { Standing::OtherScope }
        };
        if let Some(scopes) = self.fixed.get(token) {
            return by_scopes(scopes);
        }
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        match issued.get(token) {
            None => Standing::Unknown,
            Some(token) if token.expires <= now => Standing::Expired,
            Some(token) => by_scopes(&token.scopes),
        }
    }

    /// Lets every token expire that was given out.
    pub(crate) fn revoke_issued(&self) {
        for token in self.issued.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            token.expires = Timestamp::MIN;
        }
    }

    fn issue(&self, scopes: &[String], now: Timestamp, expires: Timestamp) -> String {
        let token = format!("ya29.sandbox-{}", uuid::Uuid::new_v4().simple());
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if issued.len() >= MANY {
            issued.retain(|_, token| token.expires > now);
        }
        issued.insert(token.clone(), Issued { scopes: scopes.to_vec(), expires });
        token
    }
}

/// A refusal of the endpoint.
pub(super) fn refuse(status: u16, error: &str, description: &str) -> Answer {
    Answer::json(status, &json!({ "error": error, "error_description": description }))
}

/// Answers a request.
pub(crate) fn answer(world: &World, inbound: &Inbound<'_>) -> Answer {
    if inbound.path != "/token" {
        return Answer::html(404, "Error 404 (Not Found)!!1");
    }
    if *inbound.method != Method::POST {
        return Answer::html(405, "Error 405 (Method Not Allowed)!!1");
    }
    give(world, inbound).unwrap_or_else(|refusal| refusal)
}

fn give(world: &World, inbound: &Inbound<'_>) -> Result<Answer, Answer> {
    let options = &world.options.google;
    let form: HashMap<String, String> = url::form_urlencoded::parse(inbound.body).into_owned().collect();
    let is_form = inbound
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    if !is_form {
        return Err(refuse(400, "invalid_request", "Could not parse the request body as a form."));
    }
    let parameter = |name: &str| {
        form.get(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| refuse(400, "invalid_request", &format!("Missing required parameter: {name}")))
    };
    let grant = parameter("grant_type")?;
    if grant != "refresh_token" {
        return Err(refuse(400, "unsupported_grant_type", &format!("Invalid grant_type: {grant}")));
    }
    let client = parameter("client_id")?;
    let secret = options.clients.get(client);
    let secret = secret.ok_or_else(|| refuse(401, "invalid_client", "The OAuth client was not found."))?;
    if parameter("client_secret")? != secret {
        return Err(refuse(401, "invalid_client", "The provided client secret is invalid."));
    }
    let granted = options.refresh_tokens.get(parameter("refresh_token")?);
    let granted = granted.ok_or_else(|| refuse(400, "invalid_grant", "Bad Request"))?;
    let wanted: Vec<String> = match form.get("scope").filter(|scope| !scope.is_empty()) {
        None => granted.clone(),
        Some(scopes) => scopes.split(' ').map(str::to_owned).collect(),
    };
    if wanted.iter().any(|scope| !granted.contains(scope)) {
        return Err(refuse(400, "invalid_scope", "Some requested scopes were invalid."));
    }
    let expires = inbound.now.saturating_add(options.token_life).unwrap_or(Timestamp::MAX);
    let token = world.google.tokens.issue(&wanted, inbound.now, expires);
    let body = json!({
        "access_token": token,
        "expires_in": options.token_life.as_secs(),
        "scope": wanted.join(" "),
        "token_type": "Bearer",
    });
    Ok(Answer::json(200, &body))
}

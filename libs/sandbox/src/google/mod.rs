//! Google: the OAuth token endpoint, the Ads API's uploads and the Data Manager API. They share tokens,
//! protobuf's JSON and the form of errors.
//!
//! Source: Google, "Using OAuth 2.0", Google Ads API "Understand API errors", Data Manager API "Understand
//! errors"; 2026-11.

mod adjustments;
mod ads;
mod ads_shape;
mod clicks;
mod data_manager;
mod data_manager_shape;
mod error;
mod events;
pub(crate) mod fault;
mod oauth;
mod verdict;

use std::sync::Mutex;

pub(crate) use ads::answer as ads;
pub(crate) use data_manager::answer as data_manager;
pub(crate) use oauth::answer as token;

use crate::answer::Answer;
use crate::exchange::{Inbound, World};
use crate::options::GoogleOptions;
use crate::store::ByKey;

use adjustments::Adjusted;
use oauth::{Standing, Tokens};
use verdict::{Quota, Verdicts};

/// What Google remembers beside its books.
pub(crate) struct Google {
    pub(crate) tokens: Tokens,
    /// What was adjusted of a conversion. Taken only while the book of the Ads API is open.
    adjusted: Mutex<ByKey<Adjusted>>,
    verdicts: Verdicts,
    quota: Quota,
}

impl Google {
    pub(crate) fn new(options: &GoogleOptions) -> Self {
        Self {
            tokens: Tokens::new(options),
            adjusted: Mutex::default(),
            verdicts: Verdicts::default(),
            quota: Quota::default(),
        }
    }
}

/// Lets a request in whose bearer token is good for `scope`.
fn authorise(world: &World, inbound: &Inbound<'_>, scope: &str) -> Result<(), Answer> {
    let Some(token) = inbound.bearer().filter(|token| !token.is_empty()) else {
        return Err(error::unauthenticated(Some("CREDENTIALS_MISSING")));
    };
    match world.google.tokens.standing(token, scope, inbound.now) {
        Standing::Good => Ok(()),
        Standing::Unknown => Err(error::unauthenticated(None)),
        Standing::Expired => Err(error::unauthenticated(Some("ACCESS_TOKEN_EXPIRED"))),
        Standing::OtherScope => Err(error::scope_insufficient(scope)),
    }
}

/// 64 hex digits; looked at without a branch for each.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().fold(true, |good, byte| good & byte.is_ascii_hexdigit())
}

/// Click ids are base64url; one that was cut or changed cannot be read any more.
fn is_click_id(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// ISO 4217 in upper case.
pub(crate) fn is_currency(text: &str) -> bool {
    text.parse::<iso_currency::Currency>().is_ok()
}

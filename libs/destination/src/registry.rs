//! From a connection document to an opened connection: one line per kind.

use serde_json::Value;

use crate::destination::Destination;
use crate::document::{Kind, SettingsErrors, WorkspaceDefaults, schema_of};

/// Opens a connection document.
///
/// # Errors
/// Everything that is wrong with the document, each with its path.
pub fn open(document: &Value, workspace: &WorkspaceDefaults) -> Result<Box<dyn Destination>, SettingsErrors> {
    let kind = kind_of(document)?;
    let _ = workspace;
    Err(SettingsErrors::one("kind", format!("{kind} is not available in this version")))
}

fn kind_of(document: &Value) -> Result<Kind, SettingsErrors> {
    let names = || Kind::ALL.map(Kind::as_str).join(", ");
    let Some(name) = document.get("kind").and_then(Value::as_str) else {
        return Err(SettingsErrors::one("kind", format!("is required; one of {}", names())));
    };
    Kind::parse(name).ok_or_else(|| SettingsErrors::one("kind", format!("is not known; one of {}", names())))
}

/// JSON Schema of a document of that kind. Secret settings have `"writeOnly": true`.
#[must_use]
pub fn schema(kind: Kind) -> Value {
    schema_of::<Value>(kind)
}

/// Paths of the secret settings of a kind, "settings.access_token".
#[must_use]
pub fn secret_paths(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::MetaCapi => &["settings.access_token", "settings.app_secret"],
        Kind::GoogleDataManager => &["settings.oauth.client_secret", "settings.oauth.refresh_token"],
        Kind::GoogleAds => {
            &["settings.oauth.client_secret", "settings.oauth.refresh_token", "settings.developer_token"]
        }
        Kind::Ga4Mp => &["settings.api_secret"],
        Kind::TiktokEvents => &["settings.access_token"],
        Kind::Webhook => &["settings.secret", "settings.authorization"],
        Kind::Warehouse => &[],
    }
}

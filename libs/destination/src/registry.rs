//! From a connection document to an opened connection: one line per kind.

use serde_json::Value;

use crate::data_manager::DataManager;
use crate::destination::Destination;
use crate::document::{Kind, SettingsErrors, WorkspaceDefaults, schema_of};
use crate::ga4::Ga4;
use crate::google_ads::GoogleAds;
use crate::mapped::Mapped;
use crate::maps::Maps;
use crate::meta::Meta;
use crate::tiktok::TikTok;
use crate::warehouse::Warehouse;
use crate::webhook::Webhook;

/// Opens a connection document.
///
/// # Errors
/// Everything that is wrong with the document, each with its path.
pub fn open(document: &Value, workspace: &WorkspaceDefaults) -> Result<Box<dyn Destination>, SettingsErrors> {
    let kind = kind_of(document)?;
    match (open_kind(kind, document, workspace), Maps::compile(kind, document)) {
        (Ok(opened), Ok(None)) => Ok(opened),
        (Ok(opened), Ok(Some(maps))) => Ok(Box::new(Mapped::new(opened, maps))),
        (Err(errors), Ok(_)) | (Ok(_), Err(errors)) => Err(errors),
        (Err(mut errors), Err(others)) => {
            errors.0.extend(others.0);
            Err(errors)
        }
    }
}

fn open_kind(
    kind: Kind,
    document: &Value,
    workspace: &WorkspaceDefaults,
) -> Result<Box<dyn Destination>, SettingsErrors> {
    Ok(match kind {
        Kind::MetaCapi => Box::new(Meta::open(document, workspace)?),
        Kind::GoogleDataManager => Box::new(DataManager::open(document, workspace)?),
        Kind::GoogleAds => Box::new(GoogleAds::open(document, workspace)?),
        Kind::TiktokEvents => Box::new(TikTok::open(document, workspace)?),
        Kind::Ga4Mp => Box::new(Ga4::open(document, workspace)?),
        Kind::Webhook => Box::new(Webhook::open(document, workspace)?),
        Kind::Warehouse => Box::new(Warehouse::open(document, workspace)?),
    })
}

pub(crate) fn kind_of(document: &Value) -> Result<Kind, SettingsErrors> {
    let names = || Kind::ALL.map(Kind::as_str).join(", ");
    let Some(name) = document.get("kind").and_then(Value::as_str) else {
        return Err(SettingsErrors::one("kind", format!("is required; one of {}", names())));
    };
    Kind::parse(name).ok_or_else(|| SettingsErrors::one("kind", format!("is not known; one of {}", names())))
}

/// JSON Schema of a document of that kind. Secret settings have `"writeOnly": true`.
#[must_use]
pub fn schema(kind: Kind) -> Value {
    match kind {
        Kind::MetaCapi => schema_of::<crate::meta::settings::Settings>(kind),
        Kind::GoogleDataManager => schema_of::<crate::data_manager::settings::Settings>(kind),
        Kind::GoogleAds => schema_of::<crate::google_ads::settings::Settings>(kind),
        Kind::TiktokEvents => schema_of::<crate::tiktok::settings::Settings>(kind),
        Kind::Ga4Mp => schema_of::<crate::ga4::settings::Settings>(kind),
        Kind::Webhook => schema_of::<crate::webhook::settings::Settings>(kind),
        Kind::Warehouse => schema_of::<crate::warehouse::settings::Settings>(kind),
    }
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
        Kind::Warehouse => &["settings.secret_access_key", "settings.session_token"],
    }
}

//! What an item says about its source beside the page: the app, the lead, the ad.
//!
//! Source: TikTok portal 1771101151059969, as integrations cite it; 2026-08.

use super::settings::Settings;
use crate::clicks;
use crate::connection::{Connection, looks_personal};
use crate::deliverable::{Deliverable, text_of};
use crate::fields::Fields;
use crate::json::Json;
use crate::mapping::truth_of;
use crate::outcome::{Note, Refusal, RefusalCode, Rule};

/// `app`: which app it was.
pub fn app(settings: &Settings, event: &Deliverable) -> Result<Fields, Refusal> {
    let text = |path: &str| event.context(path).and_then(text_of);
    let id = settings.app_id.clone().or_else(|| text("app.namespace")).ok_or_else(|| {
        Refusal::new(RefusalCode::InvalidPayload, "an app event needs an app id; set app_id")
            .at("context.app.namespace")
    })?;
    let mut app = Fields::default().with("app_id", id);
    for (key, path) in [("app_name", "app.name"), ("app_version", "app.version")] {
        if let Some(value) = text(path) {
            app.insert(key, value);
        }
    }
    Ok(app)
}

/// `lead`: which lead of the CRM it was.
pub fn lead(connection: &Connection, event: &Deliverable) -> Result<Fields, Refusal> {
    let id = connection.text(event, "lead_id", &["properties.lead_id"]).ok_or_else(|| {
        Refusal::new(RefusalCode::InvalidPayload, "a CRM event needs the lead's id").at("properties.lead_id")
    })?;
    let mut lead = Fields::default().with("lead_id", id);
    if let Some(source) = event.property("lead_event_source").and_then(text_of) {
        lead.insert("lead_event_source", source);
    }
    Ok(lead)
}

/// `ad`, of web and app events: which ad it was, where the event or its app's measurement partner says so in
/// `properties.ad`, under TikTok's own names.
pub fn ad(event: &Deliverable, notes: &mut Vec<Note>) -> Option<Fields> {
    let stated = event.property("ad").filter(|ad| ad.as_object().is_some())?;
    let mut ad = Fields::default();
    // The older name of ttclid, with what is known of it: a macro that nobody replaced is none.
    if let Some(callback) = stated.at("callback").and_then(text_of) {
        match clicks::checked(&callback) {
            Ok(callback) => ad.insert("callback", callback),
            Err(reason) => notes.push(Note::rejected("ad.callback", reason)),
        }
    }
    for (key, target) in [
        ("campaign_id", "ad.campaign_id"),
        ("ad_id", "ad.ad_id"),
        ("creative_id", "ad.creative_id"),
        ("attribution_type", "ad.attribution_type"),
        ("attribution_provider", "ad.attribution_provider"),
    ] {
        match stated.at(key).and_then(text_of) {
            Some(text) if looks_personal(Json::Text(&text)) => {
                notes.push(Note::rejected(target, Rule::LooksPersonal));
            }
            text => ad.insert_some(key, text),
        }
    }
    for (key, target) in [("is_retargeting", "ad.is_retargeting"), ("attributed", "ad.attributed")] {
        let Some(stated) = stated.at(key) else { continue };
        match truth_of(stated) {
            Some(truth) => ad.insert(key, truth),
            None => notes.push(Note::rejected(target, Rule::NotTaken)),
        }
    }
    (!ad.is_empty()).then_some(ad)
}

/// What a person answered when iOS asked whether apps may track, in TikTok's words. Segment's plugins say the same in
/// Apple's, `notDetermined`.
pub fn att_status(
    connection: &Connection,
    event: &Deliverable,
    notes: &mut Vec<Note>,
) -> Option<&'static str> {
    let stated =
        connection.text(event, "att_status", &["properties.att_status", "context.device.trackingStatus"])?;
    let plain =
        |word: &str| word.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase();
    let words = ["AUTHORIZED", "DENIED", "NOT_DETERMINED", "RESTRICTED", "NOT_APPLICABLE"];
    let found = words.into_iter().find(|word| plain(word) == plain(&stated));
    if found.is_none() {
        notes.push(Note::rejected("user.att_status", Rule::NotTaken));
    }
    found
}

//! What an item says about its source beside the page: the app, the lead, the ad.
//!
//! Source: TikTok portal 1771101151059969, as integrations cite it; 2026-08.

use std::borrow::Cow;

use super::settings::Settings;
use crate::clicks;
use crate::connection::{Connection, looks_personal};
use crate::deliverable::{Deliverable, text_of};
use crate::fields::Fields;
use crate::json::Json;
use crate::mapping::truth_of;
use crate::outcome::{Note, Refusal, RefusalCode, Rule};
use crate::usual::{usual, usuals};

/// `app`: which app it was.
pub fn app<'a>(settings: &'a Settings, event: &'a Deliverable) -> Result<Fields<'a>, Refusal> {
    let text = |place| event.at(place).and_then(text_of);
    let own = settings.app_id.as_deref().map(Cow::Borrowed);
    let id = own.or_else(|| text(usual!("context.app.namespace"))).ok_or_else(|| {
        Refusal::new(RefusalCode::InvalidPayload, "an app event needs an app id; set app_id")
            .at("context.app.namespace")
    })?;
    let mut app = Fields::default().with("app_id", id);
    for (key, place) in
        [("app_name", usual!("context.app.name")), ("app_version", usual!("context.app.version"))]
    {
        if let Some(value) = text(place) {
            app.insert(key, value);
        }
    }
    Ok(app)
}

/// `lead`: which lead of the CRM it was.
pub fn lead<'a>(connection: &'a Connection, event: &'a Deliverable) -> Result<Fields<'a>, Refusal> {
    let id = connection.text(event, "lead_id", usuals!["properties.lead_id"]).ok_or_else(|| {
        Refusal::new(RefusalCode::InvalidPayload, "a CRM event needs the lead's id").at("properties.lead_id")
    })?;
    let mut lead = Fields::default().with("lead_id", id);
    if let Some(source) = event.at(usual!("properties.lead_event_source")).and_then(text_of) {
        lead.insert("lead_event_source", source);
    }
    Ok(lead)
}

/// `ad`, of web and app events: which ad it was, where the event or its app's measurement partner says so in
/// `properties.ad`, under TikTok's own names.
pub fn ad<'e>(event: &'e Deliverable, notes: &mut Vec<Note>) -> Option<Fields<'e>> {
    let stated = event.at(usual!("properties.ad")).filter(|ad| ad.as_object().is_some())?;
    let mut ad = Fields::default();
    // The older name of ttclid, with what is known of it: a macro that nobody replaced is none.
    if let Some(callback) = stated.at("callback").and_then(text_of) {
        match clicks::checked(&callback) {
            Ok(callback) => ad.insert("callback", callback.to_owned()),
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
    let stated = connection.text(
        event,
        "att_status",
        usuals!["properties.att_status", "context.device.trackingStatus"],
    )?;
    let plain =
        |word: &str| word.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase();
    let words = ["AUTHORIZED", "DENIED", "NOT_DETERMINED", "RESTRICTED", "NOT_APPLICABLE"];
    let found = words.into_iter().find(|word| plain(word) == plain(&stated));
    if found.is_none() {
        notes.push(Note::rejected("user.att_status", Rule::NotTaken));
    }
    found
}

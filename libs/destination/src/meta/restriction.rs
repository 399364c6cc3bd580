//! Limited Data Use: what a payload says about consent. It comes from the decision; settings and event may only add.
//!
//! Source: Meta, marketing-api/overview/data-processing-options; 2026-11. LDU exists for US states only: no field carries
//! European consent, so a restriction of another place cannot be expressed.

use serde_json::json;

use super::settings::{Ldu, LduPlace, LduWord};
use crate::deliverable::{Consent, Deliverable};
use crate::fields::Fields;
use crate::json::Json;
use crate::mapping::is_true;
use crate::outcome::{Refusal, RefusalCode};
use crate::usual::usual;

/// Meta's numbers of the states in which LDU applies.
const STATES: [(&str, u16); 14] = [
    ("US-CA", 1000),
    ("US-CO", 1001),
    ("US-CT", 1002),
    ("US-FL", 1003),
    ("US-OR", 1004),
    ("US-TX", 1005),
    ("US-MT", 1006),
    ("US-DE", 1007),
    ("US-NE", 1008),
    ("US-NH", 1009),
    ("US-NJ", 1010),
    ("US-MN", 1011),
    ("US-MD", 1012),
    ("US-RI", 1013),
];

const GEOLOCATE: LduPlace = LduPlace { country: 0, state: 0 };

/// Writes the restriction into the event.
///
/// # Errors
/// The decision is restricted and LDU cannot say so: not a US state of the list, or Meta would have to look where an address
/// is that is not there.
pub fn write(
    body: &mut Fields<'_>,
    event: &Deliverable,
    setting: Option<Ldu>,
    has_address: bool,
) -> Result<(), Refusal> {
    let decided = match &event.decision {
        // The kind needs every purpose of ads: an answer that allows it without one of them contradicts itself.
        Consent::AllowInPart { .. } if event.decision.denies_personalization() => {
            let why = "consent allows this event and denies ads: limited data use needs a place";
            return Err(Refusal::new(RefusalCode::RestrictionNotExpressible, why));
        }
        Consent::Allow | Consent::AllowInPart { .. } | Consent::AllowUnstated => None,
        Consent::Restricted { place, .. } => Some(place_of(place)?),
        Consent::Deny { .. } => {
            return Err(Refusal::new(RefusalCode::RestrictionNotExpressible, "consent denies this event"));
        }
    };
    let place = decided.or_else(|| asked_by_event(event)).or(match setting {
        Some(Ldu::Place(place)) => Some(place),
        Some(Ldu::Word(LduWord::Off)) | None => None,
    });
    let Some(place) = place else {
        if matches!(setting, Some(Ldu::Word(LduWord::Off))) {
            body.insert("data_processing_options", json!([]));
        }
        return Ok(());
    };
    if place.state == 0 && !has_address {
        return Err(Refusal::new(
            RefusalCode::RestrictionNotExpressible,
            "limited data use without a state needs the person's public address",
        )
        .at("user_data.client_ip_address"));
    }
    body.insert("data_processing_options", json!(["LDU"]));
    body.insert("data_processing_options_country", place.country);
    body.insert("data_processing_options_state", place.state);
    Ok(())
}

fn place_of(place: &str) -> Result<LduPlace, Refusal> {
    if let Some((_, state)) = STATES.iter().find(|(code, _)| *code == place) {
        return Ok(LduPlace { country: 1, state: *state });
    }
    if place == "US" {
        return Ok(GEOLOCATE);
    }
    Err(Refusal::new(
        RefusalCode::RestrictionNotExpressible,
        format!("limited data use does not exist in `{place}`; a restricted event cannot be sent from there"),
    ))
}

/// The event itself may ask for the restriction, never for less.
fn asked_by_event(event: &Deliverable) -> Option<LduPlace> {
    let listed = event.at(usual!("properties.data_processing_options")).and_then(Json::as_list);
    let asked = event.at(usual!("properties.limited_data_use")).is_some_and(is_true)
        || listed.is_some_and(|list| list.iter().any(|v| v.as_str() == Some("LDU")));
    asked.then(|| {
        let number = |place| event.at(place).and_then(Json::as_u64).and_then(|n| u16::try_from(n).ok());
        let known = |state: u16| state == 0 || STATES.iter().any(|(_, s)| *s == state);
        match (
            number(usual!("properties.data_processing_options_country")),
            number(usual!("properties.data_processing_options_state")),
        ) {
            (Some(country @ 0..=1), Some(state)) if known(state) => LduPlace { country, state },
            _ => GEOLOCATE,
        }
    })
}

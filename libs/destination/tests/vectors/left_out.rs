//! What a vector rejects goes out to nobody: the event does without it, and says so with a reason.

use serde_json::{Value, json};
use tracklayer_destination::preview::parse;
use tracklayer_destination::{Consent, Deliverable, NoteCounts, NoteReason, WorkspaceDefaults, open};
use tracklayer_proto::event::v1::ClickIds;

use crate::vectors;

/// Where an event has a field of the vectors, and where a payload; none: no connector sends it.
fn places(name: &str, field: &str) -> Option<(&'static str, &'static str)> {
    Some(match (name, field) {
        ("meta", "em") => ("/context/traits/email", "/user_data/em"),
        ("meta", "ph") => ("/context/traits/phone", "/user_data/ph"),
        ("meta", "fn") => ("/context/traits/firstName", "/user_data/fn"),
        ("meta", "ln") => ("/context/traits/lastName", "/user_data/ln"),
        ("meta", "ge") => ("/context/traits/gender", "/user_data/ge"),
        ("meta", "db") => ("/context/traits/birthday", "/user_data/db"),
        ("meta", "ct") => ("/context/traits/address/city", "/user_data/ct"),
        ("meta", "st") => ("/context/traits/address/state", "/user_data/st"),
        ("meta", "zp") => ("/context/traits/address/postalCode", "/user_data/zp"),
        ("meta", "country") => ("/context/traits/address/country", "/user_data/country"),
        ("meta", "external_id") => ("/properties/customer_id", "/user_data/external_id"),
        ("meta", "madid") => ("/context/device/advertisingId", "/user_data/madid"),
        ("tiktok", "email") => ("/context/traits/email", "/user/email"),
        ("tiktok", "phone") => ("/context/traits/phone", "/user/phone"),
        ("tiktok", "first_name") => ("/context/traits/firstName", "/user/first_name"),
        ("tiktok", "last_name") => ("/context/traits/lastName", "/user/last_name"),
        ("tiktok", "city") => ("/context/traits/address/city", "/user/city"),
        ("tiktok", "state") => ("/context/traits/address/state", "/user/state"),
        ("tiktok", "zip_code") => ("/context/traits/address/postalCode", "/user/zip_code"),
        ("tiktok", "country") => ("/context/traits/address/country", "/user/country"),
        ("tiktok", "external_id") => ("/properties/customer_id", "/user/external_id"),
        ("tiktok", "ip") => ("/context/ip", "/user/ip"),
        ("tiktok", "ttclid") => ("/properties/ttclid", "/user/ttclid"),
        ("tiktok", "idfa") => ("/context/device/advertisingId", "/user/idfa"),
        _ => return None,
    })
}

fn document(name: &str) -> Value {
    let (kind, settings) = match name {
        "meta" => ("meta_capi", json!({ "dataset_id": "1", "access_token": "t" })),
        _ => ("tiktok_events", json!({ "event_source_id": "C4", "access_token": "t" })),
    };
    json!({ "kind": kind, "settings": settings, "external_id_from": ["properties.customer_id"] })
}

/// A page view that each platform takes for its fbp and ttp alone, with the vector's value in its place.
fn event(vector: &Value, path: &str) -> Value {
    let mut event = json!({
        "type": "page", "name": "Home", "messageId": "m", "anonymousId": "a", "timestamp": "2026-11-23T11:59:30Z",
        "properties": { "fbp": "fb.1.1700000000000.1", "ttp": "2OZ3a4b5" },
        "context": {
            "userAgent": "Mozilla/5.0", "page": { "url": "https://shop.example/" }, "os": { "name": "iOS" },
            "device": {}, "traits": { "address": { "country": vector["country_code"] } }
        }
    });
    let (parent, key) = path.rsplit_once('/').unwrap();
    event.pointer_mut(parent).unwrap()[key] = vector["input"].clone();
    event
}

#[test]
fn what_a_vector_rejects_is_left_out_and_told_with_its_reason() {
    let now = "2026-11-23T12:00:00Z".parse().unwrap();
    let mut wrong = Vec::new();
    let mut told = 0;
    for name in ["meta", "tiktok"] {
        let destination = open(&document(name), &WorkspaceDefaults::default()).unwrap();
        let file = vectors(name);
        for vector in file["normalisation"].as_array().unwrap() {
            let Some((path, target)) = places(name, vector["field"].as_str().unwrap()) else { continue };
            // What is blank is absent: there is nothing to tell.
            let is_blank = vector["input"].as_str().is_none_or(|text| text.trim().is_empty());
            if vector["rejected"] != true || is_blank {
                continue;
            }
            let parsed = parse(event(vector, path), now).unwrap();
            let event = Deliverable::new(parsed, ClickIds::default(), "", Consent::Allow, None);
            let item = destination.build(&event, now).unwrap();
            let field = target[1..].replace('/', ".");
            let notes: Vec<_> = item.notes.iter().filter(|note| note.field == field).collect();
            let has_reason = matches!(&notes[..], [note] if matches!(note.reason, NoteReason::Form(_)));
            let mut counts = NoteCounts::default();
            counts.add(&item.notes);
            let is_counted = counts.iter().map(|(_, count)| count).sum::<u64>() == item.notes.len() as u64;
            if item.body.to_value().pointer(target).is_some() || !has_reason || !is_counted {
                wrong.push(format!("{name} {}: {} {:?}", vector["id"], item.body, item.notes));
            }
            told += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{told} values that vectors reject are left out and told");
    assert!(told > 50, "{told}");
}

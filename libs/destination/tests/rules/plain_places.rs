//! City, state, postal code and country: some platforms take them as they are, so that nothing else of a person may stand there.

use serde_json::{Value, json};
use tracklayer_destination::{Consent, WorkspaceDefaults, open};

use crate::{build, document, purchase, with};

const KINDS: [&str; 5] = ["meta_capi", "tiktok_events", "ga4_mp", "google_ads", "google_data_manager"];
const FIELDS: [&str; 4] = ["city", "state", "postal_code", "country"];

fn with_field(kind: &str, field: &str, text: &str) -> Value {
    with(document(kind), "/fields", json!({ field: text }))
}

#[test]
fn they_are_made_of_nothing_else_that_tells_of_a_person() {
    for kind in KINDS {
        for field in FIELDS {
            for text in [
                "context.traits.email",
                "traits.phone.trim()",
                "context.traits.name",
                "properties.customer.last_name",
                "context.traits.address.street",
                "context.ip",
            ] {
                let refused = open(&with_field(kind, field, text), &WorkspaceDefaults::default()).err();
                let told = refused.unwrap_or_else(|| panic!("{kind}: `{field}` took {text}")).to_string();
                assert!(told.contains("tells who a person is"), "{kind} {field} {text}: {told}");
            }
        }
        let name = with_field(kind, "last_name", "traits.name.trim()");
        assert!(
            open(&name, &WorkspaceDefaults::default()).is_ok(),
            "{kind}: what is hashed reads all of a person"
        );
    }
}

#[test]
fn what_looks_like_an_address_or_a_number_does_not_go_out_there() {
    let event = with(purchase(), "/properties/note", json!("jane@example.com"));
    let event = with(event, "/properties/name", json!("jane"));
    let event = with(event, "/properties/prefix", json!("+1"));
    for kind in KINDS {
        for field in FIELDS {
            for (text, shown) in [
                ("properties.note", "jane@example.com"),
                ("properties.name + \"@example.com\"", "jane@example.com"),
                ("properties.prefix + \" 650 555 1234\"", "650 555 1234"),
            ] {
                let item = build(&with_field(kind, field, text), event.clone(), Consent::Allow).unwrap();
                let body = item.body.to_value().to_string();
                assert!(!body.contains(shown), "{kind} {field} {text}: {body}");
                let told = |note: &&tracklayer_destination::Note| note.reason.code() == "expression_personal";
                assert_eq!(
                    item.notes.iter().filter(told).count(),
                    1,
                    "{kind} {field} {text}: {:?}",
                    item.notes
                );
            }
        }
    }
}

#[test]
fn where_a_person_lives_is_read_for_them() {
    let event = with(purchase(), "/context/traits/address", json!({ "city": "Köln", "state": "NRW" }));
    for kind in KINDS {
        for field in ["city", "state"] {
            let body =
                |document: &Value| build(document, event.clone(), Consent::Allow).unwrap().body.to_value();
            let text = format!("context.traits.address.{field}.trim()");
            assert_eq!(body(&with_field(kind, field, &text)), body(&document(kind)), "{kind} {field}");
        }
    }
}

#[test]
fn field_map_takes_them_from_nowhere_else_either() {
    for kind in KINDS {
        for field in FIELDS {
            for path in [
                "context.traits.email",
                "traits.phone",
                "context.traits.name",
                "properties.customer.last_name",
                "context.ip",
                "properties.gclid",
                "userId",
            ] {
                let paths = json!({ field: ["properties.place", path] });
                let refused =
                    open(&with(document(kind), "/field_map", paths), &WorkspaceDefaults::default()).err();
                let errors = refused.unwrap_or_else(|| panic!("{kind}: `{field}` took {path}")).0;
                let told = errors.iter().map(|error| (error.path.clone(), error.why.contains(path)));
                assert_eq!(told.collect::<Vec<_>>(), [(format!("field_map.{field}"), true)], "{kind} {path}");
            }
            for path in ["properties.shipping_zip", "context.traits.address.city", "properties.store.code"] {
                let paths = with(document(kind), "/field_map", json!({ field: path }));
                assert!(open(&paths, &WorkspaceDefaults::default()).is_ok(), "{kind} {field} {path}");
            }
        }
        let email = with(document(kind), "/field_map", json!({ "email": "properties.customer.mail" }));
        assert!(
            open(&email, &WorkspaceDefaults::default()).is_ok(),
            "{kind}: what is hashed is taken from anywhere"
        );
    }
}

#[test]
fn what_field_map_finds_there_goes_out_only_if_it_looks_like_a_place() {
    let person = json!({
        "firstName": "Jane", "lastName": "Doe",
        "address": { "city": "Köln", "state": "NRW", "postalCode": "50667", "country": "DE" },
    });
    let event = with(purchase(), "/context/traits", person);
    for kind in ["meta_capi", "tiktok_events", "google_ads", "google_data_manager"] {
        for (field, place) in [("city", "city"), ("postal_code", "postalCode")] {
            for text in ["jane@example.com", "+1 650 555 1234"] {
                // Where the address stands, too: it is the place that counts, not who says where it is.
                for (document, pointer) in [
                    (
                        with(document(kind), "/field_map", json!({ field: "properties.place" })),
                        "/properties/place",
                    ),
                    (document(kind), &*format!("/context/traits/address/{place}")),
                ] {
                    let event = with(event.clone(), pointer, json!(text));
                    let item = build(&document, event, Consent::Allow).unwrap();
                    let body = item.body.to_value().to_string();
                    assert!(!body.contains(text), "{kind} {pointer}: {body}");
                    let told = |note: &&tracklayer_destination::Note| note.reason.code() == "looks_personal";
                    // A conversion of the Ads API has no address: none is read for it.
                    assert_eq!(
                        item.notes.iter().filter(told).count(),
                        usize::from(kind != "google_ads"),
                        "{kind} {pointer}: {:?}",
                        item.notes
                    );
                }
            }
        }
    }
}

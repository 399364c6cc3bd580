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

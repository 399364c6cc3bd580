//! Connection documents: what is wrong is told with its path and never with its value.

use serde_json::{Value, json};
use tracklayer_destination::{
    Consent, Kind, RefusalCode, SettingsErrors, SkipReason, WorkspaceDefaults, open, schema, secret_paths,
};

use crate::{KINDS, build, deliverable, document, opened, purchase, with};

fn errors(document: &Value) -> SettingsErrors {
    open(document, &WorkspaceDefaults::default()).err().unwrap()
}

#[test]
fn every_kind_opens_and_answers_for_itself() {
    for kind in KINDS {
        let destination = opened(&document(kind));
        assert_eq!(destination.kind().as_str(), kind);
        assert_eq!(destination.consent_query().kind, kind);
        assert!(destination.limits().max_events >= 1);
    }
}

#[test]
fn all_problems_are_told_at_once_with_their_paths() {
    let mut document = document("meta_capi");
    document["settings"]["dataset_id"] = json!("not digits");
    document["settings"]["api_version"] = json!("26");
    document["settings"]["colour"] = json!("red");
    document["mode"] = json!("on");
    let paths: Vec<String> = errors(&document).0.into_iter().map(|e| e.path).collect();
    for path in ["settings.dataset_id", "settings.api_version", "mode", "settings"] {
        assert!(paths.iter().any(|p| p == path), "{path} in {paths:?}");
    }
}

#[test]
fn a_refund_at_meta_may_not_be_called_a_purchase() {
    let named = |name: &str, refunds: &str| {
        let document = with(document("meta_capi"), "/settings/refund_event_name", json!(name));
        open(&with(document, "/settings/refunds", json!(refunds)), &WorkspaceDefaults::default())
    };
    for name in ["Purchase", " purchase "] {
        let errors = named(name, "custom_event").err().unwrap();
        assert_eq!(errors.0[0].path, "settings.refund_event_name", "{name}");
    }
    assert!(named("OrderRefunded", "custom_event").is_ok());
    assert!(named("Purchase", "skip").is_ok(), "it is not used");
}

#[test]
fn every_refusal_stands_in_the_documentation() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/preview.md");
    let page = std::fs::read_to_string(page).unwrap();
    let listed = page.split("## Refusals").nth(1).unwrap();
    for code in RefusalCode::ALL {
        let row = format!("| `{code}` | {} |", code.fate().as_str());
        assert!(listed.contains(&row), "docs/preview.md lacks: {row}");
    }
}

#[test]
fn an_error_never_shows_the_value() {
    let mut document = document("meta_capi");
    document["settings"]["access_token"] = json!(["s3cret-token"]);
    document["settings"]["dataset_id"] = json!("s3cret-dataset");
    let errors = errors(&document);
    assert!(!errors.to_string().contains("s3cret"), "{errors}");
}

#[test]
fn unknown_kinds_are_refused_in_words() {
    for (document, says) in [
        (json!({ "settings": {} }), "is required"),
        (json!({ "kind": "carrier_pigeon", "settings": {} }), "is not known"),
    ] {
        let errors = errors(&document);
        assert_eq!(errors.0[0].path, "kind");
        assert!(errors.0[0].why.contains(says), "{errors}");
    }
}

#[test]
fn secret_settings_are_write_only_in_the_schema_and_in_no_debug_output() {
    for kind in Kind::ALL {
        let schema = schema(kind);
        for path in secret_paths(kind) {
            let name = path.rsplit('.').next().unwrap();
            let found = find(&schema, name).unwrap_or_else(|| panic!("{path} in the schema of {kind}"));
            assert_eq!(found["writeOnly"], true, "{path}");
        }
    }
    for kind in KINDS {
        let destination = opened(&document(kind));
        let item = destination.build(&deliverable(purchase(), Consent::Allow, None), crate::now()).unwrap();
        let token = tracklayer_ids::Secret::new("s3cret-access".to_owned());
        let request = destination.assemble(&[&item], Some(&token));
        let shown = format!("{} {request:?}", request.masked());
        assert!(!shown.contains("s3cret"), "{kind}: {shown}");
        if let Some(oauth) = destination.oauth() {
            let token = tracklayer_destination::google::oauth::token_request(oauth);
            assert!(String::from_utf8_lossy(&token.body).contains("s3cret-refresh"));
            assert!(!format!("{} {oauth:?}", token.masked()).contains("s3cret"), "{kind}");
        }
    }
}

fn find<'v>(schema: &'v Value, name: &str) -> Option<&'v Value> {
    match schema {
        Value::Object(map) => map
            .get("properties")
            .and_then(|p| p.get(name))
            .or_else(|| map.values().find_map(|value| find(value, name))),
        Value::Array(list) => list.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}

#[test]
fn only_the_base_url_leads_elsewhere() {
    for kind in ["meta_capi", "tiktok_events", "google_data_manager", "google_ads", "ga4_mp"] {
        let document = with(document(kind), "/settings/base_url", json!("http://127.0.0.1:9/sandbox/"));
        let destination = opened(&document);
        let item = build(&document, purchase(), Consent::Allow).unwrap();
        let request = destination.assemble(&[&item], None);
        assert!(request.url.starts_with("http://127.0.0.1:9/sandbox/"), "{kind}: {}", request.url);
        assert!(!request.url.contains("sandbox//"), "{kind}: {}", request.url);
    }
}

#[test]
fn the_event_map_renames_and_switches_off() {
    let document = with(
        document("meta_capi"),
        "/event_map",
        json!({ "quiz  FINISHED": "Lead", "Order Completed": null }),
    );
    let quiz = with(purchase(), "/event", json!("Quiz Finished"));
    assert_eq!(build(&document, quiz, Consent::Allow).unwrap().body.to_value()["event_name"], "Lead");
    let skip = opened(&document).wants(&deliverable(purchase(), Consent::Allow, None)).unwrap_err();
    assert_eq!(skip.reason, SkipReason::Unmapped);
}

#[test]
fn filters_integrations_and_test_orders_keep_events_out() {
    let skip = |document: &Value, event: Value| {
        opened(document).wants(&deliverable(event, Consent::Allow, None)).err().map(|s| s.reason)
    };
    let meta = document("meta_capi");
    assert_eq!(skip(&meta, purchase()), None);
    assert_eq!(skip(&meta, with(purchase(), "/properties/test", json!(true))), Some(SkipReason::TestOrder));
    let test_orders = with(meta.clone(), "/event_filter", json!({ "test_orders": true }));
    assert_eq!(skip(&test_orders, with(purchase(), "/properties/test", json!(true))), None);

    for (integrations, expected) in [
        (json!({ "All": false }), Some(SkipReason::Integrations)),
        (json!({ "All": false, "meta_capi": true }), None),
        (json!({ "All": false, "Facebook Conversions API (Actions)": {} }), None),
        (json!({ "meta_capi": false }), Some(SkipReason::Integrations)),
        (json!({ "tiktok_events": false, "Unknown": false }), None),
        (json!({ "META_CAPI": false }), None),
    ] {
        let event = with(purchase(), "/integrations", integrations.clone());
        assert_eq!(skip(&meta, event), expected, "{integrations}");
    }

    let only = with(meta.clone(), "/event_filter", json!({ "include": ["page"] }));
    assert_eq!(skip(&only, purchase()), Some(SkipReason::Filter));
    let not = with(meta.clone(), "/event_filter", json!({ "exclude": ["order completed"] }));
    assert_eq!(skip(&not, purchase()), Some(SkipReason::Filter));
    let euros = json!({ "where": [{ "path": "properties.currency", "one_of": ["EUR"] }] });
    assert_eq!(skip(&with(meta.clone(), "/event_filter", euros), purchase()), None);
    let no_euros = json!({ "where": [{ "path": "properties.currency", "one_of": ["EUR"], "not": true }] });
    assert_eq!(skip(&with(meta.clone(), "/event_filter", no_euros), purchase()), Some(SkipReason::Filter));

    let preference = with(purchase(), "/event", json!("Segment Consent Preference Updated"));
    assert_eq!(skip(&meta, preference), Some(SkipReason::ConsentEvent));
    let identify = json!({ "type": "identify", "userId": "u", "traits": { "email": "a@example.com" } });
    assert_eq!(skip(&meta, identify), Some(SkipReason::EventType));
}

#[test]
fn fields_come_from_where_the_document_says() {
    let mut document = document("meta_capi");
    document["field_map"] = json!({
        "email": ["properties.buyer.mail", "properties.mail"], "order_id": "properties.number",
        "custom_data.tier": "properties.tier", "custom_data.contact": "properties.buyer.mail"
    });
    document["constants"] = json!({ "custom_data.shop": "de", "country": "DE" });
    document["value_from"] = json!(["total"]);
    let mut event = purchase();
    event["properties"]["buyer"] = json!({ "mail": "other@example.com" });
    event["properties"]["number"] = json!(77);
    event["properties"]["tier"] = json!("gold");
    let item = build(&document, event, Consent::Allow).unwrap();
    let other = json!([tracklayer_normalise::sha256_hex("other@example.com")]);
    assert_eq!(item.body.to_value()["user_data"]["em"], other);
    assert_eq!(item.body.to_value()["user_data"]["country"], json!([tracklayer_normalise::sha256_hex("de")]));
    let custom = &item.body.to_value()["custom_data"];
    assert_eq!(custom["order_id"], "77");
    assert_eq!(custom["value"], 63.8);
    assert_eq!((&custom["tier"], &custom["shop"]), (&json!("gold"), &json!("de")));
    assert!(custom.get("contact").is_none(), "an e-mail address is no custom field: {custom}");
    assert!(item.notes.iter().any(|n| n.field == "custom_data.contact"));
}

#[test]
fn a_field_that_does_not_exist_is_an_error() {
    let document = with(document("tiktok_events"), "/field_map", json!({ "emial": "properties.mail" }));
    assert_eq!(errors(&document).0[0].path, "field_map.emial");
    let webhook = with(crate::document("webhook"), "/constants", json!({ "custom_data.x": 1 }));
    assert_eq!(errors(&webhook).0[0].path, "constants.custom_data.x");
}

#[test]
fn a_google_connection_needs_an_action_for_its_events() {
    let mut document = document("google_ads");
    document["settings"].as_object_mut().unwrap().remove("conversion_action_id");
    assert_eq!(errors(&document).0[0].path, "settings.conversion_action_id");
    document["event_map"] = json!({ "Signed Up": "not an id" });
    assert_eq!(errors(&document).0[0].path, "event_map.Signed Up");
    document["event_map"] = json!({ "Signed Up": { "conversion_action_id": "55" } });
    let signed_up = with(purchase(), "/event", json!("Signed Up"));
    let item = build(&document, signed_up, Consent::Allow).unwrap();
    assert_eq!(item.body.to_value()["conversionAction"], "customers/1234567890/conversionActions/55");
    assert_eq!(build(&document, purchase(), Consent::Allow).unwrap_err().code, RefusalCode::EventNotMapped);
}

#[test]
fn a_purchase_without_value_is_refused_unless_products_may_stand_in() {
    let mut event = purchase();
    for key in ["total", "revenue"] {
        event["properties"].as_object_mut().unwrap().remove(key);
    }
    for kind in ["meta_capi", "tiktok_events", "google_data_manager", "google_ads", "ga4_mp"] {
        let refusal = build(&document(kind), event.clone(), Consent::Allow).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::MissingValue, "{kind}");
        let fallback = with(document(kind), "/value_fallback", json!("products"));
        let body = build(&fallback, event.clone(), Consent::Allow).unwrap().body.to_value().to_string();
        assert!(body.contains("54.4"), "{kind}: {body}");

        for currency in ["EURO", "XXX", "XAU", "XTS"] {
            let no_currency = with(purchase(), "/properties/currency", json!(currency));
            let refusal = build(&document(kind), no_currency, Consent::Allow).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::MissingCurrency, "{kind} {currency}");
        }
        let negative = with(purchase(), "/properties/revenue", json!(-1));
        let refusal = build(&document(kind), negative, Consent::Allow).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::InvalidPayload, "{kind}");
    }
}

#[test]
fn a_custom_field_cannot_break_what_a_whole_request_hangs_on() {
    for (kind, prefix, part) in
        [("meta_capi", "custom_data.", "/custom_data"), ("tiktok_events", "properties.", "/properties")]
    {
        let plain = build(&document(kind), purchase(), Consent::Allow).unwrap().body.to_value();
        for (name, value) in [
            ("value", json!("much")),
            ("value", json!(-3)),
            ("currency", json!("EURO")),
            ("contents", json!("[]")),
            ("content_type", json!("bundle")),
            ("order_id", json!("jane@example.com")),
            ("order_id", json!({ "id": 1 })),
            ("tags", json!(["jane@example.com"])),
            ("buyer", json!({ "who": { "phone": "+49 151 23456789" } })),
        ] {
            let key = format!("{prefix}{name}");
            let document = with(document(kind), "/constants", json!({ &key: value }));
            let item = build(&document, purchase(), Consent::Allow).unwrap();
            assert_eq!(item.body.to_value().pointer(part), plain.pointer(part), "{kind} {name} {value}");
            assert!(item.notes.iter().any(|note| note.field == key), "{kind} {name}: {:?}", item.notes);
        }
        // One that fits goes out, in the platform's type.
        let document = with(document(kind), "/constants", json!({ format!("{prefix}value"): "12.50" }));
        let item = build(&document, purchase(), Consent::Allow).unwrap();
        assert_eq!(item.body.to_value().pointer(&format!("{part}/value")), Some(&json!(12.5)), "{kind}");
        // A value where no currency is stays behind.
        let mut event = with(purchase(), "/event", json!("Product Viewed"));
        event["properties"].as_object_mut().unwrap().remove("currency");
        let item = build(&document, event, Consent::Allow).unwrap();
        assert_eq!(
            item.body.to_value().pointer(&format!("{part}/value")),
            None,
            "{kind}: {}",
            item.body.to_value()
        );
    }
}

#[test]
fn a_custom_parameter_at_ga4_is_one_that_it_takes() {
    let plain = build(&document("ga4_mp"), purchase(), Consent::Allow).unwrap().body.to_value();
    for (name, value) in [
        ("tags", json!(["a"])),
        ("shape", json!({ "a": 1 })),
        ("value", json!("much")),
        ("transaction_id", json!("another")),
        ("ga_x", json!(1)),
    ] {
        let key = format!("params.{name}");
        let document = with(document("ga4_mp"), "/constants", json!({ &key: value }));
        let item = build(&document, purchase(), Consent::Allow).unwrap();
        assert_eq!(item.body.to_value()["events"], plain["events"], "{name}");
        assert!(item.notes.iter().any(|note| note.field == key), "{name}: {:?}", item.notes);
    }
    let document = with(document("ga4_mp"), "/constants", json!({ "params.tier": "gold" }));
    let body = build(&document, purchase(), Consent::Allow).unwrap().body.to_value();
    assert_eq!(body["events"][0]["params"]["tier"], "gold");
}

#[test]
fn the_oldest_event_is_the_same_for_lane_and_builder() {
    for kind in KINDS {
        let destination = opened(&document(kind));
        let event = deliverable(purchase(), Consent::Allow, None);
        let at = |age: std::time::Duration| destination.build(&event, event.time() + age);
        match destination.max_event_age(&event) {
            Some(age) => {
                assert!(at(age).is_ok(), "{kind}");
                let refusal = at(age + std::time::Duration::from_secs(1)).unwrap_err();
                assert_eq!(refusal.code, RefusalCode::EventTooOld, "{kind}");
            }
            None => assert!(at(std::time::Duration::from_secs(1_000 * 86_400)).is_ok(), "{kind}"),
        }
    }
}

#[test]
fn nobody_is_born_in_the_future() {
    for (birthday, goes_out) in [("2026-01-31", true), ("2027-01-01", false), ("2099-01-01", false)] {
        let event = with(purchase(), "/context/traits/birthday", json!(birthday));
        let item = build(&document("meta_capi"), event, Consent::Allow).unwrap();
        assert_eq!(item.body.to_value()["user_data"].get("db").is_some(), goes_out, "{birthday}");
        assert_eq!(item.notes.iter().any(|note| note.field == "user_data.db"), !goes_out, "{birthday}");
    }
}

#[test]
fn a_secret_with_a_line_break_is_told_at_once() {
    for (kind, setting) in [
        ("meta_capi", "access_token"),
        ("tiktok_events", "access_token"),
        ("ga4_mp", "api_secret"),
        ("webhook", "secret"),
    ] {
        let document = with(document(kind), &format!("/settings/{setting}"), json!("s3cret\n"));
        let errors = errors(&document);
        assert_eq!(errors.0[0].path, format!("settings.{setting}"), "{kind}");
        assert!(!errors.to_string().contains("s3cret"), "{errors}");
    }
}

#[test]
fn business_messaging_does_not_cost_its_neighbours_a_request() {
    let event = with(purchase(), "/properties/action_source", json!("business_messaging"));
    let refusal = build(&document("meta_capi"), event, Consent::Allow).unwrap_err();
    assert_eq!((refusal.code, refusal.platform_code), (RefusalCode::EventNotSupported, Some("2804063")));
}

#[test]
fn an_order_id_that_is_an_address_reaches_no_platform() {
    for id in ["jane@example.com", "order-jane%40example.com", "+49 151 23456789"] {
        let event = with(purchase(), "/properties/order_id", json!(id));
        for (kind, note) in [("meta_capi", "custom_data.order_id"), ("tiktok_events", "properties.order_id")]
        {
            let item = build(&document(kind), event.clone(), Consent::Allow).unwrap();
            assert!(!item.body.to_value().to_string().contains(id), "{kind} {id}: {}", item.body.to_value());
            assert!(item.notes.iter().any(|n| n.field == note), "{kind} {id}: {:?}", item.notes);
        }
        // Custom events at TikTok take other properties along.
        let custom = with(document("tiktok_events"), "/settings/send_custom_events", json!(true));
        let item = build(&custom, with(event.clone(), "/event", json!("Quiz")), Consent::Allow).unwrap();
        assert!(!item.body.to_value().to_string().contains(id), "{id}: {}", item.body.to_value());
    }
    for kind in ["google_data_manager", "google_ads", "ga4_mp"] {
        for id in ["jane@example.com", "order-jane%40example.com", "+49 151 23456789"] {
            let event = with(purchase(), "/properties/order_id", json!(id));
            let refusal = build(&document(kind), event, Consent::Allow).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::OrderIdContainsPii, "{kind} {id}");
        }
    }
}

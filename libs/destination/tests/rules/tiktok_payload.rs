//! What TikTok takes beside the vectors: each kind of source with its parts, the ad, the device, and its own properties.

use serde_json::{Value, json};
use tracklayer_destination::preview::batches;
use tracklayer_destination::{Consent, Item};

use crate::{build, document, opened, purchase, with};

fn source(kind: &str) -> Value {
    let document = with(document("tiktok_events"), "/settings/event_source", json!(kind));
    with(document, "/settings/app_id", json!("com.example.shop"))
}

fn having(properties: Value) -> Value {
    let mut event = purchase();
    event["properties"].as_object_mut().unwrap().extend(properties.as_object().cloned().unwrap());
    event
}

fn item(kind: &str, properties: Value) -> Item {
    build(&source(kind), having(properties), Consent::Allow).unwrap()
}

fn noted(properties: Value) -> Vec<(String, &'static str)> {
    item("web", properties).notes.iter().map(|note| (note.field.to_string(), note.reason.code())).collect()
}

/// The table of parts by source in TikTok's description of an item of `data`.
#[test]
fn each_source_has_its_own_parts_and_none_that_is_refused() {
    let ad = json!({
        "callback": "E.C.P.x", "campaign_id": 17, "ad_id": "18", "creative_id": "19", "is_retargeting": "true",
        "attributed": false, "attribution_type": "CLICK", "attribution_provider": "appsflyer", "colour": "red"
    });
    let parts = ["page", "app", "ad", "lead", "limited_data_use"];
    for (kind, has) in [
        ("web", vec!["page", "ad", "limited_data_use"]),
        ("app", vec!["app", "ad", "limited_data_use"]),
        ("offline", vec![]),
        ("crm", vec!["lead"]),
    ] {
        let mut properties = json!({ "ad": ad, "lead_id": 5 });
        if has.contains(&"limited_data_use") {
            properties["limited_data_use"] = json!(true);
        }
        let body = item(kind, properties).body.to_value();
        let found: Vec<_> = parts.into_iter().filter(|part| body.get(part).is_some()).collect();
        assert_eq!(found, has, "{kind}: {body}");
        if has.contains(&"ad") {
            let expected = json!({
                "callback": "E.C.P.x", "campaign_id": "17", "ad_id": "18", "creative_id": "19", "is_retargeting": true,
                "attributed": false, "attribution_type": "CLICK", "attribution_provider": "appsflyer"
            });
            assert_eq!(body["ad"], expected, "{kind}");
        }
    }
    assert_eq!(item("crm", json!({ "lead_id": 5 })).body.to_value()["lead"], json!({ "lead_id": "5" }));
    assert_eq!(item("app", json!({})).body.to_value()["app"]["app_id"], "com.example.shop");
}

#[test]
fn a_macro_that_nobody_replaced_is_no_callback() {
    let ad = json!({ "ad": { "callback": "__CALLBACK__", "ad_id": "1" } });
    assert_eq!(item("web", ad.clone()).body.to_value()["ad"], json!({ "ad_id": "1" }));
    assert_eq!(noted(ad), [("ad.callback".to_owned(), "unreplaced_macro")]);
    assert!(item("web", json!({ "ad": "x" })).body.to_value().get("ad").is_none());
}

/// TikTok's words for the answer to Apple's question, of which Segment's plugins send Apple's own.
#[test]
fn an_iphone_tells_its_ids_and_its_answer_in_plain() {
    let id = "EA7583CD-A667-48BC-B806-42ECB2B48606";
    for (stated, sent) in [
        ("authorized", Some("AUTHORIZED")),
        ("denied", Some("DENIED")),
        ("notDetermined", Some("NOT_DETERMINED")),
        ("NOT_APPLICABLE", Some("NOT_APPLICABLE")),
        ("restricted", Some("RESTRICTED")),
        ("perhaps", None),
    ] {
        let mut event = purchase();
        event["context"]["os"] = json!({ "name": "iOS" });
        event["context"]["device"] = json!({ "advertisingId": id, "idfv": id, "trackingStatus": stated });
        let item = build(&source("app"), event, Consent::Allow).unwrap();
        let user = &item.body.to_value()["user"];
        assert_eq!((&user["idfa"], &user["idfv"]), (&json!(id), &json!(id)));
        assert_eq!(user.get("att_status").and_then(Value::as_str), sent, "{stated}");
        assert_eq!(item.notes.iter().any(|note| note.field == "user.att_status"), sent.is_none(), "{stated}");
    }
}

#[test]
fn an_ad_says_yes_or_no_or_nothing_and_names_nobody() {
    let ad = json!({
        "campaign_id": "jane@example.com", "ad_id": "18", "is_retargeting": "yes", "attributed": 0
    });
    let built = item("web", json!({ "ad": ad.clone() }));
    assert_eq!(built.body.to_value()["ad"], json!({ "ad_id": "18", "attributed": false }));
    let mut told = noted(json!({ "ad": ad }));
    told.sort();
    let expected = [("ad.campaign_id", "looks_personal"), ("ad.is_retargeting", "not_taken")];
    assert_eq!(told, expected.map(|(field, code)| (field.to_owned(), code)));
}

/// TikTok, Events API 2.0, `properties`: the types that are published.
#[test]
fn properties_go_out_in_tiktoks_types() {
    let fits = json!({
        "description": "a mug", "status": "paid", "shop_id": 12, "delivery_category": "in_store", "num_items": "3",
        "predicted_ltv": "99.90"
    });
    let properties = &item("web", fits).body.to_value()["properties"];
    for (key, value) in [
        ("description", json!("a mug")),
        ("status", json!("paid")),
        ("shop_id", json!("12")),
        ("delivery_category", json!("in_store")),
        ("num_items", json!("3")),
        ("predicted_ltv", json!(99.9)),
    ] {
        assert_eq!(properties[key], value, "{key}");
    }
    for (key, value, code) in [
        ("description", json!("for jane@example.com"), "looks_personal"),
        ("delivery_category", json!("drone"), "not_taken"),
        ("num_items", json!(-1), "not_taken"),
        ("predicted_ltv", json!("much"), "not_taken"),
        ("shop_id", json!(["a"]), "not_taken"),
    ] {
        for document in [source("web"), with(source("web"), "/settings/send_custom_events", json!(true))] {
            let event = having(json!({ key: value }));
            let item = build(&document, event, Consent::Allow).unwrap();
            assert!(item.body.to_value()["properties"].get(key).is_none(), "{key} {value}");
        }
        assert_eq!(noted(json!({ key: value })), [(format!("properties.{key}"), code)], "{value}");
    }
}

/// TikTok portal 1771100779668482: up to 1,000 events of one source, and test events apart.
#[test]
fn a_thousand_events_share_a_request_and_test_events_go_apart() {
    let tested = with(source("web"), "/settings/test_event_code", json!("TEST1"));
    let destination = opened(&tested);
    let plain = build(&source("web"), purchase(), Consent::Allow).unwrap();
    let test = build(&tested, purchase(), Consent::Allow).unwrap();
    let mut items: Vec<Item> = vec![test; 1_001];
    items.push(plain);
    let sizes: Vec<usize> = batches(&*destination, &items).iter().map(Vec::len).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 1_002);
    assert!(sizes.iter().all(|size| *size <= 1_000) && sizes.last() == Some(&1), "{sizes:?}");
    let request = destination.assemble(&batches(&*destination, &items)[0], None);
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((&body["event_source"], &body["test_event_code"]), (&json!("web"), &json!("TEST1")));
    assert!(request.body.len() <= 1_000_000, "{}", request.body.len());
}

use serde_json::{Value, json};
use tracklayer_sandbox::options::{TIKTOK_CRM_SET, TIKTOK_OFFLINE_SET, TIKTOK_PIXEL, TIKTOK_TOKEN};
use tracklayer_sandbox::{Fault, How, Platform};

use crate::rig::{NOW, change, rig, rig_with, send};

fn purchase(id: &str) -> Value {
    json!({
        "event": "Purchase",
        "event_time": NOW - 30,
        "event_id": id,
        "user": { "email": ["a".repeat(64)], "ip": "203.0.113.7" },
        "page": { "url": "https://shop.example/" },
        "properties": { "value": 12.5, "currency": "EUR", "contents": [{ "content_id": "77", "price": 12.5, "quantity": 1 }] },
    })
}

#[tokio::test]
async fn a_good_request_is_answered_and_counted_once_per_id() {
    let rig = rig().await;
    let (status, body) = send(rig.tiktok(&json!([purchase("a"), purchase("b"), purchase("a")]))).await;
    assert_eq!((status, &body["code"], &body["message"]), (200, &json!(0), &json!("OK")));
    assert!(body["request_id"].as_str().unwrap().starts_with("20261123120000"), "{body}");
    let counted = rig.counted(Platform::TikTok);
    assert_eq!(
        counted.iter().map(|c| (c.event_id.as_str(), c.duplicates)).collect::<Vec<_>>(),
        [("a", 1), ("b", 0)]
    );
    assert_eq!(counted[0].identity, TIKTOK_PIXEL);
    rig.clock.advance(std::time::Duration::from_secs(48 * 3600 + 1));
    send(rig.tiktok(&json!([purchase("a")]))).await;
    assert_eq!(rig.counted(Platform::TikTok).len(), 3);
}

#[tokio::test]
async fn one_bad_item_rejects_all_with_its_code_and_text_in_a_200() {
    let rig = rig().await;
    let cases: &[(&str, Value, u64, &str)] = &[
        ("/event", json!(""), 40002, "Invalid value for data.1.event: not a valid string."),
        (
            "/event",
            json!("Quiz Finished"),
            40002,
            "Invalid value for data.1.event: a custom event has at most 50 letters, digits, underscores or hyphens and starts with a letter.",
        ),
        (
            "/event_time",
            json!("1795435170"),
            40002,
            "Invalid value for data.1.event_time: not a valid integer.",
        ),
        ("/event_time", json!(NOW - 7 * 86_400 - 1), 40002, "Invalid value for data.1.event_time: too old."),
        ("/event_time", json!(NOW * 1000), 40002, "Invalid value for data.1.event_time: in the future."),
        ("/event_id", json!(1001), 40002, "Invalid value for event_id: not a valid string."),
        (
            "/properties/order_id",
            json!(1001),
            40002,
            "Invalid value for data.1.properties.order_id: not a valid string.",
        ),
        (
            "/properties/contents/0/content_id",
            json!(77),
            40002,
            "data.1.properties.contents.0.content_id: Not a valid string",
        ),
        ("/user/email", json!("jane@example.com"), 40062, "PII must be hashed."),
        ("/user/zip_code", json!("94025"), 40062, "PII must be hashed."),
        ("/user/phone", json!(["A".repeat(64)]), 40062, "PII must be hashed."),
        (
            "/properties/value",
            json!("12.5"),
            40002,
            "Invalid value for data.1.properties.value: not a valid number.",
        ),
        (
            "/properties/contents/0/price",
            json!("1"),
            40002,
            "Invalid value for data.1.properties.contents.0.price: not a valid number.",
        ),
        (
            "/properties/currency",
            json!("eur"),
            40002,
            "Invalid value for data.1.properties.currency: not an ISO 4217 currency.",
        ),
        (
            "/properties/currency",
            Value::Null,
            40002,
            "Invalid value for data.1.properties.currency: not an ISO 4217 currency.",
        ),
        ("/page", Value::Null, 40002, "Invalid value for data.1.page.url: missing."),
        ("/user", json!({}), 40002, "Invalid value for data.1.user: missing."),
        (
            "/limited_data_use",
            json!("true"),
            40002,
            "Invalid value for data.1.limited_data_use: not a valid boolean.",
        ),
    ];
    for (pointer, value, code, text) in cases {
        let bad = change(&purchase("bad"), pointer, value.clone());
        let (status, body) = send(rig.tiktok(&json!([purchase("good"), bad]))).await;
        assert_eq!(
            (status, &body["code"], &body["message"]),
            (200, &json!(code), &json!(text)),
            "{pointer} = {value}"
        );
    }
    let no_ip = change(&change(&purchase("a"), "/limited_data_use", json!(true)), "/user/ip", Value::Null);
    let (_, body) = send(rig.tiktok(&json!([no_ip]))).await;
    assert_eq!(body["message"], "Invalid value for data.0.user.ip: missing; limited_data_use needs it.");
    assert_eq!(rig.counted(Platform::TikTok), []);
    assert_eq!(rig.totals(Platform::TikTok).refused_requests, cases.len() as u64 + 1);
}

#[tokio::test]
async fn requests_are_refused_in_the_order_path_token_body_source_permission_size() {
    let rig = rig().await;
    let url = format!("{}/open_api/v1.3/event/track/", rig.sandbox.tiktok_url());
    let (status, body) = send(rig.post(url.trim_end_matches('/'))).await;
    assert_eq!((status, body), (404, json!("Not Found")));
    let good = json!({ "event_source": "web", "event_source_id": TIKTOK_PIXEL, "data": [purchase("a")] });
    let token = |token: &str| rig.post(&url).header("Access-Token", token);
    let cases = [
        (rig.post(&url).json(&good), 40104, "Access token is empty."),
        (token("Bearer x").json(&good), 40105, "Access token is incorrect or has been revoked."),
        (token(TIKTOK_TOKEN).body("{"), 40002, "Invalid JSON body."),
        (
            token(TIKTOK_TOKEN).json(&change(&good, "/event_source", json!("browser"))),
            40002,
            "Invalid value for event_source: \"browser\" is not one of [\"web\", \"app\", \"offline\", \"crm\"].",
        ),
        (
            token(TIKTOK_TOKEN).json(&change(&good, "/event_source_id", json!(12))),
            40002,
            "Invalid value for event_source_id: not a valid string.",
        ),
        (
            token(TIKTOK_TOKEN).json(&change(&good, "/event_source_id", json!("C999"))),
            40001,
            "No permission to operate pixel code: C999. You must be an admin or operator of this advertiser account.",
        ),
        (token(TIKTOK_TOKEN).json(&change(&good, "/data", json!([]))), 40061, "Invalid batch size."),
        (
            token(TIKTOK_TOKEN).json(&change(&good, "/data", json!(vec![json!({}); 1001]))),
            40061,
            "Invalid batch size.",
        ),
    ];
    for (request, code, text) in cases {
        let (status, body) = send(request).await;
        assert_eq!((status, &body["code"], &body["message"]), (200, &json!(code), &json!(text)));
    }
    let large = "x".repeat(1_048_577);
    assert_eq!(send(token(TIKTOK_TOKEN).body(large)).await.0, 413);
}

#[tokio::test]
async fn each_source_has_its_own_rules() {
    let rig = rig().await;
    let url = format!("{}/open_api/v1.3/event/track/", rig.sandbox.tiktok_url());
    let bare = change(&purchase("a"), "/page", Value::Null);
    let crm = change(&bare, "/lead", json!({ "lead_id": "7123" }));
    let no_contact = change(&bare, "/user", json!({ "ip": "203.0.113.7" }));
    let cases = [
        ("offline", TIKTOK_OFFLINE_SET, bare.clone(), 0),
        ("offline", TIKTOK_OFFLINE_SET, purchase("a"), 40002),
        ("offline", TIKTOK_OFFLINE_SET, no_contact, 40002),
        ("offline", TIKTOK_OFFLINE_SET, change(&bare, "/event", json!("Custom")), 40002),
        ("offline", TIKTOK_PIXEL, bare.clone(), 40001),
        ("crm", TIKTOK_CRM_SET, crm.clone(), 0),
        ("crm", TIKTOK_CRM_SET, bare, 40002),
        ("crm", TIKTOK_CRM_SET, change(&crm, "/limited_data_use", json!(true)), 40002),
    ];
    for (source, id, item, code) in cases {
        let body = json!({ "event_source": source, "event_source_id": id, "data": [item] });
        let (_, answer) = send(rig.post(&url).header("Access-Token", TIKTOK_TOKEN).json(&body)).await;
        assert_eq!(answer["code"], code, "{source}: {answer}");
    }
}

#[tokio::test]
async fn test_events_are_shown_and_not_counted() {
    let rig = rig().await;
    let url = format!("{}/open_api/v1.3/event/track/", rig.sandbox.tiktok_url());
    let body = json!({
        "event_source": "web", "event_source_id": TIKTOK_PIXEL, "test_event_code": "TEST1", "data": [purchase("a")],
    });
    let (_, answer) = send(rig.post(&url).header("Access-Token", TIKTOK_TOKEN).json(&body)).await;
    assert_eq!(answer["code"], 0);
    assert_eq!((rig.counted(Platform::TikTok).len(), rig.totals(Platform::TikTok).test_events), (0, 1));
}

#[tokio::test]
async fn the_oldest_event_taken_is_a_setting() {
    let rig = rig_with(|options| options.tiktok.max_age = std::time::Duration::from_secs(28 * 86_400)).await;
    let old = change(&purchase("a"), "/event_time", json!(NOW - 20 * 86_400));
    assert_eq!(send(rig.tiktok(&json!([old]))).await.1["code"], 0);
}

#[tokio::test]
async fn faults_stand_in_the_body() {
    let rig = rig().await;
    for (fault, code, counted) in [
        (Fault::ThrottleInBody, 40100, 0),
        (Fault::ExpiredToken, 40102, 0),
        (Fault::TransientInBody, 50002, 0),
        (Fault::Refuse { code: "40050".to_owned(), subcode: None }, 40050, 0),
        (Fault::ErrorAfterAccepting, 50002, 2),
        (Fault::PartialFailure { indexes: vec![1], code: None }, 20001, 2),
    ] {
        rig.sandbox.inject(Platform::TikTok, fault.clone(), How::Times(1));
        let (status, body) = send(rig.tiktok(&json!([purchase("a"), purchase("b")]))).await;
        assert_eq!((status, &body["code"]), (200, &json!(code)), "{fault:?}");
        assert_eq!(rig.counted(Platform::TikTok).len(), counted, "{fault:?}");
    }
}

#[tokio::test]
async fn an_item_that_cannot_be_read_is_the_items_fault_and_a_member_twice_the_bodys() {
    let rig = rig().await;
    let members = format!(r#""event_source":"web","event_source_id":"{TIKTOK_PIXEL}""#);
    let cases = [
        (
            format!(r#"{{{members},"data":[{},{{"event":"\ud800"}}]}}"#, purchase("a")),
            "Invalid value for data.1: not a valid object.",
        ),
        (format!(r#"{{{members},"data":[{0}],"data":[{0}]}}"#, purchase("a")), "Invalid JSON body."),
        (format!(r#"{{{members},"data":[{}]"#, purchase("a")), "Invalid JSON body."),
        (format!(r#"{{{members},"data":{{}}}}"#), "Invalid value for data: not a valid list."),
    ];
    for (body, message) in cases {
        let (status, answer) = send(rig.tiktok(&json!([])).body(body)).await;
        assert_eq!((status, &answer["message"]), (200, &json!(message)));
    }
    assert_eq!(rig.counted(Platform::TikTok), []);
}

use std::time::Duration;

use serde_json::{Value, json};
use tracklayer_sandbox::options::GOOGLE_ACCESS_TOKEN;
use tracklayer_sandbox::{Fault, How, Platform};

use crate::rig::{Rig, change, rig, rig_with, send};

pub fn event(transaction: &str) -> Value {
    json!({
        "transactionId": transaction,
        "eventTimestamp": "2026-11-20T14:03:21.123Z",
        "eventSource": "WEB",
        "currency": "USD",
        "conversionValue": 30.5,
        "adIdentifiers": { "gclid": "Cj0abc" },
        "userData": { "userIdentifiers": [{ "emailAddress": "a".repeat(64) }] },
        "consent": { "adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_DENIED" },
    })
}

pub fn request(events: &[Value]) -> Value {
    json!({
        "destinations": [{
            "reference": "d1",
            "operatingAccount": { "accountType": "GOOGLE_ADS", "accountId": "1234567890" },
            "loginAccount": { "accountType": "GOOGLE_ADS", "accountId": "1112223333" },
            "productDestinationId": "987654321",
        }],
        "encoding": "HEX",
        "events": events,
    })
}

async fn status_of(rig: &Rig, request: &str) -> (u16, Value) {
    let url = format!("{}/v1/requestStatus:retrieve?requestId={request}", rig.sandbox.data_manager_url());
    send(rig.http.get(url).bearer_auth(GOOGLE_ACCESS_TOKEN)).await
}

#[tokio::test]
async fn a_good_request_is_accepted_and_its_verdict_comes_later() {
    let rig = rig().await;
    let (status, body) = send(rig.ingest(&request(&[event("A-1"), event("A-2")]))).await;
    assert_eq!(status, 200, "{body}");
    let id = body["requestId"].as_str().unwrap();
    assert_eq!(rig.counted(Platform::DataManager).len(), 2);
    let (_, early) = status_of(&rig, id).await;
    assert_eq!(early["requestStatusPerDestination"][0]["requestStatus"], "PROCESSING");
    rig.clock.advance(Duration::from_secs(30 * 60));
    let (_, late) = status_of(&rig, id).await;
    let verdict = &late["requestStatusPerDestination"][0];
    assert_eq!(
        (&verdict["requestStatus"], &verdict["eventsIngestionStatus"]["recordCount"]),
        (&json!("SUCCESS"), &json!("2"))
    );
    assert_eq!(status_of(&rig, "unknown").await.0, 400);
}

#[tokio::test]
async fn one_bad_event_and_nothing_is_processed() {
    let rig = rig().await;
    let identifiers = json!(vec![json!({ "emailAddress": "a".repeat(64) }); 11]);
    let no_click = change(&event("A-9"), "/adIdentifiers", Value::Null);
    let cases: &[(Value, &str, &str)] = &[
        (
            change(&event("A-9"), "/eventSource", Value::Null),
            "events.events[1].event_source",
            "REQUIRED_FIELD_MISSING",
        ),
        (
            change(&event("A-9"), "/eventTimestamp", Value::Null),
            "events.events[1].event_timestamp",
            "REQUIRED_FIELD_MISSING",
        ),
        (event("1001"), "events.events[1].transaction_id", "INVALID_FORMAT"),
        (
            change(&event("A-9"), "/currency", json!("usd")),
            "events.events[1].currency",
            "INVALID_CURRENCY_CODE",
        ),
        (change(&no_click, "/userData", Value::Null), "events.events[1]", "NO_IDENTIFIERS_PROVIDED"),
        (
            change(&event("A-9"), "/userData/userIdentifiers", identifiers),
            "events.events[1].user_data.user_identifiers",
            "TOO_MANY_USER_IDENTIFIERS",
        ),
        (
            change(&event("A-9"), "/userData/userIdentifiers/0/emailAddress", json!("jane@example.com")),
            "events.events[1].user_data.user_identifiers[0].email_address",
            "INVALID_HEX_ENCODING",
        ),
        (
            change(&event("A-9"), "/userData/userIdentifiers/0/emailAddress", json!("abcd")),
            "events.events[1].user_data.user_identifiers[0].email_address",
            "INVALID_SHA256_FORMAT",
        ),
        (
            change(&event("A-9"), "/destinationReferences", json!(["d2"])),
            "events.events[1].destination_references",
            "INVALID_DESTINATION",
        ),
    ];
    for (bad, field, reason) in cases {
        let (status, body) = send(rig.ingest(&request(&[event("A-1"), bad.clone()]))).await;
        let details = &body["error"]["details"];
        let violation = &details[2]["fieldViolations"][0];
        assert_eq!(status, 400, "{bad}: {body}");
        assert_eq!((&violation["field"], &violation["reason"]), (&json!(field), &json!(reason)), "{bad}");
        assert_eq!(details[0]["reason"], "INVALID_ARGUMENT");
        assert!(details[1]["requestId"].as_str().unwrap().starts_with("t-"));
    }
    assert_eq!(rig.counted(Platform::DataManager), []);
}

#[tokio::test]
async fn destinations_and_sizes_are_checked() {
    let rig = rig().await;
    let good = request(&[event("A-1")]);
    let cases = [
        (change(&good, "/destinations", json!([])), 400, Some(("destinations", "REQUIRED_FIELD_MISSING"))),
        (
            change(&good, "/destinations/0/productDestinationId", json!("1")),
            400,
            Some(("destinations.destinations[0].product_destination_id", "INVALID_CONVERSION_ACTION_ID")),
        ),
        (change(&good, "/destinations/0/operatingAccount/accountId", json!("9999999999")), 403, None),
        (change(&good, "/destinations/0/loginAccount/accountId", json!("9999999999")), 403, None),
        (request(&[]), 400, Some(("events", "REQUIRED_FIELD_MISSING"))),
        (request(&vec![event("A-1"); 2001]), 400, Some(("events", "TOO_MANY_EVENTS"))),
        (
            change(&good, "/encoding", Value::Null),
            400,
            Some(("events.events[0].user_data.user_identifiers[0].email_address", "REQUIRED_FIELD_MISSING")),
        ),
    ];
    for (body, status, violation) in cases {
        let (found, answer) = send(rig.ingest(&body)).await;
        assert_eq!(found, status, "{answer}");
        if let Some((field, reason)) = violation {
            let first = &answer["error"]["details"][2]["fieldViolations"][0];
            assert_eq!((&first["field"], &first["reason"]), (&json!(field), &json!(reason)));
        }
    }
    let unknown = change(&good, "/events/0/gclid", json!("x"));
    let (status, answer) = send(rig.ingest(&unknown)).await;
    assert_eq!(
        (status, &answer["error"]["details"][0]["@type"]),
        (400, &json!("type.googleapis.com/google.rpc.BadRequest"))
    );
    let no_time = change(&good, "/events/0/eventTimestamp", json!("yesterday"));
    assert_eq!(send(rig.ingest(&no_time)).await.0, 400);
}

#[tokio::test]
async fn the_same_transaction_is_an_adjustment_and_never_counted_twice() {
    let rig = rig().await;
    send(rig.ingest(&request(&[event("A-1")]))).await;
    let less = change(&event("A-1"), "/conversionValue", json!(20));
    send(rig.ingest(&request(&[less]))).await;
    let counted = rig.counted(Platform::DataManager);
    assert_eq!((counted.len(), counted[0].duplicates, counted[0].value.as_deref()), (1, 1, Some("20")));
}

#[tokio::test]
async fn what_is_wrong_later_stands_in_the_verdict_by_count() {
    let rig = rig_with(|options| options.google.verdict_after = Duration::ZERO).await;
    let cut = change(&event("A-2"), "/adIdentifiers/gclid", json!("Cj0 cut"));
    let old = change(&event("A-3"), "/eventTimestamp", json!("2026-08-01T00:00:00Z"));
    let (_, body) = send(rig.ingest(&request(&[event("A-1"), cut, old]))).await;
    let (_, verdict) = status_of(&rig, body["requestId"].as_str().unwrap()).await;
    let verdict = &verdict["requestStatusPerDestination"][0];
    assert_eq!(verdict["requestStatus"], "PARTIAL_SUCCESS");
    assert_eq!(
        verdict["errorInfo"]["errorCounts"],
        json!([
            { "recordCount": "1", "reason": "PROCESSING_ERROR_REASON_EVENT_TOO_OLD" },
            { "recordCount": "1", "reason": "PROCESSING_ERROR_REASON_INVALID_GCLID" },
        ])
    );
    assert_eq!(
        (rig.counted(Platform::DataManager).len(), rig.totals(Platform::DataManager).refused_events),
        (1, 2)
    );
    rig.sandbox.inject(
        Platform::DataManager,
        Fault::PartialFailure { indexes: vec![0], code: None },
        How::Times(1),
    );
    let (_, body) = send(rig.ingest(&request(&[event("A-4")]))).await;
    let (_, verdict) = status_of(&rig, body["requestId"].as_str().unwrap()).await;
    assert_eq!(verdict["requestStatusPerDestination"][0]["requestStatus"], "FAILED");
}

#[tokio::test]
async fn cart_data_beside_a_braid_is_a_warning() {
    let rig = rig().await;
    let braid = change(&event("A-1"), "/adIdentifiers", json!({ "gbraid": "0A" }));
    let cart = change(&braid, "/cartData", json!({ "merchantId": "7" }));
    let (status, body) = send(rig.ingest(&request(&[cart]))).await;
    assert_eq!((status, &body["fieldWarnings"][0]["field"]), (200, &json!("events.events[0].cart_data")));
}

#[tokio::test]
async fn more_than_the_quota_of_a_minute_is_429() {
    let rig = rig_with(|options| options.google.requests_per_minute = 1).await;
    assert_eq!(send(rig.ingest(&request(&[event("A-1")]))).await.0, 200);
    let (status, body) = send(rig.ingest(&request(&[event("A-2")]))).await;
    assert_eq!((status, &body["error"]["details"][1]["retryDelay"]), (429, &json!("60s")));
    rig.clock.advance(Duration::from_secs(60));
    assert_eq!(send(rig.ingest(&request(&[event("A-2")]))).await.0, 200);
}

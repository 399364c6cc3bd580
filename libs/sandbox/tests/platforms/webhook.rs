use std::time::Duration;

use serde_json::json;
use tracklayer_sandbox::options::WEBHOOK_SECRET;
use tracklayer_sandbox::{Platform, sign_webhook};

use crate::rig::{NOW, Rig, rig, rig_with, send};

const BODY: &str = r#"{"messageId":"m-1","event":"Order Completed","type":"track"}"#;

async fn post(
    rig: &Rig,
    name: &str,
    id: &str,
    timestamp: i64,
    signature: &str,
    body: &str,
) -> (u16, serde_json::Value) {
    let request = rig
        .post(&rig.sandbox.webhook_url(name))
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature);
    send(request.body(body.to_owned())).await
}

fn signed(id: &str, timestamp: i64, body: &str) -> String {
    sign_webhook(WEBHOOK_SECRET, id, timestamp, body.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_signed_message_is_taken_and_its_event_counted_once() {
    let rig = rig().await;
    let signature = signed("w-1", NOW, BODY);
    assert_eq!(post(&rig, "crm", "w-1", NOW, &signature, BODY).await.0, 204);
    let rotated = format!("v1,b2xk {signature} v1a,x");
    assert_eq!(post(&rig, "crm", "w-1", NOW, &rotated, BODY).await.0, 204);
    let counted = rig.counted(Platform::Webhook);
    assert_eq!((counted.len(), counted[0].duplicates), (1, 1));
    assert_eq!((counted[0].event_id.as_str(), counted[0].event_name.as_str()), ("m-1", "Order Completed"));
    assert_eq!(counted[0].identity, "crm");
}

#[tokio::test]
async fn what_is_not_signed_for_just_this_is_refused() {
    let rig = rig().await;
    let good = signed("w-1", NOW, BODY);
    let old = NOW - 301;
    let cases = [
        (post(&rig, "crm", "w-2", NOW, &good, BODY).await, 401),
        (post(&rig, "crm", "w-1", NOW, &good, &format!("{BODY} ")).await, 401),
        (post(&rig, "crm", "w-1", NOW + 1, &good, BODY).await, 401),
        (post(&rig, "crm", "w-1", NOW, "v1,AAAA", BODY).await, 401),
        (post(&rig, "crm", "w-1", old, &signed("w-1", old, BODY), BODY).await, 400),
        (post(&rig, "crm", "w-1", NOW + 301, &signed("w-1", NOW + 301, BODY), BODY).await, 400),
        (post(&rig, "crm", "w-1", NOW, &signed("w-1", NOW, "x"), "x").await, 400),
        (send(rig.post(&rig.sandbox.webhook_url("crm")).body(BODY)).await, 400),
        (send(rig.http.get(rig.sandbox.webhook_url("crm"))).await, 405),
    ];
    for (place, ((status, body), expected)) in cases.into_iter().enumerate() {
        assert_eq!(status, expected, "case {place}: {body}");
    }
    assert_eq!(rig.counted(Platform::Webhook), []);
}

#[tokio::test]
async fn webhooks_have_their_own_secrets_and_others_are_not_there() {
    let own = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let rig = rig_with(|options| {
        options.webhook.default_secret = None;
        options.webhook.tolerance = Duration::from_secs(10);
        options.webhook.secrets =
            [("crm".to_owned(), vec![WEBHOOK_SECRET.to_owned(), own.to_owned()])].into();
    })
    .await;
    let signature = sign_webhook(own, "w-1", NOW, BODY.as_bytes()).unwrap();
    assert_eq!(post(&rig, "crm", "w-1", NOW, &signature, BODY).await.0, 204);
    assert_eq!(post(&rig, "erp", "w-1", NOW, &signature, BODY).await.0, 404);
}

#[tokio::test]
async fn a_batch_is_counted_event_by_event() {
    let rig = rig().await;
    let body =
        json!({ "events": [{ "messageId": "a" }, { "messageId": "b" }, { "messageId": "a" }] }).to_string();
    assert_eq!(post(&rig, "crm", "w", NOW, &signed("w", NOW, &body), &body).await.0, 204);
    let totals = rig.totals(Platform::Webhook);
    assert_eq!((totals.events_received, totals.counted, totals.duplicates), (3, 2, 1));
}

#[tokio::test]
async fn a_test_message_is_checked_like_any_other_and_not_counted() {
    let rig = rig().await;
    let body = r#"{"messageId":"m-1","event":"test","type":"track"}"#;
    assert_eq!(post(&rig, "crm", "w-1", NOW, "v1,AAAA", body).await.0, 401);
    assert_eq!(rig.totals(Platform::Webhook).test_events, 0);
    assert_eq!(post(&rig, "crm", "w-1", NOW, &signed("w-1", NOW, body), body).await.0, 204);
    assert_eq!((rig.counted(Platform::Webhook).len(), rig.totals(Platform::Webhook).test_events), (0, 1));
}

//! Every payload that the reference vectors expect must pass: the connectors build these, and the platforms
//! take them.

use serde_json::{Value, json};
use tracklayer_sandbox::Platform;
use tracklayer_sandbox::options::{ActionKind, GA4_API_SECRET, GA4_MEASUREMENT_ID, TIKTOK_TOKEN};

use crate::data_manager::request;
use crate::google_ads::upload;
use crate::rig::{rig, rig_with, send};

fn payloads(file: &str, count: usize) -> Vec<(String, Value, Value)> {
    let path = format!("{}/../../tests/vectors/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let payloads = vectors["payloads"].as_array().unwrap();
    let good: Vec<_> = payloads
        .iter()
        .filter(|payload| !payload["expected"].is_null())
        .map(|payload| {
            (payload["id"].as_str().unwrap().to_owned(), payload["expected"].clone(), payload.clone())
        })
        .collect();
    // Each is either a payload or a refusal, so none is left out unseen.
    let refused = payloads.iter().filter(|payload| payload["refused"].is_object()).count();
    assert_eq!((good.len(), good.len() + refused), (count, payloads.len()), "payloads of {file}");
    good
}

#[tokio::test]
async fn metas_payloads_pass() {
    for (id, item, _) in payloads("meta", 22) {
        let rig = rig().await;
        let items = if item.is_array() { item } else { json!([item]) };
        let (status, body) = send(rig.meta(&items)).await;
        assert_eq!(status, 200, "{id}: {body}");
        assert_eq!(rig.counted(Platform::Meta).len(), items.as_array().unwrap().len(), "{id}");
    }
}

#[tokio::test]
async fn tiktoks_payloads_pass() {
    for (id, item, case) in payloads("tiktok", 12) {
        let (source, source_id) =
            (case["settings"]["event_source"].clone(), case["settings"]["event_source_id"].clone());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let rig = rig_with(|options| {
            options.tiktok.tokens =
                [(TIKTOK_TOKEN.to_owned(), vec![(text(&source), text(&source_id))])].into();
        })
        .await;
        let url = format!("{}/open_api/v1.3/event/track/", rig.sandbox.tiktok_url());
        let body = json!({ "event_source": source, "event_source_id": source_id, "data": [item] });
        let (_, answer) = send(rig.post(&url).header("Access-Token", TIKTOK_TOKEN).json(&body)).await;
        assert_eq!(answer["code"], 0, "{id}: {answer}");
    }
}

#[tokio::test]
async fn googles_payloads_pass() {
    for (id, item, case) in payloads("google", 28) {
        let rig = rig_with(|options| {
            if item["adjustmentType"] == "ENHANCEMENT" {
                options.google.customers[0].actions[0].kind = ActionKind::Webpage;
            }
        })
        .await;
        match case["kind"].as_str().unwrap() {
            "google_ads.click_conversion" => {
                let (status, body) = send(rig.google_ads("uploadClickConversions", &upload(&[item]))).await;
                assert_eq!((status, body.get("partialFailureError")), (200, None), "{id}");
            }
            "google_ads.adjustment" => {
                if item["adjustmentType"] != "ENHANCEMENT" {
                    let mut conversion = json!({
                        "conversionAction": item["conversionAction"], "conversionDateTime": "2026-11-20 14:03:21+00:00",
                        "gclid": "Cj0abc", "conversionValue": 30.5, "currencyCode": "USD",
                    });
                    if !item["orderId"].is_null() {
                        conversion["orderId"] = item["orderId"].clone();
                    }
                    send(rig.google_ads("uploadClickConversions", &upload(&[conversion]))).await;
                }
                let body = json!({ "conversionAdjustments": [item], "partialFailure": true });
                let (status, body) = send(rig.google_ads("uploadConversionAdjustments", &body)).await;
                assert_eq!((status, body.get("partialFailureError")), (200, None), "{id}");
            }
            "data_manager" => {
                let (status, body) = send(rig.ingest(&request(&[item]))).await;
                assert_eq!(status, 200, "{id}: {body}");
                assert_eq!(rig.counted(Platform::DataManager).len(), 1, "{id}");
            }
            "ga4" => {
                let base = rig.sandbox.ga4_url();
                let url = format!(
                    "{base}/mp/collect?measurement_id={GA4_MEASUREMENT_ID}&api_secret={GA4_API_SECRET}"
                );
                assert_eq!(send(rig.post(&url).json(&item)).await.0, 204);
                assert_eq!(rig.counted(Platform::Ga4).len(), 1, "{id}: {:?}", rig.totals(Platform::Ga4));
            }
            other => panic!("{id}: no platform takes {other}"),
        }
    }
}

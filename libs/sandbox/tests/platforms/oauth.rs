use std::time::Duration;

use serde_json::{Value, json};
use tracklayer_sandbox::options::{
    GOOGLE_ADS_ONLY_REFRESH_TOKEN, GOOGLE_CLIENT_ID, GOOGLE_CLIENT_SECRET, GOOGLE_REFRESH_TOKEN,
};
use tracklayer_sandbox::{Fault, How, Platform};

use crate::google_ads::{click, upload};
use crate::rig::{Rig, rig, send};

async fn token(rig: &Rig, pairs: &[(&str, &str)]) -> (u16, Value) {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(pairs);
    let request = rig.post(&rig.sandbox.google_token_url());
    send(request.header("content-type", "application/x-www-form-urlencoded").body(form.finish())).await
}

const GOOD: [(&str, &str); 4] = [
    ("grant_type", "refresh_token"),
    ("client_id", GOOGLE_CLIENT_ID),
    ("client_secret", GOOGLE_CLIENT_SECRET),
    ("refresh_token", GOOGLE_REFRESH_TOKEN),
];

async fn ads_with(rig: &Rig, token: &str) -> (u16, Value) {
    let url = format!("{}/v26/customers/1234567890:uploadClickConversions", rig.sandbox.google_ads_url());
    send(rig.post(&url).bearer_auth(token).json(&upload(&[click("A")]))).await
}

#[tokio::test]
async fn a_refresh_token_gives_an_access_token_that_works_until_it_expires() {
    let rig = rig().await;
    let (status, body) = token(&rig, &GOOD).await;
    assert_eq!((status, &body["expires_in"], &body["token_type"]), (200, &json!(3599), &json!("Bearer")));
    let access = body["access_token"].as_str().unwrap();
    assert_eq!(ads_with(&rig, access).await.0, 200);
    rig.clock.advance(Duration::from_secs(3599));
    let (status, body) = ads_with(&rig, access).await;
    assert_eq!((status, &body["error"]["status"]), (401, &json!("UNAUTHENTICATED")));
    assert_eq!(body["error"]["details"][0]["reason"], "ACCESS_TOKEN_EXPIRED");
    assert_eq!(ads_with(&rig, "made-up").await.1["error"].get("details"), None);
}

#[tokio::test]
async fn bad_refreshes_are_refused_as_the_token_endpoint_does() {
    let rig = rig().await;
    let with = |name: &'static str, value: &'static str| {
        GOOD.map(|(key, old)| if key == name { (key, value) } else { (key, old) })
    };
    for (pairs, status, error) in [
        (with("grant_type", ""), 400, "invalid_request"),
        (with("grant_type", "password"), 400, "unsupported_grant_type"),
        (with("client_id", "x"), 401, "invalid_client"),
        (with("client_secret", "x"), 401, "invalid_client"),
        (with("refresh_token", "x"), 400, "invalid_grant"),
        (with("refresh_token", ""), 400, "invalid_request"),
    ] {
        let (found, body) = token(&rig, &pairs).await;
        assert_eq!((found, &body["error"]), (status, &json!(error)), "{pairs:?}");
    }
    rig.sandbox.inject(Platform::GoogleToken, Fault::ExpiredToken, How::Times(1));
    let (status, body) = token(&rig, &GOOD).await;
    assert_eq!(
        (status, body),
        (400, json!({ "error": "invalid_grant", "error_description": "Token has been expired or revoked." }))
    );
}

#[tokio::test]
async fn a_token_for_ads_fails_at_data_manager() {
    let rig = rig().await;
    let pairs =
        GOOD.map(
            |(key, old)| {
                if key == "refresh_token" { (key, GOOGLE_ADS_ONLY_REFRESH_TOKEN) } else { (key, old) }
            },
        );
    let access = token(&rig, &pairs).await.1["access_token"].as_str().unwrap().to_owned();
    assert_eq!(ads_with(&rig, &access).await.0, 200);
    let url = format!("{}/v1/events:ingest", rig.sandbox.data_manager_url());
    let (status, body) = send(rig.post(&url).bearer_auth(&access).json(&json!({}))).await;
    assert_eq!(
        (status, &body["error"]["details"][0]["reason"]),
        (403, &json!("ACCESS_TOKEN_SCOPE_INSUFFICIENT"))
    );
}

#[tokio::test]
async fn an_expired_token_is_cured_by_a_refresh() {
    let rig = rig().await;
    let first = token(&rig, &GOOD).await.1["access_token"].as_str().unwrap().to_owned();
    rig.sandbox.inject(Platform::GoogleAds, Fault::ExpiredToken, How::Times(1));
    assert_eq!(ads_with(&rig, &first).await.0, 401);
    assert_eq!(ads_with(&rig, &first).await.0, 401, "all tokens given out are void");
    let second = token(&rig, &GOOD).await.1["access_token"].as_str().unwrap().to_owned();
    assert_eq!(ads_with(&rig, &second).await.0, 200);
}

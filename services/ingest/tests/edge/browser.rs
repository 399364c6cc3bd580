//! What a browser needs beside the events: preflights, settings, pixels, its own address.

use axum::body::Body;
use base64::Engine as _;
use http::{Request, StatusCode};
use serde_json::json;

use crate::support::{Bench, Choices, batch_of, get, post, track};

fn preflight(path: &str, asked: &str) -> Request<Body> {
    Request::builder()
        .method("OPTIONS")
        .uri(path)
        .header("origin", "https://shop.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", asked)
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_key_on_every_path() {
    let bench = Bench::start().await;
    for path in ["/v1/batch", "/v1/b", "/v1/t", "/v1/identify", "/v1/m", "/v1/import/", "/beacon/v1/batch"] {
        let answer = bench.send(preflight(path, "authorization,content-type,x-shop")).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::NO_CONTENT, 0), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "https://shop.example");
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        assert!(answer.header("access-control-allow-methods").contains("POST"));
        let allowed = answer.header("access-control-allow-headers").to_owned();
        for name in ["authorization", "content-type", "x-retry-count", "x-shop"] {
            assert!(allowed.split(", ").any(|known| known == name), "{name} in {allowed}");
        }
        assert_eq!(answer.header("access-control-max-age"), "86400");
    }
}

#[tokio::test]
async fn every_answer_can_be_read_by_the_page_refusals_too() {
    let bench = Bench::start().await;
    let good = post("/v1/batch", batch_of(&[track("m")]));
    let bad = post("/v1/batch", "nonsense");
    let unauthenticated = post("/v1/batch", "{}").without("authorization");
    let missing = post("/v9/batch", "{}");
    for (request, status) in [(good, 200), (bad, 400), (unauthenticated, 400), (missing, 404)] {
        let answer = bench.send(request.with("origin", "https://shop.example").body_is_done()).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.header("access-control-allow-origin"), "https://shop.example");
        assert_eq!(answer.header("access-control-expose-headers"), "Retry-After");
        assert!(answer.header("vary").contains("Origin"));
    }
    let server = bench.post("/v1/batch", batch_of(&[track("n")])).await;
    assert_eq!(server.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn settings_name_this_edge_and_nothing_else() {
    let bench = Bench::start().await;
    let answer = bench.send(get("/v1/projects/wk_test/settings")).await;
    assert_eq!((answer.status, answer.header("cache-control")), (StatusCode::OK, "public, max-age=300"));
    let expected = json!({
        "integrations": {"Segment.io": {"apiKey": "wk_test", "apiHost": "edge.example.com/v1", "protocol": "http",
            "unbundledIntegrations": [], "addBundledMetadata": true, "maybeBundledConfigIds": {}}},
        "plan": {"track": {"__default": {"enabled": true, "integrations": {}}}, "identify": {"__default": {"enabled": true}},
            "group": {"__default": {"enabled": true}}},
        "middlewareSettings": {}, "enabledMiddleware": {}, "remotePlugins": [], "legacyVideoPluginsEnabled": false,
        "metrics": {"sampleRate": 0},
    });
    assert_eq!(answer.json(), expected);
    let unknown = bench.send(get("/v1/projects/nope/settings")).await;
    assert_eq!(unknown.refusal(), (404, "unknown_write_key".to_owned()));
    assert_eq!(bench.send(get("/.well-known/gpc.json")).await.json(), json!({"gpc": true}));
}

#[tokio::test]
async fn behind_a_proxy_its_word_about_the_outside_counts() {
    let bench = Bench::with(Choices { trusted_proxies: 1, ..Choices::default() }).await;
    let mut request = get("/v1/projects/wk_test/settings");
    request.headers_mut().insert("x-forwarded-proto", "https".parse().unwrap());
    request.headers_mut().insert("x-forwarded-host", "track.shop.example".parse().unwrap());
    let answer = bench.send(request).await;
    let vary: Vec<&str> =
        answer.headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
    assert!(vary.contains(&"X-Forwarded-Host, X-Forwarded-Proto"), "no cache may mix them up: {vary:?}");
    let segment = answer.json()["integrations"]["Segment.io"].clone();
    assert_eq!(
        (&segment["protocol"], &segment["apiHost"]),
        (&json!("https"), &json!("track.shop.example/v1"))
    );
    let request = post("/v1/t", track("proxied").to_string()).with("x-forwarded-for", "6.6.6.6, 203.0.113.7");
    bench.send(request.body_is_done()).await;
    assert_eq!(bench.journal().await[0].ip, "203.0.113.7");
}

#[tokio::test]
async fn a_browsers_own_address_agent_and_gpc_are_seen() {
    let bench = Bench::start().await;
    let request =
        post("/v1/t", track("gpc").to_string()).with("user-agent", "Mozilla/5.0").with("sec-gpc", "1");
    assert_eq!(bench.send(request.body_is_done()).await.status, StatusCode::OK);
    let stored = bench.journal().await.remove(0);
    assert_eq!((stored.ip.as_str(), stored.user_agent.as_str()), ("198.51.100.9", "Mozilla/5.0"));
    let consent = stored.consent.unwrap();
    assert_eq!((consent.gpc, consent.gpc_provenance.as_str()), (true, "sec_gpc_header"));
}

#[tokio::test]
async fn a_pixel_is_a_gif_whatever_happens() {
    let bench = Bench::start().await;
    let event =
        json!({"event": "Email Opened", "userId": "u", "messageId": "from-data", "writeKey": "wk_test"});
    let data = base64::engine::general_purpose::STANDARD_NO_PAD.encode(event.to_string());
    for path in [
        format!("/v1/pixel/track?data={data}"),
        "/v1/pixel/track?userId=u&event=Email+Opened&properties.subject=Hi&writeKey=wk_test&messageId=plain"
            .to_owned(),
        "/pixel/v1/page?writeKey=wk_test&anonymousId=a&messageId=rudder".to_owned(),
        "/v1/pixel/track?data=%21%21".to_owned(),
        "/v1/pixel/track".to_owned(),
        "/v1/pixel/track?userId=u&event=E&writeKey=unknown".to_owned(),
        "/v1/pixel/track?userId=u&writeKey=wk_test".to_owned(),
    ] {
        let answer = bench.send(get(&path)).await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "image/gif"), "{path}");
        assert_eq!((answer.header("cache-control"), &answer.body[..6]), ("no-store", b"GIF89a".as_slice()));
    }
    assert_eq!(bench.stored_ids().await, ["from-data", "plain", "rudder"]);
    let plain = bench.journal().await.into_iter().find(|event| event.message_id == "plain").unwrap();
    assert_eq!(plain.properties_json, r#"{"subject":"Hi"}"#);
    assert_eq!(bench.rejected_codes().await, ["missing_event_name"]);
}

#[tokio::test]
async fn what_the_sdk_measures_about_itself_is_dropped() {
    let bench = Bench::start().await;
    let request = post("/v1/m", r#"{"series":[]}"#).without("authorization").body_is_done();
    assert_eq!(bench.send(request).await.json(), json!({"success": true}));
    assert_eq!(bench.stored_ids().await, Vec::<String>::new());
}

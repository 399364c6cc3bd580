use std::time::Duration;

use serde_json::{Value, json};
use tracklayer_sandbox::options::{META_DATASET, META_TOKEN};
use tracklayer_sandbox::{Fault, How, Platform};

use crate::rig::{NOW, Rig, change, read, rig, rig_with, send};

fn purchase(id: &str) -> Value {
    json!({
        "event_name": "Purchase",
        "event_time": NOW - 30,
        "event_id": id,
        "action_source": "website",
        "event_source_url": "https://shop.example.com/thanks",
        "user_data": { "em": ["a".repeat(64)], "client_user_agent": "Mozilla/5.0", "fbc": "fb.1.1554763741205.AbC" },
        "custom_data": { "value": 54.4, "currency": "EUR", "contents": [{ "id": "p_1", "quantity": 2, "item_price": 22.5 }] },
    })
}

#[tokio::test]
async fn a_good_request_is_answered_and_counted() {
    let rig = rig().await;
    let (status, body) = send(rig.meta(&json!([purchase("a"), purchase("b")]))).await;
    assert_eq!((status, &body["events_received"], &body["messages"]), (200, &json!(2), &json!([])));
    assert_eq!(body["fbtrace_id"].as_str().unwrap().len(), 23);
    let counted = rig.counted(Platform::Meta);
    assert_eq!(counted[0].event_id, "a");
    assert_eq!(counted[0].identity, META_DATASET);
    assert_eq!(counted[0].value.as_deref(), Some("54.4"));
    assert_eq!(counted[1].body, purchase("b"));
}

#[tokio::test]
async fn bad_events_refuse_the_whole_request_with_metas_code_and_nothing_is_counted() {
    let rig = rig().await;
    let cases: &[(&str, Value, u64, &str)] = &[
        ("/event_name", Value::Null, 2804019, "The parameter $['data'][1]['event_name'] is required."),
        (
            "/event_time",
            json!("2026-11-23T12:00:00Z"),
            2804019,
            "Param $['data'][1]['event_time'] must be an integer.",
        ),
        ("/user_data", Value::Null, 2804019, "The parameter $['data'][1]['user_data'] is required."),
        (
            "/action_source",
            json!("web"),
            2804019,
            "Param $['data'][1]['action_source'] must be one of {email, website, app, phone_call, chat, physical_store, system_generated, business_messaging, other}.",
        ),
        (
            "/advertiser_tracking_enabled",
            json!(1),
            2804019,
            "Unexpected key \"advertiser_tracking_enabled\" on param \"$['data'][1]\".",
        ),
        ("/event_id", json!(7), 2804019, "Param $['data'][1]['event_id'] must be a string."),
        (
            "/custom_data/content_category",
            json!(["a"]),
            2804019,
            "Param $['data'][1]['custom_data']['content_category'] must be a string.",
        ),
        (
            "/custom_data/value",
            json!("54.4"),
            2804019,
            "Param $['data'][1]['custom_data']['value'] must be a number.",
        ),
        (
            "/custom_data/contents/0/name",
            json!("Mug"),
            2804019,
            "Unexpected key \"name\" on param \"$['data'][1]['custom_data']['contents'][0]\".",
        ),
        ("/custom_data/currency", json!("EURO"), 2804019, "\"EURO\" is not an ISO 4217 currency."),
        (
            "/data_processing_options_country",
            json!(1),
            2804019,
            "The parameter $['data'][1]['data_processing_options_state'] is required.",
        ),
        (
            "/event_time",
            json!(NOW - 7 * 86_400 - 1),
            2804003,
            "The timestamp for this event is too far in the past. Events need to be sent from your server within 7 days of when they occurred.",
        ),
        (
            "/event_time",
            json!(NOW + 61),
            2804004,
            "The timestamp for this event is in the future. Send the time in seconds.",
        ),
        (
            "/event_time",
            json!(NOW * 1000),
            2804004,
            "The timestamp for this event is in the future. Send the time in seconds.",
        ),
        (
            "/user_data/ct",
            json!(["menlopark"]),
            2804016,
            "The ct parameter isn’t hashed. Hash all user parameters as SHA256, except for client user agent, click ID, and browser ID.",
        ),
        (
            "/user_data/fbc",
            json!("fb.1.1554763741205."),
            2804001,
            "The click ID (fbc) you sent is incorrectly formatted.",
        ),
        (
            "/user_data",
            json!({ "client_user_agent": "Mozilla/5.0", "ct": ["b".repeat(64)] }),
            2804050,
            "You haven't added sufficient customer information parameter data for this event, or the combination is too broad to match anybody.",
        ),
        (
            "/user_data",
            json!({}),
            2804050,
            "You haven't added sufficient customer information parameter data for this event, or the combination is too broad to match anybody.",
        ),
        ("/custom_data/value", Value::Null, 2804009, "Purchase events need a value."),
        ("/custom_data/currency", Value::Null, 2804010, "Purchase events need a currency."),
        (
            "/custom_data/contents",
            json!("[{\"id\":\"a\"}]"),
            2804008,
            "The contents parameter must be a list of objects, each with an id.",
        ),
        (
            "/custom_data/contents/0/id",
            Value::Null,
            2804008,
            "The contents parameter must be a list of objects, each with an id.",
        ),
        (
            "/app_data",
            json!({ "advertiser_tracking_enabled": 1, "application_tracking_enabled": 1, "extinfo": ["i2"] }),
            2804043,
            "extinfo must have 16 values, in order; put in an empty string for those that are missing.",
        ),
    ];
    for (pointer, value, subcode, text) in cases {
        let bad = change(&purchase("bad"), pointer, value.clone());
        let (status, body) = send(rig.meta(&json!([purchase("good"), bad]))).await;
        let error = &body["error"];
        let label = format!("{pointer} = {value}: {body}");
        assert_eq!(status, 400, "{label}");
        assert_eq!(error["code"], 100, "{label}");
        assert_eq!(error["error_subcode"], *subcode, "{label}");
        assert_eq!(error["error_user_msg"], *text, "{label}");
        assert_eq!(error["message"], "Invalid parameter", "{label}");
        assert_eq!(
            (&error["type"], &error["is_transient"]),
            (&json!("OAuthException"), &json!(false)),
            "{label}"
        );
    }
    assert_eq!(rig.counted(Platform::Meta), []);
    assert_eq!(rig.totals(Platform::Meta).refused_requests, cases.len() as u64);
}

#[tokio::test]
async fn a_value_without_currency_is_refused_for_any_event() {
    let rig = rig().await;
    let event = change(
        &change(&purchase("a"), "/event_name", json!("AddToCart")),
        "/custom_data/currency",
        Value::Null,
    );
    let (_, body) = send(rig.meta(&json!([event]))).await;
    assert_eq!(body["error"]["error_subcode"], 2804023);
}

#[tokio::test]
async fn a_store_may_report_62_days_back() {
    let rig = rig().await;
    let store = change(&purchase("a"), "/action_source", json!("physical_store"));
    let old = change(&store, "/event_time", json!(NOW - 62 * 86_400));
    assert_eq!(send(rig.meta(&json!([old]))).await.0, 200);
    let older = change(&store, "/event_time", json!(NOW - 62 * 86_400 - 1));
    assert_eq!(send(rig.meta(&json!([older]))).await.1["error"]["error_subcode"], 2804003);
}

#[tokio::test]
async fn requests_are_refused_in_the_order_token_path_dataset_data() {
    let rig = rig().await;
    let base = rig.sandbox.meta_url();
    let cases = [
        ("wrong", "/v1.0/999/nothing", json!({}), 401, 190, None),
        (META_TOKEN, "/v1.0/999/events", json!({}), 400, 2500, None),
        (META_TOKEN, "/v26.0/999/things", json!({}), 400, 2500, None),
        (META_TOKEN, "/v26.0/999/events", json!({}), 400, 100, Some(33)),
        (META_TOKEN, "/v26.0/1234567890123456/events", json!({}), 400, 100, None),
        (META_TOKEN, "/v26.0/1234567890123456/events", json!({ "data": {} }), 400, 100, None),
        (META_TOKEN, "/v26.0/1234567890123456/events", json!({ "data": [] }), 400, 100, None),
        (
            META_TOKEN,
            "/v26.0/1234567890123456/events",
            json!({ "data": vec![purchase("a"); 1001] }),
            400,
            100,
            None,
        ),
    ];
    for (token, path, body, status, code, subcode) in cases {
        let answer = send(rig.post(&format!("{base}{path}")).bearer_auth(token).json(&body)).await;
        assert_eq!((answer.0, &answer.1["error"]["code"]), (status, &json!(code)), "{path} {}", answer.1);
        assert_eq!(answer.1["error"]["error_subcode"], subcode.map_or(Value::Null, |code: u64| json!(code)));
    }
    assert_eq!(rig.counted(Platform::Meta), []);
}

#[tokio::test]
async fn the_token_may_stand_in_the_query_or_the_body_and_events_may_be_a_form() {
    let rig = rig().await;
    let url = format!("{}/v26.0/{META_DATASET}/events", rig.sandbox.base_url());
    let in_query =
        rig.post(&format!("{url}?access_token={META_TOKEN}")).json(&json!({ "data": [purchase("q")] }));
    assert_eq!(send(in_query).await.0, 200);
    let in_body = rig.post(&url).json(&json!({ "data": [purchase("b")], "access_token": META_TOKEN }));
    assert_eq!(send(in_body).await.0, 200);
    let data = json!([purchase("f1").to_string(), purchase("f2").to_string()]).to_string();
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("access_token", META_TOKEN)
        .append_pair("data", &data)
        .finish();
    let form = rig.post(&url).header("content-type", "application/x-www-form-urlencoded").body(form);
    assert_eq!(send(form).await.1["events_received"], 2);
    let ids: Vec<_> = rig.counted(Platform::Meta).into_iter().map(|counted| counted.event_id).collect();
    assert_eq!(ids, ["q", "b", "f1", "f2"]);
}

#[tokio::test]
async fn a_body_that_is_no_json_has_no_data() {
    let rig = rig().await;
    let url = format!("{}/v26.0/{META_DATASET}/events", rig.sandbox.meta_url());
    let (status, body) = send(rig.post(&url).bearer_auth(META_TOKEN).body("{\"data\": [")).await;
    assert_eq!((status, &body["error"]["message"]), (400, &json!("(#100) The parameter data is required")));
}

#[tokio::test]
async fn an_app_secret_demands_its_proof() {
    let rig = rig_with(|options| options.meta.app_secret = Some("app-secret".to_owned())).await;
    let url = format!("{}/v26.0/{META_DATASET}/events", rig.sandbox.meta_url());
    let body = json!({ "data": [purchase("a")] });
    let (status, answer) = send(rig.post(&url).bearer_auth(META_TOKEN).json(&body)).await;
    assert_eq!((status, &answer["error"]["type"]), (400, &json!("GraphMethodException")));
    // echo -n sandbox-meta-token | openssl dgst -sha256 -hmac app-secret
    let proof = "dcc1173f597cb1b231edafa3e574027288ccf41df77004f4e39243bdbfe65160";
    let good = rig.post(&format!("{url}?appsecret_proof={proof}")).bearer_auth(META_TOKEN).json(&body);
    assert_eq!(send(good).await.0, 200);
}

#[tokio::test]
async fn the_same_name_and_id_count_once_within_48_hours() {
    let rig = rig().await;
    let again = change(&purchase("a"), "/custom_data/value", json!(1));
    assert_eq!(send(rig.meta(&json!([purchase("a"), again]))).await.1["events_received"], 2);
    assert_eq!(send(rig.meta(&json!([purchase("a")]))).await.1["events_received"], 1);
    let other_name = change(&purchase("a"), "/event_name", json!("AddToCart"));
    send(rig.meta(&json!([other_name]))).await;
    let counted = rig.counted(Platform::Meta);
    assert_eq!(counted.len(), 2);
    assert_eq!((counted[0].duplicates, counted[0].value.as_deref()), (2, Some("54.4")));

    rig.clock.advance(Duration::from_secs(48 * 3600 + 1));
    let later = change(&purchase("a"), "/event_time", json!(NOW + 48 * 3600));
    send(rig.meta(&json!([later]))).await;
    assert_eq!(rig.counted(Platform::Meta).len(), 3);
    let totals = rig.totals(Platform::Meta);
    assert_eq!((totals.events_received, totals.counted, totals.duplicates), (5, 3, 2));
}

#[tokio::test]
async fn events_without_an_id_are_never_taken_for_the_same() {
    let rig = rig().await;
    let event = change(&purchase("a"), "/event_id", Value::Null);
    send(rig.meta(&json!([event, event]))).await;
    assert_eq!(rig.counted(Platform::Meta).len(), 2);
    assert_eq!(rig.totals(Platform::Meta).warnings["without_event_id"], 2);
}

#[tokio::test]
async fn a_website_event_without_user_agent_is_warned_about_or_refused_as_told() {
    let lax = rig().await;
    let event = change(&purchase("a"), "/user_data/client_user_agent", Value::Null);
    assert_eq!(send(lax.meta(&json!([event]))).await.0, 200);
    assert_eq!(lax.totals(Platform::Meta).warnings["website_without_user_agent"], 1);
    let strict = rig_with(|options| options.meta.require_website_fields = true).await;
    let (_, body) = send(strict.meta(&json!([event]))).await;
    assert_eq!(
        body["error"]["error_user_msg"],
        "The parameter $['data'][0]['user_data']['client_user_agent'] is required."
    );
}

async fn faulted(rig: &Rig, fault: Fault) -> reqwest::Response {
    rig.sandbox.inject(Platform::Meta, fault, How::Times(1));
    rig.meta(&json!([purchase("a")])).send().await.unwrap()
}

#[tokio::test]
async fn throttling_comes_as_400_with_usage_headers() {
    let rig = rig().await;
    let response = faulted(&rig, Fault::ThrottleInBody).await;
    let usage = response.headers()["x-app-usage"].to_str().unwrap().to_owned();
    assert_eq!(serde_json::from_str::<Value>(&usage).unwrap()["call_count"], 100);
    let (status, body) = read(response).await;
    assert_eq!(
        (status, &body["error"]["code"], &body["error"]["is_transient"]),
        (400, &json!(4), &json!(true))
    );

    let response = faulted(&rig, Fault::Refuse { code: "80004".to_owned(), subcode: None }).await;
    let usage = response.headers()["x-business-use-case-usage"].to_str().unwrap().to_owned();
    let usage: Value = serde_json::from_str(&usage).unwrap();
    assert_eq!(usage[META_DATASET][0]["estimated_time_to_regain_access"], 1);

    let (_, body) = read(faulted(&rig, Fault::Refuse { code: "613".to_owned(), subcode: None }).await).await;
    assert_eq!(body["error"]["error_subcode"], 1_487_742);
    let (status, body) = read(faulted(&rig, Fault::ExpiredToken).await).await;
    assert_eq!((status, &body["error"]["error_subcode"]), (401, &json!(463)));
    assert_eq!(rig.counted(Platform::Meta), []);
}

#[tokio::test]
async fn texts_for_people_come_in_another_language_and_codes_stay() {
    let rig = rig().await;
    rig.sandbox.inject(Platform::Meta, Fault::LocalisedTexts, How::Always);
    let old = change(&purchase("a"), "/event_time", json!(1));
    let (_, body) = send(rig.meta(&json!([old]))).await;
    assert_eq!(body["error"]["error_user_title"], "Horodatage de l’évènement trop ancien");
    assert_eq!(body["error"]["error_subcode"], 2804003);
}

#[tokio::test]
async fn a_lost_event_shows_in_events_received_and_nowhere_else() {
    let rig = rig().await;
    let lost = Fault::PartialFailure { indexes: vec![0], code: None };
    rig.sandbox.inject(Platform::Meta, lost, How::Times(1));
    let (status, body) = send(rig.meta(&json!([purchase("a"), purchase("b")]))).await;
    assert_eq!((status, &body["events_received"]), (200, &json!(1)));
    assert_eq!(rig.counted(Platform::Meta)[0].event_id, "b");
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_the_events_fault_and_a_member_twice_leaves_no_data() {
    let rig = rig().await;
    let cases = [
        (
            format!(r#"{{"data":[{},{{"event_name":"\ud800"}}]}}"#, purchase("a")),
            "Param $['data'][1] must be an object.",
        ),
        (format!(r#"{{"data":[{0}],"data":[{0}]}}"#, purchase("a")), "(#100) The parameter data is required"),
        (format!(r#"{{"data":[{}]"#, purchase("a")), "(#100) The parameter data is required"),
    ];
    for (body, message) in cases {
        let (status, answer) = send(rig.meta(&json!([])).body(body)).await;
        let text = answer["error"].get("error_user_msg").unwrap_or(&answer["error"]["message"]);
        assert_eq!((status, text), (400, &json!(message)));
    }
    assert_eq!(rig.counted(Platform::Meta), []);
}

#[tokio::test]
async fn test_events_are_shown_and_measured_like_all_others() {
    let rig = rig().await;
    let url = format!("{}/v26.0/{META_DATASET}/events", rig.sandbox.meta_url());
    let body = json!({ "test_event_code": "TEST1", "data": [purchase("a")] });
    let (status, _) = send(rig.post(&url).bearer_auth(META_TOKEN).json(&body)).await;
    assert_eq!(status, 200);
    assert_eq!((rig.counted(Platform::Meta).len(), rig.totals(Platform::Meta).test_events), (1, 1));
    send(rig.meta(&json!([purchase("b")]))).await;
    assert_eq!((rig.counted(Platform::Meta).len(), rig.totals(Platform::Meta).test_events), (2, 1));
}

#[tokio::test]
async fn the_dataset_quality_api_says_how_many_events_of_the_last_two_days_had_each_key() {
    let rig = rig().await;
    let with_phone = change(&purchase("b"), "/user_data/ph", json!(["b".repeat(64)]));
    let in_a_shop = change(&purchase("c"), "/action_source", json!("physical_store"));
    let (status, _) = send(rig.meta(&json!([purchase("a"), with_phone, in_a_shop]))).await;
    assert_eq!(status, 200);
    let ask = async |query: &str| {
        let url = format!("{}/v26.0/dataset_quality?{query}", rig.sandbox.meta_url());
        send(rig.http.get(url).bearer_auth(META_TOKEN)).await
    };
    let fields = "fields=web{event_name,event_match_quality{composite_score,match_key_feedback{identifier,coverage{percentage}}}}";
    let (status, body) = ask(&format!("dataset_id={META_DATASET}&{fields}")).await;
    let coverage =
        |word: &str, percentage: f64| json!({ "identifier": word, "coverage": { "percentage": percentage } });
    let feedback = [
        coverage("email", 100.0),
        coverage("phone", 50.0),
        coverage("fbc", 100.0),
        coverage("user_agent", 100.0),
    ];
    let quality = json!({ "composite_score": 5.8, "match_key_feedback": feedback });
    let row = json!({ "event_name": "Purchase", "event_match_quality": quality });
    assert_eq!((status, body), (200, json!({ "web": [row] })), "of the website alone");
    let of_pixel =
        format!("dataset_id={META_DATASET}&fields=web{{event_name,dedupe_key_feedback{{dedupe_key}}}}");
    let (_, body) = ask(&of_pixel).await;
    assert_eq!(body, json!({ "web": [{ "event_name": "Purchase" }] }), "no browser has a pixel");

    let refusals = [
        (format!("dataset_id=1&{fields}"), 100, "does not exist"),
        (fields.to_owned(), 100, "dataset_id is required"),
        (
            format!("dataset_id={META_DATASET}&fields=web{{dedup_key_feedback}}"),
            100,
            "nonexisting field (dedup_key_feedback)",
        ),
        (format!("dataset_id={META_DATASET}&fields=web{{event_name"), 2500, "Syntax error"),
    ];
    for (query, code, message) in refusals {
        let (status, body) = ask(&query).await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!(code)), "{query}: {body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(message), "{query}: {body}");
    }
    let url = format!("{}/v26.0/dataset_quality?dataset_id={META_DATASET}", rig.sandbox.meta_url());
    let (status, body) = send(rig.http.get(url).bearer_auth("another")).await;
    assert_eq!((status, &body["error"]["code"]), (401, &json!(190)));

    rig.clock.advance(Duration::from_secs(48 * 3600 + 1));
    let (_, body) = ask(&format!("dataset_id={META_DATASET}&fields=web{{event_name}}")).await;
    assert_eq!(body, json!({ "web": [] }), "what came before that counts no more");
    assert_eq!(rig.totals(Platform::Meta).requests, 1, "it is no request of the Conversions API");
}

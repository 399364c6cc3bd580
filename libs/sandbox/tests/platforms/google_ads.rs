use serde_json::{Value, json};
use tracklayer_sandbox::options::{
    GOOGLE_ACCESS_TOKEN, GOOGLE_LOGIN_CUSTOMER, GOOGLE_MANAGED_CUSTOMER, NewAdopter,
};
use tracklayer_sandbox::{Fault, How, Platform};

use crate::rig::{NOW, Rig, change, rig, rig_with, send};

const ACTION: &str = "customers/1234567890/conversionActions/987654321";
const WEBPAGE: &str = "customers/1234567890/conversionActions/987654322";

pub fn click(order: &str) -> Value {
    json!({
        "conversionAction": ACTION,
        "conversionDateTime": "2026-11-20 14:03:21+00:00",
        "conversionValue": 30.5,
        "currencyCode": "USD",
        "orderId": order,
        "gclid": format!("Cj0_{order}"),
    })
}

pub fn upload(clicks: &[Value]) -> Value {
    json!({ "conversions": clicks, "partialFailure": true })
}

async fn clicks(rig: &Rig, clicks: &[Value]) -> Value {
    let (status, body) = send(rig.google_ads("uploadClickConversions", &upload(clicks))).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// (family, code, index) of each error of a partial failure.
fn errors(body: &Value) -> Vec<(String, String, u64)> {
    let errors = body["partialFailureError"]["details"][0]["errors"].as_array().cloned().unwrap_or_default();
    let one = |error: &Value| {
        let (family, code) = error["errorCode"].as_object().unwrap().iter().next().unwrap();
        let index = error["location"]["fieldPathElements"][0]["index"].as_u64().unwrap();
        (family.clone(), code.as_str().unwrap().to_owned(), index)
    };
    errors.iter().map(one).collect()
}

#[tokio::test]
async fn good_conversions_come_back_in_order_and_are_counted() {
    let rig = rig().await;
    let body = clicks(&rig, &[click("A"), click("B")]).await;
    assert_eq!(
        body["results"][1],
        json!({ "gclid": "Cj0_B", "conversionAction": ACTION, "conversionDateTime": "2026-11-20 14:03:21+00:00" })
    );
    assert!(body["jobId"].as_str().unwrap().parse::<u32>().is_ok(), "{body}");
    assert_eq!(body.get("partialFailureError"), None);
    let counted = rig.counted(Platform::GoogleAds);
    assert_eq!((counted[0].event_id.as_str(), counted[0].value.as_deref()), ("A", Some("30.5")));
    assert_eq!(counted[0].identity, "1234567890/987654321");
    assert_eq!(counted[1].body, click("B"));
}

#[tokio::test]
async fn bad_items_fail_alone_with_family_code_and_place() {
    let rig = rig().await;
    let hash = "a".repeat(64);
    let email = json!({ "hashedEmail": hash });
    let cases: &[(&str, Value, &str, &str, &str)] = &[
        ("/conversionAction", Value::Null, "fieldError", "REQUIRED", "conversion_action"),
        (
            "/conversionAction",
            json!("987654321"),
            "requestError",
            "RESOURCE_NAME_MALFORMED",
            "conversion_action",
        ),
        (
            "/conversionAction",
            json!("customers/1234567890/conversionActions/1"),
            "conversionUploadError",
            "NO_CONVERSION_ACTION_FOUND",
            "conversion_action",
        ),
        (
            "/conversionAction",
            json!(WEBPAGE),
            "conversionUploadError",
            "INVALID_CONVERSION_ACTION_TYPE",
            "conversion_action",
        ),
        ("/conversionDateTime", Value::Null, "fieldError", "REQUIRED", "conversion_date_time"),
        (
            "/conversionDateTime",
            json!("2026-11-20T14:03:21Z"),
            "dateError",
            "INVALID_STRING_DATE_TIME_SECONDS_WITH_OFFSET",
            "conversion_date_time",
        ),
        (
            "/conversionDateTime",
            json!("2026-08-01 00:00:00+00:00"),
            "conversionUploadError",
            "EXPIRED_EVENT",
            "conversion_date_time",
        ),
        ("/gclid", Value::Null, "fieldError", "REQUIRED", "gclid"),
        ("/gclid", json!("Cj0 cut"), "conversionUploadError", "UNPARSEABLE_GCLID", "gclid"),
        ("/wbraid", json!("CjkK"), "fieldError", "VALUE_MUST_BE_UNSET", "wbraid"),
        ("/currencyCode", json!("usd"), "currencyCodeError", "UNSUPPORTED", "currency_code"),
        ("/orderId", json!("jane@example.com"), "conversionUploadError", "ORDER_ID_CONTAINS_PII", "order_id"),
        ("/userIdentifiers", json!(vec![&email; 6]), "collectionSizeError", "TOO_MANY", "user_identifiers"),
        (
            "/userIdentifiers",
            json!([{ "hashedEmail": "jane@example.com" }]),
            "conversionUploadError",
            "INVALID_USER_IDENTIFIER",
            "user_identifiers",
        ),
        (
            "/userIdentifiers",
            json!([{ "addressInfo": { "hashedFirstName": hash } }]),
            "conversionUploadError",
            "UNSUPPORTED_USER_IDENTIFIER",
            "user_identifiers",
        ),
        (
            "/userIdentifiers",
            json!([{ "hashedEmail": hash, "hashedPhoneNumber": hash }]),
            "fieldError",
            "REQUIRED",
            "user_identifiers",
        ),
        (
            "/consent",
            json!({ "adPersonalization": "DENIED" }),
            "fieldError",
            "VALUE_MUST_BE_UNSET",
            "consent",
        ),
        (
            "/userIpAddress",
            json!("203.0.113.7"),
            "notAllowlistedError",
            "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE",
            "user_ip_address",
        ),
    ];
    for (place, (pointer, value, family, code, field)) in cases.iter().enumerate() {
        let good = click(&format!("good{place}"));
        let bad = change(&click(&format!("bad{place}")), pointer, value.clone());
        let body = clicks(&rig, &[good, bad]).await;
        assert_eq!(errors(&body), [((*family).to_owned(), (*code).to_owned(), 1)], "{pointer} = {value}");
        let error = &body["partialFailureError"]["details"][0]["errors"][0];
        assert_eq!(error["location"]["fieldPathElements"][1]["fieldName"], *field, "{pointer} = {value}");
        assert_eq!(body["results"][1], json!({}));
        assert_eq!(body["partialFailureError"]["code"], 3);
    }
    assert_eq!(rig.counted(Platform::GoogleAds).len(), cases.len());
    assert_eq!(rig.totals(Platform::GoogleAds).refused_events, cases.len() as u64);
}

#[tokio::test]
async fn both_braids_are_refused_and_one_per_click_takes_none() {
    let rig = rig_with(|options| options.google.customers[0].actions[0].one_per_click = true).await;
    let no_gclid = change(&click("A"), "/gclid", Value::Null);
    let both = change(&change(&no_gclid, "/gbraid", json!("0A")), "/wbraid", json!("0B"));
    let one = change(&change(&no_gclid, "/orderId", json!("B")), "/gbraid", json!("0A"));
    let found = errors(&clicks(&rig, &[both, one]).await);
    let codes: Vec<_> = found.iter().map(|(_, code, _)| code.as_str()).collect();
    assert_eq!(codes, ["GBRAID_WBRAID_BOTH_SET", "ONE_PER_CLICK_CONVERSION_ACTION_NOT_PERMITTED_WITH_BRAID"]);
}

#[tokio::test]
async fn known_clicks_are_compared_with_the_conversion() {
    let at = |second| jiff::Timestamp::from_second(second).unwrap();
    let rig = rig_with(|options| {
        options.google.only_known_clicks = true;
        options.google.clicks = [
            ("Cj0_later".to_owned(), at(NOW - 86_400)),
            ("Cj0_fresh".to_owned(), at(NOW - 3_600)),
            ("Cj0_good".to_owned(), at(NOW - 5 * 86_400)),
        ]
        .into();
    })
    .await;
    let fresh = change(&click("fresh"), "/conversionDateTime", json!("2026-11-23 11:30:00+00:00"));
    let found = errors(&clicks(&rig, &[click("later"), fresh, click("good"), click("unknown")]).await);
    let codes: Vec<_> = found.iter().map(|(_, code, index)| (code.as_str(), *index)).collect();
    assert_eq!(codes, [("CONVERSION_PRECEDES_EVENT", 0), ("TOO_RECENT_EVENT", 1), ("CLICK_NOT_FOUND", 3)]);
}

#[tokio::test]
async fn a_new_action_is_warming_up_for_six_hours() {
    let rig = rig_with(|options| {
        options.google.customers[0].actions[0].created = jiff::Timestamp::from_second(NOW - 3_600).unwrap();
    })
    .await;
    assert_eq!(errors(&clicks(&rig, &[click("A")]).await)[0].1, "TOO_RECENT_CONVERSION_ACTION");
    rig.clock.advance(std::time::Duration::from_secs(5 * 3600));
    assert_eq!(errors(&clicks(&rig, &[click("A")]).await), []);
}

#[tokio::test]
async fn a_conversion_counts_once_by_order_and_by_click_and_time() {
    let rig = rig().await;
    clicks(&rig, &[click("A")]).await;
    let no_order = change(&click("A"), "/orderId", Value::Null);
    let other_offset = change(&no_order, "/conversionDateTime", json!("2026-11-20 15:03:21+01:00"));
    let body = clicks(&rig, &[click("A"), other_offset]).await;
    let codes: Vec<_> = errors(&body).into_iter().map(|(_, code, _)| code).collect();
    assert_eq!(codes, ["ORDER_ID_ALREADY_IN_USE", "CLICK_CONVERSION_ALREADY_EXISTS"]);
    let counted = rig.counted(Platform::GoogleAds);
    assert_eq!((counted.len(), counted[0].duplicates), (1, 2));
    let totals = rig.totals(Platform::GoogleAds);
    assert_eq!((totals.events_received, totals.duplicates, totals.refused_events), (3, 2, 0));
}

#[tokio::test]
async fn twice_in_one_request_neither_is_processed() {
    let rig = rig().await;
    let twin = change(&click("A"), "/gclid", json!("Cj0_other"));
    let body = clicks(&rig, &[click("A"), click("B"), twin]).await;
    let found: Vec<_> = errors(&body).into_iter().map(|(_, code, index)| (code, index)).collect();
    assert_eq!(found, [("DUPLICATE_ORDER_ID".to_owned(), 0), ("DUPLICATE_ORDER_ID".to_owned(), 2)]);
    assert!(
        body["partialFailureError"]["message"].as_str().unwrap().starts_with("Multiple errors in ‘details’.")
    );
    assert_eq!(rig.counted(Platform::GoogleAds).len(), 1);
    let bare = change(&click("C"), "/orderId", Value::Null);
    let body = clicks(&rig, &[bare.clone(), bare]).await;
    assert_eq!(errors(&body)[0].1, "DUPLICATE_CLICK_CONVERSION_IN_REQUEST");
}

#[tokio::test]
async fn validation_alone_gives_no_results_and_counts_nothing() {
    let rig = rig().await;
    let body = json!({ "conversions": [click("A")], "partialFailure": true, "validateOnly": true });
    let (status, answer) = send(rig.google_ads("uploadClickConversions", &body)).await;
    assert_eq!((status, answer), (200, json!({})));
    assert_eq!(rig.counted(Platform::GoogleAds), []);
}

#[tokio::test]
async fn names_and_types_that_do_not_fit_lose_the_whole_request() {
    let rig = rig().await;
    let cases = [
        (
            "/conversions/1/orderID",
            json!("x"),
            "conversions[1]",
            "Invalid JSON payload received. Unknown name \"orderID\" at 'conversions[1]': Cannot find field.",
        ),
        (
            "/conversions/1/conversionValue",
            json!("abc"),
            "conversions[1].conversion_value",
            "Invalid value at 'conversions[1].conversion_value' (TYPE_DOUBLE), \"abc\"",
        ),
        (
            "/conversions/1/consent",
            json!({ "adUserData": "YES" }),
            "conversions[1].consent.ad_user_data",
            "Invalid value at 'conversions[1].consent.ad_user_data' (type.googleapis.com/google.ads.googleads.v26.enums.ConsentStatusEnum.ConsentStatus), \"YES\"",
        ),
    ];
    for (pointer, value, field, text) in cases {
        let body = change(&upload(&[click("A"), click("B")]), pointer, value);
        let (status, answer) = send(rig.google_ads("uploadClickConversions", &body)).await;
        assert_eq!((status, &answer["error"]["status"]), (400, &json!("INVALID_ARGUMENT")));
        let violation = &answer["error"]["details"][0]["fieldViolations"][0];
        assert_eq!((&violation["field"], &violation["description"]), (&json!(field), &json!(text)));
    }
    assert_eq!(rig.counted(Platform::GoogleAds), []);
}

#[tokio::test]
async fn snake_case_and_null_are_protobufs_json_too() {
    let rig = rig().await;
    let body = json!({ "partial_failure": true, "conversions": [{
        "conversion_action": ACTION, "conversion_date_time": "2026-11-20 14:03:21+00:00", "gclid": "x", "gbraid": null,
    }]});
    let (status, answer) = send(rig.google_ads("uploadClickConversions", &body)).await;
    assert_eq!((status, answer.get("partialFailureError")), (200, None));
}

#[tokio::test]
async fn requests_as_a_whole_are_refused_with_a_failure() {
    let rig = rig().await;
    let base = rig.sandbox.google_ads_url();
    let post = |path: &str, login: Option<&str>, body: &Value| {
        let request = rig.post(&format!("{base}{path}")).bearer_auth(GOOGLE_ACCESS_TOKEN).json(body);
        login.map_or_else(
            || request.try_clone().unwrap(),
            |login| request.try_clone().unwrap().header("login-customer-id", login),
        )
    };
    let good = upload(&[click("A")]);
    let managed = format!("/v26/customers/{GOOGLE_MANAGED_CUSTOMER}:uploadClickConversions");
    let own = "/v26/customers/1234567890:uploadClickConversions";
    let cases = [
        (
            post("/v22/customers/1234567890:uploadClickConversions", None, &good),
            400,
            "requestError",
            "UNSUPPORTED_VERSION",
        ),
        (
            post("/v26/customers/123-456-7890:uploadClickConversions", None, &good),
            400,
            "requestError",
            "INVALID_CUSTOMER_ID",
        ),
        (post(own, Some("111-222-3333"), &good), 400, "headerError", "INVALID_LOGIN_CUSTOMER_ID"),
        (post(&managed, None, &good), 403, "authorizationError", "USER_PERMISSION_DENIED"),
        (post(own, Some("9999999999"), &good), 403, "authorizationError", "USER_PERMISSION_DENIED"),
        (
            post(own, None, &change(&good, "/partialFailure", json!(false))),
            400,
            "partialFailureError",
            "PARTIAL_FAILURE_MODE_REQUIRED",
        ),
        (
            post(own, None, &change(&good, "/jobId", json!("0"))),
            400,
            "conversionUploadError",
            "INVALID_JOB_ID",
        ),
        (post(own, None, &upload(&[])), 400, "fieldError", "REQUIRED"),
        (
            post(own, None, &upload(&vec![click("A"); 2001])),
            400,
            "conversionUploadError",
            "TOO_MANY_CONVERSIONS_IN_REQUEST",
        ),
    ];
    for (request, status, family, code) in cases {
        let (found, body) = send(request).await;
        let failure = &body["error"]["details"][0];
        assert_eq!((found, &failure["errors"][0]["errorCode"][family]), (status, &json!(code)), "{body}");
        assert_eq!(failure["@type"], "type.googleapis.com/google.ads.googleads.v26.errors.GoogleAdsFailure");
    }
    let through_manager = post(&managed, Some(GOOGLE_LOGIN_CUSTOMER), &good);
    assert_eq!(send(through_manager).await.0, 200);
    let (status, body) = send(rig.post(&format!("{base}{own}")).json(&good)).await;
    assert_eq!((status, &body["error"]["details"][0]["reason"]), (401, &json!("CREDENTIALS_MISSING")));
}

#[tokio::test]
async fn a_new_adopter_is_refused_either_way() {
    let whole = rig_with(|options| options.google.new_adopter = NewAdopter::Request).await;
    let (status, body) = send(whole.google_ads("uploadClickConversions", &upload(&[click("A")]))).await;
    assert_eq!(status, 403);
    let code = &body["error"]["details"][0]["errors"][0]["errorCode"]["notAllowlistedError"];
    assert_eq!(code, "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE");
    let items = rig_with(|options| options.google.new_adopter = NewAdopter::Item).await;
    let found = errors(&clicks(&items, &[click("A"), click("B")]).await);
    assert_eq!(found.len(), 2);
    assert_eq!(items.counted(Platform::GoogleAds), []);
}

fn adjustment(kind: &str, order: &str, at: &str) -> Value {
    json!({ "conversionAction": ACTION, "adjustmentType": kind, "orderId": order, "adjustmentDateTime": at })
}

fn restatement(order: &str, at: &str, value: f64) -> Value {
    let value = json!({ "adjustedValue": value, "currencyCode": "USD" });
    change(&adjustment("RESTATEMENT", order, at), "/restatementValue", value)
}

async fn adjust(rig: &Rig, items: &[Value]) -> Vec<String> {
    let body = json!({ "conversionAdjustments": items, "partialFailure": true });
    let (status, answer) = send(rig.google_ads("uploadConversionAdjustments", &body)).await;
    assert_eq!(status, 200, "{answer}");
    errors(&answer).into_iter().map(|(_, code, _)| code).collect()
}

#[tokio::test]
async fn refunds_restate_and_retract_a_conversion_once() {
    let rig = rig().await;
    clicks(&rig, &[click("A")]).await;
    let none: [&str; 0] = [];
    assert_eq!(adjust(&rig, &[restatement("A", "2026-11-21 09:00:00+00:00", 20.5)]).await, none);
    let conversion = &rig.counted(Platform::GoogleAds)[0];
    assert_eq!((conversion.value.as_deref(), conversion.retracted), (Some("20.5"), false));
    assert_eq!(
        adjust(&rig, &[restatement("A", "2026-11-21 09:00:00+00:00", 20.5)]).await,
        ["RESTATEMENT_ALREADY_EXISTS"]
    );
    assert_eq!(
        adjust(&rig, &[restatement("A", "2026-11-21 08:00:00+00:00", 25.0)]).await,
        ["MORE_RECENT_RESTATEMENT_FOUND"]
    );
    let retraction = adjustment("RETRACTION", "A", "2026-11-22 09:00:00+00:00");
    assert_eq!(adjust(&rig, std::slice::from_ref(&retraction)).await, none);
    assert_eq!(adjust(&rig, &[retraction]).await, ["CONVERSION_ALREADY_RETRACTED"]);
    let counted = rig.counted(Platform::GoogleAds);
    let names: Vec<_> = counted.iter().map(|c| (c.event_name.as_str(), c.duplicates, c.retracted)).collect();
    assert_eq!(names, [("CONVERSION", 0, true), ("RESTATEMENT", 1, false), ("RETRACTION", 1, false)]);
}

#[tokio::test]
async fn adjustments_that_cannot_be_are_refused() {
    let rig = rig().await;
    clicks(&rig, &[click("A")]).await;
    let at = "2026-11-21 09:00:00+00:00";
    let web = |kind: &str| change(&adjustment(kind, "W", at), "/conversionAction", json!(WEBPAGE));
    let pair = json!({ "gclid": "Cj0_A", "conversionDateTime": "2026-11-20 14:03:21+00:00" });
    let cases = [
        (adjustment("RETRACTION", "unknown", at), "CONVERSION_NOT_FOUND"),
        (adjustment("RETRACTION", "A", "2026-11-20 14:03:21+00:00"), "ADJUSTMENT_PRECEDES_CONVERSION"),
        (adjustment("RESTATEMENT", "A", at), "REQUIRED"),
        (change(&restatement("A", at, 1.0), "/adjustmentType", json!("RETRACTION")), "VALUE_MUST_BE_UNSET"),
        (
            change(&adjustment("RETRACTION", "A", at), "/gclidDateTimePair", pair),
            "GCLID_DATE_TIME_PAIR_AND_ORDER_ID_BOTH_SET",
        ),
        (change(&adjustment("RETRACTION", "A", at), "/orderId", Value::Null), "REQUIRED"),
        (adjustment("ENHANCEMENT", "A", at), "CONVERSION_ACTION_NOT_ELIGIBLE_FOR_ENHANCEMENT"),
        (change(&web("ENHANCEMENT"), "/orderId", Value::Null), "MISSING_ORDER_ID_FOR_WEBPAGE"),
        (web("ENHANCEMENT"), "REQUIRED"),
        (adjustment("UNKNOWN", "A", at), "REQUIRED"),
    ];
    for (item, code) in cases {
        assert_eq!(adjust(&rig, std::slice::from_ref(&item)).await, [code], "{item}");
    }
    let twins = vec![adjustment("RETRACTION", "A", at); 2];
    assert_eq!(adjust(&rig, &twins).await, ["DUPLICATE_ADJUSTMENT_IN_REQUEST"; 2]);
    rig.clock.advance(std::time::Duration::from_secs(55 * 86_400));
    assert_eq!(adjust(&rig, &[adjustment("RETRACTION", "A", at)]).await, ["CONVERSION_EXPIRED"]);
}

#[tokio::test]
async fn an_enhancement_of_a_tags_conversion_counts_once() {
    let rig = rig().await;
    let enhancement = json!({
        "conversionAction": WEBPAGE, "adjustmentType": "ENHANCEMENT", "orderId": "W",
        "userIdentifiers": [{ "hashedEmail": "a".repeat(64) }], "userAgent": "Mozilla/5.0",
    });
    let none: [&str; 0] = [];
    assert_eq!(adjust(&rig, std::slice::from_ref(&enhancement)).await, none);
    assert_eq!(adjust(&rig, std::slice::from_ref(&enhancement)).await, ["CONVERSION_ALREADY_ENHANCED"]);
    assert_eq!(
        adjust(&rig, &[enhancement.clone(), enhancement]).await,
        ["DUPLICATE_ENHANCEMENT_IN_REQUEST"; 2]
    );
    assert_eq!(rig.totals(Platform::GoogleAds).counted, 1);
}

#[tokio::test]
async fn faults_come_in_googles_form() {
    let rig = rig().await;
    rig.sandbox.inject(Platform::GoogleAds, Fault::ThrottleInBody, How::Times(1));
    let (status, body) = send(rig.google_ads("uploadClickConversions", &upload(&[click("A")]))).await;
    let details = &body["error"]["details"][0]["errors"][0]["details"]["quotaErrorDetails"];
    assert_eq!((status, &details["retryDelay"]), (429, &json!("1s")));
    let fault = Fault::PartialFailure {
        indexes: vec![0],
        code: Some("databaseError.CONCURRENT_MODIFICATION".to_owned()),
    };
    rig.sandbox.inject(Platform::GoogleAds, fault, How::Times(1));
    let found = errors(&clicks(&rig, &[click("A"), click("B")]).await);
    assert_eq!(found, [("databaseError".to_owned(), "CONCURRENT_MODIFICATION".to_owned(), 0)]);
    assert_eq!(errors(&clicks(&rig, &[click("A")]).await), [], "it was not processed the first time");
    let fault = Fault::Refuse { code: "authorizationError.MISSING_TOS".to_owned(), subcode: None };
    rig.sandbox.inject(Platform::GoogleAds, fault, How::Times(1));
    let (status, _) = send(rig.google_ads("uploadClickConversions", &upload(&[click("A")]))).await;
    assert_eq!(status, 403);
}

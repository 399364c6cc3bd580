//! Answers that are easily taken for more than they say: nothing is delivered on a guess, and no wait is without an end.

use std::time::Duration;

use serde_json::{Value, json};
use tracklayer_destination::outcome::LONGEST_WAIT;
use tracklayer_destination::{Answer, Consent, HoldKind, Item, ItemOutcome};

use crate::{build, document, opened, purchase};

fn read(kind: &str, answer: &Answer, count: usize) -> Vec<ItemOutcome> {
    let document = document(kind);
    let item = build(&document, purchase(), Consent::Allow).unwrap();
    let items: Vec<Item> =
        (0..count).map(|index| Item { event_id: format!("m-{index}"), ..item.clone() }).collect();
    opened(&document).classify(answer, &items.iter().collect::<Vec<_>>())
}

fn answer(status: u16, body: &Value) -> Answer {
    Answer::new(status, body.to_string())
}

fn is_hold(outcome: &ItemOutcome, expected: HoldKind) -> bool {
    matches!(outcome, ItemOutcome::HoldLane { kind, .. } if *kind == expected)
}

fn is_delivered(outcome: &ItemOutcome) -> bool {
    matches!(outcome, ItemOutcome::Delivered { .. } | ItemOutcome::DeliveredBefore { .. })
}

#[test]
fn retry_after_is_seconds_or_a_date_and_has_an_end() {
    let date = "Mon, 23 Nov 2026 12:00:00 GMT";
    for (text, expected) in [
        ("7", Some(Duration::from_secs(7))),
        (" 120 ", Some(Duration::from_secs(120))),
        ("Mon, 23 Nov 2026 12:01:30 GMT", Some(Duration::from_secs(90))),
        ("99999999", Some(LONGEST_WAIT)),
        ("18446744073709551615", Some(LONGEST_WAIT)),
        ("99999999999999999999999999", Some(LONGEST_WAIT)),
        ("Mon, 23 Nov 2099 12:00:00 GMT", Some(LONGEST_WAIT)),
        // No wait is no answer: a lane that takes it at its word spins.
        ("0", None),
        ("Mon, 23 Nov 2026 11:59:00 GMT", None),
        ("soon", None),
        ("-5", None),
        ("", None),
    ] {
        let mut busy = Answer::new(503, "");
        busy.headers.insert("retry-after", text.parse().unwrap());
        busy.headers.insert("date", date.parse().unwrap());
        assert_eq!(busy.retry_after(), expected, "{text:?}");
    }
    let mut undated = Answer::new(503, "");
    undated.headers.insert("retry-after", date.parse().unwrap());
    assert_eq!(undated.retry_after(), None, "a date without another to measure it by");
}

#[test]
fn the_delay_of_a_quota_error_has_an_end_too() {
    for (delay, expected) in [
        ("30s", Some(Duration::from_secs(30))),
        ("0s", None),
        ("1e300s", None),
        ("100000000000000000s", Some(LONGEST_WAIT)),
    ] {
        let error = json!({
            "errorCode": { "quotaError": "RESOURCE_EXHAUSTED" }, "message": "Too many requests.",
            "details": { "quotaErrorDetails": { "rateScope": "ACCOUNT", "retryDelay": delay } },
        });
        let body = json!({ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{ "errors": [error] }] } });
        let outcomes = read("google_ads", &answer(429, &body), 1);
        assert!(
            matches!(&outcomes[0], ItemOutcome::HoldLane { after, .. } if *after == expected),
            "{outcomes:?}"
        );
    }
}

#[test]
fn a_quota_of_a_day_that_names_no_time_is_waited_for_an_hour() {
    let hour = Some(Duration::from_secs(3_600));
    for (rate, delay, expected) in [
        ("Number of operations for explorer access", None, hour),
        ("Get requests for standard access", None, hour),
        ("Get requests for standard access", Some("1020s"), Some(Duration::from_secs(1_020))),
        ("Requests per account", None, None),
    ] {
        let mut details = json!({ "rateScope": "DEVELOPER", "rateName": rate });
        if let Some(delay) = delay {
            details["retryDelay"] = json!(delay);
        }
        let error = json!({
            "errorCode": { "quotaError": "RESOURCE_EXHAUSTED" }, "message": "Too many requests.",
            "details": { "quotaErrorDetails": details },
        });
        let body = json!({ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{ "errors": [error] }] } });
        let outcomes = read("google_ads", &answer(429, &body), 1);
        assert!(
            matches!(&outcomes[0], ItemOutcome::HoldLane { after, kind: HoldKind::Throttled, .. } if *after == expected),
            "{rate}: {outcomes:?}"
        );
    }
    for (unit, expected) in [("1/d/{project}", hour), ("1/min/{project}", None)] {
        let info = json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED", "domain": "googleapis.com",
            "metadata": { "service": "datamanager.googleapis.com", "quota_unit": unit },
        });
        let body = json!({ "error": {
            "code": 429, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED", "details": [info],
        } });
        let outcomes = read("google_data_manager", &answer(429, &body), 2);
        assert!(
            matches!(&outcomes[1], ItemOutcome::HoldLane { after, kind: HoldKind::Throttled, .. } if *after == expected),
            "{unit}: {outcomes:?}"
        );
    }
}

#[test]
fn of_two_waits_that_google_names_the_longer_counts() {
    let info = json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s" });
    let body = json!({ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED", "details": [info] } });
    let mut busy = answer(429, &body);
    busy.headers.insert("retry-after", "2".parse().unwrap());
    for kind in ["google_data_manager", "google_ads"] {
        let outcomes = read(kind, &busy, 1);
        let longer = Some(Duration::from_secs(2));
        assert!(
            matches!(&outcomes[0], ItemOutcome::HoldLane { after, .. } if *after == longer),
            "{kind}: {outcomes:?}"
        );
    }
}

#[test]
fn a_good_code_under_a_bad_status_is_no_success_at_tiktok() {
    for code in [0, 20001, 40050] {
        let body = json!({ "code": code, "message": "OK", "data": {} });
        for (status, kind) in [
            (500, HoldKind::Transient),
            (502, HoldKind::Transient),
            (504, HoldKind::Transient),
            (408, HoldKind::Transient),
            (429, HoldKind::Throttled),
            (403, HoldKind::Auth),
            (404, HoldKind::Configuration),
        ] {
            for outcome in read("tiktok_events", &answer(status, &body), 2) {
                assert!(is_hold(&outcome, kind), "{status} {code}: {outcome:?}");
            }
        }
    }
    let refused = json!({ "code": 40105, "message": "Access token is incorrect or has been revoked." });
    assert!(is_hold(&read("tiktok_events", &answer(401, &refused), 1)[0], HoldKind::Auth));
}

#[test]
fn a_partial_success_names_its_failures_by_index_or_by_event_id() {
    for data in [
        json!({ "failed_events": [{ "index": 1, "code": 50000 }] }),
        json!({ "failed_indexes": [1] }),
        json!({ "failed_events": ["m-1"] }),
        json!({ "errors": [{ "event_id": "m-1", "message": "?" }] }),
    ] {
        let body = json!({ "code": 20001, "message": "Partial success", "data": data });
        let outcomes = read("tiktok_events", &answer(200, &body), 3);
        let again: Vec<bool> =
            outcomes.iter().map(|outcome| matches!(outcome, ItemOutcome::Retry { .. })).collect();
        assert_eq!(again, [false, true, false], "{body}: {outcomes:?}");
        assert!(is_delivered(&outcomes[0]) && is_delivered(&outcomes[2]), "{outcomes:?}");
    }
}

#[test]
fn a_row_of_a_partial_success_that_refuses_for_good_is_not_sent_again() {
    let rows = json!([{ "index": 0, "code": 40002 }, { "index": 2, "code": "51010" }, { "index": 3 }]);
    let body = json!({ "code": 20001, "message": "Partial success", "data": { "failed_events": rows } });
    let outcomes = read("tiktok_events", &answer(200, &body), 4);
    assert!(matches!(&outcomes[0], ItemOutcome::Dead { code, .. } if code == "40002"), "{outcomes:?}");
    assert!(is_delivered(&outcomes[1]), "{outcomes:?}");
    for again in &outcomes[2..] {
        assert!(matches!(again, ItemOutcome::Retry { attempts: Some(_), .. }), "{outcomes:?}");
    }
}

#[test]
fn a_page_is_no_success_of_ga4() {
    let mut answer = Answer::new(200, "<html>Welcome to this network</html>");
    answer.headers.insert("content-type", "text/html; charset=utf-8".parse().unwrap());
    assert!(is_hold(&read("ga4_mp", &answer, 1)[0], HoldKind::Transient));
    answer.body.clear();
    assert_eq!(read("ga4_mp", &answer, 1), [ItemOutcome::DELIVERED], "nothing in it, as ever");
}

#[test]
fn a_partial_success_that_cannot_be_read_delivers_nobody() {
    for data in [
        json!({ "failed_events": [{ "index": 9 }] }),
        json!({ "failed_events": ["nobody's"] }),
        json!({ "failed_events": [{ "row": "?" }] }),
        json!({ "failed_events": "two" }),
        json!({ "failures": [0] }),
        json!([0]),
        json!("some"),
    ] {
        let body = json!({ "code": 20001, "message": "Partial success", "data": data });
        for outcome in read("tiktok_events", &answer(200, &body), 3) {
            assert!(matches!(outcome, ItemOutcome::Retry { attempts: Some(_), .. }), "{body}: {outcome:?}");
        }
    }
}

fn ads_failure(status: u16, code: &str, index: Option<usize>) -> Answer {
    let element = match index {
        Some(index) => json!([{ "fieldName": "conversions", "index": index }, { "fieldName": "order_id" }]),
        None => json!([]),
    };
    let error = json!({
        "errorCode": { "conversionUploadError": code }, "message": "?", "location": { "fieldPathElements": element },
    });
    let details =
        json!([{ "@type": "x/google.ads.googleads.v26.errors.GoogleAdsFailure", "errors": [error] }]);
    answer(
        status,
        &json!({ "error": { "code": status, "status": "INVALID_ARGUMENT", "message": "?", "details": details } }),
    )
}

#[test]
fn a_google_request_that_is_refused_for_one_item_says_nothing_of_the_others() {
    let outcomes = read("google_ads", &ads_failure(400, "ORDER_ID_ALREADY_IN_USE", Some(1)), 3);
    assert_eq!(outcomes[1], ItemOutcome::DeliveredBefore { code: "ORDER_ID_ALREADY_IN_USE".to_owned() });
    assert_eq!((&outcomes[0], &outcomes[2]), (&ItemOutcome::ResendRest, &ItemOutcome::ResendRest));

    let outcomes = read("google_ads", &ads_failure(400, "TOO_RECENT_EVENT", Some(0)), 2);
    assert!(matches!(&outcomes[0], ItemOutcome::Retry { after: Some(_), .. }), "{outcomes:?}");
    assert_eq!(outcomes[1], ItemOutcome::ResendRest);

    let outcomes = read("google_ads", &ads_failure(400, "DUPLICATE_ORDER_ID", Some(1)), 2);
    assert!(matches!(&outcomes[1], ItemOutcome::Retry { after: Some(Duration::ZERO), .. }), "{outcomes:?}");

    // Nobody is named: looked for, and of a single item it is the item's.
    for outcome in read("google_ads", &ads_failure(400, "ORDER_ID_ALREADY_IN_USE", None), 3) {
        assert!(matches!(outcome, ItemOutcome::Isolate { .. }), "{outcome:?}");
    }
    let alone = read("google_ads", &ads_failure(400, "ORDER_ID_ALREADY_IN_USE", None), 1);
    assert!(matches!(&alone[0], ItemOutcome::DeliveredBefore { .. }), "{alone:?}");

    // Too many is about the request, even where the place of the list reads like its first item.
    for outcome in read("google_ads", &ads_failure(400, "TOO_MANY_CONVERSIONS_IN_REQUEST", Some(0)), 2) {
        assert!(matches!(outcome, ItemOutcome::Isolate { .. }), "{outcome:?}");
    }
}

#[test]
fn a_google_server_in_trouble_proves_nothing_about_an_item() {
    for code in ["ORDER_ID_ALREADY_IN_USE", "CLICK_NOT_FOUND", "TOO_RECENT_EVENT", "SOME_FUTURE_CODE"] {
        for outcome in read("google_ads", &ads_failure(500, code, Some(0)), 2) {
            assert!(is_hold(&outcome, HoldKind::Transient), "{code}: {outcome:?}");
        }
    }
}

#[test]
fn a_google_success_without_results_is_unknown() {
    for body in
        [json!({}), json!({ "jobId": "7" }), json!({ "results": [] }), json!([]), json!({ "results": "x" })]
    {
        for outcome in read("google_ads", &answer(200, &body), 2) {
            assert!(is_hold(&outcome, HoldKind::Transient), "{body}: {outcome:?}");
        }
    }
    let short = json!({ "results": [{ "gclid": "Cj0abc" }] });
    let outcomes = read("google_ads", &answer(200, &short), 2);
    assert!(is_delivered(&outcomes[0]) && is_hold(&outcomes[1], HoldKind::Transient), "{outcomes:?}");
    for body in ["<html>login</html>", "", "{"] {
        assert!(is_hold(&read("google_ads", &Answer::new(200, body), 1)[0], HoldKind::Transient), "{body}");
        assert!(
            is_hold(&read("google_data_manager", &Answer::new(200, body), 1)[0], HoldKind::Transient),
            "{body}"
        );
    }
}

#[test]
fn what_passes_or_is_too_much_blames_no_event_at_data_manager() {
    let refused = |reason: &str| {
        let violation = json!({ "field": "events", "description": "?", "reason": reason });
        let bad =
            json!({ "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation] });
        let body = json!({ "error": { "code": 400, "status": "INVALID_ARGUMENT", "message": "?", "details": [bad] } });
        read("google_data_manager", &answer(400, &body), 2)
    };
    for reason in ["INTERNAL_ERROR", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"] {
        assert!(refused(reason).iter().all(|outcome| is_hold(outcome, HoldKind::Transient)), "{reason}");
    }
    let halved = refused("TOO_MANY_EVENTS");
    assert!(halved.iter().all(|outcome| matches!(outcome, ItemOutcome::Isolate { .. })), "{halved:?}");
    assert!(is_hold(&refused("INVALID_DESTINATION")[0], HoldKind::Configuration));
}

/// GA4 knows no event ids, so a lane turns a passing failure of such an item into `outcome_unknown`: what is surely not
/// collected must be told from it, and nothing but a 2xx is a delivery.
#[test]
fn a_failure_at_ga4_is_unknown_unless_nothing_was_collected() {
    let document = document("ga4_mp");
    let item = build(&document, purchase(), Consent::Allow).unwrap();
    assert!(!item.repeatable);
    assert_eq!(opened(&document).limits().dedup_window, None);
    for status in [200, 202, 204] {
        assert_eq!(read("ga4_mp", &Answer::new(status, "anything"), 1), [ItemOutcome::DELIVERED]);
    }
    for (status, kind) in [
        (500, HoldKind::Transient),
        (502, HoldKind::Transient),
        (503, HoldKind::Transient),
        (504, HoldKind::Transient),
        (408, HoldKind::Transient),
        (400, HoldKind::Transient),
        (429, HoldKind::Throttled),
        (301, HoldKind::Configuration),
        (302, HoldKind::Configuration),
        (404, HoldKind::Configuration),
        (405, HoldKind::Configuration),
        (401, HoldKind::Auth),
        (403, HoldKind::Auth),
    ] {
        for body in ["", "{\"ok\":true}", "<html></html>"] {
            let outcomes = read("ga4_mp", &Answer::new(status, body), 1);
            assert!(is_hold(&outcomes[0], kind), "{status} {body}: {outcomes:?}");
        }
    }
    assert!(matches!(&read("ga4_mp", &Answer::new(413, ""), 1)[0], ItemOutcome::Isolate { .. }));
}

#[test]
fn a_token_that_a_platform_quotes_is_not_told() {
    let quote = "Malformed access token EAABsbCS1iHgBAKZCx0987654321abcdefZD";
    let answers = [
        ("meta_capi", answer(400, &json!({ "error": { "code": 190, "message": quote } }))),
        ("meta_capi", answer(500, &json!({ "error": { "code": 2, "message": quote } }))),
        ("tiktok_events", answer(200, &json!({ "code": 40105, "message": quote }))),
        ("google_ads", answer(401, &json!({ "error": { "status": "UNAUTHENTICATED", "message": quote } }))),
        (
            "google_data_manager",
            answer(403, &json!({ "error": { "status": "PERMISSION_DENIED", "message": quote } })),
        ),
    ];
    for (kind, answer) in answers {
        let told = format!("{:?}", read(kind, &answer, 1));
        assert!(told.contains("Malformed access token ***") && !told.contains("EAAB"), "{kind}: {told}");
    }
}

#[test]
fn what_a_platform_quotes_of_a_person_is_not_kept() {
    let quote =
        "Invalid value for data.0.user.phone: +4915123456789 or jane@example.com, see (jane%40example.com)";
    let answers = [
        ("tiktok_events", answer(200, &json!({ "code": 40002, "message": quote }))),
        ("tiktok_events", answer(200, &json!({ "code": 50000, "message": quote }))),
        (
            "meta_capi",
            answer(400, &json!({ "error": { "code": 100, "error_subcode": 2_804_016, "message": quote } })),
        ),
        ("meta_capi", answer(500, &json!({ "error": { "code": 2, "message": quote } }))),
        ("google_ads", answer(503, &json!({ "error": { "status": "UNAVAILABLE", "message": quote } }))),
        (
            "google_data_manager",
            answer(503, &json!({ "error": { "status": "UNAVAILABLE", "message": quote } })),
        ),
    ];
    for (kind, answer) in answers {
        let told = format!("{:?}", read(kind, &answer, 1));
        assert!(told.contains("Invalid value for data.0.user.phone: ***"), "{kind}: {told}");
        for secret in ["49151", "jane", "example.com"] {
            assert!(!told.contains(secret), "{kind}: {told}");
        }
    }
}

//! Rows, folders, settings and answers of a warehouse.

use serde_json::{Value, json};
use tracklayer_destination::warehouse::row::Row;
use tracklayer_destination::{
    Answer, Consent, Deliverable, HoldKind, ItemOutcome, Place, WorkspaceDefaults, open,
};

use crate::{build, document, opened, purchase, with};

fn row_of(event: Value) -> Row {
    let item = build(&document("warehouse"), event, Consent::Allow).unwrap();
    serde_json::from_str(item.body.as_str()).unwrap()
}

#[test]
fn a_row_has_the_event_as_it_came_to_the_last_digit() {
    // As text: no parser may touch the numbers before the row is made.
    let text = r#"{"type":"track","event":"Order Completed","messageId":"m-1","anonymousId":"a",
        "timestamp":"2026-11-23T11:59:30.123456789Z",
        "properties":{"revenue":0.10000000000000000001,"id":12345678901234567890123,"a":1,"a":2},
        "context":{"consent":{"categoryPreferences":{"Marketing":false}}}}"#;
    let context = tracklayer_event::ParseContext::preview(crate::now());
    let event = tracklayer_event::parse_event(text.as_bytes(), &context).unwrap();
    let event = Deliverable::new(event, Default::default(), "00ff", Consent::Allow, None);
    let item = opened(&document("warehouse")).build(&event, crate::now()).unwrap();
    let row: Row = serde_json::from_str(item.body.as_str()).unwrap();
    assert_eq!(
        row.properties.as_deref(),
        Some(r#"{"revenue":0.10000000000000000001,"id":12345678901234567890123,"a":1,"a":2}"#)
    );
    assert_eq!(row.consent.as_deref(), Some(r#"{"categories":{"Marketing":false},"interaction":true}"#));
    assert_eq!((row.event_type.as_str(), row.event_name.as_deref()), ("track", Some("Order Completed")));
    assert_eq!((row.user_id, row.anonymous_id.as_deref()), (None, Some("a")));
    assert_eq!(row.profile_key.as_deref(), Some("00ff"));
    assert_eq!(row.received_at, crate::now());
    assert_eq!(item.group, "day=2026-11-23/event=order_completed");
}

#[test]
fn a_row_is_the_same_whatever_the_settings_and_the_decision_are_and_whenever_it_is_made() {
    let plain = build(&document("warehouse"), purchase(), Consent::Allow).unwrap();
    let mut other = document("warehouse");
    other["settings"] = json!({ "url": "file:///exports", "rows_per_file": 7 });
    other["event_map"] = json!({ "order completed": "Purchase" });
    other["constants"] = json!({ "currency": "EUR" });
    let event = tracklayer_destination::preview::parse(purchase(), crate::now()).unwrap();
    let key = plain.body.to_value()["profile_key"].as_str().unwrap().to_owned();
    let event = Deliverable::new(event, Default::default(), &key, Consent::AllowUnstated, None);
    let later = crate::now() + std::time::Duration::from_secs(86_400 * 30);
    let again = opened(&other).build(&event, later).unwrap();
    assert_eq!((again.body, again.group), (plain.body, plain.group));
}

#[test]
fn the_other_calls_have_folders_of_their_kind() {
    for (event, folder) in [
        (json!({ "type": "page", "name": "Über uns/../", "messageId": "m", "anonymousId": "a" }), "page"),
        (json!({ "type": "identify", "messageId": "m", "anonymousId": "a", "userId": "u" }), "identify"),
    ] {
        let item = build(&document("warehouse"), event, Consent::Allow).unwrap();
        assert_eq!(item.group, format!("day=2026-11-23/event={folder}"));
    }
    assert_eq!(
        row_of(json!({ "type": "page", "name": "Über", "anonymousId": "a" })).event_name.unwrap(),
        "Über"
    );
}

#[test]
fn a_place_is_checked_and_told_in_words() {
    let settings = |settings: Value| json!({ "kind": "warehouse", "mode": "live", "settings": settings });
    for (wrong, path, says) in [
        (json!({ "url": "s3://lake" }), "settings.access_key_id", "no key of the machine"),
        (json!({ "url": "file:///exports/../etc" }), "settings.url", "no `.`"),
        (json!({ "url": "file:///" }), "settings.url", "must name a folder"),
        (json!({ "url": "file:///x", "secret_access_key": "k" }), "settings.secret_access_key", "s3:// only"),
        (json!({ "url": "ftp://x/y" }), "settings.url", ""),
        (json!({ "url": "file://host/%2e%2e/x" }), "settings.url", ""),
        (json!({ "url": "file:///x", "rows_per_file": 0 }), "settings.rows_per_file", ""),
        (json!({ "url": "file:///x", "seconds_per_file": 3_601 }), "settings.seconds_per_file", ""),
        (json!({ "url": "file:///x", "megabytes_per_file": 33 }), "settings.megabytes_per_file", ""),
    ] {
        let errors = open(&settings(wrong.clone()), &WorkspaceDefaults::default()).err().unwrap();
        let found = errors.0.iter().any(|error| error.path == path && error.why.contains(says));
        assert!(found, "{wrong}: {errors}");
    }
    let folder = opened(&settings(json!({ "url": "file:///exports/shop/" })));
    let target = folder.files().unwrap();
    let Place::Folder { path } = &target.place else { panic!("{target:?}") };
    assert_eq!(path.to_str(), Some("/exports/shop"));
    assert_eq!((target.rows_per_file, target.bytes_per_file, target.age.as_secs()), (10_000, 16_000_000, 60));
    let bucket = opened(&document("warehouse"));
    assert_eq!(bucket.files().unwrap().url_of("day=1/event=x"), "s3://lake/events/day=1/event=x/");
    assert_eq!(bucket.files().unwrap().place.name(), "s3://lake/events at us-east-1");
}

#[test]
fn what_a_store_answers_holds_the_lane_and_says_what_to_do() {
    let xml = |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    let bucket = document("warehouse");
    let folder = with(
        json!({ "kind": "warehouse", "mode": "live", "settings": {} }),
        "/settings/url",
        json!("file:///exports"),
    );
    for (document, status, body, kind, code, says) in [
        (&bucket, 404, xml("NoSuchBucket"), HoldKind::Configuration, "NoSuchBucket", "make it"),
        (&bucket, 403, xml("AccessDenied"), HoldKind::Auth, "AccessDenied", "s3:PutObject"),
        (
            &bucket,
            403,
            xml("SignatureDoesNotMatch"),
            HoldKind::Auth,
            "SignatureDoesNotMatch",
            "set `access_key_id`",
        ),
        (&bucket, 400, xml("ExpiredToken"), HoldKind::Auth, "ExpiredToken", "anew"),
        (&bucket, 301, xml("PermanentRedirect"), HoldKind::Configuration, "PermanentRedirect", "`region`"),
        (&bucket, 503, xml("SlowDown"), HoldKind::Throttled, "SlowDown", "slower"),
        (&bucket, 500, xml("InternalError"), HoldKind::Transient, "InternalError", "trouble"),
        (&bucket, 507, xml("XMinioStorageFull"), HoldKind::Transient, "XMinioStorageFull", "make room"),
        (&bucket, 400, xml("a b<>"), HoldKind::Configuration, "HTTP_400", "refuses the file"),
        (&folder, 403, xml("PermissionDenied"), HoldKind::Configuration, "PermissionDenied", "write there"),
        (&folder, 404, String::new(), HoldKind::Configuration, "HTTP_404", "mount it"),
        (&folder, 507, xml("StorageFull"), HoldKind::Transient, "StorageFull", "make room"),
    ] {
        let destination = opened(document);
        let item = build(document, purchase(), Consent::Allow).unwrap();
        let outcome = destination.classify(&Answer::new(status, body), &[&item]).remove(0);
        let ItemOutcome::HoldLane { kind: held, code: told, detail, attempts: None, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!((held, told.as_str()), (kind, code));
        assert!(detail.contains(says), "{detail}");
    }
}

#[test]
fn one_with_expressions_writes_files_as_well() {
    let plain = document("warehouse");
    let filtered = with(plain.clone(), "/filter", json!("properties.revenue >= 20"));
    let (plain, filtered) = (opened(&plain), opened(&filtered));
    let place =
        |destination: &dyn tracklayer_destination::Destination| destination.files().unwrap().place.name();
    assert_eq!(place(&*filtered), place(&*plain));
}

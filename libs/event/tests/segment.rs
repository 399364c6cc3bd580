//! Events as senders write them, and what becomes of them.
#![allow(clippy::unwrap_used)] // helpers outside of a test function: a test may stop here

use jiff::Timestamp;
use proptest::prelude::*;
use tracklayer_event::batch::parse_batch;
use tracklayer_event::{ParseContext, RejectCode, Rejection, identifiers_of, parse_event};
use tracklayer_proto::event::v1::{Channel, Event, EventType};

fn now() -> Timestamp {
    "2026-11-23T13:12:00Z".parse().unwrap()
}

fn server() -> ParseContext<'static> {
    ParseContext::at(now())
}

fn browser() -> ParseContext<'static> {
    let mut context = server();
    context.source_channel = Channel::Browser;
    context.connection_ip = "198.51.100.9";
    context.user_agent = "Mozilla/5.0";
    context
}

fn event(json: &str) -> Event {
    parse_event(json.as_bytes(), &server()).unwrap()
}

fn rejection(json: &str) -> Rejection {
    parse_event(json.as_bytes(), &server()).unwrap_err()
}

#[test]
fn each_bad_event_has_its_own_code_and_field() {
    let large = format!(
        r#"{{"type":"track","event":"E","userId":"u","properties":{{"x":"{}"}}}}"#,
        "x".repeat(33 * 1024)
    );
    let deep = format!(
        r#"{{"type":"track","event":"E","userId":"u","properties":{}1{}}}"#,
        "{\"a\":".repeat(10_000),
        "}".repeat(10_000)
    );
    let long_id = format!(r#"{{"type":"page","userId":"u","messageId":"{}"}}"#, "m".repeat(100));
    let long_user = format!(r#"{{"type":"page","userId":"{}"}}"#, "u".repeat(513));
    let cases = [
        (r#"{"userId":"u","event":"E"}"#, RejectCode::MissingType, "type"),
        (r#"{"type":"","userId":"u"}"#, RejectCode::MissingType, "type"),
        (r#"{"type":"purchase","userId":"u"}"#, RejectCode::UnknownType, "type"),
        (r#"{"type":7,"userId":"u"}"#, RejectCode::UnknownType, "type"),
        (r#"{"type":"track","event":"E"}"#, RejectCode::MissingIds, "userId"),
        (r#"{"type":"track","event":"E","userId":"","anonymousId":null}"#, RejectCode::MissingIds, "userId"),
        (r#"{"type":"alias","userId":"u"}"#, RejectCode::MissingIds, "previousId"),
        (r#"{"type":"alias","anonymousId":"a","previousId":"p"}"#, RejectCode::MissingIds, "userId"),
        (r#"{"type":"group","userId":"u"}"#, RejectCode::MissingIds, "groupId"),
        (r#"{"type":"track","userId":"u"}"#, RejectCode::MissingEventName, "event"),
        (r#"{"type":"track","event":"  ","userId":"u"}"#, RejectCode::MissingEventName, "event"),
        (&long_id, RejectCode::MessageIdTooLong, "messageId"),
        (&long_user, RejectCode::InvalidField, "userId"),
        (&large, RejectCode::EventTooLarge, ""),
        (&deep, RejectCode::TooDeep, ""),
        ("{\"type\":\"track\"", RejectCode::InvalidJson, ""),
        ("", RejectCode::InvalidJson, ""),
        ("[]", RejectCode::NotAnObject, ""),
        ("7", RejectCode::NotAnObject, ""),
        (r#"{"type":"page","userId":"u\u0000"}"#, RejectCode::ContainsNul, ""),
        (r#"{"type":"page","userId":{"id":1}}"#, RejectCode::InvalidField, "userId"),
        (r#"{"type":"page","userId":"u","properties":"x"}"#, RejectCode::InvalidField, "properties"),
        (r#"{"type":"page","userId":"u","context":[1]}"#, RejectCode::InvalidField, "context"),
        (r#"{"type":"page","userId":"u","properties":{"n":1e999}}"#, RejectCode::InvalidField, ""),
        (r#"{"type":"page","userId":"u","messageId":"a\nb"}"#, RejectCode::InvalidField, "messageId"),
    ];
    for (json, code, field) in cases {
        let found = rejection(json);
        assert_eq!((found.code, found.field.as_str()), (code, field), "{}", &json[..json.len().min(80)]);
        assert!(!found.reason.is_empty());
    }
    assert_eq!(
        parse_event(b"{\"type\":\"page\",\"userId\":\"\xff\"}", &server()).unwrap_err().code,
        RejectCode::InvalidUtf8
    );
    assert_eq!(rejection(r#"{"messageId":"m-1","userId":"u"}"#).message_id, "m-1");
    assert_eq!(rejection(r#"{"messageId":"m-2","type":"page","userId":"\u0000"}"#).message_id, "m-2");
}

#[test]
fn every_code_is_lower_case_and_unique() {
    let mut texts: Vec<_> = RejectCode::ALL.iter().map(|c| c.as_str()).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), RejectCode::ALL.len());
}

#[test]
fn a_key_that_stands_twice_counts_with_its_last_value_and_is_warned_about() {
    let found = event(r#"{"type":"page","userId":"first","userId":"last","messageId":"m"}"#);
    assert_eq!(found.user_id, "last");
    assert_eq!(found.warnings, ["duplicate_key"]);
}

#[test]
fn a_second_consent_object_cannot_undo_the_first() {
    let found = event(
        r#"{"type":"page","userId":"u","context":{"consent":{"categoryPreferences":{"Ads":false}},"consent":{"categoryPreferences":{"Ads":true}}}}"#,
    );
    let consent = found.consent.unwrap();
    assert!(consent.unreadable);
    assert!(!consent.categories[0].allowed);
}

#[test]
fn a_batchs_context_does_not_hide_a_refusal_that_is_said_twice() {
    let batch =
        parse_batch(r#"{"batch":[{}],"context":{"ip":"198.51.100.1","consent":{"gpc":false}}}"#).unwrap();
    let mut context = server();
    context.batch_context = batch.context;
    for consent in [
        r#""consent":{"categoryPreferences":{"Ads":false}},"consent":{"categoryPreferences":{"Ads":true}}"#,
        r#""consent":{"categoryPreferences":{"Ads":false,"Ads":true}}"#,
    ] {
        let json = format!(r#"{{"type":"page","userId":"u","context":{{{consent}}}}}"#);
        let found = parse_event(json.as_bytes(), &context).unwrap();
        assert_eq!(found.ip, "198.51.100.1");
        let categories = found.consent.unwrap().categories;
        assert!(categories.iter().all(|c| !c.allowed) && categories.len() == 1, "{consent}: {categories:?}");
    }
}

#[test]
fn numbers_as_ids_become_text() {
    let found = event(
        r#"{"type":"track","event":"E","userId":42,"anonymousId":7.0,"messageId":12345678901234567890}"#,
    );
    assert_eq!((found.user_id.as_str(), found.anonymous_id.as_str()), ("42", "7"));
    assert_eq!(found.message_id, "12345678901234567890");
}

#[test]
fn an_event_without_an_id_gets_one_of_its_own() {
    let one = event(r#"{"type":"page","userId":"u"}"#);
    let two = event(r#"{"type":"page","userId":"u","messageId":null}"#);
    assert_eq!(one.message_id.len(), 36);
    assert_ne!(one.message_id, two.message_id);
}

#[test]
fn the_path_wins_over_the_type() {
    let mut context = server();
    context.path_type = Some(EventType::Identify);
    let agreed = parse_event(br#"{"userId":"u"}"#, &context).unwrap();
    assert_eq!((agreed.r#type(), agreed.warnings.len()), (EventType::Identify, 0));
    let other = parse_event(br#"{"type":"page","userId":"u"}"#, &context).unwrap();
    assert_eq!((other.r#type(), other.warnings), (EventType::Identify, vec!["type_from_path".to_owned()]));
}

#[test]
fn clocks_are_corrected_and_the_future_is_clamped() {
    let fast = event(
        r#"{"type":"page","userId":"u","timestamp":"2026-11-23T14:00:00+01:00","sentAt":"2026-11-23T13:01:00Z"}"#,
    );
    assert_eq!(fast.timestamp.unwrap().seconds, now().as_second() - 60);
    assert_eq!(fast.utc_offset_seconds, 3600);
    let future = event(r#"{"type":"page","userId":"u","timestamp":"2070-01-01T00:00:00Z"}"#);
    assert_eq!(future.timestamp, future.received_at);
    assert_eq!(future.warnings, ["timestamp_clamped"]);
    let past = event(r#"{"type":"page","userId":"u","timestamp":"1970-01-01T00:00:00Z"}"#);
    assert_eq!((past.timestamp.unwrap().seconds, past.warnings.len()), (0, 0));
    let epoch = event(r#"{"type":"page","userId":"u","timestamp":1795439468850}"#);
    assert_eq!(epoch.timestamp.unwrap().nanos, 850_000_000);
    let broken = event(r#"{"type":"page","userId":"u","timestamp":"soon","sentAt":"later"}"#);
    assert_eq!((broken.timestamp, broken.original_timestamp), (broken.received_at, None));
    assert_eq!(broken.warnings, ["timestamp_unparsable", "sent_at_unparsable"]);
    let rudder = event(
        r#"{"type":"page","userId":"u","timestamp":"2020-01-01T00:00:00Z","originalTimestamp":"2026-11-23T13:00:00Z"}"#,
    );
    assert_eq!(
        rudder.original_timestamp,
        Some(tracklayer_event::time::to_proto("2026-11-23T13:00:00Z".parse().unwrap()))
    );
}

#[test]
fn preview_takes_the_time_as_it_stands_also_in_the_future() {
    let context = ParseContext::preview(now());
    let future = parse_event(
        br#"{"type":"page","userId":"u","timestamp":"2070-01-01T00:00:00Z","sentAt":"2070-01-02T00:00:00Z"}"#,
        &context,
    )
    .unwrap();
    assert_eq!(future.timestamp, future.original_timestamp);
    assert!(future.warnings.is_empty());
}

#[test]
fn the_connection_stands_for_the_person_only_where_the_person_connects() {
    let page = br#"{"type":"page","anonymousId":"a"}"#;
    let own = parse_event(page, &browser()).unwrap();
    assert_eq!((own.ip.as_str(), own.user_agent.as_str()), ("198.51.100.9", "Mozilla/5.0"));
    let given = parse_event(
        br#"{"type":"page","anonymousId":"a","context":{"ip":"203.0.113.7","userAgent":"UA"}}"#,
        &browser(),
    )
    .unwrap();
    assert_eq!((given.ip.as_str(), given.user_agent.as_str()), ("203.0.113.7", "UA"));
    let mut shop = browser();
    shop.source_channel = Channel::Server;
    let server = parse_event(br#"{"type":"page","anonymousId":"a","channel":"browser"}"#, &shop).unwrap();
    assert_eq!((server.ip.as_str(), server.user_agent.as_str()), ("", ""));
    let relayed =
        parse_event(br#"{"type":"page","anonymousId":"a","channel":"server"}"#, &browser()).unwrap();
    assert_eq!((relayed.ip.as_str(), relayed.channel()), ("", Channel::Server));
}

#[test]
fn gpc_is_seen_in_the_header_and_in_the_context() {
    let mut context = browser();
    context.gpc_header = true;
    let header =
        parse_event(br#"{"type":"page","anonymousId":"a","context":{"consent":{"gpc":false}}}"#, &context)
            .unwrap();
    let consent = header.consent.unwrap();
    assert_eq!((consent.gpc, consent.gpc_provenance.as_str()), (true, "sec_gpc_header"));
    let script = parse_event(
        br#"{"type":"page","anonymousId":"a","context":{"globalPrivacyControl":true}}"#,
        &browser(),
    )
    .unwrap();
    assert_eq!(script.consent.unwrap().gpc_provenance, "js");
    let server = event(r#"{"type":"page","userId":"u","context":{"consent":{"gpc":true}}}"#);
    assert_eq!(server.consent.unwrap().gpc_provenance, "server");
}

#[test]
fn a_banner_that_writes_defaults_is_no_choice_made() {
    let json =
        br#"{"type":"page","anonymousId":"a","context":{"consent":{"categoryPreferences":{"Ads":true}}}}"#;
    assert!(parse_event(json, &browser()).unwrap().consent.unwrap().interaction);
    let mut defaults = browser();
    defaults.banner_writes_defaults = true;
    assert!(!parse_event(json, &defaults).unwrap().consent.unwrap().interaction);
}

#[test]
fn an_unreadable_consent_object_is_kept_as_unreadable() {
    let found = event(r#"{"type":"page","userId":"u","context":{"consent":"everything"}}"#);
    assert!(found.consent.unwrap().unreadable);
}

#[test]
fn click_ids_come_from_properties_context_and_query() {
    let found = event(
        r#"{"type":"track","event":"E","userId":"u","properties":{"fbc":"fb.1.1.x","gclid":"P"},
            "context":{"fbp":"fb.1.2.3","ttp":"T","page":{"url":"https://s.example/?gclid=Q&ttclid=E.C.P.a"}},
            "integrations":{"Google Analytics 4":{"clientId":"1.2"}}}"#,
    );
    let ids = found.click_ids.unwrap();
    let expected = ["fb.1.1.x", "P", "fb.1.2.3", "T", "E.C.P.a", "1.2"];
    assert_eq!([ids.fbc, ids.gclid, ids.fbp, ids.ttp, ids.ttclid, ids.ga_client_id], expected);
    assert_eq!(ids.first_seen, found.timestamp);
    assert_eq!(event(r#"{"type":"page","userId":"u"}"#).click_ids, None);
}

#[test]
fn the_events_own_address_is_its_place() {
    for (json, place) in [
        (r#"{"context":{"traits":{"address":{"country":"US","state":"California"}}}}"#, "US-CA"),
        (r#"{"traits":{"address":{"country":"Germany"}}}"#, "DE"),
        (r#"{"properties":{"billing_address":{"country":"US","region":"CO"}}}"#, "US-CO"),
        (r#"{"context":{"location":{"country":"Nowhere"}}}"#, "unknown"),
        (r#"{"traits":{"address":{"city":"Berlin"}}}"#, ""),
    ] {
        let json = json.replacen('{', r#"{"type":"identify","userId":"u","#, 1);
        assert_eq!(event(&json).consent.unwrap_or_default().place, place, "{json}");
    }
}

#[test]
fn what_a_batch_says_is_merged_under_each_event_within_the_limit() {
    let body = r#"{"batch":[{"type":"page","userId":"u","context":{"ip":"203.0.113.7"}},{"type":"page","userId":"v"}],
        "context":{"ip":"198.51.100.1","consent":{"gpc":true}},"integrations":{"All":false},"sentAt":"2026-11-23T13:11:00Z"}"#;
    let batch = parse_batch(body).unwrap();
    let mut context = server();
    context.batch_context = batch.context;
    context.batch_integrations = batch.integrations;
    context.sent_at = batch.sent_at;
    let events: Vec<_> =
        batch.events.iter().map(|e| parse_event(e.get().as_bytes(), &context).unwrap()).collect();
    assert_eq!((events[0].ip.as_str(), events[1].ip.as_str()), ("203.0.113.7", "198.51.100.1"));
    assert!(events.iter().all(|e| e.consent.as_ref().unwrap().gpc && e.sent_at.is_some()));
    assert_eq!(events[0].integrations_json, r#"{"All":false}"#);

    let large =
        format!(r#"{{"batch":[{{"type":"page","userId":"u"}}],"context":{{"x":"{}"}}}}"#, "x".repeat(32_768));
    let batch = parse_batch(&large).unwrap();
    context.batch_context = batch.context;
    let refused = parse_event(batch.events[0].get().as_bytes(), &context).unwrap_err();
    assert_eq!(refused.code, RejectCode::EventTooLarge);
}

#[test]
fn the_raw_parts_stay_as_they_came() {
    let found = event(
        r#"{"type":"track","event":"E","userId":"u","properties":{"price":54.40,"big":12345678901234567890, "s":"\u00fc\ud83d"}}"#,
    );
    assert_eq!(found.properties_json, r#"{"price":54.40,"big":12345678901234567890, "s":"\u00fc\ufffd"}"#);
    assert_eq!(found.warnings, ["lone_surrogate_replaced"]);
}

#[test]
fn recorded_requests_become_these_events() {
    let recorded: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/vectors/segment-requests.json")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let mut golden = String::new();
    for request in recorded["requests"].as_array().unwrap() {
        let case = format!("{} {}", request["sdk"].as_str().unwrap(), request["case"].as_str().unwrap());
        let path = request["path"].as_str().unwrap();
        if request["method"] != "POST" || path == "/v1/m" || !seen.insert(format!("{case} {path}")) {
            continue;
        }
        let body = request["body"].to_string();
        let mut context = if case.contains("analytics-next") { browser() } else { server() };
        let events: Vec<Event> = if request["body"]["batch"].is_array() {
            let batch = parse_batch(&body).unwrap();
            context.sent_at = batch.sent_at;
            batch.events.iter().map(|e| parse_event(e.get().as_bytes(), &context).unwrap()).collect()
        } else {
            vec![parse_event(body.as_bytes(), &context).unwrap()]
        };
        golden.push_str(&format!("== {case} {path}\n"));
        for event in events {
            golden.push_str(&render(&event));
        }
    }
    assert_eq!(seen.len(), 27);
    insta::assert_snapshot!("recorded_requests", golden);
}

/// Only what is set, one field a line.
fn render(event: &Event) -> String {
    let time = |t: &Option<prost_types::Timestamp>| {
        t.as_ref().and_then(tracklayer_event::time::from_proto).map(|t| t.to_string()).unwrap_or_default()
    };
    let json = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let identifiers: Vec<_> =
        identifiers_of(event, "").into_iter().map(|i| format!("{}={}", i.r#type, i.value)).collect();
    let fields = [
        ("message_id", event.message_id.clone()),
        ("type", event.r#type().as_str_name().to_owned()),
        ("name", event.name.clone()),
        ("category", event.category.clone()),
        ("previous_id", event.previous_id.clone()),
        ("group_id", event.group_id.clone()),
        ("identifiers", identifiers.join(" ")),
        ("timestamp", time(&event.timestamp)),
        ("original", time(&event.original_timestamp)),
        ("sent_at", time(&event.sent_at)),
        ("channel", event.channel().as_str_name().to_owned()),
        ("ip", event.ip.clone()),
        ("user_agent", event.user_agent.clone()),
        ("page_url", event.page_url.clone()),
        ("click_ids", event.click_ids.as_ref().map(|c| format!("{c:?}")).unwrap_or_default()),
        ("consent", event.consent.as_ref().map(|c| format!("{c:?}")).unwrap_or_default()),
        ("properties", json(&event.properties_json)),
        ("traits", json(&event.traits_json)),
        ("context", json(&event.context_json)),
        ("integrations", json(&event.integrations_json)),
        ("library", event.library.clone()),
        ("warnings", event.warnings.join(" ")),
    ];
    let lines: Vec<_> = fields
        .iter()
        .filter(|(_, v)| !v.is_empty())
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    lines.concat() + "\n"
}

/// JSON that looks like an event, some of it broken.
fn eventish() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| f.to_string()),
        ".{0,8}".prop_map(|s| serde_json::to_string(&s).unwrap()),
        prop::sample::select(vec![
            "\"track\"",
            "\"2026-11-23T13:12:00Z\"",
            "1795439468850",
            "\"\\ud800\"",
            "\"US\"",
            "1e400"
        ])
        .prop_map(str::to_owned),
    ];
    let key = prop::sample::select(vec![
        "type",
        "event",
        "userId",
        "anonymousId",
        "messageId",
        "timestamp",
        "sentAt",
        "context",
        "properties",
        "traits",
        "consent",
        "categoryPreferences",
        "gpc",
        "tcString",
        "gppSid",
        "page",
        "url",
        "address",
        "country",
        "integrations",
    ]);
    leaf.prop_recursive(5, 60, 8, move |inner| {
        prop_oneof![
            prop::collection::vec((key.clone(), inner.clone()), 0..8).prop_map(|members| {
                let members: Vec<_> = members.into_iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
                format!("{{{}}}", members.join(","))
            }),
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(raw in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_event(&raw, &server());
    }

    #[test]
    fn whatever_is_accepted_can_be_read_by_everybody_later(json in eventish()) {
        let mut context = browser();
        context.path_type = Some(EventType::Page);
        if let Ok(event) = parse_event(json.as_bytes(), &context) {
            for stored in [&event.properties_json, &event.traits_json, &event.context_json, &event.integrations_json] {
                if !stored.is_empty() {
                    let value: serde_json::Value = serde_json::from_slice(stored).unwrap();
                    prop_assert!(value.is_object());
                }
            }
            prop_assert!(event.timestamp.unwrap().seconds <= event.received_at.unwrap().seconds);
            let _ = identifiers_of(&event, "");
        }
    }

    #[test]
    fn the_splitter_takes_any_text(text in ".{0,200}") {
        let _ = parse_batch(&text);
    }
}

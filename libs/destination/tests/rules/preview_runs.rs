//! A run of `preview` does what a lane does: requests, ranges, orders, and events of the journal.

use jiff::Timestamp;
use prost::Message as _;
use serde_json::{Value, json};
use tracklayer_destination::plan::{events_of_a_range, requests};
use tracklayer_destination::preview::resolved::to_line;
use tracklayer_destination::preview::{Answer, ConsentChoice, OfConnection, Orders, Run, Terms, parse};
use tracklayer_destination::{Consent, Destination, Item, Open};
use tracklayer_ids::Position;
use tracklayer_proto::event::v1::{ClickIds, ConnectionDecision, Duplicate, ResolvedEvent};

use crate::{build, document, now, opened, purchase, with};

fn terms(orders: Orders, batched: bool) -> Terms {
    Terms { orders, batched, ..Terms::at(now(), ConsentChoice::Allow) }
}

fn answers(destination: &dyn Destination, terms: Terms, lines: &[String]) -> Vec<Answer> {
    let mut run = Run::new(destination, terms);
    let mut answers = Vec::new();
    for (number, text) in (1..).zip(lines) {
        let line = run.read(number, text);
        answers.extend(run.take(line));
    }
    answers.extend(run.finish());
    answers
}

fn texts(events: &[Value]) -> Vec<String> {
    events.iter().map(Value::to_string).collect()
}

fn numbered(event: Value, number: usize) -> Value {
    let event = with(event, "/messageId", json!(format!("m-{number}")));
    let event = with(event, "/anonymousId", json!(format!("a-{number}")));
    with(event, "/properties/order_id", json!(format!("o-{number}")))
}

fn refund(number: usize, properties: Value) -> Value {
    let mut event = with(with(purchase(), "/event", json!("Order Refunded")), "/properties", properties);
    event["properties"]["currency"] = json!("EUR");
    with(numbered(event, number), "/messageId", json!(format!("r-{number}")))
}

fn carried(answer: &Answer) -> Vec<Vec<&str>> {
    answer
        .requests
        .iter()
        .map(|built| built.events.iter().map(|event| event.message_id.as_str()).collect())
        .collect()
}

#[test]
fn a_printed_body_has_the_bytes_of_the_request() {
    let awkward = with(purchase(), "/properties/note", json!("line\u{2028}end \"quoted\" / <b> ü"));
    let awkward = with(awkward, "/properties/price", json!(1e21));
    for kind in crate::KINDS {
        let destination = opened(&document(kind));
        let item = build(&document(kind), awkward.clone(), Consent::Allow).unwrap();
        let sent = destination.assemble(&[&item], None);
        let told =
            answers(&*destination, terms(Orders::Given, false), &texts(std::slice::from_ref(&awkward)));
        let line = told[0].to_json();
        if kind == "webhook" {
            // It has the profile's key in it, which the line does not know.
            let profile = r#""profileKey":"0123456789abcdef","#;
            assert!(line.contains(&String::from_utf8(sent.body).unwrap().replace(profile, "")), "{line}");
        } else if kind == "warehouse" {
            let known = String::from_utf8(sent.body).unwrap();
            let unknown = known.replace(r#""profile_key":"0123456789abcdef""#, r#""profile_key":null"#);
            assert!(known != unknown && line.contains(&unknown), "{line}");
        } else {
            assert!(line.contains(&String::from_utf8(sent.body).unwrap()), "{kind}: {line}");
        }
        assert!(!line.contains('\n') && !line.contains("s3cret"), "{kind}");
    }
}

#[test]
fn a_range_is_cut_into_the_requests_of_a_lane() {
    let small = with(document("google_data_manager"), "/settings/batch_size", json!(60));
    let destination = opened(&small);
    let full = events_of_a_range(destination.limits());
    assert_eq!(full, 120, "two requests");
    let events: Vec<Value> = (0..full + 30).map(|number| numbered(purchase(), number)).collect();
    let told = answers(&*destination, terms(Orders::OfEvents, true), &texts(&events));
    assert_eq!(told.iter().map(|answer| answer.range.unwrap()).collect::<Vec<_>>(), [(1, 120), (121, 150)]);
    let sizes: Vec<Vec<usize>> =
        told.iter().map(|answer| carried(answer).iter().map(Vec::len).collect()).collect();
    assert_eq!(sizes, [vec![60, 60], vec![30]]);
    let items: Vec<Item> =
        events[..full].iter().map(|event| build(&small, event.clone(), Consent::Allow).unwrap()).collect();
    let open = items.iter().enumerate().map(|(index, item)| Open { index, item, order_key: index as u64 });
    let of_a_lane = requests(destination.limits(), open);
    assert_eq!(of_a_lane.iter().map(Vec::len).collect::<Vec<_>>(), sizes[0]);
    let printed: Value = serde_json::from_str(&told[1].to_json()).unwrap();
    assert_eq!(printed["lines"], json!([121, 150]));
    assert_eq!(
        printed["requests"][0]["events"][0],
        json!({ "line": 121, "index": 0, "message_id": "m-120" })
    );
}

#[test]
fn a_range_ends_before_a_refund_of_what_it_sells() {
    for kind in ["google_ads", "google_data_manager"] {
        let destination = opened(&document(kind));
        let events = [
            numbered(purchase(), 1),
            numbered(purchase(), 2),
            refund(1, json!({ "total": 31.9 })),
            numbered(purchase(), 3),
        ];
        let told = answers(&*destination, terms(Orders::OfEvents, true), &texts(&events));
        assert_eq!(told.len(), 2, "{kind}");
        assert_eq!(carried(&told[0]), [["m-1", "m-2"]], "{kind}");
        let after: Vec<&str> = carried(&told[1]).concat();
        assert_eq!(after, ["r-1", "m-3"], "{kind}");
        // 54.40 of 63.80 went out; 31.90 of 63.80 come back.
        assert!(told[1].to_json().contains("27.2"), "{kind}: {}", told[1].to_json());
    }
}

#[test]
fn a_range_ends_before_a_sale_of_what_was_changed_where_it_would_undo_that() {
    let back = refund(1, json!({ "total": 31.9 }));
    let events = [purchase(), purchase(), back, purchase()].map(|event| numbered(event, 1));
    for (kind, ranges) in [("google_data_manager", vec![2, 1, 0]), ("google_ads", vec![2, 2])] {
        let destination = opened(&document(kind));
        let told = answers(&*destination, terms(Orders::OfEvents, true), &texts(&events));
        let sent: Vec<usize> = told.iter().map(|answer| carried(answer).concat().len()).collect();
        assert_eq!(sent, ranges, "{kind}: what is sold twice needs nothing of the first sale");
        let codes: Vec<&str> =
            told.iter().flat_map(|answer| &answer.refused).map(|told| told.code.as_str()).collect();
        let refused: &[&str] = if kind == "google_ads" { &[] } else { &["order_adjusted"] };
        assert_eq!(codes, refused, "{kind}");
    }
}

#[test]
fn lines_know_of_each_others_orders_only_where_it_is_asked_for() {
    let destination = opened(&document("google_ads"));
    let events = texts(&[numbered(purchase(), 1), refund(1, json!({ "total": 31.9 }))]);
    let alone = answers(&*destination, terms(Orders::Given, false), &events);
    assert_eq!(alone[1].status(), "refused", "{}", alone[1].to_json());
    let known = answers(&*destination, terms(Orders::OfEvents, false), &events);
    assert!(known[1].to_json().contains(r#""adjustedValue":27.2"#), "{}", known[1].to_json());
}

#[test]
fn what_is_learned_of_an_order_is_asked_for_once() {
    let destination = opened(&document("google_ads"));
    let mut run = Run::new(&*destination, terms(Orders::Learned, false));
    let text = refund(1, json!({ "total": 10 })).to_string();
    let line = run.read(1, &text);
    assert_eq!(run.orders_to_learn(&[line]), ["o-1"]);
    let sold = tracklayer_destination::OrderState {
        value: Some("54.4".parse().unwrap()),
        at: Some("2026-11-20T14:03:21Z".parse().unwrap()),
        currency: Some("EUR".to_owned()),
        refunded: "20".parse().unwrap(),
        ..Default::default()
    };
    run.learn("o-1", Some(sold));
    for (number, left) in [(1, "24.4"), (2, "14.4")] {
        let line = run.read(number, &text);
        assert!(run.orders_to_learn(std::slice::from_ref(&line)).is_empty());
        let told = run.take(line)[0].to_json();
        assert!(told.contains(&format!(r#""adjustedValue":{left}"#)), "{told}");
    }
    assert_eq!(run.summary().of_learned_orders, 2);
}

fn resolved(event: Value, change: impl FnOnce(&mut ResolvedEvent)) -> String {
    let event = parse(event, now()).unwrap();
    let mut resolved = ResolvedEvent {
        message_id: event.message_id.clone(),
        event: event.encode_to_vec().into(),
        canonical_key: vec![0xab; 16].into(),
        known_click_ids: Some(ClickIds {
            fbclid: "IwAR0_known".to_owned(),
            first_seen: Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 0 }),
            ..ClickIds::default()
        }),
        decisions: vec![
            ConnectionDecision {
                connection_id: 6,
                outcome: 3,
                reason: "gpc".to_owned(),
                ..Default::default()
            },
            ConnectionDecision {
                connection_id: 7,
                outcome: 2,
                place: "US-CA".to_owned(),
                denied_purposes: vec!["sale_share".to_owned()],
                connection_revision: 3,
                ..Default::default()
            },
        ],
        ..ResolvedEvent::default()
    };
    change(&mut resolved);
    to_line(Position::new(1, 0, 7), &json!({}), &json!({}), Some(&resolved.encode_to_vec()))
}

fn of_connection(id: i64, lines: &[String]) -> (Vec<Answer>, tracklayer_destination::preview::Summary) {
    let destination = opened(&document("meta_capi"));
    let of_connection = Some(OfConnection { id, revision: Some(3) });
    let mut run = Run::new(&*destination, Terms { of_connection, ..terms(Orders::Given, false) });
    let answers = (1..).zip(lines).flat_map(|(number, text)| {
        let line = run.read(number, text);
        run.take(line)
    });
    (answers.collect::<Vec<_>>(), run.summary())
}

#[test]
fn an_event_of_the_journal_has_its_decision_its_clicks_and_its_commerce_key() {
    let line = resolved(purchase(), |resolved| resolved.commerce_key = "order_completed:o-1001".to_owned());
    let (told, summary) = of_connection(7, std::slice::from_ref(&line));
    let printed: Value = serde_json::from_str(&told[0].to_json()).unwrap();
    let event = &printed["requests"][0]["body"]["data"][0];
    assert_eq!(event["data_processing_options"], json!(["LDU"]), "{printed}");
    assert_eq!(event["user_data"]["fbc"], "fb.1.1795000000000.IwAR0_known");
    assert_eq!(event["event_id"], "order_completed:o-1001");
    assert_eq!(summary.of_other_revision, 0);
    let (told, _) = of_connection(6, std::slice::from_ref(&line));
    assert_eq!((told[0].status(), told[0].refused[0].reason.as_str()), ("blocked", "gpc"));
    // One that was made after the event was resolved: a lane asks consent first.
    let (told, summary) = of_connection(8, &[line]);
    assert_eq!((told[0].status(), told[0].refused[0].reason.as_str()), ("blocked", "no_decision"));
    assert_eq!(summary.of_other_revision, 1);
}

#[test]
fn what_a_lane_never_sends_is_told_as_the_ledger_has_it() {
    let duplicate = resolved(purchase(), |resolved| {
        resolved.duplicate = Some(Duplicate { generation: 1, partition: 2, offset: 3 });
    });
    let poisoned = resolved(purchase(), |resolved| resolved.poisoned = "it crashed its reader".to_owned());
    let erased = to_line(Position::new(1, 0, 8), &Value::Null, &Value::Null, Some(&[]));
    let lost = resolved(purchase(), |resolved| {
        (resolved.poisoned, resolved.lost) = ("its block cannot be read".to_owned(), true);
    });
    let (told, summary) = of_connection(7, &[duplicate, poisoned, erased, lost]);
    let statuses: Vec<_> = told.iter().map(Answer::status).collect();
    assert_eq!(statuses, ["duplicate", "refused", "refused", "refused"]);
    assert_eq!(told[0].refused[0].reason, "of 1/2/3");
    let counted: Vec<_> = summary.others.into_iter().collect();
    assert_eq!(
        counted,
        [
            (("dead", "lost".to_owned()), 1),
            (("dead", "poisoned".to_owned()), 2),
            (("duplicate", String::new()), 1)
        ],
        "by state and reason"
    );
}

#[test]
fn a_line_of_the_journal_without_its_bytes_says_how_to_read_it() {
    let masked = to_line(Position::new(1, 0, 7), &json!({}), &json!({}), None);
    let received =
        r#"{"position":{"generation":1,"partition":0,"offset":0},"source_id":1,"event":{}}"#.to_owned();
    for line in [masked, received] {
        let (told, _) = of_connection(7, &[line]);
        assert_eq!((told[0].status(), told[0].refused[0].code.as_str()), ("invalid", "not_resolved"));
        assert!(told[0].refused[0].reason.contains("--resolved --unmasked"));
    }
    let whole = resolved(purchase(), |_| {});
    let cut = whole.replace("\"resolved\":\"", "\"resolved\":\"!");
    let (told, _) = of_connection(7, &[cut]);
    assert_eq!(told[0].refused[0].code, "invalid_line");
}

#[test]
fn a_line_may_have_a_time_of_its_own() {
    let destination = opened(&document("webhook"));
    let at: Timestamp = "2026-11-23T15:30:00.5Z".parse().unwrap();
    let with_time = json!({ "now": at.to_string(), "events": [purchase()] }).to_string();
    let bad = json!({ "now": "noon", "events": [purchase()] }).to_string();
    let told = answers(&*destination, terms(Orders::Given, false), &[with_time, bad]);
    let header = |name: &str| {
        let headers = &told[0].requests[0].request.headers;
        headers.iter().find(|(header, _)| header == name).unwrap().1.expose()
    };
    assert_eq!(header("webhook-timestamp"), at.as_second().to_string());
    // Signed, too: by the same event, built for that time and without a profile.
    let known = tracklayer_destination::Deliverable::new(
        parse(purchase(), at).unwrap(),
        ClickIds::default(),
        "",
        Consent::Allow,
        None,
    );
    let sent = destination.assemble(&[&destination.build(&known, at).unwrap()], None);
    assert!(sent == told[0].requests[0].request, "the same request, with its signature");
    assert_eq!((told[1].status(), told[1].refused[0].code.as_str()), ("invalid", "invalid_line"));
}

#[test]
fn a_line_that_cannot_be_read_counts_and_stops_nothing() {
    let destination = opened(&document("meta_capi"));
    let lines = ["[", "7", r#"{"type":"track","type":"track"}"#, "[[1]]"].map(str::to_owned);
    let lines = [&lines[..], &texts(&[purchase()])].concat();
    for batched in [false, true] {
        let told = answers(&*destination, terms(Orders::Given, batched), &lines);
        let bad: usize = told.iter().map(|answer| answer.problems().count()).sum();
        assert_eq!(bad, 4, "{batched}");
        assert_eq!(told.iter().map(|answer| answer.requests.len()).sum::<usize>(), 1, "{batched}");
    }
}

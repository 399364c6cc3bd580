//! What every kind of connection must keep to, whatever its platform. A new kind is in this suite as soon as it is in the
//! registry: it needs a document in `fixtures/connections.json` and nothing else here. See docs/adding-a-destination.md.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its input must fail")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tracklayer_destination::preview::{ConsentChoice, batches, parse, preview};
use tracklayer_destination::{
    Answer, Aspect, Consent, Deliverable, Destination, HoldKind, Item, ItemOutcome, Kind, Mode, PixelAnswer,
    Place, Refusal, RefusalCode, Sample, SkipReason, TestAnswer, Trial, Way, WorkspaceDefaults, open, schema,
    secret_paths,
};
use tracklayer_ids::Secret;
use tracklayer_proto::event::v1::ClickIds;
use tracklayer_sandbox::options::PixelOptions;

use support::{World, access_token, connections, document, event, events, now, opened, with};

/// Kinds that can be opened: those in the registry.
fn kinds() -> Vec<Kind> {
    let is_registered = |kind: &Kind| {
        let errors = open(&json!({ "kind": kind.as_str() }), &WorkspaceDefaults::default()).err();
        errors.is_none_or(|errors| errors.0.iter().all(|error| error.path != "kind"))
    };
    Kind::ALL.into_iter().filter(is_registered).collect()
}

/// Each kind with its plain document, opened.
fn each() -> Vec<(Kind, Value, Box<dyn Destination>)> {
    kinds()
        .into_iter()
        .map(|kind| {
            let document = document(kind.as_str());
            let destination = opened(&document);
            (kind, document, destination)
        })
        .collect()
}

fn deliverable(event: Value, decision: Consent) -> Deliverable {
    Deliverable::new(parse(event, now()).unwrap(), ClickIds::default(), "", decision, None)
}

/// A purchase that every platform takes, under this number.
fn purchase(number: usize) -> Value {
    let mut purchase = event("order_completed");
    purchase["messageId"] = json!(format!("m-{number}"));
    purchase["properties"]["order_id"] = json!(format!("NL-{number}"));
    // As two people's clicks: a click and a second are one conversion at Google.
    let url = format!("https://shop.example.com/thanks?gclid=Cj0_{number}");
    purchase["context"]["page"]["url"] = json!(url);
    purchase
}

fn built(destination: &dyn Destination, event: Value) -> Item {
    let told = event.to_string();
    destination
        .build(&deliverable(event, Consent::Allow), now())
        .unwrap_or_else(|refusal| panic!("{refusal:?}: {told}"))
}

fn refused(destination: &dyn Destination, event: Value) -> Option<Refusal> {
    destination.build(&deliverable(event, Consent::Allow), now()).err()
}

#[test]
fn every_registered_kind_has_a_working_document_and_takes_a_purchase() {
    let named: BTreeSet<String> = connections().into_iter().map(|(name, _)| name).collect();
    for kind in kinds() {
        assert!(named.contains(kind.as_str()), "fixtures/connections.json has no `{kind}`");
        let destination = opened(&document(kind.as_str()));
        assert_eq!(destination.kind(), kind);
        assert_eq!(destination.mode(), Mode::Live);
        assert_eq!(destination.consent_query().kind, kind.as_str());
        assert!(destination.wants(&deliverable(purchase(1), Consent::Allow)).is_ok(), "{kind}");
        let item = built(&*destination, purchase(1));
        assert_eq!(World::at(now()).take(&*destination, &[&item]), Ok(()), "{kind}");
    }
    for (name, document) in connections() {
        assert!(kinds().contains(&opened(&document).kind()), "{name} is of no registered kind");
    }
}

#[test]
fn the_schema_is_one_takes_the_document_and_tells_what_each_setting_is() {
    for kind in kinds() {
        let schema = schema(kind);
        assert!(jsonschema::meta::is_valid(&schema), "{kind}: no JSON Schema: {schema}");
        let validator = jsonschema::validator_for(&schema).unwrap();
        for (name, document) in connections() {
            if document["kind"] == kind.as_str() {
                let errors: Vec<String> = validator.iter_errors(&document).map(|e| e.to_string()).collect();
                assert_eq!(errors, Vec::<String>::new(), "{name}");
            }
        }
        let mut silent = Vec::new();
        undescribed(&schema, "", &mut silent);
        assert!(silent.is_empty(), "{kind}: the schema has no description of {silent:?}");
    }
}

/// Properties without a description, which forms and docs would show bare.
fn undescribed(schema: &Value, at: &str, silent: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                if key == "properties" {
                    for (name, property) in value.as_object().into_iter().flatten() {
                        if property.get("description").is_none() {
                            silent.push(format!("{at}.{name}"));
                        }
                    }
                }
                undescribed(value, &format!("{at}/{key}"), silent);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| undescribed(value, at, silent)),
        _ => {}
    }
}

#[test]
fn a_document_with_a_member_that_nobody_knows_is_refused_wherever_it_stands() {
    for (name, document) in connections() {
        let mut places = vec![String::new()];
        objects(&document["settings"], "settings", &mut places);
        places.push("event_filter".to_owned());
        for place in places {
            let dot = if place.is_empty() { "" } else { "." };
            let unknown = with(document.clone(), &format!("{place}{dot}colour"), json!("red"));
            let errors = open(&unknown, &WorkspaceDefaults::default()).err();
            let errors = errors.unwrap_or_else(|| panic!("{name} takes {place}{dot}colour"));
            assert!(!errors.to_string().contains("red"), "{name}: an error never shows a value: {errors}");
        }
    }
}

fn objects(value: &Value, at: &str, places: &mut Vec<String>) {
    if let Value::Object(map) = value {
        places.push(at.to_owned());
        map.iter().for_each(|(name, inner)| objects(inner, &format!("{at}.{name}"), places));
    }
}

/// Paths of the settings that the schema says are never read back.
fn write_only(schema: &Value, at: &str, root: &Value, found: &mut BTreeSet<String>) {
    let inner = match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    for (name, property) in inner.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        if property["writeOnly"] == true {
            found.insert(path);
        } else {
            write_only(property, &path, root, found);
        }
    }
}

#[test]
fn secrets_are_told_to_nobody() {
    for (kind, plain, _) in each() {
        let mut of_schema = BTreeSet::new();
        let schema = schema(kind);
        write_only(&schema, "", &schema, &mut of_schema);
        let listed: BTreeSet<String> = secret_paths(kind).iter().map(|path| (*path).to_owned()).collect();
        assert_eq!(of_schema, listed, "{kind}: what is write-only in the schema is what is sealed at rest");

        let secret = |path: &str| format!("s3cret-{}", path.replace('.', "-"));
        let document = listed.iter().fold(plain, |document, path| with(document, path, json!(secret(path))));
        let destination = opened(&document);
        let item = built(&*destination, purchase(1));
        let token = Secret::new("s3cret-access".to_owned());
        let request = destination.assemble(&[&item], Some(&token));
        let mut shown = format!("{} {request:?} {item:?} {:?}", request.masked(), destination.oauth());
        if let Some(trial) = destination.trial(&[&item], Some(&token)) {
            shown += &format!("{} {trial:?}", trial.masked());
        }
        let line = purchase(1).to_string();
        let lines =
            preview(&document, &WorkspaceDefaults::default(), [line.as_str()], now(), &ConsentChoice::Allow);
        shown += &lines.unwrap().join(" ");
        assert!(!shown.contains("s3cret"), "{kind}: {shown}");
        // And yet they are sent: a test that looks for what is not there at all would prove nothing.
        let sent: String =
            request.full_url() + &request.headers.iter().map(|(_, value)| value.expose()).collect::<String>();
        let signs = sent.contains("v1,");
        let opens = destination.files().is_some_and(|files| {
            assert!(!format!("{files:?}").contains("s3cret"), "{kind}: {files:?}");
            matches!(&files.place, Place::Bucket(bucket) if bucket.secret_access_key.expose().starts_with("s3cret"))
        });
        assert!(sent.contains("s3cret") || signs || opens, "{kind} sends no credential");
    }
}

#[test]
fn the_same_event_is_the_same_bytes_every_time_and_beside_any_other() {
    for (kind, document, destination) in each() {
        let again = opened(&document);
        for (name, mut event) in events() {
            event.as_object_mut().unwrap().remove("order_state");
            let first = destination.build(&deliverable(event.clone(), Consent::Allow), now());
            let second = again.build(&deliverable(event, Consent::Allow), now());
            assert_eq!(first, second, "{kind} {name}");
            let Ok(item) = first else { continue };
            let bytes = |destination: &dyn Destination| destination.assemble(&[&item], Some(&access_token()));
            assert!(bytes(&*destination) == bytes(&*again), "{kind} {name}");
            if destination.limits().max_events > 1 {
                let both = destination.assemble(&[&item, &item], Some(&access_token()));
                let body = String::from_utf8(both.body).unwrap();
                assert_eq!(
                    body.matches(item.body.as_str()).count(),
                    2,
                    "{kind} {name}: an item goes out as it was built"
                );
            }
        }
    }
}

#[test]
fn a_request_never_has_more_than_the_platform_takes_and_a_full_one_is_taken() {
    for (kind, _, destination) in each() {
        let limits = *destination.limits();
        let count = limits.max_events.min(3_000) + 1;
        let items: Vec<Item> = (0..count).map(|number| built(&*destination, purchase(number))).collect();
        let requests = batches(&*destination, &items);
        assert_eq!(requests.iter().map(Vec::len).sum::<usize>(), count, "{kind}");
        for request in &requests {
            assert!(request.len() <= limits.max_events, "{kind}: {} items", request.len());
            let body = destination.assemble(request, None).body.len();
            assert!(body <= limits.max_body_bytes, "{kind}: {body} bytes");
        }
        assert!(requests.len() >= 2, "{kind}");
        assert_eq!(World::at(now()).take(&*destination, &requests[0]), Ok(()), "{kind}");
    }
}

#[test]
fn large_events_are_divided_by_their_bytes() {
    for (kind, _, destination) in each() {
        let limits = *destination.limits();
        let mut item = built(&*destination, purchase(1));
        let large = json!({ "a": "x".repeat(limits.max_body_bytes / 3) });
        item.body = tracklayer_destination::ItemBody::of(&large);
        item.exclusive = None;
        let items = vec![item; 4];
        for request in batches(&*destination, &items) {
            let body = destination.assemble(&request, None).body.len();
            assert!(body <= limits.max_body_bytes, "{kind}: {body} bytes");
        }
    }
}

#[test]
fn nothing_to_send_is_no_trouble() {
    for (kind, _, destination) in each() {
        assert!(batches(&*destination, &[]).is_empty(), "{kind}");
        let _ = destination.assemble(&[], Some(&access_token()));
        let _ = destination.trial(&[], Some(&access_token()));
        for status in [200, 400, 500] {
            assert_eq!(destination.classify(&Answer::new(status, "{}"), &[]), [], "{kind} {status}");
        }
    }
}

#[test]
fn an_event_has_one_id_on_every_attempt_and_a_repeat_counts_once() {
    for (kind, _, destination) in each() {
        let event = deliverable(purchase(7), Consent::Allow);
        let at = |later: i64| destination.build(&event, now() + SignedDuration::from_secs(later)).unwrap();
        let (first, later) = (at(0), at(3_600));
        assert_eq!(first.event_id, "m-7", "{kind}");
        assert_eq!(later.event_id, first.event_id, "{kind}");
        assert_eq!((&later.group, &later.exclusive), (&first.group, &first.exclusive), "{kind}");
        assert!(
            destination.limits().dedup_window.is_some() || !first.repeatable,
            "{kind}: nothing knows a repeat"
        );
        if !first.repeatable {
            continue;
        }
        let world = World::at(now());
        for attempt in 0..3 {
            let request = destination.assemble(&[&first], Some(&access_token()));
            let outcome = destination.classify(&world.send(&request), &[&first]).remove(0);
            let taken =
                matches!(outcome, ItemOutcome::Delivered { .. } | ItemOutcome::DeliveredBefore { .. });
            assert!(taken, "{kind}, attempt {attempt}: {outcome:?}");
        }
        assert_eq!(world.counted(kind), 1, "{kind}");
    }
}

#[test]
fn an_event_that_is_too_old_or_to_come_is_refused_by_name() {
    for (kind, _, destination) in each() {
        let event = deliverable(purchase(1), Consent::Allow);
        let at = |now: Timestamp| destination.build(&event, now);
        if let Some(age) = destination.max_event_age(&event) {
            assert!(at(event.time() + age).is_ok(), "{kind}");
            let refusal = at(event.time() + age + Duration::from_secs(1)).unwrap_err();
            assert_eq!(
                (refusal.code, refusal.field.as_deref()),
                (RefusalCode::EventTooOld, Some("timestamp")),
                "{kind}"
            );
            let refusal = at(event.time() - Duration::from_secs(3_600)).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::EventInFuture, "{kind}");
        } else {
            assert!(at(event.time() + Duration::from_secs(5 * 365 * 86_400)).is_ok(), "{kind}");
        }
    }
}

#[test]
fn what_cannot_be_sent_says_why_in_words_that_show_nobody() {
    let nobody = |mut event: Value| {
        for key in ["userId", "anonymousId", "integrations"] {
            event.as_object_mut().unwrap().remove(key);
        }
        event["context"] = json!({});
        event
    };
    let broken = [
        nobody(purchase(1)),
        with(purchase(1), "properties.currency", json!("jane.private@example.org")),
        with(
            with(purchase(1), "properties.revenue", json!("jane.private@example.org")),
            "properties.total",
            json!(null),
        ),
        with(purchase(1), "properties.order_id", json!("jane.private@example.org")),
        with(purchase(1), "properties.revenue", json!(-1)),
        with(
            with(purchase(1), "event", json!("Order Refunded")),
            "properties.total",
            json!("12 jane.private@example.org"),
        ),
    ];
    for (kind, _, destination) in each() {
        for event in &broken {
            let Some(refusal) = refused(&*destination, event.clone()) else { continue };
            assert!(RefusalCode::ALL.contains(&refusal.code));
            assert!(refusal.reason.len() >= 10, "{kind}: {refusal:?}");
            assert!(!format!("{refusal:?}").contains("jane.private"), "{kind}: {refusal:?}");
        }
        for event in &broken {
            if let Ok(item) = destination.build(&deliverable(event.clone(), Consent::Allow), now()) {
                let notes = format!("{:?}", item.notes);
                assert!(!notes.contains("jane.private"), "{kind}: {notes}");
                // A receiver and a warehouse of one's own get the event as it came.
                if !matches!(kind, Kind::Webhook | Kind::Warehouse) {
                    assert!(!item.body.as_str().contains("jane.private"), "{kind}: {}", item.body);
                }
            }
        }
    }
}

#[test]
fn consent_that_says_no_is_the_last_word() {
    for (kind, _, destination) in each() {
        let denied = Consent::Deny { reason: "gpc".to_owned() };
        let refusal = destination.build(&deliverable(purchase(1), denied), now()).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::RestrictionNotExpressible, "{kind}");
    }
}

#[test]
fn the_common_filters_hold_for_every_kind() {
    for (kind, plain, destination) in each() {
        let skipped = |destination: &dyn Destination, event: Value| {
            destination.wants(&deliverable(event, Consent::Allow)).err().map(|skip| skip.reason)
        };
        let test_order = with(purchase(1), "properties.test", json!(true));
        assert_eq!(skipped(&*destination, test_order), Some(SkipReason::TestOrder), "{kind}");
        for integrations in [json!({ kind.as_str(): false }), json!({ "All": false })] {
            let event = with(purchase(1), "integrations", integrations.clone());
            assert_eq!(
                skipped(&*destination, event),
                Some(SkipReason::Integrations),
                "{kind} {integrations}"
            );
        }
        let event = with(purchase(1), "event", json!("Segment Consent Preference Updated"));
        assert_eq!(skipped(&*destination, event), Some(SkipReason::ConsentEvent), "{kind}");
        for (path, value, reason) in [
            ("event_filter", json!({ "include": ["page"] }), SkipReason::Filter),
            ("event_filter", json!({ "exclude": ["ORDER  completed"] }), SkipReason::Filter),
            ("event_map", json!({ "order completed": null }), SkipReason::Unmapped),
        ] {
            let narrowed = opened(&with(plain.clone(), path, value));
            assert_eq!(skipped(&*narrowed, purchase(1)), Some(reason), "{kind} {path}");
        }
        let off = with(plain.clone(), "mode", json!("off"));
        assert_eq!(opened(&off).mode(), Mode::Off, "{kind}");
    }
}

fn holds(outcome: &ItemOutcome, expected: HoldKind) -> bool {
    matches!(outcome, ItemOutcome::HoldLane { kind, .. } if *kind == expected)
}

#[test]
fn an_answer_that_says_nothing_of_an_event_costs_no_event() {
    let bodies = [
        "",
        "{",
        "{}",
        "[]",
        "null",
        "<html><body>502 Bad Gateway</body></html>",
        r#"{"error":null}"#,
        r#"{"code":"x"}"#,
    ];
    for (kind, _, destination) in each() {
        let items: Vec<Item> = (0..3).map(|number| built(&*destination, purchase(number))).collect();
        let sent: Vec<&Item> = items.iter().take(destination.limits().max_events).collect();
        for status in (100..600).filter(|status| !(200..300).contains(status)) {
            for body in bodies {
                let outcomes = destination.classify(&Answer::new(status, body), &sent);
                assert_eq!(outcomes.len(), sent.len(), "{kind} {status} {body}");
                for outcome in outcomes {
                    let delivered = matches!(
                        outcome,
                        ItemOutcome::Delivered { .. } | ItemOutcome::DeliveredBefore { .. }
                    );
                    assert!(!delivered, "{kind}: {status} {body:?} is no delivery");
                    if status >= 500 || status == 408 {
                        assert!(
                            holds(&outcome, HoldKind::Transient),
                            "{kind}: {status} {body:?}: {outcome:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_platform_that_asks_to_wait_is_waited_for() {
    for (kind, _, destination) in each() {
        let item = built(&*destination, purchase(1));
        let mut busy = Answer::new(429, "");
        busy.headers.insert("retry-after", "37".parse().unwrap());
        let outcome = destination.classify(&busy, &[&item]).remove(0);
        let waits = matches!(
            outcome,
            ItemOutcome::HoldLane { kind: HoldKind::Throttled, after: Some(after), .. } if after == Duration::from_secs(37)
        );
        assert!(waits, "{kind}: {outcome:?}");
        let plain = destination.classify(&Answer::new(429, ""), &[&item]).remove(0);
        assert!(holds(&plain, HoldKind::Throttled), "{kind}: {plain:?}");
    }
}

#[test]
fn a_trial_says_what_it_thinks_and_counts_nothing() {
    for (kind, _, destination) in each() {
        let item = built(&*destination, purchase(1));
        let Some(trial) = destination.trial(&[&item], Some(&access_token())) else { continue };
        let world = World::at(now());
        assert_eq!(destination.read_trial(&world.send(&trial)), Trial::Passed, "{kind}");
        assert_eq!(world.counted(kind), 0, "{kind}: a trial counts");
        for (status, body) in [(401, ""), (403, "{}"), (429, ""), (500, "<html>"), (502, "")] {
            let answered = destination.read_trial(&Answer::new(status, body));
            assert!(matches!(answered, Trial::Unanswered { .. }), "{kind} {status}: {answered:?}");
        }
    }
}

fn sample() -> Sample {
    Sample { now: now(), run: "0a1b2c3d4e5f".to_owned(), event_name: "Order Completed".to_owned() }
}

fn built_for_test(destination: &dyn Destination, event: &Value) -> Result<Item, Refusal> {
    destination.build(&sample().deliverable(event).unwrap(), now())
}

#[test]
fn every_kind_declares_what_is_looked_at_before_it_is_relied_on() {
    for (kind, _, destination) in each() {
        let checks = destination.checks(&sample());
        assert_eq!(checks[0].aspect, Aspect::Credentials, "{kind}: whether it is let in comes first");
        let aspects: BTreeSet<Aspect> = checks.iter().map(|check| check.aspect).collect();
        assert!(aspects.is_superset(&BTreeSet::from(Aspect::ALL)), "{kind}: {aspects:?}");
        let asks = checks.iter().any(|check| check.way == Way::Ask);
        assert_eq!(destination.pixel_request().is_some(), asks, "{kind}: what a platform says is asked");
        let names: BTreeSet<&str> = checks.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), checks.len(), "{kind}: {names:?}");
        let mut ids = BTreeSet::new();
        for check in &checks {
            assert!(check.looks_at.len() >= 10, "{kind} {}: {}", check.name, check.looks_at);
            let (Way::Show { event, .. } | Way::Build { event, .. } | Way::Refuse { event, .. }) = &check.way
            else {
                continue;
            };
            assert!(ids.insert(event["messageId"].to_string()), "{kind} {}: an id twice", check.name);
            assert_eq!(event["properties"]["test"], true, "{kind} {}: no lane would send it", check.name);
        }
        // A limit that the kind has is looked at from both sides.
        let refuses = checks.iter().any(|check| matches!(check.way, Way::Refuse { .. }));
        let has_limit = destination.max_event_age(&deliverable(purchase(1), Consent::Allow)).is_some();
        assert_eq!(refuses, has_limit, "{kind}");
    }
}

#[test]
fn what_is_looked_at_is_as_it_should_be_and_what_is_shown_counts_as_no_conversion() {
    for (kind, _, destination) in each() {
        let world = World::at(now());
        for check in destination.checks(&sample()) {
            let told = format!("{kind} {}", check.name);
            match &check.way {
                Way::Refuse { event, code } => {
                    let refusal = built_for_test(&*destination, event).unwrap_err();
                    assert_eq!(refusal.code, *code, "{told}");
                }
                Way::Show { event, expected } | Way::Build { event, expected } => {
                    let item =
                        built_for_test(&*destination, event).unwrap_or_else(|r| panic!("{told}: {r:?}"));
                    let body = item.body.to_value();
                    let differences: Vec<String> =
                        expected.iter().filter_map(|expected| expected.difference(&body)).collect();
                    assert_eq!(differences, Vec::<String>::new(), "{told}");
                    if matches!(check.way, Way::Build { .. }) {
                        continue;
                    }
                    let request =
                        destination.test_request(&[&item], Some(&access_token()), Some("TEST1")).unwrap();
                    let answered = destination.read_test(&world.send(&request), &[&item]);
                    assert!(matches!(answered, TestAnswer::Taken { .. }), "{told}: {answered:?}");
                }
                Way::Ask | Way::File | Way::Untold { .. } => {}
            }
        }
        if kind == Kind::Warehouse {
            continue;
        }
        // Meta measures what it shows, whatever is done about it: under a name that is no conversion.
        let counted = world.names_counted(kind);
        assert!(counted.iter().all(|name| name == "TrackLayerTest"), "{kind}: {counted:?}");
        assert_eq!(counted.is_empty(), kind != Kind::MetaCapi, "{kind}: {counted:?}");
    }
}

#[test]
fn what_a_platform_says_of_a_pixel_is_read_in_its_own_words() {
    let pixel = |with_event_id, shared| Some(PixelOptions { with_event_id, shared });
    for (kind, _, destination) in each() {
        let Some(request) = destination.pixel_request() else { continue };
        let said = |pixel: Option<PixelOptions>| {
            let world = World::with(now(), |options| options.meta.pixel = pixel);
            assert_eq!(world.take(&*destination, &[&built(&*destination, purchase(1))]), Ok(()), "{kind}");
            destination.read_pixel(&world.send(&request))
        };
        let shared = said(pixel(100.0, 92.0));
        assert!(matches!(&shared, PixelAnswer::Shared(said) if said.contains("92 %")), "{kind}: {shared:?}");
        for wrong in [pixel(10.0, 9.0), pixel(100.0, 0.0)] {
            let told = said(wrong);
            assert!(matches!(&told, PixelAnswer::Apart { .. }), "{kind} {wrong:?}: {told:?}");
        }
        let nobody = said(None);
        assert!(matches!(&nobody, PixelAnswer::Untold(why) if why.contains("yet")), "{kind}: {nobody:?}");
    }
}

#[test]
fn nothing_is_shown_where_a_code_keeps_it_from_counting_and_there_is_none() {
    let mut without = BTreeSet::new();
    for (kind, _, destination) in each() {
        if destination.files().is_some() {
            continue;
        }
        let item = built_for_test(&*destination, &sample().plain("one")).unwrap();
        if let Err(no_test) = destination.test_request(&[&item], Some(&access_token()), None) {
            assert!(no_test.to_string().contains("--test-code"), "{kind}: {no_test}");
            without.insert(kind.as_str());
        }
    }
    assert_eq!(without, BTreeSet::from(["meta_capi", "tiktok_events"]));
}

#[test]
fn a_code_of_tiktok_that_is_none_shows_nothing() {
    let (_, _, destination) = each().into_iter().find(|(kind, ..)| *kind == Kind::TiktokEvents).unwrap();
    let item = built_for_test(&*destination, &sample().plain("one")).unwrap();
    for code in ["", " ", "TEST 1", "TEST-1", "TEST1\u{200b}"] {
        let shown = destination.test_request(&[&item], Some(&access_token()), Some(code));
        assert!(shown.unwrap_err().to_string().contains("--test-code"), "{code:?}");
    }
    let request = destination.test_request(&[&item], Some(&access_token()), Some(" TEST1 ")).unwrap();
    assert!(String::from_utf8_lossy(&request.body).contains("\"TEST1\""));
}

#[test]
fn a_test_shows_no_secret_and_what_is_refused_is_no_success() {
    for (kind, _, destination) in each() {
        if destination.files().is_some() {
            continue;
        }
        let item = built_for_test(&*destination, &sample().plain("one")).unwrap();
        let token = Secret::new("s3cret-access".to_owned());
        let request = destination.test_request(&[&item], Some(&token), Some("TEST1")).unwrap();
        let shown = format!("{} {request:?}", request.masked());
        assert!(!shown.contains("s3cret") && !shown.contains("sandbox-"), "{kind}: {shown}");
        for (status, body) in
            [(400, "{}"), (401, ""), (403, "{}"), (404, ""), (429, ""), (500, "<html>"), (302, "")]
        {
            let answered = destination.read_test(&Answer::new(status, body), &[&item]);
            assert!(matches!(answered, TestAnswer::Refused { .. }), "{kind} {status}: {answered:?}");
        }
    }
}

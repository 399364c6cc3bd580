//! What events could be matched by is counted once for each that goes out, with its ledger; and what Meta says of it is read.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tracklayer_delivery::connections::Connections;
use tracklayer_delivery::http::Sender;
use tracklayer_delivery::ledger::State;
use tracklayer_delivery::match_quality::MatchQuality;
use tracklayer_delivery::store::match_quality::{MatchQualityStore, ReportedEvent};
use tracklayer_destination::Key;
use tracklayer_ids::WorkspaceId;
use tracklayer_proto::control::v1::{WatchConfigResponse, WorkspaceConfig};
use tracklayer_rpc::follow::ConfigWatch;
use tracklayer_sandbox::{Fault, How, Platform};

use super::rig::{CONNECTION, REVISION, Rig, order};
use crate::services::{WORKSPACE, workspace};
use crate::wire::Wire;

const COUNTED: &str = "select coalesce(sum(events), 0)::bigint from delivery.match_quality";
const IN_THE_LEDGER: &str = "select coalesce(sum(events), 0)::bigint from delivery.rollup where state in (5, 6) and connection_id = 7";

fn quality(rig: &Rig) -> MatchQuality {
    MatchQuality {
        store: MatchQualityStore::new(rig.services.database.pool.clone()),
        connections: Connections::new(rig.config().clone(), rig.services.master_key.clone()),
        sender: Sender::new(true).unwrap(),
        kept_days: 30,
    }
}

async fn report(rig: &Rig) -> Vec<ReportedEvent> {
    let minute = Timestamp::now().as_second().div_euclid(60);
    let report = quality(rig).store.report(WORKSPACE, Some(CONNECTION), minute - 60, minute + 1).await;
    let (events, has_more) = report.unwrap();
    assert!(!has_more);
    events
}

/// Events that went out with a key.
async fn sent(rig: &Rig, key: Key) -> u64 {
    report(rig).await[0].counts.sent[key.number()]
}

fn with_traits(message_id: &str, visitor: &str, traits: Value) -> Value {
    let mut event = order(message_id, visitor);
    event["context"]["traits"] = traits;
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_that_goes_out_is_counted_with_its_keys_and_no_other_is() {
    let mut rig = Rig::new("meta_capi").await;
    let of_no_use = with_traits("m-2", "bob", json!({ "email": "bob@example.com", "phone": "call me" }));
    let mut refused = order("m-3", "cy");
    refused["properties"]["currency"] = Value::Null;
    rig.resolved(&[with_traits("m-1", "ann", json!({ "email": "ann@example.com" })), of_no_use, refused])
        .await;
    rig.start().await;
    rig.ends_as(1, State::Delivered).await;
    rig.ends_as(2, State::Dead).await;
    // Another commit, of the same name and mostly the same minute, is added to it.
    rig.resolved(&[order("m-4", "dan")]).await;
    rig.ends_as(3, State::Delivered).await;

    let events = report(&rig).await;
    let [purchase] = &events[..] else { panic!("{events:?}") };
    let sent = |key: Key| purchase.counts.sent[key.number()];
    assert_eq!((purchase.event_name.as_str(), purchase.counts.events), ("Purchase", 3));
    assert_eq!((sent(Key::Email), sent(Key::Phone), sent(Key::ExternalId), sent(Key::Ip)), (2, 0, 3, 3));
    let left_out: Vec<_> = purchase.left_out.iter().collect();
    assert_eq!(left_out, [(&(Key::Phone, "no_digits".to_owned()), &1)]);
    assert_eq!((rig.number(COUNTED).await, rig.number(IN_THE_LEDGER).await), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_have_gone_out_is_counted_as_well() {
    let mut rig = Rig::new("meta_capi").await;
    rig.control_says(|connection, _| {
        let shadow = connection.document_json.replace("\"mode\":\"live\"", "\"mode\":\"shadow\"");
        assert_ne!(shadow, connection.document_json);
        connection.document_json = shadow;
        connection.revision = REVISION + 1;
    });
    rig.decided_for = REVISION + 1;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.ends_as(0, State::Shadowed).await;
    assert_eq!(report(&rig).await[0].counts.sent[Key::ExternalId.number()], 1);
    assert_eq!((rig.number(COUNTED).await, rig.number(IN_THE_LEDGER).await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_counted_once() {
    let mut rig = Rig::new("meta_capi").await;
    let wire =
        Wire::that_loses_the_commit_of(&rig.services.database.url, "insert into delivery.ledger_block").await;
    let pool = wire.pool().await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start_over(pool).await;
    rig.ends_as(0, State::Delivered).await;
    rig.resolved(&[order("m-2", "ann")]).await;
    rig.ends_as(1, State::Delivered).await;
    assert!(wire.has_played());
    assert_eq!((rig.number(COUNTED).await, rig.number(IN_THE_LEDGER).await), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_tried_again_is_counted_when_it_is_delivered() {
    let mut rig = Rig::new("google_ads").await;
    let failing = Fault::PartialFailure { indexes: vec![0], code: None };
    rig.sandbox.inject(Platform::GoogleAds, failing, How::Always);
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.ends_as(0, State::Held).await;
    assert_eq!(rig.number(COUNTED).await, 0);
    rig.sandbox.clear(Platform::GoogleAds);
    rig.ends_as(0, State::Delivered).await;
    assert_eq!((rig.number(COUNTED).await, rig.number(IN_THE_LEDGER).await), (1, 1));
    assert_eq!(report(&rig).await[0].counts.sent[Key::Gclid.number()], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn identifiers_that_go_out_no_more_are_not_counted() {
    let mut rig = Rig::new("google_ads").await;
    let terms = Some("customerError.CUSTOMER_NOT_ACCEPTED_CUSTOMER_DATA_TERMS".to_owned());
    let refused = Fault::PartialFailure { indexes: vec![0], code: terms };
    rig.sandbox.inject(Platform::GoogleAds, refused, How::Times(1));
    let by_email = |id: &str, visitor: &str| with_traits(id, visitor, json!({ "email": "ann@example.com" }));
    rig.resolved(&[by_email("m-1", "ann")]).await;
    rig.start().await;
    assert_eq!(rig.ends_as(0, State::Delivered).await.attempts, 2, "without them");
    assert_eq!((sent(&rig, Key::Gclid).await, sent(&rig, Key::Email).await), (1, 0));
    // Once the terms are accepted they go out.
    rig.resolved(&[by_email("m-2", "bob")]).await;
    rig.ends_as(1, State::Delivered).await;
    assert_eq!((sent(&rig, Key::Gclid).await, sent(&rig, Key::Email).await), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_matches_nobody_counts_nothing() {
    let mut rig = Rig::new("webhook").await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    assert_eq!(rig.number(COUNTED).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn metas_own_figure_is_read_once_an_hour_and_a_refusal_keeps_the_one_before() {
    let mut rig = Rig::new("meta_capi").await;
    rig.resolved(&[with_traits("m-1", "ann", json!({ "email": "ann@example.com" }))]).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    let quality = quality(&rig);
    let asked = |rig: &Rig| rig.sandbox.totals()[&Platform::MetaQuality].requests;
    for _ in 0..2 {
        quality.round().await.unwrap();
    }
    assert_eq!(asked(&rig), 1, "somebody has asked within the hour");
    let readings = quality.store.readings(WORKSPACE).await.unwrap();
    let [reading] = &readings[..] else { panic!("{readings:?}") };
    assert_eq!((reading.problem.as_str(), reading.connection), ("", CONNECTION));
    // E-mail, external id, address and user agent: four of the six that the sandbox looks at.
    assert_eq!((reading.events[0].event_name.as_str(), reading.events[0].score), ("Purchase", Some(6.7)));
    assert!(reading.events[0].coverage.contains(&("ip".to_owned(), 100.0)), "{reading:?}");
    let read_at = reading.read_at.unwrap();

    // A change of the connection asks at once: its token may be another.
    rig.control_says(|connection, _| connection.revision += 1);
    let refuses = Fault::Refuse { code: "200".to_owned(), subcode: None };
    rig.sandbox.inject(Platform::MetaQuality, refuses, How::Times(1));
    quality.round().await.unwrap();
    assert_eq!(asked(&rig), 2);
    let readings = quality.store.readings(WORKSPACE).await.unwrap();
    assert!(readings[0].problem.contains("refused with 200"), "{readings:?}");
    assert_eq!((readings[0].read_at, readings[0].events.len()), (Some(read_at), 1), "with its time");
    assert_eq!(rig.sandbox.totals()[&Platform::Meta].requests, 1, "events are sent as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_forgotten_and_nothing_else() {
    let mut rig = Rig::new("meta_capi").await;
    rig.resolved(&[with_traits("m-1", "ann", json!({ "phone": "call me" }))]).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    let left = "select (select count(*) from delivery.match_quality) + (select count(*) from delivery.match_quality_left_out)";
    let quality = quality(&rig);
    quality.forget(Timestamp::now() + SignedDuration::from_hours(29 * 24)).await.unwrap();
    assert_eq!(rig.number(left).await, 2);
    // More than one statement takes.
    rig.services
        .run(
            "insert into delivery.match_quality
             select 1, 7, 0, minute, 'Purchase', 1, '{1}'::bigint[] from generate_series(1, 10001) as minute",
        )
        .await;
    quality.forget(Timestamp::now() + SignedDuration::from_hours(31 * 24)).await.unwrap();
    assert_eq!(rig.number(left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_change_that_is_over_has_asked_for_is_not_kept() {
    let rig = Rig::new("meta_capi").await;
    let store = quality(&rig).store;
    let hour = std::time::Duration::from_secs(3_600);
    assert!(store.take_turn(WORKSPACE, CONNECTION, 2, hour).await.unwrap());
    assert!(store.take_turn(WORKSPACE, CONNECTION, 3, hour).await.unwrap(), "a later change asks at once");
    assert!(!store.take_turn(WORKSPACE, CONNECTION, 2, hour).await.unwrap(), "a process that is behind");
    let said = |score| tracklayer_destination::EventQuality {
        event_name: "Purchase".to_owned(),
        score: Some(score),
        coverage: Vec::new(),
    };
    store.keep(WORKSPACE, CONNECTION, 3, &[said(7.0)]).await.unwrap();
    store.keep(WORKSPACE, CONNECTION, 2, &[said(2.0)]).await.unwrap();
    store.miss(WORKSPACE, CONNECTION, 2, "no longer").await.unwrap();
    let readings = store.readings(WORKSPACE).await.unwrap();
    assert_eq!((readings[0].events[0].score, readings[0].problem.as_str()), (Some(7.0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_does_not_answer_holds_up_no_other_workspace() {
    let mut rig = Rig::new("meta_capi").await;
    let mut connection = None;
    rig.control_says(|known, _| connection = Some(known.clone()));
    let good = connection.unwrap();
    // It lets everybody in, and says nothing.
    let silent = tracklayer_testkit::listener().await;
    let mut bad = good.clone();
    let mut document: Value = serde_json::from_str(&bad.document_json).unwrap();
    document["settings"]["base_url"] = json!(format!("http://{}", silent.local_addr().unwrap()));
    bad.document_json = document.to_string();
    let others = WorkspaceId(WORKSPACE.0 + 1);
    let workspaces =
        vec![workspace(1, vec![bad]), WorkspaceConfig { workspace_id: others.0, ..workspace(1, vec![good]) }];
    let config = ConfigWatch::fixed(WatchConfigResponse { version: 1, workspaces });
    let quality = MatchQuality {
        connections: Connections::new(config, rig.services.master_key.clone()),
        ..quality(&rig)
    };
    let store = quality.store.clone();
    let round = tokio::spawn(async move { quality.round().await });
    for asked in [others, WORKSPACE] {
        tracklayer_testkit::eventually("a platform is asked", async || {
            store.readings(asked).await.unwrap().first().map(|reading| reading.asked_at)
        })
        .await;
    }
    assert!(!round.is_finished(), "the first still waits");
    round.abort();
}

//! Decisions that are no longer what they were at resolve.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tracklayer_delivery::ledger::State;
use tracklayer_proto::consent::v1::{Place, RecordItem, RecordRequest, Subject, SubjectLevel};
use tracklayer_proto::event::v1::ConsentSignals;
use tracklayer_proto::identity::v1::{Identifier, ResolveItem, ResolveRequest};
use tracklayer_sandbox::Platform;

use super::rig::{Rig, order};
use crate::services::WORKSPACE;

#[tokio::test(flavor = "multi_thread")]
async fn an_opt_out_of_somebody_who_was_linked_after_resolve_stops_the_backlog() {
    let mut rig = Rig::new("meta_capi").await;
    // Resolve allowed it when nobody knew whose device this was, and the lane has lagged behind since.
    let a_minute_ago = Timestamp::now() - Duration::from_secs(60);
    rig.resolved_at(a_minute_ago, &[order("m-1", "ann-device"), order("m-2", "bob-device")]).await;
    let identifier =
        |name: &str, value: &str| Identifier { r#type: name.to_owned(), value: value.to_owned() };
    let linked = ResolveItem {
        identifiers: vec![identifier("anonymous_id", "ann-device"), identifier("user_id", "ann")],
        source_id: 1,
        message_id: "identify".to_owned(),
        ..ResolveItem::default()
    };
    let request = ResolveRequest { workspace_id: WORKSPACE.0, items: vec![linked] };
    rig.services.clients.identity.clone().resolve(request).await.unwrap();
    let person = rig.services.master_key.workspace(WORKSPACE).subject("user_id", "ann");
    let person = Subject { key: person.0.to_vec(), level: SubjectLevel::Person.into(), ..Subject::default() };
    let opt_out = gpc_of(person);
    let request = RecordRequest { workspace_id: WORKSPACE.0, items: vec![opt_out] };
    rig.services.clients.consent.clone().record(request).await.unwrap();

    rig.start().await;
    rig.ends_as(1, State::Delivered).await;
    let blocked = rig.ends_as(0, State::Blocked).await;
    assert_eq!(blocked.attempts, 0);
    let counted = rig.sandbox.counted(Platform::Meta);
    assert_eq!(counted.iter().map(|c| c.event_id.as_str()).collect::<Vec<_>>(), ["m-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_for_another_state_of_the_connection_is_asked_for_again() {
    let mut rig = Rig::new("meta_capi").await;
    // Whatever made resolve allow them, it knew of the signal: the log alone is no reason to ask again.
    rig.decided_at = opts_out(&rig, "ann").await;
    rig.resolved(&[order("m-1", "ann")]).await;
    rig.decided_for -= 1;
    rig.resolved(&[order("m-2", "ann")]).await;
    rig.start().await;
    rig.ends_as(0, State::Delivered).await;
    rig.ends_as(1, State::Blocked).await;
    assert_eq!(rig.sandbox.counted(Platform::Meta).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_refused_ads_is_counted_by_ga4_and_told_as_refusing() {
    let mut rig = Rig::new("ga4_mp").await;
    opts_out(&rig, "ann").await;
    rig.resolved(&[order("m-1", "ann"), order("m-2", "bob")]).await;
    // Of another change of the connection, so that the lane asks the firewall.
    rig.mend(json!({ "value_from": ["revenue"] }));
    rig.start().await;
    for offset in 0..2 {
        assert_eq!(rig.ends_as(offset, State::Delivered).await.consent, "allow");
    }
    let seen = rig.sandbox.requests(100);
    let sent = |order: &str| {
        let of_order = seen.iter().find(|request| request.body.contains(order));
        serde_json::from_str::<Value>(&of_order.unwrap().body).unwrap()
    };
    let denied = json!({ "ad_user_data": "DENIED", "ad_personalization": "DENIED" });
    let granted = json!({ "ad_user_data": "GRANTED", "ad_personalization": "GRANTED" });
    assert_eq!(sent("order-m-1")["consent"], denied, "the firewall named what is denied");
    assert_eq!(sent("order-m-2")["consent"], granted);
}

/// Somebody's browser says GPC; the number of that in the narrowing log.
pub(super) async fn opts_out(rig: &Rig, visitor: &str) -> i64 {
    let device = rig.services.master_key.workspace(WORKSPACE).subject("anonymous_id", visitor);
    let subject =
        Subject { key: device.0.to_vec(), level: SubjectLevel::Device.into(), ..Subject::default() };
    let request = RecordRequest { workspace_id: WORKSPACE.0, items: vec![gpc_of(subject)] };
    let recorded = rig.services.clients.consent.clone().record(request).await.unwrap().into_inner();
    assert_eq!(recorded.narrowed, 1);
    recorded.narrowing_seq
}

fn gpc_of(subject: Subject) -> RecordItem {
    let signals = ConsentSignals {
        gpc: true,
        gpc_provenance: "sec_gpc_header".to_owned(),
        place: "US-TX".to_owned(),
        ..ConsentSignals::default()
    };
    let now = Timestamp::now();
    let now = Some(prost_types::Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() });
    RecordItem {
        subjects: vec![subject],
        signals: Some(signals),
        captured_at: now,
        received_at: now,
        places: vec![Place { code: "US-TX".to_owned(), provenance: "event".to_owned() }],
        message_id: "signal".to_owned(),
        ..RecordItem::default()
    }
}

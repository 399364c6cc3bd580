//! Golden events: sealed, compared with what they give now, and gone with their person. Over the real PostgreSQL, identity and consent.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tracklayer_delivery::connections::{Connections, OpenConnection};
use tracklayer_delivery::golden::{Asking, Compared, Golden, GoldenError};
use tracklayer_delivery::store::golden::GoldenStore;
use tracklayer_destination::Destination;
use tracklayer_proto::consent::v1::NarrowRequest;
use tracklayer_proto::control::v1::WatchConfigResponse;
use tracklayer_rpc::follow::ConfigWatch;

use super::rig::{CONNECTION, REVISION, Rig, order};
use crate::services::{WORKSPACE, workspace};

const KEPT: &str = "select count(*) from delivery.golden_event";

fn golden(rig: &Rig, config: ConfigWatch) -> Golden {
    let store = GoldenStore::new(rig.services.database.pool.clone());
    Golden::new(store, rig.services.clients.clone(), config, rig.services.master_key.clone())
}

fn opened(rig: &Rig) -> Arc<OpenConnection> {
    let connections = Connections::new(rig.config().clone(), rig.services.master_key.clone());
    connections.one(WORKSPACE, CONNECTION).unwrap()
}

fn destination(connection: &OpenConnection) -> &dyn Destination {
    connection.destination.as_deref().unwrap()
}

fn of_visitors(visitors: &[&str]) -> Asking {
    let line = |(number, visitor): (usize, &&str)| {
        let mut event = order(&format!("m-{number}"), visitor);
        event["context"]["traits"] = json!({ "email": format!("{visitor}@example.com") });
        event.to_string()
    };
    Asking {
        lines: visitors.iter().enumerate().map(line).collect(),
        now: Timestamp::from_second(Timestamp::now().as_second()).unwrap(),
        consent: "allow".to_owned(),
        is_sample: false,
    }
}

async fn freeze(rig: &Rig, asking: Asking) -> Result<usize, GoldenError> {
    let connection = opened(rig);
    let golden = golden(rig, rig.config().clone());
    let frozen =
        golden.freeze(WORKSPACE, CONNECTION, connection.revision, destination(&connection), asking).await;
    frozen.map(|frozen| frozen.frozen)
}

async fn compared(rig: &Rig) -> Vec<Compared> {
    let connection = opened(rig);
    golden(rig, rig.config().clone()).compare(WORKSPACE, CONNECTION, destination(&connection)).await.unwrap()
}

/// Tells consent's log of a merge or an erasure of visitors.
pub async fn names(rig: &Rig, cause: &str, visitors: &[&str]) {
    let key = rig.services.master_key.workspace(WORKSPACE);
    let keys = visitors.iter().map(|visitor| key.subject("anonymous_id", visitor).0.to_vec());
    let request = NarrowRequest {
        workspace_id: WORKSPACE.0,
        subject_keys: keys.collect(),
        cause: cause.to_owned(),
        evidence: "asked for".to_owned(),
    };
    rig.services.clients.consent.clone().narrow(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_connection_is_drift_until_it_is_accepted() {
    let mut rig = Rig::new("meta_capi").await;
    assert_eq!(freeze(&rig, of_visitors(&["ann", "bob"])).await.unwrap(), 2);
    let before = compared(&rig).await;
    assert!(before.iter().all(|event| event.differences.is_empty() && !event.is_unreadable), "{before:?}");
    let told: Vec<_> = before.iter().map(|e| (e.number, e.name.as_str(), e.message_id.as_str())).collect();
    assert_eq!(told, [(1, "Order Completed", "m-0"), (2, "Order Completed", "m-1")]);

    rig.control_says(|connection, _| {
        let mut document: Value = serde_json::from_str(&connection.document_json).unwrap();
        document["event_map"] = json!({ "Order Completed": "Subscribe" });
        connection.document_json = document.to_string();
        connection.revision = REVISION + 1;
    });
    let drifted = compared(&rig).await;
    for event in &drifted {
        let name =
            event.differences.iter().find(|d| d.path == "requests[0].body.data[0].event_name").unwrap();
        assert_eq!((name.was.as_deref(), name.is.as_deref()), (Some("\"Purchase\""), Some("\"Subscribe\"")));
        assert_eq!(event.revision, REVISION, "with which it was frozen");
    }

    let connection = opened(&rig);
    let golden = golden(&rig, rig.config().clone());
    for accepted in [2, 0] {
        let given = golden.accept(WORKSPACE, CONNECTION, connection.revision, destination(&connection)).await;
        assert_eq!(given.unwrap(), accepted, "and again nothing");
    }
    let after = compared(&rig).await;
    assert!(after.iter().all(|event| event.differences.is_empty() && event.revision == REVISION + 1));
    assert_eq!(rig.sandbox.totals()[&tracklayer_sandbox::Platform::Meta].requests, 0, "nothing is sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_frozen_stands_in_no_table_as_it_is() {
    let rig = Rig::new("meta_capi").await;
    freeze(&rig, of_visitors(&["ann"])).await.unwrap();
    let rows: Vec<(String,)> = sqlx::query_as("select row_to_json(g)::text from delivery.golden_event g")
        .fetch_all(&rig.services.database.pool)
        .await
        .unwrap();
    let [(row,)] = &rows[..] else { panic!("{rows:?}") };
    for personal in ["ann", "example.com", "203.0.113.7", "Purchase"] {
        let mut words = row.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
        assert!(words.all(|word| word != personal), "{personal} in {row}");
    }
    // Another master key opens none of it, and says so.
    rig.services
        .run("update delivery.golden_event set sealed = overlay(sealed placing 'AAAA' from 30)")
        .await;
    assert!(compared(&rig).await[0].is_unreadable);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_takes_the_golden_events_of_its_person() {
    let rig = Rig::new("meta_capi").await;
    freeze(&rig, of_visitors(&["ann", "bob", "cat"])).await.unwrap();
    names(&rig, "erasure", &["ann"]).await;
    let left: Vec<String> = compared(&rig).await.into_iter().map(|event| event.message_id).collect();
    assert_eq!(left, ["m-1", "m-2"]);
    // Cat's profile is known by another name by the time that she is erased, and nobody asks for a report.
    names(&rig, "merge", &["cat", "cats-profile"]).await;
    names(&rig, "erasure", &["cats-profile"]).await;
    golden(&rig, rig.config().clone()).follower().round(Timestamp::now()).await.unwrap();
    assert_eq!(rig.number(KEPT).await, 1);
    // What goes on is of the others, and a later freeze begins where the log is.
    names(&rig, "split", &["bob"]).await;
    assert_eq!(compared(&rig).await.len(), 1);
    assert_eq!(freeze(&rig, of_visitors(&["dan"])).await.unwrap(), 1);
    assert_eq!(compared(&rig).await[0].message_id, "m-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nobodys_is_not_frozen_and_what_was_stays() {
    let rig = Rig::new("meta_capi").await;
    freeze(&rig, of_visitors(&["ann"])).await.unwrap();
    let mut nobodys = of_visitors(&["bob"]);
    let mut event = order("m-9", "x");
    event.as_object_mut().unwrap().remove("anonymousId");
    nobodys.lines.push(event.to_string());
    let refused = freeze(&rig, nobodys).await.unwrap_err().to_string();
    assert!(refused.contains("event `m-9` has no identifier"), "{refused}");
    assert_eq!(compared(&rig).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_whoever_was_erased_before_is_frozen() {
    let rig = Rig::new("meta_capi").await;
    let key = rig.services.master_key.workspace(WORKSPACE);
    sqlx::query("insert into identity.suppressed (workspace_id, value_mac) values ($1, $2)")
        .bind(WORKSPACE.0)
        .bind(key.value_mac("anonymous_id", "ann"))
        .execute(&rig.services.database.pool)
        .await
        .unwrap();
    let refused = freeze(&rig, of_visitors(&["ann", "bob"])).await.unwrap_err().to_string();
    assert_eq!(refused, "event `m-0` is of somebody who was erased: nothing of them is kept");
    assert_eq!(rig.number(KEPT).await, 0);
    // Of a sample the others are taken.
    let sample = Asking { is_sample: true, ..of_visitors(&["ann", "bob"]) };
    assert_eq!(freeze(&rig, sample).await.unwrap(), 1);
    assert_eq!(compared(&rig).await[0].message_id, "m-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_alone_is_no_drift_though_a_month_goes_by() {
    let rig = Rig::new("meta_capi").await;
    let mut asking = of_visitors(&["ann"]);
    asking.now -= SignedDuration::from_hours(30 * 24);
    let mut event = order("m-0", "ann");
    event["timestamp"] = json!((asking.now - SignedDuration::from_hours(1)).to_string());
    asking.lines = vec![event.to_string()];
    // As a sample only what gives a request is frozen: by today's clock the event would be too old for one.
    asking.is_sample = true;
    assert_eq!(freeze(&rig, asking).await.unwrap(), 1);
    let compared = compared(&rig).await;
    assert!(compared[0].differences.is_empty() && !compared[0].is_unreadable, "{compared:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_events_stay_though_a_process_does_not_know_their_connection() {
    let rig = Rig::new("meta_capi").await;
    freeze(&rig, of_visitors(&["ann"])).await.unwrap();
    let without = WatchConfigResponse { version: 2, workspaces: vec![workspace(1, Vec::new())] };
    golden(&rig, ConfigWatch::fixed(without)).follower().round(Timestamp::now()).await.unwrap();
    assert_eq!(rig.number(KEPT).await, 1, "it may be behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_cannot_be_followed_keeps_nobody_elses_erasures_back() {
    let rig = Rig::new("meta_capi").await;
    // Consent has no such workspace.
    rig.services.run("insert into delivery.golden_narrowing values (0, 0)").await;
    freeze(&rig, of_visitors(&["ann", "bob"])).await.unwrap();
    names(&rig, "erasure", &["ann"]).await;
    let followed = golden(&rig, rig.config().clone()).follower().round(Timestamp::now()).await;
    assert!(followed.is_err(), "it is told");
    assert_eq!(rig.number(KEPT).await, 1);
}

//! Retries and new events, taken in turns.

use serde_json::{Value, json};
use tracklayer_ids::WorkspaceId;
use tracklayer_sandbox::Platform;

use super::rig::{Rig, order};
use crate::services::WORKSPACE;

#[tokio::test(flavor = "multi_thread")]
async fn neither_many_retries_nor_many_new_events_keep_the_other_waiting() {
    let mut rig = Rig::new("meta_capi").await;
    let events = |prefix: &str, range: std::ops::Range<usize>| -> Vec<Value> {
        range.map(|n| order(&format!("{prefix}-{n}"), &format!("{prefix}-visitor-{n}"))).collect()
    };
    rig.due_again(&events("again", 0..1_100)).await;
    for prefix in ["new", "newer"] {
        rig.resolved(&events(prefix, 0..1_000)).await;
        rig.resolved(&events(prefix, 1_000..2_000)).await;
    }
    rig.start().await;
    rig.takes(Platform::Meta, 5_100).await;

    let mut turns: Vec<(String, usize)> = Vec::new();
    for counted in rig.sandbox.counted(Platform::Meta) {
        let prefix = counted.event_id.split('-').next().unwrap().to_owned();
        match turns.last_mut() {
            Some((last, count)) if *last == prefix => *count += 1,
            _ => turns.push((prefix, 1)),
        }
    }
    let expected = [("again", 500), ("new", 2_000), ("again", 500), ("newer", 2_000), ("again", 100)];
    assert_eq!(turns, expected.map(|(prefix, count)| (prefix.to_owned(), count)));
    rig.reaches("select count(*) from delivery.retry", 0).await;
    assert_eq!(rig.number("select sum(events)::bigint from delivery.rollup where state = 6").await, 5_100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_with_few_large_events_gives_way_to_one_with_little() {
    let gives_way = |rig: &Rig| rig.headroom.gives_way(|workspace| workspace == WORKSPACE);
    let mut rig = Rig::new("meta_capi").await;
    let large = |number: usize| {
        let mut event = order(&format!("large-{number}"), &format!("visitor-{number}"));
        event["properties"]["note"] = json!("x".repeat(30_000));
        event
    };
    rig.headroom.did(WorkspaceId(WORKSPACE.0 + 1), 1, 0);
    rig.resolved(&[order("small", "visitor")]).await;
    rig.start().await;
    rig.takes(Platform::Meta, 1).await;
    assert!(!gives_way(&rig), "it does as little");
    rig.resolved(&(0..60).map(large).collect::<Vec<_>>()).await;
    rig.takes(Platform::Meta, 61).await;
    rig.headroom.did(WorkspaceId(WORKSPACE.0 + 1), 1, 0);
    assert!(gives_way(&rig));
}

//! Full batches from several clients at once, so that counting stays exact when it is busy.

use serde_json::{Value, json};
use tracklayer_sandbox::Platform;

use crate::rig::{NOW, rig, send};

const REQUESTS: usize = 12;
const BATCH: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_of_overlapping_batches_is_counted_exactly_once() {
    let rig = rig().await;
    let batch = |start: usize| -> Value {
        let event = |n: usize| {
            json!({
                "event_name": "PageView", "event_time": NOW, "event_id": format!("m-{n}"), "action_source": "other",
                "user_data": { "external_id": [format!("{n:064x}")] },
            })
        };
        (start..start + BATCH).map(event).collect()
    };
    // Each batch overlaps with half of the next one.
    let requests = (0..REQUESTS).map(|n| tokio::spawn(send(rig.meta(&batch(n * BATCH / 2)))));
    for answer in requests.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap().0, 200);
    }
    let distinct = (REQUESTS + 1) * BATCH / 2;
    let totals = rig.totals(Platform::Meta);
    assert_eq!(totals.events_received as usize, REQUESTS * BATCH);
    assert_eq!(totals.counted as usize, distinct);
    assert_eq!(totals.duplicates as usize, REQUESTS * BATCH - distinct);
    let mut ids: Vec<_> = rig.counted(Platform::Meta).into_iter().map(|counted| counted.event_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), distinct);
}

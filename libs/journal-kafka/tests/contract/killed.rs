//! The store is killed under load.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{Partition, PartitionKey, SourceId};
use tracklayer_journal::{Appender, AppenderSettings, Draft, Journal, Most, Spread};

use crate::stage::{Stage, WORKSPACE, append, beginning, events, read};

const CALLERS: usize = 8;

/// A caller that repeats what was not acknowledged, as every client does. Answers what was.
async fn call(appender: Appender, caller: usize, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let text = format!("{caller}-{}", acknowledged.len());
        let draft = Draft {
            key: PartitionKey(caller as u64 % 2),
            source: SourceId(1),
            minute: 1,
            bytes: Bytes::from(text.clone()),
        };
        match appender.append(WORKSPACE, Spread { partitions: 4, revision: 1 }, vec![draft]).await {
            Ok(_) => acknowledged.push(text),
            Err(_) => tokio::task::yield_now().await,
        }
    }
    acknowledged
}

pub async fn what_was_acknowledged_survives_a_killed_store(mut stage: impl Stage) {
    let journal = stage.journal();
    append(&journal, 0, "first", 1).await;
    append(&journal, 1, "first", 1).await;
    let appender =
        Appender::start(Arc::clone(&journal), AppenderSettings::default(), &CancellationToken::new());
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> =
        (0..CALLERS).map(|caller| tokio::spawn(call(appender.clone(), caller, Arc::clone(&stop)))).collect();
    for round in 0..2 {
        let before = stored(&journal).await;
        tracklayer_testkit::eventually_seen("appends", async || match stored(&stage.journal()).await {
            now if now > before + 200 => Ok(()),
            now => Err(format!("{now} events, {before} at the beginning of round {round}")),
        })
        .await;
        stage.kill().await;
        stage.start_again().await;
    }
    // The same appender goes on by itself.
    let before = stored(&stage.journal()).await;
    tracklayer_testkit::eventually_seen("appends after the last kill", async || {
        match stored(&stage.journal()).await {
            now if now > before + 50 => Ok(()),
            now => Err(format!("{now} events, {before} before")),
        }
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for caller in callers {
        acknowledged.extend(caller.await.unwrap());
    }
    let journal = stage.journal();
    let mut found = BTreeSet::new();
    for partition in 0..2 {
        let mut count = 0;
        journal
            .count(WORKSPACE, beginning(partition), &mut |_, header| count += header.event_count)
            .await
            .unwrap();
        let (blocks, _) = read(&journal, beginning(partition), count as usize).await;
        let stored = events(&blocks);
        assert!(stored.iter().map(|(offset, _)| *offset).eq(0..u64::from(count)), "no hole, no overlap");
        found.extend(stored.into_iter().map(|(_, text)| text));
    }
    let lost: Vec<_> = acknowledged.iter().filter(|text| !found.contains(*text)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged are lost: {lost:?}", lost.len(), acknowledged.len());
    assert!(acknowledged.len() > 400, "{} acknowledged", acknowledged.len());
}

/// Events of both partitions; none while the store is away.
async fn stored(journal: &Arc<dyn Journal>) -> u32 {
    let mut events = 0;
    for partition in 0..2 {
        let _ = journal
            .count(WORKSPACE, beginning(partition), &mut |_, header| events += header.event_count)
            .await;
    }
    events
}

pub async fn a_reader_goes_on_when_the_store_is_back(mut stage: impl Stage) {
    let journal = stage.journal();
    append(&journal, 0, "before", 3).await;
    let (_, place) = read(&journal, beginning(0), 3).await;
    stage.kill().await;
    let away = journal.read(WORKSPACE, beginning(0), Most::events(10)).await;
    assert!(away.is_err() || away.is_ok_and(|blocks| blocks.is_empty()), "nothing is made up meanwhile");
    stage.start_again().await;
    tracklayer_testkit::eventually_seen("an append", async || {
        let block = crate::stage::block(["after"]);
        let appended = tracklayer_testkit::append(journal.as_ref(), WORKSPACE, Partition(0), &block).await;
        appended.map_err(|error| error.to_string())
    })
    .await;
    // One that was repeated may be there twice: the client's repeat, dropped by dedup.
    let (blocks, _) = read(&journal, place, 1).await;
    assert_eq!(events(&blocks)[0], (3, "after".to_owned()));
}

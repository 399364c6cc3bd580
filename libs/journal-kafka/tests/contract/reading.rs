//! What is appended is read: all of it, in order, from anywhere, and nothing that is not what was written.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tracklayer_ids::{PartitionKey, Position, SourceId};
use tracklayer_journal::{
    Appender, AppenderSettings, BlockError, Condition, Draft, JournalError, Most, Spread,
};

use crate::stage::{Stage, WORKSPACE, append, beginning, block, events, read};

const FOUR: Spread = Spread { partitions: 4, revision: 1 };
const CALLERS: u32 = 24;
const ROUNDS: u32 = 15;

fn draft(partition: u32, text: String) -> Draft {
    Draft {
        key: PartitionKey(u64::from(partition)),
        source: SourceId(1),
        minute: 1,
        bytes: Bytes::from(text),
    }
}

pub async fn what_is_acknowledged_is_read_in_the_order_of_each_caller(stage: impl Stage) {
    let stop = CancellationToken::new();
    let appender = Appender::start(stage.journal(), AppenderSettings::default(), &stop);
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let appender = appender.clone();
        callers.spawn(async move {
            for round in 0..ROUNDS {
                let drafts = (0..4).map(|n| draft(n % 4, format!("{caller}/{round}"))).collect();
                appender.append(WORKSPACE, FOUR, drafts).await.unwrap();
            }
        });
    }
    callers.join_all().await;
    let journal = stage.journal();
    for partition in 0..4 {
        let expected = (CALLERS * ROUNDS) as usize;
        let (blocks, _) = read(&journal, beginning(partition), expected).await;
        let stored = events(&blocks);
        assert_eq!(stored.len(), expected, "each exactly once");
        assert!(stored.iter().map(|(offset, _)| *offset).eq(0..expected as u64), "no hole, no overlap");
        let mut next: BTreeMap<&str, u32> = BTreeMap::new();
        for (_, text) in &stored {
            let (caller, round) = text.split_once('/').unwrap();
            let expected = next.entry(caller).or_default();
            assert_eq!(round, expected.to_string(), "caller {caller} in order");
            *expected += 1;
        }
        assert!(blocks.len() < expected / 2, "concurrent calls share blocks, there are {}", blocks.len());
    }
    stop.cancel();
    appender.stopped().await;
}

pub async fn what_one_caller_hands_over_first_stands_first(stage: impl Stage) {
    let appender = Appender::start(stage.journal(), AppenderSettings::default(), &CancellationToken::new());
    let calls = (0..200).map(|n| appender.append(WORKSPACE, FOUR, vec![draft(0, format!("{n:03}"))]));
    futures::future::try_join_all(calls).await.unwrap();
    let (blocks, _) = read(&stage.journal(), beginning(0), 200).await;
    let stored: Vec<String> = events(&blocks).into_iter().map(|(_, text)| text).collect();
    assert!(stored.is_sorted(), "{stored:?}");
}

pub async fn reading_goes_on_from_any_place(stage: impl Stage) {
    let journal = stage.journal();
    for (name, events) in [("a", 5), ("b", 3), ("c", 4)] {
        append(&journal, 1, name, events).await;
    }
    let (blocks, end) = read(&journal, beginning(1), 12).await;
    let all = events(&blocks);
    assert_eq!((all.len(), end.at.offset.0), (12, 12));
    for behind in 0..12u64 {
        let place = beginning(1).after(&blocks, behind);
        // The one that goes on, and one that has only the place.
        for journal in [journal.clone(), stage.journal()] {
            let (blocks, at_end) = read(&journal, place, 12 - behind as usize).await;
            let rest: Vec<_> = events(&blocks).into_iter().filter(|(offset, _)| *offset >= behind).collect();
            assert_eq!(rest, all[behind as usize..]);
            assert!(
                blocks[0].first.offset.0 <= behind && blocks[0].end().0 > behind,
                "the block that holds it"
            );
            assert_eq!(at_end, end);
        }
    }
    assert!(journal.read(WORKSPACE, end, Most::blocks(10)).await.unwrap().is_empty());
    append(&journal, 1, "d", 2).await;
    let (blocks, _) = read(&journal, end, 2).await;
    assert_eq!(events(&blocks), [(12, "d-0".to_owned()), (13, "d-1".to_owned())]);
}

pub async fn a_read_takes_whole_blocks_and_at_least_one(stage: impl Stage) {
    let journal = stage.journal();
    for events in [5, 3, 4] {
        append(&journal, 0, "x", events).await;
    }
    let (blocks, _) = read(&journal, beginning(0), 12).await;
    for (behind, most, expected) in [
        (0, Most::events(1), vec![5]),
        (0, Most::events(8), vec![5, 3]),
        (0, Most::events(11), vec![5, 3]),
        (0, Most::events(12), vec![5, 3, 4]),
        (6, Most::events(7), vec![3, 4]),
        (0, Most::blocks(2), vec![5, 3]),
    ] {
        let place = beginning(0).after(&blocks, behind);
        // What has not come yet is for a later look: a first read brings it near.
        read(&journal, place, 12 - behind as usize).await;
        let read = tracklayer_testkit::eventually_seen("a full read", async || {
            let read = journal.read(WORKSPACE, place, most).await.unwrap();
            let counts: Vec<u32> = read.iter().map(|block| block.header.event_count).collect();
            if counts.len() >= expected.len() { Ok(counts) } else { Err(format!("{counts:?}")) }
        });
        assert_eq!(read.await, expected, "from {behind} with {most:?}");
    }
}

pub async fn what_stands_before_a_block_of_a_newer_writer_is_read_and_the_block_is_refused(
    stage: impl Stage,
) {
    let journal = stage.journal();
    append(&journal, 0, "old", 3).await;
    let mut newer = block(["new"]);
    newer.header.feature_level = tracklayer_journal::FEATURE_LEVEL + 1;
    newer.header_bytes = prost::Message::encode_to_vec(&newer.header);
    stage.put(0, &newer).await;
    append(&journal, 0, "behind", 1).await;

    let (blocks, place) = read(&stage.journal(), beginning(0), 3).await;
    assert_eq!(events(&blocks).len(), 3);
    for journal in [journal, stage.journal()] {
        let refused = tracklayer_testkit::eventually_seen("the block to be refused", async || match journal
            .read(WORKSPACE, place, Most::events(100))
            .await
        {
            Err(error) => Ok(error),
            Ok(blocks) => Err(format!("{} blocks", blocks.len())),
        })
        .await;
        let JournalError::Block { position, source } = refused else { panic!("{refused:?}") };
        assert_eq!(position.offset.0, 3);
        assert!(matches!(source, tracklayer_journal::BlockError::FeatureLevel { .. }), "{source:?}");
    }
}

pub async fn a_corrupt_block_stops_its_partition_and_no_other(stage: impl Stage) {
    let journal = stage.journal();
    append(&journal, 0, "good", 2).await;
    append(&journal, 1, "other", 2).await;
    let mut corrupt = block(["lost"]);
    let last = corrupt.payload.len() - 1;
    corrupt.payload[last] ^= 1;
    stage.put(0, &corrupt).await;
    append(&journal, 0, "behind", 2).await;

    let (blocks, _) = read(&journal, beginning(0), 5).await;
    let unreadable: Vec<bool> = blocks.iter().map(|block| block.events().is_err()).collect();
    assert_eq!(unreadable, [false, true, false]);
    assert!(matches!(
        blocks[1].events(),
        Err(JournalError::Block { position, .. }) if position.offset.0 == 2
    ));
    let (blocks, _) = read(&journal, beginning(1), 2).await;
    assert_eq!(events(&blocks).len(), 2);
}

pub async fn a_block_that_is_looked_at_is_whole_or_damaged_or_not_there(stage: impl Stage) {
    let journal = stage.journal();
    append(&journal, 0, "good", 2).await;
    let mut corrupt = block(["lost-0", "lost-1", "lost-2"]);
    let last = corrupt.payload.len() - 1;
    corrupt.payload[last] ^= 1;
    stage.put(0, &corrupt).await;
    append(&journal, 0, "behind", 4).await;
    let (blocks, end) = read(&journal, beginning(0), 9).await;

    // Whoever looks has read nothing before.
    let journal = stage.journal();
    let look = async |place| journal.look_at(WORKSPACE, place).await.unwrap();
    let at = |events| beginning(0).after(&blocks, events);
    let whole = |offset, events| Condition::Whole { first: Position::new(1, 0, offset), events };
    assert_eq!(look(beginning(0)).await, whole(0, 2));
    assert_eq!(look(at(1)).await, whole(0, 2), "the block in which the place is");
    for place in [at(2), at(4)] {
        let Condition::Damaged(damage) = look(place).await else { panic!("it can be read") };
        assert_eq!((damage.first, damage.events), (Position::new(1, 0, 2), 3));
        assert_eq!((damage.is_counted, damage.counts.as_slice()), (true, corrupt.header.counts.as_slice()));
        assert_eq!(damage.record, blocks[1].record, "where a reader goes on behind it");
        assert!(matches!(damage.why, BlockError::Checksum { .. }), "{damage:?}");
    }
    assert_eq!(look(at(5)).await, whole(5, 4));
    assert_eq!(look(end).await, Condition::Absent);
    // It has taken nothing away from whoever reads.
    let (again, _) = read(&journal, beginning(0), 9).await;
    assert_eq!(again.len(), 3);
}

pub async fn whoever_reads_again_reads_the_same(stage: impl Stage) {
    let journal = stage.journal();
    for name in ["a", "b", "c"] {
        append(&journal, 2, name, 3).await;
    }
    let (first, place) = read(&journal, beginning(2), 9).await;
    // As after a crash between the append and the commit of a cursor: another process, the same place.
    let (again, same_place) = read(&stage.journal(), beginning(2), 9).await;
    assert_eq!(events(&first), events(&again));
    assert_eq!(place, same_place);
    assert_eq!(
        first.iter().map(|b| b.record).collect::<Vec<_>>(),
        again.iter().map(|b| b.record).collect::<Vec<_>>()
    );
}

pub async fn headers_tell_how_many_events_wait(stage: impl Stage) {
    let journal = stage.journal();
    for events in [5, 3, 4] {
        append(&journal, 0, "x", events).await;
    }
    let (blocks, end) = read(&journal, beginning(0), 12).await;
    for (behind, waiting) in [(0, 12), (5, 7), (6, 6), (12, 0)] {
        let mut counted = Vec::new();
        let from = beginning(0).after(&blocks, behind);
        let reached = stage
            .journal()
            .count(WORKSPACE, from, &mut |at, header| counted.push((at.offset.0, header.event_count)))
            .await
            .unwrap();
        assert_eq!(reached, end);
        let beyond: u64 =
            counted.iter().map(|(at, n)| (at + u64::from(*n)).saturating_sub(behind.max(*at))).sum();
        assert_eq!(beyond, waiting, "{counted:?} from {behind}");
    }
}

pub async fn how_far_a_place_is_behind_is_told(stage: impl Stage) {
    let journal = stage.journal();
    for name in ["a", "b", "c"] {
        append(&journal, 0, name, 2).await;
    }
    append(&journal, 1, "d", 2).await;
    let (blocks, end) = read(&journal, beginning(0), 6).await;
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let places = [beginning(0).after(&blocks, 2), beginning(0).after(&blocks, 4), end];
    let places: Vec<_> = places.into_iter().map(|place| (WORKSPACE, place)).collect();
    let behind = stage.journal().behind(&places).await.unwrap();
    assert_eq!(behind.iter().map(|behind| behind.events).collect::<Vec<_>>(), [4, 2, 0]);
    for waits in &behind[..2] {
        assert!((1..300).contains(&waits.seconds), "{behind:?}");
    }
    assert_eq!(behind[2].seconds, 0, "nothing waits");
}

//! What only a log of records has: a history that may change under its readers, and records that nobody names.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use tracklayer_ids::Partition;
use tracklayer_journal::{Journal, JournalError, Most, Place, Record};

use crate::stage::{KafkaStage, Stage, WORKSPACE, append, beginning, block, events, read};

/// Deletes the topic, and waits until the broker takes nothing for it any more.
async fn delete_topic(stage: &KafkaStage) {
    let admin: AdminClient<DefaultClientContext> =
        stage.client().set("allow.auto.create.topics", "false").create().unwrap();
    let topic = stage.topic();
    admin.delete_topics(&[&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    tracklayer_testkit::eventually("the topic to be gone", async || {
        let metadata = admin.inner().fetch_metadata(Some(&topic), Duration::from_secs(5)).unwrap();
        metadata.topics()[0].error().map(drop)
    })
    .await;
}

/// What a read from there says of the log, in a process that knows only the place.
async fn said_of(stage: &KafkaStage, place: Place) -> Result<usize, String> {
    match stage.journal().read(WORKSPACE, place, Most::events(100)).await {
        Ok(blocks) => Ok(blocks.len()),
        Err(JournalError::Changed { why, .. }) => Err(why),
        Err(error) => panic!("{error:?}"),
    }
}

/// A journal whose topic is gone makes it anew: repeats until the broker has forgotten the old one.
async fn append_anew(stage: &KafkaStage, name: &str, events: usize) {
    tracklayer_testkit::eventually_seen("the topic to be there anew", async || {
        let new = block((0..events).map(|n| format!("{name}-{n}")));
        let appended =
            tracklayer_testkit::append(stage.journal().as_ref(), WORKSPACE, Partition(0), &new).await;
        appended.map_err(|error| error.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_made_anew_is_found_out_however_long_it_is() {
    let Some(stage) = KafkaStage::shared().await else { return };
    let journal = stage.journal();
    append(&journal, 0, "a", 3).await;
    append(&journal, 0, "b", 3).await;
    let (_, place) = read(&journal, beginning(0), 6).await;
    assert_eq!(said_of(&stage, place).await, Ok(0));

    delete_topic(&stage).await;
    append_anew(&stage, "new", 1).await;
    let why = said_of(&stage, place).await.unwrap_err();
    assert!(why.contains("ends at record 1, and record 2 is next"), "{why}");
    append(&stage.journal(), 0, "new", 1).await;
    append(&stage.journal(), 0, "new", 1).await;
    let why = said_of(&stage, place).await.unwrap_err();
    assert!(why.contains("holds another record 1 than the one that was read"), "{why}");

    let known = place.record.into_iter().collect::<Vec<Record>>();
    let on = stage.journal().surviving(WORKSPACE, Partition(0), &known).await.unwrap().unwrap();
    assert_eq!((on.offset, on.step), (0, 0), "nothing of it was ever read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_under_which_the_log_is_made_anew_never_reads_on_in_the_new_one() {
    for records in [2, 5] {
        made_anew_under_its_reader(records).await;
    }
}

async fn made_anew_under_its_reader(records: usize) {
    let Some(stage) = KafkaStage::shared().await else { return };
    let journal = stage.journal();
    append(&journal, 0, "a", 3).await;
    append(&journal, 0, "b", 3).await;
    let (_, place) = read(&journal, beginning(0), 6).await;
    delete_topic(&stage).await;
    // As many records as were read, and more: the reader's place is at the end of them, then in the middle.
    for _ in 0..records {
        append_anew(&stage, "new", 1).await;
    }
    let said = tracklayer_testkit::eventually_seen("the change to be found", async || {
        match journal.read(WORKSPACE, place, Most::events(100)).await {
            Err(JournalError::Changed { why, .. }) => Ok(why),
            Ok(blocks) if blocks.is_empty() => Err("nothing yet".to_owned()),
            Ok(blocks) => panic!("read on: {:?}", events(&blocks)),
            Err(error) => Err(format!("{error:?}")),
        }
    })
    .await;
    assert!(said.contains("holds another record 1 than the one that was read"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_goes_on_behind_the_newest_record_that_is_still_there() {
    let Some(stage) = KafkaStage::shared().await else { return };
    let journal = stage.journal();
    append(&journal, 0, "a", 3).await;
    append(&journal, 0, "b", 3).await;
    let (blocks, end) = read(&journal, beginning(0), 6).await;
    let lost = Record { mark: Some(1), ..end.record.unwrap() };
    let middle = beginning(0).after(&blocks, 4).record.unwrap();
    let first = beginning(0).after(&blocks, 3).record.unwrap();
    let on = journal.surviving(WORKSPACE, Partition(0), &[lost, middle, first]).await.unwrap().unwrap();
    assert_eq!((on.offset, on.step), (1, 1), "the record in which the reader stood is still the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_trimmed_is_gone_but_for_the_record_by_which_the_log_is_known_again() {
    let Some(stage) = KafkaStage::shared().await else { return };
    let journal = stage.journal();
    for name in ["a", "b", "c"] {
        append(&journal, 0, name, 2).await;
    }
    let (blocks, _) = read(&journal, beginning(0), 6).await;
    let place = beginning(0).after(&blocks, 4);
    journal.trim(&[(WORKSPACE, place)]).await.unwrap();
    let why = said_of(&stage, beginning(0)).await.unwrap_err();
    assert!(why.contains("begins at record 1"), "{why}");
    let (left, _) = read(&stage.journal(), place, 2).await;
    assert_eq!(events(&left)[0], (4, "c-0".to_owned()));
    let why =
        said_of(&stage, Place { record: Some(Record { mark: Some(1), ..place.record.unwrap() }), ..place });
    assert!(why.await.unwrap_err().contains("another record"), "the mark is compared after a trim, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_wakes_when_something_comes_and_loses_nothing_by_giving_up() {
    let Some(stage) = KafkaStage::shared().await else { return };
    let journal = stage.journal();
    append(&journal, 0, "a", 1).await;
    let (_, place) = read(&journal, beginning(0), 1).await;
    for round in 1..=3u64 {
        let place = Place { at: place.at, ..place };
        let given_up =
            tokio::time::timeout(Duration::from_millis(30), journal.arrival(WORKSPACE, place)).await;
        assert_eq!(given_up.is_err(), round == 1, "from the second round on there is something");
        append(&stage.journal(), 0, "b", 1).await;
        tokio::time::timeout(Duration::from_secs(20), journal.arrival(WORKSPACE, place)).await.unwrap();
    }
    let (blocks, _) = read(&journal, place, 3).await;
    assert_eq!(events(&blocks).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolved_block_is_found_by_its_record_whoever_else_has_written() {
    let Some(stage) = KafkaStage::shared().await else { return };
    let (mine, zombie) = (stage.journal().resolved().unwrap(), stage.journal().resolved().unwrap());
    let mut named = Vec::new();
    for n in 0..20 {
        let text = format!("mine-{n}");
        named.push((mine.append(WORKSPACE, Partition(0), &block([&text])).await.unwrap(), text));
        zombie.append(WORKSPACE, Partition(0), &block([format!("late-{n}")])).await.unwrap();
    }
    let reader = stage.journal().resolved().unwrap();
    for (record, text) in named.iter().chain(named.iter().rev()) {
        let payload = reader.read(WORKSPACE, Partition(0), *record).await.unwrap();
        assert_eq!(block([text]).header.events(&payload).unwrap(), [text.as_bytes()]);
    }
    reader.trim(WORKSPACE, Partition(0), named[10].0).await.unwrap();
    assert!(stage.journal().resolved().unwrap().read(WORKSPACE, Partition(0), named[9].0).await.is_err());
    reader.read(WORKSPACE, Partition(0), named[10].0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_as_durability_needs_and_a_change_for_the_worse_is_told() {
    let Some(stage) = KafkaStage::shared().await else { return };
    let journal = stage.journal();
    append(&journal, 5, "a", 1).await;
    let told = journal.weaknesses().await.unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("kafka_replication is 1"), "one broker has no second replica: {told:?}");

    let admin: AdminClient<DefaultClientContext> = stage.client().create().unwrap();
    let topic = stage.topic();
    let worse = AlterConfig::new(ResourceSpecifier::Topic(&topic))
        .set("retention.ms", "86400000")
        .set("unclean.leader.election.enable", "true");
    admin.alter_configs([&worse], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let told = tracklayer_testkit::eventually_seen("the change to be told", async || {
        let told = journal.weaknesses().await.unwrap();
        if told.len() >= 3 { Ok(told.join("\n")) } else { Err(format!("{told:?}")) }
    })
    .await;
    assert!(told.contains("retention.ms=86400000 instead of -1"), "{told}");
    assert!(told.contains("unclean.leader.election.enable=true"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_beyond_those_of_the_topic_is_made_before_it_is_written() {
    let Some(stage) = KafkaStage::shared().await else { return };
    let journals: Vec<Arc<dyn Journal>> = vec![stage.journal(), stage.journal()];
    append(&journals[0], 0, "a", 1).await;
    append(&journals[1], 9, "b", 1).await;
    append(&journals[0], 9, "c", 1).await;
    let (blocks, _) = read(&journals[0], beginning(9), 2).await;
    assert_eq!(events(&blocks).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_trimmed_under_a_reader_is_told_as_a_change_of_the_log() {
    let Some(stage) = KafkaStage::shared().await else { return };
    let journal = stage.journal();
    // More than a reader fetches ahead.
    for _ in 0..6 {
        let noise = (0..150_000).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect::<String>();
        let block = block([noise]);
        tracklayer_testkit::append(journal.as_ref(), WORKSPACE, Partition(0), &block).await.unwrap();
    }
    let (all, end) = read(&stage.journal(), beginning(0), 6).await;
    let before_the_last = beginning(0).after(&all, 5);
    assert_eq!(journal.read(WORKSPACE, beginning(0), Most::blocks(1)).await.unwrap().len(), 1);

    stage.journal().trim(&[(WORKSPACE, end)]).await.unwrap();
    let place = beginning(0).after(&all, 4);
    tracklayer_testkit::eventually_seen("the reader to hear of it", async || {
        match journal.read(WORKSPACE, place, Most::blocks(1)).await {
            Err(JournalError::Changed { .. }) => Ok(()),
            Ok(blocks) if blocks.is_empty() => Err("nothing yet"),
            other => panic!("{other:?}"),
        }
    })
    .await;
    assert_eq!(journal.read(WORKSPACE, before_the_last, Most::blocks(1)).await.unwrap().len(), 1);
}

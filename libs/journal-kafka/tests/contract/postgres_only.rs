//! What only the journal over PostgreSQL has: days.

use tracklayer_ids::Position;

use crate::stage::{PostgresStage, Stage, WORKSPACE, append};

/// Time partitions that are there, without today's and later ones.
async fn past_days(stage: &PostgresStage) -> Vec<String> {
    sqlx::query_scalar(
        "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = 'journal.received'::regclass and c.relname ~ '^received_[0-9]+$'
           and to_date(substr(c.relname, 10), 'YYYYMMDD') < (now() at time zone 'utc')::date order by 1",
    )
    .fetch_all(stage.pool())
    .await
    .unwrap()
}

/// Moves everything that stands there into a time partition of some days ago.
async fn age(stage: &PostgresStage, days: i32) {
    let name = format!("make_day_{days}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "create function {name}() returns void language plpgsql as $$
         declare
             day date := (now() at time zone 'utc')::date - {days};
             name text := 'received_' || to_char(day, 'YYYYMMDD');
         begin
             execute format('create table journal.%I (like journal.received including all)', name);
             execute format('alter table journal.received attach partition journal.%I for values from (%L) to (%L)',
                            name, day, day + 1);
             update journal.received set appended_on = day where appended_on = (now() at time zone 'utc')::date;
         end $$;
         select {name}();"
    )))
    .execute(stage.pool())
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_day_is_dropped_when_all_of_it_is_read_and_not_before() {
    let stage = PostgresStage::shared().await;
    let journal = stage.journal();
    append(&journal, 0, "old", 3).await;
    append(&journal, 1, "old", 2).await;
    age(&stage, 3).await;
    append(&journal, 0, "newer", 3).await;
    age(&stage, 2).await;
    append(&journal, 0, "today", 1).await;
    assert_eq!(past_days(&stage).await.len(), 2);

    let trim = async |zero: u64, one: Option<u64>| {
        let places = [Some((0, zero)), one.map(|one| (1, one))].into_iter().flatten();
        let behind: Vec<_> = places.map(|(p, o)| (WORKSPACE, Position::new(1, p, o).into())).collect();
        journal.trim(&behind).await.unwrap();
        past_days(&stage).await.len()
    };
    assert_eq!(trim(3, None).await, 2, "of partition 1 nobody has said anything");
    assert_eq!(trim(2, Some(2)).await, 2, "one event is not read");
    assert_eq!(trim(3, Some(1)).await, 2, "one of the other partition is not");
    assert_eq!(trim(3, Some(2)).await, 1, "the first day is read");
    assert_eq!(trim(7, Some(2)).await, 0, "both are");
    let (left,): (i64,) =
        sqlx::query_as("select count(*) from journal.received").fetch_one(stage.pool()).await.unwrap();
    assert_eq!(left, 1, "today stays, read or not");
    assert_eq!(dropped(&stage).await, [(0, 0, 6, 6), (1, 0, 2, 2)], "and what was there is counted");
}

/// What was counted of dropped days: partition, first and next offset, events by the headers.
async fn dropped(stage: &PostgresStage) -> Vec<(i32, i64, i64, i64)> {
    sqlx::query_as(
        "select partition, first_offset, next_offset, counted from journal.dropped order by partition, first_offset",
    )
    .fetch_all(stage.pool())
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_with_more_in_it_than_was_counted_is_not_dropped() {
    let stage = PostgresStage::shared().await;
    let journal = stage.journal();
    append(&journal, 0, "counted", 3).await;
    append(&journal, 0, "late", 2).await;
    age(&stage, 1).await;
    let drop = async |next: i64| {
        sqlx::query("select journal.drop_day((now() at time zone 'utc')::date - 1, '{7}', '{0}', '{1}', '{0}', $1, $1)")
            .bind(vec![next])
            .execute(stage.pool())
            .await
    };
    let refused = drop(3).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("40001"), "{refused}");
    assert_eq!((past_days(&stage).await.len(), dropped(&stage).await.len()), (1, 0));
    drop(5).await.unwrap();
    assert_eq!((past_days(&stage).await.len(), dropped(&stage).await), (0, vec![(0, 0, 5, 5)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_default_partition_is_given_back_as_well() {
    let stage = PostgresStage::shared().await;
    let journal = stage.journal();
    append(&journal, 0, "of a day without a partition", 3).await;
    sqlx::query("update journal.received set appended_on = '2020-01-01'")
        .execute(stage.pool())
        .await
        .unwrap();
    append(&journal, 0, "today", 1).await;
    for (place, left) in [(2, 2), (3, 1)] {
        journal.trim(&[(WORKSPACE, Position::new(1, 0, place).into())]).await.unwrap();
        let (blocks,): (i64,) =
            sqlx::query_as("select count(*) from journal.received").fetch_one(stage.pool()).await.unwrap();
        assert_eq!(blocks, left);
    }
    assert_eq!(dropped(&stage).await, [(0, 0, 3, 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_crossed_at_midnight_become_one_range_when_both_days_are_gone() {
    let stage = PostgresStage::shared().await;
    let journal = stage.journal();
    for events in [3, 2, 4, 1] {
        append(&journal, 0, "event", events).await;
    }
    age(&stage, 1).await;
    // What was appended second got its offsets after what began on the next day.
    let crossed = "create table journal.received_20200101 partition of journal.received
                       for values from ('2020-01-01') to ('2020-01-02');
                   update journal.received set appended_on = '2020-01-01' where base_offset in (0, 5)";
    sqlx::raw_sql(crossed).execute(stage.pool()).await.unwrap();
    let trim = async |place| {
        journal.trim(&[(WORKSPACE, Position::new(1, 0, place).into())]).await.unwrap();
        dropped(&stage).await
    };
    assert_eq!(trim(9).await, [(0, 0, 3, 3), (0, 5, 9, 4)]);
    assert_eq!(trim(10).await, [(0, 0, 10, 10)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_of_the_journal_is_seen() {
    let stage = PostgresStage::shared().await;
    let journal = stage.journal();
    let before = journal.stored_bytes().await.unwrap().unwrap();
    sqlx::query("insert into journal.received values (7, 0, 1, 0, 1, default, default, '', convert_to(repeat('x', 1000000), 'utf8'))")
        .execute(stage.pool())
        .await
        .unwrap();
    let grown = journal.stored_bytes().await.unwrap().unwrap() - before;
    assert!((1_000_000..1_300_000).contains(&grown), "{grown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_fsync_and_without_a_standby_says_so() {
    let stage = PostgresStage::shared().await;
    let weaknesses = stage.journal().weaknesses().await.unwrap().join("\n");
    assert!(weaknesses.contains("fsync is off"), "{weaknesses}");
    assert!(weaknesses.contains("no synchronous standby"), "{weaknesses}");
}

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
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_fsync_and_without_a_standby_says_so() {
    let stage = PostgresStage::shared().await;
    let weaknesses = stage.journal().weaknesses().await.unwrap().join("\n");
    assert!(weaknesses.contains("fsync is off"), "{weaknesses}");
    assert!(weaknesses.contains("no synchronous standby"), "{weaknesses}");
}

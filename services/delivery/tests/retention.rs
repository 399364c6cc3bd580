//! Days are given back when everybody is past them, and the books balance to the event over it: real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use sqlx::AssertSqlSafe;
use sqlx::migrate::Migrator;
use tracklayer_delivery::balance::{Balance, Balances};
use tracklayer_delivery::ledger::{LedgerEntries, State, Verdict};
use tracklayer_delivery::retention::DayKeeper;
use tracklayer_delivery::store::StoreError;
use tracklayer_delivery::store::index::Index;
use tracklayer_delivery::store::resolved::ResolvedStore;
use tracklayer_delivery::store::retention::RetentionStore;
use tracklayer_delivery::store::stats::StatsStore;
use tracklayer_ids::{Partition, Position, SourceId, WorkspaceId};
use tracklayer_journal::{Block, BlockBuilder, FEATURE_LEVEL, Journal as _, JournalError, PostgresJournal};
use tracklayer_proto::control::v1::{ConnectionConfig, WatchConfigResponse, WorkspaceConfig};
use tracklayer_rpc::follow::{ConfigWatch, Snapshot};
use tracklayer_testkit::{TestDatabase, eventually};

const WORKSPACE: WorkspaceId = WorkspaceId(1);
/// Of whom the configuration says nothing any more.
const REMOVED: i64 = 9;

struct World {
    database: TestDatabase,
    journal: PostgresJournal,
    keeper: DayKeeper,
}

fn block(events: usize) -> Block {
    let mut builder = BlockBuilder::default();
    (0..events).for_each(|_| builder.push(SourceId(1), 1, b"event"));
    builder.finish().unwrap()
}

/// What control says: these connections.
fn snapshot(connections: &[i64]) -> Snapshot {
    let connections = connections
        .iter()
        .map(|id| ConnectionConfig { connection_id: *id, ..ConnectionConfig::default() })
        .collect();
    let workspace = WorkspaceConfig {
        workspace_id: WORKSPACE.0,
        partitions: 2,
        connections,
        ..WorkspaceConfig::default()
    };
    Snapshot::new(WatchConfigResponse { version: 1, workspaces: vec![workspace] })
}

impl World {
    async fn new() -> Self {
        let database = tracklayer_testkit::database(&[
            ("journal", &tracklayer_journal::MIGRATOR),
            ("delivery", &tracklayer_delivery::MIGRATOR),
        ])
        .await;
        let journal = PostgresJournal::new(database.pool.clone());
        journal.ensure_partitions(1).await.unwrap();
        let keeper = DayKeeper {
            journal: Arc::new(journal.clone()),
            store: RetentionStore::new(database.pool.clone()),
            config: ConfigWatch::fixed(WatchConfigResponse::default()),
        };
        let world = Self { database, journal, keeper };
        // What the migration has left takes all days before it: tests make days of their own.
        world
            .run(
                "do $$ begin
                     execute (select 'drop table ' || c.oid::regclass from pg_inherits i join pg_class c on c.oid = i.inhrelid
                              where i.inhparent = 'delivery.resolved'::regclass
                                and pg_get_expr(c.relpartbound, c.oid) like '%MINVALUE%');
                     perform delivery.ensure_days(1);
                 end $$",
            )
            .await;
        world
    }

    async fn run(&self, sql: impl Into<String>) {
        sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(&self.database.pool).await.unwrap();
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.database.pool).await.unwrap()
    }

    async fn append(&self, partition: u32, events: usize) {
        let block = block(events);
        tracklayer_testkit::append(&self.journal, WORKSPACE, Partition(partition), &block).await.unwrap();
    }

    /// Resolve stands there, and what it has resolved since is one block.
    async fn resolve(&self, partition: i32, from: i64, to: i64) {
        let block = block(usize::try_from(to - from).unwrap());
        sqlx::query(
            "insert into delivery.resolved
                 (workspace_id, partition, generation, base_offset, event_count, header, payload)
             values ($1, $2, 1, $3, $4, $5, $6)",
        )
        .bind(WORKSPACE.0)
        .bind(partition)
        .bind(from)
        .bind(i32::try_from(to - from).unwrap())
        .bind(&block.header_bytes)
        .bind(&block.payload)
        .execute(&self.database.pool)
        .await
        .unwrap();
        self.run(format!(
            "insert into delivery.resolve_cursor values ({}, {partition}, 1, {to})
             on conflict on constraint resolve_cursor_pkey do update set next_offset = {to}",
            WORKSPACE.0
        ))
        .await;
    }

    /// A lane has delivered a range; one that had not begun begins with it.
    async fn settle(&self, connection: i64, partition: i32, from: i64, to: i64) {
        let delivered: Vec<Verdict> = (from..to).map(|_| Verdict::of(State::Delivered, "")).collect();
        let entries = LedgerEntries::pack(delivered.iter()).encode_to_vec();
        sqlx::query("insert into delivery.ledger_block (workspace_id, connection_id, partition, generation, base_offset, event_count, epoch, entries) values ($1, $2, $3, 1, $4, $5, 1, $6)")
            .bind(WORKSPACE.0)
            .bind(connection)
            .bind(partition)
            .bind(from)
            .bind(i32::try_from(to - from).unwrap())
            .bind(entries)
            .execute(&self.database.pool)
            .await
            .unwrap();
        self.run(format!(
            "insert into delivery.lane_cursor values ({}, {connection}, {partition}, 1, {from}, 1, {to})
             on conflict on constraint lane_cursor_pkey do update set next_offset = {to}",
            WORKSPACE.0
        ))
        .await;
    }

    /// Moves what came today into a day of its own, so long ago.
    async fn age(&self, days: i32) {
        for (table, column) in [("journal.received", "appended_on"), ("delivery.resolved", "resolved_on")] {
            self.run(format!(
                "do $$
                 declare
                     today date := (now() at time zone 'utc')::date;
                     day date := today - {days};
                     name text := '{table}_' || to_char(day, 'YYYYMMDD');
                 begin
                     execute format('create table %s (like {table} including all)', name);
                     execute format('alter table {table} attach partition %s for values from (%L) to (%L)',
                                    name, day, day + 1);
                     update {table} set {column} = day where {column} = today;
                 end $$;"
            ))
            .await;
        }
    }

    async fn give_back(&self, connections: &[i64]) {
        // The call before held the lock by its connection, which the server ends a moment after it was dropped.
        eventually("the lock to be free", async || {
            let held = "select count(*) from pg_locks l join pg_database d on d.oid = l.database
                        where l.locktype = 'advisory' and d.datname = current_database()";
            (self.number(held).await == 0).then_some(())
        })
        .await;
        self.keeper.give_back(&snapshot(connections)).await.unwrap();
    }

    async fn kept(&self) -> i64 {
        self.number("select coalesce(sum(event_count), 0)::bigint from journal.received").await
    }

    async fn resolved_kept(&self) -> i64 {
        self.number("select coalesce(sum(event_count), 0)::bigint from delivery.resolved").await
    }

    async fn books(&self) -> (u64, BTreeMap<i64, Balance>) {
        let mut balances = Balances::default();
        StatsStore::new(self.database.pool.clone()).read_books(WORKSPACE, &mut balances).await.unwrap();
        (balances.received, balances.finish())
    }

    /// Two days and today: partition 0 with 5, 4 and 2 events, partition 1 with 3, 3 and 1. Of today one event waits in
    /// each at connection 7, which began with the first; connection 8 began in the middle of the second day.
    async fn of_three_days() -> Self {
        let world = Self::new().await;
        let days = [(0, [(0, 5), (5, 9), (9, 11)]), (1, [(0, 3), (3, 6), (6, 7)])];
        for (day, age) in [(0, Some(3)), (1, Some(2)), (2, None)] {
            for (partition, ranges) in days {
                let (from, to): (i64, i64) = ranges[day];
                let events = usize::try_from(to - from).unwrap();
                let number = u32::try_from(partition).unwrap();
                if day == 1 {
                    world.append(number, 1).await;
                    world.append(number, events - 1).await;
                    world.settle(8, partition, from + 1, to).await;
                } else {
                    world.append(number, events).await;
                }
                world.resolve(partition, from, to).await;
                world.settle(7, partition, from, if age.is_some() { to } else { to - 1 }).await;
            }
            if let Some(age) = age {
                world.age(age).await;
            }
        }
        world
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_say_the_same_when_days_are_dropped() {
    let world = World::of_three_days().await;
    world.settle(8, 0, 9, 11).await;
    let before = world.books().await;
    assert_eq!(before.0, 18);
    assert_eq!((before.1[&7].accepted, before.1[&8].accepted), (18, 8));
    assert!(before.1.values().all(Balance::is_clean), "{before:?}");

    world.give_back(&[7, 8]).await;
    assert_eq!(world.kept().await, 3, "today stays");
    assert_eq!(world.books().await, before);
    assert_eq!(world.number("select count(*) from journal.dropped").await, 2, "one range for each partition");
    assert_eq!(world.resolved_kept().await, 18, "claims may have to be rebuilt from it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_stays_until_the_last_cursor_is_past_it() {
    let world = World::of_three_days().await;
    let set = async |table: &str, next: i64| {
        world.run(format!("update delivery.{table} set next_offset = {next} where partition = 1")).await;
    };
    set("resolve_cursor", 2).await;
    world.give_back(&[7, 8]).await;
    assert_eq!(world.kept().await, 18, "one event of the first day is not resolved");
    set("resolve_cursor", 7).await;
    set("lane_cursor", 5).await;
    world.give_back(&[7, 8]).await;
    assert_eq!(world.kept().await, 10, "one of the second waits for its lanes");
    set("lane_cursor", 6).await;
    world.give_back(&[7, 8]).await;
    assert_eq!(world.kept().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_is_told_up_to_where_the_last_cursor_has_read() {
    let world = World::of_three_days().await;
    let tell = async |connections: Vec<i64>| {
        world.keeper.tell_read(&snapshot(&connections)).await.unwrap();
        let told = "select partition, generation, next_offset from journal.read_place where workspace_id = 1 order by 1";
        let told: Vec<(i32, i32, i64)> = sqlx::query_as(told).fetch_all(&world.database.pool).await.unwrap();
        told.into_iter().filter(|place| place.2 > 0).collect::<Vec<_>>()
    };
    assert_eq!(tell(vec![7, 8]).await, [(0, 1, 9), (1, 1, 6)], "8 has read nothing of today");
    assert_eq!(tell(vec![7]).await, [(0, 1, 9), (1, 1, 6)], "somebody has told a moment ago");
    world.run("update journal.read_told set told_at = told_at - interval '1 minute'").await;
    assert_eq!(tell(vec![7]).await, [(0, 1, 10), (1, 1, 6)]);
    assert_eq!(world.kept().await, 18, "nothing is dropped for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_no_more_holds_nothing_back_and_what_it_leaves_is_counted() {
    let world = World::of_three_days().await;
    world.settle(REMOVED, 0, 0, 2).await;
    let before = world.books().await;
    let held = format!(
        "insert into delivery.lease values (1, {REMOVED}, 0, gen_random_uuid(), 1, now() + interval '1 hour')"
    );
    world.run(held).await;
    world.give_back(&[7, 8]).await;
    assert_eq!(world.kept().await, 18, "whoever holds its lane may have heard of it first");
    world.run("update delivery.lease set expires_at = now() - interval '1 second'").await;
    world.give_back(&[7, 8]).await;
    assert_eq!(world.kept().await, 3);
    let after = world.books().await;
    assert_eq!(after, before);
    assert_eq!(after.1[&REMOVED].accepted, 11);
    assert_eq!(after.1[&REMOVED].states[&(State::Waiting, String::new())], 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_begun_to_read_is_kept() {
    let world = World::of_three_days().await;
    // A workspace that control does not name: it was removed, or this process has not heard of it yet.
    let unknown = WorkspaceId(77);
    tracklayer_testkit::append(&world.journal, unknown, Partition(0), &block(4)).await.unwrap();
    world.run("update journal.received set appended_on = appended_on - 3 where workspace_id = 77").await;
    world.give_back(&[7, 8]).await;
    assert_eq!(world.kept().await, 22);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_read_keeps_its_day_and_appends_go_on() {
    let world = World::of_three_days().await;
    let mut reader = world.database.pool.begin().await.unwrap();
    sqlx::query("select count(*) from journal.received").execute(&mut *reader).await.unwrap();
    world.give_back(&[7, 8]).await;
    world.append(0, 1).await;
    let seen: i64 = sqlx::query_scalar("select sum(event_count)::bigint from journal.received")
        .fetch_one(&mut *reader)
        .await
        .unwrap();
    assert_eq!(seen, 19);
    drop(reader);
    eventually("the days to be dropped when the reader has gone", async || {
        world.give_back(&[7, 8]).await;
        (world.kept().await == 4).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_day_is_dropped_in_the_middle_of_the_books() {
    let world = World::of_three_days().await;
    let before = world.books().await;
    let behind = world.keeper.store.least_places(&[]).await.unwrap();
    // The books have begun, and their first look at a table waits.
    let mut held = world.database.pool.begin().await.unwrap();
    sqlx::query("lock table delivery.lane_cursor in access exclusive mode")
        .execute(&mut *held)
        .await
        .unwrap();
    let (books, ()) = tokio::join!(world.books(), async {
        eventually("the books to wait", async || {
            let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%delivery.lane_cursor%' and datname = current_database()";
            (world.number(waiting).await == 1).then_some(())
        })
        .await;
        world.journal.trim(&behind).await.unwrap();
        drop(held);
    });
    assert_eq!(books, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_gives_back_at_a_time() {
    let world = World::of_three_days().await;
    let other = world.keeper.store.lock().await.unwrap().unwrap();
    assert_eq!(world.keeper.give_back(&snapshot(&[7, 8])).await.unwrap(), None);
    assert_eq!(world.kept().await, 18);
    drop(other);
    world.give_back(&[7, 8]).await;
    assert_eq!(world.kept().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_resolved_is_kept_as_long_as_any_claim_and_until_the_lanes_are_past_it() {
    let world = World::new().await;
    for (from, age) in [(0, 10), (2, 9), (4, 7)] {
        world.append(0, 2).await;
        world.resolve(0, from, from + 2).await;
        world.age(age).await;
    }
    world.settle(7, 0, 0, 3).await;
    world.give_back(&[7]).await;
    assert_eq!(world.resolved_kept().await, 4, "the lane stands in the middle of the second day");
    world.settle(7, 0, 3, 6).await;
    world.give_back(&[7]).await;
    assert_eq!(world.resolved_kept().await, 2, "a claim of seven days ago may have to be made again");
    assert!(world.books().await.1[&7].is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_to_the_default_partition_goes_like_any_day() {
    let world = World::new().await;
    world.append(0, 4).await;
    for (from, days) in [(0, 10), (2, 9)] {
        world.resolve(0, from, from + 2).await;
        world
            .run(format!(
                "update delivery.resolved set resolved_on = resolved_on - {days} where base_offset = {from}"
            ))
            .await;
    }
    assert_eq!(world.number("select count(*) from delivery.resolved_default").await, 2);
    world.settle(7, 0, 0, 3).await;
    world.give_back(&[7]).await;
    assert_eq!(world.resolved_kept().await, 2, "the lane stands in the middle of the second day");
    world.settle(7, 0, 3, 4).await;
    world.give_back(&[7]).await;
    assert_eq!(world.resolved_kept().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_reads_a_partition_at_a_time_and_no_day_that_is_too_old() {
    let world = World::new().await;
    world.resolve(0, 0, 2).await;
    world.age(9).await;
    for (partition, from) in [(0, 2), (1, 0), (0, 4), (0, 6)] {
        world.resolve(partition, from, from + 2).await;
    }
    let resolved = ResolvedStore::new(Index::new(world.database.pool.clone()));
    let since = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(8 * 24);
    let page = async |after, limit| {
        let read = resolved.blocks_since(WORKSPACE, Partition(0), since, after, limit).await.unwrap();
        read.iter().map(|dated| dated.block.first).collect::<Vec<_>>()
    };
    let at = |offset| Position::new(1, 0, offset);
    assert_eq!(page(None, 2).await, [at(2), at(4)]);
    assert_eq!(page(Some(at(4)), 2).await, [at(6)]);
    assert!(page(Some(at(6)), 2).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_of_a_newer_writer_is_told_from_one_that_is_broken() {
    let world = World::new().await;
    world.resolve(0, 0, 2).await;
    let mut header = block(2).header;
    header.feature_level = FEATURE_LEVEL + 1;
    sqlx::query("update delivery.resolved set header = $1")
        .bind(header.encode_to_vec())
        .execute(&world.database.pool)
        .await
        .unwrap();
    let resolved = ResolvedStore::new(Index::new(world.database.pool.clone()));
    let read = resolved.read(WORKSPACE, Position::new(1, 0, 0), 1).await;
    assert!(matches!(read, Err(StoreError::Newer { .. })), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_any_more_is_not_taken_for_what_stands_behind_it() {
    let world = World::new().await;
    world.append(0, 2).await;
    world.resolve(0, 0, 2).await;
    world.settle(7, 0, 0, 2).await;
    world.age(9).await;
    world.append(0, 2).await;
    world.resolve(0, 2, 4).await;
    world.give_back(&[7]).await;
    let resolved = ResolvedStore::new(Index::new(world.database.pool.clone()));
    let read = resolved.read(WORKSPACE, Position::new(1, 0, 1), 1).await;
    assert!(matches!(read, Err(StoreError::Trimmed)), "{read:?}");
    assert_eq!(resolved.read(WORKSPACE, Position::new(1, 0, 3), 1).await.unwrap().len(), 1);
    let read = world.journal.read(WORKSPACE, Position::new(1, 0, 1), 1).await;
    assert!(matches!(read, Err(JournalError::Trimmed { .. })), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_before_the_days_are_kept_and_go_like_any_day() {
    let database = tracklayer_testkit::database(&[("journal", &tracklayer_journal::MIGRATOR)]).await;
    let all = &tracklayer_delivery::MIGRATOR;
    let before = Migrator {
        migrations: Cow::Owned(all.iter().filter(|migration| migration.version < 6).cloned().collect()),
        ignore_missing: all.ignore_missing,
        locking: all.locking,
        no_tx: all.no_tx,
        table_name: all.table_name.clone(),
        create_schemas: all.create_schemas.clone(),
    };
    tracklayer_postgres::migrate(&database.pool, "delivery", &before).await.unwrap();
    sqlx::query("insert into delivery.resolved values (1, 0, 1, 0, 3, now() - interval '30 days', $1, $2)")
        .bind(&block(3).header_bytes)
        .bind(&block(3).payload)
        .execute(&database.pool)
        .await
        .unwrap();
    tracklayer_postgres::migrate(&database.pool, "delivery", all).await.unwrap();
    let resolved = ResolvedStore::new(Index::new(database.pool.clone()));
    assert_eq!(resolved.read(WORKSPACE, Position::new(1, 0, 0), 1).await.unwrap()[0].end().0, 3);
    let store = RetentionStore::new(database.pool.clone());
    store.ensure_days(5).await.unwrap();
    let (days,): (i64,) =
        sqlx::query_as("select count(*) from pg_inherits where inhparent = 'delivery.resolved'::regclass")
            .fetch_one(&database.pool)
            .await
            .unwrap();
    assert_eq!(days, 7, "today with all before it, five more, and the default");
    assert_eq!(store.drop_settled_days(jiff::Timestamp::now(), &[]).await.unwrap(), 0, "today stays");

    // Nine days later.
    sqlx::raw_sql(
        "do $$
         declare
             today date := (now() at time zone 'utc')::date;
             was text := 'resolved_' || to_char(today, 'YYYYMMDD');
             old text := 'resolved_' || to_char(today - 9, 'YYYYMMDD');
         begin
             execute format('alter table delivery.resolved detach partition delivery.%I', was);
             execute format('alter table delivery.%I rename to %I', was, old);
             execute format('update delivery.%I set resolved_on = resolved_on - 9', old);
             execute format('alter table delivery.resolved attach partition delivery.%I for values from (minvalue) to (%L)',
                            old, today - 8);
         end $$;
         select delivery.ensure_days(0);
         insert into delivery.resolved (workspace_id, partition, generation, base_offset, event_count, header, payload)
         select workspace_id, partition, generation, 3, event_count, header, payload from delivery.resolved;
         insert into delivery.resolve_cursor values (1, 0, 1, 6)",
    )
    .execute(&database.pool)
    .await
    .unwrap();
    let since = async |days: i64| {
        let since = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(days * 24);
        let read = resolved.blocks_since(WORKSPACE, Partition(0), since, None, 9).await.unwrap();
        read.iter().map(|dated| dated.block.first.offset.0).collect::<Vec<_>>()
    };
    assert_eq!((since(31).await, since(29).await), (vec![0, 3], vec![3]), "a rebuild reads over both");
    let now = jiff::Timestamp::now();
    let behind = |offset| [(WORKSPACE, Position::new(1, 0, offset).into())];
    assert_eq!(store.drop_settled_days(now, &behind(2)).await.unwrap(), 0, "one is waited for");
    assert_eq!(store.drop_settled_days(now, &behind(3)).await.unwrap(), 1);
    assert_eq!(since(31).await, [3]);
}

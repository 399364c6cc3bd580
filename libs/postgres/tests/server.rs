//! Pool, migrations and errors against a real server.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::migrate::Migrator;
use tracklayer_ids::Secret;
use tracklayer_local::{LocalPostgres, PgOptions};
use tracklayer_postgres::{
    Limits, OnConstraint as _, PostgresError, begin, connect, connect_with, constraint, hold, is_migrated,
    is_unavailable, migrate,
};
use tracklayer_testkit::database;

static FIRST: Migrator = sqlx::migrate!("tests/first");
static CHANGED: Migrator = sqlx::migrate!("tests/changed");
static BROKEN: Migrator = sqlx::migrate!("tests/broken");
static SLOW: Migrator = sqlx::migrate!("tests/slow");

#[tokio::test]
async fn replicas_that_migrate_together_do_not_race() {
    let database = database(&[]).await;
    let pool = &database.pool;
    assert!(!is_migrated(pool, "sample", &SLOW).await.unwrap());
    let all = futures::future::join_all((0..6).map(|_| migrate(pool, "sample", &SLOW))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert!(is_migrated(pool, "sample", &SLOW).await.unwrap());
    let applied: i64 =
        sqlx::query_scalar("select count(*) from sample._migration").fetch_one(pool).await.unwrap();
    assert_eq!(applied, 2);
}

#[tokio::test]
async fn each_schema_has_a_history_of_its_own() {
    let database = database(&[("sample", &FIRST)]).await;
    // The same numbers in another schema are other migrations; here they fail, since the table is there already.
    let refused = migrate(&database.pool, "other", &FIRST).await;
    assert!(matches!(refused, Err(PostgresError::Migrate { schema: "other", .. })), "{refused:?}");
    assert!(is_migrated(&database.pool, "sample", &FIRST).await.unwrap());
    assert!(!is_migrated(&database.pool, "other", &FIRST).await.unwrap());
}

#[tokio::test]
async fn a_migration_that_was_changed_after_it_was_applied_is_refused() {
    let database = database(&[("sample", &FIRST)]).await;
    let refused = migrate(&database.pool, "sample", &CHANGED).await;
    assert!(matches!(refused, Err(PostgresError::Migrate { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_behind_and_holds_no_lock() {
    let database = database(&[("sample", &FIRST)]).await;
    assert!(migrate(&database.pool, "sample", &BROKEN).await.is_err());
    let half: bool = sqlx::query_scalar("select to_regclass('sample.half') is not null")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert!(!half);
    // An older binary does not know the newer migration only if that was applied: it was not.
    migrate(&database.pool, "sample", &FIRST).await.unwrap();
}

#[tokio::test]
async fn a_broken_constraint_becomes_the_error_of_the_statement() {
    #[derive(Debug, thiserror::Error)]
    enum NoteError {
        #[error("the text is taken")]
        Taken,
        #[error("the store failed")]
        Store(#[from] sqlx::Error),
    }
    let database = database(&[("sample", &FIRST)]).await;
    let insert = async |id: i32, text: Option<&str>| {
        let statement = sqlx::query("insert into sample.note values ($1, $2)").bind(id).bind(text);
        statement.execute(&database.pool).await.on_constraint("note_text_key", || NoteError::Taken)
    };
    insert(1, Some("a")).await.unwrap();
    assert!(matches!(insert(2, Some("a")).await, Err(NoteError::Taken)));
    match insert(1, Some("b")).await {
        Err(NoteError::Store(error)) => {
            assert_eq!(constraint(&error), Some("note_pkey"));
            assert!(!is_unavailable(&error));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_statement_ends_at_its_limit_and_counts_as_unavailable() {
    let database = database(&[]).await;
    let limits = Limits { statement_timeout: Some(Duration::from_millis(50)), ..Limits::new(2) };
    let pool = connect_with(&database.secret_url(), limits).await.unwrap();
    let cut = sqlx::query("select pg_sleep(20)").execute(&pool).await.unwrap_err();
    assert!(is_unavailable(&cut), "{cut}");
    // A migration takes as long as it takes.
    migrate(&pool, "sample", &FIRST).await.unwrap();
}

#[tokio::test]
async fn a_plan_of_a_small_table_is_by_index_where_the_table_may_grow() {
    let database = database(&[]).await;
    let plan = async |limits: Limits| -> String {
        let pool = connect_with(&database.secret_url(), limits).await.unwrap();
        sqlx::query_scalar("explain select * from grows where id = 5").fetch_one(&pool).await.unwrap()
    };
    let pool = connect(&database.secret_url(), 1).await.unwrap();
    sqlx::raw_sql("create table grows (id bigint primary key); insert into grows values (5); analyze grows")
        .execute(&pool)
        .await
        .unwrap();
    assert!(plan(Limits::new(1)).await.starts_with("Seq Scan"));
    assert!(plan(Limits::new(1).by_index_only()).await.starts_with("Index Only Scan"));
}

#[tokio::test]
async fn a_refusal_is_told_at_once_and_without_the_password() {
    let database = database(&[]).await;
    let (server, _) = database.url.rsplit_once('/').unwrap();
    let started = std::time::Instant::now();
    let refused = connect(&Secret::new(format!("{server}/nowhere")), 1).await.unwrap_err();
    assert!(matches!(refused, PostgresError::Connect(_)), "{refused:?}");
    assert!(started.elapsed() < Duration::from_secs(10));

    let nonsense = connect(&Secret::new("postgres://u:hush@h:port/d".to_owned()), 1).await.unwrap_err();
    assert!(matches!(nonsense, PostgresError::BadAddress(_)));
    assert!(!format!("{nonsense} {nonsense:?}").contains("hush"));
}

#[tokio::test]
async fn a_pool_outlives_a_restart_of_the_server() {
    let folder = std::env::temp_dir().join(format!("tracklayer-restart-{}", std::process::id()));
    let options = |port| PgOptions {
        data_dir: folder.clone(),
        port,
        persistent: true,
        settings: Vec::new(),
        environment: Vec::new(),
    };
    let server = LocalPostgres::start(options(None)).await.unwrap();
    let (port, url) = (server.port(), Secret::new(server.url().to_owned()));
    let pool = connect(&url, 2).await.unwrap();
    server.stop().await.unwrap();
    let away = sqlx::query("select 1").execute(&pool).await.unwrap_err();
    assert!(is_unavailable(&away), "{away:?}");
    let server = LocalPostgres::start(options(Some(port))).await.unwrap();
    let one: i32 = sqlx::query_scalar("select 1").fetch_one(&pool).await.unwrap();
    assert_eq!(one, 1);
    server.stop().await.unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

/// Polls a future so often, and drops it.
async fn broken_off<F: Future>(future: F, polls: u32) {
    let mut future = std::pin::pin!(future);
    for _ in 0..polls {
        if futures::poll!(future.as_mut()).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_follows_a_transaction_whose_beginning_was_broken_off_is_durable() {
    let database = database(&[]).await;
    let one = connect(&Secret::new(database.url.clone()), 1).await.unwrap();
    sqlx::query("create table told (polls integer, by_pool boolean)").execute(&one).await.unwrap();
    // Somewhere in between the BEGIN is on its way.
    for polls in 1..400 {
        for by_pool in [true, false] {
            if by_pool {
                broken_off(begin(&one), polls).await;
            } else {
                let beginning = async {
                    let mut held = hold(&one).await.unwrap();
                    drop(held.begin().await.unwrap());
                    held.give_back();
                };
                broken_off(beginning, polls).await;
            }
            sqlx::query("insert into told values ($1, $2)")
                .bind(polls.cast_signed())
                .bind(by_pool)
                .execute(&one)
                .await
                .unwrap();
            let seen: i64 = sqlx::query_scalar("select count(*) from told where polls = $1 and by_pool = $2")
                .bind(polls.cast_signed())
                .bind(by_pool)
                .fetch_one(&database.pool)
                .await
                .unwrap();
            assert_eq!(seen, 1, "after {polls} polls, by the pool: {by_pool}");
        }
    }
}

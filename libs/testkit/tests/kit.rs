//! The kit against the real servers that it starts.

#![allow(clippy::unwrap_used)]

use tracklayer_testkit::{database, eventually, redis};

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("tests/migrations");

#[tokio::test]
async fn each_test_has_a_migrated_database_of_its_own() {
    let one = database(&[("sample", &MIGRATOR)]).await;
    let two = database(&[("sample", &MIGRATOR)]).await;
    sqlx::query("insert into sample.note values (1, 'a')").execute(&one.pool).await.unwrap();
    let count = "select count(*) from sample.note";
    let in_one: i64 = sqlx::query_scalar(count).fetch_one(&one.pool).await.unwrap();
    let in_two: i64 = sqlx::query_scalar(count).fetch_one(&two.pool).await.unwrap();
    assert_eq!((in_one, in_two), (1, 0));
}

#[tokio::test]
async fn a_database_goes_with_its_test() {
    let gone = database(&[]).await;
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&gone.pool).await.unwrap();
    drop(gone);
    let other = database(&[]).await;
    eventually("the database to be dropped", async || {
        let there: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(&name)
            .fetch_one(&other.pool)
            .await
            .unwrap();
        (!there).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_redis_evicts_nothing_and_is_private() {
    let (one, two) = (redis().await, redis().await);
    let client = |url: &str| ::redis::Client::open(url.to_owned()).unwrap();
    let mut first = client(&one.url).get_multiplexed_async_connection().await.unwrap();
    let mut second = client(&two.url).get_multiplexed_async_connection().await.unwrap();
    let () = ::redis::cmd("SET").arg("key").arg(1).query_async(&mut first).await.unwrap();
    let seen: Option<i64> = ::redis::cmd("GET").arg("key").query_async(&mut second).await.unwrap();
    assert_eq!(seen, None);
    let policy: Vec<String> =
        ::redis::cmd("CONFIG").arg("GET").arg("maxmemory-policy").query_async(&mut first).await.unwrap();
    assert_eq!(policy[1], "noeviction");
}

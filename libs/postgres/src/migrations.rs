//! The migration runner.
//!
//! Each service has its tables and its history (`_migration`) in a schema of its own, so that five services share a
//! database without knowing each other. The one trick: the lock is *tried* in a loop on a connection of its own. A
//! session that waits inside `pg_advisory_lock` holds a snapshot, and `create index concurrently` of the session that
//! has the lock waits for that snapshot: a deadlock.

use std::{borrow::Cow, time::Duration};

use sqlx::{Connection as _, PgConnection, PgPool, migrate::Migrator};

use crate::PostgresError;

/// Longest wait for another process's migration.
const PATIENCE: Duration = Duration::from_secs(600);
/// Pause between two looks at the lock.
const PAUSE: Duration = Duration::from_millis(100);
/// Table of applied migrations in each schema.
const HISTORY: &str = "_migration";

/// Creates the schema if it is missing and applies what is not yet applied, in order. Replicas that start together do
/// not race: one migrates, the others wait for it. Safe to repeat.
///
/// # Errors
/// [`PostgresError::Migrate`] if a migration fails (its transaction is rolled back), was changed after it was applied, or is
/// missing here although applied there (an older binary); [`PostgresError::MigrationLocked`] after ten minutes of waiting.
pub async fn migrate(pool: &PgPool, schema: &'static str, migrator: &Migrator) -> Result<(), PostgresError> {
    check_name(schema)?;
    let failed = |source| PostgresError::Migrate { schema, source };
    let mut connection = PgConnection::connect_with(&pool.connect_options()).await?;
    sqlx::query("select set_config('statement_timeout', '0', false)").execute(&mut connection).await?;
    lock(&mut connection, schema).await?;

    let runner = Migrator {
        migrations: migrator.migrations.clone(),
        ignore_missing: migrator.ignore_missing,
        locking: false,
        no_tx: migrator.no_tx,
        table_name: Cow::Owned(format!("{schema}.{HISTORY}")),
        create_schemas: Cow::Owned(vec![Cow::Borrowed(schema)]),
    };
    let outcome = runner.run_direct(None, &mut connection, false).await;
    // Closing ends the session, and with it the lock, whatever the outcome.
    let _ = connection.close().await;
    outcome.map_err(failed)
}

/// Whether every migration is applied: what a service looks at before it says that it is ready.
///
/// # Errors
/// The history cannot be read for another reason than that it does not exist.
pub async fn is_migrated(
    pool: &PgPool,
    schema: &'static str,
    migrator: &Migrator,
) -> Result<bool, PostgresError> {
    check_name(schema)?;
    let history = format!("{schema}.{HISTORY}");
    let exists: bool =
        sqlx::query_scalar("select to_regclass($1) is not null").bind(&history).fetch_one(pool).await?;
    if !exists {
        return Ok(false);
    }
    // The name was checked above: it is a plain identifier.
    let statement = sqlx::AssertSqlSafe(format!("select version from {history} where success"));
    let applied: Vec<i64> = sqlx::query_scalar(statement).fetch_all(pool).await?;
    Ok(migrator
        .iter()
        .filter(|migration| !migration.migration_type.is_down_migration())
        .all(|migration| applied.contains(&migration.version)))
}

async fn lock(connection: &mut PgConnection, schema: &'static str) -> Result<(), PostgresError> {
    let started = tokio::time::Instant::now();
    loop {
        let locked: bool = sqlx::query_scalar("select pg_try_advisory_lock(hashtextextended($1, 0))")
            .bind(format!("tracklayer migration of {schema}"))
            .fetch_one(&mut *connection)
            .await?;
        if locked {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err(PostgresError::MigrationLocked { schema, waited: started.elapsed() });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn check_name(schema: &'static str) -> Result<(), PostgresError> {
    let plain = !schema.is_empty()
        && schema.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !schema.starts_with(|c: char| c.is_ascii_digit());
    if plain { Ok(()) } else { Err(PostgresError::BadSchema(schema)) }
}

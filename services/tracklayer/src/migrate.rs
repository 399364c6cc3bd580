//! Applies every service's migrations, in the order in which they lean on each other.

use anyhow::Context;
use sqlx::PgPool;
use sqlx::migrate::Migrator;

/// Schema and migrations of each owner. Delivery reads `journal`, so that comes first.
pub const OWNERS: [(&str, &Migrator); 6] = [
    ("journal", &tracklayer_journal::MIGRATOR),
    ("ingest", &tracklayer_ingest::MIGRATOR),
    ("identity", &tracklayer_identity::MIGRATOR),
    ("consent", &tracklayer_consent::MIGRATOR),
    ("delivery", &tracklayer_delivery::MIGRATOR),
    ("control", &tracklayer_control::MIGRATOR),
];

/// Brings the database to this version's schema. Safe to repeat, and at the same time by several processes.
///
/// # Errors
/// The database, or a migration that was changed after it was applied.
pub async fn all(pool: &PgPool) -> anyhow::Result<()> {
    for (schema, migrator) in OWNERS {
        tracklayer_postgres::migrate(pool, schema, migrator)
            .await
            .with_context(|| format!("could not migrate schema `{schema}`"))?;
    }
    tracklayer_journal::PostgresJournal::new(pool.clone()).ensure_partitions(7).await?;
    Ok(())
}

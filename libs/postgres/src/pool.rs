//! The connection pool.
//!
//! The one trick: limits are set by a statement after connecting, not by start-up options, since poolers such as
//! PgBouncer refuse those.

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tracklayer_ids::Secret;

use crate::{PostgresError, is_unavailable};

/// How long `connect` goes on trying while the server is away (restarting, failing over).
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);
/// Pause between two tries.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);

/// What one pool may take and how long its statements may last.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most connections of this pool.
    pub max_connections: u32,
    /// How long a caller waits for a free connection before it gets [`sqlx::Error::PoolTimedOut`].
    pub acquire_timeout: Duration,
    /// Longest statement; `None` for no limit.
    pub statement_timeout: Option<Duration>,
    /// Longest pause inside a transaction: a stopped client must not hold row locks for longer than this.
    pub idle_in_transaction_timeout: Duration,
    /// Seen in `pg_stat_activity`.
    pub application_name: &'static str,
    /// Whether statements may read whole tables where an index would do. Without it a plan that was made while a table was small,
    /// and is kept with the prepared statement, does not read all of it for every row of a batch once it has grown.
    pub whole_tables: bool,
}

impl Limits {
    /// The defaults of all services: 5 s for a connection, 30 s for a statement, 30 s of idling inside a transaction.
    #[must_use]
    pub fn new(max_connections: u32) -> Self {
        Self {
            max_connections,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Some(Duration::from_secs(30)),
            idle_in_transaction_timeout: Duration::from_secs(30),
            application_name: "tracklayer",
            whole_tables: true,
        }
    }

    /// Another name in `pg_stat_activity`.
    #[must_use]
    pub fn named(self, application_name: &'static str) -> Self {
        Self { application_name, ..self }
    }

    /// For statements that only ever look single rows up.
    #[must_use]
    pub fn by_index_only(self) -> Self {
        Self { whole_tables: false, ..self }
    }
}

/// Opens a pool with [`Limits::new`]. Waits up to 15 s for a server that is starting or failing over. The address may name
/// a Unix socket: `postgres://user@%2Fvar%2Frun%2Fpostgresql/database`.
///
/// # Errors
/// [`PostgresError::BadAddress`], or [`PostgresError::Connect`] at once for a refusal (password, missing database), or
/// [`PostgresError::Away`] after 15 s for a server that does not answer.
pub async fn connect(url: &Secret<String>, max_connections: u32) -> Result<PgPool, PostgresError> {
    connect_with(url, Limits::new(max_connections)).await
}

/// Opens a pool with limits of its own.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with(url: &Secret<String>, limits: Limits) -> Result<PgPool, PostgresError> {
    let options = options(url)?.application_name(limits.application_name);
    let statement_timeout = milliseconds(limits.statement_timeout.unwrap_or_default());
    let idle_timeout = milliseconds(limits.idle_in_transaction_timeout);
    let pool = PgPoolOptions::new()
        .max_connections(limits.max_connections.max(1))
        .acquire_timeout(limits.acquire_timeout)
        .after_connect(move |connection, _| {
            let (statement_timeout, idle_timeout) = (statement_timeout.clone(), idle_timeout.clone());
            let whole_tables = if limits.whole_tables { "on" } else { "off" };
            Box::pin(async move {
                sqlx::query(
                    // Statements are short and run often: compiling one takes longer than running it.
                    "select set_config('statement_timeout', $1, false),
                            set_config('idle_in_transaction_session_timeout', $2, false),
                            set_config('jit', 'off', false), set_config('enable_seqscan', $3, false)",
                )
                .bind(statement_timeout)
                .bind(idle_timeout)
                .bind(whole_tables)
                .execute(connection)
                .await?;
                Ok(())
            })
        })
        .connect_lazy_with(options);

    let give_up = tokio::time::Instant::now() + CONNECT_PATIENCE;
    loop {
        match pool.acquire().await {
            Ok(_) => return Ok(pool),
            Err(sqlx::Error::PoolTimedOut) if tokio::time::Instant::now() >= give_up => {
                return Err(away(&pool.connect_options(), limits.acquire_timeout).await);
            }
            Err(error) if is_unavailable(&error) && tokio::time::Instant::now() < give_up => {
                tracing::debug!(error = %error, "database not there yet");
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
            Err(error) => return Err(PostgresError::Connect(error)),
        }
    }
}

/// Who does not answer, and why. A pool tries again and again and tells of none of its failures, so that it takes a try of our own.
async fn away(options: &PgConnectOptions, patience: Duration) -> PostgresError {
    let tried = tokio::time::timeout(patience, PgConnection::connect_with(options)).await;
    let cause = match tried {
        Ok(Err(cause)) => cause,
        // It is there now, but was not in time; or it is silent.
        Ok(Ok(_)) | Err(_) => sqlx::Error::PoolTimedOut,
    };
    PostgresError::Away { address: address(options), cause }
}

/// Host and port, or the folder of the socket.
fn address(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// The address parsed, statements not logged: their parameters would be personal data.
pub(crate) fn options(url: &Secret<String>) -> Result<PgConnectOptions, PostgresError> {
    let options = PgConnectOptions::from_str(url.expose()).map_err(PostgresError::BadAddress)?;
    Ok(options.disable_statement_logging())
}

fn milliseconds(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[tokio::test]
    async fn who_is_away_is_named_with_the_reason() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = Secret::new(format!("postgres://somebody:secret@{closed}/tracklayer"));
        let error = away(&options(&url).unwrap(), Duration::from_secs(5)).await;
        assert_eq!(error.to_string(), format!("no database answers at {closed}"));
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains("refused"), "{cause}");
    }
}

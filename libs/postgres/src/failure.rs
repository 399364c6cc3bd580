//! What a database error means to a caller.

/// Whether the error passes by itself: server away, failing over, out of connections, or a conflict that a repeat
/// resolves. The caller holds or answers UNAVAILABLE; it must not take the error for an answer about its data.
#[must_use]
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| passes_by_itself(&code)),
        _ => false,
    }
}

/// Codes of PostgreSQL, "Appendix A. PostgreSQL Error Codes", version 15; 2025-11.
fn passes_by_itself(code: &str) -> bool {
    let class = code.get(..2).unwrap_or_default();
    // 08 connection exception, 53 insufficient resources (disk full, too many connections), 58 system error.
    matches!(class, "08" | "53" | "58")
        || matches!(
            code,
            "57014"   // query_canceled: the statement timeout
            | "57P01" // admin_shutdown
            | "57P02" // crash_shutdown
            | "57P03" // cannot_connect_now: starting or stopping
            | "57P05" // idle_session_timeout
            | "25P03" // idle_in_transaction_session_timeout
            | "25006" // read_only_sql_transaction: a former primary after a failover
            | "40001" // serialization_failure
            | "40P01" // deadlock_detected
            | "55P03" // lock_not_available
        )
}

/// Name of the constraint that a statement broke, if that is what happened.
#[must_use]
pub fn constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(|database| database.constraint())
}

/// Maps a broken constraint to a domain error where the statement is.
pub trait OnConstraint<T, E> {
    /// Calls `then` if the statement broke the constraint `name`; any other error becomes `E` by `From`.
    ///
    /// # Errors
    /// As said.
    fn on_constraint(self, name: &str, then: impl FnOnce() -> E) -> Result<T, E>;
}

impl<T, E: From<sqlx::Error>> OnConstraint<T, E> for Result<T, sqlx::Error> {
    fn on_constraint(self, name: &str, then: impl FnOnce() -> E) -> Result<T, E> {
        self.map_err(|error| if constraint(&error) == Some(name) { then() } else { error.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_over_primary_is_away_and_a_broken_constraint_is_not() {
        for code in ["57P01", "57P03", "53300", "53100", "25006", "40001", "08006"] {
            assert!(passes_by_itself(code), "{code}");
        }
        for code in ["23505", "42P01", "22P02", "28P01", ""] {
            assert!(!passes_by_itself(code), "{code}");
        }
        assert!(is_unavailable(&sqlx::Error::PoolTimedOut));
        assert!(!is_unavailable(&sqlx::Error::RowNotFound));
    }
}

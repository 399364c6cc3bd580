//! Why identity could not answer.

use tracklayer_rpc::{Code, RpcError};

/// The database did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("could not {what}")]
pub struct StoreError {
    /// What was attempted.
    pub what: &'static str,
    /// Why it failed.
    #[source]
    pub source: sqlx::Error,
}

/// Why a request got no answer. What happens to one event of a batch is a value of the answer, never an error.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The request is not usable.
    #[error("field `{field}` is not usable: {why}")]
    BadRequest {
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nobody has this identifier, or it was never seen with another.
    #[error("the identifier was never seen with another")]
    NotFound,
    /// The database.
    #[error("the identifier graph could not be used")]
    Store(#[from] StoreError),
}

impl StoreError {
    /// For `map_err`.
    pub(crate) fn of(what: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self { what, source }
    }
}

impl RpcError for IdentityError {
    fn describe(&self) -> (Code, &'static str) {
        match self {
            Self::BadRequest { .. } => (Code::InvalidArgument, "BAD_REQUEST"),
            Self::NotFound => (Code::NotFound, "UNKNOWN_IDENTIFIER"),
            Self::Store(error) if tracklayer_postgres::is_unavailable(&error.source) => {
                (Code::Unavailable, "STORE_UNAVAILABLE")
            }
            Self::Store(_) => (Code::Internal, "STORE_FAILED"),
        }
    }

    fn field(&self) -> Option<(String, String)> {
        match self {
            Self::BadRequest { field, why } => Some((field.clone(), (*why).to_owned())),
            Self::NotFound | Self::Store(_) => None,
        }
    }
}

//! Why consent could not answer. A caller without an answer holds; it never sends.

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

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ConsentError {
    /// The request is not usable.
    #[error("field `{field}` is not usable: {why}")]
    BadRequest {
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Another replica brought another policy into force: this one would decide by rules that no longer hold.
    #[error("policy {in_force} is in force, and this process has {ours}")]
    PolicyReplaced {
        /// The version that this process decides by.
        ours: String,
        /// The version in force.
        in_force: String,
    },
    /// The database.
    #[error("the consent store could not be used")]
    Store(#[from] StoreError),
}

impl StoreError {
    /// For `map_err`.
    pub(crate) fn of(what: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self { what, source }
    }

    /// It was asked of a server that follows another one.
    pub(crate) fn standby(what: &'static str) -> Self {
        Self {
            what,
            source: sqlx::Error::Protocol("the server is a standby; consent needs the primary".into()),
        }
    }
}

impl ConsentError {
    pub(crate) fn field(field: impl Into<String>, why: &'static str) -> Self {
        Self::BadRequest { field: field.into(), why }
    }
}

impl RpcError for ConsentError {
    fn describe(&self) -> (Code, &'static str) {
        match self {
            Self::BadRequest { .. } => (Code::InvalidArgument, "BAD_REQUEST"),
            Self::PolicyReplaced { .. } => (Code::Unavailable, "POLICY_REPLACED"),
            Self::Store(error) if tracklayer_postgres::is_unavailable(&error.source) => {
                (Code::Unavailable, "STORE_UNAVAILABLE")
            }
            Self::Store(_) => (Code::Internal, "STORE_FAILED"),
        }
    }

    fn field(&self) -> Option<(String, String)> {
        match self {
            Self::BadRequest { field, why } => Some((field.clone(), (*why).to_owned())),
            Self::PolicyReplaced { .. } | Self::Store(_) => None,
        }
    }
}

//! What can go wrong, one variant per thing that a caller can act on.

use tracklayer_destination::SettingsErrors;
use tracklayer_ids::{ConnectionId, SourceId, WorkspaceId};
use tracklayer_rpc::{Code, RpcError};
use tracklayer_secrets::SecretError;

/// An error of the administration.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No key came with the call.
    #[error("no admin key: send `authorization: Bearer <admin key>`")]
    NoKey,
    /// A key came that is not known.
    #[error("the admin key is not known")]
    UnknownKey,
    /// The key is of another workspace. Said for workspaces that do not exist, too.
    #[error("the admin key may not see workspace {workspace}")]
    OtherWorkspace {
        /// The one that was asked for.
        workspace: WorkspaceId,
    },
    /// Only the installation's key may do that.
    #[error("only an admin key of the installation may {what}")]
    InstallationOnly {
        /// A verb and its object.
        what: &'static str,
    },
    /// There is none.
    #[error("there is no workspace {workspace}")]
    NoWorkspace {
        /// The one that was asked for.
        workspace: WorkspaceId,
    },
    /// A topic's records cannot be spread anew.
    #[error("over kafka a workspace keeps the number of partitions that it was made with")]
    PartitionsStay,
    /// There is none.
    #[error("workspace {workspace} has no source {source_id}")]
    NoSource {
        /// Where it was looked for.
        workspace: WorkspaceId,
        /// The one that was asked for.
        source_id: SourceId,
    },
    /// There is none.
    #[error("workspace {workspace} has no connection {connection}")]
    NoConnection {
        /// Where it was looked for.
        workspace: WorkspaceId,
        /// The one that was asked for.
        connection: ConnectionId,
    },
    /// There is none, and there never was.
    #[error("workspace {workspace} has no freeze window {freeze_id}")]
    NoFreeze {
        /// Where it was looked for.
        workspace: WorkspaceId,
        /// The one that was asked for.
        freeze_id: i64,
    },
    /// Each travels with every snapshot.
    #[error(
        "the workspace has {} freeze windows that are not over: remove one first",
        crate::hold::MAX_FREEZES
    )]
    TooManyFreezes,
    /// What is held for ever is no freeze.
    #[error("with this window a connection would be held for more than 400 days on end: pause it instead")]
    NeverReleased,
    /// The name is in use.
    #[error("the {what} `{name}` exists already")]
    NameTaken {
        /// workspace, source.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The write key is in use, here or in another workspace.
    #[error("the write key is in use already")]
    WriteKeyTaken,
    /// A field of the request is not usable.
    #[error("`{field}` {why}")]
    Invalid {
        /// Its path.
        field: String,
        /// What is wrong, and what is allowed.
        why: String,
    },
    /// The connection's document is not usable.
    #[error(transparent)]
    Document(#[from] SettingsErrors),
    /// The connection's secrets cannot be sealed, opened or kept.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The database.
    #[error("the configuration could not be read or written")]
    Store(#[from] sqlx::Error),
    /// A row does not say what this version understands.
    #[error("the saved {what} cannot be read")]
    Corrupt {
        /// Which row and column.
        what: String,
    },
}

impl ControlError {
    /// A field that is not usable.
    pub fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), why: why.into() }
    }
}

impl RpcError for ControlError {
    fn describe(&self) -> (Code, &'static str) {
        match self {
            Self::NoKey => (Code::Unauthenticated, "NO_ADMIN_KEY"),
            Self::UnknownKey => (Code::Unauthenticated, "UNKNOWN_ADMIN_KEY"),
            Self::OtherWorkspace { .. } => (Code::PermissionDenied, "OTHER_WORKSPACE"),
            Self::InstallationOnly { .. } => (Code::PermissionDenied, "INSTALLATION_KEY_NEEDED"),
            Self::NoWorkspace { .. } => (Code::NotFound, "NO_SUCH_WORKSPACE"),
            Self::PartitionsStay => (Code::FailedPrecondition, "PARTITIONS_STAY"),
            Self::NoSource { .. } => (Code::NotFound, "NO_SUCH_SOURCE"),
            Self::NoConnection { .. } => (Code::NotFound, "NO_SUCH_CONNECTION"),
            Self::NoFreeze { .. } => (Code::NotFound, "NO_SUCH_FREEZE"),
            Self::TooManyFreezes => (Code::FailedPrecondition, "TOO_MANY_FREEZES"),
            Self::NeverReleased => (Code::FailedPrecondition, "NEVER_RELEASED"),
            Self::NameTaken { .. } => (Code::AlreadyExists, "NAME_TAKEN"),
            Self::WriteKeyTaken => (Code::AlreadyExists, "WRITE_KEY_TAKEN"),
            Self::Invalid { .. } => (Code::InvalidArgument, "INVALID_FIELD"),
            Self::Document(_) => (Code::InvalidArgument, "INVALID_CONNECTION"),
            Self::Secret(SecretError::NotText { .. } | SecretError::NothingToKeep { .. }) => {
                (Code::InvalidArgument, "INVALID_CONNECTION")
            }
            Self::Secret(SecretError::NotSealed { .. } | SecretError::WrongKey { .. }) => {
                (Code::FailedPrecondition, "SECRET_NOT_READABLE")
            }
            Self::Secret(SecretError::NoRandomness) => (Code::Internal, "NO_RANDOMNESS"),
            Self::Store(source) if tracklayer_postgres::is_unavailable(source) => {
                (Code::Unavailable, "STORE_UNAVAILABLE")
            }
            Self::Store(_) => (Code::Internal, "STORE_FAILED"),
            Self::Corrupt { .. } => (Code::Internal, "STORE_CORRUPT"),
        }
    }

    fn field(&self) -> Option<(String, String)> {
        match self {
            Self::Invalid { field, why } => Some((field.clone(), why.clone())),
            Self::Document(errors) => errors.0.first().map(|error| (error.path.clone(), error.why.clone())),
            Self::Secret(error) => error.path().map(|path| (path.to_owned(), error.to_string())),
            Self::NameTaken { .. } => Some(("name".to_owned(), self.to_string())),
            Self::WriteKeyTaken => Some(("write_key".to_owned(), self.to_string())),
            Self::NoKey
            | Self::UnknownKey
            | Self::OtherWorkspace { .. }
            | Self::InstallationOnly { .. }
            | Self::NoWorkspace { .. }
            | Self::PartitionsStay
            | Self::NoSource { .. }
            | Self::NoConnection { .. }
            | Self::NoFreeze { .. }
            | Self::TooManyFreezes
            | Self::NeverReleased
            | Self::Store(_)
            | Self::Corrupt { .. } => None,
        }
    }
}

//! Who sends: the source that a write key names, as far as ingest needs it.

use tracklayer_event::context::channel_of;
use tracklayer_ids::{SourceId, WorkspaceId};
use tracklayer_journal::Spread;
use tracklayer_proto::event::v1::Channel;
use tracklayer_rpc::follow::Snapshot;

use crate::admission::Holder;
use crate::error::IngestError;

/// A source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Over how many partitions the workspace's events are to be spread.
    pub spread: Spread,
    /// Its id.
    pub id: SourceId,
    /// Where its events are made.
    pub channel: Channel,
    /// Place of events that do not say.
    pub default_place: String,
    /// Which identifier type its user id is.
    pub user_id_type: String,
    /// Its banner writes defaults.
    pub banner_writes_defaults: bool,
    /// Its workspace has no other source that is enabled.
    pub is_alone: bool,
    /// Events a second that it may send, 0: no limit; none: what the installation says.
    pub max_events_per_second: Option<u32>,
}

impl Source {
    /// The enabled source of a write key that proves who sends.
    ///
    /// # Errors
    /// [`IngestError::UnknownWriteKey`], also for a disabled source; [`IngestError::SignedWebhooksOnly`]: the write key of a source of
    /// webhooks stands in their address, where many can read it, and proves nothing.
    pub fn of_write_key(snapshot: &Snapshot, write_key: &str) -> Result<Self, IngestError> {
        match Self::of_webhook(snapshot, write_key)? {
            (source, "") => Ok(source),
            _ => Err(IngestError::SignedWebhooksOnly),
        }
    }

    /// The enabled source that a webhook's address names, and what it is told about webhooks, sealed; empty: it takes none.
    ///
    /// # Errors
    /// [`IngestError::UnknownWriteKey`], also for a disabled source.
    pub fn of_webhook<'a>(snapshot: &'a Snapshot, write_key: &str) -> Result<(Self, &'a str), IngestError> {
        let (workspace, source) = snapshot
            .source_by_write_key(write_key)
            .filter(|(_, source)| source.enabled)
            .ok_or(IngestError::UnknownWriteKey)?;
        let known = Self {
            workspace: WorkspaceId(workspace.workspace_id),
            spread: Spread { partitions: workspace.partitions.max(1), revision: snapshot.version },
            id: SourceId(source.source_id),
            channel: channel_of(&source.channel).unwrap_or(Channel::Unspecified),
            default_place: source.default_place.clone(),
            user_id_type: source.user_id_type.clone(),
            banner_writes_defaults: source.banner_writes_defaults,
            is_alone: workspace.sources.iter().filter(|other| other.enabled).nth(1).is_none(),
            max_events_per_second: source.max_events_per_second,
        };
        Ok((known, source.webhook_json.as_str()))
    }

    /// For whom its requests hold room.
    #[must_use]
    pub const fn holder(&self) -> Holder {
        if self.is_alone {
            Holder::Workspace(self.workspace)
        } else {
            Holder::Source(self.workspace, self.id)
        }
    }
}

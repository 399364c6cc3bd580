//! The narrowing log as lanes see it: before each request its tail is read from the primary, and whoever is named since an
//! event's decision is decided again.
//!
//! What was read is kept, by subject key, so that each read only fetches what is new. No cache's age excuses a send: every
//! call reads the log, and a failed read holds the lane.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tracklayer_ids::{SubjectKey, WorkspaceId};
use tracklayer_proto::consent::v1::ReadNarrowingRequest;
use tracklayer_proto::consent::v1::consent_service_client::ConsentServiceClient;

/// Most subject keys kept per workspace; above it the memory starts anew and older events read the log again.
const MAX_KEYS: usize = 400_000;
/// Entries of one read.
const PAGE: u32 = 10_000;

/// The log's tail could not be read: the lane holds.
#[derive(Debug, thiserror::Error)]
#[error("could not read the narrowing log")]
pub struct TailUnreadable(#[source] pub Box<tonic::Status>);

#[derive(Default)]
struct Tail {
    /// Everything after this number is known.
    floor: i64,
    /// Everything up to this number is known.
    newest: i64,
    named: HashMap<SubjectKey, i64>,
    everybody: i64,
}

/// The tails of all workspaces. Cheap to clone.
#[derive(Clone)]
pub struct NarrowingTail {
    consent: ConsentServiceClient<tracklayer_rpc::Channel>,
    tails: Arc<Mutex<HashMap<WorkspaceId, Tail>>>,
}

/// The log as of one read.
pub struct TailView {
    tails: Arc<Mutex<HashMap<WorkspaceId, Tail>>>,
    workspace: WorkspaceId,
    /// The newest number that the read saw.
    pub newest: i64,
}

impl NarrowingTail {
    /// Over the consent service.
    #[must_use]
    pub fn new(consent: ConsentServiceClient<tracklayer_rpc::Channel>) -> Self {
        Self { consent, tails: Arc::default() }
    }

    /// Reads the log now, so that everything after `oldest_decision` is known.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn read(
        &self,
        workspace: WorkspaceId,
        oldest_decision: i64,
    ) -> Result<TailView, TailUnreadable> {
        let mut after = {
            let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
            let tail = tails.entry(workspace).or_insert_with(|| Tail {
                floor: oldest_decision,
                newest: oldest_decision,
                ..Tail::default()
            });
            if tail.named.len() > MAX_KEYS {
                *tail = Tail { floor: tail.newest, newest: tail.newest, ..Tail::default() };
            }
            if oldest_decision < tail.floor { oldest_decision } else { tail.newest }
        };
        loop {
            let request = ReadNarrowingRequest { workspace_id: workspace.0, after_seq: after, limit: PAGE };
            let answer = self
                .consent
                .clone()
                .read_narrowing(request)
                .await
                .map_err(|status| TailUnreadable(Box::new(status)))?
                .into_inner();
            let full = answer.entries.len() >= PAGE as usize;
            let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
            let tail = tails.entry(workspace).or_default();
            for entry in &answer.entries {
                after = after.max(entry.seq);
                if entry.subject_keys.is_empty() {
                    tail.everybody = tail.everybody.max(entry.seq);
                }
                for key in entry.subject_keys.iter().filter_map(|k| SubjectKey::from_slice(k)) {
                    let named = tail.named.entry(key).or_default();
                    *named = (*named).max(entry.seq);
                }
            }
            if !full {
                tail.floor = tail.floor.min(oldest_decision);
                tail.newest = tail.newest.max(answer.newest_seq);
                return Ok(TailView { tails: Arc::clone(&self.tails), workspace, newest: answer.newest_seq });
            }
        }
    }
}

impl TailView {
    /// Whether somebody of these was named after a decision.
    #[must_use]
    pub fn named_since(&self, subject_keys: &[SubjectKey], decided_at: i64) -> bool {
        if self.newest <= decided_at {
            return false;
        }
        let tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tail) = tails.get(&self.workspace) else { return true };
        // The memory may have started anew since the read: what is not known counts as named.
        decided_at < tail.floor
            || tail.everybody > decided_at
            || subject_keys.iter().any(|key| tail.named.get(key).is_some_and(|seq| *seq > decided_at))
    }
}

//! The narrowing log as lanes see it: before each request its tail is read from the primary, and whoever is named since an
//! event's decision is decided again.
//!
//! What was read is kept, by subject key, so that each read only fetches what is new. No cache's age excuses a send: every
//! call reads the log, and a failed read holds the lane.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tracklayer_ids::{SubjectKey, WorkspaceId};
use tracklayer_proto::consent::v1::consent_service_client::ConsentServiceClient;
use tracklayer_proto::consent::v1::{NarrowingEntry, ReadNarrowingRequest};

/// Most subject keys kept per workspace; above it the memory starts anew, and events decided before that are decided again.
const MAX_KEYS: usize = 400_000;
/// Entries of one page: each may name a thousand keys.
const PAGE: u32 = 1_000;

/// The log's tail could not be read: the lane holds.
#[derive(Debug, thiserror::Error)]
#[error("could not read the narrowing log")]
pub struct TailUnreadable(#[source] pub Box<tonic::Status>);

/// What is known of a workspace's log: everything after `floor`, up to `newest`. An event that was decided before the floor
/// counts as named, so that nothing older is ever needed.
#[derive(Default)]
struct Tail {
    floor: i64,
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

    /// Reads the log now, from what is known to its end.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn read(&self, workspace: WorkspaceId) -> Result<TailView, TailUnreadable> {
        let known = self.lock().get(&workspace).map(|tail| tail.newest);
        // The first look only learns where the log ends.
        let mut after = known.unwrap_or(i64::MAX);
        let mut read: Vec<NarrowingEntry> = Vec::new();
        let newest = loop {
            let request = ReadNarrowingRequest { workspace_id: workspace.0, after_seq: after, limit: PAGE };
            let answer = self
                .consent
                .clone()
                .read_narrowing(request)
                .await
                .map_err(|status| TailUnreadable(Box::new(status)))?
                .into_inner();
            let full = answer.entries.len() >= PAGE as usize;
            after = answer.entries.last().map_or(after, |entry| entry.seq);
            read.extend(answer.entries);
            if !full {
                break answer.newest_seq;
            }
        };
        // All pages at once: a reader that comes in between sees either none of them or all.
        let mut tails = self.lock();
        let tail =
            tails.entry(workspace).or_insert_with(|| Tail { floor: newest, newest, ..Tail::default() });
        tail.learn(&read, newest);
        Ok(TailView { tails: Arc::clone(&self.tails), workspace, newest })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WorkspaceId, Tail>> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    fn learn(&mut self, entries: &[NarrowingEntry], newest: i64) {
        for entry in entries {
            if entry.subject_keys.is_empty() {
                self.everybody = self.everybody.max(entry.seq);
            }
            for key in entry.subject_keys.iter().filter_map(|k| SubjectKey::from_slice(k)) {
                let named = self.named.entry(key).or_default();
                *named = (*named).max(entry.seq);
            }
        }
        self.newest = self.newest.max(newest);
        if self.named.len() > MAX_KEYS {
            *self = Self { floor: self.newest, newest: self.newest, ..Self::default() };
        }
    }

    fn named_since(&self, subject_keys: &[SubjectKey], decided_at: i64) -> bool {
        decided_at < self.floor
            || self.everybody > decided_at
            || subject_keys.iter().any(|key| self.named.get(key).is_some_and(|seq| *seq > decided_at))
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
        // A workspace that is not known has no floor: whoever asks is decided again.
        tails.get(&self.workspace).is_none_or(|tail| tail.named_since(subject_keys, decided_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> SubjectKey {
        SubjectKey([number; 16])
    }

    fn entry(seq: i64, keys: &[u8]) -> NarrowingEntry {
        let subject_keys = keys.iter().map(|k| key(*k).0.to_vec()).collect();
        NarrowingEntry { seq, subject_keys, ..NarrowingEntry::default() }
    }

    fn tail(floor: i64, entries: &[NarrowingEntry]) -> Tail {
        let mut tail = Tail { floor, newest: floor, ..Tail::default() };
        tail.learn(entries, entries.last().map_or(floor, |e| e.seq));
        tail
    }

    #[test]
    fn only_who_is_named_after_the_decision_is_decided_again() {
        let tail = tail(10, &[entry(11, &[1]), entry(12, &[2, 3])]);
        assert!(tail.named_since(&[key(1)], 10) && !tail.named_since(&[key(1)], 11));
        assert!(tail.named_since(&[key(9), key(3)], 11) && !tail.named_since(&[key(9)], 10));
    }

    #[test]
    fn an_entry_without_keys_names_everybody() {
        let tail = tail(10, &[entry(11, &[])]);
        assert!(tail.named_since(&[key(1)], 10) && !tail.named_since(&[key(1)], 11));
    }

    #[test]
    fn a_decision_older_than_what_is_known_counts_as_named() {
        assert!(tail(10, &[]).named_since(&[key(1)], 9));
    }

    #[test]
    fn a_memory_that_starts_anew_forgets_nobody() {
        let mut tail = tail(0, &[entry(1, &[1])]);
        for number in 0..=MAX_KEYS as u32 {
            let mut bytes = [0xff; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            tail.named.insert(SubjectKey(bytes), 1);
        }
        tail.learn(&[entry(2, &[2])], 2);
        assert!(tail.named.is_empty());
        assert!(
            tail.named_since(&[key(1)], 0) && tail.named_since(&[key(7)], 1),
            "older decisions are taken again"
        );
        assert!(!tail.named_since(&[key(2)], 2));
    }
}

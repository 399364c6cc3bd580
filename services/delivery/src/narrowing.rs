//! The narrowing log as lanes see it: before each request its tail is read from the primary, and whoever is named since an
//! event's decision is decided again.
//!
//! What was read is kept, by subject key, so that each read only fetches what is new. No cache's age excuses a send: every
//! call reads the log, and a failed read holds the lane.
//!
//! A decision is made of two answers: identity says who belongs together, then consent what they said, and up to which number
//! of the log. A merge that comes in between has a number that consent's vouches for, though identity's answer knows nothing
//! of it. [`Overtaken`] finds whom such a merge names; their decisions count as older than it, and are made again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tracklayer_ids::{SubjectKey, WorkspaceId};
use tracklayer_proto::consent::v1::consent_service_client::ConsentServiceClient;
use tracklayer_proto::consent::v1::{NarrowingEntry, ReadNarrowingRequest, ReadNarrowingResponse};

/// Most subject keys kept per workspace; above it the memory starts anew, and events decided before that are decided again.
const MAX_KEYS: usize = 400_000;
/// Entries of one page: each may name a thousand keys.
const PAGE: u32 = 1_000;
/// Causes that identity knows of before consent: who belongs together, and who may no longer be spoken of.
const OF_IDENTITY: [&str; 3] = ["merge", "split", "erasure"];

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

/// Whom identity's answer was too early for, though consent's number covers what happened to them.
pub struct Overtaken {
    /// The newest number before identity was asked.
    before: i64,
    /// The newest number that consent saw.
    seen: i64,
    keys: HashSet<SubjectKey>,
    everybody: bool,
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
        let (read, newest) = self.entries_after(workspace, known.unwrap_or(i64::MAX)).await?;
        self.learn(workspace, &read, newest);
        Ok(TailView { tails: Arc::clone(&self.tails), workspace, newest })
    }

    /// A number that the log has reached; the newest that is known here. Asked for before identity is, for [`Self::overtaken`].
    ///
    /// # Errors
    /// Nothing is known yet, and the log could not be read.
    pub async fn reached(&self, workspace: WorkspaceId) -> Result<i64, TailUnreadable> {
        let known = self.lock().get(&workspace).map(|tail| tail.newest);
        match known {
            Some(newest) => Ok(newest),
            None => Ok(self.read(workspace).await?.newest),
        }
    }

    /// The entries after a number, whatever is known here.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn entries_since(
        &self,
        workspace: WorkspaceId,
        after: i64,
    ) -> Result<Vec<NarrowingEntry>, TailUnreadable> {
        self.entries_after(workspace, after).await.map(|(entries, _)| entries)
    }

    /// One page of them, and whether it is full.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn page_since(
        &self,
        workspace: WorkspaceId,
        after: i64,
    ) -> Result<(Vec<NarrowingEntry>, bool), TailUnreadable> {
        let page = self.page_after(workspace, after).await?;
        let is_full = is_full(&page);
        Ok((page.entries, is_full))
    }

    /// Whom merges, splits and erasures name that came between `before`, which was reached when identity was asked, and `seen`,
    /// which consent decided by; apart from those that identity's own answer brought.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn overtaken(
        &self,
        workspace: WorkspaceId,
        before: i64,
        seen: i64,
        own: &[i64],
    ) -> Result<Overtaken, TailUnreadable> {
        // Numbers have no gaps: so many of our own leave nobody else's.
        let is_quiet = i64::try_from(own.len()).is_ok_and(|own| before + own >= seen);
        if is_quiet {
            return Ok(Overtaken::by(&[], before, seen, own));
        }
        let (read, newest) = self.entries_after(workspace, before).await?;
        self.learn(workspace, &read, newest);
        Ok(Overtaken::by(&read, before, seen, own))
    }

    async fn page_after(
        &self,
        workspace: WorkspaceId,
        after: i64,
    ) -> Result<ReadNarrowingResponse, TailUnreadable> {
        let request = ReadNarrowingRequest { workspace_id: workspace.0, after_seq: after, limit: PAGE };
        let answer = self.consent.clone().read_narrowing(request).await;
        Ok(answer.map_err(|status| TailUnreadable(Box::new(status)))?.into_inner())
    }

    /// The entries after a number, and the newest number.
    async fn entries_after(
        &self,
        workspace: WorkspaceId,
        mut after: i64,
    ) -> Result<(Vec<NarrowingEntry>, i64), TailUnreadable> {
        let mut read: Vec<NarrowingEntry> = Vec::new();
        loop {
            let answer = self.page_after(workspace, after).await?;
            let full = is_full(&answer);
            after = answer.entries.last().map_or(after, |entry| entry.seq);
            read.extend(answer.entries);
            if !full {
                return Ok((read, answer.newest_seq));
            }
        }
    }

    /// All pages at once: a reader that comes in between sees either none of them or all.
    fn learn(&self, workspace: WorkspaceId, read: &[NarrowingEntry], newest: i64) {
        let mut tails = self.lock();
        let tail =
            tails.entry(workspace).or_insert_with(|| Tail { floor: newest, newest, ..Tail::default() });
        tail.learn(read, newest);
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

impl Overtaken {
    fn by(entries: &[NarrowingEntry], before: i64, seen: i64, own: &[i64]) -> Self {
        let mut overtaken = Self { before, seen, keys: HashSet::new(), everybody: false };
        let news = entries.iter().filter(|entry| {
            (before + 1..=seen).contains(&entry.seq)
                && OF_IDENTITY.contains(&entry.cause.as_str())
                && !own.contains(&entry.seq)
        });
        for entry in news {
            overtaken.everybody |= entry.subject_keys.is_empty();
            overtaken.keys.extend(entry.subject_keys.iter().filter_map(|k| SubjectKey::from_slice(k)));
        }
        overtaken
    }

    /// The newest number that a decision about somebody with these keys vouches for.
    #[must_use]
    pub fn decided_at<'k>(&self, subject_keys: impl IntoIterator<Item = &'k [u8]>) -> i64 {
        let mut keys = subject_keys.into_iter().filter_map(SubjectKey::from_slice);
        let is_news = self.everybody || (!self.keys.is_empty() && keys.any(|key| self.keys.contains(&key)));
        if is_news { self.before } else { self.seen }
    }
}

fn is_full(page: &ReadNarrowingResponse) -> bool {
    page.entries.len() >= PAGE as usize
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
    fn a_merge_between_the_two_answers_is_news_to_whom_it_names() {
        let entry =
            |seq, cause: &str, keys: &[u8]| NarrowingEntry { cause: cause.to_owned(), ..entry(seq, keys) };
        let entries = [
            entry(10, "merge", &[1]),
            entry(11, "merge", &[2]),
            entry(12, "split", &[3]),
            entry(13, "gpc", &[4]),
            entry(14, "erasure", &[5]),
            entry(15, "merge", &[6]),
        ];
        // Asked at 10, own is 11, consent saw 14.
        let overtaken = Overtaken::by(&entries, 10, 14, &[11]);
        let decided_at = |of: u8| overtaken.decided_at([&key(of).0[..]]);
        assert_eq!((decided_at(3), decided_at(5)), (10, 10), "identity's answer is older");
        assert_eq!(decided_at(1), 14, "identity's answer is newer");
        assert_eq!(decided_at(2), 14, "identity's answer brought it");
        assert_eq!(decided_at(4), 14, "consent has seen the signal");
        assert_eq!(decided_at(6), 14, "the lane will see it");
        assert_eq!(overtaken.decided_at([&key(9).0[..], &key(3).0[..]]), 10, "any key of the person counts");
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

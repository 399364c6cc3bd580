//! Whose twin a duplicate is: what the twin audit counts.
//!
//! The claim that a duplicate has run into names its winner's source. Of the copies that other sources send, the first of each source is a
//! twin, and the very first of all is the one by which its winner has one: so that no winner counts twice, however many copies come.
//! Who has brought a twin stands in Redis beside the claim, under the winner's position and for as long, as twins' positions: whoever
//! handles a copy again after a crash finds its own, and gets the answer that it got before. It decides nothing but counts. A store that
//! is emptied forgets it, and a further copy of what was counted before counts once more.

use std::sync::LazyLock;

use redis::Script;
use tracklayer_ids::{SourceId, WorkspaceId};
use tracklayer_journal::claim::{Claim, twins_key};

use super::{Answers, Claimed, Dedup, DedupError, Memory, Wanted};

/// KEYS: one of each winner. ARGV: by copy its position and source, as a claim has them (24 bytes), and the seconds for which that is
/// kept. Answers by copy: 0, its source has brought another one before; 1, it is the first of its source; 2, and of all.
const BROUGHT: &str = r"
local answers = {}
for n, key in ipairs(KEYS) do
  local own, seconds, answer = ARGV[2 * n - 1], ARGV[2 * n], nil
  local brought = redis.call('GET', key) or ''
  for at = 1, #brought, 24 do
    if string.sub(brought, at + 16, at + 23) == string.sub(own, 17, 24) then
      if string.sub(brought, at, at + 15) ~= string.sub(own, 1, 16) then answer = 0
      elseif at == 1 then answer = 2
      else answer = 1 end
      break
    end
  end
  if not answer then
    redis.call('SET', key, brought .. own, 'EX', seconds)
    answer = brought == '' and 2 or 1
  end
  answers[n] = answer
end
return answers
";

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(BROUGHT));

/// A duplicate, as the twin audit sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyOf {
    /// Source of the winner.
    pub winner: SourceId,
    /// What the two have in common.
    pub by: SameBy,
    /// What it counts as.
    pub kind: CopyKind,
}

/// By what a copy was found to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameBy {
    /// Their message_id; or that of another copy, which named the order.
    MessageId,
    /// The second key alone: their message_ids differ.
    Order,
}

/// What a copy counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyKind {
    /// Of a winner of its own source, or one of which its source has brought a twin before.
    Repeat,
    /// The first that its source has brought of another source's winner.
    Twin {
        /// No other source has brought one before.
        is_first: bool,
    },
}

impl CopyOf {
    /// A repeat, until it is known for a twin.
    fn of(want: &Wanted<'_>, winner: &Claim) -> Self {
        let by = match (want.claim.commerce, winner.commerce) {
            (Some(own), Some(first)) if own.message != first.message => SameBy::Order,
            _ => SameBy::MessageId,
        };
        Self { winner: winner.source, by, kind: CopyKind::Repeat }
    }
}

impl Dedup {
    /// Which of these claims are copies, and of what; in their order. A round trip where another source's events were repeated, else none.
    /// Asked again, it answers the same.
    ///
    /// # Errors
    /// Redis.
    pub async fn copies(
        &self,
        workspace: WorkspaceId,
        wanted: &[Wanted<'_>],
        answers: &Answers,
        memory: &Memory,
    ) -> Result<Vec<Option<CopyOf>>, DedupError> {
        let mut copies: Vec<Option<CopyOf>> = Vec::with_capacity(wanted.len());
        let mut of_others: Vec<usize> = Vec::new();
        let mut brought = SCRIPT.prepare_invoke();
        let claims = wanted.iter().zip(&answers.claimed).zip(&answers.holders);
        for (index, ((want, claimed), holder)) in claims.enumerate() {
            let winner = holder.as_ref().filter(|_| matches!(claimed, Claimed::DuplicateOf(_)));
            copies.push(winner.map(|winner| CopyOf::of(want, winner)));
            let Some(winner) = winner.filter(|winner| winner.source != want.claim.source) else { continue };
            let own = want.claim.encode();
            // As long as the winner is remembered, by whichever of its keys.
            let kept = memory.of_claim(workspace, winner.source, winner.commerce.is_some()).max(want.ttl);
            brought
                .key(twins_key(workspace, winner.position))
                .arg(own.get(1..25).unwrap_or_default())
                .arg(kept.max(Memory::SHORTEST).as_secs());
            of_others.push(index);
        }
        if of_others.is_empty() {
            return Ok(copies);
        }
        let mut redis = self.redis.clone();
        let told: Vec<i64> = brought.invoke_async(&mut redis).await?;
        if told.len() != of_others.len() {
            return Err(DedupError::Answer("who has brought twins is told of others than were asked about"));
        }
        for (index, told) in of_others.into_iter().zip(told) {
            if let Some(copy) = copies.get_mut(index).and_then(Option::as_mut).filter(|_| told > 0) {
                copy.kind = CopyKind::Twin { is_first: told == 2 };
            }
        }
        Ok(copies)
    }
}

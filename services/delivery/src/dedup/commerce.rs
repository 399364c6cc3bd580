//! Claims of two keys: the message_id and what a commerce event is about.
//!
//! Both keys of an event name one position when its claim is made, since one script looks at both and writes both:
//!
//! - both free, or its own (after a crash): it wins both;
//! - one held by another: it is that one's duplicate, and its other key is given to *that* position, not to the event. Whoever
//!   comes by either key is a duplicate of the same winner, so that nothing is lost by a key of a duplicate, and nothing counts
//!   twice: A(id 1, order), B(id 2, order), C(id 2, no order) are one event, A. Its own claim of the other key gives way, too:
//!   it is what a round trip left that a rebuild has overtaken, and nothing was committed by it;
//! - both held by different ones: two that nobody could have known for one (the first of them had no order, say) have won
//!   before, and the event is a duplicate of its message_id's. If that one's claim names the order, the order was another's
//!   since, by a rebuild, and the event is a duplicate of the order's.
//!
//! A message_id that is held by an event of another type or name, or by one of another order, is used for two events: as with
//! every reused id, its source, type and name (and here the order) take its place. The latter is an alarm ([`crate::reused_ids`]), since
//! the sender's numbering is broken in a way that plain dedup would have lost an order by.
//!
//! Both keys last as long as the longest of the event's source and of all sources of the workspace that claim so: a twin may
//! come by any of them.

use std::sync::LazyLock;

use redis::{FromRedisValue, Script, Value};
use tracklayer_ids::WorkspaceId;
use tracklayer_journal::claim::{Claim, CommerceClaim, claim_key};

use super::{Dedup, DedupError, Found, Memory, Reuse, Wanted};

/// KEYS: the message_id's, the commerce key's, the message_id's per source. ARGV: the claim, its seconds, and a position (16
/// bytes, or none) whose claims count for nothing. Answers the holder's claim, and whether the message_id is reused: 1 for
/// another event, 2 for another order. A claim's bytes: `tracklayer_journal::claim`.
const CLAIM_BOTH: &str = r"
local own, ttl, void = ARGV[1], ARGV[2], ARGV[3]
local function place(claim) return string.sub(claim, 2, 17) end
local function what(claim) return string.sub(claim, 27, 34) end
local function order(claim) return string.sub(claim, 43, 58) end
local function held(key)
  local claim = redis.call('GET', key)
  if not claim or place(claim) == void then return false end
  if string.byte(claim) > 2 then error('a claim of an unknown format') end
  return claim
end
local first, a, reused = KEYS[1], held(KEYS[1]), 0
if a and place(a) ~= place(own) then
  if what(a) ~= what(own) then reused = 1
  elseif order(a) ~= '' and order(a) ~= order(own) then reused = 2 end
end
if reused > 0 then first, a = KEYS[3], held(KEYS[3]) end
local b = held(KEYS[2])
local function others(claim) return claim and place(claim) ~= place(own) end
local winner = own
if others(a) and not (others(b) and order(a) ~= '') then winner = a
elseif others(b) then winner = b end
if order(winner) == '' then winner = '\2' .. string.sub(winner, 2, 42) .. string.sub(own, 43) end
local function settle(key, claim)
  if not claim then redis.call('SET', key, winner, 'EX', ttl)
  elseif place(claim) == place(winner) and order(claim) ~= '' then return
  elseif place(claim) == place(winner) or place(claim) == place(own) or key == first then
    redis.call('SET', key, winner, 'KEEPTTL')
  end
end
settle(first, a)
settle(KEYS[2], b)
return {winner, reused}
";

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CLAIM_BOTH));

/// Brings the script along, for [`push`] behind it in the same MULTI: no round trip, whatever Redis has forgotten.
pub(super) fn load(pipe: &mut redis::Pipeline) {
    pipe.cmd("SCRIPT").arg("LOAD").arg(CLAIM_BOTH).ignore();
}

/// The keys of a claim that has two.
struct Keys {
    message: Vec<u8>,
    commerce: Vec<u8>,
    per_source: Vec<u8>,
}

impl Keys {
    fn of(workspace: WorkspaceId, want: &Wanted<'_>, commerce: CommerceClaim) -> Self {
        let Claim { source, fingerprint, .. } = want.claim;
        Self {
            message: claim_key(workspace, want.message_id),
            commerce: commerce.key(),
            per_source: commerce.key_per_source(workspace, source, fingerprint, want.message_id),
        }
    }
}

/// Claims both keys of an event.
pub(super) fn push(
    pipe: &mut redis::Pipeline,
    workspace: WorkspaceId,
    want: &Wanted<'_>,
    commerce: CommerceClaim,
) {
    let keys = Keys::of(workspace, want, commerce);
    pipe.cmd("EVALSHA")
        .arg(SCRIPT.get_hash())
        .arg(3)
        .arg(keys.message)
        .arg(keys.commerce)
        .arg(keys.per_source)
        .arg(want.claim.encode())
        .arg(want.ttl.max(Memory::SHORTEST).as_secs())
        .arg("");
}

/// What the script answered.
pub(super) fn found(value: Value) -> Result<Found, DedupError> {
    let (holder, reused): (Vec<u8>, u8) = FromRedisValue::from_redis_value(value)
        .map_err(|_| DedupError::Answer("a claim of two keys has another form"))?;
    let holder = Claim::decode(&holder).ok_or(DedupError::Answer("a claim of an unknown format"))?;
    let reuse = match reused {
        0 => None,
        1 => Some(Reuse::OtherEvent),
        _ => Some(Reuse::OtherOrder),
    };
    Ok(Found { holder: Some(holder), reuse })
}

impl Dedup {
    /// Claims both keys once more, past the claims of a position that can never be resolved.
    pub(super) async fn claim_both_past(
        &self,
        workspace: WorkspaceId,
        want: &Wanted<'_>,
        commerce: CommerceClaim,
        void: &Claim,
    ) -> Result<Found, DedupError> {
        let keys = Keys::of(workspace, want, commerce);
        let mut redis = self.redis.clone();
        let answer: Value = SCRIPT
            .key(keys.message)
            .key(keys.commerce)
            .key(keys.per_source)
            .arg(want.claim.encode())
            .arg(want.ttl.max(Memory::SHORTEST).as_secs())
            .arg(void.encode().get(1..17).unwrap_or_default())
            .invoke_async(&mut redis)
            .await?;
        found(answer)
    }
}

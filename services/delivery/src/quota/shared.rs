//! What all processes together may send, in Redis. It is asked for turns in advance, waits for no answer longer than [`ANSWER`], and is left
//! alone for [`AWAY`] after it gave none: whoever asks then goes by the process' own part.
//!
//! In Redis stand, for each limit by its [`QuotaKey`](tracklayer_destination::QuotaKey) or its connection, the time of the next free turn of
//! a minute (`tl:quota:m:…`, microseconds) and what was taken of a day (`tl:quota:d:…`, by spans of ten minutes). Both go with what they
//! count. Whoever finds them gone begins anew; of a day, each process tells what it has taken itself.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::{FromRedisValue, Script, ScriptInvocation};
use tokio::time::{Instant, timeout};

use super::bucket::SPANS;

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_millis(250);
/// How long Redis is left alone that gave none.
const AWAY: Duration = Duration::from_secs(2);
/// A turn that is later than this is none: Redis' clock was set back, and each process goes by its own part.
const LONGEST: Duration = Duration::from_secs(600);

/// Takes turns, one step after the other. ARGV: a step, how many, how far from now the first is at least, the longest wait; microseconds.
/// Answers the time until the first, -1: later than that. By Redis' own clock, so that those of the processes need not agree.
const RESERVE: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local step, turns = tonumber(ARGV[1]), tonumber(ARGV[2])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now + tonumber(ARGV[3]))
if due - now > tonumber(ARGV[4]) then return -1 end
local next = due + step * turns
redis.call('SET', KEYS[1], string.format('%.0f', next), 'PX', string.format('%.0f', (next - now) / 1000 + 60000))
return due - now
";

/// Takes requests of a day. ARGV: the span, the limit, how many at least, how many if there is room, how many were taken that were not told,
/// how many of all are the process' own, how long a span counts (in spans). Answers how many, or none and the span from which on there
/// is room.
const TAKE_OF_DAY: &str = r"
local span, limit, missing, batch = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local untold, own, spans = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local fields, used, taken = redis.call('HGETALL', KEYS[1]), 0, {}
for i = 1, #fields, 2 do
  local at, count = tonumber(fields[i]), tonumber(fields[i + 1])
  if at <= span - spans then
    redis.call('HDEL', KEYS[1], fields[i])
  else
    used = used + count
    taken[#taken + 1] = {at, count}
  end
end
local function count(requests)
  if requests > 0 then
    redis.call('HINCRBY', KEYS[1], ARGV[1], requests)
    redis.call('EXPIRE', KEYS[1], 90000)
  end
end
local forgotten = math.max(untold, own - used)
if forgotten > 0 then
  count(forgotten)
  used = used + forgotten
  taken[#taken + 1] = {span, forgotten}
end
local room = limit - used
if room >= missing then
  local given = math.min(batch, room)
  count(given)
  return {given, 0}
end
table.sort(taken, function(one, other) return one[1] < other[1] end)
for _, entry in ipairs(taken) do
  room = room + entry[2]
  if room >= missing then return {0, entry[1] + spans} end
end
return {0, span + spans}
";

static RESERVE_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(RESERVE));
static TAKE_OF_DAY_SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(TAKE_OF_DAY));

/// The quotas of all processes. Cheap to clone.
#[derive(Clone)]
pub(super) struct SharedQuota {
    redis: ConnectionManager,
    /// Until when Redis is not asked.
    away: Arc<Mutex<Option<Instant>>>,
}

/// What a process wants of a day.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Now.
    pub(super) span: i64,
    /// The limit.
    pub(super) per_day: u32,
    /// So many, or none.
    pub(super) missing: u32,
    /// So many where there is room.
    pub(super) batch: u32,
    /// What it has taken while Redis was away.
    pub(super) untold: u32,
    /// All that it has taken within the day.
    pub(super) own: u32,
}

/// What it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfDay {
    /// So many.
    Taken(u32),
    /// None before this span.
    FullUntil(i64),
}

impl fmt::Debug for SharedQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedQuota").finish_non_exhaustive()
    }
}

impl SharedQuota {
    pub(super) fn new(redis: ConnectionManager) -> Self {
        Self { redis, away: Arc::default() }
    }

    /// Takes turns of a minute and answers how long it is until the first. None: Redis does not answer.
    pub(super) async fn reserve(
        &self,
        key: &str,
        step: Duration,
        turns: u32,
        ahead: Duration,
    ) -> Option<Duration> {
        let mut asked = RESERVE_SCRIPT.key(format!("tl:quota:m:{key}"));
        asked.arg(micros(step)).arg(turns).arg(micros(ahead)).arg(micros(LONGEST));
        let wait: i64 = self.ask(&asked).await?;
        u64::try_from(wait).ok().map(Duration::from_micros)
    }

    /// Takes requests of a day. None: Redis does not answer.
    pub(super) async fn take_of_day(&self, key: &str, wanted: Wanted) -> Option<OfDay> {
        let Wanted { span, per_day, missing, batch, untold, own } = wanted;
        let mut asked = TAKE_OF_DAY_SCRIPT.key(format!("tl:quota:d:{key}"));
        asked.arg(span).arg(per_day).arg(missing).arg(batch).arg(untold).arg(own).arg(SPANS);
        let (taken, until): (u32, i64) = self.ask(&asked).await?;
        Some(if taken == 0 { OfDay::FullUntil(until) } else { OfDay::Taken(taken) })
    }

    async fn ask<T: FromRedisValue>(&self, question: &ScriptInvocation<'_>) -> Option<T> {
        if self.away().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        metrics::counter!("tracklayer_delivery_quota_asks_total").increment(1);
        let mut redis = self.redis.clone();
        match timeout(ANSWER, question.invoke_async(&mut redis)).await {
            Ok(Ok(answer)) => {
                self.answers();
                Some(answer)
            }
            Ok(Err(error)) => {
                self.went_away(&error);
                None
            }
            Err(late) => {
                self.went_away(&late);
                None
            }
        }
    }

    fn away(&self) -> Option<Instant> {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers(&self) {
        let was_away = self.away.lock().unwrap_or_else(PoisonError::into_inner).take().is_some();
        if was_away {
            tracing::info!("quotas are shared over Redis again");
            metrics::gauge!("tracklayer_delivery_quota_divided").set(0.0);
        }
    }

    fn went_away(&self, why: &dyn std::error::Error) {
        let until = Instant::now() + AWAY;
        let was_there = self.away.lock().unwrap_or_else(PoisonError::into_inner).replace(until).is_none();
        if was_there {
            tracing::warn!(error = %why, "Redis does not answer for quotas: they are divided by the processes");
            metrics::gauge!("tracklayer_delivery_quota_divided").set(1.0);
        }
    }
}

/// Rounded up: of steps that are too short more fit into a minute than are allowed.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX)
}

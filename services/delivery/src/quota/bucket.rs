//! What may be sent of one limit of a minute and one of a day: in turns that this process has from all of them together, or, while Redis
//! does not answer, in its own part.
//!
//! A turn of a minute has a time, at most `early` before which it is used and at most `late` after which it is lost. Both together are
//! what may go ahead of its time, so that in no minute more go out than are allowed, whoever has the turns. Turns are taken in batches:
//! twice as many each time as long as all of them are used, and as many as were used where some were lost.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracklayer_destination::Limits;

use super::DayIsUsedUp;
use super::shared::{OfDay, SharedQuota, Wanted};

const MINUTE: Duration = Duration::from_secs(60);
/// One of so many requests of a minute may go ahead of its time.
const AHEAD: u32 = 20;

/// A day is counted by spans of so many seconds.
pub(super) const SPAN_SECONDS: i64 = 600;
/// What was sent in a span counts in the next 24 hours, whenever within the span it was: in so many spans, its own included.
pub(super) const SPANS: i64 = 24 * 3_600 / SPAN_SECONDS + 1;
/// One of so many requests of a day is the most that a process takes at once, and loses when it sends no more.
const PARTS_OF_DAY: u32 = 5_000;
/// How soon a process looks again that has used up its own part of a day, since Redis may answer again.
const LOOK: Duration = Duration::from_secs(3);

/// One limit.
#[derive(Debug)]
pub(super) struct Bucket {
    /// By which name it stands in Redis.
    key: String,
    /// For whom the requests are counted, for people.
    whose: &'static str,
    state: Mutex<State>,
}

/// Whoever has it may have to ask Redis: the others wait their turn, first come, first served.
#[derive(Debug)]
struct State {
    minute: Minute,
    day: Day,
}

/// What a bucket goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Among<'a> {
    /// The processes together; none: there is no Redis to ask.
    pub(super) shared: Option<&'a SharedQuota>,
    /// How many processes there are.
    pub(super) processes: u32,
    /// By the wall clock.
    pub(super) now: Timestamp,
}

impl Bucket {
    pub(super) fn new(key: String, whose: &'static str) -> Self {
        let minute = Minute { next: Instant::now(), reserved: None, is_alone: false };
        Self { key, whose, state: Mutex::new(State { minute, day: Day::default() }) }
    }

    /// Takes so many requests, and answers when the last of them may go.
    pub(super) async fn take(
        &self,
        limits: &Limits,
        requests: u32,
        among: Among<'_>,
    ) -> Result<Instant, DayIsUsedUp> {
        let mut state = self.state.lock().await;
        if let Some(per_day) = limits.requests_per_day {
            let taken = state.day.take(&self.key, per_day, requests, among).await;
            taken.map_err(|full| {
                let (per_day, whose) = if full.is_own_part {
                    (per_day / among.processes, "this process, while Redis does not answer,")
                } else {
                    (per_day, self.whose)
                };
                DayIsUsedUp { per_day, whose, wait: full.wait }
            })?;
        }
        let mut due = Instant::now();
        if let Some(per_minute) = limits.requests_per_minute {
            for more in (1..=requests).rev() {
                due = due.max(state.minute.turn(&self.key, per_minute, more, among).await);
            }
        }
        Ok(due)
    }
}

/// How requests are spread over a minute.
#[derive(Debug, Clone, Copy)]
struct Spread {
    /// From one to the next.
    step: Duration,
    /// So many may go ahead of their time.
    ahead: u32,
}

impl Spread {
    fn of(per_minute: u32, processes: u32) -> Self {
        // A limit below one per process and minute: each gets less than one.
        let mine = per_minute / processes;
        let ahead = mine / AHEAD;
        let step = if mine == 0 { MINUTE * processes / per_minute.max(1) } else { MINUTE / (mine - ahead) };
        Self { step, ahead }
    }

    /// So much after its time a turn that all processes share is lost.
    fn late(self) -> Duration {
        self.step * (self.ahead / 2)
    }

    /// So much before its time it may be used.
    fn early(self) -> Duration {
        self.step * (self.ahead - self.ahead / 2)
    }
}

#[derive(Debug)]
struct Minute {
    /// When the next request of this process alone is due, were all of them spread evenly.
    next: Instant,
    /// Turns of all processes together.
    reserved: Option<Reserved>,
    /// Whether it goes by its own part, since Redis does not answer.
    is_alone: bool,
}

/// Turns that this process has, one step after the other.
#[derive(Debug)]
struct Reserved {
    /// When the next one may be used first, and last.
    from: Instant,
    until: Instant,
    step: Duration,
    left: u32,
    /// How many there were.
    batch: u32,
    /// How many were lost.
    lost: u32,
}

impl Reserved {
    /// The next one that is not lost.
    fn next(&mut self, now: Instant) -> Option<Instant> {
        while self.left > 0 {
            let (from, until) = (self.from, self.until);
            self.left -= 1;
            self.from += self.step;
            self.until += self.step;
            if now <= until {
                return Some(from.max(now));
            }
            self.lost += 1;
        }
        None
    }
}

impl Minute {
    /// When the next request may go; the one after it is due a step later. `more` are wanted at once, this one included.
    async fn turn(&mut self, key: &str, per_minute: u32, more: u32, among: Among<'_>) -> Instant {
        let Some(shared) = among.shared else { return self.own_turn(per_minute, among.processes) };
        if let Some(turn) = self.reserved.as_mut().and_then(|reserved| reserved.next(Instant::now())) {
            return turn;
        }
        let spread = Spread::of(per_minute, 1);
        let batch = self.next_batch(spread).max(more);
        let asked = Instant::now();
        // After a time in which each process went by its own part nothing goes ahead of its time: that may have been used up.
        let ahead = if self.is_alone { spread.early() } else { Duration::ZERO };
        let Some(wait) = shared.reserve(key, spread.step, batch, ahead).await else {
            self.reserved = None;
            if !self.is_alone {
                self.is_alone = true;
                let own = Spread::of(per_minute, among.processes);
                self.next = self.next.max(Instant::now() + own.step * own.ahead);
            }
            return self.own_turn(per_minute, among.processes);
        };
        self.is_alone = false;
        // The answer came later than Redis gave it, and the question was there later than it was asked.
        let answered = Instant::now();
        let first = (answered + wait).checked_sub(spread.early()).unwrap_or(answered).max(answered);
        self.reserved = Some(Reserved {
            from: (answered + wait + spread.step).checked_sub(spread.early()).unwrap_or(answered),
            until: asked + wait + spread.step + spread.late(),
            step: spread.step,
            left: batch - 1,
            batch,
            lost: 0,
        });
        first
    }

    /// How many turns to ask for.
    fn next_batch(&self, spread: Spread) -> u32 {
        match &self.reserved {
            None => 1,
            Some(reserved) if reserved.lost > 0 => (reserved.batch - reserved.lost).max(1),
            Some(reserved) => reserved.batch.saturating_mul(2).min((spread.ahead / 2).max(1)),
        }
    }

    /// A turn of this process' own part.
    fn own_turn(&mut self, per_minute: u32, processes: u32) -> Instant {
        let Spread { step, ahead } = Spread::of(per_minute, processes);
        let now = Instant::now();
        let due = self.next.max(now);
        self.next = due + step;
        due.checked_sub(step * ahead).unwrap_or(now).max(now)
    }
}

#[derive(Debug, Default)]
struct Day {
    /// What this process has taken, by the span.
    taken: BTreeMap<i64, u32>,
    /// What of it Redis has not been told.
    untold: u32,
    /// What was taken in advance in this span; it is lost with it.
    span: i64,
    left: u32,
    batch: u32,
}

/// Nothing is left of a day.
#[derive(Debug)]
struct Full {
    is_own_part: bool,
    wait: Duration,
}

impl Day {
    async fn take(&mut self, key: &str, per_day: u32, requests: u32, among: Among<'_>) -> Result<(), Full> {
        let span = among.now.as_second().div_euclid(SPAN_SECONDS);
        if self.span != span {
            (self.span, self.left, self.batch) = (span, 0, 0);
            self.taken.retain(|taken_in, _| *taken_in > span - SPANS);
        }
        if let Some(left) = self.left.checked_sub(requests) {
            self.left = left;
            return Ok(());
        }
        let missing = requests - self.left;
        let own: u32 = self.taken.values().fold(0_u32, |sum, taken| sum.saturating_add(*taken));
        if let Some(shared) = among.shared {
            let batch = self.batch.saturating_mul(2).clamp(1, (per_day / PARTS_OF_DAY).max(1)).max(missing);
            let wanted = Wanted { span, per_day, missing, batch, untold: self.untold, own };
            match shared.take_of_day(key, wanted).await {
                Some(OfDay::Taken(taken)) => {
                    self.untold = 0;
                    self.batch = taken;
                    self.count(span, taken);
                    self.left = taken.saturating_sub(missing);
                    return Ok(());
                }
                Some(OfDay::FullUntil(span)) => {
                    self.untold = 0;
                    return Err(Full { is_own_part: false, wait: until(span, among.now) });
                }
                // It may have come and been counted: no more than is wanted is asked for next.
                None => self.batch = 0,
            }
        }
        let part = per_day / among.processes;
        if own.saturating_add(missing) <= part {
            self.left = 0;
            self.count(span, missing);
            self.untold = if among.shared.is_some() { self.untold.saturating_add(missing) } else { 0 };
            return Ok(());
        }
        let wait = self.room_for(missing, own, part).map_or(LOOK, |span| until(span, among.now));
        let is_own_part = among.shared.is_some();
        Err(Full { is_own_part, wait: if is_own_part { wait.min(LOOK) } else { wait } })
    }

    fn count(&mut self, span: i64, taken: u32) {
        let counted = self.taken.entry(span).or_default();
        *counted = counted.saturating_add(taken);
    }

    /// From which span on there is room in this process' own part; none: there never is.
    fn room_for(&self, missing: u32, own: u32, part: u32) -> Option<i64> {
        let mut left = own;
        self.taken.iter().find_map(|(span, taken)| {
            left = left.saturating_sub(*taken);
            (left.saturating_add(missing) <= part).then_some(span + SPANS)
        })
    }
}

/// How long it is until a span begins.
fn until(span: i64, now: Timestamp) -> Duration {
    let seconds = span.saturating_mul(SPAN_SECONDS).saturating_sub(now.as_second());
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_that_are_used_early_and_late_fit_into_what_a_minute_may_have() {
        for per_minute in [1, 5, 60, 300, 6_000, 600_000] {
            let spread = Spread::of(per_minute, 1);
            // As many as have their time in a minute, in what before it is used late in it, and in what after it early.
            let window = MINUTE + spread.early() + spread.late();
            let most = window.as_secs_f64() / spread.step.as_secs_f64();
            assert!(most <= f64::from(per_minute) * 1.000_1, "{per_minute}: {most}");
        }
    }

    #[test]
    fn turns_whose_time_is_over_are_lost_and_then_fewer_are_asked_for() {
        let (now, step, spread) = (Instant::now(), Duration::from_millis(200), Spread::of(300, 1));
        let reserved = Reserved { from: now, until: now + step, step, left: 7, batch: 8, lost: 0 };
        let mut minute = Minute { next: now, reserved: Some(reserved), is_alone: false };
        let next = |minute: &mut Minute, at| minute.reserved.as_mut().unwrap().next(at);
        assert_eq!(next(&mut minute, now), Some(now));
        assert_eq!(next(&mut minute, now), Some(now + step), "not before its time");
        assert_eq!(minute.next_batch(spread), 7, "all were used: twice as many, and no more than the most");
        let later = now + step * 6;
        assert_eq!(next(&mut minute, later), Some(later), "the three before it are lost");
        assert_eq!(minute.next_batch(spread), 5);
        assert_eq!(next(&mut minute, later + MINUTE), None);
    }
}

//! What an answer means for each event of its request: the truth per event, never per request.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tracklayer_destination::outcome::without_tokens;
use tracklayer_destination::{Answer, Destination, HoldKind, HttpRequest, ItemOutcome, RefusalCode, Remark};

use super::health::Sign;
use super::plan;
use super::send::items_of;
use super::slot::{Evidence, Slot, storable};
use super::{LONGEST_RETRY, Lane, LaneError, MAX_RETRIES};
use crate::breaker::Trouble;
use crate::http::SendError;
use crate::ledger::State;

/// Most characters of a request or answer that a dead letter keeps.
const MAX_EVIDENCE_CHARS: usize = 4_000;
/// The one status of a server in trouble that says that nothing was done. Source: RFC 9110, 15.6.4; 2026-11.
const SERVICE_UNAVAILABLE: u16 = 503;
/// The first status of a server in trouble. Source: RFC 9110, 15.6; 2026-11.
const FIRST_OF_TROUBLE: u16 = 500;
/// So much later trouble counts against an event once more, though the platform has answered nobody meanwhile.
const COUNTS_AGAIN: SignedDuration = SignedDuration::from_hours(1);

/// Trouble of the platform that was counted against an event of the lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastTrouble {
    at: Timestamp,
    /// How many requests of the connection had been answered by then.
    answered: u64,
}

/// Shortest part of the time that is left to an event in which it is worth another try.
const SHORTEST_SHARE: Duration = Duration::from_secs(30);

/// How often a change of an order is reckoned anew and tried again where another one stands at the platform.
const BEHIND_ANOTHER: u32 = 5;

/// A request that failed as a whole.
pub(super) struct Failure {
    pub(super) error: LaneError,
    /// The platform surely has nothing of it.
    pub(super) surely_not_taken: bool,
    /// The access token was refused.
    pub(super) token_refused: bool,
    /// What it says of the connection.
    pub(super) sign: Sign,
}

impl Failure {
    fn surely(kind: HoldKind, detail: String, after: Option<Duration>) -> Self {
        let sign = match kind {
            // It may be wrong for one sort of event only: the other lanes find out by themselves.
            HoldKind::Configuration => Sign::Works,
            HoldKind::Throttled | HoldKind::Transient | HoldKind::Auth => {
                Sign::Trouble(Trouble { kind, detail: detail.clone(), after })
            }
        };
        let error = LaneError::Held { kind: kind.as_str(), detail, after };
        Self { error, surely_not_taken: true, token_refused: false, sign }
    }

    fn maybe(kind: HoldKind, detail: String, after: Option<Duration>) -> Self {
        Self { surely_not_taken: false, ..Self::surely(kind, detail, after) }
    }

    fn with(self, sign: Option<Sign>) -> Self {
        Self { sign: sign.unwrap_or(self.sign), ..self }
    }
}

impl Lane {
    /// What became of each event of one request.
    pub(super) fn read_answer(
        &mut self,
        slots: &mut [Slot],
        members: &[usize],
        answer: Result<Answer, SendError>,
        request: &HttpRequest,
        destination: &dyn Destination,
    ) -> Result<(Vec<Vec<usize>>, Sign), Box<Failure>> {
        match answer {
            Err(SendError::NotSent(why)) => Err(Box::new(Failure::surely(HoldKind::Transient, why, None))),
            Err(SendError::Unknown(why)) => {
                count_attempt(slots, members);
                let mut failure = self.outcome_unknown(slots, members, destination, why);
                if self.lease.has_run_out() {
                    // Cut off by ourselves: that says nothing of the platform.
                    failure.sign = Sign::Silent;
                }
                Err(Box::new(failure))
            }
            Ok(answer) => {
                count_attempt(slots, members);
                let outcomes = plan::classify(destination, &answer, &items_of(slots, members));
                self.settle(slots, members, outcomes, destination, request, &answer)
            }
        }
    }

    /// A request without an answer: repeated under the same ids inside the platform's dedup window, dead past it.
    pub(super) fn outcome_unknown(
        &self,
        slots: &mut [Slot],
        members: &[usize],
        destination: &dyn Destination,
        why: String,
    ) -> Failure {
        let now = self.context.clock.now();
        metrics::counter!("tracklayer_delivery_unknown_outcomes_total").increment(members.len() as u64);
        mark_maybe_taken(slots, members, false, destination, now);
        Failure::maybe(HoldKind::Transient, why, None)
    }

    pub(super) fn settle(
        &mut self,
        slots: &mut [Slot],
        members: &[usize],
        outcomes: Vec<ItemOutcome>,
        destination: &dyn Destination,
        request: &HttpRequest,
        answer: &Answer,
    ) -> Result<(Vec<Vec<usize>>, Sign), Box<Failure>> {
        let now = self.context.clock.now();
        // Where some of it has an outcome of its own, the platform works; where the lane only gives up to hold for it, it does not.
        let is_whole = outcomes.iter().all(|outcome| matches!(outcome, ItemOutcome::HoldLane { .. }));
        let works = (!is_whole).then_some(Sign::Works);
        let exhausted = plan::hold_of(&outcomes).filter(|_| is_whole).and_then(trouble_of);
        let counts = self.counts_as_held(answer.status, now);
        let held = members.iter().map(|i| slots[*i].transient_holds).max().unwrap_or(0);
        let outcomes = plan::give_up_holding(outcomes, held + u32::from(counts));
        let hold = plan::hold_of(&outcomes).cloned();
        let refused_token = plan::refused_token(&outcomes);
        let exchange = Exchange { request, answer, events: members.len() };
        let mut waits: HashMap<u32, Duration> = HashMap::new();
        let mut rest: Vec<usize> = Vec::new();
        let mut halved = false;
        let mut alone: Vec<Vec<usize>> = Vec::new();
        for (index, outcome) in members.iter().copied().zip(outcomes) {
            let slot = &mut slots[index];
            match of_slot(outcome, slot) {
                ItemOutcome::Delivered { note } => {
                    let remark = slot.item.as_ref().and_then(|item| item.remark);
                    let detail = note.as_deref().or(remark.map(Remark::text)).unwrap_or_default();
                    slot.settle(State::Delivered, remark.map_or("", Remark::as_str), detail, now);
                }
                ItemOutcome::DeliveredBefore { code } => {
                    slot.settle(State::Delivered, "delivered_before", &code, now);
                    slot.there_before = true;
                }
                ItemOutcome::Retry { attempts, code, detail, .. }
                    if slot.tries + 1 >= attempts.unwrap_or(MAX_RETRIES) =>
                {
                    give_up_trying(slot, &code, &detail, &exchange, now);
                }
                ItemOutcome::Retry { after: Some(Duration::ZERO), .. } => {
                    slot.tries += 1;
                    alone.push(vec![index]);
                }
                ItemOutcome::Retry { after, code, detail, .. } => {
                    slot.tries += 1;
                    // One wait for all that one answer puts off: they go out together again, not one by one.
                    let own = || *waits.entry(slot.tries).or_insert_with(|| wait_before(slot.tries));
                    let wait = after.unwrap_or_else(own);
                    match wait_in_time(wait, plan::left_to_send(slot, destination, now)) {
                        Some(wait) => {
                            slot.retry_at = Some(now + wait);
                            slot.settle(State::Held, "retry", &format!("{code}: {detail}"), now);
                            self.waiting.announce(slot.key, now + wait);
                        }
                        None => give_up_trying(slot, &code, &detail, &exchange, now),
                    }
                }
                ItemOutcome::Dead { code, detail } => bury(slot, &code, &detail, &exchange, now),
                ItemOutcome::Isolate { code, detail } if members.len() == 1 => {
                    bury(slot, &code, &detail, &exchange, now);
                }
                ItemOutcome::Isolate { .. } => {
                    halved = true;
                    rest.push(index);
                }
                ItemOutcome::ResendRest => rest.push(index),
                ItemOutcome::ResendReduced { body, keys, .. } => {
                    if let Some(item) = &mut slot.item {
                        item.body = body;
                        item.keys = Some(keys);
                    }
                    rest.push(index);
                }
                // Told below, once for the request.
                ItemOutcome::HoldLane { .. } | ItemOutcome::RefreshToken { .. } => {}
                // Read above.
                ItemOutcome::DeliveredIfRepeated { .. } => {}
            }
        }
        if let Some(ItemOutcome::HoldLane { after, kind, code, detail, .. }) = hold {
            let detail = format!("{code}: {detail}");
            if kind != HoldKind::Transient {
                // The platform said that it did not take the request.
                return Err(Box::new(Failure::surely(kind, detail, after).with(works)));
            }
            if counts {
                self.last_trouble = Some(LastTrouble { at: now, answered: self.circuit.answered() });
                for index in members.iter().copied() {
                    slots[index].transient_holds += u32::from(slots[index].verdict.is_none());
                }
            }
            // The lane holds also where nothing is left to repeat: the next events would only fare the same.
            mark_maybe_taken(slots, members, answer.status == SERVICE_UNAVAILABLE, destination, now);
            return Err(Box::new(Failure::maybe(kind, detail, after).with(works)));
        }
        if let Some(code) = refused_token {
            // A token that ended early is no reason to wait; a fresh one that is refused too is.
            let after = (self.holds == 0).then_some(Duration::from_millis(10));
            let detail = format!("{code}: the access token was refused");
            let mut failure =
                Failure { token_refused: true, ..Failure::surely(HoldKind::Auth, detail, after) };
            if after.is_some() {
                failure.sign = Sign::Silent;
            }
            return Err(Box::new(failure));
        }
        let mut again = alone;
        if halved && rest.len() > 1 {
            let second = rest.split_off(rest.len() / 2);
            again.push(rest);
            again.push(second);
        } else if !rest.is_empty() {
            again.push(rest);
        }
        Ok((again, exhausted.map_or(Sign::Works, Sign::Trouble)))
    }

    /// Whether trouble of the platform counts against the events that met it. A server in trouble says nothing of an event as long
    /// as no other fares better: then it counts once an hour, so that an outage kills nothing, and an event that nobody ever
    /// answers does not hold its lane for ever.
    fn counts_as_held(&self, status: u16, now: Timestamp) -> bool {
        status < FIRST_OF_TROUBLE
            || self.last_trouble.is_none_or(|last| {
                self.circuit.answered() != last.answered || now.duration_since(last.at) >= COUNTS_AGAIN
            })
    }
}

fn trouble_of(outcome: &ItemOutcome) -> Option<Trouble> {
    let ItemOutcome::HoldLane { after, kind, code, detail, .. } = outcome else { return None };
    Some(Trouble { kind: *kind, detail: format!("{code}: {detail}"), after: *after })
}

/// What an outcome means that hangs on whether a request has carried the event before. Only a repeat is taken for success: on a first
/// try somebody else's change stands at the platform, and ours has to be reckoned anew.
fn of_slot(outcome: ItemOutcome, slot: &Slot) -> ItemOutcome {
    match outcome {
        ItemOutcome::DeliveredIfRepeated { code, .. } if slot.unknown_since.is_some() => {
            ItemOutcome::DeliveredBefore { code }
        }
        ItemOutcome::DeliveredIfRepeated { code, detail } => {
            ItemOutcome::Retry { after: None, attempts: Some(BEHIND_ANOTHER), code, detail }
        }
        other => other,
    }
}

/// The request may have been taken although nothing says so: its open events are repeated inside the platform's window, and
/// given up where a repeat would be counted. `refused`: the answer says that nothing was done, which is good enough where
/// nothing can be repeated, and not relied on where it can.
fn mark_maybe_taken(
    slots: &mut [Slot],
    members: &[usize],
    refused: bool,
    destination: &dyn Destination,
    now: Timestamp,
) {
    for index in members.iter().copied() {
        let slot = &mut slots[index];
        let Some(item) = slot.item.as_ref().filter(|_| slot.verdict.is_none()) else { continue };
        if item.repeatable || !refused {
            slot.unknown_since.get_or_insert(now);
        }
        plan::settle_unrepeatable(slot, destination, now);
    }
}

/// The lane's own wait before another try of an event.
fn wait_before(try_number: u32) -> Duration {
    crate::backoff::full_jitter(try_number, Duration::from_secs(1), LONGEST_RETRY)
}

/// The wait before another try, so that the event is not too old by then: half of what is left to it where that is less, and none
/// where too little is left. Who waited past it would be held in vain, and dead for its age rather than for what the platform said.
fn wait_in_time(wait: Duration, left: Option<SignedDuration>) -> Option<Duration> {
    let Some(left) = left else { return Some(wait) };
    let left = Duration::try_from(left).unwrap_or_default();
    if wait < left {
        return Some(wait);
    }
    Some(left / 2).filter(|half| *half >= SHORTEST_SHARE)
}

fn count_attempt(slots: &mut [Slot], members: &[usize]) {
    for index in members {
        slots[*index].attempts += 1;
    }
}

/// Kills an event that the platform refused, with the evidence. One that an earlier request may have brought is told as such: what it
/// refuses may be the repetition alone.
fn bury(slot: &mut Slot, code: &str, detail: &str, exchange: &Exchange<'_>, now: Timestamp) {
    slot.evidence = Some(evidence(slot, code, detail, exchange));
    let ours = code == plan::UNKNOWN || RefusalCode::ALL.iter().any(|known| known.as_str() == code);
    if ours {
        slot.settle(State::Dead, code, detail, now);
    } else {
        slot.settle(State::Dead, plan::REJECTED, &format!("{code}: {detail}"), now);
    }
    plan::settle_as_unknown(slot, now);
}

/// Kills an event that the platform asked for later, once that is in vain: under the platform's own code, with the evidence.
fn give_up_trying(slot: &mut Slot, code: &str, detail: &str, exchange: &Exchange<'_>, now: Timestamp) {
    slot.evidence = Some(evidence(slot, code, detail, exchange));
    let detail = format!("the platform kept refusing it: {code}: {detail}");
    slot.settle(State::Dead, "retries_exhausted", &detail, now);
    plan::settle_as_unknown(slot, now);
}

/// A request and its answer.
struct Exchange<'e> {
    request: &'e HttpRequest,
    answer: &'e Answer,
    /// How many events it carried.
    events: usize,
}

/// The event's own part of the request, and what the answer says of it. An answer about several may name others, by their click ids for
/// one, with whom the letter would not go: of such a one it keeps no more than what was read of it for this event.
fn evidence(slot: &Slot, code: &str, detail: &str, exchange: &Exchange<'_>) -> Evidence {
    let Exchange { request, answer, events } = *exchange;
    let body = slot.item.as_ref().map(|item| item.body.as_str()).unwrap_or_default();
    let cut = |text: &str| storable(text, MAX_EVIDENCE_CHARS);
    // Masked before it is cut, by which a token could become too short to be known as one.
    let said: String = match events {
        0 | 1 => String::from_utf8_lossy(&answer.body).chars().take(2 * MAX_EVIDENCE_CHARS).collect(),
        _ => format!("(an answer about {events} events, of which it said of this one) {code}: {detail}"),
    };
    Evidence {
        request: cut(&format!("{} {}\n{body}", request.method, request.url)),
        answer: cut(&format!("{} {}", answer.status, without_tokens(&said))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracklayer_ids::Position;

    use super::*;
    use crate::entry::Entry;

    #[test]
    fn anothers_change_at_the_platform_is_no_delivery_of_ours() {
        let entry = Entry::decode(Position::new(1, 0, 0), vec![].into());
        let mut slot = Slot::new(Arc::new(entry));
        let another = || ItemOutcome::DeliveredIfRepeated {
            code: "RESTATEMENT_ALREADY_EXISTS".to_owned(),
            detail: "there is one".to_owned(),
        };
        assert!(matches!(
            of_slot(another(), &slot),
            ItemOutcome::Retry { after: None, attempts: Some(5), .. }
        ));
        // Answered clearly, and so not taken, by the requests before.
        slot.attempts = 3;
        assert!(matches!(of_slot(another(), &slot), ItemOutcome::Retry { .. }));
        slot.unknown_since = Some(Timestamp::UNIX_EPOCH);
        assert!(matches!(of_slot(another(), &slot), ItemOutcome::DeliveredBefore { .. }), "our own repeat");
    }

    #[test]
    fn no_event_waits_past_the_time_in_which_it_can_be_sent() {
        let (hour, minutes) = (Duration::from_secs(3_600), SignedDuration::from_mins);
        assert_eq!(wait_in_time(hour, None), Some(hour), "it is never too old");
        assert_eq!(wait_in_time(hour, Some(minutes(61))), Some(hour));
        assert_eq!(wait_in_time(hour, Some(minutes(60))), Some(hour / 2));
        assert_eq!(wait_in_time(hour, Some(minutes(1))), Some(Duration::from_secs(30)));
        for left in [SignedDuration::from_secs(59), SignedDuration::ZERO, minutes(-5)] {
            assert_eq!(wait_in_time(hour, Some(left)), None, "{left:?}");
        }
    }

    #[test]
    fn who_is_dead_because_nobody_knows_was_not_rejected() {
        let request = HttpRequest::get("https://shop.example.com/".to_owned());
        let answer = Answer { status: 200, headers: Default::default(), body: b"what is this".to_vec() };
        for (code, reason) in [(plan::UNKNOWN, plan::UNKNOWN), ("40000", "rejected_by_platform")] {
            let entry = Entry::decode(Position::new(1, 0, 0), vec![].into());
            let mut slot = Slot::new(Arc::new(entry));
            let exchange = Exchange { request: &request, answer: &answer, events: 1 };
            bury(&mut slot, code, "reading the answer crashed", &exchange, Timestamp::UNIX_EPOCH);
            assert_eq!(slot.verdict.as_ref().unwrap().reason, reason);
            assert!(slot.dead_row().unwrap().answer.contains("what is this"));
        }
    }

    #[test]
    fn no_token_that_an_answer_quotes_is_kept_as_evidence() {
        let request = HttpRequest::get("https://shop.example.com/".to_owned());
        let token = "EAABsbCS1iHgBAKZCx0987654321abcdefZD";
        for filler in [0, MAX_EVIDENCE_CHARS - 38] {
            let said = format!("{} Malformed access token {token}", " ".repeat(filler));
            let answer = Answer { status: 400, headers: Default::default(), body: said.into_bytes() };
            let mut slot = Slot::new(Arc::new(Entry::decode(Position::new(1, 0, 0), vec![].into())));
            let exchange = Exchange { request: &request, answer: &answer, events: 1 };
            bury(&mut slot, "190", "refused", &exchange, Timestamp::UNIX_EPOCH);
            let kept = slot.dead_row().unwrap().answer;
            assert!(!kept.contains("EAAB"), "{kept}");
        }
    }

    #[test]
    fn a_refused_repetition_says_nothing_of_the_request_before_it() {
        let request = HttpRequest::get("https://shop.example.com/".to_owned());
        let answer = Answer { status: 400, headers: Default::default(), body: b"no such field".to_vec() };
        let entry = Entry::decode(Position::new(1, 0, 0), vec![].into());
        let mut slot = Slot::new(Arc::new(entry));
        slot.unknown_since = Some(Timestamp::UNIX_EPOCH);
        let exchange = Exchange { request: &request, answer: &answer, events: 1 };
        bury(&mut slot, "40000", "no such field", &exchange, Timestamp::UNIX_EPOCH);
        let verdict = slot.verdict.as_ref().unwrap();
        assert_eq!((verdict.state, verdict.reason.as_str()), (State::Dead, plan::UNKNOWN));
        assert!(verdict.detail.contains("dead rejected_by_platform: 40000: no such field"), "{verdict:?}");
        assert!(slot.dead_row().unwrap().answer.contains("no such field"), "the evidence stays");
    }

    #[test]
    fn a_letter_keeps_of_an_answer_about_several_what_is_about_its_event() {
        let request = HttpRequest::get("https://shop.example.com/".to_owned());
        let answer = Answer::new(200, "bad time at 0; gclid Cj0other is taken");
        let kept_of = |events: usize| {
            let entry = Entry::decode(Position::new(1, 0, 0), vec![].into());
            let mut slot = Slot::new(Arc::new(entry));
            let exchange = Exchange { request: &request, answer: &answer, events };
            bury(&mut slot, "BAD_TIME", "not a time", &exchange, Timestamp::UNIX_EPOCH);
            slot.dead_row().unwrap().answer
        };
        assert_eq!(kept_of(1), "200 bad time at 0; gclid Cj0other is taken");
        let of_several = kept_of(2);
        assert!(of_several.starts_with("200 "), "{of_several}");
        assert!(of_several.contains("BAD_TIME: not a time"), "{of_several}");
        assert!(!of_several.contains("Cj0other"), "{of_several}");
    }
}

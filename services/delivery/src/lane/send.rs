//! Requests of a lane: intent, a last look at the narrowing log, the request, and the truth about each event of the answer.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tracklayer_destination::{Answer, Destination, HoldKind, HttpRequest, ItemOutcome, Kind, RefusalCode};
use tracklayer_ids::Secret;

use super::plan;
use super::slot::{Evidence, Slot};
use super::{LONGEST_RETRY, Lane, LaneError, MAX_RETRIES, OUTCOME_UNKNOWN};
use crate::connections::OpenConnection;
use crate::http::{SendError, Sender};
use crate::ledger::State;
use crate::oauth::TokenError;

/// A request is begun only while the lease surely holds this long: the time from the check to the first byte.
const LEASE_MARGIN: Duration = Duration::from_millis(150);
/// How often a decision may change under a request before the lane waits instead.
const MAX_REDECISIONS: usize = 3;
/// Most characters of a request or answer that a dead letter keeps.
const MAX_EVIDENCE_CHARS: usize = 4_000;

impl Lane {
    /// Sends every open slot, in requests, in order. Ends early where the platform or a service holds the lane; slots with a
    /// verdict keep it.
    pub(super) async fn send_open(
        &mut self,
        slots: &mut [Slot],
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<(), LaneError> {
        if self.holds > 0 {
            // Time has passed since these were planned: what was fresh may be too old by now.
            let now = Timestamp::now();
            for slot in slots.iter_mut().filter(|slot| slot.verdict.is_none()) {
                plan::plan(slot, destination, now);
                plan::give_up_unknown(slot, destination, false, now);
            }
        }
        self.hold_behind(slots);
        let open: Vec<usize> = (0..slots.len()).filter(|i| slots[*i].verdict.is_none()).collect();
        let mut queue: VecDeque<Vec<usize>> = plan::requests(slots, &open, destination).into();
        while !queue.is_empty() {
            self.hold_behind(slots);
            let wave = plan::wave(slots, &mut queue, destination.limits().max_concurrent);
            if wave.is_empty() {
                continue;
            }
            for again in self.send_wave(slots, wave, connection, destination).await?.into_iter().rev() {
                queue.push_front(again);
            }
        }
        Ok(())
    }

    /// Events whose key has something waiting for a retry wait behind it. Retries themselves come here with the earliest of
    /// their key only.
    fn hold_behind(&self, slots: &mut [Slot]) {
        if self.waiting_keys.is_empty() {
            return;
        }
        let now = Timestamp::now();
        for slot in slots.iter_mut().filter(|slot| slot.verdict.is_none() && !slot.is_retry) {
            if self.waiting_keys.contains(&slot.entry.order_key) {
                slot.retry_at = Some(now);
                slot.settle(State::Held, "behind", "", now);
            }
        }
    }

    /// Requests that go out at the same time, under one intent. Answers which slots have to go out again, at once and in which
    /// requests.
    async fn send_wave(
        &mut self,
        slots: &mut [Slot],
        wave: Vec<Vec<usize>>,
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<Vec<Vec<usize>>, LaneError> {
        let token = self.access_token(connection, destination).await?;
        let all: Vec<usize> = wave.iter().flatten().copied().collect();
        let generation = slots[all[0]].entry.position.generation;
        let positions: Vec<_> = all.iter().map(|i| slots[*i].entry.position).collect();
        let offsets: Vec<u64> = positions.iter().map(|p| p.offset.0).collect();
        let intent = self.context.lanes.intend(&self.lease, generation, &offsets).await?;
        self.intents.push((intent, positions));

        let allowed = match self.still_allowed(slots, all, connection, destination).await {
            Ok(_) if !self.lease.surely_held_for(LEASE_MARGIN) => Err(LaneError::LeaseUnsure),
            other => other,
        };
        let allowed: HashSet<usize> = match allowed {
            Ok(allowed) => allowed.into_iter().collect(),
            Err(error) => {
                self.withdraw(intent).await?;
                return Err(error);
            }
        };
        let wave: Vec<Vec<usize>> = wave
            .into_iter()
            .map(|members| members.into_iter().filter(|i| allowed.contains(i)).collect::<Vec<usize>>())
            .filter(|members| !members.is_empty())
            .collect();
        let begun = SystemTime::now();
        let sender = &self.context.sender;
        let sent = futures::future::join_all(wave.iter().map(|members| {
            let request = destination.assemble(&items_of(slots, members), token.as_ref());
            async move { (send(sender, &request, destination).await, request) }
        }))
        .await;
        self.requests += wave.len() as u64;

        let mut again = Vec::new();
        let mut failure: Option<Failure> = None;
        let mut none_taken = true;
        for (members, (answer, request)) in wave.into_iter().zip(sent) {
            for index in &members {
                slots[*index].sent_at = Some(begun);
            }
            match self.read_answer(slots, &members, answer, &request, destination) {
                Ok(more) => {
                    none_taken = false;
                    again.extend(more);
                }
                Err(failed) => {
                    none_taken &= failed.surely_not_taken;
                    failure.get_or_insert(failed);
                }
            }
        }
        if none_taken {
            self.withdraw(intent).await?;
        }
        let Some(failure) = failure else { return Ok(again) };
        if let (true, Some(used)) = (failure.token_refused, token.as_ref()) {
            self.context.tokens.forget(connection.id, connection.revision, used).await;
        }
        Err(failure.error)
    }

    /// What became of each event of one request.
    fn read_answer(
        &mut self,
        slots: &mut [Slot],
        members: &[usize],
        answer: Result<Answer, SendError>,
        request: &HttpRequest,
        destination: &dyn Destination,
    ) -> Result<Vec<Vec<usize>>, Failure> {
        match answer {
            Err(SendError::NotSent(why)) => Err(Failure::surely(HoldKind::Transient, why, None)),
            Err(SendError::Unknown(why)) => {
                count_attempt(slots, members);
                self.outcome_unknown(slots, members, destination, why)
            }
            Ok(answer) => {
                count_attempt(slots, members);
                let outcomes = destination.classify(&answer, &items_of(slots, members));
                self.settle(slots, members, outcomes, destination, request, &answer)
            }
        }
    }

    async fn access_token(
        &self,
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<Option<Secret<String>>, LaneError> {
        let Some(settings) = destination.oauth() else { return Ok(None) };
        match self.context.tokens.get(connection.id, connection.revision, settings).await {
            Ok(token) => Ok(Some(token)),
            Err(error) => {
                let kind = match error {
                    TokenError::Refused { .. } => HoldKind::Auth,
                    TokenError::Unavailable { .. } => HoldKind::Transient,
                };
                Err(LaneError::Held { kind: kind.as_str(), detail: error.to_string(), after: None })
            }
        }
    }

    /// Reads the narrowing log, decides again for whoever is named, and answers who may still go out.
    async fn still_allowed(
        &self,
        slots: &mut [Slot],
        mut members: Vec<usize>,
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<Vec<usize>, LaneError> {
        for _ in 0..MAX_REDECISIONS {
            if members.is_empty() {
                return Ok(members);
            }
            let view = self.context.narrowing.read(self.lease.duty.workspace).await?;
            let named: Vec<usize> = members
                .iter()
                .copied()
                .filter(|i| view.named_since(&slots[*i].entry.subject_keys, slots[*i].decided_at))
                .collect();
            for slot in members.iter().filter(|i| !named.contains(i)).copied() {
                slots[slot].decided_at = slots[slot].decided_at.max(view.newest);
            }
            if named.is_empty() {
                return Ok(members);
            }
            metrics::counter!("tracklayer_delivery_redecided_total").increment(named.len() as u64);
            self.decide_again(slots, &named, connection).await?;
            let now = Timestamp::now();
            for index in named {
                plan::plan(&mut slots[index], destination, now);
            }
            members.retain(|i| slots[*i].verdict.is_none());
        }
        let detail = "consent changes faster than the lane can look".to_owned();
        Err(LaneError::Held { kind: HoldKind::Transient.as_str(), detail, after: None })
    }

    /// A request without an answer: repeated under the same ids inside the platform's dedup window, dead past it.
    fn outcome_unknown(
        &self,
        slots: &mut [Slot],
        members: &[usize],
        destination: &dyn Destination,
        why: String,
    ) -> Result<Vec<Vec<usize>>, Failure> {
        let now = Timestamp::now();
        let window = destination.limits().dedup_window;
        metrics::counter!("tracklayer_delivery_unknown_outcomes_total").increment(members.len() as u64);
        let mut repeatable = false;
        for index in members {
            let slot = &mut slots[*index];
            let since = *slot.unknown_since.get_or_insert(now);
            let repeatable_item = slot.item.as_ref().is_some_and(|item| item.repeatable);
            if repeatable_item && plan::may_repeat(since, window, now) {
                repeatable = true;
            } else {
                slot.settle(State::Dead, "outcome_unknown", OUTCOME_UNKNOWN, now);
            }
        }
        if repeatable {
            return Err(Failure::maybe(HoldKind::Transient, why, None));
        }
        Ok(Vec::new())
    }

    fn settle(
        &mut self,
        slots: &mut [Slot],
        members: &[usize],
        outcomes: Vec<ItemOutcome>,
        destination: &dyn Destination,
        request: &HttpRequest,
        answer: &Answer,
    ) -> Result<Vec<Vec<usize>>, Failure> {
        let now = Timestamp::now();
        let tried = members.iter().map(|i| slots[*i].attempts).max().unwrap_or(0);
        let outcomes = plan::give_up_holding(outcomes, tried);
        let hold = plan::hold_of(&outcomes).cloned();
        let refused_token = plan::refused_token(&outcomes);
        let mut rest: Vec<usize> = Vec::new();
        let mut halved = false;
        let mut alone: Vec<Vec<usize>> = Vec::new();
        for (index, outcome) in members.iter().copied().zip(outcomes) {
            let slot = &mut slots[index];
            match outcome {
                ItemOutcome::Delivered { note } => {
                    slot.settle(State::Delivered, "", note.as_deref().unwrap_or_default(), now);
                }
                ItemOutcome::DeliveredBefore { code } => {
                    slot.settle(State::Delivered, "delivered_before", &code, now)
                }
                ItemOutcome::Retry { attempts, .. } if slot.attempts >= attempts.unwrap_or(MAX_RETRIES) => {
                    slot.evidence = Some(evidence(slot, request, answer));
                    slot.settle(
                        State::Dead,
                        "retries_exhausted",
                        "the platform kept asking to try later",
                        now,
                    );
                }
                ItemOutcome::Retry { after: Some(Duration::ZERO), .. } => alone.push(vec![index]),
                ItemOutcome::Retry { after, code, detail, .. } => {
                    let wait = after.unwrap_or_else(|| {
                        crate::backoff::full_jitter(slot.attempts, Duration::from_secs(1), LONGEST_RETRY)
                    });
                    slot.retry_at = Some(now + wait);
                    slot.settle(State::Held, "retry", &format!("{code}: {detail}"), now);
                    self.waiting_keys.insert(slot.entry.order_key);
                }
                ItemOutcome::Dead { code, detail } => bury(slot, &code, &detail, request, answer, now),
                ItemOutcome::Isolate { code, detail } if members.len() == 1 => {
                    bury(slot, &code, &detail, request, answer, now);
                }
                ItemOutcome::Isolate { .. } => {
                    halved = true;
                    rest.push(index);
                }
                ItemOutcome::ResendRest => rest.push(index),
                ItemOutcome::ResendReduced { body, .. } => {
                    if let Some(item) = &mut slot.item {
                        item.body = body;
                    }
                    rest.push(index);
                }
                // Told below, once for the request.
                ItemOutcome::HoldLane { .. } | ItemOutcome::RefreshToken { .. } => {}
            }
        }
        if let Some(ItemOutcome::HoldLane { after, kind, code, detail, .. }) = hold {
            let detail = format!("{code}: {detail}");
            if kind != HoldKind::Transient {
                // The platform said that it did not take the request.
                return Err(Failure::surely(kind, detail, after));
            }
            if destination.limits().dedup_window.is_some() {
                for index in members.iter().copied() {
                    if slots[index].verdict.is_none() {
                        slots[index].unknown_since.get_or_insert(now);
                    }
                }
            }
            return Err(Failure::maybe(kind, detail, after));
        }
        if let Some(code) = refused_token {
            // A token that ended early is no reason to wait; a fresh one that is refused too is.
            let after = (self.holds == 0).then_some(Duration::from_millis(10));
            let detail = format!("{code}: the access token was refused");
            return Err(Failure { token_refused: true, ..Failure::surely(HoldKind::Auth, detail, after) });
        }
        let mut again = alone;
        if halved && rest.len() > 1 {
            let second = rest.split_off(rest.len() / 2);
            again.push(rest);
            again.push(second);
        } else if !rest.is_empty() {
            again.push(rest);
        }
        Ok(again)
    }

    async fn withdraw(&mut self, intent: uuid::Uuid) -> Result<(), LaneError> {
        self.intents.retain(|(id, _)| *id != intent);
        self.context.lanes.withdraw(self.lease.duty, &[intent]).await?;
        Ok(())
    }
}

async fn send(
    sender: &Sender,
    request: &HttpRequest,
    destination: &dyn Destination,
) -> Result<Answer, SendError> {
    let timeout = destination.limits().timeout;
    let begun = SystemTime::now();
    let answer = match destination.kind() {
        // The one kind whose address a workspace chooses freely.
        Kind::Webhook => sender.send_guarded(request, timeout).await,
        Kind::MetaCapi
        | Kind::GoogleDataManager
        | Kind::GoogleAds
        | Kind::Ga4Mp
        | Kind::TiktokEvents
        | Kind::Warehouse => sender.send(request, timeout).await,
    };
    metrics::histogram!("tracklayer_delivery_request_seconds", "kind" => destination.kind().as_str())
        .record(begun.elapsed().unwrap_or_default().as_secs_f64());
    answer
}

/// A request that failed as a whole.
struct Failure {
    error: LaneError,
    /// The platform surely has nothing of it.
    surely_not_taken: bool,
    /// The access token was refused.
    token_refused: bool,
}

impl Failure {
    fn surely(kind: HoldKind, detail: String, after: Option<Duration>) -> Self {
        let error = LaneError::Held { kind: kind.as_str(), detail, after };
        Self { error, surely_not_taken: true, token_refused: false }
    }

    fn maybe(kind: HoldKind, detail: String, after: Option<Duration>) -> Self {
        Self { surely_not_taken: false, ..Self::surely(kind, detail, after) }
    }
}

fn items_of<'a>(slots: &'a [Slot], members: &[usize]) -> Vec<&'a tracklayer_destination::Item> {
    members.iter().filter_map(|i| slots[*i].item.as_ref()).collect()
}

fn count_attempt(slots: &mut [Slot], members: &[usize]) {
    for index in members {
        slots[*index].attempts += 1;
    }
}

/// Kills an event that the platform refused, with the evidence.
fn bury(slot: &mut Slot, code: &str, detail: &str, request: &HttpRequest, answer: &Answer, now: Timestamp) {
    slot.evidence = Some(evidence(slot, request, answer));
    let ours = RefusalCode::ALL.iter().any(|known| known.as_str() == code);
    if ours {
        slot.settle(State::Dead, code, detail, now);
    } else {
        slot.settle(State::Dead, "rejected_by_platform", &format!("{code}: {detail}"), now);
    }
}

/// The event's own part of the request, and the answer.
fn evidence(slot: &Slot, request: &HttpRequest, answer: &Answer) -> Evidence {
    let body = slot.item.as_ref().map(|item| item.body.to_string()).unwrap_or_default();
    let cut = |text: &str| text.chars().take(MAX_EVIDENCE_CHARS).collect::<String>();
    Evidence {
        request: cut(&format!("{} {}\n{body}", request.method, request.url)),
        answer: cut(&format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))),
    }
}

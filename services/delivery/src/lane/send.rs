//! Requests of a lane: intent, a last look at the narrowing log, the request, and the truth about each event of the answer.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tracklayer_destination::{Answer, Destination, HttpRequest, Limits};
use tracklayer_ids::{Position, Secret};
use tracklayer_journal::not_aside;
use uuid::Uuid;

use super::ahead::one_ahead;
use super::answer::Failure;
use super::decide::Allowed;
use super::health::{Health, Sign};
use super::plan;
use super::slot::Slot;
use super::{Lane, LaneError};
use crate::breaker::{Leave, Trouble};
use crate::connections::OpenConnection;
use crate::http::{SendError, Sender};
use crate::lease::Lease;
use crate::ledger::State;

/// A request is begun only while the lease surely holds this long. What takes longer before the first byte (a connection is
/// given five seconds) is cut off by [`while_held`].
pub(super) const LEASE_MARGIN: Duration = Duration::from_millis(150);
/// How often a request under way looks at its lease.
const LEASE_LOOK: Duration = Duration::from_millis(50);

/// What is left to do after a wave.
enum Sent {
    /// These go out again, at once, in these requests.
    Again(Vec<Vec<usize>>),
    /// Nothing was sent: an event belongs into another request by now.
    Rearrange,
}

/// Which requests an item fits into: group and exclusive key; none if it is not to be sent.
type Place = Option<(String, Option<String>)>;

fn place_of(slot: &Slot) -> Place {
    slot.item.as_ref().map(|item| (item.group.clone(), item.exclusive.clone()))
}

/// Plans a slot anew; whether it belongs into another request by that, or into none.
pub(super) fn moves(slot: &mut Slot, destination: &dyn Destination, now: Timestamp) -> bool {
    let before = place_of(slot);
    plan::plan_again(slot, destination, now);
    place_of(slot) != before
}

impl Lane {
    /// Sends every open slot, in requests, in order. Ends early where the platform or a service holds the lane; slots with a
    /// verdict keep it.
    pub(super) async fn send_open(
        &mut self,
        slots: &mut [Slot],
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<(), LaneError> {
        if let Some(target) = destination.files() {
            return self.write_open(slots, connection, destination, target).await;
        }
        if self.holds > 0 || self.behind_circuit {
            // Before the work of planning anew, which is in vain while another lane's event is tried.
            if slots.iter().any(|slot| slot.verdict.is_none()) {
                self.circuit.look(connection.revision).map_err(LaneError::CircuitOpen)?;
            }
            // Another partition may have changed an order meanwhile.
            self.read_orders(slots, connection, destination).await?;
            let now = self.context.clock.now();
            for slot in slots.iter_mut().filter(|slot| slot.verdict.is_none()) {
                plan::plan_again(slot, destination, now);
            }
        }
        let most = wave_size(destination.limits());
        // After a hold one event goes ahead: what is not over yet costs one of them, not a batch and not a wave.
        let mut ahead = self.holds > 0 || self.behind_circuit;
        'arrange: loop {
            self.hold_behind(slots);
            let open: Vec<usize> = (0..slots.len()).filter(|i| slots[*i].verdict.is_none()).collect();
            let mut queue: VecDeque<Vec<usize>> = plan::requests(slots, &open, destination).into();
            while !queue.is_empty() {
                self.hold_behind(slots);
                let mut wave = plan::wave(slots, &mut queue, most);
                if wave.is_empty() {
                    continue;
                }
                if self.has_changed(connection) {
                    return Ok(());
                }
                let leave = self.leave(connection)?;
                if ahead || matches!(leave, Leave::Try(_)) {
                    wave = one_ahead(wave, &mut queue);
                }
                match self.send_wave(slots, wave, connection, destination, &leave).await? {
                    Sent::Again(requests) => {
                        for again in requests.into_iter().rev() {
                            queue.push_front(again);
                        }
                        ahead = false;
                    }
                    Sent::Rearrange => continue 'arrange,
                }
            }
            return Ok(());
        }
    }

    /// Whether the configuration has another state of the connection by now: the next round goes on with that one.
    pub(super) fn has_changed(&self, connection: &OpenConnection) -> bool {
        let newest = self.context.connections.one(self.lease.duty.workspace, connection.id);
        newest.is_none_or(|newest| newest.revision != connection.revision)
    }

    /// Plans anew what was planned too long ago; whether any of it belongs into another request by that, or into none.
    fn renews(&self, slots: &mut [Slot], wave: &[Vec<usize>], destination: &dyn Destination) -> bool {
        let now = self.context.clock.now();
        let mut moved = false;
        for index in wave.iter().flatten().copied() {
            if plan::is_stale(&slots[index], now) {
                moved |= moves(&mut slots[index], destination, now);
            }
        }
        moved
    }

    /// Events whose key has something waiting for a retry wait behind it, and changes of an order behind those that wait for it.
    /// Retries themselves come here with the earliest of their key only; one that has waited behind its visitor may change an order
    /// of which another change waits.
    fn hold_behind(&self, slots: &mut [Slot]) {
        let now = self.context.clock.now();
        for slot in slots.iter_mut().filter(|slot| slot.verdict.is_none()) {
            let Some(key) = behind(slot).find(|key| self.waiting.contains(*key)) else { continue };
            slot.key = key;
            slot.retry_at = Some(now);
            slot.settle(State::Held, "behind", "", now);
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
        leave: &Leave,
    ) -> Result<Sent, LaneError> {
        if self.renews(slots, &wave, destination) {
            return Ok(Sent::Rearrange);
        }
        let events = wave.iter().map(Vec::len).sum();
        if self.lease.lost().run_until_cancelled(self.pace(events)).await.is_none() {
            return Err(LaneError::LeaseUnsure);
        }
        let token = self.access_token(connection, destination, leave).await?;
        // Before the intent and the look at the log: both have to be fresh when the request goes out.
        let admitted = self.context.quota.admit_all(connection.id, destination.limits(), wave.len());
        let Some(admitted) = self.lease.lost().run_until_cancelled(admitted).await else {
            return Err(LaneError::LeaseUnsure);
        };
        let _admission = match admitted {
            Ok(admission) => admission,
            // The limit may be another by now, too.
            Err(_) if self.has_changed(connection) => return Ok(Sent::Rearrange),
            Err(used_up) => return Err(self.day_is_used_up(connection, leave, &used_up)),
        };
        // After the waits: a hold may have begun meanwhile. What is on its way when one begins is finished.
        if let Some(hold) = self.on_hold() {
            return Err(LaneError::OnHold(hold));
        }
        self.still_has_leave(leave)?;
        // The waits may have been long: the connection may be another by now, and an event too old. Arranged anew, both is looked at.
        if self.has_changed(connection) || self.renews(slots, &wave, destination) {
            return Ok(Sent::Rearrange);
        }
        let now = self.context.clock.now();
        let all: Vec<usize> = wave.iter().flatten().copied().collect();
        let generation = slots[all[0]].entry.position.generation;
        let positions: Vec<_> = all.iter().map(|i| slots[*i].entry.position).collect();
        let offsets: Vec<u64> = positions.iter().map(|p| p.offset.0).collect();
        let intent = self.next_intent;
        self.intents.retain(|(id, _)| *id != intent);
        self.intents.push((intent, positions));
        not_aside(self.context.lanes.intend(&self.lease, intent, generation, &offsets, "")).await?;
        self.next_intent = Uuid::now_v7();

        let allowed = match self.still_allowed(slots, all, connection, destination).await {
            Ok(_) if !self.lease.surely_held_for(LEASE_MARGIN) => Err(LaneError::LeaseUnsure),
            // Asking takes as long as those who are asked: a hold may have begun meanwhile.
            Ok(allowed) => self.on_hold().map_or(Ok(allowed), |hold| Err(LaneError::OnHold(hold))),
            Err(error) => Err(error),
        };
        let (allowed, moved) = match allowed {
            Ok(Allowed { members, moved }) => (members.into_iter().collect::<HashSet<usize>>(), moved),
            Err(error) => {
                self.withdraw(intent).await?;
                return Err(error);
            }
        };
        if moved {
            // Decided anew, it belongs into another request.
            self.withdraw(intent).await?;
            return Ok(Sent::Rearrange);
        }
        let wave: Vec<Vec<usize>> = wave
            .into_iter()
            .map(|members| members.into_iter().filter(|i| allowed.contains(i)).collect::<Vec<usize>>())
            .filter(|members| !members.is_empty())
            .collect();
        let mut again = Vec::new();
        let mut requests = Vec::new();
        for members in wave {
            match plan::assemble(slots, &members, destination, token.as_ref(), now) {
                Ok(request) => requests.push((members, request)),
                Err(apart) => again.extend(apart),
            }
        }
        let begun = SystemTime::now();
        let sender = &self.context.sender;
        let answers = futures::future::join_all(
            requests.iter().map(|(_, request)| while_held(&self.lease, send(sender, request, destination))),
        )
        .await;
        self.requests += requests.len() as u64;

        let mut failure: Option<Box<Failure>> = None;
        let mut none_taken = true;
        let mut health = Health::default();
        for ((members, request), answer) in requests.into_iter().zip(answers) {
            for index in &members {
                slots[*index].sent_at = Some(begun);
            }
            if let Ok(answer) = &answer {
                health.read_usage(destination, answer);
            }
            match self.read_answer(slots, &members, answer, &request, destination) {
                Ok((more, sign)) => {
                    none_taken = false;
                    health.note(sign);
                    again.extend(more);
                }
                Err(mut failed) => {
                    health.note(std::mem::replace(&mut failed.sign, Sign::Silent));
                    // A neighbour may have been taken while the rest was refused.
                    none_taken &=
                        failed.surely_not_taken && members.iter().all(|i| slots[*i].verdict.is_none());
                    failure.get_or_insert(failed);
                }
            }
        }
        self.tell_of_platform(connection, leave, health);
        if none_taken || (failure.is_some() && self.is_covered_by_older(intent)) {
            self.withdraw(intent).await?;
        }
        let Some(failure) = failure else { return Ok(Sent::Again(again)) };
        if let (true, Some(used)) = (failure.token_refused, token.as_ref()) {
            self.context.tokens.forget(connection.id, connection.revision, used).await;
        }
        Err(failure.error)
    }

    async fn access_token(
        &self,
        connection: &OpenConnection,
        destination: &dyn Destination,
        leave: &Leave,
    ) -> Result<Option<Secret<String>>, LaneError> {
        let Some(settings) = destination.oauth() else { return Ok(None) };
        match self.context.tokens.get(connection.id, connection.revision, settings).await {
            Ok(token) => Ok(Some(token)),
            Err(error) => {
                let (kind, after, detail) = (error.kind(), error.after(), error.to_string());
                let trouble = Trouble { kind, detail: detail.clone(), after };
                self.circuit.failed(connection.revision, leave, &trouble);
                Err(LaneError::Held { kind: kind.as_str(), detail, after })
            }
        }
    }

    /// Whether an older intent says the same about all of its events: a platform that is down for hours leaves one intent of a
    /// wave, not one for each try.
    fn is_covered_by_older(&self, intent: Uuid) -> bool {
        let Some(place) = self.intents.iter().position(|(id, _)| *id == intent) else { return false };
        let older: HashSet<Position> = self.intents[..place].iter().flat_map(|(_, p)| p).copied().collect();
        self.intents[place].1.iter().all(|position| older.contains(position))
    }

    async fn withdraw(&mut self, intent: Uuid) -> Result<(), LaneError> {
        self.context.lanes.withdraw(&self.lease, &[intent]).await?;
        self.intents.retain(|(id, _)| *id != intent);
        Ok(())
    }
}

/// The keys behind which an event has to wait.
fn behind(slot: &Slot) -> impl Iterator<Item = u64> {
    let visitor = Some(slot.entry.order_key).filter(|_| !slot.is_retry);
    let order = slot.order_wait.filter(|order| !slot.is_retry || *order != slot.came_under);
    visitor.into_iter().chain(order)
}

/// Cuts a request off when the lease runs out under it, so that none of it is written after a successor may have begun. A lease
/// that is only to be given back is renewed until the request has ended.
pub(super) async fn while_held(
    lease: &Lease,
    request: impl Future<Output = Result<Answer, SendError>>,
) -> Result<Answer, SendError> {
    let run_out = async {
        while !lease.has_run_out() {
            tokio::time::sleep(LEASE_LOOK).await;
        }
    };
    tokio::select! {
        biased;
        () = run_out => Err(SendError::Unknown("the lease ran out before the answer".to_owned())),
        answer = request => answer,
    }
}

async fn send(
    sender: &Sender,
    request: &HttpRequest,
    destination: &dyn Destination,
) -> Result<Answer, SendError> {
    let timeout = destination.limits().timeout;
    let begun = SystemTime::now();
    let answer = sender.send(request, timeout).await;
    metrics::histogram!("tracklayer_delivery_request_seconds", "kind" => destination.kind().as_str())
        .record(begun.elapsed().unwrap_or_default().as_secs_f64());
    answer
}

pub(super) fn items_of<'a>(slots: &'a [Slot], members: &[usize]) -> Vec<&'a tracklayer_destination::Item> {
    members.iter().filter_map(|i| slots[*i].item.as_deref()).collect()
}

/// Requests of one lane at the same time: its share of what the connection may have under way in this process, one where requests
/// are counted. More lanes than are reckoned with here wait for each other at the quota; fewer leave a part of it unused.
pub(super) fn wave_size(limits: &Limits) -> usize {
    /// Partitions of a workspace for which nobody has chosen otherwise.
    const LANES: usize = 4;
    if limits.requests_per_minute.is_some() { 1 } else { (limits.max_concurrent / LANES).max(1) }
}

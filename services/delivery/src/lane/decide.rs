//! Decision and order of each event before it is planned, and the last look at consent before a request.

use std::collections::HashSet;
use std::sync::Arc;

use tracklayer_destination::{Consent, Destination, HoldKind, Mode, NoteCounts, OrderNeed};
use tracklayer_ids::SubjectKey;
use tracklayer_proto::event::v1::Event;
use tracklayer_proto::identity::v1::ResolvedIdentity;

use super::early::is_early;
use super::guard;
use super::plan;
use super::send::moves;
use super::slot::{Borrowed, Slot};
use super::{Lane, LaneError};
use crate::connections::OpenConnection;
use crate::store::filed::MOST_SUBJECTS;
use crate::store::orders::wait_key;
use crate::subjects::{self, Asked};

/// How often a decision may change under a request before the lane waits instead.
///
/// Each look asks only about those who were named during the one before, and takes as much less time: on a day of many merges
/// the first few looks find somebody, the later ones nobody.
const MAX_REDECISIONS: usize = 20;

/// Who of a wave may still go out.
pub(super) struct Allowed {
    /// They.
    pub(super) members: Vec<usize>,
    /// Whether one of them belongs into another request by now.
    pub(super) moved: bool,
}

impl Lane {
    /// Gives each open slot its decision and order, and plans it.
    pub(super) async fn plan_slots(
        &mut self,
        slots: &mut [Slot],
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<(), LaneError> {
        let now = self.context.clock.now();
        let mut to_ask = Vec::new();
        for (index, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| slot.verdict.is_none()) {
            slot.take_decision_of_resolve(connection.id);
            if destination.mode() == Mode::Off || !slot.decision_is_stale(connection.revision, now) {
                continue;
            }
            let wants = slot.deliverable.as_ref().and_then(|d| guard::wants(destination, d));
            if wants.is_some_and(|wants| wants.is_ok()) {
                to_ask.push(index);
            }
        }
        self.decide_again(slots, &to_ask, connection).await?;
        self.read_orders(slots, connection, destination).await?;

        let now = self.context.clock.now();
        for slot in slots.iter_mut().filter(|slot| slot.verdict.is_none()) {
            slot.unknown_since =
                slot.unknown_since.or_else(|| self.unknown.get(&slot.entry.position).copied());
            plan::plan_again(slot, destination, now);
        }
        Ok(())
    }

    /// Gives each slot that changes an order what is known of it, and lends it what the order was matched by where it
    /// knows nobody. One that would overwrite an order is told what that was changed by, and waits for nobody.
    pub(super) async fn read_orders(
        &self,
        slots: &mut [Slot],
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<(), LaneError> {
        // Nothing is sent in shadow, so that nothing is known of any order.
        if destination.mode() != Mode::Live {
            return Ok(());
        }
        let needs: Vec<Option<OrderNeed>> = slots
            .iter()
            .map(|slot| slot.deliverable.as_ref().and_then(|d| guard::order_need(destination, d)))
            .collect();
        let wanted: Vec<OrderNeed> = needs.iter().flatten().cloned().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let states = self.context.orders.states_for(self.lease.duty, &wanted).await?;
        let mut borrowers = Vec::new();
        for (index, (slot, need)) in slots.iter_mut().zip(needs).enumerate() {
            let (Some(deliverable), Some(need)) = (&mut slot.deliverable, need) else { continue };
            let state = states.get(need.order_id()).cloned();
            let OrderNeed::Changes(key) = need else {
                deliverable.order_state = state;
                continue;
            };
            slot.order_wait = Some(wait_key(&key));
            let state = state.unwrap_or_default();
            let may_borrow = state.is_sold() && slot.verdict.is_none();
            deliverable.order_state = Some(state);
            if may_borrow && let Some(order) = guard::borrows_from(destination, deliverable) {
                borrowers.push((index, order));
            }
        }
        let lent = self.borrow(slots, borrowers).await?;
        self.decide_again(slots, &lent, connection).await
    }

    /// Reads what sales were matched by for changes that know nobody; answers who of them has something now. It goes into nothing
    /// before consent is asked about whom it is of, which [`Self::decide_again`] does.
    async fn borrow(
        &self,
        slots: &mut [Slot],
        borrowers: Vec<(usize, String)>,
    ) -> Result<Vec<usize>, LaneError> {
        if borrowers.is_empty() {
            return Ok(Vec::new());
        }
        let orders: Vec<String> = borrowers.iter().map(|(_, order)| order.clone()).collect();
        let now = self.context.clock.now();
        let kept = self.context.match_keys.of_orders(self.lease.duty, &orders, now).await?;
        let mut lent = Vec::new();
        for (index, order) in borrowers {
            let slot = &mut slots[index];
            if let Some(state) = slot.deliverable.as_mut().and_then(|d| d.order_state.as_mut()) {
                state.match_key = None;
            }
            slot.borrowed = kept.get(&order).cloned().map(|kept| Box::new(Borrowed { order, kept }));
            lent.extend(slot.borrowed.is_some().then_some(index));
        }
        Ok(lent)
    }

    /// Asks identity and consent afresh for some slots and puts the answers into their deliverables.
    pub(super) async fn decide_again(
        &self,
        slots: &mut [Slot],
        which: &[usize],
        connection: &OpenConnection,
    ) -> Result<(), LaneError> {
        let Some(query) = connection.consent_query().filter(|_| !which.is_empty()) else { return Ok(()) };
        let workspace = self.lease.duty.workspace;
        let snapshot = self.context.config.snapshot().ok_or(LaneError::NoConnection)?;
        let asked_at = self.context.clock.now();
        let events: Vec<Arc<Event>> = which
            .iter()
            .filter_map(|i| slots[*i].deliverable.as_ref().map(|d| Arc::clone(&d.event)))
            .collect();
        let asked: Vec<Asked<'_>> =
            events.iter().map(|event| Asked::about(event, workspace, &snapshot)).collect();
        let before = self.context.narrowing.reached(workspace).await?;
        let mut identities = subjects::resolve(&self.context.clients, workspace, &asked).await?;
        self.add_lenders(slots, which, &mut identities.of_events).await?;
        let pairs: Vec<(&Asked<'_>, &ResolvedIdentity)> = asked.iter().zip(&identities.of_events).collect();
        let key = self.context.master_key.workspace(workspace);
        let answer =
            subjects::decide(&self.context.clients, workspace, &key, &snapshot, &pairs, &[query], false)
                .await?;
        let (seen, own) = (answer.narrowing_seq, &identities.narrowings);
        let overtaken = self.context.narrowing.overtaken(workspace, before, seen, own).await?;
        for ((index, decision), identity) in which.iter().zip(answer.decisions).zip(identities.of_events) {
            let slot = &mut slots[*index];
            slot.decided_at = overtaken.decided_at(identity.subject_keys.iter().map(Vec::as_slice));
            slot.decided_on = asked_at;
            slot.decided_for = connection.revision;
            // Whom the person is linked to by now: a narrowing may name only them.
            slot.subject_keys =
                identity.subject_keys.iter().filter_map(|k| SubjectKey::from_slice(k)).collect();
            let decision = decision.destinations.first().map(Consent::from_decision);
            if let Some(deliverable) = &mut slot.deliverable {
                deliverable.decision =
                    decision.unwrap_or_else(|| Consent::Deny { reason: "no_decision".to_owned() });
                if let (Some(state), Some(borrowed)) = (&mut deliverable.order_state, &slot.borrowed) {
                    state.match_key = Some(borrowed.kept.key.clone());
                }
            }
        }
        Ok(())
    }

    /// What is borrowed is another's, perhaps: who it is of by now, and whoever that is linked to, has to allow this, too. Of more than
    /// consent is asked about at once nothing is borrowed.
    async fn add_lenders(
        &self,
        slots: &mut [Slot],
        which: &[usize],
        identities: &mut [ResolvedIdentity],
    ) -> Result<(), LaneError> {
        let mut asked: Vec<(&str, &str)> = Vec::new();
        let mut counts = Vec::with_capacity(which.len());
        for index in which {
            let identifiers = slots[*index].borrowed.as_ref().map(|borrowed| &borrowed.kept.identifiers);
            let identifiers = identifiers.into_iter().flatten();
            let before = asked.len();
            asked.extend(identifiers.map(|(kind, value)| (kind.as_str(), value.as_str())));
            counts.push(asked.len() - before);
        }
        if asked.is_empty() {
            return Ok(());
        }
        let found = subjects::who_has(&self.context.clients, self.lease.duty.workspace, &asked).await?;
        let mut found = found.into_iter();
        for ((index, identity), count) in which.iter().zip(identities).zip(counts) {
            for lender in found.by_ref().take(count) {
                identity.subject_keys.extend(lender.subject_keys);
                identity.suppressed |= lender.suppressed;
                identity.person_known |= lender.person_known;
            }
            if count > 0 && identity.subject_keys.len() > MOST_SUBJECTS {
                identity.subject_keys.truncate(MOST_SUBJECTS);
                slots[*index].borrowed = None;
            }
        }
        Ok(())
    }

    /// Reads the narrowing log, decides again for whoever is named and wherever the decision is another connection's state or
    /// too old, and answers who may still go out.
    pub(super) async fn still_allowed(
        &self,
        slots: &mut [Slot],
        mut members: Vec<usize>,
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<Allowed, LaneError> {
        let mut moved = HashSet::new();
        for _ in 0..MAX_REDECISIONS {
            if members.is_empty() {
                return Ok(Allowed { members, moved: false });
            }
            let view = self.context.narrowing.read(self.lease.duty.workspace).await?;
            let now = self.context.clock.now();
            let (to_ask, good): (Vec<usize>, Vec<usize>) = members.iter().copied().partition(|i| {
                slots[*i].decision_is_stale(connection.revision, now)
                    || view.named_since(&slots[*i].subject_keys, slots[*i].decided_at)
            });
            for index in good {
                slots[index].decided_at = slots[index].decided_at.max(view.newest);
            }
            if to_ask.is_empty() {
                let moved = members.iter().any(|member| moved.contains(member));
                return Ok(Allowed { members, moved });
            }
            metrics::counter!("tracklayer_delivery_redecided_total").increment(to_ask.len() as u64);
            // Who is named may have been merged or erased.
            let borrowed = |index: &usize| Some((*index, slots[*index].borrowed.as_ref()?.order.clone()));
            let borrowers = to_ask.iter().filter_map(borrowed).collect();
            self.borrow(slots, borrowers).await?;
            self.decide_again(slots, &to_ask, connection).await?;
            let now = self.context.clock.now();
            for index in to_ask {
                if moves(&mut slots[index], destination, now) {
                    moved.insert(index);
                }
            }
            members.retain(|i| slots[*i].verdict.is_none());
        }
        let detail = "consent changes faster than the lane can look".to_owned();
        Err(LaneError::Held { kind: HoldKind::Transient.as_str(), detail, after: None })
    }
}

/// Counts what was left out of the events or noted about them, once for all of a range: by platform, field and reason. What the
/// range ends before is planned, and counted, with the next one; what waits for its order, when it has come.
pub(super) fn tell_of_fields(slots: &mut [Slot], platform: &'static str) {
    for (labels, count) in counts_of(slots).iter() {
        metrics::counter!(
            "tracklayer_delivery_fields_total",
            "platform" => platform,
            "kind" => labels.kind,
            "field" => labels.field,
            "reason" => labels.reason,
        )
        .increment(count);
    }
}

/// Takes the notes of those that have not been counted yet.
fn counts_of(slots: &mut [Slot]) -> NoteCounts {
    let mut counts = NoteCounts::default();
    for slot in slots {
        let notes = std::mem::take(&mut slot.notes);
        if !is_early(slot) && !slot.notes_counted {
            counts.add(&notes);
            slot.notes_counted = true;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tracklayer_destination::{Note, Rule};
    use tracklayer_ids::Position;

    use super::*;
    use crate::entry::Entry;
    use crate::lane::early::ORDER_UNKNOWN;
    use crate::ledger::State;

    fn noted() -> Slot {
        let mut slot = Slot::new(Arc::new(Entry::decode(Position::new(1, 0, 0), vec![].into())));
        slot.notes = vec![Note::rejected("gclid", Rule::LooksPersonal)];
        slot
    }

    fn counted(slots: &mut [Slot]) -> u64 {
        counts_of(slots).iter().map(|(_, count)| count).sum()
    }

    #[test]
    fn what_was_left_out_of_an_event_is_counted_once_however_often_it_is_planned() {
        let mut slots = [noted(), noted()];
        assert_eq!(counted(&mut slots), 2);
        slots[0].notes = noted().notes;
        assert_eq!(counted(&mut slots), 0, "planned anew for another state of the connection");
        let mut early = noted();
        early.settle(State::Held, ORDER_UNKNOWN, "", Timestamp::UNIX_EPOCH);
        assert_eq!(counted(std::slice::from_mut(&mut early)), 0, "it is looked at again and again");
    }
}

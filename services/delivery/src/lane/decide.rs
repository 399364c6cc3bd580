//! Decision and order of each event before it is planned, and the last look at consent before a request.

use std::sync::Arc;

use jiff::Timestamp;
use tracklayer_destination::{Consent, Destination, HoldKind};
use tracklayer_proto::event::v1::Event;
use tracklayer_proto::identity::v1::ResolvedIdentity;

use super::plan;
use super::slot::Slot;
use super::{Lane, LaneError};
use crate::connections::OpenConnection;
use crate::subjects;

/// How often a decision may change under a request before the lane waits instead.
const MAX_REDECISIONS: usize = 3;

impl Lane {
    pub(super) async fn plan_slots(
        &mut self,
        slots: &mut [Slot],
        connection: &OpenConnection,
        destination: &dyn Destination,
    ) -> Result<(), LaneError> {
        let undecided: Vec<usize> = (0..slots.len())
            .filter(|i| {
                slots[*i].entry.deliverable.is_some() && slots[*i].entry.decision(connection.id).is_none()
            })
            .collect();
        for slot in slots.iter_mut() {
            let decision = slot.entry.decision(connection.id).map(Consent::from_decision);
            slot.deliverable = slot.entry.deliverable.as_ref().map(|deliverable| {
                let denied = Consent::Deny { reason: "no_decision".to_owned() };
                deliverable.for_connection(decision.unwrap_or(denied), None)
            });
        }
        self.decide_again(slots, &undecided, connection).await?;
        self.read_orders(slots, destination).await?;

        let now = Timestamp::now();
        for slot in slots.iter_mut() {
            plan::plan(slot, destination, now);
            slot.unknown_since =
                slot.unknown_since.or_else(|| self.unknown.get(&slot.entry.position).copied());
            plan::settle_unrepeatable(slot, destination, now);
        }
        Ok(())
    }

    pub(super) async fn read_orders(
        &self,
        slots: &mut [Slot],
        destination: &dyn Destination,
    ) -> Result<(), LaneError> {
        let keys: Vec<Option<String>> = slots
            .iter()
            .map(|slot| slot.deliverable.as_ref().and_then(|deliverable| destination.order_key(deliverable)))
            .collect();
        let wanted: Vec<String> = keys.iter().flatten().cloned().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let states = self.context.orders.states(self.lease.duty, &wanted).await?;
        for (slot, key) in slots.iter_mut().zip(keys) {
            if let (Some(deliverable), Some(state)) =
                (&mut slot.deliverable, key.and_then(|k| states.get(&k)))
            {
                deliverable.order_state = Some(state.clone());
            }
        }
        Ok(())
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
        let events: Vec<Arc<Event>> = which
            .iter()
            .filter_map(|i| slots[*i].deliverable.as_ref().map(|d| Arc::clone(&d.event)))
            .collect();
        let borrowed: Vec<&Event> = events.iter().map(AsRef::as_ref).collect();
        let identities = subjects::resolve(&self.context.clients, workspace, &snapshot, &borrowed).await?;
        let pairs: Vec<(&Event, &ResolvedIdentity)> = borrowed.iter().copied().zip(&identities).collect();
        let key = self.context.master_key.workspace(workspace);
        let answer =
            subjects::decide(&self.context.clients, workspace, &key, &snapshot, &pairs, &[query], false)
                .await?;
        for (index, decision) in which.iter().zip(answer.decisions) {
            let slot = &mut slots[*index];
            slot.decided_at = answer.narrowing_seq;
            if let (Some(deliverable), Some(decision)) =
                (&mut slot.deliverable, decision.destinations.first())
            {
                deliverable.decision = Consent::from_decision(decision);
            }
        }
        Ok(())
    }

    /// Reads the narrowing log, decides again for whoever is named, and answers who may still go out.
    pub(super) async fn still_allowed(
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
}

//! What a replay does with each event that it has found: the lane's own rules, by consent, connection and clock as they are now.
//!
//! It is asked when a replay is planned and again when its events are taken. Neither is the last look: what is taken goes out as a retry,
//! and its lane decides once more before each request.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tracklayer_destination::data_manager::is_refused_later;
use tracklayer_destination::{Consent, Destination, OrderNeed, RefusalCode};
use tracklayer_ids::MasterKey;
use tracklayer_proto::event::v1::Event;
use tracklayer_proto::identity::v1::ResolvedIdentity;
use tracklayer_rpc::follow::ConfigWatch;

use super::walk::Found;
use super::{Selection, What};
use crate::clients::Clients;
use crate::connections::OpenConnection;
use crate::lane::early::ORDER_UNKNOWN;
use crate::lane::guard;
use crate::lane::plan::{self, UNKNOWN, may_repeat};
use crate::lane::slot::Slot;
use crate::lease::Duty;
use crate::ledger::State;
use crate::match_keys;
use crate::store::StoreError;
use crate::store::orders::{OrderStore, wait_key};
use crate::subjects::{self, Asked, ServiceUnavailable};

/// Consent's reason for who was erased.
pub const ERASED: &str = "erased";
/// The reason of what would put its order wrong at the platform.
const ORDER_ADJUSTED: &str = "order_adjusted";

/// Why nothing was judged.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// Orders.
    #[error("could not read what was sent for orders")]
    Store(#[from] StoreError),
    /// Identity or consent.
    #[error("could not decide anew")]
    Service(#[from] ServiceUnavailable),
    /// No configuration yet.
    #[error("there is no configuration yet")]
    NoConfiguration,
}

/// An event, judged.
#[derive(Debug, Clone)]
pub struct Judged {
    /// It.
    pub found: Found,
    /// What is done with it.
    pub what: What,
    /// More exactly.
    pub reason: String,
    /// Since when the platform may have it, for one that goes out only while it recognises a repetition.
    pub unknown_since: Option<Timestamp>,
    /// Whether it is sent though the platform would not recognise a browser's copy of it any more.
    pub is_past_window: bool,
}

/// Judges. Cheap to clone.
#[derive(Clone)]
pub struct Judge {
    /// Identity and consent.
    pub clients: Clients,
    /// Sources.
    pub config: ConfigWatch,
    /// Orders.
    pub orders: OrderStore,
    /// Subject keys.
    pub master_key: MasterKey,
}

impl Judge {
    /// Judges events of one lane, in their order.
    ///
    /// # Errors
    /// See [`JudgeError`].
    pub async fn judge(
        &self,
        duty: Duty,
        selection: &Selection,
        connection: &OpenConnection,
        destination: &dyn Destination,
        found: Vec<Found>,
        now: Timestamp,
    ) -> Result<Vec<Judged>, JudgeError> {
        let mut judged: Vec<Judged> =
            found.into_iter().map(|found| at_first_sight(found, selection, destination, now)).collect();
        let open: Vec<usize> = (0..judged.len()).filter(|n| judged[*n].what == What::Eligible).collect();
        let mut slots: Vec<Slot> = open.iter().map(|n| slot_of(&judged[*n].found)).collect();
        self.decide(duty, &mut slots, connection).await?;
        self.read_orders(duty, &mut slots, destination).await?;
        for (n, mut slot) in open.into_iter().zip(slots) {
            plan::plan(&mut slot, destination, now);
            by_plan(&mut judged[n], &slot, selection);
        }
        Ok(judged)
    }

    async fn decide(
        &self,
        duty: Duty,
        slots: &mut [Slot],
        connection: &OpenConnection,
    ) -> Result<(), JudgeError> {
        let Some(query) = connection.consent_query().filter(|_| !slots.is_empty()) else { return Ok(()) };
        let snapshot = self.config.snapshot().ok_or(JudgeError::NoConfiguration)?;
        let events: Vec<Arc<Event>> =
            slots.iter().filter_map(|slot| slot.deliverable.as_ref().map(|d| Arc::clone(&d.event))).collect();
        let asked: Vec<Asked<'_>> =
            events.iter().map(|event| Asked::about(event, duty.workspace, &snapshot)).collect();
        let identities = subjects::resolve(&self.clients, duty.workspace, &asked).await?;
        let pairs: Vec<(&Asked<'_>, &ResolvedIdentity)> = asked.iter().zip(&identities.of_events).collect();
        let key = self.master_key.workspace(duty.workspace);
        let answer =
            subjects::decide(&self.clients, duty.workspace, &key, &snapshot, &pairs, &[query], false).await?;
        for (slot, decision) in slots.iter_mut().zip(answer.decisions) {
            if let (Some(deliverable), Some(decision)) =
                (&mut slot.deliverable, decision.destinations.first())
            {
                deliverable.decision = Consent::from_decision(decision);
            }
        }
        Ok(())
    }

    async fn read_orders(
        &self,
        duty: Duty,
        slots: &mut [Slot],
        destination: &dyn Destination,
    ) -> Result<(), JudgeError> {
        let of = |slot: &Slot| slot.deliverable.as_ref().and_then(|d| guard::order_need(destination, d));
        let needs: Vec<Option<OrderNeed>> = slots.iter().map(of).collect();
        let (mut changed, mut sold) = (Vec::new(), Vec::new());
        for need in needs.iter().flatten() {
            match need {
                OrderNeed::Changes(order) => changed.push(order.clone()),
                OrderNeed::Overwrites(_) => sold.push(need.clone()),
            }
        }
        let (mut changes, mut sales) = (HashMap::new(), HashMap::new());
        if !changed.is_empty() {
            // With what its sale was matched by: whether whoever that is allows it, the lane asks before the request.
            let kind = Some(destination.kind());
            changes = match_keys::shown(&self.orders, &self.master_key, duty, &changed, kind).await?;
        }
        if !sold.is_empty() {
            sales = self.orders.states_for(duty, &sold).await?;
        }
        for (slot, need) in slots.iter_mut().zip(needs) {
            let (Some(deliverable), Some(need)) = (&mut slot.deliverable, need) else { continue };
            match need {
                OrderNeed::Changes(key) => {
                    slot.order_wait = Some(wait_key(&key));
                    deliverable.order_state = Some(changes.get(&key).cloned().unwrap_or_default());
                }
                OrderNeed::Overwrites(key) => deliverable.order_state = sales.get(&key).cloned(),
            }
        }
        Ok(())
    }
}

/// The event without a decision: whoever is not asked about is denied.
fn slot_of(found: &Found) -> Slot {
    let mut slot = Slot::new(Arc::clone(&found.entry));
    let denied = Consent::Deny { reason: "no_decision".to_owned() };
    slot.deliverable = found.entry.deliverable.as_ref().map(|d| d.for_connection(denied, None));
    slot
}

/// Whether the platform has the event, or may have it.
fn may_be_there(found: &Found) -> bool {
    found.before.state == State::Delivered
        || (found.before.state == State::Dead && found.before.reason == UNKNOWN)
}

/// Whether it counted as delivered, with what it does to its order, until the platform refused it with its
/// whole request.
fn was_refused_later(found: &Found) -> bool {
    found.before.state == State::Dead && is_refused_later(&found.before.detail)
}

/// What needs no question: what it is by the ledger, by its bytes, and by what the connection wants.
fn at_first_sight(
    found: Found,
    selection: &Selection,
    destination: &dyn Destination,
    now: Timestamp,
) -> Judged {
    let received = Timestamp::from_millisecond(found.entry.received_ms).unwrap_or_default();
    // No request was earlier than the receipt: counted from there, the window has never ended before it seems to.
    let is_recognised = may_repeat(received, destination.limits().dedup_window, now);
    let has_window = destination.limits().dedup_window.is_some();
    let (what, reason) = first_sight(&found, selection, destination, is_recognised);
    let guards = may_be_there(&found) && is_recognised;
    Judged {
        found,
        what,
        reason: reason.to_owned(),
        unknown_since: guards.then_some(received),
        is_past_window: has_window && !is_recognised,
    }
}

fn first_sight(
    found: &Found,
    selection: &Selection,
    destination: &dyn Destination,
    is_recognised: bool,
) -> (What, &'static str) {
    let entry = &found.entry;
    match found.before.state {
        State::Waiting | State::Held => return (What::InProgress, ""),
        State::Delivered if !selection.delivered_too => return (What::AlreadyDelivered, ""),
        State::Duplicate => return (What::Filtered, "duplicate"),
        State::Delivered | State::Filtered | State::Blocked | State::Shadowed | State::Dead => {}
    }
    if entry.duplicate_of.is_some() {
        return (What::Filtered, "duplicate");
    }
    let Some(deliverable) = &entry.deliverable else {
        return if entry.raw.is_empty() { (What::Erased, "") } else { (What::Unreadable, "") };
    };
    match guard::wants(destination, deliverable) {
        None => return (What::Refused, "poisoned"),
        Some(Err(skip)) => return (What::Filtered, skip.reason.as_str()),
        Some(Ok(())) => {}
    }
    // What it took off its order is off: told again, it would be taken off what is left.
    if found.before.state == State::Delivered && guard::order_key(destination, deliverable).is_some() {
        return (What::AlreadyDelivered, ORDER_ADJUSTED);
    }
    // So it is where the platform has refused it since: the next change of the order tells what is left after
    // both.
    if was_refused_later(found) && guard::order_key(destination, deliverable).is_some() {
        return (What::Refused, ORDER_ADJUSTED);
    }
    if may_be_there(found) && !is_recognised && !selection.past_dedup_window {
        let reason = if found.before.state == State::Delivered { "delivered" } else { UNKNOWN };
        return (What::PastDedupWindow, reason);
    }
    (What::Eligible, "")
}

/// What the lane would do with it.
fn by_plan(judged: &mut Judged, slot: &Slot, selection: &Selection) {
    let Some(verdict) = &slot.verdict else {
        let repeats = slot.item.as_ref().is_some_and(|item| item.repeatable);
        if may_be_there(&judged.found) && !repeats {
            // The platform recognises no repetition of this very item, whatever its window.
            judged.unknown_since = None;
            if !selection.past_dedup_window {
                (judged.what, judged.reason) = (What::PastDedupWindow, "not_repeatable".to_owned());
            }
        }
        return;
    };
    let was_delivered = judged.found.before.state == State::Delivered;
    judged.what = match (verdict.state, verdict.reason.as_str()) {
        // Told again, the sale would undo what its order was changed by.
        (_, reason) if reason == RefusalCode::OrderAdjusted.as_str() => {
            if was_delivered {
                What::AlreadyDelivered
            } else {
                What::Refused
            }
        }
        // Its order may be of the same replay: it is taken, and waits as any change that comes before its order.
        (State::Held, ORDER_UNKNOWN) => What::Eligible,
        (State::Blocked, ERASED) => What::Erased,
        (State::Blocked, reason) if reason == RefusalCode::RestrictionNotExpressible.as_str() => {
            What::Refused
        }
        (State::Blocked, _) => What::ConsentWithdrawn,
        (State::Dead, reason) if reason == RefusalCode::EventTooOld.as_str() => What::Expired,
        (State::Filtered | State::Shadowed | State::Duplicate, _) => What::Filtered,
        (State::Dead | State::Held | State::Waiting | State::Delivered, _) => What::Refused,
    };
    judged.reason.clone_from(&verdict.reason);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::SignedDuration;
    use prost::Message as _;
    use serde_json::json;
    use tracklayer_destination::data_manager::refused_later;
    use tracklayer_destination::{OrderState, preview};
    use tracklayer_ids::Position;
    use tracklayer_proto::event::v1::ResolvedEvent;

    use super::*;
    use crate::entry::Entry;
    use crate::ledger::Verdict;
    use crate::replay::Origin;

    fn now() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    fn destination(kind: &str) -> Box<dyn Destination> {
        let settings = match kind {
            "meta_capi" => json!({ "dataset_id": "1234567890123456", "access_token": "t" }),
            "ga4_mp" => json!({ "measurement_id": "G-ABC1234567", "api_secret": "s" }),
            "google_data_manager" => json!({
                "operating_account": { "account_id": "1234567890" }, "conversion_action_id": "987654321",
                "oauth": { "client_id": "c", "client_secret": "s", "refresh_token": "r" },
            }),
            other => panic!("no settings of {other}"),
        };
        let document = json!({ "kind": kind, "mode": "live", "settings": settings });
        tracklayer_destination::open(&document, &Default::default()).unwrap()
    }

    /// An order that was received so many hours ago.
    fn found(hours: i64, name: &str, state: State, reason: &str) -> Found {
        let received = now() - SignedDuration::from_hours(hours);
        let event = json!({
            "type": "track", "event": name, "messageId": "m-1", "anonymousId": "ann",
            "timestamp": received.to_string(),
            "properties": { "order_id": "o-1", "revenue": 5, "currency": "EUR" },
            "integrations": { "Google Analytics 4": { "clientId": "1234567890.1700000000" } },
            "context": {
                "userAgent": "x", "page": { "url": "https://shop.example.com/" }, "traits": { "email": "a@example.com" },
            },
        });
        let event = preview::parse(event, received).unwrap();
        let resolved = ResolvedEvent {
            message_id: "m-1".to_owned(),
            event: event.encode_to_vec().into(),
            received_at: Some(prost_types::Timestamp { seconds: received.as_second(), nanos: 0 }),
            ..ResolvedEvent::default()
        };
        let entry = Entry::decode(Position::new(1, 0, 0), resolved.encode_to_vec().into());
        Found { entry: Arc::new(entry), before: Verdict::of(state, reason) }
    }

    fn judged(found: Found, selection: &Selection, kind: &str, consent: Consent) -> Judged {
        let destination = destination(kind);
        let mut judged = at_first_sight(found, selection, destination.as_ref(), now());
        if judged.what == What::Eligible {
            let mut slot = slot_of(&judged.found);
            slot.deliverable.as_mut().unwrap().decision = consent;
            plan::plan(&mut slot, destination.as_ref(), now());
            by_plan(&mut judged, &slot, selection);
        }
        judged
    }

    fn said(found: Found, selection: &Selection, kind: &str) -> (What, String) {
        let judged = judged(found, selection, kind, Consent::Allow);
        (judged.what, judged.reason)
    }

    const ORDER: &str = "Order Completed";

    #[test]
    fn each_state_of_the_ledger_has_its_answer() {
        let plain = Selection::of(Origin::Journal);
        let of = |state, reason| said(found(1, ORDER, state, reason), &plain, "meta_capi").0;
        assert_eq!(of(State::Dead, "rejected_by_platform"), What::Eligible);
        assert_eq!(of(State::Blocked, "gpc"), What::Eligible, "consent is asked anew");
        assert_eq!(of(State::Filtered, "mode_off"), What::Eligible, "it is live by now");
        assert_eq!(of(State::Shadowed, ""), What::Eligible);
        assert_eq!(of(State::Delivered, ""), What::AlreadyDelivered);
        assert_eq!(of(State::Held, "retry"), What::InProgress);
        assert_eq!(of(State::Waiting, ""), What::InProgress);
        assert_eq!(of(State::Duplicate, ""), What::Filtered);
    }

    #[test]
    fn what_the_lane_would_not_send_is_told_apart() {
        let plain = Selection::of(Origin::DeadLetters);
        let dead = |hours, name| found(hours, name, State::Dead, "rejected_by_platform");
        assert_eq!(said(dead(8 * 24, ORDER), &plain, "meta_capi").0, What::Expired);
        assert_eq!(said(dead(1, "Order Refunded"), &plain, "meta_capi").0, What::Filtered);
        let denied = |reason: &str| {
            let consent = Consent::Deny { reason: reason.to_owned() };
            judged(dead(1, ORDER), &plain, "meta_capi", consent).what
        };
        assert_eq!((denied("withdrawn"), denied("erased")), (What::ConsentWithdrawn, What::Erased));
        for (bytes, what) in [(vec![], What::Erased), (vec![0xff], What::Unreadable)] {
            let entry = Arc::new(Entry::decode(Position::new(1, 0, 0), bytes.into()));
            let before = Verdict::of(State::Dead, "poisoned");
            assert_eq!(said(Found { entry, before }, &plain, "meta_capi").0, what);
        }
    }

    #[test]
    fn what_the_platform_has_goes_out_again_only_if_forced_and_past_its_window_only_if_forced_to() {
        let plain = Selection::of(Origin::Journal);
        let again = Selection { delivered_too: true, ..plain.clone() };
        let past = Selection { past_dedup_window: true, ..again.clone() };
        let delivered = |hours| found(hours, ORDER, State::Delivered, "");
        let unknown = |hours| found(hours, ORDER, State::Dead, UNKNOWN);
        for (hours, selection, delivered_is, unknown_is) in [
            (1, &plain, What::AlreadyDelivered, What::Eligible),
            (1, &again, What::Eligible, What::Eligible),
            (47, &plain, What::AlreadyDelivered, What::PastDedupWindow),
            (47, &again, What::PastDedupWindow, What::PastDedupWindow),
            (47, &past, What::Eligible, What::Eligible),
        ] {
            assert_eq!(
                said(delivered(hours), selection, "meta_capi").0,
                delivered_is,
                "{hours} {selection:?}"
            );
            assert_eq!(said(unknown(hours), selection, "meta_capi").0, unknown_is, "{hours} {selection:?}");
        }
        // Where a platform recognises nothing, every window is over.
        assert_eq!(said(delivered(1), &again, "ga4_mp").0, What::PastDedupWindow);
        assert_eq!(said(unknown(1), &plain, "ga4_mp").0, What::PastDedupWindow);
        assert_eq!(said(unknown(1), &past, "ga4_mp").0, What::Eligible);
    }

    #[test]
    fn a_repetition_is_watched_for_as_long_as_it_is_recognised() {
        let again = Selection { delivered_too: true, ..Selection::of(Origin::Journal) };
        let past = Selection { past_dedup_window: true, ..again.clone() };
        let since = |found, selection| judged(found, selection, "meta_capi", Consent::Allow).unknown_since;
        let an_hour_ago = Some(now() - Duration::from_secs(3_600));
        assert_eq!(since(found(1, ORDER, State::Delivered, ""), &again), an_hour_ago);
        assert_eq!(since(found(47, ORDER, State::Delivered, ""), &past), None, "forced");
        assert_eq!(
            since(found(1, ORDER, State::Dead, "rejected_by_platform"), &again),
            None,
            "it has not got it"
        );
    }

    #[test]
    fn a_refund_that_was_told_is_never_told_again() {
        let past =
            Selection { delivered_too: true, past_dedup_window: true, ..Selection::of(Origin::Journal) };
        let refund = || found(1, "Order Refunded", State::Delivered, "");
        assert_eq!(said(refund(), &past, "ga4_mp"), (What::AlreadyDelivered, "order_adjusted".to_owned()));
    }

    #[test]
    fn a_sale_whose_order_was_changed_is_not_sold_again_where_it_would_undo_that() {
        let again = Selection { delivered_too: true, ..Selection::of(Origin::Journal) };
        let google = destination("google_data_manager");
        let said = |state: State, reason: &str, order: Option<OrderState>| {
            let mut judged = at_first_sight(found(1, ORDER, state, reason), &again, google.as_ref(), now());
            let mut slot = slot_of(&judged.found);
            let deliverable = slot.deliverable.as_mut().unwrap();
            (deliverable.decision, deliverable.order_state) = (Consent::Allow, order);
            plan::plan(&mut slot, google.as_ref(), now());
            by_plan(&mut judged, &slot, &again);
            (judged.what, judged.reason)
        };
        let sold = || OrderState { value: Some(5.into()), ..OrderState::default() };
        let changed = || Some(OrderState { refunded: 2.into(), ..sold() });
        let adjusted = |what| (what, "order_adjusted".to_owned());
        assert_eq!(said(State::Delivered, "", changed()), adjusted(What::AlreadyDelivered));
        let dead = said(State::Dead, "rejected_by_platform", changed());
        assert_eq!(dead, adjusted(What::Refused), "another sale of the order was taken");
        for unchanged in [None, Some(sold())] {
            assert_eq!(said(State::Delivered, "", unchanged), (What::Eligible, String::new()));
        }
    }

    #[test]
    fn a_refund_that_was_refused_later_is_off_its_order_and_not_taken_off_twice() {
        let plain = Selection::of(Origin::DeadLetters);
        let mut refund = found(1, "Order Refunded", State::Dead, "rejected_by_platform");
        refund.before.detail = refused_later("r-1", "NO_CONSENT");
        assert_eq!(said(refund, &plain, "ga4_mp"), (What::Refused, "order_adjusted".to_owned()));
        let mut sale = found(1, ORDER, State::Dead, "rejected_by_platform");
        sale.before.detail = refused_later("r-1", "NO_CONSENT");
        assert_eq!(said(sale, &plain, "ga4_mp").0, What::Eligible);
    }

    #[test]
    fn what_is_older_than_the_window_is_told_of() {
        let plain = Selection::of(Origin::DeadLetters);
        let of = |hours, kind| {
            judged(found(hours, ORDER, State::Dead, "missing_value"), &plain, kind, Consent::Allow)
                .is_past_window
        };
        assert!(!of(1, "meta_capi") && of(47, "meta_capi"));
        assert!(!of(1, "ga4_mp"), "there it makes no difference when");
    }
}

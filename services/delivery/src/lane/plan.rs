//! What a lane does with each event before any request: a pure function of the event, its decision and the connection.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;
use jiff::{SignedDuration, Timestamp};
use tracklayer_destination::plan::OrdersAhead;
use tracklayer_destination::quality::left_out;
use tracklayer_destination::timing;
use tracklayer_destination::{
    Answer, Destination, Fate, HoldKind, HttpRequest, Item, ItemOutcome, Mode, Open, Plan, RefusalCode,
};
use tracklayer_ids::Secret;

use super::OUTCOME_UNKNOWN;
use super::early;
use super::guard;
use super::send::items_of;
use super::slot::Slot;
use crate::ledger::State;

/// How old an item may be at the request. Receivers of signed requests take five minutes; the rest is for slow answers before it.
const MAX_ITEM_AGE: SignedDuration = SignedDuration::from_secs(30);
/// How often a request goes out again whose answer the connection crashes over, until one event is suspected.
const UNREADABLE_ATTEMPTS: u32 = 3;
/// The reason of whoever is dead because nobody knows what became of it.
pub const UNKNOWN: &str = "outcome_unknown";
/// The reason of whatever a platform refused in words of its own.
pub const REJECTED: &str = "rejected_by_platform";
/// The reason of whatever an operator gave up unread.
pub const RETENTION: &str = "retention";
/// The reason of whatever stood in a block that cannot be read and was skipped.
pub const LOST: &str = "lost";
const GIVEN_UP: &str = "an operator gave it up before it was sent, so that the journal could let its day go";

/// Plans one event: settles it where no request is needed, else leaves the item to be sent. The slot's deliverable carries the
/// connection's decision.
pub fn plan(slot: &mut Slot, destination: &dyn Destination, now: Timestamp) {
    if settle_undeliverable(slot, now) {
        return;
    }
    if destination.mode() == Mode::Off {
        slot.settle(State::Filtered, "mode_off", "", now);
        return;
    }
    let Some(deliverable) = &slot.deliverable else {
        slot.settle(State::Dead, "poisoned", "there is no event", now);
        return;
    };
    match tracklayer_destination::plan::plan(destination, deliverable, now) {
        Plan::Skipped(skip) => slot.settle(State::Filtered, skip.reason.as_str(), &skip.detail, now),
        Plan::Denied { reason } => slot.settle(State::Blocked, reason, "", now),
        Plan::Crashed { what } => {
            guard::count_crash();
            slot.settle(State::Dead, "poisoned", what, now);
        }
        Plan::Send(mut item) => {
            slot.notes = std::mem::take(&mut item.notes);
            slot.keys_left_out = item.keys.map(|keys| left_out(keys, &slot.notes)).unwrap_or_default();
            let shadowed = (destination.mode() == Mode::Shadow).then(|| item.name.clone());
            slot.item = Some(item);
            if let Some(name) = shadowed {
                slot.settle(State::Shadowed, "", &name, now);
            }
        }
        Plan::Refused(mut refusal) => {
            slot.notes = std::mem::take(&mut refusal.notes);
            slot.field = refusal.field.clone().unwrap_or_default();
            if refusal.code == RefusalCode::OrderNotSent {
                early::hold_or_bury(slot, &refusal, now);
                return;
            }
            let state = match refusal.code.fate() {
                Fate::Filtered => State::Filtered,
                Fate::Blocked => State::Blocked,
                Fate::Dead => State::Dead,
            };
            slot.settle(state, refusal.code.as_str(), &refusal.reason, now);
        }
    }
}

/// Settles what no connection ever sends. `false`: it is an event like any other.
fn settle_undeliverable(slot: &mut Slot, now: Timestamp) -> bool {
    if let Some(why) = &slot.entry.poisoned {
        let why = why.clone();
        let reason = if slot.entry.is_lost { LOST } else { "poisoned" };
        slot.settle(State::Dead, reason, &why, now);
    } else if let Some(first) = slot.entry.duplicate_of {
        slot.settle(State::Duplicate, "", &format!("of {first}"), now);
    }
    slot.verdict.is_some()
}

/// Settles an event that an operator has given up. One that a request may have brought is told as such: it was no longer unread.
pub fn give_up(slot: &mut Slot, now: Timestamp) {
    if !settle_undeliverable(slot, now) {
        slot.settle(State::Dead, RETENTION, GIVEN_UP, now);
    }
    settle_as_unknown(slot, now);
}

/// Whether an event whose outcome stayed unknown may go out again: only while the platform still recognises its id.
#[must_use]
pub fn may_repeat(unknown_since: Timestamp, window: Option<Duration>, now: Timestamp) -> bool {
    let Some(window) = window else { return false };
    now < repeatable_until(unknown_since, Some(window))
}

/// From when on an event whose outcome stayed unknown may not go out again. Where a platform recognises nothing: at once.
#[must_use]
pub fn repeatable_until(unknown_since: Timestamp, window: Option<Duration>) -> Timestamp {
    // A tenth is kept back: clocks differ, and the request takes its time.
    let kept = window.unwrap_or_default() / 10 * 9;
    let kept = SignedDuration::try_from(kept).unwrap_or(SignedDuration::MAX);
    unknown_since.checked_add(kept).unwrap_or(Timestamp::MAX)
}

/// Gives up on an event that a request may have brought, once the platform does not recognise a repeat of it (any more).
/// Called wherever an event is about to go out again: after a crash, a timeout, an answer that may mean "taken", a hold.
pub fn settle_unrepeatable(slot: &mut Slot, destination: &dyn Destination, now: Timestamp) {
    let Some(since) = slot.unknown_since else { return };
    let Some(item) = &slot.item else { return };
    // Files are written again under their names: see `lane/files.rs`.
    if destination.files().is_some() {
        return;
    }
    if !item.repeatable || !may_repeat(since, destination.limits().dedup_window, now) {
        slot.settle(State::Dead, UNKNOWN, OUTCOME_UNKNOWN, now);
    }
}

/// Plans an open event anew: what was fresh may be too old by now, and a signature stale.
pub fn plan_again(slot: &mut Slot, destination: &dyn Destination, now: Timestamp) {
    plan(slot, destination, now);
    settle_unrepeatable(slot, destination, now);
    settle_as_unknown(slot, now);
}

/// A settled event does not go out again, but a request may have brought it. Whatever keeps it back by now (an opt-out, a
/// connection that was turned off) would claim that the platform has not got it: dead it is, and a person has to look.
pub(super) fn settle_as_unknown(slot: &mut Slot, now: Timestamp) {
    let Some(verdict) = slot.verdict.as_ref().filter(|_| slot.unknown_since.is_some()) else { return };
    // What was delivered before a replay stays so, and what the replay met is told as it is: see `replay::keep_what_was`.
    if slot.replayed.as_ref().is_some_and(|before| before.state == State::Delivered) {
        return;
    }
    let kept_back = match verdict.state {
        State::Dead => verdict.reason != UNKNOWN,
        State::Blocked | State::Filtered | State::Shadowed => true,
        State::Waiting | State::Duplicate | State::Held | State::Delivered => false,
    };
    if kept_back {
        let mut why = format!("{} {}", verdict.state.as_str(), verdict.reason).trim().to_owned();
        if !verdict.detail.is_empty() {
            why = format!("{why}: {}", verdict.detail);
        }
        let detail = format!(
            "a request that carried this event ended without an answer, and it does not go out again ({why}): look it up at the platform"
        );
        slot.settle(State::Dead, UNKNOWN, &detail, now);
    }
}

/// How long an event can still be sent, so far as its age decides; none: at any time.
#[must_use]
pub fn left_to_send(slot: &Slot, destination: &dyn Destination, now: Timestamp) -> Option<SignedDuration> {
    let deliverable = slot.deliverable.as_ref()?;
    let limit = guard::unless_it_crashes(|| destination.max_event_age(deliverable)).flatten()?;
    Some(timing::sendable_until(deliverable, limit).duration_since(now))
}

/// Whether an open event has to be built anew: a range may take minutes to send, and a signature carries the time of the build.
#[must_use]
pub fn is_stale(slot: &Slot, now: Timestamp) -> bool {
    slot.item.as_ref().is_some_and(|item| now.duration_since(item.built_at) > MAX_ITEM_AGE)
}

/// Where a range has to end: see [`OrdersAhead`].
#[must_use]
pub fn waits_for_its_order(slots: &[Slot], destination: &dyn Destination) -> Option<usize> {
    let mut ahead = OrdersAhead::default();
    slots.iter().position(|slot| {
        let need =
            slot.deliverable.as_ref().and_then(|deliverable| guard::order_need(destination, deliverable));
        let waits = ahead.holds_back(need.as_ref());
        ahead.add(slot.item.as_ref().and_then(|item| item.order.as_ref()).or(slot.order.as_ref()));
        waits
    })
}

/// Puts open slots into requests: see [`tracklayer_destination::plan::requests`].
#[must_use]
pub fn requests(slots: &[Slot], open: &[usize], destination: &dyn Destination) -> Vec<Vec<usize>> {
    let items = open.iter().filter_map(|&index| {
        let slot = &slots[index];
        slot.item.as_ref().map(|item| Open { index, item, order_key: slot.entry.order_key })
    });
    tracklayer_destination::plan::requests(destination.limits(), items)
}

/// Takes the next requests that may be under way at the same time: as many as the platform takes, and never two events of one
/// key. What was settled meanwhile is left out.
pub fn wave(slots: &[Slot], queue: &mut VecDeque<Vec<usize>>, most: usize) -> Vec<Vec<usize>> {
    let mut wave: Vec<Vec<usize>> = Vec::new();
    let mut keys: HashSet<u64, RandomState> = HashSet::default();
    while wave.len() < most.max(1) {
        let Some(next) = queue.front_mut() else { break };
        next.retain(|i| slots[*i].verdict.is_none() && slots[*i].item.is_some());
        let its_keys: HashSet<u64, RandomState> = next.iter().map(|i| slots[*i].entry.order_key).collect();
        if !wave.is_empty() && !keys.is_disjoint(&its_keys) {
            break;
        }
        keys.extend(its_keys);
        wave.extend(queue.pop_front().filter(|members| !members.is_empty()));
    }
    wave
}

/// Puts events into one request. Where the connection crashes over that, these requests have to go out instead: halves, until
/// the event that it crashes over is alone and dead.
///
/// # Errors
/// It crashed.
pub fn assemble(
    slots: &mut [Slot],
    members: &[usize],
    destination: &dyn Destination,
    token: Option<&Secret<String>>,
    now: Timestamp,
) -> Result<HttpRequest, Vec<Vec<usize>>> {
    let assembled = guard::unless_it_crashes(|| destination.assemble(&items_of(slots, members), token));
    assembled.ok_or_else(|| {
        if let [alone] = members {
            slots[*alone].settle(State::Dead, "poisoned", "putting its request together crashed", now);
            settle_as_unknown(&mut slots[*alone], now);
            return Vec::new();
        }
        let (first, second) = members.split_at(members.len() / 2);
        vec![first.to_vec(), second.to_vec()]
    })
}

/// What an answer means for each item of its request. Over an answer that the connection crashes over the lane holds a few
/// times, as over none; then the request is taken apart, and what is left of it is dead, since nobody knows.
pub fn classify(destination: &dyn Destination, answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome> {
    guard::unless_it_crashes(|| destination.classify(answer, sent)).unwrap_or_else(|| {
        let unreadable = ItemOutcome::HoldLane {
            after: None,
            attempts: Some(UNREADABLE_ATTEMPTS),
            kind: HoldKind::Transient,
            code: UNKNOWN.to_owned(),
            detail: "reading the answer crashed".to_owned(),
        };
        vec![unreadable; sent.len()]
    })
}

/// Outcomes that hold the lane only for a number of attempts: past it the request is taken apart instead.
#[must_use]
pub fn give_up_holding(outcomes: Vec<ItemOutcome>, tried: u32) -> Vec<ItemOutcome> {
    outcomes
        .into_iter()
        .map(|outcome| match outcome {
            ItemOutcome::HoldLane { attempts: Some(most), code, detail, .. } if tried >= most => {
                ItemOutcome::Isolate { code, detail }
            }
            other => other,
        })
        .collect()
}

/// The platform's code, if it refused the access token.
#[must_use]
pub fn refused_token(outcomes: &[ItemOutcome]) -> Option<String> {
    outcomes.iter().find_map(|outcome| match outcome {
        ItemOutcome::RefreshToken { code, .. } => Some(code.clone()),
        _ => None,
    })
}

/// The part of a set of outcomes that holds the whole lane, if any does.
#[must_use]
pub fn hold_of(outcomes: &[ItemOutcome]) -> Option<&ItemOutcome> {
    outcomes.iter().find(|outcome| matches!(outcome, ItemOutcome::HoldLane { .. }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prost::Message as _;
    use serde_json::{Value, json};
    use tracklayer_destination::preview;
    use tracklayer_destination::{Consent, HeaderText};
    use tracklayer_ids::Position;
    use tracklayer_proto::event::v1::ResolvedEvent;

    use super::*;
    use crate::entry::Entry;

    fn now() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    fn meta(mode: &str) -> Box<dyn Destination> {
        let document = json!({
            "kind": "meta_capi", "mode": mode,
            "settings": { "dataset_id": "1234567890123456", "access_token": "t" },
        });
        tracklayer_destination::open(&document, &Default::default()).unwrap()
    }

    fn order(offset: u64, anonymous_id: &str, change: impl FnOnce(&mut Value)) -> Slot {
        let mut event = json!({
            "type": "track", "event": "Order Completed", "messageId": format!("m-{offset}"),
            "anonymousId": anonymous_id, "timestamp": "2026-11-23T11:59:00Z",
            "properties": { "order_id": format!("o-{offset}"), "revenue": 5, "currency": "EUR" },
            "context": { "userAgent": "x", "page": { "url": "https://shop.example.com/" }, "traits": { "email": "a@example.com" } },
        });
        change(&mut event);
        let event = preview::parse(event, now()).unwrap();
        let resolved = ResolvedEvent {
            message_id: event.message_id.clone(),
            event: event.encode_to_vec().into(),
            ..ResolvedEvent::default()
        };
        let entry = Entry::decode(Position::new(1, 0, offset), resolved.encode_to_vec().into());
        let mut slot = Slot::new(Arc::new(entry));
        slot.deliverable = slot.entry.deliverable.as_ref().map(|d| d.for_connection(Consent::Allow, None));
        slot
    }

    fn state_of(mut slot: Slot, destination: &dyn Destination) -> Option<(State, String)> {
        plan(&mut slot, destination, now());
        slot.verdict.map(|verdict| (verdict.state, verdict.reason))
    }

    #[test]
    fn each_reason_not_to_send_has_its_state() {
        let live = meta("live");
        let plain = |slot| state_of(slot, live.as_ref());
        assert_eq!(plain(order(0, "a", |_| {})), None, "to be sent");
        assert_eq!(
            state_of(order(0, "a", |_| {}), meta("shadow").as_ref()),
            Some((State::Shadowed, String::new()))
        );
        assert_eq!(
            state_of(order(0, "a", |_| {}), meta("off").as_ref()),
            Some((State::Filtered, "mode_off".into()))
        );
        let old = order(0, "a", |e| e["timestamp"] = json!("1970-01-01T00:00:00Z"));
        assert_eq!(plain(old), Some((State::Dead, "event_too_old".into())));
        let worthless = order(0, "a", |e| e["properties"] = json!({}));
        assert_eq!(plain(worthless), Some((State::Dead, "missing_value".into())));
        let refund = order(0, "a", |e| e["event"] = json!("Order Refunded"));
        assert_eq!(plain(refund), Some((State::Filtered, "event_not_supported".into())));
        let mut denied = order(0, "a", |_| {});
        let gpc = Consent::Deny { reason: "gpc".into() };
        denied.deliverable = denied.deliverable.map(|d| d.for_connection(gpc, None));
        assert_eq!(plain(denied), Some((State::Blocked, "gpc".into())));
    }

    #[test]
    fn what_expressions_make_of_an_event_is_what_goes_out_and_what_preview_shows() {
        let document = json!({
            "kind": "meta_capi", "mode": "live",
            "settings": { "dataset_id": "1234567890123456", "access_token": "t" },
            "filter": "properties.revenue > 1",
            "fields": { "value": "properties.revenue * 0.35", "custom_data.bad": "properties.currency * 2" },
        });
        let mapped = tracklayer_destination::open(&document, &Default::default()).unwrap();
        let cheap = order(0, "a", |e| e["properties"]["revenue"] = json!(1));
        assert_eq!(state_of(cheap, mapped.as_ref()), Some((State::Filtered, "filter".into())));
        let odd = order(0, "a", |e| e["properties"]["revenue"] = json!("5"));
        assert_eq!(state_of(odd, mapped.as_ref()), Some((State::Filtered, "expression_failed".into())));
        let mut sent = None;
        let mut slot = order(0, "a", |e| sent = Some(e.to_string()));
        plan(&mut slot, mapped.as_ref(), now());
        let body = slot.item.unwrap().body.to_value();
        assert_eq!(body["custom_data"]["value"], json!(1.75));
        let notes: Vec<&str> = slot.notes.iter().map(|note| note.reason.code()).collect();
        assert_eq!(notes, ["expression_type"]);
        let consent = preview::ConsentChoice::Allow;
        let shown =
            preview::preview(&document, &Default::default(), sent.as_deref(), now(), &consent).unwrap();
        let shown: Value = serde_json::from_str(&shown[0]).unwrap();
        assert_eq!(shown["requests"][0]["body"]["data"][0], body);
    }

    fn planned(slots: &mut [Slot], destination: &dyn Destination) -> Vec<Vec<usize>> {
        for slot in slots.iter_mut() {
            plan(slot, destination, now());
        }
        let open: Vec<usize> = (0..slots.len()).collect();
        requests(slots, &open, destination)
    }

    #[test]
    fn an_event_never_stands_in_an_earlier_request_than_one_of_its_key_before_it() {
        let destination = meta("live");
        let mut slots: Vec<Slot> = (0..4).map(|i| order(i, "same-visitor", |_| {})).collect();
        slots.push(order(4, "another", |_| {}));
        for (slot, group) in slots.iter_mut().zip(["one", "two", "one", "two", "one"]) {
            plan(slot, destination.as_ref(), now());
            if let Some(item) = &mut slot.item {
                item.group = group.to_owned();
            }
        }
        let open: Vec<usize> = (0..slots.len()).collect();
        let requests = requests(&slots, &open, destination.as_ref());
        let place = |index: usize| requests.iter().position(|r| r.contains(&index)).unwrap();
        assert!(place(0) <= place(1) && place(1) <= place(2) && place(2) <= place(3), "{requests:?}");
        assert_eq!(requests.iter().map(Vec::len).sum::<usize>(), 5);
    }

    #[test]
    fn a_range_ends_before_an_event_whose_order_it_still_changes() {
        let document = json!({
            "kind": "google_ads", "mode": "live",
            "settings": {
                "customer_id": "1234567890", "conversion_action_id": "987654321",
                "oauth": { "client_id": "c", "client_secret": "s", "refresh_token": "r" },
            },
        });
        let google = tracklayer_destination::open(&document, &Default::default()).unwrap();
        let of_order = |offset: u64, name: &str, order: &str| {
            let mut slot = order_event(offset, name, order);
            plan(&mut slot, google.as_ref(), now());
            slot
        };
        let slots = [
            of_order(0, "Order Completed", "o-1"),
            of_order(1, "Order Refunded", "o-2"),
            of_order(2, "Order Completed", "o-2"),
            of_order(3, "Order Refunded", "o-1"),
        ];
        assert!(slots[0].item.is_some(), "{:?}", slots[0].verdict);
        assert_eq!(
            waits_for_its_order(&slots, google.as_ref()),
            Some(3),
            "not the refund of an order that it only refunds"
        );
        assert_eq!(waits_for_its_order(&slots[..3], google.as_ref()), None);
        assert_eq!(waits_for_its_order(&slots[3..], google.as_ref()), None, "the next range begins with it");
    }

    fn order_event(offset: u64, name: &str, order_id: &str) -> Slot {
        order(offset, "a", |event| {
            event["event"] = json!(name);
            event["properties"]["order_id"] = json!(order_id);
            event["context"]["campaign"] = json!({});
            event["context"]["page"]["url"] = json!("https://shop.example.com/?gclid=Cj0abc");
        })
    }

    #[test]
    fn requests_under_way_together_never_hold_two_events_of_one_key() {
        let visitors = ["a", "b", "a", "c"];
        let mut slots: Vec<Slot> = visitors.iter().zip(0..).map(|(v, i)| order(i, v, |_| {})).collect();
        for slot in &mut slots {
            plan(slot, meta("live").as_ref(), now());
        }
        let mut queue: VecDeque<Vec<usize>> = (0..4).map(|i| vec![i]).collect();
        assert_eq!(wave(&slots, &mut queue, 8), vec![vec![0], vec![1]]);
        assert_eq!(wave(&slots, &mut queue, 8), vec![vec![2], vec![3]]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_request_holds_no_more_than_the_platform_takes() {
        let destination = meta("live");
        let mut slots: Vec<Slot> = (0..1_200).map(|i| order(i, &format!("visitor-{i}"), |_| {})).collect();
        let sizes: Vec<usize> = planned(&mut slots, destination.as_ref()).iter().map(Vec::len).collect();
        assert!(sizes.iter().all(|size| *size <= destination.limits().max_events));
        assert_eq!(sizes.iter().sum::<usize>(), 1_200);
    }

    #[test]
    fn what_was_built_long_before_its_request_is_built_and_signed_anew() {
        let document = json!({
            "kind": "webhook", "mode": "live",
            "settings": { "url": "https://crm.example.com/", "secret": "whsec_c2VjcmV0" },
        });
        let webhook = tracklayer_destination::open(&document, &Default::default()).unwrap();
        let mut slot = order(0, "a", |_| {});
        plan(&mut slot, webhook.as_ref(), now());
        let mut signed_at = |later: SignedDuration| {
            if is_stale(&slot, now() + later) {
                plan_again(&mut slot, webhook.as_ref(), now() + later);
            }
            let mut request = webhook.assemble(&[slot.item.as_ref().unwrap()], None);
            request.headers.retain(|(name, _)| name.starts_with("webhook-"));
            let text =
                |name: &str| match &request.headers.iter().find(|(header, _)| header == name).unwrap().1 {
                    HeaderText::Plain(text) => text.clone(),
                    HeaderText::Secret { value, .. } => value.expose().clone(),
                };
            (text("webhook-id"), text("webhook-timestamp"), text("webhook-signature"))
        };
        let at_first = signed_at(SignedDuration::ZERO);
        assert_eq!(signed_at(SignedDuration::from_secs(30)), at_first, "still good");
        let later = signed_at(SignedDuration::from_mins(10));
        let moved = later.1.parse::<i64>().unwrap() - at_first.1.parse::<i64>().unwrap();
        assert_eq!((&later.0, moved), (&at_first.0, 600), "the same id at another time");
        assert_ne!(later.2, at_first.2);
    }

    #[test]
    fn an_event_is_given_up_when_the_platform_would_count_a_repeat() {
        let given_up = |hours: i64, repeatable: bool| {
            let destination = meta("live");
            let mut slot = order(0, "a", |_| {});
            plan(&mut slot, destination.as_ref(), now());
            slot.unknown_since = Some(now() - jiff::SignedDuration::from_hours(hours));
            slot.item.as_mut().unwrap().repeatable = repeatable;
            settle_unrepeatable(&mut slot, destination.as_ref(), now());
            slot.verdict.map(|verdict| (verdict.state, verdict.reason))
        };
        let dead = Some((State::Dead, "outcome_unknown".to_owned()));
        assert_eq!(given_up(1, true), None, "inside the window");
        assert_eq!(given_up(47, true), dead, "two days ago: the first may have been taken");
        assert_eq!(given_up(0, false), dead, "where no repeat is recognised");
    }

    #[test]
    fn what_a_request_may_have_brought_is_not_said_to_be_kept_back() {
        let deny = |slot: &mut Slot| {
            let deliverable = slot.deliverable.as_mut().unwrap();
            deliverable.decision = Consent::Deny { reason: "opted_out".to_owned() };
        };
        let cases = [("live", State::Blocked), ("off", State::Filtered), ("shadow", State::Shadowed)];
        for (mode, kept_back) in cases {
            for (unknown_since, expected) in [(None, kept_back), (Some(now()), State::Dead)] {
                let mut slot = order(0, "a", |_| {});
                if kept_back == State::Blocked {
                    deny(&mut slot);
                }
                slot.unknown_since = unknown_since;
                plan_again(&mut slot, meta(mode).as_ref(), now());
                let verdict = slot.verdict.unwrap();
                assert_eq!(verdict.state, expected, "{mode}");
                assert_eq!(
                    verdict.reason == "outcome_unknown",
                    unknown_since.is_some(),
                    "{mode}: {verdict:?}"
                );
                let told = verdict.detail.contains(kept_back.as_str());
                assert_eq!(told, unknown_since.is_some(), "{mode}: {verdict:?}");
            }
        }
    }

    /// A destination that panics over some events, by their ids, and over every answer.
    struct Crashing(Box<dyn Destination>);

    impl Destination for Crashing {
        fn kind(&self) -> tracklayer_destination::Kind {
            self.0.kind()
        }

        fn mode(&self) -> Mode {
            self.0.mode()
        }

        fn limits(&self) -> &tracklayer_destination::Limits {
            self.0.limits()
        }

        fn max_event_age(&self, event: &tracklayer_destination::Deliverable) -> Option<Duration> {
            self.0.max_event_age(event)
        }

        fn consent_query(&self) -> tracklayer_destination::ConsentQuery {
            self.0.consent_query()
        }

        fn wants(
            &self,
            event: &tracklayer_destination::Deliverable,
        ) -> Result<(), tracklayer_destination::Skip> {
            assert_ne!(event.event.message_id, "m-3", "a division by zero, say");
            self.0.wants(event)
        }

        fn checks(&self, sample: &tracklayer_destination::Sample) -> Vec<tracklayer_destination::Check> {
            self.0.checks(sample)
        }

        fn order_key(&self, event: &tracklayer_destination::Deliverable) -> Option<String> {
            panic!("no order can be read of {}", event.event.message_id);
        }

        fn build(
            &self,
            event: &tracklayer_destination::Deliverable,
            now: Timestamp,
        ) -> Result<tracklayer_destination::Item, tracklayer_destination::Refusal> {
            assert_ne!(event.event.message_id, "m-1", "an index out of bounds, say");
            self.0.build(event, now)
        }

        fn assemble(
            &self,
            items: &[&tracklayer_destination::Item],
            token: Option<&tracklayer_ids::Secret<String>>,
        ) -> tracklayer_destination::HttpRequest {
            assert!(items.iter().all(|item| item.event_id != "m-5"), "a text that ends too early, say");
            self.0.assemble(items, token)
        }

        fn classify(
            &self,
            answer: &tracklayer_destination::Answer,
            _: &[&tracklayer_destination::Item],
        ) -> Vec<ItemOutcome> {
            panic!("{} says nothing", answer.status);
        }
    }

    #[test]
    fn an_event_whose_builder_crashes_is_dead_and_its_neighbour_goes_out() {
        let destination = Crashing(meta("live"));
        let crashed = state_of(order(1, "a", |_| {}), &destination);
        assert_eq!(crashed, Some((State::Dead, "poisoned".to_owned())));
        assert_eq!(state_of(order(2, "a", |_| {}), &destination), None);
    }

    #[test]
    fn an_event_whose_filter_crashes_is_dead_and_one_without_a_readable_order_waits_for_none() {
        let destination = Crashing(meta("live"));
        let crashed = state_of(order(3, "a", |_| {}), &destination);
        assert_eq!(crashed, Some((State::Dead, "poisoned".to_owned())));
        let slots = [order(0, "a", |_| {}), order(1, "a", |_| {})];
        assert_eq!(waits_for_its_order(&slots, &destination), None);
    }

    #[test]
    fn of_a_request_that_cannot_be_put_together_all_but_the_event_to_blame_go_out() {
        for (sent_before, reason) in [(None, "poisoned"), (Some(now()), UNKNOWN)] {
            let destination = Crashing(meta("live"));
            let mut slots: Vec<Slot> = [0, 2, 4, 5, 6].iter().map(|i| order(*i, "a", |_| {})).collect();
            for slot in &mut slots {
                plan(slot, &destination, now());
                slot.unknown_since = sent_before;
            }
            let mut queue = VecDeque::from([(0..slots.len()).collect::<Vec<usize>>()]);
            let mut sent = Vec::new();
            while let Some(members) = queue.pop_front() {
                match assemble(&mut slots, &members, &destination, None, now()) {
                    Ok(_) => sent.extend(members),
                    Err(apart) => apart.into_iter().rev().for_each(|members| queue.push_front(members)),
                }
            }
            assert_eq!(sent, [0, 1, 2, 4]);
            let verdict = slots[3].verdict.take().unwrap();
            assert_eq!((verdict.state, verdict.reason.as_str()), (State::Dead, reason));
        }
    }

    #[test]
    fn an_answer_that_cannot_be_read_holds_the_lane_a_few_times_and_then_takes_the_request_apart() {
        let destination = Crashing(meta("live"));
        let mut slots = [order(0, "a", |_| {}), order(2, "b", |_| {})];
        for slot in &mut slots {
            plan(slot, &destination, now());
        }
        let answer = Answer { status: 200, headers: Default::default(), body: Vec::new() };
        let read =
            |tried| give_up_holding(classify(&destination, &answer, &items_of(&slots, &[0, 1])), tried);
        assert_eq!(read(1).len(), 2);
        assert!(matches!(hold_of(&read(2)), Some(ItemOutcome::HoldLane { kind: HoldKind::Transient, .. })));
        let apart = read(UNREADABLE_ATTEMPTS);
        assert!(
            apart.iter().all(|o| matches!(o, ItemOutcome::Isolate { code, .. } if code == UNKNOWN)),
            "{apart:?}"
        );
    }

    #[test]
    fn an_unknown_outcome_is_repeated_inside_the_window_only() {
        let window = Some(Duration::from_secs(48 * 3_600));
        let since = |hours: i64| now() - jiff::SignedDuration::from_hours(hours);
        assert!(may_repeat(since(1), window, now()));
        assert!(!may_repeat(since(47), window, now()), "clocks differ: not at the very end");
        assert!(!may_repeat(since(0), None, now()), "a platform that never recognises an id");
    }
}

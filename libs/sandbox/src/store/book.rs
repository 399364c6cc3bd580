//! The book of one platform: everything that it counted, after its own deduplication, in the order of
//! arrival. Exact for as many events as memory holds, hence small: names are kept once, bodies only for the
//! newest. Requests are parsed and keys hashed before the lock is taken; under it there are only look-ups.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use crate::json::Number;

/// An event as the platform counted it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Place in the order of arrival at this platform, from 1.
    pub order: u64,
    /// The id that the platform deduplicates by: Meta and TikTok `event_id`, Google the order or transaction
    /// id (else `click@time`), a webhook the event's message id (else `webhook-id`). Empty where the event
    /// had none.
    pub event_id: String,
    /// The platform's name of the event; at Google Ads `CONVERSION` or the kind of adjustment.
    pub event_name: String,
    /// When it happened, in seconds since 1970.
    pub event_time: i64,
    /// Where it was counted: dataset, pixel, `customer/action`, measurement id, name of the webhook.
    pub identity: String,
    /// How many more copies came and were not counted.
    pub duplicates: u32,
    /// When the first copy came, in milliseconds since 1970.
    pub arrived_at_ms: i64,
    /// What it is worth, as last stated (a restatement overwrites it).
    pub value: Option<String>,
    /// The currency of the value.
    pub currency: Option<String>,
    /// Whether it was taken back.
    pub retracted: bool,
    /// A digest of the first copy's body: two copies with the same digest were the same text.
    pub digest: String,
    /// The first copy's body; null once it is no longer kept.
    pub body: Value,
}

/// What a platform was asked and what it made of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests, each of them.
    pub requests: u64,
    /// Events in requests that were accepted, duplicates among them.
    pub events_received: u64,
    /// Events counted after deduplication.
    pub counted: u64,
    /// Copies that were not counted.
    pub duplicates: u64,
    /// Requests answered with an error, whatever the HTTP status.
    pub refused_requests: u64,
    /// Single events refused or silently dropped while their request was accepted.
    pub refused_events: u64,
    /// Events that were shown in the platform's test view: apart from those that are counted, but at Meta, which measures them as well.
    pub test_events: u64,
    /// Requests on which a fault was put.
    pub faulted_requests: u64,
    /// Requests whose connection was cut without an answer.
    pub hung_up: u64,
    /// Answers by HTTP status.
    pub by_status: BTreeMap<u16, u64>,
    /// Accepted things that the platform would frown at, by kind.
    pub warnings: BTreeMap<String, u64>,
}

/// A key that an event is deduplicated by: 16 bytes of a SHA-256, so that two different ones do not meet in
/// practice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key(u128);

impl Key {
    /// The key of these parts, in this order.
    pub(crate) fn of(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Self(u128::from_le_bytes(bytes))
    }
}

/// What is kept by key. A key's bytes are a hash already.
pub(crate) type ByKey<T> = HashMap<Key, T, BuildHasherDefault<KeyHasher>>;

/// Takes a key's first bytes for its hash.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

/// An event that passed the platform's checks.
pub(crate) struct Arrival<'a> {
    /// What it is deduplicated by; none: never.
    pub(crate) key: Option<Key>,
    pub(crate) identity: &'a str,
    pub(crate) name: Cow<'a, str>,
    pub(crate) id: Cow<'a, str>,
    pub(crate) time: i64,
    pub(crate) value: Option<Number>,
    pub(crate) currency: Option<Cow<'a, str>>,
    pub(crate) body: &'a str,
}

/// One platform's book.
pub(crate) struct Book(Mutex<Pages>);

impl Book {
    /// An empty book that keeps the bodies of the newest `bodies` events.
    pub(crate) fn new(bodies: usize) -> Self {
        Self(Mutex::new(Pages { kept_bodies: bodies, ..Pages::default() }))
    }

    /// The pages, for as long as nobody else may write.
    pub(crate) fn open(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what is new and marks what was there, all under one lock: the first within `window` wins.
    pub(crate) fn accept(&self, arrivals: &[Arrival<'_>], now: Timestamp, window: Duration) {
        let mut pages = self.open();
        pages.totals.events_received += arrivals.len() as u64;
        let oldest =
            now.as_millisecond().saturating_sub(i64::try_from(window.as_millis()).unwrap_or(i64::MAX));
        for arrival in arrivals {
            let first = arrival.key.and_then(|key| pages.find(key));
            match first {
                Some(first) if pages.records[first as usize].arrived_ms >= oldest => pages.repeat(first),
                _ => {
                    let record = pages.count(arrival, now);
                    if let Some(key) = arrival.key {
                        pages.bind(key, record);
                    }
                }
            }
        }
    }
}

/// What stands in a book.
#[derive(Default)]
pub(crate) struct Pages {
    pub(crate) totals: Totals,
    records: Vec<Record>,
    index: ByKey<u32>,
    names: Names,
    bodies: VecDeque<(u32, String)>,
    kept_bodies: usize,
}

/// One counted event.
pub(crate) struct Record {
    id: Box<str>,
    identity: u32,
    name: u32,
    /// Seconds since 1970.
    pub(crate) time: i64,
    arrived_ms: i64,
    duplicates: u32,
    digest: u64,
    value: Option<Number>,
    currency: Option<u32>,
    pub(crate) retracted: bool,
}

impl Pages {
    /// The event that this key was last bound to.
    pub(crate) fn find(&self, key: Key) -> Option<u32> {
        self.index.get(&key).copied()
    }

    /// Binds a key to an event.
    pub(crate) fn bind(&mut self, key: Key, record: u32) {
        self.index.insert(key, record);
    }

    /// Counts an event.
    pub(crate) fn count(&mut self, arrival: &Arrival<'_>, now: Timestamp) -> u32 {
        let number = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        let record = Record {
            id: arrival.id.as_ref().into(),
            identity: self.names.number(arrival.identity),
            name: self.names.number(&arrival.name),
            time: arrival.time,
            arrived_ms: now.as_millisecond(),
            duplicates: 0,
            digest: digest(arrival.body),
            value: arrival.value,
            currency: arrival.currency.as_deref().map(|currency| self.names.number(currency)),
            retracted: false,
        };
        self.records.push(record);
        self.totals.counted += 1;
        if self.kept_bodies > 0 {
            // The memory of the one that goes is the one's that comes.
            let oldest = if self.bodies.len() >= self.kept_bodies { self.bodies.pop_front() } else { None };
            let mut body = oldest.map(|(_, body)| body).unwrap_or_default();
            body.clear();
            body.push_str(arrival.body);
            self.bodies.push_back((number, body));
        }
        number
    }

    /// Marks one more copy of a counted event.
    pub(crate) fn repeat(&mut self, record: u32) {
        self.records[record as usize].duplicates += 1;
        self.totals.duplicates += 1;
    }

    /// A counted event.
    pub(crate) fn record(&mut self, record: u32) -> &mut Record {
        &mut self.records[record as usize]
    }

    /// States anew what an event is worth; what is not given stays.
    pub(crate) fn restate(&mut self, record: u32, value: Option<Number>, currency: Option<&str>) {
        let currency = currency.map(|currency| self.names.number(currency));
        let record = &mut self.records[record as usize];
        record.value = value.or(record.value);
        record.currency = currency.or(record.currency);
    }

    /// Notes something that was accepted all the same.
    pub(crate) fn warn(&mut self, kind: &'static str, times: u64) {
        if times > 0 {
            *self.totals.warnings.entry(kind.to_owned()).or_default() += times;
        }
    }

    /// Events after place `after`, at most `limit`.
    pub(crate) fn counted(&self, after: u64, limit: usize) -> Vec<Counted> {
        let start = usize::try_from(after).unwrap_or(usize::MAX).min(self.records.len());
        (start..self.records.len()).take(limit).map(|place| self.shown(place)).collect()
    }

    /// Of events of that identity that came since then, name and body, as far as bodies are kept.
    pub(crate) fn kept_since(&self, identity: &str, since_ms: i64) -> impl Iterator<Item = (&str, &str)> {
        self.bodies.iter().filter_map(move |(number, body)| {
            let record = &self.records[*number as usize];
            let is_meant = record.arrived_ms >= since_ms && self.names.name(record.identity) == identity;
            is_meant.then(|| (self.names.name(record.name), body.as_str()))
        })
    }

    /// Events with that id.
    pub(crate) fn with_id(&self, id: &str) -> Vec<Counted> {
        (0..self.records.len())
            .filter(|place| &*self.records[*place].id == id)
            .map(|place| self.shown(place))
            .collect()
    }

    fn shown(&self, place: usize) -> Counted {
        let record = &self.records[place];
        let body = self
            .bodies
            .binary_search_by_key(&(place as u64), |(number, _)| u64::from(*number))
            .ok()
            .and_then(|found| serde_json::from_str(&self.bodies[found].1).ok())
            .unwrap_or(Value::Null);
        Counted {
            order: place as u64 + 1,
            event_id: record.id.to_string(),
            event_name: self.names.name(record.name).to_owned(),
            event_time: record.time,
            identity: self.names.name(record.identity).to_owned(),
            duplicates: record.duplicates,
            arrived_at_ms: record.arrived_ms,
            value: record.value.map(|value| value.to_string()),
            currency: record.currency.map(|currency| self.names.name(currency).to_owned()),
            retracted: record.retracted,
            digest: format!("{:016x}", record.digest),
            body,
        }
    }
}

const FEW: usize = 8;

/// Names that come again and again, kept once.
#[derive(Default)]
struct Names {
    numbers: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        // Almost always it is one of the first few, and these are compared faster than hashed.
        if let Some(place) = self.names.iter().take(FEW).position(|known| **known == *name) {
            return place as u32;
        }
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let kept: Arc<str> = name.into();
        self.names.push(Arc::clone(&kept));
        self.numbers.insert(kept, number);
        number
    }

    fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }
}

/// Enough to tell whether two copies were the same text; the same in every run.
fn digest(body: &str) -> u64 {
    xxh3_64(body.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(id: &str) -> Arrival<'_> {
        Arrival {
            key: Some(Key::of(&[id])),
            identity: "dataset",
            name: "Purchase".into(),
            id: id.into(),
            time: 1,
            value: None,
            currency: None,
            body: "{}",
        }
    }

    #[test]
    fn the_first_within_the_window_wins_and_a_later_one_counts_anew() {
        let book = Book::new(10);
        let window = Duration::from_secs(48 * 3600);
        let start: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        book.accept(&[arrival("a"), arrival("a")], start, window);
        book.accept(&[arrival("a")], start + window, window);
        book.accept(&[arrival("a")], start + window + Duration::from_secs(1), window);
        let pages = book.open();
        assert_eq!((pages.totals.counted, pages.totals.duplicates, pages.totals.events_received), (2, 2, 4));
        assert_eq!(pages.counted(0, 10).iter().map(|c| c.duplicates).collect::<Vec<_>>(), [2, 0]);
    }

    #[test]
    fn only_the_newest_bodies_are_kept_and_every_id() {
        let book = Book::new(2);
        for id in ["a", "b", "c"] {
            book.accept(&[arrival(id)], Timestamp::UNIX_EPOCH, Duration::ZERO);
        }
        let all = book.open().counted(0, 10);
        assert_eq!(all.iter().map(|c| c.event_id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(all.iter().map(|c| c.body.is_null()).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn keys_do_not_run_together() {
        assert_ne!(Key::of(&["ab", "c"]), Key::of(&["a", "bc"]));
    }

    #[test]
    fn pages_go_on_after_a_place() {
        let book = Book::new(0);
        for id in ["a", "b", "c"] {
            book.accept(&[arrival(id)], Timestamp::UNIX_EPOCH, Duration::ZERO);
        }
        let ids: Vec<_> = book.open().counted(1, 1).into_iter().map(|c| (c.order, c.event_id)).collect();
        assert_eq!(ids, [(2, "b".to_owned())]);
    }
}

//! What became of an event at a connection: the states of the conservation law, and the stored form of many of them.

use std::collections::{BTreeMap, HashMap};

use prost::Message;

/// Exactly one holds for every accepted event at every connection. `Waiting` is never stored: it is counted from the headers
/// beyond the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Beyond the lane's cursor.
    Waiting,
    /// Another position holds the claim.
    Duplicate,
    /// Plan, filter or mode off.
    Filtered,
    /// Consent.
    Blocked,
    /// Waits for a retry, or behind one; told of what is beyond the cursor, too, where an operator holds the connection.
    Held,
    /// Built and validated, not sent.
    Shadowed,
    /// The platform took it.
    Delivered,
    /// Will not be delivered unless a person acts.
    Dead,
}

impl State {
    /// Every state that is stored.
    pub const STORED: [Self; 7] = [
        Self::Duplicate,
        Self::Filtered,
        Self::Blocked,
        Self::Held,
        Self::Shadowed,
        Self::Delivered,
        Self::Dead,
    ];

    /// The word, the same in ledger, metrics, console and command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Duplicate => "duplicate",
            Self::Filtered => "filtered",
            Self::Blocked => "blocked",
            Self::Held => "held",
            Self::Shadowed => "shadowed",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    /// The stored number.
    #[must_use]
    pub const fn number(self) -> i16 {
        match self {
            Self::Waiting => 0,
            Self::Duplicate => 1,
            Self::Filtered => 2,
            Self::Blocked => 3,
            Self::Held => 4,
            Self::Shadowed => 5,
            Self::Delivered => 6,
            Self::Dead => 7,
        }
    }

    /// From the stored number.
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        Self::STORED.into_iter().find(|state| state.number() == number)
    }
}

/// What became of one event, with what is told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The state.
    pub state: State,
    /// From the closed lists; empty where the state says it all.
    pub reason: String,
    /// What the platform said, shortened; for people.
    pub detail: String,
    /// Requests that carried the event.
    pub attempts: u32,
    /// Receipt to this verdict, milliseconds.
    pub latency_ms: u32,
    /// Consent's decision: allow, restricted, or the reason of a denial.
    pub consent: String,
}

impl Verdict {
    /// A verdict without a request.
    #[must_use]
    pub fn of(state: State, reason: impl Into<String>) -> Self {
        Self {
            state,
            reason: reason.into(),
            detail: String::new(),
            attempts: 0,
            latency_ms: 0,
            consent: String::new(),
        }
    }
}

/// The verdicts of a range as stored in one row: a dictionary of the few distinct ones, and a number per event.
#[derive(Clone, PartialEq, Message)]
pub struct LedgerEntries {
    /// Distinct (state, reason, detail, consent).
    #[prost(message, repeated, tag = "1")]
    pub dictionary: Vec<DictionaryEntry>,
    /// Per event: index into the dictionary.
    #[prost(uint32, repeated, tag = "2")]
    pub index: Vec<u32>,
    /// Per event: requests that carried it.
    #[prost(uint32, repeated, tag = "3")]
    pub attempts: Vec<u32>,
    /// Per event: milliseconds from receipt.
    #[prost(uint32, repeated, tag = "4")]
    pub latency_ms: Vec<u32>,
}

/// One distinct verdict.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Message)]
pub struct DictionaryEntry {
    /// The state's number.
    #[prost(int32, tag = "1")]
    pub state: i32,
    /// The reason.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// The detail.
    #[prost(string, tag = "3")]
    pub detail: String,
    /// Consent's decision.
    #[prost(string, tag = "4")]
    pub consent: String,
}

impl LedgerEntries {
    /// Packs verdicts.
    #[must_use]
    pub fn pack<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> Self {
        type Word<'a> = (State, &'a str, &'a str, &'a str);
        let mut packed = Self::default();
        let mut known: HashMap<Word<'_>, u32> = HashMap::new();
        for verdict in verdicts {
            let word =
                (verdict.state, verdict.reason.as_str(), verdict.detail.as_str(), verdict.consent.as_str());
            let next = u32::try_from(packed.dictionary.len()).unwrap_or(u32::MAX);
            let index = *known.entry(word).or_insert_with(|| {
                packed.dictionary.push(DictionaryEntry {
                    state: i32::from(verdict.state.number()),
                    reason: verdict.reason.clone(),
                    detail: verdict.detail.clone(),
                    consent: verdict.consent.clone(),
                });
                next
            });
            packed.index.push(index);
            packed.attempts.push(verdict.attempts);
            packed.latency_ms.push(verdict.latency_ms);
        }
        packed
    }

    /// Events inside.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// One event's verdict; none if there is no such event or its bytes make no sense.
    #[must_use]
    pub fn verdict(&self, step: usize) -> Option<Verdict> {
        let entry = self.dictionary.get(usize::try_from(*self.index.get(step)?).ok()?)?;
        Some(Verdict {
            state: State::from_number(i16::try_from(entry.state).ok()?)?,
            reason: entry.reason.clone(),
            detail: entry.detail.clone(),
            attempts: self.attempts.get(step).copied().unwrap_or(0),
            latency_ms: self.latency_ms.get(step).copied().unwrap_or(0),
            consent: entry.consent.clone(),
        })
    }

    /// Events per (state, reason).
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(State, String), u64> {
        let mut per_entry = vec![0u64; self.dictionary.len()];
        for index in &self.index {
            if let Some(count) = per_entry.get_mut(*index as usize) {
                *count += 1;
            }
        }
        let mut counts = BTreeMap::new();
        for (entry, count) in self.dictionary.iter().zip(per_entry) {
            let state = i16::try_from(entry.state).ok().and_then(State::from_number);
            if let Some(state) = state {
                *counts.entry((state, entry.reason.clone())).or_default() += count;
            }
        }
        counts
    }
}

/// Number of the latency bucket: each is a tenth wider than the one before.
#[must_use]
pub fn latency_bucket(latency_ms: u32) -> i32 {
    (f64::from(latency_ms) + 1.0).log(1.1).floor() as i32
}

/// Upper end of a bucket, milliseconds.
#[must_use]
pub fn bucket_ceiling_ms(bucket: i32) -> u32 {
    (1.1f64.powi(bucket + 1) - 1.0).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_come_back_as_they_were_packed() {
        let mut delivered = Verdict::of(State::Delivered, "");
        delivered.attempts = 2;
        delivered.latency_ms = 37;
        let blocked = Verdict::of(State::Blocked, "gpc");
        let packed = LedgerEntries::pack([&delivered, &blocked, &delivered].into_iter());
        assert_eq!(packed.dictionary.len(), 2);
        let again = LedgerEntries::decode(packed.encode_to_vec().as_slice()).unwrap();
        assert_eq!(again.verdict(0), Some(delivered));
        assert_eq!(again.verdict(1), Some(blocked));
        assert_eq!(again.verdict(3), None);
        assert_eq!(again.counts()[&(State::Delivered, String::new())], 2);
    }

    #[test]
    fn every_stored_state_has_a_number_of_its_own() {
        for state in State::STORED {
            assert_eq!(State::from_number(state.number()), Some(state));
        }
        assert_eq!(State::from_number(0), None);
    }

    #[test]
    fn a_latency_lies_under_its_buckets_ceiling() {
        for ms in [0, 1, 9, 10, 250, 86_400_000] {
            let ceiling = bucket_ceiling_ms(latency_bucket(ms));
            assert!(ceiling >= ms && f64::from(ceiling) <= f64::from(ms) * 1.1 + 2.0, "{ms} -> {ceiling}");
        }
    }
}

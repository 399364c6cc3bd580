//! What the Data Manager API says later about a request that it took, and how many requests it takes a
//! minute.
//!
//! Source: Google, Data Manager API, "Diagnostics", "Limits"; 2026-11.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

/// Verdicts kept; older ones are forgotten.
const KEPT: usize = 100_000;

/// The verdict about one destination of a request.
pub(super) struct DestinationVerdict {
    pub(super) destination: Value,
    pub(super) records: u64,
    /// Reason, without its prefix → events.
    pub(super) errors: BTreeMap<&'static str, u64>,
}

impl DestinationVerdict {
    fn shown(&self, ready: bool) -> Value {
        if !ready {
            return json!({ "destination": self.destination, "requestStatus": "PROCESSING" });
        }
        let failed: u64 = self.errors.values().sum();
        let status = match failed {
            0 => "SUCCESS",
            failed if failed < self.records => "PARTIAL_SUCCESS",
            _ => "FAILED",
        };
        let mut shown = json!({
            "destination": self.destination,
            "requestStatus": status,
            // A 64-bit number is a text in protobuf's JSON.
            "eventsIngestionStatus": { "recordCount": self.records.to_string() },
        });
        if failed > 0 {
            let counts: Vec<Value> = self
                .errors
                .iter()
                .map(|(reason, count)| {
                    json!({ "recordCount": count.to_string(), "reason": format!("PROCESSING_ERROR_REASON_{reason}") })
                })
                .collect();
            shown["errorInfo"] = json!({ "errorCounts": counts });
        }
        shown
    }
}

/// The verdicts of the newest requests.
#[derive(Default)]
pub(super) struct Verdicts(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    verdicts: HashMap<String, (Timestamp, Vec<DestinationVerdict>)>,
    order: VecDeque<String>,
}

impl Verdicts {
    pub(super) fn remember(&self, request: &str, now: Timestamp, verdicts: Vec<DestinationVerdict>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.order.len() >= KEPT
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.verdicts.remove(&oldest);
        }
        kept.order.push_back(request.to_owned());
        kept.verdicts.insert(request.to_owned(), (now, verdicts));
    }

    /// The answer about a request, once it is `after` old with verdicts.
    pub(super) fn about(&self, request: &str, now: Timestamp, after: Duration) -> Option<Value> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, verdicts) = kept.verdicts.get(request)?;
        let ready = now.as_millisecond() - taken.as_millisecond()
            >= i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        let shown: Vec<Value> = verdicts.iter().map(|verdict| verdict.shown(ready)).collect();
        Some(json!({ "requestStatusPerDestination": shown }))
    }
}

/// Requests in the running minute.
#[derive(Default)]
pub(super) struct Quota(Mutex<(i64, u32)>);

impl Quota {
    /// Takes one request; at the limit, the seconds until the next minute.
    pub(super) fn take(&self, limit: u32, now: Timestamp) -> Result<(), u64> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now.as_second().div_euclid(60);
        if running.0 != minute {
            *running = (minute, 0);
        }
        if running.1 >= limit {
            return Err(60 - now.as_second().rem_euclid(60).unsigned_abs());
        }
        running.1 += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_quota_is_back_with_the_next_minute() {
        let quota = Quota::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(quota.take(2, at(61)), Ok(()));
        assert_eq!(quota.take(2, at(62)), Ok(()));
        assert_eq!(quota.take(2, at(65)), Err(55));
        assert_eq!(quota.take(2, at(120)), Ok(()));
    }
}

//! What the Data Manager API says later about a request that it took. Its success only means "accepted"; half an hour later it
//! tells how many events of the request failed for which reason, and never which. So a verdict decides about events only where
//! it is the same for all of them.
//!
//! Sources: D/diagnostics; `google-ads-datamanager` 0.9.4 `ProcessingErrorReason`; 2026-11. The classes are ours.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::outcome::Answer;

/// Before this the status of a request says nothing. Source: D/diagnostics; 2026-11.
pub const FIRST_STATUS: Duration = Duration::from_secs(30 * 60);

/// How often a request's status is asked for; what is still not told then stays unconfirmed. With [`next_look`], a day and a
/// half after the request.
pub const MOST_LOOKS: u32 = 8;

/// Reasons of a verdict that are told apart; Google publishes about forty. The others are one, [`OTHER`].
const MOST_REASONS: usize = 50;

/// What a reason is called that is none of Google's words, or one too many.
const OTHER: &str = "OTHER";

/// When to ask next, counted from the last look (the first: from the request), after that many looks: half an hour, then twice
/// as long each time, at most eight hours; none after [`MOST_LOOKS`].
#[must_use]
pub fn next_look(looks: u32) -> Option<Duration> {
    (looks < MOST_LOOKS).then(|| FIRST_STATUS * (1 << looks.saturating_sub(1).min(4)))
}

/// The verdict about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet; ask again after this.
    Processing(Duration),
    /// Told.
    Told {
        /// `SUCCESS`, `PARTIAL_SUCCESS`, `FAILED`. Of several destinations: `PARTIAL_SUCCESS`, unless it is
        /// the same for all of them.
        status: String,
        /// Events that failed.
        failed: u64,
        /// Events of the request.
        total: u64,
        /// How many failed for which reason.
        codes: BTreeMap<String, u64>,
        /// How many were taken with a warning, by its reason.
        warnings: BTreeMap<String, u64>,
    },
    /// The status could not be read.
    Unreadable,
}

/// Reads the answer of `requestStatus:retrieve`. Counts only: no index says which event failed.
#[must_use]
pub fn read_status(answer: &Answer) -> Verdict {
    let json = answer.json().unwrap_or_default();
    let Some(rows) =
        json.get("requestStatusPerDestination").and_then(Value::as_array).filter(|r| !r.is_empty())
    else {
        return Verdict::Unreadable;
    };
    let status_of =
        |row: &Value| row.get("requestStatus").and_then(Value::as_str).unwrap_or_default().to_owned();
    let statuses: Vec<String> = rows.iter().map(status_of).collect();
    let told = |status: &String| matches!(status.as_str(), "SUCCESS" | "PARTIAL_SUCCESS" | "FAILED");
    if answer.status != 200 || !statuses.iter().all(|status| told(status) || status == "PROCESSING") {
        return Verdict::Unreadable;
    }
    if statuses.iter().any(|s| s == "PROCESSING") {
        return Verdict::Processing(FIRST_STATUS);
    }
    // int64 is a JSON string.
    let count = |value: Option<&Value>| {
        value.and_then(|v| v.as_u64().or_else(|| v.as_str()?.parse::<u64>().ok())).unwrap_or(0)
    };
    let events_of = |destination: &Value| count(destination.pointer("/eventsIngestionStatus/recordCount"));
    let counts = |list: &str, is_of_failures: bool| {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for destination in rows {
            let listed = destination.pointer(list).and_then(Value::as_array);
            let listed = listed.map_or(&[] as &[Value], Vec::as_slice);
            // A destination that failed as a whole for one reason need not count.
            let is_whole = is_of_failures && listed.len() == 1 && status_of(destination) == "FAILED";
            for row in listed {
                let reason = row.get("reason").and_then(Value::as_str).unwrap_or("UNKNOWN");
                let is_one_too_many = counts.len() >= MOST_REASONS && !counts.contains_key(reason);
                let reason = if is_word(reason) && !is_one_too_many { reason } else { OTHER };
                let told = match count(row.get("recordCount")) {
                    0 if is_whole => events_of(destination),
                    told => told,
                };
                let sum = counts.entry(reason.to_owned()).or_default();
                *sum = sum.saturating_add(told);
            }
        }
        counts
    };
    let codes = counts("/errorInfo/errorCounts", true);
    let is_same_for_all = statuses.iter().all(|status| *status == statuses[0]);
    Verdict::Told {
        status: if is_same_for_all { statuses[0].clone() } else { "PARTIAL_SUCCESS".to_owned() },
        failed: codes.values().fold(0, |sum: u64, n| sum.saturating_add(*n)),
        total: rows.iter().map(events_of).max().unwrap_or(0),
        codes,
        warnings: counts("/warningInfo/warningCounts", false),
    }
}

/// Whether a reason is written as all of Google's are: only such ones are kept and logged.
fn is_word(reason: &str) -> bool {
    (1..=100).contains(&reason.len())
        && reason.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// What becomes of the events of a request after its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// Ask again after this.
    Later(Duration),
    /// All were taken; some of them perhaps before.
    Confirmed,
    /// None was taken, and none was there before: the verdict is about the whole request, and so about each
    /// of its events.
    AllFailed {
        /// The reason, or the most frequent one.
        code: String,
    },
    /// Some failed, and nobody knows which: the events stay delivered and unconfirmed, and the counts are told.
    SomeFailed {
        /// Events that failed, by what could be done if they were known.
        failed: BTreeMap<Fate, u64>,
        /// Events of the request.
        total: u64,
    },
    /// The status could not be read: ask again as after an unanswered request.
    Unreadable,
}

/// What a reason means for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Google had it: delivered before.
    Before,
    /// Worth another request.
    Again,
    /// Never as it is.
    Dead,
    /// The connection is set up wrongly; the event may go once it is mended.
    Connection,
}

/// The meaning of a reason, with or without its prefix. One that is not known is dead: sending again what nobody understands
/// would be for ever.
#[must_use]
pub fn fate_of(reason: &str) -> Fate {
    match reason.strip_prefix("PROCESSING_ERROR_REASON_").unwrap_or(reason) {
        "DUPLICATE_GCLID" | "DUPLICATE_TRANSACTION_ID" => Fate::Before,
        "TOO_RECENT_CLICK" | "INTERNAL_ERROR" => Fate::Again,
        reason if reason.ends_with("TERMS_NOT_SIGNED") => Fate::Connection,
        _ => Fate::Dead,
    }
}

impl Verdict {
    /// What it means for the events of its request, of which the ledger has so many: the platform, too, has
    /// to tell of all of them.
    #[must_use]
    pub fn conclude(&self, events: u64) -> Conclusion {
        let (status, failed, total, codes) = match self {
            Self::Processing(after) => return Conclusion::Later(*after),
            Self::Unreadable => return Conclusion::Unreadable,
            Self::Told { status, failed, total, codes, .. } => {
                (status.as_str(), *failed, events.max(*total), codes)
            }
        };
        let mut by_fate: BTreeMap<Fate, u64> = BTreeMap::new();
        for (reason, count) in codes {
            let sum = by_fate.entry(fate_of(reason)).or_default();
            *sum = sum.saturating_add(*count);
        }
        let before = by_fate.remove(&Fate::Before).unwrap_or(0);
        if failed == before && (status == "SUCCESS" || before > 0) {
            return Conclusion::Confirmed;
        }
        let most = codes
            .iter()
            .filter(|(reason, _)| fate_of(reason) != Fate::Before)
            .max_by_key(|(_, count)| **count);
        match most {
            // A failure without counts says nothing about an event.
            None => Conclusion::Unreadable,
            // Where one of them was there before, nobody knows which.
            Some((reason, _)) if status == "FAILED" && before == 0 && total > 0 && failed >= total => {
                Conclusion::AllFailed { code: reason.clone() }
            }
            Some(_) => Conclusion::SomeFailed { failed: by_fate, total },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Of a request of so many events, which the platform and the ledger agree about.
    fn concluded(status: &str, total: u64, codes: &[(&str, u64)]) -> Conclusion {
        let counts: Vec<Value> = codes
            .iter()
            .map(|(reason, count)| {
                json!({ "recordCount": count.to_string(), "reason": format!("PROCESSING_ERROR_REASON_{reason}") })
            })
            .collect();
        let row = json!({
            "requestStatus": status, "errorInfo": { "errorCounts": counts },
            "eventsIngestionStatus": { "recordCount": total.to_string() }
        });
        let body = json!({ "requestStatusPerDestination": [row] }).to_string();
        read_status(&Answer::new(200, body)).conclude(total)
    }

    #[test]
    fn only_a_verdict_about_all_events_decides_about_any() {
        assert_eq!(concluded("SUCCESS", 10, &[]), Conclusion::Confirmed);
        assert_eq!(
            concluded("PARTIAL_SUCCESS", 10, &[("DUPLICATE_TRANSACTION_ID", 4)]),
            Conclusion::Confirmed,
            "what was there before is there"
        );
        assert_eq!(
            concluded("FAILED", 3, &[("DUPLICATE_GCLID", 3)]),
            Conclusion::Confirmed,
            "a repeat of a whole request"
        );
        for (reason, fate) in [
            ("EVENT_TOO_OLD", Fate::Dead),
            ("NO_CONSENT", Fate::Dead),
            ("SOMETHING_NEW", Fate::Dead),
            ("INTERNAL_ERROR", Fate::Again),
            ("TOO_RECENT_CLICK", Fate::Again),
            ("CUSTOMER_DATA_TERMS_NOT_SIGNED", Fate::Connection),
        ] {
            let code = format!("PROCESSING_ERROR_REASON_{reason}");
            assert_eq!(concluded("FAILED", 2, &[(reason, 2)]), Conclusion::AllFailed { code }, "{reason}");
            for (status, failed) in [("PARTIAL_SUCCESS", 1), ("PARTIAL_SUCCESS", 2), ("FAILED", 1)] {
                let by_fate = BTreeMap::from([(fate, failed)]);
                assert_eq!(
                    concluded(status, 2, &[(reason, failed)]),
                    Conclusion::SomeFailed { failed: by_fate, total: 2 },
                    "{status} {failed}"
                );
            }
        }
        assert_eq!(
            concluded("FAILED", 3, &[("INTERNAL_ERROR", 1), ("EVENT_TOO_OLD", 2)]),
            Conclusion::AllFailed { code: "PROCESSING_ERROR_REASON_EVENT_TOO_OLD".to_owned() },
            "whichever has which of the two, none was taken"
        );
        let dead = BTreeMap::from([(Fate::Dead, 2)]);
        assert_eq!(
            concluded("FAILED", 3, &[("DUPLICATE_GCLID", 1), ("EVENT_TOO_OLD", 2)]),
            Conclusion::SomeFailed { failed: dead, total: 3 },
            "one was there before, and nobody knows which"
        );
    }

    fn rows(rows: &[Value]) -> Verdict {
        let body = json!({ "requestStatusPerDestination": rows }).to_string();
        read_status(&Answer::new(200, body))
    }

    #[test]
    fn both_the_platform_and_the_ledger_have_to_mean_all_events() {
        let failed = |events: u64, counted: Option<&str>, total: Option<&str>| {
            let mut error = json!({ "reason": "PROCESSING_ERROR_REASON_NO_CONSENT" });
            if let Some(counted) = counted {
                error["recordCount"] = json!(counted);
            }
            let mut row = json!({ "requestStatus": "FAILED", "errorInfo": { "errorCounts": [error] } });
            if let Some(total) = total {
                row["eventsIngestionStatus"] = json!({ "recordCount": total });
            }
            matches!(rows(&[row]).conclude(events), Conclusion::AllFailed { .. })
        };
        assert!(failed(3, Some("3"), Some("3")));
        assert!(failed(3, Some("5"), Some("5")), "a crash has kept two from being committed with it");
        assert!(!failed(3, Some("3"), Some("5")));
        assert!(!failed(5, Some("3"), Some("3")), "the ledger has more than the platform tells of");
        assert!(failed(3, Some("3"), None));
        assert!(failed(3, None, Some("3")), "one reason for a whole destination needs no count");
        assert!(!failed(3, None, None), "nobody knows of how many it is told");
    }

    #[test]
    fn several_destinations_have_failed_only_if_each_has() {
        let row = |status: &str, failed: u64| {
            let error = json!({ "recordCount": failed.to_string(), "reason": "PROCESSING_ERROR_REASON_X" });
            let errors: Vec<Value> = (failed > 0).then_some(error).into_iter().collect();
            json!({
                "requestStatus": status, "errorInfo": { "errorCounts": errors },
                "eventsIngestionStatus": { "recordCount": "2" },
            })
        };
        let concluded = |of: &[Value]| rows(of).conclude(2);
        let some = Conclusion::SomeFailed { failed: BTreeMap::from([(Fate::Dead, 2)]), total: 2 };
        assert_eq!(concluded(&[row("FAILED", 2), row("SUCCESS", 0)]), some, "it has it in one of them");
        let code = "PROCESSING_ERROR_REASON_X".to_owned();
        assert_eq!(concluded(&[row("FAILED", 2), row("FAILED", 2)]), Conclusion::AllFailed { code });
        assert_eq!(concluded(&[row("SUCCESS", 0), row("SUCCESS", 0)]), Conclusion::Confirmed);
    }

    #[test]
    fn warnings_are_counted_apart_from_errors() {
        let counts = json!([{ "recordCount": "3", "reason": "PROCESSING_WARNING_REASON_X" }]);
        let row = json!({
            "requestStatus": "SUCCESS", "warningInfo": { "warningCounts": counts },
            "eventsIngestionStatus": { "recordCount": "10" }
        });
        let body = json!({ "requestStatusPerDestination": [row] }).to_string();
        let Verdict::Told { failed: 0, codes, warnings, .. } = read_status(&Answer::new(200, body)) else {
            panic!("it is told, and nothing failed");
        };
        let told = BTreeMap::from([("PROCESSING_WARNING_REASON_X".to_owned(), 3)]);
        assert_eq!((codes, warnings), (BTreeMap::new(), told));
    }

    #[test]
    fn reasons_that_are_no_words_or_too_many_are_one_reason() {
        let told = |reasons: &[String]| {
            let counts: Vec<Value> =
                reasons.iter().map(|reason| json!({ "recordCount": "2", "reason": reason })).collect();
            let row = json!({ "requestStatus": "FAILED", "errorInfo": { "errorCounts": counts } });
            let body = json!({ "requestStatusPerDestination": [row] }).to_string();
            let Verdict::Told { codes, failed, .. } = read_status(&Answer::new(200, body)) else {
                panic!("it is told");
            };
            (codes, failed)
        };
        let odd = ["A\0B", "lower", "", "WITH SPACE"].map(str::to_owned);
        assert_eq!(told(&odd).0, BTreeMap::from([(OTHER.to_owned(), 8)]));
        assert_eq!(told(&["A".repeat(101)]).0, BTreeMap::from([(OTHER.to_owned(), 2)]));
        let many: Vec<String> = (0..500).map(|number| format!("REASON_{number}")).collect();
        let (codes, failed) = told(&many);
        assert_eq!((codes.len(), failed), (MOST_REASONS + 1, 1_000));
        assert_eq!(codes[OTHER], 900);
    }

    #[test]
    fn what_says_nothing_decides_nothing() {
        assert_eq!(concluded("PROCESSING", 0, &[]), Conclusion::Later(FIRST_STATUS));
        assert_eq!(concluded("FAILED", 2, &[]), Conclusion::Unreadable);
        assert_eq!(concluded("PARTIAL_SUCCESS", 2, &[]), Conclusion::Unreadable);
        assert_eq!(concluded("A_NEW_WORD", 2, &[("EVENT_TOO_OLD", 2)]), Conclusion::Unreadable);
        for (status, body) in [(200, "{}"), (200, "<html>"), (500, "{}"), (404, "")] {
            assert_eq!(read_status(&Answer::new(status, body)).conclude(2), Conclusion::Unreadable);
        }
    }

    #[test]
    fn looks_are_further_and_further_apart_and_have_an_end() {
        let waits: Vec<u64> = (0..).map_while(next_look).map(|wait| wait.as_secs() / 60).collect();
        assert_eq!(waits, [30, 30, 60, 120, 240, 480, 480, 480]);
    }
}

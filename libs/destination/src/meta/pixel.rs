//! Whether a browser's pixel and the connection send the same event ids, by what Meta says of its deduplication.
//!
//! Source: Meta, Conversions API, "Dataset Quality API" (`dedupe_key_feedback`, `event_coverage`, `data_freshness`); 2026-11.

use serde_json::Value;

use super::quality;
use super::verify::TEST_EVENT;
use crate::outcome::{Answer, told};
use crate::verify::PixelAnswer;

/// What is asked of the Dataset Quality API. The page's table calls the second `dedup_key_feedback`, which is no field.
pub const FIELDS: &str = "web{event_name,event_coverage{percentage},dedupe_key_feedback{dedupe_key,\
                          browser_events_with_dedupe_key{percentage},server_events_with_dedupe_key{percentage},\
                          overall_browser_coverage_from_dedupe_key{percentage}},data_freshness{upload_frequency}}";

/// Most events that are told.
const MOST_TOLD: usize = 5;
/// From how many of the browser's events on an event id counts as sent, percent. Ours: a few come from pages that nobody has changed yet.
const MOST_OF_THEM: f64 = 50.0;
/// Below that nothing is shared, percent. Ours.
const HARDLY_ANY: f64 = 1.0;

const WITHOUT: &str = "have the pixel send the event id that this connection sends (`tracklayer preview` shows it as event_id): the fourth \
                       argument of fbq, {eventID: …}; without it Meta counts browser and server events twice";
const OTHERS: &str = "have both send one id (`tracklayer preview` shows this connection's as event_id; event_id_from of the connection says \
                      where it comes from): Meta counts browser and server events twice";

/// What Meta says of one event name.
struct Feedback {
    event: String,
    /// How many of the browser's events have an event id, percent.
    browser: Option<f64>,
    /// How many of the server's.
    server: Option<f64>,
    /// For how many of the browser's events there is one of the server with the same id.
    shared: Option<f64>,
    /// How many events the server has sent for those of the browser, with whatever key.
    coverage: Option<f64>,
    /// How fresh what the server sends is.
    freshness: Option<String>,
}

impl Feedback {
    fn of(row: &Value) -> Option<Self> {
        let event = row.get("event_name")?.as_str().filter(|name| *name != TEST_EVENT)?;
        let by_id = match row.get("dedupe_key_feedback")? {
            Value::Array(keys) => keys.iter().find(|key| is_event_id(key))?,
            one => Some(one).filter(|key| is_event_id(key))?,
        };
        let percentage = |of: &Value, name: &str| of.get(name)?.get("percentage")?.as_f64();
        let freshness = row.get("data_freshness").and_then(|fresh| fresh.get("upload_frequency")?.as_str());
        Some(Self {
            event: told(event),
            browser: percentage(by_id, "browser_events_with_dedupe_key"),
            server: percentage(by_id, "server_events_with_dedupe_key"),
            shared: percentage(by_id, "overall_browser_coverage_from_dedupe_key"),
            coverage: percentage(row, "event_coverage"),
            freshness: freshness.map(told),
        })
    }

    /// What is wrong, with what to do.
    fn advice(&self) -> Option<&'static str> {
        if self.browser.is_some_and(|browser| browser < MOST_OF_THEM) {
            return Some(WITHOUT);
        }
        // Where the server sends none of them there is nothing to share.
        let server_sends = self.server.is_some_and(|server| server > 0.0);
        (server_sends && self.shared.is_some_and(|shared| shared < HARDLY_ANY)).then_some(OTHERS)
    }

    fn told(&self) -> String {
        let percent =
            |share: Option<f64>| share.map_or_else(|| "?".to_owned(), |share| format!("{share:.0} %"));
        let mut told = format!(
            "{} {} (of the browser's events {} have one, of the server's {}",
            self.event,
            percent(self.shared),
            percent(self.browser),
            percent(self.server),
        );
        if self.coverage.is_some() {
            told.push_str(&format!("; event coverage {}", percent(self.coverage)));
        }
        if let Some(freshness) = &self.freshness {
            told.push_str(&format!("; uploads {freshness}"));
        }
        told.push(')');
        told
    }
}

fn is_event_id(key: &Value) -> bool {
    key.get("dedupe_key").and_then(Value::as_str) == Some("event_id")
}

/// Reads the answer. What the token may not see, and what Meta has not reckoned yet, is untold.
pub fn read(answer: &Answer) -> PixelAnswer {
    let rows = match quality::rows(answer) {
        Ok(rows) => rows,
        Err(why) => return PixelAnswer::Untold(format!("not told by Meta: {why}")),
    };
    let all: Vec<Feedback> = rows.iter().filter_map(Feedback::of).collect();
    if all.is_empty() {
        let why = "not told by Meta yet: it reckons over the website events of the last days, where both browser and server send some";
        return PixelAnswer::Untold(why.to_owned());
    }
    // What is wrong first.
    let (wrong, right): (Vec<&Feedback>, Vec<&Feedback>) =
        all.iter().partition(|feedback| feedback.advice().is_some());
    let lines: Vec<String> =
        wrong.iter().chain(&right).take(MOST_TOLD).map(|feedback| feedback.told()).collect();
    let said = format!("browser and server events share event_id: {}", lines.join(", "));
    match wrong.first().and_then(|feedback| feedback.advice()) {
        Some(advice) => PixelAnswer::Apart { said, advice },
        None => PixelAnswer::Shared(said),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(event: &str, key: &str, browser: f64, server: f64, shared: f64) -> Value {
        json!({ "event_name": event, "dedupe_key_feedback": [
            { "dedupe_key": "fbp", "overall_browser_coverage_from_dedupe_key": { "percentage": 3 } },
            {
                "dedupe_key": key,
                "browser_events_with_dedupe_key": { "percentage": browser },
                "server_events_with_dedupe_key": { "percentage": server },
                "overall_browser_coverage_from_dedupe_key": { "percentage": shared },
            },
        ] })
    }

    fn read_rows(rows: &[Value]) -> PixelAnswer {
        read(&Answer::new(200, json!({ "web": rows }).to_string()))
    }

    #[test]
    fn shared_ids_pass_with_metas_figures() {
        let mut fresh = row("Purchase", "event_id", 100.0, 99.6, 92.0);
        fresh["event_coverage"] = json!({ "percentage": 81 });
        fresh["data_freshness"] = json!({ "upload_frequency": "real_time" });
        let said = "browser and server events share event_id: Purchase 92 % (of the browser's events 100 % have one, of the server's \
                    100 %; event coverage 81 %; uploads real_time)";
        assert_eq!(read_rows(&[fresh]), PixelAnswer::Shared(said.to_owned()));
    }

    #[test]
    fn a_pixel_without_the_id_and_one_with_another_are_told_apart() {
        let good = row("Lead", "event_id", 100.0, 100.0, 90.0);
        for (bad, expected) in [
            (row("Purchase", "event_id", 12.0, 100.0, 10.0), WITHOUT),
            (row("Purchase", "event_id", 100.0, 100.0, 0.0), OTHERS),
        ] {
            let PixelAnswer::Apart { said, advice } = read_rows(&[good.clone(), bad]) else {
                panic!("{expected}")
            };
            assert_eq!(advice, expected);
            assert!(said.contains("event_id: Purchase"), "what is wrong comes first: {said}");
        }
    }

    #[test]
    fn what_is_not_told_is_no_failure() {
        for rows in [
            vec![],
            vec![json!({ "event_name": "Purchase" })],
            vec![row("Purchase", "external_id", 0.0, 0.0, 0.0)],
            vec![row(TEST_EVENT, "event_id", 0.0, 100.0, 0.0)],
        ] {
            let answered = read_rows(&rows);
            assert!(
                matches!(&answered, PixelAnswer::Untold(why) if why.contains("yet")),
                "{rows:?}: {answered:?}"
            );
        }
        let refused = json!({ "error": { "code": 200, "message": "Permissions error" } }).to_string();
        let answered = read(&Answer::new(403, refused));
        assert!(
            matches!(&answered, PixelAnswer::Untold(why) if why.contains("permission to manage")),
            "{answered:?}"
        );
    }
}

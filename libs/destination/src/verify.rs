//! Acceptance checks of a connection: what `connections verify` asks of a platform, and what each answer means. A kind declares its
//! checks ([`crate::Destination::checks`]); the events in them are built, put into requests and answered for by the functions that a
//! lane uses. Nothing that is sent here counts as a conversion: each kind says by which request a platform only looks at an event
//! ([`crate::Destination::test_request`]).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tracklayer_proto::event::v1::ClickIds;

use crate::commerce::number;
use crate::deliverable::{Consent, Deliverable};
use crate::destination::Destination;
use crate::outcome::{Answer, HoldKind, ItemOutcome, RefusalCode};
use crate::preview::parse;
use crate::trial::Trial;

/// What test events are called unless somebody says otherwise: what every platform knows as a purchase.
pub const EVENT_NAME: &str = "Order Completed";

/// How far inside a platform's age limit the older test event is: our request takes time, and clocks differ.
const INSIDE: SignedDuration = SignedDuration::from_mins(5);
/// How far outside of it the one is that must not be sent.
const OUTSIDE: SignedDuration = SignedDuration::from_mins(1);
/// How old an event is built where there is no limit.
const FIVE_YEARS: SignedDuration = SignedDuration::from_hours(5 * 365 * 24);

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Aspect {
    /// Whether the platform lets the connection in, to the account that it names.
    Credentials,
    /// Whether amounts arrive as they are, whatever the currency's minor units.
    Currency,
    /// Whether an event inside the platform's age limit is taken, and one outside is not even sent.
    EventAge,
    /// Whether people are hashed as the platform publishes it.
    Hashing,
    /// Whether a pixel in the browser sends the same event ids, at a platform that says so.
    Pixel,
}

impl Aspect {
    /// Those of which every kind has at least one check.
    pub const ALL: [Self; 4] = [Self::Credentials, Self::Currency, Self::EventAge, Self::Hashing];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Currency => "currency",
            Self::EventAge => "event_age",
            Self::Hashing => "hashing",
            Self::Pixel => "pixel",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// One word that does not change, the same at every kind that has such a check.
    pub name: &'static str,
    /// What it is about.
    pub aspect: Aspect,
    /// What is looked at, for people; with the source of a rule of the platform.
    pub looks_at: String,
    /// How.
    pub way: Way,
}

/// How a check is made.
#[derive(Debug, Clone, PartialEq)]
pub enum Way {
    /// The event is built, is looked at, and is shown to the platform, which has to take it.
    Show {
        /// In Segment's words.
        event: Value,
        /// What has to stand in its part of the request.
        expected: Vec<Expected>,
    },
    /// The event is built and looked at. It is not sent.
    Build {
        /// In Segment's words.
        event: Value,
        /// What has to stand in its part of the request.
        expected: Vec<Expected>,
    },
    /// The event must be refused here, before anything is sent.
    Refuse {
        /// In Segment's words.
        event: Value,
        /// Why it must be.
        code: RefusalCode,
    },
    /// The platform is asked what it has seen so far: [`Destination::pixel_request`]. No event is sent.
    Ask,
    /// A file is written where the connection's files go, read again and removed.
    File,
    /// There is nothing to look at, or the platform tells nobody.
    Untold {
        /// Why, and what may be done instead.
        instead: &'static str,
    },
}

/// What has to stand in an item.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// Where, as a JSON pointer into the item. Where a text on the way is JSON itself (a row of a warehouse), it goes on inside.
    pub at: &'static str,
    /// What. Numbers are compared as decimals: 1234 and 1234.0 are the same.
    pub value: Value,
}

impl Expected {
    /// What stands there instead, for people; none: it is as expected.
    #[must_use]
    pub fn difference(&self, item: &Value) -> Option<String> {
        let found = found_at(item, self.at);
        let same = found.as_ref().is_some_and(|found| match (decimal(found), decimal(&self.value)) {
            (Some(found), Some(expected)) => found == expected,
            (Some(_), None) | (None, Some(_)) => false,
            (None, None) => *found == self.value,
        });
        let told = || found.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
        (!same).then(|| format!("{} is {}, expected was {}", self.at, told(), self.value))
    }
}

fn decimal(value: &Value) -> Option<Decimal> {
    match value {
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

fn found_at(item: &Value, pointer: &str) -> Option<Value> {
    let mut at = item.clone();
    for step in pointer.split('/').skip(1) {
        if let Value::String(text) = &at {
            at = serde_json::from_str(text).ok()?;
        }
        at = match at {
            Value::Object(mut map) => map.remove(step)?,
            Value::Array(mut list) => {
                let place: usize = step.parse().ok()?;
                if place >= list.len() {
                    return None;
                }
                list.swap_remove(place)
            }
            _ => return None,
        };
    }
    Some(at)
}

/// What the test events of one verification have in common. Nobody is behind them: addresses are of the ranges that are kept for
/// documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The clock.
    pub now: Timestamp,
    /// Tells the ids of this verification from those of every other one. Letters and digits.
    pub run: String,
    /// What the events are called.
    pub event_name: String,
}

impl Sample {
    /// An event of this verification, named by a word: what it is worth, and when it happened.
    #[must_use]
    pub fn event(&self, word: &str, at: Timestamp, amount: Decimal, currency: &str) -> Value {
        let id = format!("tracklayer-verify-{}-{word}", self.run);
        let amount = number(amount);
        json!({
            "type": "track", "event": self.event_name, "messageId": id,
            "userId": "tracklayer-verify", "anonymousId": "tracklayer-verify", "timestamp": at.to_string(),
            "context": {
                "ip": "203.0.113.7", "userAgent": "Mozilla/5.0 (compatible; TrackLayer verify)", "locale": "en-US",
                "page": { "url": "https://www.example.com/tracklayer-verify" },
                "traits": { "email": "tracklayer-verify@example.com" },
            },
            "properties": {
                "order_id": id, "lead_id": id, "test": true, "currency": currency,
                "revenue": amount, "total": amount, "subtotal": amount, "value": amount,
                "products": [{
                    "product_id": "tracklayer-verify", "name": "TrackLayer verify", "price": amount, "quantity": 1,
                }],
            },
            // No visitor has these ids.
            "integrations": { "Google Analytics 4": {
                "clientId": "1000000000.1000000000", "firebaseAppInstanceId": "00000000000000000000000000000000",
            } },
        })
    }

    /// The same now, in a currency that every platform takes.
    #[must_use]
    pub fn plain(&self, word: &str) -> Value {
        self.event(word, self.now, Decimal::ONE, "EUR")
    }

    /// An event as a lane would have it, consent given.
    ///
    /// # Errors
    /// Ingest would not take it.
    pub fn deliverable(&self, event: &Value) -> Result<Deliverable, tracklayer_event::Rejection> {
        let event = parse(event.clone(), self.now)?;
        Ok(Deliverable::new(event, ClickIds::default(), "", Consent::Allow, None))
    }
}

/// Whether a check of what is built also shows it to the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The platform has to take it.
    ToPlatform,
    /// It stays here.
    Here,
}

impl Shown {
    fn way(self, event: Value, expected: Vec<Expected>) -> Way {
        match self {
            Self::ToPlatform => Way::Show { event, expected },
            Self::Here => Way::Build { event, expected },
        }
    }
}

/// That the platform lets the connection in: an event is shown to it.
#[must_use]
pub fn credentials(sample: &Sample, looks_at: &str) -> Check {
    let way = Way::Show { event: sample.plain("credentials"), expected: Vec::new() };
    Check { name: "credentials", aspect: Aspect::Credentials, looks_at: looks_at.to_owned(), way }
}

/// A currency without minor units and one with three digits of them: the amount stands at `value`, the currency at `currency`.
#[must_use]
pub fn currencies(sample: &Sample, value: &'static str, currency: &'static str, shown: Shown) -> Vec<Check> {
    let check = |name: &'static str, code: &str, amount: Decimal, about: &str| {
        let expected = vec![
            Expected { at: value, value: number(amount) },
            Expected { at: currency, value: json!(code) },
        ];
        let event = sample.event(name, sample.now, amount, code);
        let looks_at = format!("{code} {amount}: a currency {about} (ISO 4217)");
        Check { name, aspect: Aspect::Currency, looks_at, way: shown.way(event, expected) }
    };
    vec![
        check("currency_jpy", "JPY", Decimal::new(1_234, 0), "without minor units"),
        check("currency_kwd", "KWD", Decimal::new(12_345, 3), "with three digits of minor units"),
    ]
}

/// The age limit of a kind, from both sides. `source`: where the platform publishes it.
#[must_use]
pub fn event_age(destination: &dyn Destination, sample: &Sample, source: &str, shown: Shown) -> Vec<Check> {
    let aged = |word: &str, age: SignedDuration| {
        sample.event(word, sample.now.checked_sub(age).unwrap_or(sample.now), Decimal::ONE, "EUR")
    };
    let check = |name, looks_at, way| Check { name, aspect: Aspect::EventAge, looks_at, way };
    let limit =
        sample.deliverable(&sample.plain("age")).ok().and_then(|event| destination.max_event_age(&event));
    let Some(limit) = limit else {
        let looks_at = format!("no limit: an event of five years ago is built ({source})");
        let way = Way::Build { event: aged("age-inside", FIVE_YEARS), expected: Vec::new() };
        return vec![check("age_inside", looks_at, way)];
    };
    let signed = SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
    let told = told_limit(limit);
    vec![
        check(
            "age_inside",
            format!("five minutes inside the limit of {told} is taken ({source})"),
            shown.way(aged("age-inside", signed.saturating_sub(INSIDE)), Vec::new()),
        ),
        check(
            "age_outside",
            format!("a minute outside the limit of {told} is refused here, unsent ({source})"),
            Way::Refuse {
                event: aged("age-outside", signed.saturating_add(OUTSIDE)),
                code: RefusalCode::EventTooOld,
            },
        ),
    ]
}

fn told_limit(limit: Duration) -> String {
    let hours = limit.as_secs() / 3_600;
    if hours > 72 && hours.is_multiple_of(24) {
        format!("{} days", hours / 24)
    } else {
        format!("{hours} hours")
    }
}

/// A published example of a hash.
#[derive(Debug, Clone, Copy)]
pub struct Vector {
    /// Where the hash stands in an item.
    pub at: &'static str,
    /// The trait of the person.
    pub of: &'static str,
    /// As a shop has it.
    pub input: &'static str,
    /// Hexadecimal SHA-256, as published.
    pub sha256: &'static str,
    /// Where it is published.
    pub source: &'static str,
}

/// That people are hashed as published. The addresses may be somebody's: what is built is not sent.
#[must_use]
pub fn hashing(sample: &Sample, vectors: &[Vector]) -> Vec<Check> {
    vectors
        .iter()
        .map(|vector| {
            let name = if vector.of == "email" { "hash_email" } else { "hash_phone" };
            let mut event = sample.plain(name);
            event["context"]["traits"] = json!({ vector.of: vector.input });
            let expected = vec![Expected { at: vector.at, value: json!(vector.sha256) }];
            let looks_at = format!("{} hashes to the published example ({})", vector.input, vector.source);
            Check { name, aspect: Aspect::Hashing, looks_at, way: Way::Build { event, expected } }
        })
        .collect()
}

/// A check that cannot be made.
#[must_use]
pub fn untold(name: &'static str, aspect: Aspect, looks_at: &str, instead: &'static str) -> Check {
    Check { name, aspect, looks_at: looks_at.to_owned(), way: Way::Untold { instead } }
}

/// Why no test can be sent, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoTest(pub &'static str);

/// What a platform says of a test event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestAnswer {
    /// It would take it, or shows it among its test events.
    Taken {
        /// What it says beside that.
        note: Option<String>,
    },
    /// It would not.
    Refused {
        /// The platform's code.
        code: String,
        /// For people.
        detail: String,
        /// What is wrong, where it is not the event.
        kind: Option<HoldKind>,
    },
}

/// What a platform says of the event ids that a browser's pixel and the connection send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PixelAnswer {
    /// They are the same, with the platform's figures.
    Shared(String),
    /// They are not, or the pixel sends none.
    Apart {
        /// The platform's figures.
        said: String,
        /// What to do.
        advice: &'static str,
    },
    /// It does not say, for this reason.
    Untold(String),
}

fn of_outcome(outcome: ItemOutcome) -> TestAnswer {
    let refused = |code, detail, kind| TestAnswer::Refused { code, detail, kind };
    match outcome {
        ItemOutcome::Delivered { note } => TestAnswer::Taken { note },
        ItemOutcome::DeliveredBefore { code } => TestAnswer::Taken { note: Some(code) },
        ItemOutcome::DeliveredIfRepeated { code, detail }
        | ItemOutcome::Dead { code, detail }
        | ItemOutcome::Isolate { code, detail } => refused(code, detail, None),
        ItemOutcome::Retry { code, detail, .. } => refused(code, detail, Some(HoldKind::Transient)),
        ItemOutcome::HoldLane { kind, code, detail, .. } => refused(code, detail, Some(kind)),
        ItemOutcome::RefreshToken { code, detail } => refused(code, detail, Some(HoldKind::Auth)),
        ItemOutcome::ResendRest => refused("NOT_JUDGED".to_owned(), String::new(), None),
        ItemOutcome::ResendReduced { code, .. } => refused(code, String::new(), None),
    }
}

/// What a lane makes of the one event that was shown.
#[must_use]
pub fn of_outcomes(outcomes: Vec<ItemOutcome>) -> TestAnswer {
    let nothing =
        || TestAnswer::Refused { code: String::new(), detail: "nothing was sent".to_owned(), kind: None };
    outcomes.into_iter().next().map_or_else(nothing, of_outcome)
}

/// What a trial has shown, as an answer to a test.
#[must_use]
pub fn of_trial(trial: Trial, answer: &Answer) -> TestAnswer {
    let kind = match answer.status {
        401 | 403 | 407 => Some(HoldKind::Auth),
        300..=399 | 404 | 405 => Some(HoldKind::Configuration),
        429 => Some(HoldKind::Throttled),
        408 | 500.. => Some(HoldKind::Transient),
        _ => None,
    };
    match trial {
        Trial::Passed => TestAnswer::Taken { note: None },
        Trial::Unanswered { code, detail } => TestAnswer::Refused { code, detail, kind },
        Trial::Found(findings) => {
            let codes: Vec<&str> = findings.iter().map(|finding| finding.code.as_str()).collect();
            let told = |finding: &crate::trial::Finding| match finding.field.as_str() {
                "" => finding.detail.clone(),
                field => format!("{field}: {}", finding.detail),
            };
            let details: Vec<String> = findings.iter().map(told).collect();
            TestAnswer::Refused { code: codes.join(", "), detail: details.join("; "), kind }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_elsewhere_is_told_apart_from_what_is_the_same_amount() {
        let item = json!({ "list": [{ "value": 1_234.0, "code": "JPY" }], "text": "{\"value\":12.345}" });
        let expected = |at, value| Expected { at, value };
        assert_eq!(expected("/list/0/value", json!(1_234)).difference(&item), None);
        assert_eq!(expected("/text/value", json!(12.345)).difference(&item), None);
        assert_eq!(expected("/list/0/code", json!("JPY")).difference(&item), None);
        for (at, value) in [
            ("/list/0/value", json!(12.34)),
            ("/list/0/value", json!("1234")),
            ("/list/0/code", json!("USD")),
            ("/list/1/code", json!("JPY")),
            ("/text/other", json!(1)),
            ("/list/0/value/deeper", json!(1)),
        ] {
            let told = expected(at, value).difference(&item);
            assert!(told.is_some_and(|told| told.starts_with(at)), "{at}");
        }
    }

    #[test]
    fn findings_are_told_together_and_no_answer_by_what_its_status_says() {
        let finding = |field: &str, code: &str| crate::trial::Finding {
            index: None,
            field: field.to_owned(),
            code: code.to_owned(),
            detail: "is wrong".to_owned(),
        };
        let found = Trial::Found(vec![finding("events.currency", "A"), finding("", "B")]);
        let told = of_trial(found, &Answer::new(200, ""));
        let expected = TestAnswer::Refused {
            code: "A, B".to_owned(),
            detail: "events.currency: is wrong; is wrong".to_owned(),
            kind: None,
        };
        assert_eq!(told, expected);
        for (status, expected) in [
            (403, Some(HoldKind::Auth)),
            (404, Some(HoldKind::Configuration)),
            (429, Some(HoldKind::Throttled)),
            (502, Some(HoldKind::Transient)),
            (400, None),
        ] {
            let nothing = Trial::Unanswered { code: String::new(), detail: String::new() };
            let told = of_trial(nothing, &Answer::new(status, ""));
            assert!(
                matches!(told, TestAnswer::Refused { kind, .. } if kind == expected),
                "{status}: {told:?}"
            );
        }
    }
}

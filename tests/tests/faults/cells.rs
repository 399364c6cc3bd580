//! The faults, how each platform commits them, and what is expected of each.

use serde_json::json;
use tracklayer_sandbox::{Fault, How};

use crate::bench::Kind;

/// Events of a row, apart from those with one bad event of many.
const FEW: u64 = 20;
/// Events of those.
const MANY: u64 = 500;
/// Which of them is bad.
const BAD: u64 = 137;
/// Seconds that a platform asks to wait.
pub const ASKED: u64 = 2;
/// Longer than any request may take, seconds: Google's may take 60.
const TOO_LATE: u64 = 90;

/// A kind of fault: a row of the table for each connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    BadUnnamed,
    BadNamed,
    ExpiredToken,
    Forbidden,
    ThrottledUntil,
    Throttled,
    ThrottledInOwnWords,
    InternalError,
    Unavailable,
    TimeoutBefore,
    TimeoutAfter,
    ResetBefore,
    ResetAfter,
    Tls,
    Truncated,
    WrongContentType,
    Page,
    ErrorsInside,
    Mixed,
}

pub const ROWS: [Row; 19] = [
    Row::BadUnnamed,
    Row::BadNamed,
    Row::ExpiredToken,
    Row::Forbidden,
    Row::ThrottledUntil,
    Row::Throttled,
    Row::ThrottledInOwnWords,
    Row::InternalError,
    Row::Unavailable,
    Row::TimeoutBefore,
    Row::TimeoutAfter,
    Row::ResetBefore,
    Row::ResetAfter,
    Row::Tls,
    Row::Truncated,
    Row::WrongContentType,
    Row::Page,
    Row::ErrorsInside,
    Row::Mixed,
];

/// What a connector is expected to do about a fault.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The fault; none: there is no such fault, and why.
    pub fault: Option<(Fault, How)>,
    /// What the lane does, or why there is no such fault.
    pub does: &'static str,
    /// Requests that the platform gets.
    pub requests: u64,
    /// Events that it counts.
    pub counted: u64,
    /// Events that the ledger says are delivered.
    pub delivered: u64,
    /// Those that the platform says it had before, of these.
    pub before: u64,
    /// Dead, and why.
    pub dead: Option<(&'static str, u64)>,
}

impl Row {
    pub const fn title(self) -> &'static str {
        match self {
            Self::BadUnnamed => "400, one bad event of 500, not named",
            Self::BadNamed => "400, one bad event of 500, named",
            Self::ExpiredToken => "401, expired token, twice",
            Self::Forbidden => "403, twice",
            Self::ThrottledUntil => "429 with Retry-After: 2",
            Self::Throttled => "429 without Retry-After",
            Self::ThrottledInOwnWords => "throttled in the platform's own words",
            Self::InternalError => "500, five times",
            Self::Unavailable => "503, five times",
            Self::TimeoutBefore => "timeout, nothing accepted",
            Self::TimeoutAfter => "timeout after acceptance",
            Self::ResetBefore => "connection reset, nothing accepted, five times",
            Self::ResetAfter => "connection reset after acceptance",
            Self::Tls => "TLS handshake fails",
            Self::Truncated => "truncated answer",
            Self::WrongContentType => "wrong content type",
            Self::Page => "200 with a page of HTML",
            Self::ErrorsInside => "200 with errors inside",
            Self::Mixed => "partial failure, transient and permanent",
        }
    }

    pub const fn events(self) -> u64 {
        match self {
            Self::BadUnnamed | Self::BadNamed => MANY,
            _ => FEW,
        }
    }

    /// Which event is bad.
    pub const fn bad(self) -> Option<u64> {
        match self {
            Self::BadUnnamed | Self::BadNamed => Some(BAD),
            _ => None,
        }
    }

    /// What each connector is expected to do. `bad_id` is the id of the bad event.
    pub fn cell(self, kind: Kind, bad_id: &str) -> Cell {
        match self {
            Self::BadUnnamed => bad_event(kind, bad_id, false),
            Self::BadNamed => bad_event(kind, bad_id, true),
            Self::ExpiredToken => Cell { does: expired_does(kind), ..failed(kind, expired(kind), 2) },
            Self::Forbidden => {
                let does = "circuit opens at once, one event is tried until the credential works";
                Cell { does, ..failed(kind, forbidden(kind), 2) }
            }
            Self::ThrottledUntil => {
                let fault = Fault::TooManyRequests { retry_after: Some(ASKED) };
                Cell {
                    does: "circuit opens for as long as asked, then one event, then the rest",
                    ..failed(kind, fault, 1)
                }
            }
            Self::Throttled => Cell {
                does: match kind {
                    Kind::Meta => "circuit opens for a minute, then one event, then the rest",
                    _ => "circuit opens, then one event, then the rest",
                },
                ..failed(kind, Fault::TooManyRequests { retry_after: None }, 1)
            },
            Self::ThrottledInOwnWords => own_words(kind),
            Self::InternalError => {
                let fault = Fault::Status { code: 500, body: None };
                unknown(kind, fault, 5, false)
            }
            Self::Unavailable => {
                let does = "after three failures the circuit opens: single events are tried, then the rest";
                Cell { does, ..failed(kind, Fault::Status { code: 503, body: None }, 5) }
            }
            Self::TimeoutBefore => unknown(kind, Fault::Stall, 1, false),
            Self::TimeoutAfter => {
                unknown(kind, Fault::Slow(std::time::Duration::from_secs(TOO_LATE)), 1, true)
            }
            Self::ResetBefore => unknown(kind, Fault::ResetBeforeReading, 5, false),
            Self::ResetAfter => unknown(kind, Fault::ResetAfterAccepting, 1, true),
            Self::Tls => Cell {
                does: "nothing was sent: after three failures the circuit opens; a mended address is used at once",
                requests: if kind.batches() { 2 } else { FEW },
                ..plain(kind)
            },
            Self::Truncated if kind.batches() => unknown(kind, Fault::TruncatedAnswer, 1, true),
            Self::Truncated => none(kind, "its success has no body that could break off"),
            Self::WrongContentType => Cell {
                fault: Some((Fault::WrongContentType, How::Times(1))),
                does: "what the answer says counts, not what it is called",
                ..plain(kind)
            },
            Self::Page => page(kind),
            Self::ErrorsInside => errors_inside(kind),
            Self::Mixed => mixed(kind),
        }
    }
}

/// Nothing goes wrong: one request, or one for each event.
fn plain(kind: Kind) -> Cell {
    Cell {
        fault: None,
        does: "",
        requests: if kind.batches() { 1 } else { FEW },
        counted: FEW,
        delivered: FEW,
        before: 0,
        dead: None,
    }
}

/// There is no such fault.
fn none(kind: Kind, why: &'static str) -> Cell {
    Cell { does: why, ..plain(kind) }
}

/// So many requests fail and surely were not taken. Where a request holds many events the first good one carries a single event and
/// the next one the rest; else each event that failed is sent once more.
fn failed(kind: Kind, fault: Fault, times: u64) -> Cell {
    let requests = if kind.batches() { times + 2 } else { FEW + times };
    Cell { fault: Some((fault, How::Times(times as u32))), requests, ..plain(kind) }
}

/// The same, and nobody knows whether they were taken. `taken`: they were.
fn unknown(kind: Kind, fault: Fault, times: u64, taken: bool) -> Cell {
    let does = match (kind, times) {
        (Kind::Ga4, _) => {
            "GA4 recognises no repeat: what may have arrived is not sent again, a person has to look"
        }
        (_, 1) => "sent again under the same ids, one event first",
        (_, _) => {
            "after three failures the circuit opens: single events are tried under the same ids, then the rest"
        }
    };
    let cell = Cell { does, ..failed(kind, fault, times) };
    match kind {
        Kind::Ga4 => Cell {
            requests: FEW,
            counted: if taken { FEW } else { FEW - times },
            delivered: FEW - times,
            dead: Some(("outcome_unknown", times)),
            ..cell
        },
        // Of a repeated conversion the Ads API says that it was there.
        Kind::GoogleAds if taken => Cell { before: FEW, ..cell },
        _ => cell,
    }
}

/// How many requests it takes to find one bad event by halves.
fn halves(events: u64, bad: u64) -> u64 {
    let first = events / 2;
    match (events, bad < first) {
        (1, _) => 1,
        (_, true) => 2 + halves(first, bad),
        (_, false) => 2 + halves(events - first, bad - first),
    }
}

fn bad_event(kind: Kind, id: &str, named: bool) -> Cell {
    let fault = Some((Fault::BadEvent { containing: id.to_owned(), named }, How::Always));
    let refused = |does: &'static str, requests: u64| Cell {
        fault: fault.clone(),
        does,
        requests,
        counted: MANY - 1,
        delivered: MANY - 1,
        before: 0,
        dead: Some(("rejected_by_platform", 1)),
    };
    match kind {
        Kind::Meta | Kind::TikTok if named => {
            refused("the one that is named is dead, the rest goes out again", 2)
        }
        Kind::Meta | Kind::TikTok => refused("halves, until it is alone: it is dead", halves(MANY, BAD)),
        Kind::DataManager => refused("Data Manager always names it: it is dead, the rest goes out again", 2),
        Kind::GoogleAds => refused("a partial failure tells of each item: no neighbour is touched", 1),
        Kind::Webhook => refused("each event is a request: no neighbour is touched", MANY),
        Kind::Ga4 => Cell {
            does: "GA4 answers 2xx whatever the body (Measurement Protocol, \"Validate events\"): told apart before sending",
            requests: MANY,
            counted: MANY,
            delivered: MANY,
            ..plain(kind)
        },
    }
}

fn google_error(code: u16, status: &str, reason: &str) -> Fault {
    let info = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com",
    });
    let error =
        json!({ "error": { "code": code, "message": "Refused.", "status": status, "details": [info] } });
    Fault::Status { code, body: Some(error.to_string()) }
}

fn expired(kind: Kind) -> Fault {
    match kind {
        // As ExpiredToken, but without a word about the tokens of Google's other API, which would be void as well.
        Kind::GoogleAds | Kind::DataManager => google_error(401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED"),
        Kind::Meta | Kind::TikTok | Kind::Ga4 | Kind::Webhook => Fault::ExpiredToken,
    }
}

const fn expired_does(kind: Kind) -> &'static str {
    match kind {
        Kind::GoogleAds | Kind::DataManager => {
            "a fresh token at once; refused as well, the circuit opens and one event is tried until it works"
        }
        Kind::Meta | Kind::TikTok | Kind::Ga4 | Kind::Webhook => {
            "circuit opens at once, one event is tried until the credential works"
        }
    }
}

fn forbidden(kind: Kind) -> Fault {
    let code = match kind {
        Kind::Meta => "200",
        Kind::TikTok => "40001",
        Kind::GoogleAds => "authorizationError.USER_PERMISSION_DENIED",
        Kind::DataManager => "PERMISSION_DENIED",
        Kind::Ga4 | Kind::Webhook => "403",
    };
    Fault::Refuse { code: code.to_owned(), subcode: None }
}

fn own_words(kind: Kind) -> Cell {
    let does = match kind {
        Kind::Meta => "400 with code 4: circuit opens for a minute, then one event, then the rest",
        Kind::TikTok => "200 with code 40100: circuit opens, then one event, then the rest",
        Kind::GoogleAds => "quotaErrorDetails.retryDelay is kept to, then one event, then the rest",
        Kind::DataManager => "RetryInfo.retryDelay is kept to, then one event, then the rest",
        Kind::Ga4 => return none(kind, "GA4 publishes no limit and no answer for it"),
        Kind::Webhook => return none(kind, "Standard Webhooks has 429 and nothing else"),
    };
    Cell { does, ..failed(kind, Fault::ThrottleInBody, 1) }
}

fn page(kind: Kind) -> Cell {
    let cell = unknown(kind, Fault::Page, 1, false);
    match kind {
        Kind::Webhook => Cell {
            does: "any 2xx is the receiver's word that it has it (Standard Webhooks, \"Responding to webhooks\")",
            requests: FEW,
            counted: FEW - 1,
            ..cell
        },
        _ => cell,
    }
}

fn errors_inside(kind: Kind) -> Cell {
    let all = Fault::PartialFailure { indexes: (0..FEW as usize).collect(), code: None };
    match kind {
        Kind::Meta => Cell {
            does: "events_received 0: nothing was taken, one event first, then the rest",
            ..failed(kind, all, 1)
        },
        Kind::TikTok => Cell {
            does: "code 50002: one event first, then the rest",
            ..failed(kind, Fault::TransientInBody, 1)
        },
        Kind::GoogleAds => Cell {
            does: "each item's own INTERNAL_ERROR: all wait together and go out again",
            requests: 2,
            ..failed(kind, all, 1)
        },
        Kind::DataManager => {
            none(kind, "a success has no errors inside: one bad event refuses all (\"Understand errors\")")
        }
        Kind::Ga4 => none(kind, "a success has no body"),
        Kind::Webhook => none(kind, "any 2xx is the receiver's word that it has it"),
    }
}

fn mixed(kind: Kind) -> Cell {
    let fault = Fault::MixedFailure { transient: vec![1, 2], permanent: vec![3] };
    let told_apart = |does| Cell {
        fault: Some((fault.clone(), How::Times(1))),
        does,
        requests: 2,
        counted: FEW - 1,
        delivered: FEW - 1,
        dead: Some(("rejected_by_platform", 1)),
        ..plain(kind)
    };
    match kind {
        Kind::GoogleAds => {
            told_apart("by location: the transient ones go out again, the permanent one is dead")
        }
        Kind::TikTok => {
            told_apart("code 20001, by row: the transient ones go out again, the permanent one is dead")
        }
        Kind::Meta => Cell {
            fault: Some((fault, How::Times(1))),
            does: "events_received 17 of 20: Meta names nobody, so that all are delivered with that note",
            counted: FEW - 3,
            ..plain(kind)
        },
        Kind::DataManager => {
            none(kind, "one bad event refuses all (\"Understand errors\"); counts come later, without places")
        }
        Kind::Ga4 | Kind::Webhook => none(kind, "a request holds one event"),
    }
}

//! What TikTok's answers mean: HTTP is 200 whatever the API decides, so `code` is read. An answer without a code is never
//! "delivered".
//!
//! Sources: TikTok's SDK (`tiktok_code.py`, names), answers recorded in the tests of Airbyte, singer and rudder-transformer
//! and in issues of stape-io/tiktok-tag; 2026-11.

use serde_json::Value;

use crate::outcome::{Answer, HoldKind, Item, ItemOutcome, told};

/// How many attempts make sense for codes whose name says permanent while others retry them.
const FEW: u32 = 3;

/// One outcome per sent item.
#[must_use]
pub fn classify(answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome> {
    let all = |outcome: ItemOutcome| vec![outcome; sent.len()];
    let json = answer.json();
    let code = json.as_ref().and_then(|j| j.get("code")).and_then(code_of);
    let Some(code) = code.filter(|code| is_tiktoks_own(answer.status, *code)) else {
        return all(without_code(answer));
    };
    let body = json.unwrap_or(Value::Null);
    let message = body.get("message").and_then(Value::as_str).unwrap_or_default();
    let detail = redacted(message);
    let name = code.to_string();
    let hold = |kind, after| ItemOutcome::hold(kind, after, &name, &detail);
    match code {
        0 => {
            let note = (!message.eq_ignore_ascii_case("ok")).then(|| format!("0: {detail}"));
            all(ItemOutcome::Delivered { note })
        }
        20001 => partial(&body, sent, &detail),
        40050 => all(ItemOutcome::DeliveredBefore { code: name }),
        40000 | 40002 => parameters(message, sent.len(), &name, &detail),
        40061 | 40062 => all(ItemOutcome::Isolate { code: name, detail }),
        40001 | 40003 | 40101..=40110 | 40113 | 40115..=40118 | 40130 | 40300 | 40301 => {
            all(hold(HoldKind::Auth, None))
        }
        40006..=40008 | 40051 | 40063 | 40400 | 41001 => all(hold(HoldKind::Configuration, None)),
        40100 | 40132 | 61000 => all(hold(HoldKind::Throttled, answer.retry_after())),
        40200..=40202 | 40700 => all(ItemOutcome::HoldLane {
            after: answer.retry_after(),
            attempts: Some(FEW),
            kind: HoldKind::Transient,
            code: name,
            detail,
        }),
        50000..=69999 => all(hold(HoldKind::Transient, answer.retry_after())),
        40000..=49999 | 70000..=79999 => all(ItemOutcome::Isolate { code: name, detail }),
        _ => all(hold(HoldKind::Transient, answer.retry_after())),
    }
}

/// Whether the code decides. TikTok answers 200 whatever it decides: a status that speaks of trouble on the way wins over any
/// code, and none but a success can say that something was taken.
const fn is_tiktoks_own(status: u16, code: i64) -> bool {
    match status {
        200..=299 => true,
        408 | 429 | 500.. => false,
        _ => !matches!(code, 0 | 20001 | 40050),
    }
}

fn code_of(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn without_code(answer: &Answer) -> ItemOutcome {
    let code = format!("HTTP_{}", answer.status);
    let hold = |kind, after, detail: &str| ItemOutcome::hold(kind, after, &code, detail);
    match answer.status {
        413 => ItemOutcome::Isolate { code, detail: "the request is too large".to_owned() },
        429 => hold(HoldKind::Throttled, answer.retry_after(), "too many requests"),
        404 => hold(HoldKind::Configuration, None, "no such path: base_url is wrong"),
        401 | 403 => hold(HoldKind::Auth, None, "the token was not accepted"),
        _ => hold(HoldKind::Transient, answer.retry_after(), "no answer that TikTok would give"),
    }
}

/// The request was refused because of one event: the one whose index the text names, else bisect. A text about the envelope
/// is about the connection.
fn parameters(message: &str, count: usize, code: &str, detail: &str) -> Vec<ItemOutcome> {
    if let Some(bad) = index_in(message).filter(|index| *index < count) {
        return (0..count)
            .map(|index| match index == bad {
                true => ItemOutcome::Dead { code: code.to_owned(), detail: detail.to_owned() },
                false => ItemOutcome::ResendRest,
            })
            .collect();
    }
    let outcome =
        if ["event_source", "test_event_code", "partner_name"].iter().any(|key| message.contains(key)) {
            ItemOutcome::hold(HoldKind::Configuration, None, code, detail)
        } else {
            ItemOutcome::Isolate { code: code.to_owned(), detail: detail.to_owned() }
        };
    vec![outcome; count]
}

/// The index in `data.3.event_time`, `data[3]` or `Batch.0.properties`.
fn index_in(message: &str) -> Option<usize> {
    ["data.", "data[", "Batch.", "batch."].iter().find_map(|opening| {
        let rest = &message[message.find(opening)? + opening.len()..];
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    })
}

/// Partly taken: only what `data` names is sent again, and not what a row's own code refuses for good. What it looks like is not
/// published; lists of indexes or event ids under telling names are understood. Where `data` says something else, nobody knows which
/// were taken: all go out again under their ids, which TikTok recognises, and after a few times a person has to look.
fn partial(body: &Value, sent: &[&Item], detail: &str) -> Vec<ItemOutcome> {
    let again = ItemOutcome::Retry {
        after: None,
        attempts: Some(FEW),
        code: "20001".to_owned(),
        detail: detail.to_owned(),
    };
    let Some(failed) = failed_of(body.get("data").unwrap_or(&Value::Null), sent) else {
        return vec![again; sent.len()];
    };
    (0..sent.len())
        .map(|index| match failed.iter().find(|row| row.item == index) {
            Some(Failed { code: Some(code @ (40000 | 40002 | 40062)), .. }) => {
                ItemOutcome::Dead { code: code.to_string(), detail: detail.to_owned() }
            }
            Some(_) => again.clone(),
            None => ItemOutcome::Delivered { note: Some(format!("20001: {detail}")) },
        })
        .collect()
}

/// An item that was not taken.
struct Failed {
    item: usize,
    /// Why, where its row says so.
    code: Option<i64>,
}

/// The items that `data` names; none if it cannot be read. Nothing in it names nothing.
fn failed_of(data: &Value, sent: &[&Item]) -> Option<Vec<Failed>> {
    let rows = match data {
        Value::Null => return Some(Vec::new()),
        Value::Object(map) if map.is_empty() => return Some(Vec::new()),
        Value::Object(map) => {
            let lists = ["failed_events", "failed", "errors", "failed_indexes"];
            let found: Vec<&Value> = lists.iter().filter_map(|key| map.get(*key)).collect();
            let rows = found.iter().map(|list| list.as_array()).collect::<Option<Vec<_>>>()?;
            if rows.is_empty() {
                return None;
            }
            rows
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => return None,
    };
    let of_row =
        |row: &Value| Some(Failed { item: item_of(row, sent)?, code: row.get("code").and_then(code_of) });
    rows.into_iter().flatten().map(of_row).collect()
}

/// The item that a row is about: by its index, else by its event id.
fn item_of(row: &Value, sent: &[&Item]) -> Option<usize> {
    let index = row.as_u64().or_else(|| row.get("index")?.as_u64());
    if let Some(index) = index {
        return usize::try_from(index).ok().filter(|index| *index < sent.len());
    }
    let id = row.as_str().or_else(|| row.get("event_id")?.as_str())?;
    sent.iter().position(|item| item.event_id == id)
}

/// Messages may quote what was sent: only their beginning up to a quote is kept, and of that nothing that looks like a
/// person's.
fn redacted(message: &str) -> String {
    told(message.split(['"', '\'']).next().unwrap_or_default())
}

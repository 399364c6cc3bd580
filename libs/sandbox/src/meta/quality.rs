//! Meta's Dataset Quality API: `GET /{version}/dataset_quality?dataset_id=…&fields=web{…}`. A row for each name of website events of the
//! last 48 hours, no total; any key may be missing. Order of checks: token, path and version, dataset, `fields`.
//!
//! Meta does not say how it reckons its score. The one here is the mean share of the keys that Meta was seen to list, of 10: it differs
//! from every estimate of a sender on purpose.
//!
//! Source: Meta, Conversions API, "Dataset Quality API"; fields and identifiers as seen there and in public answers; 2026-11.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Map, Value, json};

use super::answer::Refusal;
use super::{proof_of, token_beside};
use crate::answer::Answer;
use crate::exchange::{Inbound, World};
use crate::options::PixelOptions;
use crate::platform::Platform;

/// What the score looks back on.
const WINDOW_MS: i64 = 48 * 3600 * 1000;

/// Meta's word for a key, and its name in `user_data`.
const IDENTIFIERS: [(&str, &str); 6] = [
    ("email", "em"),
    ("phone", "ph"),
    ("external_id", "external_id"),
    ("fbc", "fbc"),
    ("user_agent", "client_user_agent"),
    ("ip_address", "client_ip_address"),
];

/// A field that may be asked for.
struct Field {
    name: &'static str,
    inner: &'static [Self],
}

const fn leaf(name: &'static str) -> Field {
    Field { name, inner: &[] }
}

const PERCENTAGE: &[Field] = &[leaf("percentage")];

/// Everything that may be asked for. `dedup_key_feedback`, as Meta's table has it, is no field.
const FIELDS: &[Field] = &[Field {
    name: "web",
    inner: &[
        leaf("event_name"),
        Field {
            name: "event_match_quality",
            inner: &[
                leaf("composite_score"),
                Field {
                    name: "match_key_feedback",
                    inner: &[
                        leaf("identifier"),
                        Field { name: "coverage", inner: PERCENTAGE },
                        Field {
                            name: "potential_aly_acr_increase",
                            inner: &[leaf("percentage"), leaf("description")],
                        },
                    ],
                },
                Field {
                    name: "diagnostics",
                    inner: &[
                        leaf("name"),
                        leaf("description"),
                        leaf("solution"),
                        leaf("percentage"),
                        leaf("affected_event_count"),
                        leaf("total_event_count"),
                    ],
                },
            ],
        },
        Field {
            name: "event_coverage",
            inner: &[leaf("percentage"), leaf("goal_percentage"), leaf("description")],
        },
        Field {
            name: "dedupe_key_feedback",
            inner: &[
                leaf("dedupe_key"),
                Field { name: "browser_events_with_dedupe_key", inner: PERCENTAGE },
                Field { name: "server_events_with_dedupe_key", inner: PERCENTAGE },
                Field { name: "overall_browser_coverage_from_dedupe_key", inner: PERCENTAGE },
            ],
        },
        Field { name: "data_freshness", inner: &[leaf("upload_frequency")] },
        Field { name: "acr", inner: PERCENTAGE },
    ],
}];

/// What is asked for: names, each with what is asked for in it.
#[derive(Debug, PartialEq)]
struct Selection(Vec<(String, Selection)>);

/// Answers a request.
pub(crate) fn answer(world: &World, inbound: &Inbound<'_>) -> Answer {
    match read(world, inbound) {
        Ok(body) => Answer::json(200, &body),
        Err(refusal) => refusal.answer(inbound.localised),
    }
}

fn read(world: &World, inbound: &Inbound<'_>) -> Result<Value, Refusal> {
    let options = &world.options.meta;
    let token = token_beside(inbound).unwrap_or_default();
    let datasets = options.tokens.get(&token).ok_or_else(Refusal::token)?;
    let mut parts = inbound.path.trim_matches('/').split('/');
    let version = parts.next().unwrap_or("");
    let is_known = options.versions.iter().any(|known| known == version);
    if !is_known || parts.next() != Some("dataset_quality") || parts.next().is_some() {
        return Err(Refusal::unknown_path(inbound.path));
    }
    if *inbound.method != Method::GET {
        return Err(Refusal::parameter("(#100) Unsupported method, permitted method(s): GET"));
    }
    let dataset = inbound
        .parameter("dataset_id")
        .ok_or_else(|| Refusal::parameter("(#100) The parameter dataset_id is required"))?;
    if !datasets.contains(&dataset) {
        return Err(Refusal::dataset(&dataset));
    }
    if let Some(secret) = &options.app_secret {
        let proof = inbound.parameter("appsecret_proof").ok_or_else(Refusal::proof_missing)?;
        if proof != proof_of(secret, &token) {
            return Err(Refusal::proof_wrong());
        }
    }
    let fields = inbound.parameter("fields").unwrap_or_default();
    let syntax =
        || Refusal::new(400, 2500, format!("Syntax error \"Expected end of string\" in fields: {fields}"));
    let asked = Selection::parse(&fields).ok_or_else(syntax)?;
    asked.check(FIELDS).map_err(|unknown| {
        Refusal::parameter(format!("(#100) Tried accessing nonexisting field ({unknown})"))
    })?;
    Ok(asked.prune(json!({ "web": rows(world, &dataset, inbound.now.as_millisecond()) })))
}

/// A row for each name of website events that came in the window; of those whose bodies are kept.
fn rows(world: &World, dataset: &str, now_ms: i64) -> Vec<Value> {
    let mut by_name: BTreeMap<String, (u64, [u64; IDENTIFIERS.len()])> = BTreeMap::new();
    for (name, body) in world.book(Platform::Meta).open().kept_since(dataset, now_ms - WINDOW_MS) {
        let Ok(event) = serde_json::from_str::<Value>(body) else { continue };
        if event["action_source"] != "website" {
            continue;
        }
        let (events, with_key) = by_name.entry(name.to_owned()).or_default();
        *events += 1;
        for (count, (_, key)) in with_key.iter_mut().zip(IDENTIFIERS) {
            *count += u64::from(event["user_data"].get(key).is_some());
        }
    }
    let pixel = world.options.meta.pixel;
    by_name.into_iter().map(|(name, (events, with_key))| row(&name, events, with_key, pixel)).collect()
}

fn row(name: &str, events: u64, with_key: [u64; IDENTIFIERS.len()], pixel: Option<PixelOptions>) -> Value {
    let tenth = |number: f64| (number * 10.0).round() / 10.0;
    let share = |count: u64| count as f64 / events as f64;
    let score = 10.0 * with_key.iter().map(|count| share(*count)).sum::<f64>() / IDENTIFIERS.len() as f64;
    let feedback: Vec<Value> = IDENTIFIERS
        .iter()
        .zip(with_key)
        .filter(|(_, count)| *count > 0)
        .map(|((word, _), count)| {
            json!({ "identifier": word, "coverage": { "percentage": tenth(100.0 * share(count)) } })
        })
        .collect();
    let mut row = json!({
        "event_name": name,
        "event_match_quality": { "composite_score": tenth(score), "match_key_feedback": feedback },
    });
    if let Some(PixelOptions { with_event_id, shared }) = pixel {
        row["event_coverage"] = json!({ "percentage": shared, "goal_percentage": 75 });
        // No event comes here without an id.
        row["dedupe_key_feedback"] = json!([{
            "dedupe_key": "event_id",
            "browser_events_with_dedupe_key": { "percentage": with_event_id },
            "server_events_with_dedupe_key": { "percentage": 100 },
            "overall_browser_coverage_from_dedupe_key": { "percentage": shared },
        }]);
        row["data_freshness"] = json!({ "upload_frequency": "real_time" });
    }
    row
}

impl Selection {
    /// Of `a,b{c,d{e}}`; none: it is not written so.
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text;
        let parsed = Self::level(&mut rest, 0)?;
        rest.is_empty().then_some(parsed)
    }

    fn level(rest: &mut &str, depth: usize) -> Option<Self> {
        let mut fields = Vec::new();
        loop {
            let text = *rest;
            let end = text.find([',', '{', '}']).unwrap_or(text.len());
            let name = &text[..end];
            if name.is_empty() || depth > 8 {
                return None;
            }
            *rest = &text[end..];
            let inner = match rest.strip_prefix('{') {
                Some(after) => {
                    *rest = after;
                    let inner = Self::level(rest, depth + 1)?;
                    *rest = rest.strip_prefix('}')?;
                    inner
                }
                None => Self(Vec::new()),
            };
            fields.push((name.to_owned(), inner));
            match rest.strip_prefix(',') {
                Some(after) => *rest = after,
                None => return Some(Self(fields)),
            }
        }
    }

    /// Whether there are such fields; the first that is none otherwise.
    fn check(&self, known: &[Field]) -> Result<(), &str> {
        for (name, inner) in &self.0 {
            let field = known.iter().find(|field| field.name == name).ok_or(name.as_str())?;
            inner.check(field.inner)?;
        }
        Ok(())
    }

    /// What is asked for of an answer. A field of which nothing is said is there as a whole.
    fn prune(&self, value: Value) -> Value {
        match value {
            Value::Object(mut members) if !self.0.is_empty() => {
                let asked = self.0.iter();
                let asked = asked
                    .filter_map(|(name, inner)| Some((name.clone(), inner.prune(members.remove(name)?))));
                Value::Object(asked.collect::<Map<String, Value>>())
            }
            Value::Array(items) => items.into_iter().map(|item| self.prune(item)).collect(),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_are_nested() {
        let asked = Selection::parse("web{event_name,acr{percentage}},x").unwrap();
        assert_eq!(asked.check(FIELDS), Err("x"));
        assert_eq!(
            Selection::parse("web{dedup_key_feedback}").unwrap().check(FIELDS),
            Err("dedup_key_feedback")
        );
        assert_eq!(Selection::parse("web{dedupe_key_feedback}").unwrap().check(FIELDS), Ok(()));
        for wrong in ["", "web{", "web{}", "web}", "web{a}}", ",web", "web,"] {
            assert_eq!(Selection::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_what_is_asked_for_is_answered() {
        let whole = json!({ "web": [{ "event_name": "Lead", "acr": { "percentage": 1 }, "other": 2 }] });
        let asked = Selection::parse("web{acr{percentage},event_coverage}").unwrap();
        assert_eq!(asked.prune(whole), json!({ "web": [{ "acr": { "percentage": 1 } }] }));
    }
}

//! Every vector of `tests/vectors/consent-decisions.json`: what the model answers for 80 situations.
#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach their helper functions")]

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};
use tracklayer_consent::{
    decide::{Case, Query, Subject, decide},
    kind::Kind,
    policy::{Policy, PolicyDocument},
    purpose::{Purpose, Purposes},
    reason::{Outcome, Reason},
    signal::{CategoryStatement, Content, ExplicitChoice, Sections, Signal},
    strings::{
        gcd::{ConsentMode, Setting},
        gpp::GppString,
        tcf::TcString,
        usp::UsPrivacy,
    },
};
use tracklayer_ids::SubjectKey;

const DECISIONS: &str = include_str!("../../../tests/vectors/consent-decisions.json");
const STRINGS: &str = include_str!("../../../tests/vectors/consent-strings.json");

/// In the vectors `google_ads` is what can express all restrictions, and kinds stand beside the policies.
fn policies(vectors: &Value) -> BTreeMap<String, Policy> {
    let defaults = PolicyDocument::from_toml(PolicyDocument::DEFAULT).unwrap();
    let mut compiled = BTreeMap::new();
    for (name, document) in vectors["policies"].as_object().unwrap() {
        let text = document.to_string();
        let mut document = PolicyDocument::from_json(&text).unwrap();
        document.vendors = defaults.vendors.clone();
        document.kinds = defaults.kinds.clone();
        compiled.insert(name.clone(), Policy::compile(&document, &text).unwrap());
    }
    compiled
}

fn kind(name: &str) -> Kind {
    if name == "google_ads" { Kind::GoogleDataManager } else { Kind::parse(name).unwrap() }
}

fn setting(signal: &Value, name: &str) -> Setting {
    let granted = signal[name].as_str().map(|text| text == "granted");
    Setting { granted, by_visitor: signal["interaction"] == true }
}

fn text(signal: &Value, strings: &Value) -> String {
    let Some(id) = signal["string_ref"].as_str() else { return signal["value"].as_str().unwrap().to_owned() };
    let found = ["tcf", "gpp", "malformed"]
        .iter()
        .flat_map(|list| strings[*list].as_array().unwrap())
        .find(|vector| vector["id"] == id)
        .unwrap_or_else(|| panic!("no string {id}"));
    found["encoded"].as_str().unwrap().to_owned()
}

fn content(policy: &Policy, signal: &Value, strings: &Value) -> Option<Content> {
    Some(match signal["kind"].as_str().unwrap() {
        // Off is no statement.
        "gpc" if signal["value"] != true => return None,
        "gpc" => Content::Gpc(Sections::EVERYWHERE),
        "categories" => Content::Categories(CategoryStatement::of(
            policy,
            signal["map"].as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value == true)),
            signal["interaction"] == true,
        )),
        "tcf" => Content::Tcf(Arc::new(TcString::decode(&text(signal, strings)))),
        "gpp" => Content::Gpp(Arc::new(GppString::decode(&text(signal, strings))), Sections::NONE),
        "usp" => Content::UsPrivacy(UsPrivacy::decode(&text(signal, strings))),
        "consent_mode" => Content::ConsentMode(Ok(ConsentMode {
            ad_storage: setting(signal, "ad_storage"),
            analytics_storage: setting(signal, "analytics_storage"),
            ad_user_data: setting(signal, "ad_user_data"),
            ad_personalization: setting(signal, "ad_personalization"),
        })),
        "explicit" => {
            let of = |choice: &str| -> Purposes {
                let purposes = signal["purposes"].as_object().unwrap();
                purposes
                    .iter()
                    .filter(|(_, c)| *c == choice)
                    .map(|(p, _)| Purpose::parse(p).unwrap())
                    .collect()
            };
            Content::Explicit(ExplicitChoice {
                granted: of("grant"),
                denied: of("deny"),
                two_step: signal["two_step"] == true,
                conflict_acknowledged: signal["conflict_acknowledged"] == true,
            })
        }
        other => panic!("unknown kind of signal {other}"),
    })
}

fn signals(policy: &Policy, input: &Value, strings: &Value) -> Vec<Signal> {
    let all = input["signals"].as_array().unwrap().iter();
    all.filter_map(|signal| {
        Some(Signal {
            subject: SubjectKey([7; 16]),
            person: input["subject"]["known"] == true || signal["kind"] == "explicit",
            at: signal["at"].as_str().unwrap().parse().unwrap(),
            own: false,
            content: content(policy, signal, strings)?,
        })
    })
    .collect()
}

fn query(destination: &Value) -> Query {
    let extra = destination["declared_purposes"].as_array().into_iter().flatten();
    Query {
        kind: Some(kind(destination["kind"].as_str().unwrap())),
        extra: extra.map(|p| Purpose::parse(p.as_str().unwrap()).unwrap()).collect(),
        unknown_purpose: false,
        cap: match destination["mode_cap"].as_str() {
            None | Some("allow") => Outcome::Allow,
            Some("restricted") => Outcome::AllowRestricted,
            Some("deny") => Outcome::Deny,
            Some(other) => panic!("unknown cap {other}"),
        },
    }
}

/// What a payload would state, from the policy's row or from the denied purposes.
fn restrictions(policy: &Policy, kind: Kind, place: &str, denied: Purposes) -> Value {
    if kind != Kind::GoogleDataManager {
        return policy.restriction(kind, place).cloned().unwrap_or_default();
    }
    let status = |is_denied: bool| if is_denied { "DENIED" } else { "GRANTED" };
    json!({
        "ad_personalization": status(denied.contains(Purpose::AdTargeting)),
        "ad_user_data": status(denied.contains(Purpose::AdMeasurement) || denied.contains(Purpose::SaleShare)),
    })
}

#[test]
fn every_situation_gets_the_answer_of_the_model() {
    let vectors: Value = serde_json::from_str(DECISIONS).unwrap();
    let strings: Value = serde_json::from_str(STRINGS).unwrap();
    let policies = policies(&vectors);
    let all = vectors["vectors"].as_array().unwrap();
    assert_eq!(all.len(), 80);
    let mut wrong = Vec::new();
    for vector in all {
        let (id, input, expected) = (vector["id"].as_str().unwrap(), &vector["input"], &vector["expected"]);
        let policy = &policies[input["policy"].as_str().unwrap()];
        let codes: Vec<&str> =
            input["jurisdictions"].as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
        let places = policy.places(&codes);
        let signals = signals(policy, input, &strings);
        let now: Timestamp = input["now"].as_str().unwrap().parse().unwrap();
        let subject = Subject {
            person_known: input["subject"]["known"] == true,
            erased: input["subject"]["erased"] == true,
            known_minor: input["subject"]["known_minor"] == true,
        };
        let query = query(&input["destination"]);
        let decision = decide(policy, &Case { now, places: &places, subject, signals: &signals }, &query);
        let mut answer = json!({
            "outcome": decision.outcome.name(),
            "reason": decision.reason.map(Reason::name),
        });
        if expected.get("jurisdiction").is_some() {
            answer["jurisdiction"] = json!(decision.place);
        }
        if let Some(kind) = query.kind
            && decision.outcome == Outcome::AllowRestricted
        {
            answer["restrictions"] = restrictions(policy, kind, decision.place, decision.denied);
        }
        let mut expected = expected.clone();
        expected.as_object_mut().unwrap().entry("reason").or_insert(Value::Null);
        if answer != expected {
            wrong.push(format!("{id}: expected {expected}, got {answer} ({:?})", decision.reasons));
        }
    }
    assert!(wrong.is_empty(), "{} of 80:\n{}", wrong.len(), wrong.join("\n"));
}

//! Random situations: signals, subjects, places and queries, for the properties that hold for all of them.
#![allow(dead_code)]

use std::sync::{Arc, LazyLock};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use tracklayer_consent::{
    decide::{Case, Decision, Query, Subject, decide},
    kind::Kind,
    policy::{Policy, PolicyDocument},
    purpose::Purposes,
    reason::Outcome,
    signal::{CategoryStatement, Content, ExplicitChoice, Sections, Signal},
    strings::{
        gcd::{ConsentMode, Setting},
        gpp::GppString,
        tcf::TcString,
        usp::UsPrivacy,
    },
};
use tracklayer_ids::SubjectKey;

/// 3,000 cases for each property, or more (`PROPTEST_CASES`); `PROPTEST_RNG_SEED` chooses which.
pub fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.max(3_000), failure_persistence: None, ..config }
}

pub static DEFAULT: LazyLock<Policy> = LazyLock::new(|| Policy::compiled_in().unwrap());
/// Restricted sends wherever a platform has them, and denied kinds in one place.
pub static LAX: LazyLock<Policy> = LazyLock::new(|| lax(|_| {}));

pub fn lax(change: impl FnOnce(&mut PolicyDocument)) -> Policy {
    let mut document = PolicyDocument::from_toml(PolicyDocument::DEFAULT).unwrap();
    for kind in ["meta_capi", "tiktok_events", "google_data_manager", "webhook"] {
        for place in ["US-CA", "US-CO", "DE"] {
            let fields = serde_json::json!({"restricted": true});
            document.restricted_mode.entry(kind.to_owned()).or_default().insert(place.to_owned(), fields);
        }
    }
    document.denied_kinds.insert("FR".to_owned(), vec!["meta_capi".to_owned()]);
    change(&mut document);
    Policy::compile(&document, "").unwrap()
}

pub const STRINGS: &str = include_str!("../../../../tests/vectors/consent-strings.json");

pub fn strings_of(list: &str) -> Vec<String> {
    let vectors: serde_json::Value = serde_json::from_str(STRINGS).unwrap();
    let all = vectors[list].as_array().unwrap();
    all.iter().map(|v| v["encoded"].as_str().unwrap().to_owned()).collect()
}

pub fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// The last 600 days in whole hours, so that equal times occur, and a little of the future.
pub fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        4 => (0i64..14_400).prop_map(|hours| now() - SignedDuration::from_hours(hours)),
        4 => (0i64..6).prop_map(|hours| now() - SignedDuration::from_hours(hours * 24)),
        1 => Just(now() + SignedDuration::from_hours(5)),
    ]
}

pub fn purposes() -> impl Strategy<Value = Purposes> {
    (0u8..64).prop_map(Purposes::from_bits)
}

pub fn setting() -> impl Strategy<Value = Setting> {
    (prop::option::of(any::<bool>()), any::<bool>())
        .prop_map(|(granted, by_visitor)| Setting { granted, by_visitor })
}

pub fn content() -> impl Strategy<Value = Content> {
    let names = ["Advertising", "Analytics", "DataSharing", "Functional", "C0004", "Weather"];
    let map = prop::collection::vec((prop::sample::select(names.to_vec()), any::<bool>()), 0..5);
    let gpp: Vec<String> =
        strings_of("gpp").into_iter().chain(["DBABLA~CVQ".to_owned(), "x".to_owned()]).collect();
    let tcf: Vec<String> = strings_of("tcf").into_iter().chain(["C".to_owned()]).collect();
    prop_oneof![
        2 => Just(Content::Gpc(Sections::EVERYWHERE)),
        3 => (map, any::<bool>()).prop_map(|(map, acted)| {
            Content::Categories(CategoryStatement::of(&DEFAULT, map, acted))
        }),
        1 => Just(Content::ObjectUnreadable),
        3 => prop::sample::select(tcf).prop_map(|text| Content::Tcf(Arc::new(TcString::decode(&text)))),
        3 => (prop::sample::select(gpp), prop_oneof![Just(Sections::NONE), Just(Sections::one(7)), Just(Sections::one(8))])
            .prop_map(|(text, sids)| Content::Gpp(Arc::new(GppString::decode(&text)), sids)),
        1 => prop::sample::select(vec!["1YNN", "1YYN", "1---", "2"])
            .prop_map(|text| Content::UsPrivacy(UsPrivacy::decode(text))),
        2 => (setting(), setting(), setting(), setting()).prop_map(|(a, b, c, d)| {
            let mode = ConsentMode { ad_storage: a, analytics_storage: b, ad_user_data: c, ad_personalization: d };
            Content::ConsentMode(Ok(mode))
        }),
        3 => (purposes(), purposes(), any::<bool>(), any::<bool>()).prop_map(|(granted, denied, two, ack)| {
            let denied = if two { Purposes::NONE } else { denied };
            Content::Explicit(ExplicitChoice { granted, denied, two_step: two, conflict_acknowledged: ack })
        }),
    ]
}

pub fn signal() -> impl Strategy<Value = Signal> {
    (content(), time(), 0u8..3, any::<bool>(), prop::bool::weighted(0.2)).prop_map(
        |(content, at, subject, person, own)| Signal {
            subject: SubjectKey([subject; 16]),
            person,
            at,
            own,
            content,
        },
    )
}

pub fn place() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["US-CA", "US-CO", "US-VA", "US-MD", "US", "US-NY", "DE", "FR", "JP", "unknown"])
}

pub fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

/// A case that owns what it is about.
#[derive(Debug, Clone)]
pub struct Situation {
    pub places: Vec<&'static str>,
    pub subject: Subject,
    pub signals: Vec<Signal>,
}

impl Situation {
    pub fn decide(&self, policy: &Policy, query: &Query) -> Decision<'static> {
        self.decide_at(policy, query, now())
    }

    pub fn decide_at(&self, policy: &Policy, query: &Query, now: Timestamp) -> Decision<'static> {
        let places = policy.places(&self.places);
        let case = Case { now, places: &places, subject: self.subject, signals: &self.signals };
        let Decision { outcome, reason, reasons, place, denied } = decide(policy, &case, query);
        let place = self.places.iter().find(|code| **code == place).copied().unwrap_or("unknown");
        Decision { outcome, reason, reasons, place, denied }
    }
}

pub fn situation() -> impl Strategy<Value = Situation> {
    let subject = (any::<bool>(), prop::bool::weighted(0.05), prop::bool::weighted(0.1))
        .prop_map(|(person_known, erased, known_minor)| Subject { person_known, erased, known_minor });
    (prop::collection::vec(place(), 0..3), subject, prop::collection::vec(signal(), 0..7))
        .prop_map(|(places, subject, signals)| Situation { places, subject, signals })
}

pub fn query() -> impl Strategy<Value = Query> {
    let cap = prop::sample::select(vec![Outcome::Allow, Outcome::AllowRestricted, Outcome::Deny]);
    (kind(), purposes(), any::<bool>(), cap).prop_map(|(kind, extra, unknown_purpose, cap)| Query {
        kind: Some(kind),
        extra,
        unknown_purpose,
        cap,
    })
}

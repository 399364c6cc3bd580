//! What must hold for any signals, policies, places and connection settings: consent can only narrow.
#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach their helper functions")]

use std::sync::{Arc, LazyLock};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use tracklayer_consent::{
    decide::{Case, Decision, Query, Subject, decide},
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

static DEFAULT: LazyLock<Policy> = LazyLock::new(|| Policy::compiled_in().unwrap());
/// Restricted sends wherever a platform has them, and denied kinds in one place.
static LAX: LazyLock<Policy> = LazyLock::new(|| lax(|_| {}));

fn lax(change: impl FnOnce(&mut PolicyDocument)) -> Policy {
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

const STRINGS: &str = include_str!("../../../tests/vectors/consent-strings.json");

fn strings_of(list: &str) -> Vec<String> {
    let vectors: serde_json::Value = serde_json::from_str(STRINGS).unwrap();
    let all = vectors[list].as_array().unwrap();
    all.iter().map(|v| v["encoded"].as_str().unwrap().to_owned()).collect()
}

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// The last 600 days in whole hours, so that equal times occur, and a little of the future.
fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        4 => (0i64..14_400).prop_map(|hours| now() - SignedDuration::from_hours(hours)),
        4 => (0i64..6).prop_map(|hours| now() - SignedDuration::from_hours(hours * 24)),
        1 => Just(now() + SignedDuration::from_hours(5)),
    ]
}

fn purposes() -> impl Strategy<Value = Purposes> {
    (0u8..64).prop_map(Purposes::from_bits)
}

fn setting() -> impl Strategy<Value = Setting> {
    (prop::option::of(any::<bool>()), any::<bool>())
        .prop_map(|(granted, by_visitor)| Setting { granted, by_visitor })
}

fn content() -> impl Strategy<Value = Content> {
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

fn signal() -> impl Strategy<Value = Signal> {
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

fn place() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["US-CA", "US-CO", "US-VA", "US-MD", "US", "US-NY", "DE", "FR", "JP", "unknown"])
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

/// A case that owns what it is about.
#[derive(Debug, Clone)]
struct Situation {
    places: Vec<&'static str>,
    subject: Subject,
    signals: Vec<Signal>,
}

impl Situation {
    fn decide(&self, policy: &Policy, query: &Query) -> Decision<'static> {
        self.decide_at(policy, query, now())
    }

    fn decide_at(&self, policy: &Policy, query: &Query, now: Timestamp) -> Decision<'static> {
        let places = policy.places(&self.places);
        let case = Case { now, places: &places, subject: self.subject, signals: &self.signals };
        let Decision { outcome, reason, reasons, place, denied } = decide(policy, &case, query);
        let place = self.places.iter().find(|code| **code == place).copied().unwrap_or("unknown");
        Decision { outcome, reason, reasons, place, denied }
    }
}

fn situation() -> impl Strategy<Value = Situation> {
    let subject = (any::<bool>(), prop::bool::weighted(0.05), prop::bool::weighted(0.1))
        .prop_map(|(person_known, erased, known_minor)| Subject { person_known, erased, known_minor });
    (prop::collection::vec(place(), 0..3), subject, prop::collection::vec(signal(), 0..7))
        .prop_map(|(places, subject, signals)| Situation { places, subject, signals })
}

fn query() -> impl Strategy<Value = Query> {
    let cap = prop::sample::select(vec![Outcome::Allow, Outcome::AllowRestricted, Outcome::Deny]);
    (kind(), purposes(), any::<bool>(), cap).prop_map(|(kind, extra, unknown_purpose, cap)| Query {
        kind: Some(kind),
        extra,
        unknown_purpose,
        cap,
    })
}

/// Whether the signal could be the informed, explicit opt-in that R4 accepts.
fn is_informed(signal: &Signal) -> bool {
    matches!(signal.content, Content::Explicit(choice) if choice.conflict_acknowledged)
}

fn gpc(at: Timestamp) -> Signal {
    Signal {
        subject: SubjectKey([0; 16]),
        person: false,
        at,
        own: false,
        content: Content::Gpc(Sections::EVERYWHERE),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariants 1 and 2.
    #[test]
    fn with_gpc_and_no_informed_opt_in_no_ad_platform_is_allowed(
        mut it in situation(),
        query in query(),
        since in 0i64..3_000,
    ) {
        it.signals.retain(|signal| !is_informed(signal));
        it.signals.push(gpc(now() - SignedDuration::from_hours(since)));
        let is_sale = matches!(
            query.kind,
            Some(Kind::MetaCapi | Kind::TiktokEvents | Kind::GoogleAds | Kind::GoogleDataManager | Kind::Webhook)
        );
        if is_sale {
            prop_assert_eq!(it.decide(&DEFAULT, &query).outcome, Outcome::Deny);
            prop_assert!(it.decide(&LAX, &query).outcome >= Outcome::AllowRestricted);
        }
        // A payload that goes out all the same states it.
        for policy in [&*DEFAULT, &*LAX] {
            prop_assert!(Purposes::SALE_AND_TARGETING.is_subset(it.decide(policy, &query).denied));
        }
    }

    /// Invariant 3.
    #[test]
    fn settings_of_a_connection_only_narrow(it in situation(), query in query()) {
        for policy in [&*DEFAULT, &*LAX] {
            let plain = it.decide(policy, &Query::of(query.kind.unwrap()));
            prop_assert!(it.decide(policy, &query).outcome >= plain.outcome);
        }
    }

    /// Invariant 4.
    #[test]
    fn a_further_denial_or_place_never_widens(
        mut it in situation(),
        query in query(),
        at in time(),
        person: bool,
        own: bool,
        subject in 0u8..3,
        further in prop_oneof![
            Just(Content::Gpc(Sections::EVERYWHERE)),
            Just(Content::ObjectUnreadable),
            Just(Content::Categories(CategoryStatement::of(&DEFAULT, [], true))),
            Just(Content::Categories(CategoryStatement::of(&DEFAULT, [("Advertising", false)], false))),
            purposes().prop_map(|denied| Content::Explicit(ExplicitChoice { denied, ..ExplicitChoice::default() })),
            Just(Content::Tcf(Arc::new(TcString::decode("x")))),
            Just(Content::Gpp(Arc::new(GppString::decode("x")), Sections::NONE)),
            Just(Content::UsPrivacy(UsPrivacy::decode("x"))),
            Just(Content::UsPrivacy(UsPrivacy::decode("1YYN"))),
        ],
        place in place(),
    ) {
        // A readable statement replaces an unreadable one of its channel, which no grant lifts: that is no further denial.
        it.signals.retain(|signal| {
            !matches!(signal.content, Content::ObjectUnreadable | Content::UsPrivacy(Err(_)))
        });
        // The newest statement of a channel replaces the older ones: where one stood already, another is no further denial.
        it.signals.retain(|signal| {
            !matches!(
                (&signal.content, &further),
                (Content::Categories(_), Content::Categories(_))
                    | (Content::Tcf(_), Content::Tcf(_))
                    | (Content::Gpp(..), Content::Gpp(..))
                    | (Content::UsPrivacy(_), Content::UsPrivacy(_))
            )
        });
        // GPC is one state from its first observation on. An observation before the known first one is no further denial: it lets
        // the same state begin earlier, perhaps before a grant that was given in its knowledge.
        let began = it
            .signals
            .iter()
            .filter(|signal| signal.subject == SubjectKey([subject; 16]))
            .filter(|signal| matches!(signal.content, Content::Gpc(_) | Content::Gpp(..)))
            .map(|signal| signal.at)
            .min();
        let at = match (&further, began) {
            (Content::Gpc(_), Some(began)) => at.max(began),
            _ => at,
        };
        for policy in [&*DEFAULT, &*LAX] {
            let before = it.decide(policy, &query);
            let mut more = it.clone();
            more.signals.push(Signal { subject: SubjectKey([subject; 16]), person, at, own, content: further.clone() });
            let after = more.decide(policy, &query);
            prop_assert!(after.outcome >= before.outcome, "{:?} then {:?}", before, after);
            prop_assert!(before.denied.is_subset(after.denied), "{:?} then {:?}", before, after);
            if it.places.is_empty() {
                continue;
            }
            let mut elsewhere = it.clone();
            elsewhere.places.push(place);
            prop_assert!(elsewhere.decide(policy, &query).outcome >= before.outcome);
        }
    }

    /// Invariant 5.
    #[test]
    fn order_and_duplicates_do_not_matter(it in situation(), query in query(), by in 0usize..7, twice in 0usize..7) {
        let before = it.decide(&LAX, &query);
        let mut other = it.clone();
        if !other.signals.is_empty() {
            let length = other.signals.len();
            other.signals.rotate_left(by % length);
            other.signals.push(it.signals[twice % length].clone());
            other.signals.reverse();
        }
        prop_assert_eq!(other.decide(&LAX, &query), before);
    }

    /// Invariant 6.
    #[test]
    fn the_erased_are_denied_everything_and_minors_advertising(it in situation(), query in query()) {
        let mut erased = it.clone();
        erased.subject.erased = true;
        let decision = erased.decide(&LAX, &query);
        prop_assert_eq!((decision.outcome, decision.reason), (Outcome::Deny, Some(Reason::Erased)));
        let mut minor = it;
        minor.subject.known_minor = true;
        let needed = LAX.floor(query.kind.unwrap()).union(query.extra);
        if !needed.intersection(Purposes::ADS).is_empty() {
            prop_assert_eq!(minor.decide(&LAX, &query).outcome, Outcome::Deny);
        }
    }

    /// Invariant 7.
    #[test]
    fn in_an_opt_in_place_nothing_goes_out_without_a_grant(mut it in situation(), query in query()) {
        it.places = vec!["DE"];
        it.signals.retain(|signal| match &signal.content {
            Content::Categories(statement) => !statement.interaction,
            Content::ConsentMode(Ok(mode)) => {
                ![mode.ad_user_data, mode.analytics_storage, mode.ad_personalization].iter().any(|s| s.by_visitor)
            }
            Content::Explicit(choice) => choice.granted.is_empty(),
            Content::Tcf(_) | Content::Gpp(..) => false,
            _ => true,
        });
        for policy in [&*DEFAULT, &*LAX] {
            prop_assert_eq!(it.decide(policy, &query).outcome, Outcome::Deny);
        }
    }

    /// Invariant 7, second half: an explicit grant that is taken away again leaves no more than before.
    #[test]
    fn removing_a_grant_never_widens(
        it in situation(), query in query(), at in time(), person: bool, two_step: bool, ack: bool, granted in purposes(),
    ) {
        let without = it.decide(&LAX, &query);
        let mut with = it.clone();
        let choice = ExplicitChoice { granted, denied: Purposes::NONE, two_step, conflict_acknowledged: ack };
        with.signals.push(Signal {
            subject: SubjectKey([1; 16]), person, at, own: false, content: Content::Explicit(choice),
        });
        prop_assert!(with.decide(&LAX, &query).outcome <= without.outcome);
    }

    /// Invariant 8.
    #[test]
    fn any_text_as_a_string_never_widens_but_as_a_grant_where_one_is_asked_for(
        mut it in situation(), query in query(), text in "\\PC{0,60}", which in 0u8..3,
    ) {
        it.signals.retain(|s| !matches!(s.content, Content::Tcf(_) | Content::Gpp(..) | Content::UsPrivacy(_)));
        let before = it.decide(&LAX, &query);
        let content = match which {
            0 => Content::Tcf(Arc::new(TcString::decode(&text))),
            1 => Content::Gpp(Arc::new(GppString::decode(&text)), Sections::NONE),
            _ => Content::UsPrivacy(UsPrivacy::decode(&text)),
        };
        let is_valid_tcf = matches!(&content, Content::Tcf(reading) if reading.is_ok());
        it.signals.push(Signal { subject: SubjectKey([0; 16]), person: false, at: now(), own: true, content });
        if !is_valid_tcf {
            prop_assert!(it.decide(&LAX, &query).outcome >= before.outcome);
        }
    }

    /// Invariant 10.
    #[test]
    fn a_policy_with_fewer_restricted_sends_or_more_denied_kinds_never_widens(
        it in situation(), query in query(), kind in kind(), place in prop::sample::select(vec!["US-CA", "DE", "FR"]),
    ) {
        let before = it.decide(&LAX, &query);
        let fewer = lax(|document| {
            if let Some(rows) = document.restricted_mode.get_mut(kind.name()) {
                rows.remove(place);
            }
        });
        prop_assert!(it.decide(&fewer, &query).outcome >= before.outcome);
        let more = lax(|document| {
            document.denied_kinds.entry(place.to_owned()).or_default().push(kind.name().to_owned());
        });
        prop_assert!(it.decide(&more, &query).outcome >= before.outcome);
    }

    /// Invariant 11: between two instants at which a signal comes into force or expires, nothing changes.
    #[test]
    fn a_decision_changes_only_when_a_signal_begins_or_expires(it in situation(), query in query(), hours in 0i64..48) {
        let later = now() + SignedDuration::from_hours(hours);
        let days = |n: i64| SignedDuration::from_hours(24 * n);
        let crossed = |instant: Timestamp| now() < instant && instant <= later + SignedDuration::from_secs(1);
        // What has lived for exactly its time still counts; the turn is the second after.
        let lifetime = |n: i64| days(n) + SignedDuration::from_secs(1);
        let mut turns = Vec::new();
        for signal in &it.signals {
            turns.push(signal.at);
            match &signal.content {
                Content::Explicit(_) => turns.push(signal.at + lifetime(365)),
                Content::Tcf(reading) => turns.extend(reading.as_ref().as_ref().map(|t| t.last_updated + lifetime(395))),
                Content::Gpp(reading, _) => {
                    for section in reading.as_ref().as_ref().map_or(&[][..], |gpp| &gpp.sections) {
                        if let tracklayer_consent::strings::gpp::Reading::Tcf(tc) = &section.reading {
                            turns.push(tc.last_updated + lifetime(395));
                        }
                    }
                }
                _ => {}
            }
        }
        if !turns.into_iter().any(crossed) {
            prop_assert_eq!(it.decide_at(&LAX, &query, later), it.decide(&LAX, &query));
        }
    }
}

#[test]
fn an_unknown_kind_is_denied() {
    let it = Situation { places: vec!["US-CA"], subject: Subject::default(), signals: Vec::new() };
    let query = Query { kind: None, ..Query::of(Kind::Warehouse) };
    let decision = it.decide(&DEFAULT, &query);
    assert_eq!((decision.outcome, decision.reason), (Outcome::Deny, Some(Reason::PolicyDenied)));
}

#[test]
fn google_ads_cannot_say_that_personalisation_is_denied_and_is_therefore_denied() {
    let ta_only = "DBABJg~BVkAAIA.QA";
    let content = Content::Gpp(Arc::new(GppString::decode(ta_only)), Sections::NONE);
    let signals = vec![Signal { subject: SubjectKey([0; 16]), person: false, at: now(), own: true, content }];
    let it = Situation { places: vec!["US-CO"], subject: Subject::default(), signals };
    let data_manager = it.decide(&DEFAULT, &Query::of(Kind::GoogleDataManager));
    assert_eq!(data_manager.outcome, Outcome::AllowRestricted);
    assert!(data_manager.denied.contains(Purpose::AdTargeting));
    let ads_api = it.decide(&DEFAULT, &Query::of(Kind::GoogleAds));
    assert_eq!((ads_api.outcome, ads_api.reason), (Outcome::Deny, Some(Reason::RestrictionNotExpressible)));
}

#[test]
fn consent_given_afterwards_does_not_cover_an_event_captured_under_a_refusal() {
    let statement = |allowed, own, minutes: i64| Signal {
        subject: SubjectKey([0; 16]),
        person: false,
        at: now() - SignedDuration::from_mins(minutes),
        own,
        content: Content::Categories(CategoryStatement::of(&DEFAULT, [("Advertising", allowed)], true)),
    };
    for place in ["DE", "US-CA"] {
        let mut it = Situation {
            places: vec![place],
            subject: Subject::default(),
            signals: vec![statement(false, true, 9), statement(true, false, 1)],
        };
        assert_eq!(it.decide(&DEFAULT, &Query::of(Kind::MetaCapi)).outcome, Outcome::Deny, "{place}");
        it.signals.remove(0);
        assert_eq!(it.decide(&DEFAULT, &Query::of(Kind::MetaCapi)).outcome, Outcome::Allow, "{place}");
    }
}

#[test]
fn an_override_does_not_reach_a_device_whose_signal_began_after_it() {
    let grant = Signal {
        subject: SubjectKey([9; 16]),
        person: true,
        at: now() - SignedDuration::from_hours(48),
        own: false,
        content: Content::Explicit(ExplicitChoice {
            granted: Purposes::ADS,
            denied: Purposes::NONE,
            two_step: true,
            conflict_acknowledged: true,
        }),
    };
    let subject = Subject { person_known: true, ..Subject::default() };
    let old_device = gpc(now() - SignedDuration::from_hours(72));
    let new_device = Signal { subject: SubjectKey([5; 16]), ..gpc(now() - SignedDuration::from_hours(1)) };
    let mut it = Situation { places: vec!["US-CA"], subject, signals: vec![grant, old_device] };
    assert_eq!(it.decide(&DEFAULT, &Query::of(Kind::MetaCapi)).outcome, Outcome::Allow);
    it.signals.push(new_device);
    let decision = it.decide(&DEFAULT, &Query::of(Kind::MetaCapi));
    assert_eq!((decision.outcome, decision.reason), (Outcome::Deny, Some(Reason::Gpc)));
}

//! What must hold for any signals, policies, places and connection settings: consent can only narrow.
#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach their helper functions")]

mod situations;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use situations::{DEFAULT, LAX, Situation, content, kind, lax, now, place, purposes, query, situation, time};
use tracklayer_consent::{
    decide::{Query, Subject},
    kind::Kind,
    policy::{Policy, Regime},
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

/// Statements that deny and grant nothing.
fn denial() -> impl Strategy<Value = Content> {
    prop_oneof![
        2 => Just(Content::Gpc(Sections::EVERYWHERE)),
        1 => Just(Content::Gpc(Sections::one(8))),
        1 => Just(Content::ObjectUnreadable),
        2 => Just(Content::Categories(CategoryStatement::of(&DEFAULT, [], true))),
        2 => Just(Content::Categories(CategoryStatement::of(&DEFAULT, [("Advertising", false)], false))),
        2 => purposes().prop_map(|denied| Content::Explicit(ExplicitChoice { denied, ..ExplicitChoice::default() })),
        1 => Just(Content::Tcf(Arc::new(TcString::decode("x")))),
        1 => Just(Content::Gpp(Arc::new(GppString::decode("x")), Sections::NONE)),
        1 => Just(Content::UsPrivacy(UsPrivacy::decode("x"))),
        2 => Just(Content::UsPrivacy(UsPrivacy::decode("1YYN"))),
        1 => Just(Content::ConsentMode(ConsentMode::decode("x"))),
    ]
}

/// Channels within which the newest statement replaces the older ones, and what each does for all time.
fn channel(content: &Content) -> Option<u8> {
    match content {
        Content::Categories(_) | Content::ObjectUnreadable => Some(0),
        Content::Tcf(_) => Some(1),
        Content::Gpp(..) => Some(2),
        Content::UsPrivacy(_) => Some(3),
        Content::ConsentMode(_) => Some(4),
        Content::Gpc(_) | Content::Explicit(_) => None,
    }
}

fn is_unreadable(content: &Content) -> bool {
    match content {
        Content::ObjectUnreadable | Content::UsPrivacy(Err(_)) | Content::ConsentMode(Err(_)) => true,
        Content::Tcf(reading) => reading.is_err(),
        Content::Gpp(reading, _) => reading.is_err(),
        _ => false,
    }
}

/// The situation without the older statements that a new one replaces, as far as they are of a kind. What cannot be read
/// replaces nothing, and the GPC of a GPP string outlives the string.
fn without_replaced(it: &Situation, new: &Signal, of_kind: impl Fn(&Content) -> bool) -> Situation {
    let mut without = it.clone();
    if is_unreadable(&new.content) || new.at > now() {
        return without;
    }
    for signal in &mut without.signals {
        let same_channel =
            channel(&new.content).is_some() && channel(&signal.content) == channel(&new.content);
        if same_channel && !signal.own && signal.at < new.at && of_kind(&signal.content) {
            signal.content = Content::Gpc(signal.content.gpc_sections());
        }
    }
    without
}

/// Purposes of the grants that were given in knowledge of GPC before it was known to be on, and after the new signal shows
/// that it was.
fn known_beforehand(it: &Situation, new: &Signal) -> Purposes {
    if new.content.gpc_sections() == Sections::NONE {
        return Purposes::NONE;
    }
    let is_its_gpc = |s: &&Signal| s.subject == new.subject && s.content.gpc_sections() != Sections::NONE;
    let Some(latest) = it.signals.iter().filter(is_its_gpc).map(|signal| signal.at).max() else {
        return Purposes::NONE;
    };
    it.signals
        .iter()
        .filter(|signal| signal.person && new.at < signal.at && signal.at <= latest)
        .map(|signal| match signal.content {
            Content::Explicit(choice) if choice.conflict_acknowledged => choice.granted,
            _ => Purposes::NONE,
        })
        .fold(Purposes::NONE, Purposes::union)
}

/// What a statement grants in one of the places, sale and sharing with measurement where consent is needed.
fn accepted(policy: &Policy, it: &Situation, query: &Query, content: &Content) -> Purposes {
    let opt_in = policy.places(&it.places).iter().any(|place| place.rules.regime == Regime::OptIn);
    let lens = &policy.lenses()[policy.lens_of(query.kind.unwrap())];
    let by_strings = Purposes::of(&[Purpose::Analytics, Purpose::AdMeasurement, Purpose::AdTargeting]);
    let granted = match content {
        Content::Explicit(choice) if opt_in || choice.two_step => choice.granted,
        Content::Categories(statement) if opt_in && statement.interaction => statement.allowed,
        Content::ConsentMode(Ok(mode)) if opt_in && lens.google => {
            let by_visitor = |setting: Setting| setting.by_visitor && setting.granted == Some(true);
            [
                (mode.analytics_storage, Purpose::Analytics),
                (mode.ad_user_data, Purpose::AdMeasurement),
                (mode.ad_personalization, Purpose::AdTargeting),
            ]
            .into_iter()
            .filter(|(setting, _)| by_visitor(*setting))
            .map(|(_, purpose)| purpose)
            .collect()
        }
        Content::Tcf(reading) if opt_in && lens.vendor.is_some() && reading.is_ok() => by_strings,
        Content::Gpp(reading, _) if opt_in && lens.vendor.is_some() && reading.is_ok() => by_strings,
        _ => Purposes::NONE,
    };
    if opt_in && granted.contains(Purpose::AdMeasurement) {
        granted.with(Purpose::SaleShare)
    } else {
        granted
    }
}

proptest! {
    #![proptest_config(situations::config())]

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

    /// Invariant 4, in its widest true form. A further denial, in whatever channel and at whatever time, never widens. Two
    /// kinds of signal say more than a denial, and what may follow from that is said here and nothing beyond it:
    ///
    /// - A denial that can be read replaces older statements of its channel that could not be: `without_replaced`. Unread,
    ///   such a statement stands against every grant; a refusal yields to a later grant (R7).
    /// - GPC seen earlier than it was known moves the beginning of one and the same state, and a grant that was given in its
    ///   knowledge after that beginning is then later than it (R4; 11 CCR 7025(c)(3)-(4)): `known_beforehand`. The model's own
    ///   vectors `ca-gpc-explicit-before` (denied) and `ca-gpc-explicit-then-gpc-again` (allowed) differ by such a signal.
    #[test]
    fn a_further_denial_or_place_never_widens(
        it in situation(),
        query in query(),
        at in time(),
        person: bool,
        own: bool,
        subject in 0u8..3,
        further in denial(),
        place in place(),
    ) {
        let further = Signal { subject: SubjectKey([subject; 16]), person, at, own, content: further };
        let informed = known_beforehand(&it, &further);
        for policy in [&*DEFAULT, &*LAX] {
            let before = without_replaced(&it, &further, is_unreadable).decide(policy, &query);
            let mut more = it.clone();
            more.signals.push(further.clone());
            let after = more.decide(policy, &query);
            prop_assert!(before.denied.difference(after.denied).is_subset(informed), "{:?} then {:?}", before, after);
            if informed.is_empty() {
                prop_assert!(after.outcome >= before.outcome, "{:?} then {:?}", before, after);
            }
            // Never wider than if the device or person had never been seen with GPC.
            let mut without = it.clone();
            let is_its_gpc = |s: &Signal| s.subject == further.subject && matches!(s.content, Content::Gpc(_));
            without.signals.retain(|signal| !is_its_gpc(signal));
            if is_its_gpc(&further) {
                prop_assert!(after.outcome >= without.decide(policy, &query).outcome);
            }
            if it.places.is_empty() {
                continue;
            }
            let before = it.decide(policy, &query);
            let mut elsewhere = it.clone();
            elsewhere.places.push(place);
            prop_assert!(elsewhere.decide(policy, &query).outcome >= before.outcome);
        }
    }

    /// Whatever is said, it widens only as far as it is itself a grant that the law of the place accepts. The newest statement
    /// of a channel stands for the older ones, so that those are not counted in what it is compared with.
    #[test]
    fn a_signal_widens_only_as_a_grant_that_the_place_accepts(
        it in situation(), query in query(), at in time(), person: bool, own: bool, subject in 0u8..3, content in content(),
    ) {
        let further = Signal { subject: SubjectKey([subject; 16]), person, at, own, content };
        for policy in [&*DEFAULT, &*LAX] {
            let before = without_replaced(&it, &further, |_| true).decide(policy, &query);
            let mut more = it.clone();
            more.signals.push(further.clone());
            let after = more.decide(policy, &query);
            let accepted = accepted(policy, &it, &query, &further.content).union(known_beforehand(&it, &further));
            let widened = before.denied.difference(after.denied);
            prop_assert!(widened.is_subset(accepted), "{:?} then {:?}", before, after);
            if accepted.is_empty() {
                prop_assert!(after.outcome >= before.outcome, "{:?} then {:?}", before, after);
            }
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
        let crossed = |turn: i64| now().as_second() < turn && turn <= later.as_second();
        // What has lived for exactly its time still counts ("older than"); the turn is the second after.
        let end = |since: Timestamp, days: i64| since.as_second() + 86_400 * days + 1;
        let mut turns = Vec::new();
        for signal in &it.signals {
            turns.push(signal.at.as_second());
            match &signal.content {
                Content::Explicit(_) => turns.push(end(signal.at, 365)),
                Content::Tcf(reading) => turns.extend(reading.as_ref().as_ref().map(|t| end(t.last_updated, 395))),
                Content::Gpp(reading, _) => {
                    for section in reading.as_ref().as_ref().map_or(&[][..], |gpp| &gpp.sections) {
                        if let tracklayer_consent::strings::gpp::Reading::Tcf(tc) = &section.reading {
                            turns.push(end(tc.last_updated, 395));
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

#[test]
fn an_empty_map_says_no_to_sale_and_sharing_as_the_map_before_it_did() {
    let statement = |map: &[(&'static str, bool)], hours| Signal {
        subject: SubjectKey([0; 16]),
        person: true,
        at: now() - SignedDuration::from_hours(hours),
        own: false,
        content: Content::Categories(CategoryStatement::of(&DEFAULT, map.iter().copied(), true)),
    };
    let granted = Purposes::of(&[Purpose::AdMeasurement, Purpose::AdTargeting]);
    let choice = ExplicitChoice { granted, ..ExplicitChoice::default() };
    let grant = Signal { content: Content::Explicit(choice), ..statement(&[], 2) };
    let signals = vec![statement(&[("DataSharing", false)], 10), grant];
    let mut it = Situation { places: vec!["DE"], subject: Subject::default(), signals };
    assert_eq!(it.decide(&DEFAULT, &Query::of(Kind::MetaCapi)).outcome, Outcome::Deny);
    it.signals.push(statement(&[], 8));
    assert_eq!(it.decide(&DEFAULT, &Query::of(Kind::MetaCapi)).outcome, Outcome::Deny);
}

//! Why: every reason, and the rules in the order in which they were applied.

use std::fmt::Write as _;

use crate::{
    decide::{Case, Decision, Evaluation, Query},
    kind::Kind,
    policy::{GpcEffect, GpcOverride, PlaceRef, Policy, Regime},
    purpose::{Purpose, Purposes},
    reason::{Outcome, Reason},
    signal::{Content, Sections, Signal},
};

/// An explained decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What happens.
    pub outcome: Outcome,
    /// What is shown.
    pub reason: Option<Reason>,
    /// The place that decided.
    pub place: String,
    /// What a payload has to state.
    pub denied: Purposes,
    /// Every reason.
    pub reasons: Vec<&'static str>,
    /// For people, a line for each step.
    pub steps: Vec<String>,
}

/// Decides, and says how.
#[must_use]
pub fn explain(policy: &Policy, case: &Case<'_>, query: &Query) -> Explanation {
    let mut steps = vec![format!("policy {} at {}", policy.version(), case.now)];
    let mut signals: Vec<&Signal> = case.signals.iter().collect();
    signals.sort_by_key(|signal| (signal.at, signal.subject, signal.own));
    for signal in signals {
        steps.push(signal_step(case, signal));
    }
    if case.signals.is_empty() {
        steps.push("no signal".to_owned());
    }
    let mut evaluation = Evaluation::new(policy, *case);
    if case.subject.erased {
        steps.push("R1: the subject was erased".to_owned());
    } else if let Some(kind) = query.kind {
        steps.push(need_step(policy, kind, query));
        for (index, place) in case.places.iter().enumerate() {
            steps.push(place_step(place));
            let by_purpose = evaluation.purposes(index, kind);
            for purpose in Purposes::ASKED.iter() {
                steps.push(purpose_step(place, purpose, by_purpose[purpose.index()].iter()));
            }
            if place.rules.denies(kind) {
                steps.push(format!("R2: {} is denied in {}", kind.name(), place.code));
            }
            if place.rules.restricts(kind) {
                steps.push(format!(
                    "R13: the policy lists a restricted send to {} in {}",
                    kind.name(),
                    place.code
                ));
            }
        }
        if query.cap != Outcome::Allow || query.unknown_purpose {
            steps.push(format!("R12: the connection takes {} at most", query.cap.name()));
        }
    } else {
        steps.push("R2: nobody knows this kind of destination".to_owned());
    }
    let decision = evaluation.decide(query);
    steps.push(outcome_step(&decision, query));
    Explanation {
        outcome: decision.outcome,
        reason: decision.reason,
        place: decision.place.to_owned(),
        denied: decision.denied,
        reasons: decision.reasons.iter().map(Reason::name).collect(),
        steps,
    }
}

fn signal_step(case: &Case<'_>, signal: &Signal) -> String {
    let whose = if signal.own { "of the event itself" } else { "stored" };
    let level = if signal.person { "person" } else { "device" };
    let not_yet = if signal.at > case.now { ", not yet in force" } else { "" };
    format!("signal {whose}, {level}, {}{not_yet}: {}", signal.at, content(&signal.content))
}

fn content(content: &Content) -> String {
    match content {
        Content::Gpc(Sections::EVERYWHERE) => "Global Privacy Control is on".to_owned(),
        Content::Gpc(sections) => {
            let ids: Vec<String> =
                (1..64).filter(|id| sections.contains(*id)).map(|id| id.to_string()).collect();
            format!("Global Privacy Control is on in GPP section {}", ids.join(", "))
        }
        Content::Categories(statement) => {
            let acted = if statement.interaction { "chosen" } else { "by default" };
            format!(
                "categories {acted}: allowed {}, refused {}",
                list(statement.allowed),
                list(statement.refused)
            )
        }
        Content::ObjectUnreadable => "consent object that cannot be read".to_owned(),
        Content::Tcf(reading) => match reading.as_ref() {
            Ok(tc) => {
                let purposes: Vec<String> = tc.purposes_consent.iter().map(|p| p.to_string()).collect();
                format!("TC string of {}, purposes {}", tc.last_updated, purposes.join(" "))
            }
            Err(error) => format!("TC string that cannot be read: {error}"),
        },
        Content::Gpp(reading, _) => match reading.as_ref() {
            Ok(gpp) => {
                let ids: Vec<String> = gpp.sections.iter().map(|section| section.id.to_string()).collect();
                format!("GPP string with sections {}", ids.join(", "))
            }
            Err(error) => format!("GPP string that cannot be read: {error}"),
        },
        Content::UsPrivacy(Ok(us_privacy)) => {
            format!("US privacy, opted out of sale: {:?}", us_privacy.opt_out_sale)
        }
        Content::UsPrivacy(Err(error)) => format!("US privacy string that cannot be read: {error}"),
        Content::ConsentMode(Ok(mode)) => {
            let mut text = "consent mode:".to_owned();
            for (name, setting) in [
                ("ad_storage", mode.ad_storage),
                ("analytics_storage", mode.analytics_storage),
                ("ad_user_data", mode.ad_user_data),
                ("ad_personalization", mode.ad_personalization),
            ] {
                let granted = match setting.granted {
                    Some(true) => "granted",
                    Some(false) => "denied",
                    None => "unset",
                };
                let by = if setting.by_visitor { "" } else { " by default" };
                // Writing into a string cannot fail.
                let _ = write!(text, " {name} {granted}{by}");
            }
            text
        }
        Content::ConsentMode(Err(error)) => format!("consent mode that cannot be read: {error}"),
        Content::Explicit(choice) => {
            let steps = if choice.two_step { ", in two steps" } else { "" };
            let told = if choice.conflict_acknowledged { ", told about GPC" } else { "" };
            format!("explicit: granted {}, denied {}{steps}{told}", list(choice.granted), list(choice.denied))
        }
    }
}

fn list(purposes: Purposes) -> String {
    if purposes.is_empty() { "nothing".to_owned() } else { purposes.names().join(" ") }
}

fn need_step(policy: &Policy, kind: Kind, query: &Query) -> String {
    let mut text = format!("{} needs {}", kind.name(), list(policy.floor(kind)));
    if !query.extra.is_empty() {
        let _ = write!(text, ", the connection adds {}", list(query.extra));
    }
    if !kind.optional().is_empty() {
        let _ = write!(text, "; without {} it must say so", list(kind.optional()));
    }
    text
}

fn place_step(place: &PlaceRef<'_>) -> String {
    let regime = match place.rules.regime {
        Regime::OptIn => "R5: nothing without consent",
        Regime::OptOut => "R6: allowed until the person objects",
        Regime::None => "no regime of its own: allowed until the person objects",
    };
    let gpc = match place.rules.gpc {
        GpcEffect::Binding => "binding",
        GpcEffect::Voluntary => "honoured without a duty",
        GpcEffect::Advisory => "advisory",
        GpcEffect::Ignored => "ignored",
    };
    let lifted = match place.rules.gpc_override {
        GpcOverride::AfterNotice => ", an informed opt-in lifts it",
        GpcOverride::Never => "",
    };
    format!("place {}: {regime}; GPC is {gpc}{lifted}", place.code)
}

fn purpose_step(place: &PlaceRef<'_>, purpose: Purpose, reasons: impl Iterator<Item = Reason>) -> String {
    let reasons: Vec<&str> = reasons.map(Reason::name).collect();
    if reasons.is_empty() {
        return format!("{} {}: allowed", place.code, purpose.name());
    }
    format!("{} {}: denied ({})", place.code, purpose.name(), reasons.join(", "))
}

fn outcome_step(decision: &Decision<'_>, query: &Query) -> String {
    let mut text = format!("outcome {} by {}", decision.outcome.name(), decision.place);
    if let Some(reason) = decision.reason {
        let _ = write!(text, ", reported as {}", reason.name());
    }
    if decision.outcome == Outcome::AllowRestricted && query.kind.is_some_and(Kind::can_state_restriction) {
        let _ = write!(text, ", the payload states what is denied");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::{SignedDuration, Timestamp};
    use tracklayer_ids::SubjectKey;

    use super::*;
    use crate::{decide::Subject, signal::CategoryStatement, strings::gpp::GppString};

    #[test]
    fn an_explanation_reads_from_the_policy_to_the_outcome() {
        let policy = Policy::compiled_in().unwrap();
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let signal = |minutes, own: bool, content| Signal {
            subject: SubjectKey([1; 16]),
            person: !own,
            at: now - SignedDuration::from_mins(minutes),
            own,
            content,
        };
        let map = [("Advertising", true), ("Analytics", true)];
        let signals = [
            signal(5, true, Content::Categories(CategoryStatement::of(&policy, map, true))),
            signal(90, false, Content::Gpc(Sections::EVERYWHERE)),
            signal(
                30,
                false,
                Content::Gpp(Arc::new(GppString::decode("DBABBg~BoAAAACA.QA")), Sections::NONE),
            ),
        ];
        let places = policy.places(&["US-CA"]);
        let subject = Subject { person_known: true, ..Subject::default() };
        let case = Case { now, places: &places, subject, signals: &signals };
        let query = Query { cap: Outcome::AllowRestricted, ..Query::of(Kind::GoogleDataManager) };
        let explained = explain(&policy, &case, &query);
        assert_eq!(explained.reasons, ["gpc", "gpp_no_notice"]);
        insta::assert_snapshot!(explained.steps.join("\n"), @r"
        policy 2026-11-23.1 at 2026-11-23T12:00:00Z
        signal stored, person, 2026-11-23T10:30:00Z: Global Privacy Control is on
        signal stored, person, 2026-11-23T11:30:00Z: GPP string with sections 8
        signal of the event itself, device, 2026-11-23T11:55:00Z: categories chosen: allowed analytics ad_measurement ad_targeting sale_share, refused nothing
        google_data_manager needs ad_measurement sale_share; without ad_targeting it must say so
        place US-CA: R6: allowed until the person objects; GPC is binding, an informed opt-in lifts it
        US-CA functional: denied (opted_out)
        US-CA analytics: allowed
        US-CA ad_measurement: allowed
        US-CA ad_targeting: denied (gpc, gpp_no_notice)
        US-CA sale_share: denied (gpc, gpp_no_notice)
        R12: the connection takes allow_restricted at most
        outcome deny by US-CA, reported as gpc
        ");
    }
}

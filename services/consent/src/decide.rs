//! The decision: rules R1, R2 and R11 to R14 over what [`crate::regime`] makes of each purpose.
//!
//! A pure function of its arguments: no I/O, no clock, no other configuration. Purposes are evaluated once for each (place,
//! lens) and shared by all connections that ask.

use jiff::Timestamp;

use crate::{
    facts::Facts,
    kind::Kind,
    policy::{PlaceRef, Policy},
    purpose::{Purpose, Purposes},
    reason::{Outcome, Reason, Reasons},
    regime::{self, ByPurpose, Context},
    signal::Signal,
};

/// About whom is decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subject {
    /// Whether the person is known at this event (logged in, or linked by identity).
    pub person_known: bool,
    /// Whether the subject was erased or suppressed.
    pub erased: bool,
    /// Whether the person is known to be a minor without the consent that is needed.
    pub known_minor: bool,
}

/// One event to decide about.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The time of the decision; a signal after it is not yet in force.
    pub now: Timestamp,
    /// Candidate places, at least one ([`Policy::places`]).
    pub places: &'a [PlaceRef<'a>],
    /// About whom.
    pub subject: Subject,
    /// Every signal, in any order.
    pub signals: &'a [Signal],
}

/// A connection that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Its kind; `None` is a kind that nobody knows, and is denied.
    pub kind: Option<Kind>,
    /// Purposes beyond the floor; can only narrow.
    pub extra: Purposes,
    /// Whether it declares a purpose that nobody knows: nothing can allow that.
    pub unknown_purpose: bool,
    /// The most that it wants.
    pub cap: Outcome,
}

/// The answer for one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'a> {
    /// What happens.
    pub outcome: Outcome,
    /// What is shown for a denial, or for a restriction that mends one.
    pub reason: Option<Reason>,
    /// Every reason, of all places.
    pub reasons: Reasons,
    /// The place that decided.
    pub place: &'a str,
    /// Purposes that are denied, whether the connection needs them or not: what a payload has to state.
    pub denied: Purposes,
}

impl Query {
    /// A kind without settings.
    #[must_use]
    pub const fn of(kind: Kind) -> Self {
        Self { kind: Some(kind), extra: Purposes::NONE, unknown_purpose: false, cap: Outcome::Allow }
    }
}

/// One event with what its signals amount to; answers any number of connections.
pub struct Evaluation<'a> {
    policy: &'a Policy,
    case: Case<'a>,
    facts: Facts<'a>,
    by_place_and_lens: Vec<Option<ByPurpose>>,
}

/// Decides for one connection.
#[must_use]
pub fn decide<'a>(policy: &'a Policy, case: &Case<'a>, query: &Query) -> Decision<'a> {
    Evaluation::new(policy, *case).decide(query)
}

impl<'a> Evaluation<'a> {
    /// Gathers the signals.
    #[must_use]
    pub fn new(policy: &'a Policy, case: Case<'a>) -> Self {
        let facts = Facts::gather(policy, case.now, case.signals);
        let cells = case.places.len() * policy.lenses().len();
        Self { policy, case, facts, by_place_and_lens: vec![None; cells] }
    }

    /// What the signals amount to.
    #[must_use]
    pub fn facts(&self) -> &Facts<'a> {
        &self.facts
    }

    /// What each purpose comes to in a place, seen by a kind.
    pub fn purposes(&mut self, place: usize, kind: Kind) -> ByPurpose {
        let lens = self.policy.lens_of(kind);
        let cell = place * self.policy.lenses().len() + lens;
        if let Some(known) = self.by_place_and_lens[cell] {
            return known;
        }
        let context = Context {
            policy: self.policy,
            now: self.case.now,
            subject: self.case.subject,
            facts: &self.facts,
        };
        let purposes = regime::evaluate(&context, &self.case.places[place], &self.policy.lenses()[lens]);
        self.by_place_and_lens[cell] = Some(purposes);
        purposes
    }

    /// Decides for one connection: the narrowest answer of all places (R11), the first of them at a tie.
    pub fn decide(&mut self, query: &Query) -> Decision<'a> {
        let mut decided: Option<Decision<'a>> = None;
        for place in 0..self.case.places.len() {
            let here = self.decide_in(place, query);
            decided = Some(match decided {
                None => here,
                Some(there) => {
                    let narrowest = if here.outcome > there.outcome { here } else { there };
                    Decision {
                        reasons: here.reasons.union(there.reasons),
                        denied: here.denied.union(there.denied),
                        ..narrowest
                    }
                }
            });
        }
        decided.unwrap_or_else(|| denied(crate::policy::UNKNOWN, Reason::PolicyDenied))
    }

    fn decide_in(&mut self, place: usize, query: &Query) -> Decision<'a> {
        let PlaceRef { code, rules, .. } = self.case.places[place];
        // R1
        if self.case.subject.erased {
            return denied(code, Reason::Erased);
        }
        let Some(kind) = query.kind else { return denied(code, Reason::PolicyDenied) };
        let by_purpose = self.purposes(place, kind);
        let is_denied = |purpose: &Purpose| !by_purpose[purpose.index()].is_empty();
        let denied: Purposes = Purposes::ASKED.iter().filter(is_denied).collect();
        let needed = self.policy.floor(kind).union(query.extra);
        let missing = needed.intersection(denied);
        let mut reasons = missing.iter().fold(Reasons::NONE, |all, p| all.union(by_purpose[p.index()]));
        let mut decision = if missing.is_empty() {
            let states_less = !kind.optional().intersection(denied).is_empty();
            let outcome = if states_less { Outcome::AllowRestricted } else { Outcome::Allow };
            Decision { outcome, reason: None, reasons, place: code, denied }
        } else if rules.restricts(kind)
            && missing.is_subset(Purposes::SALE_AND_TARGETING)
            && reasons.is_subset(Reasons::MENDED_BY_RESTRICTION)
        {
            // R13. Service-provider mode alone is no objection of the person: nothing to report.
            let reason = reasons.without(Reason::ServiceProvider).first();
            Decision { outcome: Outcome::AllowRestricted, reason, reasons, place: code, denied }
        } else {
            Decision { outcome: Outcome::Deny, reason: reasons.first(), reasons, place: code, denied }
        };
        // R2
        if rules.denies(kind) {
            reasons.insert(Reason::PolicyDenied);
            decision = Decision { outcome: Outcome::Deny, reason: reasons.first(), reasons, ..decision };
        }
        self.narrow(kind, query, decision)
    }

    /// R12, then R14.
    fn narrow(&self, kind: Kind, query: &Query, decision: Decision<'a>) -> Decision<'a> {
        let cap = if query.unknown_purpose { Outcome::Deny } else { query.cap };
        let mut decision = decision;
        if cap != Outcome::Allow {
            decision.denied = decision.denied.with(Purpose::AdTargeting);
        }
        if cap > decision.outcome {
            decision.outcome = cap;
            decision.reasons.insert(Reason::ConnectionNarrowed);
            decision.reason = decision.reasons.first();
        }
        if decision.outcome == Outcome::AllowRestricted && !kind.can_state_restriction() {
            decision.outcome = Outcome::Deny;
            decision.reasons.insert(Reason::RestrictionNotExpressible);
            decision.reason = decision.reasons.first();
        }
        decision
    }
}

fn denied(place: &str, reason: Reason) -> Decision<'_> {
    Decision {
        outcome: Outcome::Deny,
        reason: Some(reason),
        reasons: Reasons::of(&[reason]),
        place,
        denied: Purposes::ASKED,
    }
}

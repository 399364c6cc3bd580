//! Rules R3 to R10: what each purpose comes to in one place, seen by one lens.
//!
//! Everything starts as the regime says and is then only narrowed. The one thing that widens is in [`Sheet::deny`]: an
//! explicit grant lifts *older* denials of the kinds that R7 names.

use jiff::Timestamp;

use crate::{
    decide::Subject,
    facts::{Channel, Facts, Grants},
    policy::{GpcEffect, GpcOverride, Lens, PlaceRef, Policy, Regime},
    purpose::{Purpose, Purposes},
    reason::{Reason, Reasons},
    signal::Sections,
    strings::{
        gcd::{ConsentMode, Setting},
        gpp::{GppString, Reading, US_PRIVACY_V1},
        tcf::TcString,
        us::{Field, USNAT, UsSection},
        usp::Answer,
    },
    tcf_verdict::{Verdict, verdict},
};

/// Reasons per purpose, by [`Purpose::index`]; none: allowed.
pub type ByPurpose = [Reasons; Purpose::ALL.len()];

/// What is evaluated, apart from place and lens.
pub struct Context<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The time of the decision.
    pub now: Timestamp,
    /// About whom.
    pub subject: Subject,
    /// What the signals amount to.
    pub facts: &'a Facts<'a>,
}

/// The state of every purpose while the rules are applied.
struct Sheet<'a> {
    context: &'a Context<'a>,
    place: &'a PlaceRef<'a>,
    lens: &'a Lens,
    reasons: ByPurpose,
    granted: Purposes,
    lifted_before: [Option<Timestamp>; Purpose::ALL.len()],
}

/// What the purposes come to.
#[must_use]
pub fn evaluate(context: &Context<'_>, place: &PlaceRef<'_>, lens: &Lens) -> ByPurpose {
    let mut sheet = Sheet {
        context,
        place,
        lens,
        reasons: [Reasons::NONE; Purpose::ALL.len()],
        granted: Purposes::NONE,
        lifted_before: [None; Purpose::ALL.len()],
    };
    sheet.apply_explicit();
    sheet.apply_categories();
    sheet.apply_consent_mode();
    sheet.apply_tcf();
    sheet.apply_us_privacy();
    sheet.apply_gpp();
    if sheet.is_opt_in() {
        sheet.require_consent();
    }
    sheet.apply_minor();
    sheet.apply_gpc();
    sheet.reasons
}

impl Sheet<'_> {
    fn is_opt_in(&self) -> bool {
        self.place.rules.regime == Regime::OptIn
    }

    /// The grants that count here: outside opt-in places only those in two steps (R7; 11 CCR 7028).
    fn grants(&self, purpose: Purpose) -> &Grants {
        let explicit = self.context.facts.explicit(purpose);
        if self.is_opt_in() { &explicit.granted } else { &explicit.granted_in_two_steps }
    }

    fn insert(&mut self, purposes: Purposes, reason: Reason) {
        for purpose in purposes.iter() {
            self.reasons[purpose.index()].insert(reason);
        }
    }

    /// Denies, unless a later explicit grant lifts it (R7).
    fn deny(&mut self, purpose: Purpose, reason: Reason, at: Timestamp) {
        let liftable = matches!(reason, Reason::OptedOut | Reason::NoConsent | Reason::Expired);
        if liftable && self.lifted_before[purpose.index()].is_some_and(|grant| grant > at) {
            return;
        }
        self.reasons[purpose.index()].insert(reason);
    }

    /// The reason of an objection that a person made in a banner or page: where consent is needed it is simply missing.
    fn refusal(&self) -> Reason {
        if self.is_opt_in() { Reason::NoConsent } else { Reason::OptedOut }
    }

    /// R10: in opt-in places everything, elsewhere what an opt-out would have been about.
    fn deny_unreadable(&mut self) {
        let purposes = if self.is_opt_in() { Purposes::ASKED } else { Purposes::SALE_AND_TARGETING };
        self.insert(purposes, Reason::SignalUnreadable);
    }

    /// R7, R8, R9.
    fn apply_explicit(&mut self) {
        for purpose in Purposes::ASKED.iter() {
            let explicit = self.context.facts.explicit(purpose);
            let grants = *self.grants(purpose);
            if explicit.is_withdrawn(&grants) {
                self.insert(Purposes::NONE.with(purpose), Reason::Withdrawn);
            } else if let Some(at) = grants.by_anybody {
                self.granted = self.granted.with(purpose);
                self.lifted_before[purpose.index()] = Some(at);
            }
        }
    }

    /// R5, R6: the banner.
    fn apply_categories(&mut self) {
        let Channel { readings, unreadable } = &self.context.facts.categories;
        if unreadable.is_some() {
            self.deny_unreadable();
        }
        let refusal = self.refusal();
        for purpose in Purposes::ASKED.iter() {
            if !readings.is_empty() && readings.iter().all(|(_, statement)| statement.grants(purpose)) {
                self.granted = self.granted.with(purpose);
            }
            for (at, statement) in readings {
                // Where consent is needed, sale and sharing follow measurement: a map that does not name them says of them
                // what it says of measurement, and an empty one says no.
                let follows =
                    self.is_opt_in() && purpose == Purpose::SaleShare && !statement.refused.contains(purpose);
                let asked = if follows { Purpose::AdMeasurement } else { purpose };
                if !statement.allowed.contains(asked) {
                    self.deny(purpose, refusal, *at);
                }
            }
        }
    }

    /// R5: a grant for Google's kinds only; a visitor's own refusal counts everywhere, a page's default for Google only.
    fn apply_consent_mode(&mut self) {
        let Channel { readings, unreadable } = &self.context.facts.consent_mode;
        if unreadable.is_some() && self.lens.google {
            self.deny_unreadable();
        }
        let refusal = self.refusal();
        let google = self.lens.google;
        for purpose in [Purpose::Analytics, Purpose::AdMeasurement, Purpose::AdTargeting] {
            let is_granted = |mode: &ConsentMode| {
                let settings = settings_of(mode, purpose);
                settings.main.granted == Some(true) && settings.main.by_visitor
            };
            if google && !readings.is_empty() && readings.iter().all(|(_, mode)| is_granted(mode)) {
                self.granted = self.granted.with(purpose);
            }
            for (at, mode) in readings {
                let refused = settings_of(mode, purpose)
                    .all()
                    .any(|setting| setting.granted == Some(false) && (google || setting.by_visitor));
                if refused {
                    self.deny(purpose, refusal, *at);
                }
            }
        }
    }

    /// R5: TC strings mean something in opt-in places only. One that cannot be read denies everywhere (R10).
    fn apply_tcf(&mut self) {
        let Channel { readings, unreadable } = &self.context.facts.tcf;
        if unreadable.is_some() {
            self.deny_unreadable();
        }
        if self.is_opt_in() {
            self.apply_tc_strings(readings);
        }
    }

    fn apply_tc_strings(&mut self, readings: &[(Timestamp, &TcString)]) {
        for purpose in [Purpose::Analytics, Purpose::AdMeasurement, Purpose::AdTargeting] {
            let mut all_grant = !readings.is_empty();
            for (at, tc) in readings {
                let said =
                    verdict(self.context.policy, self.context.now, tc, self.lens.vendor.as_ref(), purpose);
                all_grant &= said == Verdict::Grants;
                if let Verdict::Denies(reasons) = said {
                    for reason in reasons.iter() {
                        self.deny(purpose, reason, *at);
                    }
                }
            }
            if all_grant {
                self.granted = self.granted.with(purpose);
            }
        }
    }

    /// R6: the third letter. Ignored in opt-in places, unless it cannot be read.
    fn apply_us_privacy(&mut self) {
        let Channel { readings, unreadable } = &self.context.facts.us_privacy;
        if unreadable.is_some() {
            self.deny_unreadable();
        }
        if self.is_opt_in() {
            return;
        }
        for (at, us_privacy) in readings {
            if us_privacy.opt_out_sale == Answer::Yes {
                self.deny(Purpose::SaleShare, Reason::OptedOut, *at);
                self.deny(Purpose::AdTargeting, Reason::OptedOut, *at);
            }
        }
    }

    fn apply_gpp(&mut self) {
        let Channel { readings, unreadable } = &self.context.facts.gpp;
        if unreadable.is_some() {
            self.deny_unreadable();
        }
        let mut tc_strings = Vec::new();
        for (at, (gpp, sids)) in readings {
            let in_force = sections_in_force(self.place, gpp, *sids);
            for section in gpp.sections.iter().filter(|section| in_force.contains(section.id)) {
                match &section.reading {
                    Reading::Us(us) => self.apply_us_section(us, *at),
                    Reading::UsPrivacy(us_privacy) if us_privacy.opt_out_sale == Answer::Yes => {
                        self.deny(Purpose::SaleShare, Reason::OptedOut, *at);
                        self.deny(Purpose::AdTargeting, Reason::OptedOut, *at);
                    }
                    Reading::Unreadable(_) => self.deny_unreadable(),
                    // Strings made for the GDPR say nothing in the US.
                    Reading::Tcf(tc) if self.is_opt_in() => tc_strings.push((*at, tc.as_ref())),
                    Reading::Tcf(_) | Reading::UsPrivacy(_) => {}
                    // In force only if the sender says so: a law that is not known here.
                    Reading::Opaque(_) => self.deny_unreadable(),
                }
            }
        }
        self.apply_tc_strings(&tc_strings);
    }

    /// R6 and the GPP half of R3.
    fn apply_us_section(&mut self, us: &UsSection, at: Timestamp) {
        let fields: [(Field, Field, &[Purpose]); 3] = [
            (Field::SaleOptOut, Field::SaleOptOutNotice, &[Purpose::SaleShare]),
            (Field::SharingOptOut, Field::SharingOptOutNotice, &[Purpose::SaleShare, Purpose::AdTargeting]),
            (
                Field::TargetedAdvertisingOptOut,
                Field::TargetedAdvertisingOptOutNotice,
                &[Purpose::AdTargeting],
            ),
        ];
        for (opt_out, notice, purposes) in fields {
            for purpose in purposes {
                if us.says(opt_out, 1) {
                    self.deny(*purpose, Reason::OptedOut, at);
                } else if us.says(opt_out, 0) && us.says(notice, 2) {
                    self.deny(*purpose, Reason::GppNoNotice, at);
                }
            }
        }
        if us.says(Field::MspaServiceProviderMode, 1) || us.says(Field::MspaMode, 2) {
            self.insert(Purposes::SALE_AND_TARGETING, Reason::ServiceProvider);
        }
        if us.says(Field::KnownChildSensitiveDataConsents, 1) {
            self.insert(Purposes::ADS, Reason::Minor);
        }
    }

    /// R5: what nobody granted is denied, and R9 says why where somebody once did; sale and sharing are as measurement is,
    /// and keep their own denials.
    fn require_consent(&mut self) {
        let ungranted = Purposes::ASKED.without(Purpose::SaleShare).difference(self.granted);
        self.insert(ungranted, Reason::NoConsent);
        let expired = ungranted.iter().filter(|purpose| self.grants(*purpose).expired.is_some()).collect();
        self.insert(expired, Reason::Expired);
        let measurement = self.reasons[Purpose::AdMeasurement.index()];
        let sale_share = &mut self.reasons[Purpose::SaleShare.index()];
        *sale_share = sale_share.union(measurement);
        if self.granted.contains(Purpose::AdMeasurement) {
            self.granted = self.granted.with(Purpose::SaleShare);
        }
    }

    /// R3.
    fn apply_minor(&mut self) {
        if self.context.subject.known_minor {
            self.insert(Purposes::ADS, Reason::Minor);
        }
    }

    /// R4.
    fn apply_gpc(&mut self) {
        let effect = self.place.rules.gpc;
        let in_force: Vec<Timestamp> = self
            .context
            .facts
            .gpc
            .iter()
            .filter(|period| gpc_is_in_force(self.place, period.sections))
            .map(|period| period.since)
            .collect();
        let Some(newest_start) = in_force.iter().max() else { return };
        for purpose in Purposes::SALE_AND_TARGETING.iter() {
            let lifted = match effect {
                GpcEffect::Ignored => true,
                GpcEffect::Advisory => {
                    self.granted.contains(purpose) || self.is_lifted_by_informed_grant(purpose, *newest_start)
                }
                GpcEffect::Binding | GpcEffect::Voluntary => {
                    self.is_lifted_by_informed_grant(purpose, *newest_start)
                }
            };
            if !lifted {
                self.insert(Purposes::NONE.with(purpose), Reason::Gpc);
            }
        }
    }

    /// The override counts on devices whose signal began before it, hence the *newest* of the starts.
    fn is_lifted_by_informed_grant(&self, purpose: Purpose, newest_start: Timestamp) -> bool {
        let explicit = self.context.facts.explicit(purpose);
        let informed = self.grants(purpose).knowing_of_gpc;
        self.place.rules.gpc_override == GpcOverride::AfterNotice
            && self.context.subject.person_known
            && informed > Some(newest_start)
            && informed > explicit.denied_by_person.max(explicit.denied_on_device)
    }
}

/// Settings of consent mode that a purpose needs.
struct Settings {
    main: Setting,
    others: [Setting; 2],
}

impl Settings {
    fn all(&self) -> impl Iterator<Item = Setting> {
        [self.main, self.others[0], self.others[1]].into_iter()
    }
}

/// Source: Google, "Implement the TCF strings" and "Consent mode reference"; 2026-11: ad_user_data for measurement,
/// ad_personalization for targeting; a refusal of what they build on refuses them too.
fn settings_of(mode: &ConsentMode, purpose: Purpose) -> Settings {
    let unset = Setting::default();
    match purpose {
        Purpose::Analytics => Settings { main: mode.analytics_storage, others: [unset; 2] },
        Purpose::AdMeasurement => Settings { main: mode.ad_user_data, others: [mode.ad_storage, unset] },
        Purpose::AdTargeting => {
            Settings { main: mode.ad_personalization, others: [mode.ad_user_data, mode.ad_storage] }
        }
        Purpose::Necessary | Purpose::Functional | Purpose::SaleShare => {
            Settings { main: unset, others: [unset; 2] }
        }
    }
}

/// Sections of a string that count in a place: its own and the national one, the old US privacy string where neither is
/// there, the EU's where consent is needed, and whatever the sender says is in force. A sender can add, never silence.
fn sections_in_force(place: &PlaceRef<'_>, gpp: &GppString, sids: Sections) -> Sections {
    let mut in_force = sids;
    let mut own = Sections::NONE;
    if place.in_us {
        own = Sections::one(USNAT).union(place.section.map_or(Sections::NONE, Sections::one));
        // The state is not known: any state's opt-out may be the one that counts.
        if place.code == "US" {
            own = all_us_sections();
        }
        if !gpp.sections.iter().any(|section| own.contains(section.id)) {
            own = own.union(Sections::one(US_PRIVACY_V1));
        }
    }
    if place.rules.regime == Regime::OptIn {
        in_force = in_force.union(Sections::one(crate::strings::gpp::TCF_EU_V2));
    }
    in_force.union(own)
}

fn all_us_sections() -> Sections {
    (USNAT..=27).fold(Sections::NONE, |all, id| all.union(Sections::one(id)))
}

/// GPC of a browser counts everywhere; that of a GPP subsection where its section is in force.
fn gpc_is_in_force(place: &PlaceRef<'_>, sections: Sections) -> bool {
    let own = if !place.in_us {
        Sections::NONE
    } else if place.code == "US" {
        all_us_sections()
    } else {
        Sections::one(USNAT).union(place.section.map_or(Sections::NONE, Sections::one))
    };
    sections == Sections::EVERYWHERE || sections.meets(own)
}

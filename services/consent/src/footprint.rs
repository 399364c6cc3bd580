//! Whether a statement narrows what the one before it left open.
//!
//! A footprint is the set of things that a statement denies and grants, as bits that only mean something within one
//! channel. A new statement narrows if it denies something that the old one did not, or no longer grants something that it
//! did. Being too eager costs one more decision; being too lax would let a withdrawal pass unseen, so doubt narrows.

use jiff::Timestamp;

use crate::{
    policy::Policy,
    purpose::{Purpose, Purposes},
    reason::{Reason, Reasons},
    signal::Content,
    strings::{
        gcd::ConsentMode,
        gpp::{GppString, Reading},
        tcf::TcString,
        us::{Field, USNAT, UsSection},
        usp::Answer,
    },
    tcf_verdict::{Verdict, verdict},
};

/// What a statement denies and grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    denied: [u64; WORDS],
    granted: u64,
}

/// Words 0 to 7: eight bits for each GPP section id below 64. Word 8: a TC string's purposes by lens. Word 9: the rest.
const TCF_WORD: usize = 8;
const PLAIN_WORD: usize = 9;
/// Word 10: whether it cannot be read, and which US sections are missing beside an opt-out of the old US privacy string,
/// which counts only where they are.
const BESIDE_WORD: usize = 10;
/// As word 8, for what no explicit grant lifts (R7): a string that is only too old yields to one.
const TCF_UNLIFTED_WORD: usize = 11;
const WORDS: usize = 12;
/// In word 10. A bit of its own: what cannot be read denies other things than any statement that can.
const UNREADABLE: u64 = 1;

impl Footprint {
    /// Of a statement that was made at `at`: a TC string may have been too old by then.
    #[must_use]
    pub fn of(policy: &Policy, at: Timestamp, content: &Content) -> Self {
        let mut footprint = Self::default();
        match content {
            // Sticky: whether it is new is all that counts, and that the caller knows.
            Content::Gpc(sections) => footprint.denied[PLAIN_WORD] = sections.0,
            Content::Categories(statement) => {
                // What is missing and what is refused are told apart: where consent is needed, sale and sharing may be missing
                // from a map that allows measurement, and may not be refused in it.
                let missing = Purposes::ASKED.difference(statement.allowed);
                footprint.denied[PLAIN_WORD] =
                    u64::from(missing.bits()) | u64::from(statement.refused.bits()) << 8;
                if statement.interaction {
                    footprint.granted = u64::from(statement.allowed.bits());
                }
            }
            Content::ObjectUnreadable => footprint.denied[BESIDE_WORD] = UNREADABLE,
            Content::Tcf(reading) => match reading.as_ref() {
                Ok(tc) => footprint.add_tc_string(policy, at, tc),
                Err(_) => footprint.denied[BESIDE_WORD] = UNREADABLE,
            },
            Content::Gpp(reading, sids) => match reading.as_ref() {
                Ok(gpp) => {
                    footprint.add_gpp(policy, at, gpp);
                    // A section that is newly in force may be one that was read before.
                    footprint.denied[PLAIN_WORD] = sids.0;
                }
                Err(_) => footprint.denied[BESIDE_WORD] = UNREADABLE,
            },
            Content::UsPrivacy(Ok(us_privacy)) => {
                footprint.denied[PLAIN_WORD] = u64::from(us_privacy.opt_out_sale == Answer::Yes);
            }
            Content::ConsentMode(Ok(mode)) => footprint.add_consent_mode(mode),
            Content::UsPrivacy(Err(_)) | Content::ConsentMode(Err(_)) => {
                footprint.denied[BESIDE_WORD] = UNREADABLE;
            }
            Content::Explicit(choice) => {
                footprint.denied[PLAIN_WORD] = u64::from(choice.denied.bits());
                footprint.granted = u64::from(choice.granted.bits());
            }
        }
        footprint
    }

    /// Whether it denies anything.
    #[must_use]
    pub fn denies(&self) -> bool {
        self.denied != [0; WORDS]
    }

    /// Whether it leaves less open than what was there before.
    #[must_use]
    pub fn narrows(&self, before: &Self) -> bool {
        let denies_more = self.denied.iter().zip(before.denied).any(|(new, old)| new & !old != 0);
        denies_more || before.granted & !self.granted != 0
    }

    /// Both at once: whoever denies wins.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for (mine, theirs) in self.denied.iter_mut().zip(other.denied) {
            *mine |= theirs;
        }
        self.granted &= other.granted;
        self
    }

    fn add_tc_string(&mut self, policy: &Policy, at: Timestamp, tc: &TcString) {
        for (lens, seen) in policy.lenses().iter().take(12).enumerate() {
            for (index, purpose) in
                [Purpose::Analytics, Purpose::AdMeasurement, Purpose::AdTargeting].into_iter().enumerate()
            {
                let bit = 1 << (lens * 4 + index);
                match verdict(policy, at, tc, seen.vendor.as_ref(), purpose) {
                    Verdict::Grants => self.granted |= bit,
                    Verdict::Denies(reasons) => {
                        self.denied[TCF_WORD] |= bit;
                        if !reasons.is_subset(Reasons::of(&[Reason::Expired])) {
                            self.denied[TCF_UNLIFTED_WORD] |= bit;
                        }
                    }
                    Verdict::Silent => {}
                }
            }
        }
    }

    fn add_gpp(&mut self, policy: &Policy, at: Timestamp, gpp: &GppString) {
        for section in &gpp.sections {
            let bits = match &section.reading {
                Reading::Us(us) => us_bits(us),
                Reading::UsPrivacy(us_privacy) if us_privacy.opt_out_sale == Answer::Yes => {
                    self.denied[BESIDE_WORD] |= (USNAT..=27)
                        .filter(|id| gpp.section(*id).is_none())
                        .fold(0, |missing, id| missing | 1 << id);
                    1
                }
                Reading::UsPrivacy(_) => 0,
                Reading::Tcf(tc) => {
                    self.add_tc_string(policy, at, tc);
                    0
                }
                Reading::Opaque(_) | Reading::Unreadable(_) => 1 << 7,
            };
            // As in `Sections`: all ids from 63 on are one.
            let id = usize::from(section.id.min(63));
            self.denied[id / 8] |= bits << (id % 8 * 8);
        }
    }

    fn add_consent_mode(&mut self, mode: &ConsentMode) {
        let settings = [mode.ad_storage, mode.analytics_storage, mode.ad_user_data, mode.ad_personalization];
        for (index, setting) in settings.into_iter().enumerate() {
            match (setting.granted, setting.by_visitor) {
                (Some(false), by_visitor) => {
                    self.denied[PLAIN_WORD] |= 1 << index | u64::from(by_visitor) << (4 + index);
                }
                (Some(true), true) => self.granted |= 1 << index,
                (Some(true), false) | (None, _) => {}
            }
        }
    }
}

fn us_bits(us: &UsSection) -> u64 {
    let says = |field, value, bit: u64| u64::from(us.says(field, value)) << bit;
    let unasked = |opt_out, notice, bit: u64| u64::from(us.says(opt_out, 0) && us.says(notice, 2)) << bit;
    says(Field::SaleOptOut, 1, 0)
        | says(Field::SharingOptOut, 1, 1)
        | says(Field::TargetedAdvertisingOptOut, 1, 2)
        | unasked(Field::SaleOptOut, Field::SaleOptOutNotice, 3)
        | unasked(Field::SharingOptOut, Field::SharingOptOutNotice, 4)
        | unasked(Field::TargetedAdvertisingOptOut, Field::TargetedAdvertisingOptOutNotice, 4)
        | says(Field::KnownChildSensitiveDataConsents, 1, 5)
        | says(Field::MspaServiceProviderMode, 1, 6)
        | says(Field::MspaMode, 2, 6)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        signal::{CategoryStatement, Sections},
        strings::usp::UsPrivacy,
    };

    const ACCEPT: &str =
        "CQtDjkAQtDjkAEsAHBENCjFsAP_AAEPAAAYgHtQBQAtgLzAYyAyQB7QHtQBQAtgLzAYyAyQB7QAA.IHtQBQAtgLzAYyAyQB7Q";

    fn now() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    fn footprint(policy: &Policy, content: &Content) -> Footprint {
        Footprint::of(policy, now(), content)
    }

    fn categories(policy: &Policy, map: &[(&str, bool)]) -> Footprint {
        footprint(policy, &Content::Categories(CategoryStatement::of(policy, map.iter().copied(), true)))
    }

    #[test]
    fn a_category_turned_off_narrows_and_turned_on_does_not() {
        let policy = Policy::compiled_in().unwrap();
        let on = categories(&policy, &[("Advertising", true), ("Analytics", true)]);
        let off = categories(&policy, &[("Advertising", false), ("Analytics", true)]);
        assert!(off.narrows(&on) && off.narrows(&Footprint::default()));
        assert!(!on.narrows(&off) && !off.narrows(&off));
        let all = categories(&policy, &[("Advertising", true), ("Analytics", true), ("Functional", true)]);
        assert!(!all.denies() && on.narrows(&all), "a connection may be for functional purposes");
        // One that is gone from the map counts as turned off.
        assert!(categories(&policy, &[("Advertising", true)]).narrows(&on));
    }

    #[test]
    fn a_tc_string_made_anew_with_the_same_choices_does_not_narrow() {
        let policy = Policy::compiled_in().unwrap();
        let tcf = |text: &str| footprint(&policy, &Content::Tcf(Arc::new(TcString::decode(text))));
        let accept = tcf(ACCEPT);
        let reject = tcf("CQtDjkAQtDjkAEsAHBENCjFgAAAAAAAAAAYgAAAAAAAA.IHtQBQAtgLzAYyAyQB7Q");
        let ranges = tcf("CQtDjkAQtDjkAEsAHBENCjFgAP_AAEIAAAqIF5wAoAAgV4AvMC84AIC8wAAA.IGQQAYAAgZAA");
        assert!(!accept.narrows(&Footprint::default()) && !ranges.narrows(&accept));
        assert!(reject.narrows(&accept) && tcf("C").narrows(&accept));
        // The same string, seen again when it has become too old.
        let TcString { last_updated, .. } = TcString::decode(ACCEPT).unwrap();
        let much_later = last_updated + jiff::SignedDuration::from_hours(24 * 396);
        let content = Content::Tcf(Arc::new(TcString::decode(ACCEPT)));
        assert!(Footprint::of(&policy, much_later, &content).narrows(&accept));
    }

    #[test]
    fn an_opt_out_in_any_section_narrows() {
        let policy = Policy::compiled_in().unwrap();
        let gpp =
            |text: &str, sids| footprint(&policy, &Content::Gpp(Arc::new(GppString::decode(text)), sids));
        let none = gpp("DBABLA~CVQqAAAAAACA.QA", Sections::NONE);
        assert!(!none.denies());
        assert!(gpp("DBABRg~BVUAACA", Sections::NONE).narrows(&none));
        assert!(gpp("DBABLA~CVQ", Sections::NONE).narrows(&none));
        assert!(gpp("DBABLA~CVQqAAAAAACA.QA", Sections::one(7)).narrows(&none));
        let usp = |text| footprint(&policy, &Content::UsPrivacy(UsPrivacy::decode(text)));
        assert!(usp("1YYN").narrows(&usp("1YNN")) && !usp("1YNN").narrows(&usp("1YYN")));
    }
}

//! What a TC string says about one purpose, seen by one vendor.
//!
//! Source: IAB Tech Lab, "Consent string and vendor list formats v2" (2.3), 2026-02; IAB Europe, TCF Policies. For a kind
//! without an id in the global vendor list the string is only a cap: it can deny, and never grants.

use jiff::Timestamp;

use crate::{
    policy::{Policy, Vendor},
    purpose::Purpose,
    reason::{Reason, Reasons},
    strings::tcf::{RestrictionKind, TcString},
};

/// Strings made from this day on must list the vendors that were shown (end of the transition to TCF 2.3).
/// 2026-03-01T00:00:00Z. Source: IAB Europe, TCF 2.3; 2026-02.
const DISCLOSURE_REQUIRED_SINCE: i64 = 1_772_323_200;
/// TCF 2.2, in force since 2023-09-30. Source: IAB Europe, TCF Policies 2.2; 2023-05.
const OLDEST_POLICY_VERSION: u8 = 4;

/// What a TC string says about a purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It grants it.
    Grants,
    /// It denies it, for these reasons.
    Denies(Reasons),
    /// It says nothing about it, or only would not stand in the way.
    Silent,
}

/// TCF purposes that one of ours needs; the first is the one that only consent can give.
const fn needed(purpose: Purpose) -> &'static [u8] {
    match purpose {
        Purpose::Necessary | Purpose::Functional => &[],
        Purpose::Analytics => &[1, 8],
        Purpose::AdMeasurement | Purpose::SaleShare => &[1, 7],
        Purpose::AdTargeting => &[1, 3, 4],
    }
}

/// Whether the string is one that a vendor may rely on at all.
#[must_use]
pub fn is_valid(tc: &TcString) -> bool {
    tc.is_service_specific
        && tc.tcf_policy_version >= OLDEST_POLICY_VERSION
        && (tc.disclosed_vendors.is_some() || tc.created.as_second() < DISCLOSURE_REQUIRED_SINCE)
}

/// The verdict.
#[must_use]
pub fn verdict(
    policy: &Policy,
    now: Timestamp,
    tc: &TcString,
    vendor: Option<&Vendor>,
    purpose: Purpose,
) -> Verdict {
    let needed = needed(purpose);
    if needed.is_empty() {
        return Verdict::Silent;
    }
    let mut reasons = Reasons::NONE;
    if !is_valid(tc) {
        reasons.insert(Reason::TcfInvalid);
    }
    if policy.tc_string_has_expired(now.as_second() - tc.last_updated.as_second()) {
        reasons.insert(Reason::Expired);
    }
    if let (Some(disclosed), Some(vendor)) = (&tc.disclosed_vendors, vendor)
        && !disclosed.contains(vendor.id)
    {
        reasons.insert(Reason::TcfVendor);
    }
    for tcf_purpose in needed {
        reasons = reasons.union(match vendor {
            Some(vendor) => missing_for_vendor(policy, tc, vendor, *tcf_purpose),
            None => missing_for_anybody(policy, tc, *tcf_purpose),
        });
    }
    if !reasons.is_empty() {
        Verdict::Denies(reasons)
    } else if vendor.is_some() {
        Verdict::Grants
    } else {
        Verdict::Silent
    }
}

/// Purpose 1 may count as granted where it need not be asked.
fn is_consented(policy: &Policy, tc: &TcString, purpose: u8) -> bool {
    tc.purposes_consent.contains(purpose)
        || (purpose == 1 && tc.purpose_one_treatment && policy.purpose_one_need_not_be_asked(tc.publisher_cc))
}

fn missing_for_vendor(policy: &Policy, tc: &TcString, vendor: &Vendor, purpose: u8) -> Reasons {
    let declares_li = vendor.declares_legitimate_interest(purpose);
    let flexible = vendor.is_flexible(purpose);
    let consented = is_consented(policy, tc, purpose);
    let li_shown = tc.purposes_li_transparency.contains(purpose);
    let by_consent = consented && tc.vendor_consents.contains(vendor.id);
    let by_li = li_shown && tc.vendor_li.contains(vendor.id);
    let allowed = match tc.restriction(purpose, vendor.id) {
        None => by_consent || (declares_li && by_li),
        Some(RestrictionKind::NotAllowed) => false,
        Some(RestrictionKind::RequireConsent) => by_consent && (!declares_li || flexible),
        Some(RestrictionKind::RequireLegitimateInterest) => by_li && (declares_li || flexible),
    };
    if allowed {
        return Reasons::NONE;
    }
    if tc.restriction(purpose, vendor.id).is_some() {
        return Reasons::of(&[Reason::TcfRestricted]);
    }
    let vendor_accepted =
        tc.vendor_consents.contains(vendor.id) || (declares_li && tc.vendor_li.contains(vendor.id));
    let purpose_accepted = consented || (declares_li && li_shown);
    let mut reasons = Reasons::NONE;
    if !vendor_accepted {
        reasons.insert(Reason::TcfVendor);
    }
    if !purpose_accepted || vendor_accepted {
        reasons.insert(Reason::TcfPurpose);
    }
    reasons
}

fn missing_for_anybody(policy: &Policy, tc: &TcString, purpose: u8) -> Reasons {
    let li_is_lawful = !matches!(purpose, 1 | 3..=6);
    let accepted =
        is_consented(policy, tc, purpose) || (li_is_lawful && tc.purposes_li_transparency.contains(purpose));
    if accepted { Reasons::NONE } else { Reasons::of(&[Reason::TcfPurpose]) }
}

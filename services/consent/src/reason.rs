//! Outcomes and reasons.
//!
//! Reasons are kept as a *set* for each purpose, not as the worst one: whether a restricted send is possible depends on all
//! of them (rule R13), and a decision that kept only one turned a denial into a send when a second reason was added.

/// What happens to one event at one connection. The greater one is the narrower; combining takes the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Send.
    Allow,
    /// Send with the platform's restriction stated.
    AllowRestricted,
    /// Do not send.
    Deny,
}

impl Outcome {
    /// The number on the wire (`consent.v1.Outcome`).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Allow => 1,
            Self::AllowRestricted => 2,
            Self::Deny => 3,
        }
    }

    /// The name in receipts and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::AllowRestricted => "allow_restricted",
            Self::Deny => "deny",
        }
    }
}

/// Why a purpose is denied. The order is that of reporting: the first one of a set is what the ledger shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// R1: the subject was erased.
    Erased,
    /// R2: the policy forbids the kind here.
    PolicyDenied,
    /// R3: a known minor without the consent that the place asks for.
    Minor,
    /// R4: Global Privacy Control.
    Gpc,
    /// R8: an explicit denial.
    Withdrawn,
    /// R6: an opt-out.
    OptedOut,
    /// R6: MSPA service-provider mode; shown as `opted_out`, and not shown at all where a restricted send mends it.
    ServiceProvider,
    /// R6: an opt-out field is empty and no notice was given.
    GppNoNotice,
    /// R10: a string or object that cannot be read.
    SignalUnreadable,
    /// A TC string that is not valid.
    TcfInvalid,
    /// A publisher's restriction.
    TcfRestricted,
    /// The vendor was not accepted.
    TcfVendor,
    /// A TCF purpose was not accepted.
    TcfPurpose,
    /// R9: consent that is too old.
    Expired,
    /// R5: nobody consented.
    NoConsent,
    /// R12: the connection's own settings.
    ConnectionNarrowed,
    /// R14: the platform has no field for the restriction.
    RestrictionNotExpressible,
}

/// A set of reasons. Empty: allowed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Reasons(u32);

impl Reason {
    /// All, in the order of reporting.
    pub const ALL: [Self; 17] = [
        Self::Erased,
        Self::PolicyDenied,
        Self::Minor,
        Self::Gpc,
        Self::Withdrawn,
        Self::OptedOut,
        Self::ServiceProvider,
        Self::GppNoNotice,
        Self::SignalUnreadable,
        Self::TcfInvalid,
        Self::TcfRestricted,
        Self::TcfVendor,
        Self::TcfPurpose,
        Self::Expired,
        Self::NoConsent,
        Self::ConnectionNarrowed,
        Self::RestrictionNotExpressible,
    ];

    /// The name in protos, receipts and the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Erased => "erased",
            Self::PolicyDenied => "policy_denied",
            Self::Minor => "minor",
            Self::Gpc => "gpc",
            Self::Withdrawn => "withdrawn",
            Self::OptedOut | Self::ServiceProvider => "opted_out",
            Self::GppNoNotice => "gpp_no_notice",
            Self::SignalUnreadable => "signal_unreadable",
            Self::TcfInvalid => "tcf_invalid",
            Self::TcfRestricted => "tcf_restricted",
            Self::TcfVendor => "tcf_vendor",
            Self::TcfPurpose => "tcf_purpose",
            Self::Expired => "expired",
            Self::NoConsent => "no_consent",
            Self::ConnectionNarrowed => "connection_narrowed",
            Self::RestrictionNotExpressible => "restriction_not_expressible",
        }
    }
}

impl Reasons {
    /// No reason.
    pub const NONE: Self = Self(0);
    /// What a restricted send can mend (R13): the person's own objection to sale and targeting, nothing else.
    pub const MENDED_BY_RESTRICTION: Self =
        Self::of(&[Reason::Gpc, Reason::OptedOut, Reason::Withdrawn, Reason::ServiceProvider]);

    /// Of these.
    #[must_use]
    pub const fn of(reasons: &[Reason]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < reasons.len() {
            bits |= 1 << reasons[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// With one more.
    #[must_use]
    pub const fn with(self, reason: Reason) -> Self {
        Self(self.0 | 1 << reason as u8)
    }

    /// Without one.
    #[must_use]
    pub const fn without(self, reason: Reason) -> Self {
        Self(self.0 & !(1 << reason as u8))
    }

    /// In either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the reason is in the set.
    #[must_use]
    pub const fn contains(self, reason: Reason) -> bool {
        self.0 >> reason as u8 & 1 == 1
    }

    /// Whether all are in the other.
    #[must_use]
    pub const fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds one.
    pub const fn insert(&mut self, reason: Reason) {
        self.0 |= 1 << reason as u8;
    }

    /// The one that is reported.
    #[must_use]
    pub fn first(self) -> Option<Reason> {
        Reason::ALL.get(self.0.trailing_zeros() as usize).copied()
    }

    /// All, in the order of reporting.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }
}

impl std::fmt::Debug for Reasons {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(Reason::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reported_reason_is_the_first_in_order() {
        let reasons = Reasons::of(&[Reason::NoConsent, Reason::GppNoNotice, Reason::Withdrawn]);
        assert_eq!(reasons.first(), Some(Reason::Withdrawn));
        assert_eq!(Reasons::NONE.first(), None);
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}

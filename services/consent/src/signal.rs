//! Signals: what somebody or some program said about consent, with its time and for whom.
//!
//! A [`Signal`] is already decoded; its content is shared, so that one string seen by five hundred events is read once.

use std::sync::Arc;

use jiff::Timestamp;
use tracklayer_ids::SubjectKey;

use crate::{
    policy::Policy,
    purpose::{Purpose, Purposes},
    strings::{DecodeError, gcd::ConsentMode, gpp::GppString, tcf::TcString, usp::UsPrivacy},
};

/// A signal in force for the subject of a decision.
#[derive(Debug, Clone)]
pub struct Signal {
    /// The key that it is filed under.
    pub subject: SubjectKey,
    /// Whether a person was known when it was given (and not just a device).
    pub person: bool,
    /// When it was given: never later than its receipt.
    pub at: Timestamp,
    /// Whether it came with the very event that is decided. What an event itself says always counts, so that consent
    /// given afterwards never covers an event that was captured under a refusal.
    pub own: bool,
    /// What it says.
    pub content: Content,
}

/// What a signal says.
#[derive(Debug, Clone)]
pub enum Content {
    /// Global Privacy Control is on, in these GPP sections.
    Gpc(Sections),
    /// A banner's categories.
    Categories(CategoryStatement),
    /// A consent object that could not be parsed.
    ObjectUnreadable,
    /// An IAB TC string.
    Tcf(Arc<Result<TcString, DecodeError>>),
    /// An IAB GPP string, and the sections that its sender calls in force.
    Gpp(Arc<Result<GppString, DecodeError>>, Sections),
    /// The US privacy string of old.
    UsPrivacy(Result<UsPrivacy, DecodeError>),
    /// Google's consent mode.
    ConsentMode(Result<ConsentMode, DecodeError>),
    /// An explicit choice, in a privacy centre or through an API.
    Explicit(ExplicitChoice),
}

/// A set of GPP section ids from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Sections(pub u64);

/// A banner's categories, as purposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CategoryStatement {
    /// Purposes that a category names and all of its categories allow.
    pub allowed: Purposes,
    /// Purposes that a category refuses.
    pub refused: Purposes,
    /// Whether a person acted on the banner.
    pub interaction: bool,
}

/// An explicit choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExplicitChoice {
    /// Purposes granted.
    pub granted: Purposes,
    /// Purposes denied. One that is in both sets is denied.
    pub denied: Purposes,
    /// Granted in two steps, as California asks of a new opt-in (11 CCR 7028).
    pub two_step: bool,
    /// The person was told that a GPC signal says otherwise.
    pub conflict_acknowledged: bool,
}

impl Sections {
    /// Everywhere: not bound to a section.
    pub const EVERYWHERE: Self = Self(u64::MAX);
    /// None.
    pub const NONE: Self = Self(0);

    /// One section. All ids from 63 on, none of which IAB has given out, are one: what one of them says counts for each.
    #[must_use]
    pub const fn one(id: u16) -> Self {
        Self(match id {
            0 => 0,
            1..63 => 1 << id,
            _ => 1 << 63,
        })
    }

    /// Each section by itself; everywhere stays whole.
    pub fn one_by_one(self) -> impl Iterator<Item = Self> {
        let whole = self == Self::EVERYWHERE;
        let bits = (1..64).filter(move |id| !whole && self.0 >> id & 1 == 1).map(|id| Self(1 << id));
        whole.then_some(self).into_iter().chain(bits)
    }

    /// Sections as a sender lists them (`gpp_sid`); -1 and other impossible ids are nothing.
    #[must_use]
    pub fn from_sids(sids: &[i32]) -> Self {
        let known = sids.iter().filter_map(|sid| u16::try_from(*sid).ok());
        known.fold(Self::NONE, |all, id| all.union(Self::one(id)))
    }

    /// In either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the section is in the set.
    #[must_use]
    pub const fn contains(self, id: u16) -> bool {
        self.0 & Self::one(id).0 != 0
    }

    /// Whether a section is in both.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether all of the other are in this.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }
}

impl CategoryStatement {
    /// Reads a map by the policy's vocabulary. A name that it does not know affects nothing; a purpose that no category of
    /// the map names is neither allowed nor refused, which counts as "no" (as Segment has it: a missing category is false).
    #[must_use]
    pub fn of<'a>(
        policy: &Policy,
        categories: impl IntoIterator<Item = (&'a str, bool)>,
        interaction: bool,
    ) -> Self {
        let (mut named, mut refused) = (Purposes::NONE, Purposes::NONE);
        for (name, allowed) in categories {
            let purposes = policy.category(name).unwrap_or_default();
            named = named.union(purposes);
            if !allowed {
                refused = refused.union(purposes);
            }
        }
        Self { allowed: named.difference(refused), refused, interaction }
    }

    /// Whether a person chose to allow the purpose.
    #[must_use]
    pub fn grants(&self, purpose: Purpose) -> bool {
        self.interaction && self.allowed.contains(purpose)
    }
}

impl Content {
    /// Whether it is a statement that could not be read.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        match self {
            Self::ObjectUnreadable | Self::UsPrivacy(Err(_)) | Self::ConsentMode(Err(_)) => true,
            Self::Tcf(reading) => reading.is_err(),
            Self::Gpp(reading, _) => reading.is_err(),
            Self::Gpc(_)
            | Self::Categories(_)
            | Self::UsPrivacy(Ok(_))
            | Self::ConsentMode(Ok(_))
            | Self::Explicit(_) => false,
        }
    }

    /// Sections of a GPP string whose GPC subsection is on.
    #[must_use]
    pub fn gpc_sections(&self) -> Sections {
        match self {
            Self::Gpc(sections) => *sections,
            Self::Gpp(reading, sids) => {
                reading.as_ref().as_ref().map_or(Sections::NONE, |gpp| gpp.gpc_sections(*sids))
            }
            Self::Categories(_)
            | Self::ObjectUnreadable
            | Self::Tcf(_)
            | Self::UsPrivacy(_)
            | Self::ConsentMode(_)
            | Self::Explicit(_) => Sections::NONE,
        }
    }
}

impl GppString {
    /// Sections whose GPC subsection is on; everywhere if the sender says that one of them is in force.
    #[must_use]
    pub fn gpc_sections(&self, sids: Sections) -> Sections {
        let mut on = Sections::NONE;
        for section in &self.sections {
            if let crate::strings::gpp::Reading::Us(us) = &section.reading
                && us.gpc == Some(true)
            {
                on = on.union(Sections::one(section.id));
            }
        }
        if on.meets(sids) { Sections::EVERYWHERE } else { on }
    }
}

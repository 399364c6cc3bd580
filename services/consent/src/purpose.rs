//! The closed list of purposes, as a bit set.

use serde::{Deserialize, Deserializer};

/// What data is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// Without which the service does not work.
    Necessary = 0,
    /// Comfort of the service itself.
    Functional = 1,
    /// Own statistics.
    Analytics = 2,
    /// Attribution and counting of conversions.
    AdMeasurement = 3,
    /// Remarketing, audiences, personalised ads.
    AdTargeting = 4,
    /// Disclosure to somebody who may use the data for himself.
    SaleShare = 5,
}

/// A set of purposes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Purposes(u8);

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Necessary,
        Self::Functional,
        Self::Analytics,
        Self::AdMeasurement,
        Self::AdTargeting,
        Self::SaleShare,
    ];

    /// The name in policies, protos and payloads.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Necessary => "necessary",
            Self::Functional => "functional",
            Self::Analytics => "analytics",
            Self::AdMeasurement => "ad_measurement",
            Self::AdTargeting => "ad_targeting",
            Self::SaleShare => "sale_share",
        }
    }

    /// The purpose of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }

    /// Index into tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl Purposes {
    /// None.
    pub const NONE: Self = Self(0);
    /// Everything that an opt-out of sale, sharing or targeted advertising is about.
    pub const SALE_AND_TARGETING: Self = Self::of(&[Purpose::AdTargeting, Purpose::SaleShare]);
    /// Everything that serves advertising.
    pub const ADS: Self = Self::of(&[Purpose::AdMeasurement, Purpose::AdTargeting, Purpose::SaleShare]);
    /// Everything that consent can be asked for: all but what is necessary.
    pub const ASKED: Self = Self::of(&[
        Purpose::Functional,
        Purpose::Analytics,
        Purpose::AdMeasurement,
        Purpose::AdTargeting,
        Purpose::SaleShare,
    ]);

    /// Of these.
    #[must_use]
    pub const fn of(purposes: &[Purpose]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < purposes.len() {
            bits |= 1 << purposes[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// Whether the purpose is in the set.
    #[must_use]
    pub const fn contains(self, purpose: Purpose) -> bool {
        self.0 >> purpose as u8 & 1 == 1
    }

    /// With one more.
    #[must_use]
    pub const fn with(self, purpose: Purpose) -> Self {
        Self(self.0 | 1 << purpose as u8)
    }

    /// Without one.
    #[must_use]
    pub const fn without(self, purpose: Purpose) -> Self {
        Self(self.0 & !(1 << purpose as u8))
    }

    /// In either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// In both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// In this and not in the other.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
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

    /// The bits, by [`Purpose::index`].
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// From bits; others than the six are dropped.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 0b11_1111)
    }

    /// The purposes, in the order of the list.
    pub fn iter(self) -> impl Iterator<Item = Purpose> {
        Purpose::ALL.into_iter().filter(move |purpose| self.contains(*purpose))
    }

    /// Their names.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        self.iter().map(|purpose| purpose.name().to_owned()).collect()
    }
}

impl std::fmt::Debug for Purposes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(Purpose::name)).finish()
    }
}

impl FromIterator<Purpose> for Purposes {
    fn from_iter<I: IntoIterator<Item = Purpose>>(purposes: I) -> Self {
        purposes.into_iter().fold(Self::NONE, Self::with)
    }
}

impl<'de> Deserialize<'de> for Purposes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names
            .iter()
            .map(|name| {
                Purpose::parse(name)
                    .ok_or_else(|| serde::de::Error::custom(format_args!("`{name}` is not a purpose")))
            })
            .collect()
    }
}

//! Kinds of destination: the floor of purposes that no setting can lower, and what each platform's API can state.

use crate::purpose::{Purpose, Purposes};

/// A kind of destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Meta, Conversions API.
    MetaCapi = 0,
    /// TikTok, Events API.
    TiktokEvents = 1,
    /// Google, Data Manager API.
    GoogleDataManager = 2,
    /// Google Ads API, click conversions.
    GoogleAds = 3,
    /// Google Analytics 4, Measurement Protocol.
    Ga4Mp = 4,
    /// A signed request to anybody.
    Webhook = 5,
    /// The customer's own warehouse.
    Warehouse = 6,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::MetaCapi,
        Self::TiktokEvents,
        Self::GoogleDataManager,
        Self::GoogleAds,
        Self::Ga4Mp,
        Self::Webhook,
        Self::Warehouse,
    ];

    /// The name in connections and policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MetaCapi => "meta_capi",
            Self::TiktokEvents => "tiktok_events",
            Self::GoogleDataManager => "google_data_manager",
            Self::GoogleAds => "google_ads",
            Self::Ga4Mp => "ga4_mp",
            Self::Webhook => "webhook",
            Self::Warehouse => "warehouse",
        }
    }

    /// The kind of that name. An unknown kind has no floor and is denied.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Index into tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Purposes without which nothing is sent.
    #[must_use]
    pub const fn floor(self) -> Purposes {
        match self {
            Self::MetaCapi | Self::TiktokEvents => Purposes::ADS,
            Self::GoogleDataManager | Self::GoogleAds => {
                Purposes::of(&[Purpose::AdMeasurement, Purpose::SaleShare])
            }
            Self::Ga4Mp | Self::Warehouse => Purposes::of(&[Purpose::Analytics]),
            // A third party, unless the policy records a processor contract.
            Self::Webhook => Purposes::of(&[Purpose::SaleShare]),
        }
    }

    /// Purposes that may be missing if the payload says so.
    #[must_use]
    pub const fn optional(self) -> Purposes {
        match self {
            Self::GoogleDataManager | Self::GoogleAds => Purposes::of(&[Purpose::AdTargeting]),
            _ => Purposes::NONE,
        }
    }

    /// Whether Google's consent mode speaks about this kind.
    #[must_use]
    pub const fn is_google(self) -> bool {
        matches!(self, Self::GoogleDataManager | Self::GoogleAds | Self::Ga4Mp)
    }

    /// Whether a payload of this kind can state a restriction at all (R14). Google Ads' click conversions only carry
    /// `ad_user_data`, not `ad_personalization`. Source: Google Ads API v26, "Consent"; 2026-11. Meta states LDU, TikTok
    /// `limited_data_use`, the Data Manager API and the Measurement Protocol `ad_personalization`.
    #[must_use]
    pub const fn can_state_restriction(self) -> bool {
        match self {
            Self::MetaCapi | Self::TiktokEvents | Self::GoogleDataManager | Self::Ga4Mp => true,
            Self::GoogleAds | Self::Webhook | Self::Warehouse => false,
        }
    }
}

//! The platforms that stand behind the one port, and which of them a path belongs to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A platform that the sandbox stands in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    /// Meta's Conversions API.
    #[serde(alias = "meta_capi")]
    Meta,
    /// Meta's Dataset Quality API.
    MetaQuality,
    /// Google's OAuth token endpoint.
    GoogleToken,
    /// Google Ads API: click conversions and adjustments.
    GoogleAds,
    /// Google's Data Manager API.
    #[serde(alias = "google_data_manager")]
    DataManager,
    /// Google Analytics 4, Measurement Protocol.
    #[serde(alias = "ga4_mp")]
    Ga4,
    /// TikTok's Events API.
    #[serde(rename = "tiktok", alias = "tiktok_events")]
    TikTok,
    /// Any receiver of Standard Webhooks.
    Webhook,
}

impl Platform {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Meta,
        Self::MetaQuality,
        Self::GoogleToken,
        Self::GoogleAds,
        Self::DataManager,
        Self::Ga4,
        Self::TikTok,
        Self::Webhook,
    ];

    /// The name that the admin pages use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::MetaQuality => "meta_quality",
            Self::GoogleToken => "google_token",
            Self::GoogleAds => "google_ads",
            Self::DataManager => "data_manager",
            Self::Ga4 => "ga4",
            Self::TikTok => "tiktok",
            Self::Webhook => "webhook",
        }
    }

    /// What stands before the platform's own path, so that one port can serve them all.
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::Meta => "/meta",
            Self::GoogleToken => "/google-oauth",
            Self::GoogleAds => "/google-ads",
            Self::DataManager => "/data-manager",
            Self::Ga4 => "/ga4",
            Self::TikTok => "/tiktok",
            // Where Meta's is: it is told by its form.
            Self::MetaQuality | Self::Webhook => "",
        }
    }

    /// Whose path this is, and the platform's own part of it. A path without a prefix is told by its form.
    pub(crate) fn of_path(path: &str) -> Option<(Self, &str)> {
        if path.starts_with("/webhook/") {
            return Some((Self::Webhook, path));
        }
        let of_meta =
            path.strip_prefix(Self::Meta.prefix()).filter(|own| own.starts_with('/')).unwrap_or(path);
        if of_meta.split('/').nth(2) == Some("dataset_quality") {
            return Some((Self::MetaQuality, of_meta));
        }
        for platform in Self::ALL {
            let prefix = platform.prefix();
            if !prefix.is_empty()
                && let Some(own) = path.strip_prefix(prefix)
                && own.starts_with('/')
            {
                return Some((platform, own));
            }
        }
        let platform = if path == "/token" {
            Self::GoogleToken
        } else if path.starts_with("/v1/events:") || path.starts_with("/v1/requestStatus:") {
            Self::DataManager
        } else if path.starts_with("/mp/") || path.starts_with("/debug/mp/") {
            Self::Ga4
        } else if path.starts_with("/open_api/") {
            Self::TikTok
        } else if path.split('/').nth(2) == Some("customers") {
            Self::GoogleAds
        } else if path.split('/').nth(3) == Some("events") || path.split('/').nth(2) == Some("events") {
            Self::Meta
        } else {
            return None;
        };
        Some((platform, path))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No platform has this name.
#[derive(Debug, thiserror::Error)]
#[error("no platform is called `{0}`")]
pub struct UnknownPlatform(String);

impl FromStr for Platform {
    type Err = UnknownPlatform;

    fn from_str(text: &str) -> Result<Self, UnknownPlatform> {
        match text {
            "meta_capi" => Ok(Self::Meta),
            "google_data_manager" => Ok(Self::DataManager),
            "ga4_mp" => Ok(Self::Ga4),
            "tiktok_events" => Ok(Self::TikTok),
            other => Self::ALL
                .into_iter()
                .find(|platform| platform.name() == other)
                .ok_or_else(|| UnknownPlatform(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_its_platforms_with_or_without_the_prefix() {
        for (path, platform, own) in [
            ("/v26.0/123/events", Platform::Meta, "/v26.0/123/events"),
            ("/meta/v26.0/123/events", Platform::Meta, "/v26.0/123/events"),
            ("/meta/v26.0/dataset_quality", Platform::MetaQuality, "/v26.0/dataset_quality"),
            ("/v26.0/dataset_quality", Platform::MetaQuality, "/v26.0/dataset_quality"),
            ("/token", Platform::GoogleToken, "/token"),
            ("/google-oauth/token", Platform::GoogleToken, "/token"),
            (
                "/v26/customers/1:uploadClickConversions",
                Platform::GoogleAds,
                "/v26/customers/1:uploadClickConversions",
            ),
            ("/v1/events:ingest", Platform::DataManager, "/v1/events:ingest"),
            ("/debug/mp/collect", Platform::Ga4, "/debug/mp/collect"),
            ("/tiktok/open_api/v1.3/event/track/", Platform::TikTok, "/open_api/v1.3/event/track/"),
            ("/webhook/crm", Platform::Webhook, "/webhook/crm"),
        ] {
            assert_eq!(Platform::of_path(path), Some((platform, own)), "{path}");
        }
        assert_eq!(Platform::of_path("/favicon.ico"), None);
    }

    #[test]
    fn names_are_the_same_in_json_and_as_text() {
        for platform in Platform::ALL {
            assert_eq!(serde_json::to_value(platform).unwrap(), platform.name());
            assert_eq!(platform.name().parse::<Platform>().unwrap(), platform);
        }
    }
}

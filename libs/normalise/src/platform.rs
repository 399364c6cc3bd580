//! The platforms whose forms are known.

use std::str::FromStr;

/// Whose published form is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// Meta Conversions API.
    Meta,
    /// Google Ads API and Data Manager API: one set of rules for both.
    Google,
    /// Google Analytics 4, Measurement Protocol: Google's rules, with digits removed from names and cities.
    Ga4,
    /// TikTok Events API.
    Tiktok,
}

/// A destination for which there are no rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no destination with rules of its own; known are meta, google, ga4, tiktok")]
pub struct UnknownPlatform(String);

impl FromStr for Platform {
    type Err = UnknownPlatform;

    /// Takes the short names and the kinds of connection, in any case.
    fn from_str(name: &str) -> Result<Self, UnknownPlatform> {
        let known = |names: &[&str]| names.iter().any(|known| name.trim().eq_ignore_ascii_case(known));
        if known(&["meta", "meta_capi", "facebook"]) {
            Ok(Self::Meta)
        } else if known(&["google", "google_ads", "google_data_manager"]) {
            Ok(Self::Google)
        } else if known(&["ga4", "ga4_mp"]) {
            Ok(Self::Ga4)
        } else if known(&["tiktok", "tiktok_events"]) {
            Ok(Self::Tiktok)
        } else {
            Err(UnknownPlatform(name.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_connection_names_its_platform() {
        for (name, platform) in [
            ("meta_capi", Platform::Meta),
            ("google_ads", Platform::Google),
            ("google_data_manager", Platform::Google),
            ("ga4_mp", Platform::Ga4),
            ("TikTok_Events", Platform::Tiktok),
        ] {
            assert_eq!(name.parse(), Ok(platform));
        }
        assert!("webhook".parse::<Platform>().is_err());
    }
}

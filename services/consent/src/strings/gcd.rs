//! Google's `gcd` parameter: the state of consent mode on a page, read and never written.
//!
//! Two digits, then a letter and a digit for each of ad_storage, analytics_storage, ad_user_data, ad_personalization. The
//! digits are undocumented and ignored; later pages append further pairs, ignored too. Letters as observed and published
//! by tag-management vendors, 2026-11: `l` unset, `p` denied by default, `q` denied by default and by update, `t` granted
//! by default, `r` denied by default and granted by update, `m` denied and `n` granted by update only, `u` granted by
//! default and denied by update, `v` granted by both.

use super::DecodeError;

/// Longest text that is read.
const MAX_BYTES: usize = 64;

/// One setting of consent mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Setting {
    /// Granted, denied, or not set.
    pub granted: Option<bool>,
    /// Whether it is an act of the visitor (an update) and not the page's default.
    pub by_visitor: bool,
}

/// Consent mode, version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConsentMode {
    /// Storage for ads.
    pub ad_storage: Setting,
    /// Storage for analytics.
    pub analytics_storage: Setting,
    /// Sending of user data to Google for ads.
    pub ad_user_data: Setting,
    /// Personalised ads.
    pub ad_personalization: Setting,
}

impl ConsentMode {
    /// Decodes a `gcd` value.
    ///
    /// # Errors
    /// Another form, or an unknown letter.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        let bytes = text.as_bytes();
        if bytes.len() > MAX_BYTES {
            return Err(DecodeError::TooLong);
        }
        if bytes.is_empty() {
            return Err(DecodeError::Empty);
        }
        let (start, pairs) = bytes.split_at_checked(2).ok_or(DecodeError::Truncated)?;
        let (pairs, rest) = pairs.as_chunks::<2>();
        if !start.iter().all(u8::is_ascii_digit) || !rest.is_empty() {
            return Err(DecodeError::BadCharacter);
        }
        if pairs.len() < 4 {
            return Err(DecodeError::Truncated);
        }
        let mut settings = [Setting::default(); 4];
        for (index, [letter, digit]) in pairs.iter().enumerate() {
            if !digit.is_ascii_digit() || !letter.is_ascii_lowercase() {
                return Err(DecodeError::BadCharacter);
            }
            if let Some(setting) = settings.get_mut(index) {
                *setting = Setting::of(*letter)?;
            }
        }
        let [ad_storage, analytics_storage, ad_user_data, ad_personalization] = settings;
        Ok(Self { ad_storage, analytics_storage, ad_user_data, ad_personalization })
    }
}

impl Setting {
    fn of(letter: u8) -> Result<Self, DecodeError> {
        let (granted, by_visitor) = match letter {
            b'l' => (None, false),
            b'p' => (Some(false), false),
            b't' => (Some(true), false),
            b'q' | b'm' | b'u' => (Some(false), true),
            b'r' | b'n' | b'v' => (Some(true), true),
            _ => return Err(DecodeError::UndefinedValue),
        };
        Ok(Self { granted, by_visitor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_told_from_a_default() -> Result<(), DecodeError> {
        let mode = ConsentMode::decode("11r1t1q1l5")?;
        assert_eq!(mode.ad_storage, Setting { granted: Some(true), by_visitor: true });
        assert_eq!(mode.analytics_storage, Setting { granted: Some(true), by_visitor: false });
        assert_eq!(mode.ad_user_data, Setting { granted: Some(false), by_visitor: true });
        assert_eq!(mode.ad_personalization, Setting { granted: None, by_visitor: false });
        Ok(())
    }

    #[test]
    fn further_pairs_are_ignored_and_other_forms_refused() {
        assert!(ConsentMode::decode("13l3l3l3l1l1").is_ok());
        assert_eq!(ConsentMode::decode("13l3l3l3"), Err(DecodeError::Truncated));
        assert_eq!(ConsentMode::decode("13x3l3l3l1"), Err(DecodeError::UndefinedValue));
        assert_eq!(ConsentMode::decode("G111"), Err(DecodeError::BadCharacter));
    }
}

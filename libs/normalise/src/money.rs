//! Currencies of ISO 4217.

use iso_currency::Currency;

use crate::text;

/// The ISO 4217 code in upper case. `None` for what is no currency to pay in: funds, metals, test codes.
///
/// Sources: ISO 4217, list one; Meta, "Custom Data Parameters" (2026-02), Google Ads API ClickConversion and TikTok
/// Events API 2.0 ask for it in upper case.
pub fn currency(text: &str) -> Option<&'static str> {
    let code = text::tidy(text);
    if code.len() != 3 || !code.is_ascii() {
        return None;
    }
    let currency = Currency::from_code(&code.to_ascii_uppercase())?;
    (!currency.is_special() && !currency.is_fund()).then(|| currency.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_currency_is_its_code_in_upper_case() {
        assert_eq!(currency(" usd "), Some("USD"));
        assert_eq!(currency("\u{feff}U\u{200b}SD\u{ad}"), Some("USD"));
        assert_eq!(currency("Eur"), Some("EUR"));
        for text in ["", "US", "$", "USDT", "ZZZ", "XXX", "XAU", "XTS", "€ur"] {
            assert_eq!(currency(text), None, "{text}");
        }
    }
}

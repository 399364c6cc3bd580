//! Money: ISO 4217 currencies and exact decimal amounts.
//!
//! Amounts are decimals from the text or JSON number that they came as to the JSON number that leaves, so 0.1 + 0.2
//! is 0.3. No rounding happens but where a caller asks for minor units.

mod amount;

use iso_currency::Currency;

use crate::text;

pub use amount::{Amount, BadAmount};

/// The ISO 4217 code in upper case. `None` for what is no currency to pay in: funds, metals, test codes.
///
/// Sources: ISO 4217, list one; Meta, "Custom Data Parameters" (2026-02), Google Ads API ClickConversion and TikTok
/// Events API 2.0 ask for it in upper case.
pub fn currency(text: &str) -> Option<&'static str> {
    let currency = known(text)?;
    (!currency.is_special() && !currency.is_fund()).then(|| currency.code())
}

/// How many digits the currency has behind the point: 2 for USD, 0 for JPY, 3 for KWD.
pub fn minor_units(code: &str) -> Option<u32> {
    known(code)?.exponent().map(u32::from)
}

fn known(text: &str) -> Option<Currency> {
    let code = text::tidy(text);
    if code.len() != 3 || !code.is_ascii() {
        return None;
    }
    Currency::from_code(&code.to_ascii_uppercase())
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

    #[test]
    fn minor_units_are_the_currencys_own() {
        assert_eq!(minor_units("USD"), Some(2));
        assert_eq!(minor_units("jpy"), Some(0));
        assert_eq!(minor_units("KWD"), Some(3));
        assert_eq!(minor_units("ZZZ"), None);
    }
}

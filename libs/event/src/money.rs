//! Money: an exact decimal and its currency. Never a float.

use std::str::FromStr;

use iso_currency::Currency;
use rust_decimal::Decimal;

/// An amount of a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    /// The amount in main units, as exact as it was given.
    pub amount: Decimal,
    /// ISO 4217.
    pub currency: Currency,
}

/// What is no money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a decimal number.
    #[error("not a decimal number")]
    Amount,
    /// Not an ISO 4217 code.
    #[error("not a currency code of ISO 4217")]
    Currency,
    /// Two currencies cannot be added.
    #[error("the currencies differ")]
    Mixed,
    /// Larger than can be held.
    #[error("the amount is out of range")]
    Range,
}

impl Money {
    /// From the text of a JSON number or of a sender's string, and a currency code in any case.
    ///
    /// # Errors
    /// One of the two cannot be read.
    pub fn parse(amount: &str, currency: &str) -> Result<Self, MoneyError> {
        Ok(Self { amount: parse_amount(amount)?, currency: parse_currency(currency)? })
    }

    /// The sum.
    ///
    /// # Errors
    /// Different currencies, or out of range.
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Mixed);
        }
        let amount = self.amount.checked_add(other.amount).ok_or(MoneyError::Range)?;
        Ok(Self { amount, ..self })
    }

    /// The difference.
    ///
    /// # Errors
    /// Different currencies, or out of range.
    pub fn minus(self, other: Self) -> Result<Self, MoneyError> {
        self.plus(Self { amount: -other.amount, ..other })
    }

    /// So many times.
    ///
    /// # Errors
    /// Out of range.
    pub fn times(self, factor: Decimal) -> Result<Self, MoneyError> {
        Ok(Self { amount: self.amount.checked_mul(factor).ok_or(MoneyError::Range)?, ..self })
    }

    /// Rounded half away from zero to the currency's smallest unit; unchanged where the currency has none.
    #[must_use]
    pub fn rounded(self) -> Self {
        let Some(digits) = self.currency.exponent() else { return self };
        let strategy = rust_decimal::RoundingStrategy::MidpointAwayFromZero;
        Self { amount: self.amount.round_dp_with_strategy(u32::from(digits), strategy), ..self }
    }
}

impl std::fmt::Display for Money {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.amount, self.currency.code())
    }
}

/// A decimal from the text of a JSON number ("1e2" included) or from what senders write in strings: "45.00", " $45.00 ",
/// "1,234.50". A lone comma is ambiguous ("1,234" or "12,50") and refused.
///
/// # Errors
/// [`MoneyError::Amount`].
pub fn parse_amount(text: &str) -> Result<Decimal, MoneyError> {
    let text = text.trim().trim_matches(|c: char| matches!(c, '$' | '€' | '£') || c.is_whitespace());
    let plain =
        if text.contains(',') { without_thousands(text).ok_or(MoneyError::Amount)? } else { text.to_owned() };
    let decimal =
        if plain.contains(['e', 'E']) { Decimal::from_scientific(&plain) } else { Decimal::from_str(&plain) };
    decimal.map_err(|_| MoneyError::Amount)
}

/// "1,234,567.50" without its commas; only with a point behind them.
fn without_thousands(text: &str) -> Option<String> {
    let (whole, fraction) = text.split_once('.')?;
    let mut groups = whole.split(',');
    let first = groups.next()?.trim_start_matches('-');
    let regular = (1..=3).contains(&first.len()) && groups.all(|g| g.len() == 3);
    (regular && !fraction.contains(',')).then(|| format!("{}.{fraction}", whole.replace(',', "")))
}

/// A currency from its code, in any case.
///
/// # Errors
/// [`MoneyError::Currency`].
pub fn parse_currency(code: &str) -> Result<Currency, MoneyError> {
    Currency::from_code(&code.trim().to_ascii_uppercase()).ok_or(MoneyError::Currency)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_stay_exact() {
        for (text, expected) in [
            ("0.1", "0.1"),
            ("54.40", "54.40"),
            ("-3", "-3"),
            ("1e2", "100"),
            (" $45.00 ", "45.00"),
            ("1,234,567.50", "1234567.50"),
            ("12345678901234567890.12", "12345678901234567890.12"),
        ] {
            assert_eq!(parse_amount(text).unwrap().to_string(), expected, "{text}");
        }
        for bad in ["", "abc", "1,234", "12,50", "1,23.4", "NaN", "1.2.3", "0x10"] {
            assert_eq!(parse_amount(bad), Err(MoneyError::Amount), "{bad}");
        }
    }

    #[test]
    fn a_tenth_and_two_tenths_are_three_tenths() {
        let sum = Money::parse("0.1", "eur").unwrap().plus(Money::parse("0.2", "EUR").unwrap()).unwrap();
        assert_eq!(sum.to_string(), "0.3 EUR");
        assert_eq!(sum.minus(Money::parse("0.3", "USD").unwrap()), Err(MoneyError::Mixed));
    }

    #[test]
    fn rounding_follows_the_currency() {
        assert_eq!(Money::parse("10.005", "EUR").unwrap().rounded().to_string(), "10.01 EUR");
        assert_eq!(Money::parse("10.5", "JPY").unwrap().rounded().to_string(), "11 JPY");
        assert_eq!(Money::parse("1", "XX").unwrap_err(), MoneyError::Currency);
    }
}

//! An exact amount, read from what shops write and written as the number that platforms read.

use std::fmt;

use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::{Number, Value};

use super::currency;
use crate::text;

/// Marks that may stand beside an amount; ISO 4217 codes may too.
const MARKS: [&str; 20] = [
    "r", "us", "ca", "c", "a", "au", "hk", "nt", "nz", "s", "rs", "kr", "zł", "kč", "ft", "fr", "sfr", "lei",
    "лв", "руб",
];

/// Most digits of an amount before and behind the point together that a JSON reader's double keeps.
const MOST_DIGITS: usize = 15;

/// An amount of money, exact. Its currency stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Amount(Decimal);

/// Why something is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAmount {
    /// Nothing there.
    #[error("no amount")]
    Missing,
    /// Neither a number nor a text that is one.
    #[error("not a number")]
    NotANumber,
    /// Separators that could be read in two ways, or in none.
    #[error("separators cannot be read")]
    Separators,
    /// More digits than arrive unchanged.
    #[error("too many digits")]
    TooLarge,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(Decimal::ZERO);

    /// Reads a JSON number, or a string as [`Amount::parse`] does.
    pub fn from_json(value: &Value) -> Result<Self, BadAmount> {
        match value {
            Value::Null => Err(BadAmount::Missing),
            Value::Number(number) => Self::from_number(number),
            Value::String(text) => Self::parse(text),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => Err(BadAmount::NotANumber),
        }
    }

    /// Reads a JSON number. A double is taken as the shortest decimal that it prints as, hence without noise.
    pub fn from_number(number: &Number) -> Result<Self, BadAmount> {
        let text = number.to_string();
        let decimal = if text.contains(['e', 'E']) { Decimal::from_scientific(&text) } else { text.parse() };
        decimal.map_err(|_| BadAmount::TooLarge).and_then(bounded)
    }

    /// Reads an amount as shops write it: `1,234.50`, `1.234,50`, `1 234,50`, `1'234.50`, `$12`, `12 EUR`, `-3.5`.
    ///
    /// A point alone is decimal; a comma alone with three digits behind it groups thousands, else it is decimal.
    pub fn parse(text: &str) -> Result<Self, BadAmount> {
        let text = text::tidy(text);
        if text.is_empty() {
            return Err(BadAmount::Missing);
        }
        let (negative, body) = without_marks(&text)?;
        let plain = plain_decimal(body)?;
        let decimal: Decimal = plain.parse().map_err(|_| BadAmount::TooLarge)?;
        bounded(if negative { -decimal } else { decimal })
    }

    /// The amount as the JSON number that a reader's double shows unchanged; whole amounts as integers.
    pub fn to_number(self) -> Number {
        // Display of a decimal is digits, perhaps a minus and a point: always a JSON number.
        self.to_string().parse().unwrap_or_else(|_| Number::from(0))
    }

    /// The amount times a quantity; `None` on overflow.
    pub fn times(self, quantity: Self) -> Option<Self> {
        self.0.checked_mul(quantity.0).map(Self)
    }

    /// The sum; `None` on overflow.
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference; `None` on overflow.
    pub fn minus(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// Below zero.
    pub fn is_negative(self) -> bool {
        self.0 < Decimal::ZERO
    }

    /// Zero.
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// The whole number, if it is one.
    pub fn as_whole(self) -> Option<i64> {
        if self.0.fract().is_zero() { self.0.trunc().to_string().parse().ok() } else { None }
    }

    /// The amount in the currency's minor units (cents), halves away from zero; `None` for an unknown currency.
    pub fn in_minor_units(self, currency: &str) -> Option<i64> {
        let scale = Decimal::from(10_i64.checked_pow(super::minor_units(currency)?)?);
        let minor =
            self.0.checked_mul(scale)?.round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero);
        Self(minor).as_whole()
    }
}

impl From<i64> for Amount {
    fn from(whole: i64) -> Self {
        Self(Decimal::from(whole))
    }
}

impl From<Amount> for Decimal {
    fn from(amount: Amount) -> Self {
        amount.0
    }
}

impl From<Decimal> for Amount {
    fn from(decimal: Decimal) -> Self {
        Self(decimal)
    }
}

impl fmt::Display for Amount {
    /// The shortest decimal: `30`, `30.5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.normalize(), f)
    }
}

fn bounded(decimal: Decimal) -> Result<Amount, BadAmount> {
    let amount = Amount(decimal.normalize());
    let digits = amount.to_string().bytes().filter(u8::is_ascii_digit).count();
    if digits > MOST_DIGITS + 1 {
        // Noise of a sum of doubles (0.30000000000000004) is rounded off; what is big is refused.
        let rounded = Amount(decimal.round_sf(MOST_DIGITS as u32).ok_or(BadAmount::TooLarge)?.normalize());
        let is_close = decimal.trunc().to_string().len() <= MOST_DIGITS;
        return if is_close { Ok(rounded) } else { Err(BadAmount::TooLarge) };
    }
    Ok(amount)
}

/// Sign and digits of an amount, without currency signs and codes around them.
fn without_marks(text: &str) -> Result<(bool, &str), BadAmount> {
    let is_digit = |c: char| text::decimal_digit(c).is_some();
    let first = text.find(is_digit).ok_or(BadAmount::NotANumber)?;
    let last = text.rfind(is_digit).ok_or(BadAmount::NotANumber)?;
    let end = last + text[last..].chars().next().map_or(1, char::len_utf8);
    // A leading point belongs to the number (".5"), unless it ends an abbreviation ("Rs.5").
    let (mut before, mut body) = (&text[..first], &text[first..end]);
    if before.ends_with('.') && !before.trim_end_matches('.').ends_with(char::is_alphabetic) {
        (before, body) = (&text[..first - 1], &text[first - 1..end]);
    }
    let negative = is_negative_mark(before)?;
    let behind = text[end..].trim_start_matches([',', '.']).trim_end_matches('-');
    if is_negative_mark(behind)? { Err(BadAmount::NotANumber) } else { Ok((negative, body)) }
}

/// Tells whether what stands beside the digits holds a minus; an error if it holds more than a currency.
fn is_negative_mark(mark: &str) -> Result<bool, BadAmount> {
    let mut signs = 0;
    let mut negative = false;
    let mut letters = String::new();
    for c in mark.chars() {
        match c {
            '-' | '\u{2212}' | '+' => {
                signs += 1;
                negative |= c != '+';
            }
            '.' => {}
            c if c.is_alphabetic() => letters.extend(c.to_lowercase()),
            c if c.is_whitespace() || is_currency_sign(c) => {}
            _ => return Err(BadAmount::NotANumber),
        }
    }
    let is_currency = letters.is_empty() || MARKS.contains(&letters.as_str()) || currency(&letters).is_some();
    if signs <= 1 && is_currency { Ok(negative) } else { Err(BadAmount::NotANumber) }
}

fn is_currency_sign(c: char) -> bool {
    matches!(
        c,
        '$' | '¢' | '£' | '¤' | '¥' | '฿' | '₽' | '\u{20a0}'
            ..='\u{20cf}'
                | '\u{fdfc}'
                | '\u{fe69}'
                | '\u{ff04}'
                | '\u{ffe0}'
                | '\u{ffe1}'
                | '\u{ffe5}'
                | '\u{ffe6}'
    )
}

/// The digits with a point as decimal separator and nothing else.
fn plain_decimal(body: &str) -> Result<String, BadAmount> {
    let decimal_at = decimal_separator(body)?;
    let mut whole = String::new();
    let mut fraction = String::new();
    let mut groups = vec![0_usize];
    for (at, c) in body.char_indices() {
        let is_fraction = decimal_at.is_some_and(|decimal| at > decimal);
        match text::decimal_digit(c) {
            Some(digit) if is_fraction => fraction.push(char::from(b'0' + digit)),
            Some(digit) => {
                whole.push(char::from(b'0' + digit));
                if let Some(group) = groups.last_mut() {
                    *group += 1;
                }
            }
            None if Some(at) == decimal_at => {}
            None if is_fraction => return Err(BadAmount::Separators),
            None if is_group_separator(c) => groups.push(0),
            None => return Err(BadAmount::NotANumber),
        }
    }
    if !are_thousands(&groups) {
        return Err(BadAmount::Separators);
    }
    if whole.is_empty() {
        whole.push('0');
    }
    Ok(if fraction.is_empty() { whole } else { format!("{whole}.{fraction}") })
}

/// Where the decimal separator stands, if there is one.
fn decimal_separator(body: &str) -> Result<Option<usize>, BadAmount> {
    let positions = |of: &[char]| -> Vec<usize> { body.match_indices(of).map(|(at, _)| at).collect() };
    let (points, commas) = (positions(&['.', '\u{66b}']), positions(&[',']));
    match (points.as_slice(), commas.as_slice()) {
        ([], []) => Ok(None),
        ([point], []) => Ok(Some(*point)),
        ([], [comma]) => {
            let behind = body.len() - comma - 1;
            let is_grouping = behind == 3 && (1..=3).contains(comma) && !body.starts_with('0');
            Ok(if is_grouping { None } else { Some(*comma) })
        }
        // Several of one kind group; they cannot all be decimal.
        ([_, ..], []) | ([], [_, ..]) => Ok(None),
        ([.., point], [.., comma]) => {
            let (last, count) = if point > comma { (*point, points.len()) } else { (*comma, commas.len()) };
            if count == 1 { Ok(Some(last)) } else { Err(BadAmount::Separators) }
        }
    }
}

fn is_group_separator(c: char) -> bool {
    matches!(c, '.' | ',' | '\'' | '\u{2019}' | '_' | '\u{66c}') || c.is_whitespace()
}

/// Groups of three, or India's of two before the last three.
fn are_thousands(groups: &[usize]) -> bool {
    let [first, between @ .., last] = groups else { return true };
    let is_size = |size: usize| (1..=size).contains(first) && between.iter().all(|group| *group == size);
    *last == 3 && (is_size(3) || is_size(2))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(text: &str) -> String {
        Amount::parse(text).map(|amount| amount.to_string()).unwrap_or_else(|why| why.to_string())
    }

    #[test]
    fn amounts_are_read_as_shops_write_them() {
        for (text, amount) in [
            ("1,234.50", "1234.5"),
            ("1.234,50", "1234.5"),
            ("1 234,50", "1234.5"),
            ("1\u{202f}234,50 €", "1234.5"),
            ("1'234.50", "1234.5"),
            ("12,34,567.00", "1234567"),
            ("1,234", "1234"),
            ("1,234,567", "1234567"),
            ("1.234.567", "1234567"),
            ("1.234", "1.234"),
            ("0,123", "0.123"),
            ("12,5", "12.5"),
            ("$12", "12"),
            ("US$ 12.00", "12"),
            ("R$ 12,90", "12.9"),
            ("12 EUR", "12"),
            ("usd 12", "12"),
            ("Rs.5", "5"),
            (".5", "0.5"),
            ("$.50", "0.5"),
            ("5.", "5"),
            ("12,-", "12"),
            ("-$3.50", "-3.5"),
            ("$-3.50", "-3.5"),
            ("\u{2212}3", "-3"),
            ("\u{661}\u{662}\u{66b}\u{665}", "12.5"),
            ("0.10", "0.1"),
        ] {
            assert_eq!(shown(text), amount, "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for (text, why) in [
            ("", "no amount"),
            ("  ", "no amount"),
            ("free", "not a number"),
            ("NaN", "not a number"),
            ("12abcd", "not a number"),
            ("--3", "not a number"),
            ("3-5", "not a number"),
            ("(12)", "not a number"),
            ("1,23,4", "separators cannot be read"),
            ("1.2.3", "separators cannot be read"),
            ("1,234.567,89", "separators cannot be read"),
            ("1.5 5", "separators cannot be read"),
            ("12345678901234567890", "too many digits"),
            ("99999999999999999999999999999999999999", "too many digits"),
        ] {
            assert_eq!(shown(text), why, "{text}");
        }
    }

    #[test]
    fn a_number_leaves_as_it_came() {
        for number in
            [json!(30.5), json!(0.1), json!(22.5), json!(30), json!(-3.07), json!(1e3), json!(0.00001)]
        {
            let amount = Amount::from_json(&number).unwrap();
            assert_eq!(amount.to_number().as_f64(), number.as_f64(), "{number}");
        }
        assert_eq!(Amount::from_json(&json!(45.0)).unwrap().to_number().to_string(), "45");
        assert_eq!(Amount::from_json(&json!("19.90")).unwrap().to_number().to_string(), "19.9");
        assert_eq!(Amount::from_json(&json!(1e300)), Err(BadAmount::TooLarge));
        assert_eq!(Amount::from_json(&json!([1])), Err(BadAmount::NotANumber));
        assert_eq!(Amount::from_json(&json!(null)), Err(BadAmount::Missing));
    }

    #[test]
    fn sums_have_no_float_noise() {
        let of = |text| Amount::parse(text).unwrap();
        assert_eq!(of("0.1").plus(of("0.2")).unwrap().to_number().to_string(), "0.3");
        assert_eq!(of("9.4").times(of("3")).unwrap().to_number().to_string(), "28.2");
        assert_eq!(Amount::from_json(&json!(0.1 + 0.2)).unwrap().to_string(), "0.3");
    }

    #[test]
    fn minor_units_follow_the_currency() {
        let of = |text| Amount::parse(text).unwrap();
        assert_eq!(of("12.345").in_minor_units("EUR"), Some(1235));
        assert_eq!(of("12").in_minor_units("JPY"), Some(12));
        assert_eq!(of("1.2345").in_minor_units("KWD"), Some(1235));
        assert_eq!(of("12").in_minor_units("ZZZ"), None);
        assert_eq!(Amount::from(Decimal::from(of("12.50"))), of("12.5"));
    }
}

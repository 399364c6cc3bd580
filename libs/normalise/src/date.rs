//! Dates of birth. Meta alone takes them, as YYYYMMDD; its SDKs also as day, month and year apart.
//!
//! Source: Meta, "Customer Information Parameters" (2026-01): year 1900 to now, any separators; its example puts the
//! month first, so that is how an ambiguous date is read. Two-digit years and month names are refused, not guessed.

use jiff::civil::Date;

use crate::Reason;
use crate::rule::Form;
use crate::text;

/// First year of birth that Meta takes.
const FIRST_YEAR: i16 = 1900;
/// Last year of birth where the caller has no clock.
const LAST_YEAR: i16 = 2100;

/// A part of a date that is sent alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Day of the month, 01 to 31.
    Day,
    /// Month, 01 to 12.
    Month,
    /// Year, four digits.
    Year,
}

/// A date of birth as YYYYMMDD. A time of day behind it is cut off without any shift of zone.
pub(crate) fn birthday(text: &str, now_year: Option<i16>) -> Form {
    let last_year = now_year.unwrap_or(LAST_YEAR);
    let groups = digit_groups(without_time(text))?;
    let date = match groups.iter().map(|group| group.len()).collect::<Vec<_>>().as_slice() {
        [8] => from_eight_digits(&groups[0], last_year)?,
        [4, 1..=2, 1..=2] => from_parts(&groups[0], &groups[1], &groups[2], last_year)?,
        [1..=2, 1..=2, 4] => {
            from_parts(&groups[2], &groups[0], &groups[1], last_year).or_else(|month_first| {
                from_parts(&groups[2], &groups[1], &groups[0], last_year).map_err(|_| month_first)
            })?
        }
        [1..=2, 1..=2, 1..=2] => return Err(Reason::ShortYear),
        _ => return Err(Reason::NotADate),
    };
    Ok(format!("{:04}{:02}{:02}", date.year(), date.month(), date.day()))
}

/// Day, month or year alone, padded with zeros.
pub(crate) fn part(text: &str, part: Part, now_year: Option<i16>) -> Form {
    let groups = digit_groups(text)?;
    let [group] = groups.as_slice() else { return Err(Reason::NotANumber) };
    let number: i16 = group.parse().map_err(|_| Reason::OutOfRange)?;
    match part {
        Part::Day if (1..=31).contains(&number) && group.len() <= 2 => Ok(format!("{number:02}")),
        Part::Day => Err(Reason::NoDayOfMonth),
        Part::Month if (1..=12).contains(&number) && group.len() <= 2 => Ok(format!("{number:02}")),
        Part::Month => Err(Reason::NoMonth),
        Part::Year if group.len() != 4 => Err(Reason::ShortYear),
        Part::Year if (FIRST_YEAR..=now_year.unwrap_or(LAST_YEAR)).contains(&number) => {
            Ok(format!("{number:04}"))
        }
        Part::Year => Err(Reason::YearOutOfRange),
    }
}

/// The part before a time of day: `1997-02-16T00:00:00Z`, `16.02.1997 00:00`.
fn without_time(text: &str) -> &str {
    match text.split_once(['T', 't', ' ']) {
        Some((date, time)) if time.contains(':') => date,
        _ => text,
    }
}

/// The runs of digits of a text in which nothing but separators stands beside them.
fn digit_groups(text: &str) -> Result<Vec<String>, Reason> {
    let mut groups: Vec<String> = vec![String::new()];
    for c in text.chars() {
        match (text::decimal_digit(c), groups.last_mut()) {
            (Some(digit), Some(group)) => group.push(char::from(b'0' + digit)),
            (None, Some(group)) if c.is_alphanumeric() => {
                return Err(if group.is_empty() { Reason::NotADate } else { Reason::LettersInside });
            }
            (_, Some(group)) if group.is_empty() => {}
            _ => groups.push(String::new()),
        }
    }
    groups.retain(|group| !group.is_empty());
    Ok(groups)
}

/// Eight digits: the year first, as published; else last, which 1900 and later tell apart (0216 is no such year).
fn from_eight_digits(digits: &str, last_year: i16) -> Result<Date, Reason> {
    let ymd = from_parts(&digits[..4], &digits[4..6], &digits[6..], last_year);
    ymd.or_else(|year_first| {
        from_parts(&digits[4..], &digits[..2], &digits[2..4], last_year)
            .or_else(|_| from_parts(&digits[4..], &digits[2..4], &digits[..2], last_year))
            .map_err(|_| year_first)
    })
}

fn from_parts(year: &str, month: &str, day: &str, last_year: i16) -> Result<Date, Reason> {
    let (Ok(year), Ok(month), Ok(day)) = (year.parse::<i16>(), month.parse(), day.parse()) else {
        return Err(Reason::NotADate);
    };
    let date = Date::new(year, month, day).map_err(|_| Reason::NoSuchDate)?;
    if year < FIRST_YEAR {
        return Err(Reason::YearBefore1900);
    }
    if year > last_year {
        return Err(Reason::YearInFuture);
    }
    Ok(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_month_comes_first_unless_it_cannot() {
        assert_eq!(birthday("02/03/1990", None), Ok("19900203".into()));
        assert_eq!(birthday("16/02/1990", None), Ok("19900216".into()));
        assert_eq!(birthday("16021997", None), Ok("19970216".into()));
        assert_eq!(birthday("02161997", None), Ok("19970216".into()));
    }

    #[test]
    fn a_time_of_day_is_cut_off() {
        assert_eq!(birthday("1997-02-16T23:59:59-11:00", None), Ok("19970216".into()));
        assert_eq!(birthday("16.02.1997 00:00", None), Ok("19970216".into()));
    }

    #[test]
    fn a_date_that_does_not_exist_is_refused() {
        for (text, why) in [
            ("1997-02-30", Reason::NoSuchDate),
            ("1900-02-29", Reason::NoSuchDate),
            ("97-02-16", Reason::ShortYear),
            ("Feb 16 1997", Reason::NotADate),
            ("16 Feb 1997", Reason::NotADate),
            ("1997", Reason::NotADate),
            ("-", Reason::NotADate),
            ("1899-12-31", Reason::YearBefore1900),
            ("2031-01-01", Reason::YearInFuture),
        ] {
            assert_eq!(birthday(text, Some(2030)), Err(why), "{text}");
        }
    }

    #[test]
    fn parts_are_padded_and_bounded() {
        assert_eq!(part("6", Part::Day, None), Ok("06".into()));
        assert_eq!(part("006", Part::Day, None), Err(Reason::NoDayOfMonth));
        assert_eq!(part("12", Part::Month, None), Ok("12".into()));
        assert_eq!(part("99999999", Part::Month, None), Err(Reason::OutOfRange));
        assert_eq!(part("1997", Part::Year, Some(1996)), Err(Reason::YearOutOfRange));
    }
}

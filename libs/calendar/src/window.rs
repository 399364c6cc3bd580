//! One window on the clocks of a place.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan as _};

/// Days of the week, in the order of their bits.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// The longest single window.
const LONGEST: SignedDuration = SignedDuration::from_hours(366 * 24);
/// Years in which a single window may lie: far from where arithmetic with time zones ends.
const YEARS: std::ops::RangeInclusive<i16> = 2000..=2199;
/// The end of a day, which is no time of it.
const END_OF_DAY: &str = "24:00";

/// A window that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {why}")]
pub struct WindowError {
    /// time_zone, days, from, to.
    pub field: &'static str,
    /// What is wrong with it, and what is allowed.
    pub why: String,
}

/// From an instant on, until just before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first instant.
    pub from: Timestamp,
    /// The first instant after it.
    pub to: Timestamp,
}

/// When clocks of a place show a time between two others.
///
/// It begins at the first instant at which they show `from` or a later time, and ends at the last at which they stop to show an
/// earlier one than `to`: a freeze that touches an hour which the clocks show twice covers both, and one that touches an hour which
/// they skip begins or ends where they skip it.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    zone: TimeZone,
    when: When,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Once {
        from: DateTime,
        to: DateTime,
    },
    /// A bit for each of [`DAYS`]. A time `to` that is not after `from` is one of the next day.
    Weekly {
        days: u8,
        from: Time,
        to: Time,
    },
}

impl Window {
    /// Of what an operator wrote: a name of the IANA time zone database; days of the week (`mon` to `sun`), or none for a window that
    /// comes once; and two times: `2026-11-27T00:00` where it comes once, else `22:00`, and `24:00` for the end of a day.
    ///
    /// # Errors
    /// The first thing that is wrong, by field.
    pub fn parse(time_zone: &str, days: &[String], from: &str, to: &str) -> Result<Self, WindowError> {
        let is_a_place = |zone: &TimeZone| zone.iana_name().is_some() && !zone.is_unknown();
        let zone = TimeZone::get(time_zone).ok().filter(is_a_place);
        let zone = zone.ok_or_else(|| WindowError {
            field: "time_zone",
            why: format!(
                "is `{time_zone}`, and not a time zone of the IANA database: give one as in `Europe/Berlin`"
            ),
        })?;
        let when = if days.is_empty() {
            parse_once(&zone, from, to)?
        } else {
            let from = time("from", from)?;
            let to = if to == END_OF_DAY { Time::midnight() } else { time("to", to)? };
            When::Weekly { days: parse_days(days)?, from, to }
        };
        Ok(Self { zone, when })
    }

    /// Its time zone's name, as the database spells it.
    #[must_use]
    pub fn time_zone(&self) -> &str {
        self.zone.iana_name().unwrap_or_default()
    }

    /// The days on which it begins; none: it comes once.
    #[must_use]
    pub fn days(&self) -> Vec<String> {
        match self.when {
            When::Once { .. } => Vec::new(),
            When::Weekly { days, .. } => {
                let begins = (0_u8..).zip(DAYS).filter(|(bit, _)| days & (1 << bit) != 0);
                begins.map(|(_, name)| name.to_owned()).collect()
            }
        }
    }

    /// Where it begins, as [`Self::parse`] takes it.
    #[must_use]
    pub fn from(&self) -> String {
        match self.when {
            When::Once { from, .. } => from.to_string(),
            When::Weekly { from, .. } => from.to_string(),
        }
    }

    /// Where it ends, as [`Self::parse`] takes it.
    #[must_use]
    pub fn to(&self) -> String {
        match self.when {
            When::Once { to, .. } => to.to_string(),
            When::Weekly { to, .. } if to == Time::midnight() => END_OF_DAY.to_owned(),
            When::Weekly { to, .. } => to.to_string(),
        }
    }

    /// The span that holds at an instant; the one that ends last, if there are two.
    #[must_use]
    pub fn span_at(&self, at: Timestamp) -> Option<Span> {
        let spans = self.spans_around(at, -2, 1).into_iter();
        spans.filter(|span| span.from <= at && at < span.to).max_by_key(|span| span.to)
    }

    /// When it begins next after an instant; none: it does not come again.
    #[must_use]
    pub fn next_from(&self, after: Timestamp) -> Option<Timestamp> {
        // Two weeks: one day of them may have no such hour.
        let spans = self.spans_around(after, -1, 15).into_iter();
        spans.map(|span| span.from).filter(|from| *from > after).min()
    }

    /// When it ended last at or before an instant; none: it was not over yet.
    #[must_use]
    pub fn last_to(&self, at: Timestamp) -> Option<Timestamp> {
        let spans = self.spans_around(at, -16, 1).into_iter();
        spans.map(|span| span.to).filter(|to| *to <= at).max()
    }

    /// The single span, or those that begin so many days around an instant's.
    fn spans_around(&self, at: Timestamp, first_day: i32, last_day: i32) -> Vec<Span> {
        match self.when {
            When::Once { from, to } => span(&self.zone, from, to).into_iter().collect(),
            When::Weekly { days, from, to } => {
                let today = at.to_zoned(self.zone.clone()).date();
                let dates = (first_day..=last_day).filter_map(|step| today.checked_add(step.days()).ok());
                let begins = dates.filter(|date| days & bit_of(*date) != 0);
                begins.filter_map(|date| self.span_of_day(date, from, to)).collect()
            }
        }
    }

    fn span_of_day(&self, date: Date, from: Time, to: Time) -> Option<Span> {
        let last = if to > from { date } else { date.tomorrow().ok()? };
        span(&self.zone, date.to_datetime(from), last.to_datetime(to))
    }
}

fn bit_of(date: Date) -> u8 {
    1 << date.weekday().to_monday_zero_offset()
}

fn parse_once(zone: &TimeZone, from: &str, to: &str) -> Result<When, WindowError> {
    let (from, to) = (date_time("from", from)?, date_time("to", to)?);
    let Some(span) = span(zone, from, to) else {
        return Err(WindowError { field: "to", why: format!("is {to}, which is not after {from}") });
    };
    if span.to.duration_since(span.from) > LONGEST {
        return Err(WindowError {
            field: "to",
            why: format!("is {to}, more than 366 days after {from}: pause the connection instead"),
        });
    }
    Ok(When::Once { from, to })
}

fn parse_days(names: &[String]) -> Result<u8, WindowError> {
    names.iter().try_fold(0, |days, name| {
        let found = DAYS.iter().position(|known| known == name);
        let bit = found.ok_or_else(|| WindowError {
            field: "days",
            why: format!("names `{name}`; days are mon, tue, wed, thu, fri, sat, sun"),
        })?;
        Ok(days | (1 << bit))
    })
}

fn date_time(field: &'static str, text: &str) -> Result<DateTime, WindowError> {
    // Strictly so: an offset behind it would be another time than the zone's.
    let mut parsed = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"].iter();
    let parsed = parsed.find_map(|format| DateTime::strptime(format, text).ok());
    parsed.filter(|at| YEARS.contains(&at.year())).ok_or_else(|| WindowError {
        field,
        why: format!(
            "is `{text}`, and not a time as in `2026-11-27T00:00` (on the clocks of the time zone, 2000 to 2199)"
        ),
    })
}

fn time(field: &'static str, text: &str) -> Result<Time, WindowError> {
    let parsed = ["%H:%M:%S", "%H:%M"].iter().find_map(|format| Time::strptime(format, text).ok());
    parsed.ok_or_else(|| WindowError {
        field,
        why: format!("is `{text}`, and not a time of the day as in `22:00`"),
    })
}

fn span(zone: &TimeZone, from: DateTime, to: DateTime) -> Option<Span> {
    let span = Span { from: first(zone, from)?, to: last(zone, to)? };
    (from < to && span.from < span.to).then_some(span)
}

/// The first instant at which the clocks show this time or a later one.
fn first(zone: &TimeZone, at: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(at);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
        AmbiguousOffset::Gap { .. } => skipped(zone, ambiguous.later().ok()?),
    }
}

/// The instant from which on the clocks never show an earlier time.
fn last(zone: &TimeZone, at: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(at);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.later().ok(),
        AmbiguousOffset::Gap { .. } => skipped(zone, ambiguous.later().ok()?),
    }
}

/// When the clocks skipped a time that they would have shown at an instant had they not.
fn skipped(zone: &TimeZone, would_have: Timestamp) -> Option<Timestamp> {
    let after = would_have.checked_add(SignedDuration::from_nanos(1)).ok()?;
    zone.preceding(after).next().map(|transition| transition.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn window(zone: &str, days: &[&str], from: &str, to: &str) -> Result<Window, WindowError> {
        let days: Vec<String> = days.iter().map(|day| (*day).to_owned()).collect();
        Window::parse(zone, &days, from, to)
    }

    /// 8 March 2026: New York's clocks go from 02:00 to 03:00. 1 November 2026: from 02:00 back to 01:00.
    #[test]
    fn an_hour_that_is_skipped_or_shown_twice_belongs_to_the_window_as_said() {
        let cases = [
            // As ever.
            ("2026-03-07T01:00", "2026-03-07T03:00", "2026-03-07T06:00:00Z", "2026-03-07T08:00:00Z"),
            // Begins, ends, or does both where an hour is skipped.
            ("2026-03-08T02:30", "2026-03-08T05:00", "2026-03-08T07:00:00Z", "2026-03-08T09:00:00Z"),
            ("2026-03-08T01:00", "2026-03-08T02:30", "2026-03-08T06:00:00Z", "2026-03-08T07:00:00Z"),
            ("2026-03-08T01:59", "2026-03-08T03:01", "2026-03-08T06:59:00Z", "2026-03-08T07:01:00Z"),
            // Begins or ends in an hour that is shown twice: both are frozen.
            ("2026-11-01T01:30", "2026-11-01T03:00", "2026-11-01T05:30:00Z", "2026-11-01T08:00:00Z"),
            ("2026-11-01T00:00", "2026-11-01T01:30", "2026-11-01T04:00:00Z", "2026-11-01T06:30:00Z"),
            ("2026-11-01T01:00", "2026-11-01T01:30", "2026-11-01T05:00:00Z", "2026-11-01T06:30:00Z"),
        ];
        for (from, to, begins, ends) in cases {
            let once = window("America/New_York", &[], from, to).unwrap();
            let expected = Some(Span { from: at(begins), to: at(ends) });
            assert_eq!(once.span_at(at(begins)), expected, "{from} to {to}");
            assert_eq!(once.span_at(at(ends)), None);
            let weekly = window("America/New_York", &["sat", "sun"], &from[11..], &to[11..]).unwrap();
            assert_eq!(weekly.span_at(at(begins)), expected, "{from} to {to}, weekly");
        }
    }

    #[test]
    fn a_window_inside_a_skipped_hour_takes_no_time_and_comes_again_the_week_after() {
        let weekly = window("America/New_York", &["sun"], "02:10", "02:50").unwrap();
        let before = at("2026-03-02T00:00:00Z");
        assert_eq!(weekly.next_from(before), Some(at("2026-03-15T06:10:00Z")));
        assert_eq!(weekly.last_to(at("2026-03-14T00:00:00Z")), Some(at("2026-03-01T07:50:00Z")));
        let refused = window("America/New_York", &[], "2026-03-08T02:10", "2026-03-08T02:50").unwrap_err();
        assert_eq!(refused.field, "to");
    }

    #[test]
    fn what_is_no_window_is_refused_by_field() {
        let cases: [(&str, &[&str], &str, &str, &str); 14] = [
            ("Berlin", &[], "2026-11-27T00:00", "2026-11-28T00:00", "time_zone"),
            ("", &[], "2026-11-27T00:00", "2026-11-28T00:00", "time_zone"),
            ("+01:00", &[], "2026-11-27T00:00", "2026-11-28T00:00", "time_zone"),
            ("UTC", &[], "2026-11-27T00:00Z", "2026-11-28T00:00", "from"),
            ("UTC", &[], "2026-11-27T00:00-05:00", "2026-11-28T00:00", "from"),
            ("UTC", &[], "1999-11-27T00:00", "2026-11-28T00:00", "from"),
            ("UTC", &[], "2026-11-27", "2026-11-28T00:00", "from"),
            ("UTC", &[], "2026-11-27T00:00", "2026-11-31T00:00", "to"),
            ("UTC", &[], "2026-11-27T00:00", "2026-11-27T00:00", "to"),
            ("UTC", &[], "2026-11-27T00:00", "2026-11-26T00:00", "to"),
            ("UTC", &[], "2026-11-27T00:00", "2027-11-29T00:00", "to"),
            ("UTC", &["monday"], "22:00", "06:00", "days"),
            ("UTC", &["mon"], "24:00", "06:00", "from"),
            ("UTC", &["mon"], "22:00", "2026-11-28T00:00", "to"),
        ];
        for (zone, days, from, to, field) in cases {
            let refused = window(zone, days, from, to).expect_err(from);
            assert_eq!(refused.field, field, "{refused}");
        }
    }

    #[test]
    fn a_window_says_again_what_it_was_made_of() {
        for (zone, days, from, to) in [
            ("Europe/Berlin", &[][..], "2026-11-27T00:00:00", "2026-11-28T12:30:00"),
            ("UTC", &["fri", "mon"][..], "22:00:00", "24:00"),
        ] {
            let made = window(zone, days, from, to).unwrap();
            assert_eq!((made.time_zone(), made.from().as_str(), made.to().as_str()), (zone, from, to));
            let days = made.days();
            assert_eq!(Window::parse(zone, &days, &made.from(), &made.to()).unwrap(), made);
        }
        let named = window("europe/berlin", &["sun", "mon"], "01:00", "02:00").unwrap();
        assert_eq!((named.time_zone(), named.days().join(" ")), ("Europe/Berlin", "mon sun".to_owned()));
    }

    proptest! {
        /// Away from days on which clocks are changed, a window holds exactly when the clocks say so.
        #[test]
        fn a_window_holds_when_the_clocks_of_its_place_say_so(
            zone in prop::sample::select(vec!["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]),
            days in 1_u8..128,
            from in 0_i64..1_440,
            minutes in 1_i64..=1_440,
            second in 1_700_000_000_i64..1_900_000_000,
        ) {
            let now = Timestamp::from_second(second).unwrap();
            let local = now.to_zoned(TimeZone::get(zone).unwrap());
            let day = |step: i64| local.datetime().checked_add(step.days()).unwrap().to_zoned(local.time_zone().clone()).unwrap();
            prop_assume!((-2..=2).all(|step| day(step).offset() == local.offset()));
            let clock = |minute: i64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
            let names: Vec<&str> =
                (0_usize..7).filter(|bit| days & (1 << bit) != 0).map(|bit| DAYS[bit]).collect();
            let window = window(zone, &names, &clock(from), &clock(from + minutes)).unwrap();
            // The day before yesterday's window cannot reach here: none is longer than a day.
            let expected = [0_i64, 1].iter().any(|back| {
                let date = local.date().checked_sub(back.days()).unwrap();
                let begins = date.to_datetime(Time::midnight()).checked_add(from.minutes()).unwrap();
                let ends = begins.checked_add(minutes.minutes()).unwrap();
                days & bit_of(date) != 0 && begins <= local.datetime() && local.datetime() < ends
            });
            prop_assert_eq!(window.span_at(now).is_some(), expected);
            // What it says of its edges agrees with what it says of the instants beside them.
            let next = window.next_from(now).unwrap();
            prop_assert!(next > now && window.span_at(next).is_some());
            let last = window.last_to(now).unwrap();
            let just_before = last - SignedDuration::from_nanos(1);
            prop_assert!(last <= now && window.span_at(just_before).is_some_and(|span| span.to >= last));
        }
    }
}

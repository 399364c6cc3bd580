//! When connections are frozen: [`Window`]s on the clocks of a place, once or week after week, and the [`Calendar`] that they make
//! together. Pure: the time is handed in.
//!
//! A window is kept as an operator said it, in civil time, and becomes instants only when it is asked about: a time zone database
//! that learns of a new rule moves the window with the clocks of its place.

mod window;

pub use window::{Span, Window, WindowError};

use jiff::{SignedDuration, Timestamp};

/// The longest that a calendar looks ahead: who is frozen for longer is never released, for all that it says.
pub const HORIZON: SignedDuration = SignedDuration::from_hours(400 * 24);

/// Windows that hold the same connection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Calendar {
    windows: Vec<Window>,
}

impl Calendar {
    /// Of these windows, in any order; they may overlap.
    #[must_use]
    pub fn new(windows: Vec<Window>) -> Self {
        Self { windows }
    }

    /// The windows that hold at an instant, by their place in what the calendar was made of.
    pub fn holding(&self, at: Timestamp) -> impl Iterator<Item = usize> + '_ {
        let windows = self.windows.iter().enumerate();
        windows.filter(move |(_, window)| window.span_at(at).is_some()).map(|(place, _)| place)
    }

    /// When a freeze that holds at an instant ends: windows that overlap or follow one another without a gap are one. None: nothing
    /// is frozen. Never more than [`HORIZON`] and one window ahead.
    #[must_use]
    pub fn frozen_until(&self, at: Timestamp) -> Option<Timestamp> {
        let mut until = at;
        loop {
            let end =
                self.windows.iter().filter_map(|window| window.span_at(until)).map(|span| span.to).max();
            match end {
                Some(end) if end > until => until = end,
                _ => break,
            }
            if until.duration_since(at) > HORIZON {
                break;
            }
        }
        (until > at).then_some(until)
    }

    /// The next freeze that begins after an instant.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Span> {
        let from = self.windows.iter().filter_map(|window| window.next_from(after)).min()?;
        Some(Span { from, to: self.frozen_until(from)? })
    }

    /// When the newest window that is over at an instant ended; where nothing is frozen, that is when everything was released.
    #[must_use]
    pub fn last_end(&self, at: Timestamp) -> Option<Timestamp> {
        self.windows.iter().filter_map(|window| window.last_to(at)).max()
    }

    /// Whether a connection would be held for longer than [`HORIZON`] on end, beginning at `now` or with a later window.
    #[must_use]
    pub fn never_releases(&self, now: Timestamp) -> bool {
        let begins = self.windows.iter().filter_map(|window| window.next_from(now)).chain([now]);
        let mut ends = begins.filter_map(|begin| Some(self.frozen_until(begin)?.duration_since(begin)));
        ends.any(|held| held > HORIZON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn once(zone: &str, from: &str, to: &str) -> Window {
        Window::parse(zone, &[], from, to).unwrap()
    }

    fn weekly(zone: &str, days: &[&str], from: &str, to: &str) -> Window {
        let days: Vec<String> = days.iter().map(|day| (*day).to_owned()).collect();
        Window::parse(zone, &days, from, to).unwrap()
    }

    const ALL: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

    #[test]
    fn windows_that_overlap_or_touch_are_one_freeze() {
        let calendar = Calendar::new(vec![
            once("UTC", "2026-11-27T00:00", "2026-11-28T00:00"),
            once("UTC", "2026-11-27T12:00", "2026-11-29T00:00"),
            once("Asia/Tokyo", "2026-11-29T09:00", "2026-11-29T10:00"),
            once("UTC", "2026-11-29T01:01", "2026-11-29T02:00"),
        ]);
        let last = at("2026-11-29T01:00:00Z");
        let end = Some(last);
        assert_eq!(calendar.frozen_until(at("2026-11-26T23:59:59Z")), None);
        assert_eq!(calendar.frozen_until(at("2026-11-27T00:00:00Z")), end, "the third touches the second");
        assert_eq!(calendar.frozen_until(at("2026-11-29T00:59:59.999Z")), end);
        assert_eq!(calendar.frozen_until(last), None, "the end is no part of it");
        let next = calendar.next(at("2026-11-26T00:00:00Z")).unwrap();
        assert_eq!((next.from, Some(next.to)), (at("2026-11-27T00:00:00Z"), end));
        assert_eq!(calendar.holding(at("2026-11-27T13:00:00Z")).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(calendar.last_end(at("2026-11-29T01:00:30Z")), end);
        assert_eq!(calendar.last_end(at("2026-11-27T00:00:00Z")), None);
    }

    #[test]
    fn a_night_that_begins_on_friday_ends_on_saturday() {
        let calendar = Calendar::new(vec![weekly("Europe/Berlin", &["fri"], "22:00", "06:00")]);
        // 27 November 2026 is a Friday; Berlin is an hour ahead of UTC then.
        assert_eq!(calendar.frozen_until(at("2026-11-27T20:59:59Z")), None);
        let end = at("2026-11-28T05:00:00Z");
        for inside in ["2026-11-27T21:00:00Z", "2026-11-28T04:59:59Z"] {
            assert_eq!(calendar.frozen_until(at(inside)), Some(end), "{inside}");
        }
        assert_eq!(calendar.frozen_until(at("2026-11-28T21:30:00Z")), None, "Saturday's evening is free");
        let next = calendar.next(at("2026-11-28T05:00:00Z")).unwrap();
        assert_eq!(next.from, at("2026-12-04T21:00:00Z"));
        assert_eq!(calendar.last_end(at("2026-12-04T20:00:00Z")), Some(end));
    }

    #[test]
    fn days_that_follow_one_another_are_one_freeze() {
        let weekend = Calendar::new(vec![weekly("America/New_York", &["sat", "sun"], "00:00", "24:00")]);
        let whole = weekend.frozen_until(at("2026-11-28T12:00:00Z"));
        assert_eq!(whole, Some(at("2026-11-30T05:00:00Z")));
    }

    #[test]
    fn a_freeze_without_an_end_is_found_before_it_begins() {
        let now = at("2026-11-27T12:00:00Z");
        let nights = weekly("UTC", &ALL, "22:00", "06:00");
        let days = weekly("UTC", &ALL, "06:00", "22:00");
        assert!(!Calendar::new(vec![nights.clone()]).never_releases(now));
        assert!(Calendar::new(vec![nights, days]).never_releases(now));
        assert!(Calendar::new(vec![weekly("UTC", &ALL, "00:00", "24:00")]).never_releases(now));
        let far = |from: &str, to: &str| once("UTC", from, to);
        let years =
            vec![far("2030-01-01T00:00", "2030-12-31T00:00"), far("2030-12-31T00:00", "2031-06-01T00:00")];
        assert!(Calendar::new(years).never_releases(now), "also one that is years ahead");
        assert!(!Calendar::new(vec![]).never_releases(now));
    }
}

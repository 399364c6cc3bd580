//! Why a connection sends nothing for a while although it is live: an operator has paused it, or a window of the calendar holds it.
//! Delivery reads both from the configuration; here they are made, ended and kept for who asks later.

use jiff::{SignedDuration, Timestamp};
use tracklayer_calendar::{Calendar, Window, WindowError};
use tracklayer_ids::{ConnectionId, WorkspaceId};

use crate::error::ControlError;

/// Most characters of a reason.
const MAX_REASON_CHARS: usize = 200;
/// Most windows of a workspace that are neither removed nor over: each travels with every snapshot.
pub const MAX_FREEZES: usize = 200;
/// The fastest release that can be asked for, events a second.
const MAX_PACE: u32 = 1_000_000;
/// How long a window that is over is told to services: they send what it has held at the release pace.
const TOLD_AFTER_ITS_END: SignedDuration = SignedDuration::from_hours(60 * 24);

/// Why, in an operator's words: at most 200 characters, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(String);

/// A pause of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// When.
    pub paused_at: Timestamp,
    /// The label of the key that asked for it.
    pub paused_by: String,
    /// Why.
    pub reason: String,
    /// When and by whose key it was ended; none: it holds.
    pub resumed: Option<(Timestamp, String)>,
}

/// A window to be added; every field is right.
#[derive(Debug, Clone, PartialEq)]
pub struct NewFreeze {
    /// Whose.
    pub workspace: WorkspaceId,
    /// Which connection it holds; none: every one of the workspace.
    pub connection: Option<ConnectionId>,
    /// When.
    pub window: Window,
    /// Why.
    pub reason: Reason,
}

/// A window as an operator said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whose clocks.
    pub time_zone: String,
    /// On which days it begins; none: once.
    pub days: Vec<String>,
    /// From when.
    pub from: String,
    /// Until when.
    pub to: String,
}

/// A window of the calendar.
#[derive(Debug, Clone, PartialEq)]
pub struct Freeze {
    /// Its id.
    pub id: i64,
    /// Whose.
    pub workspace: WorkspaceId,
    /// Which connection it holds; none: every one of the workspace.
    pub connection: Option<ConnectionId>,
    /// When, as it was said.
    pub said: Said,
    /// When; none: this process cannot read it, since its time zone database is older. It holds meanwhile.
    pub window: Option<Window>,
    /// Why.
    pub reason: String,
    /// When it was added.
    pub created_at: Timestamp,
    /// The label of the key that added it.
    pub created_by: String,
    /// When and by whose key it was removed.
    pub removed: Option<(Timestamp, String)>,
}

impl Reason {
    /// Parses a reason; none is as good.
    ///
    /// # Errors
    /// [`ControlError::Invalid`].
    pub fn parse(field: &'static str, text: &str) -> Result<Self, ControlError> {
        let text = text.trim();
        if text.chars().count() > MAX_REASON_CHARS || text.chars().any(char::is_control) {
            return Err(ControlError::invalid(
                field,
                "must have at most 200 characters, no control characters",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Said {
    /// What a window was said to be.
    #[must_use]
    pub fn of(window: &Window) -> Self {
        let time_zone = window.time_zone().to_owned();
        Self { time_zone, days: window.days(), from: window.from(), to: window.to() }
    }

    /// The window.
    ///
    /// # Errors
    /// See [`Window::parse`].
    pub fn window(&self) -> Result<Window, WindowError> {
        Window::parse(&self.time_zone, &self.days, &self.from, &self.to)
    }
}

impl Freeze {
    /// Whether it does not come (again).
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.removed.is_some() || self.window.as_ref().is_some_and(|window| !comes(window, now))
    }

    /// Whether services have to know it: it comes, or what it has held may still be on its way.
    #[must_use]
    pub fn is_told(&self, now: Timestamp) -> bool {
        let last = || self.window.as_ref().and_then(|window| window.last_to(now));
        let ended_lately = || last().is_some_and(|to| now.duration_since(to) < TOLD_AFTER_ITS_END);
        self.removed.is_none() && (!self.is_over(now) || ended_lately())
    }
}

/// Whether a window holds now or will.
fn comes(window: &Window, now: Timestamp) -> bool {
    window.span_at(now).is_some() || window.next_from(now).is_some()
}

/// Refuses a window that would hold a connection for ever, alone or together with others that hold the same one.
///
/// # Errors
/// [`ControlError::NeverReleased`], [`ControlError::TooManyFreezes`], [`ControlError::Invalid`] for a window that is over.
pub fn check_calendar(new: &NewFreeze, others: &[Freeze], now: Timestamp) -> Result<(), ControlError> {
    if !comes(&new.window, now) {
        return Err(ControlError::invalid("window.to", "is over already; nothing would be held"));
    }
    // All that travel with the configuration count, also those that have ended lately.
    if others.iter().filter(|freeze| freeze.is_told(now)).count() >= MAX_FREEZES {
        return Err(ControlError::TooManyFreezes);
    }
    let others: Vec<&Freeze> = others.iter().filter(|freeze| !freeze.is_over(now)).collect();
    // Of one connection: its own windows and those of all. A new one for all may meet any connection's own.
    let mut held: Vec<Option<ConnectionId>> = match new.connection {
        Some(connection) => vec![Some(connection)],
        None => others.iter().map(|freeze| freeze.connection).chain([None]).collect(),
    };
    held.sort_unstable();
    held.dedup();
    for connection in held {
        let same = |freeze: &&&Freeze| freeze.connection.is_none() || freeze.connection == connection;
        let windows = others.iter().filter(same).filter_map(|freeze| freeze.window.clone());
        if Calendar::new(windows.chain([new.window.clone()]).collect()).never_releases(now) {
            return Err(ControlError::NeverReleased);
        }
    }
    Ok(())
}

/// Parses how fast what has waited is sent.
///
/// # Errors
/// [`ControlError::Invalid`].
pub fn parse_pace(events_per_second: Option<u32>) -> Result<Option<u32>, ControlError> {
    match events_per_second {
        Some(pace) if pace > MAX_PACE => {
            Err(ControlError::invalid("release_events_per_second", "must be 0 (no limit) to 1,000,000"))
        }
        fits => Ok(fits),
    }
}

impl From<WindowError> for ControlError {
    fn from(error: WindowError) -> Self {
        Self::invalid(format!("window.{}", error.field), error.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[&str], from: &str, to: &str) -> Window {
        let days: Vec<String> = days.iter().map(|day| (*day).to_owned()).collect();
        Window::parse("UTC", &days, from, to).unwrap()
    }

    fn freeze(connection: Option<i64>, window: Window) -> Freeze {
        Freeze {
            id: 1,
            workspace: WorkspaceId(1),
            connection: connection.map(ConnectionId),
            said: Said::of(&window),
            window: Some(window),
            reason: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            created_by: String::new(),
            removed: None,
        }
    }

    fn new(connection: Option<i64>, window: Window) -> NewFreeze {
        let reason = Reason::parse("reason", "").unwrap();
        NewFreeze { workspace: WorkspaceId(1), connection: connection.map(ConnectionId), window, reason }
    }

    const ALL: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

    #[test]
    fn no_connection_is_held_for_ever_by_what_holds_it_together() {
        let now: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
        let nights = || window(&ALL, "22:00", "06:00");
        let days = || window(&ALL, "06:00", "22:00");
        let others = [freeze(Some(7), nights())];
        let refused = |new| matches!(check_calendar(&new, &others, now), Err(ControlError::NeverReleased));
        assert!(refused(new(Some(7), days())));
        assert!(refused(new(None, days())), "those of all hold it, too");
        assert!(!refused(new(Some(8), days())), "another connection's nights are no matter");
        assert!(!refused(new(Some(7), nights())), "the same again");
        let mut removed = freeze(Some(7), nights());
        removed.removed = Some((now, "me".to_owned()));
        assert!(check_calendar(&new(Some(7), days()), &[removed], now).is_ok());
    }

    #[test]
    fn there_are_so_many_windows_that_come_and_no_more() {
        let now: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
        let over = || freeze(None, window(&[], "2026-01-01T00:00", "2026-01-02T00:00"));
        let lately = || freeze(None, window(&[], "2026-11-01T00:00", "2026-11-02T00:00"));
        let coming = || freeze(None, window(&[], "2026-12-01T00:00", "2026-12-02T00:00"));
        let others = |coming_ones: usize| -> Vec<Freeze> {
            (0..300).map(|_| over()).chain((0..coming_ones).map(|_| coming())).collect()
        };
        let check = |others: Vec<Freeze>| check_calendar(&new(None, coming().window.unwrap()), &others, now);
        assert!(check(others(MAX_FREEZES - 1)).is_ok());
        assert!(matches!(check(others(MAX_FREEZES)), Err(ControlError::TooManyFreezes)));
        let told = (0..MAX_FREEZES).map(|_| lately()).collect();
        assert!(matches!(check(told), Err(ControlError::TooManyFreezes)), "what has ended lately is told, too");
    }

    #[test]
    fn a_window_that_is_over_holds_nothing_and_is_refused() {
        let new = new(None, window(&[], "2026-11-01T00:00", "2026-11-02T00:00"));
        let check = |at: &str| check_calendar(&new, &[], at.parse().unwrap());
        assert!(check("2026-11-01T12:00:00Z").is_ok());
        assert!(matches!(check("2026-11-03T00:00:00Z"), Err(ControlError::Invalid { .. })));
    }

    #[test]
    fn a_window_that_is_over_is_told_for_a_while() {
        let over = freeze(None, window(&[], "2026-11-01T00:00", "2026-11-02T00:00"));
        let told = |at: &str| over.is_told(at.parse().unwrap());
        assert!(told("2026-10-01T00:00:00Z") && told("2026-11-01T12:00:00Z") && told("2026-12-31T00:00:00Z"));
        assert!(!told("2027-01-02T00:00:00Z"));
    }

    #[test]
    fn a_reason_is_short_and_a_pace_has_a_bound() {
        assert_eq!(Reason::parse("reason", " Black Friday ").unwrap().as_str(), "Black Friday");
        assert!(Reason::parse("reason", &"x".repeat(201)).is_err());
        assert!(Reason::parse("reason", "a\nb").is_err());
        assert_eq!(parse_pace(Some(1_000_000)).unwrap(), Some(1_000_000));
        assert!(parse_pace(Some(1_000_001)).is_err());
    }
}

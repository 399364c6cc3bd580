//! Why a connection's lanes send nothing although it is live: an operator has paused it, or its calendar freezes it. Read from the
//! configuration that control publishes; nothing of it is kept here.
//!
//! A held lane's cursor stands: what it holds is what waits in the journal, which nobody gives back before the lane has passed it.
//! What a process cannot read of the calendar holds, too: configuration can narrow, and what is not understood is no leave to send.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tracklayer_calendar::{Calendar, Span, Window};
use tracklayer_ids::{ConnectionId, WorkspaceId};
use tracklayer_proto::control::v1::{ConnectionConfig, FreezeWindow, Pause};
use tracklayer_rpc::follow::{ConfigWatch, Snapshot};

/// How many events a second all lanes of a connection together send of what has waited for a release, unless the connection says
/// otherwise: a hundred thousand in under two minutes, and below what every platform takes of one sender.
pub const DEFAULT_PACE: u32 = 1_000;

/// The kind of hold of a lane that sends what has waited, at its pace.
pub const RELEASING: &str = "releasing";

/// Why nothing is sent at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// An operator has paused the connection.
    Paused {
        /// When; none: not known.
        since: Option<Timestamp>,
        /// The label of the key that asked for it.
        by: String,
        /// Why.
        reason: String,
    },
    /// The calendar freezes it.
    Frozen {
        /// When it ends; none: a window is not understood, and nobody knows.
        until: Option<Timestamp>,
        /// Why, of each window that holds.
        reasons: Vec<String>,
    },
}

impl Hold {
    /// One word: `paused` or `frozen`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Paused { .. } => "paused",
            Self::Frozen { .. } => "frozen",
        }
    }

    /// When it ends by itself.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Paused { .. } => None,
            Self::Frozen { until, .. } => *until,
        }
    }

    /// What there is to say of it, for people.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Paused { since, by, reason } => {
                let since = since.map(|at| format!(" since {at:.0}")).unwrap_or_default();
                let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                format!("by operator `{by}`{since}{reason}")
            }
            Self::Frozen { until, reasons } => {
                let until =
                    until.map_or_else(|| "until nobody knows".to_owned(), |at| format!("until {at:.0}"));
                let reasons: Vec<&str> =
                    reasons.iter().map(String::as_str).filter(|reason| !reason.is_empty()).collect();
                if reasons.is_empty() { until } else { format!("{until}: {}", reasons.join("; ")) }
            }
        }
    }
}

/// What holds one connection, and how it is released.
#[derive(Debug, Clone, Default)]
pub struct Holding {
    /// It sends nothing anyway, and its lanes pass everything, so that the journal can give its days back.
    is_off: bool,
    pause: Option<Pause>,
    resumed_at: Option<Timestamp>,
    pace: Option<u32>,
    calendar: Calendar,
    /// Of the calendar's windows.
    reasons: Vec<String>,
    /// Of windows that this version does not understand.
    not_understood: Vec<String>,
}

impl Holding {
    fn new(connection: &ConnectionConfig, freezes: &[FreezeWindow]) -> Self {
        let mut windows = Vec::new();
        let (mut reasons, mut not_understood) = (Vec::new(), Vec::new());
        let holds_it = |freeze: &&FreezeWindow| [0, connection.connection_id].contains(&freeze.connection_id);
        for freeze in freezes.iter().filter(holds_it) {
            match Window::parse(&freeze.time_zone, &freeze.days, &freeze.from, &freeze.to) {
                Ok(window) => {
                    windows.push(window);
                    reasons.push(freeze.reason.clone());
                }
                Err(error) => not_understood.push(format!(
                    "freeze window {} cannot be read by this version ({error}): remove it, or upgrade delivery",
                    freeze.freeze_id
                )),
            }
        }
        Self {
            is_off: connection.mode == "off",
            pause: connection.pause.clone(),
            resumed_at: connection.resumed_at.and_then(instant),
            pace: connection.release_events_per_second,
            calendar: Calendar::new(windows),
            reasons,
            not_understood,
        }
    }

    /// Why nothing is sent at an instant. A pause goes before a freeze: it does not end by itself.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Option<Hold> {
        if self.is_off {
            return None;
        }
        if let Some(pause) = &self.pause {
            return Some(Hold::Paused {
                since: pause.paused_at.and_then(instant),
                by: pause.paused_by.clone(),
                reason: pause.reason.clone(),
            });
        }
        if !self.not_understood.is_empty() {
            return Some(Hold::Frozen { until: None, reasons: self.not_understood.clone() });
        }
        let until = self.calendar.frozen_until(now)?;
        let reasons =
            self.calendar.holding(now).filter_map(|place| self.reasons.get(place).cloned()).collect();
        Some(Hold::Frozen { until: Some(until), reasons })
    }

    /// The next freeze that begins after an instant.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Span> {
        self.calendar.next(after)
    }

    /// When what had waited was released last, as far as the configuration says.
    #[must_use]
    pub fn released_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.resumed_at.into_iter().chain(self.calendar.last_end(now)).max()
    }

    /// How many events a second all lanes together send of what has waited; none: as fast as they can.
    #[must_use]
    pub fn pace(&self) -> Option<u32> {
        Some(self.pace.unwrap_or(DEFAULT_PACE)).filter(|pace| *pace > 0)
    }
}

fn instant(at: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(at.seconds, at.nanos).ok()
}

type Book = HashMap<(WorkspaceId, ConnectionId), Arc<Holding>>;
/// A state of the configuration, and what was read of it.
type Read = (Arc<Snapshot>, Arc<Book>);

/// What holds which connection, as of the newest configuration. Cheap to clone; read once for each state of it.
#[derive(Debug, Clone)]
pub struct Holds {
    config: ConfigWatch,
    read: Arc<Mutex<Option<Read>>>,
}

impl Holds {
    /// Follows the configuration.
    #[must_use]
    pub fn new(config: ConfigWatch) -> Self {
        Self { config, read: Arc::default() }
    }

    /// What holds a connection; nothing of one that is not in the configuration.
    #[must_use]
    pub fn of(&self, workspace: WorkspaceId, connection: ConnectionId) -> Arc<Holding> {
        self.book().and_then(|book| book.get(&(workspace, connection)).cloned()).unwrap_or_default()
    }

    fn book(&self) -> Option<Arc<Book>> {
        let snapshot = self.config.snapshot()?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, book)) = read.as_ref()
            && Arc::ptr_eq(of, &snapshot)
        {
            return Some(Arc::clone(book));
        }
        let book: Book = snapshot
            .workspaces
            .iter()
            .flat_map(|(workspace, config)| {
                config.connections.iter().map(|connection| {
                    let holding = Holding::new(connection, &config.freezes);
                    ((*workspace, ConnectionId(connection.connection_id)), Arc::new(holding))
                })
            })
            .collect();
        let book = Arc::new(book);
        *read = Some((snapshot, Arc::clone(&book)));
        Some(book)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn proto(text: &str) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds: at(text).as_second(), nanos: 0 }
    }

    fn window(id: i64, connection: i64, zone: &str, from: &str, to: &str) -> FreezeWindow {
        FreezeWindow {
            freeze_id: id,
            connection_id: connection,
            time_zone: zone.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            reason: format!("reason {id}"),
            ..FreezeWindow::default()
        }
    }

    fn connection() -> ConnectionConfig {
        ConnectionConfig { connection_id: 7, ..ConnectionConfig::default() }
    }

    #[test]
    fn a_connection_is_frozen_by_its_own_windows_and_by_those_of_all() {
        let freezes = [
            window(1, 0, "UTC", "2026-11-27T00:00", "2026-11-28T00:00"),
            window(2, 7, "UTC", "2026-11-27T12:00", "2026-11-29T00:00"),
            window(3, 8, "UTC", "2026-11-20T00:00", "2026-12-01T00:00"),
        ];
        let holding = Holding::new(&connection(), &freezes);
        assert_eq!(holding.at(at("2026-11-26T23:59:59Z")), None, "another connection's window is no matter");
        let hold = holding.at(at("2026-11-27T12:30:00Z")).unwrap();
        assert_eq!((hold.kind(), hold.until()), ("frozen", Some(at("2026-11-29T00:00:00Z"))));
        assert_eq!(hold.detail(), "until 2026-11-29T00:00:00Z: reason 1; reason 2");
        assert_eq!(holding.at(at("2026-11-29T00:00:00Z")), None);
        assert_eq!(holding.released_at(at("2026-11-30T00:00:00Z")), Some(at("2026-11-29T00:00:00Z")));
        assert_eq!(holding.next(at("2026-11-26T00:00:00Z")).unwrap().to, at("2026-11-29T00:00:00Z"));
    }

    #[test]
    fn a_pause_goes_before_a_freeze_and_its_end_is_a_release() {
        let pause = Pause {
            paused_at: Some(proto("2026-11-27T09:00:00Z")),
            paused_by: "ann".to_owned(),
            reason: "wrong currency".to_owned(),
            ..Pause::default()
        };
        let paused = ConnectionConfig { pause: Some(pause), ..connection() };
        let freezes = [window(1, 0, "UTC", "2026-11-27T00:00", "2026-11-28T00:00")];
        let hold = Holding::new(&paused, &freezes).at(at("2026-11-27T12:00:00Z")).unwrap();
        assert_eq!((hold.kind(), hold.until()), ("paused", None));
        assert_eq!(hold.detail(), "by operator `ann` since 2026-11-27T09:00:00Z: wrong currency");
        let resumed = ConnectionConfig { resumed_at: Some(proto("2026-11-29T00:00:00Z")), ..connection() };
        let holding = Holding::new(&resumed, &freezes);
        assert_eq!(holding.released_at(at("2026-11-30T00:00:00Z")), Some(at("2026-11-29T00:00:00Z")));
        assert!(holding.at(at("2026-11-29T00:00:00Z")).is_none());
    }

    #[test]
    fn a_connection_that_is_off_is_not_held() {
        let off = ConnectionConfig { mode: "off".to_owned(), pause: Some(Pause::default()), ..connection() };
        assert_eq!(Holding::new(&off, &[]).at(at("2026-11-27T12:00:00Z")), None);
    }

    #[test]
    fn a_window_that_is_not_understood_holds() {
        let freezes = [window(4, 0, "Mars/Olympus", "2026-11-27T00:00", "2026-11-28T00:00")];
        let hold = Holding::new(&connection(), &freezes).at(at("2000-01-01T00:00:00Z")).unwrap();
        assert_eq!((hold.kind(), hold.until()), ("frozen", None));
        assert!(hold.detail().contains("freeze window 4 cannot be read"), "{}", hold.detail());
    }

    #[test]
    fn what_has_waited_goes_at_a_thousand_a_second_unless_the_connection_says_otherwise() {
        let pace = |said| {
            Holding::new(&ConnectionConfig { release_events_per_second: said, ..connection() }, &[]).pace()
        };
        assert_eq!([pace(None), pace(Some(50)), pace(Some(0))], [Some(1_000), Some(50), None]);
    }
}

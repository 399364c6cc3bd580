//! Replays: events of one connection that are sent again because an operator asked, from its dead letters or from the journal.
//!
//! A replay is written down ([`crate::store::replays`]) and done by the connection's lanes, each under its own lease: a lane walks what is
//! selected in its partition ([`walk`]), judges each event as it is now ([`judge`]), and takes those that may go out, in the transaction
//! that moves the walk on. What is taken stands among the lane's retries, with its own copy, and goes the way of a retry from there: the
//! same pace, quotas and holds, the same look at the narrowing log, the same intents, the same event id. Nothing is claimed anew.
//!
//! What is not taken stays as the ledger has it. What is taken has one state at any time: held, then whatever became of it;
//! `delivery.replay_event` tells what it was before. [`planner`] says beforehand what a replay would do, by the same walk and judgement.

pub mod judge;
pub mod planner;
pub mod replays;
pub mod walk;

use jiff::Timestamp;

use crate::entry::Entry;

/// The reason in the ledger of an event that a replay has taken and that has no end yet.
pub const REPLAY: &str = "replay";
/// The reason of what was accepted before its connection began, once a replay has made the connection answer for it.
pub const BEFORE_START: &str = "before_start";

/// Where a replay finds its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Among the dead letters that are there when it starts.
    DeadLetters,
    /// In the resolved journal.
    Journal,
}

impl Origin {
    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeadLetters => "dead_letters",
            Self::Journal => "journal",
        }
    }

    /// From the stored word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::DeadLetters, Self::Journal].into_iter().find(|origin| origin.as_str() == word)
    }
}

/// Which events. What is left empty selects everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Where.
    pub origin: Origin,
    /// Codes of dead letters.
    pub codes: Vec<String>,
    /// Names as they were sent.
    pub event_names: Vec<String>,
    /// Ids.
    pub message_ids: Vec<String>,
    /// Received at or after.
    pub received_from: Option<Timestamp>,
    /// Received before.
    pub received_to: Option<Timestamp>,
    /// Also what is delivered.
    pub delivered_too: bool,
    /// Also where the platform would count again what it has.
    pub past_dedup_window: bool,
    /// Also what was accepted before the connection began.
    pub before_start: bool,
}

impl Selection {
    /// Everything from there.
    #[must_use]
    pub const fn of(origin: Origin) -> Self {
        Self {
            origin,
            codes: Vec::new(),
            event_names: Vec::new(),
            message_ids: Vec::new(),
            received_from: None,
            received_to: None,
            delivered_too: false,
            past_dedup_window: false,
            before_start: false,
        }
    }

    /// Whether an event is selected by name, id and time. One that cannot be read has none of them.
    #[must_use]
    pub fn selects(&self, entry: &Entry) -> bool {
        let name = entry.deliverable.as_ref().map_or("", |deliverable| deliverable.event.name.as_str());
        let named = self.event_names.is_empty() || self.event_names.iter().any(|wanted| wanted == name);
        let listed = self.message_ids.is_empty() || self.message_ids.contains(&entry.message_id);
        let received = entry.received_ms;
        let is_late = self.received_from.is_none_or(|from| received >= from.as_millisecond());
        let is_early = self.received_to.is_none_or(|to| received < to.as_millisecond());
        named && listed && (received == 0 || (is_late && is_early))
    }

    /// Whether something that was received in these minutes since the Unix epoch may be selected.
    #[must_use]
    pub fn may_select(&self, first_minute: i64, last_minute: i64) -> bool {
        let minute = |at: Timestamp| at.as_second().div_euclid(60);
        self.received_from.is_none_or(|from| last_minute >= minute(from))
            && self.received_to.is_none_or(|to| first_minute <= minute(to))
    }
}

/// What a replay does with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// It is sent.
    Eligible,
    /// The platform has it.
    AlreadyDelivered,
    /// It is on its way anyhow: waiting, or held for a retry or another replay.
    InProgress,
    /// It is too old for the platform.
    Expired,
    /// Consent denies it by now.
    ConsentWithdrawn,
    /// It, or whose it is, was erased.
    Erased,
    /// The platform has it, or may have it, and would not recognise it any more.
    PastDedupWindow,
    /// The connection does not want it, or it is a duplicate.
    Filtered,
    /// Its bytes cannot be read.
    Unreadable,
    /// The journal has given it back.
    NotRetained,
    /// It still cannot be sent, for the reason that is told.
    Refused,
}

impl What {
    /// The word, the same in protos, tables, metrics and command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eligible => "eligible",
            Self::AlreadyDelivered => "already_delivered",
            Self::InProgress => "in_progress",
            Self::Expired => "expired",
            Self::ConsentWithdrawn => "consent_withdrawn",
            Self::Erased => "erased",
            Self::PastDedupWindow => "past_dedup_window",
            Self::Filtered => "filtered",
            Self::Unreadable => "unreadable",
            Self::NotRetained => "not_retained",
            Self::Refused => "refused",
        }
    }
}

/// Events by what is done with them, and why.
pub type Counts = std::collections::BTreeMap<(What, String), u64>;

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tracklayer_ids::Position;
    use tracklayer_proto::event::v1::{Event, ResolvedEvent};

    use super::*;

    fn entry(name: &str, id: &str, second: i64) -> Entry {
        let event = Event { name: name.to_owned(), message_id: id.to_owned(), ..Event::default() };
        let resolved = ResolvedEvent {
            message_id: id.to_owned(),
            event: event.encode_to_vec().into(),
            received_at: Some(prost_types::Timestamp { seconds: second, nanos: 0 }),
            ..ResolvedEvent::default()
        };
        Entry::decode(Position::new(1, 0, 0), resolved.encode_to_vec().into())
    }

    fn at(second: i64) -> Option<Timestamp> {
        Timestamp::from_second(second).ok()
    }

    #[test]
    fn a_selection_narrows_by_name_id_and_half_open_time() {
        let all = Selection::of(Origin::Journal);
        let order = entry("Order Completed", "m-1", 100);
        assert!(all.selects(&order));
        let named = Selection { event_names: vec!["Order Completed".into()], ..all.clone() };
        assert!(named.selects(&order) && !named.selects(&entry("Order Refunded", "m-1", 100)));
        let listed = Selection { message_ids: vec!["m-1".into()], ..all.clone() };
        assert!(listed.selects(&order) && !listed.selects(&entry("Order Completed", "m-2", 100)));
        let of = |from, to| Selection { received_from: at(from), received_to: at(to), ..all.clone() };
        assert!(of(100, 101).selects(&order), "the beginning is part of it");
        assert!(!of(50, 100).selects(&order), "the end is not");
        assert!(!of(101, 200).selects(&order));
    }

    #[test]
    fn what_cannot_be_read_is_selected_by_no_name_and_no_id_and_at_any_time() {
        let unreadable = Entry::decode(Position::new(1, 0, 0), vec![0xff].into());
        let all = Selection::of(Origin::Journal);
        let of_a_day = Selection { received_from: at(100), received_to: at(200), ..all.clone() };
        assert!(all.selects(&unreadable) && of_a_day.selects(&unreadable));
        assert!(!Selection { event_names: vec!["x".into()], ..all.clone() }.selects(&unreadable));
        assert!(!Selection { message_ids: vec!["x".into()], ..all }.selects(&unreadable));
    }

    #[test]
    fn a_block_may_hold_something_selected_if_its_minutes_touch_the_range() {
        let of = |from, to| Selection {
            received_from: at(from),
            received_to: at(to),
            ..Selection::of(Origin::Journal)
        };
        assert!(of(120, 180).may_select(2, 2) && of(120, 180).may_select(0, 9));
        assert!(!of(120, 180).may_select(0, 1) && !of(120, 180).may_select(4, 9));
        assert!(Selection::of(Origin::Journal).may_select(0, 0));
    }

    #[test]
    fn origins_are_known_by_their_words() {
        for origin in [Origin::DeadLetters, Origin::Journal] {
            assert_eq!(Origin::parse(origin.as_str()), Some(origin));
        }
        assert_eq!(Origin::parse(""), None);
    }
}

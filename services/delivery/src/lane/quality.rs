//! What the persons of settled events could be matched by, counted for the commit that settles them: of those that were delivered, and of
//! those that would have been, in shadow. What is refused or dead is in the ledger with its reason.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use tracklayer_destination::KeyCounts;

use super::slot::{Slot, storable};
use crate::ledger::State;
use crate::store::match_quality::QualityRow;

/// Most names of events that a lane counts by themselves, while one process has it: a shop may make a name of each of its pages.
const MOST_NAMES: usize = 100;
/// Under which the others are counted.
pub const OTHER_NAMES: &str = "(other)";
/// So many digits together may be a telephone number or a customer's.
const PERSONAL_DIGITS: usize = 7;
/// Most characters of a name.
const MAX_NAME_CHARS: usize = 100;

/// The names that a lane counts by themselves.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// What a commit of these counts. Changes nothing, so that a commit which fails can be tried again.
    pub(super) fn count(&self, done: &[Slot]) -> Vec<QualityRow> {
        let mut new: HashSet<Cow<'_, str>> = HashSet::new();
        let mut rows: BTreeMap<(i64, Cow<'_, str>), QualityRow> = BTreeMap::new();
        for slot in done {
            // What a replay sends again was counted as it went out first, whatever has become of it since.
            let was_counted = slot.replayed.as_ref().is_some_and(|mark| mark.was_counted);
            let now = slot.verdict.as_ref().map(|verdict| verdict.state);
            if was_counted || !now.is_some_and(is_counted) {
                continue;
            }
            let Some(matched) = &slot.matched else { continue };
            let name = self.counted_as(&matched.name, &mut new);
            let minute = slot.minute();
            let row = rows.entry((minute, name)).or_insert_with_key(|(minute, name)| QualityRow {
                minute: *minute,
                event_name: name.clone().into_owned(),
                counts: KeyCounts::default(),
                left_out: BTreeMap::new(),
            });
            row.counts.add(matched.keys);
            for left_out in &slot.keys_left_out {
                *row.left_out.entry(*left_out).or_default() += 1;
            }
        }
        rows.into_values().collect()
    }

    /// Remembers the names of a commit that came through.
    pub(super) fn learn(&mut self, rows: &[QualityRow]) {
        for row in rows.iter().filter(|row| row.event_name != OTHER_NAMES) {
            if !self.0.contains(&row.event_name) {
                self.0.insert(row.event_name.clone());
            }
        }
    }

    fn counted_as<'n>(&self, name: &'n str, new: &mut HashSet<Cow<'n, str>>) -> Cow<'n, str> {
        if looks_personal(name) {
            return Cow::Borrowed(OTHER_NAMES);
        }
        let fits = !name.contains('\0') && name.len() <= MAX_NAME_CHARS;
        let name = if fits { Cow::Borrowed(name) } else { Cow::Owned(storable(name, MAX_NAME_CHARS)) };
        if self.0.contains(name.as_ref()) || new.contains(&name) {
            return name;
        }
        if self.0.len() + new.len() >= MOST_NAMES {
            return Cow::Borrowed(OTHER_NAMES);
        }
        new.insert(name.clone());
        name
    }
}

/// Whether a name may tell of somebody: it would stand here as it is for as long as counts are kept, and no erasure would find it. Numbers
/// of conversion actions are names as well, and have no other letters.
fn looks_personal(name: &str) -> bool {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    let mut digits = name.split(|c: char| !c.is_ascii_digit());
    name.contains('@') || (!is_number && digits.any(|run| run.len() >= PERSONAL_DIGITS))
}

fn is_counted(state: State) -> bool {
    matches!(state, State::Delivered | State::Shadowed)
}

/// Tells how many events went out with each key, and how many had one that was of no use.
pub(super) fn tell(rows: &[QualityRow], platform: &'static str) {
    for row in rows {
        metrics::counter!("tracklayer_delivery_matched_events_total", "platform" => platform)
            .increment(row.counts.events);
        for key in tracklayer_destination::Key::ALL {
            let events = row.counts.sent[key.number()];
            if events > 0 {
                count(platform, key.as_str(), "sent", events);
            }
        }
        for ((key, _), events) in &row.left_out {
            count(platform, key.as_str(), "of_no_use", *events);
        }
    }
}

fn count(platform: &'static str, key: &'static str, outcome: &'static str, events: u64) {
    metrics::counter!(
        "tracklayer_delivery_match_keys_total", "platform" => platform, "key" => key, "outcome" => outcome
    )
    .increment(events);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use tracklayer_destination::{Key, KeySet};
    use tracklayer_ids::Position;

    use super::super::slot::Matched;
    use super::*;
    use crate::entry::Entry;
    use crate::store::replay_events::Mark;

    fn slot(name: &str, state: State) -> Slot {
        let mut slot = Slot::new(Arc::new(Entry::decode(Position::new(1, 0, 0), vec![].into())));
        slot.settle(state, "", "", Timestamp::UNIX_EPOCH);
        slot.matched = Some(Matched { name: name.to_owned(), keys: KeySet::of(&[Key::Email]) });
        slot.keys_left_out = vec![(Key::Phone, "no_digits")];
        slot
    }

    #[test]
    fn what_went_out_is_counted_and_what_did_not_is_not() {
        let done = [
            slot("Lead", State::Delivered),
            slot("Purchase", State::Delivered),
            slot("Purchase", State::Shadowed),
            slot("Purchase", State::Dead),
            slot("Purchase", State::Held),
        ];
        let rows = Names::default().count(&done);
        let told: Vec<_> = rows.iter().map(|row| (row.event_name.as_str(), row.counts.events)).collect();
        assert_eq!(told, [("Lead", 1), ("Purchase", 2)]);
        assert_eq!(rows[1].counts.sent[Key::Email.number()], 2);
        assert_eq!(rows[1].left_out, BTreeMap::from([((Key::Phone, "no_digits"), 2)]));
    }

    #[test]
    fn what_a_replay_sends_again_is_not_counted_again() {
        let replayed = |was_counted: bool, after: State| {
            let mut slot = slot("Purchase", after);
            slot.replayed = Some(Mark { state: State::Dead, reason: String::new(), was_counted });
            Names::default().count(&[slot]).len()
        };
        assert_eq!(replayed(false, State::Delivered), 1, "it goes out for the first time");
        assert_eq!(replayed(false, State::Dead), 0);
        for after in [State::Delivered, State::Shadowed] {
            assert_eq!(replayed(true, after), 0, "{after:?}");
        }
    }

    #[test]
    fn a_lane_counts_a_bounded_number_of_names() {
        let mut names = Names::default();
        let of = |from: usize, to: usize| -> Vec<Slot> {
            (from..to).map(|n| slot(&format!("page {n:03}"), State::Delivered)).collect()
        };
        let rows = names.count(&of(0, 99));
        assert_eq!(rows.len(), 99);
        names.learn(&rows);
        let rows = names.count(&of(0, 102));
        assert_eq!(rows.len(), 101, "one more, and those that are too many together");
        let others = rows.iter().find(|row| row.event_name == OTHER_NAMES).unwrap();
        assert_eq!(others.counts.events, 2);
        names.learn(&rows);
        let known = names.count(&of(0, 100));
        assert!(known.len() == 100 && known.iter().all(|row| row.event_name != OTHER_NAMES));
    }

    #[test]
    fn a_name_that_may_tell_of_somebody_is_not_stored() {
        let names = ["Mail to ann@example.com", "Order 20261123001", "Step 3", "7204817395"];
        let done: Vec<Slot> = names.iter().map(|name| slot(name, State::Delivered)).collect();
        let rows = Names::default().count(&done);
        let told: Vec<_> = rows.iter().map(|row| (row.event_name.as_str(), row.counts.events)).collect();
        assert_eq!(told, [(OTHER_NAMES, 2), ("7204817395", 1), ("Step 3", 1)]);
    }

    #[test]
    fn a_name_is_stored_without_nul_and_cut() {
        let long = format!("a\0{}", "ä".repeat(200));
        let rows = Names::default().count(&[slot(&long, State::Delivered), slot(&long, State::Delivered)]);
        assert_eq!((rows.len(), rows[0].counts.events), (1, 2));
        assert_eq!(rows[0].event_name.chars().count(), MAX_NAME_CHARS);
        assert!(!rows[0].event_name.contains('\0'));
    }
}

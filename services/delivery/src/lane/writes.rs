//! Files that were begun: which events each of them has, and under which name. Written down with the intent, before anything of a
//! file is, so that whoever writes it again, after an error or after a crash, writes the same file.
//!
//! A write is whole or it is nothing: the cursor never comes to stand between two of its events while it may still have to be
//! repeated. Where an operator's giving up breaks that, it is *torn*, and nobody writes it again.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use tracklayer_ids::{Offset, Position};
use uuid::Uuid;

/// One file of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WriteFile {
    /// Folder and name below the connection's place.
    pub(super) path: String,
    /// Its events, in order.
    pub(super) positions: Vec<Position>,
}

/// Files that are written under one intent.
#[derive(Debug, Clone)]
pub(super) struct Write {
    /// The intent.
    pub(super) id: Uuid,
    /// Where they go.
    pub(super) place: String,
    /// They.
    pub(super) files: Vec<WriteFile>,
    /// All events of all files, as far as they are not committed.
    open: HashSet<Position>,
    /// Whether something of it may be there.
    pub(super) tried: bool,
    torn: bool,
}

/// As it stands in the intent.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    place: String,
    files: Vec<(String, usize)>,
}

impl Write {
    /// What the intent says of the files.
    pub(super) fn to_text(&self) -> String {
        let files = self.files.iter().map(|file| (file.path.clone(), file.positions.len())).collect();
        // Texts and numbers: nothing in it can fail.
        serde_json::to_string(&Written { place: self.place.clone(), files }).unwrap_or_default()
    }

    /// All events, file by file.
    pub(super) fn offsets(&self) -> Vec<u64> {
        self.files.iter().flat_map(|file| &file.positions).map(|position| position.offset.0).collect()
    }

    /// Whether it can be written again, into that place.
    pub(super) fn is_repeatable(&self, place: &str) -> bool {
        !self.torn && self.place == place
    }

    pub(super) fn names(&self, position: Position) -> bool {
        self.open.contains(&position)
    }
}

/// The writes of a lane that are not committed yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Writes(Vec<Write>);

impl Writes {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Write> {
        self.0.iter()
    }

    /// Begins a write of these files.
    pub(super) fn begin(&mut self, id: Uuid, place: String, files: Vec<WriteFile>) -> &Write {
        let open = files.iter().flat_map(|file| file.positions.iter().copied()).collect();
        let place_in_line = self.0.len();
        self.0.push(Write { id, place, files, open, tried: false, torn: false });
        &self.0[place_in_line]
    }

    /// Takes over what an earlier holder has begun: `text` as [`Write::to_text`] made it. What cannot be read, or begins before the
    /// cursor, cannot be written again.
    pub(super) fn take_over(&mut self, id: Uuid, text: &str, positions: Vec<Position>, cursor: Position) {
        let written: Option<Written> = serde_json::from_str(text).ok();
        let is_before = |p: &Position| (p.generation, p.offset) < (cursor.generation, cursor.offset);
        let mut torn = positions.iter().any(is_before);
        let (place, listed) = written.map_or_else(Default::default, |written| (written.place, written.files));
        torn |= listed.iter().map(|(_, events)| events).sum::<usize>() != positions.len();
        let open: HashSet<Position> = positions.iter().copied().filter(|p| !is_before(p)).collect();
        let mut rest = positions.into_iter();
        let files = listed
            .into_iter()
            .map(|(path, events)| WriteFile { path, positions: rest.by_ref().take(events).collect() })
            .collect();
        self.0.push(Write { id, place, files, open, tried: true, torn });
    }

    /// Says that something of a write may be there from now on.
    pub(super) fn try_now(&mut self, id: Uuid) {
        self.0.iter_mut().filter(|write| write.id == id).for_each(|write| write.tried = true);
    }

    pub(super) fn forget(&mut self, id: Uuid) {
        self.0.retain(|write| write.id != id);
    }

    /// Whether a write has the event.
    pub(super) fn have(&self, position: Position) -> bool {
        self.0.iter().any(|write| write.names(position))
    }

    /// The end of what has to be read from the cursor on to write again what was begun; none: nothing was.
    pub(super) fn end_from(&self, cursor: Position) -> Option<Position> {
        let ahead =
            self.0.iter().flat_map(|write| &write.open).filter(|position| {
                position.generation == cursor.generation && position.offset >= cursor.offset
            });
        ahead.map(|p| Position { offset: Offset(p.offset.0 + 1), ..*p }).max_by_key(|end| end.offset)
    }

    /// Whether a cursor there would stand between two events of a write that may have to be repeated.
    pub(super) fn would_be_torn_at(&self, end: Position) -> bool {
        let is_before = |p: &Position| (p.generation, p.offset) < (end.generation, end.offset);
        self.0.iter().filter(|write| !write.torn).any(|write| {
            let before = write.open.iter().filter(|p| is_before(p)).count();
            before > 0 && before < write.open.len()
        })
    }

    /// Nothing that has an event before `until` is written again.
    pub(super) fn tear(&mut self, until: Position) {
        let is_before = |p: &Position| (p.generation, p.offset) < (until.generation, until.offset);
        self.0.iter_mut().for_each(|write| write.torn |= write.open.iter().any(is_before));
    }

    /// The writes of which nothing is left open when these are committed.
    pub(super) fn known_by(&self, covered: impl Fn(Position) -> bool) -> impl Iterator<Item = Uuid> {
        self.0
            .iter()
            .filter(move |write| write.open.iter().all(|position| covered(*position)))
            .map(|write| write.id)
    }

    /// These are committed.
    pub(super) fn committed(&mut self, covered: impl Fn(Position) -> bool) {
        self.0.iter_mut().for_each(|write| write.open.retain(|position| !covered(*position)));
        self.0.retain(|write| !write.open.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Position {
        Position::new(1, 0, offset)
    }

    fn file(path: &str, offsets: &[u64]) -> WriteFile {
        WriteFile { path: path.to_owned(), positions: offsets.iter().map(|offset| at(*offset)).collect() }
    }

    fn begun() -> Writes {
        let mut writes = Writes::default();
        let _ =
            writes.begin(Uuid::from_u128(1), "here".to_owned(), vec![file("a", &[3, 7]), file("b", &[5])]);
        writes
    }

    #[test]
    fn whoever_takes_a_write_over_has_the_same_files() {
        let writes = begun();
        let write = writes.iter().next().unwrap();
        let positions = write.offsets().into_iter().map(at).collect();
        let mut successor = Writes::default();
        successor.take_over(write.id, &write.to_text(), positions, at(2));
        let taken = successor.iter().next().unwrap();
        assert_eq!((&taken.files, &taken.place), (&write.files, &write.place));
        assert!(taken.tried && taken.is_repeatable("here") && !taken.is_repeatable("elsewhere"));
        assert_eq!(successor.end_from(at(2)), Some(at(8)));
    }

    #[test]
    fn what_cannot_be_read_or_began_before_the_cursor_is_not_written_again() {
        let writes = begun();
        let write = writes.iter().next().unwrap();
        for (text, cursor) in [(write.to_text(), at(4)), ("{}".to_owned(), at(0)), (String::new(), at(0))] {
            let mut successor = Writes::default();
            successor.take_over(write.id, &text, vec![at(3), at(7), at(5)], cursor);
            assert!(!successor.iter().next().unwrap().is_repeatable("here"), "{text} {cursor}");
            assert!(successor.have(at(7)), "and yet it is known what it was about");
        }
    }

    #[test]
    fn the_cursor_passes_a_write_as_a_whole_or_not_at_all() {
        let mut writes = begun();
        for (end, torn) in [(3, false), (4, true), (6, true), (7, true), (8, false)] {
            assert_eq!(writes.would_be_torn_at(at(end)), torn, "{end}");
        }
        assert_eq!(writes.known_by(|p| p.offset.0 < 7).count(), 0);
        assert_eq!(writes.known_by(|p| p.offset.0 < 8).count(), 1);
        writes.tear(at(3));
        assert!(writes.would_be_torn_at(at(6)), "what lies before it is none of its own");
        writes.tear(at(4));
        assert!(!writes.would_be_torn_at(at(6)), "what was given up is passed");
        writes.committed(|p| p.offset.0 < 6);
        assert!(writes.have(at(7)) && !writes.have(at(5)));
        writes.committed(|p| p.offset.0 < 8);
        assert!(writes.is_empty());
    }
}

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
    /// Whether it may be there, or a part of its bytes.
    pub(super) tried: bool,
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
    /// What the range or the retries that it is made of take in memory, bytes: who writes it again needs room for all of them.
    bytes: u64,
    torn: bool,
}

/// As it stands in the intent.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    place: String,
    files: Vec<(String, usize)>,
    /// 0: an earlier version wrote it, which did not say.
    #[serde(default)]
    bytes: u64,
}

impl Write {
    /// What the intent says of the files.
    pub(super) fn to_text(&self) -> String {
        let files = self.files.iter().map(|file| (file.path.clone(), file.positions.len())).collect();
        // Texts and numbers: nothing in it can fail.
        let written = Written { place: self.place.clone(), files, bytes: self.bytes };
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// Its events that are not committed, in order.
    pub(super) fn open(&self) -> Vec<Position> {
        let mut open: Vec<Position> = self.open.iter().copied().collect();
        open.sort_by_key(|position| (position.generation, position.offset));
        open
    }

    /// Whether something of it may be there.
    pub(super) fn is_tried(&self) -> bool {
        self.files.iter().any(|file| file.tried)
    }

    /// What it takes in memory, bytes.
    pub(super) fn bytes(&self) -> u64 {
        if self.bytes == 0 { u64::MAX } else { self.bytes }
    }

    /// The same without files that nobody has tried to write; none if that is all of them that there are.
    pub(super) fn tried_only(&self) -> Option<Self> {
        if self.files.iter().all(|file| file.tried) {
            return None;
        }
        let mut left = self.clone();
        left.files.retain(|file| file.tried);
        let named: HashSet<Position> = left.files.iter().flat_map(|f| f.positions.iter().copied()).collect();
        left.open.retain(|position| named.contains(position));
        Some(left)
    }

    /// Whether all that is left of it stands before the cursor: it is made of retries.
    fn is_late(&self, cursor: Position) -> bool {
        self.open.iter().all(|position| is_before(*position, cursor))
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

    pub(super) fn iter(&self) -> impl Iterator<Item = &Write> {
        self.0.iter()
    }

    /// Begins a write of these files, of events that take so many bytes in memory.
    pub(super) fn begin(&mut self, id: Uuid, place: String, files: Vec<WriteFile>, bytes: u64) -> &Write {
        let open = files.iter().flat_map(|file| file.positions.iter().copied()).collect();
        let place_in_line = self.0.len();
        self.0.push(Write { id, place, files, open, bytes, torn: false });
        &self.0[place_in_line]
    }

    /// Takes over what an earlier holder has begun: `text` as [`Write::to_text`] made it. What stands before the cursor as a whole is of
    /// retries. What cannot be read, or lies on both sides of the cursor, cannot be written again.
    pub(super) fn take_over(&mut self, id: Uuid, text: &str, positions: Vec<Position>, cursor: Position) {
        let written: Option<Written> = serde_json::from_str(text).ok();
        let before = positions.iter().filter(|p| is_before(**p, cursor)).count();
        let is_late = before == positions.len();
        let mut torn = before > 0 && !is_late;
        let (place, listed, bytes) = written.map_or_else(Default::default, |w| (w.place, w.files, w.bytes));
        torn |= listed.iter().map(|(_, events)| events).sum::<usize>() != positions.len();
        let is_open = |p: &Position| is_late || !is_before(*p, cursor);
        let open: HashSet<Position> = positions.iter().copied().filter(is_open).collect();
        let mut rest = positions.into_iter();
        let files = listed
            .into_iter()
            .map(|(path, events)| WriteFile {
                path,
                positions: rest.by_ref().take(events).collect(),
                tried: true,
            })
            .collect();
        self.0.push(Write { id, place, files, open, bytes, torn });
    }

    /// Says that a file of a write may be there from now on.
    pub(super) fn try_now(&mut self, id: Uuid, path: &str) {
        let files = self.0.iter_mut().filter(|write| write.id == id).flat_map(|write| &mut write.files);
        files.filter(|file| file.path == path).for_each(|file| file.tried = true);
    }

    /// Puts a write in the place of the one with its id.
    pub(super) fn replace(&mut self, write: Write) {
        self.0.iter_mut().filter(|old| old.id == write.id).for_each(|old| *old = write.clone());
    }

    /// The oldest write of retries.
    pub(super) fn late(&self, cursor: Position) -> Option<&Write> {
        self.0.iter().find(|write| write.is_late(cursor))
    }

    /// Says which events of a write there still are.
    pub(super) fn only(&mut self, id: Uuid, are_left: impl Fn(Position) -> bool) {
        let writes = self.0.iter_mut().filter(|write| write.id == id);
        writes.for_each(|write| write.open.retain(|position| are_left(*position)));
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

    /// What has to be in memory, bytes, to write again what was begun from the cursor on.
    pub(super) fn bytes_from(&self, cursor: Position) -> u64 {
        self.0.iter().filter(|write| !write.is_late(cursor)).map(Write::bytes).max().unwrap_or_default()
    }

    /// Whether a cursor there would stand between two events of a write that may have to be repeated.
    pub(super) fn would_be_torn_at(&self, end: Position) -> bool {
        self.0.iter().filter(|write| !write.torn).any(|write| {
            let before = write.open.iter().filter(|p| is_before(**p, end)).count();
            before > 0 && before < write.open.len()
        })
    }

    /// Nothing that has an event between the cursor and `until` is written again.
    pub(super) fn tear(&mut self, cursor: Position, until: Position) {
        let is_between = |p: &Position| !is_before(*p, cursor) && is_before(*p, until);
        self.0.iter_mut().for_each(|write| write.torn |= write.open.iter().any(is_between));
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

fn is_before(position: Position, other: Position) -> bool {
    (position.generation, position.offset) < (other.generation, other.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Position {
        Position::new(1, 0, offset)
    }

    fn file(path: &str, offsets: &[u64]) -> WriteFile {
        let positions = offsets.iter().map(|offset| at(*offset)).collect();
        WriteFile { path: path.to_owned(), positions, tried: false }
    }

    fn begun() -> Writes {
        let mut writes = Writes::default();
        let files = vec![file("a", &[3, 7]), file("b", &[5])];
        let _ = writes.begin(Uuid::from_u128(1), "here".to_owned(), files, 1_000);
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
        assert_eq!((taken.to_text(), taken.offsets()), (write.to_text(), write.offsets()));
        assert!(taken.is_tried() && taken.is_repeatable("here") && !taken.is_repeatable("elsewhere"));
        assert_eq!((successor.end_from(at(2)), successor.bytes_from(at(2))), (Some(at(8)), 1_000));
        assert!(successor.late(at(2)).is_none());
    }

    #[test]
    fn what_stands_before_the_cursor_as_a_whole_is_of_retries_and_written_again() {
        let writes = begun();
        let write = writes.iter().next().unwrap();
        let positions = write.offsets().into_iter().map(at).collect();
        let mut successor = Writes::default();
        successor.take_over(write.id, &write.to_text(), positions, at(8));
        assert_eq!(
            (successor.end_from(at(8)), successor.bytes_from(at(8))),
            (None, 0),
            "the range waits for nothing"
        );
        let late = successor.late(at(8)).unwrap();
        assert!(late.is_repeatable("here") && late.names(at(3)));
        successor.tear(at(8), at(20));
        assert!(successor.late(at(8)).unwrap().is_repeatable("here"), "what is given up lies behind it");
        successor.only(write.id, |p| p == at(7));
        let late = successor.late(at(8)).unwrap();
        assert!(late.names(at(7)) && !late.names(at(5)), "the others are done");
        assert_eq!(successor.known_by(|p| p == at(7)).count(), 1);
    }

    #[test]
    fn a_file_that_nobody_has_tried_to_write_can_be_left_out_of_its_write() {
        let mut writes = begun();
        let id = writes.iter().next().unwrap().id;
        assert!(!writes.iter().next().unwrap().is_tried());
        writes.try_now(id, "b");
        let left = writes.iter().next().unwrap().tried_only().unwrap();
        assert!(left.tried_only().is_none() && left.is_tried());
        assert_eq!(left.offsets(), [5]);
        writes.replace(left);
        assert!(writes.have(at(5)) && !writes.have(at(3)) && !writes.would_be_torn_at(at(4)));
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
        writes.tear(at(0), at(3));
        assert!(writes.would_be_torn_at(at(6)), "what lies before it is none of its own");
        writes.tear(at(0), at(4));
        assert!(!writes.would_be_torn_at(at(6)), "what was given up is passed");
        writes.committed(|p| p.offset.0 < 6);
        assert!(writes.have(at(7)) && !writes.have(at(5)));
        writes.committed(|p| p.offset.0 < 8);
        assert_eq!(writes.iter().count(), 0);
    }
}

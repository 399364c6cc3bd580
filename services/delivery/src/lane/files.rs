//! Writing events into files instead of sending requests: intent, a last look at the narrowing log, the files, and what became of
//! each.
//!
//! The intent says which events each file has and what it is called. A file is written whole, under that name, from those events in
//! their order: again after an error, and again by whoever takes the lane over. By that an event is in one file whatever ends in
//! between, and a holder whose lease has run out and whose last bytes arrive later replaces a file by itself. What nobody may see any
//! more by then is left out of the file, and dead as `outcome_unknown`: the earlier file may have had it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::SystemTime;

use bytes::Bytes;
use jiff::Timestamp;
use tracklayer_destination::{Destination, FileTarget, HoldKind, HttpRequest};
use tracklayer_ids::{Generation, Position};
use tracklayer_journal::not_aside;
use tracklayer_lake::{FileName, PlacedRow, Store, WriteError, encode};
use uuid::Uuid;

use super::decide::Allowed;
use super::health::Health;
use super::plan;
use super::send::{LEASE_MARGIN, wave_size, while_held};
use super::slot::Slot;
use super::writes::{Write, WriteFile};
use super::{Lane, LaneError};
use crate::breaker::Leave;
use crate::connections::OpenConnection;
use crate::http::SendError;
use crate::ledger::State;
use crate::resolve::error_chain;

/// Why an event is dead that may be in a file.
const NOT_WRITTEN_AGAIN: &str = "a file with this event was begun and cannot be written again (the connection leads elsewhere by now, or a part \
                                 of the file was given up): look for the event in the files, load it beside them if it is missing, \
                                 and close it (`tracklayer dead-letters close`)";

/// The status of a file that is there.
const WRITTEN: u16 = 200;

/// A file as far as it goes out now.
struct File<'w> {
    of: &'w WriteFile,
    /// Slots of its events that go out.
    members: Vec<usize>,
}

/// What became of a file.
enum Done {
    Answered(Result<tracklayer_destination::Answer, SendError>),
    /// These of its slots cannot be put into a file.
    Poisoned(Vec<usize>),
    /// All of its rows can, and they cannot together.
    NoFile(String),
}

impl Done {
    fn is_written(&self) -> bool {
        matches!(self, Self::Answered(Ok(answer)) if answer.status == WRITTEN)
    }
}

/// What a write goes by.
struct Way<'a> {
    connection: &'a OpenConnection,
    destination: &'a dyn Destination,
    target: &'a FileTarget,
    store: &'a Store,
    leave: &'a Leave,
    /// Whether one file goes ahead of the others.
    ahead: bool,
}

impl Lane {
    /// Writes every open slot into files. Ends early where the place or a service holds the lane; slots with a verdict keep it.
    pub(super) async fn write_open(
        &mut self,
        slots: &mut [Slot],
        connection: &OpenConnection,
        destination: &dyn Destination,
        target: &FileTarget,
    ) -> Result<(), LaneError> {
        let place = target.place.name();
        self.settle_unwritable(slots, &place).await?;
        // After a hold one file goes ahead, as one event does elsewhere: which events share a file, its intent has said.
        let mut ahead = self.holds > 0 || self.behind_circuit;
        while slots.iter().any(|slot| slot.verdict.is_none()) {
            if self.has_changed(connection) {
                return Ok(());
            }
            let store = &Store::open(&target.place, &self.context.files).await.map_err(|refused| {
                LaneError::Held {
                    kind: HoldKind::Configuration.as_str(),
                    detail: refused.to_string(),
                    after: None,
                }
            })?;
            let leave = &self.leave(connection)?;
            ahead |= matches!(leave, Leave::Try(_));
            let write = self.next_write(slots, &place);
            let way = Way { connection, destination, target, store, leave, ahead };
            self.write(&write, slots, &way).await?;
            ahead = false;
        }
        Ok(())
    }

    /// Gives up on events of files that were begun and cannot be written again. Files that nobody has tried to write are forgotten:
    /// their events go where all others go by now.
    async fn settle_unwritable(&mut self, slots: &mut [Slot], place: &str) -> Result<(), LaneError> {
        let elsewhere = self.writes.iter().filter(|write| !write.is_repeatable(place));
        let untried: Vec<Write> = elsewhere.filter_map(Write::tried_only).collect();
        for left in untried {
            match left.open().first() {
                Some(first) => {
                    self.intend_write(&left, first.generation).await?;
                    self.writes.replace(left);
                }
                None => self.withdraw_write(left.id).await?,
            }
        }
        let now = self.context.clock.now();
        for write in self.writes.iter().filter(|write| !write.is_repeatable(place)) {
            let named = |slot: &&mut Slot| slot.verdict.is_none() && write.names(slot.entry.position);
            for slot in slots.iter_mut().filter(named) {
                slot.settle(State::Dead, plan::UNKNOWN, NOT_WRITTEN_AGAIN, now);
            }
        }
        Ok(())
    }

    /// The oldest write that was begun and has something open, else one of all that is open.
    fn next_write(&mut self, slots: &[Slot], place: &str) -> Write {
        let open: Vec<&Slot> = slots.iter().filter(|slot| slot.verdict.is_none()).collect();
        let is_open = |write: &&Write| open.iter().any(|slot| write.names(slot.entry.position));
        if let Some(begun) = self.writes.iter().find(is_open) {
            return begun.clone();
        }
        let files = self.files_of(&open);
        let bytes = self.room_bytes();
        self.writes.begin(Uuid::now_v7(), place.to_owned(), files, bytes).clone()
    }

    /// One file for each folder.
    fn files_of(&self, open: &[&Slot]) -> Vec<WriteFile> {
        let mut folders: BTreeMap<&str, Vec<Position>> = BTreeMap::new();
        for slot in open {
            let folder = slot.item.as_ref().map_or("", |item| item.group.as_str());
            folders.entry(folder).or_default().push(slot.entry.position);
        }
        let installation = self.context.master_key.installation();
        let named = |(folder, positions): (&str, Vec<Position>)| {
            let connection = self.lease.duty.connection;
            let name = FileName { installation: &installation, connection, events: &positions };
            WriteFile { path: format!("{folder}/{name}"), positions, tried: false }
        };
        folders.into_iter().map(named).collect()
    }

    /// One try of a write.
    async fn write(&mut self, write: &Write, slots: &mut [Slot], way: &Way<'_>) -> Result<(), LaneError> {
        let at: HashMap<Position, usize> =
            slots.iter().enumerate().map(|(i, s)| (s.entry.position, i)).collect();
        let all = write
            .files
            .iter()
            .flat_map(|file| &file.positions)
            .filter_map(|position| at.get(position).copied());
        let open: Vec<usize> = all.filter(|i| slots[*i].verdict.is_none()).collect();
        let limits = way.destination.limits();
        let at_once = wave_size(limits);
        if self.lease.lost().run_until_cancelled(self.pace(open.len())).await.is_none() {
            return Err(LaneError::LeaseUnsure);
        }
        let admitted =
            self.context.quota.admit_all(way.connection.id, limits, at_once.min(write.files.len()));
        let Some(admitted) = self.lease.lost().run_until_cancelled(admitted).await else {
            return Err(LaneError::LeaseUnsure);
        };
        let _admission =
            admitted.map_err(|used_up| self.day_is_used_up(way.connection, way.leave, &used_up))?;
        if let Some(hold) = self.on_hold() {
            return Err(LaneError::OnHold(hold));
        }
        self.still_has_leave(way.leave)?;
        let Some(generation) = open.first().map(|first| slots[*first].entry.position.generation) else {
            return Ok(());
        };
        self.intend_write(write, generation).await?;

        let goes_out =
            |position: &Position| at.get(position).copied().filter(|i| slots[*i].verdict.is_none());
        let files = write
            .files
            .iter()
            .map(|of| File { of, members: of.positions.iter().filter_map(goes_out).collect() });
        let files: Vec<File<'_>> = files.filter(|file: &File<'_>| !file.members.is_empty()).collect();
        let mut files = files.into_iter().peekable();
        // Whether surely nothing of it is there.
        let mut is_untried = !write.is_tried();
        let mut together = if way.ahead { 1 } else { at_once };
        while files.peek().is_some() {
            let batch: Vec<File<'_>> = files.by_ref().take(together).collect();
            // Before each: writing many takes minutes, and who withdraws meanwhile is not to stand in what is written then.
            let batch = match self.files_still_allowed(batch, slots, way).await {
                Ok(batch) => batch,
                Err(error) => {
                    if is_untried {
                        self.withdraw_write(write.id).await?;
                    }
                    return Err(error);
                }
            };
            if batch.is_empty() {
                continue;
            }
            // What is there is there; the rest is planned anew, and goes where it leads by now.
            if self.has_changed(way.connection) {
                if is_untried {
                    self.withdraw_write(write.id).await?;
                }
                break;
            }
            batch.iter().for_each(|file| self.writes.try_now(write.id, &file.of.path));
            let begun = SystemTime::now();
            let (lane, shown): (&Self, &[Slot]) = (self, slots);
            let done = batch.iter().map(|file| lane.write_file(file, shown, way.destination, way.store));
            let done = futures::future::join_all(done).await;
            self.requests += done.len() as u64;
            let results = batch.into_iter().zip(done).collect();
            let (health, failed) = self.read_results(slots, results, begun, way.destination, way.target);
            self.tell_of_platform(way.connection, way.leave, health);
            // After one that could not be written the rest would only fare the same.
            if let Some((error, none_there)) = failed {
                if none_there && is_untried {
                    self.withdraw_write(write.id).await?;
                }
                return Err(error);
            }
            is_untried = false;
            together = at_once;
        }
        Ok(())
    }

    /// Files without those who may not be written any more, if something may be written at all.
    async fn files_still_allowed<'w>(
        &mut self,
        files: Vec<File<'w>>,
        slots: &mut [Slot],
        way: &Way<'_>,
    ) -> Result<Vec<File<'w>>, LaneError> {
        let members: Vec<usize> = files.iter().flat_map(|file| &file.members).copied().collect();
        let Allowed { members, .. } =
            self.still_allowed(slots, members, way.connection, way.destination).await?;
        if !self.lease.surely_held_for(LEASE_MARGIN) {
            return Err(LaneError::LeaseUnsure);
        }
        if let Some(hold) = self.on_hold() {
            return Err(LaneError::OnHold(hold));
        }
        self.still_has_leave(way.leave)?;
        let members: HashSet<usize> = members.into_iter().collect();
        let files = files.into_iter().map(|file| {
            let kept = file.members.into_iter().filter(|member| members.contains(member)).collect();
            File { of: file.of, members: kept }
        });
        Ok(files.filter(|file| !file.members.is_empty()).collect())
    }

    /// Puts one file together and writes it.
    async fn write_file(
        &self,
        file: &File<'_>,
        slots: &[Slot],
        destination: &dyn Destination,
        store: &Store,
    ) -> Done {
        let row = |index: &usize| {
            let slot = &slots[*index];
            let body = slot.item.as_ref().map(|item| item.body.as_str()).unwrap_or_default();
            PlacedRow { position: slot.entry.position, row: Bytes::copy_from_slice(body.as_bytes()) }
        };
        let rows: Vec<PlacedRow> = file.members.iter().map(row).collect();
        let connection = self.lease.duty.connection;
        let content = match tokio::task::spawn_blocking(move || put_together(&rows, connection.0)).await {
            Ok(Ok(content)) => content,
            Ok(Err(NoFile { bad, why })) if bad.is_empty() => return Done::NoFile(why),
            Ok(Err(NoFile { bad, .. })) => {
                return Done::Poisoned(bad.into_iter().map(|place| file.members[place]).collect());
            }
            Err(error) => return Done::NoFile(error.to_string()),
        };
        let bytes = content.len() as u64;
        let (folder, name) = file.of.path.rsplit_once('/').unwrap_or(("", &file.of.path));
        let begun = SystemTime::now();
        let written = async {
            let timeout = destination.limits().timeout;
            store.write(folder, name, content, timeout).await.map_err(|error| match error {
                WriteError::NotWritten(why) => SendError::NotSent(why),
                WriteError::Unknown(why) => SendError::Unknown(why),
            })
        };
        let answer = while_held(&self.lease, written).await;
        metrics::histogram!("tracklayer_delivery_request_seconds", "kind" => destination.kind().as_str())
            .record(begun.elapsed().unwrap_or_default().as_secs_f64());
        let done = Done::Answered(answer);
        if done.is_written() {
            metrics::counter!("tracklayer_delivery_files_total").increment(1);
            metrics::counter!("tracklayer_delivery_file_bytes_total").increment(bytes);
        }
        done
    }

    /// What became of the events of each file: what it says of the place, and the first failure, if there is one, with whether surely
    /// nothing is there.
    fn read_results(
        &mut self,
        slots: &mut [Slot],
        results: Vec<(File<'_>, Done)>,
        begun: SystemTime,
        destination: &dyn Destination,
        target: &FileTarget,
    ) -> (Health, Option<(LaneError, bool)>) {
        let mut health = Health::default();
        let mut failed = None;
        let mut none_there = true;
        let now = self.context.clock.now();
        for (file, done) in results {
            match done {
                Done::Poisoned(bad) => bad.into_iter().for_each(|index| bury(&mut slots[index], now)),
                Done::NoFile(why) => {
                    failed.get_or_insert(held(format!("a file could not be put together: {why}")));
                }
                Done::Answered(answer) => {
                    file.members.iter().for_each(|index| slots[*index].sent_at = Some(begun));
                    let url = format!("{}{}", target.url_of(""), file.of.path);
                    let request = HttpRequest { method: "PUT", ..HttpRequest::get(url) };
                    match self.read_answer(slots, &file.members, answer, &request, destination) {
                        Ok((again, sign)) => {
                            none_there = false;
                            health.note(sign);
                            // No answer of a place says so of single events.
                            let is_open = !again.is_empty();
                            failed = failed.or(is_open.then(|| held("the answer cannot be read".to_owned())));
                        }
                        Err(failure) => {
                            none_there &= failure.surely_not_taken;
                            health.note(failure.sign);
                            failed.get_or_insert(failure.error);
                        }
                    }
                }
            }
        }
        (health, failed.map(|error| (error, none_there)))
    }

    async fn intend_write(&self, write: &Write, generation: Generation) -> Result<(), LaneError> {
        let (offsets, files) = (write.offsets(), write.to_text());
        let intend = self.context.lanes.intend(&self.lease, write.id, generation, &offsets, &files);
        Ok(not_aside(intend).await?)
    }

    pub(super) async fn withdraw_write(&mut self, id: Uuid) -> Result<(), LaneError> {
        self.context.lanes.withdraw(&self.lease, &[id]).await?;
        self.writes.forget(id);
        Ok(())
    }
}

fn held(detail: String) -> LaneError {
    LaneError::Held { kind: HoldKind::Transient.as_str(), detail, after: None }
}

fn bury(slot: &mut Slot, now: Timestamp) {
    slot.settle(State::Dead, "poisoned", "putting it into a file crashed", now);
    plan::settle_as_unknown(slot, now);
}

/// Rows that are no file.
struct NoFile {
    /// Which of them cannot even be one alone.
    bad: Vec<usize>,
    why: String,
}

/// The bytes of a file. Pure, so that nothing is left half done where it panics over a row.
fn put_together(rows: &[PlacedRow], connection: i64) -> Result<Bytes, NoFile> {
    let metadata = BTreeMap::from([("tracklayer.connection_id".to_owned(), connection.to_string())]);
    let tried = |rows: &[PlacedRow]| {
        let encoded = super::guard::unless_it_crashes(|| encode(rows, &metadata));
        encoded.unwrap_or_else(|| Err(tracklayer_lake::EncodeError::Schema("it crashed".to_owned())))
    };
    tried(rows).map_err(|error| NoFile {
        bad: (0..rows.len()).filter(|place| tried(&rows[*place..=*place]).is_err()).collect(),
        why: error_chain(&error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_none_is_told_from_its_neighbours() {
        let good = serde_json::json!({
            "message_id": "m", "event_type": "track", "timestamp": "2026-11-29T12:00:00Z",
            "received_at": "2026-11-29T12:00:01Z", "source_id": 1,
        });
        let row =
            |offset: u64, text: String| PlacedRow { position: Position::new(1, 0, offset), row: text.into() };
        let rows = [row(0, good.to_string()), row(1, "{}".to_owned()), row(2, good.to_string())];
        let NoFile { bad, why } = put_together(&rows, 7).unwrap_err();
        assert_eq!(bad, [1]);
        assert!(why.contains("is no row"), "{why}");
        assert!(put_together(&[rows[0].clone(), rows[2].clone()], 7).is_ok());
    }
}

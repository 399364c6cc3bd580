//! The customer's own warehouse: Parquet files in a folder or an S3-compatible bucket, one row an event.
//!
//! Nothing of a file is made here but its rows and its folder: a row is a pure function of the resolved event, and so is the
//! folder, whatever the settings say and whenever it is asked. By that a file that was begun before a crash can be made again
//! with the same rows. Which events share a file, the lane decides; what a file looks like, `libs/lake` knows.

pub mod answer;
pub mod folder;
pub mod row;
pub mod settings;
pub mod target;
mod verify;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tracklayer_ids::Secret;

use crate::body::ItemBody;
use crate::connection::Connection;
use crate::deliverable::Deliverable;
use crate::destination::{ConsentQuery, Destination, Limits};
use crate::document::{Document, Kind, Mode, SettingsErrors, WorkspaceDefaults};
use crate::outcome::{Answer, Item, ItemOutcome, Refusal, Skip};
use crate::request::HttpRequest;
use crate::verify::{Check, Sample, TestAnswer, of_outcomes};
use settings::Settings;
pub use target::{FileTarget, Place};

/// Files of one connection that a process writes at the same time, over all its lanes.
const MAX_CONCURRENT: usize = 8;
/// How long one file may take, until its outcome is unknown. A file is at most [`settings::MAX_MEGABYTES`].
const TIMEOUT: Duration = Duration::from_secs(60);

/// An opened `warehouse` connection.
#[derive(Debug)]
pub struct Warehouse {
    connection: Connection,
    target: FileTarget,
    limits: Limits,
}

impl Warehouse {
    /// Opens a document.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn open(document: &Value, workspace: &WorkspaceDefaults) -> Result<Self, SettingsErrors> {
        let document: Document<Settings> = crate::document::read(Kind::Warehouse, document)?;
        let mut errors = Vec::new();
        let connection = Connection::new(&document, workspace, None, &mut errors);
        let target = FileTarget::of(&document.settings, &mut errors);
        let Some(target) = target.filter(|_| errors.is_empty()) else { return Err(SettingsErrors(errors)) };
        let limits = Limits {
            max_events: target.rows_per_file,
            max_body_bytes: target.bytes_per_file,
            // A file that is written again is the same file, but an event that is sent again is another row.
            dedup_window: None,
            requests_per_minute: None,
            requests_per_day: None,
            whose: None,
            max_concurrent: MAX_CONCURRENT,
            timeout: TIMEOUT,
        };
        Ok(Self { connection, target, limits })
    }
}

impl Destination for Warehouse {
    fn kind(&self) -> Kind {
        Kind::Warehouse
    }

    fn mode(&self) -> Mode {
        self.connection.mode
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn max_event_age(&self, _: &Deliverable) -> Option<Duration> {
        None
    }

    fn consent_query(&self) -> ConsentQuery {
        self.connection.consent_query()
    }

    fn wants(&self, event: &Deliverable) -> Result<(), Skip> {
        self.connection.wants(event)
    }

    fn build(&self, event: &Deliverable, now: Timestamp) -> Result<Item, Refusal> {
        self.connection
            .check_unrestricted(event, "nobody who reads the files could be told of a restriction")?;
        Ok(Item {
            body: ItemBody::of(&row::Row::of(event)),
            notes: Vec::new(),
            group: folder::of(event),
            exclusive: None,
            event_id: self.connection.event_id(event).into_owned(),
            // By itself. A whole file is written again under its name, which is the lane's to say.
            repeatable: false,
            name: event.event.name.clone(),
            order: None,
            remark: None,
            keys: None,
            built_at: now,
        })
    }

    /// What a preview shows: the folder, and the rows as they stand in the file. The lane writes a file of the same rows.
    fn assemble(&self, items: &[&Item], _: Option<&Secret<String>>) -> HttpRequest {
        let folder = items.first().map_or("", |item| item.group.as_str());
        let rows: Vec<&ItemBody> = items.iter().map(|item| &item.body).collect();
        HttpRequest { method: "PUT", ..HttpRequest::post_json(self.target.url_of(folder), &rows) }
    }

    fn classify(&self, answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome> {
        vec![answer::read(answer, &self.target.place); sent.len()]
    }

    fn files(&self) -> Option<&FileTarget> {
        Some(&self.target)
    }

    fn checks(&self, sample: &Sample) -> Vec<Check> {
        verify::checks(self, sample)
    }

    fn read_test(&self, answer: &Answer, _: &[&Item]) -> TestAnswer {
        of_outcomes(vec![answer::read(answer, &self.target.place)])
    }
}

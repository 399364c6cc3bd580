//! What a preview says of a line, or of a range where events are put into requests as a lane does:
//! `{"status","requests":[{"method","url","headers","body"}],"refused":[{"index","code","field","reason"}],
//! "notes":[{"index","kind","field","about","code","reason"}]}` on one line, with `status` one of built, partly_refused, refused,
//! filtered, blocked, duplicate, invalid. A body has the very bytes of the request. Notes tell what was left out of events, also of
//! refused ones. The answer of a range has its `lines` (first and last), each request its `events`, and whatever is about one event
//! names its `line`.

use serde::Serialize;

use crate::note::Note;
use crate::request::{HttpRequest, ShownRequest};

/// Why an event is in no request; says which word the status has where that is so of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotSent {
    /// It can never be sent, or the connection has nothing for it.
    Refused,
    /// It cannot be read.
    Invalid,
    /// Consent denies it.
    Blocked,
    /// The connection does not want it.
    Filtered,
    /// Another one was first.
    Duplicate,
}

impl NotSent {
    const fn status(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Blocked => "blocked",
            Self::Filtered => "filtered",
            Self::Duplicate => "duplicate",
        }
    }
}

/// Which event of the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventRef {
    /// Line, from 1.
    pub line: u64,
    /// Place in the line, from 0.
    pub index: usize,
    /// Its id; empty where it cannot be read.
    pub message_id: String,
}

/// An event that is in no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Which.
    pub event: EventRef,
    /// What sort of reason.
    pub sort: NotSent,
    /// From a closed list.
    pub code: String,
    /// Field to blame.
    pub field: Option<String>,
    /// For people.
    pub reason: String,
}

impl Told {
    /// Without a field to blame.
    #[must_use]
    pub fn new(event: EventRef, sort: NotSent, code: &str, reason: String) -> Self {
        Self { event, sort, code: code.to_owned(), field: None, reason }
    }
}

/// A request, and whose events are in it.
#[derive(Debug, Clone)]
pub struct Built {
    /// As sent, with what secrets the connection has.
    pub request: HttpRequest,
    /// In their order in the request.
    pub events: Vec<EventRef>,
}

/// What is said.
#[derive(Debug, Default)]
pub struct Answer {
    /// Requests, in order.
    pub requests: Vec<Built>,
    /// Events that are in none.
    pub refused: Vec<Told>,
    /// What was left out of events.
    pub notes: Vec<(EventRef, Note)>,
    /// First and last line, for a range.
    pub range: Option<(u64, u64)>,
}

impl Answer {
    /// One word for all of it.
    #[must_use]
    pub fn status(&self) -> &'static str {
        let worst = self.refused.iter().map(|told| told.sort).min();
        match worst {
            None => "built",
            Some(_) if !self.requests.is_empty() => "partly_refused",
            Some(sort) => sort.status(),
        }
    }

    /// Events that cannot be read.
    pub fn problems(&self) -> impl Iterator<Item = &Told> {
        self.refused.iter().filter(|told| told.sort == NotSent::Invalid)
    }

    /// One line of JSON, without the line's end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let in_range = self.range.is_some();
        let line_of = |event: &EventRef| in_range.then_some(event.line);
        let shown = Shown {
            status: self.status(),
            lines: self.range,
            requests: self
                .requests
                .iter()
                .map(|built| ShownBuilt {
                    request: built.request.shown(),
                    events: in_range.then_some(built.events.as_slice()),
                })
                .collect(),
            refused: self
                .refused
                .iter()
                .map(|told| ShownTold {
                    line: line_of(&told.event),
                    index: told.event.index,
                    code: &told.code,
                    field: told.field.as_deref(),
                    reason: &told.reason,
                })
                .collect(),
            notes: self
                .notes
                .iter()
                .map(|(event, note)| ShownNote {
                    line: line_of(event),
                    index: event.index,
                    kind: note.kind.as_str(),
                    field: &note.field,
                    about: note.about,
                    code: note.reason.code(),
                    reason: note.reason.text(),
                })
                .collect(),
        };
        // Made of texts, numbers and JSON that was read before: nothing in it can fail.
        serde_json::to_string(&shown).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<(u64, u64)>,
    requests: Vec<ShownBuilt<'a>>,
    refused: Vec<ShownTold<'a>>,
    notes: Vec<ShownNote<'a>>,
}

#[derive(Serialize)]
struct ShownBuilt<'a> {
    #[serde(flatten)]
    request: ShownRequest<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<&'a [EventRef]>,
}

#[derive(Serialize)]
struct ShownTold<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    index: usize,
    code: &'a str,
    field: Option<&'a str>,
    reason: &'a str,
}

#[derive(Serialize)]
struct ShownNote<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    index: usize,
    kind: &'static str,
    field: &'a str,
    about: &'a str,
    code: &'static str,
    reason: &'static str,
}

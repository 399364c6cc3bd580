//! Destinations: what each ad platform wants to receive and what its answers mean. Pure: no I/O, no clock, no async; the
//! time is passed as a value. Delivery's lanes send what is built here, control validates connection documents with it, and
//! `preview` shows the very requests that a lane would send, because there is only this one way to build them.
//!
//! Modules in reading order: [`document`] (the connection document: kind, mode, settings, maps), [`deliverable`] (an event
//! with everything that resolve found out about it), [`outcome`] (items, refusals, answers, outcomes), [`note`] (what stays
//! behind of an event, and why), [`quality`] (what its person can be matched by), [`request`] (what goes on the wire, and its masked form), [`trial`] (what a platform says of a
//! request without counting it), [`verify`] (the acceptance checks of a connection), [`quota_key`] (whose limits it has), [`destination`] (the trait); the readings of a Segment event that all platforms share:
//! [`usual`] (where it is looked at), [`mapping`], [`connection`], [`commerce`], [`person`], [`clicks`], [`timing`], [`network`]; what expressions of a connection make
//! of an event: [`places`] (what they may read, by `keys`), [`maps`] (compiled), [`overlay`] (what they gave), [`mapped`] (a connection that
//! has some); [`fields`] (a payload while it is built); one folder per platform ([`google`] holds what its two upload APIs share);
//! [`registry`]; [`plan`] (what becomes of an event, and which items share a request), [`order_book`], [`preview`] and [`tried`] (a
//! document on a sample).
//!
//! A new destination adds a folder and one line in [`registry`].

pub mod body;
pub mod clicks;
pub mod commerce;
pub mod connection;
pub mod deliverable;
pub mod destination;
pub mod document;
pub mod fields;
pub mod json;
mod keys;
pub mod mapped;
pub mod mapping;
pub mod maps;
pub mod match_key;
pub mod network;
pub mod note;
pub mod order_book;
pub mod outcome;
pub mod overlay;
pub mod person;
pub mod places;
pub mod plan;
pub mod preview;
pub mod quality;
pub mod quota_key;
pub mod registry;
pub mod request;
pub mod timing;
pub mod trial;
pub mod tried;
pub mod unsent;
pub mod usual;
pub mod verify;

pub mod data_manager;
pub mod ga4;
pub mod google;
pub mod google_ads;
pub mod meta;
pub mod tiktok;
pub mod warehouse;
pub mod webhook;

pub use body::ItemBody;
pub use deliverable::{Consent, Deliverable, OrderState};
pub use destination::{ConsentQuery, Destination, Limits, OAuthSettings, OrderNeed, Pauses, Usage};
pub use document::{ConsentCap, Document, Kind, Mode, SettingsError, SettingsErrors, WorkspaceDefaults};
pub use json::Json;
pub use match_key::MatchKey;
pub use network::is_private;
pub use note::{Note, NoteCounts, NoteKind, NoteLabels, NoteReason, Rule};
pub use order_book::OrderBook;
pub use outcome::{
    Answer, Fate, HoldKind, Item, ItemOutcome, OrderEffect, Refusal, RefusalCode, Remark, Skip, SkipReason,
};
pub use plan::{Open, Plan};
pub use quality::{EventQuality, Key, KeyCounts, KeySet};
pub use quota_key::QuotaKey;
pub use registry::{open, schema, secret_paths};
pub use request::{HeaderText, HttpRequest};
pub use trial::{Finding, Trial};
pub use verify::{Aspect, Check, NoTest, PixelAnswer, Sample, TestAnswer, Way};
pub use warehouse::{FileTarget, Place};

//! The firewall before fan-out: signals, policies by jurisdiction, decisions, receipts.
//!
//! It owns the schema `consent`. Nothing here calls another service.
//!
//! In reading order, from the pure middle outwards:
//! [`purpose`], [`reason`], [`kind`] are the closed lists; [`strings`] decodes what banners and browsers send; [`policy`] is
//! law as data; [`signal`] is one statement, [`facts`] what all statements of a subject amount to, [`tcf_verdict`] and
//! [`regime`] what that means in one place, [`decide`] the answer for a connection, [`explain`] the same for people.
//! [`statement`] is a signal as it is stored, [`footprint`] tells whether it narrows, [`record`] what a batch changes.
//! [`store`] is all SQL, [`firewall`] puts it together, [`grpc`] is the wire, [`config`] and [`run()`] the service.
#![warn(missing_docs)]

pub mod config;
pub mod decide;
pub mod error;
pub mod explain;
pub mod facts;
pub mod firewall;
pub mod footprint;
pub mod grpc;
pub mod kind;
pub mod metrics;
pub mod policy;
pub mod purpose;
pub mod reason;
pub mod record;
pub mod regime;
mod run;
pub mod signal;
pub mod statement;
pub mod store;
pub mod strings;
pub mod tcf_verdict;

pub use config::Config;
pub use run::{RunError, run};

/// The tables of consent, schema `consent`.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

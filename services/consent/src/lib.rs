//! The firewall before fan-out: signals, policies by jurisdiction, decisions, receipts.
//!
//! In reading order, from the pure middle outwards:
//! [`purpose`], [`reason`], [`kind`] are the closed lists; [`strings`] decodes what banners and browsers send; [`policy`] is
//! law as data; [`signal`] is one statement, [`facts`] what all statements of a subject amount to, [`tcf_verdict`] and
//! [`regime`] what that means in one place, [`decide`] the answer for a connection.
//! [`statement`] is a signal as it is stored, [`footprint`] tells whether it narrows, [`record`] what a batch changes.
#![warn(missing_docs)]

pub mod decide;
pub mod facts;
pub mod footprint;
pub mod kind;
pub mod policy;
pub mod purpose;
pub mod reason;
pub mod record;
pub mod regime;
pub mod signal;
pub mod statement;
pub mod strings;
pub mod tcf_verdict;

//! Files of a warehouse: rows → Parquet ([`table`]), what a file is called ([`name`]), and how it gets into a folder or a bucket in
//! one piece ([`store`]). Knows nothing of lanes, and of events only the row that `libs/destination` makes of one.
//!
//! Bytes and name are pure functions of what is written, and a file is there whole or not at all. By that writing is repeatable:
//! whoever writes a file again, after a crash or long after somebody else did, replaces it by itself.

mod bucket;
mod folder;
pub mod name;
pub mod store;
pub mod table;

pub use name::FileName;
pub use store::{Refused, Rules, Store, WriteError};
pub use table::{EncodeError, PlacedRow, encode};

//! What each platform remembers: the book of what it counted, with its totals, and the newest requests as
//! they came.

mod book;
mod requests;

pub(crate) use book::{Arrival, Book, ByKey, Key, Pages};
pub use book::{Counted, Totals};
pub use requests::SeenRequest;
pub(crate) use requests::{NewRequest, Requests};

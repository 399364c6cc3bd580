//! Typed ids, positions and the wrappers for what must not be printed.
//!
//! Modules in reading order: [`id`] (numbers and texts that name one kind of thing each), [`position`] (where an event
//! stands in the journal), [`key`] (keys derived from the master key), [`private`] (values whose `Debug` is `***`).

mod id;
pub mod key;
mod position;
mod private;

pub use id::{ConnectionId, IdError, MessageId, SourceId, WorkspaceId};
pub use key::{MasterKey, SubjectKey, WorkspaceKey};
pub use position::{Generation, Offset, Partition, PartitionKey, Position};
pub use private::{Pii, Secret};

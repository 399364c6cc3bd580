//! A resolved event as a line: what `tracklayer journal read --resolved` prints and `preview` reads. Beside what people look at,
//! such a line has the stored bytes, so that what is built of it is built of the very event that a lane reads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde_json::{Value, json};
use tracklayer_ids::Position;
use tracklayer_proto::event::v1::{Event, ResolvedEvent};

/// The line of an event. `event` and `outcome` are for people; without `stored` bytes, which hold everything about the person,
/// nothing can be built of it.
#[must_use]
pub fn to_line(position: Position, event: &Value, outcome: &Value, stored: Option<&[u8]>) -> String {
    let position = json!({
        "generation": position.generation.0, "partition": position.partition.0, "offset": position.offset.0,
    });
    let stored = stored.map(|bytes| STANDARD.encode(bytes));
    json!({ "position": position, "event": event, "outcome": outcome, "resolved": stored }).to_string()
}

/// What stands at a position, as a lane takes it.
#[derive(Debug)]
pub enum Stored {
    /// An event to deliver.
    Event(Box<Event>, Box<ResolvedEvent>),
    /// Another one was first.
    Duplicate {
        /// Its id.
        message_id: String,
        /// Where the first one stands.
        of: String,
    },
    /// It cannot be handled, for this reason.
    Poisoned {
        /// Its id, where it is known.
        message_id: String,
        /// Why.
        why: String,
        /// Whether its block was lost.
        is_lost: bool,
    },
}

/// Reads the bytes of a line.
///
/// # Errors
/// They are not what was written.
pub fn stored(text: &str) -> Result<Stored, &'static str> {
    let bytes = STANDARD.decode(text).map_err(|_| "is not base64: the line was changed or cut")?;
    if bytes.is_empty() {
        let why = "it was erased".to_owned();
        return Ok(Stored::Poisoned { message_id: String::new(), why, is_lost: false });
    }
    let mut resolved = ResolvedEvent::decode(bytes.as_slice())
        .map_err(|_| "holds no resolved event: the line was changed or cut")?;
    let message_id = std::mem::take(&mut resolved.message_id);
    if let Some(first) = &resolved.duplicate {
        let of = format!("{}/{}/{}", first.generation, first.partition, first.offset);
        return Ok(Stored::Duplicate { message_id, of });
    }
    if !resolved.poisoned.is_empty() {
        let is_lost = resolved.lost;
        return Ok(Stored::Poisoned { message_id, why: resolved.poisoned, is_lost });
    }
    match Event::decode(std::mem::take(&mut resolved.event)) {
        Ok(event) => Ok(Stored::Event(Box::new(event), Box::new(resolved))),
        Err(_) => {
            let why = "the event cannot be decoded".to_owned();
            Ok(Stored::Poisoned { message_id, why, is_lost: false })
        }
    }
}

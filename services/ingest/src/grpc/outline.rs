//! What can be known of a message before it is decoded: how many events it has, and of one that is only read over, its sequence.

use bytes::Buf as _;
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// `PublishRequest.events`.
const EVENTS: u32 = 1;
/// `PublishStreamRequest.sequence`.
const SEQUENCE: u32 = 1;
/// `PublishStreamRequest.batch`.
const BATCH: u32 = 2;
/// Longest varint, bytes.
const MAX_VARINT_BYTES: u32 = 10;

/// Events of a `PublishRequest`.
pub(super) fn events_of_batch(mut bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut events = 0;
    while bytes.has_remaining() {
        let (field, wire_type) = decode_key(&mut bytes)?;
        events += usize::from(field == EVENTS);
        skip_field(wire_type, field, &mut bytes, DecodeContext::default())?;
    }
    Ok(events)
}

/// Events of a `PublishStreamRequest`.
pub(super) fn events_of_stream(mut bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut events = 0;
    while bytes.has_remaining() {
        let (field, wire_type) = decode_key(&mut bytes)?;
        if (field, wire_type) != (BATCH, WireType::LengthDelimited) {
            skip_field(wire_type, field, &mut bytes, DecodeContext::default())?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut bytes)?).unwrap_or(usize::MAX);
        // Where it ends too early, the decoder says so.
        let (batch, rest) = bytes.split_at(length.min(bytes.len()));
        events += events_of_batch(batch)?;
        bytes = rest;
    }
    Ok(events)
}

/// Reads over a `PublishStreamRequest` that comes in parts, and keeps nothing but its sequence.
#[derive(Debug, Default)]
pub(super) struct Skim {
    /// 0 until it was seen.
    pub(super) sequence: u64,
    state: Skimming,
}

/// It is not this message, or no message at all.
#[derive(Debug)]
pub(super) struct Malformed;

#[derive(Debug)]
enum Skimming {
    Varint { what: Expected, value: u64, bytes: u32 },
    Skip(u64),
}

#[derive(Debug, Clone, Copy)]
enum Expected {
    Key,
    Length,
    Value { of: u64 },
}

impl Default for Skimming {
    fn default() -> Self {
        expect(Expected::Key)
    }
}

fn expect(what: Expected) -> Skimming {
    Skimming::Varint { what, value: 0, bytes: 0 }
}

impl Skim {
    /// Reads on.
    pub(super) fn read(&mut self, mut part: &[u8]) -> Result<(), Malformed> {
        while !part.is_empty() {
            match &mut self.state {
                Skimming::Skip(left) => {
                    let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(part.len());
                    part.advance(skipped);
                    *left -= skipped as u64;
                    if *left == 0 {
                        self.state = Skimming::default();
                    }
                }
                Skimming::Varint { what, value, bytes } => {
                    let byte = part.get_u8();
                    if *bytes == MAX_VARINT_BYTES {
                        return Err(Malformed);
                    }
                    *value |= u64::from(byte & 0x7f).checked_shl(*bytes * 7).unwrap_or(0);
                    *bytes += 1;
                    if byte & 0x80 == 0 {
                        let (what, value) = (*what, *value);
                        self.state = self.known(what, value)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn known(&mut self, what: Expected, value: u64) -> Result<Skimming, Malformed> {
        let (field, wire_type) = (value >> 3, value & 7);
        match (what, wire_type) {
            (Expected::Key, 0) => Ok(expect(Expected::Value { of: field })),
            (Expected::Key, 1) => Ok(Skimming::Skip(8)),
            (Expected::Key, 2) => Ok(expect(Expected::Length)),
            (Expected::Key, 5) => Ok(Skimming::Skip(4)),
            (Expected::Key, _) => Err(Malformed),
            (Expected::Length, _) if value == 0 => Ok(Skimming::default()),
            (Expected::Length, _) => Ok(Skimming::Skip(value)),
            (Expected::Value { of }, _) => {
                if of == u64::from(SEQUENCE) {
                    self.sequence = value;
                }
                Ok(Skimming::default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use tracklayer_proto::ingest::v1::{PublishEvent, PublishRequest, PublishStreamRequest};

    use super::*;

    fn batch(events: usize) -> PublishRequest {
        let event = PublishEvent { message_id: "m".repeat(200), ..PublishEvent::default() };
        let mut events = vec![event; events];
        events.push(PublishEvent::default());
        PublishRequest { events, sent_at: Some(prost_types::Timestamp { seconds: 1, nanos: 2 }) }
    }

    proptest! {
        #[test]
        fn events_are_counted_and_the_sequence_is_found_as_the_decoder_does(
            events in 0usize..20, sequence: u64, size in 1usize..300,
        ) {
            let request = PublishStreamRequest { sequence, batch: Some(batch(events)) };
            prop_assert_eq!(events_of_batch(&batch(events).encode_to_vec()).unwrap(), events + 1);
            let bytes = request.encode_to_vec();
            prop_assert_eq!(events_of_stream(&bytes).unwrap(), events + 1);
            let mut skim = Skim::default();
            bytes.chunks(size).for_each(|part| skim.read(part).unwrap());
            prop_assert_eq!(skim.sequence, sequence);
        }

        #[test]
        fn nothing_that_comes_makes_it_panic(bytes: Vec<u8>) {
            let _ = events_of_stream(&bytes);
            let _ = events_of_batch(&bytes);
            let _ = Skim::default().read(&bytes);
        }
    }
}

//! A block as the bytes of a record: the header's length, the header, the payload.

use prost::encoding::{decode_varint, encode_varint};
use tracklayer_journal::{Block, BlockError, BlockHeader};

/// A block's record.
#[must_use]
pub fn encode(block: &Block) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(block.header_bytes.len() + block.payload.len() + 5);
    encode_varint(block.header_bytes.len() as u64, &mut bytes);
    bytes.extend_from_slice(&block.header_bytes);
    bytes.extend_from_slice(&block.payload);
    bytes
}

/// Header and payload of a record.
///
/// # Errors
/// It is no block, or one that needs a newer reader.
pub(crate) fn decode(record: &[u8]) -> Result<(BlockHeader, &[u8]), BlockError> {
    let (header, payload) = split(record).ok_or(BlockError::Header)?;
    Ok((BlockHeader::read(header)?, payload))
}

/// What a record looks like: its header, in which the payload's checksum stands, and its time. Of a record that is no block:
/// all of it.
pub(crate) fn mark(record: &[u8], time_ms: i64) -> i64 {
    let looks = split(record).map_or(record, |(header, _)| header);
    xxhash_rust::xxh3::xxh3_64_with_seed(looks, time_ms.cast_unsigned()).cast_signed()
}

fn split(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = record;
    let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracklayer_ids::SourceId;
    use tracklayer_journal::BlockBuilder;

    fn block(text: &[u8]) -> Block {
        let mut builder = BlockBuilder::default();
        builder.push(SourceId(1), 1, text);
        builder.finish().unwrap()
    }

    #[test]
    fn a_block_comes_back_as_it_went_in() {
        let block = block(b"event");
        let record = encode(&block);
        let (header, payload) = decode(&record).unwrap();
        assert_eq!((header, payload), (block.header, block.payload.as_slice()));
    }

    #[test]
    fn no_bytes_make_a_reader_panic() {
        let record = encode(&block(b"event"));
        for length in 0..record.len() {
            let cut = &record[..length];
            if let Ok((header, payload)) = decode(cut) {
                assert!(header.events(payload).is_err(), "{length} bytes are no block");
            }
            mark(cut, 1);
        }
        assert!(decode(&[0xff; 30]).is_err());
    }

    #[test]
    fn other_events_or_another_time_are_another_mark() {
        let one = mark(&encode(&block(b"one")), 1);
        assert_ne!(one, mark(&encode(&block(b"two")), 1));
        assert_ne!(one, mark(&encode(&block(b"one")), 2));
    }
}

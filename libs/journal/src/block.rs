//! The stored bytes of a record batch.
//!
//! A block is a header (protobuf, so that fields can be added) and a payload: each event as a varint length and its
//! bytes, compressed together with zstd. The header alone answers how many events of which source and minute are inside,
//! so that what waits is counted without reading a payload.

use std::cell::RefCell;
use std::io;
use std::thread::LocalKey;

use bytes::{Buf, Bytes};
use prost::Message;
use tracklayer_ids::SourceId;
use zstd::bulk::{Compressor, Decompressor};

use crate::error::BlockError;

/// Highest feature level that this code reads.
pub const FEATURE_LEVEL: u32 = COMMERCE_LEVEL;
/// Level of a block whose events know what commerce key was claimed: who overlooks it sends the event under another id.
pub const COMMERCE_LEVEL: u32 = 2;
/// Level of a block that needs no other.
const FIRST_LEVEL: u32 = 1;
/// Codec numbers of the header.
const CODEC_ZSTD: u32 = 1;
/// Level 1 is within a few per cent of level 3 on events and three times as fast.
const ZSTD_LEVEL: i32 = 1;
/// Most bytes that a payload may inflate to: a guard for readers, far above what an appender writes.
const MAX_INFLATED_BYTES: usize = 256 * 1024 * 1024;

/// What a reader knows of a block before it touches the payload.
#[derive(Clone, PartialEq, Message)]
pub struct BlockHeader {
    /// Lowest feature level that a reader needs.
    #[prost(uint32, tag = "1")]
    pub feature_level: u32,
    /// Compression of the payload: 1 zstd.
    #[prost(uint32, tag = "2")]
    pub codec: u32,
    /// Key under which the payload is encrypted; 0: not encrypted.
    #[prost(uint32, tag = "3")]
    pub key_id: u32,
    /// CRC-32 of the payload as stored.
    #[prost(fixed32, tag = "4")]
    pub crc32: u32,
    /// Events inside, tombstones included.
    #[prost(uint32, tag = "5")]
    pub event_count: u32,
    /// Bytes of the payload before compression.
    #[prost(uint64, tag = "6")]
    pub inflated_bytes: u64,
    /// Events per source and minute of receipt.
    #[prost(message, repeated, tag = "7")]
    pub counts: Vec<SourceMinuteCount>,
    /// Indexes of erased events: their bytes are empty, their offsets stay.
    #[prost(uint32, repeated, tag = "8")]
    pub tombstones: Vec<u32>,
}

/// How many events of one source were received in one minute.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SourceMinuteCount {
    /// The source.
    #[prost(int64, tag = "1")]
    pub source_id: i64,
    /// Minutes since the Unix epoch.
    #[prost(int64, tag = "2")]
    pub minute: i64,
    /// Events.
    #[prost(uint32, tag = "3")]
    pub count: u32,
}

/// A block as it goes to the disk.
#[derive(Debug, Clone)]
pub struct Block {
    /// Decoded header.
    pub header: BlockHeader,
    /// Encoded header.
    pub header_bytes: Vec<u8>,
    /// Compressed events.
    pub payload: Vec<u8>,
}

impl Block {
    /// Bytes of header and payload.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        self.header_bytes.len() + self.payload.len()
    }
}

/// Collects events into a block.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    plain: Vec<u8>,
    count: u32,
    counts: Vec<SourceMinuteCount>,
    level: u32,
}

impl BlockBuilder {
    /// Says that what is inside needs a reader of this feature level; the block gets no higher level than it needs.
    pub fn need_level(&mut self, level: u32) {
        self.level = self.level.max(level);
    }

    /// Adds one event.
    pub fn push(&mut self, source: SourceId, minute: i64, event: &[u8]) {
        prost::encoding::encode_varint(event.len() as u64, &mut self.plain);
        self.plain.extend_from_slice(event);
        self.count += 1;
        // A block holds few sources and minutes, nearly always the same as the event before: search from the end.
        match self.counts.iter_mut().rev().find(|c| c.source_id == source.0 && c.minute == minute) {
            Some(found) => found.count += 1,
            None => self.counts.push(SourceMinuteCount { source_id: source.0, minute, count: 1 }),
        }
    }

    /// Events so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes so far, before compression.
    #[must_use]
    pub fn plain_bytes(&self) -> usize {
        self.plain.len()
    }

    /// Compresses and closes the block.
    ///
    /// # Errors
    /// [`BlockError::Compression`] if zstd refuses, which it does only without memory.
    pub fn finish(self) -> Result<Block, BlockError> {
        let payload = compress(&self.plain).map_err(|_| BlockError::Compression)?;
        let header = BlockHeader {
            feature_level: self.level.max(FIRST_LEVEL),
            codec: CODEC_ZSTD,
            key_id: 0,
            crc32: crc32fast::hash(&payload),
            event_count: self.count,
            inflated_bytes: self.plain.len() as u64,
            counts: self.counts,
            tombstones: Vec::new(),
        };
        let header_bytes = header.encode_to_vec();
        Ok(Block { header, header_bytes, payload })
    }
}

impl BlockHeader {
    /// Reads a stored header.
    ///
    /// # Errors
    /// Not a header, or one that needs a newer reader.
    pub fn read(bytes: &[u8]) -> Result<Self, BlockError> {
        let header = Self::decode(bytes).map_err(|_| BlockError::Header)?;
        if header.feature_level > FEATURE_LEVEL {
            return Err(BlockError::FeatureLevel { needed: header.feature_level, supported: FEATURE_LEVEL });
        }
        Ok(header)
    }

    /// Verifies, inflates and splits the payload; every event shares one allocation.
    ///
    /// # Errors
    /// Checksum, compression or count does not hold.
    pub fn events(&self, payload: &[u8]) -> Result<Vec<Bytes>, BlockError> {
        let found = crc32fast::hash(payload);
        if found != self.crc32 {
            return Err(BlockError::Checksum { found, expected: self.crc32 });
        }
        let inflated = usize::try_from(self.inflated_bytes).unwrap_or(usize::MAX);
        if self.codec != CODEC_ZSTD || inflated > MAX_INFLATED_BYTES {
            return Err(BlockError::Compression);
        }
        let plain = decompress(payload, inflated).map_err(|_| BlockError::Compression)?;
        let expected = self.event_count as usize;
        let mut rest = Bytes::from(plain);
        let mut events = Vec::with_capacity(expected.min(rest.len()));
        while rest.has_remaining() {
            let length = prost::encoding::decode_varint(&mut rest).ok().and_then(|l| usize::try_from(l).ok());
            match length {
                Some(length) if length <= rest.len() => events.push(rest.split_to(length)),
                _ => return Err(BlockError::Count { found: events.len(), expected }),
            }
        }
        if events.len() != expected {
            return Err(BlockError::Count { found: events.len(), expected });
        }
        Ok(events)
    }
}

// A context is a megabyte of tables: made once for each thread, not for each block.
thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn compress(plain: &[u8]) -> io::Result<Vec<u8>> {
    with_context(&COMPRESSOR, || Compressor::new(ZSTD_LEVEL), |context| context.compress(plain))
}

fn decompress(payload: &[u8], inflated: usize) -> io::Result<Vec<u8>> {
    with_context(&DECOMPRESSOR, Decompressor::new, |context| context.decompress(payload, inflated))
}

fn with_context<C, T>(
    context: &'static LocalKey<RefCell<Option<C>>>,
    make: impl FnOnce() -> io::Result<C>,
    work: impl FnOnce(&mut C) -> io::Result<T>,
) -> io::Result<T> {
    context.with_borrow_mut(|slot| {
        let mut context = match slot.take() {
            Some(context) => context,
            None => make()?,
        };
        let worked = work(&mut context);
        // One that failed is not used again.
        *slot = worked.is_ok().then_some(context);
        worked
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Block {
        let mut builder = BlockBuilder::default();
        builder.push(SourceId(1), 10, b"first");
        builder.push(SourceId(2), 10, b"");
        builder.push(SourceId(1), 10, b"third");
        builder.finish().unwrap()
    }

    #[test]
    fn events_come_back_as_they_went_in() {
        let block = sample();
        let header = BlockHeader::read(&block.header_bytes).unwrap();
        assert_eq!(
            header.counts,
            vec![
                SourceMinuteCount { source_id: 1, minute: 10, count: 2 },
                SourceMinuteCount { source_id: 2, minute: 10, count: 1 },
            ]
        );
        let events = header.events(&block.payload).unwrap();
        assert_eq!(events, vec![Bytes::from_static(b"first"), Bytes::new(), Bytes::from_static(b"third")]);
    }

    #[test]
    fn a_flipped_bit_is_found_before_anything_is_inflated() {
        let mut block = sample();
        block.payload[3] ^= 1;
        assert!(matches!(block.header.events(&block.payload), Err(BlockError::Checksum { .. })));
    }

    #[test]
    fn a_block_of_a_newer_writer_is_refused_not_misread() {
        let header = BlockHeader { feature_level: FEATURE_LEVEL + 1, ..sample().header };
        let refused = BlockHeader::read(&header.encode_to_vec());
        assert_eq!(refused, Err(BlockError::FeatureLevel { needed: 3, supported: 2 }));
    }

    #[test]
    fn a_block_needs_no_newer_reader_than_what_is_in_it() {
        assert_eq!(sample().header.feature_level, 1);
        let mut builder = BlockBuilder::default();
        builder.need_level(COMMERCE_LEVEL);
        builder.need_level(1);
        builder.push(SourceId(1), 10, b"event");
        let block = builder.finish().unwrap();
        assert_eq!(BlockHeader::read(&block.header_bytes).unwrap().feature_level, COMMERCE_LEVEL);
    }

    #[test]
    fn a_header_that_promises_more_events_is_an_error() {
        let block = sample();
        let header = BlockHeader { event_count: 4, ..block.header };
        assert_eq!(header.events(&block.payload), Err(BlockError::Count { found: 3, expected: 4 }));
    }

    proptest::proptest! {
        #[test]
        fn any_events_survive(events in proptest::collection::vec(proptest::collection::vec(0u8.., 0..300), 1..40)) {
            let mut builder = BlockBuilder::default();
            for event in &events {
                builder.push(SourceId(1), 1, event);
            }
            let block = builder.finish().unwrap();
            let back = BlockHeader::read(&block.header_bytes).unwrap().events(&block.payload).unwrap();
            proptest::prop_assert_eq!(back.iter().map(|b| b.to_vec()).collect::<Vec<_>>(), events);
        }

        #[test]
        fn no_stored_bytes_make_a_reader_panic(header in proptest::collection::vec(0u8.., 0..80), payload in proptest::collection::vec(0u8.., 0..80)) {
            if let Ok(header) = BlockHeader::read(&header) {
                let _ = header.events(&payload);
            }
        }
    }
}

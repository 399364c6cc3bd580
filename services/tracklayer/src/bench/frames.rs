//! Batches as they go over the wire. An event's bytes are made once; what differs each time it is sent, its ids and its time,
//! is written behind them, where protobuf lets the last of a field's values count. Otherwise the load would share the
//! machine with what it measures: cloning, encoding and dropping events took it longer than sending them.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::{BufMut as _, Bytes, BytesMut};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tracklayer_proto::ingest::v1::{
    PublishEvent, PublishRequest, PublishResponse, PublishStreamRequest, PublishStreamResponse,
};

use super::event::next_number;

const PUBLISH: &str = "/tracklayer.ingest.v1.IngestService/Publish";
const PUBLISH_STREAM: &str = "/tracklayer.ingest.v1.IngestService/PublishStream";

/// Numbers of fields that hold messages, as tags.
const EVENTS: u8 = (1 << 3) | 2;
const BATCH: u8 = (2 << 3) | 2;

/// Within how many seconds before they are sent events happened: Google counts one conversion of a click in a second, and an order of a
/// visitor in the second of an earlier one would be that again.
const SECONDS: usize = 3_600;

/// Events that are sent again and again, each time under ids of their own.
pub struct Frames(Vec<Frame>);

struct Frame {
    /// The event without its ids and its time.
    rest: Vec<u8>,
    message_id: String,
    anonymous_id: String,
}

impl Frames {
    /// Encodes what stays the same.
    pub fn of(events: Vec<PublishEvent>) -> Self {
        let frame = |mut event: PublishEvent| {
            let message_id = std::mem::take(&mut event.message_id);
            let anonymous_id = std::mem::take(&mut event.anonymous_id);
            event.timestamp = None;
            Frame { rest: event.encode_to_vec(), message_id, anonymous_id }
        };
        Self(events.into_iter().map(frame).collect())
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A `PublishRequest` whose events have ids of their own; with `new_visitors` each also comes from somebody new.
    pub fn batch(&self, from: usize, size: usize, new_visitors: bool) -> Bytes {
        let stamp = super::load::now();
        let mut batch = BytesMut::with_capacity(1_024 * size);
        for i in 0..size {
            let frame = &self.0[(from + i) % self.0.len()];
            let id = next_number();
            let own = PublishEvent {
                message_id: format!("{id:x}-{}", frame.message_id),
                anonymous_id: if new_visitors {
                    format!("{id:x}-{}", frame.anonymous_id)
                } else {
                    frame.anonymous_id.clone()
                },
                timestamp: Some(prost_types::Timestamp {
                    seconds: stamp.seconds - SECONDS as i64 + self.second(from + i),
                    ..stamp
                }),
                ..PublishEvent::default()
            };
            begin(EVENTS, frame.rest.len() + own.encoded_len(), &mut batch);
            batch.put_slice(&frame.rest);
            write(&own, &mut batch);
        }
        write(&PublishRequest { events: Vec::new(), sent_at: Some(stamp) }, &mut batch);
        batch.freeze()
    }

    /// In which second of [`SECONDS`] an event happened: later than those that are sent before it, as what a visitor does is. When
    /// all are sent again, each happens a second later than the time before.
    fn second(&self, place: usize) -> i64 {
        let (round, place) = (place / self.0.len(), place % self.0.len());
        ((place * SECONDS / self.0.len() + round) % SECONDS) as i64
    }

    /// The same as a message of a stream.
    pub fn stream_batch(&self, sequence: u64, from: usize, size: usize, new_visitors: bool) -> Bytes {
        let batch = self.batch(from, size, new_visitors);
        let mut message = BytesMut::with_capacity(batch.len() + 24);
        write(&PublishStreamRequest { sequence, batch: None }, &mut message);
        begin(BATCH, batch.len(), &mut message);
        message.put(batch);
        message.freeze()
    }
}

/// A buffer that grows takes whatever is written.
fn write(message: &impl Message, into: &mut BytesMut) {
    let _ = message.encode(into);
}

/// What stands in front of a message in a field.
fn begin(tag: u8, length: usize, into: &mut BytesMut) {
    into.put_u8(tag);
    let _ = prost::encode_length_delimiter(length, into);
}

/// Publishes a batch.
///
/// # Errors
/// As the service answers.
pub async fn publish(channel: &Channel, batch: Request<Bytes>) -> Result<Response<PublishResponse>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    ready(&mut client).await?;
    client.unary(batch, PathAndQuery::from_static(PUBLISH), Written::default()).await
}

/// Opens a stream of batches.
///
/// # Errors
/// As the service answers.
pub async fn publish_stream(
    channel: &Channel,
    batches: Request<ReceiverStream<Bytes>>,
) -> Result<Response<Streaming<PublishStreamResponse>>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    ready(&mut client).await?;
    client.streaming(batches, PathAndQuery::from_static(PUBLISH_STREAM), Written::default()).await
}

async fn ready(client: &mut tonic::client::Grpc<Channel>) -> Result<(), Status> {
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))
}

/// Sends messages that are bytes already, and decodes what is answered.
struct Written<T>(PhantomData<T>);

impl<T> Default for Written<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Default + 'static> Codec for Written<T> {
    type Encode = Bytes;
    type Decode = T;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<T: Send + 'static> Encoder for Written<T> {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(message.len());
        into.put(message);
        Ok(())
    }
}

impl<T: Message + Default + 'static> Decoder for Written<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        T::decode(from).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::bench::load::parsed;

    #[test]
    fn a_frame_is_read_as_the_event_it_was_made_of_under_ids_of_its_own() {
        let events = parsed(&crate::bench::event::orders(3, 3)).unwrap();
        let frames = Frames::of(events.clone());
        let mut ids = BTreeSet::new();
        for new_visitors in [false, true] {
            let message = frames.stream_batch(7, 1, 4, new_visitors);
            let message = PublishStreamRequest::decode(message).unwrap();
            let batch = message.batch.unwrap();
            assert_eq!((message.sequence, batch.events.len()), (7, 4));
            let sent_at = batch.sent_at.unwrap().seconds;
            let mut seconds = Vec::new();
            for (place, mut read) in batch.events.into_iter().enumerate() {
                let event = &events[(1 + place) % 3];
                let (number, own) = read.message_id.split_once('-').unwrap();
                assert_eq!(own, event.message_id);
                let visitor = format!("{number}-{}", event.anonymous_id);
                let expected = if new_visitors { &visitor } else { &event.anonymous_id };
                assert_eq!(read.anonymous_id, *expected);
                let ago = sent_at - read.timestamp.unwrap().seconds;
                assert!((1..=3_600).contains(&ago), "{ago} s before it is sent");
                seconds.push(3_600 - ago);
                assert!(ids.insert(read.message_id));
                read.message_id = event.message_id.clone();
                read.anonymous_id = event.anonymous_id.clone();
                read.timestamp = event.timestamp;
                assert_eq!(read, *event);
            }
            assert_eq!(seconds, [1_200, 2_400, 1, 1_201], "in order, and a second later when sent again");
        }
        assert_eq!(ids.len(), 8);
    }
}

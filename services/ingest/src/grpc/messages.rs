//! gRPC messages as they come off the wire, read one after the other and only when asked: first how long the next one is, then,
//! if there is room for it, its bytes. A server that decodes for us has the whole message in memory before it asks whose it is.

use std::pin::Pin;

use axum::body::HttpBody;
use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use tonic::Status;

use super::outline::Skim;

/// Bytes before each message: whether it is compressed, and its length. Source: gRPC over HTTP/2, "Length-Prefixed-Message"; 2025-11.
const PREFIX_BYTES: usize = 5;

/// The messages of one call.
pub(super) struct Messages<B> {
    body: Pin<Box<B>>,
    /// What came and was not asked for yet: the rest of one frame.
    rest: Bytes,
}

/// Refuses a call that we could not read.
///
/// # Errors
/// It is compressed.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get("grpc-encoding").map(|value| value.as_bytes()) {
        None | Some(b"identity") => Ok(()),
        Some(_) => {
            let mut status = Status::unimplemented("compressed messages are not taken");
            status
                .metadata_mut()
                .insert("grpc-accept-encoding", "identity".parse().map_err(|_| incomplete())?);
            Err(status)
        }
    }
}

impl<B> Messages<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(body: B) -> Self {
        Self { body: Box::pin(body), rest: Bytes::new() }
    }

    /// Length of the next message, whose bytes are to be taken next; none: that was the last one.
    pub(super) async fn next(&mut self) -> Result<Option<usize>, Status> {
        let mut prefix = [0; PREFIX_BYTES];
        let mut filled = 0;
        while filled < PREFIX_BYTES {
            if !self.has_more().await? {
                return if filled == 0 { Ok(None) } else { Err(incomplete()) };
            }
            let taken = self.rest.len().min(PREFIX_BYTES - filled);
            self.rest.copy_to_slice(&mut prefix[filled..filled + taken]);
            filled += taken;
        }
        let [compressed, length @ ..] = prefix;
        if compressed != 0 {
            return Err(Status::unimplemented("compressed messages are not taken"));
        }
        Ok(Some(usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX)))
    }

    /// The bytes of the message whose length was told.
    pub(super) async fn take(&mut self, length: usize) -> Result<Bytes, Status> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let mut message = BytesMut::new();
        while message.len() < length {
            if !self.has_more().await? {
                return Err(incomplete());
            }
            let part = self.rest.split_to(self.rest.len().min(length - message.len()));
            if part.len() == length {
                return Ok(part);
            }
            message.reserve(length - message.len());
            message.extend_from_slice(&part);
        }
        Ok(message.freeze())
    }

    /// Reads over the message whose length was told and keeps nothing of it; returns its sequence.
    pub(super) async fn skip(&mut self, length: usize) -> Result<u64, Status> {
        let mut skim = Skim::default();
        let mut left = length;
        while left > 0 {
            if !self.has_more().await? {
                return Err(incomplete());
            }
            let part = self.rest.split_to(self.rest.len().min(left));
            left -= part.len();
            skim.read(&part).map_err(|_| undecodable())?;
        }
        Ok(skim.sequence)
    }

    /// Waits until something is there.
    async fn has_more(&mut self) -> Result<bool, Status> {
        while self.rest.is_empty() {
            let Some(frame) = self.body.frame().await else { return Ok(false) };
            // As when the client went away.
            let frame = frame.map_err(|error| Status::from_error(error.into()))?;
            if let Ok(data) = frame.into_data() {
                self.rest = data;
            }
        }
        Ok(true)
    }
}

/// What came is no message of this call.
pub(super) fn undecodable() -> Status {
    Status::internal("the message cannot be decoded")
}

pub(super) fn incomplete() -> Status {
    Status::internal("the call ended inside of a message")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn message(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&[0], length.as_slice(), bytes].concat()
    }

    fn in_frames_of(size: usize, wire: &[u8]) -> Messages<Body> {
        let frames: Vec<Result<Bytes, std::io::Error>> =
            wire.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        Messages::new(Body::from_stream(futures::stream::iter(frames)))
    }

    #[tokio::test]
    async fn messages_are_the_same_however_they_are_cut() {
        // Sequence 300 behind a batch of three bytes.
        let wire =
            [message(b"first"), message(b""), message(b"\x12\x03abc\x08\xac\x02"), message(b"last")].concat();
        for size in 1..=wire.len() {
            let mut messages = in_frames_of(size, &wire);
            assert_eq!(messages.next().await.unwrap(), Some(5));
            assert_eq!(messages.take(5).await.unwrap(), "first");
            assert_eq!(messages.next().await.unwrap(), Some(0));
            assert_eq!(messages.take(0).await.unwrap(), "");
            assert_eq!(messages.next().await.unwrap(), Some(8));
            assert_eq!(messages.skip(8).await.unwrap(), 300, "frames of {size}");
            assert_eq!(messages.next().await.unwrap(), Some(4));
            assert_eq!(messages.take(4).await.unwrap(), "last");
            assert_eq!(messages.next().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_call_that_ends_inside_of_a_message_is_told_so() {
        for kept in [3, 7] {
            let mut messages = in_frames_of(100, &message(b"whole")[..kept]);
            let read = match messages.next().await {
                Ok(length) => messages.take(length.unwrap()).await.map(drop),
                Err(status) => Err(status),
            };
            assert_eq!(read.unwrap_err().code(), tonic::Code::Internal);
        }
    }

    #[test]
    fn what_is_compressed_is_not_taken() {
        let mut headers = HeaderMap::new();
        assert!(check_encoding(&headers).is_ok());
        headers.insert("grpc-encoding", "gzip".parse().unwrap());
        let refused = check_encoding(&headers).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unimplemented);
        assert_eq!(refused.metadata().get("grpc-accept-encoding").unwrap(), "identity");
    }
}

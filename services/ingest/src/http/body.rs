//! Reading a body: bounded while it arrives, bounded while it is inflated.
//!
//! What a body is decides its first bytes, not its headers: SDKs send JSON as `text/plain`, gzip as a form, and proxies
//! inflate without saying so. JSON never begins like gzip.

use std::io::Read as _;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, StatusCode};

use http_body_util::BodyExt as _;
use tracklayer_event::batch::MAX_BATCH_BYTES;

use super::answer::Refusal;
use crate::admission::{Admitted, for_body};

/// Most bytes of a single call's body; its event is held to 32,768 afterwards, with its own code.
pub(super) const MAX_SINGLE_BYTES: usize = 65_536;
/// Most bytes of a webhook. An order has some 2,000 bytes for each of its lines, and its event holds as many as fit.
pub(super) const MAX_WEBHOOK_BYTES: usize = 2 * 1024 * 1024;
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Most bytes of a refused body that are read before its connection is closed after all.
const MAX_DISCARDED_BYTES: usize = 8 * 1024 * 1024;
/// Longest time for that.
const DISCARD_PATIENCE: Duration = Duration::from_secs(5);

/// Most bytes that a body may come to have, judged by its headers.
pub(super) fn reservation(headers: &HeaderMap, limit: usize) -> usize {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let encoded = headers.contains_key(CONTENT_ENCODING);
    match declared {
        Some(length) if !encoded => length.min(limit),
        _ => limit,
    }
}

/// Reads a body of at most `limit` bytes as it was sent: what a signature covers.
pub(super) async fn read_as_sent(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, Refusal> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        discard(body).await;
        return Err(too_large(limit));
    }
    match tokio::time::timeout(patience, collect(&mut body, declared.unwrap_or(0), limit)).await {
        Ok(Ok(whole)) => Ok(whole),
        Ok(Err(Incomplete::TooLarge)) => {
            discard(body).await;
            Err(too_large(limit))
        }
        Ok(Err(Incomplete::Broken)) => {
            Err(come_back("incomplete_body", "the body ended before it was complete"))
        }
        Err(_) => Err(come_back("body_timeout", "the body did not arrive in time")),
    }
}

/// Reads and inflates a body of at most `limit` bytes, within the room that is held for it; then that is what the body needs.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    patience: Duration,
    room: &mut Admitted,
) -> Result<Bytes, Refusal> {
    let encoding =
        headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").trim().to_ascii_lowercase());
    if !matches!(encoding.as_deref(), None | Some("" | "identity" | "gzip" | "x-gzip")) {
        discard(body).await;
        let message = "a body may be encoded with gzip only";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message));
    }
    let body = read_as_sent(headers, body, limit, patience).await?;
    let body = if body.starts_with(&GZIP) {
        // What its headers did not say: it may become a large one.
        room.grow_to(for_body(limit))?;
        inflate(&body, limit)?
    } else {
        body
    };
    room.shrink_to(for_body(body.len()));
    Ok(body)
}

/// The network's fault and not the sender's: every SDK sends again what is answered with this. One of them drops what is
/// answered with 408. Source: @rudderstack/rudder-sdk-node 3.0.13; 2026-11.
fn come_back(code: &'static str, message: &str) -> Refusal {
    let retry_after = Some(Duration::from_secs(1));
    Refusal { retry_after, ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, message) }
}

/// Reads what a refused request still sends, and keeps nothing of it. A connection that is closed under a client's hands
/// looks like a network error to an SDK, which then sends again what it should drop.
pub(super) async fn discard(body: Body) {
    let _ = tokio::time::timeout(DISCARD_PATIENCE, discard_rest(body)).await;
}

/// Why a body was not read to its end.
enum Incomplete {
    TooLarge,
    Broken,
}

/// Room for what was declared is taken at once, not doubled again and again: so much is reserved for it already.
async fn collect(body: &mut Body, declared: usize, limit: usize) -> Result<Bytes, Incomplete> {
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Incomplete::Broken)?.into_data() else { continue };
        if collected.len() + data.len() > limit {
            return Err(Incomplete::TooLarge);
        }
        if body.is_end_stream() && collected.is_empty() {
            return Ok(data);
        }
        if collected.is_empty() {
            collected.reserve(declared.clamp(data.len(), limit));
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
}

async fn discard_rest(mut body: Body) {
    let mut seen = 0;
    while seen <= MAX_DISCARDED_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        seen += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// Inflates, and stops one byte above the limit: a bomb costs no more than a large request.
fn inflate(body: &[u8], limit: usize) -> Result<Bytes, Refusal> {
    let mut inflated = Vec::with_capacity(body.len().saturating_mul(4).min(limit));
    let mut decoder = MultiGzDecoder::new(body).take(limit as u64 + 1);
    decoder
        .read_to_end(&mut inflated)
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "invalid_json", "the body is broken gzip"))?;
    if inflated.len() > limit {
        return Err(too_large(limit));
    }
    Ok(Bytes::from(inflated))
}

fn too_large(limit: usize) -> Refusal {
    let code = match limit {
        MAX_WEBHOOK_BYTES => "webhook_too_large",
        MAX_BATCH_BYTES.. => "batch_too_large",
        _ => "event_too_large",
    };
    let message = format!("the body has more than {limit} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, code, message)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_is_inflated_to_the_limit_and_no_further() {
        let bomb = gzip(&vec![b' '; 200 * 1_024 * 1_024]);
        assert!(bomb.len() < 300_000, "the bomb is small: {}", bomb.len());
        let refused = inflate(&bomb, 512_000).unwrap_err();
        assert_eq!((refused.status, refused.code), (StatusCode::PAYLOAD_TOO_LARGE, "batch_too_large"));
    }

    #[test]
    fn broken_gzip_is_a_bad_request() {
        let mut broken = gzip(b"{\"a\":1}");
        assert_eq!(inflate(&broken, 100).unwrap(), Bytes::from_static(b"{\"a\":1}"));
        broken.truncate(12);
        assert_eq!(inflate(&broken, 100).unwrap_err().status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn room_is_reserved_for_what_may_come_out() {
        let mut headers = HeaderMap::new();
        assert_eq!(reservation(&headers, 1_000), 1_000);
        headers.insert(CONTENT_LENGTH, "10".parse().unwrap());
        assert_eq!(reservation(&headers, 1_000), 10);
        headers.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(reservation(&headers, 1_000), 1_000);
    }
}

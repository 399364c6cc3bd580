//! Latency under a load that does not wait for answers: each request is due at its own time, and what it took is counted from
//! then. A sender that waits for an answer before it sends again would leave out just the moments in which answers are slow.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_stream::wrappers::ReceiverStream;
use tracklayer_proto::ingest::v1::publish_stream_response::Result as StreamResult;

use super::frames::{Frames, publish_stream};
use super::load::{stream_channel, with_key};

/// What answers took.
#[derive(Debug, Default)]
pub struct Latencies {
    milliseconds: Vec<f64>,
    /// The slowest answer, milliseconds, to what was due in each second since its sender began.
    worst: BTreeMap<u64, f64>,
    /// Requests that were told to come back.
    pub refused: usize,
}

impl Latencies {
    /// Within this the given share of the answers came, milliseconds.
    pub fn at(&mut self, share: f64) -> f64 {
        self.milliseconds.sort_by(f64::total_cmp);
        let last = self.milliseconds.len().saturating_sub(1);
        self.milliseconds.get((last as f64 * share) as usize).copied().unwrap_or(0.0)
    }

    /// The seconds in which an answer took longer than so many milliseconds, each with its slowest answer: a tail that is in a
    /// few of them is a pause, one that is in all of them is a queue.
    pub fn slow_seconds(&self, limit: f64) -> Vec<(u64, f64)> {
        self.worst.iter().filter(|(_, worst)| **worst > limit).map(|(s, worst)| (*s, *worst)).collect()
    }

    fn add(&mut self, begin: Instant, due: Instant, answered: Instant) {
        let took = (answered - due).as_secs_f64() * 1_000.0;
        self.milliseconds.push(took);
        let worst = self.worst.entry((due - begin).as_secs()).or_default();
        *worst = worst.max(took);
    }

    fn merge(&mut self, other: Self) {
        self.milliseconds.extend(other.milliseconds);
        for (second, took) in other.worst {
            let worst = self.worst.entry(second).or_default();
            *worst = worst.max(took);
        }
        self.refused += other.refused;
    }
}

/// Times at which one of several equal senders has something to send.
struct Schedule {
    begin: Instant,
    next: Instant,
    every: Duration,
    end: Instant,
}

impl Schedule {
    fn new(sender: usize, senders: usize, per_second: f64, length: Duration) -> Self {
        let every = Duration::from_secs_f64(senders as f64 / per_second.max(0.001));
        let begin = Instant::now();
        let next = begin + every.mul_f64(sender as f64 / senders as f64);
        Self { begin, next, every, end: begin + length }
    }

    /// Waits until the next one is due; late ones are due at once, and none is left out.
    async fn due(&mut self) -> Option<Instant> {
        let due = self.next;
        if due >= self.end {
            return None;
        }
        self.next += self.every;
        tokio::time::sleep_until(due.into()).await;
        Some(due)
    }
}

/// Requests over connections that are kept open, each connection with its share of the load.
///
/// # Errors
/// A connection broke, or an answer was neither success nor "come back".
pub async fn http(
    address: &str,
    requests_per_second: f64,
    connections: usize,
    length: Duration,
    request: impl Fn() -> Vec<u8> + Clone + Send + 'static,
) -> anyhow::Result<Latencies> {
    let host = address.trim_start_matches("http://").to_owned();
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..connections {
        let (host, request) = (host.clone(), request.clone());
        let mut schedule = Schedule::new(sender, connections, requests_per_second, length);
        senders.spawn(async move {
            let stream = TcpStream::connect(&host).await?;
            stream.set_nodelay(true)?;
            let mut stream = BufReader::with_capacity(16 * 1024, stream);
            let mut latencies = Latencies::default();
            // Made before it is due: what the client does is no part of the answer's time.
            let mut made = request();
            while let Some(due) = schedule.due().await {
                stream.write_all(&made).await?;
                made = request();
                match read_answer(&mut stream).await?.status {
                    200 => latencies.add(schedule.begin, due, Instant::now()),
                    429 | 503 => latencies.refused += 1,
                    other => bail!("ingest answered {other}"),
                }
            }
            anyhow::Ok(latencies)
        });
    }
    joined(senders).await
}

/// An answer.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Seconds after which to come back.
    pub retry_after: Option<u64>,
    /// Its body.
    pub body: Vec<u8>,
}

/// Reads the next answer.
///
/// # Errors
/// The connection broke.
pub async fn read_answer(stream: &mut BufReader<TcpStream>) -> anyhow::Result<Answer> {
    let (mut status, mut length, mut retry_after) = (0u16, 0usize, None);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            bail!("the connection was closed");
        }
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if let Some(rest) = text.strip_prefix("HTTP/1.1 ") {
            status = rest.get(..3).context("no status")?.parse()?;
        } else if let Some((name, value)) = text.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            } else if name.eq_ignore_ascii_case("retry-after") {
                retry_after = Some(value.trim().parse()?);
            }
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Answer { status, retry_after, body })
}

/// Batches of so many events over gRPC streams, each stream with its share of the load.
///
/// # Errors
/// Ingest went away or answered nothing.
pub async fn grpc(
    address: &str,
    key: &str,
    frames: &Arc<Frames>,
    events_per_second: f64,
    batch: usize,
    length: Duration,
) -> anyhow::Result<Latencies> {
    const STREAMS: usize = 3;
    let mut streams = tokio::task::JoinSet::new();
    for stream in 0..STREAMS {
        let (address, key, frames) = (address.to_owned(), key.to_owned(), Arc::clone(frames));
        let schedule = Schedule::new(stream, STREAMS, events_per_second / batch as f64, length);
        streams.spawn(one_stream(address, key, frames, (stream, batch), schedule));
    }
    return joined(streams).await;

    async fn one_stream(
        address: String,
        key: String,
        frames: Arc<Frames>,
        (stream, batch_size): (usize, usize),
        mut schedule: Schedule,
    ) -> anyhow::Result<Latencies> {
        let due_at: Arc<Mutex<HashMap<u64, Instant>>> = Arc::default();
        let begin = schedule.begin;
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let sending = tokio::spawn({
            let due_at = Arc::clone(&due_at);
            async move {
                let mut from = stream * 1_000;
                for sequence in 1.. {
                    // Made before it is due: the sender's own work is no latency.
                    let batch = frames.stream_batch(sequence, from, batch_size, true);
                    from += batch_size;
                    let Some(due) = schedule.due().await else { return };
                    due_at.lock().unwrap_or_else(PoisonError::into_inner).insert(sequence, due);
                    if sender.send(batch).await.is_err() {
                        return;
                    }
                }
            }
        });
        let channel = stream_channel(&address).await?;
        let request = with_key(ReceiverStream::new(receiver), &key)?;
        let mut acks = publish_stream(&channel, request).await?.into_inner();
        let mut latencies = Latencies::default();
        while let Some(ack) = acks.message().await? {
            let due = due_at.lock().unwrap_or_else(PoisonError::into_inner).remove(&ack.sequence);
            match (ack.result, due) {
                (Some(StreamResult::Response(_)), Some(due)) => latencies.add(begin, due, Instant::now()),
                (Some(StreamResult::Refused(_)), _) => latencies.refused += 1,
                _ => bail!("an ack without a result or for nothing that was sent"),
            }
        }
        sending.await?;
        Ok(latencies)
    }
}

async fn joined(mut senders: tokio::task::JoinSet<anyhow::Result<Latencies>>) -> anyhow::Result<Latencies> {
    let mut all = Latencies::default();
    while let Some(done) = senders.join_next().await {
        all.merge(done??);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_late_is_counted_from_when_it_was_due() {
        let mut schedule = Schedule::new(0, 1, 1_000.0, Duration::from_millis(20));
        let mut due = Vec::new();
        while let Some(at) = schedule.due().await {
            if due.is_empty() {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            due.push(at);
        }
        assert_eq!(due.len(), 20, "none is left out");
        assert!(due.windows(2).all(|w| w[1] - w[0] == Duration::from_millis(1)));
    }

    #[test]
    fn a_share_of_the_answers_is_found_whatever_their_order() {
        let mut latencies =
            Latencies { milliseconds: (0..=100).rev().map(f64::from).collect(), ..Latencies::default() };
        assert_eq!((latencies.at(0.5), latencies.at(0.99), latencies.at(1.0)), (50.0, 99.0, 100.0));
        assert_eq!(Latencies::default().at(0.5), 0.0);
    }

    #[test]
    fn a_slow_second_is_told_with_its_slowest_answer() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let (mut one, mut other) = (Latencies::default(), Latencies::default());
        one.add(begin, at(9_900), at(9_910));
        one.add(begin, at(7_000), at(10_000));
        other.add(begin, at(6_000), at(10_000));
        other.add(begin, at(7_500), at(10_000));
        one.merge(other);
        let slow: Vec<(u64, u64)> =
            one.slow_seconds(1_000.0).iter().map(|(s, worst)| (*s, *worst as u64)).collect();
        assert_eq!(slow, [(6, 4_000), (7, 3_000)], "of two answers in a second the slower one");
    }
}

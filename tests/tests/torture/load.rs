//! Clients that remember what was acknowledged: gRPC streams, gRPC calls and HTTP batches, at both edges. What was not
//! acknowledged they send again, under the same message_id, to the other edge.
//!
//! A person belongs to one publisher, which sends that person's next batch only when the one before is acknowledged: the order
//! of first acceptances is then the order of the sequence numbers. Now and then an event also goes to another client: a twin,
//! which may come long after the first copy, or be faster than it and so change that order. Some people opt out in the middle.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::stage::Stage;
use crate::stop::Stopped;
use crate::wire::{Answer, Client};
use crate::workspace::Workspace;

/// Publishers of each client: requests that it has under way at the same time.
const PUBLISHERS: usize = 2;
/// People of a publisher.
const PEOPLE: u32 = 6;
/// Events of a batch.
const BATCH: (u32, u32) = (3, 18);
/// Pause between two batches of a publisher.
const PAUSE_MS: (u64, u64) = (30, 220);
/// Of a hundred events, how many have a twin.
const TWINS: u32 = 8;
/// Of a hundred people, how many opt out in the middle.
const OPT_OUTS: u32 = 15;
/// Events that are sent again days after their acknowledgement.
const REPEATS: usize = 60;
/// Of these, how many go with one batch at most.
const REPEATS_AT_ONCE: usize = 4;
/// How long after the load and the last fault everything has to be acknowledged.
const ACK_LIMIT: Duration = Duration::from_secs(40);

/// An event as its sender knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub message_id: String,
    pub person: String,
    pub sequence: u32,
    /// Whether it says that the person opts out.
    pub opts_out: bool,
    /// When it happened; a repeat says the same.
    pub at: SystemTime,
}

impl Event {
    fn new(person: &str, sequence: u32, opts_out: bool, at: SystemTime) -> Self {
        let message_id = format!("t{person}-{sequence}");
        Self { message_id, person: person.to_owned(), sequence, opts_out, at }
    }

    /// `properties`; every platform takes it for a purchase.
    pub fn properties(&self) -> Value {
        // One platform deduplicates by the order's number, the others by the event's.
        json!({
            "order_id": self.message_id, "revenue": 20, "currency": "USD", "sequence": self.sequence,
            "products": [{ "product_id": "mug-green", "sku": "M-1", "price": 20, "quantity": 1 }],
        })
    }

    pub fn context(&self) -> Value {
        let mut context = json!({
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36",
            "ip": "203.0.113.7", "page": { "url": "https://shop.example/thank-you?ttclid=E.C.P.torture" },
            "traits": { "email": format!("{}@example.com", self.person) },
        });
        if self.opts_out {
            context["consent"] = json!({ "gpc": true });
        }
        context
    }
}

/// What is remembered of an event.
#[derive(Debug, Clone)]
pub struct Sent {
    pub event: Event,
    pub acknowledged: bool,
    /// Whether another client was given it, too, which may have been faster.
    pub has_twin: bool,
    /// Whether the person opts out by it or has done so before: no platform may get it.
    pub denied: bool,
}

/// What the clients remember.
#[derive(Debug, Default)]
pub struct Memory {
    /// Everything that was sent.
    sent: Mutex<BTreeMap<String, Sent>>,
    /// To be sent by somebody else, too.
    twins: Mutex<Vec<Event>>,
    /// What was refused for good.
    pub refused: Mutex<Vec<String>>,
    /// Requests that were sent again.
    pub repeated: AtomicU64,
    /// Copies that were sent as twins.
    pub twins_sent: AtomicU64,
    /// Copies that were sent again after days.
    pub late_repeats: AtomicU64,
    /// When the last fault was over.
    faults_over: OnceLock<Instant>,
    after_stop: Mutex<AfterStop>,
}

/// What a stop leaves to the clients.
#[derive(Debug, Default)]
struct AfterStop {
    stopped: Option<Stopped>,
    /// They go on until then.
    end: Option<Instant>,
    /// Acknowledged before it.
    acknowledged: Vec<Event>,
}

impl Memory {
    /// Everything that was sent, by id.
    pub fn sent(&self) -> BTreeMap<String, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn begin(&self, event: &Event, has_twin: bool, denied: bool) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Sent { event: event.clone(), acknowledged: false, has_twin, denied };
        sent.insert(event.message_id.clone(), new);
        if has_twin {
            self.twins.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
        }
    }

    /// Copies of one event may be acknowledged on several ways: any of them counts.
    fn acknowledge(&self, batch: &[Event]) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        for event in batch {
            if let Some(sent) = sent.get_mut(&event.message_id) {
                sent.acknowledged = true;
            }
        }
    }

    /// Clients go on until then at least.
    pub fn go_on_until(&self, end: Instant) {
        let mut after = self.after_stop.lock().unwrap_or_else(PoisonError::into_inner);
        after.end = after.end.max(Some(end));
    }

    /// Everything runs again after a stop: clients go on until `end`, and repeat some of what was acknowledged before.
    pub fn resume_after(&self, stopped: Stopped, end: Instant) {
        let sent = self.sent().into_values().filter(|sent| sent.acknowledged);
        let acknowledged = sent.map(|sent| sent.event).collect();
        let after = AfterStop { stopped: Some(stopped), end: Some(end), acknowledged };
        *self.after_stop.lock().unwrap_or_else(PoisonError::into_inner) = after;
    }

    /// The stop that there was.
    pub fn stopped(&self) -> Option<Stopped> {
        self.after_stop.lock().unwrap_or_else(PoisonError::into_inner).stopped.clone()
    }

    fn goes_on(&self, end: Instant) -> bool {
        let later = self.after_stop.lock().unwrap_or_else(PoisonError::into_inner).end;
        Instant::now() < later.map_or(end, |later| later.max(end))
    }

    /// The last fault is over: from now on nothing excuses an edge.
    pub fn faults_are_over(&self) {
        self.faults_over.get_or_init(Instant::now);
    }

    /// Whether an edge may refuse yet: a fault is not over before what it took away is there again.
    fn may_wait(&self, end: Instant) -> bool {
        let over = self.faults_over.get();
        over.is_none_or(|over| self.goes_on(end.max(*over) + ACK_LIMIT))
    }

    fn take_late_repeats(&self, random: &mut Rng) -> Vec<Event> {
        let mut after = self.after_stop.lock().unwrap_or_else(PoisonError::into_inner);
        let left = REPEATS.saturating_sub(self.late_repeats.load(Ordering::Relaxed) as usize);
        let most = random.usize(0..=REPEATS_AT_ONCE).min(left).min(after.acknowledged.len());
        let taken = (0..most).map(|_| {
            let place = random.usize(..after.acknowledged.len());
            after.acknowledged.swap_remove(place)
        });
        let taken: Vec<Event> = taken.collect();
        self.late_repeats.fetch_add(taken.len() as u64, Ordering::Relaxed);
        taken
    }

    fn take_twin(&self, random: &mut Rng) -> Option<Event> {
        let mut twins = self.twins.lock().unwrap_or_else(PoisonError::into_inner);
        if twins.is_empty() {
            return None;
        }
        let place = random.usize(..twins.len());
        Some(twins.swap_remove(place))
    }
}

/// Sends until `end`, and then again whatever is not acknowledged, as long as it takes.
///
/// # Errors
/// Something is not acknowledged long after the end of the faults.
pub async fn run(
    stage: &Arc<Stage>,
    workspace: &Workspace,
    seed: u64,
    end: Instant,
    memory: Arc<Memory>,
) -> anyhow::Result<()> {
    let mut publishers = JoinSet::new();
    for (number, client) in Client::all(stage, workspace).into_iter().enumerate() {
        let client = Arc::new(client);
        for publisher in 0..PUBLISHERS {
            let name = format!("{seed}-{number}{publisher}");
            let random = Rng::with_seed(seed * 1_000 + (number * PUBLISHERS + publisher) as u64);
            let (stage, client) = (Arc::clone(stage), Arc::clone(&client));
            publishers.spawn(publish(stage, client, name, random, end, Arc::clone(&memory)));
        }
    }
    while let Some(ended) = publishers.join_next().await {
        ended??;
    }
    Ok(())
}

async fn publish(
    stage: Arc<Stage>,
    client: Arc<Client>,
    name: String,
    mut random: Rng,
    end: Instant,
    memory: Arc<Memory>,
) -> anyhow::Result<()> {
    let people: Vec<String> = (0..PEOPLE).map(|number| format!("{name}{number}")).collect();
    let mut sequences = vec![0; people.len()];
    // Who opts out, and with which event.
    let opts_out: Vec<Option<u32>> =
        people.iter().map(|_| (random.u32(0..100) < OPT_OUTS).then(|| random.u32(2..20))).collect();
    while memory.goes_on(end) {
        let mut batch = Vec::new();
        for _ in 0..random.u32(BATCH.0..=BATCH.1) {
            let who = random.usize(..people.len());
            sequences[who] += 1;
            let event =
                Event::new(&people[who], sequences[who], opts_out[who] == Some(sequences[who]), stage.now());
            let denied = opts_out[who].is_some_and(|from| from <= sequences[who]);
            // A twin of a later event that is faster than the opt-out would rightly be delivered.
            memory.begin(&event, !denied && random.u32(0..100) < TWINS, denied);
            batch.push(event);
        }
        while random.u32(0..100) < 60 {
            let Some(twin) = memory.take_twin(&mut random) else { break };
            memory.twins_sent.fetch_add(1, Ordering::Relaxed);
            batch.push(twin);
        }
        batch.extend(memory.take_late_repeats(&mut random));
        until_acknowledged(&client, &batch, &mut random, end, &memory).await?;
        tokio::time::sleep(Duration::from_millis(random.u64(PAUSE_MS.0..=PAUSE_MS.1))).await;
    }
    Ok(())
}

async fn until_acknowledged(
    client: &Client,
    batch: &[Event],
    random: &mut Rng,
    end: Instant,
    memory: &Memory,
) -> anyhow::Result<()> {
    let mut backoff = 40;
    loop {
        let why = match client.publish(batch).await {
            Answer::Acknowledged => {
                memory.acknowledge(batch);
                return Ok(());
            }
            Answer::Refused(why) => {
                memory.refused.lock().unwrap_or_else(PoisonError::into_inner).push(why);
                return Ok(());
            }
            Answer::Again { after, why } => {
                memory.repeated.fetch_add(1, Ordering::Relaxed);
                let wait = after.unwrap_or(Duration::from_millis(random.u64(1..=backoff)));
                tokio::time::sleep(wait.min(Duration::from_millis(500))).await;
                backoff = (backoff * 2).min(500);
                why
            }
        };
        anyhow::ensure!(
            memory.may_wait(end),
            "a batch is not acknowledged {ACK_LIMIT:?} after the end of the load and of the last fault: {why}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_edge_may_refuse_until_a_while_after_the_load_and_the_last_fault() {
        let long_ago = Instant::now() - 2 * ACK_LIMIT;
        let (memory, ended_long_ago, ends_now) = (Memory::default(), long_ago, Instant::now());
        assert!(memory.may_wait(ended_long_ago), "a fault goes on");
        memory.faults_are_over();
        assert!(memory.may_wait(ended_long_ago), "it was over just now");

        let memory = Memory { faults_over: OnceLock::from(long_ago), ..Memory::default() };
        assert!(memory.may_wait(ends_now));
        assert!(!memory.may_wait(ended_long_ago));
    }
}

//! `delivery.v1.Preview`: the pure preview of the destinations, over the wire, of a document or of a connection as lanes have it open.

use jiff::Timestamp;
use serde_json::Value;
use tracklayer_destination::preview::line::Line;
use tracklayer_destination::preview::{
    Answer, ConsentChoice, OfConnection, Orders, Run, Terms, open_without_credentials, within_steps,
};
use tracklayer_destination::{Destination, OrderState, WorkspaceDefaults};
use tracklayer_ids::{ConnectionId, MasterKey, Partition, WorkspaceId};
use tracklayer_proto::delivery::v1 as pb;

use crate::connections::OpenConnection;
use crate::lease::Duty;
use crate::match_keys::shown;
use crate::store::StoreError;
use crate::store::orders::OrderStore;
use crate::subjects::proto_time;

/// Most events of a call: what is asked of it is kept until it is answered.
pub const MOST_EVENTS: usize = 10_000;

/// Most steps that a connection's expressions may take over all events of a call: some seconds of one core. A thousand events with a
/// dozen expressions each take a hundredth of that.
pub const MOST_STEPS: u64 = 100_000_000;

/// Why a call is not answered.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The document.
    #[error("{0}")]
    Document(String),
    /// More events than [`MOST_EVENTS`].
    #[error("hold more than {MOST_EVENTS} events: ask in several calls, or use `tracklayer preview`")]
    TooManyEvents,
    /// More steps than [`MOST_STEPS`].
    #[error(
        "the connection's expressions take more than {MOST_STEPS} steps over these events: ask with fewer events in a call, make the \
         expressions do less (nested list macros and regular expressions over long texts take most), or use `tracklayer preview`"
    )]
    TooMuchWork,
    /// The database.
    #[error("could not read what is kept of orders")]
    Store(#[from] StoreError),
}

/// How to preview, apart from the connection.
#[derive(Debug)]
pub struct Asked {
    /// The lines.
    pub lines: Vec<String>,
    /// The clock.
    pub now: Timestamp,
    /// What consent is taken to have decided; none: nothing was said.
    pub consent: Option<ConsentChoice>,
    /// As a lane puts events together.
    pub batched: bool,
}

impl Asked {
    fn terms(&self, of_connection: Option<OfConnection>, orders: Orders) -> Terms {
        Terms {
            of_connection: of_connection.filter(|_| self.consent.is_none()),
            orders,
            batched: self.batched,
            ..Terms::at(self.now, self.consent.clone().unwrap_or_default())
        }
    }
}

/// Answers for a document, or says what is wrong with it.
///
/// # Errors
/// The document is not valid, or the events are too many.
pub async fn of_document(
    document: &str,
    defaults: &WorkspaceDefaults,
    asked: &Asked,
) -> Result<Vec<String>, PreviewError> {
    let document: Value = serde_json::from_str(document)
        .map_err(|e| PreviewError::Document(format!("is no JSON document: {e}")))?;
    let destination = open_without_credentials(&document, defaults)
        .map_err(|problems| PreviewError::Document(problems.to_string()))?;
    let mut run = Run::new(&*destination, asked.terms(None, Orders::Given));
    let lines = read(&run, asked).await?;
    answers(&mut run, lines, &mut Steps(MOST_STEPS)).await
}

/// Answers for a connection, with what delivery keeps of the orders that its events change.
///
/// # Errors
/// The database, or the events are too many.
pub async fn of_connection(
    workspace: WorkspaceId,
    connection: &OpenConnection,
    destination: &dyn Destination,
    orders: (&OrderStore, &MasterKey),
    asked: &Asked,
) -> Result<Vec<String>, PreviewError> {
    let of = OfConnection { id: connection.id.0, revision: Some(connection.revision) };
    let mut run = Run::new(destination, asked.terms(Some(of), Orders::Learned));
    let lines = read(&run, asked).await?;
    let mut steps = Steps(MOST_STEPS);
    let needed = needed(&run, &lines, &mut steps).await?;
    let duty = any_duty(workspace, connection.id.0);
    let mut known = shown(orders.0, orders.1, duty, &needed, Some(destination.kind())).await?;
    for order in &needed {
        run.learn(order, known.remove(order));
    }
    answers(&mut run, lines, &mut steps).await
}

/// What is left of [`MOST_STEPS`].
struct Steps(u64);

impl Steps {
    fn take<T>(&mut self, work: impl FnOnce() -> T) -> Result<T, PreviewError> {
        let done = within_steps(&mut self.0, work);
        if self.0 == 0 { Err(PreviewError::TooMuchWork) } else { Ok(done) }
    }
}

/// Orders are kept by connection: which partition asks makes no difference.
#[must_use]
pub fn any_duty(workspace: WorkspaceId, connection: i64) -> Duty {
    Duty { workspace, connection: ConnectionId(connection), partition: Partition(0) }
}

/// On the wire.
#[must_use]
pub fn proto_state(order_id: String, state: OrderState) -> pb::OrderState {
    let amount = |amount: Option<rust_decimal::Decimal>| amount.map(|a| a.to_string()).unwrap_or_default();
    pb::OrderState {
        order_id,
        value: amount(state.value),
        total: amount(state.total),
        currency: state.currency.unwrap_or_default(),
        at: state.at.map(proto_time),
        refunded: state.refunded.to_string(),
        all_back: state.all_back,
        restated: state.restated,
        adjusted_at: state.adjusted_at.map(proto_time),
        changed_at: state.changed_at.map(proto_time),
        restated_at: state.restated_at.map(proto_time),
        match_key_json: state.match_key.and_then(|key| serde_json::to_string(&key).ok()).unwrap_or_default(),
    }
}

/// Lanes run beside it: after each line others have their turn.
async fn read(run: &Run<'_>, asked: &Asked) -> Result<Vec<Line>, PreviewError> {
    let (mut lines, mut events) = (Vec::new(), 0);
    for (number, text) in (1..).zip(&asked.lines) {
        let line = run.read(number, text);
        events += line.events.len();
        if events > MOST_EVENTS {
            return Err(PreviewError::TooManyEvents);
        }
        lines.push(line);
        tokio::task::yield_now().await;
    }
    Ok(lines)
}

/// The orders whose states the events need.
async fn needed(run: &Run<'_>, lines: &[Line], steps: &mut Steps) -> Result<Vec<String>, PreviewError> {
    let mut needed = Vec::new();
    for line in lines {
        needed.extend(steps.take(|| run.orders_to_learn(std::slice::from_ref(line)))?);
        tokio::task::yield_now().await;
    }
    needed.sort_unstable();
    needed.dedup();
    Ok(needed)
}

async fn answers(
    run: &mut Run<'_>,
    lines: Vec<Line>,
    steps: &mut Steps,
) -> Result<Vec<String>, PreviewError> {
    let mut answers = Vec::new();
    for line in lines {
        answers.extend(steps.take(|| run.take(line))?.iter().map(Answer::to_json));
        tokio::task::yield_now().await;
    }
    answers.extend(steps.take(|| run.finish())?.iter().map(Answer::to_json));
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(events: usize) -> Asked {
        let event = json!({
            "type": "track", "event": "Order Completed", "messageId": "m", "anonymousId": "a",
            "properties": { "order_id": "1", "revenue": 1, "currency": "EUR", "list": vec![1; 4_000] },
        });
        Asked {
            lines: (0..events).map(|_| event.to_string()).collect(),
            now: "2026-11-23T12:00:00Z".parse().unwrap(),
            consent: None,
            batched: false,
        }
    }

    #[tokio::test]
    async fn the_expressions_of_a_call_take_a_bounded_number_of_steps() {
        let document = json!({
            "kind": "meta_capi", "mode": "live",
            "settings": { "dataset_id": "1234567890123456", "access_token": "t" },
            "filter": "properties.list.all(a, a > 0)",
        });
        let destination = open_without_credentials(&document, &WorkspaceDefaults::default()).unwrap();
        let asked = asked(5);
        let answered = async |steps: u64| {
            let mut run = Run::new(&*destination, asked.terms(None, Orders::Given));
            let lines = read(&run, &asked).await.unwrap();
            let mut steps = Steps(steps);
            let answered = answers(&mut run, lines, &mut steps).await;
            (answered, steps.0)
        };
        let (all, left) = answered(MOST_STEPS).await;
        let taken = MOST_STEPS - left;
        assert_eq!(all.unwrap().len(), 5);
        assert!(taken > 5 * 4_000, "{taken}");
        assert!(answered(taken + 1).await.0.is_ok());
        let (too_little, left) = answered(taken - 1).await;
        assert!(matches!(too_little, Err(PreviewError::TooMuchWork)) && left == 0);
        let why = too_little.unwrap_err().to_string();
        assert!(why.contains("100000000 steps") && why.contains("ask with fewer events in a call"), "{why}");
    }
}

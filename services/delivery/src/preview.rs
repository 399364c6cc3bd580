//! `delivery.v1.Preview`: the pure preview of the destinations, over the wire, of a document or of a connection as lanes have it open.

use jiff::Timestamp;
use serde_json::Value;
use tracklayer_destination::preview::line::Line;
use tracklayer_destination::preview::{
    Answer, ConsentChoice, OfConnection, Orders, Run, Terms, open_without_credentials,
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

/// Why a call is not answered.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The document.
    #[error("{0}")]
    Document(String),
    /// More events than [`MOST_EVENTS`].
    #[error("hold more than {MOST_EVENTS} events: ask in several calls, or use `tracklayer preview`")]
    TooManyEvents,
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
    Ok(answers(&mut run, lines).await)
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
    let needed = run.orders_to_learn(&lines);
    let duty = any_duty(workspace, connection.id.0);
    let mut known = shown(orders.0, orders.1, duty, &needed, Some(destination.kind())).await?;
    for order in &needed {
        run.learn(order, known.remove(order));
    }
    Ok(answers(&mut run, lines).await)
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

async fn answers(run: &mut Run<'_>, lines: Vec<Line>) -> Vec<String> {
    let mut answers = Vec::new();
    for line in lines {
        answers.extend(run.take(line).iter().map(Answer::to_json));
        tokio::task::yield_now().await;
    }
    answers.extend(run.finish().iter().map(Answer::to_json));
    answers
}

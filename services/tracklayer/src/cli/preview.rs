//! `tracklayer preview`: lines of events in, requests out. Of a document in a file without any server; of a connection of an
//! installation with what control and delivery say of it. Memory is bounded by the longest line and the largest range.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::Value;
use tracklayer_destination::preview::line::Line;
use tracklayer_destination::preview::{
    Answer, ConsentChoice, OfConnection, Orders, Run, Summary, Terms, open_without_credentials,
};
use tracklayer_destination::{OrderState, WorkspaceDefaults};
use tracklayer_proto::control::v1::{Connection, ListConnectionsRequest};
use tracklayer_proto::delivery::v1::delivery_service_client::DeliveryServiceClient;
use tracklayer_proto::delivery::v1::{self as pb, GetOrderStatesRequest};
use tracklayer_rpc::Channel;

use super::Access;
use super::lines::{Lines, Next};

/// Exit code where the connection file is not valid.
const INVALID_CONNECTION: u8 = 2;
/// Lines that are read before the states of their orders are asked for.
const LINES_AT_ONCE: usize = 256;
/// And their bytes: with long lines fewer are read.
const BYTES_AT_ONCE: usize = 1024 * 1024;
/// Most orders of a question.
const ORDERS_AT_ONCE: usize = 1_000;
/// Bad lines that are told one by one.
const BAD_LINES_TOLD: u64 = 100;

/// Shows the exact requests that a connection would send for events.
#[derive(Debug, Args)]
pub struct Preview {
    /// The connection: its document (a file whose name ends with .json, .yaml or .yml, or has a `/` before it), or the name or number
    /// of one of the installation.
    #[arg(long)]
    pub connection: String,
    /// A line each: one Segment-spec event, one of `journal read --resolved --unmasked`, or an array that goes out together; `-`
    /// for standard input.
    #[arg(long, default_value = "-")]
    pub events: PathBuf,
    /// The clock, RFC 3339; now if not given.
    #[arg(long)]
    pub now: Option<Timestamp>,
    /// What consent decided: allow, restricted or deny. Without it: allow, and for events of the journal what resolve was told for
    /// the installation's connection.
    #[arg(long, conflicts_with = "consent_json")]
    pub consent: Option<String>,
    /// What consent decided, as a JSON object in a file.
    #[arg(long)]
    pub consent_json: Option<PathBuf>,
    /// With a file: take what resolve was told for the connection of this number.
    #[arg(long, conflicts_with_all = ["consent", "consent_json"])]
    pub decisions_of: Option<i64>,
    /// Put the events into requests as a lane does that has all of them before it; without it, each line is answered alone.
    #[arg(long)]
    pub batched: bool,
    /// Where a refund has its order from, if it is not beside the event. Without it: given with a file, else stored.
    #[arg(long, value_enum)]
    pub orders: Option<OrdersFrom>,
}

/// Where states of orders come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OrdersFrom {
    /// From `order_state` beside the event alone.
    Given,
    /// From the events before it in the input.
    Events,
    /// From what delivery keeps now, and from the events before it in the input.
    Stored,
}

impl Preview {
    /// Whether the connection is a file.
    #[must_use]
    pub fn needs_no_server(&self) -> bool {
        let path = Path::new(&self.connection);
        let looks_like_one = path.extension().is_some_and(|e| e == "json" || e == "yaml" || e == "yml");
        looks_like_one || self.connection.contains('/')
    }

    fn terms(&self, of_connection: Option<OfConnection>, orders: Orders) -> anyhow::Result<Terms> {
        let consent = match &self.consent_json {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .with_context(|| format!("could not read {}", path.display()))?,
            ),
            None => self.consent.clone(),
        };
        let of_connection = of_connection.filter(|_| consent.is_none());
        let consent = ConsentChoice::parse(consent.as_deref().unwrap_or_default())?;
        let now = self.now.unwrap_or_else(Timestamp::now);
        Ok(Terms { of_connection, orders, batched: self.batched, ..Terms::at(now, consent) })
    }
}

/// Runs it of a file.
///
/// # Errors
/// A file cannot be read.
pub fn run_alone(command: &Preview) -> anyhow::Result<ExitCode> {
    let path = Path::new(&command.connection);
    let document = match super::connections::read_document(path) {
        Ok(document) => document,
        Err(error) => {
            eprintln!("{error:#}");
            return Ok(ExitCode::from(INVALID_CONNECTION));
        }
    };
    let orders = match command.orders.unwrap_or(OrdersFrom::Given) {
        OrdersFrom::Given => Orders::Given,
        OrdersFrom::Events => Orders::OfEvents,
        OrdersFrom::Stored => bail!("--orders stored needs a connection of an installation, not a file"),
    };
    let of_connection = command.decisions_of.map(|id| OfConnection { id, revision: None });
    let terms = command.terms(of_connection, orders)?;
    // An invalid document is told before anything is read.
    let destination = match open_without_credentials(&document, &WorkspaceDefaults::default()) {
        Ok(destination) => destination,
        Err(problems) => {
            eprintln!("the connection file is not valid: {problems}");
            return Ok(ExitCode::from(INVALID_CONNECTION));
        }
    };
    let mut run = Run::new(&*destination, terms);
    // Nothing is asked of anybody: there is nothing to wait for.
    let alone = tokio::runtime::Builder::new_current_thread().build()?;
    alone.block_on(stream(&mut run, &command.events, None))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs it of a connection of the installation.
///
/// # Errors
/// There is none of that name, what a service answered, or a file.
pub async fn run(access: &Access, command: &Preview) -> anyhow::Result<()> {
    if command.decisions_of.is_some() {
        bail!(
            "--decisions-of goes with a file: of a connection of the installation its own decisions are taken"
        );
    }
    let workspace = access.workspace().await?;
    let connection = named(access, workspace.workspace_id, &command.connection).await?;
    let document: Value =
        serde_json::from_str(&connection.document_json).context("the connection's document is no JSON")?;
    let defaults = WorkspaceDefaults {
        value_from: workspace.value_from,
        value_fallback: Some(workspace.value_fallback).filter(|fallback| !fallback.is_empty()),
    };
    let destination = open_without_credentials(&document, &defaults)
        .map_err(|problems| anyhow!("connection `{}` cannot be opened: {problems}", connection.name))?;
    if connection.mode != "live" {
        eprintln!(
            "connection `{}` is {}: its lanes send none of this until it is live",
            connection.name, connection.mode
        );
    }
    let orders = match command.orders.unwrap_or(OrdersFrom::Stored) {
        OrdersFrom::Given => Orders::Given,
        OrdersFrom::Events => Orders::OfEvents,
        OrdersFrom::Stored => Orders::Learned,
    };
    let of = OfConnection { id: connection.connection_id, revision: Some(connection.revision) };
    let mut run = Run::new(&*destination, command.terms(Some(of), orders)?);
    let stored = StoredOrders {
        delivery: access.delivery()?,
        workspace_id: workspace.workspace_id,
        connection_id: connection.connection_id,
    };
    let stored = (orders == Orders::Learned).then_some(stored);
    stream(&mut run, &command.events, stored).await
}

async fn named(access: &Access, workspace_id: i64, wanted: &str) -> anyhow::Result<Connection> {
    let request = ListConnectionsRequest { workspace_id };
    let mut connections = access.control()?.list_connections(request).await?.into_inner().connections;
    // A name comes first, as everywhere.
    let place = connections.iter().position(|c| c.name == wanted);
    let place = place.or_else(|| connections.iter().position(|c| c.connection_id.to_string() == wanted));
    let place = place.with_context(|| {
        let names: Vec<&str> = connections.iter().map(|c| c.name.as_str()).collect();
        format!("there is no file and no connection `{wanted}`; connections are: {}", names.join(", "))
    })?;
    Ok(connections.swap_remove(place))
}

/// What delivery keeps of orders.
struct StoredOrders {
    delivery: DeliveryServiceClient<Channel>,
    workspace_id: i64,
    connection_id: i64,
}

impl StoredOrders {
    async fn teach(&mut self, run: &mut Run<'_>, lines: &[Line]) -> anyhow::Result<()> {
        for needed in run.orders_to_learn(lines).chunks(ORDERS_AT_ONCE) {
            let (workspace_id, connection_id) = (self.workspace_id, self.connection_id);
            let request = GetOrderStatesRequest { workspace_id, connection_id, order_ids: needed.to_vec() };
            let states = self.delivery.get_order_states(request).await?.into_inner().states;
            let mut states: HashMap<String, OrderState> = states
                .into_iter()
                .map(|state| Ok((state.order_id.clone(), parsed(&state)?)))
                .collect::<anyhow::Result<_>>()?;
            for order in needed {
                run.learn(order, states.remove(order));
            }
        }
        Ok(())
    }
}

fn parsed(state: &pb::OrderState) -> anyhow::Result<OrderState> {
    let amount = |text: &str| {
        let given = Some(text).filter(|text| !text.is_empty());
        given.map(str::parse).transpose().context("delivery answered an order with an amount that is none")
    };
    Ok(OrderState {
        value: amount(&state.value)?,
        total: amount(&state.total)?,
        currency: Some(state.currency.clone()).filter(|currency| !currency.is_empty()),
        at: state.at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok()),
        refunded: amount(&state.refunded)?.unwrap_or_default(),
        all_back: state.all_back,
        restated: state.restated,
        adjusted_at: state.adjusted_at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok()),
        // An older delivery tells no such time.
        changed_at: state
            .changed_at
            .or(state.adjusted_at)
            .and_then(|at| Timestamp::new(at.seconds, at.nanos).ok()),
        restated_at: state.restated_at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok()),
        match_key: serde_json::from_str(&state.match_key_json).ok(),
    })
}

/// Takes line after line until there is none, and tells at the end what became of them.
async fn stream(run: &mut Run<'_>, events: &Path, mut stored: Option<StoredOrders>) -> anyhow::Result<()> {
    let mut input = Lines::open(events)?;
    let mut out = Out { out: std::io::stdout().lock(), told: 0, is_closed: false };
    let mut busy = Duration::ZERO;
    let at_once = if stored.is_some() { LINES_AT_ONCE } else { 1 };
    let mut is_over = false;
    while !is_over && !out.is_closed {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < at_once && bytes < BYTES_AT_ONCE {
            // Waiting for whoever writes the lines is none of our work.
            let next = input.read_next()?;
            let began = Instant::now();
            match next {
                Next::Line(number, text) => {
                    bytes += text.len();
                    lines.push(run.read(number, text));
                }
                Next::Bad(number, why) => lines.push(run.unreadable(number, why)),
                Next::End => is_over = true,
            }
            busy += began.elapsed();
            if is_over {
                break;
            }
        }
        let began = Instant::now();
        if let Some(stored) = &mut stored {
            stored.teach(run, &lines).await?;
        }
        for line in lines {
            let number = line.number;
            out.write(number, &run.take(line))?;
        }
        if is_over {
            out.write(0, &run.finish())?;
        }
        busy += began.elapsed();
    }
    tell(&run.summary(), busy, out.told);
    Ok(())
}

struct Out {
    out: std::io::StdoutLock<'static>,
    told: u64,
    is_closed: bool,
}

impl Out {
    fn write(&mut self, number: u64, answers: &[Answer]) -> anyhow::Result<()> {
        for answer in answers {
            for problem in answer.problems() {
                self.told += 1;
                if self.told <= BAD_LINES_TOLD {
                    let of_list = if problem.event.index > 0 {
                        format!(", event {} of its list", problem.event.index + 1)
                    } else {
                        String::new()
                    };
                    eprintln!("line {number}{of_list}: {} ({})", problem.reason, problem.code);
                }
            }
            match writeln!(self.out, "{}", answer.to_json()) {
                // Whoever reads has enough.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => self.is_closed = true,
                written => written.context("could not write to standard output")?,
            }
        }
        Ok(())
    }
}

/// Says on standard error what became of everything.
fn tell(summary: &Summary, busy: Duration, bad: u64) {
    let seconds = busy.as_secs_f64().max(1e-6);
    let rate = summary.events as f64 / seconds;
    eprintln!(
        "{} lines, {} events in {seconds:.2} s ({rate:.0} events/s): {} in {} requests",
        summary.lines, summary.events, summary.in_requests, summary.requests
    );
    for ((state, reason), events) in &summary.others {
        let word = if reason.is_empty() { (*state).to_owned() } else { format!("{state} {reason}") };
        eprintln!("  {word:<40} {events:>9}");
    }
    if bad > BAD_LINES_TOLD {
        eprintln!("{} more events could not be read than were told above", bad - BAD_LINES_TOLD);
    }
    if summary.of_other_revision > 0 {
        eprintln!(
            "{} events were decided for another revision of the connection, or for none: its lanes ask consent again",
            summary.of_other_revision
        );
    }
    if summary.of_learned_orders > 0 {
        eprintln!(
            "{} changes of orders were built from what delivery keeps of their orders now; where a lane has sent an event \
             already, that is in there: --orders events builds from the events of the input instead",
            summary.of_learned_orders
        );
    }
    if summary.forgotten_orders > 0 {
        eprintln!("{} orders were forgotten for others: give fewer events at once", summary.forgotten_orders);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(connection: &str) -> Preview {
        Preview {
            connection: connection.to_owned(),
            events: "-".into(),
            now: None,
            consent: None,
            consent_json: None,
            decisions_of: None,
            batched: false,
            orders: None,
        }
    }

    #[test]
    fn what_looks_like_a_file_is_one_also_where_it_is_missing() {
        for file in ["not-there.json", "not-there.yml", "./meta"] {
            assert!(of(file).needs_no_server(), "{file}");
        }
        for name in ["meta", "7", "crm-webhook"] {
            assert!(!of(name).needs_no_server(), "{name}");
        }
    }

    #[test]
    fn a_said_consent_counts_before_what_resolve_was_told() {
        let connection = Some(OfConnection { id: 7, revision: Some(2) });
        assert_eq!(of("meta").terms(connection, Orders::Given).unwrap().of_connection, connection);
        let said = Preview { consent: Some("deny".to_owned()), ..of("meta") };
        let terms = said.terms(connection, Orders::Given).unwrap();
        assert_eq!((terms.of_connection, terms.consent), (None, ConsentChoice::Deny));
    }

    #[test]
    fn an_order_is_read_as_it_was_told() {
        let told = pb::OrderState {
            value: "12.50".to_owned(),
            refunded: "2".to_owned(),
            currency: "EUR".to_owned(),
            match_key_json: r#"{"gclid":"Cj0abc"}"#.to_owned(),
            ..pb::OrderState::default()
        };
        let state = parsed(&told).unwrap();
        assert_eq!(state.match_key, Some(tracklayer_destination::MatchKey::Gclid("Cj0abc".to_owned())));
        assert_eq!(state.value.unwrap().to_string(), "12.50");
        assert_eq!((state.total, state.currency.as_deref()), (None, Some("EUR")));
        assert!(parsed(&pb::OrderState { value: "12,50".to_owned(), ..told }).is_err());
    }
}

//! `tracklayer connections held`: what a hold keeps back, and what of it will be too old when it ends.

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use tracklayer_proto::delivery::v1 as pb;

use super::names::Names;
use super::output::{table, time};
use super::{Access, Output};

/// Most events that are named on a terminal.
const NAMED: usize = 50;

/// Which connections, and when they are released.
#[derive(Debug, Args)]
pub struct Held {
    /// The connection, by name or number; all of the workspace without one.
    connection: Option<String>,
    /// When what waits begins to go out, as in 2026-11-28T05:00:00Z. Without it: when the freeze that holds ends, or else the next
    /// one; now for a pause.
    #[arg(long)]
    until: Option<jiff::Timestamp>,
}

/// What all pages of a connection say together.
#[derive(Debug, Default)]
struct Forecast {
    connection_id: i64,
    first: pb::ForecastReleaseResponse,
    retrying: u64,
    looked_at: u64,
    examined: u64,
    expiring: u64,
    unexamined: u64,
    last_at: Option<prost_types::Timestamp>,
    shortest_age_limit: Option<u64>,
    events: Vec<pb::ExpiringEvent>,
}

/// Runs it.
///
/// # Errors
/// What the services answered.
pub async fn run(access: &Access, held: &Held) -> anyhow::Result<()> {
    let workspace_id = access.workspace().await?.workspace_id;
    let names = Names::read(access, workspace_id).await?;
    let connections = match &held.connection {
        None => names.connections(),
        Some(called) => vec![
            names.connection_called(called).with_context(|| format!("there is no connection `{called}`"))?,
        ],
    };
    let release_at = held
        .until
        .map(|at| prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond().max(0) });
    let mut forecasts = Vec::new();
    for connection_id in connections {
        forecasts.push(Forecast::read(access, workspace_id, connection_id, release_at).await?);
    }
    match access.output {
        Output::Json => {
            let documents: Vec<Value> = forecasts.iter().map(|forecast| forecast.document(&names)).collect();
            println!("{:#}", Value::Array(documents));
        }
        Output::Table => show(&names, &forecasts),
    }
    Ok(())
}

impl Forecast {
    async fn read(
        access: &Access,
        workspace_id: i64,
        connection_id: i64,
        mut release_at: Option<prost_types::Timestamp>,
    ) -> anyhow::Result<Self> {
        let mut delivery = access.delivery()?;
        let mut all = Self { connection_id, ..Self::default() };
        let (mut from, mut is_first) = (None, true);
        loop {
            let request = pb::ForecastReleaseRequest { workspace_id, connection_id, release_at, from };
            let page = delivery.forecast_release(request).await?.into_inner();
            all.retrying += page.retrying;
            all.looked_at += page.looked_at;
            all.examined += page.examined;
            all.expiring += page.expiring;
            all.unexamined += page.unexamined;
            let after = |at: &prost_types::Timestamp| (at.seconds, at.nanos);
            all.last_at = all.last_at.into_iter().chain(page.last_at).max_by_key(after);
            let limit = Some(page.shortest_age_limit_seconds).filter(|limit| *limit > 0);
            all.shortest_age_limit = all.shortest_age_limit.into_iter().chain(limit).min();
            all.events.extend(page.events.iter().cloned());
            from = page.next;
            // All pages go by the same release, whatever the clock says meanwhile.
            release_at = release_at.or(page.release_at);
            if std::mem::take(&mut is_first) {
                all.first = page;
            }
            if from.is_none() {
                return Ok(all);
            }
        }
    }

    /// Not resolved yet: what was looked at is missing from what waits.
    fn unresolved(&self) -> u64 {
        self.first.waiting.saturating_sub(self.looked_at)
    }

    fn hold(&self) -> String {
        match self.first.hold.as_str() {
            "" => "open".to_owned(),
            hold => format!("{hold}, {}", self.first.detail),
        }
    }

    fn pace(&self) -> String {
        match self.first.events_per_second {
            0 => "no limit".to_owned(),
            pace => pace.to_string(),
        }
    }

    fn document(&self, names: &Names) -> Value {
        let events: Vec<Value> = self
            .events
            .iter()
            .map(|event| {
                json!({
                    "message_id": event.message_id, "name": event.name, "code": event.code,
                    "event_time": time(event.event_time.as_ref()), "expires_at": time(event.expires_at.as_ref()),
                    "sent_at": time(event.sent_at.as_ref()),
                })
            })
            .collect();
        json!({
            "connection": names.connection(self.connection_id), "connection_id": self.connection_id,
            "hold": self.first.hold, "detail": self.first.detail,
            "freeze_begins": time(self.first.freeze_begins.as_ref()), "freeze_ends": time(self.first.freeze_ends.as_ref()),
            "release_at": time(self.first.release_at.as_ref()), "events_per_second": self.first.events_per_second,
            "waiting": self.first.waiting, "retrying": self.retrying, "to_send": self.examined,
            "not_resolved": self.unresolved(), "not_foretold": self.unexamined, "done_at": time(self.last_at.as_ref()),
            "shortest_age_limit_seconds": self.shortest_age_limit, "expiring": self.expiring, "expiring_events": events,
        })
    }
}

fn show(names: &Names, forecasts: &[Forecast]) {
    let rows: Vec<Vec<String>> = forecasts
        .iter()
        .map(|forecast| {
            vec![
                names.connection(forecast.connection_id),
                forecast.first.waiting.to_string(),
                forecast.retrying.to_string(),
                forecast.unresolved().to_string(),
                time(forecast.first.release_at.as_ref()),
                forecast.pace(),
                time(forecast.last_at.as_ref()),
                forecast.expiring.to_string(),
                forecast.hold(),
            ]
        })
        .collect();
    let head = [
        "connection",
        "waiting",
        "retries",
        "not resolved",
        "released",
        "events/s",
        "done",
        "too late then",
        "hold",
    ];
    print!("{}", table(&head, &rows));
    for forecast in forecasts.iter().filter(|forecast| forecast.unexamined > 0) {
        let name = names.connection(forecast.connection_id);
        println!("\n{name}: {} retries more, of which nothing is foretold", forecast.unexamined);
    }
    let late: Vec<(&Forecast, &pb::ExpiringEvent)> = forecasts
        .iter()
        .flat_map(|forecast| forecast.events.iter().map(move |event| (forecast, event)))
        .collect();
    if late.is_empty() {
        return;
    }
    let rows: Vec<Vec<String>> = late
        .iter()
        .take(NAMED)
        .map(|(forecast, event)| {
            vec![
                names.connection(forecast.connection_id),
                event.message_id.clone(),
                event.name.clone(),
                time(event.event_time.as_ref()),
                time(event.expires_at.as_ref()),
                time(event.sent_at.as_ref()),
                event.code.clone(),
            ]
        })
        .collect();
    println!("\nwill not be delivered if they go out then:");
    let head = ["connection", "message_id", "event", "happened", "taken until", "goes out", "will be"];
    print!("{}", table(&head, &rows));
    let all: u64 = forecasts.iter().map(|forecast| forecast.expiring).sum();
    let shown = rows.len() as u64;
    if all > shown {
        println!("and {} more: `--output json` names up to 1,000 of each 20,000 that wait", all - shown);
    }
}

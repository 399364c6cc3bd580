//! `tracklayer journal`.

use std::io::Write as _;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use tracklayer_ids::Position;
use tracklayer_proto::delivery::v1 as pb;

use super::names::Names;
use super::output::{print_rows, table};
use super::retention::Retention;
use super::skip::Skip;
use super::{Access, Output};

/// The journal in PostgreSQL.
#[derive(Debug, Subcommand)]
pub enum Journal {
    /// What it holds of a workspace: partitions with their heads, and days.
    Inspect,
    /// Read every block and say which is not as it was written. Exits with 1 where one is not.
    Verify,
    /// Events from an offset of a partition on, as they were received, or what resolve made of them.
    Read {
        /// Of the workspace, from 0.
        partition: u32,
        /// The first event.
        offset: u64,
        /// 1 to 1,000; with --resolved as many as wanted.
        #[arg(long, default_value_t = 20)]
        limit: u32,
        /// The one that is being written, if not given.
        #[arg(long)]
        generation: Option<u32>,
        /// With personal data as it was sent.
        #[arg(long)]
        unmasked: bool,
        /// What resolve made of them, a JSON line each; with --unmasked, `tracklayer preview` reads them.
        #[arg(long)]
        resolved: bool,
    },
    /// How far resolve and each lane are behind.
    Lag,
    /// What is kept, day by day, and for whom; or give up what lanes have not read of it.
    Retention(Retention),
    /// What is lost with a block that cannot be read, and behind which nothing of its partition is resolved; or skip it. Over Kafka, too:
    /// the block at which resolve stands.
    Skip(Skip),
}

/// Runs it.
///
/// # Errors
/// What the service answered, or a journal with a fault.
pub async fn run(access: &Access, command: Journal) -> anyhow::Result<()> {
    let workspace_id = access.workspace().await?.workspace_id;
    match command {
        Journal::Inspect => show_holdings(access.output, &inspect(access, workspace_id).await?),
        Journal::Verify => return verify(access, workspace_id).await,
        Journal::Lag => lag(access, workspace_id).await?,
        Journal::Retention(retention) => super::retention::run(access, workspace_id, retention).await?,
        Journal::Skip(skip) => super::skip::run(access, workspace_id, skip).await?,
        Journal::Read { partition, offset, limit, generation, unmasked, resolved } => {
            let generation = match generation {
                Some(generation) => generation,
                None => generation_of(&inspect(access, workspace_id).await?, partition)?,
            };
            let from = pb::Position { generation, partition, offset };
            let request =
                pb::ReadJournalRequest { workspace_id, from: Some(from), limit, unmasked, resolved };
            if resolved {
                return print_resolved(access, request, from).await;
            }
            let events = access.delivery()?.read_journal(request).await?.into_inner().events;
            show_events(access.output, &events);
        }
    }
    Ok(())
}

/// Prints resolved events page by page: nothing of one is kept when the next is read.
async fn print_resolved(
    access: &Access,
    request: pb::ReadJournalRequest,
    mut from: pb::Position,
) -> anyhow::Result<()> {
    const PAGE: u32 = 500;
    let mut delivery = access.delivery()?;
    let mut left = request.limit;
    let mut out = std::io::stdout().lock();
    while left > 0 {
        let page = pb::ReadJournalRequest { from: Some(from), limit: left.min(PAGE), ..request };
        let events = delivery.read_journal(page).await?.into_inner().events;
        for event in &events {
            match writeln!(out, "{}", resolved_line(event)) {
                // Whoever reads has enough.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                written => written?,
            }
        }
        let Some(last) = events.last().and_then(|event| event.position) else { break };
        from.offset = last.offset + 1;
        left -= u32::try_from(events.len()).unwrap_or(left).min(left);
    }
    Ok(())
}

fn resolved_line(event: &pb::JournalEvent) -> String {
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
    let at = event.position.unwrap_or_default();
    let position = Position::new(at.generation, at.partition, at.offset);
    // Of an erased event nothing is stored: that, too, is something to preview.
    let stored = (!event.resolved.is_empty() || event.outcome_json == "null").then_some(&*event.resolved);
    tracklayer_destination::preview::resolved::to_line(
        position,
        &json(&event.event_json),
        &json(&event.outcome_json),
        stored,
    )
}

async fn inspect(access: &Access, workspace_id: i64) -> anyhow::Result<pb::InspectJournalResponse> {
    let request = pb::InspectJournalRequest { workspace_id };
    Ok(access.delivery()?.inspect_journal(request).await?.into_inner())
}

/// The newest generation of a partition.
fn generation_of(held: &pb::InspectJournalResponse, partition: u32) -> anyhow::Result<u32> {
    let mut heads = held.partitions.iter().filter_map(|p| p.head.as_ref());
    let head = heads.find(|head| head.partition == partition).with_context(|| {
        let there: Vec<String> =
            held.partitions.iter().filter_map(|p| Some(p.head?.partition.to_string())).collect();
        if there.is_empty() {
            "the journal has no event of this workspace".to_owned()
        } else {
            format!("no event is in partition {partition}; there are some in {}", there.join(", "))
        }
    })?;
    Ok(head.generation)
}

fn show_holdings(output: Output, held: &pb::InspectJournalResponse) {
    if output == Output::Json {
        let partitions: Vec<Value> = held
            .partitions
            .iter()
            .map(|p| json!({ "head": position(p.head.as_ref()), "resolved": position(p.resolved.as_ref()) }))
            .collect();
        let days: Vec<Value> = held
            .days
            .iter()
            .map(|d| json!({ "day": d.day, "blocks": d.blocks, "events": d.events, "bytes": d.bytes }))
            .collect();
        let dropped = held.dropped_events;
        println!("{:#}", json!({ "partitions": partitions, "days": days, "dropped_events": dropped }));
        return;
    }
    let rows: Vec<Vec<String>> = held
        .partitions
        .iter()
        .map(|p| {
            let (head, resolved) = (p.head.unwrap_or_default(), p.resolved.unwrap_or_default());
            [u64::from(head.partition), u64::from(head.generation), head.offset]
                .iter()
                .map(u64::to_string)
                .chain([format!("{}/{}", resolved.generation, resolved.offset)])
                .collect()
        })
        .collect();
    print!("{}", table(&["partition", "generation", "head", "resolved (generation/offset)"], &rows));
    let rows: Vec<Vec<String>> = held
        .days
        .iter()
        .map(|d| vec![d.day.clone(), d.blocks.to_string(), d.events.to_string(), d.bytes.to_string()])
        .collect();
    print!("\n{}", table(&["day", "blocks", "events", "bytes"], &rows));
    println!("\nevents in days that were dropped: {}", held.dropped_events);
}

async fn verify(access: &Access, workspace_id: i64) -> anyhow::Result<()> {
    let mut delivery = access.delivery()?;
    let (mut blocks, mut events, mut faults) = (0u64, 0u64, Vec::new());
    for partition in inspect(access, workspace_id).await?.partitions {
        let partition = partition.head.unwrap_or_default().partition;
        let mut from = Some(pb::Position { generation: 1, partition, offset: 0 });
        while from.is_some() {
            let request = pb::VerifyJournalRequest { workspace_id, from };
            let page = delivery.verify_journal(request).await?.into_inner();
            blocks += page.blocks;
            events += page.events;
            faults.extend(page.faults);
            from = page.next;
        }
    }
    let rows: Vec<(String, String)> = faults
        .iter()
        .map(|fault| {
            let at = fault.at.unwrap_or_default();
            (format!("{}/{}/{}", at.generation, at.partition, at.offset), fault.why.clone())
        })
        .collect();
    match access.output {
        Output::Json => {
            let faults: Vec<Value> =
                faults.iter().map(|f| json!({ "at": position(f.at.as_ref()), "why": f.why })).collect();
            println!("{:#}", json!({ "blocks": blocks, "events": events, "faults": faults }));
        }
        Output::Table => {
            println!("read {blocks} blocks with {events} events");
            for (at, why) in &rows {
                println!("fault at {at}: {why}");
            }
            if let Some((at, _)) = rows.first() {
                println!(
                    "\nresolve stops at a block that it cannot read. What it has passed already is of no account: `tracklayer journal \
                     skip {at}` tells which it is, and what is lost where its bytes cannot be brought back"
                );
            }
        }
    }
    if !rows.is_empty() {
        bail!("the journal is not as it was written");
    }
    Ok(())
}

async fn lag(access: &Access, workspace_id: i64) -> anyhow::Result<()> {
    let request = pb::GetJournalLagRequest { workspace_id };
    let lags = access.delivery()?.get_journal_lag(request).await?.into_inner().lags;
    let names = Names::read(access, workspace_id).await?;
    let reader = |lag: &pb::JournalLag| names.reader(lag.connection_id);
    let document: Vec<Value> = lags
        .iter()
        .map(|lag| {
            json!({
                "reader": reader(lag), "connection_id": lag.connection_id, "next": position(lag.next.as_ref()),
                "events": lag.events, "seconds": lag.seconds,
            })
        })
        .collect();
    let rows: Vec<Vec<String>> = lags
        .iter()
        .map(|lag| {
            let partition = lag.next.unwrap_or_default().partition.to_string();
            vec![partition, reader(lag), lag.events.to_string(), lag.seconds.to_string()]
        })
        .collect();
    print_rows(access.output, &Value::Array(document), &["partition", "reader", "events", "seconds"], &rows);
    Ok(())
}

fn show_events(output: Output, events: &[pb::JournalEvent]) {
    let event = |event: &pb::JournalEvent| -> Value {
        serde_json::from_str(&event.event_json).unwrap_or(Value::Null)
    };
    if output == Output::Json {
        let document: Vec<Value> = events
            .iter()
            .map(|e| {
                json!({ "position": position(e.position.as_ref()), "source_id": e.source_id, "event": event(e) })
            })
            .collect();
        println!("{:#}", Value::Array(document));
        return;
    }
    for shown in events {
        let at = shown.position.unwrap_or_default();
        println!("{}/{}/{}  {}", at.generation, at.partition, at.offset, event(shown));
    }
    if events.is_empty() {
        println!("none");
    }
}

/// As JSON.
pub(super) fn position(position: Option<&pb::Position>) -> Value {
    position.map_or(
        Value::Null,
        |at| json!({ "generation": at.generation, "partition": at.partition, "offset": at.offset }),
    )
}

//! `tracklayer journal skip`: what is lost with a block that cannot be read, and going on behind it.

use clap::Args;
use serde_json::{Value, json};
use tracklayer_ids::Position;
use tracklayer_proto::delivery::v1 as pb;

use super::journal::position;
use super::names::Names;
use super::output::table;
use super::{Access, Output};

/// Which block.
#[derive(Debug, Args)]
pub struct Skip {
    /// An event of the block, as generation/partition/offset: delivery's log, `doctor` and `journal verify` name its first.
    #[arg(value_name = "POSITION", value_parser = position_of)]
    at: Position,
    /// A block that resolve has made, at which lanes hold, and not one that was received: lost events stand in its place at once, for
    /// the lanes that have not read it.
    #[arg(long)]
    resolved: bool,
    /// Only show what would be lost, as without --yes.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do it: the block's events are lost, and nothing brings them back.
    #[arg(long)]
    yes: bool,
}

fn position_of(text: &str) -> Result<Position, &'static str> {
    const WANTED: &str = "a position is generation/partition/offset, as in 1/0/4711";
    let mut parts = text.split('/');
    let mut next = || parts.next().ok_or(WANTED);
    let generation: u32 = next()?.parse().map_err(|_| WANTED)?;
    let partition: u32 = next()?.parse().map_err(|_| WANTED)?;
    let offset: u64 = next()?.parse().map_err(|_| WANTED)?;
    if next().is_ok() { Err(WANTED) } else { Ok(Position::new(generation, partition, offset)) }
}

/// Runs it.
///
/// # Errors
/// What the services answered.
pub async fn run(access: &Access, workspace_id: i64, skip: Skip) -> anyhow::Result<()> {
    let at = pb::Position {
        generation: skip.at.generation.0,
        partition: skip.at.partition.0,
        offset: skip.at.offset.0,
    };
    let (confirmed, resolved) = (skip.yes, skip.resolved);
    let request = pb::SkipBlockRequest { workspace_id, at: Some(at), confirmed, resolved };
    let block = access.delivery()?.skip_block(request).await?.into_inner();
    let names = Names::read(access, workspace_id).await?;
    match access.output {
        Output::Json => println!("{:#}", document(&names, &block)),
        Output::Table => show(&names, &block, resolved),
    }
    Ok(())
}

fn document(names: &Names, block: &pb::SkipBlockResponse) -> Value {
    let stage = match block.stage() {
        pb::SkipStage::Unspecified => "",
        pb::SkipStage::Shown => "shown",
        pb::SkipStage::Asked => "asked",
        pb::SkipStage::Passed => "passed",
    };
    let source = |lost: &pb::LostEvents| json!({ "source": names.source(lost.source_id), "source_id": lost.source_id, "events": lost.events });
    json!({
        "first": position(block.first.as_ref()), "events": block.events, "uncounted": block.uncounted,
        "sources": block.sources.iter().map(source).collect::<Vec<_>>(), "why": block.why, "stage": stage,
    })
}

fn show(names: &Names, block: &pb::SkipBlockResponse, resolved: bool) {
    let first = block.first.unwrap_or_default();
    println!(
        "the block at {}/{}/{} cannot be read: {}",
        first.generation, first.partition, first.offset, block.why
    );
    if block.uncounted {
        println!("nobody knows any more how many events are lost with it: the ledger takes {}", block.events);
    } else {
        println!("{} events are lost with it", block.events);
    }
    if !block.sources.is_empty() {
        let row = |lost: &pb::LostEvents| vec![names.source(lost.source_id), lost.events.to_string()];
        print!("\n{}", table(&["source", "events"], &block.sources.iter().map(row).collect::<Vec<_>>()));
    }
    let said = match block.stage() {
        pb::SkipStage::Unspecified | pb::SkipStage::Shown if resolved => {
            "nothing was skipped: add --yes to do it; the message_ids of these events stay claimed: sent again under them they are \
             duplicates for as long as their source remembers them, and under others they count again, also at connections that \
             had told of them"
        }
        pb::SkipStage::Unspecified | pb::SkipStage::Shown => {
            "nothing was skipped: add --yes to do it; nothing brings these events back then, unless they are sent again"
        }
        pb::SkipStage::Asked => {
            "it is skipped as soon as resolve comes there, within about a minute where it stands there already"
        }
        pb::SkipStage::Passed => "it is skipped: the ledgers say dead, `lost`, as the lanes pass its events",
    };
    println!("\n{said}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_told() {
        let at = Position::new(2, 3, 4_711);
        assert_eq!(position_of(&at.to_string()), Ok(at));
        for wrong in ["", "4711", "1/0", "1/0/", "1/0/4/7", "a/0/1", "1/-1/0"] {
            assert!(position_of(wrong).is_err(), "{wrong}");
        }
    }
}

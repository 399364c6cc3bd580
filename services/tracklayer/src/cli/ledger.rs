//! `tracklayer ledger`.

use anyhow::bail;
use clap::Subcommand;
use serde_json::{Value, json};
use tracklayer_proto::delivery::v1::{BalanceLedgerRequest, BalanceLedgerResponse};

use super::output::table;
use super::{Access, Output};

/// The ledger.
#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// Check that every accepted event is in exactly one state per connection. Exits with 1 where it is not.
    Balance,
}

/// Runs it.
///
/// # Errors
/// What the service answered, or a ledger that does not balance.
pub async fn run(access: &Access, command: Ledger) -> anyhow::Result<()> {
    match command {
        Ledger::Balance => {
            let workspace_id = access.workspace().await?.workspace_id;
            let balance =
                access.delivery()?.balance_ledger(BalanceLedgerRequest { workspace_id }).await?.into_inner();
            show(access.output, &balance);
            if !balance.clean {
                bail!("the ledger does not balance");
            }
        }
    }
    Ok(())
}

fn show(output: Output, balance: &BalanceLedgerResponse) {
    if output == Output::Json {
        println!("{:#}", document(balance));
        return;
    }
    println!("received, from batch headers: {}", balance.received);
    for connection in &balance.connections {
        let mut rows: Vec<Vec<String>> = connection
            .states
            .iter()
            .map(|s| vec![s.state.clone(), s.reason.clone(), s.count.to_string()])
            .collect();
        let sum: u64 = connection.states.iter().map(|s| s.count).sum();
        rows.push(vec!["sum".to_owned(), String::new(), sum.to_string()]);
        rows.push(vec!["accepted".to_owned(), String::new(), connection.accepted.to_string()]);
        println!("\n{} (connection {})", connection.name, connection.connection_id);
        print!("{}", table(&["state", "reason", "events"], &rows));
        println!("difference: {}", connection.difference);
        for fault in &connection.faults {
            println!("fault: {fault}");
        }
    }
    println!("\n{}", if balance.clean { "clean" } else { "NOT CLEAN" });
}

fn document(balance: &BalanceLedgerResponse) -> Value {
    let connections: Vec<Value> = balance
        .connections
        .iter()
        .map(|c| {
            let states: Vec<Value> = c
                .states
                .iter()
                .map(|s| json!({ "state": s.state, "reason": s.reason, "events": s.count }))
                .collect();
            json!({
                "connection_id": c.connection_id, "name": c.name, "accepted": c.accepted, "states": states,
                "difference": c.difference, "faults": c.faults,
            })
        })
        .collect();
    json!({ "received": balance.received, "clean": balance.clean, "connections": connections })
}

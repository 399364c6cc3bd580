//! The exact request that each connector makes of each of Segment's ecommerce events (spec v2), or the reason why it makes
//! none: one file per connection and event in `golden/`, compared byte for byte. A changed file is a changed promise.
//!
//! `UPDATE_GOLDEN=1 cargo test -p tracklayer-destination --test golden` writes the files anew; read the difference before it
//! is committed. Events stand in `fixtures/events.json`, connections in `fixtures/connections.json`.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its files must fail")]

mod support;

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use tracklayer_destination::preview::{ConsentChoice, batches, parse, preview};
use tracklayer_destination::{Consent, Deliverable, OrderState, WorkspaceDefaults};
use tracklayer_proto::event::v1::ClickIds;

use support::{World, connections, events, now, opened, path};

fn golden(document: &Value, event: &Value) -> String {
    let line = event.to_string();
    let told =
        preview(document, &WorkspaceDefaults::default(), [line.as_str()], now(), &ConsentChoice::Allow)
            .unwrap();
    let told: Value = serde_json::from_str(&told[0]).unwrap();
    serde_json::to_string_pretty(&told).unwrap() + "\n"
}

#[test]
fn every_request_is_the_one_in_its_golden_file() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let mut different = Vec::new();
    let mut known = BTreeSet::new();
    for (connection, document) in connections() {
        let folder = path("golden").join(&connection);
        if update {
            fs::create_dir_all(&folder).unwrap();
        }
        for (name, event) in events() {
            let file = folder.join(format!("{name}.json"));
            let made = golden(&document, &event);
            if update {
                fs::write(&file, &made).unwrap();
            } else if fs::read_to_string(&file).ok().as_deref() != Some(&made) {
                different.push(format!("{connection}/{name}.json:\n{made}"));
            }
            known.insert(file);
        }
    }
    let stale: Vec<_> = fs::read_dir(path("golden"))
        .unwrap()
        .flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|file| !known.contains(file))
        .collect();
    assert!(stale.is_empty(), "no event or connection has these files any more: {stale:?}");
    assert!(
        different.is_empty(),
        "{} requests differ from their golden files. If they are meant to, run\n\
         UPDATE_GOLDEN=1 cargo test -p tracklayer-destination --test golden\n\
         and read what `git diff` says. Now they are:\n{}",
        different.len(),
        different.join("\n")
    );
}

#[test]
fn every_request_of_the_golden_files_is_taken_by_its_platform() {
    for (connection, document) in connections() {
        let destination = opened(&document);
        let mut taken = 0;
        for (name, mut event) in events() {
            let state = event.as_object_mut().unwrap().remove("order_state");
            let state = state.map(|state| OrderState {
                value: Some(state["value"].to_string().parse().unwrap()),
                total: Some(state["total"].to_string().parse().unwrap()),
                currency: Some(state["currency"].as_str().unwrap().to_owned()),
                at: Some(state["at"].as_str().unwrap().parse().unwrap()),
                ..OrderState::default()
            });
            let event = parse(event, now()).unwrap();
            let event = Deliverable::new(event, ClickIds::default(), "", Consent::Allow, state);
            if destination.wants(&event).is_err() {
                continue;
            }
            let Ok(item) = destination.build(&event, now()) else { continue };
            for batch in batches(&*destination, std::slice::from_ref(&item)) {
                if let Err(refused) = World::at(now()).take(&*destination, &batch) {
                    panic!("{connection}/{name}: {refused}\n{}", item.body);
                }
                taken += 1;
            }
        }
        assert!(taken > 0, "{connection} sends nothing at all");
    }
}

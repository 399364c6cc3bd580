//! `tracklayer preview` says beforehand, to the byte, what each lane sends.
//!
//! Connections of every kind are paused while people's events come. The resolved events are read back from the journal and
//! previewed; then the connections are resumed, and each request that arrives at the platforms' side is laid beside the one that was
//! foretold: cut alike, of the same events in the same order, and the same to the byte. `PREVIEW_EVENTS` is how many events that are
//! (2,000 where it is not set).

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

mod compare;
mod connections;
mod events;
mod told;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use jiff::Timestamp;
use serde_json::{Value, json};
use tracklayer_ids::Secret;
use tracklayer_proto::delivery::v1::PreviewRequest;
use tracklayer_proto::delivery::v1::delivery_service_client::DeliveryServiceClient;
use tracklayer_tests::batches::publish;
use tracklayer_tests::{Options, Platform, Recorder, Running, eventually, eventually_within};

use crate::compare::{
    check_as_printed, check_to_the_byte, kept_back, only_request, opened, recorded_of, run_of, signed_at,
};
use crate::connections::{Tried, put_and_pause, resume};
use crate::events::{BATCH, of_people, second_refund};
use crate::told::{Ran, Told, preview, resolved_events};

fn wanted_events() -> u64 {
    std::env::var("PREVIEW_EVENTS").map_or(2_000, |text| text.parse().expect("a number"))
}

fn file_of(platform: &Running, name: &str, lines: &[String]) -> PathBuf {
    let file = platform.data_dir().join(name);
    std::fs::write(&file, lines.join("\n")).unwrap();
    file
}

async fn all_resolved(platform: &Running, events: u64) {
    eventually_within(Duration::from_secs(60 + events / 50), "everything to be resolved", async || {
        let held = platform.cli_json(&["journal", "inspect"]).await?;
        let partitions = held["partitions"].as_array().unwrap();
        let sum = |at: &str| partitions.iter().map(|p| p[at]["offset"].as_u64().unwrap()).sum::<u64>();
        let (stored, resolved) = (sum("head"), sum("resolved"));
        ensure!(stored == events && resolved == events, "{stored} stored, {resolved} resolved");
        Ok(())
    })
    .await;
}

/// What waits for a retry has been sent: Google takes an adjustment of a conversion only a day later.
async fn nothing_waits(platform: &Running, name: &str, events: u64) -> Value {
    let patience = Duration::from_secs(120 + events / 10);
    eventually_within(patience, &format!("{name} to have sent everything"), async || {
        let seen = platform.cli_json(&["stats"]).await?["connections"][name].clone();
        // A refund whose order was not sent waits for it, for a day.
        let held = |state: &Value| {
            let is_expected = state["reason"] == "retry" || state["reason"] == "order_unknown";
            state["state"] == "held" && !is_expected && state["events"] != 0
        };
        let holds = seen["states"].as_array().unwrap().iter().any(held);
        ensure!(seen["waiting"] == 0 && !holds, "{seen:#}");
        Ok(seen)
    })
    .await
}

/// What the ledger has of a connection, by state and reason.
fn ledger_of(stats: &Value) -> BTreeMap<(String, String), u64> {
    let text = |state: &Value, key: &str| state[key].as_str().unwrap().to_owned();
    let states = stats["states"].as_array().unwrap().iter();
    let verdict = |state: &Value| match (text(state, "state"), text(state, "reason")) {
        // Foretold as what it will be when its order has not come in a day.
        (_, reason) if reason == "order_unknown" => ("dead".to_owned(), "order_not_sent".to_owned()),
        told => told,
    };
    states.map(|s| (verdict(s), s["events"].as_u64().unwrap())).collect()
}

/// Lays each foretold request beside the one that was sent; answers how many, and how many events they carry.
fn compare_all(
    tried: &Tried,
    partitions: &[Vec<String>],
    foretold: &[Ran],
    recorder: &Recorder,
) -> (u64, u64) {
    let destination = opened(tried);
    let mut sent = recorded_of(tried, recorder);
    let (mut requests, mut carried) = (0, 0);
    for (events, ran) in partitions.iter().zip(foretold) {
        let mut run = run_of(tried, &*destination);
        for line in &ran.lines {
            for told in serde_json::from_str::<Told<'_>>(line).unwrap().requests {
                let same =
                    sent.get_mut(told.body.get().as_bytes()).and_then(std::collections::VecDeque::pop_front);
                let same = same.unwrap_or_else(|| {
                    let ids: Vec<&str> = told.events.iter().map(|event| event.message_id.as_str()).collect();
                    panic!("{}: this was foretold and not sent: {ids:?} {}", tried.name, told.body)
                });
                check_as_printed(&told, &same);
                let members: Vec<&str> = told.events.iter().map(|e| events[e.line - 1].as_str()).collect();
                let at = signed_at(&same).unwrap_or_else(Timestamp::now);
                let line = format!(r#"{{"now":"{at}","events":[{}]}}"#, members.join(","));
                check_to_the_byte(tried, &only_request(&mut run, &line), &same);
                requests += 1;
                carried += members.len() as u64;
            }
        }
    }
    let others: Vec<_> = sent.values().flatten().collect();
    assert!(
        others.is_empty(),
        "{}: {} were sent and not foretold: {:?}",
        tried.name,
        others.len(),
        others[0]
    );
    (requests, carried)
}

/// The service's own preview says the same as the command line.
async fn compare_with_the_rpc(platform: &Running, tried: &Tried, lines: &[String], workspace_id: i64) {
    let lines = &lines[..lines.len().min(700)];
    let file = file_of(platform, "some.jsonl", lines);
    // A webhook's headers tell the time.
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let at_now = ["--connection", tried.name, "--batched", "--now", &now.to_string()];
    let by_command = preview(platform, &at_now, &file).await;
    let at = platform.addresses();
    let channel = tracklayer_rpc::connect_lazy(&at.delivery, Secret::new(at.admin_key.clone())).unwrap();
    let mut delivery = DeliveryServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024);
    let request = PreviewRequest {
        lines: lines.to_vec(),
        workspace_id,
        connection_id: tried.id,
        batched: true,
        now: Some(prost_types::Timestamp { seconds: now.as_second(), nanos: 0 }),
        ..PreviewRequest::default()
    };
    let by_rpc = delivery.preview(request).await.unwrap().into_inner().answers;
    assert!(by_rpc == by_command.lines, "{}: the service and the command line differ", tried.name);
}

/// A refund of an order that was sold and partly refunded long before: what delivery keeps of it is asked for.
async fn compare_a_later_refund(platform: &Running, recorder: &Recorder, tried: &Tried, events: u64) {
    let before = recorded_of(tried, recorder).values().map(std::collections::VecDeque::len).sum::<usize>();
    let seen: Vec<usize> = resolved_events(platform).await.iter().map(Vec::len).collect();
    platform.cli(&["connections", "pause", tried.name]).await.unwrap();
    publish(platform, &[second_refund(0, Timestamp::now())], BATCH).await.unwrap();
    all_resolved(platform, events + 1).await;
    let now = resolved_events(platform).await;
    let new: Vec<String> = now.iter().zip(seen).flat_map(|(events, seen)| events[seen..].to_vec()).collect();
    assert_eq!(new.len(), 1);
    let file = file_of(platform, "later.jsonl", &new);
    let foretold = preview(platform, &["--connection", tried.name], &file).await;
    assert!(
        foretold.said.contains("1 changes of orders were built from what delivery keeps"),
        "{}",
        foretold.said
    );
    // 45 of 54.40 went out; of these, 5.25 came back before, and 7.15 now.
    let told: Told<'_> = serde_json::from_str(&foretold.lines[0]).unwrap();
    assert!(told.requests[0].body.get().contains("34.74"), "{}", told.requests[0].body);
    resume(platform, tried.name).await;
    nothing_waits(platform, tried.name, 1).await;
    let sent = recorded_of(tried, recorder);
    assert_eq!(sent.values().map(std::collections::VecDeque::len).sum::<usize>(), before + 1);
    check_as_printed(&told.requests[0], &sent[told.requests[0].body.get().as_bytes()][0]);
}

/// Lines that cannot be read are told with their numbers, and do not stop the run.
async fn tell_of_bad_lines(platform: &Running, event: &str) {
    let masked = event.replace("\"resolved\":\"", "\"resolved\":null,\"x\":\"");
    let cut = event.replace("\"resolved\":\"", "\"resolved\":\"AAAA");
    let lines = [event, "", "{", &masked, &cut, r#"[{"type":"track"}]"#, event].map(str::to_owned);
    let file = file_of(platform, "bad.jsonl", &lines);
    let ran = preview(platform, &["--connection", "crm-webhook"], &file).await;
    assert_eq!(ran.lines.len(), 6, "one answer for each line but the blank one: {}", ran.said);
    for told in
        ["line 3: ", "line 4: is a line of `journal read` without", "line 5: `resolved` holds no", "line 6: "]
    {
        assert!(ran.said.contains(told), "{told}: {}", ran.said);
    }
    assert!(ran.said.contains("6 lines, 6 events in "), "{}", ran.said);
}

async fn foretell(platform: &Running, tried: &Tried, files: &[PathBuf], how: &[&str]) -> Vec<Ran> {
    let mut ran = Vec::new();
    for file in files {
        ran.push(preview(platform, &[&["--connection", tried.name][..], how].concat(), file).await);
    }
    ran
}

async fn previewed_in_one_run(platform: &Running, partitions: &[Vec<String>], folder: &Path) {
    let all: Vec<String> = partitions.concat();
    let file = folder.join("all.jsonl");
    std::fs::write(&file, all.join("\n")).unwrap();
    for how in [&["--connection", "meta"][..], &["--connection", "meta", "--batched"]] {
        let ran = preview(platform, how, &file).await;
        let first = ran.said.lines().next().unwrap();
        assert!(first.starts_with(&format!("{0} lines, {0} events in ", all.len())), "{}", ran.said);
        println!("preview {}: {first} ({:?} with its start)", how.join(" "), ran.took);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_every_lane_is_what_preview_foretold_to_the_byte() {
    let wanted = wanted_events();
    let platform = Platform::start(Options::default()).await.unwrap();
    let recorder = Recorder::start(&platform.addresses().sandbox).await.unwrap();
    let all = put_and_pause(&platform, &recorder).await;
    publish(&platform, &of_people(wanted, Timestamp::now()), BATCH).await.unwrap();
    all_resolved(&platform, wanted).await;

    let partitions = resolved_events(&platform).await;
    assert_eq!(partitions.iter().map(Vec::len).sum::<usize>() as u64, wanted);
    let names = (0..).map(|number| format!("partition-{number}.jsonl"));
    let files: Vec<PathBuf> =
        partitions.iter().zip(names).map(|(lines, name)| file_of(&platform, &name, lines)).collect();
    previewed_in_one_run(&platform, &partitions, platform.data_dir()).await;
    tell_of_bad_lines(&platform, &partitions[0][0]).await;
    let mut foretold = Vec::new();
    for tried in &all {
        foretold.push(foretell(&platform, tried, &files, &["--batched", "--orders", "events"]).await);
        compare_with_the_rpc(&platform, tried, &partitions[0], platform.addresses().workspace_id).await;
    }
    // Meta's own figure is read once an hour, also while the lane is paused.
    let sent = recorder.requests().into_iter().find(|request| request.method != "GET");
    assert!(sent.is_none(), "a preview sends nothing: {sent:?}");

    let (mut requests, mut restricted) = (0, 0);
    for (tried, foretold) in all.iter().zip(&foretold) {
        resume(&platform, tried.name).await;
        let stats = nothing_waits(&platform, tried.name, wanted).await;
        let (compared, carried) = compare_all(tried, &partitions, foretold, &recorder);
        requests += compared;
        let mut ledger = ledger_of(&stats);
        for (reason, events) in kept_back(foretold) {
            assert_eq!(ledger.remove(&reason), Some(events), "{}: {reason:?}", tried.name);
        }
        // What is left was sent, whatever the platform said to it.
        assert_eq!(ledger.values().sum::<u64>(), carried, "{}: {ledger:?}", tried.name);
        let bodies = recorded_of(tried, &recorder);
        restricted += bodies.keys().filter(|body| String::from_utf8_lossy(body).contains("LDU")).count();
        println!(
            "{}: {compared} requests with {carried} events, all of them as foretold; the ledger: {ledger:?}",
            tried.name
        );
    }
    assert!(restricted > 0, "nobody's events were restricted: the test would not see that they are");
    println!("{wanted} events, {requests} requests compared, {requests} equal");

    let google_ads = all.iter().find(|tried| tried.name == "google-ads").unwrap();
    compare_a_later_refund(&platform, &recorder, google_ads, wanted).await;
    eventually("the books to be in order", async || {
        let balance = platform.cli_json(&["ledger", "balance"]).await?;
        ensure!(balance["clean"] == json!(true), "{balance:#}");
        Ok(())
    })
    .await;
}

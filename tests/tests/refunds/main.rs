//! Refunds, through the whole platform: what each destination is told, and that the sum there is what is left of the order by
//! delivery's own rows, for every kind that takes conversions and for orders that are worth their revenue or their total.
//!
//! `REFUNDS_TABLE=FILE` writes the matrix there, as Markdown; with `--nocapture` it is printed. `docs/refunds.md` shows it.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

mod books;
mod scenario;
mod shopify;
mod wire;

use std::fmt::Write as _;
use std::time::Duration;

use books::Books;
use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use scenario::{Case, Sale, UPDATED};
use serde_json::{Value, json};
use tracklayer_sandbox::{OrderWorth, Platform as AdPlatform, SeenRequest};
use tracklayer_tests::{Clock, Delivery, Options, Platform, Running, eventually_within};
use wire::{KINDS, Kind};

const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than the pause between two looks for an order.
const PAST_A_LOOK: Duration = Duration::from_secs(3_600);

async fn publish(platform: &Running, events: Vec<Value>) {
    let answer = reqwest::Client::new()
        .post(format!("{}/v1/batch", platform.addresses().ingest_http))
        .basic_auth(platform.write_key("web-us"), Some(""))
        .json(&json!({ "batch": events }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "success": true }));
}

/// The six connections, all with orders worth the same property.
async fn connect(platform: &Running, value_from: &str) {
    connect_by(platform, |kind| kind.document(platform, value_from)).await;
}

async fn connect_by(platform: &Running, document: impl Fn(&Kind) -> Value) {
    for kind in &KINDS {
        let file = platform.data_dir().join(format!("{}.json", kind.connection));
        std::fs::write(&file, document(kind).to_string()).unwrap();
        platform.cli(&["connections", "put", kind.connection, &file.display().to_string()]).await.unwrap();
    }
    // What comes before a connection's lanes have begun is not theirs.
    let mut probes = 0;
    eventually_within(PATIENCE, "all connections to have lanes", async || {
        probes += 1;
        let message_id = format!("probe-{probes}");
        let probe = json!({
            "type": "track", "event": "Refunds Probed", "messageId": message_id, "anonymousId": "refunds-probe",
        });
        publish(platform, vec![probe]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let story = platform.story(&message_id).await?;
        let told = story.occurrences.first().map(|first| first.deliveries.as_slice()).unwrap_or_default();
        let is_told = |kind: &Kind| told.iter().any(|delivery| delivery.connection == kind.connection);
        anyhow::ensure!(KINDS.iter().all(is_told), "{story:#?}");
        Ok(())
    })
    .await;
}

/// What became of an event at each connection, once that is what is waited for.
async fn deliveries(platform: &Running, message_id: &str, done: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
    eventually_within(PATIENCE, &format!("the end of {message_id}"), async || {
        let story = platform.story(message_id).await?;
        let Some(first) = story.occurrences.first() else { anyhow::bail!("not there yet") };
        let of = |kind: &Kind| first.deliveries.iter().find(|d| d.connection == kind.connection).cloned();
        let found: Vec<Delivery> = KINDS.iter().filter_map(of).collect();
        anyhow::ensure!(found.len() == KINDS.len() && found.iter().all(&done), "{story:#?}");
        Ok(found)
    })
    .await
}

fn is_settled(delivery: &Delivery) -> bool {
    !matches!(delivery.state.as_str(), "" | "waiting" | "held")
}

fn waits_for_its_order(delivery: &Delivery) -> bool {
    delivery.state == "held" && delivery.reason == "order_unknown"
}

/// What the ledger has to say of a change; none: it is an event as any other there.
fn expected(case: &Case, change: usize, kind: &Kind) -> Option<(&'static str, &'static str)> {
    let is_update = case.scenario.changes[change].event == UPDATED;
    if is_update { of_an_update(case, kind) } else { Some(of_a_refund(case, change, kind)) }
}

fn of_an_update(case: &Case, kind: &Kind) -> Option<(&'static str, &'static str)> {
    let filtered = |reason| Some(("filtered", reason));
    match kind.platform {
        AdPlatform::Webhook => Some(("delivered", "")),
        AdPlatform::TikTok => filtered("event_not_mapped"),
        AdPlatform::GoogleAds | AdPlatform::DataManager => match case.scenario.name {
            "an update from before a refund"
            | "an update that leaves out a refund"
            | "a refund, then what is left to the second of it"
            | "cancelled, then archived" => filtered("order_changed_since"),
            "an edit from before a refund" => Some(("dead", "value_without_refunds")),
            "an update that changes nothing" => filtered("order_unchanged"),
            "an update of an old order that was not sent" => filtered("nothing_to_update"),
            name if name.starts_with("an update without amounts") => filtered("no_new_value"),
            _ => Some(("delivered", "")),
        },
        AdPlatform::Meta | AdPlatform::Ga4 => None,
        AdPlatform::GoogleToken | AdPlatform::MetaQuality => unreachable!("no connection leads there"),
    }
}

fn of_a_refund(case: &Case, change: usize, kind: &Kind) -> (&'static str, &'static str) {
    let name = case.scenario.name;
    match kind.platform {
        AdPlatform::Webhook => ("delivered", ""),
        AdPlatform::Meta | AdPlatform::TikTok => ("filtered", "event_not_supported"),
        _ if case.scenario.sale == Sale::KeptBack => ("dead", "order_not_sent"),
        AdPlatform::GoogleAds | AdPlatform::DataManager if name == "in another currency" => {
            ("dead", "invalid_payload")
        }
        AdPlatform::GoogleAds | AdPlatform::DataManager
            if name == "cancelled, then refunded" && change == 1 =>
        {
            ("filtered", "nothing_left")
        }
        AdPlatform::GoogleAds | AdPlatform::DataManager
            if name == "an update, then a refund from before it"
                || name == "an update to the second, then a refund of it" =>
        {
            ("filtered", "order_changed_since")
        }
        AdPlatform::Ga4 if name == "in another currency" => ("delivered", "other_currency"),
        _ => ("delivered", ""),
    }
}

async fn matrix(value_from: &'static str) -> String {
    let clock = Clock::start().unwrap();
    let options = Options { variables: clock.variables(), ..Options::default() };
    let platform = Platform::start(options).await.unwrap();
    connect(&platform, value_from).await;
    let now = Timestamp::now();
    let cases: Vec<Case> =
        scenario::all().into_iter().enumerate().map(|(number, one)| Case::new(one, number, now)).collect();
    let changes_of = |case: &Case, later: bool| -> Vec<Value> {
        let numbers = (0..case.scenario.changes.len()).filter(|n| case.told_later(*n) == later);
        numbers.map(|n| case.change(n)).collect()
    };

    // Refunds before their order are held, and hold up nobody: the order may come from the same visitor.
    let is_early = |case: &&Case| case.scenario.sale == Sale::Late;
    publish(&platform, cases.iter().filter(is_early).flat_map(|case| changes_of(case, false)).collect())
        .await;
    for case in cases.iter().filter(is_early) {
        let at_rest = |d: &Delivery| is_settled(d) || waits_for_its_order(d);
        for (kind, delivery) in KINDS.iter().zip(deliveries(&platform, &case.change_id(0), at_rest).await) {
            assert_eq!(waits_for_its_order(&delivery), kind.takes_refunds(), "{delivery:#?}");
        }
    }
    publish(&platform, cases.iter().map(Case::sale).collect()).await;
    for case in &cases {
        let sold = deliveries(&platform, &case.sale_id(), is_settled).await;
        let kept_back = case.scenario.sale == Sale::KeptBack;
        let state = if kept_back { "filtered" } else { "delivered" };
        assert!(sold.iter().all(|delivery| delivery.state == state), "{sold:#?}");
    }
    for later in [false, true] {
        let told = cases.iter().filter(|case| !is_early(case)).flat_map(|case| changes_of(case, later));
        publish(&platform, told.collect()).await;
        for case in cases.iter().filter(|case| case.scenario.sale != Sale::KeptBack) {
            for number in (0..case.scenario.changes.len()).filter(|n| case.told_later(*n) == later) {
                deliveries(&platform, &case.change_id(number), is_settled).await;
            }
        }
    }
    for case in cases.iter().filter(|case| case.scenario.sale == Sale::KeptBack) {
        deliveries(&platform, &case.change_id(0), |d| is_settled(d) || waits_for_its_order(d)).await;
    }
    // An order that does not come within a day is not waited for any longer.
    books::wait_almost_a_day(&platform).await;
    clock.advance(PAST_A_LOOK).unwrap();
    books::wait_out_the_day(&platform).await;
    let seen = Seen::of(&platform).await;
    let mut table = String::new();
    for case in &cases {
        let mut verdicts = Vec::new();
        for number in 0..case.scenario.changes.len() {
            verdicts.push(deliveries(&platform, &case.change_id(number), is_settled).await);
        }
        for (place, kind) in KINDS.iter().enumerate() {
            for (number, verdicts) in verdicts.iter().enumerate() {
                let delivery = &verdicts[place];
                let Some(expected) = expected(case, number, kind) else { continue };
                let found = (delivery.state.as_str(), delivery.reason.as_str());
                assert_eq!(found, expected, "{}: {delivery:#?}", case.scenario.name);
            }
            let own: Vec<&Delivery> = verdicts.iter().map(|verdicts| &verdicts[place]).collect();
            table += &seen.row(case, kind, value_from, &own);
        }
    }
    check_times(&cases, &seen.requests);
    check_preview(&platform, &cases, value_from, &seen.requests).await;
    let balance = platform.cli_json(&["ledger", "balance"]).await.unwrap();
    assert_eq!(balance["clean"], true, "{balance:#}");
    table
}

/// Both sides' books, at the end.
struct Seen {
    requests: Vec<SeenRequest>,
    orders: Vec<(AdPlatform, Vec<OrderWorth>)>,
    books: Books,
    connections: std::collections::HashMap<String, i64>,
}

impl Seen {
    async fn of(platform: &Running) -> Self {
        let sandbox = platform.sandbox();
        let mut orders = Vec::new();
        for kind in &KINDS {
            orders.push((kind.platform, sandbox.orders(kind.platform).await.unwrap()));
        }
        let requests = sandbox.requests(1_000).await.unwrap();
        let books = Books::read(platform).await;
        Self { requests, orders, books, connections: books::connections(platform).await }
    }

    /// Checks an order at a platform, and tells of it.
    fn row(&self, case: &Case, kind: &Kind, value_from: &str, verdicts: &[&Delivery]) -> String {
        let scenario = &case.scenario;
        let of_value = |(revenue, total): (&'static str, &'static str)| -> Decimal {
            if value_from == "revenue" { revenue } else { total }.parse::<Decimal>().unwrap().normalize()
        };
        let sold = of_value((scenario.revenue, scenario.total));
        let sent = scenario.sale != Sale::KeptBack;
        let told = kind.told(&self.requests, &case.order_id);
        let at_platform = &self.orders.iter().find(|(platform, _)| *platform == kind.platform).unwrap().1;
        let worth = at_platform.iter().find(|order| order.order_id == case.order_id);
        let context = format!("{} at {}, {value_from}: {told:#?}", scenario.name, kind.kind);

        let row = self.books.row(self.connections[kind.connection], &case.order_id);
        // Nothing is taken off where the platform has nothing to take it off with.
        let left = match kind.platform {
            AdPlatform::Meta | AdPlatform::TikTok => sold,
            AdPlatform::Ga4 => of_value(scenario.left_at_ga4),
            _ => of_value(scenario.left),
        };
        let amount = worth
            .and_then(|worth| worth.amounts.get(scenario.currency))
            .map(|amount| amount.parse::<Decimal>().unwrap());
        if kind.platform == AdPlatform::Webhook {
            assert_eq!(told.len(), scenario.changes.len() + usize::from(sent), "each as it came: {context}");
        } else {
            assert_eq!(amount, sent.then_some(left), "the sum at the platform: {context}");
            assert!(worth.is_none_or(|worth| worth.purchases == 1), "counted once: {context}");
        }
        if kind.takes_refunds() && sent {
            assert_eq!(row.map_or(sold, books::Row::left), left, "by our rows: {row:?}, {context}");
        }
        // Whoever takes updates as events of their own takes those of any order.
        let takes_updates = matches!(kind.platform, AdPlatform::Meta | AdPlatform::Ga4)
            && scenario.changes.iter().any(|change| change.event == UPDATED);
        if !sent && kind.platform != AdPlatform::Webhook && !takes_updates {
            assert!(told.is_empty(), "{context}");
        }
        let is_webhook = kind.platform == AdPlatform::Webhook;
        let sales = if is_webhook { 0 } else { usize::from(sent) };
        let told = told.iter().skip(sales).map(|part| kind.line(part));
        let unsaid = verdicts.iter().filter(|verdict| !verdict.reason.is_empty());
        let unsaid = unsaid.map(|verdict| format!("{}: `{}`", verdict.state, verdict.reason));
        let changes = told.chain(unsaid).collect::<Vec<_>>().join("; ");
        let amounts = worth.map_or_else(String::new, |worth| {
            worth
                .amounts
                .iter()
                .map(|(code, amount)| format!("{amount} {code}"))
                .collect::<Vec<_>>()
                .join(", ")
        });
        let (amounts, ours) = match kind.platform {
            AdPlatform::Webhook => ("keeps no sum".to_owned(), String::new()),
            _ if !sent => ("nothing".to_owned(), "nothing".to_owned()),
            _ => (amounts, format!("{} {}", row.map_or(sold, books::Row::left), scenario.currency)),
        };
        let mut line = String::new();
        let _ = writeln!(
            line,
            "| {} | {value_from} | {} | {sold} {} | {changes} | {amounts} | {ours} |",
            scenario.name, kind.kind, scenario.currency
        );
        line
    }
}

/// Two changes of one order never have one time at Google, which would take the second for a repeat of the first.
fn check_times(cases: &[Case], requests: &[SeenRequest]) {
    let ads = &KINDS[1];
    for case in cases {
        let told = ads.told(requests, &case.order_id);
        let times: Vec<&str> = told.iter().filter_map(|part| part["adjustmentDateTime"].as_str()).collect();
        assert!(times.is_sorted_by(|a, b| a < b), "{}: {times:?}", case.scenario.name);
    }
}

/// `preview`, told the order's state, shows what the lane has sent.
async fn check_preview(platform: &Running, cases: &[Case], value_from: &str, requests: &[SeenRequest]) {
    let case = cases.iter().find(|case| case.scenario.name == "two partials in one second").unwrap();
    let scenario = &case.scenario;
    let value = if value_from == "revenue" { scenario.revenue } else { scenario.total };
    let first_at = case.sold_at + SignedDuration::from_mins(30);
    for kind in KINDS.iter().filter(|kind| kind.takes_refunds()) {
        let told = kind.told(requests, &case.order_id);
        assert_eq!(told.len(), 3, "{}: {told:#?}", kind.kind);
        for number in 0..2 {
            let before = (number == 1).then_some(("30", first_at));
            let mut event = case.change(number);
            let mut state =
                books::order_state(value, scenario.total, scenario.currency, case.sold_at, before);
            // What the sale was matched by.
            state["match_key"] = told[0]["userData"]["userIdentifiers"][0].clone();
            event["order_state"] = state;
            let file = platform.data_dir().join("preview.jsonl");
            std::fs::write(&file, event.to_string()).unwrap();
            let document = platform.data_dir().join(format!("{}.json", kind.connection));
            let (document, file) = (document.display().to_string(), file.display().to_string());
            let answer =
                platform.cli(&["preview", "--connection", &document, "--events", &file]).await.unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let body = &answer["requests"][0]["body"];
            let shown = [&body["events"][0], &body["conversionAdjustments"][0]];
            let shown =
                shown.into_iter().find(|part| !part.is_null()).unwrap_or_else(|| panic!("{answer:#}"));
            assert_eq!(*shown, told[number + 1], "{} {number}: {answer:#}", kind.kind);
        }
    }
}

const HEAD: &str = "| refund | value_from | kind | sold for | what the platform was told | worth there | left by our rows |\n\
                    | --- | --- | --- | --- | --- | --- | --- |\n";

fn publish_table(value_from: &str, rows: &str) {
    let table = format!("{HEAD}{rows}");
    println!("{table}");
    if let Some(file) = std::env::var_os("REFUNDS_TABLE") {
        let file = std::path::PathBuf::from(file).with_extension(format!("{value_from}.md"));
        std::fs::write(file, table).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_the_revenue_is_what_each_platform_counts() {
    publish_table("revenue", &matrix("revenue").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_the_total_is_what_each_platform_counts() {
    publish_table("total", &matrix("total").await);
}

//! What the tests of all connectors share: one working document for each kind of connection (and some variants), Segment's
//! ecommerce events as a shop sends them, and the platforms to put requests to.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot build its input must fail")]

use std::path::PathBuf;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tracklayer_destination::warehouse::row::Row;
use tracklayer_destination::{
    Answer, Destination, FileTarget, HttpRequest, Item, ItemOutcome, Kind, WorkspaceDefaults, open,
};
use tracklayer_ids::Secret;
use tracklayer_sandbox::options::{
    ActionKind, ConversionAction, GOOGLE_ACCESS_TOKEN, GOOGLE_CUSTOMER, GOOGLE_WEBPAGE_ACTION,
};
use tracklayer_sandbox::{Clock, Options, Platform, Platforms};

/// The clock of these tests.
pub const NOW: &str = "2026-11-23T12:00:00Z";

/// The clock of these tests.
pub fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A file or folder of this crate's tests.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn fixture(name: &str) -> Value {
    let path = path("fixtures").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Names and documents of the connections in `fixtures/connections.json`. A kind's plain document has the kind's name.
pub fn connections() -> Vec<(String, Value)> {
    fixture("connections.json").as_object().unwrap().clone().into_iter().collect()
}

/// The plain document of a kind.
pub fn document(kind: &str) -> Value {
    connections()
        .into_iter()
        .find(|(name, _)| name == kind)
        .unwrap_or_else(|| panic!("no document of {kind}"))
        .1
}

/// The document with a change at a path; members on the way are made.
pub fn with(mut document: Value, path: &str, value: Value) -> Value {
    let mut at = &mut document;
    for step in path.split('.') {
        at = &mut at[step];
    }
    *at = value;
    document
}

/// Opens a document.
pub fn opened(document: &Value) -> Box<dyn Destination> {
    open(document, &WorkspaceDefaults::default()).unwrap_or_else(|errors| panic!("{document}: {errors}"))
}

/// Names and texts of Segment's ecommerce events in `fixtures/events.json`, each with what all of them have in common.
pub fn events() -> Vec<(String, Value)> {
    let file = fixture("events.json");
    let with_common = |event: &Value| {
        let mut whole: Map<String, Value> = file["common"].as_object().unwrap().clone();
        whole.extend(event.as_object().unwrap().clone());
        Value::Object(whole)
    };
    let listed = file["events"].as_array().unwrap();
    listed.iter().map(|e| (e["file"].as_str().unwrap().to_owned(), with_common(&e["event"]))).collect()
}

/// One of [`events`].
pub fn event(name: &str) -> Value {
    events().into_iter().find(|(file, _)| file == name).unwrap_or_else(|| panic!("no event {name}")).1
}

/// The access token that the platforms know, for kinds that need one.
pub fn access_token() -> Secret<String> {
    Secret::new(GOOGLE_ACCESS_TOKEN.to_owned())
}

/// The platforms, with a clock that stands at `now`.
pub struct World {
    platforms: Platforms,
    clock: Clock,
}

impl World {
    /// Platforms that know the accounts and actions of `fixtures/connections.json`, and nothing yet of any event.
    pub fn at(now: Timestamp) -> Self {
        Self::with(now, |_| {})
    }

    /// The same, with other options.
    pub fn with(now: Timestamp, change: impl FnOnce(&mut Options)) -> Self {
        let clock = Clock::manual(now);
        let mut options = Options { clock: clock.clone(), ..Options::default() };
        let customer = options.google.customers.iter_mut().find(|c| c.id == GOOGLE_CUSTOMER).unwrap();
        for action in ["987654323", "987654324", "987654325"] {
            customer.actions.push(ConversionAction::new(action, ActionKind::UploadClicks));
        }
        change(&mut options);
        Self { platforms: Platforms::new(options).unwrap(), clock }
    }

    /// Sends a request.
    pub fn send(&self, request: &HttpRequest) -> Answer {
        let mut sent = http::Request::builder().method(request.method).uri(request.full_url());
        for (name, value) in &request.headers {
            sent = sent.header(name, value.expose());
        }
        let answered = self.platforms.ask(&sent.body(Bytes::from(request.body.clone())).unwrap());
        let (parts, body) = answered.into_parts();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.to_vec() }
    }

    /// Sends items of one request, the way a lane does. What a platform refuses is told, with its words: items, requests that
    /// are answered with a success and dropped (GA4), and verdicts that come later (Data Manager).
    pub fn take(&self, destination: &dyn Destination, items: &[&Item]) -> Result<(), String> {
        if let Some(files) = destination.files() {
            return take_rows(files, items);
        }
        self.prepare(destination, items);
        let request = destination.assemble(items, Some(&access_token()));
        let answer = self.send(&request);
        let told = || format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body));
        for outcome in destination.classify(&answer, items) {
            match outcome {
                ItemOutcome::Delivered { .. } => {}
                other => return Err(format!("{other:?}: {}", told())),
            }
        }
        match destination.kind() {
            Kind::Ga4Mp => self.check_counted(&request, items.len()),
            Kind::GoogleDataManager => self.check_verdict(&request, &answer),
            _ => Ok(()),
        }
    }

    /// How many events a kind's platform has counted.
    pub fn counted(&self, kind: Kind) -> usize {
        let platform: Platform = kind.as_str().parse().unwrap();
        self.platforms.counted(platform).len()
    }

    /// What a kind's platform calls the events that it has counted.
    pub fn names_counted(&self, kind: Kind) -> Vec<String> {
        let platform: Platform = kind.as_str().parse().unwrap();
        self.platforms.counted(platform).into_iter().map(|counted| counted.event_name).collect()
    }

    /// What adjustments change must be there: a conversion of the same key, just before.
    fn prepare(&self, destination: &dyn Destination, items: &[&Item]) {
        let adjusted: Vec<Value> = items
            .iter()
            .map(|item| item.body.to_value())
            .filter(|body| body["adjustmentType"].is_string() && body["adjustmentDateTime"].is_string())
            .filter(|body| !body["conversionAction"].as_str().unwrap().ends_with(GOOGLE_WEBPAGE_ACTION))
            .enumerate()
            .map(|(index, body)| {
                // Each by a click of its own: two orders of one click and one second are one conversion to Google.
                let mut conversion = json!({
                    "conversionAction": body["conversionAction"], "gclid": format!("Cj0KCQiA_abc-DEF{index}"),
                    "conversionDateTime": before(body["adjustmentDateTime"].as_str().unwrap()),
                    "conversionValue": 1000, "currencyCode": "USD",
                });
                match body.get("orderId") {
                    Some(id) => conversion["orderId"] = id.clone(),
                    None => {
                        conversion["gclid"] = body["gclidDateTimePair"]["gclid"].clone();
                        conversion["conversionDateTime"] =
                            body["gclidDateTimePair"]["conversionDateTime"].clone();
                    }
                }
                conversion
            })
            .collect();
        if adjusted.is_empty() {
            return;
        }
        let mut request = destination.assemble(items, Some(&access_token()));
        request.url = request.url.replace("uploadConversionAdjustments", "uploadClickConversions");
        for conversion in adjusted {
            request.body =
                json!({ "conversions": [conversion], "partialFailure": true }).to_string().into_bytes();
            let answer = self.send(&request);
            let told = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.status, 200, "{conversion}: {told}");
            let taken =
                answer.json().is_some_and(|json| json["results"][0].get("conversionDateTime").is_some());
            assert!(taken, "{conversion}: {told}");
        }
    }

    /// GA4 says nothing: what its debug address says, and whether the event was counted.
    fn check_counted(&self, request: &HttpRequest, items: usize) -> Result<(), String> {
        let debug =
            HttpRequest { url: request.url.replace("/mp/collect", "/debug/mp/collect"), ..request.clone() };
        let said = self.send(&debug).json().unwrap();
        if said["validationMessages"] != json!([]) {
            return Err(said.to_string());
        }
        let counted = self.platforms.counted(Platform::Ga4).len();
        if counted == items { Ok(()) } else { Err(format!("{counted} of {items} were counted")) }
    }

    /// Data Manager judges later.
    fn check_verdict(&self, request: &HttpRequest, answer: &Answer) -> Result<(), String> {
        self.clock.advance(std::time::Duration::from_secs(31 * 60));
        let id = answer.json().unwrap()["requestId"].as_str().unwrap().to_owned();
        let url = request.url.replace("events:ingest", &format!("requestStatus:retrieve?requestId={id}"));
        let status = HttpRequest { method: "GET", url, body: Vec::new(), ..request.clone() };
        let verdict = self.send(&status).json().unwrap();
        let rows = verdict["requestStatusPerDestination"].as_array().unwrap();
        let good = !rows.is_empty() && rows.iter().all(|row| row["requestStatus"] == "SUCCESS");
        if good { Ok(()) } else { Err(verdict.to_string()) }
    }
}

/// Nobody's stand-in takes rows of a file: they are looked at here, and written and read again in `libs/lake`.
fn take_rows(files: &FileTarget, items: &[&Item]) -> Result<(), String> {
    let [first, ..] = items else { return Ok(()) };
    let url = files.url_of(&first.group);
    let parts: Vec<&str> = first.group.split('/').collect();
    if parts.len() != 2 || !parts[0].starts_with("day=20") || !parts[1].starts_with("event=") {
        return Err(format!("no folder of a day and an event: {url}"));
    }
    for item in items {
        let row: Row = serde_json::from_str(item.body.as_str()).map_err(|error| error.to_string())?;
        let json = [&row.properties, &row.traits, &row.context, &row.consent].into_iter().flatten();
        if item.group != first.group
            || json.into_iter().any(|text| serde_json::from_str::<&RawValue>(text).is_err())
        {
            return Err(format!("{} is no row of {url}", item.body));
        }
    }
    Ok(())
}

/// A second before, in the form of the Ads API.
fn before(time: &str) -> String {
    let at: Timestamp = time.parse().unwrap();
    (at - jiff::SignedDuration::from_secs(1)).strftime("%Y-%m-%d %H:%M:%S+00:00").to_string()
}

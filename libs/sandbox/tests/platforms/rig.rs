//! A sandbox on a port of its own, with a clock that stands still, and a client.

use std::net::{Ipv4Addr, SocketAddr};

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracklayer_sandbox::options::{
    GOOGLE_ACCESS_TOKEN, META_DATASET, META_TOKEN, TIKTOK_PIXEL, TIKTOK_TOKEN,
};
use tracklayer_sandbox::{Clock, Counted, Options, Platform, Sandbox, Totals};

/// 2026-11-23T12:00:00Z, the clock of the reference vectors.
pub const NOW: i64 = 1_795_435_200;

pub struct Rig {
    pub sandbox: Sandbox,
    pub clock: Clock,
    pub http: reqwest::Client,
    stop: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub async fn rig() -> Rig {
    rig_with(|_| ()).await
}

pub async fn rig_with(change: impl FnOnce(&mut Options)) -> Rig {
    let clock = Clock::manual(jiff::Timestamp::from_second(NOW).unwrap());
    let mut options = Options { clock: clock.clone(), ..Options::default() };
    change(&mut options);
    let stop = CancellationToken::new();
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let sandbox = Sandbox::start(any_port, options, stop.clone()).await.unwrap();
    Rig { sandbox, clock, http: reqwest::Client::new(), stop }
}

pub async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

impl Rig {
    pub fn post(&self, url: &str) -> RequestBuilder {
        self.http.request(Method::POST, url)
    }

    pub fn meta(&self, data: &Value) -> RequestBuilder {
        self.post(&format!("{}/v26.0/{META_DATASET}/events", self.sandbox.meta_url()))
            .bearer_auth(META_TOKEN)
            .json(&json!({ "data": data }))
    }

    pub fn tiktok(&self, data: &Value) -> RequestBuilder {
        self.post(&format!("{}/open_api/v1.3/event/track/", self.sandbox.tiktok_url()))
            .header("Access-Token", TIKTOK_TOKEN)
            .json(&json!({ "event_source": "web", "event_source_id": TIKTOK_PIXEL, "data": data }))
    }

    pub fn google_ads(&self, method: &str, body: &Value) -> RequestBuilder {
        self.post(&format!("{}/v26/customers/1234567890:{method}", self.sandbox.google_ads_url()))
            .bearer_auth(GOOGLE_ACCESS_TOKEN)
            .json(body)
    }

    pub fn ingest(&self, body: &Value) -> RequestBuilder {
        self.post(&format!("{}/v1/events:ingest", self.sandbox.data_manager_url()))
            .bearer_auth(GOOGLE_ACCESS_TOKEN)
            .json(body)
    }

    pub fn counted(&self, platform: Platform) -> Vec<Counted> {
        self.sandbox.counted(platform)
    }

    pub fn totals(&self, platform: Platform) -> Totals {
        self.sandbox.totals().remove(&platform).unwrap()
    }
}

pub async fn send(request: RequestBuilder) -> (u16, Value) {
    read(request.send().await.unwrap()).await
}

/// Puts `value` at a JSON pointer; null removes what is there.
pub fn change(base: &Value, pointer: &str, value: Value) -> Value {
    let mut changed = base.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = changed.pointer_mut(parent).unwrap();
    match (parent, value) {
        (Value::Object(object), Value::Null) => drop(object.remove(name)),
        (Value::Object(object), value) => drop(object.insert(name.to_owned(), value)),
        (Value::Array(list), value) => list[name.parse::<usize>().unwrap()] = value,
        (other, _) => panic!("{pointer}: {other} has no members"),
    }
    changed
}

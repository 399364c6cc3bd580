//! Meta's Conversions API: `POST /{version}/{dataset}/events`. One invalid event refuses the whole request
//! and nothing of it is processed. Order of checks: token, path and version, dataset, `data`, then event by
//! event.
//!
//! Source: Meta, Conversions API, "Using the API", "Parameters", "Deduplicate pixel and server events";
//! 2026-11.

mod answer;
mod event;
pub(crate) mod fault;
pub(crate) mod quality;
mod shape;

use std::borrow::Cow;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use sha2::Sha256;

use crate::answer::Answer;
use crate::exchange::{Inbound, World};
use crate::json::{Body, Item, Items, Json};
use crate::platform::Platform;
use crate::store::{Arrival, Key};

use answer::{Refusal, trace_id};

/// Most events of one request. Source: Meta, Conversions API, "Using the API"; 2026-11.
const MAX_EVENTS: usize = 1_000;

/// Same dataset, name and id within this time: the first wins. Source: Meta, "Deduplicate pixel and server
/// events"; 2026-11.
const DEDUP_WINDOW: Duration = Duration::from_secs(48 * 3600);

/// The members of a body in JSON.
const MEMBERS: [&str; 5] = ["data", "access_token", "appsecret_proof", "partner_agent", "test_event_code"];

#[derive(Deserialize, Default)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    data: Option<Items<'a>>,
    #[serde(borrow, default)]
    access_token: Option<Json<'a>>,
    #[serde(borrow, default)]
    appsecret_proof: Option<Json<'a>>,
    #[serde(borrow, default)]
    partner_agent: Option<Json<'a>>,
    #[serde(borrow, default)]
    test_event_code: Option<Json<'a>>,
}

impl<'a> Envelope<'a> {
    /// A body that cannot be read has no parameters: the token may still be good, and then `data` is missing.
    fn read(body: &'a [u8]) -> Self {
        match Body::read(body) {
            Some(mut body) if !body.repeats(&MEMBERS) => Self {
                data: body.take_items("data"),
                access_token: body.take("access_token"),
                appsecret_proof: body.take("appsecret_proof"),
                partner_agent: body.take("partner_agent"),
                test_event_code: body.take("test_event_code"),
            },
            _ => serde_json::from_slice(body).unwrap_or_default(),
        }
    }
}

/// The parameters of a request, from wherever they came.
struct Parameters<'a> {
    token: Option<String>,
    proof: Option<String>,
    partner_agent: Option<String>,
    test_event_code: Option<String>,
    /// None: absent, or no list.
    data: Option<Vec<Item<'a>>>,
}

/// Answers a request.
pub(crate) fn answer(world: &World, inbound: &Inbound<'_>) -> Answer {
    let form = form_parameters(inbound);
    let texts = form.as_deref().and_then(texts_of_form);
    let parameters = match &form {
        Some(form) => parameters_of_form(inbound, form, texts.as_deref()),
        None => parameters_of_json(inbound),
    };
    match accept(world, inbound, &parameters) {
        Ok(answer) => answer,
        Err(refusal) => refusal.answer(inbound.localised),
    }
}

fn accept(world: &World, inbound: &Inbound<'_>, parameters: &Parameters<'_>) -> Result<Answer, Refusal> {
    let options = &world.options.meta;
    let token = parameters.token.as_deref().unwrap_or("");
    let datasets = options.tokens.get(token).ok_or_else(Refusal::token)?;
    let unknown_path = || Refusal::unknown_path(inbound.path);
    let mut parts = inbound.path.trim_matches('/').split('/');
    let (version, dataset) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let known = options.versions.iter().any(|known| known == version) && parts.next() == Some("events");
    if !known || parts.next().is_some() {
        return Err(unknown_path());
    }
    if !datasets.iter().any(|known| known == dataset) || *inbound.method != Method::POST {
        return Err(Refusal::dataset(dataset));
    }
    if let Some(secret) = &options.app_secret {
        let proof = parameters.proof.as_deref().ok_or_else(Refusal::proof_missing)?;
        if proof != proof_of(secret, token) {
            return Err(Refusal::proof_wrong());
        }
    }
    if let Some(agent) = &parameters.partner_agent
        && (agent.chars().count() >= 23 || agent.chars().filter(char::is_ascii_alphabetic).count() < 2)
    {
        return Err(Refusal::parameter("(#100) Param partner_agent is not valid"));
    }
    let Some(items) = &parameters.data else {
        return Err(Refusal::parameter("(#100) The parameter data is required"));
    };
    if items.is_empty() {
        return Err(Refusal::parameter("(#100) Param data must be non-empty."));
    }
    if items.len() > MAX_EVENTS {
        return Err(Refusal::parameter(format!(
            "(#100) Param data must have at most {MAX_EVENTS} elements, but has {}.",
            items.len()
        )));
    }
    let mut warnings = event::Warnings::default();
    let mut arrivals = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let checked = event::check(index, item, inbound.now, options.require_website_fields, &mut warnings)?;
        if let Some(named) = inbound.is_bad(item.text) {
            return Err(fault::bad_event(index, named));
        }
        if inbound.failing(index) {
            continue;
        }
        let key = (!checked.id.is_empty()).then(|| Key::of(&[dataset, checked.name, checked.id]));
        arrivals.push(Arrival {
            key,
            identity: dataset,
            name: checked.name.into(),
            id: checked.id.into(),
            time: checked.time,
            value: checked.value,
            currency: checked.currency.map(Cow::Borrowed),
            body: item.text,
        });
    }
    let book = world.book(Platform::Meta);
    book.accept(&arrivals, inbound.now, DEDUP_WINDOW);
    let mut pages = book.open();
    pages.totals.refused_events += (items.len() - arrivals.len()) as u64;
    if parameters.test_event_code.as_deref().is_some_and(|code| !code.is_empty()) {
        // Shown under Test Events, and measured like all others. Source: Meta, Conversions API, "Using the API"; 2026-11.
        pages.totals.test_events += arrivals.len() as u64;
    }
    for (kind, times) in warnings.kinds() {
        pages.warn(kind, times);
    }
    let body = json!({ "events_received": arrivals.len(), "messages": [], "fbtrace_id": trace_id() });
    Ok(Answer::json(200, &body))
}

/// `appsecret_proof`: hex HMAC-SHA256 of the token under the app's secret. Source: Meta, Graph API, "Secure
/// calls"; 2026-11.
fn proof_of(secret: &str, token: &str) -> String {
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(token.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

fn form_parameters(inbound: &Inbound<'_>) -> Option<Vec<(String, String)>> {
    let kind = inbound.header("content-type")?;
    kind.starts_with("application/x-www-form-urlencoded")
        .then(|| url::form_urlencoded::parse(inbound.body).into_owned().collect())
}

fn of_form<'a>(form: &'a [(String, String)], name: &str) -> Option<&'a str> {
    form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn texts_of_form(form: &[(String, String)]) -> Option<Vec<Cow<'_, str>>> {
    let list: Vec<&RawValue> = serde_json::from_str(of_form(form, "data")?).ok()?;
    // Here each event may be a JSON text of its own. Source: Meta's business SDKs; 2026-11.
    let texts = list.into_iter().map(|item| match serde_json::from_str::<String>(item.get()) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Borrowed(item.get()),
    });
    Some(texts.collect())
}

fn parameters_of_form<'a>(
    inbound: &Inbound<'_>,
    form: &'a [(String, String)],
    texts: Option<&'a [Cow<'a, str>]>,
) -> Parameters<'a> {
    let get = |name: &str| of_form(form, name).map(str::to_owned);
    Parameters {
        token: token_beside(inbound).or_else(|| get("access_token")),
        proof: inbound.parameter("appsecret_proof").or_else(|| get("appsecret_proof")),
        partner_agent: get("partner_agent"),
        test_event_code: get("test_event_code"),
        data: texts.map(|texts| texts.iter().map(|text| Item::of(text)).collect()),
    }
}

fn parameters_of_json<'a>(inbound: &Inbound<'a>) -> Parameters<'a> {
    let envelope = Envelope::read(inbound.body);
    let text = |json: Option<Json<'a>>| json.as_ref().and_then(Json::text).map(str::to_owned);
    let data = match envelope.data {
        Some(Items::List(items)) => Some(items),
        Some(Items::Other) | None => None,
    };
    Parameters {
        token: token_beside(inbound).or_else(|| text(envelope.access_token)),
        proof: inbound.parameter("appsecret_proof").or_else(|| text(envelope.appsecret_proof)),
        partner_agent: text(envelope.partner_agent),
        test_event_code: text(envelope.test_event_code),
        data,
    }
}

fn token_beside(inbound: &Inbound<'_>) -> Option<String> {
    inbound.bearer().map(str::to_owned).or_else(|| inbound.parameter("access_token"))
}

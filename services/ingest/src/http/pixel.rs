//! Pixels in e-mails and pages without scripts: a GIF whatever happens, the event if there is one.

use std::borrow::Cow;
use std::time::Instant;

use axum::response::Response;
use http::request::Parts;
use jiff::Timestamp;
use serde_json::{Map, Value};
use tracklayer_event::batch;
use tracklayer_proto::event::v1::EventType;

use super::Edge;
use super::answer::{self, Refusal};
use super::events::{authorization_of, parse_context, parse_one, query_value};
use super::person::Person;
use crate::admission::for_body;
use crate::credentials;
use crate::error::IngestError;
use crate::ingest::Arrival;
use crate::metrics::{self, Wire};
use crate::source::Source;

/// Deepest nesting that dots in a parameter's name make.
const MAX_DOTS: usize = 16;

/// Takes the event, and answers the pixel also where it could not be taken.
pub(super) async fn pixel(edge: &Edge, head: &Parts, event_type: EventType) -> Response {
    if let Err(refusal) = take(edge, head, event_type).await {
        // Errors never show to whoever reads an e-mail; the operator sees them counted.
        metrics::refused(Wire::Http, refusal.code);
    }
    answer::gif()
}

async fn take(edge: &Edge, head: &Parts, event_type: EventType) -> Result<(), Refusal> {
    let query = head.uri.query();
    let text = event_text(query)?;
    let snapshot = edge.ingest.snapshot()?;
    let body_key = batch::write_key_of(&text)?;
    let query_key = query_value(query, "writeKey").map(Cow::Owned);
    let authorization = authorization_of(&head.headers);
    let (key, _) = credentials::choose(authorization.as_ref(), body_key, query_key);
    let source = Source::of_write_key(&snapshot, &key.ok_or(IngestError::MissingWriteKey)?)?;
    let _room = edge.ingest.admission.admit(source.holder(), for_body(text.len()))?;
    edge.ingest.tell_of(source.workspace, text.len());

    metrics::received(Wire::Http, 1, text.len());
    let person = Person::of(head, edge.settings.trusted_proxies);
    let received_at = Timestamp::now();
    let mut context = parse_context(&source, &person, received_at);
    context.path_type = Some(event_type);
    let arrival =
        Arrival { wire: Wire::Http, received_at, started: Instant::now(), traceparent: &person.traceparent };
    edge.ingest.accept(&source, &arrival, vec![parse_one(&text, &context)]).await?;
    Ok(())
}

/// The event as JSON: decoded from `data`, else built from the parameters, whose dots nest and whose values are text.
fn event_text(query: Option<&str>) -> Result<String, Refusal> {
    if let Some(data) = query_value(query, "data") {
        let decoded = credentials::pixel_data(&data).and_then(|bytes| String::from_utf8(bytes).ok());
        return decoded.ok_or_else(|| {
            Refusal::new(http::StatusCode::BAD_REQUEST, "invalid_json", "data is not base64")
        });
    }
    let mut event = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let parts: Vec<&str> = name.split('.').collect();
        if parts.len() <= MAX_DOTS {
            put(&mut event, &parts, value.into_owned());
        }
    }
    Ok(Value::Object(event).to_string())
}

fn put(object: &mut Map<String, Value>, path: &[&str], value: String) {
    match path {
        [] => {}
        [last] => {
            object.insert((*last).to_owned(), Value::String(value));
        }
        [first, rest @ ..] => {
            let inner = object.entry((*first).to_owned()).or_insert_with(|| Value::Object(Map::new()));
            // A parameter that is a text already cannot hold another: the first one stays.
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_nest_and_values_are_text() {
        let text = event_text(Some(
            "userId=u&event=Email+Opened&properties.subject=Hi&properties.n=1&writeKey=k&a=1&a.b=2",
        ));
        let value: Value = serde_json::from_str(&text.unwrap()).unwrap();
        let expected = serde_json::json!({
            "userId": "u", "event": "Email Opened", "properties": {"subject": "Hi", "n": "1"}, "writeKey": "k", "a": "1"
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn data_is_base64_padded_or_not() {
        // {"userId":"u"}
        for data in ["eyJ1c2VySWQiOiJ1In0=", "eyJ1c2VySWQiOiJ1In0", "eyJ1c2VySWQiOiJ1In0%3D"] {
            assert_eq!(event_text(Some(&format!("data={data}"))).unwrap(), r#"{"userId":"u"}"#);
        }
        assert!(event_text(Some("data=%21")).is_err());
    }
}

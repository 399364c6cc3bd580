//! An event made of JSON, and what an expression gives for it.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tracklayer_expression::{
    CompileError, Event, Fault, Identity, Outcome, Program, Root, Rules, Shape, Type, View, Word, compile,
};

pub struct Sample(pub Value);

#[derive(Clone, Copy)]
pub struct Seen<'a>(&'a Value);

impl Event for Sample {
    type View<'a> = Seen<'a>;

    fn root(&self, root: Root) -> Seen<'_> {
        Seen(self.0.get(root.name()).unwrap_or(&Value::Null))
    }

    fn word(&self, word: Word) -> &str {
        let key = match word {
            Word::Type => "type",
            Word::Event => "event",
            Word::MessageId => "messageId",
        };
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn has(&self, identity: Identity) -> bool {
        let key = match identity {
            Identity::UserId => "userId",
            Identity::AnonymousId => "anonymousId",
        };
        self.0.get(key).is_some()
    }

    fn time(&self) -> Timestamp {
        "2026-11-27T12:00:00Z".parse().unwrap()
    }

    fn is_withheld(&self, text: &str) -> bool {
        text.contains('@')
    }
}

impl<'a> View<'a> for Seen<'a> {
    fn shape(self) -> Shape<'a> {
        match self.0 {
            Value::Null => Shape::Null,
            Value::Bool(value) => Shape::Bool(*value),
            Value::Number(_) => Shape::Number,
            Value::String(text) => Shape::Text(text),
            Value::Array(_) => Shape::List,
            Value::Object(_) => Shape::Object,
        }
    }

    fn number(self) -> Option<Decimal> {
        let text = self.0.as_number()?.to_string();
        text.parse().or_else(|_| Decimal::from_scientific(&text)).ok()
    }

    fn member(self, key: &str) -> Option<Self> {
        self.0.get(key).map(Seen)
    }

    fn item(self, index: usize) -> Option<Self> {
        self.0.get(index).map(Seen)
    }

    fn items(self) -> impl Iterator<Item = Self> + 'a {
        self.0.as_array().into_iter().flatten().map(Seen)
    }

    fn weight(self) -> usize {
        match self.0 {
            Value::Array(items) => items.iter().map(|item| 1 + Seen(item).weight()).sum(),
            Value::Object(members) => members.values().map(|member| 2 + Seen(member).weight()).sum(),
            _ => 0,
        }
    }
}

pub fn order() -> Sample {
    Sample(json!({
        "type": "track", "event": "Order Completed", "messageId": "m-1", "userId": "u-1",
        "properties": {
            "order_id": "A-1", "revenue": 19.9, "net": "12.50", "currency": "eur", "coupon": "SUMMER-10",
            "blank": "  ", "nothing": null, "gift": false, "note": "ask me@example.com", "huge": 1e300,
            "a key": 7, "tags": ["new", "sale", 3],
            "products": [
                { "sku": "S1", "price": 4.95, "quantity": 2, "category": "linen" },
                { "sku": "S2", "price": 10.0, "quantity": 1, "category": "gift card" },
            ],
        },
        "context": { "page": { "path": "/de/checkout" }, "traits": { "email": "someone@example.com" } },
    }))
}

const ALL: &[Type] = &[Type::Bool, Type::Number, Type::Text];

/// Whatever stands below `traits` may not be read.
fn may_read(path: &[String]) -> Result<(), String> {
    if path.iter().any(|step| step == "traits") { Err("is about a person".to_owned()) } else { Ok(()) }
}

pub fn compiled_for(gives: &[Type], text: &str) -> Result<Program, CompileError> {
    compile(text, &Rules { gives, reads_persons: false, may_read: &may_read })
}

pub fn compiled(text: &str) -> Result<Program, CompileError> {
    compiled_for(ALL, text)
}

/// What an expression gives, as text: `19.9`, `"A-1"`, `true`, `null`, or the fault's code.
pub fn told(program: &Program, event: &Sample) -> String {
    match program.evaluate(event) {
        Ok(Outcome::Null) => "null".to_owned(),
        Ok(Outcome::Bool(value)) => value.to_string(),
        Ok(Outcome::Number(number)) => number.to_string(),
        Ok(Outcome::Text(text)) => format!("{text:?}"),
        Err(fault) => fault.code().to_owned(),
    }
}

/// The same of a text.
pub fn gives(text: &str) -> String {
    match compiled(text) {
        Ok(program) => told(&program, &order()),
        Err(error) => panic!("{text}: {error}"),
    }
}

#[test]
fn every_fault_has_a_code_of_its_own() {
    let codes: std::collections::BTreeSet<&str> = Fault::ALL.iter().map(|fault| fault.code()).collect();
    assert_eq!(codes.len(), Fault::ALL.len());
}

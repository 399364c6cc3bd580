//! JSON that is parsed once and read many times.
//!
//! A lane looks at some eighty places of every event, and most are empty. A [`ParsedJson`] is one flat list of nodes in the order
//! of the text: objects know where they end, texts without escapes are ranges of the source. Parsing costs a few allocations
//! an event instead of one for every key and text, and a look walks a handful of neighbouring nodes instead of hashing.
//!
//! [`Json`] is a view of one value; it reads a parsed document and a `serde_json::Value` (what a connection's settings
//! hold) alike.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// One node; what an object or a list holds follows it, up to its end.
#[derive(Debug, Clone)]
enum Node {
    Null,
    Bool(bool),
    Number(Number),
    /// A range of the source.
    Plain {
        start: u32,
        end: u32,
    },
    /// A text that had escapes, by its index.
    Unescaped(u32),
    List {
        end: u32,
    },
    /// Key and value by turns. Most looks are for a key that is not there: the mask says so of nearly all of them.
    Object {
        end: u32,
        keys: u64,
    },
}

/// The bit of a key in an object's mask.
fn bit_of(key: &str) -> u64 {
    let bytes = key.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return 1 };
    let mixed = (bytes.len() as u64) << 16 | u64::from(*first) << 8 | u64::from(*last);
    1 << (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58)
}

/// Several JSON texts, parsed.
#[derive(Debug, Default)]
pub struct ParsedJson {
    text: String,
    nodes: Vec<Node>,
    unescaped: Vec<Box<str>>,
    roots: Vec<u32>,
}

impl ParsedJson {
    /// Parses texts, each a value of its own. What is no JSON counts as null.
    #[must_use]
    pub fn parse(parts: &[&[u8]]) -> Self {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let mut document = Self {
            text: String::with_capacity(bytes),
            // A member takes some 25 bytes of text and two nodes.
            nodes: Vec::with_capacity(bytes / 12 + parts.len()),
            unescaped: Vec::new(),
            roots: Vec::with_capacity(parts.len()),
        };
        // Ranges count in 32 bits; an event has at most 32 KiB.
        let readable = u32::try_from(bytes).is_ok();
        for part in parts {
            let text = std::str::from_utf8(part).ok().filter(|_| readable).unwrap_or_default();
            let start = document.text.len();
            document.text.push_str(text);
            let root = document.nodes.len();
            document.roots.push(index_of(root));
            let kept = document.unescaped.len();
            let mut fill = Fill {
                origin: document.text.as_ptr() as usize,
                nodes: &mut document.nodes,
                unescaped: &mut document.unescaped,
            };
            let mut reader = serde_json::Deserializer::from_str(&document.text[start..]);
            let parsed = fill.deserialize(&mut reader).is_ok() && reader.end().is_ok();
            if !parsed {
                document.nodes.truncate(root);
                document.unescaped.truncate(kept);
                document.nodes.push(Node::Null);
            }
        }
        document
    }

    /// What it takes in memory, bytes, as far as that is not the same for all. A text of many short values takes a multiple of itself.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// Of a text that had escapes, beside the text.
        const ON_ITS_OWN: usize = 32;
        let unescaped: usize = self.unescaped.iter().map(|text| text.len() + ON_ITS_OWN).sum();
        self.text.capacity() + self.nodes.capacity() * size_of::<Node>() + unescaped
    }

    /// The value of one of the texts, by its place; null if there is none.
    #[must_use]
    pub fn root(&self, part: usize) -> Json<'_> {
        self.roots.get(part).map_or(Json::Null, |at| self.view(*at as usize))
    }

    fn view(&self, at: usize) -> Json<'_> {
        match &self.nodes[at] {
            Node::Null => Json::Null,
            Node::Bool(value) => Json::Bool(*value),
            Node::Number(number) => Json::Number(number),
            Node::Plain { .. } | Node::Unescaped(_) => Json::Text(self.text_at(at)),
            Node::List { end } => {
                Json::List(List(Children::Nodes { document: self, at: at + 1, end: *end as usize }))
            }
            Node::Object { end, keys } => Json::Object(Object(Members::Nodes {
                document: self,
                at: at + 1,
                end: *end as usize,
                keys: *keys,
            })),
        }
    }

    fn text_at(&self, at: usize) -> &str {
        match &self.nodes[at] {
            Node::Plain { start, end } => &self.text[*start as usize..*end as usize],
            Node::Unescaped(index) => &self.unescaped[*index as usize],
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::List { .. } | Node::Object { .. } => "",
        }
    }

    /// Whether a node is this text. Most differ in length, which is seen without a look at the source.
    fn is_text(&self, at: usize, text: &str) -> bool {
        match &self.nodes[at] {
            Node::Plain { start, end } => {
                (end - start) as usize == text.len()
                    && self.text.as_bytes()[*start as usize..*end as usize] == *text.as_bytes()
            }
            Node::Unescaped(index) => *self.unescaped[*index as usize] == *text,
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::List { .. } | Node::Object { .. } => false,
        }
    }

    /// Where the value after this one begins.
    fn after(&self, at: usize) -> usize {
        match &self.nodes[at] {
            Node::List { end } | Node::Object { end, .. } => *end as usize,
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Plain { .. } | Node::Unescaped(_) => at + 1,
        }
    }
}

/// Texts of more than four billion nodes are not parsed: see [`ParsedJson::parse`].
fn index_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Appends what it reads to a document's nodes.
struct Fill<'n> {
    origin: usize,
    nodes: &'n mut Vec<Node>,
    unescaped: &'n mut Vec<Box<str>>,
}

impl<'de> DeserializeSeed<'de> for &mut Fill<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Fill<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.nodes.push(Node::Null);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.nodes.push(Node::Bool(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.nodes.push(Node::Number(value.into()));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.nodes.push(Node::Number(value.into()));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.nodes.push(Number::from_f64(value).map_or(Node::Null, Node::Number));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        let start = text.as_ptr() as usize - self.origin;
        self.nodes.push(Node::Plain { start: index_of(start), end: index_of(start + text.len()) });
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.nodes.push(Node::Unescaped(index_of(self.unescaped.len())));
        self.unescaped.push(text.into());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let at = self.nodes.len();
        self.nodes.push(Node::Null);
        while items.next_element_seed(&mut *self)?.is_some() {}
        self.nodes[at] = Node::List { end: index_of(self.nodes.len()) };
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let at = self.nodes.len();
        self.nodes.push(Node::Null);
        let mut keys = 0;
        while let Some(bit) = members.next_key_seed(Key(&mut *self))? {
            keys |= bit;
            members.next_value_seed(&mut *self)?;
        }
        self.nodes[at] = Node::Object { end: index_of(self.nodes.len()), keys };
        Ok(())
    }
}

/// A key: filed like any text, and answered with its bit.
struct Key<'f, 'n>(&'f mut Fill<'n>);

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, '_> {
    type Value = u64;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<u64, E> {
        self.0.visit_borrowed_str::<E>(key)?;
        Ok(bit_of(key))
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<u64, E> {
        self.0.visit_str::<E>(key)?;
        Ok(bit_of(key))
    }
}

/// A view of one value. Copied like a reference.
#[derive(Debug, Clone, Copy)]
pub enum Json<'a> {
    /// Null, or nothing there.
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    Number(&'a Number),
    /// A text.
    Text(&'a str),
    /// A list.
    List(List<'a>),
    /// An object.
    Object(Object<'a>),
}

/// The items of a list.
#[derive(Debug, Clone, Copy)]
pub struct List<'a>(Children<'a>);

/// The members of an object.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a>(Members<'a>);

#[derive(Debug, Clone, Copy)]
enum Children<'a> {
    Nodes { document: &'a ParsedJson, at: usize, end: usize },
    Values(&'a [Value]),
}

#[derive(Debug, Clone, Copy)]
enum Members<'a> {
    Nodes { document: &'a ParsedJson, at: usize, end: usize, keys: u64 },
    Values(&'a Map<String, Value>),
}

impl<'a> From<&'a Value> for Json<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::Text(text),
            Value::Array(items) => Self::List(List(Children::Values(items))),
            Value::Object(members) => Self::Object(Object(Members::Values(members))),
        }
    }
}

impl<'a> Json<'a> {
    /// The text, if it is one.
    #[must_use]
    pub const fn as_str(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number as a whole one from 0 on, if it is one.
    #[must_use]
    pub fn as_u64(self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    /// The list, if it is one.
    #[must_use]
    pub const fn as_list(self) -> Option<List<'a>> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// The object, if it is one.
    #[must_use]
    pub const fn as_object(self) -> Option<Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// A member, if it is an object that has it.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Self> {
        self.as_object()?.get(key)
    }

    /// The value itself unless it is null or blank text: what counts as absent everywhere.
    #[must_use]
    pub fn present(self) -> Option<Self> {
        match self {
            Self::Null => None,
            Self::Text(text) if text.trim().is_empty() => None,
            Self::Text(_) | Self::Bool(_) | Self::Number(_) | Self::List(_) | Self::Object(_) => Some(self),
        }
    }

    /// Walks a dotted path through objects (and lists by number). Null and blank text count as absent.
    #[must_use]
    pub fn at(self, path: &str) -> Option<Self> {
        let mut at = self;
        for step in path.split('.').filter(|step| !step.is_empty()) {
            at = match at {
                Self::Object(object) => object.get(step)?,
                Self::List(list) => list.get(step.parse().ok()?)?,
                Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => return None,
            };
        }
        at.present()
    }

    /// How many nodes a look into it walks over at most.
    #[must_use]
    pub fn weight(self) -> usize {
        match self {
            Self::List(List(Children::Nodes { at, end, .. }))
            | Self::Object(Object(Members::Nodes { at, end, .. })) => end - at,
            Self::List(List(Children::Values(items))) => items.len(),
            Self::Object(Object(Members::Values(members))) => members.len(),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => 0,
        }
    }

    /// A value of its own.
    #[must_use]
    pub fn to_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(text) => Value::String(text.to_owned()),
            Self::List(list) => Value::Array(list.iter().map(Self::to_value).collect()),
            Self::Object(object) => {
                Value::Object(object.iter().map(|(key, value)| (key.to_owned(), value.to_value())).collect())
            }
        }
    }
}

impl<'a> List<'a> {
    /// The items, in order.
    pub fn iter(self) -> impl Iterator<Item = Json<'a>> {
        let mut rest = self.0;
        std::iter::from_fn(move || match &mut rest {
            Children::Nodes { document, at, end } => (*at < *end).then(|| {
                let item = document.view(*at);
                *at = document.after(*at);
                item
            }),
            Children::Values(items) => {
                let (first, others) = items.split_first()?;
                *items = others;
                Some(first.into())
            }
        })
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }

    /// An item by its number, from 0.
    #[must_use]
    pub fn get(self, index: usize) -> Option<Json<'a>> {
        self.iter().nth(index)
    }
}

impl<'a> Object<'a> {
    /// Key and value of each member, in order. A key that the text repeats comes as often as it stands there.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, Json<'a>)> {
        let mut values = match self.0 {
            Members::Values(members) => Some(members.iter()),
            Members::Nodes { .. } => None,
        };
        let mut rest = self.0;
        std::iter::from_fn(move || match &mut rest {
            Members::Nodes { document, at, end, .. } => (*at < *end).then(|| {
                let member = (document.text_at(*at), document.view(*at + 1));
                *at = document.after(*at + 1);
                member
            }),
            Members::Values(_) => values.as_mut()?.next().map(|(key, value)| (key.as_str(), value.into())),
        })
    }

    /// A member's value; of a key that the text repeats the last, as `serde_json` has it.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Json<'a>> {
        let (document, mut at, end) = match self.0 {
            Members::Nodes { keys, .. } if keys & bit_of(key) == 0 => return None,
            Members::Nodes { document, at, end, .. } => (document, at, end),
            Members::Values(members) => return members.get(key).map(Json::from),
        };
        let mut found = None;
        while at < end {
            if document.is_text(at, key) {
                found = Some(at + 1);
            }
            at = document.after(at + 1);
        }
        found.map(|at| document.view(at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> ParsedJson {
        ParsedJson::parse(&[text.as_bytes()])
    }

    #[test]
    fn a_path_leads_through_objects_and_lists_and_blank_counts_as_absent() {
        let text = r#"{"a":{"b":[{"c":"x"},{"c":" \t"}],"n":null},"caf\u00e9":"caf\u00e9","z":-1.5}"#;
        let document = parsed(text);
        let root = document.root(0);
        assert_eq!(root.at("a.b.0.c").and_then(Json::as_str), Some("x"));
        assert!(root.at("a.b.1.c").is_none(), "blank");
        assert!(root.at("a.n").is_none(), "null");
        assert!(root.at("a.b.2").is_none() && root.at("a.b.x").is_none() && root.at("a.b.0.c.d").is_none());
        assert_eq!(root.at("café").and_then(Json::as_str), Some("café"), "escapes in key and value");
        assert_eq!(root.at("z").map(Json::to_value), Some(json!(-1.5)));
        assert!(root.at("").is_some(), "the empty path is the value itself");
    }

    #[test]
    fn of_a_key_that_is_repeated_the_last_counts() {
        let text = r#"{"k":1,"other":{"k":9},"k":2}"#;
        let document = parsed(text);
        assert_eq!(document.root(0).at("k").and_then(Json::as_u64), Some(2));
        assert_eq!(serde_json::from_str::<Value>(text).unwrap()["k"], 2, "as serde_json has it");
    }

    #[test]
    fn what_is_no_json_is_null_and_its_neighbours_are_read() {
        let deep = "[".repeat(10_000);
        let parts: [&[u8]; 7] = [
            b"{\"a\":1}",
            b"{\"a\":\"\\u0041\",",
            b"\xff\xfe",
            deep.as_bytes(),
            b"",
            b"7 8",
            b"{\"b\":\"\\n2\"} ",
        ];
        let document = ParsedJson::parse(&parts);
        let all: Vec<Value> = (0..8).map(|part| document.root(part).to_value()).collect();
        let null = Value::Null;
        let expected = [
            json!({"a": 1}),
            null.clone(),
            null.clone(),
            null.clone(),
            null.clone(),
            null.clone(),
            json!({"b": "\n2"}),
            null,
        ];
        assert_eq!(all, expected);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e12..1e12).prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::vec((".{0,8}", inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_document_holds_what_serde_json_reads(first in any_json(), second in any_json()) {
            let texts = [first.to_string(), second.to_string()];
            let document = ParsedJson::parse(&[texts[0].as_bytes(), texts[1].as_bytes()]);
            for (part, text) in texts.iter().enumerate() {
                let expected: Value = serde_json::from_str(text).unwrap();
                prop_assert_eq!(document.root(part).to_value(), expected);
            }
            prop_assert_eq!(Json::from(&second).to_value(), second);
        }

        #[test]
        fn a_number_is_the_one_that_was_sent(number in any::<f64>().prop_filter("JSON has no other", |n| n.is_finite())) {
            let sent = Value::from(number).to_string();
            prop_assert_eq!(parsed(&sent).root(0).to_value(), Value::from(number));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[\\[\\]{}:,\"\\\\ue0-9a ]{0,60}") {
            let document = parsed(&text);
            let expected = serde_json::from_str::<Value>(&text).unwrap_or(Value::Null);
            prop_assert_eq!(document.root(0).to_value(), expected);
        }
    }
}

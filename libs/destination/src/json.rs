//! JSON that is parsed once and read many times.
//!
//! A lane looks at some eighty places of every event, and most are empty. A [`ParsedJson`] is one flat list of nodes in the order
//! of the text: objects know where they end, texts without escapes are ranges of the source. Parsing costs a few allocations
//! an event instead of one for every key and text, and a look walks a handful of neighbouring nodes instead of hashing. Where
//! connectors look at every event is found while it is parsed, see [`crate::usual`].
//!
//! [`Json`] is a view of one value; it reads a parsed document and a `serde_json::Value` (what a connection's settings
//! hold) alike.

mod fill;

use std::collections::HashSet;

use serde::de::DeserializeSeed as _;
use serde::ser::{Serialize, Serializer};
use serde_json::{Map, Number, Value};

use crate::usual::{Usual, bit_of};
use fill::{Fill, Usuals};

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

/// Several JSON texts, parsed.
#[derive(Debug, Default)]
pub struct ParsedJson {
    text: String,
    nodes: Vec<Node>,
    unescaped: Vec<Box<str>>,
    roots: Vec<u32>,
    /// The node at each usual place.
    usual: Usuals,
}

impl ParsedJson {
    /// Parses texts, each a value of its own. What is no JSON counts as null.
    #[cfg(test)]
    fn parse(parts: &[&[u8]]) -> Self {
        Self::filled(parts.iter().map(|part| (*part, None)))
    }

    /// Parses texts, each at a usual place of an event: what lies at those within it can be looked up afterwards. What is no JSON
    /// counts as null.
    #[must_use]
    pub(crate) fn of_event(parts: [(&[u8], Usual); 4]) -> Self {
        Self::filled(parts.into_iter().map(|(part, place)| (part, Some(place))))
    }

    fn filled<'p>(parts: impl Iterator<Item = (&'p [u8], Option<Usual>)> + Clone) -> Self {
        let bytes: usize = parts.clone().map(|(part, _)| part.len()).sum();
        let mut document = Self {
            text: String::with_capacity(bytes),
            // A member takes some 25 bytes of text and two nodes.
            nodes: Vec::with_capacity(bytes / 12 + 4),
            ..Self::default()
        };
        // Ranges count in 32 bits; an event has at most 32 KiB.
        let readable = u32::try_from(bytes).is_ok();
        for (part, place) in parts {
            document.push(if readable { part } else { b"" }, place);
        }
        document
    }

    fn push(&mut self, part: &[u8], place: Option<Usual>) {
        let start = self.text.len();
        self.text.push_str(std::str::from_utf8(part).unwrap_or_default());
        let root = self.nodes.len();
        self.roots.push(index_of(root));
        let kept = self.unescaped.len();
        let mut fill = Fill {
            text: &self.text,
            nodes: &mut self.nodes,
            unescaped: &mut self.unescaped,
            usual: &mut self.usual,
            place: None,
        };
        fill.enter(place);
        let mut reader = serde_json::Deserializer::from_str(&self.text[start..]);
        let parsed = fill.deserialize(&mut reader).is_ok() && reader.end().is_ok();
        if !parsed {
            self.nodes.truncate(root);
            self.unescaped.truncate(kept);
            self.nodes.push(Node::Null);
            if let Some(place) = place {
                self.usual.clear(place);
            }
        }
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

    /// The value at a usual place. Null and blank text count as absent.
    #[must_use]
    pub(crate) fn at(&self, place: Usual) -> Option<Json<'_>> {
        self.view(self.usual.get(place)?).present()
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
        self.nodes[at].text(&self.text, &self.unescaped)
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
        after(&self.nodes, at)
    }
}

/// Where the value after this one begins.
fn after(nodes: &[Node], at: usize) -> usize {
    match &nodes[at] {
        Node::List { end } | Node::Object { end, .. } => *end as usize,
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Plain { .. } | Node::Unescaped(_) => at + 1,
    }
}

impl Node {
    /// Its text, if it is one.
    fn text<'t>(&self, source: &'t str, unescaped: &'t [Box<str>]) -> &'t str {
        match self {
            Self::Plain { start, end } => &source[*start as usize..*end as usize],
            Self::Unescaped(index) => &unescaped[*index as usize],
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::List { .. } | Self::Object { .. } => "",
        }
    }
}

/// Texts of more than four billion nodes are not parsed: see [`ParsedJson::filled`].
fn index_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
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
            // Nearly all begin with a letter or a digit.
            Self::Text(text) if text.as_bytes().first().is_some_and(u8::is_ascii_graphic) => Some(self),
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

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => serializer.collect_seq(list.iter()),
            Self::Object(Object(Members::Values(members))) => members.serialize(serializer),
            // A key that is repeated stands once, with its last value.
            Self::Object(object) if object.repeats_a_key() => self.to_value().serialize(serializer),
            Self::Object(object) => serializer.collect_map(object.iter()),
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

    /// Whether the text repeats a key.
    fn repeats_a_key(self) -> bool {
        /// Up to so many keys are compared with each other; more cost less in a set, however many a sender makes up.
        const FEW: usize = 32;
        let Members::Nodes { keys, .. } = self.0 else { return false };
        let count = self.iter().count();
        if keys.count_ones() as usize == count {
            return false;
        }
        if count > FEW {
            let mut seen = HashSet::with_capacity(count);
            return !self.iter().all(|(key, _)| seen.insert(key));
        }
        let names = || self.iter().map(|(key, _)| key);
        names().enumerate().any(|(index, key)| names().take(index).any(|earlier| earlier == key))
    }

    /// A member's value; of a key that the text repeats the last, as `serde_json` has it.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Json<'a>> {
        let (document, mut at, end) = match self.0 {
            Members::Nodes { keys, .. } if keys & (1 << bit_of(key)) == 0 => return None,
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
    use crate::usual::usual;

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

    fn event(parts: [&[u8]; 4]) -> ParsedJson {
        let [properties, traits, context, integrations] = parts;
        ParsedJson::of_event([
            (properties, usual!("properties")),
            (traits, usual!("traits")),
            (context, usual!("context")),
            (integrations, usual!("integrations")),
        ])
    }

    /// What a walk finds at each usual place.
    fn walked(document: &ParsedJson, place: Usual) -> Option<Json<'_>> {
        let (root, rest) = place.path().split_once('.').unwrap_or((place.path(), ""));
        let part = ["properties", "traits", "context", "integrations"].iter().position(|name| *name == root);
        document.root(part.unwrap()).at(rest)
    }

    fn assert_as_walked(document: &ParsedJson) -> usize {
        let all = Usual::all();
        all.filter(|place| {
            let (found, expected) = (document.at(*place), walked(document, *place));
            assert_eq!(found.map(Json::to_value), expected.map(Json::to_value), "{}", place.path());
            found.is_some()
        })
        .count()
    }

    #[test]
    fn usual_places_are_where_a_walk_finds_them() {
        let context: &[u8] = br#"{"traits":{"email":"old@a.example","address":{"city":"Bonn"}},"page":[{"url":"u"}],"os":7,
            "traits":{"address":{"zip":" ","cit\u0079":"K\u00f6ln"},"phone":null,"firstName":"Ada"},"locale":"de"}"#;
        let whole =
            event([br#"{"order_id":"A-1","products":[{"sku":1}],"total":0}"#, b"{}", context, b"null"]);
        // The three roots that are something, order id, products, total, and of the context both objects, the list, 7, city, name, language.
        assert_eq!(assert_as_walked(&whole), 3 + 3 + 7);
        assert_eq!(whole.at(usual!("context.traits.address.city")).and_then(Json::as_str), Some("Köln"));
        let twice = event([
            b"",
            b"",
            br#"{"traits":{"address":{"city":1},"address":1},"page":{"url":"u"},"page":{}}"#,
            b"",
        ]);
        assert_eq!(
            assert_as_walked(&twice),
            4,
            "the context, the traits, the number in place of their address, and the empty page"
        );
        let broken = event([br#"{"order_id":"A-1""#, br#"{"email":"a@b.example"}"#, b"7", b""]);
        assert_eq!(assert_as_walked(&broken), 3, "the traits, the address in them, and the number");
    }

    #[test]
    fn what_is_written_has_each_key_once() {
        let many: String = (0..4_000).map(|number| format!(r#""k{number}":1,"#)).collect();
        let some: String = (0..30).map(|number| format!(r#""k{number}":1,"#)).collect();
        for text in [
            r#"{"a":[{"x":1,"y":2,"x":{"z":3,"z":4}}],"a2":0}"#.to_owned(),
            format!(r#"{{{some}"k7":2}}"#),
            format!(r#"{{{many}"k3999":2}}"#),
            format!(r#"{{{many}"last":2}}"#),
        ] {
            let expected: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&parsed(&text).root(0)).unwrap(), expected.to_string());
        }
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

    /// Objects of the usual keys, written by hand so that keys may repeat, and sometimes cut off.
    fn any_event() -> impl Strategy<Value = [String; 4]> {
        let key = proptest::sample::select(vec![
            "email",
            "traits",
            "address",
            "city",
            "page",
            "url",
            "order_id",
            "Google Analytics 4",
            "clientId",
            "x",
        ]);
        let leaf =
            proptest::sample::select(vec!["1", "null", "\"\"", "\" \"", "\"a\"", "\"\\u0041\"", "true"]);
        let value = leaf.prop_map(str::to_owned).prop_recursive(4, 60, 8, move |inner| {
            let members = proptest::collection::vec((key.clone(), inner.clone()), 0..8);
            let object = members.prop_map(|members| {
                let members: Vec<String> =
                    members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            });
            let list =
                proptest::collection::vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(",")));
            prop_oneof![4 => object, 1 => list]
        });
        let part = (value, 0..20_usize).prop_map(|(text, cut)| match cut {
            0 => text[..text.len() / 2].to_owned(),
            _ => text,
        });
        [part.clone(), part.clone(), part.clone(), part]
    }

    proptest! {
        #[test]
        fn a_document_holds_what_serde_json_reads(first in any_json(), second in any_json()) {
            let texts = [first.to_string(), second.to_string()];
            let document = ParsedJson::parse(&[texts[0].as_bytes(), texts[1].as_bytes()]);
            for (part, text) in texts.iter().enumerate() {
                let expected: Value = serde_json::from_str(text).unwrap();
                prop_assert_eq!(serde_json::to_string(&document.root(part)).unwrap(), expected.to_string());
                prop_assert_eq!(document.root(part).to_value(), expected);
            }
            prop_assert_eq!(Json::from(&second).to_value(), second);
        }

        #[test]
        fn usual_places_are_where_a_walk_finds_them_in_any_event(parts in any_event()) {
            let texts = parts.each_ref().map(|part| part.as_bytes());
            let document = event(texts);
            assert_as_walked(&document);
            for (part, text) in parts.iter().enumerate() {
                let expected = serde_json::from_str::<Value>(text).unwrap_or_default();
                prop_assert_eq!(serde_json::to_string(&document.root(part)).unwrap(), expected.to_string());
            }
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

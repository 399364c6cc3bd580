//! From the tree to the struct, knowing at each step on which path it is.
//!
//! Text from the environment is read as whatever the field wants: a number, a boolean, a list with commas.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected, Visitor,
    value::{MapAccessDeserializer, StrDeserializer},
};

use crate::tree::{Entry, Node};

/// What a missing text is taken for while further problems are looked for, tried in this order.
pub(crate) const CANDIDATES: [&str; 6] =
    ["stand-in", "1s", "1", "127.0.0.1:1", "http://127.0.0.1:1", "1970-01-01"];

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Item(usize),
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The struct has no such field; these it has.
    Unknown(&'static [&'static str]),
    /// The field is required and nowhere set.
    Missing,
    /// The value is not usable.
    Bad(String),
}

/// What went wrong where. The path is built from the inside out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub path: Vec<Step>,
    pub kind: Kind,
}

impl Fault {
    fn under(mut self, step: Step) -> Self {
        self.path.insert(0, step);
        self
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: Vec::new(), kind: Kind::Bad(message.to_string()) }
    }
    fn unknown_field(_field: &str, expected: &'static [&'static str]) -> Self {
        Self { path: Vec::new(), kind: Kind::Unknown(expected) }
    }
    fn missing_field(field: &'static str) -> Self {
        Self { path: vec![Step::Key(field.to_owned())], kind: Kind::Missing }
    }
}

/// Reads a value.
pub(crate) fn read<T: de::DeserializeOwned>(entry: &Entry) -> Result<T, Fault> {
    T::deserialize(Reader(entry))
}

struct Reader<'a>(&'a Entry);

impl Reader<'_> {
    fn text(&self) -> Option<&str> {
        match &self.0.node {
            Node::Text(text) | Node::Raw(text) => Some(text),
            Node::StandIn(candidate) => CANDIDATES.get(*candidate).copied(),
            _ => None,
        }
    }

    fn raw<T: std::str::FromStr>(&self, unexpected: &str) -> Option<Result<T, Fault>> {
        match &self.0.node {
            Node::Raw(text) => {
                Some(text.trim().parse().map_err(|_| {
                    de::Error::custom(format!("invalid value: `{text}`, expected {unexpected}"))
                }))
            }
            _ => None,
        }
    }
}

macro_rules! number {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            if let Node::StandIn(_) = self.0.node {
                return visitor.$visit(1 as $type);
            }
            let wanted = format!("a number from {} to {}", <$type>::MIN, <$type>::MAX);
            match self.raw::<$type>(&wanted) {
                Some(number) => visitor.$visit(number?),
                None => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.node {
            Node::Table(table) => visitor.visit_map(Table { entries: table.iter().collect(), next: 0 }),
            Node::List(list) => visitor.visit_seq(List { entries: list.iter().collect(), next: 0 }),
            Node::Text(text) | Node::Raw(text) => visitor.visit_str(text),
            Node::Integer(number) => visitor.visit_i64(*number),
            Node::Float(number) => visitor.visit_f64(*number),
            Node::Boolean(value) => visitor.visit_bool(*value),
            Node::StandIn(_) => visitor.visit_str(self.text().unwrap_or_default()),
        }
    }

    number!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64, deserialize_f32 visit_f32 f32,
        deserialize_f64 visit_f64 f64
    );

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.node {
            Node::StandIn(_) => visitor.visit_bool(false),
            Node::Raw(text) => match text.trim().to_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => visitor.visit_bool(true),
                "false" | "no" | "off" | "0" => visitor.visit_bool(false),
                _ => Err(de::Error::custom(format!("invalid value: `{text}`, expected true or false"))),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.node {
            // An empty variable says: as if it were not set.
            Node::StandIn(_) => visitor.visit_none(),
            Node::Raw(text) if text.is_empty() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.node {
            Node::StandIn(_) => visitor.visit_seq(List { entries: Vec::new(), next: 0 }),
            Node::Raw(text) => {
                let items: Vec<Entry> = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Entry { node: Node::Raw(item.to_owned()), origin: self.0.origin.clone() })
                    .collect();
                visitor.visit_seq(List { entries: items.iter().collect(), next: 0 })
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.node {
            Node::StandIn(_) => visitor.visit_map(Table { entries: Vec::new(), next: 0 }),
            Node::Raw(_) => Err(de::Error::custom(
                "a table cannot be written into one variable; set its keys one by one, as in TRACKLAYER_SECTION__TABLE__KEY",
            )),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.0.node {
            Node::StandIn(_) => {
                let first: StrDeserializer<'_, Fault> =
                    variants.first().copied().unwrap_or_default().into_deserializer();
                visitor.visit_enum(first)
            }
            Node::Text(text) | Node::Raw(text) => {
                let name: StrDeserializer<'_, Fault> = text.trim().into_deserializer();
                visitor.visit_enum(name)
            }
            Node::Table(table) if table.len() == 1 => {
                let access = Table { entries: table.iter().collect(), next: 0 };
                visitor.visit_enum(MapAccessDeserializer::new(access))
            }
            _ => {
                let one_of = variants.join(", ");
                Err(de::Error::invalid_type(
                    Unexpected::Other("something else"),
                    &format!("one of {one_of}").as_str(),
                ))
            }
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Table<'a> {
    entries: Vec<(&'a String, &'a Entry)>,
    next: usize,
}

impl<'de> MapAccess<'de> for Table<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, _)) = self.entries.get(self.next) else { return Ok(None) };
        let deserializer: StrDeserializer<'_, Fault> = key.as_str().into_deserializer();
        seed.deserialize(deserializer).map(Some).map_err(|fault| fault.under(Step::Key((*key).clone())))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, entry)) = self.entries.get(self.next) else {
            return Err(de::Error::custom("a value without a key"));
        };
        self.next += 1;
        seed.deserialize(Reader(entry)).map_err(|fault| fault.under(Step::Key((*key).clone())))
    }
}

struct List<'a> {
    entries: Vec<&'a Entry>,
    next: usize,
}

impl<'de> SeqAccess<'de> for List<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(entry) = self.entries.get(self.next) else { return Ok(None) };
        let at = self.next;
        self.next += 1;
        seed.deserialize(Reader(entry)).map(Some).map_err(|fault| fault.under(Step::Item(at)))
    }
}

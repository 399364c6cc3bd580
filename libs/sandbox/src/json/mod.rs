//! JSON as it stands in a request, borrowed from its bytes. One tree for all platforms, so that every rule is
//! written once, on a tree, with the path at hand for the error text; and cheap, since objects are lists and
//! texts are slices: a stand-in must not be the slowest part of a load test.

mod read;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub(crate) use read::Body;

/// A JSON value that borrows from the request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Flag(bool),
    Int(i64),
    Real(f64),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Object<'a>),
}

/// The members of an object, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Object<'a>(pub(crate) Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Object<'a> {
    /// The member of that name; of several the last, as the platforms' parsers have it.
    pub(crate) fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.0.iter().rev().find(|(key, _)| same_name(name, key)).map(|(_, value)| value)
    }

    /// The member of that name unless it is null.
    pub(crate) fn present(&self, name: &str) -> Option<&Json<'a>> {
        self.get(name).filter(|value| **value != Json::Null)
    }

    /// The text of that name.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Json::text)
    }

    /// The object of that name.
    pub(crate) fn object(&self, name: &str) -> Option<&Object<'a>> {
        match self.get(name) {
            Some(Json::Object(object)) => Some(object),
            _ => None,
        }
    }

    /// The list of that name.
    pub(crate) fn list(&self, name: &str) -> Option<&[Json<'a>]> {
        match self.get(name) {
            Some(Json::List(list)) => Some(list),
            _ => None,
        }
    }

    /// The member of that name in protobuf's JSON form: `lowerCamelCase` or `snake_case`; null is absent.
    pub(crate) fn proto(&self, camel: &str) -> Option<&Json<'a>> {
        self.0
            .iter()
            .rev()
            .find(|(key, _)| same_proto_field(camel, key))
            .map(|(_, value)| value)
            .filter(|value| **value != Json::Null)
    }

    /// The text of that protobuf field; an empty text is absent, as for any proto3 scalar.
    pub(crate) fn proto_text(&self, camel: &str) -> Option<&str> {
        self.proto(camel).and_then(Json::text).filter(|text| !text.is_empty())
    }

    /// The object of that protobuf field.
    pub(crate) fn proto_object(&self, camel: &str) -> Option<&Object<'a>> {
        match self.proto(camel) {
            Some(Json::Object(object)) => Some(object),
            _ => None,
        }
    }

    /// The list of that protobuf field; absent is empty.
    pub(crate) fn proto_list(&self, camel: &str) -> &[Json<'a>] {
        match self.proto(camel) {
            Some(Json::List(list)) => list,
            _ => &[],
        }
    }
}

impl Json<'_> {
    /// The value if it is a text.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value if it is a number.
    pub(crate) const fn number(&self) -> Option<Number> {
        match self {
            Self::Int(number) => Some(Number::Int(*number)),
            Self::Real(number) => Some(Number::Real(*number)),
            _ => None,
        }
    }

    /// Whether it is a JSON number.
    pub(crate) const fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Real(_))
    }

    /// Whether there is nothing in it that could identify or describe anything.
    pub(crate) fn is_blank(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Text(text) => text.trim().is_empty(),
            Self::List(list) => list.iter().all(Self::is_blank),
            Self::Object(object) => object.0.is_empty(),
            Self::Flag(_) | Self::Int(_) | Self::Real(_) => false,
        }
    }

    /// The texts of a value that may be one text or a list of texts.
    pub(crate) fn each_text(&self) -> impl Iterator<Item = &str> {
        let items = match self {
            Self::List(list) => list.as_slice(),
            other => std::slice::from_ref(other),
        };
        items.iter().filter_map(Json::text)
    }

    /// A short form of the value for an error text.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Flag(flag) => flag.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
            Self::Text(text) => format!("\"{text}\""),
            Self::List(_) => "[...]".to_owned(),
            Self::Object(_) => "{...}".to_owned(),
        }
    }
}

/// A JSON number. Shown, it is the text that a ledger compares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Int(i64),
    Real(f64),
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Real(number) => number.fmt(f),
        }
    }
}

/// Whether two names are the same. Most differ in their first letter, and there is no call for that.
pub(crate) fn same_name(name: &str, key: &str) -> bool {
    name.as_bytes().first() == key.as_bytes().first() && name == key
}

/// Whether `key` names the protobuf field `camel`, as itself or in `snake_case`.
pub(crate) fn same_proto_field(camel: &str, key: &str) -> bool {
    let (camel, key) = (camel.as_bytes(), key.as_bytes());
    // Both begin with the same letter, and one `_` more for each capital: almost every other key ends here.
    if camel.first() != key.first() || key.len() < camel.len() {
        return false;
    }
    if key.len() == camel.len() {
        return camel == key;
    }
    let mut rest = key.iter();
    let as_snake = camel.iter().all(|letter| {
        (!letter.is_ascii_uppercase() || rest.next() == Some(&b'_'))
            && rest.next() == Some(&letter.to_ascii_lowercase())
    });
    as_snake && rest.next().is_none()
}

/// `conversionDateTime` → `conversion_date_time`.
pub(crate) fn snake_case(camel: &str) -> String {
    let mut snake = String::with_capacity(camel.len() + 4);
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// An item of a request's list, with its own text: what is kept is what was sent.
pub(crate) struct Item<'a> {
    pub(crate) text: &'a str,
    /// None: the text cannot be read.
    pub(crate) tree: Option<Json<'a>>,
}

impl<'a> Item<'a> {
    /// Reads it.
    pub(crate) fn of(text: &'a str) -> Self {
        Self { text, tree: serde_json::from_str(text).ok() }
    }

    /// The item, if it is an object.
    pub(crate) const fn object(&self) -> Option<&Object<'a>> {
        match &self.tree {
            Some(Json::Object(object)) => Some(object),
            _ => None,
        }
    }
}

/// A request's list, item by item.
pub(crate) enum Items<'a> {
    /// A list.
    List(Vec<Item<'a>>),
    /// Something else.
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemsVisitor)
    }
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Items<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<&'de RawValue>()? {
            items.push(Item::of(item.get()));
        }
        Ok(Items::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Items::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Items::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Items::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Items::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Items::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Items::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Items::Other)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Json::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Json::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Json::Real(number as f64), Json::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Json::Real(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(8);
        while let Some((Key(key), value)) = map.next_entry()? {
            members.push((key, value));
        }
        Ok(Json::Object(Object(members)))
    }
}

struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_texts_are_borrowed_and_escaped_ones_are_not() {
        let json: Json<'_> = serde_json::from_str(r#"{"a":"x","b":"x\n"}"#).unwrap();
        let Json::Object(object) = json else { panic!("not an object") };
        assert!(matches!(object.get("a"), Some(Json::Text(Cow::Borrowed("x")))));
        assert!(matches!(object.get("b"), Some(Json::Text(Cow::Owned(_)))));
    }

    #[test]
    fn of_a_repeated_name_the_last_counts() {
        let json: Json<'_> = serde_json::from_str(r#"{"a":1,"a":2}"#).unwrap();
        let Json::Object(object) = json else { panic!("not an object") };
        assert_eq!(object.get("a"), Some(&Json::Int(2)));
    }

    #[test]
    fn a_protobuf_field_answers_to_both_its_names() {
        assert!(same_proto_field("conversionDateTime", "conversion_date_time"));
        assert!(same_proto_field("conversionDateTime", "conversionDateTime"));
        for other in [
            "conversiondatetime",
            "conversion_date_tim",
            "conversion_date_time_",
            "conversion_date_times",
            "conversion__date_time",
            "conversionDate_time",
            "conversion_Date_Time",
            "conversion_date",
            "",
        ] {
            assert!(!same_proto_field("conversionDateTime", other), "{other}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert!(serde_json::from_str::<Json<'_>>(&deep).is_err());
    }
}

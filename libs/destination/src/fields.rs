//! A payload while it is built: JSON objects of a dozen members, whose names are nearly always known at compile time.
//!
//! A list that is searched from its beginning is faster at that size than any map, and a name costs no allocation. Members are
//! small: an object grows as it is filled, and what it holds is moved each time.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Number, Value};
use tracklayer_normalise::Wire;

use crate::json::Json;

/// A member's name.
pub type Name<'a> = Cow<'a, str>;

const _: () = assert!(size_of::<Member<'_>>() <= 40, "members are moved while their object grows");

/// An object: members in the order in which they came. What stands in the event already is borrowed from there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields<'a>(Vec<(Name<'a>, Member<'a>)>);

/// What stands under a name.
#[derive(Debug, Clone, PartialEq)]
pub enum Member<'a> {
    /// A text.
    Text(Cow<'a, str>),

    /// A number.
    Number(Number),
    /// True or false.
    Bool(bool),
    /// Any other JSON.
    Value(Box<Value>),
    /// A list of a person's texts, which are kept beside the payload.
    Texts(&'a [Wire]),
    /// An object.
    Object(Fields<'a>),
    /// A list.
    List(Vec<Member<'a>>),
}

impl<'a> Fields<'a> {
    /// Without members, with room for some.
    #[must_use]
    pub fn with_capacity(members: usize) -> Self {
        Self(Vec::with_capacity(members))
    }

    /// Adds a member that is not there yet, which spares the search for it.
    pub fn push(&mut self, name: &'static str, field: impl Into<Member<'a>>) {
        debug_assert!(!self.contains(name), "{name} is there already");
        self.0.push((Name::Borrowed(name), field.into()));
    }

    /// The same for a member that has a value.
    pub fn push_some(&mut self, name: &'static str, field: Option<impl Into<Member<'a>>>) {
        if let Some(field) = field {
            self.push(name, field);
        }
    }

    /// Sets a member; one that is there gets the new value in its place.
    pub fn insert(&mut self, name: impl Into<Name<'a>>, field: impl Into<Member<'a>>) {
        let (name, field) = (name.into(), field.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = field,
            None => self.0.push((name, field)),
        }
    }

    /// Sets members that are not there yet, of each name the first; as many as a source cares to send, so that their names are
    /// looked up and not searched for.
    pub fn insert_new<M: Into<Member<'a>>>(&mut self, members: impl IntoIterator<Item = (String, M)>) {
        let mut known: HashSet<Name<'_>> = self.0.iter().map(|(name, _)| name.clone()).collect();
        for (name, field) in members {
            let name = Name::from(name);
            if known.insert(name.clone()) {
                self.0.push((name, field.into()));
            }
        }
    }

    /// Sets a member that has a value.
    pub fn insert_some(&mut self, name: impl Into<Name<'a>>, field: Option<impl Into<Member<'a>>>) {
        if let Some(field) = field {
            self.insert(name, field);
        }
    }

    /// The same, for a whole object in one expression.
    #[must_use]
    pub fn with(mut self, name: impl Into<Name<'a>>, field: impl Into<Member<'a>>) -> Self {
        self.insert(name, field);
        self
    }

    /// A member.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Member<'a>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, field)| field)
    }

    /// Whether there is such a member.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Takes a member out; the others keep their order.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }

    /// The members, in their order.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Member<'a>)> {
        self.0.iter().map(|(name, field)| (name.as_ref(), field))
    }

    /// Whether it has no members.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Member<'a> {
    /// A member, if this is an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => fields.get(name),
            Self::Text(_)
            | Self::Number(_)
            | Self::Bool(_)
            | Self::Value(_)
            | Self::Texts(_)
            | Self::List(_) => None,
        }
    }

    /// The value, if it is neither object nor list of ours.
    #[must_use]
    pub fn as_value(&self) -> Option<Json<'_>> {
        match self {
            Self::Text(text) => Some(Json::Text(text)),
            Self::Number(number) => Some(Json::Number(number)),
            Self::Bool(value) => Some(Json::Bool(*value)),
            Self::Value(value) => Some(Json::from(&**value)),
            Self::Texts(_) | Self::Object(_) | Self::List(_) => None,
        }
    }
}

impl<'a> From<&'a str> for Member<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl<'a> From<Cow<'a, str>> for Member<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self::Text(text)
    }
}

impl From<String> for Member<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<bool> for Member<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<Number> for Member<'_> {
    fn from(number: Number) -> Self {
        Self::Number(number)
    }
}

macro_rules! from_numbers {
    ($($number:ty)*) => {
        $(impl From<$number> for Member<'_> {
            fn from(number: $number) -> Self {
                Self::Number(number.into())
            }
        })*
    };
}

from_numbers!(u16 i32 u32 i64 u64);

impl From<Value> for Member<'_> {
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => text.into(),
            Value::Number(number) => number.into(),
            Value::Bool(value) => value.into(),
            other @ (Value::Null | Value::Array(_) | Value::Object(_)) => Self::Value(Box::new(other)),
        }
    }
}

impl From<Wire> for Member<'_> {
    fn from(text: Wire) -> Self {
        Self::Text(Cow::Owned(text.into_string()))
    }
}

impl<'a> From<&'a [Wire]> for Member<'a> {
    fn from(texts: &'a [Wire]) -> Self {
        Self::Texts(texts)
    }
}

impl<'a> From<Fields<'a>> for Member<'a> {
    fn from(fields: Fields<'a>) -> Self {
        Self::Object(fields)
    }
}

impl<'a, T: Into<Member<'a>>> FromIterator<T> for Member<'a> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

impl<'a> Extend<(Name<'a>, Member<'a>)> for Fields<'a> {
    fn extend<I: IntoIterator<Item = (Name<'a>, Member<'a>)>>(&mut self, members: I) {
        members.into_iter().for_each(|(name, field)| self.insert(name, field));
    }
}

impl<'a> IntoIterator for Fields<'a> {
    type Item = (Name<'a>, Member<'a>);
    type IntoIter = std::vec::IntoIter<(Name<'a>, Member<'a>)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, field) in &self.0 {
            map.serialize_entry(name, field)?;
        }
        map.end()
    }
}

impl Serialize for Member<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => number.serialize(serializer),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Value(value) => value.serialize(serializer),
            Self::Texts(texts) => serializer.collect_seq(texts.iter().map(Wire::as_str)),
            Self::Object(fields) => fields.serialize(serializer),
            Self::List(items) => items.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_keep_their_order_and_a_name_stands_once() {
        let mut fields = Fields::default().with("b", 1).with("a", "x").with("c", true);
        fields.insert("b", Value::from(2.5));
        fields.insert_some("d", None::<String>);
        let texts = ["x\"".to_owned(), "y".to_owned()].map(Wire::Text);
        fields.push_some("one", texts.first().map(Wire::as_str));
        fields.push("several", &texts[..]);
        fields.insert("list", [1, 2].into_iter().collect::<Member>());
        fields.insert("inner", Fields::default().with(String::from("own"), Value::Null));
        fields.remove("a");
        fields.insert_new(
            [("b", "not this"), ("e", "this"), ("e", "nor this")].map(|(n, f)| (n.to_owned(), f)),
        );
        assert_eq!(fields.names().collect::<Vec<_>>(), ["b", "c", "one", "several", "list", "inner", "e"]);
        assert!(fields.contains("c") && !fields.contains("a") && !fields.contains("d"));
        assert!(fields.get("inner").and_then(|inner| inner.get("own")).is_some());
        let text = serde_json::to_string(&fields).unwrap();
        assert_eq!(
            text,
            r#"{"b":2.5,"c":true,"one":"x\"","several":["x\"","y"],"list":[1,2],"inner":{"own":null},"e":"this"}"#
        );
        assert_eq!(json!(fields), serde_json::from_str::<Value>(&text).unwrap());
    }
}

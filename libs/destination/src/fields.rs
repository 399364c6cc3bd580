//! A payload while it is built: JSON objects of a dozen members, whose names are nearly always known at compile time.
//!
//! A list that is searched from its beginning is faster at that size than any map, and a name costs no allocation.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

/// A member's name.
pub type Name = Cow<'static, str>;

/// An object: members in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields(Vec<(Name, Member)>);

/// What stands under a name.
#[derive(Debug, Clone, PartialEq)]
pub enum Member {
    /// Any JSON.
    Value(Value),
    /// An object.
    Object(Fields),
    /// A list.
    List(Vec<Member>),
}

impl Fields {
    /// Sets a member; one that is there gets the new value in its place.
    pub fn insert(&mut self, name: impl Into<Name>, field: impl Into<Member>) {
        let (name, field) = (name.into(), field.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = field,
            None => self.0.push((name, field)),
        }
    }

    /// Sets members that are not there yet, of each name the first; as many as a source cares to send, so that their names are
    /// looked up and not searched for.
    pub fn insert_new<M: Into<Member>>(&mut self, members: impl IntoIterator<Item = (String, M)>) {
        let mut known: HashSet<Name> = self.0.iter().map(|(name, _)| name.clone()).collect();
        for (name, field) in members {
            let name = Name::from(name);
            if known.insert(name.clone()) {
                self.0.push((name, field.into()));
            }
        }
    }

    /// Sets a member that has a value.
    pub fn insert_some(&mut self, name: impl Into<Name>, field: Option<impl Into<Member>>) {
        if let Some(field) = field {
            self.insert(name, field);
        }
    }

    /// The same, for a whole object in one expression.
    #[must_use]
    pub fn with(mut self, name: impl Into<Name>, field: impl Into<Member>) -> Self {
        self.insert(name, field);
        self
    }

    /// A member.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Member> {
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

    /// Whether it has no members.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Member {
    /// A member, if this is an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => fields.get(name),
            Self::Value(_) | Self::List(_) => None,
        }
    }

    /// The value, if it is neither object nor list of ours.
    #[must_use]
    pub const fn as_value(&self) -> Option<&Value> {
        match self {
            Self::Value(value) => Some(value),
            Self::Object(_) | Self::List(_) => None,
        }
    }
}

impl<T: Into<Value>> From<T> for Member {
    fn from(value: T) -> Self {
        Self::Value(value.into())
    }
}

impl From<Fields> for Member {
    fn from(fields: Fields) -> Self {
        Self::Object(fields)
    }
}

impl<T: Into<Self>> FromIterator<T> for Member {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

impl Extend<(Name, Member)> for Fields {
    fn extend<I: IntoIterator<Item = (Name, Member)>>(&mut self, members: I) {
        members.into_iter().for_each(|(name, field)| self.insert(name, field));
    }
}

impl IntoIterator for Fields {
    type Item = (Name, Member);
    type IntoIter = std::vec::IntoIter<(Name, Member)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, field) in &self.0 {
            map.serialize_entry(name, field)?;
        }
        map.end()
    }
}

impl Serialize for Member {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
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
        fields.insert("b", 2.5);
        fields.insert_some("d", None::<String>);
        fields.insert("list", [1, 2].into_iter().collect::<Member>());
        fields.insert("inner", Fields::default().with(String::from("own"), Value::Null));
        fields.remove("a");
        fields.insert_new(
            [("b", "not this"), ("e", "this"), ("e", "nor this")].map(|(n, f)| (n.to_owned(), f)),
        );
        assert_eq!(fields.names().collect::<Vec<_>>(), ["b", "c", "list", "inner", "e"]);
        assert!(fields.contains("c") && !fields.contains("a") && !fields.contains("d"));
        assert!(fields.get("inner").and_then(|inner| inner.get("own")).is_some());
        let text = serde_json::to_string(&fields).unwrap();
        assert_eq!(text, r#"{"b":2.5,"c":true,"list":[1,2],"inner":{"own":null},"e":"this"}"#);
        assert_eq!(json!(fields), serde_json::from_str::<Value>(&text).unwrap());
    }
}

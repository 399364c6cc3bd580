//! JSON without trees: members of an object as borrowed text, scalars read leniently, objects merged as text.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Calls `visit` for each member of the object in `text`, in order; repeated keys come each time.
///
/// # Errors
/// The text is not exactly one JSON object.
pub fn for_each_member<'a>(
    text: &'a str,
    visit: impl FnMut(&str, &'a RawValue),
) -> Result<(), serde_json::Error> {
    struct Members<F>(F);
    impl<'de, F: FnMut(&str, &'de RawValue)> Visitor<'de> for Members<F> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some(Key(key)) = map.next_key()? {
                let value: &RawValue = map.next_value()?;
                (self.0)(&key, value);
            }
            Ok(())
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(Members(visit))?;
    deserializer.end()
}

/// The elements of the array in `text`.
///
/// # Errors
/// The text is not exactly one JSON array, or has more than `limit` elements.
pub fn elements(text: &str, limit: usize) -> Result<Vec<&RawValue>, ElementsError> {
    struct Elements(usize);
    impl<'de> Visitor<'de> for Elements {
        type Value = Option<Vec<&'de RawValue>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            let mut too_many = false;
            while let Some(element) = sequence.next_element::<&RawValue>()? {
                too_many |= found.len() == self.0;
                if !too_many {
                    found.push(element);
                }
            }
            Ok((!too_many).then_some(found))
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found = deserializer.deserialize_seq(Elements(limit)).map_err(|_| ElementsError::NotAnArray)?;
    deserializer.end().map_err(|_| ElementsError::NotAnArray)?;
    found.ok_or(ElementsError::TooMany)
}

/// Why a text's elements cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementsError {
    /// Not an array.
    NotAnArray,
    /// More than the limit.
    TooMany,
}

struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// A value as far as an envelope needs it.
#[derive(Debug, PartialEq)]
pub enum Scalar<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// The digits as they stand.
    Number(&'a str),
    /// Text, unescaped.
    Text(Cow<'a, str>),
    /// An object, an array, or text that cannot be unescaped.
    Other,
}

impl<'a> Scalar<'a> {
    /// Reads a value.
    #[must_use]
    pub fn of(raw: &'a RawValue) -> Self {
        let text = raw.get();
        match text.as_bytes().first() {
            Some(b'"') => unescape(text).map_or(Self::Other, Self::Text),
            Some(b'n') => Self::Null,
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'-' | b'0'..=b'9') => Self::Number(text),
            _ => Self::Other,
        }
    }

    /// The text of a text or number; a whole number loses its `.0` (a float of a dynamic language was meant as an id).
    /// `None` for everything else and for blank text.
    #[must_use]
    pub fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) if !text.trim().is_empty() => Some(text),
            Self::Number(number) => {
                let whole = number.split_once('.').filter(|(_, f)| f.bytes().all(|b| b == b'0'));
                Some(Cow::Borrowed(whole.map_or(number, |(whole, _)| whole)))
            }
            _ => None,
        }
    }
}

/// Text that is worth having, from a value of any kind.
#[must_use]
pub fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    Scalar::of(raw).into_text()
}

fn unescape(quoted: &str) -> Option<Cow<'_, str>> {
    let inner = quoted.get(1..quoted.len().checked_sub(1)?)?;
    if !inner.as_bytes().contains(&b'\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(quoted).ok().map(Cow::Owned)
}

/// Whether the value is an object.
#[must_use]
pub fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// Whether the value says nothing: `null`, `[]` (an empty array of PHP stands for an empty object) or blank text.
#[must_use]
pub fn is_blank(raw: &RawValue) -> bool {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'n') => true,
        Some(b'[') => text[1..].trim_start().starts_with(']'),
        Some(b'"') => text.trim_matches('"').trim().is_empty(),
        _ => false,
    }
}

/// Merges object `under` below object `over`: members of `over` win, objects on both sides are merged, and all other
/// text is taken over unchanged, keys that stand twice included: whoever reads the result decides about them as if nothing
/// had been merged (consent must see a refusal that is repeated as a grant). Neither may be nested deeper than the scan
/// allows.
///
/// # Errors
/// One of the two is not an object.
pub fn merge_objects(over: &str, under: &str) -> Result<String, serde_json::Error> {
    let mut merged = String::with_capacity(over.len() + under.len());
    merge_into(over, under, &mut merged)?;
    Ok(merged)
}

fn merge_into<'a>(over: &'a str, under: &'a str, merged: &mut String) -> Result<(), serde_json::Error> {
    let mut members: Vec<(String, &RawValue, Option<&RawValue>)> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for_each_member(over, |key, value| {
        // Of a key that stands twice the last one counts, and is merged.
        index.insert(key.to_owned(), members.len());
        members.push((key.to_owned(), value, None));
    })?;
    for_each_member(under, |key, value| match index.get(key) {
        Some(&at) => members[at].2 = Some(value),
        None => members.push((key.to_owned(), value, None)),
    })?;
    merged.push('{');
    for (index, (key, value, below)) in members.into_iter().enumerate() {
        if index > 0 {
            merged.push(',');
        }
        merged.push_str(&serde_json::to_string(&key)?);
        merged.push(':');
        match below {
            Some(below) if is_object(value) && is_object(below) => {
                merge_into(value.get(), below.get(), merged)?
            }
            _ => merged.push_str(value.get()),
        }
    }
    merged.push('}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn numbers_become_the_ids_that_their_senders_meant() {
        for (json, expected) in [
            ("42", Some("42")),
            ("42.0", Some("42")),
            ("4.5", Some("4.5")),
            ("12345678901234567890", Some("12345678901234567890")),
            ("\"u_1\"", Some("u_1")),
            (r#""\u0041""#, Some("A")),
            ("\"\"", None),
            ("\"  \"", None),
            ("null", None),
            ("true", None),
            ("{}", None),
        ] {
            assert_eq!(text(&raw(json)).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn keys_written_with_escapes_are_the_same_keys() {
        let mut seen = Vec::new();
        for_each_member(r#"{"us\u0065rId":1,"a":{"b":[2]}}"#, |key, value| {
            seen.push((key.to_owned(), value.get().to_owned()));
        })
        .unwrap();
        assert_eq!(
            seen,
            [("userId".to_owned(), "1".to_owned()), ("a".to_owned(), r#"{"b":[2]}"#.to_owned())]
        );
    }

    #[test]
    fn the_event_wins_over_the_batch_and_inner_objects_are_merged() {
        let merged = merge_objects(
            r#"{"ip":"1.2.3.4","page":{"url":"u"},"n":1.50}"#,
            r#"{"ip":"9.9.9.9","page":{"url":"v","title":"t"},"locale":"de"}"#,
        )
        .unwrap();
        assert_eq!(merged, r#"{"ip":"1.2.3.4","page":{"url":"u","title":"t"},"n":1.50,"locale":"de"}"#);
    }

    #[test]
    fn a_key_that_stands_twice_still_does_after_the_merge() {
        let merged = merge_objects(r#"{"a":1,"a":{"b":2,"b":3}}"#, r#"{"a":{"c":4},"d":5,"d":6}"#).unwrap();
        assert_eq!(merged, r#"{"a":1,"a":{"b":2,"b":3,"c":4},"d":5,"d":6}"#);
    }

    #[test]
    fn an_array_over_the_limit_is_told_apart_from_no_array() {
        assert_eq!(elements("[1,2]", 2).unwrap().len(), 2);
        assert_eq!(elements("[1,2,3]", 2).unwrap_err(), ElementsError::TooMany);
        assert_eq!(elements("{}", 2).unwrap_err(), ElementsError::NotAnArray);
    }
}

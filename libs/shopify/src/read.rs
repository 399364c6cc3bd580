//! A document that may hold anything, read leniently: what is not there, or is of another type than expected, is absent.

use std::borrow::Cow;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde_json::Value;

/// Longest text that is taken; what is longer is cut. Shopify's own limit is 255 characters for most.
pub(crate) const MAX_TEXT_BYTES: usize = 320;

/// A place in the document, which may be empty.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a>(Option<&'a Value>);

impl<'a> Node<'a> {
    pub(crate) const fn of(document: &'a Value) -> Self {
        Self(Some(document))
    }

    pub(crate) fn at(self, key: &str) -> Self {
        Self(self.0.and_then(|value| value.as_object()).and_then(|members| members.get(key)))
    }

    pub(crate) fn items(self) -> impl Iterator<Item = Node<'a>> {
        self.0.and_then(Value::as_array).into_iter().flatten().map(Self::of)
    }

    pub(crate) fn first(self) -> Self {
        Self(self.0.and_then(Value::as_array).and_then(|items| items.first()))
    }

    /// Text, or a number as text: trimmed, without control characters, at most [`MAX_TEXT_BYTES`]; none if nothing is left.
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        self.text_of_at_most(MAX_TEXT_BYTES)
    }

    /// The same with another limit.
    pub(crate) fn text_of_at_most(self, max: usize) -> Option<Cow<'a, str>> {
        let text = match self.0? {
            Value::String(text) => clean(text, max),
            Value::Number(number) => Cow::Owned(number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
        };
        (!text.is_empty()).then_some(text)
    }

    /// Text exactly as it stands there.
    pub(crate) fn raw_text(self) -> Option<&'a str> {
        self.0.and_then(Value::as_str)
    }

    /// An id of Shopify's: digits alone, not zero. They exceed 2^53, hence never through a float.
    pub(crate) fn id(self) -> Option<String> {
        let digits = match self.0? {
            Value::Number(number) => number.as_u64()?.to_string(),
            Value::String(text) => text.trim().to_owned(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
        };
        let is_id = (1..=20).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0');
        is_id.then_some(digits)
    }

    /// A decimal number, from text or a number. Shopify writes money as text, except in a refund's lines.
    pub(crate) fn decimal(self) -> Option<Decimal> {
        match self.0? {
            Value::String(text) => Decimal::from_str(text.trim()).ok(),
            Value::Number(number) => {
                let text = number.to_string();
                Decimal::from_str(&text).or_else(|_| Decimal::from_scientific(&text)).ok()
            }
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    pub(crate) fn count(self) -> Option<u64> {
        self.0.and_then(Value::as_u64)
    }

    pub(crate) fn is_true(self) -> bool {
        self.0.and_then(Value::as_bool) == Some(true)
    }
}

/// Trimmed, without control characters, cut.
pub(crate) fn clean(text: &str, max: usize) -> Cow<'_, str> {
    let text = text.trim();
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(cut(text, max));
    }
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    Cow::Owned(cut(plain.trim(), max).to_owned())
}

/// At most so many bytes, at a character's border.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_there_or_of_another_type_is_absent() {
        let document = json!({"id": 820_982_911_946_154_508_u64, "name": " #1001\u{0} ", "list": [1], "none": null, "yes": "true"});
        let node = Node::of(&document);
        assert_eq!(node.at("id").id().as_deref(), Some("820982911946154508"));
        assert_eq!(node.at("name").text().as_deref(), Some("#1001"));
        assert_eq!(node.at("list").text(), None);
        assert_eq!(node.at("name").at("deeper").at("still").text(), None);
        assert_eq!((node.at("none").items().count(), node.at("yes").is_true()), (0, false));
        assert_eq!(Node::of(&json!("x".repeat(600))).text().unwrap().len(), MAX_TEXT_BYTES);
    }

    #[test]
    fn an_id_is_digits_and_money_is_exact() {
        for none in [json!(0), json!(-5), json!(1.5), json!("#1"), json!("007"), json!(""), json!(null)] {
            assert_eq!(Node::of(&none).id(), None, "{none}");
        }
        assert_eq!(Node::of(&json!("409.94")).decimal().unwrap().to_string(), "409.94");
        assert_eq!(Node::of(&json!(195.67)).decimal().unwrap().to_string(), "195.67");
        for none in [json!("1e400"), json!(1e300), json!("1,5"), json!("NaN"), json!(null), json!([])] {
            assert_eq!(Node::of(&none).decimal(), None, "{none}");
        }
    }
}

//! JSON as text, member by member: amounts stay the decimals that they are, and no number passes through a float.

use rust_decimal::Decimal;

/// An object that is being written.
#[derive(Default)]
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that it takes as JSON.
    pub(crate) fn len(&self) -> usize {
        self.0.len() + 2
    }

    /// A text; absent if there is none.
    pub(crate) fn text(&mut self, key: &str, value: Option<impl AsRef<str>>) -> &mut Self {
        match value {
            Some(value) if !value.as_ref().is_empty() => self.json(key, &quoted(value.as_ref())),
            _ => self,
        }
    }

    /// An amount as a JSON number with all its digits.
    pub(crate) fn amount(&mut self, key: &str, value: Option<Decimal>) -> &mut Self {
        match value {
            Some(value) => self.json(key, &value.to_string()),
            None => self,
        }
    }

    pub(crate) fn count(&mut self, key: &str, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.json(key, &value.to_string()),
            None => self,
        }
    }

    /// An object, unless it is empty.
    pub(crate) fn object(&mut self, key: &str, value: &Self) -> &mut Self {
        if value.is_empty() { self } else { self.json(key, &value.finish()) }
    }

    /// What is JSON already.
    pub(crate) fn json(&mut self, key: &str, json: &str) -> &mut Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&quoted(key));
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    pub(crate) fn finish(&self) -> String {
        format!("{{{}}}", self.0)
    }
}

pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;

    #[test]
    fn amounts_keep_their_digits_and_what_is_absent_is_not_written() {
        let mut object = Object::default();
        object
            .text("a\"b", Some("c\n\"d\""))
            .text("none", None::<&str>)
            .text("blank", Some(""))
            .amount("total", Decimal::from_str("123456789012345678.90").ok())
            .object("empty", &Object::default());
        assert_eq!(object.finish(), r#"{"a\"b":"c\n\"d\"","total":123456789012345678.90}"#);
        assert_eq!(object.len(), object.finish().len());
    }
}

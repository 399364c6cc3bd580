//! Bodies, read in one pass into the tree, with the texts of listed items beside it. Whatever this reader
//! takes, serde_json takes as well and makes the same of it; the tests hold the two against each other. What it
//! does not take is left to serde_json, so that there is one judge of what is malformed, and how much of it.

use std::borrow::Cow;

use super::{Item, Items, Json, Object};

/// Containers inside one another from here on are not followed, as in serde_json.
const MAX_DEPTH: u8 = 127;

/// Digits of a whole number that fits an `i64` whatever they are.
const SAFE_DIGITS: usize = 18;

/// A body that is an object.
pub(crate) struct Body<'a> {
    pub(crate) object: Object<'a>,
    /// For each member that is a list the texts of its items; nothing at all where the texts are not known.
    texts: Vec<Vec<&'a str>>,
}

impl<'a> Body<'a> {
    /// Reads it; none: not an object, or left to serde_json.
    pub(crate) fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader { text: std::str::from_utf8(body).ok()?, at: 0 };
        if reader.next()? != b'{' {
            return None;
        }
        let mut texts = Vec::new();
        let object = reader.object(MAX_DEPTH, |reader, into| {
            let mut own = Vec::new();
            match reader.next()? {
                b'[' => *into = Json::List(reader.list(MAX_DEPTH - 1, |text| own.push(text))?),
                _ => reader.value(MAX_DEPTH - 1, into)?,
            }
            texts.push(own);
            Some(())
        })?;
        reader.skip_spaces();
        (reader.at == body.len()).then_some(Self { object, texts })
    }

    /// An object of whose items the texts are not known.
    pub(crate) const fn without_texts(object: Object<'a>) -> Self {
        Self { object, texts: Vec::new() }
    }

    /// The texts of the items of the list that a protobuf field holds; `null` for each if not so many are known.
    pub(crate) fn proto_texts(&self, camel: &str, count: usize) -> Cow<'_, [&'a str]> {
        let place = self.object.0.iter().rposition(|(key, _)| super::same_proto_field(camel, key));
        match place.and_then(|place| self.texts.get(place)) {
            Some(texts) if texts.len() == count => Cow::Borrowed(texts),
            _ => Cow::Owned(vec!["null"; count]),
        }
    }

    /// Whether one of these names is there more than once.
    pub(crate) fn repeats(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.object.0.iter().filter(|(key, _)| key == name).count() > 1)
    }

    /// Takes the member of that name out, unless it is null.
    pub(crate) fn take(&mut self, name: &str) -> Option<Json<'a>> {
        let member = self.object.0.iter_mut().find(|(key, _)| key == name)?;
        Some(std::mem::replace(&mut member.1, Json::Null)).filter(|value| *value != Json::Null)
    }

    /// Takes the items of that name out, unless there is null.
    pub(crate) fn take_items(&mut self, name: &str) -> Option<Items<'a>> {
        let place = self.object.0.iter().position(|(key, _)| key == name)?;
        Some(match self.take(name)? {
            Json::List(list) => {
                let texts = std::mem::take(&mut self.texts[place]);
                let items = texts.into_iter().zip(list);
                Items::List(items.map(|(text, tree)| Item { text, tree: Some(tree) }).collect())
            }
            _ => Items::Other,
        })
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn skip_spaces(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\t' | b'\r')).count();
    }

    /// The next byte that is no space; it is not passed.
    fn next(&mut self) -> Option<u8> {
        match self.text.as_bytes().get(self.at)? {
            b' ' | b'\n' | b'\t' | b'\r' => {
                self.skip_spaces();
                self.text.as_bytes().get(self.at).copied()
            }
            byte => Some(*byte),
        }
    }

    /// Passes `byte` if it comes next.
    fn pass(&mut self, byte: u8) -> Option<bool> {
        let passed = self.next()? == byte;
        self.at += usize::from(passed);
        Some(passed)
    }

    /// Writes the value where it stays: moving it there took longer than reading it.
    fn value(&mut self, depth: u8, into: &mut Json<'a>) -> Option<()> {
        match self.next()? {
            b'"' => *into = Json::Text(self.string()?),
            b'{' => *into = Json::Object(self.object(depth, |reader, into| reader.value(depth - 1, into))?),
            b'[' => *into = Json::List(self.list(depth, |_| ())?),
            b't' => *into = self.word("true", Json::Flag(true))?,
            b'f' => *into = self.word("false", Json::Flag(false))?,
            b'n' => *into = self.word("null", Json::Null)?,
            _ => *into = self.number()?,
        }
        Some(())
    }

    fn word(&mut self, word: &str, value: Json<'a>) -> Option<Json<'a>> {
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        found.then_some(value)
    }

    /// An object, whose brace comes next.
    fn object(
        &mut self,
        depth: u8,
        mut value: impl FnMut(&mut Self, &mut Json<'a>) -> Option<()>,
    ) -> Option<Object<'a>> {
        if depth == 0 {
            return None;
        }
        self.at += 1;
        let mut members = Vec::new();
        if self.pass(b'}')? {
            return Some(Object(members));
        }
        members.reserve(8);
        loop {
            if self.next()? != b'"' {
                return None;
            }
            let key = self.string()?;
            if !self.pass(b':')? {
                return None;
            }
            members.push((key, Json::Null));
            value(self, &mut members.last_mut()?.1)?;
            if self.pass(b'}')? {
                return Some(Object(members));
            }
            if !self.pass(b',')? {
                return None;
            }
        }
    }

    /// A list, whose bracket comes next; `text` is given the text of each item.
    fn list(&mut self, depth: u8, mut text: impl FnMut(&'a str)) -> Option<Vec<Json<'a>>> {
        if depth == 0 {
            return None;
        }
        self.at += 1;
        let mut list = Vec::new();
        if self.pass(b']')? {
            return Some(list);
        }
        loop {
            self.next()?;
            let start = self.at;
            list.push(Json::Null);
            self.value(depth - 1, list.last_mut()?)?;
            text(&self.text[start..self.at]);
            if self.pass(b']')? {
                return Some(list);
            }
            if !self.pass(b',')? {
                return None;
            }
        }
    }

    /// A text, whose quote comes next.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at + 1;
        let end = start + plain_bytes(&self.text.as_bytes()[start..]);
        match self.text.as_bytes().get(end)? {
            b'"' => {
                self.at = end + 1;
                Some(Cow::Borrowed(&self.text[start..end]))
            }
            b'\\' => self.escaped(end),
            _ => None,
        }
    }

    /// A text with a backslash at `escape`.
    fn escaped(&mut self, mut escape: usize) -> Option<Cow<'a, str>> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        loop {
            // The escape is two bytes at least; what follows of a longer one is plain.
            let end = escape + 2 + plain_bytes(bytes.get(escape + 2..)?);
            match bytes.get(end)? {
                b'"' => {
                    self.at = end + 1;
                    return serde_json::from_str(&self.text[start..self.at]).ok().map(Cow::Owned);
                }
                b'\\' => escape = end,
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<Json<'a>> {
        let rest = &self.text[self.at..];
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let text = &rest[..rest.bytes().take_while(is_part).count()];
        self.at += text.len();
        let digits = text.strip_prefix('-').unwrap_or(text);
        let whole = digits.bytes().all(|byte| byte.is_ascii_digit());
        // `-0` is no whole number, and a zero in front is none at all.
        if whole && (1..=SAFE_DIGITS).contains(&digits.len()) && (!digits.starts_with('0') || text == "0") {
            return text.parse().ok().map(Json::Int);
        }
        serde_json::from_str(text).ok()
    }
}

/// How many bytes come before a quote, a backslash or a control character.
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = u64::from_le_bytes([0x80; 8]);
    // Eight at a time. The high bit is set of each byte that is `byte`, and perhaps of some above the first that is.
    let is = |chunk: u64, byte: u8| {
        let zero = chunk ^ (ONES * u64::from(byte));
        zero.wrapping_sub(ONES) & !zero
    };
    let mut passed = 0;
    for eight in bytes.as_chunks::<8>().0 {
        let chunk = u64::from_le_bytes(*eight);
        let control = chunk.wrapping_sub(ONES * 0x20) & !chunk;
        let found = (is(chunk, b'"') | is(chunk, b'\\') | control) & HIGHS;
        if found != 0 {
            return passed + found.trailing_zeros() as usize / 8;
        }
        passed += 8;
    }
    let rest = &bytes[passed..];
    passed + rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// This reader takes what serde_json takes for an object, and makes the same of it.
    fn agrees(body: &[u8]) -> bool {
        let expected = match serde_json::from_slice::<Json<'_>>(body) {
            Ok(Json::Object(object)) => Some(object),
            _ => None,
        };
        let Some(read) = Body::read(body) else { return expected.is_none() };
        // By their looks: there `-0` is not `0`.
        let same = expected.is_some_and(|expected| format!("{expected:?}") == format!("{:?}", read.object));
        same && read.object.0.iter().zip(&read.texts).all(|((_, value), texts)| match value {
            Json::List(list) => {
                list.len() == texts.len()
                    && list.iter().zip(texts).all(|(item, text)| {
                        serde_json::from_str::<&RawValue>(text).is_ok_and(|raw| raw.get() == *text)
                            && serde_json::from_str::<Json<'_>>(text).is_ok_and(|own| own == *item)
                    })
            }
            _ => texts.is_empty(),
        })
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "(?s).{0,24}".prop_map(Into::into),
            "[ -~]{0,24}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::vec(("[a-z\"é\\\\]{0,9}", inner), 0..6)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn any_body() -> impl Strategy<Value = String> {
        (prop::collection::vec(("[a-z]{0,9}", any_json()), 0..6), any::<bool>()).prop_map(
            |(members, spread)| {
                let body = serde_json::Value::Object(members.into_iter().collect());
                if spread { format!(" {body:#}\r\n\t") } else { body.to_string() }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_json_is_read_as_serde_json_reads_it(body in any_body()) {
            prop_assert!(Body::read(body.as_bytes()).is_some(), "{body}");
            prop_assert!(agrees(body.as_bytes()), "{body}");
        }

        #[test]
        fn what_is_spoilt_is_taken_where_serde_json_takes_it_and_nowhere_else(
            body in any_body(),
            at in any::<prop::sample::Index>(),
            put in prop_oneof![
                any::<u8>(),
                prop::sample::select(br#"{}[]",:\/-+.eE0129tfnu "#.to_vec()),
            ],
            how in 0..3,
        ) {
            let mut body = body.into_bytes();
            let at = at.index(body.len());
            match how {
                0 => body[at] = put,
                1 => body.insert(at, put),
                _ => drop(body.remove(at)),
            }
            prop_assert!(agrees(&body), "{}", String::from_utf8_lossy(&body));
        }
    }

    #[test]
    fn every_turn_of_the_grammar_is_read_as_serde_json_reads_it() {
        let values = [
            "0",
            "-0",
            "00",
            "01",
            "-01",
            "-",
            "+1",
            ".5",
            "1.",
            "1.5",
            "-1.5e-7",
            "1e5",
            "1E+5",
            "1e",
            "1e999",
            "-0.0",
            "1-",
            "1 2",
            "123456789012345678",
            "-123456789012345678",
            "1234567890123456789",
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "true",
            "tru",
            "truee",
            "false",
            "null",
            "nul",
            "None",
            "NaN",
            "Infinity",
            r#""""#,
            r#""a\nb""#,
            r#""\u00e9\"\\\/""#,
            r#""\ud83d\ude00""#,
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\u12""#,
            r#""\x""#,
            r#""\"#,
            r#""é\é""#,
            r#""open"#,
            "\"raw\ttab\"",
            "\"12345678\u{1f}\"",
            "\"\u{7f}\"",
            "\"12345678é\u{20ac}\"",
            "[]",
            "[ ]",
            "[,]",
            "[1,]",
            "[1 2]",
            "[1,[2],[[3]]]",
            "{}",
            r#"{"b":1,"b":2}"#,
            r#"{"b":1,}"#,
            r#"{b:1}"#,
            r#"{"b" 1}"#,
            r#"{"\u0062\n":1}"#,
            "\u{a0}1",
            "\u{c}1",
            "\n\t\r 1 \n",
            "",
            "[",
            "{",
            "]",
        ];
        for value in values {
            for body in [format!("{{\"a\":{value}}}"), format!("{{\"a\":[{value}]}}"), value.to_owned()] {
                assert!(agrees(body.as_bytes()), "{body}");
            }
        }
        for body in ["\u{feff}{}", "{} x", "{}{}", r#"{"a":1,"a":[2]}"#, r#"{"a":1}, "#] {
            assert!(agrees(body.as_bytes()), "{body}");
        }
        assert!(agrees(b"{\"a\":\"\xff\"}") && agrees(b"{\"\xc3\":1}"));
        for depth in 100..140 {
            let nested = format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
            assert!(agrees(nested.as_bytes()), "{depth}");
            let nested = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
            assert!(agrees(nested.as_bytes()), "{depth}");
        }
    }

    #[test]
    fn items_come_with_their_own_texts() {
        let mut body = Body::read(br#"{"n":null,"data":[ {"a": 1} ,2],"x":3}"#).unwrap();
        assert!(!body.repeats(&["n", "data"]));
        assert!(body.take_items("n").is_none() && body.take_items("none").is_none());
        assert!(matches!(body.take_items("x"), Some(Items::Other)));
        assert_eq!(*body.proto_texts("data", 2), [r#"{"a": 1}"#, "2"]);
        assert_eq!(*body.proto_texts("data", 3), ["null"; 3], "of a list of another length");
        let Some(Items::List(items)) = body.take_items("data") else { panic!("not a list") };
        assert_eq!(items.iter().map(|item| item.text).collect::<Vec<_>>(), [r#"{"a": 1}"#, "2"]);
        assert!(items[0].object().is_some() && items[1].tree == Some(Json::Int(2)));
        assert!(Body::read(br#"{"data":1,"data":2}"#).unwrap().repeats(&["x", "data"]));
    }
}

//! Which fields a message may have and of which type: tables that the platforms' modules fill, and one walk
//! over them. The walk knows two dialects: plain JSON, where a text is no number, and protobuf's JSON, where
//! null is absent, a 64-bit number may be a text and an enum a number.

use std::fmt::Write as _;

use crate::json::{Json, Object, same_name, same_proto_field, snake_case};

/// The fields of a message.
pub(crate) struct Message {
    pub(crate) fields: &'static [Field],
    /// Whether other fields may stand beside them.
    pub(crate) open: bool,
}

/// One field of a message.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
}

/// A field that may be absent.
pub(crate) const fn optional(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: false }
}

/// A field that must be there.
pub(crate) const fn required(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: true }
}

/// What a field holds.
pub(crate) enum Kind {
    Anything,
    Text,
    /// A text or a list of texts.
    Texts,
    Number,
    Whole,
    Flag,
    /// Protobuf's double: a number, or a text that is one.
    Double,
    /// Protobuf's whole numbers: a number, or a text that is one.
    Int32,
    Int64,
    /// Protobuf's Timestamp: RFC 3339.
    Stamp,
    /// One of these texts; the name is what an error text calls the type.
    Choice(&'static str, &'static [&'static str]),
    One(&'static Message),
    List(&'static Kind),
}

/// A step from a message to what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Field(&'static str),
    Index(usize),
}

/// Something that does not fit the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Misfit {
    pub(crate) path: Vec<Step>,
    pub(crate) what: What,
}

/// What does not fit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// This name is not in the table. The path is that of the message.
    Unknown(String),
    /// A required field is absent. The path is that of the field.
    Missing,
    /// The field holds something else; what it should hold, and what it holds.
    Wrong { expected: &'static str, shown: String },
}

/// How the walk reads JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Plain,
    Proto,
}

/// Walks `object` and gives everything that does not fit, up to `limit` findings.
pub(crate) fn misfits(
    message: &'static Message,
    object: &Object<'_>,
    dialect: Dialect,
    start: &[Step],
    limit: usize,
) -> Vec<Misfit> {
    let mut walk = Walk { dialect, start, found: Vec::new(), limit };
    walk.message(message, object, None);
    walk.found
}

struct Walk<'a> {
    dialect: Dialect,
    start: &'a [Step],
    found: Vec<Misfit>,
    limit: usize,
}

/// The way from where the walk began, last step first: written down only where something does not fit.
struct Trail<'a> {
    before: Option<&'a Trail<'a>>,
    step: Step,
}

impl Walk<'_> {
    fn report(&mut self, at: Option<&Trail<'_>>, what: What) {
        if self.found.len() < self.limit {
            let mut steps: Vec<Step> =
                std::iter::successors(at, |trail| trail.before).map(|trail| trail.step).collect();
            steps.extend(self.start.iter().rev());
            steps.reverse();
            self.found.push(Misfit { path: steps, what });
        }
    }

    fn message(&mut self, message: &'static Message, object: &Object<'_>, at: Option<&Trail<'_>>) {
        for field in message.fields.iter().filter(|field| field.required) {
            if object.get(field.name).is_none() {
                let trail = Trail { before: at, step: Step::Field(field.name) };
                self.report(Some(&trail), What::Missing);
            }
        }
        for (key, value) in &object.0 {
            if self.found.len() >= self.limit {
                return;
            }
            match message.fields.iter().find(|field| self.names(field.name, key)) {
                Some(field) => {
                    let trail = Trail { before: at, step: Step::Field(field.name) };
                    self.value(&field.kind, value, &trail);
                }
                None if message.open => {}
                None => self.report(at, What::Unknown(key.to_string())),
            }
        }
    }

    fn names(&self, field: &str, key: &str) -> bool {
        match self.dialect {
            Dialect::Plain => same_name(field, key),
            Dialect::Proto => same_proto_field(field, key),
        }
    }

    fn value(&mut self, kind: &'static Kind, value: &Json<'_>, at: &Trail<'_>) {
        if self.dialect == Dialect::Proto && *value == Json::Null {
            return;
        }
        let fits = match (kind, value) {
            (Kind::Anything, _)
            | (Kind::Text, Json::Text(_))
            | (Kind::Number | Kind::Double, Json::Int(_) | Json::Real(_))
            | (Kind::Whole, Json::Int(_))
            | (Kind::Flag, Json::Flag(_)) => true,
            (Kind::Texts, Json::Text(_)) => true,
            (Kind::Texts, Json::List(list)) => list.iter().all(|item| matches!(item, Json::Text(_))),
            (Kind::Double, Json::Text(text)) => text.parse::<f64>().is_ok(),
            (Kind::Int64, Json::Text(text)) => text.parse::<i64>().is_ok(),
            (Kind::Int32, Json::Text(text)) => text.parse::<i32>().is_ok(),
            (Kind::Int64, Json::Int(_)) => true,
            (Kind::Int32, Json::Int(number)) => i32::try_from(*number).is_ok(),
            (Kind::Int64 | Kind::Int32, Json::Real(number)) => number.fract() == 0.0 && number.abs() < 9e15,
            (Kind::Stamp, Json::Text(text)) => text.parse::<jiff::Timestamp>().is_ok(),
            (Kind::Choice(_, values), Json::Text(text)) => values.contains(&text.as_ref()),
            (Kind::Choice(_, values), Json::Int(number)) if self.dialect == Dialect::Proto => {
                usize::try_from(*number).is_ok_and(|number| number < values.len())
            }
            (Kind::One(message), Json::Object(object)) => return self.message(message, object, Some(at)),
            (Kind::List(item), Json::List(list)) => {
                for (index, value) in list.iter().enumerate() {
                    self.value(item, value, &Trail { before: Some(at), step: Step::Index(index) });
                }
                return;
            }
            _ => false,
        };
        if !fits {
            self.report(Some(at), What::Wrong { expected: kind.called(), shown: value.shown() });
        }
    }
}

impl Kind {
    /// What an error text calls the type.
    const fn called(&self) -> &'static str {
        match self {
            Self::Anything => "anything",
            Self::Text => "a string",
            Self::Texts => "a string or a list of strings",
            Self::Number => "a number",
            Self::Whole => "an integer",
            Self::Flag => "a boolean",
            Self::Double => "TYPE_DOUBLE",
            Self::Int32 => "TYPE_INT32",
            Self::Int64 => "TYPE_INT64",
            Self::Stamp => "type.googleapis.com/google.protobuf.Timestamp",
            Self::Choice(name, _) => name,
            Self::One(_) => "an object",
            Self::List(_) => "a list",
        }
    }
}

/// `$['data'][3]['custom_data']`, as Meta writes it.
pub(crate) fn dollar_path(path: &[Step]) -> String {
    let mut text = String::from("$");
    for step in path {
        // Writing to a String cannot fail.
        let _ = match step {
            Step::Field(name) => write!(text, "['{name}']"),
            Step::Index(index) => write!(text, "[{index}]"),
        };
    }
    text
}

/// `conversions[1].user_identifiers`, as Google writes it.
pub(crate) fn dotted_path(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&snake_case(name));
            }
            // Writing to a String cannot fail.
            Step::Index(index) => drop(write!(text, "[{index}]")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    static INNER: Message = Message { fields: &[required("id", Kind::Text)], open: false };
    static OUTER: Message = Message {
        fields: &[
            optional("itemList", Kind::List(&Kind::One(&INNER))),
            optional("count", Kind::Int64),
            optional("mode", Kind::Choice("Mode", &["ZERO", "ONE"])),
        ],
        open: false,
    };

    fn walk(text: &str, dialect: Dialect) -> Vec<(String, What)> {
        let Json::Object(object) = serde_json::from_str(text).unwrap() else { panic!("not an object") };
        misfits(&OUTER, &object, dialect, &[], 10)
            .into_iter()
            .map(|m| (dotted_path(&m.path), m.what))
            .collect()
    }

    #[test]
    fn every_misfit_has_its_path() {
        let found = walk(r#"{"itemList":[{"id":"a"},{"id":1},{"idd":"x"}],"other":1}"#, Dialect::Plain);
        assert_eq!(
            found,
            [
                ("item_list[1].id".to_owned(), What::Wrong { expected: "a string", shown: "1".to_owned() }),
                ("item_list[2].id".to_owned(), What::Missing),
                ("item_list[2]".to_owned(), What::Unknown("idd".to_owned())),
                (String::new(), What::Unknown("other".to_owned())),
            ]
        );
    }

    #[test]
    fn protobufs_json_takes_both_names_null_and_numbers_as_text() {
        let text = r#"{"item_list":null,"count":"12","mode":1}"#;
        assert_eq!(walk(text, Dialect::Proto), []);
        assert_eq!(walk(r#"{"count":"x","mode":7}"#, Dialect::Proto).len(), 2);
    }

    #[test]
    fn metas_paths_are_written_with_dollar_and_brackets() {
        let path = [Step::Field("data"), Step::Index(3), Step::Field("custom_data")];
        assert_eq!(dollar_path(&path), "$['data'][3]['custom_data']");
    }
}

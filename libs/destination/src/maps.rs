//! The expressions of a connection document, compiled once when it is opened: `filter`, `names`, `fields`.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde_json::Value;
use tracklayer_expression::{Budget, Fault, Outcome, Program, Rules, Type, compile, together};

use crate::commerce::{decimal_of, number};
use crate::connection::looks_personal;
use crate::deliverable::Deliverable;
use crate::document::{Kind, MapTarget, SettingsError, SettingsErrors};
use crate::google::action;
use crate::json::Json;
use crate::mapping::folded;
use crate::outcome::{Note, Skip, SkipReason};
use crate::overlay::Overlay;
use crate::person;
use crate::places::{Reader, may_read};

/// Most expressions in `fields`.
pub const MAX_FIELDS: usize = 32;
/// Most expressions in `names`.
pub const MAX_NAMES: usize = 64;

/// Fields of an order that an expression may give.
const AMOUNTS: [&str; 4] = [VALUE, "discount", "tax", "shipping"];
const TEXTS: [&str; 5] = ["order_id", "currency", "coupon", "query", "affiliation"];
/// Fields that every kind with fields sends.
const SENT_BY_ALL: [&str; 11] = [
    VALUE,
    ORDER_ID,
    "currency",
    "email",
    "phone",
    "first_name",
    "last_name",
    "city",
    "state",
    "postal_code",
    "country",
];
/// Custom names that are built from the order and its products, and that a platform needs there.
const BUILT: [&str; 8] =
    ["value", "currency", "order_id", "transaction_id", "items", "contents", "content_ids", "content_type"];
/// What an event is worth: no field of `field_map`, since `value_from` says it there.
const VALUE: &str = "value";
const ORDER_ID: &str = "order_id";

/// The compiled expressions.
#[derive(Debug)]
pub struct Maps {
    filter: Option<Program>,
    /// By folded name.
    names: BTreeMap<String, Program>,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    name: Arc<str>,
    known: Option<&'static str>,
    holds: Holds,
    program: Program,
}

/// What a field takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// A text of a person, which is normalised and hashed.
    Person,
    /// A text of where a person lives, which goes out as it is at some platforms.
    Place,
    /// A text.
    Text,
    /// A number.
    Amount,
    /// Whatever is no list and no object.
    Custom,
}

impl Holds {
    const fn gives(self) -> &'static [Type] {
        match self {
            Self::Person | Self::Place | Self::Text => &[Type::Text, Type::Number],
            Self::Amount => &[Type::Number],
            Self::Custom => &[Type::Text, Type::Number, Type::Bool],
        }
    }

    const fn reader(self) -> Reader {
        match self {
            Self::Person => Reader::Person,
            Self::Place => Reader::Place,
            Self::Text | Self::Amount | Self::Custom => Reader::Field,
        }
    }
}

impl Maps {
    /// Compiles a document's expressions; none: it has none. What is wrong with the document's form is said by whoever opens it.
    ///
    /// # Errors
    /// Everything that is wrong with them, each with its path.
    pub fn compile(kind: Kind, document: &Value) -> Result<Option<Self>, SettingsErrors> {
        let mut errors = Vec::new();
        let filter = document.get("filter").and_then(Value::as_str);
        let (names, fields) = (texts(document, "names"), texts(document, "fields"));
        if filter.is_none() && names.is_empty() && fields.is_empty() {
            return Ok(None);
        }
        let counts = [("names", names.len(), MAX_NAMES), ("fields", fields.len(), MAX_FIELDS)];
        for (key, count, most) in counts.into_iter().filter(|(_, count, most)| count > most) {
            errors.push(SettingsError::new(
                key,
                format!("has {count} expressions, at most {most} are allowed"),
            ));
        }
        if !errors.is_empty() {
            return Err(SettingsErrors(errors));
        }
        let compiling = || Self::compile_all(kind, document, filter, names, fields);
        together(compiling)
            .map_err(|error| {
                let may_pass = error.may_pass;
                SettingsErrors(vec![SettingsError { may_pass, ..SettingsError::new("", error.to_string()) }])
            })?
            .map(Some)
    }

    fn compile_all(
        kind: Kind,
        document: &Value,
        filter: Option<&str>,
        names: Vec<(&str, &str)>,
        fields: Vec<(&str, &str)>,
    ) -> Result<Self, SettingsErrors> {
        let mut errors = Vec::new();
        let maps = Self {
            filter: filter
                .and_then(|text| compiled("filter", text, &[Type::Bool], Reader::Choice, &mut errors)),
            names: names
                .into_iter()
                .filter_map(|(name, text)| {
                    Some((folded(name), name_map(kind, document, name, text, &mut errors)?))
                })
                .collect(),
            fields: fields
                .into_iter()
                .filter_map(|(name, text)| field(kind, document, name, text, &mut errors))
                .collect(),
        };
        if errors.is_empty() { Ok(maps) } else { Err(SettingsErrors(errors)) }
    }

    /// Whether the filter lets an event pass.
    ///
    /// # Errors
    /// It does not, or cannot say.
    pub fn check_filter(&self, event: &Deliverable) -> Result<(), Skip> {
        let Some(filter) = &self.filter else { return Ok(()) };
        let why = match filter.evaluate(event) {
            Ok(Outcome::Bool(true)) => return Ok(()),
            Ok(Outcome::Bool(false)) => "the expression of `filter` gives false".to_owned(),
            // Nothing is no yes.
            Ok(Outcome::Null) => return Err(failed("filter", Fault::Absent)),
            Ok(Outcome::Number(_) | Outcome::Text(_)) => return Err(failed("filter", Fault::Type)),
            Err(fault) => return Err(failed("filter", fault)),
        };
        Err(Skip { reason: SkipReason::Filter, detail: why })
    }

    /// The name that an expression chooses for an event; none: no expression is for it.
    ///
    /// # Errors
    /// It chooses none, or cannot say.
    pub fn choose_name(&self, event: &Deliverable, budget: &mut Budget) -> Result<Option<MapTarget>, Skip> {
        let Some(program) = self.names.get(event.folded_name()) else { return Ok(None) };
        let path = || format!("names.{}", event.folded_name());
        match program.evaluate_within(event, budget) {
            Ok(Outcome::Text(name)) => Ok(Some(MapTarget::Name(name.into_owned()))),
            Ok(Outcome::Null) => {
                let detail = format!("the expression of `{}` gives null", path());
                Err(Skip { reason: SkipReason::Unmapped, detail })
            }
            Ok(Outcome::Bool(_) | Outcome::Number(_)) => Err(failed(&path(), Fault::Type)),
            // Nobody can say which name it is: whoever does not mean the event says so by null.
            Err(fault) => Err(Skip { reason: SkipReason::ExpressionFailed, ..failed(&path(), fault) }),
        }
    }

    /// The places of the fields for which an event gives nothing that could be computed with: it does not have it, or null is said.
    pub fn without_value(&self, event: &Deliverable) -> impl Iterator<Item = String> {
        let nothing =
            |field: &&Field| matches!(field.program.evaluate(event), Ok(Outcome::Null) | Err(Fault::Absent));
        self.fields.iter().filter(nothing).map(|field| format!("fields.{}", field.name))
    }

    /// The places of all fields.
    pub fn field_places(&self) -> impl Iterator<Item = String> {
        self.fields.iter().map(|field| format!("fields.{}", field.name))
    }

    /// Whether an expression gives the order's id.
    #[must_use]
    pub fn give_order_id(&self) -> bool {
        self.fields.iter().any(|field| &*field.name == ORDER_ID)
    }

    /// Evaluates the fields into an overlay. Of those that fail, a note tells why; what the event does not have is no failure.
    pub fn fill(
        &self,
        event: &Deliverable,
        overlay: &mut Overlay,
        notes: &mut Vec<Note>,
        budget: &mut Budget,
    ) {
        for field in &self.fields {
            let given = field.program.evaluate_within(event, budget).and_then(|outcome| field.take(&outcome));
            let given = given.unwrap_or_else(|fault| {
                if fault != Fault::Absent {
                    notes.push(Note::of_expression(&field.name, field.known, fault));
                }
                None
            });
            match given {
                Some(Given::Amount(amount)) if &*field.name == VALUE => overlay.set_value(Some(amount)),
                None if &*field.name == VALUE => overlay.set_value(None),
                Some(Given::Amount(amount)) => overlay.set(&field.name, Some(number(amount))),
                Some(Given::Value(value)) => overlay.set(&field.name, Some(value)),
                None => overlay.set(&field.name, None),
            }
        }
    }
}

/// What a field takes of an outcome.
enum Given {
    Amount(Decimal),
    Value(Value),
}

impl Field {
    fn take(&self, outcome: &Outcome<'_>) -> Result<Option<Given>, Fault> {
        Ok(Some(match (self.holds, outcome) {
            (_, Outcome::Null) => return Ok(None),
            (Holds::Amount, Outcome::Number(amount)) => Given::Amount(*amount),
            (Holds::Amount, Outcome::Text(text)) => {
                Given::Amount(decimal_of(Json::Text(text)).ok_or(Fault::Type)?)
            }
            (Holds::Custom, Outcome::Number(amount)) => Given::Value(number(*amount)),
            (Holds::Custom, Outcome::Bool(value)) => Given::Value(Value::Bool(*value)),
            // Put together from pieces that looked like nothing: no platform takes it plain.
            (Holds::Place | Holds::Text | Holds::Custom, Outcome::Text(text))
                if looks_personal(Json::Text(text)) =>
            {
                return Err(Fault::Personal);
            }
            (_, Outcome::Text(text)) => Given::Value(Value::String(text.clone().into_owned())),
            // As it is written: a postal code is no amount.
            (Holds::Person | Holds::Place | Holds::Text, Outcome::Number(number)) => {
                Given::Value(Value::String(number.to_string()))
            }
            (Holds::Person | Holds::Place | Holds::Text | Holds::Amount, Outcome::Bool(_)) => {
                return Err(Fault::Type);
            }
        }))
    }
}

fn failed(path: &str, fault: Fault) -> Skip {
    // To compare with what an event does not have is no mistake: the event is not one of those that are meant.
    let reason = if fault == Fault::Absent { SkipReason::Filter } else { SkipReason::ExpressionFailed };
    Skip { reason, detail: format!("`{path}`: {fault} ({})", fault.code()) }
}

/// The texts of an object in the document.
fn texts<'d>(document: &'d Value, key: &str) -> Vec<(&'d str, &'d str)> {
    let object = document.get(key).and_then(Value::as_object);
    object.into_iter().flatten().filter_map(|(name, text)| Some((name.as_str(), text.as_str()?))).collect()
}

fn compiled(
    path: &str,
    text: &str,
    gives: &[Type],
    reader: Reader,
    errors: &mut Vec<SettingsError>,
) -> Option<Program> {
    let may_read = |place: &[String]| may_read(reader, place);
    let rules = Rules { gives, reads_persons: reader == Reader::Person, may_read: &may_read };
    compile(text, &rules).map_err(|error| errors.push(SettingsError::new(path, error.to_string()))).ok()
}

fn name_map(
    kind: Kind,
    document: &Value,
    name: &str,
    text: &str,
    errors: &mut Vec<SettingsError>,
) -> Option<Program> {
    let path = format!("names.{name}");
    let mapped = document.get("event_map").and_then(Value::as_object);
    if mapped.is_some_and(|map| map.keys().any(|key| folded(key) == folded(name))) {
        errors.push(SettingsError::new(path, "stands in event_map as well; say it in one of both"));
        return None;
    }
    let program = compiled(&path, text, &[Type::Text], Reader::Choice, errors)?;
    let Some(choices) = program.choices() else {
        let why = "must choose between names that are written in it, as in `properties.is_new ? \"FirstPurchase\" : \"Purchase\"`";
        errors.push(SettingsError::new(path, why));
        return None;
    };
    let is_google = matches!(kind, Kind::GoogleDataManager | Kind::GoogleAds);
    let wrong = choices.iter().flatten().find(|choice| {
        choice.trim().is_empty() || choice.trim() != **choice || (is_google && !action::is_id(choice))
    });
    if let Some(wrong) = wrong {
        let what = if is_google {
            "the id of a conversion action (digits)"
        } else {
            "a name without spaces around it"
        };
        errors.push(SettingsError::new(path, format!("chooses `{wrong}`, which must be {what}")));
        return None;
    }
    if is_google && folded(name) == tracklayer_event::commerce::ORDER_COMPLETED {
        let why =
            "must be one conversion action, since refunds change the conversion there: say it in event_map";
        errors.push(SettingsError::new(path, why));
        return None;
    }
    Some(program)
}

fn field(
    kind: Kind,
    document: &Value,
    name: &str,
    text: &str,
    errors: &mut Vec<SettingsError>,
) -> Option<Field> {
    let path = format!("fields.{name}");
    if kind.custom_prefix().is_none() {
        let why = format!("has no use here: {kind} gets events as they are; `filter` and `names` work");
        errors.push(SettingsError::new(path, why));
        return None;
    }
    let Some((known, holds)) = holds_of(kind, name) else {
        let custom = kind.custom_prefix().map(|p| format!(", or custom ones `{p}…`")).unwrap_or_default();
        let all = AMOUNTS.into_iter().chain(TEXTS).chain(person::FIELDS).collect::<Vec<_>>().join(", ");
        errors.push(SettingsError::new(
            path,
            format!("is not a field for expressions; those are {all}{custom}"),
        ));
        return None;
    };
    if holds == Holds::Custom
        && let Some(why) = unfit_custom_name(kind, name)
    {
        errors.push(SettingsError::new(path, why));
        return None;
    }
    for other in ["field_map", "constants"] {
        if document.get(other).and_then(|map| map.get(name)).is_some() {
            errors
                .push(SettingsError::new(path, format!("stands in {other} as well; say it in one of both")));
            return None;
        }
    }
    if known.is_some_and(|known| !is_sent(kind, known)) {
        let sent = fields_of(kind).join(", ");
        let prefix = kind.custom_prefix().unwrap_or_default();
        let why = format!("is no field that {kind} sends; those are {sent}, and custom ones `{prefix}…`");
        errors.push(SettingsError::new(path, why));
        return None;
    }
    let program = compiled(&path, text, holds.gives(), holds.reader(), errors)?;
    Some(Field { name: name.into(), known, holds, program })
}

/// Why a custom field cannot have this name.
fn unfit_custom_name(kind: Kind, name: &str) -> Option<String> {
    let own = name.strip_prefix(kind.custom_prefix()?)?;
    if BUILT.contains(&own) {
        return Some("is built from the order and its products; `value`, `currency` and `order_id` have fields of their own".to_owned());
    }
    let is_id = own.bytes().all(|byte| byte.is_ascii_digit());
    (kind == Kind::GoogleAds && !is_id).then(|| "must name the custom variable by its id (digits)".to_owned())
}

/// Whether a kind sends a field: an expression for one that nobody reads would hold nothing back of what the event has there.
fn is_sent(kind: Kind, field: &str) -> bool {
    let others: &[&str] = match kind {
        Kind::MetaCapi => &["query", "gender", "birth_date"],
        Kind::TiktokEvents => &["query"],
        Kind::Ga4Mp => &["tax", "shipping", "coupon", "affiliation", "query", "street"],
        Kind::GoogleDataManager | Kind::GoogleAds => &["discount", "street"],
        Kind::Webhook | Kind::Warehouse => return false,
    };
    SENT_BY_ALL.contains(&field) || others.contains(&field)
}

/// The fields of a kind that expressions may give, custom ones apart.
#[must_use]
pub fn fields_of(kind: Kind) -> Vec<&'static str> {
    let all = AMOUNTS.into_iter().chain(TEXTS).chain(person::FIELDS);
    all.filter(|field| is_sent(kind, field)).collect()
}

fn holds_of(kind: Kind, name: &str) -> Option<(Option<&'static str>, Holds)> {
    let known = |list: &[&'static str]| list.iter().copied().find(|known| *known == name);
    if let Some(known) = known(&AMOUNTS) {
        return Some((Some(known), Holds::Amount));
    }
    if let Some(known) = known(&TEXTS) {
        return Some((Some(known), Holds::Text));
    }
    if let Some(known) = known(&person::FIELDS) {
        let holds = if person::PLACES.contains(&known) { Holds::Place } else { Holds::Person };
        return Some((Some(known), holds));
    }
    let prefix = kind.custom_prefix()?;
    (name.len() > prefix.len() && name.starts_with(prefix)).then_some((None, Holds::Custom))
}
